/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset_est.c: from counts of touched samples to an estimate with an error. Pure arithmetic.
 *
 * Smoothing. One period's count is noisy, and a policy that follows it takes memory from a guest and
 * gives it back for nothing. One average that is slow enough to be steady comes too late when a guest
 * wakes up. The paper (Waldspurger, OSDI 2002, section 5.3) therefore keeps several and takes the
 * largest: a slow one; a fast one; and the fast one with what the period under way has counted until
 * now. So the estimate rises within a period and falls over several. The gains are not published, and
 * that it is exactly these three is not confirmed by any other source that we know: gains are options,
 * and the defaults are ours. With them a guest that falls idle is down to a half after about three
 * periods and to a tenth after ten. The maximum of noisy averages lies above the truth on average, at
 * n = 400 by up to a third of a point.
 *
 * Errors. The n pages are drawn without repetition from N, so t is hypergeometric: t / n has the
 * standard error sqrt(f (1 - f) / n), and that times sqrt((N - n) / (N - 1)) (Cochran, "Sampling
 * Techniques", section 3.2). At f = 0 and 1 that says that there is no error, which is false: the
 * interval is Wilson's (1927), which holds there, too.
 */
#include <math.h>

#include "ept/wset.h"

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
