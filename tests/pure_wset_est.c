/* SPDX-License-Identifier: Apache-2.0 */
/* pure_wset_est.c: the arithmetic of the estimate, and the draw, against naive ones. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "ept/wset_int.h"

static uint64_t rnd(uint64_t *s)
{
	*s += 0x9e3779b97f4a7c15ULL;
	uint64_t x = *s;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* --- the arithmetic --------------------------------------------------------------------------- */

Test(wset_est, averages_agree_with_naive_sums)
{
	const double slow = 0.2, fast = 0.5;
	double f[60];
	uint64_t seed = 3;

	for (int len = 1; len <= 60; len++) {
		struct ept_wset_avg a = {.any = false};
		double s = 0, q = 0, now = (double)(rnd(&seed) % 1001) / 1000, expect;

		for (int i = 0; i < len; i++) {
			f[i] = (double)(rnd(&seed) % 1001) / 1000;
			ept_wset_avg_add(&a, slow, fast, f[i]);
		}
		/* Period i weighs g (1-g)^(len-1-i); the first one takes what is left over. */
		for (int i = 0; i < len; i++) {
			double gs = i ? slow : 1, gf = i ? fast : 1;

			s += f[i] * gs * pow(1 - slow, len - 1 - i);
			q += f[i] * gf * pow(1 - fast, len - 1 - i);
		}
		expect = fmax(fmax(s, q), (1 - fast) * q + fast * now);
		cr_assert_float_eq(ept_wset_avg_get(&a, fast, now), expect, 1e-9, "length %d", len);
	}
}

Test(wset_est, rises_within_a_period_and_falls_slowly)
{
	struct ept_wset_avg a = {.any = false};
	double before;

	cr_assert_float_eq(ept_wset_avg_get(&a, 0.5, 0.3), 0.3, 1e-12, "all there is to go by");
	for (int i = 0; i < 50; i++)
		ept_wset_avg_add(&a, 0.2, 0.5, 0.1);
	cr_assert_float_eq(ept_wset_avg_get(&a, 0.5, 0), 0.1, 1e-6);
	cr_assert_float_eq(ept_wset_avg_get(&a, 0.5, 0.9), 0.5, 1e-6, "in the middle of a period");
	ept_wset_avg_add(&a, 0.2, 0.5, 0.9);
	ept_wset_avg_add(&a, 0.2, 0.5, 0.9);
	cr_assert_float_eq(ept_wset_avg_get(&a, 0.5, 0), 0.7, 1e-6);
	for (int i = 0; i < 50; i++)
		ept_wset_avg_add(&a, 0.2, 0.5, 0.9);
	before = ept_wset_avg_get(&a, 0.5, 0);
	for (int i = 0; i < 3; i++)
		ept_wset_avg_add(&a, 0.2, 0.5, 0.1);
	/* 0.8 to fall, of which 0.8^3 is left. */
	cr_assert_float_eq(before - ept_wset_avg_get(&a, 0.5, 0), 0.8 * (1 - 0.512), 1e-4);
}

/* n of @of, @good of them touched, by drawing. */
static unsigned int draw(uint64_t *seed, unsigned int n, unsigned int of, unsigned int good)
{
	unsigned int t = 0;

	for (; n; n--, of--) {
		bool hit = rnd(seed) % of < good;

		t += hit;
		good -= hit;
	}
	return t;
}

Test(wset_est, errors_are_those_of_draws_without_repetition)
{
	uint64_t seed = 11;

	for (unsigned int n = 50; n <= 1000; n *= 2)
		for (unsigned int good = 100; good <= 1100; good += 333) {
			const unsigned int of = 1200, rounds = 4000;
			double sum = 0, sq = 0, sigma, low, high, truth = (double)good / of, say;
			unsigned int inside = 0;

			for (unsigned int i = 0; i < rounds; i++) {
				unsigned int t = draw(&seed, n, of, good);
				double f = (double)t / n;

				sum += f;
				sq += f * f;
				ept_wset_interval(t, n, of, 1.96, &low, &high);
				cr_assert(low >= 0 && low <= f && f <= high && high <= 1);
				inside += low <= truth && truth <= high;
			}
			sigma = sqrt(sq / rounds - sum / rounds * (sum / rounds));
			say = sqrt(truth * (1 - truth) / n * (of - n) / (of - 1.0));
			cr_assert_float_eq(sigma / say, 1, 0.06, "n %u good %u", n, good);
			/* What is said of a sample is what is true of the guest, but for that
			 * sample. */
			say = ept_wset_error((uint64_t)(truth * n + 0.5), n, of);
			cr_assert_float_eq(sigma / say, 1, 0.12, "n %u good %u", n, good);
			cr_assert_geq(inside, rounds * 93 / 100, "n %u good %u: %u", n, good,
				      inside);
		}
}

