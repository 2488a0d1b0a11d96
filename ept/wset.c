/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset.c: the sampler: one period after another.
 *
 *	draw	choose the pages
 *	take	start to watch them, a batch at a time, with a rest after each; for those that
 *		cannot be sampled draw others, a few times
 *	watch	count now and then who has been touched by now; when a batch has been watched for a
 *		period, count it for the last time and put back what nobody wanted
 *
 * Every page is watched for exactly one period (if the steps come in time), the last batch as long
 * as the first. So one round takes a little longer than the period: by the time that the taking
 * took.
 *
 * The taking is spread so that the guest stands still for a batch and not for all, and so that what
 * it does to its first touches does not come all at once. The rests together are a tenth of the
 * period at most.
 *
 * Windows (stage.c). While one page of a window of 2 MiB is out, first touches of pages that the
 * guest has never used come to the handler as well, and cost what a fault costs that is answered
 * from user space. Nothing is to be done about it while the page is out; but as soon as it is back
 * its window is closed: at the next look and not at the period's end. A window in which nothing is
 * private is never opened, so memory that the guest has not begun to use at all stays at the
 * kernel's speed.
 */
#include <errno.h>
#include <string.h>

#include "ept/wset_int.h"

/* Draws for what cannot be sampled, the first one included. */
#define ROUNDS 4
/* Rest after a batch, at the most. */
#define REST_NS (10 * OB_NS_PER_MS)

/* --- what is behind it: ept ------------------------------------------------------------------- */

static int map_look(void *arg, uint64_t page, struct ept_wset_page *out)
{
	struct ob_page view;
	int r = ept_sync(arg, page, 1, &view);

	*out = (struct ept_wset_page){
		.state = ept_state_of(arg, page),
		.staged = ept_is_staged(arg, page),
		.present = view.present,
	};
	return r;
}

static int64_t map_take(void *arg, const struct ept_run *runs, unsigned int n)
{
	return ept_take(arg, runs, n, true);
}

static int64_t map_take_unit(void *arg, uint64_t page)
{
	return ept_take_huge(arg, page, EPT_WSET_UNIT);
}

static int64_t map_left(void *arg, uint64_t page, uint64_t n)
{
	return ept_samples_left(arg, page, n, false);
}

static int64_t map_back(void *arg, const struct ept_run *runs, unsigned int n)
{
	return ept_put_back(arg, runs, n);
}

static int64_t map_zap(void *arg, const struct ept_run *runs, unsigned int n, bool *zapped)
{
	return ept_zap(arg, runs, n, zapped);
}

static uint64_t map_windows(void *arg)
{
	struct ept_stats st;

	ept_read_stats(arg, &st);
	return st.windows;
}

static uint64_t map_shared(void *arg)
{
	struct ept_stats st;

	ept_read_stats(arg, &st);
	return st.state[EPT_SHARED];
}

static uint64_t map_cpu(void *arg)
{
	struct ept *e = arg;

	return e->host->ops->thread_cpu_ns(e->host);
}

static uint64_t map_handler_cpu(void *arg)
{
	return ept_handler_cpu_ns(arg);
}

static const struct ept_wset_ops map_ops = {
	.look = map_look,
	.take = map_take,
	.take_unit = map_take_unit,
	.left = map_left,
	.put_back = map_back,
	.zap = map_zap,
	.windows = map_windows,
	.shared = map_shared,
	.cpu_ns = map_cpu,
	.handler_cpu_ns = map_handler_cpu,
};

/* --- made and unmade -------------------------------------------------------------------------- */

struct ept_wset_opts ept_wset_defaults(void)
{
	return (struct ept_wset_opts){
		.samples = EPT_WSET_SAMPLES,
		.period_ns = EPT_WSET_PERIOD_NS,
		.slow = EPT_WSET_SLOW,
		.fast = EPT_WSET_FAST,
		.seed = 1,
	};
}

static bool opts_ok(const struct ept_wset_opts *o)
{
	return o->samples >= EPT_WSET_MIN_SAMPLES && o->samples <= EPT_WSET_MAX_SAMPLES &&
	       o->period_ns >= EPT_WSET_MIN_PERIOD && o->period_ns <= EPT_WSET_MAX_PERIOD &&
	       o->slow > 0 && o->slow <= o->fast && o->fast <= 1; /* false for NaN, too */
}

int ept_wset_init_ops(struct ept_wset *w, const struct ept_wset_ops *ops, void *arg, uint64_t pages,
		      struct ob_arena *arena, const struct ept_wset_opts *o)
{
	uint64_t words = (pages / EPT_WSET_UNIT + 63) / 64;

