/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_window.c: the windows of guest memory whose faults come to us: what is taken out of one must
 * never read as zeroes, whatever was mapped into it before, and whatever failed.
 */
#include <errno.h>

#include "tests/fake_guest.h"

#define W EPT_WINDOW

static void registered(struct fg *g, uint64_t page, uint64_t n, bool yes)
{
	for (uint64_t p = page; p < page + n; p++)
		cr_assert_eq(fake_host_registered(g->h, fg_at(g, p)), yes, "page %d", (int)p);
}

Test(window, opens_where_something_leaves_and_closes_when_all_is_back)
{
	struct fg g;

	/* The first window of the second region begins in the middle of one. */
	fg_make(&g, 2 * W + 100, W);
	fg_fill(&g, 0, g.mem.pages, 7);
	cr_assert_eq(fg_stats(&g).windows, 0);
	cr_assert_eq(fg_take(&g, 10, 20), 20);
	cr_assert_eq(fg_stats(&g).windows, 1);
	registered(&g, 0, W, true);
	registered(&g, W, g.mem.pages - W, false);
	cr_assert_eq(fg_take(&g, 2 * W + 98, 4), 4);
	cr_assert_eq(fg_stats(&g).windows, 2);
	registered(&g, 2 * W, W, true);
	registered(&g, 3 * W, 100, false);
	fg_verify(&g);

	cr_assert_eq(fg_back(&g, 0, 20), 10);
	cr_assert_eq(fg_stats(&g).windows, 2, "half of what was taken is still out");
	cr_assert_eq(fg_back(&g, 20, 1), 1);
	cr_assert_eq(fg_back(&g, 20, 500), 9);
	registered(&g, 0, W, false);
	cr_assert_eq(fg_back(&g, 0, g.mem.pages), 4);
	cr_assert_eq(fg_stats(&g).windows, 0);
	registered(&g, 0, g.mem.pages, false);
	fg_expect(&g, 0, g.mem.pages, 7);
	fg_unmake(&g);
}

/* A frame's mapping in an open window, dropped: the page that comes after it is ours again. */
Test(window, a_page_that_was_shared_and_dropped_is_watched_again)
{
	struct fg g;

	fg_make(&g, W + 64, 0);
	fg_frames(&g, 0, 4, 7);
	fg_fill(&g, 0, g.mem.pages, 7);
	cr_assert_eq(fg_take(&g, 0, 2), 2); /* opens the window */
	cr_assert_eq(fg_share(&g, 20, 4, 0), 4 * OB_PAGE_SIZE);
	registered(&g, 20, 4, false);
	fg_fill(&g, 20, 4, 0);
	cr_assert_eq(fg_drop(&g, 20, 4), 4 * OB_PAGE_SIZE);
	registered(&g, 20, 4, true);
	fg_fill(&g, 20, 4, 9);
	cr_assert_eq(fg_take(&g, 20, 4), 4);
	fg_expect(&g, 20, 4, 9);
	fg_unmake(&g);
}

/* The same, given up by the guest, over the edge of two windows of which one is open. */
Test(window, shared_pages_that_went_into_the_balloon_are_watched_again)
{
	for (uint64_t open = 0; open < 2; open++) {
		struct fg g;

		fg_make(&g, 2 * W, 0);
		fg_frames(&g, 0, 8, 7);
		fg_fill(&g, 0, g.mem.pages, 7);
		cr_assert_eq(fg_take(&g, open * W + 100, 1), 1);
		cr_assert_eq(fg_share(&g, W - 4, 8, 0), 8 * OB_PAGE_SIZE);
		cr_assert_eq(ept_balloon(&g.e, W - 4, 8, true), 0);
		cr_assert_eq(g.nbroken, 8);
		registered(&g, W - 4, 4, open == 0);
		registered(&g, W, 4, open == 1);
		fg_fill(&g, W - 4, 8, 9);
		cr_assert_eq(fg_take(&g, W - 4, 8), 8);
		fg_expect(&g, W - 4, 8, 9);
		fg_unmake(&g);
	}
}

/*
 * Too many mappings to watch the page that takes the place of one over the pool: nothing is taken
 * that could not be answered for. Whatever was mapped meanwhile, later it works again.
 */
