/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_image.c: what guests and host share as headers in workloads/: the image's checksum, the
 * generator of contents, Zipf's law, latency buckets, the free list, the division of memory. These
 * are the measure by which memory is judged, so each is held against something simpler here.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/extent.h"
#include "workloads/gen.h"
#include "workloads/image.h"
#include "workloads/lat.h"
#include "workloads/layout.h"

#define SEED 20240607

#define CHECKSUM_ZERO  0x526812fc723c80b6ULL /* of 512 zero words */
#define CHECKSUM_COUNT 0x1b9df0a06f3690c4ULL /* of the words 0, 1, 2, ... 511 */

static void random_page(struct gen_rng *r, uint64_t *w)
{
	for (unsigned int i = 0; i < 512; i++)
		w[i] = gen_next(r);
}

/* --- image.h ----------------------------------------------------------------------------- */

Test(image, checksum_is_the_format)
{
	uint64_t w[512] = {0};

	/* Images outlive a build: a change of these is a new IMAGE_VERSION. */
	cr_assert_eq(image_checksum(w), CHECKSUM_ZERO, "%llx",
		     (unsigned long long)image_checksum(w));
	for (unsigned int i = 0; i < 512; i++)
		w[i] = i;
	cr_assert_eq(image_checksum(w), CHECKSUM_COUNT, "%llx",
		     (unsigned long long)image_checksum(w));
}

Test(image, checksum_sees_every_bit)
{
	struct gen_rng r = {SEED};
	uint64_t w[512], sum;

	random_page(&r, w);
	sum = image_checksum(w);
	for (unsigned int bit = 0; bit < 512 * 64; bit++) {
		w[bit / 64] ^= 1ULL << (bit % 64);
		cr_assert_neq(image_checksum(w), sum, "bit %u", bit);
		w[bit / 64] ^= 1ULL << (bit % 64);
	}
	cr_assert_eq(image_checksum(w), sum);
}

Test(image, checksum_sees_order)
{
	struct gen_rng r = {SEED};
	uint64_t w[512], sum;

	random_page(&r, w);
	sum = image_checksum(w);
	for (unsigned int k = 0; k < 10000; k++) {
		uint64_t a = gen_below(&r, 512), b = gen_below(&r, 512), t = w[a];

		w[a] = w[b];
		w[b] = t;
		cr_assert(a == b || image_checksum(w) != sum, "words %d and %d, seed %d", (int)a,
			  (int)b, SEED);
		w[b] = w[a];
		w[a] = t;
	}
}

Test(image, fold_sees_order_and_count)
{
	cr_assert_neq(image_fold(image_fold(0, 1), 2), image_fold(image_fold(0, 2), 1));
	cr_assert_neq(image_fold(image_fold(0, 0), 0), image_fold(0, 0));
}

/* --- gen.h ------------------------------------------------------------------------------- */

Test(gen, what_was_filled_is_verified)
{
	struct gen_rng r = {SEED};
	uint64_t w[GEN_PAGE_WORDS], got = 0;

	for (unsigned int n = 0; n < 200; n++) {
		uint64_t key = gen_next(&r), page = gen_below(&r, 1 << 20),
			 version = gen_below(&r, 9);

		gen_fill(w, key, page, version);
		cr_assert_eq(gen_check(w, key, page, version, &got), GEN_PAGE_WORDS);
		for (unsigned int k = 0; k < 100; k++) {
			unsigned int at = (unsigned int)gen_below(&r, GEN_PAGE_WORDS);
			uint64_t bit = 1ULL << gen_below(&r, 64);

			w[at] ^= bit;
			cr_assert_eq(gen_check(w, key, page, version, &got), at, "seed %d", SEED);
			cr_assert_eq(got, w[at]);
			cr_assert_eq(got ^ bit, gen_word(gen_start(key, page, version), at));
			w[at] ^= bit;
		}
	}
}

