/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_fault.c: the round trip of a fault that is answered from staging.
 *
 * One page is taken, the guest touches it and times that itself, and our handler puts it back; again
 * and again, pages far from each other, every second touch a write. The reference does the same with
 * bare system calls, one thread on the vCPU's CPU, which is where our handler goes by itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_ept.h"
#include "workloads/area.h"

#define FAULT_SECONDS 120 /* at most, a side of a pair */
#define FAULT_MEM     (64 * OB_MIB)
#define WARM_UP	      64 /* touches that do not count */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Take page @i of the area and have it touched. */
static int one(struct bench_rig *r, uint64_t first, uint64_t i, bool write, uint64_t *ns,
	       struct ob_err *e)
{
	const struct ept_run run = {.page = first + i, .n = 1};
	int64_t taken = ept_take(&r->guest[0].ept, &run, 1, false);

	if (taken != 1)
		return ob_fail(e, taken < 0 ? (int)-taken : EIO, "taking a page: %s",
			       taken < 0 ? strerror((int)-taken) : "it stayed where it was");
	return bench_rig_ping(r, 0, i, write, ns, e);
}

static int touches(struct bench_rig *r, unsigned int samples, uint64_t *ns, struct ob_err *e)
{
	struct ept_faults before, after;
	uint64_t first, pages, warm;
	struct area_order order;
	int ret = bench_rig_area(r, 0, &first, &pages, e);

	if (ret)
		return ret;
	/* Page 0 is the mailbox. */
	area_order_init(&order, pages - 1, 1);
	ept_read_faults(&r->guest[0].ept, &before);
	for (uint64_t i = 0; i < WARM_UP + samples; i++) {
		uint64_t *at = i < WARM_UP ? &warm : &ns[i - WARM_UP];

		ret = one(r, first, 1 + area_order_at(&order, i % order.n), i % 2, at, e);
		if (ret)
			return ret;
	}
	ept_read_faults(&r->guest[0].ept, &after);
	if (after.count[EPT_FAULT_STAGING] - before.count[EPT_FAULT_STAGING] != WARM_UP + samples)
		return ob_fail(e, EIO, "%llu faults for %u pages",
			       (unsigned long long)(after.count[EPT_FAULT_STAGING] -
						    before.count[EPT_FAULT_STAGING]),
			       WARM_UP + samples);
	return 0;
}

static int ours(struct ept_bench *d, unsigned int samples, double *p50, double *p99,
		struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = FAULT_MEM,
		.workload = {"ping"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = FAULT_SECONDS,
	};
	uint64_t *ns = calloc(samples, sizeof(*ns));
	struct ob_err late = {""};
	struct bench_rig r;
	int ret = bench_rig_open(&r, &cfg, e), end;

	OB_ASSERT(ns);
	if (!ret)
		ret = bench_rig_start(&r, e);
	bench_rig_place(&r, BENCH_RIG_NEAR);
	if (!ret)
		ret = touches(&r, samples, ns, e);
	end = bench_rig_close(&r, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	qsort(ns, samples, sizeof(*ns), by_value);
	*p50 = (double)ns[samples / 2];
	*p99 = (double)ns[samples * 99 / 100];
	free(ns);
	return ret;
}

static int reference(struct ept_bench *d, unsigned int samples, double *p50, double *p99,
		     struct ob_err *e)
{
	json_t *doc;
	int ret = ept_yardstick(d, FAULT_SECONDS, &doc, e, "fault --mem %lluM --samples %u",
				(unsigned long long)(FAULT_MEM / OB_MIB), samples);

	if (!ret)
		ret = ept_number(doc, "guest_p50_ns", p50, e);
	if (!ret)
		ret = ept_number(doc, "guest_p99_ns", p99, e);
	json_decref(doc);
	return ret;
}

int ept_part_fault(struct ept_bench *d, struct ob_err *e)
{
	struct bench_figure *f = bench_figure(d->b, "fault answered from staging, median", "ns",
					      "bare userfaultfd under KVM");
	struct bench_figure *f99 = bench_figure(d->b, "fault answered from staging, p99", "ns",
						"bare userfaultfd under KVM");
	unsigned int pairs = ept_count(d, 9, 2), samples = ept_count(d, 2000, 200);
	double a, a99, b, b99;
	int ret;

	f->goal = 1.2;
	f->goal_is_max = true;
	for (unsigned int i = 0; i < pairs; i++) {
		ret = i % 2 ? reference(d, samples, &b, &b99, e) : ours(d, samples, &a, &a99, e);
		if (!ret)
			ret = i % 2 ? ours(d, samples, &a, &a99, e)
				    : reference(d, samples, &b, &b99, e);
		if (ret)
			return ret;
		bench_say("fault: %.1f us (p99 %.1f), bare %.1f us (p99 %.1f)", a / 1e3, a99 / 1e3,
			  b / 1e3, b99 / 1e3);
		bench_add(f, a, b);
		bench_add(f99, a99, b99);
	}
	return 0;
}
