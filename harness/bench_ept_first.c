/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_first.c: what the first touch of a page costs a guest from which nothing was ever
 * taken.
 *
 * The guest touches all of its memory once, in order, and times that itself: the sum, and the
 * median of runs of some pages, which leaves out what held up a few of them only. Ours has ept
 * attached and the reference is a program that knows KVM and mmap only. What ept keeps of such a
 * guest is a table that nobody looks at meanwhile, so any difference would be something that was
 * set up over its memory without need: a registration, a mapping cut into pieces, a log switched
 * on.
 */
#include "harness/bench_ept.h"

#define FIRST_SECONDS 120 /* at most, a guest */

struct first {
	double all, median; /* ns a page */
};

static bool is_done(const struct agent_report *r, uint64_t arg)
{
	(void)arg;
	return r->job_ns != 0;
}

static int ours(struct ept_bench *d, uint64_t mem, struct first *out, struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = mem,
		.workload = {"first"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = FIRST_SECONDS,
	};
	struct ob_err late = {""};
	uint64_t first, pages = 1;
	struct bench_rig r;
	int ret = bench_rig_open(&r, &cfg, e), end;

	/* As the yardstick's main thread: not in the way of the guest. */
	bench_rig_place(&r, BENCH_RIG_APART);
	if (!ret)
		ret = bench_rig_start(&r, e);
	if (!ret)
		ret = bench_rig_wait(&r, is_done, 0, FIRST_SECONDS, e);
	if (!ret)
		ret = bench_rig_area(&r, 0, &first, &pages, e);
	out->all = (double)r.guest[0].report.job_ns / (double)pages;
	out->median = (double)r.guest[0].report.job_page_ps / 1000;
	end = bench_rig_close(&r, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	return ret;
}

static int reference(struct ept_bench *d, uint64_t mem, struct first *out, struct ob_err *e)
{
	json_t *doc;
	int ret = ept_yardstick(d, FIRST_SECONDS, &doc, e, "first --mem %lluM",
				(unsigned long long)(mem / OB_MIB));

	if (!ret)
		ret = ept_number(doc, "ns_per_page", &out->all, e);
	if (!ret)
		ret = ept_number(doc, "median_ns_per_page", &out->median, e);
	json_decref(doc);
	return ret;
}

int ept_part_first(struct ept_bench *d, struct ob_err *e)
{
	uint64_t mem = d->quick ? 128 * OB_MIB : 1024 * OB_MIB;
	struct bench_figure *median, *all;
	unsigned int pairs = ept_count(d, 15, 3);

	median = bench_figure(d->b, "first touch of a page, nothing ever taken, median of runs",
			      "ns", "a bare KVM program");
	all = bench_figure(d->b, "first touch of a page, nothing ever taken, all of them", "ns",
			   "a bare KVM program");
	median->goal = all->goal = 1.05;
	median->goal_is_max = all->goal_is_max = true;
	/* The first round touches memory that the host has to find; it does not count. */
	for (unsigned int i = 0; i <= pairs; i++) {
		struct first a = {0}, b = {0};
		int ret = i % 2 ? reference(d, mem, &b, e) : ours(d, mem, &a, e);

		if (!ret)
			ret = i % 2 ? ours(d, mem, &a, e) : reference(d, mem, &b, e);
		if (ret)
			return ret;
		bench_say("first touch: %.0f ns a page (all: %.0f), bare KVM %.0f ns (%.0f)%s",
			  a.median, a.all, b.median, b.all, i ? "" : " (warming up)");
		if (!i)
			continue;
		bench_add(median, a.median, b.median);
		bench_add(all, a.all, b.all);
	}
	return 0;
}
