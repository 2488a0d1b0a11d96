/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_fault.c: answers to faults, on the fake host: each outcome, what an answer brings with it, and
 * tiers that load, fail, and are met in the middle of it.
 */
#include <errno.h>
#include <string.h>

#include "tests/fake_guest.h"

#define PAGES 64

static void outcomes(struct fg *g, uint64_t zero, uint64_t staging, uint64_t tier, uint64_t broken,
		     uint64_t redundant, uint64_t failed)
{
	const uint64_t want[EPT_NOUTCOMES] = {zero, staging, tier, broken, redundant, failed};
	struct ept_faults f = fg_faults(g);

	for (unsigned int o = 0; o < EPT_NOUTCOMES; o++)
		cr_assert_eq(f.count[o], want[o], "%s: %d, not %d", ept_outcome_name(o),
			     (int)f.count[o], (int)want[o]);
}

Test(fault, each_outcome_is_counted)
{
	struct ob_fault f[2];
	uint8_t b = 1;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_set_tier(&g, EPT_COMPRESSED, 0);
	fg_frames(&g, 0, 1, 7);
	fg_fill(&g, 0, 32, 7);
	cr_assert_eq(fg_share(&g, 40, 1, 0), -EINVAL);
	cr_assert_eq(fg_share(&g, 31, 1, 0), OB_PAGE_SIZE);
	cr_assert_eq(fg_take(&g, 16, 1), 1);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 0, 2), 2 * OB_PAGE_SIZE);
	outcomes(&g, 0, 0, 0, 0, 0, 0);

	fg_expect(&g, 40, 1, 0);
	cr_assert_eq(ept_state_of(&g.e, 40), EPT_ZERO);
	fg_fill(&g, 41, 1, 7);
	cr_assert_eq(ept_state_of(&g.e, 41), EPT_PRIVATE);
	outcomes(&g, 2, 0, 0, 0, 0, 0);
	fg_expect(&g, 16, 1, 7);
	outcomes(&g, 2, 1, 0, 0, 0, 0);
	fg_expect(&g, 0, 1, 7);
	outcomes(&g, 2, 1, 1, 0, 0, 0);
	cr_assert(ept_state_of(&g.e, 1) == EPT_COMPRESSED, "this tier loads nothing ahead");
	fg_fill(&g, 31, 1, 9);
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	outcomes(&g, 2, 1, 1, 1, 0, 0);

	/* Two threads wait for one page: the second answer finds it there. */
	cr_assert(!fake_host_try_read(g.h, fg_at(&g, 1), &b, 1));
	cr_assert(!fake_host_try_write(g.h, fg_at(&g, 1), &b, 1));
	cr_assert_eq(fake_host_faults(g.h, f, 2), 2);
	ept_fault_answer(&g.e, f, 2);
	outcomes(&g, 2, 1, 2, 1, 1, 0);
	cr_assert_eq(fake_host_waiting(g.h), 0);
	/* The same of a page that was never there: zeroes for the one that reads, and the kernel's own
	 * copy of them for the one that writes. */
	cr_assert(!fake_host_try_read(g.h, fg_at(&g, 50), &b, 1));
	cr_assert(!fake_host_try_write(g.h, fg_at(&g, 50), &b, 1));
	cr_assert_eq(fake_host_faults(g.h, f, 2), 2);
	ept_fault_answer(&g.e, f, 2);
	outcomes(&g, 3, 1, 2, 1, 2, 0);
	cr_assert_eq(fake_host_waiting(g.h), 0);
	fg_fill(&g, 50, 1, 3);
	fg_verify(&g);
	cr_assert_eq(g.lost, 0);
	fg_unmake(&g);
}