	if (!opts_ok(o) || !pages || pages > UINT32_MAX)
		return -EINVAL;
	*w = (struct ept_wset){
		.ops = ops,
		.arg = arg,
		.arena = arena,
		.opts = *o,
		.pages = pages,
		.key = o->seed,
		.handler_cpu_t0 = ops->handler_cpu_ns(arg),
	};
	w->sample = ob_alloc(arena, o->samples * sizeof(w->sample[0]));
	if (o->unit_is_huge && words)
		w->huge = ob_alloc(arena, words * sizeof(w->huge[0]));
	return 0;
}

int ept_wset_init(struct ept_wset *w, struct ept *e, const struct ept_wset_opts *o)
{
	return ept_wset_init_ops(w, &map_ops, e, e->pages, e->arena, o);
}

/* The longest piece of [from, to) that can be counted and released together: of one batch. */
static unsigned int together(const struct ept_wset *w, unsigned int from, unsigned int to)
{
	const struct ept_wset_sample *s = w->sample + from;
	unsigned int n = 1;

	while (from + n < to && n < EPT_WSET_BATCH && s[n].since_ms == s[0].since_ms &&
	       s[n].page > s[n - 1].page)
		n++;
	return n;
}

/* The next step draws. What there is of either kind of memory is known until then. */
static void begin_anew(struct ept_wset *w)
{
	w->phase = EPT_WSET_DRAW;
	for (unsigned int k = 0; k < EPT_WSET_NPARTS; k++)
		w->now.part[k].n = w->now.part[k].t = 0;
	w->kept = w->counted = 0;
}

void ept_wset_withdraw(struct ept_wset *w)
{
	for (unsigned int n; w->counted < w->kept; w->counted += n) {
		n = together(w, w->counted, w->kept);
		/* Those that are back already, for their windows. */
		ept_wset_look(w, w->sample + w->counted, n);
		ept_wset_release(w, w->sample + w->counted, n);
	}
	begin_anew(w);
}

void ept_wset_exit(struct ept_wset *w)
{
	ept_wset_withdraw(w);
	ob_free(w->arena, w->sample);
	if (w->huge)
		ob_free(w->arena, w->huge);
	w->sample = NULL;
	w->huge = NULL;
}

static uint64_t of_4k(const struct ept_wset *w)
{
	return w->now.part[EPT_WSET_OWN].of + w->now.part[EPT_WSET_SHARED].of;
}

/* --- a period --------------------------------------------------------------------------------- */

static uint64_t rest(const struct ept_wset *w)
{
	uint64_t batches = w->want_4k / EPT_WSET_BATCH + w->want_2m / EPT_WSET_UNIT_BATCH + 2;

	return OB_MIN(REST_NS, w->opts.period_ns / 10 / batches);
}

/* One batch of those drawn. Those that are watched move up behind the others. */
static void take_batch(struct ept_wset *w, uint64_t now)
{
	struct ept_wset_sample *s = w->sample + w->next;
	bool unit = s->kind == WSET_NEW_UNIT;
	unsigned int most = unit ? EPT_WSET_UNIT_BATCH : EPT_WSET_BATCH, n = 1;

	while (n < most && w->next + n < w->drawn && s[n].kind == s[0].kind)
		n++;
	if (unit)
		ept_wset_watch_units(w, s, n);
	else
		ept_wset_watch(w, s, n);
	w->next += n;
	for (unsigned int i = 0; i < n; i++) {
		if (s[i].kind == WSET_REFUSED) {
			w->now.refused++;
			continue;
		}
		s[i].since_ms = (uint32_t)((now - w->now.began_ns) / OB_NS_PER_MS);
		w->sample[w->kept++] = s[i];
		w->now.part[ept_wset_part_of(&s[i])].n++;
	}
}

/* Others for those that could not be sampled. False: that is all. */
static bool draw_again(struct ept_wset *w)
{
	unsigned int nunits = w->want_2m - w->now.part[EPT_WSET_HUGE].n;
	unsigned int n4k = w->want_4k + w->want_2m - w->kept - nunits;

	if (++w->rounds >= ROUNDS || !(n4k + nunits) || w->err)
		return false;
	w->next = w->kept;
	ept_wset_draw(w, n4k, nunits);
	return w->drawn > w->next;
}

static uint64_t step_take(struct ept_wset *w, uint64_t now)
{
	if (w->next < w->drawn || draw_again(w)) {
		take_batch(w, now);
		return rest(w);
	}
	w->now.left_out = w->want_4k + w->want_2m - w->kept;
	w->now.windows = w->ops->windows(w->arg);
	w->phase = EPT_WSET_WATCH;
	return 0;
}

