/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_take.c: taking pages out and putting them back, on the fake host: what goes, what stays,
 * what is counted, and that whatever fails changes nothing. Each test that can runs twice, with
 * UFFDIO_MOVE and without.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/fake_guest.h"

#define PAGES 64

static void make(struct fg *g, int copy)
{
	fg_make(g, PAGES, 16);
	g->e.copy_only = copy;
}

Test(take_pure, goes_out_and_comes_back)
{
	for (int copy = 0; copy < 2; copy++) {
		const struct ept_run runs[] = {{.page = 2, .n = 6}, {.page = 60, .n = 10}};
		struct ept_stats st;
		uint64_t size;
		hva_t staging;
		struct fg g;

		make(&g, copy);
		ept_staging(&g.e, &staging, &size);
		cr_assert_eq(size, 0, "nothing has left yet");
		for (uint64_t p = 0; p < 80; p++)
			fg_fill(&g, p, 1, (uint8_t)(1 + p));
		cr_assert_eq(ept_take(&g.e, runs, 2, false), 16);
		fg_verify(&g);
		st = fg_stats(&g);
		cr_assert(st.taken == 16 && st.staged == 16 && st.state[EPT_PRIVATE] == 80);
		cr_assert_eq(fake_host_private_pages(g.h), 80, "nothing was given back yet");
		ept_staging(&g.e, &staging, &size);
		cr_assert_eq(size, 80 * OB_PAGE_SIZE);
		for (uint64_t p = 0; p < 80; p++)
			cr_assert_eq(ept_is_staged(&g.e, p),
				     (p >= 2 && p < 8) || (p >= 60 && p < 70));
		cr_assert(!ept_is_staged(&g.e, 80));
		cr_assert_eq(ept_take(&g.e, runs, 2, false), 0, "they are out already");

		cr_assert_eq(ept_put_back(&g.e, runs, 1), 6);
		st = fg_stats(&g);
		cr_assert(st.put_back == 6 && st.staged == 10);
		cr_assert_eq(ept_put_back(&g.e, runs, 2), 10);
		cr_assert_eq(fg_stats(&g).staged, 0);
		for (uint64_t p = 0; p < 80; p++)
			fg_expect(&g, p, 1, (uint8_t)(1 + p));
		cr_assert_eq(fg_faults(&g).count[EPT_FAULT_STAGING], 0);
		fg_unmake(&g);
	}
}

/* Only what is private goes: the rest is left where it is. */
Test(take_pure, only_private_pages_go)
{
	for (int copy = 0; copy < 2; copy++) {
		struct fg g;
		uint8_t b;

		make(&g, copy);
		fg_set_tier(&g, EPT_COMPRESSED, 0);
		fg_frames(&g, 0, 2, 7);
		fg_fill(&g, 0, 12, 7);
		fake_host_read(g.h, fg_at(&g, 70), &b, 1); /* a zero page */
		cr_assert_eq(fg_share(&g, 0, 2, 0), 2 * OB_PAGE_SIZE);
		cr_assert_eq(ept_balloon(&g.e, 2, 2, true), 2 * OB_PAGE_SIZE);
		cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 4, 2), 2 * OB_PAGE_SIZE);
		cr_assert_eq(fg_take(&g, 6, 2), 2);
		cr_assert_eq(fg_take(&g, 0, 80), 4, "pages 8 to 11");
		fg_verify(&g);
		fg_expect(&g, 0, 2, 7);
		fg_expect(&g, 2, 2, 0);
		fg_expect(&g, 4, 8, 7);
		fg_expect(&g, 12, 4, 0);
		fg_unmake(&g);
	}
}

/* Swapped out by the kernel, or on its way from one frame to another: it goes as well. */
Test(take_pure, pages_that_the_kernel_has_in_hand)
{
	for (int copy = 0; copy < 2; copy++) {
		struct fg g;

		make(&g, copy);
		fg_fill(&g, 0, 8, 7);
		fake_host_swap_out(g.h, fg_at(&g, 0), 2);
		fake_host_migrate_begin(g.h, fg_at(&g, 2), 2);
		cr_assert_eq(fg_take(&g, 0, 8), 8);
		fg_verify(&g);
		fg_expect(&g, 0, 8, 7);
		fg_unmake(&g);
	}
}

