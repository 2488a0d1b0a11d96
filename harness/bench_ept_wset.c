/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_wset.c: how good the estimate of the working set is, and what it costs.
 *
 * Four guests run at once, which touch 10, 30, 60 and 90 percent of their memory, spread all over
 * it, again and again within two seconds and a little. After a warm-up each period's smoothed
 * estimate is held against that. The promise is 5 points in 19 of 20 periods with n = 400, and 0.2
 * % of a core for each guest, counted by the CPU clocks of the thread that samples (while it
 * samples) and of the guest's fault handler. Then the same with ESX's n = 100, for its error bars.
 *
 * What the guests do takes its time, so on a host that is busy with something else they may not get
 * round in a period; then they really touch less, and this says so.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "harness/bench_ept.h"

#define GUESTS	  4
#define WARM	  3 /* periods */
#define POINTS	  0.05
#define CPU_GOAL  0.2 /* percent of a core, a guest */
#define WARM_UP_S 300

static const struct {
	double touched;
	const char *workload;
} guests[GUESTS] = {
	{0.1, "touch:10:1"}, {0.3, "touch:30:1"}, {0.6, "touch:60:1"}, {0.9, "touch:90:1"}};

struct watched {
	struct ept_wset w;
	uint64_t due_ns, seen;
	uint64_t since_ns, cpu_ns; /* when the warm-up was over */
	unsigned int within;
	double off[BENCH_MAX_SAMPLES], bar[BENCH_MAX_SAMPLES], windows;
	double cpu_percent;
};

/* A period of guest @i is over. */
static void note(struct watched *g, unsigned int i, uint64_t now)
{
	struct ept_wset_reading r;
	unsigned int k;

	ept_wset_read(&g->w, &r);
	g->seen = r.last.number;
	if (g->seen <= WARM) {
		g->since_ns = now;
		g->cpu_ns = r.cpu_ns + r.handler_cpu_ns;
		return;
	}
	k = (unsigned int)(g->seen - WARM - 1);
	g->off[k] = fabs(r.fraction - guests[i].touched);
	g->bar[k] = (r.last.high - r.last.low) / 2;
	g->within += g->off[k] <= POINTS;
	g->windows = (double)r.last.windows;
	g->cpu_percent = 100.0 * (double)(r.cpu_ns + r.handler_cpu_ns - g->cpu_ns) /
			 (double)(now - g->since_ns);
	bench_say(
		"n = %u, period %u, %2.0f %% touched: estimate %.1f %%, this period %.1f %% (%.1f "
		"to %.1f), CPU %.3f %%",
		g->w.opts.samples, k + 1, 100 * guests[i].touched, 100 * r.fraction,
		100 * r.last.fraction, 100 * r.last.low, 100 * r.last.high, g->cpu_percent);
}

/* Step all samplers until each has seen so many periods. */
static int sample(struct bench_rig *rig, struct watched *g, uint64_t periods, struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = 2 * OB_NS_PER_MS};
	uint64_t look = 0;

	for (bool more = true; more;) {
		uint64_t now = rig->host.ops->now_ns(&rig->host);
		int ret;

		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (now >= look) {
			ret = bench_rig_look(rig, e);
			if (ret)
				return ret;
			look = now + OB_NS_PER_SEC;
		}
		more = false;
		for (unsigned int i = 0; i < GUESTS; i++) {
			if (g[i].seen >= periods)
				continue;
			more = true;
			now = rig->host.ops->now_ns(&rig->host);
			if (now < g[i].due_ns)
				continue;
			g[i].due_ns = now + ept_wset_step(&g[i].w, now);
			if (g[i].w.err)
				return ob_fail(e, -g[i].w.err, "guests cannot be sampled here");
			if (g[i].w.last.number > g[i].seen)
				note(&g[i], i, now);
		}
		nanosleep(&nap, NULL);
	}
	return 0;
}

