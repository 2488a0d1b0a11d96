/* SPDX-License-Identifier: Apache-2.0 */
/* pure_cell_count.c: what a guest has done in all, over its reboots. */
#include <criterion/criterion.h>
#include <string.h>

#include "harness/cell.h"
#include "tests/rnd.h"

static struct agent_report said(uint64_t beat, uint64_t ops)
{
	struct agent_report r = {
		.magic = AGENT_REPORT_MAGIC,
		.phase = AGENT_WARM,
		.heartbeat = beat,
		.ops = ops,
		.checked_pages = 2 * ops,
		.written_pages = 3 * ops,
		.disk_pages = 4 * ops,
		.cache_pages = 77,
		.workers = 3,
	};

	r.lat[5] = ops;
	return r;
}

static void is(const struct agent_report *r, uint64_t ops)
{
	cr_expect_eq(r->ops, ops, "%llu, not %llu", (unsigned long long)r->ops,
		     (unsigned long long)ops);
	cr_expect_eq(r->checked_pages, 2 * ops);
	cr_expect_eq(r->written_pages, 3 * ops);
	cr_expect_eq(r->disk_pages, 4 * ops);
	cr_expect_eq(r->lat[5], ops);
}

Test(cell_count, goes_on_over_a_reboot)
{
	struct cell_count n = {0};
	struct agent_report r, out;

	cell_count(&n, 0, NULL, &out);
	is(&out, 0);
	cr_expect_eq(out.phase, AGENT_BOOT);
	r = said(10, 100);
	cell_count(&n, 0, &r, &out);
	is(&out, 100);
	cr_expect_eq(out.phase, AGENT_WARM);
	/* In the middle of the reset, and after it: it boots, and has done what it has done. */
	for (unsigned int resets = 0; resets < 2; resets++) {
		cell_count(&n, resets, NULL, &out);
		is(&out, 100);
		cr_expect_eq(out.phase, AGENT_BOOT, "it is not what it was");
		cr_expect_eq(out.workers, resets ? 0 : 3, "nobody works");
	}
	r = said(1, 7);
	cell_count(&n, 1, &r, &out);
	is(&out, 107);
	cr_expect_eq(out.phase, AGENT_WARM);
	cr_expect_eq(out.cache_pages, 77, "a size is no counter");
	cr_expect_eq(out.workers, 3);
	r = said(2, 8);
	cell_count(&n, 1, &r, &out);
	is(&out, 108);
	/* Nobody has looked in between; and the new one is further than the old one was. */
	r = said(50, 500);
	cell_count(&n, 3, &r, &out);
	is(&out, 608);
}

Test(cell_count, a_program_that_is_started_again)
{
	struct cell_count n = {0};
	struct agent_report r = said(10, 100), out;

	cell_count(&n, 0, &r, &out);
	r = said(1, 5);
	cell_count(&n, 0, &r, &out);
	is(&out, 105);
	cell_count(&n, 0, &r, &out);
	is(&out, 105);
}

Test(cell_count, wrong_words_of_all_boots_are_told)
{
	struct cell_count n = {0};
	struct agent_report r = said(10, 1), out;

	r.mismatches = 2;
	r.mismatch[0].gpa = 0x1000;
	r.mismatch[1].gpa = 0x2000;
	cell_count(&n, 0, &r, &out);
	r = said(1, 1);
	r.mismatches = 20;
	for (unsigned int i = 0; i < AGENT_MISMATCHES; i++)
		r.mismatch[i].gpa = 0x10000 + i;
	cell_count(&n, 1, &r, &out);
	cr_expect_eq(out.mismatches, 22);
	cr_expect_eq(out.mismatch[1].gpa, 0x2000);
	cr_expect_eq(out.mismatch[2].gpa, 0x10000);
	cr_expect_eq(out.mismatch[AGENT_MISMATCHES - 1].gpa, 0x10000 + AGENT_MISMATCHES - 3);
}

/* Whatever a guest does, and whenever somebody looks, no counter goes backwards. */
Test(cell_count, never_goes_backwards)
{
	struct cell_count n = {0};
	uint64_t rng = 7, ops = 0, beat = 0, before = 0;
	unsigned int resets = 0;
	bool have = false;

	for (unsigned int i = 0; i < 20000; i++) {
		struct agent_report r, out;

		switch (rnd(&rng) % 8) {
		case 0:
			resets += have;
			ops = beat = 0;
			have = false;
			break;
		case 1:
			have = false; /* in the middle of a reset */
			ops = beat = 0;
			resets++;
			break;
		default:
			ops += rnd(&rng) % 10;
			beat++;
			have = true;
		}
		if (rnd(&rng) % 3 == 0)
			continue; /* nobody looks */
		r = said(beat, ops);
		cell_count(&n, resets, have ? &r : NULL, &out);
		cr_assert_geq(out.ops, before, "step %u", i);
		cr_assert_eq(out.lat[5], out.ops);
		before = out.ops;
	}
	cr_assert_gt(before, 1000);
}
