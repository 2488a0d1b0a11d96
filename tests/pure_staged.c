/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_staged.c: what becomes of pages that are out: shared, dropped, handed to a tier, given up by
 * the guest; and what of a decision that was made about a page which is another one by now. And
 * drops of pages in place, in batches that fail.
 */
#include <errno.h>
#include <string.h>

#include "tests/fake_guest.h"

#define PAGES 64

Test(staged, pages_become_frames)
{
	for (int copy = 0; copy < 2; copy++) {
		uint64_t off;
		struct fg g;
		int fd;

		fg_make(&g, PAGES, 0);
		g.e.copy_only = copy;
		fg_frames(&g, 4, 8, 7);
		fg_fill(&g, 0, 16, 7);
		cr_assert_eq(fg_take(&g, 0, 16), 16);
		cr_assert_eq(ept_share(&g.e, 2, 8, g.pool, 4), 8 * OB_PAGE_SIZE);
		fg_verify(&g);
		cr_assert_eq(fg_stats(&g).shared, 8);
		cr_assert_eq(fg_stats(&g).freed_bytes, 8 * OB_PAGE_SIZE);
		cr_assert_eq(fake_host_private_pages(g.h), 8);
		cr_assert(fake_host_frame_of(g.h, fg_at(&g, 3), &fd, &off));
		cr_assert_eq(off, 5 * OB_PAGE_SIZE);
		cr_assert_eq(ept_frame_of(&g.e, 3), 5);
		cr_assert_eq(g.parks, 0, "nobody had to stand still");
		fg_expect(&g, 0, 16, 7);
		for (int f = 4; f < 12; f++)
			g.held[f]++;
		fg_fill(&g, 2, 8, 9);
		fg_verify(&g);
		for (int f = 4; f < 12; f++)
			cr_assert_eq(g.held[f], 0);
		fg_unmake(&g);
	}
}

Test(staged, zero_pages_are_dropped)
{
	for (int copy = 0; copy < 2; copy++) {
		struct ept_run runs[] = {{.page = 2, .n = 3}, {.page = 8, .n = 4}};
		struct fg g;

		fg_make(&g, PAGES, 0);
		g.e.copy_only = copy;
		fg_fill(&g, 0, 16, 0);
		cr_assert_eq(fg_take(&g, 0, 16), 16);
		cr_assert_eq(ept_drop_zero_runs(&g.e, runs, 2), 7 * OB_PAGE_SIZE);
		fg_verify(&g);
		cr_assert_eq(fg_stats(&g).dropped, 7);
		cr_assert_eq(fg_stats(&g).staged, 9);
		cr_assert_eq(ept_state_of(&g.e, 9), EPT_ZERO);
		cr_assert_eq(fake_host_private_pages(g.h), 9);
		fg_expect(&g, 0, 16, 0);
		fg_fill(&g, 8, 1, 3);
		fg_verify(&g);
		cr_assert_eq(ept_state_of(&g.e, 8), EPT_PRIVATE);
		fg_unmake(&g);
	}
}

/* Somebody waits for a page that is shared, or dropped, under him: he is woken. */
Test(staged, who_waits_is_woken)
{
	for (int what = 0; what < 3; what++) {
		struct ob_fault f;
		uint8_t b = 9;
		struct fg g;

		fg_make(&g, PAGES, 0);
		fg_frames(&g, 0, 1, 0);
		fg_fill(&g, 0, 16, 0);
		cr_assert_eq(fg_take(&g, 0, 16), 16);
		cr_assert(!fake_host_try_write(g.h, fg_at(&g, 3), &b, 1));
		cr_assert_eq(fake_host_faults(g.h, &f, 1), 1);
		if (what == 0) {
			cr_assert_eq(ept_share(&g.e, 3, 1, g.pool, 0), OB_PAGE_SIZE);
			g.held[0]++;
		} else if (what == 1) {
			cr_assert_eq(ept_drop_zero(&g.e, 3, 1), OB_PAGE_SIZE);
		} else {
			cr_assert_eq(ept_balloon(&g.e, 3, 1, true), OB_PAGE_SIZE);
		}
		/* Of a page in the balloon the fault itself is answered. */
		cr_assert_eq(fake_host_waiting(g.h), what == 2);
		ept_fault_answer(&g.e, &f, 1);
		cr_assert_eq(fake_host_waiting(g.h), 0);
		fg_fill(&g, 3, 1, 9);
		cr_assert_eq(g.lost, 0);
		fg_verify(&g);
		fg_expect(&g, 3, 1, 9);
		fg_unmake(&g);
	}
}

