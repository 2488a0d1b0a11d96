/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_plan.c: which pages one mapping merges, and who gets mappings when they are short. Plans at
 * random are held against a naive oracle that keeps, for each page, what it is mapped from, and counts
 * the borders before and after.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "ept/ept.h"
#include "ksm/hash_plan.h"

#define FIRST 1024 /* of the window, within its guest */

/* What the oracle knows of a page: which file offset it is mapped from, broken off or not. */
struct world {
	int64_t from[HASH_WINDOW + 2]; /* -1: memory of its own */
	bool broken[HASH_WINDOW + 2];
	struct hash_ground g;
	struct hash_plan p[HASH_WINDOW];
	unsigned int n;
	struct hash_run run[HASH_WINDOW];
	unsigned int nruns;
};

static bool one_mapping(int64_t a, int64_t b)
{
	return a < 0 ? b < 0 : b == a + 1;
}

static int64_t mappings(const struct world *w)
{
	int64_t n = 1;

	for (unsigned int i = 0; i + 1 < HASH_WINDOW + 2; i++)
		n += w->g.edge[i] || w->g.edge[i + 1] || !one_mapping(w->from[i], w->from[i + 1]);
	return n;
}

/* The ground: stretches of memory of its own and of mappings, some of their pages broken off. */
static void make_ground(struct world *w, unsigned int *seed)
{
	memset(w, 0, sizeof(*w));
	w->g.first = FIRST;
	for (unsigned int i = 0; i < HASH_WINDOW + 2;) {
		unsigned int len = 1 + (unsigned int)rand_r(seed) % 40;
		int64_t from = rand_r(seed) % 2 ? -1 : rand_r(seed) % 100000;

		for (; len && i < HASH_WINDOW + 2; len--, i++) {
			w->from[i] = from;
			w->broken[i] = from >= 0 && rand_r(seed) % 4 == 0;
			from += from >= 0;
		}
	}
	w->g.edge[0] = rand_r(seed) % 2;
	w->g.edge[HASH_WINDOW + 1] = rand_r(seed) % 2;
	for (unsigned int i = 0; i < HASH_WINDOW + 2; i++) {
		w->g.over_pool[i] = w->from[i] >= 0;
		w->g.frame[i] =
			w->from[i] >= 0 && !w->broken[i] ? (uint32_t)w->from[i] : EPT_NO_FRAME;
	}
}

/* Pages that may be merged are those with memory of their own. What they become: often what continues
 * a neighbour, or what they were. */
static void make_plan(struct world *w, unsigned int *seed)
{
	int64_t frame = 500000;

	for (unsigned int i = 1; i <= HASH_WINDOW; i++) {
		struct hash_plan *p = &w->p[w->n];

		frame = rand_r(seed) % 8 ? frame + 1 : rand_r(seed) % 1000000;
		if (w->g.frame[i] != EPT_NO_FRAME || rand_r(seed) % 3 == 0)
			continue;
		*p = (struct hash_plan){.page = FIRST + i - 1, .frame = (uint32_t)frame};
		switch (rand_r(seed) % 8) {
		case 0:
			p->what = HASH_ZERO;
			break;
		case 1:
			p->what = HASH_MAKE;
			p->frame = EPT_NO_FRAME;
			break;
		case 2:
			if (w->from[i] >= 0)
				p->frame = (uint32_t)w->from[i];
			break;
		case 3:
			if (i > 1 && w->g.frame[i - 1] != EPT_NO_FRAME)
				p->frame = w->g.frame[i - 1] + 1;
			break;
		default:
			break;
		}
		w->n++;
	}
	w->nruns = hash_runs(w->p, w->n, &w->g, w->run);
}