/* The host has lost a page: the guest is ended, and can be, for nobody waits any more. */
Test(fault, a_page_that_is_gone_ends_the_guest)
{
	for (int what = 0; what < 4; what++) {
		uint8_t b = 1;
		struct fg g;

		fg_make(&g, PAGES, 0);
		fg_set_tier(&g, EPT_COMPRESSED, 0);
		fg_fill(&g, 0, 8, 7);
		cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 7, 1), OB_PAGE_SIZE);
		cr_assert_eq(fg_take(&g, 0, 4), 4);
		cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
		if (what == 0)
			fake_host_lose(g.h, fg_at(&g, 5)); /* in place */
		else if (what == 1)
			fake_host_lose(g.h, ept_stage_hva(&g.e, 2));
		else if (what == 2)
			g.tier[EPT_COMPRESSED].fail = EIO;
		else
			fake_host_fail(g.h, FAKE_UFFD_COPY, FAKE_EVERY, ENOMEM);
		cr_assert(!fake_host_try_write(g.h,
					       fg_at(&g, what == 0   ? 5
							 : what == 1 ? 2
								     : 7),
					       &b, 1));
		fg_answer(&g);
		cr_assert_eq(g.lost, 1, "%d: %d times", what, g.lost);
		outcomes(&g, 0, 0, 0, 0, 0, 1);
		cr_assert_eq(fake_host_waiting(g.h), 0);
		if (what >= 2) /* what the tier holds, it still holds */
			cr_assert_eq(g.tier[EPT_COMPRESSED].used, 1);
		fg_unmake(&g);
	}
}

/* Somebody who reads staging itself, where nothing is, gets zeroes. */
Test(fault, staging_itself_is_nobodys)
{
	uint8_t b = 1;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, 8, 7);
	cr_assert_eq(fg_take(&g, 0, 4), 4);
	cr_assert(!fake_host_try_read(g.h, ept_stage_hva(&g.e, 6), &b, 1));
	fg_answer(&g);
	cr_assert(fake_host_try_read(g.h, ept_stage_hva(&g.e, 6), &b, 1));
	cr_assert_eq(b, 0);
	outcomes(&g, 0, 0, 0, 0, 0, 1);
	fg_unmake(&g);
}

/* --- what an answer brings with it ------------------------------------------------------------ */

/* A fault on @page brings [first, end) back, of all that is out. */
static void brings(struct fg *g, uint64_t page, uint64_t first, uint64_t end)
{
	uint64_t before = fg_faults(g).pages[EPT_FAULT_STAGING];
	int64_t in_place = (int64_t)(g->mem.pages - fg_stats(g).staged);

	cr_assert_eq(fg_take(g, 0, g->mem.pages), in_place);
	fg_expect(g, page, 1, 7);
	cr_assert_eq(fg_faults(g).pages[EPT_FAULT_STAGING] - before, end - first);
	for (uint64_t p = 0; p < g->mem.pages; p++)
		cr_assert_eq(ept_is_staged(&g->e, p), p < first || p >= end, "page %d brings %d",
			     (int)page, (int)p);
}

Test(fault, brings_its_group)
{
	for (int copy = 0; copy < 2; copy++) {
		struct fg g;

		/* A region that ends in the middle of a group, and guest RAM that does. */
		fg_make(&g, 40, 30);
		g.e.copy_only = copy;
		fg_fill(&g, 0, 70, 7);
		brings(&g, 0, 0, 16);
		brings(&g, 15, 0, 16);
		brings(&g, 20, 16, 32);
		brings(&g, 33, 32, 40);
		brings(&g, 39, 32, 40);
		brings(&g, 40, 40, 48);
		brings(&g, 47, 40, 48);
		brings(&g, 48, 48, 64);
		brings(&g, 69, 64, 70);
		fg_unmake(&g);
	}
}

/* Only what is next to it without a gap, and out for the same reason. */
Test(fault, brings_no_more_than_is_like_it)
{
	const struct ept_run sample = {.page = 5, .n = 1};
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, PAGES, 7);
	cr_assert_eq(ept_take(&g.e, &sample, 1, true), 1);
	cr_assert_eq(fg_take(&g, 0, 5), 5);
	cr_assert_eq(fg_take(&g, 6, 4), 4);
	cr_assert_eq(fg_take(&g, 11, 5), 5);
	fg_expect(&g, 8, 1, 7);
	for (uint64_t p = 0; p < 16; p++)
		cr_assert_eq(ept_is_staged(&g.e, p), p <= 5 || p >= 11, "page %d", (int)p);
	fg_expect(&g, 5, 1, 7);
	cr_assert(ept_is_staged(&g.e, 4), "a sample comes alone");
	fg_unmake(&g);
}

/* A neighbour that cannot be moved keeps nobody waiting. */
Test(fault, neighbours_may_fail)
{
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_fill(&g, 0, 16, 7);
	cr_assert_eq(fg_take(&g, 0, 16), 16);
	fake_host_fail(g.h, FAKE_UFFD_MOVE, 1, ENOMEM);
	fg_expect(&g, 9, 1, 7);
	cr_assert_eq(fg_stats(&g).staged, 15);
	fake_host_fail_partly(g.h, FAKE_UFFD_MOVE, FAKE_EVERY, ENOMEM, 3);
	fg_expect(&g, 4, 1, 7);
	fake_host_fail(g.h, FAKE_UFFD_MOVE, 1, 0);
	outcomes(&g, 0, 2, 0, 0, 0, 0);
	cr_assert_eq(g.lost, 0);
	fg_expect(&g, 0, 16, 7);
	fg_unmake(&g);
}

