/* SPDX-License-Identifier: Apache-2.0 */
/* pure_huge.c: units of 2 MiB on a host that is only memory: broken before a part of them goes, never
 * behind the back of the map, built again whole. What is checked throughout is that no memory is
 * held that was given back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_guest.h"

#define UNIT EPT_UNIT_PAGES

/* Two regions of two units, the second with a tail that is not one. */
static void make(struct fg *g)
{
	fg_make_huge(g, 2 * UNIT, 2 * UNIT + 16);
	fake_huge_touch(g->h, fg_at(g, 0), 2);
	fake_huge_touch(g->h, fg_at(g, 2 * UNIT), 2);
	for (uint64_t u = 0; u < 4; u++)
		fg_fill(g, u * UNIT, UNIT, (uint8_t)(u + 1));
	cr_assert(!ept_sync(&g->e, 0, g->e.pages, NULL));
}

static struct ept_huge_stats stats(struct fg *g)
{
	struct ept_huge_stats st;

	cr_assert(!ept_huge_read(&g->e, &st));
	return st;
}

static void unmake(struct fg *g)
{
	cr_assert_eq(fake_huge_stuck(g->h), 0, "memory is held that was given back");
	fg_unmake(g);
}

Test(huge, memory_of_small_pages_has_no_units)
{
	struct ept_huge_stats st;
	struct fg g;

	fg_make(&g, UNIT, 0);
	fg_fill(&g, 0, UNIT, 1);
	cr_assert(!ept_huge_on(&g.e));
	cr_assert(!ept_unit_is_huge(&g.e, 0));
	cr_assert(!ept_huge_worth(&g.e, 0, UNIT));
	cr_assert_eq(ept_huge_break(&g.e, 0), -ERANGE);
	cr_assert_eq(ept_huge_build(&g.e, 0), -ERANGE);
	st = stats(&g);
	cr_assert_eq(st.units + st.huge + st.broken, 0);
	cr_assert_eq(fake_host_calls(g.h, FAKE_HUGE) + fake_host_calls(g.h, FAKE_SPLIT), 0);
	fg_unmake(&g);
}

Test(huge, units_and_their_bounds)
{
	struct ept_huge_stats st;
	struct fg g;

	make(&g);
	st = stats(&g);
	cr_assert_eq(st.units, 4, "the tail is no unit");
	cr_assert_eq(st.huge, 4);
	cr_assert(ept_unit_is_huge(&g.e, 0));
	cr_assert(ept_unit_is_huge(&g.e, 4 * UNIT - 1));
	cr_assert(!ept_unit_is_huge(&g.e, 4 * UNIT), "the tail");
	cr_assert(!ept_unit_is_huge(&g.e, g.e.pages));
	cr_assert(!ept_unit_is_huge(&g.e, UINT64_MAX));
	for (uint64_t u = 4; u < UINT64_MAX / 4; u = u * 3 + 1) {
		cr_assert_eq(ept_huge_break(&g.e, u), -ERANGE);
		cr_assert_eq(ept_huge_build(&g.e, u), -ERANGE);
		cr_assert(!ept_huge_worth(&g.e, u, UNIT));
	}
	cr_assert_eq(ept_huge_build(&g.e, 1), 0, "it is huge already");
	cr_assert_eq(stats(&g).builds, 0);
	unmake(&g);
}

Test(huge, broken_and_built_again)
{
	struct fg g;

	make(&g);
	cr_assert_eq(ept_huge_break(&g.e, 1), 0);
	cr_assert(!ept_unit_is_huge(&g.e, UNIT));
	cr_assert(!fake_huge_may(g.h, fg_at(&g, UNIT)), "the kernel may make a huge page of it");
	cr_assert(fake_huge_may(g.h, fg_at(&g, 0)) && fake_huge_may(g.h, fg_at(&g, 2 * UNIT)));
	cr_assert_eq(stats(&g).broken, 1);
	cr_assert_eq(ept_huge_break(&g.e, 1), 0, "twice is once");
	cr_assert_eq(stats(&g).breaks, 1);
	cr_assert_eq(ept_huge_build(&g.e, 1), 0);
	cr_assert(ept_unit_is_huge(&g.e, UNIT));
	cr_assert(fake_huge_may(g.h, fg_at(&g, UNIT)));
	cr_assert_eq(stats(&g).broken, 0);
	cr_assert_eq(stats(&g).builds, 1);
	cr_assert_eq(stats(&g).huge, 4);
	fg_expect(&g, UNIT, UNIT, 2);
	unmake(&g);
}