/*
 * The page was looked at; then the guest had it back and wrote, and somebody else took it again, and
 * even looked at it. What was decided about the old page is refused.
 */
Test(staged, a_page_that_was_back_is_another_page)
{
	uint8_t buf[OB_PAGE_SIZE];
	uint32_t ticket, other;
	struct ept_tiered t;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_set_tier(&g, EPT_COMPRESSED, 0);
	fg_frames(&g, 0, 1, 7);
	fg_fill(&g, 0, 4, 7);
	cr_assert_eq(fg_take(&g, 0, 4), 4);
	cr_assert_eq(ept_stage_read(&g.e, 1, buf, &ticket), 0);
	fg_fill(&g, 1, 1, 8);
	cr_assert_eq(ept_stage_read(&g.e, 1, buf, &other), -EAGAIN);
	t = (struct ept_tiered){.page = 1, .slot = 1, .ticket = ticket};
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, &t, 1), 0);
	cr_assert(!t.done);
	cr_assert_eq(ept_share(&g.e, 1, 1, g.pool, 0), -EBUSY);

	cr_assert_eq(fg_take(&g, 0, 4), 4, "it brought its neighbours");
	cr_assert_eq(ept_stage_read(&g.e, 1, buf, &other), 0);
	cr_assert_eq(buf[100], 8);
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, &t, 1), 0);
	cr_assert(!t.done, "another reader's look is not ours");
	cr_assert_eq(ept_share(&g.e, 1, 1, g.pool, 0), -EAGAIN);
	cr_assert_eq(ept_drop_zero(&g.e, 1, 1), -EAGAIN);
	fg_verify(&g);

	fg_slot_fill(&g.tier[EPT_COMPRESSED], 1, buf);
	t.ticket = other;
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, &t, 1), OB_PAGE_SIZE);
	cr_assert(t.done);
	fg_expect(&g, 1, 1, 8);
	cr_assert_eq(ept_share(&g.e, 0, 1, g.pool, 0), OB_PAGE_SIZE);
	g.held[0]++;
	fg_expect(&g, 0, 1, 7);
	fg_unmake(&g);
}

