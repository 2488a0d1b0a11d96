/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm_fleet.c: the benchmark `ksm`, parts similar, shuffle and kv: the first merge.
 *
 * Guests boot and fill their memory with no engine on; then it is switched on, and readings are
 * taken ten times a second. A run goes on until the saving stands still, the same rule for all
 * engines, so that the final saving of each is what it comes to by itself. The part kv, which is
 * about the guests, gives all runs the same time instead.
 */
#include <errno.h>
#include <string.h>

#include "harness/bench_ksm.h"
#include "harness/coord.h"

#define FIRST_SECONDS 90 /* at most */
#define KV_SECONDS    10
#define READ_MS	      100
#define TICK_NS	      (100 * OB_NS_PER_MS)

int kbench_run(struct kbench *k, const struct kfleet *f, struct run_result *r, struct ob_err *e)
{
	struct fleet_config c = {
		.guests = f->guests,
		.mem_bytes = f->mem,
		.nworkloads = 1,
		.nsharing = 1,
		.seconds = f->seconds,
		.seed = f->seed,
		.cell = f->cell,
		.warm_timeout = 120,
		.ksm_pace = f->pace,
		/* As a person gets it. */
		.ksm_cpu_percent = KSM_BUDGET_DEFAULT_PERCENT,
		.io_hints = true,
		.max_pause_us = FLEET_DEFAULT_PAUSE,
		.script = f->script.tick ? &f->script : NULL,
		.sample_ms = f->sample_ms,
		.kernel_path = k->files.kernel_path,
		.image_path = k->files.image_path,
		.quiet = true,
	};
	int ret;

	snprintf(c.workload[0], sizeof(c.workload[0]), "%s", f->workload);
	c.sharing[0] = ksm_engine_find(f->engine);
	OB_ASSERT(c.sharing[0]);
	bench_say("%s: %u guests of %llu MiB, %u to a process, sharing %s", f->workload, f->guests,
		  (unsigned long long)(f->mem / OB_MIB), f->cell, f->engine);
	ret = coord_run(&c, c.sharing[0], r, e);
	if (ob_stop_signal)
		return ob_fail(e, EINTR, "interrupted");
	if (!ret && r->status != RUN_OK)
		ret = ob_fail(e, EIO, "%s under %s is %s: %.150s", f->workload, f->engine,
			      run_status_name(r->status), r->note);
	return ret;
}

int kbench_until_still(struct coord *c, void *arg, struct ob_err *e)
{
	(void)arg;
	(void)e;
	return kbench_still(c->out->sample, c->out->nsamples, true);
}

static unsigned int pairs_of(const struct kbench *k, unsigned int quick)
{
	return k->quick ? quick : 5;
}

static uint64_t mem_of(const struct kbench *k)
{
	return (k->quick ? 16 : 32) * OB_MIB;
}

static unsigned int guests_of(const struct kbench *k)
{
	return k->quick ? 8 : 16;
}

/* Cells of half the fleet, as the default is for 16 guests. */
static unsigned int cell_of(const struct kbench *k)
{
	return OB_MIN(guests_of(k) / 2, FLEET_DEFAULT_CELL);
}

/* --- the first merge: similar, shuffle ------------------------------------------------------- */

struct first {
	struct kbench_first merge;
	double net, items, ours, scanned; /* bytes, and pages */
};

static int run_first(struct kbench *k, const char *workload, const char *engine, unsigned int cell,
		     uint64_t seed, struct first *out, struct ob_err *e)
{
	const struct kfleet f = {
		.engine = engine,
		.workload = workload,
		.guests = guests_of(k),
		.cell = cell,
		.mem = mem_of(k),
		.seed = seed,
		.seconds = FIRST_SECONDS,
		.sample_ms = READ_MS,
		.script = {.tick = kbench_until_still, .tick_ns = TICK_NS},
	};
	struct run_result r = {0};
	int ret = kbench_run(k, &f, &r, e);

	if (!ret && kbench_first(r.sample, r.nsamples, &out->merge))
		ret = ob_fail(e, ENODATA, "%s under %s saved nothing", workload, engine);
	out->net = (double)r.saved_bytes;
	out->items = (double)r.metadata_items;
	out->ours = (double)r.metadata_ours;
	out->scanned = (double)r.touched_bytes / OB_PAGE_SIZE;
	run_result_free(&r);
	return ret;
}

enum layout { SAME, ALONE, LAYOUTS };

static const char *const reference_is[LAYOUTS] = {"Linux KSM, fastest, same cells",
						  "Linux KSM, fastest, a process a VM"};

/* A figure of the same name beside two references would be two of one name in the document. */
static const char *const beside[LAYOUTS] = {"", ", beside KSM alone"};

static struct bench_figure *figure(struct kbench *k, const char *fleet, const char *what,
				   const char *more, const char *unit, const char *reference,
				   double goal, bool goal_is_max)
{
	char name[96];
	struct bench_figure *f;

	snprintf(name, sizeof(name), "%s: %s%s", fleet, what, more);
	f = bench_figure(k->b, name, unit, reference);
	f->goal = goal;
	f->goal_is_max = goal_is_max;
	return f;
}

/*
 * @goal of the merged pages per CPU-second in each layout; 0: there is none, and alone it is then
 * not run at all. What else there is of it comes with the layouts.
 */