/* The kernel gives back by itself what is zero, when a huge page is split. */
Test(huge, breaking_gives_zeroes_back)
{
	struct fg g;

	make(&g);
	fg_fill(&g, 10, 100, 0);
	cr_assert_eq(ept_huge_break(&g.e, 0), 100 * OB_PAGE_SIZE);
	cr_assert_eq(stats(&g).freed_bytes, 100 * OB_PAGE_SIZE);
	cr_assert_eq(fg_stats(&g).state[EPT_ZERO], 100, "the map knows it at once");
	fg_expect(&g, 10, 100, 0);
	fg_expect(&g, 110, 100, 1);
	unmake(&g);
}

/* Whatever takes a part of a unit: nothing of it is held afterwards. */
Test(huge, a_part_that_goes_breaks_first)
{
	enum { SHARE, DROP, BALLOON, TAKE, TIER, WHOLE_TIER, WHOLE_DROP, WHOLE_SHARE, WAYS };
	static const uint64_t at = UNIT + 100;

	for (int way = 0; way < WAYS; way++) {
		struct fg g;

		make(&g);
		fg_set_tier(&g, EPT_COMPRESSED, 0);
		fg_frames(&g, 0, 30, 2);
		if (way == DROP || way == WHOLE_DROP)
			fg_fill(&g, at, 30, 0);
		/* Out as a whole, huge where it is: a part of that goes. */
		if (way >= WHOLE_TIER) {
			cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), UNIT);
			cr_assert_eq(stats(&g).huge, 4, "it is huge in staging");
		}
		switch (way) {
		case SHARE:
			cr_assert_eq(fg_share(&g, at, 30, 0), 30 * OB_PAGE_SIZE);
			break;
		case DROP:
			/* Breaking it has given the zeroes back. */
			cr_assert_eq(fg_drop(&g, at, 30), 0);
			cr_assert_eq(stats(&g).freed_bytes, 30 * OB_PAGE_SIZE);
			break;
		case BALLOON:
			cr_assert_eq(ept_balloon(&g.e, at, 30, true), 30 * OB_PAGE_SIZE);
			break;
		case TAKE:
			cr_assert_eq(fg_take(&g, at, 30), 30);
			break;
		case TIER:
			cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, at, 30), 30 * OB_PAGE_SIZE);
			break;
		case WHOLE_TIER: {
			struct ept_tiered t = {.page = at, .slot = (uint32_t)at};
			uint8_t buf[OB_PAGE_SIZE];

			cr_assert(!ept_stage_read(&g.e, at, buf, &t.ticket));
			fg_slot_fill(&g.tier[EPT_COMPRESSED], t.slot, buf);
			cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, &t, 1), OB_PAGE_SIZE);
			cr_assert(t.done);
			break;
		}
		case WHOLE_DROP:
			cr_assert(ept_drop_zero(&g.e, at, 30) >= 0);
			break;
		case WHOLE_SHARE:
			cr_assert_eq(ept_share(&g.e, at, 30, g.pool, 0), 30 * OB_PAGE_SIZE);
			for (int f = 0; f < 30; f++)
				g.held[f]++;
			break;
		}
		cr_assert_eq(fake_huge_stuck(g.h), 0, "way %d: memory is held", way);
		cr_assert_eq(stats(&g).broken, 1, "way %d", way);
		cr_assert_eq(stats(&g).huge, 3, "way %d", way);
		fg_expect(&g, UNIT, 100, 2);
		if (way == DROP || way == WHOLE_DROP)
			fg_expect(&g, at, 30, 0);
		else if (way != BALLOON)
			fg_expect(&g, at, 30, 2);
		fg_expect(&g, at + 30, UNIT - 130, 2);
		cr_assert(fg_back(&g, 0, g.e.pages) >= 0);
		unmake(&g);
	}
}

