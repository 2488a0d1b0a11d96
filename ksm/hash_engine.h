/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_engine.h: private to the engine `hash`. hash_engine.c finds what to merge; hash_merge.c does it,
 * with hash_plan.c (what first), hash_pace.c (how much in one go), hash_frames.c (the pool's side) and
 * hash_defer.c (what has to wait).
 */
#ifndef OVERBOOK_KSM_HASH_ENGINE_H
#define OVERBOOK_KSM_HASH_ENGINE_H

#include "ksm/engine.h"
#include "ksm/hash_pace.h"
#include "ksm/hash_plan.h"

#define HASH_WORDS (HASH_WINDOW / 64)

#define HASH_COMPARE_PAGES 32 /* frames read at a time where they cannot be mapped */

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

/* Pages that are to be tried once more at the end of a pass: hash_defer.c. */
struct hash_defer {
	uint64_t *bits; /* per page; NULL: there was none yet */
	uint64_t n;	/* set */
};

struct hash_guest {
	struct hash_defer defer;
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

/* Pages of one guest that are to show the frame under them again: hash_revert.c. */
#define HASH_REVERTS 48
struct hash_revert {
	struct ept_reshare page[HASH_REVERTS];
	unsigned int n, slot;
};

struct hash {
	unsigned int slot;    /* where the pass is */
	unsigned int io_slot; /* whose hints are next */
	uint64_t page;
	uint64_t pass_merged; /* pages merged or dropped in this pass */
	bool sync_warned;
	uint64_t injected; /* breaks seen by lose-break */

	/* hash_merge.c */
	struct hash_room room; /* what may still be mapped */
	uint32_t bar;	       /* how good a run must be, see hash_plan.h */
	bool at_end;	       /* what is put off now is put off for good */
	bool vma_warned, fill_warned, map_warned;
	bool full; /* the pool has no room, or its file has none: make no frames in this pass */
	const uint8_t *view; /* the pool, for reading; NULL: not mapped */
	uint8_t *scratch;    /* HASH_COMPARE_PAGES pages, in its place */
	struct pace pace;
	struct hash_ground ground;
	struct hash_run run[HASH_WINDOW];

	struct hash_revert revert;

	/* hash_defer.c */
	struct hash_queue queue;
	uint64_t put_off;		    /* pages put off since the last walk */
	uint64_t retry;			    /* pages put off because the host failed */
	uint64_t walk_room;		    /* mappings left when the last walk was over */
	uint64_t counted_room;		    /* room when mappings were last counted */
	uint64_t counted_ns, count_cost_ns; /* when that was, and how long it took */
	unsigned int rest,
		rests; /* passes until the next walk for what failed; and how many then */

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

/* hash_merge.c. Begin and end: -errno never, what cannot be had is done without. */
void hash_merge_init(struct ksm *k, struct hash *h);
void hash_merge_exit(struct ksm *k, struct hash *h);
/* Carry out the plan of one window of the guest in @slot, batch by batch. Empties it. */
void hash_merge(struct ksm *k, struct hash *h, struct ksm_slot *slot);

/* Begin to keep what the engine needs of the guest in slot @s. */
void hash_attach(struct ksm *k, struct ksm_slot *s);

/*
 * Look at up to about @budget pages that hints have named (hash_io.c). Returns how many: the rest of
 * a step's budget is for scanning. 0: none wait.
 */
uint64_t hash_io_step(struct ksm *k, struct hash *h, uint64_t budget);
/* So many pages are not merged, as mappings would run out. Says so, once. */
void hash_no_room(struct ksm *k, struct hash *h, uint64_t pages);

/* hash_frames.c. The pages of @n neighbouring frames: in the view, else in scratch (then @n is at most
 * HASH_COMPARE_PAGES). NULL: they cannot be read. Only of frames that are live or ours. */
const uint8_t *hash_frames(struct ksm *k, struct hash *h, uint32_t frame, unsigned int n);
/* Map the view, if it is not; give it back. */
void hash_view_open(struct ksm *k, struct hash *h);
void hash_view_close(struct ksm *k, struct hash *h);
/* Frames for what is to be made: taken, claimed and filled. What gets none has EPT_NO_FRAME. */
void hash_make_frames(struct ksm *k, struct hash *h, struct ksm_slot *s);
/* Give back what was prepared for a page that is not merged after all. */
void hash_forget(struct ksm *k, struct hash_plan *p);

/* hash_defer.c. These pages of a plan are tried again at the end of a pass. Returns how many were not to
 * be already. */
unsigned int hash_defer(struct ksm *k, struct ksm_slot *s, const struct hash_plan *p,
			unsigned int n);
/* Of one guest; frees what is kept. */
void hash_defer_exit(struct hash_guest *g);
/* How many mappings may still be added? They are counted if it is time for that again. */
void hash_count_maps(struct ksm *k, struct hash *h, uint64_t now_ns);
/* A pass over all guests is over: what was put off is merged, the best first, while there is room. And
 * the bar for the next pass is set. */
void hash_merge_pass_end(struct ksm *k, struct hash *h, uint64_t now_ns);

/* hash_pause.c. Freeze [page, page + n), of one region, and let it go again. */
struct hash_pause {
	uint64_t t0;
	uint64_t switches; /* of the thread that freezes, when the guest stood */
	struct pace_pause z;
};
void hash_pause_begin(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page, uint64_t n,
		      struct hash_pause *p);
/* Counts it; @p->z then says how it went. */
void hash_pause_end(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_pause *p);

/* hash_revert.c. The page is on the frame, which is held for it, when the guest has been flushed; false:
 * that frame is not under it, it is to be planned as any other. */
bool hash_revert_add(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
		     uint32_t frame);
void hash_revert_flush(struct ksm *k, struct hash *h);
/* Give back what is held; nothing is merged. */
void hash_revert_drop(struct ksm *k, struct hash *h);

/* hash_scan.c: what is to become of a candidate? Adds to the plan. */
void hash_consider(struct ksm *k, struct hash *h, struct ksm_slot *s, const struct hash_cand *c);

/*
 * May the candidates of the window that begins at @page be merged? Not those of a huge page, unless
 * they are worth it: then it is broken (hash_huge.c). When they may not, their hints are left.
 */
bool hash_may_merge(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page);

#endif
