/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_wset.c: the samplers of a cell's guests (ept/wset.h) and the thread that steps them.
 *
 * Sampling and merging take turns. The scanner reads pages, and a page that it reads just after it
 * was taken would come back as if the guest had touched it; so a step of sampling holds the
 * scanner's lock. Whoever pauses the cell holds that lock as well, so a cell that is paused is not
 * sampled. What is out then is put back, and the period under way forgotten: the last reading of a
 * run is of guests that have their pages, and pages that a stopped guest does not touch say
 * nothing.
 *
 * Guests that stand for want of memory (coord_reserve.c) are not sampled either, though merging
 * goes on: what would look like idleness is none.
 *
 * The samplers' clock stands still with the guests.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "harness/cell.h"
#include "harness/proto.h"

/* Has the pause ended? Looked at so often. */
#define PAUSED_NS (50 * OB_NS_PER_MS)

struct sampler {
	struct ept_wset w;
	uint64_t due_ns;
	struct run_wset_point *history;
	unsigned int nhistory, room;
	bool warned;
};

struct cell_wset {
	struct sampler *of; /* [guests] */
	unsigned int n;	    /* made */
	pthread_t thread;
	bool has_thread;
	/* Behind the scanner's lock; protects all below and the samplers. */
	struct ob_mutex sample_lock;
	pthread_cond_t cond; /* the thread rests */
	bool quit;
	unsigned int pauses; /* no sampling while there are any */
	uint64_t start_ns;   /* when sampling began */
	uint64_t paused_ns,
		stood_ns; /* since when the cell is paused (0: it is not), and until now */
};

static uint64_t clock_ns(struct cell *c)
{
	return c->host.ops->now_ns(&c->host) - c->wset->stood_ns;
}

static bool unit_is_huge(void *arg, uint64_t page)
{
	return ept_unit_is_huge(arg, page);
}

int cell_wset_setup(struct cell *c, const json_t *doc, struct ob_err *e)
{
	const json_t *o = json_object_get(doc, "working_set");
	struct ept_wset_opts opts = ept_wset_defaults();
	pthread_condattr_t attr;
	struct cell_wset *s;
	int r = 0;

	if (!json_is_object(o))
		return 0;
	opts.samples = (unsigned int)proto_u64(o, "samples");
	opts.period_ns = proto_u64(o, "period_ns");
	s = calloc(1, sizeof(*s));
	OB_ASSERT(s);
	c->wset = s;
	s->of = calloc(c->nguests, sizeof(*s->of));
	OB_ASSERT(s->of);
	ob_mutex_init(&s->sample_lock, OB_RANK_SAMPLE);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->cond, &attr);
	pthread_condattr_destroy(&attr);
	for (; s->n < c->nguests && !r; s->n += !r) {
		struct cell_guest *g = &c->guest[s->n];

		opts.seed = proto_u64(o, "seed") * 1000003 + g->id;
		opts.unit_is_huge = ept_huge_on(&g->ept) ? unit_is_huge : NULL;
		opts.huge_arg = &g->ept;
		r = ept_wset_init(&s->of[s->n].w, &g->ept, &opts);
		if (r)
			ob_fail(e, -r, "guest %u: sampling %u pages in %.3f s: %s", g->id,
				opts.samples, (double)opts.period_ns / OB_NS_PER_SEC, strerror(-r));
	}
	return r;
}

static void note_period(struct cell_wset *s, struct sampler *m)
{
	const struct ept_wset_period *p = &m->w.last;
	struct ept_wset_reading now;

	if (m->nhistory == RUN_WSET_HISTORY) {
		m->nhistory--;
		memmove(m->history, m->history + 1, m->nhistory * sizeof(*m->history));
	}
	if (m->nhistory == m->room) {
		m->room = OB_MIN(m->room ? 2 * m->room : 16, (unsigned int)RUN_WSET_HISTORY);
		m->history = realloc(m->history, m->room * sizeof(*m->history));
		OB_ASSERT(m->history);
	}
	ept_wset_read(&m->w, &now);
	m->history[m->nhistory++] = (struct run_wset_point){
		.t = (double)(p->ended_ns - s->start_ns) / OB_NS_PER_SEC,
		.pages = now.pages,
		.fraction = p->fraction,
		.error = p->error,
		.low = p->low,
		.high = p->high,
		.samples = p->part[EPT_WSET_OWN].n + p->part[EPT_WSET_SHARED].n,
		.touched = p->part[EPT_WSET_OWN].t + p->part[EPT_WSET_SHARED].t,
		.unit_samples = p->part[EPT_WSET_HUGE].n,
		.unit_touched = p->part[EPT_WSET_HUGE].t,
		.windows = p->windows,
	};
}

/* Both locks are held. */
static void step(struct cell *c, unsigned int i)
{
	struct sampler *m = &c->wset->of[i];
	uint64_t now = clock_ns(c), number = m->w.last.number;

	if (now < m->due_ns)
		return;
	if (c->wset->pauses) {
		m->due_ns = now + PAUSED_NS;
		return;
	}
	m->due_ns = now + ept_wset_step(&m->w, now);
	if (m->w.last.number != number)
		note_period(c->wset, m);
	if (m->w.err && !m->warned)
		ob_warn("guest %u: its working set cannot be sampled any more: %s", c->guest[i].id,
			strerror(-m->w.err));
	m->warned |= m->w.err != 0;
}