Test(wset_est, errors_at_the_ends)
{
	double low, high;

	ept_wset_interval(0, 0, 100, 1.96, &low, &high);
	cr_assert(low == 0 && high == 1, "nothing is known");
	ept_wset_interval(30, 100, 100, 1.96, &low, &high);
	cr_assert(low == 0.3 && high == 0.3, "all is known");
	cr_assert_eq(ept_wset_error(30, 100, 100), 0);
	/* None of 100: the rule of three says 3 %, Wilson a little more. */
	ept_wset_interval(0, 100, 1000000, 1.96, &low, &high);
	cr_assert(low == 0 && high > 0.03 && high < 0.04, "%f", high);
	ept_wset_interval(100, 100, 1000000, 1.96, &low, &high);
	cr_assert(high == 1 && low < 0.97 && low > 0.96, "%f", low);
}

/* --- the draw --------------------------------------------------------------------------------- */

Test(wset_est, the_order_is_a_permutation)
{
	static bool seen[3000];

	for (uint64_t n = 1; n < 3000; n += n < 70 ? 1 : 97) {
		memset(seen, 0, sizeof(seen));
		for (uint64_t i = 0; i < n; i++) {
			uint64_t p = ept_wset_permute(n, n * 7, i);

			cr_assert(p < n && !seen[p], "n %d i %d", (int)n, (int)i);
			seen[p] = true;
		}
	}
}

/* Each page is as likely as any other, and so is each pair. */
Test(wset_est, the_draw_is_fair)
{
	enum { N = 37, DRAWS = 5, KEYS = 40000 };
	unsigned int hit[N] = {0};
	static unsigned int pair[N][N];
	double chi = 0, chi2 = 0, expect = (double)KEYS * DRAWS / N;

	for (uint64_t key = 0; key < KEYS; key++)
		for (uint64_t i = 0; i < DRAWS; i++) {
			uint64_t p = ept_wset_permute(N, key * 0x5851f42d4c957f2dULL, i);

			hit[p]++;
			for (uint64_t k = 0; k < i; k++)
				pair[p][ept_wset_permute(N, key * 0x5851f42d4c957f2dULL, k)]++;
		}
	for (int p = 0; p < N; p++)
		chi += (hit[p] - expect) * (hit[p] - expect) / expect;
	expect = (double)KEYS * DRAWS * (DRAWS - 1) / 2 / (N * (N - 1));
	for (int p = 0; p < N; p++)
		for (int q = 0; q < N; q++)
			if (p != q)
				chi2 += (pair[p][q] - expect) * (pair[p][q] - expect) / expect;
	/* As many degrees of freedom as their mean: 5 standard deviations above it. */
	cr_assert_lt(chi, N + 5 * sqrt(2 * N), "%f", chi);
	cr_assert_lt(chi2, N * (N - 1) + 5 * sqrt(2.0 * N * (N - 1)), "%f", chi2);
}

Test(wset_est, parts_are_put_together_by_weight)
{
	struct ept_wset_period p = {
		.part = {{.of = 6000, .n = 300, .t = 90},
			 {.of = 2976, .n = 100, .t = 80},
			 {.of = 2, .n = 2, .t = 1}},
	};
	double sum = 6000 + 2976 + 1024, a, b;

	ept_wset_sum_up(&p);
	cr_assert_float_eq(p.fraction, (6000 * 0.3 + 2976 * 0.8 + 1024 * 0.5) / sum, 1e-12);
	a = 6000 / sum * sqrt(0.3 * 0.7 / 300 * 5700 / 5999);
	b = 2976 / sum * sqrt(0.8 * 0.2 / 100 * 2876 / 2975);
	cr_assert_float_eq(p.error, sqrt(a * a + b * b), 1e-12, "all units were sampled");
	cr_assert(p.low < p.fraction - 1.8 * p.error && p.low > p.fraction - 2.1 * p.error);
	cr_assert(p.high > p.fraction + 1.8 * p.error && p.high < p.fraction + 2.1 * p.error);
	/* Nothing is known of a part: it is left out of the whole. */
	p.part[EPT_WSET_SHARED].n = p.part[EPT_WSET_SHARED].t = 0;
	ept_wset_sum_up(&p);
	cr_assert_float_eq(p.fraction, (6000 * 0.3 + 1024 * 0.5) / (6000 + 1024), 1e-12);
	cr_assert_float_eq(ept_wset_fraction(p.part, EPT_WSET_OWN, EPT_WSET_SHARED), 0.3, 1e-12);
	cr_assert_eq(ept_wset_fraction(p.part, EPT_WSET_SHARED, EPT_WSET_SHARED), 0);
}
