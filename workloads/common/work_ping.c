/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_ping.c: guests that measure what a touch of their memory takes, from the inside, where all
 * of it counts: the exit, the host's work, the way back.
 *
 * first touches each page of its area once, in order, and then rests: nothing was there before, so
 * each is the first touch of that page since the machine was made. ping touches the page that the
 * host asks for (struct agent_ping in the first page of its area), so that the host can do
 * something to the page before. It waits for requests without leaving ring 3, and sleeps only when
 * there was none for a while.
 */
#include "workloads/common/guest.h"

#define TAG_PING    17
#define PING_POLLS  4096 /* looks at the mailbox in a step */
#define PING_IDLE   (50 * MS)
#define PING_SLEEP  (1 * MS)
#define FIRST_SLEEP SECOND

/* The time stamp, after what came before it and before what comes after (SDM vol. 2, RDTSC). */
static inline uint64_t stamp(void)
{
	uint64_t t;

	__asm__ volatile("lfence" ::: "memory");
	t = rdtsc();
	__asm__ volatile("lfence" ::: "memory");
	return t;
}

/* --- first: param 1 writes, 0 reads ----------------------------------------------------------- */

#define FIRST_META 8 /* pages, for the times of runs */
#define FIRST_RUNS (FIRST_META * PAGE_WORDS)
#define FIRST_RUN  64 /* pages of a run at least */

static void first_init(struct guest *g)
{
	area_param(g, "param", g->cfg.param, 0, 1);
	area_param(g, "param2", g->cfg.param2, 0, 0);
}

/* Touch pages [from, to): how long did that take? */
static uint64_t first_run(struct guest *g, uint64_t from, uint64_t to)
{
	uint64_t begin = stamp(), before = begin, now;

	for (uint64_t i = from; i < to; i++) {
		volatile uint64_t *w = area_page(g, i);

		if (g->cfg.param)
			*w = i + 1;
		else
			(void)*w;
		now = rdtsc();
		g->report->lat[lat_bucket(cycles_ns(g, now - before))]++;
		g->report->ops++;
		before = now;
	}
	g->report->heartbeat++;
	return stamp() - begin;
}

/*
 * The sum is what it took the guest, with all that held it up meanwhile; the median of runs leaves
 * out what held up a few of them only, such as another program on this CPU.
 */
static void first_step(struct guest *g)
{
	uint64_t run = (g->area.pages + FIRST_RUNS - 1) / FIRST_RUNS, n = 0, sum = 0;

	if (g->report->job_ns) {
		agent_sleep(g, FIRST_SLEEP);
		return;
	}
	if (run < FIRST_RUN)
		run = FIRST_RUN;
	/* What is left at the end is touched, and is no run. */
	for (uint64_t i = 0; i < g->area.pages; i += run) {
		uint64_t left = g->area.pages - i,
			 t = first_run(g, i, i + (left < run ? left : run));

		sum += t;
		if (left >= run)
			g->mem.meta[n++] = t;
	}
	area_sort(g->mem.meta, n);
	g->report->job_page_ps = n ? cycles_ns(g, g->mem.meta[n / 2] * 1000) / run : 0;
	barrier();
	g->report->job_ns = cycles_ns(g, sum) + 1; /* not 0: it is done */
}

const struct workload work_first = {
	.name = "first",
	.needs_bare = true,
	.init = first_init,
	.step = first_step,
	.param = 1,
	.meta = FIRST_META,
};

/* --- ping ------------------------------------------------------------------------------------- */

static void ping_init(struct guest *g)
{
	area_param(g, "param", g->cfg.param, 0, 0);
	area_param(g, "param2", g->cfg.param2, 0, 0);
	g->mem.key = gen_key(g->cfg.seed, TAG_PING);
	memset(area_page(g, 0), 0, PAGE_SIZE);
	area_fill(g, 1);
	g->mem.idle_since = clock_ns(g);
}

static void answer(struct guest *g, struct agent_ping *p, uint64_t request)
{
	uint64_t page = p->page, write = p->write, begin, end, had;
	uint64_t *w;

	if (page == 0 || page >= g->area.pages) {
		p->ns = AGENT_PING_REFUSED;
		p->counter = 0;
	} else {
		w = area_page(g, page);
		/* The access that is timed is one instruction, so a write faults as a write. */
		begin = stamp();
		if (write)
			had = __atomic_fetch_add(&w[AREA_COUNTER], 1, __ATOMIC_RELAXED);
		else
			had = __atomic_load_n(&w[AREA_COUNTER], __ATOMIC_RELAXED);
		end = stamp();
		if (w[AREA_CHECK] != area_check(g->mem.key, page, had))
			agent_mismatch(g, w + AREA_CHECK, area_check(g->mem.key, page, had),
				       w[AREA_CHECK], AGENT_KIND_AREA);
		else if (write)
			area_set(w, g->mem.key, page, had + 1);
		p->ns = cycles_ns(g, end - begin);
		p->counter = had + !!write;
		g->report->lat[lat_bucket(p->ns)]++;
		g->report->ops++;
	}
	barrier(); /* done comes last */
	__atomic_store_n(&p->done, request, __ATOMIC_RELEASE);
}

static void ping_step(struct guest *g)
{
	struct agent_ping *p = (struct agent_ping *)area_page(g, 0);

	for (unsigned int i = 0; i < PING_POLLS; i++) {
		uint64_t request = __atomic_load_n(&p->ask, __ATOMIC_ACQUIRE);

		if (request != g->mem.seen) {
			answer(g, p, request);
			g->mem.seen = request;
			g->mem.idle_since = clock_ns(g);
		}
		__asm__ volatile("pause");
	}
	if (clock_ns(g) - g->mem.idle_since > PING_IDLE)
		agent_sleep(g, PING_SLEEP);
}

const struct workload work_ping = {
	.name = "ping",
	.needs_bare = true,
	.init = ping_init,
	.step = ping_step,
};
