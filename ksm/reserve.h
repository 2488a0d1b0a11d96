/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reserve.h: a guard against the storm. Merged memory is a loan: guests may write to all of their
 * shared pages at once, and each write takes a page of the host's memory back. The reserve is what
 * must stay available for that, sized from how fast pages break and from how long it takes until
 * something is done about it.
 *
 * All of it is arithmetic over readings that the caller makes: no clock, no thread, no lock, no
 * system call. One thread owns a struct ksm_reserve. All sizes are bytes, all times ns.
 */
#ifndef OVERBOOK_KSM_RESERVE_H
#define OVERBOOK_KSM_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

/* 0: the default of each, below. */
struct ksm_reserve_opts {
	uint64_t rate_min; /* bytes a second: reckoned with before any storm was seen */
	uint64_t rate_max; /* bytes a second: what this host can break at most, if it comes to it */
	uint64_t half_ns;  /* a rate that was measured counts half after so long */
	uint64_t look_min_ns, look_max_ns; /* between two readings */
};
#define KSM_RESERVE_RATE_MIN (256ULL << 20) /* a CPU's worth: 15 us a break */
#define KSM_RESERVE_RATE_MAX (1024ULL << 20)
#define KSM_RESERVE_HALF_NS  30000000000ULL
#define KSM_RESERVE_LOOK_MIN 2000000ULL
#define KSM_RESERVE_LOOK_MAX 100000000ULL

/* The host at one moment. */
struct ksm_reserve_reading {
	uint64_t available; /* what the host could still give, without swapping */
	uint64_t own;	    /* what the guests hold of their own: rises by a page with each break */
	uint64_t could;	    /* what they could come to hold besides, if they wrote everywhere */
};

enum ksm_reserve_state {
	KSM_RESERVE_OK,
	KSM_RESERVE_LOW,  /* less than two reserves are left: reclaim */
	KSM_RESERVE_GONE, /* less than one: reclaim comes too late, nobody may break any more */
};

/*
 * Called with the bytes that are wanted; returns how many of them will be available within the
 * reaction time, 0 when it can do nothing. It must not call back.
 */
typedef uint64_t (*ksm_reserve_fn)(void *arg, uint64_t wanted);

struct ksm_reserve {
	struct ksm_reserve_opts opts;
	ksm_reserve_fn on_low;
	void *arg;
	/* What the last step has found. */
	enum ksm_reserve_state state;
	uint64_t available, could;
	uint64_t bytes;	   /* the reserve now */
	uint64_t react_ns; /* the time that it is for */
	uint64_t unmet;	   /* bytes wanted that nobody has promised */
	uint64_t look_ns;  /* read again after so long */
	bool clear;	   /* so much is available that who was held up may go on */
	/* Over all steps so far. */
	uint64_t bytes_max, available_min; /* available_min: UINT64_MAX before the first step */
	uint64_t rate_peak;		   /* bytes a second */
	uint64_t low_ns;		   /* not ok */
	uint64_t calls, promised;	   /* of the hook; bytes */
	/* Inside. */
	bool seen;
	uint64_t last_ns, window_ns, window_own;
	uint64_t asked_ns, owed;      /* when the hook was last asked; what it promised then */
	double rate, late_ns, act_ns; /* peaks, decaying */
};

void ksm_reserve_init(struct ksm_reserve *r, const struct ksm_reserve_opts *opts);
/* What is done when it is low; NULL: nothing, all that is wanted stays unmet. */
void ksm_reserve_on_low(struct ksm_reserve *r, ksm_reserve_fn fn, void *arg);
/* Take a reading of the moment @now_ns, which does not go back. */
enum ksm_reserve_state ksm_reserve_step(struct ksm_reserve *r, uint64_t now_ns,
					const struct ksm_reserve_reading *in);
/* Somebody was held up, and it took so long until he stood: part of the reaction time now. */
void ksm_reserve_acted(struct ksm_reserve *r, uint64_t ns);

/*
 * The last resort, and the default action as long as nobody reclaims: those who break stand still.
 * A *breaker* is what can be held up by itself (a cell, a guest). All 0 at first.
 */
struct ksm_breaker {
	uint64_t own; /* in: as in the reading */
	bool absent;  /* in: it is gone, or has not begun */
	bool stands;  /* out: it is to stand still */
	/* Inside. */
	bool seen;
	uint64_t window_ns, window_own;
	uint64_t since_ns; /* stands, or goes, since then */
	double rate;	   /* bytes a second, a decaying peak */
};

/*
 * After each step: who is to stand still? Changes `stands` and returns how many changed; the caller
 * sees to it. When low, and something is wanted that nobody promises: the fastest breakers until
 * the rest fits; when gone, all. Once it is clear they go on one after the other, who stood longest
 * first, each a reaction time after the one before; where all stand, one goes on as soon as it is
 * ok.
 */
unsigned int ksm_reserve_throttle(struct ksm_reserve *r, uint64_t now_ns, struct ksm_breaker *b,
				  unsigned int n);

#endif
