/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_unshare.c: merging is undone (ept_unshare): content, memory and mappings are what they were, and
 * none of it is ever lost, whichever call of the host fails and however.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/fake_guest.h"

#define PAGES 256

static uint8_t value(uint64_t page)
{
	return page % 4 == 3 ? 0 : (uint8_t)(1 + page % 200);
}

/* Pages of many contents, every fourth of zeroes, those from 240 on only read, and 250 on untouched. */
static void fill(struct fg *g)
{
	uint8_t buf[OB_PAGE_SIZE];

	for (uint64_t p = 0; p < 240; p++)
		fg_fill(g, p, 1, value(p));
	for (uint64_t p = 240; p < 250; p++)
		fake_host_read(g->h, fg_at(g, p), buf, sizeof(buf));
	cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
}

/* What a merging engine does: runs, singles, drops; and some pages break off again. */
static void merge(struct fg *g)
{
	for (uint32_t f = 0; f < 30; f++) {
		fg_frames(g, f, 1, value(f * 4 + 1));
		cr_assert_geq(fg_share(g, f * 4 + 1, 1, f), 0);
	}
	fg_frames(g, 40, 1, value(130));
	cr_assert_geq(fg_share(g, 130, 1, 40), 0);
	for (uint64_t p = 3; p < 240; p += 4)
		cr_assert_geq(fg_drop(g, p, 1), 0);
	fg_fill(g, 5, 1, 99);	    /* breaks off its frame */
	fg_fill(g, 7, 1, 98);	    /* was dropped, and is written */
	fg_fill(g, 9, 1, value(9)); /* the same bytes */
	fg_fill(g, 13, 1, 0);	    /* breaks off, and is all zero now */
	cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
	cr_assert_geq(fg_drop(g, 13, 1), 0);
}

static void check_content(struct fg *g)
{
	for (uint64_t p = 0; p < PAGES; p++)
		fg_expect(g, p, 1,
			  p == 5     ? 99
			  : p == 7   ? 98
			  : p == 13  ? 0
			  : p >= 240 ? 0
				     : value(p));
}

static int undo(struct fg *g, struct ept_unshared *sum)
{
	void *buf = malloc(EPT_UNSHARE_PAGES * OB_PAGE_SIZE);
	int r;

	cr_assert(buf);
	cr_assert(!ept_freeze(&g->e, 0, PAGES));
	r = ept_unshare(&g->e, 0, PAGES, buf, sum);
	ept_thaw(&g->e);
	free(buf);
	return r;
}

static uint64_t mappings(struct fg *g)
{
	uint64_t have, limit;

	cr_assert(!g->h->ops->vma_count(g->h, &have, &limit));
	return have;
}

static void check_undone(struct fg *g, uint64_t vmas, uint64_t held)
{
	struct ept_stats st = fg_stats(g);

	cr_expect_eq(st.state[EPT_SHARED], 0);
	cr_expect_eq(st.state[EPT_PRIVATE], 240);
	/* To expect content is to read it. */
	cr_expect_eq(st.state[EPT_ZERO] + st.state[EPT_UNTOUCHED], 16,
		     "pages that were only read got memory");
	cr_expect_eq(fake_host_private_pages(g->h), held);
	cr_expect_eq(mappings(g), vmas);
	cr_expect_not(ept_over_pool(&g->e, 0, PAGES));
	cr_expect_eq(ept_unshare_wanted(&g->e, 0, PAGES), 0);
	for (unsigned int f = 0; f < FG_FRAMES; f++)
		cr_expect_eq(g->held[f], 0, "frame %u is held yet", f);
	check_content(g);
}

Test(unshare, memory_and_mappings_are_what_they_were)
{
	struct ept_unshared sum = {0};
	uint64_t vmas, held;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fill(&g);
	vmas = mappings(&g);
	held = fake_host_private_pages(g.h);
	cr_assert_eq(held, 240);
	merge(&g);
	cr_assert_gt(mappings(&g), vmas + 20);
	cr_assert_lt(fake_host_private_pages(g.h), 160);
	cr_assert_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages, 28);
	cr_expect_eq(sum.zeroes, 60);
	cr_expect_eq(sum.left, 0);
	check_undone(&g, vmas, held);
	/* Twice is once. */
	sum = (struct ept_unshared){0};
	cr_expect_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages + sum.zeroes + sum.left, 0);
	/* And again from the start. */
	merge(&g);
	cr_assert_eq(undo(&g, &sum), 0);
	check_undone(&g, vmas, held);
	fg_unmake(&g);
}

Test(unshare, wants_frozen_pages_of_one_region)
{
	struct ept_unshared sum = {0};
	static uint8_t buf[EPT_UNSHARE_PAGES * OB_PAGE_SIZE];
	struct fg g;

	fg_make(&g, 64, 64);
	fg_fill(&g, 0, 8, 3);
	fg_frames(&g, 0, 1, 3);
	cr_assert_geq(fg_share(&g, 0, 1, 0), 0);
	cr_expect_eq(ept_unshare(&g.e, 0, 1, buf, &sum), -EBUSY);
	cr_assert(!ept_freeze(&g.e, 0, 64));
	cr_expect_eq(ept_unshare(&g.e, 60, 8, buf, &sum), -ERANGE, "two regions");
	cr_expect_eq(ept_unshare(&g.e, 0, 0, buf, &sum), -ERANGE);
	cr_expect_eq(ept_unshare(&g.e, 128, 1, buf, &sum), -ERANGE);
	cr_expect_eq(ept_unshare(&g.e, UINT64_MAX, 2, buf, &sum), -ERANGE);
	cr_expect_eq(ept_unshare(&g.e, 0, EPT_UNSHARE_PAGES + 1, buf, &sum), -ERANGE);
	ept_thaw(&g.e);
	cr_assert(!ept_freeze(&g.e, 0, 1));
	cr_expect_eq(ept_unshare(&g.e, 0, 2, buf, &sum), -EBUSY, "not all of it is frozen");
	cr_expect_eq(ept_unshare(&g.e, 0, 1, buf, &sum), 0);
	ept_thaw(&g.e);
	cr_expect_eq(sum.pages, 1);
	fg_expect(&g, 0, 8, 3);
	fg_unmake(&g);
}