/* All of a unit may go in one piece: then there is nothing to split. */
Test(huge, a_whole_unit_goes_without_a_split)
{
	struct fg g;

	make(&g);
	cr_assert_eq(ept_balloon(&g.e, UNIT, UNIT, true), UNIT * OB_PAGE_SIZE);
	cr_assert_eq(fake_host_calls(g.h, FAKE_SPLIT), 0);
	cr_assert_eq(stats(&g).broken, 1, "what comes back comes back as small pages");
	fg_fill(&g, UNIT + 5, 1, 9);
	cr_assert_eq(ept_balloon(&g.e, UNIT, UNIT, false), 0);
	cr_assert_eq(fg_stats(&g).state[EPT_BALLOONED], 0);
	fg_expect(&g, UNIT + 5, 1, 9);
	unmake(&g);
}

Test(huge, a_break_that_fails_changes_nothing)
{
	static const enum fake_op ops[] = {FAKE_HUGE, FAKE_SPLIT, FAKE_PAGES};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(ops); i++) {
		struct fg g;

		make(&g);
		fg_frames(&g, 0, 8, 2);
		for (int way = 0; way < 3; way++) {
			int64_t r;

			if (way == 0)
				cr_assert(!ept_freeze(&g.e, UNIT, UNIT));
			fake_host_fail(g.h, ops[i], 1, ENOMEM);
			if (way == 0)
				r = ept_share(&g.e, UNIT, 8, g.pool, 0);
			else if (way == 1)
				r = ept_balloon(&g.e, UNIT, 8, true);
			else
				r = ept_huge_break(&g.e, 1);
			fake_host_fail(g.h, ops[i], 1, 0);
			if (way == 0)
				ept_thaw(&g.e);
			cr_assert_eq(r, -ENOMEM, "%d %d: %d", (int)i, way, (int)r);
			cr_assert_eq(stats(&g).huge, 4);
			cr_assert_eq(stats(&g).broken, 0);
			cr_assert(fake_huge_may(g.h, fg_at(&g, UNIT)));
			fg_expect(&g, UNIT, UNIT, 2);
			fg_verify(&g);
		}
		unmake(&g);
	}
}

Test(huge, a_pinned_page_keeps_its_unit_whole)
{
	struct fg g;

	make(&g);
	fake_host_pin(g.h, fg_at(&g, UNIT + 7), 1, true);
	cr_assert_eq(ept_huge_break(&g.e, 1), -EBUSY);
	cr_assert_eq(ept_balloon(&g.e, UNIT + 100, 8, true), -EBUSY);
	cr_assert_eq(stats(&g).refused, 2);
	cr_assert_eq(stats(&g).huge, 4);
	fake_host_pin(g.h, fg_at(&g, UNIT + 7), 1, false);
	cr_assert_eq(ept_huge_break(&g.e, 1), 0);
	unmake(&g);
}

/* A device at one page, or a page that the kernel holds: the unit is no sample then, and stays huge. */
Test(huge, a_unit_that_cannot_go_whole_stays)
{
	struct gmem_access acc;
	struct fg g;

	make(&g);
	cr_assert(!ept_dma_begin(&g.e, gfn_gpa(gmem_page_gfn(&g.mem, UNIT + 7)), 1, true, &acc));
	cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), 0);
	ept_dma_end(&g.e, &acc);
	fake_host_pin(g.h, fg_at(&g, UNIT + 7), 1, true);
	cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), 0);
	fake_host_pin(g.h, fg_at(&g, UNIT + 7), 1, false);
	cr_assert_eq(fg_stats(&g).staged, 0);
	cr_assert_eq(stats(&g).huge, 4);
	cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), UNIT);
	unmake(&g);
}