static int sampled(struct bench_rig *rig, struct watched *g, unsigned int samples,
		   uint64_t period_ns, unsigned int periods, struct ob_err *e)
{
	struct ept_wset_opts o = ept_wset_defaults();
	unsigned int made = 0;
	int ret = 0;

	o.samples = samples;
	o.period_ns = period_ns;
	for (; made < GUESTS && !ret; made += !ret) {
		g[made] = (struct watched){.seen = 0};
		o.seed = samples + made;
		ret = ept_wset_init(&g[made].w, &rig->guest[made].ept, &o);
		if (ret)
			ob_fail(e, -ret, "a sampler cannot be made");
	}
	if (!ret)
		ret = sample(rig, g, WARM + periods, e);
	while (made)
		ept_wset_exit(&g[--made].w);
	return ret;
}

static void figures(struct ept_bench *d, const struct watched *g, unsigned int periods,
		    const struct watched *esx, unsigned int esx_periods)
{
	struct bench_figure *within, *cpu, *windows, *off, *bar;
	char name[96];

	windows = bench_figure(d->b, "working set: 2 MiB windows watched, n = 400", "windows", "");
	for (unsigned int i = 0; i < GUESTS; i++) {
		double percent = 100 * guests[i].touched;

		bench_add_ours(windows, g[i].windows);
		snprintf(name, sizeof(name), "working set: within 5 points, %.0f %% touched",
			 percent);
		within = bench_figure(d->b, name, "periods", "the promise: 19 of 20");
		within->goal = 1;
		bench_add(within, g[i].within, 0.95 * periods);
		snprintf(name, sizeof(name), "working set: CPU of sampling, %.0f %% touched",
			 percent);
		cpu = bench_figure(d->b, name, "% of a core", "the promise");
		cpu->goal = 1;
		cpu->goal_is_max = true;
		bench_add(cpu, g[i].cpu_percent, CPU_GOAL);
		snprintf(name, sizeof(name), "working set: off by, %.0f %% touched", percent);
		off = bench_figure(d->b, name, "points", "ESX's n = 100");
		snprintf(name, sizeof(name), "working set: error bar (95 %%), %.0f %% touched",
			 percent);
		bar = bench_figure(d->b, name, "points", "ESX's n = 100");
		for (unsigned int k = 0; k < OB_MIN(periods, esx_periods); k++) {
			bench_add(off, 100 * g[i].off[k], 100 * esx[i].off[k]);
			bench_add(bar, 100 * g[i].bar[k], 100 * esx[i].bar[k]);
		}
	}
}

int ept_part_wset(struct ept_bench *d, struct ob_err *e)
{
	struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = GUESTS,
		.mem_bytes = d->quick ? 64 * OB_MIB : 512 * OB_MIB,
		.seed = 1,
		.cpu = -1,
		.warm_seconds = WARM_UP_S,
	};
	uint64_t period_ns = (d->quick ? 4 : 11) * OB_NS_PER_SEC;
	unsigned int periods = ept_count(d, 20, 3), esx_periods = ept_count(d, 10, 2);
	struct watched *g = calloc(GUESTS, sizeof(*g)), *esx = calloc(GUESTS, sizeof(*esx));
	struct bench_rig *rig = calloc(1, sizeof(*rig));
	struct ob_err late = {""};
	int ret, end;

	OB_ASSERT(g && esx && rig);
	for (unsigned int i = 0; i < GUESTS; i++)
		cfg.workload[i] = guests[i].workload;
	ret = bench_rig_open(rig, &cfg, e);
	if (!ret)
		ret = bench_rig_start(rig, e);
	if (!ret)
		ret = sampled(rig, g, EPT_WSET_SAMPLES, period_ns, periods, e);
	if (!ret)
		ret = sampled(rig, esx, 100, period_ns, esx_periods, e);
	end = bench_rig_close(rig, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	if (!ret)
		figures(d, g, periods, esx, esx_periods);
	free(rig);
	free(g);
	free(esx);
	return ret;
}