/* In place, frozen and staged pages are not mixed; other states are refused; ranges are checked. */
Test(staged, what_cannot_be_shared_or_dropped)
{
	struct ept_stats before, after;
	struct gmem_access acc;
	struct fg g;

	fg_make(&g, PAGES, 16);
	fg_set_tier(&g, EPT_COMPRESSED, 0);
	fg_frames(&g, 0, 64, 0);
	fg_fill(&g, 0, 80, 0);
	cr_assert_eq(ept_balloon(&g.e, 0, 1, true), OB_PAGE_SIZE);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 1, 1), OB_PAGE_SIZE);
	cr_assert_eq(fg_take(&g, 4, 4), 4);
	cr_assert_eq(fg_take(&g, 62, 4), 4, "over the end of the region");
	cr_assert_eq(fg_share(&g, 10, 1, 9), OB_PAGE_SIZE);
	cr_assert(!ept_sync(&g.e, 0, 80, NULL));
	cr_assert(!gmem_access_begin(&g.mem, gpa(20 * OB_PAGE_SIZE), 1, true, &acc));
	before = fg_stats(&g);
	for (int frozen = 0; frozen < 2; frozen++) {
		if (frozen)
			cr_assert(!ept_freeze(&g.e, 0, 32));
		cr_assert_eq(ept_share(&g.e, 0, 1, g.pool, 0), -EINVAL);
		cr_assert_eq(ept_share(&g.e, 1, 1, g.pool, 0), -EINVAL);
		cr_assert_eq(ept_share(&g.e, 10, 1, g.pool, 0), -EINVAL);
		cr_assert_eq(ept_share(&g.e, 3, 3, g.pool, 0), -EBUSY, "half of it is out");
		cr_assert_eq(ept_share(&g.e, 40, 1, g.pool, 0), -EBUSY, "not frozen");
		cr_assert_eq(ept_share(&g.e, 20, 1, g.pool, 0), -EBUSY, "a device uses it");
		cr_assert_eq(ept_drop_zero(&g.e, 19, 2), -EBUSY);
		cr_assert_eq(ept_drop_zero(&g.e, 0, 1), -EINVAL);
		cr_assert_eq(ept_drop_zero(&g.e, 1, 1), -EINVAL);
		cr_assert_eq(ept_drop_zero(&g.e, 10, 1), -EINVAL);
		cr_assert_eq(ept_drop_zero(&g.e, 7, 2), -EBUSY);
		cr_assert_eq(ept_drop_zero(&g.e, 40, 1), -EBUSY);
		if (frozen)
			ept_thaw(&g.e);
	}
	gmem_access_end(&g.mem, &acc);
	cr_assert_eq(ept_share(&g.e, 62, 4, g.pool, 0), -ERANGE, "two mappings");
	cr_assert_eq(ept_share(&g.e, 4, 0, g.pool, 0), -ERANGE);
	cr_assert_eq(ept_share(&g.e, 80, 1, g.pool, 0), -ERANGE);
	cr_assert_eq(ept_share(&g.e, 4, UINT64_MAX, g.pool, 0), -ERANGE);
	cr_assert_eq(ept_share(&g.e, 4, 1, g.pool, EPT_NO_FRAME), -ERANGE);
	cr_assert_eq(ept_share(&g.e, 4, 2, g.pool, EPT_MAX_FRAME), -ERANGE);
	cr_assert_eq(ept_share(&g.e, 4, 1, -1, 0), -EBADF);
	cr_assert_eq(ept_drop_zero(&g.e, 4, UINT64_MAX), -ERANGE);
	after = fg_stats(&g);
	cr_assert_eq(after.dma_left_out, 1, "that page, by the freeze");
	after.dma_left_out = before.dma_left_out;
	cr_assert(!memcmp(&before, &after, sizeof(before)));
	cr_assert_eq(ept_drop_zero(&g.e, 62, 4), 4 * OB_PAGE_SIZE, "of staged pages it may be two");
	fg_expect(&g, 0, 80, 0);
	fg_unmake(&g);
}

/* Any call fails once: what was out stays out, with its content. */
Test(staged, sharing_that_fails)
{
	static const enum fake_op ops[] = {FAKE_FILE_READ, FAKE_MAP_FRAMES, FAKE_PAGES};

	for (size_t i = 0; i < OB_ARRAY_SIZE(ops); i++)
		for (int hole = 0; hole <= (ops[i] == FAKE_MAP_FRAMES); hole++) {
			struct fg g;
			int64_t r;

			fg_make(&g, PAGES, 0);
			fg_frames(&g, 0, 8, 7);
			fg_fill(&g, 0, 8, 7);
			cr_assert_eq(fg_take(&g, 0, 8), 8);
			if (hole)
				fake_host_fail_with_hole(g.h, ops[i], 1, ENOMEM);
			else
				fake_host_fail(g.h, ops[i], 1, ENOMEM);
			r = ept_share(&g.e, 0, 8, g.pool, 0);
			if (hole) {
				cr_assert(r == -ENOMEM && g.lost == 1, "nobody may go on there");
				g.h->ops->map_empty(g.h, fg_at(&g, 0), 8 * OB_PAGE_SIZE, "fake");
				fg_unmake(&g);
				continue;
			}
			/* That the kernel does not say what was freed is no reason to fail. */
			cr_assert_eq(r, ops[i] == FAKE_PAGES ? 0 : -ENOMEM);
			for (int f = 0; f < 8 && !r; f++)
				g.held[f]++;
			cr_assert_eq(g.lost, 0);
			fg_verify(&g);
			fg_fill(&g, 0, 1, 9);
			fg_verify(&g);
			fg_expect(&g, 1, 7, 7);
			cr_assert_eq(fg_take(&g, 0, 8), r ? 8 : 1,
				     "the places in staging are free");
			fg_expect(&g, 0, 1, 9);
			fg_unmake(&g);
		}
}