static int first_part(struct kbench *k, const char *fleet, const char *workload,
		      const double goal[LAYOUTS], bool all, struct ob_err *e)
{
	struct bench_figure *cpu[LAYOUTS], *wall[LAYOUTS], *net[LAYOUTS], *user = NULL,
									  *items = NULL;
	unsigned int layouts = goal[ALONE] > 0 ? LAYOUTS : 1;

	for (unsigned int l = 0; l < layouts; l++) {
		cpu[l] = figure(k, fleet, "merged pages per CPU-second", beside[l], "1/s",
				reference_is[l], goal[l], false);
		wall[l] = figure(k, fleet, "95 % of the saving after", beside[l], "s",
				 reference_is[l], all && l == SAME ? 0.2 : 0, true);
		net[l] = figure(k, fleet, "saved, net of metadata", beside[l], "bytes",
				reference_is[l], all && l == SAME ? 1 : 0, false);
	}
	if (all) {
		user = figure(k, fleet, "user metadata per scanned page", "", "bytes",
			      "what is promised", 1, true);
		items = figure(k, fleet, "metadata per scanned page, beside KSM's items", "",
			       "bytes", "Linux KSM in the kernel", 0, true);
	}
	for (unsigned int n = 0; n < pairs_of(k, all ? 2 : 1); n++) {
		struct first ours = {0}, theirs[LAYOUTS] = {{{0}, 0, 0, 0, 0}};

		/* hash, same, alone; the next time the other way round. */
		for (unsigned int i = 0; i <= layouts; i++) {
			unsigned int which = n % 2 ? layouts - i : i;
			int ret = which == 0 ? run_first(k, workload, "hash", cell_of(k), n + 1,
							 &ours, e)
					     : run_first(k, workload, "kernel",
							 which - 1 == SAME ? cell_of(k) : 1, n + 1,
							 &theirs[which - 1], e);

			if (ret)
				return ret;
		}
		for (unsigned int l = 0; l < layouts; l++) {
			bench_add(cpu[l], ours.merge.pages_per_cpu_second,
				  theirs[l].merge.pages_per_cpu_second);
			bench_add(wall[l], ours.merge.seconds_95, theirs[l].merge.seconds_95);
			bench_add(net[l], ours.net, theirs[l].net);
		}
		if (all) {
			bench_add(user, ours.ours / ours.scanned, 16);
			bench_add(items, ours.ours / ours.scanned,
				  theirs[SAME].items / theirs[SAME].scanned);
		}
	}
	return 0;
}

int kbench_similar(struct kbench *k, struct ob_err *e)
{
	return first_part(k, "similar", "idle", (double[LAYOUTS]){10, 3}, true, e);
}

int kbench_shuffle(struct kbench *k, struct ob_err *e)
{
	return first_part(k, "shuffled", "shuffle", (double[LAYOUTS]){1.2, 0}, false, e);
}

/* --- what the guests lose: kv ---------------------------------------------------------------- */

struct kv_cost {
	double ops, p99;
};

/* A script that never ends a run: it takes its seconds, under KSM as well. */
static int go_on(struct coord *c, void *arg, struct ob_err *e)
{
	(void)c;
	(void)arg;
	(void)e;
	return 0;
}

static int run_kv(struct kbench *k, const char *engine, uint64_t seed, struct kv_cost *out,
		  struct ob_err *e)
{
	const struct kfleet f = {
		.engine = engine,
		.workload = "kv",
		.guests = guests_of(k),
		.cell = cell_of(k),
		.mem = mem_of(k),
		.seed = seed,
		.seconds = KV_SECONDS,
		.script = {.tick = go_on, .tick_ns = TICK_NS},
	};
	struct run_result r = {0};
	int ret = kbench_run(k, &f, &r, e);

	out->ops = r.ops_per_second;
	out->p99 = r.lat_p99_us;
	run_result_free(&r);
	return ret;
}

int kbench_kv(struct kbench *k, struct ob_err *e)
{
	static const char *const engine[] = {"off", "hash", "kernel"};
	struct bench_figure *ops, *p99, *off, *off99;

	ops = figure(k, "kv", "operations lost in the 10 s after switching on", "", "share",
		     reference_is[SAME], 0.5, true);
	p99 = figure(k, "kv", "p99 latency added in the same time", "", "us", reference_is[SAME],
		     0.5, true);
	off = figure(k, "kv", "operations, sharing off", "", "1/s", NULL, 0, false);
	off99 = figure(k, "kv", "p99 latency, sharing off", "", "us", NULL, 0, false);
	for (unsigned int n = 0; n < pairs_of(k, 1); n++) {
		struct kv_cost c[OB_ARRAY_SIZE(engine)] = {{0}};

		/* Another one first each time, up and down by turns. */
		for (unsigned int i = 0; i < OB_ARRAY_SIZE(engine); i++) {
			unsigned int which = (n % 2 ? 3 * n - i : n + i) % 3;
			int ret = run_kv(k, engine[which], n + 1, &c[which], e);

			if (ret)
				return ret;
		}
		bench_add(ops, kbench_loss(c[0].ops, c[1].ops), kbench_loss(c[0].ops, c[2].ops));
		bench_add(p99, kbench_added(c[0].p99, c[1].p99), kbench_added(c[0].p99, c[2].p99));
		bench_add_ours(off, c[0].ops);
		bench_add_ours(off99, c[0].p99);
	}
	return 0;
}
