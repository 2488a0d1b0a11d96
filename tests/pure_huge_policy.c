/* SPDX-License-Identifier: Apache-2.0 */
/* pure_huge_policy.c: when units are broken and when they are built, by a fake clock: only what is
 * worth it, only what is private and hot, and nothing to and fro. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_guest.h"

#define UNIT  EPT_UNIT_PAGES
#define UNITS 4
#define SEC   OB_NS_PER_SEC

static const struct ept_huge_rule rule = {.threshold = 64, .rest_ns = 10 * SEC};

Test(huge_policy, names)
{
	for (unsigned int m = 0; m < EPT_PAGES_NMODES; m++)
		cr_assert_eq(ept_pages_find(ept_pages_name((enum ept_pages)m)), m);
	cr_assert_eq(ept_pages_find("1g"), EPT_PAGES_NMODES);
	cr_assert_eq(ept_pages_find(""), EPT_PAGES_NMODES);
}

Test(huge_policy, worth_from_the_threshold_on)
{
	struct ept_unit u = {0};

	for (unsigned int gain = 0; gain <= UNIT; gain++)
		cr_assert_eq(ept_unit_worth_breaking(&rule, &u, gain, SEC), gain >= 64);
	u.broken = true;
	cr_assert(!ept_unit_worth_breaking(&rule, &u, UNIT, SEC), "it is");
}

Test(huge_policy, never_is_never)
{
	const struct ept_huge_rule never = {.threshold = EPT_HUGE_NEVER};
	struct ept_unit u = {0};

	cr_assert(!ept_unit_worth_breaking(&never, &u, UNIT, UINT64_MAX));
}

Test(huge_policy, each_build_doubles_the_rest)
{
	struct ept_unit u = {.since_ns = 100 * SEC};
	uint64_t last = 0;

	for (unsigned int i = 0; i < 255; i++) {
		uint64_t rest;

		u.builds = (uint8_t)i;
		rest = ept_unit_rest_ns(&rule, &u);
		cr_assert(rest == 2 * last || (i == 0 && rest == 10 * SEC) || i > 10, "%u", i);
		cr_assert_geq(rest, last, "the rest never becomes shorter, nor does it wrap");
		last = rest;
		if (!i)
			continue;
		cr_assert(!ept_unit_worth_breaking(&rule, &u, UNIT, u.since_ns));
		cr_assert(!ept_unit_worth_breaking(&rule, &u, UNIT, u.since_ns + rest - 1));
		cr_assert(ept_unit_worth_breaking(&rule, &u, UNIT, u.since_ns + rest));
	}
}

Test(huge_policy, a_guest_is_broken_by_its_rule)
{
	struct fg g;

	fg_make_huge(&g, UNITS * UNIT, 0);
	fake_huge_touch(g.h, fg_at(&g, 0), UNITS);
	cr_assert(!ept_huge_worth(&g.e, 0, UNIT), "2m is the default");
	ept_huge_set_rule(&g.e, &rule);
	cr_assert(!ept_huge_worth(&g.e, 0, 63));
	cr_assert(ept_huge_worth(&g.e, 0, 64));
	cr_assert(ept_huge_break(&g.e, 0) >= 0);
	cr_assert(!ept_huge_worth(&g.e, 0, UNIT), "it is broken");
	cr_assert(!ept_huge_worth(&g.e, UNITS, UNIT), "there is no such unit");
	fg_unmake(&g);
}

/* --- building ---------------------------------------------------------------------------------- */

/* A guest of units that are huge, and who looks after them. */
struct house {
	struct fg g;
	struct ept_builder b;
	uint64_t now;
	unsigned int touches; /* of 512 pages of a hot unit, so many a second */
	bool hot[UNITS];
};

static void make(struct house *h, const struct ept_builder_opts *opts)
{
	memset(h, 0, sizeof(*h));
	fg_make_huge(&h->g, UNITS * UNIT, 0);
	ept_huge_set_rule(&h->g.e, &rule);
	fake_huge_touch(h->g.h, fg_at(&h->g, 0), UNITS);
	for (uint64_t u = 0; u < UNITS; u++)
		fg_fill(&h->g, u * UNIT, UNIT, (uint8_t)(u + 1));
	fg_frames(&h->g, 0, FG_FRAMES, 9);
	cr_assert(!ept_sync(&h->g.e, 0, h->g.e.pages, NULL));
	ept_builder_init(&h->b, &h->g.e, opts, 7);
	h->touches = UNIT;
}

