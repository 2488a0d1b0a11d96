/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_fill.c: memory that is full and hardly used: unique (no page is like any other, in this
 * guest or another), same (page i is the same in every guest of the fleet) and shuffle (the same
 * pages in every guest, each guest's in an order of its own, so that neighbours in one are next to
 * never neighbours in another). All of it is verified, a little at a time, and param pages a second
 * are rewritten, in turn; in the guests of same and shuffle each with the same content, only not at
 * the same moment. The last param2 pages of unique are never touched: memory that is free, where a
 * benchmark plants. With param2, same has so many contents only, over and over: then pages are
 * alike within one guest too.
 *
 * No table of versions is needed: a page's version is the number of rounds of rewriting, and one
 * more when its turn in this round is over.
 */
#include "workloads/common/guest.h"

#define TAG_UNIQUE    15
#define TAG_SAME      16
#define TAG_SHUFFLE   17
#define TAG_PLACES    18
#define FILL_SLEEP    (100 * MS)
#define STEPS_SECOND  10
#define VERIFIED_STEP 64 /* pages */

/* What the generator calls a page: in shuffle, another page in each guest. */
static uint64_t name_of(const struct guest *g, uint64_t page)
{
	if (g->mem.order.n)
		return area_order_at(&g->mem.order, page);
	return g->work == &work_same && g->cfg.param2 ? page % g->cfg.param2 : page;
}

static void fill(struct guest *g, uint64_t key)
{
	area_param(g, "param", g->cfg.param, 0, 100000);
	g->mem.key = key;
	for (uint64_t i = 0; i < g->area.pages; i++) {
		gen_fill(area_page(g, i), key, name_of(g, i), 0);
		g->report->heartbeat += i % 64 == 0;
	}
}

static void unique_init(struct guest *g)
{
	area_param(g, "param2", g->cfg.param2, 0, g->area.pages / 2);
	g->area.pages -= g->cfg.param2;
	report_area(g);
	g->report->free_untouched_pages = g->cfg.param2;
	fill(g, gen_key(g->cfg.seed, TAG_UNIQUE));
}

static void same_init(struct guest *g)
{
	area_param(g, "param2", g->cfg.param2, 0, UINT64_MAX);
	fill(g, gen_key(g->cfg.common, TAG_SAME));
}

static void shuffle_init(struct guest *g)
{
	area_param(g, "param2", g->cfg.param2, 0, 0);
	area_order_init(&g->mem.order, g->area.pages, gen_key(g->cfg.seed, TAG_PLACES));
	fill(g, gen_key(g->cfg.common, TAG_SHUFFLE));
}

static void check(struct guest *g, uint64_t page)
{
	const struct mem_work *m = &g->mem;
	uint64_t version = m->round + (page < m->at), name = name_of(g, page), got = 0;
	const uint64_t *w = area_page(g, page);
	unsigned int bad;

	barrier();
	bad = gen_check(w, m->key, name, version, &got);
	if (bad < PAGE_WORDS)
		agent_mismatch(g, w + bad, gen_word(gen_start(m->key, name, version), bad), got,
			       AGENT_KIND_AREA);
}

/* The next pages, in one piece. */
static void verify(struct guest *g)
{
	uint64_t first = g->mem.seen, left = g->area.pages - first;
	uint64_t n = ram_span(g, g->area.base + first, left < VERIFIED_STEP ? left : VERIFIED_STEP);

	for (uint64_t i = 0; i < n; i++)
		check(g, first + i);
	agent_checked(g, area_page(g, first), n);
	g->mem.seen = first + n < g->area.pages ? first + n : 0;
	g->report->ops += n;
}

static void fill_step(struct guest *g)
{
	struct mem_work *m = &g->mem;
	uint64_t n;

	verify(g);
	/* So many in a second, also when they are fewer than steps. */
	m->due += g->cfg.param;
	n = m->due / STEPS_SECOND;
	m->due %= STEPS_SECOND;
	for (; n; n--) {
		check(g, m->at);
		gen_fill(area_page(g, m->at), m->key, name_of(g, m->at), m->round + 1);
		g->report->written_pages++;
		if (++m->at == g->area.pages) {
			m->at = 0;
			m->round++;
		}
	}
	agent_sleep(g, FILL_SLEEP);
}

const struct workload work_unique = {
	.name = "unique",
	.init = unique_init,
	.step = fill_step,
	.param = 10,
};

const struct workload work_same = {
	.name = "same",
	.init = same_init,
	.step = fill_step,
};

const struct workload work_shuffle = {
	.name = "shuffle",
	.init = shuffle_init,
	.step = fill_step,
};
