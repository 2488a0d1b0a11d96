/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset.h: a part of ept's public interface: how much of its memory a guest uses, by sampling.
 *
 * Each period n pages are chosen at random among all pages of the guest and watched for one period.
 * The part of them that was touched is, within a known error, the part of all pages that was: the
 * working set over one period. Which pages it is made of nobody learns, and nobody has to. The
 * method is that of VMware ESX: Waldspurger, "Memory Resource Management in VMware ESX Server",
 * OSDI 2002, section 5.3. What is different here and what it costs: docs/working-set.md.
 *
 * How a page is watched depends on what it is. A private page is taken out (ept_take) and comes
 * back by the fault of whoever touches it. Of a shared and of a zero page the entry in the page
 * tables is emptied (ept_zap), and the page map tells whether it was filled again. An untouched
 * page has been touched when it is that no longer; one that is away already (in a tier, in the
 * balloon) when it has come back. Where 2 MiB units are backed huge the unit is the sample. So
 * nothing is ever unshared by sampling, and no huge page is split.
 *
 * Not thread-safe: whoever has a struct ept_wset calls these functions one at a time. Reading takes
 * no system call and never waits for the guest.
 */
#ifndef OVERBOOK_EPT_WSET_H
#define OVERBOOK_EPT_WSET_H

#include "kernel/kernel.h"

struct ept;

/* ESX takes 100 pages every 30 s. With 100 what one period counts is more than 5 points off in up
 * to a third of all periods, with 400 in one of twenty at worst; so 400 is the default. */
#define EPT_WSET_SAMPLES     400
#define EPT_WSET_MIN_SAMPLES 10
#define EPT_WSET_MAX_SAMPLES 10000
#define EPT_WSET_PERIOD_NS   (30 * OB_NS_PER_SEC)
#define EPT_WSET_MIN_PERIOD  (100 * OB_NS_PER_MS)
#define EPT_WSET_MAX_PERIOD  (86400 * OB_NS_PER_SEC)
/* What a period weighs in the two averages. ESX's numbers are not published: these are assumed. */
#define EPT_WSET_SLOW 0.2
#define EPT_WSET_FAST 0.5
/* So often within a period it is counted who has been touched by then. */
#define EPT_WSET_LOOKS 8
/* Pages in a unit of 2 MiB. */
#define EPT_WSET_UNIT 512

struct ept_wset_opts {
	unsigned int samples; /* n, EPT_WSET_MIN_SAMPLES to EPT_WSET_MAX_SAMPLES */
	uint64_t period_ns;   /* EPT_WSET_MIN_PERIOD to EPT_WSET_MAX_PERIOD */
	double slow, fast;    /* gains: 0 < slow <= fast <= 1 */
	uint64_t seed;	      /* the same seed draws the same pages */
	/*
	 * Is the 2 MiB unit that begins at @page backed by a huge page? NULL: none ever is. Called
	 * for each whole unit of the guest at the beginning of a period, and again before something
	 * is taken from one. Without locks held.
	 */
	bool (*unit_is_huge)(void *arg, uint64_t page);
	void *huge_arg;
};
/* All of them as above, seed 1, nothing huge. */
struct ept_wset_opts ept_wset_defaults(void);

/* Kinds of memory, which are counted apart and put together by how much there is of each. */
enum ept_wset_part_kind {
	EPT_WSET_OWN,	 /* 4 KiB pages that are not shared */
	EPT_WSET_SHARED, /* 4 KiB pages that are */
	EPT_WSET_HUGE,	 /* 2 MiB units: a touch of any of its pages counts the unit */
	EPT_WSET_NPARTS,
};

struct ept_wset_part {
	uint64_t of; /* pages, or units, that there were when the period began, as far as the map
		      * had heard (a sync finds more): so n may be a little larger */
	unsigned int n, t; /* of them sampled, and of these touched */
};

/* What a period counted. */
struct ept_wset_period {
	uint64_t number;	     /* from 1; 0: there was none yet */
	uint64_t began_ns, ended_ns; /* by the caller's clock */
	struct ept_wset_part part[EPT_WSET_NPARTS];
	double fraction;		/* of all pages: touched, not smoothed */
	double error;			/* its standard error */
	double low, high;		/* 95 % of intervals computed so hold the true fraction */
	unsigned int refused, left_out; /* could not be sampled: draws, and places left empty */
	uint64_t windows;		/* 2 MiB windows whose faults came to us, at the most */
};

