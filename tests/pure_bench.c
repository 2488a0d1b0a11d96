/* SPDX-License-Identifier: Apache-2.0 */
/* pure_bench.c: the benchmark frame: medians, ratios of pairs, goals,
 * the document and the table. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench.h"
#include "harness/report.h"

/* The value that as many others are below as above, the slow way. */
static double naive_median(const double *v, unsigned int n)
{
	double low = NAN, high = NAN;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int below = 0, same = 0;

		for (unsigned int j = 0; j < n; j++) {
			below += v[j] < v[i];
			same += v[j] == v[i];
		}
		if (below <= (n - 1) / 2 && (n - 1) / 2 < below + same)
			low = v[i];
		if (below <= n / 2 && n / 2 < below + same)
			high = v[i];
	}
	return (low + high) / 2;
}

Test(bench, median)
{
	unsigned int seed = 99;

	cr_expect(isnan(bench_median(NULL, 0)));
	srand(seed);
	for (int round = 0; round < 2000; round++) {
		double v[BENCH_MAX_SAMPLES], before[BENCH_MAX_SAMPLES];
		unsigned int n = 1 + (unsigned int)rand() % BENCH_MAX_SAMPLES;

		for (unsigned int i = 0; i < n; i++)
			before[i] = v[i] = rand() % 40 - 20;
		cr_assert_eq(bench_median(v, n), naive_median(v, n), "seed %u round %d", seed,
			     round);
		cr_assert_eq(memcmp(v, before, n * sizeof(v[0])), 0,
			     "the samples stay in their order");
	}
}

Test(bench, ratio_is_of_pairs)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct bench_figure *f;
	struct bench_ratio r;

	cr_assert(b);
	f = bench_figure(b, "time", "ms", "the other");
	/* Ratios 2, 0.5, 1: their median is 1, while that of the medians would be 2 / 2. */
	bench_add(f, 2, 1);
	bench_add(f, 1, 2);
	bench_add(f, 30, 30);
	r = bench_ratio(f);
	cr_expect_eq(r.pairs, 3);
	cr_expect_eq(r.median, 1);
	cr_expect_eq(r.min, 0.5);
	cr_expect_eq(r.max, 2);
	bench_add(f, 1, 0);
	cr_expect_eq(bench_ratio(f).pairs, 3, "a reference of zero is no pair");
	free(b);
}

Test(bench, goals)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct bench_figure *f;

	cr_assert(b);
	f = bench_figure(b, "time", "ms", "the other");
	cr_expect_eq(bench_reached(f), -1);
	f->goal = 1;
	f->goal_is_max = true;
	cr_expect_eq(bench_reached(f), -1, "no pair, no verdict");
	bench_add(f, 1, 1);
	cr_expect_eq(bench_reached(f), 1);
	f->goal = 0.9;
	cr_expect_eq(bench_reached(f), 0);
	f->goal_is_max = false;
	cr_expect_eq(bench_reached(f), 1);
	f->goal = 1.1;
	cr_expect_eq(bench_reached(f), 0);
	free(b);
}

Test(bench, document_and_table)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct bench_figure *pair, *alone;
	char *text = NULL;
	size_t len = 0;
	json_t *doc;
	const json_t *f;
	FILE *out;

	cr_assert(b);
	strcpy(b->name, "sample");
	pair = bench_figure(b, "boot", "ms", "QEMU");
	bench_add(pair, 10, 40);
	bench_add(pair, 20, 40);
	pair->goal = 0.5;
	pair->goal_is_max = true;
	alone = bench_figure(b, "cost", "KiB", NULL);
	bench_add_ours(alone, 5);

	doc = bench_json(b);
	cr_expect_str_eq(report_str(doc, "schema"), "overbook.bench/1");
	cr_expect(*report_str(doc, "git.revision"));
	cr_expect(*report_str(doc, "host.kernel"));
	f = json_array_get(json_object_get(doc, "figures"), 0);
	cr_expect_str_eq(report_str(f, "figure"), "boot");
	cr_expect_str_eq(report_str(f, "unit"), "ms");
	cr_expect_str_eq(report_str(f, "reference_is"), "QEMU");
	cr_expect_eq(json_array_size(report_get(f, "ours")), 2);
	cr_expect_eq(json_array_size(report_get(f, "reference")), 2);
	cr_expect_float_eq(report_num(f, "ratio.median"), 0.375, 1e-9);
	cr_expect_eq(report_num(f, "ratio.min"), 0.25);
	cr_expect_eq(report_num(f, "ratio.max"), 0.5);
	cr_expect_eq(report_num(f, "goal"), 0.5);
	cr_expect(json_is_true(report_get(f, "reached")));
	f = json_array_get(json_object_get(doc, "figures"), 1);
	cr_expect(json_is_null(report_get(f, "ratio.median")));
	cr_expect(json_is_null(report_get(f, "goal")));
	cr_expect(json_is_null(report_get(f, "reached")));
	json_decref(doc);

	out = open_memstream(&text, &len);
	bench_print(out, b);
	fclose(out);
	cr_expect(strstr(text, "ratio 0.375 (0.25 to 0.5), 2 pairs; goal at most 0.5: reached"),
		  "%s", text);
	cr_expect(strstr(text, "ours 5 KiB, 1 sample\n"), "%s", text);
	free(text);
	free(b);
}