/* Merge what was taken; frames that are still to be found are neighbours of nothing. */
static void carry_out(struct world *w)
{
	int64_t made = 5000000;

	for (unsigned int i = 0; i < w->nruns; i++) {
		const struct hash_run *r = &w->run[i];

		made += 1000;
		for (unsigned int j = 0; j < r->n && r->take; j++) {
			const struct hash_plan *p = &w->p[r->first + j];
			unsigned int at = p->page - FIRST + 1;

			if (p->what == HASH_ZERO)
				w->from[at] = -1;
			else
				w->from[at] = p->frame == EPT_NO_FRAME ? made++ : p->frame;
		}
	}
}

/* Each page is in one run, runs are as long as they can be, and in page order. */
static void check_runs(const struct world *w)
{
	unsigned int at = 0;

	for (unsigned int i = 0; i < w->nruns; i++) {
		const struct hash_run *r = &w->run[i];

		cr_assert_eq(r->first, at);
		cr_assert_gt(r->n, 0);
		at += r->n;
		for (unsigned int j = r->first; j + 1 < at; j++) {
			const struct hash_plan *a = &w->p[j], *b = &w->p[j + 1];

			cr_assert(b->page == a->page + 1 && b->what == a->what);
			if (a->what != HASH_ZERO && a->frame != EPT_NO_FRAME)
				cr_assert_eq(b->frame, a->frame + 1);
		}
	}
	cr_assert_eq(at, w->n);
}

Test(plan, never_adds_more_mappings_than_it_charges)
{
	uint64_t charged_all = 0, added_all = 0;

	for (unsigned int seed0 = 1; seed0 <= 3000; seed0++) {
		unsigned int seed = seed0;
		struct hash_room room;
		struct world w;
		uint64_t had;
		uint32_t want = 0, took;
		int64_t before, added;

		make_ground(&w, &seed);
		make_plan(&w, &seed);
		check_runs(&w);
		had = (uint64_t)rand_r(&seed) % (seed0 % 2 ? 40 : 1200);
		room = (struct hash_room){.maps = had, .pages = HASH_WINDOW};
		took = hash_pick(w.p, w.run, w.nruns, &room, 0);
		for (unsigned int i = 0; i < w.nruns; i++)
			want += w.run[i].take ? w.run[i].n : 0;
		cr_assert_eq(took, want);
		cr_assert_eq(room.pages, HASH_WINDOW - took);
		cr_assert_leq(room.maps, had);
		before = mappings(&w);
		carry_out(&w);
		added = mappings(&w) - before;
		cr_assert_leq(added, (int64_t)(had - room.maps), "seed %u", seed0);
		/* With room for all, all are taken: the same set as without any budget. */
		if (had >= 2ULL * w.nruns)
			cr_assert_eq(took, w.n, "seed %u", seed0);
		charged_all += had - room.maps;
		added_all += added > 0 ? (uint64_t)added : 0;
	}
	/* And it is not simply cautious. */
	cr_assert_gt(added_all, charged_all / 3);
}

/* The oracle of "best first": of two runs that are not beside others, no better one stays behind. */
Test(plan, takes_the_best_first)
{
	for (unsigned int seed0 = 1; seed0 <= 2000; seed0++) {
		unsigned int seed = seed0, page = FIRST;
		struct hash_room room = {.pages = 1000000};
		uint32_t bar = (uint32_t)rand_r(&seed) % 6;
		struct world w;

		memset(&w, 0, sizeof(w));
		w.g.first = FIRST;
		for (unsigned int i = 0; i < HASH_WINDOW + 2; i++)
			w.g.frame[i] = EPT_NO_FRAME;
		while (page < FIRST + HASH_WINDOW - 20) {
			unsigned int len = 1 + (unsigned int)rand_r(&seed) % 12;

			for (unsigned int i = 0; i < len; i++, page++)
				w.p[w.n++] = (struct hash_plan){.page = page, .frame = page + 7777};
			page += 2;
		}
		w.nruns = hash_runs(w.p, w.n, &w.g, w.run);
		room.maps = (uint64_t)rand_r(&seed) % (2 * w.nruns + 2);
		hash_pick(w.p, w.run, w.nruns, &room, bar);
		for (unsigned int i = 0; i < w.nruns; i++) {
			cr_assert(w.run[i].left && w.run[i].right);
			if (w.run[i].take)
				cr_assert_geq(w.run[i].n, bar, "two mappings, in half pages");
			for (unsigned int j = 0; j < w.nruns; j++)
				if (w.run[i].take && !w.run[j].take)
					cr_assert_leq(w.run[j].n, w.run[i].n, "seed %u", seed0);
			/* What could be taken was. */
			if (!w.run[i].take && w.run[i].n >= bar)
				cr_assert_lt(room.maps, 2, "seed %u", seed0);
		}
	}
}

