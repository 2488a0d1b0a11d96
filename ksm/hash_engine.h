/* SPDX-License-Identifier: Apache-2.0 */
/* hash_engine.h: private to the engine `hash`: hash_engine.c finds what to merge, hash_merge.c does
 * it. */
#ifndef OVERBOOK_KSM_HASH_ENGINE_H
#define OVERBOOK_KSM_HASH_ENGINE_H

#include "ksm/engine.h"

#define HASH_WINDOW 512 /* pages scanned together: 2 MiB, what one split unmaps in KVM's tables */
#define HASH_WORDS  (HASH_WINDOW / 64)

/*
 * One freeze handles at most so many pages and mappings: comparing costs about 2 us a page, mapping
 * up to 20 us a run, so a guest stands still for some hundred microseconds.
 */
#define HASH_BATCH_PAGES   128
#define HASH_BATCH_RUNS	   8
#define HASH_COMPARE_PAGES 32 /* frames read at a time to be compared */

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
	uint8_t what;
	bool keep; /* while frozen: it may be merged */
};

/* A page that held still since the pass before. */
struct hash_cand {
	uint64_t hash;
	uint32_t page; /* within the guest */
	bool zero;
};

/* A frame that a page broke off, to be given back by the scanner's thread. */
struct hash_broken {
	uint32_t page, frame;
};

/*
 * What is kept of a page from pass to pass, 16 bits: some low bits of its hash, or one of two numbers
 * that no hash becomes (equal bits only make it a candidate); whether a hint of it was left
 * (hash_huge.c); and its heat (hash_scan.c).
 */
#define HASH_LAST_NONE	 0u /* not hashed, or not private */
#define HASH_LAST_ZERO	 1u
#define HASH_LAST_MARK	 0x07ffu
#define HASH_LAST_HINTED 0x0800u
#define HASH_HEAT_SHIFT	 12
#define HASH_HEAT_MAX	 6u

struct hash_guest {
	uint16_t *last;	       /* per page */
	uint64_t *pending;     /* bit per page: to be looked at in a pass to come */
	int consumer;	       /* of the guest's tracker; -1: there is none, all may have changed */
	bool judging;	       /* this pass knows what was written since the one before */
	unsigned int collects; /* such passes so far */
	uint64_t collect_ns;   /* not before this time again */
	uint64_t rewritten;    /* pages reported in this pass, of those that could be trusted */
	struct ob_mutex lock;  /* of the list below, which any thread that syncs appends to */
	struct ob_arena *arena;
	struct hash_broken *broken;
	uint32_t nbroken, room;
};

struct hash {
	unsigned int slot;    /* where the pass is */
	unsigned int io_slot; /* whose hints are next */
	uint64_t page;
	uint64_t pass_merged;		      /* pages merged or dropped in this pass */
	uint64_t vma_room;		      /* mappings that we may still add */
	uint64_t vma_counted_room;	      /* when they were last counted */
	uint64_t vma_counted_ns, vma_cost_ns; /* when that was, and how long it took */
	bool vma_warned, sync_warned;
	uint64_t injected;		    /* breaks seen by lose-break */
	uint8_t *scratch;		    /* HASH_COMPARE_PAGES pages */
	struct hash_cand cand[HASH_WINDOW]; /* of the window that is looked at */
	unsigned int ncand;
	struct hash_plan plan[HASH_WINDOW];
	unsigned int nplan;
};

/* hash_scan.c: the pass comes to a guest, looks at [page, page + n) of it (inside one window), and
 * leaves it. Returns how many pages were looked at. */
void hash_scan_begin(struct ksm *k, struct ksm_slot *s, uint64_t now_ns);
uint64_t hash_scan_window(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
			  uint64_t n);
void hash_scan_end(struct ksm *k, struct ksm_slot *s, uint64_t now_ns);
/* hash_engine.c: give back the frames that pages broke off. */
void hash_take_broken(struct ksm *k, struct hash *h, struct ksm_slot *s);

/* Carry out the plan of one window of the guest in @slot, batch by batch. Empties it. */
void hash_merge(struct ksm *k, struct hash *h, struct ksm_slot *slot);

/* Begin to keep what the engine needs of the guest in slot @s. */
void hash_attach(struct ksm *k, struct ksm_slot *s);

/*
 * Look at up to about @budget pages that hints have named (hash_io.c). Returns how many: the rest of
 * a step's budget is for scanning. 0: none wait.
 */
uint64_t hash_io_step(struct ksm *k, struct hash *h, uint64_t budget);

/*
 * May the candidates of the window that begins at @page be merged? Not those of a huge page, unless
 * they are worth it: then it is broken (hash_huge.c). When they may not, their hints are left.
 */
bool hash_may_merge(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page);

#endif