Test(fault, a_tier_says_what_comes_ahead)
{
	struct fg g;

	fg_make(&g, 40, 30);
	fg_set_tier(&g, EPT_COMPRESSED, 8);
	fg_set_tier(&g, EPT_SWAPPED, 0);
	fg_fill(&g, 0, 70, 7);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 30, 20), 20 * OB_PAGE_SIZE);
	cr_assert_eq(fg_to_tier(&g, EPT_SWAPPED, 50, 20), 20 * OB_PAGE_SIZE);
	fg_expect(&g, 37, 1, 7);
	cr_assert_eq(fg_stats(&g).state[EPT_COMPRESSED], 12);
	cr_assert_eq(fg_faults(&g).pages[EPT_FAULT_TIER], 8);
	fg_expect(&g, 31, 1, 7);
	cr_assert_eq(fg_stats(&g).state[EPT_COMPRESSED], 10);
	fg_expect(&g, 60, 1, 7);
	cr_assert_eq(fg_stats(&g).state[EPT_SWAPPED], 19);
	/* Of the group of 48, only 48 and 49 are of that tier. */
	fg_expect(&g, 49, 1, 7);
	cr_assert_eq(fg_stats(&g).state[EPT_COMPRESSED], 8);
	cr_assert_eq(fg_stats(&g).state[EPT_SWAPPED], 19);
	fg_expect(&g, 0, 70, 7);
	cr_assert_eq(g.tier[EPT_COMPRESSED].used + g.tier[EPT_SWAPPED].used, 0);
	fg_unmake(&g);
}

/* --- latency ---------------------------------------------------------------------------------- */

/* A tier that takes its time. */
static void take_time(struct fg *g, uint32_t slot)
{
	fake_host_advance(g->h, slot == 0 ? 100000 : 1000);
}

Test(fault, latency_is_of_the_answer)
{
	struct ept_faults f;
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_set_tier(&g, EPT_SWAPPED, 0);
	g.tier[EPT_SWAPPED].hook = take_time;
	fg_fill(&g, 0, 50, 7);
	cr_assert_eq(fg_to_tier(&g, EPT_SWAPPED, 0, 50), 50 * OB_PAGE_SIZE);
	fg_expect(&g, 0, 50, 7);
	f = fg_faults(&g);
	cr_assert(ept_fault_latency(&f, EPT_FAULT_TIER, 0.5) >= 1000 &&
		  ept_fault_latency(&f, EPT_FAULT_TIER, 0.5) <= 1250);
	cr_assert(ept_fault_latency(&f, EPT_FAULT_TIER, 0.98) <= 1250);
	cr_assert(ept_fault_latency(&f, EPT_FAULT_TIER, 0.999) >= 100000 &&
		  ept_fault_latency(&f, EPT_FAULT_TIER, 0.999) <= 125000);
	cr_assert_eq(ept_fault_latency(&f, EPT_FAULT_STAGING, 0.5), 0);
	fg_unmake(&g);
}

/* --- tiers ------------------------------------------------------------------------------------ */

Test(fault, loading_ahead)
{
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_set_tier(&g, EPT_COMPRESSED, 4);
	fg_fill(&g, 0, 16, 7);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 2, 10), 10 * OB_PAGE_SIZE);
	cr_assert_eq(ept_load(&g.e, 0, 5), 3);
	cr_assert_eq(fg_stats(&g).state[EPT_COMPRESSED], 7);
	cr_assert_eq(ept_load(&g.e, 0, 5), 0);
	/* What cannot be loaded ahead is no loss: it may be possible when it is wanted. */
	g.tier[EPT_COMPRESSED].fail = EIO;
	cr_assert_eq(ept_load(&g.e, 0, 16), -EIO);
	g.tier[EPT_COMPRESSED].fail = 0;
	fake_host_fail(g.h, FAKE_UFFD_COPY, 3, ENOMEM);
	cr_assert_eq(ept_load(&g.e, 0, 16), 2);
	fake_host_fail(g.h, FAKE_UFFD_COPY, 2, ENOMEM);
	fg_expect(&g, 8, 1, 7);
	cr_assert_eq(fg_stats(&g).state[EPT_COMPRESSED], 4, "a neighbour that fails stays away");
	cr_assert_eq(g.lost, 0, "%s", g.why);
	fg_verify(&g);
	cr_assert_eq(ept_load(&g.e, 64, 1), -ERANGE);
	cr_assert_eq(ept_load(&g.e, 1, UINT64_MAX), -ERANGE);
	fg_expect(&g, 0, 16, 7);
	cr_assert_eq(g.tier[EPT_COMPRESSED].used, 0);
	fg_unmake(&g);
}