static void finish(struct ept_wset *w, uint64_t now)
{
	const struct ept_wset_part *p = w->now.part;

	w->now.ended_ns = now;
	ept_wset_sum_up(&w->now);
	/* A kind of memory of which there is none has no past either when it comes back. */
	if (p[EPT_WSET_OWN].n + p[EPT_WSET_SHARED].n)
		ept_wset_avg_add(&w->avg_4k, w->opts.slow, w->opts.fast,
				 ept_wset_fraction(p, EPT_WSET_OWN, EPT_WSET_SHARED));
	else if (!of_4k(w))
		w->avg_4k.any = false;
	if (p[EPT_WSET_HUGE].n)
		ept_wset_avg_add(&w->avg_2m, w->opts.slow, w->opts.fast,
				 ept_wset_fraction(p, EPT_WSET_HUGE, EPT_WSET_HUGE));
	else if (!p[EPT_WSET_HUGE].of)
		w->avg_2m.any = false;
	w->last = w->now;
	begin_anew(w);
}

static uint64_t step_watch(struct ept_wset *w, uint64_t now)
{
	uint64_t look = w->now.began_ns + w->opts.period_ns / EPT_WSET_LOOKS * (w->looks + 1);
	uint64_t due = w->now.began_ns + w->opts.period_ns;
	unsigned int n;

	if (w->counted < w->kept)
		due += w->sample[w->counted].since_ms * OB_NS_PER_MS;
	if (now < due) {
		if (now >= look && w->looks + 1 < EPT_WSET_LOOKS) {
			ept_wset_look(w, w->sample, w->kept);
			/* Looks that were missed are not made up for. */
			while (w->looks + 1 < EPT_WSET_LOOKS && now >= look) {
				w->looks++;
				look += w->opts.period_ns / EPT_WSET_LOOKS;
			}
		}
		return (w->looks + 1 < EPT_WSET_LOOKS ? OB_MIN(look, due) : due) - now;
	}
	if (w->counted < w->kept) {
		n = together(w, w->counted, w->kept);
		ept_wset_look(w, w->sample + w->counted, n);
		ept_wset_release(w, w->sample + w->counted, n);
		w->counted += n;
	}
	if (w->counted == w->kept)
		finish(w, now);
	return 0;
}

static uint64_t step(struct ept_wset *w, uint64_t now)
{
	switch (w->phase) {
	case EPT_WSET_DRAW:
		ept_wset_draw_begin(w);
		w->now.began_ns = now;
		ept_wset_draw(w, w->want_4k, w->want_2m);
		w->phase = EPT_WSET_TAKE;
		return 0;
	case EPT_WSET_TAKE:
		return step_take(w, now);
	case EPT_WSET_WATCH:
		break;
	}
	return step_watch(w, now);
}

uint64_t ept_wset_step(struct ept_wset *w, uint64_t now_ns)
{
	uint64_t cpu = w->ops->cpu_ns(w->arg), wait;

	if (w->err)
		return w->opts.period_ns;
	wait = step(w, OB_MAX(now_ns, w->now.began_ns));
	/* An estimate from the pages that are not private would be no estimate. */
	if (w->err)
		ept_wset_withdraw(w);
	w->cpu_ns += w->ops->cpu_ns(w->arg) - cpu;
	w->handler_cpu_ns = w->ops->handler_cpu_ns(w->arg) - w->handler_cpu_t0;
	return wait;
}

void ept_wset_read(const struct ept_wset *w, struct ept_wset_reading *out)
{
	const struct ept_wset_part *p = w->now.part;
	double f4k = ept_wset_fraction(p, EPT_WSET_OWN, EPT_WSET_SHARED), n4k = (double)of_4k(w);
	double f2m = ept_wset_fraction(p, EPT_WSET_HUGE, EPT_WSET_HUGE);
	double n2m = (double)(p[EPT_WSET_HUGE].of * EPT_WSET_UNIT);

	f4k = ept_wset_avg_get(&w->avg_4k, w->opts.fast, f4k);
	f2m = ept_wset_avg_get(&w->avg_2m, w->opts.fast, f2m);
	*out = (struct ept_wset_reading){
		.pages_4k = (uint64_t)(f4k * n4k + 0.5),
		.pages_2m = (uint64_t)(f2m * n2m + 0.5),
		.fast = (uint64_t)(w->avg_4k.fast * n4k + w->avg_2m.fast * n2m + 0.5),
		.slow = (uint64_t)(w->avg_4k.slow * n4k + w->avg_2m.slow * n2m + 0.5),
		.guest = w->pages,
		.period_ns = w->opts.period_ns,
		.last = w->last,
		.cpu_ns = w->cpu_ns,
		.handler_cpu_ns = w->handler_cpu_ns,
		.err = w->err,
	};
	memcpy(out->now, p, sizeof(out->now));
	out->pages = out->pages_4k + out->pages_2m;
	out->fraction = (double)out->pages / (double)w->pages;
}