/* Out as a whole, and back as a whole by one fault; small samples leave it alone. */
Test(huge, sampling_splits_nothing)
{
	const struct ept_run some[] = {{.page = 3, .n = 1}, {.page = UNIT + 9, .n = 1}};
	struct fg g;

	make(&g);
	cr_assert_eq(ept_take(&g.e, some, 2, true), 0, "samples of huge units are left out");
	cr_assert_eq(stats(&g).huge, 4);
	cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), UNIT);
	cr_assert_eq(ept_samples_left(&g.e, UNIT, UNIT, false), UNIT);
	fg_expect(&g, UNIT + 77, 1, 2);
	cr_assert_eq(ept_samples_left(&g.e, UNIT, UNIT, false), 0, "the unit is the sample");
	cr_assert(ept_unit_is_huge(&g.e, UNIT));
	cr_assert_eq(fake_host_calls(g.h, FAKE_SPLIT), 0);
	cr_assert_eq(ept_huge_break(&g.e, 1), 0);
	cr_assert_eq(ept_take(&g.e, some, 2, true), 1, "of a broken one they are not");
	cr_assert(fg_back(&g, 0, 4 * UNIT) >= 0);
	unmake(&g);
}

/* Pages that are broken off frames, in a mapping each: one mapping again, and huge. */
Test(huge, built_from_pages_over_the_pool)
{
	uint64_t before, have, limit;
	struct fg g;

	make(&g);
	cr_assert(!g.h->ops->vma_count(g.h, &before, &limit));
	fg_frames(&g, 0, FG_FRAMES, 2);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(fg_share(&g, UNIT + 3 * i, 1, 40 - i), OB_PAGE_SIZE);
	cr_assert_eq(ept_huge_build(&g.e, 1), -EINVAL, "there are shared pages");
	for (uint64_t i = 0; i < 40; i++)
		fg_fill(&g, UNIT + 3 * i, 1, (uint8_t)(50 + i));
	cr_assert_eq(ept_huge_build(&g.e, 1), 0);
	cr_assert(ept_unit_is_huge(&g.e, UNIT));
	cr_assert(!ept_over_pool(&g.e, UNIT, UNIT));
	for (uint64_t i = 0; i < UNIT; i++)
		fg_expect(&g, UNIT + i, 1, i < 120 && i % 3 == 0 ? (uint8_t)(50 + i / 3) : 2);
	cr_assert(!g.h->ops->vma_count(g.h, &have, &limit));
	cr_assert_eq(have, before, "its mappings are one with their neighbours");
	for (int f = 0; f < FG_FRAMES; f++)
		cr_assert_eq(g.held[f], 0);
	unmake(&g);
}

Test(huge, what_cannot_be_built_is_refused)
{
	struct gmem_access acc;
	struct fg g;

	make(&g);
	fg_set_tier(&g, EPT_COMPRESSED, 0);
	cr_assert_eq(ept_balloon(&g.e, UNIT, 1, true), OB_PAGE_SIZE);
	cr_assert_eq(ept_huge_build(&g.e, 1), -EINVAL, "a page is in the balloon");
	ept_balloon(&g.e, UNIT, 1, false);
	fg_fill(&g, UNIT, 1, 2);
	cr_assert_eq(fg_take(&g, UNIT, 1), 1);
	cr_assert_eq(ept_huge_build(&g.e, 1), -EINVAL, "a page is out");
	cr_assert_eq(fg_back(&g, UNIT, 1), 1);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, UNIT, 1), OB_PAGE_SIZE);
	cr_assert_eq(ept_huge_build(&g.e, 1), -EINVAL, "a page is in a tier");
	fg_expect(&g, UNIT, 1, 2);

	/* A device has a pointer into it, and pages lie over the pool. */
	fg_frames(&g, 0, 1, 2);
	cr_assert_eq(fg_share(&g, UNIT, 1, 0), OB_PAGE_SIZE);
	fg_fill(&g, UNIT, 1, 7);
	cr_assert(!ept_dma_begin(&g.e, gpa((UNIT + 1) * OB_PAGE_SIZE), OB_PAGE_SIZE, true, &acc));
	cr_assert_eq(ept_huge_build(&g.e, 1), -EBUSY);
	ept_dma_end(&g.e, &acc);
	cr_assert_eq(ept_huge_build(&g.e, 1), 0);
	fg_expect(&g, UNIT, 1, 7);
	unmake(&g);
}

