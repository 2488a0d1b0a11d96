/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm_plant.c: what an engine costs once its fleet is settled, at a chosen promptness.
 *
 * An engine that scans all day and one that looks once an hour cost different things because they
 * do different things. So both are set to be equally prompt first: duplicates are planted at known
 * moments (cell_plant.c), it is seen from outside when both pages of a pair have become one frame
 * (by the meter's rules, the same for both engines), and the rest between scans is changed until
 * the median of the delays is the target. Then the delay is measured once more, in a window of
 * planting, and after it CPU time, in one without: planting is merging, some hundred pages a second in
 * all, and not what a settled fleet does.
 *
 * It is a step function of the run (run_script), called some 50 times a second:
 *
 *	merge		until the saving stands still, at full speed
 *	for each target:
 *	  change	the rest is changed, and given time to show
 *	  calibrate	plant, wait until all of it is found, take the median, and change again, or:
 *	  window	plant, until the delay is known
 *	  quiet		read what it costs
 *
 * A page that is not found within some times the target counts with the time until then. In
 * calibration all that was planted is waited for, since those found first are not a fair choice. In
 * the window planting that counts ends early enough to be found in nearly all cases.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_ksm.h"
#include "harness/cell.h"
#include "harness/coord.h"
#include "harness/proto.h"
#include "workloads/gen.h"

#define TICK_NS	    (20 * OB_NS_PER_MS)
#define MAX_PAIRS   64
#define MERGE_LEAST 10.0 /* seconds */
#define MAX_PLACES  4096
#define MAX_DELAYS  8192
#define ASK_MS	    10000
/* In times of the target. */
#define PLANT_EVERY   0.125
#define CHANGE_FOR    1.0
#define CALIBRATE_FOR 2.0
#define WINDOW_FOR    3.0
#define GIVE_UP	      6.0
#define WINDOW_TAIL   1.5
#define WINDOW_LEAST  10.0 /* seconds */

enum phase {
	PHASE_MERGE,
	PHASE_CHANGE,
	PHASE_CALIBRATE,
	PHASE_WINDOW,
	PHASE_QUIET,
};

/* A place in all guests, planted once, with the same pair by pair. */
struct spot {
	double at; /* when */
	bool counts;
	uint64_t waiting; /* pairs not found yet, a bit each */
};

struct planter {
	struct kbench_settled *settled;
	unsigned int ntargets, target;
	enum phase phase;
	struct kbench_cal cal;
	bool kernel, calibrated;
	double since; /* the phase began */
	double next;  /* time to plant */
	struct gen_rng rng;
	struct spot place[MAX_PLACES];
	unsigned int planted, oldest; /* places; all before @oldest are found */
	unsigned int pairs;
	uint64_t word[2 * MAX_PAIRS][PLANT_OPEN]; /* what was last seen, from @oldest on */
	double delay[MAX_DELAYS];
	unsigned int ndelays;
};

static double now_of(struct coord *c)
{
	return (double)(coord_now(c) - c->t0_ns) / OB_NS_PER_SEC;
}

static struct planter *planter_of(struct coord *c)
{
	return c->cfg->script->arg;
}

static void delay_enter(struct planter *p, double delay)
{
	if (p->ndelays < MAX_DELAYS)
		p->delay[p->ndelays++] = delay;
}

static void take_words(struct coord *c, unsigned int cell, const json_t *answer)
{
	struct planter *p = planter_of(c);
	const json_t *g, *words = json_object_get(answer, "words");
	size_t i;

	(void)cell;
	json_array_foreach (words, i, g) {
		json_int_t id = json_integer_value(json_array_get(g, 0));

		for (size_t k = 0; id >= 0 && id < 2 * p->pairs && k < PLANT_OPEN; k++)
			p->word[id][k] = (uint64_t)json_integer_value(json_array_get(g, k + 1));
	}
}

/* Which pairs have become one? */
static int look(struct coord *c, struct planter *p, struct ob_err *e)
{
	double target = p->settled[p->target].target;
	int r;

	while (p->oldest < p->planted && !p->place[p->oldest].waiting)
		p->oldest++;
	if (p->oldest == p->planted)
		return 0;
	r = coord_ask(c,
		      json_pack("{s:s,s:I,s:I}", "do", "planted", "from", (json_int_t)p->oldest,
				"n", (json_int_t)(p->planted - p->oldest)),
		      ASK_MS, take_words, e);
	if (r)
		return r;
	for (unsigned int k = 0; k < p->planted - p->oldest; k++) {
		struct spot *at = &p->place[p->oldest + k];
		double delay = now_of(c) - at->at;

		for (unsigned int i = 0; i < p->pairs; i++) {
			uint64_t a = p->word[i][k], b = p->word[i + p->pairs][k];
			bool late = delay > GIVE_UP * target + 1;

			if (!(at->waiting >> i & 1) || ((!a || a != b) && !late))
				continue;
			at->waiting &= ~(1ULL << i);
			if (at->counts)
				delay_enter(p, delay);
		}
	}
	return 0;
}

static int plant(struct coord *c, struct planter *p, struct ob_err *e)
{
	double target = p->settled[p->target].target, now = now_of(c);
	struct spot *at = &p->place[p->planted];
	int r;

	if (now < p->next || p->planted - p->oldest == PLANT_OPEN)
		return 0;
	if (p->planted == MAX_PLACES)
		return ob_fail(e, ENOSPC, "more than %u places to plant in are used up",
			       MAX_PLACES);
	r = coord_ask(c,
		      json_pack("{s:s,s:I,s:I,s:I}", "do", "plant", "place", (json_int_t)p->planted,
				"half", (json_int_t)p->pairs, "seed", (json_int_t)c->cfg->seed),
		      ASK_MS, NULL, e);
	if (r)
		return r;
	p->planted++;
	now = now_of(c);
	*at = (struct spot){.at = now, .counts = true};
	at->waiting = p->pairs == 64 ? UINT64_MAX : (1ULL << p->pairs) - 1;
	/* Not in step with anybody's scan. */
	p->next = now + target * PLANT_EVERY * (0.5 + (double)gen_below(&p->rng, 1000) / 1000);
	return 0;
}

static unsigned int outstanding(const struct planter *p)
{
	unsigned int n = 0;

	for (unsigned int k = p->oldest; k < p->planted; k++)
		n += p->place[k].counts ? (unsigned int)__builtin_popcountll(p->place[k].waiting)
					: 0;
	return n;
}

static int begin_phase(struct coord *c, struct planter *p, enum phase phase, struct ob_err *e)
{
	p->phase = phase;
	p->since = now_of(c);
	p->ndelays = 0;
	for (unsigned int k = p->oldest; k < p->planted; k++)
		p->place[k].counts = false;
	if (phase != PHASE_CHANGE)
		return 0;
	if (p->kernel) {
		int r = ksm_driver_sleep((unsigned int)lround(p->cal.gap_ms));

		return r ? ob_fail(e, -r, "cannot set KSM's sleep: %s", strerror(-r)) : 0;
	}
	return coord_ask(
		c,
		json_pack("{s:s,s:I}", "do", "scan-gap", "ms", (json_int_t)lround(p->cal.gap_ms)),
		ASK_MS, NULL, e);
}

static int begin_target(struct coord *c, struct planter *p, unsigned int target, struct ob_err *e)
{
	struct kbench_settled *s = &p->settled[target];
	double guess = s->target * 1000 / 2;

	/* What the last target came to, says most about this one; unless it took no rest at all. */
	if (target && p->settled[target - 1].gap_ms > 1 && p->settled[target - 1].delay > 0)
		guess = p->settled[target - 1].gap_ms * s->target / p->settled[target - 1].delay;
	p->target = target;
	p->calibrated = s->gap_ms >= 0;
	kbench_cal_begin(&p->cal, s->target, p->calibrated ? s->gap_ms : guess, p->kernel ? 0 : 1);
	return begin_phase(c, p, PHASE_CHANGE, e);
}

static double quiet_of(const struct kbench_settled *s)
{
	return fmax(WINDOW_FOR * s->target, WINDOW_LEAST);
}

static double window_of(const struct kbench_settled *s)
{
	return quiet_of(s) + WINDOW_TAIL * s->target;
}

/* Calibration: all is found. */
static int calibrated(struct coord *c, struct planter *p, struct ob_err *e)
{
	struct kbench_settled *s = &p->settled[p->target];
	double gap = p->cal.gap_ms, delay = bench_median(p->delay, p->ndelays);

	bench_say("  %s, rest %.0f ms: found after %.2f s, to be %.0f s",
		  p->kernel ? "kernel" : "hash", gap, delay, s->target);
	if (kbench_cal_step(&p->cal, delay)) {
		s->gap_ms = p->cal.gap_ms = p->cal.best_ms;
		p->calibrated = true;
		if (lround(p->cal.gap_ms) == lround(gap))
			return begin_phase(c, p, PHASE_WINDOW, e);
	}
	return begin_phase(c, p, PHASE_CHANGE, e);
}

/* The delay is known. */
static int window_over(struct coord *c, struct planter *p, struct ob_err *e)
{
	struct kbench_settled *s = &p->settled[p->target];

	/* What was not found yet counts as far as it got. */
	for (unsigned int k = p->oldest; k < p->planted; k++)
		for (unsigned int i = 0; i < p->pairs && p->place[k].counts; i++)
			if (p->place[k].waiting >> i & 1)
				delay_enter(p, now_of(c) - p->place[k].at);
	s->delay = bench_median(p->delay, p->ndelays);
	s->planted = p->ndelays;
	return begin_phase(c, p, PHASE_QUIET, e);
}

/* The cost is known: 1 when it was the last. */
static int quiet_over(struct coord *c, struct planter *p, struct ob_err *e)
{
	struct kbench_settled *s = &p->settled[p->target];

	s->from = p->since;
	s->to = now_of(c);
	if (p->target + 1 == p->ntargets)
		return 1;
	return begin_target(c, p, p->target + 1, e);
}

static int tick(struct coord *c, void *arg, struct ob_err *e)
{
	struct planter *p = arg;
	struct kbench_settled *s = &p->settled[p->target];
	double in = now_of(c) - p->since;
	bool more = false;
	int r;

	if (!c->host.knows_pfn)
		return ob_fail(
			e, EPERM,
			"host frame numbers cannot be read here (CAP_SYS_ADMIN): it cannot be "
			"seen when pages are merged");
	if (p->phase == PHASE_MERGE) {
		/* Of unique content there may be nothing to save. */
		if (!kbench_still(c->out->sample, c->out->nsamples, now_of(c) < MERGE_LEAST))
			return 0;
		return begin_target(c, p, 0, e);
	}
	r = p->phase == PHASE_QUIET ? 0 : look(c, p, e);
	if (r)
		return r;
	switch (p->phase) {
	case PHASE_CHANGE:
		if (in < CHANGE_FOR * s->target)
			break;
		return begin_phase(c, p, p->calibrated ? PHASE_WINDOW : PHASE_CALIBRATE, e);
	case PHASE_CALIBRATE:
		if (in > CALIBRATE_FOR * s->target && !outstanding(p))
			return calibrated(c, p, e);
		more = in <= CALIBRATE_FOR * s->target;
		break;
	case PHASE_WINDOW:
		if (in >= window_of(s))
			return window_over(c, p, e);
		more = in <= window_of(s) - WINDOW_TAIL * s->target;
		break;
	case PHASE_QUIET:
		/* Nothing is looked for either: to look is a system call for each guest. */
		return in >= quiet_of(s) ? quiet_over(c, p, e) : 0;
	default:
		break;
	}
	return more ? plant(c, p, e) : 0;
}

int kbench_plant(struct kbench *k, const struct kfleet *f, struct kbench_settled *s,
		 unsigned int ntargets, struct run_result *r, struct ob_err *e)
{
	struct planter *p = calloc(1, sizeof(*p));
	struct kfleet fleet = *f;
	int ret;

	OB_ASSERT(p && ntargets);
	p->settled = s;
	p->ntargets = ntargets;
	p->kernel = !strcmp(f->engine, "kernel");
	p->pairs = OB_MIN(f->guests / 2, MAX_PAIRS);
	p->rng.s = f->seed;
	fleet.script = (struct run_script){.tick = tick, .arg = p, .tick_ns = TICK_NS};
	ret = kbench_run(k, &fleet, r, e);
	/* The run's own bound came first. */
	if (!ret && !(s[ntargets - 1].to > 0))
		ret = ob_fail(e, ETIMEDOUT, "%s did not settle within %u s", f->engine, f->seconds);
	free(p);
	return ret;
}
