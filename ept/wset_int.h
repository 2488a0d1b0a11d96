/* SPDX-License-Identifier: Apache-2.0 */
/* wset_int.h: private to the sampler (wset*.c) and its tests. */
#ifndef OVERBOOK_EPT_WSET_INT_H
#define OVERBOOK_EPT_WSET_INT_H

#include "ept/ept.h"

/* How a page is watched, which follows from what it was when it was drawn. */
enum ept_wset_kind {
	WSET_NEW,	/* drawn, and not looked at yet */
	WSET_NEW_UNIT,	/* the same, of 2 MiB */
	WSET_REFUSED,	/* cannot be sampled now */
	WSET_TAKEN,	/* private: in staging */
	WSET_UNIT,	/* a 2 MiB unit in staging */
	WSET_ZAPPED,	/* zero: its page-table entry is empty */
	WSET_SHARED,	/* shared: the same */
	WSET_UNTOUCHED, /* never used */
	WSET_AWAY,	/* in a tier or in the balloon, or taken by somebody else */
};

struct ept_wset_sample {
	uint32_t page;	   /* of a unit: its first */
	uint32_t since_ms; /* when it was taken, from the period's beginning */
	uint16_t taken;	   /* of a unit: how many of its pages could be */
	uint8_t kind;	   /* enum ept_wset_kind */
	bool touched;
};
_Static_assert(sizeof(struct ept_wset_sample) == 12, "12 bytes a sample");

/* Samples taken, and put back, in one step. */
#define EPT_WSET_BATCH 32
/* 2 MiB units are moved one by one: as many for the same pause. */
#define EPT_WSET_UNIT_BATCH 8

struct ept_wset_page {
	enum ept_state state;
	bool staged;  /* private, and out */
	bool present; /* in the page tables */
};

/*
 * What the sampler asks of the guest's memory. The real ones are functions of ept; a test has a
 * model. All page numbers are inside the guest; runs are ascending, of one page each but for units.
 */
struct ept_wset_ops {
	/* Bring the map up to date, and say how the page stands. */
	int (*look)(void *arg, uint64_t page, struct ept_wset_page *out);
	int64_t (*take)(void *arg, const struct ept_run *runs, unsigned int n);
	int64_t (*take_unit)(void *arg, uint64_t page);
	/* Samples of [page, page + n) that are out still. */
	int64_t (*left)(void *arg, uint64_t page, uint64_t n);
	/* Also closes windows from which nothing is missing any more. */
	int64_t (*put_back)(void *arg, const struct ept_run *runs, unsigned int n);
	int64_t (*zap)(void *arg, const struct ept_run *runs, unsigned int n, bool *zapped);
	uint64_t (*windows)(void *arg);
	/* How many pages are shared. */
	uint64_t (*shared)(void *arg);
	uint64_t (*cpu_ns)(void *arg); /* of the calling thread */
	uint64_t (*handler_cpu_ns)(void *arg);
};

static inline enum ept_wset_part_kind ept_wset_part_of(const struct ept_wset_sample *s)
{
	return s->kind == WSET_UNIT	? EPT_WSET_HUGE
	       : s->kind == WSET_SHARED ? EPT_WSET_SHARED
					: EPT_WSET_OWN;
}

/* ept_wset_init, with something else than an ept behind it. */
int ept_wset_init_ops(struct ept_wset *w, const struct ept_wset_ops *ops, void *arg, uint64_t pages,
		      struct ob_arena *arena, const struct ept_wset_opts *o);

/* --- wset_draw.c ------------------------------------------------------------------------------ */

/* The @i-th of the permutation of [0, n) that @key stands for; @i below n. */
uint64_t ept_wset_permute(uint64_t n, uint64_t key, uint64_t i);
/* Begin a period: which units are huge, how many samples of either kind, which key. */
void ept_wset_draw_begin(struct ept_wset *w);
/* Draw @n4k pages and @nunits units more, each sorted, as sample[next .. drawn); the place is free.
 * Fewer when there are no more. */
void ept_wset_draw(struct ept_wset *w, unsigned int n4k, unsigned int nunits);
/* Is @page in a unit that was huge when the period began? */
bool ept_wset_in_huge(const struct ept_wset *w, uint64_t page);

/* --- wset_watch.c ----------------------------------------------------------------------------- */

/* Start to watch these new ones, ascending, at most EPT_WSET_BATCH; their kind says what became of
 * it. */
void ept_wset_watch(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n);
/* The same for units. */
void ept_wset_watch_units(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n);
/* Which of these have been touched by now? Counts those that had not been before. */
void ept_wset_look(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n);
/* The end for these, at most EPT_WSET_BATCH, ascending: put back what nobody has touched. */
void ept_wset_release(struct ept_wset *w, const struct ept_wset_sample *s, unsigned int n);

#endif