Test(take_pure, pinned_pages_stay)
{
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, 16, 7);
	fake_host_pin(g.h, fg_at(&g, 0), 1, true);
	fake_host_pin(g.h, fg_at(&g, 5), 2, true);
	fake_host_pin(g.h, fg_at(&g, 15), 1, true);
	cr_assert_eq(fg_take(&g, 0, 16), 12);
	cr_assert_eq(fg_stats(&g).pinned, 4);
	fg_verify(&g);
	/* One that somebody holds while it is out comes back as a copy. */
	fake_host_pin(g.h, ept_stage_hva(&g.e, 3), 1, true);
	cr_assert_eq(fg_back(&g, 0, 16), 12);
	fg_verify(&g);
	fg_expect(&g, 0, 16, 7);
	cr_assert_eq(g.lost, 0);
	fg_unmake(&g);
}

Test(take_pure, pages_under_dma_stay)
{
	for (int copy = 0; copy < 2; copy++) {
		struct gmem_access acc;
		struct fg g;

		make(&g, copy);
		fg_fill(&g, 0, 16, 7);
		cr_assert(!gmem_access_begin(&g.mem, gpa(5 * OB_PAGE_SIZE + 1), OB_PAGE_SIZE, true,
					     &acc));
		cr_assert_eq(fg_take(&g, 0, 16), 14);
		cr_assert_eq(fg_stats(&g).dma_left_out, 2);
		memset(acc.ptr, 9, OB_PAGE_SIZE);
		gmem_access_end(&g.mem, &acc);
		fg_verify(&g);
		cr_assert_eq(fg_take(&g, 0, 16), 2);
		fg_expect(&g, 7, 9, 7);
		fg_fill(&g, 5, 2, 7);
		fg_unmake(&g);
	}
}

/* Broken off frames: copied in a freeze, and an ordinary page comes back. */
Test(take_pure, pages_over_the_pool_are_copied)
{
	for (int copy = 0; copy < 2; copy++) {
		struct gmem_access acc;
		uint64_t off;
		struct fg g;
		int fd;

		make(&g, copy);
		fg_frames(&g, 0, 8, 7);
		fg_fill(&g, 0, 12, 7);
		cr_assert_eq(fg_share(&g, 2, 8, 0), 8 * OB_PAGE_SIZE);
		fg_fill(&g, 4, 4, 9); /* 2, 3, 8 and 9 stay shared */
		cr_assert(!gmem_access_begin(&g.mem, gpa(5 * OB_PAGE_SIZE), 1, true, &acc));
		cr_assert_eq(fg_take(&g, 0, 12), 7, "all but the shared ones, and that under DMA");
		gmem_access_end(&g.mem, &acc);
		fg_verify(&g);
		cr_assert(ept_over_pool(&g.e, 5, 1) && !ept_over_pool(&g.e, 6, 1));
		cr_assert_eq(fg_back(&g, 0, 12), 7);
		cr_assert(!fake_host_frame_of(g.h, fg_at(&g, 4), &fd, &off));
		fg_expect(&g, 0, 4, 7);
		fg_expect(&g, 4, 4, 9);
		fg_expect(&g, 8, 4, 7);
		cr_assert_eq(g.nbroken, 4);
		fg_unmake(&g);
	}
}

/*
 * Somebody who only reads is not kept off frozen pages: the scanner, who hashes what he finds. He
 * comes when the old mapping of the page is gone.
 */
struct reader {
	struct fg *g;
	uint64_t page; /* whose turn it is */
};

static void reader_hook(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct reader *r = arg;
	uint8_t byte;

	if (op == FAKE_MAP_EMPTY && after)
		fake_host_read(h, fg_at(r->g, r->page++), &byte, 1);
}

Test(take_pure, a_reader_leaves_nothing_in_the_place_of_a_page_over_the_pool)
{
	for (int copy = 0; copy < 2; copy++) {
		struct reader r;
		struct fg g;

		make(&g, copy);
		r = (struct reader){.g = &g, .page = 4};
		fg_frames(&g, 0, 8, 7);
		fg_fill(&g, 0, 12, 7);
		cr_assert_eq(fg_share(&g, 2, 8, 0), 8 * OB_PAGE_SIZE);
		fg_fill(&g, 4, 4, 9);
		fake_host_hook(g.h, reader_hook, &r);
		cr_assert_eq(fg_take(&g, 4, 4), 4);
		fake_host_hook(g.h, NULL, NULL);
		cr_assert_eq(r.page, 8, "he read each of them");
		fg_verify(&g);
		fg_expect(&g, 4, 1, 9); /* by a fault */
		cr_assert_geq(fg_back(&g, 0, 12), 0);
		cr_assert_eq(fg_stats(&g).staged, 0);
		fg_expect(&g, 4, 4, 9);
		fg_unmake(&g);
	}
}