Test(gen, another_version_page_or_key_is_another_page)
{
	static const int64_t d[][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {0, 1, -1}, {0, -1, 1}};
	struct gen_rng r = {SEED};
	uint64_t a[GEN_PAGE_WORDS], b[GEN_PAGE_WORDS];

	for (unsigned int n = 0; n < 1000; n++) {
		uint64_t key = gen_next(&r), page = 1 + gen_below(&r, 100),
			 v = 1 + gen_below(&r, 100);
		const int64_t *k = d[n % 5];
		unsigned int differ = 0;

		gen_fill(a, key, page, v);
		gen_fill(b, key + (uint64_t)k[0], page + (uint64_t)k[1], v + (uint64_t)k[2]);
		for (unsigned int i = 0; i < GEN_PAGE_WORDS; i++)
			differ += a[i] != b[i];
		/* Five of eight words are not constant. */
		cr_assert_geq(differ, GEN_PAGE_WORDS / 2, "seed %d, case %u", SEED, n);
	}
}

Test(gen, below_stays_below_and_reaches_all)
{
	struct gen_rng r = {SEED};
	unsigned int count[7] = {0};

	cr_assert_eq(gen_below(&r, 0), 0);
	for (unsigned int i = 0; i < 70000; i++) {
		uint64_t v = gen_below(&r, 7);

		cr_assert_lt(v, 7);
		count[v]++;
	}
	for (unsigned int i = 0; i < 7; i++) /* 10000 expected; five standard deviations are 463 */
		cr_assert(count[i] > 9537 && count[i] < 10463, "%u: %u, seed %d", i, count[i],
			  SEED);
}

Test(gen, logarithm_and_power)
{
	static const struct {
		uint64_t v;
		double log2;
	} known[] = {{3, 1.584962500721156},
		     {10, 3.321928094887362},
		     {1000003, 19.931572891982526},
		     {UINT64_MAX, 64.0}};
	struct gen_rng r = {SEED};

	for (unsigned int k = 0; k < 63; k++) {
		cr_assert_eq(gen_log2(1ULL << k), (uint64_t)k << 32);
		cr_assert_eq(gen_exp2((uint64_t)k << 32), 1ULL << k);
	}
	for (unsigned int i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		double diff = (double)gen_log2(known[i].v) / 4294967296.0 - known[i].log2;

		cr_assert(diff < 1e-8 && diff > -1e-8, "%llu: off by %g",
			  (unsigned long long)known[i].v, diff);
	}
	for (unsigned int i = 0; i < 100000; i++) {
		uint64_t v = (1ULL << 20) + gen_below(&r, 1ULL << 40);
		double ratio = (double)gen_exp2(gen_log2(v)) / (double)v;

		cr_assert(ratio > 0.996 && ratio < 1.004, "%llu: %g, seed %d",
			  (unsigned long long)v, ratio, SEED);
	}
}

/* ln((a + 1) / a) by its series in 1 / (2a + 1): no library needed. */
static double ln_ratio(double a)
{
	double x = 1 / (2 * a + 1), p = x, sum = 0;

	for (unsigned int k = 1; k < 60; k += 2) {
		sum += p / k;
		p *= x * x;
	}
	return 2 * sum;
}

Test(gen, zipf_is_zipf)
{
	static const uint64_t sizes[] = {1, 2, 10, 1000, 50000};
	enum { DRAWS = 1000000, RANKS = 20 };
	struct gen_rng r = {SEED};

	for (unsigned int s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		uint64_t n = sizes[s];
		unsigned int count[RANKS] = {0};
		struct gen_zipf z;
		double all = 0;

		gen_zipf_init(&z, n);
		for (uint64_t k = 1; k <= n; k++)
			all += ln_ratio((double)k); /* ln(n + 1) */
		for (unsigned int i = 0; i < DRAWS; i++) {
			uint64_t rank = gen_zipf_rank(&z, &r);

			cr_assert_lt(rank, n);
			if (rank < RANKS)
				count[rank]++;
		}
		for (unsigned int k = 0; k < RANKS && k < n; k++) {
			double expect = DRAWS * ln_ratio(k + 1) / all;
			double diff = count[k] > expect ? count[k] - expect : expect - count[k];
			/* The polynomial's slope is up to 6 % off; the rest is chance: 5 sigma. */
			double over = diff - 0.06 * expect;

			cr_assert(over <= 0 || over * over <= 25 * expect + 1,
				  "n %d rank %u: %u, expected %.0f, seed %d", (int)n, k, count[k],
				  expect, SEED);
		}
	}
	struct gen_zipf none;

	gen_zipf_init(&none, 0);
	cr_assert_eq(gen_zipf_rank(&none, &r), 0);
}

