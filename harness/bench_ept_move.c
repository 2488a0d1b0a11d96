/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_move.c: all of a guest's memory out and back again, under a guest that increments a
 * counter in every page meanwhile, and would find a lost update.
 *
 * Two of our calls a round: take the whole area, put it back. What the guest touches in between
 * comes back by its faults, 16 pages each. The reference does the same with bare system calls and a
 * byte a page. After the last round the guest goes over all of its memory twice more before anything
 * is counted: a counter that is wrong ends the benchmark.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "harness/bench_ept.h"

#define MOVE_SECONDS 300 /* at most, a side of a pair */
#define END_SECONDS  60	 /* the last look of the guest at its memory */

/* Out and back, once. */
static int one_round(struct ept *e, uint64_t first, uint64_t pages, struct ob_err *err)
{
	const struct ept_run all = {.page = first, .n = pages};
	int64_t r = ept_take(e, &all, 1, false);

	if (r <= 0)
		return ob_fail(err, r ? (int)-r : EIO, "taking %llu pages: %s",
			       (unsigned long long)pages, r ? strerror((int)-r) : "none left");
	r = ept_put_back(e, &all, 1);
	return r < 0 ? ob_fail(err, (int)-r, "putting pages back: %s", strerror((int)-r)) : 0;
}

/* Until the guest has been over its memory twice. */
static int last_look(struct bench_rig *r, uint64_t pages, struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = 20 * 1000 * 1000};
	uint64_t until = bench_now_ns() + END_SECONDS * OB_NS_PER_SEC;
	int ret = bench_rig_look(r, e);
	uint64_t ops = r->guest[0].report.ops + 2 * pages;

	while (!ret && r->guest[0].report.ops < ops) {
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (bench_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "the guest did not check its memory");
		nanosleep(&nap, NULL);
		ret = bench_rig_look(r, e);
	}
	return ret;
}

static int rounds(struct bench_rig *r, unsigned int seconds, double *ns_per_page, struct ob_err *e)
{
	uint64_t first, pages, begin, n = 0;
	int ret = bench_rig_area(r, 0, &first, &pages, e);

	if (ret)
		return ret;
	begin = bench_now_ns();
	do {
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		ret = one_round(&r->guest[0].ept, first, pages, e);
		if (!ret)
			ret = bench_rig_look(r, e);
		n++;
	} while (!ret && bench_now_ns() - begin < seconds * OB_NS_PER_SEC);
	*ns_per_page = (double)(bench_now_ns() - begin) / (double)(n * pages);
	return ret ? ret : last_look(r, pages, e);
}

static int ours(struct ept_bench *d, uint64_t mem, unsigned int seconds, double *ns,
		struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = mem,
		.workload = {"counters"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = MOVE_SECONDS,
	};
	struct ob_err late = {""};
	struct ept_verify v = {0};
	struct bench_rig r;
	int ret = bench_rig_open(&r, &cfg, e), end;

	if (!ret)
		ret = bench_rig_start(&r, e);
	bench_rig_place(&r, BENCH_RIG_APART);
	if (!ret)
		ret = rounds(&r, seconds, ns, e);
	if (!ret)
		ret = ept_verify(&r.guest[0].ept, &v);
	if (!ret && v.differences)
		ret = ob_fail(e, EIO, "%llu pages are not as the map has them: page %llu: %s",
			      (unsigned long long)v.differences,
			      (unsigned long long)v.first[0].page, v.first[0].why);
	end = bench_rig_close(&r, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	return ret;
}

static int reference(struct ept_bench *d, uint64_t mem, unsigned int seconds, double *ns,
		     struct ob_err *e)
{
	double per_second, mismatches;
	json_t *doc;
	int ret = ept_yardstick(d, MOVE_SECONDS, &doc, e, "move --mem %lluM --seconds %u",
				(unsigned long long)(mem / OB_MIB), seconds);

	if (!ret)
		ret = ept_number(doc, "pages_per_second", &per_second, e);
	if (!ret)
		ret = ept_number(doc, "mismatches", &mismatches, e);
	if (!ret && mismatches > 0)
		ret = ob_fail(e, EIO, "the reference has lost updates");
	if (!ret)
		*ns = 1e9 / per_second;
	json_decref(doc);
	return ret;
}

int ept_part_move(struct ept_bench *d, struct ob_err *e)
{
	uint64_t mem = d->quick ? 128 * OB_MIB : 1024 * OB_MIB;
	struct bench_figure *f = bench_figure(d->b, "a page out and back under a guest that writes",
					      "ns", "bare UFFDIO_MOVE");
	unsigned int pairs = ept_count(d, 7, 2), seconds = ept_count(d, 8, 2);
	double a, b;
	int ret;

	f->goal = 1.3;
	f->goal_is_max = true;
	for (unsigned int i = 0; i < pairs; i++) {
		ret = i % 2 ? reference(d, mem, seconds, &b, e) : ours(d, mem, seconds, &a, e);
		if (!ret)
			ret = i % 2 ? ours(d, mem, seconds, &a, e)
				    : reference(d, mem, seconds, &b, e);
		if (ret)
			return ret;
		bench_say("out and back: %.0f ns a page, bare %.0f ns; 0 lost updates", a, b);
		bench_add(f, a, b);
	}
	return 0;
}
