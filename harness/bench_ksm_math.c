/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm_math.c: what the benchmark `ksm` makes of its readings. Readings come a tenth of a
 * second apart or more, and both what is saved and the CPU time are read with each; between two of
 * them both are taken to grow evenly.
 */
#include <errno.h>
#include <math.h>

#include "harness/bench_ksm.h"

#define STILL_SECONDS 3.0
#define STILL_SHARE   0.005
#define STILL_LAST    0.02
/* A delay this near to the target (by ratio) is it. */
#define CAL_NEAR 1.2
/* In one step a gap grows or shrinks by this at most: one median of few is a poor witness. */
#define CAL_FACTOR 4.0

/* The last reading before the engine was on, or 0. */
static unsigned int begin_of(const struct run_sample *s, unsigned int n)
{
	unsigned int at = 0;

	while (at + 1 < n && s[at + 1].t <= 0)
		at++;
	return at;
}

/* How far from @a to @b, 0 to 1, is @x? */
static double share(double a, double b, double x)
{
	return b > a ? (x - a) / (b - a) : 1;
}

int kbench_first(const struct run_sample *s, unsigned int n, struct kbench_first *out)
{
	unsigned int at = begin_of(s, n);
	double base, goal, t = 0, cpu = 0, saved;

	if (!n || s[n - 1].saved_bytes <= s[at].saved_bytes)
		return -ENODATA;
	base = saved = (double)s[at].saved_bytes;
	out->pages = ((double)s[n - 1].saved_bytes - base) / OB_PAGE_SIZE;
	goal = base + 0.95 * ((double)s[n - 1].saved_bytes - base);
	for (unsigned int i = s[at].t > 0 ? at : at + 1; i < n; i++) {
		double now = (double)s[i].saved_bytes, ns = (double)s[i].merge_cpu_ns;

		if (now >= goal) {
			double f = share(saved, now, goal);

			out->seconds_95 = t + f * (s[i].t - t);
			out->cpu_95 = (cpu + f * (ns - cpu)) / OB_NS_PER_SEC;
			break;
		}
		t = s[i].t;
		cpu = ns;
		saved = now;
	}
	if (!(out->cpu_95 > 0))
		return -ENODATA;
	out->pages_per_cpu_second = 0.95 * out->pages / out->cpu_95;
	return 0;
}

bool kbench_still(const struct run_sample *s, unsigned int n, bool any)
{
	double since, half, sum[2] = {0, 0}, mean[2];
	unsigned int count[2] = {0, 0}, i = n;

	if (!n || (any && s[n - 1].saved_bytes <= s[begin_of(s, n)].saved_bytes))
		return false;
	since = s[n - 1].t - fmax(STILL_SECONDS, s[n - 1].t / 3);
	half = (since + s[n - 1].t) / 2;
	if (since <= 0)
		return false;
	while (i-- > 0 && s[i].t >= since) {
		unsigned int late = s[i].t > half;

		sum[late] += (double)s[i].saved_bytes;
		count[late]++;
	}
	if (!count[0] || !count[1])
		return false;
	for (unsigned int k = 0; k < 2; k++)
		mean[k] = sum[k] / count[k];
	return mean[1] <= (1 + STILL_SHARE) * mean[0] &&
	       (double)s[n - 1].saved_bytes <= (1 + STILL_LAST) * mean[0];
}

/* CPU time until @t, in ns. */
static double cpu_at(const struct run_sample *s, unsigned int n, double t)
{
	for (unsigned int i = 1; i < n; i++)
		if (s[i - 1].t <= t && t <= s[i].t)
			return (double)s[i - 1].merge_cpu_ns +
			       share(s[i - 1].t, s[i].t, t) *
				       ((double)s[i].merge_cpu_ns - (double)s[i - 1].merge_cpu_ns);
	return NAN;
}

double kbench_cpu_rate(const struct run_sample *s, unsigned int n, double from, double to)
{
	return (cpu_at(s, n, to) - cpu_at(s, n, from)) / OB_NS_PER_SEC / (to - from);
}

double kbench_loss(double off, double on)
{
	return off > 0 ? fmax(0, (off - on) / off) : 0;
}

double kbench_added(double off, double on)
{
	return fmax(0, on - off);
}

void kbench_cal_begin(struct kbench_cal *c, double target, double gap_ms, double least_ms)
{
	*c = (struct kbench_cal){
		.target = target, .gap_ms = fmax(gap_ms, least_ms), .least_ms = least_ms};
}

static double off_by(double target, double delay)
{
	return fmax(target / delay, delay / target);
}

bool kbench_cal_step(struct kbench_cal *c, double delay)
{
	double slope = (delay - c->last_delay) / (c->gap_ms - c->last_ms), next;
	/* From nothing a factor leads nowhere. */
	double from = fmax(c->gap_ms, c->target * 1000 / 100);

	c->steps++;
	if (c->steps == 1 || off_by(c->target, delay) < off_by(c->target, c->best_delay)) {
		c->best_ms = c->gap_ms;
		c->best_delay = delay;
	}
	if (off_by(c->target, delay) <= CAL_NEAR || c->steps == KBENCH_CAL_STEPS)
		return true;
	/* As fast as it goes, and still too slow. */
	if (delay > c->target && c->gap_ms <= c->least_ms)
		return true;
	if (c->last_delay > 0 && isfinite(slope) && slope > 0)
		next = c->gap_ms + (c->target - delay) / slope;
	else
		next = from * c->target / delay;
	c->last_ms = c->gap_ms;
	c->last_delay = delay;
	next = fmin(fmax(next, from / CAL_FACTOR), from * CAL_FACTOR);
	/* Below a hundredth of the target the rest does not matter any more. */
	c->gap_ms = next < c->target * 1000 / 100 ? c->least_ms : next;
	return false;
}

double kbench_cal_nudge(double gap_ms, double delay, double target, double least_ms)
{
	double next = gap_ms * fmin(fmax(target / delay, 0.5), 2);

	return off_by(target, delay) <= CAL_NEAR ? gap_ms : fmax(next, least_ms);
}
