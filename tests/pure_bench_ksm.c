/* SPDX-License-Identifier: Apache-2.0 */
/* pure_bench_ksm.c: the arithmetic of the benchmark ksm, and its search for a rest between scans. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "harness/bench_ksm.h"

#define NEAR(a, b) cr_expect_float_eq(a, b, 1e-6 * (1 + fabs((double)(b))), "%g", (double)(a))

static struct run_sample at(double t, double saved_pages, double cpu_s)
{
	return (struct run_sample){.t = t,
				   .saved_bytes = (uint64_t)(saved_pages * OB_PAGE_SIZE),
				   .merge_cpu_ns = (uint64_t)(cpu_s * OB_NS_PER_SEC)};
}

/* What was saved before the engine was on is not its own; between two readings all grows evenly. */
Test(bench_ksm, first_merge)
{
	const struct run_sample s[] = {
		at(-5, 10, 0), at(-0.1, 100, 0), at(0.5, 600, 0.25), at(1, 1100, 1), at(9, 1100, 4),
	};
	struct kbench_first f = {0};

	cr_assert_eq(kbench_first(s, OB_ARRAY_SIZE(s), &f), 0);
	NEAR(f.pages, 1000);
	/* 95 % is at 1050 pages: nine tenths of the way from the third to the fourth. */
	NEAR(f.seconds_95, 0.95);
	NEAR(f.cpu_95, 0.25 + 0.9 * 0.75);
	NEAR(f.pages_per_cpu_second, 950 / 0.925);
}

Test(bench_ksm, first_merge_within_the_first_reading)
{
	const struct run_sample s[] = {at(-1, 0, 0), at(0.5, 100, 0.1), at(2, 100, 0.2)};
	struct kbench_first f = {0};

	/* From zero of both, not from the reading before the engine was on. */
	cr_assert_eq(kbench_first(s, OB_ARRAY_SIZE(s), &f), 0);
	NEAR(f.seconds_95, 0.475);
	NEAR(f.cpu_95, 0.095);
}

Test(bench_ksm, first_merge_of_nothing)
{
	const struct run_sample none[] = {at(-1, 100, 0), at(1, 100, 1), at(2, 90, 2)};
	const struct run_sample free[] = {at(-1, 0, 0), at(1, 100, 0), at(2, 100, 0)};
	struct kbench_first f = {0};

	cr_expect_eq(kbench_first(none, 0, &f), -ENODATA);
	cr_expect_eq(kbench_first(none, OB_ARRAY_SIZE(none), &f), -ENODATA);
	cr_expect_eq(kbench_first(free, OB_ARRAY_SIZE(free), &f), -ENODATA, "no CPU time at all");
}

Test(bench_ksm, still)
{
	struct run_sample s[1000];
	unsigned int n = 0;

	s[n++] = at(-1, 50, 0);
	/* Grows for five seconds, then stands, but for a few pages up and down. */
	for (unsigned int i = 1; i <= 65; i++, n++) {
		s[n] = at(i / 10.0, i < 50 ? 50 + 20 * i : 1050 + i % 2 * 10, i);
		cr_assert_not(kbench_still(s, n + 1, true), "at %g", s[n].t);
	}
	for (unsigned int i = 66; i <= 81; i++, n++)
		s[n] = at(i / 10.0, 1050 + i % 2 * 10, i);
	cr_expect(kbench_still(s, n, true), "three seconds");
	s[n++] = at(8.2, 1100, 81);
	cr_expect_not(kbench_still(s, n, true), "it goes on");
	for (unsigned int i = 83; i <= 110; i++, n++)
		s[n] = at(i / 10.0, 1100 - i, i);
	cr_expect(kbench_still(s, n, true), "shrinking is no growth");
	/* After a minute, a third of it: a pause between two passes is no rest. */
	for (unsigned int i = 590; i <= 640; i++, n++)
		s[n] = at(i / 10.0, i < 600 ? 1000 : 2000, i);
	cr_expect_not(kbench_still(s, n, true));
	for (unsigned int i = 641; i <= 920; i++, n++)
		s[n] = at(i / 10.0, 2000, i);
	cr_expect(kbench_still(s, n, true));
}

Test(bench_ksm, still_with_nothing_saved)
{
	struct run_sample s[100];

	s[0] = at(-1, 50, 0);
	for (unsigned int i = 1; i < 100; i++) {
		s[i] = at(i / 10.0, 50, i);
		cr_assert_not(kbench_still(s, i + 1, true), "at %g", s[i].t);
	}
	cr_expect(kbench_still(s, 100, false));
	cr_expect_not(kbench_still(s, 20, false), "too early");
	cr_expect_not(kbench_still(s, 0, false));
}

