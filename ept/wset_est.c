/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset_est.c: from counts of touched samples to an estimate with an error. Pure arithmetic.
 *
 * Smoothing. One period's count is noisy, and a policy that follows it takes memory from a guest
 * and gives it back for nothing. One average that is slow enough to be steady comes too late when a
 * guest wakes up. The paper (Waldspurger, OSDI 2002, section 5.3) therefore keeps several and takes
 * the largest: a slow one; a fast one; and the fast one with what the period under way has counted
 * until now. So the estimate rises within a period and falls over several. Unconfirmed: that ESX
 * has exactly these three, of which we know no second source, and its gains, which are not
 * published. So the gains are options, and the defaults are ours. With them a guest that falls idle
 * is down to a half after about three periods and to a tenth after ten. The maximum of noisy
 * averages lies above the truth on average, at n = 400 by up to a third of a point.
 *
 * Errors. The n pages are drawn without repetition from N, so t is hypergeometric: t / n has the
 * standard error sqrt(f (1 - f) / n), and that times sqrt((N - n) / (N - 1)) (Cochran, "Sampling
 * Techniques", section 3.2). At f = 0 and 1 that says that there is no error, which is false: the
 * interval is Wilson's (1927), which holds there, too.
 *
 * Parts. Shared pages cannot all be sampled as they are drawn (wset_watch.c), and of a huge page
 * the touch of any part counts. How much there is of each kind is known. So each kind gives a
 * fraction of its own, and they are put together by weight (stratification after the draw; Cochran,
 * section 5A.9); their errors are independent. The distances from the fraction to either end of the
 * interval add up in the same way (Zou and Donner, Statistics in Medicine 27, 2008).
 */
#include <math.h>

#include "ept/wset.h"

/* In pages; a part of which nothing was sampled counts for nothing. */
static double weight(const struct ept_wset_part *part, enum ept_wset_part_kind k)
{
	return part[k].n ? (double)part[k].of * (k == EPT_WSET_HUGE ? EPT_WSET_UNIT : 1) : 0;
}

static double touched_part(const struct ept_wset_part *p)
{
	return p->n ? (double)p->t / p->n : 0;
}

double ept_wset_fraction(const struct ept_wset_part *part, enum ept_wset_part_kind first,
			 enum ept_wset_part_kind last)
{
	double sum = 0, touched = 0;

	for (enum ept_wset_part_kind k = first; k <= last; k++) {
		sum += weight(part, k);
		touched += weight(part, k) * touched_part(&part[k]);
	}
	return sum > 0 ? touched / sum : 0;
}

void ept_wset_sum_up(struct ept_wset_period *p)
{
	double sum = 0, error = 0, below = 0, above = 0;

	for (unsigned int k = 0; k < EPT_WSET_NPARTS; k++)
		sum += weight(p->part, k);
	p->fraction = ept_wset_fraction(p->part, 0, EPT_WSET_NPARTS - 1);
	for (unsigned int k = 0; k < EPT_WSET_NPARTS && sum > 0; k++) {
		const struct ept_wset_part *q = &p->part[k];
		double w = weight(p->part, k) / sum, low, high;

		ept_wset_interval(q->t, q->n, q->of, 1.96, &low, &high);
		error = hypot(error, w * ept_wset_error(q->t, q->n, q->of));
		below = hypot(below, w * (touched_part(q) - low));
		above = hypot(above, w * (high - touched_part(q)));
	}
	p->error = error;
	p->low = OB_MAX(p->fraction - below, 0.0);
	p->high = sum > 0 ? OB_MIN(p->fraction + above, 1.0) : 1;
}

void ept_wset_avg_add(struct ept_wset_avg *a, double slow, double fast, double f)
{
	if (!a->any) {
		*a = (struct ept_wset_avg){.slow = f, .fast = f, .any = true};
		return;
	}
	a->slow += slow * (f - a->slow);
	a->fast += fast * (f - a->fast);
}

double ept_wset_avg_get(const struct ept_wset_avg *a, double fast, double f_now)
{
	double running = a->fast + fast * (f_now - a->fast);

	if (!a->any)
		return f_now;
	return OB_MAX(OB_MAX(a->slow, a->fast), running);
}

double ept_wset_error(uint64_t t, uint64_t n, uint64_t of)
{
	double f;

	if (!n || n >= of)
		return 0;
	f = (double)t / (double)n;
	return sqrt(f * (1 - f) / (double)n * (double)(of - n) / (double)(of - 1));
}

void ept_wset_interval(uint64_t t, uint64_t n, uint64_t of, double z, double *low, double *high)
{
	double f, m, mid, half;

	*low = 0;
	*high = 1;
	if (!n)
		return;
	f = (double)t / (double)n;
	if (n >= of) {
		*low = *high = f;
		return;
	}
	/* As many draws with repetition as would have the same error. */
	m = (double)n * (double)(of - 1) / (double)(of - n);
	mid = (f + z * z / (2 * m)) / (1 + z * z / m);
	half = z / (1 + z * z / m) * sqrt(f * (1 - f) / m + z * z / (4 * m * m));
	/* At the ends it is the end itself, but for rounding. */
	*low = t ? OB_MAX(mid - half, 0.0) : 0;
	*high = t < n ? OB_MIN(mid + half, 1.0) : 1;
}