static void unmake(struct house *h)
{
	ept_builder_exit(&h->b);
	cr_assert(fg_back(&h->g, 0, h->g.e.pages) >= 0);
	cr_assert_eq(fake_huge_stuck(h->g.h), 0);
	fg_unmake(&h->g);
}

static struct ept_huge_stats stats(struct house *h)
{
	struct ept_huge_stats st;

	cr_assert(!ept_huge_read(&h->g.e, &st));
	return st;
}

/* So many seconds pass, in tenths; the guest touches what is hot. */
static void pass(struct house *h, unsigned int seconds)
{
	for (unsigned int i = 0; i < 10 * seconds; i++) {
		uint64_t now;

		fake_host_advance(h->g.h, SEC / 10);
		now = h->g.h->ops->now_ns(h->g.h);
		while (!ept_builder_step(&h->b, now, 3))
			;
		for (uint64_t u = 0; u < UNITS; u++)
			for (uint64_t p = 0; h->hot[u] && p < h->touches; p++) {
				uint8_t v;

				while (!fake_host_try_read(h->g.h, fg_at(&h->g, u * UNIT + p), &v,
							   1))
					fg_answer(&h->g);
			}
	}
}

static void break_all(struct house *h)
{
	for (uint64_t u = 0; u < UNITS; u++)
		cr_assert(ept_huge_break(&h->g.e, u) >= 0);
}

Test(huge_builder, builds_what_is_private_and_hot)
{
	struct house h;

	make(&h, NULL);
	break_all(&h);
	h.hot[0] = h.hot[1] = true;
	/* Hot, but one page is shared. */
	fg_fill(&h.g, UNIT + 3, 1, 9);
	cr_assert(fg_share(&h.g, UNIT + 3, 1, 0) >= 0);
	pass(&h, 60);
	cr_assert(ept_unit_is_huge(&h.g.e, 0));
	for (uint64_t u = 1; u < UNITS; u++)
		cr_assert(!ept_unit_is_huge(&h.g.e, u * UNIT), "unit %d", (int)u);
	cr_assert_eq(stats(&h).builds, 1);
	cr_assert_gt(stats(&h).cold, 0, "units 2 and 3 were looked at");
	ept_builder_exit(&h.b);
	cr_assert_eq(fg_stats(&h.g).staged, 0, "no sample is left out there");
	for (uint64_t u = 0; u < UNITS; u++)
		if (u != 1)
			fg_expect(&h.g, u * UNIT, UNIT, (uint8_t)(u + 1));
	unmake(&h);
}

Test(huge_builder, most_of_a_unit_must_be_used)
{
	struct house h;

	make(&h, NULL);
	break_all(&h);
	h.hot[0] = true;
	h.touches = UNIT / 2; /* four of the eight parts */
	pass(&h, 100);
	cr_assert_eq(stats(&h).builds, 0);
	h.touches = UNIT * 7 / 8;
	pass(&h, 100);
	cr_assert_eq(stats(&h).builds, 1);
	unmake(&h);
}

Test(huge_builder, a_unit_rests_before_it_is_built)
{
	struct house h;

	make(&h, NULL);
	h.hot[0] = true;
	pass(&h, 5);
	break_all(&h);
	pass(&h, 9);
	cr_assert_eq(stats(&h).probes, 0, "broken a moment ago");
	pass(&h, 6);
	cr_assert_eq(stats(&h).builds, 1);
	unmake(&h);
}

Test(huge_builder, some_zeroes_may_be_filled_if_one_says_so)
{
	static const struct ept_builder_opts opts = {.slack = 8};
	struct house h;

	for (int slack = 0; slack < 2; slack++) {
		make(&h, slack ? &opts : NULL);
		fg_fill(&h.g, 5, 8, 0);
		fg_fill(&h.g, UNIT + 5, 9, 0);
		break_all(&h);
		h.hot[0] = h.hot[1] = true;
		pass(&h, 60);
		cr_assert_eq(stats(&h).builds, (uint64_t)slack);
		cr_assert(!ept_unit_is_huge(&h.g.e, UNIT));
		fg_expect(&h.g, 5, 8, 0);
		fg_expect(&h.g, UNIT + 5, 9, 0);
		unmake(&h);
	}
}