/* --- drops in place --------------------------------------------------------------------------- */

/* Bytes given back are what the kernel held before and does not hold after, however it ends. */
static void drop_scattered(enum fake_op op, uint64_t nth, uint64_t done)
{
	static struct ept_run runs[800];
	int64_t before, r;
	uint8_t b;
	struct fg g;

	fg_make(&g, 1700, 0);
	for (uint64_t p = 0; p < 1600; p += 2)
		if (p % 10)
			fg_fill(&g, p, 1, 0);
		else
			fake_host_read(g.h, fg_at(&g, p), &b, 1); /* the zero page: no memory */
	cr_assert(!ept_sync(&g.e, 0, 1700, NULL));
	for (unsigned int i = 0; i < 800; i++)
		runs[i] = (struct ept_run){.page = 2 * i, .n = 1};
	before = (int64_t)fake_host_private_pages(g.h);
	cr_assert_eq(before, 640);
	cr_assert(!ept_freeze(&g.e, 0, 1700));
	if (op >= FAKE_DISCARD_MANY)
		fake_host_fail_partly(g.h, op, nth, EAGAIN, done);
	else
		fake_host_fail(g.h, op, nth, EAGAIN);
	r = ept_drop_zero_runs(&g.e, runs, 800);
	fake_host_fail(g.h, op, 1, 0);
	ept_thaw(&g.e);
	before -= (int64_t)fake_host_private_pages(g.h);
	cr_assert_eq(r, before ? before * (int64_t)OB_PAGE_SIZE : -EAGAIN, "op %d, call %d: %lld",
		     op, (int)nth, (long long)r);
	cr_assert_eq(fg_stats(&g).freed_bytes, (uint64_t)OB_MAX(r, 0));
	fg_verify(&g);
	fg_expect(&g, 0, 1700, 0);
	fg_unmake(&g);
}

Test(staged, drops_that_fail_say_what_they_freed)
{
	for (uint64_t nth = 1; nth <= 2; nth++)
		for (uint64_t done = 0; done <= 200; done += 100)
			drop_scattered(FAKE_DISCARD_MANY, nth, done);
	drop_scattered(FAKE_PAGES, 700, 0);
	drop_scattered(FAKE_PAGES, 1, 0);
	drop_scattered(FAKE_PAGES, 100000, 0);
}

/* --- the balloon ------------------------------------------------------------------------------ */

