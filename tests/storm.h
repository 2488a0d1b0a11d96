/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.h: merging in a thread of its own beside guests that run `remerge`, with everything else
 * that changes guest memory in further threads, each of which checks what it sees.
 */
#ifndef OVERBOOK_TESTS_STORM_H
#define OVERBOOK_TESTS_STORM_H

#include "tests/rig.h"
#include "workloads/remerge.h"

#define STORM_PAGES (RIG_MEM / OB_PAGE_SIZE)

enum storm_part {
	STORM_MERGE = 1,   /* the scanner */
	STORM_REAP = 2,	   /* the coordinator's reaper */
	STORM_TAKE = 4,	   /* ept_take and ept_put_back of random stretches */
	STORM_DISCARD = 8, /* the balloon, over pages that it gives content to, and verifies */
	STORM_PROBE = 16,  /* ept_zap, ept_sync, ept_verify */
	STORM_ALL = 31,
};
#define STORM_PARTS 5

struct storm {
	struct rig rig;
	unsigned int parts;
	pthread_t thread[STORM_PARTS];
	/* Held for each turn of a part; a guest is changed under all of them. */
	struct storm_turn {
		pthread_mutex_t lock;
		_Atomic unsigned int wanted; /* somebody waits for it: let him */
	} turn[STORM_PARTS];
	_Atomic bool stop;
	_Atomic uint64_t taken, discarded, filled, checked; /* pages, by take and by discard */
	_Atomic uint64_t probed;			    /* verifies */
	const char *_Atomic failed;			    /* what a part found wrong, the first */
	_Atomic int64_t failed_with; /* and the -errno of it, if there was one */
	/* What discard has put into the pages that no guest uses: 0 nothing, else a value and 1. */
	uint8_t holds[RIG_GUESTS][STORM_PAGES];
};

/* The rig is made by the caller, and its guests are started. */
void storm_begin(struct storm *s, unsigned int parts);
/* Nothing was wrong, and what was taken is back. */
void storm_end(struct storm *s);
/* Nobody touches guests or merging from hold to release. */
void storm_hold(struct storm *s);
void storm_release(struct storm *s);
/* Guest @i is a new one: nothing is in its spare pages. */
void storm_new_guest(struct storm *s, unsigned int i);
/* All guests run, neither they nor a part found anything wrong. True: fewer than @merges yet. */
bool storm_goes_on(struct storm *s, uint64_t merges);

#endif