/* In the middle of a load: the guest waits for the page, others try to get at it. */
static void meddle(struct fg *g, uint32_t slot)
{
	struct ept_verify v;
	uint8_t b = 1;

	if (slot != 3)
		return;
	cr_assert(!fake_host_try_write(g->h, fg_at(g, 3), &b, 1));
	fg_answer(g);
	cr_assert_eq(fake_host_waiting(g->h), 1, "it is loaded once, and he waits for that");
	cr_assert_eq(ept_retier(&g->e, 3, EPT_COMPRESSED, 3, EPT_SWAPPED, 9), -EAGAIN);
	cr_assert_eq(ept_load(&g->e, 3, 1), 0);
	cr_assert_eq(fg_take(g, 3, 1), 0);
	cr_assert_eq(fg_back(g, 3, 1), 0);
	cr_assert_eq(ept_set_tier(&g->e, EPT_COMPRESSED, NULL, NULL), -EBUSY);
	cr_assert(!ept_verify(&g->e, &v) && !v.differences);
	ept_check(&g->e);
}

Test(fault, a_page_that_is_being_loaded_is_left_alone)
{
	for (int fails = 0; fails < 2; fails++) {
		struct fg g;

		fg_make(&g, PAGES, 0);
		fg_set_tier(&g, EPT_COMPRESSED, 0);
		fg_set_tier(&g, EPT_SWAPPED, 0);
		fg_fill(&g, 0, 8, 7);
		cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 3, 1), OB_PAGE_SIZE);
		g.tier[EPT_COMPRESSED].hook = meddle;
		g.tier[EPT_COMPRESSED].fail = fails ? EIO : 0;
		cr_assert_eq(ept_load(&g.e, 3, 1), fails ? -EIO : 1);
		cr_assert_eq(g.tier[EPT_COMPRESSED].loads, 1);
		cr_assert_eq(fake_host_waiting(g.h), 0, "whoever waited tries again");
		g.tier[EPT_COMPRESSED].hook = NULL;
		g.tier[EPT_COMPRESSED].fail = 0;
		fg_expect(&g, 3, 1, 7);
		cr_assert_eq(g.lost, 0);
		cr_assert_eq(g.tier[EPT_COMPRESSED].drops, 1);
		fg_unmake(&g);
	}
}