Test(gen, scatter_is_a_bijection)
{
	static const uint64_t sizes[] = {1, 2, 3, 64, 1000, 9658, 65536};

	for (unsigned int s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		unsigned char *seen = calloc(1, sizes[s]);

		for (uint64_t i = 0; i < sizes[s]; i++) {
			uint64_t at = gen_scatter(i, sizes[s]);

			cr_assert_lt(at, sizes[s]);
			cr_assert_eq(seen[at], 0, "%d of %d", (int)i, (int)sizes[s]);
			seen[at] = 1;
		}
		free(seen);
	}
	cr_assert_eq(gen_scatter(5, 0), 0);
}

/* --- lat.h ------------------------------------------------------------------------------- */

/* By the words of agent_abi.h, slowly. */
static unsigned int slow_bucket(uint64_t ns)
{
	unsigned int octave = 0;

	while (octave < 63 && ns >> (octave + 1))
		octave++;
	/* Which quarter of [2^octave, 2^(octave + 1)) it is in. */
	uint64_t over = ns - (1ULL << octave);
	unsigned int quarter = (unsigned int)(((unsigned __int128)over * 4) >> octave);

	return octave * 4 + quarter < AGENT_LAT_BUCKETS ? octave * 4 + quarter
							: AGENT_LAT_BUCKETS - 1;
}

Test(lat, bucket_is_what_the_report_says)
{
	struct gen_rng r = {SEED};

	cr_assert_eq(lat_bucket(0), 0);
	for (uint64_t ns = 1; ns < 100000; ns++)
		cr_assert_eq(lat_bucket(ns), slow_bucket(ns), "%d ns", (int)ns);
	for (unsigned int i = 0; i < 100000; i++) {
		uint64_t ns = (gen_next(&r) >> gen_below(&r, 64)) | 1;

		cr_assert_eq(lat_bucket(ns), slow_bucket(ns), "%llu ns, seed %d",
			     (unsigned long long)ns, SEED);
	}
	cr_assert_eq(lat_bucket(UINT64_MAX), AGENT_LAT_BUCKETS - 1);
}

Test(lat, floor_is_the_least_of_its_bucket)
{
	for (unsigned int b = 8; b < AGENT_LAT_BUCKETS - 1; b++) {
		cr_assert_eq(lat_bucket(lat_floor(b)), b);
		/* Below 4 ns there are fewer whole numbers than buckets, some stay empty. */
		cr_assert(b == 8 || lat_bucket(lat_floor(b) - 1) == b - 1, "%u", b);
	}
	for (unsigned int b = 0; b < 8; b++)
		cr_assert_leq(lat_floor(b), lat_floor(b + 1));
}

/* --- extent.h ---------------------------------------------------------------------------- */

#define AREA 600

/* The list must say exactly what the map of taken pages says, in joined extents. */
static void extent_agrees(const struct extent_list *l, const unsigned char *taken,
			  unsigned int step)
{
	uint64_t page = 0, sum = 0;

	for (unsigned int i = 0; i < l->n; i++) {
		cr_assert(i == 0 || l->e[i].start > page, "not joined at step %u, seed %d", step,
			  SEED);
		for (; page < l->e[i].start; page++)
			cr_assert(taken[page], "page %d at step %u, seed %d", (int)page, step,
				  SEED);
		for (; page < l->e[i].start + l->e[i].pages; page++)
			cr_assert(!taken[page], "page %d at step %u, seed %d", (int)page, step,
				  SEED);
		sum += l->e[i].pages;
	}
	for (; page < AREA; page++)
		cr_assert(taken[page], "page %d at step %u, seed %d", (int)page, step, SEED);
	cr_assert_eq(sum, l->free_pages);
}

