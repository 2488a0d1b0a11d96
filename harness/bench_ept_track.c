/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_track.c: does write tracking miss a write? And how many pages does it report that were
 * not written?
 *
 * A guest (workload writer) increments counters in random pages while this thread, on another CPU,
 * does pass after pass; ept/track_check.h says how the counters tell which pages were written, and
 * so which were missed. Then the same with a second witness in the same passes, the kernel's page
 * tables (PAGEMAP_SCAN). One page missed by either ends the benchmark without a figure.
 *
 * In the end the guest is parked, and all counters together must be what it says it has done: so it
 * is known that the counters show each of its writes.
 */
#include <errno.h>
#include <string.h>

#include "ept/scan.h"
#include "ept/track_check.h"
#include "harness/bench_ept.h"
#include "workloads/area.h"

#define PASS_MEM	  (64 * OB_MIB)
#define PASS_LIMIT	  1200 /* seconds: a guest that cannot run writes nothing */
#define LOOK_EVERY	  64   /* passes: at the guest, and whether we are to stop */
#define PASSES		  100000
#define PASSES_SCAN	  10000
#define QUICK_PASSES	  1000
#define QUICK_PASSES_SCAN 200

struct passes {
	struct bench_rig rig;
	struct bench_rig_track track;
	struct ept_scan scan;
	bool has_scan;
	struct ept_track_check by_log, by_scan;
	uint64_t first, pages;	    /* of the guest's area */
	uint64_t *logged, *scanned; /* bitmaps of one pass */
	double ns;
};

static int begin(struct passes *p, bool with_scan, struct ob_err *e)
{
	struct bench_rig *r = &p->rig;
	const struct gmem *mem = &r->guest[0].vm->mem;
	size_t bytes;
	int ret = bench_rig_area(r, 0, &p->first, &p->pages, e);

	if (ret)
		return ret;
	bytes = (p->pages + 63) / 64 * sizeof(uint64_t);
	p->logged = ob_alloc(r->arena, bytes);
	p->scanned = ob_alloc(r->arena, bytes);
	OB_ASSERT(!ept_track_check_init(&p->by_log, mem, p->first, p->pages, 1, r->arena));
	OB_ASSERT(!ept_track_check_init(&p->by_scan, mem, p->first, p->pages, 1, r->arena));
	/* The scan is of host addresses that follow each other. */
	OB_ASSERT(gmem_page_span(mem, p->first) >= p->pages);
	if (with_scan) {
		ret = ept_scan_begin(&p->scan, &r->host, gmem_page_hva(mem, p->first), p->pages);
		if (ret)
			return ob_fail(e, -ret, "PAGEMAP_SCAN: %s", strerror(-ret));
		p->has_scan = true;
	}
	return bench_rig_track_open(r, 0, &p->track, e);
}

static void finish(struct passes *p)
{
	bench_rig_track_close(&p->track);
	if (p->has_scan)
		ept_scan_end(&p->scan);
	if (p->logged) {
		ept_track_check_exit(&p->by_log);
		ept_track_check_exit(&p->by_scan);
		ob_free(p->rig.arena, p->logged);
		ob_free(p->rig.arena, p->scanned);
	}
}

static int pass(struct passes *p, struct ob_err *e)
{
	int64_t n = 0;
	int ret;

	ept_track_check_snapshot(&p->by_log);
	if (p->has_scan) {
		ept_track_check_snapshot(&p->by_scan);
		n = ept_scan_collect(&p->scan, p->scanned);
	}
	if (n < 0)
		return ob_fail(e, (int)-n, "PAGEMAP_SCAN: %s", strerror((int)-n));
	ret = ept_track_collect(&p->track.track);
	if (ret)
		return ob_fail(e, -ret, "collecting written pages: %s", strerror(-ret));
	n = ept_track_take(&p->track.track, p->track.consumer, p->first, p->pages, p->logged, NULL);
	if (n < 0)
		return ob_fail(e, (int)-n, "taking written pages: %s", strerror((int)-n));
	if (p->has_scan) {
		ept_track_check_compare(&p->by_scan, p->scanned);
		ept_track_check_other(&p->by_log, p->scanned);
	}
	ept_track_check_compare(&p->by_log, p->logged);
	return 0;
}

static int judge(const char *who, const struct ept_track_check_stats *st, struct ob_err *e)
{
	if (!st->missed)
		return 0;
	return ob_fail(e, EIO,
		       "%s missed %llu of %llu written pages in %llu passes: page %llu first, in "
		       "pass %llu",
		       who, (unsigned long long)st->missed, (unsigned long long)st->written,
		       (unsigned long long)st->passes, (unsigned long long)st->first_bad,
		       (unsigned long long)st->bad_pass);
}

/* The guest is parked: one more pass, and are all of its writes in the counters? */
static int last_pass(struct passes *p, struct ob_err *e)
{
	struct bench_rig_guest *g = &p->rig.guest[0];
	uint64_t sum = 0;
	int ret = pass(p, e);

	if (!ret)
		ret = bench_rig_look(&p->rig, e);
	for (uint64_t i = 0; i < p->pages; i++) {
		const uint64_t *w = hva_ptr(gmem_page_hva(&g->vm->mem, p->first + i));

		sum += w[AREA_COUNTER];
	}
	/* It may have been parked between a counter and its own count. */
	if (!ret && sum != g->report.ops && sum != g->report.ops + 1)
		ret = ob_fail(e, EIO, "the guest has written %llu times, its pages say %llu",
			      (unsigned long long)g->report.ops, (unsigned long long)sum);
	if (!ret)
		ret = judge("the tracker", &p->by_log.st, e);
	if (!ret && p->has_scan)
		ret = judge("PAGEMAP_SCAN", &p->by_scan.st, e);
	if (!ret && p->by_log.st.disputed > g->vm->nvcpus)
		ret = ob_fail(e, EIO,
			      "%llu changed pages at once that PAGEMAP_SCAN had seen written and "
			      "the tracker had not; 1 a vCPU can be",
			      (unsigned long long)p->by_log.st.disputed);
	return ret;
}