Test(unshare, a_page_that_a_device_uses_is_left_for_later)
{
	struct ept_unshared sum = {0};
	struct gmem_access acc;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, 4, 3);
	fg_frames(&g, 0, 4, 3);
	cr_assert_geq(fg_share(&g, 0, 4, 0), 0);
	cr_assert_eq(ept_dma_begin(&g.e, gpa(2 * OB_PAGE_SIZE), 10, false, &acc), 0);
	cr_assert_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages, 3);
	cr_expect_eq(sum.left, 1);
	cr_expect_eq(ept_state_of(&g.e, 2), EPT_SHARED);
	ept_dma_end(&g.e, &acc);
	cr_assert_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages, 4);
	fg_expect(&g, 0, 4, 3);
	fg_unmake(&g);
}

/* Where faults come to us, a store of ours would wait for ourselves: the fake host aborts then. */
Test(unshare, dropped_pages_among_staged_ones_get_their_memory)
{
	struct ept_unshared sum = {0};
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, 32, 3);
	fg_fill(&g, 8, 8, 0);
	fg_frames(&g, 0, 4, 3);
	cr_assert_geq(fg_drop(&g, 8, 8), 0);
	cr_assert_geq(fg_share(&g, 16, 4, 0), 0);
	cr_assert_eq(fg_take(&g, 0, 4), 4);
	cr_assert_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages, 4);
	cr_expect_eq(sum.zeroes, 8);
	cr_expect_eq(fg_stats(&g).staged, 4);
	fg_expect(&g, 0, 8, 3);
	fg_expect(&g, 8, 8, 0);
	fg_expect(&g, 16, 16, 3);
	cr_expect_geq(fg_back(&g, 0, 32), 0);
	cr_expect_eq(fg_stats(&g).state[EPT_PRIVATE], 32);
	fg_unmake(&g);
}

/* The host has no mapping left: a page that holds nothing, in a mapping that is as it was, has lost
 * nothing, and later it gets its memory. */
Test(unshare, a_dropped_page_is_not_lost_for_want_of_a_mapping)
{
	struct ept_unshared sum = {0};
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, 32, 3);
	fg_fill(&g, 8, 8, 0);
	fg_frames(&g, 0, 4, 3);
	cr_assert_geq(fg_drop(&g, 8, 8), 0);
	cr_assert_geq(fg_share(&g, 16, 4, 0), 0);
	cr_assert_eq(fg_take(&g, 0, 4), 4);
	fake_host_fail(g.h, FAKE_MAP_EMPTY, FAKE_EVERY, ENOMEM);
	cr_assert_eq(undo(&g, &sum), -ENOMEM);
	cr_expect_eq(g.lost, 0);
	cr_expect_eq(sum.pages + sum.zeroes, 0);
	fake_host_fail(g.h, FAKE_MAP_EMPTY, 1, 0);
	fg_verify(&g);
	cr_assert_eq(undo(&g, &sum), 0);
	cr_expect_eq(sum.pages, 4);
	cr_expect_eq(sum.zeroes, 8);
	fg_expect(&g, 0, 8, 3);
	fg_expect(&g, 8, 8, 0);
	fg_expect(&g, 16, 16, 3);
	cr_expect_eq(g.lost, 0);
	fg_unmake(&g);
}

/* Whatever fails, whenever: nothing is lost, and the next try does the rest. */
static void fails(enum fake_op op, bool hole, uint64_t part)
{
	for (uint64_t nth = 1; nth < 400; nth++) {
		struct ept_unshared sum = {0};
		uint64_t vmas, held, before;
		struct fg g;
		bool met;

		fg_make(&g, PAGES, 0);
		fill(&g);
		vmas = mappings(&g);
		held = fake_host_private_pages(g.h);
		merge(&g);
		before = fake_host_calls(g.h, op);
		if (hole)
			fake_host_fail_with_hole(g.h, op, nth, ENOMEM);
		else if (part)
			fake_host_fail_partly(g.h, op, nth, ENOMEM, part - 1);
		else
			fake_host_fail(g.h, op, nth, ENOMEM);
		undo(&g, &sum);
		met = fake_host_calls(g.h, op) >= before + nth;
		fake_host_fail(g.h, op, 1, 0);
		fg_verify(&g);
		check_content(&g);
		cr_assert_eq(g.lost, 0);
		cr_assert_eq(undo(&g, &sum), 0);
		check_undone(&g, vmas, held);
		fg_unmake(&g);
		if (!met)
			return;
	}
	cr_assert_fail("it never ended");
}

Test(unshare, a_host_that_does_not_map)
{
	fails(FAKE_MAP_EMPTY, false, 0);
}

Test(unshare, a_host_that_does_not_map_and_has_taken_away)
{
	fails(FAKE_MAP_EMPTY, true, 0);
}

Test(unshare, a_host_that_gives_no_memory)
{
	fails(FAKE_POPULATE, false, 0);
	fails(FAKE_POPULATE, false, 1);
}

Test(unshare, a_host_that_does_not_say_what_is_there)
{
	fails(FAKE_PAGES, false, 0);
}
