/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_pace.c: how much is planned into a pause. A host is played whose operations take what they take,
 * with scatter and now and then an accident; the planner is told the times and nothing else.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/hash_pace.h"

#define BOUND (500 * OB_NS_PER_US)

/* A time around @mean, from a half to twice of it, rarely more. */
static uint64_t scatter(uint64_t mean, unsigned int *seed)
{
	uint64_t r = (uint64_t)rand_r(seed) % 1000;

	return r < 2 ? mean * 3 : mean / 2 + mean * r / 1000;
}

/* One pause over singles and runs, as hash_merge.c does it. Returns the pages. */
static uint32_t one_pause(struct pace *p, struct ksm_pauses *st, uint64_t check, uint64_t map,
			  uint64_t park, unsigned int *seed)
{
	struct pace_pause z = {.park = scatter(park, seed)};
	uint64_t now = z.park, check_ns = 0, map_ns = 0, to_come = pace_cost(p, PACE_REST, 1);
	uint32_t pages = 0, runs = 0;

	z.planned = pace_left(p, now);
	while (pages < 4000) {
		uint64_t cost, took;
		uint32_t fit = pace_fit(p, pace_left(p, now + to_come), 1, true, &cost);

		if (!fit && pages)
			break;
		took = scatter(check, seed);
		now += took;
		check_ns += took;
		to_come += cost - OB_MIN(cost, pace_cost(p, PACE_CHECK, 1));
		pages++;
	}
	for (; runs < pages; runs++)
		map_ns += scatter(map, seed);
	z.whole = now + map_ns + scatter(3000, seed) + pages * 1000;
	z.work_cpu = z.whole - z.park;
	pace_learn(p, PACE_CHECK, pages, check_ns);
	pace_learn(p, PACE_MAP, runs, map_ns);
	pace_learn(p, PACE_EMPTY, pages, pages * 1000);
	pace_learn(p, PACE_REST, 1, z.whole - now - map_ns - pages * 1000);
	pace_ended(p, &z, st);
	return pages;
}

Test(pace, pauses_keep_to_the_bound_whatever_the_host_costs)
{
	static const uint64_t map[] = {2000, 8000, 30000, 80000};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(map); i++) {
		struct ksm_pauses st = {.late = {0}};
		unsigned int seed = 7 + i;
		uint64_t pages = 0;
		struct pace p;

		pace_init(&p, BOUND);
		for (unsigned int n = 0; n < 500; n++)
			one_pause(&p, &st, 700, map[i], 60000, &seed); /* it learns */
		memset(&st, 0, sizeof(st));
		for (unsigned int n = 0; n < 20000; n++)
			pages += one_pause(&p, &st, 700, map[i], 60000, &seed);
		cr_assert_leq(st.late[KSM_LATE_PLANNING], 20, "%llu of 20000, mmap of %llu ns",
			      (unsigned long long)st.late[KSM_LATE_PLANNING],
			      (unsigned long long)map[i]);
		/* And is not kept by doing nothing: a third of what could be done at best. */
		cr_assert_gt(pages * 3, 20000 * (BOUND - 60000) / (map[i] + 1700), "%llu",
			     (unsigned long long)pages);
	}
}

Test(pace, a_bound_below_parking_still_makes_progress)
{
	struct ksm_pauses st = {.late = {0}};
	unsigned int seed = 3;
	struct pace p;

	pace_init(&p, 50 * OB_NS_PER_US);
	for (unsigned int n = 0; n < 1000; n++)
		cr_assert_eq(one_pause(&p, &st, 700, 8000, 130000, &seed), 1);
	cr_assert_eq(st.late[KSM_LATE_WAITING], 1000);
	cr_assert_eq(st.late[KSM_LATE_PLANNING], 0);
}

Test(pace, an_accident_is_not_believed)
{
	uint64_t before;
	struct pace p;

	pace_init(&p, BOUND);
	before = pace_cost(&p, PACE_MAP, 1);
	pace_learn(&p, PACE_MAP, 1, 50 * OB_NS_PER_MS);
	cr_assert_lt(pace_cost(&p, PACE_MAP, 1), 2 * before);
	/* But news that comes again is. */
	for (unsigned int i = 0; i < 40; i++)
		pace_learn(&p, PACE_MAP, 1, 20 * before);
	cr_assert_gt(pace_cost(&p, PACE_MAP, 1), 10 * before);
	pace_learn(&p, PACE_MAP, 0, 1);
	for (unsigned int i = 0; i < 200; i++)
		pace_learn(&p, PACE_MAP, 1, before);
	cr_assert_lt(pace_cost(&p, PACE_MAP, 1), before + before / 8);
}

