/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_memory.c: the workloads that visit the pages of a large area as fast as they can be found:
 * counters (every page, each time incremented), touch (a part of them, again and again), writer
 * (random ones, in bursts). They run in ring 3 and leave it for nothing but a sleep, so what they
 * are held up by is what happens to their memory.
 *
 * What they verify is not told to the agent, as that would cost more than the work: checked_pages
 * stays 0, and ops counts the pages that were visited and right.
 */
#include "workloads/common/guest.h"

#define TAG_AREA   11
#define TAG_ORDER  12
#define TAG_PLACE  13
#define TAG_WRITER 14
#define STEP_PAGES 1024 /* a heartbeat after so many */

static void start(struct guest *g)
{
	g->mem.key = gen_key(g->cfg.seed, TAG_AREA);
	area_fill(g, 0);
}

/* The order of a round: another one in each. */
static void new_order(struct mem_work *m, uint64_t pages)
{
	area_order_init(&m->order, pages, gen_key(gen_key(m->key, TAG_ORDER), m->round));
}

/* --- counters: param 0 from the first page to the last, 1 at random; param2 ms of sleep a round */

static void counters_init(struct guest *g)
{
	area_param(g, "param", g->cfg.param, 0, 1);
	area_param(g, "param2", g->cfg.param2, 0, 1000000);
	start(g);
	new_order(&g->mem, g->area.pages);
}

static void counters_step(struct guest *g)
{
	struct mem_work *m = &g->mem;

	for (unsigned int i = 0; i < STEP_PAGES; i++) {
		uint64_t page = g->cfg.param ? area_order_at(&m->order, m->at) : m->at;

		/* The counter of each page is the number of rounds that are over. */
		if (area_check_page(g, page, m->round)) {
			area_set(area_page(g, page), m->key, page, m->round + 1);
			barrier(); /* never counted before it is done */
			g->report->ops++;
		}
		if (++m->at < g->area.pages)
			continue;
		m->at = 0;
		m->round++;
		new_order(m, g->area.pages);
		if (g->cfg.param2)
			agent_sleep(g, g->cfg.param2 * MS);
	}
}

const struct workload work_counters = {
	.name = "counters",
	.init = counters_init,
	.step = counters_step,
};

/*
 * --- touch: param percent of all memory; they lie together (param2 0) or all over the area (1) ---
 *
 * A round takes two seconds and the time of its work: a hundred steps, with a sleep after each.
 */

#define TOUCH_STEPS 100
#define TOUCH_SLEEP (20 * MS)

static void touch_init(struct guest *g)
{
	struct mem_work *m = &g->mem;

	area_param(g, "param", g->cfg.param, 0, 100);
	area_param(g, "param2", g->cfg.param2, 0, 1);
	start(g);
	m->hot = area_hot(g->ram.total, ram_own(g), g->area.pages, g->cfg.param);
	area_order_init(&m->place, g->area.pages, gen_key(m->key, TAG_PLACE));
	new_order(m, m->hot);
	g->report->area_hot = m->hot;
}

static void touch_step(struct guest *g)
{
	struct mem_work *m = &g->mem;
	uint64_t n = (m->hot + TOUCH_STEPS - 1) / TOUCH_STEPS;

	for (; n && m->at < m->hot; n--, m->at++) {
		uint64_t page = area_order_at(&m->order, m->at), had;

		if (g->cfg.param2)
			page = area_order_at(&m->place, page);
		had = area_touch_written(page, m->round);
		if (!area_check_page(g, page, had))
			continue;
		if (area_touch_writes(page, m->round))
			area_set(area_page(g, page), m->key, page, had + 1);
		g->report->ops++;
	}
	if (m->at == m->hot) {
		m->at = 0;
		m->round++;
		new_order(m, m->hot);
	}
	agent_sleep(g, TOUCH_SLEEP);
}

const struct workload work_touch = {
	.name = "touch",
	.init = touch_init,
	.step = touch_step,
	.param = 50,
};

/*
 * --- writer: bursts of param random pages, then param2 us of sleep -------------------------------
 *
 * The host tells by the counters which pages were written. No table says how often that was for
 * each page, so here only the check is verified; but all counters together are the operations.
 */

static void writer_init(struct guest *g)
{
	area_param(g, "param", g->cfg.param, 1, 1000000);
	area_param(g, "param2", g->cfg.param2, 0, 1000000);
	start(g);
	g->mem.rng.s = gen_key(g->mem.key, TAG_WRITER);
}

static void writer_step(struct guest *g)
{
	for (uint64_t n = g->cfg.param; n; n--) {
		uint64_t page = gen_below(&g->mem.rng, g->area.pages);
		uint64_t *w = area_page(g, page), had = w[AREA_COUNTER];

		if (!area_check_page(g, page, had))
			continue;
		area_set(w, g->mem.key, page, had + 1);
		barrier();
		g->report->ops++;
		g->report->heartbeat += n % STEP_PAGES == 0;
	}
	if (g->cfg.param2)
		agent_sleep(g, g->cfg.param2 * 1000);
}

const struct workload work_writer = {
	.name = "writer",
	.init = writer_init,
	.step = writer_step,
	.param = 64,
	.param2 = 1000,
};