/* Each call of the host fails once, whichever way it is built: the content stays. */
Test(huge, a_build_that_fails_loses_nothing)
{
	static const enum fake_op ops[] = {FAKE_HUGE,	    FAKE_COLLAPSE, FAKE_PAGES,
					   FAKE_HUGE_UNITS, FAKE_RAM_MAP,  FAKE_MAP_EMPTY};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(ops); i++)
		for (int over_pool = 0; over_pool < 2; over_pool++)
			for (uint64_t nth = 1; nth < 6; nth++) {
				struct fg g;
				int r;

				make(&g);
				fg_frames(&g, 0, 1, 2);
				cr_assert_eq(ept_huge_break(&g.e, 1), 0);
				if (over_pool) {
					cr_assert_eq(fg_share(&g, UNIT + 9, 1, 0), OB_PAGE_SIZE);
					fg_fill(&g, UNIT + 9, 1, 2);
				}
				fake_host_fail(g.h, ops[i], nth, ENOMEM);
				r = ept_huge_build(&g.e, 1);
				fake_host_fail(g.h, ops[i], nth, 0);
				cr_assert(r == 0 || r == -ENOMEM, "%d", r);
				cr_assert_eq(g.lost, 0);
				cr_assert_eq(stats(&g).broken, r ? 1 : 0);
				cr_assert_eq(stats(&g).refused, r ? 1 : 0);
				cr_assert_eq(fake_huge_may(g.h, fg_at(&g, UNIT)), !r);
				fg_expect(&g, UNIT, UNIT, 2);
				fg_verify(&g);
				/* And then it can be. */
				cr_assert_eq(ept_huge_build(&g.e, 1), 0);
				fg_expect(&g, UNIT, UNIT, 2);
				unmake(&g);
			}
}

Test(huge, a_mapping_that_is_gone_stops_the_guest)
{
	struct fg g;

	make(&g);
	fg_frames(&g, 0, 1, 2);
	cr_assert_eq(fg_share(&g, UNIT + 9, 1, 0), OB_PAGE_SIZE);
	fg_fill(&g, UNIT + 9, 1, 2);
	fake_host_fail_with_hole(g.h, FAKE_MAP_EMPTY, FAKE_EVERY, ENOMEM);
	cr_assert_eq(ept_huge_build(&g.e, 1), -ENOMEM);
	cr_assert_eq(g.lost, 1, "it would find a hole");
	fake_host_fail_with_hole(g.h, FAKE_MAP_EMPTY, 1, 0);
	unmake(&g);
}

/* A kernel before 6.1: its units are built by copying, when the first touch makes a huge page. */
Test(huge, without_collapse_it_is_as_the_kernel_has_it)
{
	struct fg g;

	make(&g);
	cr_assert_eq(ept_huge_break(&g.e, 1), 0);
	fake_host_fail(g.h, FAKE_COLLAPSE, FAKE_EVERY, EOPNOTSUPP);
	cr_assert_eq(ept_huge_build(&g.e, 1), -ENOMEM, "the fake one's first touch makes none");
	fg_expect(&g, UNIT, UNIT, 2);
	cr_assert_eq(stats(&g).broken, 1);
	cr_assert_eq(stats(&g).refused, 1);
	unmake(&g);
}

/* While the kernel builds a unit, somebody wants a part of it: it is broken, for good. */
static void share_in_between(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fg *g = arg;

	if (op != FAKE_COLLAPSE || after != (g->arg != NULL))
		return;
	fake_host_hook(h, NULL, NULL);
	cr_assert_eq(fg_share(g, UNIT + 9, 1, 0), OB_PAGE_SIZE);
}

Test(huge, broken_while_it_is_built)
{
	for (int after = 0; after < 2; after++) {
		struct fg g;

		make(&g);
		fg_frames(&g, 0, 1, 2);
		cr_assert_eq(ept_huge_break(&g.e, 1), 0);
		g.arg = after ? &g : NULL;
		fake_host_hook(g.h, share_in_between, &g);
		cr_assert_eq(ept_huge_build(&g.e, 1), -EAGAIN);
		cr_assert_eq(stats(&g).broken, 1);
		cr_assert_eq(stats(&g).huge, 3);
		cr_assert(!fake_huge_may(g.h, fg_at(&g, UNIT)));
		cr_assert_eq(fake_huge_stuck(g.h), 0);
		fg_expect(&g, UNIT, UNIT, 2);
		unmake(&g);
	}
}

