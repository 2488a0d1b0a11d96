/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_plan.h: private to the engine `hash`: which pages of a window are merged by one mapping, how
 * many mappings that adds, and which of them come first where mappings are short. Pure.
 */
#ifndef OVERBOOK_KSM_HASH_PLAN_H
#define OVERBOOK_KSM_HASH_PLAN_H

#include "kernel/base.h"

#define HASH_WINDOW 512 /* pages scanned together: 2 MiB, what one split unmaps in KVM's tables */

enum hash_what {
	HASH_JOIN, /* the content is a frame already: hold it, compare, map */
	HASH_MAKE, /* the second page of its content: fill a frame with it, map */
	HASH_ZERO, /* drop */
};

/* One page to be merged. In page order within a window. */
struct hash_plan {
	uint32_t page;	/* within the guest */
	uint32_t frame; /* JOIN: held by us. MAKE: filling, ours, and claimed in the index */
	uint64_t hash;
	uint32_t other; /* MAKE: whose hint was claimed, a page of the fleet */
	uint8_t what;
	bool keep; /* while frozen: it may be merged */
};

/*
 * What lies where a window is to be merged, one page more on each side included: entry 0 is the page
 * before the window. What is beyond a region's end is an `edge`: no mapping goes on there anyway.
 */
struct hash_ground {
	uint32_t first;			 /* page of entry 1 */
	uint32_t frame[HASH_WINDOW + 2]; /* of a shared page, else EPT_NO_FRAME */
	bool over_pool[HASH_WINDOW + 2]; /* it lies over a mapping of the pool */
	bool edge[HASH_WINDOW + 2];
};

/* Pages that one mapping can merge: entries [first, first + n) of a plan. */
struct hash_run {
	uint16_t first, n;
	bool left, right; /* a mapping begins, ends there where none did: one mapping more each */
	bool take;
};

/*
 * The runs of the plan [0, n), as long as they can be, in page order. Neighbours whose frames are still
 * to be found (MAKE, no frame) are one run; a JOIN without a frame is none. Returns how many.
 */
unsigned int hash_runs(const struct hash_plan *p, unsigned int n, const struct hash_ground *g,
		       struct hash_run *out);

/* What all merging of this process has to share out. */
struct hash_room {
	uint64_t maps;	/* mappings that may still be added */
	uint64_t pages; /* that may still ask for them: private pages of all guests */
};

/*
 * How good must a run be to be taken at once? In half pages for each mapping; 0: any.
 */
uint32_t hash_bar(const struct hash_room *room);

/*
 * Choose: best first, by pages merged for each mapping added, and none that merges fewer than @bar half
 * pages for each, as long as there is room. Sets take, and charges @room. Returns the pages chosen.
 */
uint32_t hash_pick(const struct hash_plan *p, struct hash_run *runs, unsigned int n,
		   struct hash_room *room, uint32_t bar);

/* Runs that wait for the end of the pass: how many mappings they ask for, by how good they are. */
#define HASH_CLASSES 32 /* class c: c half pages for each mapping, the last one: or more */
struct hash_queue {
	uint64_t maps[HASH_CLASSES];
};
/* Add the runs that were not taken. Returns their pages. */
uint32_t hash_queue_add(struct hash_queue *q, const struct hash_plan *p,
			const struct hash_run *runs, unsigned int n);
/* The bar that lets the best of them have the room: all above it fit. */
uint32_t hash_queue_bar(const struct hash_queue *q, uint64_t maps);

#endif