static bool fits(const unsigned char *taken, uint64_t pages)
{
	uint64_t run = 0;

	for (unsigned int i = 0; i < AREA; i++) {
		run = taken[i] ? 0 : run + 1;
		if (run == pages)
			return true;
	}
	return false;
}

Test(extent, agrees_with_a_bitmap)
{
	static struct extent_list l;
	unsigned char taken[AREA] = {0};
	struct {
		uint64_t start, pages;
	} block[AREA];
	unsigned int n = 0;
	struct gen_rng r = {SEED};

	extent_init(&l, AREA);
	for (unsigned int step = 0; step < 20000; step++) {
		if (n && gen_below(&r, 100) < (l.free_pages < AREA / 4 ? 70 : 40)) {
			unsigned int k = (unsigned int)gen_below(&r, n);

			cr_assert_eq(extent_free(&l, block[k].start, block[k].pages), 0);
			memset(taken + block[k].start, 0, block[k].pages);
			block[k] = block[--n];
		} else {
			uint64_t pages = 1 + gen_below(&r, gen_below(&r, 4) ? 4 : 64);
			uint64_t at = extent_alloc(&l, pages);

			cr_assert_eq(at != EXTENT_NONE, fits(taken, pages), "step %u, seed %d",
				     step, SEED);
			if (at != EXTENT_NONE) {
				cr_assert_leq(at + pages, AREA);
				for (uint64_t i = at; i < at + pages; i++)
					cr_assert(!taken[i], "given out twice, step %u, seed %d",
						  step, SEED);
				memset(taken + at, 1, pages);
				block[n].start = at;
				block[n++].pages = pages;
			}
		}
		extent_agrees(&l, taken, step);
	}
}

Test(extent, refuses_what_is_free)
{
	static struct extent_list l;

	extent_init(&l, 100);
	cr_assert_eq(extent_alloc(&l, 0), EXTENT_NONE);
	cr_assert_eq(extent_alloc(&l, 101), EXTENT_NONE);
	cr_assert_eq(extent_alloc(&l, 10), 0);
	cr_assert_eq(extent_alloc(&l, 10), 10);
	cr_assert_eq(extent_free(&l, 5, 10), 0);
	cr_assert_eq(extent_free(&l, 5, 10), -1);
	cr_assert_eq(extent_free(&l, 0, 6), -1);
	cr_assert_eq(extent_free(&l, 14, 6), -1);
	cr_assert_eq(extent_free(&l, 0, 20), -1);
	cr_assert_eq(l.free_pages, 90);
	extent_init(&l, 0);
	cr_assert_eq(extent_alloc(&l, 1), EXTENT_NONE);
}

/* --- layout.h ---------------------------------------------------------------------------- */

Test(layout, parts_add_up)
{
	struct gen_rng r = {SEED};

	for (unsigned int n = 0; n < 100000; n++) {
		uint64_t pages = gen_next(&r) >> (40 + gen_below(&r, 24));
		uint64_t data = gen_below(&r, 3) ? gen_below(&r, 1 << 20) : 0;
		int area = gen_below(&r, 2) == 1;
		struct layout l;

		if (layout_divide(&l, pages, data, data / 20, area)) {
			cr_assert_lt(pages, LAYOUT_MIN_PAGES, "%d pages, seed %d", (int)pages,
				     SEED);
			continue;
		}
		cr_assert_eq((l.meta + 4095) / 4096 + l.cache + l.heap + l.area + l.clean +
				     l.untouched + l.dirty,
			     pages);
		cr_assert_leq(l.cache, data);
		cr_assert_leq(l.heap_common, l.heap);
		cr_assert(l.heap && l.clean && l.untouched && l.dirty);
		cr_assert_eq(l.area > 0, area);
		/* Versions of all keys, of all heap pages, and all checksums have a place. */
		cr_assert_geq(l.meta, l.cache * 8 + l.heap * 4 +
					      ((l.area * KV_PER_PAGE) >> KV_FILL_SHIFT) * 4);
	}
}