/* Few runs go beside the running guest, many with the guest parked in batches. */
Test(take_pure, parks_for_many_runs_only)
{
	struct ept_run runs[PAGES / 2];
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, PAGES, 7);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(runs); i++)
		runs[i] = (struct ept_run){.page = 2 * i, .n = 1};
	cr_assert_eq(ept_take(&g.e, runs, EPT_PARK_RUNS - 1, false), EPT_PARK_RUNS - 1);
	cr_assert_eq(g.parks, 0);
	cr_assert_eq(ept_take(&g.e, runs, PAGES / 2, false), PAGES / 2 - EPT_PARK_RUNS + 1);
	cr_assert_eq(g.parks, 1);
	cr_assert_eq(ept_put_back(&g.e, runs, PAGES / 2), PAGES / 2);
	cr_assert_eq(g.parks, 2);
	fg_expect(&g, 0, PAGES, 7);
	fg_unmake(&g);
}

Test(take_pure, huge_units_go_and_come_as_a_whole)
{
	struct fg g;

	fg_make(&g, 3 * EPT_WINDOW, 0);
	fg_fill(&g, 0, 3 * EPT_WINDOW, 7);
	cr_assert_eq(ept_take_huge(&g.e, 1, EPT_WINDOW), -EINVAL);
	cr_assert_eq(ept_take_huge(&g.e, EPT_WINDOW, 1), -EINVAL);
	cr_assert_eq(ept_take_huge(&g.e, EPT_WINDOW, 3 * EPT_WINDOW), -ERANGE);
	cr_assert_eq(ept_take_huge(&g.e, EPT_WINDOW, 2 * EPT_WINDOW), 2 * EPT_WINDOW);
	cr_assert_eq(ept_samples_left(&g.e, 0, 3 * EPT_WINDOW, false), 2 * EPT_WINDOW);
	fg_expect(&g, EPT_WINDOW + 300, 1, 7);
	cr_assert_eq(fg_faults(&g).count[EPT_FAULT_STAGING], 1);
	cr_assert_eq(fg_faults(&g).pages[EPT_FAULT_STAGING], EPT_WINDOW);
	cr_assert_eq(fg_stats(&g).staged, EPT_WINDOW);
	cr_assert_eq(ept_samples_left(&g.e, 0, 3 * EPT_WINDOW, true), EPT_WINDOW);
	cr_assert_eq(fg_stats(&g).staged, 0);
	fg_expect(&g, 0, 3 * EPT_WINDOW, 7);
	fg_unmake(&g);
}

/* Counting samples touches nothing else that is out. */
Test(take_pure, samples_are_counted_and_go_back_alone)
{
	const struct ept_run run[] = {{.page = 4, .n = 1}, {.page = 9, .n = 2}};
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, PAGES, 7);
	cr_assert_eq(ept_take(&g.e, run, 2, true), 3);
	cr_assert_eq(fg_take(&g, 0, 9), 8);
	cr_assert_eq(ept_samples_left(&g.e, 0, PAGES, false), 3);
	fg_expect(&g, 9, 1, 7);
	cr_assert(ept_is_staged(&g.e, 10) && ept_is_staged(&g.e, 8), "a sample comes alone");
	cr_assert_eq(ept_samples_left(&g.e, 0, PAGES, true), 2);
	cr_assert_eq(ept_samples_left(&g.e, 0, PAGES, true), 0);
	cr_assert_eq(fg_stats(&g).staged, 8, "what is out for another reason stays there");
	cr_assert_eq(ept_samples_left(&g.e, PAGES, 17, false), -ERANGE);
	fg_expect(&g, 0, PAGES, 7);
	fg_unmake(&g);
}

/* --- what fails, changes nothing -------------------------------------------------------------- */