Test(staged, the_balloon_takes_pages_wherever_they_are)
{
	for (int copy = 0; copy < 2; copy++) {
		uint64_t held;
		struct fg g;
		uint8_t b;

		fg_make(&g, PAGES, 16);
		g.e.copy_only = copy;
		fg_set_tier(&g, EPT_COMPRESSED, 0);
		fg_set_tier(&g, EPT_SWAPPED, 0);
		fg_set_tier(&g, EPT_REMOTE, 0);
		fg_frames(&g, 0, 4, 7);
		fg_fill(&g, 0, 30, 7);
		fake_host_read(g.h, fg_at(&g, 40), &b, 1);
		cr_assert_eq(fg_share(&g, 0, 4, 0), 4 * OB_PAGE_SIZE);
		fg_fill(&g, 2, 2, 9); /* broken off, and not known yet */
		cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 4, 4), 4 * OB_PAGE_SIZE);
		cr_assert_eq(fg_to_tier(&g, EPT_SWAPPED, 8, 4), 4 * OB_PAGE_SIZE);
		cr_assert_eq(fg_to_tier(&g, EPT_REMOTE, 12, 4), 4 * OB_PAGE_SIZE);
		cr_assert_eq(fg_take(&g, 16, 4), 4);
		held = fake_host_private_pages(g.h);
		cr_assert_eq(ept_balloon(&g.e, 0, 80, true), (int64_t)(held * OB_PAGE_SIZE));
		fg_verify(&g);
		cr_assert_eq(fake_host_private_pages(g.h), 0);
		cr_assert_eq(fg_stats(&g).state[EPT_BALLOONED], 80);
		cr_assert_eq(fg_stats(&g).ballooned, 80);
		for (unsigned int s = 0; s < EPT_NSTATES; s++)
			cr_assert_eq(g.tier[s].used, 0);
		for (int f = 0; f < 4; f++)
			cr_assert_eq(g.held[f], 0, "frame %d", f);
		cr_assert_eq(ept_balloon(&g.e, 0, 80, true), 0, "it is there already");
		cr_assert_eq(fg_stats(&g).ballooned, 80);

		/* Touched without being taken back: zeroes, and out of the balloon. */
		fg_expect(&g, 5, 1, 0);
		fg_fill(&g, 6, 1, 3);
		cr_assert(!ept_sync(&g.e, 0, 80, NULL));
		cr_assert_eq(ept_state_of(&g.e, 5), EPT_ZERO);
		cr_assert_eq(ept_state_of(&g.e, 6), EPT_PRIVATE);
		cr_assert_eq(ept_balloon(&g.e, 0, 80, false), 0);
		cr_assert_eq(fg_stats(&g).state[EPT_BALLOONED], 0);
		cr_assert_eq(ept_state_of(&g.e, 6), EPT_PRIVATE);
		cr_assert_eq(ept_state_of(&g.e, 50), EPT_ZERO);
		fg_expect(&g, 0, 6, 0);
		fg_expect(&g, 7, 73, 0);
		cr_assert_eq(ept_balloon(&g.e, 80, 1, true), -ERANGE);
		cr_assert_eq(ept_balloon(&g.e, 1, UINT64_MAX, false), -ERANGE);
		fg_unmake(&g);
	}
}

Test(staged, a_balloon_that_fails)
{
	static const enum fake_op ops[] = {FAKE_PAGES, FAKE_DISCARD_MANY, FAKE_MAP_EMPTY};

	for (size_t i = 0; i < OB_ARRAY_SIZE(ops); i++)
		for (uint64_t nth = 1; nth < 6; nth++) {
			uint64_t held;
			struct fg g;
			int64_t r;

			fg_make(&g, PAGES, 0);
			fg_frames(&g, 0, 4, 7);
			fg_fill(&g, 0, 8, 7);
			cr_assert_eq(fg_share(&g, 2, 2, 0), 2 * OB_PAGE_SIZE);
			cr_assert_eq(fg_share(&g, 6, 1, 2), OB_PAGE_SIZE);
			held = fake_host_private_pages(g.h);
			/* Twice, for that is how often an empty mapping is tried. */
			fake_host_fail(g.h, ops[i], ops[i] == FAKE_MAP_EMPTY ? FAKE_EVERY : nth,
				       ENOMEM);
			r = ept_balloon(&g.e, 0, 8, true);
			fake_host_fail(g.h, ops[i], 1, 0);
			held -= fake_host_private_pages(g.h);
			cr_assert_eq(r, held || fg_stats(&g).ballooned == 8
						? (int64_t)(held * OB_PAGE_SIZE)
						: -ENOMEM);
			fg_verify(&g);
			for (uint64_t p = 0; p < 8; p++)
				fg_expect(&g, p, 1, ept_state_of(&g.e, p) == EPT_BALLOONED ? 0 : 7);
			fg_unmake(&g);
		}
}