/* Smoothed, at the moment of the last look. */
struct ept_wset_reading {
	uint64_t pages;	     /* the working set; 0 before there is anything to tell */
	double fraction;     /* the same as a part of the guest's pages */
	uint64_t pages_4k;   /* what of it lies in 4 KiB pages, */
	uint64_t pages_2m;   /* and in 2 MiB units */
	uint64_t fast, slow; /* the two averages that it is the maximum of, in pages */
	uint64_t guest;	     /* pages of the guest */
	uint64_t period_ns;  /* as asked for */
	struct ept_wset_period last;
	struct ept_wset_part now[EPT_WSET_NPARTS]; /* the period under way, so far */
	uint64_t cpu_ns;			   /* of the sampler, since it was made */
	uint64_t handler_cpu_ns;		   /* of the guest's fault handler in that time */
	int err; /* -errno: why it cannot sample (-EPERM: no userfaultfd for KVM); else 0 */
};

/* An average that rises at once and falls slowly. */
struct ept_wset_avg {
	double slow, fast;
	bool any; /* there was a period */
};

struct ept_wset_sample;
struct ept_wset_ops;

struct ept_wset {
	const struct ept_wset_ops *ops; /* of ept, or of a test */
	void *arg;
	struct ob_arena *arena;
	struct ept_wset_opts opts;
	uint64_t pages;
	uint64_t *huge; /* bit u: unit u was huge when this period began; NULL: none ever is */
	/* The draw: the next ones of two permutations. */
	uint64_t key, next_page, next_unit;
	/* The period under way. */
	enum { EPT_WSET_DRAW, EPT_WSET_TAKE, EPT_WSET_WATCH } phase;
	struct ept_wset_sample *sample; /* [opts.samples]; [0, kept) are watched */
	unsigned int counted, kept;	/* of those watched, the first ones are done with */
	unsigned int next, drawn;	/* [next, drawn) have been drawn, and not looked at */
	unsigned int want_4k, want_2m;
	unsigned int rounds, looks;
	struct ept_wset_period now;
	/* What came out. */
	struct ept_wset_period last;
	struct ept_wset_avg avg_4k, avg_2m;
	uint64_t cpu_ns, handler_cpu_ns, handler_cpu_t0;
	int err;
};

/*
 * Sample the guest of @e, which must outlive it. Nothing happens before the first step. -EINVAL: an
 * option makes no sense. Memory: 12 bytes a sample and a bit a unit, from the ept's arena.
 */
int ept_wset_init(struct ept_wset *w, struct ept *e, const struct ept_wset_opts *o);
/*
 * Do what there is to do at @now_ns, a batch at most; returns in how many ns it wants to be called
 * again (0: at once). Being late makes a period longer and loses nothing. @now_ns may be any clock
 * that does not go back: ESX's is the time that the VM has run, so that a VM which waits for a CPU
 * does not look idle; a caller who can tell that time may pass it.
 */
uint64_t ept_wset_step(struct ept_wset *w, uint64_t now_ns);
/* Put back what is out and forget the period under way; the averages stay. The next step begins
 * another one. For whoever wants the guest as it is, without our pages missing in it. */
void ept_wset_withdraw(struct ept_wset *w);
/* The same, and give back what it holds. */
void ept_wset_exit(struct ept_wset *w);
void ept_wset_read(const struct ept_wset *w, struct ept_wset_reading *out);

/* --- the arithmetic, pure: wset_est.c --------------------------------------------------------- */

/* The touched part of what [first, last] of the parts are made of, as far as it was sampled: 0 to
 * 1. */
double ept_wset_fraction(const struct ept_wset_part *part, enum ept_wset_part_kind first,
			 enum ept_wset_part_kind last);
/* Work out fraction, error, low and high of a period from its parts. */
void ept_wset_sum_up(struct ept_wset_period *p);

/* A period is over, and @f of the pages were touched. */
void ept_wset_avg_add(struct ept_wset_avg *a, double slow, double fast, double f);
/* The estimate, when in the period under way @f_now have been touched by now (0: it just began). */
double ept_wset_avg_get(const struct ept_wset_avg *a, double fast, double f_now);
/* Standard error of t / n when n of @of were drawn without repetition. 0 when n is 0 or all. */
double ept_wset_error(uint64_t t, uint64_t n, uint64_t of);
/* Wilson's interval for the true fraction (z = 1.96: 95 %), the finite population considered. */
void ept_wset_interval(uint64_t t, uint64_t n, uint64_t of, double z, double *low, double *high);

#endif