Test(take_pure, without_a_userfaultfd_nothing_leaves)
{
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, 4, 7);
	fake_host_fail(g.h, FAKE_UFFD_OPEN, FAKE_EVERY, EPERM);
	cr_assert_eq(fg_take(&g, 0, 4), -EPERM);
	fake_host_fail(g.h, FAKE_UFFD_OPEN, 1, 0);
	fake_host_uffd_caps(g.h, (struct ob_uffd_caps){0});
	cr_assert_eq(fg_take(&g, 0, 4), -EOPNOTSUPP);
	fake_host_uffd_caps(g.h, (struct ob_uffd_caps){.move = true});
	g.e.copy_only = true;
	cr_assert_eq(fg_take(&g, 0, 4), -EOPNOTSUPP);
	g.e.copy_only = false;
	for (int op = FAKE_RAM_MAP; op <= FAKE_UFFD_REGISTER;
	     op += FAKE_UFFD_REGISTER - FAKE_RAM_MAP) {
		fake_host_fail(g.h, (enum fake_op)op, 1, ENOMEM);
		cr_assert_eq(fg_take(&g, 0, 4), -ENOMEM);
	}
	cr_assert_eq(fg_stats(&g).taken, 0);
	cr_assert(!g.e.stage);
	cr_assert_eq(fg_take(&g, 0, 4), 4);
	fg_expect(&g, 0, 4, 7);
	fg_unmake(&g);
}

Test(take_pure, bad_runs_are_refused)
{
	const struct ept_run unsorted[] = {{.page = 8, .n = 2}, {.page = 2, .n = 2}};
	const struct ept_run overlap[] = {{.page = 2, .n = 4}, {.page = 5, .n = 2}};
	const struct ept_run wraps[] = {{.page = 2, .n = UINT64_MAX - 1}};
	const struct ept_run none[] = {{.page = 2, .n = 0}};
	const struct ept_run beyond[] = {{.page = 2, .n = 2}, {.page = PAGES + 15, .n = 2}};
	const struct {
		const struct ept_run *runs;
		unsigned int n;
		int err;
	} bad[] = {{unsorted, 2, -EINVAL},
		   {overlap, 2, -EINVAL},
		   {wraps, 1, -ERANGE},
		   {none, 1, -ERANGE},
		   {beyond, 2, -ERANGE}};
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, 16, 7);
	cr_assert_eq(fg_take(&g, 12, 1), 1);
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		struct ept_stats before = fg_stats(&g), after;

		cr_assert_eq(ept_take(&g.e, bad[i].runs, bad[i].n, false), bad[i].err, "%zu", i);
		cr_assert_eq(ept_put_back(&g.e, bad[i].runs, bad[i].n), bad[i].err, "%zu", i);
		cr_assert_eq(ept_drop_zero_runs(&g.e, bad[i].runs, bad[i].n), bad[i].err, "%zu", i);
		after = fg_stats(&g);
		cr_assert(!memcmp(&before, &after, sizeof(before)));
	}
	cr_assert_eq(ept_take(&g.e, NULL, 0, false), 0);
	cr_assert_eq(ept_put_back(&g.e, NULL, 0), 0);
	fg_unmake(&g);
}

/* Each call to the host that taking makes fails once, at any place; nothing is lost, and the next try
 * takes all. */
Test(take_pure, failures_of_the_host)
{
	static const enum fake_op ops[] = {FAKE_PAGES,	   FAKE_UFFD_REGISTER, FAKE_UFFD_MOVE,
					   FAKE_UFFD_COPY, FAKE_UFFD_PROTECT,  FAKE_DISCARD,
					   FAKE_MAP_EMPTY};

	for (int copy = 0; copy < 2; copy++)
		for (size_t i = 0; i < OB_ARRAY_SIZE(ops); i++)
			for (uint64_t nth = 1; nth < 8; nth++) {
				struct fg g;
				int64_t r;

				make(&g, copy);
				fg_frames(&g, 0, 4, 7);
				fg_fill(&g, 0, 40, 7);
				cr_assert_eq(fg_share(&g, 8, 4, 0), 4 * OB_PAGE_SIZE);
				fg_fill(&g, 8, 4, 9);
				fake_host_fail(g.h, ops[i], nth, ENOMEM);
				r = fg_take(&g, 0, 40);
				fake_host_fail(g.h, ops[i], 1, 0);
				cr_assert(r >= 0 || r == -ENOMEM, "%lld", (long long)r);
				fg_verify(&g);
				cr_assert_eq(g.lost, 0, "op %d, call %d: %s", ops[i], (int)nth,
					     g.why);
				cr_assert_eq((int64_t)fg_stats(&g).taken, OB_MAX(r, 0));
				cr_assert_eq(fg_take(&g, 0, 40), 40 - OB_MAX(r, 0));
				fg_expect(&g, 0, 8, 7);
				fg_expect(&g, 8, 4, 9);
				fg_expect(&g, 12, 28, 7);
				fg_fill(&g, 0, 40, 3); /* nothing is left protected */
				fg_unmake(&g);
			}
}