Test(bench_ksm, cpu_rate_over_a_window)
{
	const struct run_sample s[] = {at(0, 0, 0), at(1, 0, 3), at(3, 0, 4), at(5, 0, 8)};

	NEAR(kbench_cpu_rate(s, 4, 1, 3), 0.5);
	NEAR(kbench_cpu_rate(s, 4, 2, 4), (6 - 3.5) / 2);
	NEAR(kbench_cpu_rate(s, 4, 0, 5), 1.6);
	cr_expect(isnan(kbench_cpu_rate(s, 4, 1, 5.1)), "no reading there");
	cr_expect(isnan(kbench_cpu_rate(s, 0, 0, 1)));
}

Test(bench_ksm, losses_are_not_below_nothing)
{
	NEAR(kbench_loss(200, 150), 0.25);
	NEAR(kbench_loss(200, 210), 0);
	NEAR(kbench_loss(0, 10), 0);
	NEAR(kbench_added(3, 10), 7);
	NEAR(kbench_added(10, 3), 0);
}

/* A world in which delays are @slope times (scan + rest), as long as a scan takes @scan seconds. */
static double world(double scan, double slope, double gap_ms)
{
	return slope * (scan + gap_ms / 1000);
}

Test(bench_ksm, calibration_finds_the_rest)
{
	static const double target[] = {1, 10}, scan[] = {0.001, 0.05, 0.3},
			    slope[] = {1.5, 2, 3.2};
	static const double first[] = {1, 50, 500, 5000};

	for (unsigned int t = 0; t < OB_ARRAY_SIZE(target); t++)
		for (unsigned int i = 0; i < OB_ARRAY_SIZE(scan); i++)
			for (unsigned int k = 0; k < OB_ARRAY_SIZE(slope); k++)
				for (unsigned int g = 0; g < OB_ARRAY_SIZE(first); g++) {
					struct kbench_cal c;
					unsigned int steps = 0;
					double off;

					kbench_cal_begin(&c, target[t], first[g], 1);
					while (!kbench_cal_step(&c,
								world(scan[i], slope[k], c.gap_ms)))
						cr_assert_lt(++steps, KBENCH_CAL_STEPS);
					off = world(scan[i], slope[k], c.best_ms) / target[t];
					cr_expect(off > 1 / 1.21 && off < 1.21,
						  "target %g scan %g slope %g from %g: off by %g",
						  target[t], scan[i], slope[k], first[g], off);
				}
}

/* An engine that is too slow with no rest at all gets none, and the search ends there. */
Test(bench_ksm, calibration_of_the_impossible)
{
	struct kbench_cal c;
	unsigned int steps = 0;

	kbench_cal_begin(&c, 1, 500, 0);
	while (!kbench_cal_step(&c, world(2, 1.5, c.gap_ms)))
		cr_assert_lt(++steps, KBENCH_CAL_STEPS);
	cr_expect_eq(c.best_ms, 0);
	kbench_cal_begin(&c, 1, -7, 1);
	cr_expect_eq(c.gap_ms, 1, "never below the least");
}

/* Whatever it is told, it ends, and its gaps are ones that can be set. */
Test(bench_ksm, calibration_of_nonsense)
{
	srand(4711);
	for (unsigned int round = 0; round < 20000; round++) {
		struct kbench_cal c;
		unsigned int steps = 1;

		kbench_cal_begin(&c, 1 + rand() % 10, rand() % 1000, 1);
		while (!kbench_cal_step(&c, (1 + rand() % 100000) / 1000.0)) {
			cr_assert_lt(steps++, KBENCH_CAL_STEPS, "round %u", round);
			cr_assert(isfinite(c.gap_ms) && c.gap_ms >= 1 &&
					  c.gap_ms <= KSM_PACE_MAX_SLEEP,
				  "round %u: %g", round, c.gap_ms);
		}
		cr_assert(isfinite(c.best_ms) && c.best_ms >= 1);
	}
}

Test(bench_ksm, nudge)
{
	NEAR(kbench_cal_nudge(300, 1.1, 1, 1), 300);
	NEAR(kbench_cal_nudge(300, 1.5, 1, 1), 200);
	NEAR(kbench_cal_nudge(300, 100, 1, 1), 150);
	NEAR(kbench_cal_nudge(1, 100, 1, 1), 1);
	NEAR(kbench_cal_nudge(300, 0.1, 1, 1), 600);
}