/* Where nothing can be taken nobody knows what is hot. */
Test(huge_builder, without_userfaultfd_nothing_is_built)
{
	uint64_t calls;
	struct house h;

	make(&h, NULL);
	fake_host_fail(h.g.h, FAKE_UFFD_OPEN, FAKE_EVERY, EPERM);
	break_all(&h);
	h.hot[0] = true;
	pass(&h, 100);
	cr_assert_eq(stats(&h).builds, 0);
	cr_assert_eq(stats(&h).probes, 0);
	calls = fake_host_calls(h.g.h, FAKE_UFFD_OPEN);
	cr_assert_leq(calls, UNITS * EPT_BUILDER_SAMPLES * 10, "it asks %d times", (int)calls);
	fake_host_fail(h.g.h, FAKE_UFFD_OPEN, 1, 0);
	unmake(&h);
}

/* What others have taken out stays out, and its unit as it is. */
Test(huge_builder, pages_that_are_out_stay_out)
{
	struct house h;

	make(&h, NULL);
	break_all(&h);
	cr_assert_eq(fg_take(&h.g, 100, 50), 50);
	pass(&h, 60);
	cr_assert_eq(fg_stats(&h.g).staged, 50);
	cr_assert_eq(stats(&h).builds, 0);
	unmake(&h);
}

Test(huge_builder, builds_are_not_done_all_at_once)
{
	static const struct ept_builder_opts opts = {.gap_ns = 3 * SEC};
	uint64_t last = 0, most = 0;
	struct house h;

	make(&h, &opts);
	break_all(&h);
	for (int u = 0; u < UNITS; u++)
		h.hot[u] = true;
	for (int i = 0; i < 60; i++) {
		pass(&h, 1);
		most = OB_MAX(most, stats(&h).builds - last);
		last = stats(&h).builds;
	}
	cr_assert_eq(last, UNITS);
	cr_assert_eq(most, 1);
	unmake(&h);
}

Test(huge_builder, a_build_that_fails_is_tried_again_later)
{
	struct house h;

	make(&h, NULL);
	break_all(&h);
	h.hot[0] = true;
	fake_host_fail(h.g.h, FAKE_COLLAPSE, FAKE_EVERY, ENOMEM);
	pass(&h, 100);
	cr_assert_eq(stats(&h).builds, 0);
	cr_assert_gt(stats(&h).refused, 0);
	cr_assert_leq(stats(&h).refused, 10, "%d times", (int)stats(&h).refused);
	fake_host_fail(h.g.h, FAKE_COLLAPSE, 1, 0);
	pass(&h, 20);
	cr_assert_eq(stats(&h).builds, 1);
	unmake(&h);
}

/*
 * A unit that is worth breaking whenever it is whole, and worth building whenever it is broken: pages
 * of it become alike at once, and are written right after they were shared. For three hours.
 */
Test(huge_builder, nothing_goes_to_and_fro)
{
	const unsigned int hours = 3;
	struct house h;

	make(&h, NULL);
	h.hot[0] = true;
	for (unsigned int s = 0; s < hours * 3600; s += 2) {
		if (ept_huge_worth(&h.g.e, 0, UNIT / 2))
			for (uint64_t p = 0; p < 4; p++) {
				cr_assert(fg_share(&h.g, p, 1, (uint32_t)p) >= 0);
				fg_fill(&h.g, p, 1, (uint8_t)(s + p));
			}
		pass(&h, 2);
	}
	cr_assert_geq(stats(&h).breaks, 3, "it is not stuck either");
	cr_assert_geq(stats(&h).builds, 3);
	/* 10 s broken, 20 s whole, 20 broken, 40 whole...: the sum of the first 2k rests is 30 * 2^k. */
	cr_assert_leq(stats(&h).builds, 10, "%d builds", (int)stats(&h).builds);
	unmake(&h);
}