Test(pace, what_fits_is_what_it_says)
{
	for (unsigned int seed0 = 1; seed0 < 5000; seed0++) {
		unsigned int seed = seed0;
		uint64_t left = (uint64_t)rand_r(&seed) % (2 * BOUND), cost;
		uint32_t n = 1 + (uint32_t)rand_r(&seed) % 600, fit;
		bool emptied = rand_r(&seed) % 2;
		struct pace p;

		pace_init(&p, BOUND);
		for (unsigned int i = 0; i < PACE_NOPS; i++)
			pace_learn(&p, (enum pace_op)i, 1, (uint64_t)rand_r(&seed) % 20000);
		fit = pace_fit(&p, left, n, emptied, &cost);
		cr_assert_leq(fit, n);
		cr_assert_leq(cost, left, "seed %u", seed0);
		cr_assert_eq(cost > 0, fit > 0);
		/* One more would not have fitted. */
		if (fit < n)
			cr_assert_gt(
				pace_cost(&p, emptied ? PACE_MAP : PACE_REPLACE, 1) +
					pace_cost(&p, PACE_CHECK, fit + 1) +
					pace_cost(&p, emptied ? PACE_EMPTY : PACE_FREE, fit + 1) +
					3,
				left, "seed %u", seed0);
	}
}

Test(pace, overruns_have_their_cause)
{
	static const struct {
		struct pace_pause z; /* park, whole, work_cpu, planned, preempted: in us */
		enum ksm_late cause;
	} cases[] = {
		{{60, 480, 400, 300, true}, KSM_NLATE},
		{{60, 500, 440, 300, false}, KSM_NLATE},
		{{60, 700, 640, 300, false}, KSM_LATE_PLANNING},
		{{60, 700, 640, 300, true}, KSM_LATE_PLANNING}, /* lost it, but not for long */
		{{60, 5000, 300, 300, true}, KSM_LATE_PREEMPTED},
		{{60, 5000, 300, 300, false}, KSM_LATE_LOCK},
		{{3000, 3010, 10, 20, false}, KSM_LATE_WAITING},
		{{3000, 3050, 50, 0, false}, KSM_LATE_WAITING}, /* one page, as there was no time */
		{{3000, 9000, 50, 0, true}, KSM_LATE_WAITING},	/* too long before that */
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		struct pace_pause z = cases[i].z;
		struct ksm_pauses st = {.late = {0}};
		uint32_t aim;
		struct pace p;

		pace_init(&p, BOUND);
		z.park *= 1000;
		z.whole *= 1000;
		z.work_cpu *= 1000;
		z.planned *= 1000;
		cr_assert_eq(pace_cause(&p, &z), cases[i].cause, "case %zu: %d", i,
			     (int)pace_cause(&p, &z));
		aim = p.aim;
		pace_ended(&p, &z, &st);
		cr_assert_eq(p.aim < aim, cases[i].cause == KSM_LATE_PLANNING, "case %zu", i);
		for (unsigned int l = 0; l < KSM_NLATE; l++)
			cr_assert_eq(st.late[l], l == cases[i].cause);
		cr_assert_geq(ksm_lat_part(st.pause, 1), z.whole);
		cr_assert_leq(ksm_lat_part(st.pause, 1), z.whole + z.whole / 3);
	}
}

Test(pace, parts_of_a_histogram)
{
	uint64_t lat[KSM_LAT_BUCKETS] = {0};

	cr_assert_eq(ksm_lat_part(lat, 0.5), 0);
	for (uint64_t i = 0; i < 1000; i++)
		lat[ksm_lat_bucket(i < 990 ? 1000 : 1000000)]++;
	cr_assert_leq(ksm_lat_part(lat, 0.5), 1280);
	cr_assert_leq(ksm_lat_part(lat, 0.99), 1280);
	cr_assert_gt(ksm_lat_part(lat, 0.999), 1000000);
	lat[ksm_lat_bucket(UINT64_MAX)]++;
	cr_assert_gt(ksm_lat_part(lat, 1), 1000000);
}