Test(fault, from_tier_to_tier)
{
	struct ept_tiered t[2] = {{.page = 3}, {.page = 2}};
	struct fg g;

	fg_make(&g, PAGES, 0);
	cr_assert_eq(ept_set_tier(&g.e, EPT_PRIVATE, NULL, NULL), -EINVAL);
	cr_assert_eq(ept_to_tier(&g.e, EPT_SHARED, t, 1), -EINVAL);
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, t, 1), -EINVAL, "there is no such tier");
	for (unsigned int s = EPT_COMPRESSED; s < EPT_NSTATES; s++)
		if (s != EPT_BALLOONED)
			fg_set_tier(&g, s, 0);
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, t, 2), -EINVAL, "not ascending");
	t[1].page = 64;
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, t, 2), -ERANGE);
	t[1] = (struct ept_tiered){.page = 4, .slot = EPT_NO_FRAME};
	cr_assert_eq(ept_to_tier(&g.e, EPT_COMPRESSED, t, 2), -ERANGE);
	fg_fill(&g, 0, 8, 7);
	cr_assert_eq(fg_to_tier(&g, EPT_COMPRESSED, 3, 1), OB_PAGE_SIZE);
	cr_assert_eq(fg_stats(&g).tiered, 1);
	cr_assert_eq(fg_stats(&g).freed_bytes, OB_PAGE_SIZE);

	fg_slot_fill(&g.tier[EPT_SWAPPED], 9, g.tier[EPT_COMPRESSED].slot[3]);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, 4, EPT_SWAPPED, 9), -EAGAIN);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_SWAPPED, 3, EPT_SWAPPED, 9), -EAGAIN);
	cr_assert_eq(ept_retier(&g.e, 2, EPT_COMPRESSED, 3, EPT_SWAPPED, 9), -EAGAIN);
	cr_assert_eq(ept_retier(&g.e, 64, EPT_COMPRESSED, 3, EPT_SWAPPED, 9), -ERANGE);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, 3, EPT_SWAPPED, EPT_NO_FRAME), -ERANGE);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, EPT_NO_FRAME, EPT_SWAPPED, 9), -ERANGE);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, 3, EPT_PRIVATE, 0), -EINVAL);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, 3, EPT_NSTATES, 0), -EINVAL);
	cr_assert_eq(ept_retier(&g.e, 3, (enum ept_state)(8 + EPT_COMPRESSED), 3, EPT_SWAPPED, 9),
		     -EINVAL);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_COMPRESSED, 3, EPT_SWAPPED, 9), 0);
	g.tier[EPT_COMPRESSED].ops.drop(&g.tier[EPT_COMPRESSED], 3);
	cr_assert_eq(ept_state_of(&g.e, 3), EPT_SWAPPED);
	fg_verify(&g);

	fg_slot_fill(&g.tier[EPT_REMOTE], 5, g.tier[EPT_SWAPPED].slot[9]);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_SWAPPED, 9, EPT_REMOTE, 5), 0);
	g.tier[EPT_SWAPPED].ops.drop(&g.tier[EPT_SWAPPED], 9);
	cr_assert_eq(ept_retier(&g.e, 3, EPT_REMOTE, 5, EPT_COMPRESSED, 5), -EINVAL,
		     "what is remote is fetched by a fault only");
	fg_expect(&g, 0, 8, 7);
	fg_unmake(&g);
}

/* --- remote ----------------------------------------------------------------------------------- */

/* The guest touches its memory while it is being declared remote. */
static void touch(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fg *g = arg;
	uint8_t b = 9;

	if (op == FAKE_UFFD_OPEN && after)
		cr_assert(fake_host_try_write(h, fg_at(g, 20), &b, 1));
}

Test(fault, pages_that_were_never_here)
{
	uint8_t page[OB_PAGE_SIZE];
	struct fg g;

	fg_make(&g, 40, 600);
	cr_assert_eq(ept_set_remote(&g.e, 0, 10, 0), -EINVAL, "there is no tier");
	fg_set_tier(&g, EPT_REMOTE, 4);
	fg_fill(&g, 5, 1, 7);
	cr_assert_eq(ept_set_remote(&g.e, 0, 10, 0), -EINVAL, "one of them is here");
	cr_assert_eq(ept_set_remote(&g.e, 0, 641, 0), -ERANGE);
	cr_assert_eq(ept_set_remote(&g.e, 0, 4, EPT_MAX_FRAME - 2), -ERANGE);
	cr_assert_eq(ept_set_remote(&g.e, 1, UINT64_MAX, 0), -ERANGE);
	cr_assert_eq(fg_stats(&g).windows, 0);
	cr_assert_eq(fg_stats(&g).state[EPT_REMOTE], 0);
	for (uint32_t i = 0; i < 634; i++) {
		memset(page, (int)i, sizeof(page));
		fg_slot_fill(&g.tier[EPT_REMOTE], 100 + i, page);
	}
	cr_assert_eq(ept_set_remote(&g.e, 6, 634, 100), 0);
	cr_assert_eq(fg_stats(&g).windows, 2);
	fg_verify(&g);
	fg_expect(&g, 6, 1, 0);
	fg_expect(&g, 50, 1, 44);
	for (uint32_t i = 0; i < 634; i++)
		fg_expect(&g, 6 + i, 1, (uint8_t)i);
	cr_assert_eq(g.tier[EPT_REMOTE].used, 0);
	cr_assert_eq(g.tier[EPT_REMOTE].loads, 634);
	fg_unmake(&g);

	fg_make(&g, 40, 0);
	fg_set_tier(&g, EPT_REMOTE, 0);
	fake_host_hook(g.h, touch, &g);
	cr_assert_eq(ept_set_remote(&g.e, 0, 40, 0), -EINVAL, "touched just now");
	fake_host_hook(g.h, NULL, NULL);
	fg_verify(&g);
	cr_assert_eq(fg_stats(&g).state[EPT_REMOTE], 0);
	fg_unmake(&g);
}