static void rest(struct cell *c, struct cell_wset *s)
{
	uint64_t due = UINT64_MAX, now = clock_ns(c);
	struct timespec ts;

	for (unsigned int i = 0; i < s->n; i++)
		due = OB_MIN(due, s->of[i].due_ns);
	if (due <= now)
		return;
	due += s->stood_ns;
	ts.tv_sec = (time_t)(due / OB_NS_PER_SEC);
	ts.tv_nsec = (long)(due % OB_NS_PER_SEC);
	ob_cond_timedwait(&s->cond, &s->sample_lock, &ts);
}

static void *sampler_thread(void *arg)
{
	struct cell *c = arg;
	struct cell_wset *s = c->wset;
	bool quit = false;

	/* The main thread's priority is not for us (cell_start). */
	setpriority(PRIO_PROCESS, 0, 0);
	while (!quit) {
		for (unsigned int i = 0; i < s->n && !quit; i++) {
			cell_scan_hold(c);
			ob_lock(&s->sample_lock);
			quit = s->quit;
			if (!quit)
				step(c, i);
			ob_unlock(&s->sample_lock);
			cell_scan_release(c);
		}
		ob_lock(&s->sample_lock);
		if (!s->quit)
			rest(c, s);
		quit = s->quit;
		ob_unlock(&s->sample_lock);
	}
	return NULL;
}

int cell_wset_start(struct cell *c, struct ob_err *e)
{
	struct cell_wset *s = c->wset;
	int r;

	if (!s)
		return 0;
	for (unsigned int i = 0; i < s->n; i++) {
		/* Takes nothing, but makes all that is needed for it. */
		int64_t ready = ept_take(&c->guest[i].ept, NULL, 0, true);

		if (ready < 0)
			return ob_fail(e, (int)-ready, "guest %u: sampling: %s", c->guest[i].id,
				       strerror((int)-ready));
	}
	s->start_ns = clock_ns(c);
	r = pthread_create(&s->thread, NULL, sampler_thread, c);
	if (r)
		return ob_fail(e, r, "cell %u: sampler thread: %s", c->number, strerror(r));
	s->has_thread = true;
	return 0;
}

void cell_wset_pause(struct cell *c, bool pause)
{
	struct cell_wset *s = c->wset;

	if (!s)
		return;
	ob_lock(&s->sample_lock);
	if (pause ? s->pauses++ : --s->pauses) {
		ob_unlock(&s->sample_lock);
		return;
	}
	if (pause) {
		for (unsigned int i = 0; i < s->n; i++)
			ept_wset_withdraw(&s->of[i].w);
		s->paused_ns = c->host.ops->now_ns(&c->host);
	} else {
		s->stood_ns += c->host.ops->now_ns(&c->host) - s->paused_ns;
	}
	ob_unlock(&s->sample_lock);
}

void cell_wset_stop(struct cell *c)
{
	struct cell_wset *s = c->wset;

	if (!s)
		return;
	if (s->has_thread) {
		ob_lock(&s->sample_lock);
		s->quit = true;
		pthread_cond_signal(&s->cond);
		ob_unlock(&s->sample_lock);
		pthread_join(s->thread, NULL);
	}
	for (unsigned int i = 0; i < s->n; i++) {
		ept_wset_exit(&s->of[i].w);
		free(s->of[i].history);
	}
	pthread_cond_destroy(&s->cond);
	ob_mutex_destroy(&s->sample_lock);
	free(s->of);
	free(s);
	c->wset = NULL;
}

void cell_wset_sample(struct cell *c, unsigned int guest, json_t *o, bool full)
{
	struct cell_wset *s = c->wset;
	struct ept_wset_reading r;
	json_t *list, *doc;

	if (!s)
		return;
	list = json_array();
	ob_lock(&s->sample_lock);
	ept_wset_read(&s->of[guest].w, &r);
	for (unsigned int i = 0; full && i < s->of[guest].nhistory; i++) {
		const struct run_wset_point *p = &s->of[guest].history[i];

		json_array_append_new(list,
				      json_pack("[f,I,f,f,f,f,i,i,i,i,I]", p->t,
						(json_int_t)p->pages, p->fraction, p->error, p->low,
						p->high, p->samples, p->touched, p->unit_samples,
						p->unit_touched, (json_int_t)p->windows));
	}
	ob_unlock(&s->sample_lock);
	doc = json_pack("{s:I,s:f,s:I,s:I,s:o}", "pages", (json_int_t)r.pages, "fraction",
			r.fraction, "cpu_ns", (json_int_t)r.cpu_ns, "handler_cpu_ns",
			(json_int_t)r.handler_cpu_ns, "history", list);
	OB_ASSERT(doc);
	json_object_set_new(o, "working_set", doc);
}

void cell_wset_stat(struct cell *c, unsigned int guest, json_t *o)
{
	struct cell_wset *s = c->wset;
	struct ept_wset_reading r;

	if (!s)
		return;
	ob_lock(&s->sample_lock);
	ept_wset_read(&s->of[guest].w, &r);
	ob_unlock(&s->sample_lock);
	if (!r.last.number)
		return;
	json_object_set_new(o, "working_set",
			    json_pack("{s:I,s:i,s:f,s:I,s:I}", "pages", (json_int_t)r.pages,
				      "samples", s->of[guest].w.opts.samples, "period_s",
				      (double)r.period_ns / OB_NS_PER_SEC, "fast",
				      (json_int_t)r.fast, "slow", (json_int_t)r.slow));
}