/* What the bar lets through at once never keeps something better from having room later. */
Test(plan, what_is_above_the_bar_always_fits)
{
	for (unsigned int seed = 1; seed <= 2000; seed++) {
		unsigned int s = seed;
		struct hash_room room = {.maps = (uint64_t)rand_r(&s) % 300,
					 .pages = (uint64_t)rand_r(&s) % 3000};
		uint32_t bar = hash_bar(&room);
		uint64_t pages = room.pages, maps = 0;

		if (!bar) {
			cr_assert_geq(room.maps, room.pages);
			continue;
		}
		/* All pages in the worst runs that pass: do they fit? */
		while (pages && bar < UINT32_MAX) {
			uint64_t n = (bar + 1) / 2; /* one mapping each */

			if (pages < n)
				break;
			pages -= n;
			maps++;
		}
		cr_assert_leq(maps, room.maps, "seed %u", seed);
	}
	cr_assert_eq(hash_bar(&(struct hash_room){.maps = 0, .pages = 1}), UINT32_MAX);
	cr_assert_eq(hash_bar(&(struct hash_room){.maps = 0, .pages = 0}), 0);
}

/* A run that had been broken is made whole, and costs nothing even with no room at all. */
Test(plan, a_broken_run_is_restored_for_nothing)
{
	struct hash_room room = {.maps = 0, .pages = 100};
	struct world w;

	memset(&w, 0, sizeof(w));
	w.g.first = FIRST;
	for (unsigned int i = 0; i < HASH_WINDOW + 2; i++) {
		w.g.over_pool[i] = true;
		w.g.frame[i] = i % 3 == 1 ? EPT_NO_FRAME : 40 + i;
	}
	for (unsigned int i = 1; i <= HASH_WINDOW; i += 3)
		w.p[w.n++] = (struct hash_plan){.page = FIRST + i - 1, .frame = 40 + i};
	w.nruns = hash_runs(w.p, w.n, &w.g, w.run);
	cr_assert_eq(w.nruns, w.n);
	cr_assert_eq(hash_pick(w.p, w.run, w.nruns, &room, UINT32_MAX), w.n);
	/* Another frame there would cut the run into three. */
	w.p[3].frame += 1;
	w.nruns = hash_runs(w.p, w.n, &w.g, w.run);
	cr_assert_eq(hash_pick(w.p, w.run, w.nruns, &room, 0), w.n - 1);
	cr_assert(!w.run[3].take);
}

Test(plan, the_queue_lets_the_best_have_the_room)
{
	struct hash_queue q = {.maps = {0}};

	q.maps[1] = 100; /* singles: half a page for a mapping */
	q.maps[6] = 10;
	q.maps[31] = 4;
	cr_assert_eq(hash_queue_bar(&q, 1000), 0, "all fit");
	cr_assert_eq(hash_queue_bar(&q, 114), 0);
	cr_assert_eq(hash_queue_bar(&q, 50), 2, "the better ones first");
	cr_assert_eq(hash_queue_bar(&q, 8), 7);
	cr_assert_eq(hash_queue_bar(&q, 2), 31, "the best class, as far as it goes");
	q.maps[6] = q.maps[31] = 0;
	cr_assert_eq(hash_queue_bar(&q, 50), 1, "then the rest, as far as it goes");
}