/* --- everything at random, against plain bytes ------------------------------------------------- */

struct dice {
	struct fg g;
	uint8_t is[4 * UNIT + 16];
	uint64_t seed;
	unsigned int did[9];
};

static uint64_t rnd(struct dice *d, uint64_t n)
{
	d->seed ^= d->seed << 13;
	d->seed ^= d->seed >> 7;
	d->seed ^= d->seed << 17;
	return d->seed % n;
}

static void throw(struct dice * d)
{
	struct fg *g = &d->g;
	uint64_t page = rnd(d, g->e.pages), n, same;
	unsigned int what = (unsigned int)rnd(d, OB_ARRAY_SIZE(d->did));
	int64_t r = -1;

	n = 1 + rnd(d, OB_MIN(64, OB_MIN(g->e.pages - page, gmem_page_span(&g->mem, page))));
	for (same = 1; same < n && d->is[page + same] == d->is[page]; same++)
		;
	switch (what) {
	case 0:
		memset(d->is + page, (int)rnd(d, 4), n);
		fg_fill(g, page, n, d->is[page]);
		r = 0;
		break;
	case 1:
		r = fg_take(g, page, n);
		break;
	case 2:
		r = fg_back(g, page, OB_MIN(600, gmem_page_span(&g->mem, page)));
		break;
	case 3:
		if (d->is[page] && same <= 4)
			r = fg_share(g, page, same, (uint32_t)(d->is[page] * 8));
		break;
	case 4:
		if (!d->is[page])
			r = fg_drop(g, page, same);
		break;
	case 5:
		r = ept_balloon(&g->e, page, n, true);
		cr_assert(r >= 0, "%d", (int)r);
		cr_assert_eq(ept_balloon(&g->e, page, n, false), 0);
		memset(d->is + page, 0, n);
		break;
	case 6:
		r = ept_huge_break(&g->e, rnd(d, 4));
		cr_assert(r >= 0, "%d", (int)r);
		break;
	case 7:
		if (rnd(d, 6))
			return;
		same = rnd(d, 4);
		/* It is not often that nothing is shared by chance. */
		fg_fill(g, same * UNIT, UNIT, 3);
		memset(d->is + same * UNIT, 3, UNIT);
		cr_assert(fg_back(g, same * UNIT, UNIT) >= 0);
		r = ept_huge_build(&g->e, same);
		cr_assert_eq(r, 0, "%d", (int)r);
		cr_assert(ept_unit_is_huge(&g->e, same * UNIT));
		break;
	case 8:
		r = ept_take_huge(&g->e, rnd(d, 4) * UNIT, UNIT);
		break;
	}
	d->did[what] += r >= 0;
	cr_assert_eq(fake_huge_stuck(g->h), 0, "%d: memory is held that was given back", (int)what);
}

static struct dice d;
static uint64_t seed_at_work;

static void say_seed(void)
{
	if (seed_at_work)
		fprintf(stderr, "seed %llu\n", (unsigned long long)seed_at_work);
}

static void throw_often(uint64_t seed)
{
	memset(&d, 0, sizeof(d));
	d.seed = seed_at_work = seed * 0x9e3779b97f4a7c15ULL;
	make(&d.g);
	for (unsigned int v = 1; v < 4; v++)
		fg_frames(&d.g, v * 8, 8, (uint8_t)v);
	for (uint64_t p = 0; p < 4 * UNIT; p++)
		d.is[p] = (uint8_t)(p / UNIT + 1);
	for (int i = 0; i < 3000; i++) {
		throw(&d);
		if (i % 100 == 0)
			fg_verify(&d.g);
	}
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(d.did); i++)
		cr_assert_gt(d.did[i], 20, "%u was hardly tried", i);
	for (uint64_t p = 0; p < d.g.e.pages; p++)
		fg_expect(&d.g, p, 1, d.is[p]);
	cr_assert(fg_back(&d.g, 0, d.g.e.pages) >= 0);
	unmake(&d.g);
	seed_at_work = 0;
}

Test(huge, randomised_against_oracle, .timeout = 120, .fini = say_seed)
{
	for (uint64_t seed = 1; seed <= 8; seed++)
		throw_often(seed);
}
