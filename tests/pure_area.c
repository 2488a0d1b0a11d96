/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_area.c: the arithmetic of the memory workloads: the order in which pages are visited, what
 * they must hold, how many are touched; and how a person's words for them become the guest's.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"
#include "workloads/area.h"

#define SEED 20250117

/* Each page exactly once, whatever the number of pages. */
static void visits_all(uint64_t n, uint64_t key)
{
	unsigned char *seen = calloc(n, 1);
	struct area_order o;

	cr_assert(seen);
	area_order_init(&o, n, key);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t page = area_order_at(&o, i);

		cr_assert_lt(page, n, "%d pages, key %d", (int)n, (int)key);
		cr_assert(!seen[page], "page %d of %d twice, key %d", (int)page, (int)n, (int)key);
		seen[page] = 1;
	}
	free(seen);
}

Test(area, order_is_a_permutation)
{
	struct gen_rng r = {SEED};

	for (uint64_t n = 1; n <= 300; n++)
		visits_all(n, n);
	for (unsigned int i = 0; i < 200; i++)
		visits_all(1 + gen_below(&r, 20000), gen_next(&r));
	visits_all(1 << 20, SEED);
	visits_all((1 << 20) + 1, SEED);
}

/* Not the order of addresses: neighbours in time are seldom neighbours in memory, and where a page
 * lies says nothing of when it comes. */
Test(area, order_is_random)
{
	const uint64_t n = 10000;
	struct area_order o, other;
	uint64_t near = 0, alike = 0, early = 0;

	area_order_init(&o, n, SEED);
	area_order_init(&other, n, SEED + 1);
	for (uint64_t i = 0; i + 1 < n; i++) {
		uint64_t a = area_order_at(&o, i), b = area_order_at(&o, i + 1);

		near += (a > b ? a - b : b - a) < n / 100;
		alike += a == area_order_at(&other, i);
		early += i < n / 2 && a < n / 2;
	}
	/* Of random pairs 2 % lie so near; one page in n is at its place by chance; of the first
	 * half of the order half lies in the lower half. With room for chance. */
	cr_expect_lt(near, n * 3 / 100);
	cr_expect_gt(near, n * 1 / 100);
	cr_expect_lt(alike, 20);
	cr_expect_gt(early, n / 4 - 250);
	cr_expect_lt(early, n / 4 + 250);
}

Test(area, check_tells_pages_counters_and_guests_apart)
{
	struct gen_rng r = {SEED};
	uint64_t w[GEN_PAGE_WORDS] = {0};

	for (unsigned int i = 0; i < 20000; i++) {
		uint64_t key = gen_next(&r), page = gen_below(&r, 1 << 20);
		uint64_t counter = gen_below(&r, 1 << 16);

		area_set(w, key, page, counter);
		cr_assert_eq(w[AREA_COUNTER], counter);
		cr_assert_eq(w[AREA_CHECK], area_check(key, page, counter));
		cr_assert_neq(w[AREA_CHECK], area_check(key, page, counter + 1));
		cr_assert_neq(w[AREA_CHECK], area_check(key, page + 1, counter));
		cr_assert_neq(w[AREA_CHECK], area_check(key + 1, page, counter));
		cr_assert_neq(w[AREA_CHECK], 0, "an empty page passes");
	}
}

/* The formula against counting. */
Test(area, writes_of_touch_add_up)
{
	for (uint64_t page = 0; page < 10; page++) {
		uint64_t written = 0;

		for (uint64_t round = 0; round < 100; round++) {
			cr_assert_eq(area_touch_written(page, round), written, "page %d round %d",
				     (int)page, (int)round);
			written += !!area_touch_writes(page, round);
		}
		cr_assert_eq(written, 50);
	}
}

Test(area, hot_pages)
{
	struct gen_rng r = {SEED};

	/* 64 MiB with 284 pages of its own: 30 % are 4915, less its own. */
	cr_expect_eq(area_hot(16384, 284, 16100, 30), 4915 - 284);
	cr_expect_eq(area_hot(16384, 284, 16100, 0), 0);
	cr_expect_eq(area_hot(16384, 284, 16100, 1), 0, "its own are more already");
	cr_expect_eq(area_hot(16384, 284, 16100, 100), 16100);
	for (unsigned int i = 0; i < 100000; i++) {
		uint64_t total = gen_next(&r) >> (24 + gen_below(&r, 30)), percent;
		uint64_t own = gen_below(&r, total / 2 + 1), hot;

		percent = gen_below(&r, 101);
		hot = area_hot(total, own, total - own, percent);
		cr_assert_leq(hot, total - own);
		/* Within one page of the share, wherever its own pages allow that. */
		if ((unsigned __int128)total * percent >= (unsigned __int128)own * 100)
			cr_assert_eq((uint64_t)((unsigned __int128)total * percent / 100),
				     hot + own, "total %llu own %llu percent %llu, seed %d",
				     (unsigned long long)total, (unsigned long long)own,
				     (unsigned long long)percent, SEED);
		else
			cr_assert_eq(hot, 0);
	}
}

Test(area, words_for_the_guest)
{
	static const struct {
		const char *name, *words;
	} good[] = {
		{"kv", "workload=kv"},
		{"hostile-ring", "workload=hostile-ring"},
		{"touch", "workload=touch"},
		{"touch:30", "workload=touch param=30"},
		{"touch:30:1", "workload=touch param=30 param2=1"},
		{"counters:0:100", "workload=counters param=0 param2=100"},
	};
	static const char *const bad[] = {
		"kv:1",	       "touch:",  "touch::1", "touch:1:",
		"touch:1:2:3", "touch:x", "touch:-1", "touch:1 ",
		"touc",	       "touchy",  ":30",      "touch:1234567890123456789",
		"idle:0",
	};
	char buf[96];

	for (size_t i = 0; i < OB_ARRAY_SIZE(good); i++) {
		cr_expect(opts_known_workload(good[i].name), "%s", good[i].name);
		opts_workload_words(good[i].name, buf, sizeof(buf));
		cr_expect_str_eq(buf, good[i].words);
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++)
		cr_expect(!opts_known_workload(bad[i]), "%s", bad[i]);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

Test(area, sort_agrees_with_qsort)
{
	static uint64_t v[5000], w[5000];
	struct gen_rng r = {SEED};

	for (unsigned int round = 0; round < 300; round++) {
		uint64_t n = gen_below(&r, round % 3 ? 100 : 5000), range = 1 + gen_below(&r, 1000);

		for (uint64_t i = 0; i < n; i++)
			v[i] = w[i] = round % 2 ? gen_next(&r) : gen_below(&r, range);
		area_sort(v, n);
		qsort(w, n, sizeof(w[0]), by_value);
		cr_assert(!memcmp(v, w, n * sizeof(v[0])), "%d numbers, seed %d", (int)n, SEED);
	}
}