Test(window, what_cannot_be_watched_is_not_taken)
{
	struct fg g;

	fg_make(&g, W, 0);
	fg_frames(&g, 0, 4, 7);
	fg_fill(&g, 0, W, 7);
	cr_assert_eq(fg_share(&g, 20, 4, 0), 4 * OB_PAGE_SIZE);
	fg_fill(&g, 20, 4, 9);
	cr_assert_eq(fg_take(&g, 0, 1), 1);
	fake_host_fail(g.h, FAKE_UFFD_REGISTER, FAKE_EVERY, ENOMEM);
	cr_assert_eq(fg_take(&g, 20, 4), -ENOMEM);
	fake_host_fail(g.h, FAKE_UFFD_REGISTER, 1, 0);
	cr_assert_eq(g.lost, 0, "%s", g.why);
	fg_verify(&g);
	fg_expect(&g, 20, 4, 9);
	cr_assert_eq(fg_take(&g, 20, 4), 4);
	registered(&g, 20, 4, true);
	fg_expect(&g, 20, 4, 9);

	/* The same when it was dropped, or given up. */
	for (int balloon = 0; balloon < 2; balloon++) {
		fg_fill(&g, 20, 4, 7);
		cr_assert_eq(fg_share(&g, 20, 4, 0), 4 * OB_PAGE_SIZE);
		fg_fill(&g, 20, 4, 0);
		fake_host_fail(g.h, FAKE_UFFD_REGISTER, FAKE_EVERY, ENOMEM);
		if (balloon)
			cr_assert_eq(ept_balloon(&g.e, 20, 4, true), 4 * OB_PAGE_SIZE);
		else
			cr_assert_eq(fg_drop(&g, 20, 4), 4 * OB_PAGE_SIZE);
		fake_host_fail(g.h, FAKE_UFFD_REGISTER, 1, 0);
		fg_verify(&g);
		if (balloon)
			cr_assert_eq(ept_balloon(&g.e, 20, 4, false), 0);
		fg_expect(&g, 20, 4, 0);
		fg_fill(&g, 20, 4, 8);
		cr_assert_eq(fg_take(&g, 20, 4), 4);
		fg_expect(&g, 20, 4, 8);
	}
	fg_unmake(&g);
}

/* A window that could be registered in part only is not open. */
Test(window, one_that_fails_to_open_is_not_taken_for_open)
{
	struct fg g;

	fg_make(&g, W, 0);
	fg_fill(&g, 0, W, 7);
	cr_assert_eq(fg_take(&g, 300, 1), 1);
	cr_assert_eq(fg_back(&g, 300, 1), 1);
	fake_host_fail_partly(g.h, FAKE_UFFD_REGISTER, 1, ENOMEM, 100);
	cr_assert_eq(fg_take(&g, 200, 8), -ENOMEM);
	fake_host_fail(g.h, FAKE_UFFD_REGISTER, 1, 0);
	cr_assert_eq(fg_stats(&g).windows, 0);
	fg_verify(&g);
	cr_assert_eq(fg_take(&g, 200, 8), 8);
	registered(&g, 0, W, true);
	fg_expect(&g, 200, 8, 7);
	fg_unmake(&g);
}

/*
 * Somebody waits for a page that was never touched, and before the fault is answered the last page
 * that was out comes back, and the window is closed: he goes on at the kernel's hands.
 */
Test(window, closed_while_somebody_waits_in_it)
{
	uint8_t b = 5;

	for (int write = 0; write < 2; write++) {
		struct ob_fault f;
		struct fg g;

		fg_make(&g, W, 0);
		fg_fill(&g, 0, 16, 7);
		cr_assert_eq(fg_take(&g, 0, 16), 16);
		if (write)
			cr_assert(!fake_host_try_write(g.h, fg_at(&g, 100), &b, 1));
		else
			cr_assert(!fake_host_try_read(g.h, fg_at(&g, 100), &b, 1));
		cr_assert_eq(fake_host_faults(g.h, &f, 1), 1);
		cr_assert_eq(fg_back(&g, 0, 16), 16);
		cr_assert_eq(fg_stats(&g).windows, 0);
		cr_assert_eq(fake_host_waiting(g.h), 0);
		ept_fault_answer(&g.e, &f, 1);
		cr_assert_eq(g.lost, 0, "%s", g.why);
		cr_assert_eq(fg_faults(&g).count[EPT_FAULT_REDUNDANT], 1);
		fg_expect(&g, 0, 16, 7);
		fg_expect(&g, 100, 1, 0);
		fg_unmake(&g);
	}
}

/* A page of another mapping than its neighbours is taken and put back like them. */
Test(window, of_several_mappings)
{
	for (int copy = 0; copy < 2; copy++) {
		struct fg g;

		fg_make(&g, W, 0);
		g.e.copy_only = copy;
		fg_fill(&g, 0, 64, 7);
		cr_assert(!g.h->ops->mergeable(g.h, fg_at(&g, 13), 7 * OB_PAGE_SIZE, true));
		cr_assert_eq(fg_take(&g, 0, 64), 64, "%d", copy);
		cr_assert_eq(fg_stats(&g).pinned, 0);
		fg_verify(&g);
		cr_assert_eq(fg_back(&g, 0, 40), 40);
		fg_expect(&g, 0, 64, 7);
		fg_unmake(&g);
	}
}

/* Closing a window that cannot be closed leaves faults that are answered like any others. */
Test(window, one_that_does_not_close)
{
	struct fg g;

	fg_make(&g, W, 0);
	fg_fill(&g, 0, 16, 7);
	cr_assert_eq(fg_take(&g, 0, 16), 16);
	fake_host_fail(g.h, FAKE_UFFD_UNREGISTER, 1, ENOMEM);
	cr_assert_eq(fg_back(&g, 0, 16), 16);
	cr_assert_eq(fg_stats(&g).windows, 1, "its faults still come to us");
	registered(&g, 0, W, true);
	fg_expect(&g, 100, 1, 0);
	fg_fill(&g, 101, 1, 6);
	cr_assert_eq(fg_faults(&g).count[EPT_FAULT_ZERO], 2);
	fg_verify(&g);
	cr_assert_eq(fg_take(&g, 101, 1), 1);
	cr_assert_eq(fg_back(&g, 101, 1), 1);
	registered(&g, 0, W, false);
	fg_expect(&g, 101, 1, 6);
	fg_unmake(&g);
}