/* A kernel that protects some, and then fails: whoever was kept from writing goes on. */
Test(take_pure, protection_that_fails_halfway)
{
	for (int also_off = 0; also_off < 2; also_off++) {
		uint8_t v = 9;
		struct fg g;

		make(&g, 1);
		fg_fill(&g, 0, 40, 7);
		fake_host_fail_partly(g.h, FAKE_UFFD_PROTECT, 1, EAGAIN, 10);
		if (also_off)
			fake_host_fail(g.h, FAKE_UFFD_PROTECT, FAKE_EVERY, EAGAIN);
		cr_assert_eq(fg_take(&g, 0, 40), -EAGAIN);
		fake_host_fail(g.h, FAKE_UFFD_PROTECT, 1, 0);
		if (!also_off)
			cr_assert(fake_host_try_write(g.h, fg_at(&g, 3), &v, 1));
		fg_fill(&g, 0, 40, 5);
		fg_expect(&g, 0, 40, 5);
		fg_unmake(&g);
	}
}

/* Left protected by a taking whose way back failed as well. */
Test(take_pure, a_page_that_stayed_protected_is_written_in_the_end)
{
	struct fg g;

	make(&g, 1);
	fg_fill(&g, 0, 8, 7);
	cr_assert_eq(fg_take(&g, 20, 1), 0); /* there is nothing; but staging is made */
	cr_assert_eq(fg_take(&g, 0, 1), 1);
	cr_assert(!g.h->ops->uffd_protect(g.h, g.e.stage->uffd, fg_at(&g, 2), OB_PAGE_SIZE, true));
	fg_fill(&g, 2, 1, 9);
	cr_assert_eq(fg_faults(&g).count[EPT_FAULT_REDUNDANT], 1);
	fg_expect(&g, 2, 1, 9);
	fg_unmake(&g);
}

/* A copy back that fails in the middle: those before it are in place, those behind it are not. */
Test(take_pure, putting_back_that_fails_in_the_middle)
{
	for (int copy = 0; copy < 2; copy++) {
		enum fake_op op = copy ? FAKE_UFFD_COPY : FAKE_UFFD_MOVE;
		struct fg g;

		make(&g, copy);
		fg_fill(&g, 0, 40, 7);
		cr_assert_eq(fg_take(&g, 0, 40), 40);
		if (copy)
			fake_host_fail(g.h, op, 11, ENOMEM);
		else
			fake_host_fail_partly(g.h, op, 1, ENOMEM, 10);
		cr_assert_eq(fg_back(&g, 0, 40), 40, "the rest at the second try");
		fg_verify(&g);
		fg_fill(&g, 5, 10, 9);
		cr_assert_eq(fg_take(&g, 0, 40), 40);
		fake_host_fail(g.h, op, FAKE_EVERY, ENOMEM);
		cr_assert_eq(fg_back(&g, 0, 40), -ENOMEM);
		fake_host_fail(g.h, op, 1, 0);
		fg_verify(&g);
		cr_assert_eq(fg_stats(&g).staged, 40);
		fg_expect(&g, 0, 5, 7);
		fg_expect(&g, 5, 10, 9);
		fg_expect(&g, 15, 25, 7);
		fg_unmake(&g);
	}
}

/* --- beside a freeze -------------------------------------------------------------------------- */

static void *take_thread(void *arg)
{
	struct fg *g = arg;

	cr_assert_eq(fg_take(g, 0, 16), 16);
	return NULL;
}

/* Who wants to take from a frozen range waits: a page must not leave under a comparison. */
Test(take_pure, a_frozen_range_is_not_taken_from)
{
	pthread_t t;
	struct fg g;

	make(&g, 0);
	fg_fill(&g, 0, 16, 7);
	cr_assert_eq(fg_take(&g, 40, 1), 0); /* staging is there already */
	cr_assert(!ept_freeze(&g.e, 8, 4));
	cr_assert(!pthread_create(&t, NULL, take_thread, &g));
	for (uint64_t i = 0; i < 1000000 && !fg_stats(&g).taken; i++)
		cr_assert(ept_frozen(&g.e, 8) && !ept_is_staged(&g.e, 8));
	ept_thaw(&g.e);
	pthread_join(t, NULL);
	cr_assert(ept_is_staged(&g.e, 8));
	cr_assert(!ept_freeze(&g.e, 8, 4));
	cr_assert(!ept_frozen(&g.e, 8), "what is out is not frozen");
	ept_thaw(&g.e);
	fg_expect(&g, 0, 16, 7);
	fg_unmake(&g);
}