/*
 * How often a page was written between two passes: it was reported and had changed, or was missed.
 * (st.written is less: it does not have the pages whose write came after the snapshot and was
 * reported all the same.) The first pass reports all pages, written or not.
 */
static uint64_t written(const struct ept_track_check *c)
{
	uint64_t changed = c->st.reported - c->st.unchanged + c->st.missed;

	return changed > c->n ? changed - c->n : 0;
}

/* At least @want passes, and so many that as many pages were written in them. */
static int rounds(struct passes *p, uint64_t want, struct ob_err *e)
{
	uint64_t start = bench_now_ns();
	int ret = 0;

	for (uint64_t n = 0; !ret && (n < want || written(&p->by_log) < want); n++) {
		ret = pass(p, e);
		if (ret || n % LOOK_EVERY)
			continue;
		ret = bench_rig_look(&p->rig, e);
		if (!ret && ob_stop_signal)
			ret = ob_fail(e, EINTR, "interrupted");
		if (!ret && bench_now_ns() - start > PASS_LIMIT * OB_NS_PER_SEC)
			ret = ob_fail(e, ETIMEDOUT,
				      "%llu passes and %llu written pages in %d s: is the host "
				      "busy?",
				      (unsigned long long)n,
				      (unsigned long long)written(&p->by_log), PASS_LIMIT);
	}
	p->ns = (double)(bench_now_ns() - start) / (double)OB_MAX(p->by_log.st.passes, 1);
	if (ret)
		return ret;
	vm_park(p->rig.guest[0].vm);
	ret = last_pass(p, e);
	vm_unpark(p->rig.guest[0].vm);
	return ret;
}

static int run(struct ept_bench *d, uint64_t want, bool with_scan, struct passes *p,
	       struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = PASS_MEM,
		.workload = {"writer:64:0"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = 60,
	};
	struct ob_err late = {""};
	int ret, end;

	memset(p, 0, sizeof(*p));
	ret = bench_rig_open(&p->rig, &cfg, e);
	if (!ret)
		ret = bench_rig_start(&p->rig, e);
	/* Passes are to come at any moment of the guest's work. */
	bench_rig_place(&p->rig, BENCH_RIG_APART);
	if (!ret)
		ret = begin(p, with_scan, e);
	if (!ret)
		ret = rounds(p, want, e);
	finish(p);
	end = bench_rig_close(&p->rig, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	return ret;
}

static void one_number(struct bench *b, const char *beside, const char *what, const char *unit,
		       double value)
{
	char name[96];

	snprintf(name, sizeof(name), "write tracking%s: %s", beside, what);
	bench_add_ours(bench_figure(b, name, unit, NULL), value);
}

/* Pages that were reported and had not changed, in percent of those reported. */
static double unchanged(const struct ept_track_check *c)
{
	uint64_t reported = written(c) + c->st.unchanged;

	return reported ? 100.0 * (double)c->st.unchanged / (double)reported : 0;
}

static void enter(struct bench *b, const struct passes *p, const char *beside)
{
	const struct ept_track_check_stats *st = &p->by_log.st;

	one_number(b, beside, "passes", "passes", (double)st->passes);
	one_number(b, beside, "pages written", "pages", (double)written(&p->by_log));
	one_number(b, beside, "of these, not reported (missed)", "pages", (double)st->missed);
	one_number(b, beside, "reported, and not changed", "pages", (double)st->unchanged);
	one_number(b, beside, "of all reported, not changed", "%", unchanged(&p->by_log));
	bench_say("%llu passes%s, %.0f us each with the check: %llu pages written, %llu missed; "
		  "%llu more reported (%.2g %% of all)",
		  (unsigned long long)st->passes, beside, p->ns / 1000,
		  (unsigned long long)written(&p->by_log), (unsigned long long)st->missed,
		  (unsigned long long)st->unchanged, unchanged(&p->by_log));
}

int ept_part_track(struct ept_bench *d, struct ob_err *e)
{
	static const char beside[] = " beside PAGEMAP_SCAN";
	struct passes p;
	int ret = ept_track_cost(d, e);

	if (!ret)
		ret = run(d, ept_count(d, PASSES, QUICK_PASSES), false, &p, e);
	if (ret)
		return ret;
	enter(d->b, &p, "");
	ret = run(d, ept_count(d, PASSES_SCAN, QUICK_PASSES_SCAN), true, &p, e);
	if (ret == -EOPNOTSUPP) {
		bench_say("no passes beside PAGEMAP_SCAN: it needs Linux 6.7");
		return 0;
	}
	if (ret)
		return ret;
	enter(d->b, &p, beside);
	one_number(d->b, beside, "missed by it", "pages", (double)p.by_scan.st.missed);
	one_number(d->b, beside, "known to it alone, at once", "pages",
		   (double)p.by_log.st.disputed);
	one_number(d->b, beside, "of all reported by it, not changed", "%", unchanged(&p.by_scan));
	return 0;
}
