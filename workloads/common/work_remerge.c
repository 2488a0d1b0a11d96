/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_remerge.c: pages that become alike, are written, and become alike again, all the time: as
 * many merges and breaks as can be had (workloads/remerge.h). Goes over all stretches of pages in
 * random order, another one in each round; verifies each page in full, and then writes it. Most
 * writes are of one word, so that the rest of a page that broke off must have been copied; every
 * fourth is of all.
 *
 * The last eighth of the memory is not touched: a test gives it content through the devices'
 * interface, and takes it away again (free_clean_pages of the report says how much there is).
 */
#include "workloads/common/guest.h"
#include "workloads/remerge.h"

#define SPARE_PART 8
#define BEAT_PAGES 256

static struct remerge keys(const struct guest *g)
{
	return remerge_of(g->cfg.common, g->cfg.seed);
}

static void remerge_init(struct guest *g)
{
	const struct remerge m = keys(g);
	uint64_t spare;

	area_param(g, "param", g->cfg.param, 1, 1000000);
	area_param(g, "param2", g->cfg.param2, 0, 1000000);
	spare = g->area.pages / SPARE_PART;
	g->area.pages -= spare;
	spare += g->area.pages % REMERGE_STRETCH;
	g->area.pages -= g->area.pages % REMERGE_STRETCH;
	report_area(g);
	g->report->free_clean_pages = spare;
	g->mem.key = gen_key(m.own, 1);
	for (uint64_t i = 0; i < g->area.pages; i++) {
		remerge_fill(&m, area_page(g, i), i, remerge_stamp(&m, i, 0));
		g->report->heartbeat += i % BEAT_PAGES == 0;
	}
	area_order_init(&g->mem.order, g->area.pages / REMERGE_STRETCH, g->mem.key);
}

static bool check(struct guest *g, const struct remerge *m, uint64_t page, uint64_t writes)
{
	const uint64_t *w = area_page(g, page);
	uint64_t got, want;
	unsigned int bad;

	barrier();
	bad = remerge_check(m, w, page, remerge_stamp(m, page, writes), &got, &want);
	if (bad == GEN_PAGE_WORDS)
		return true;
	agent_mismatch(g, w + bad, want, got, AGENT_KIND_AREA);
	return false;
}

/* Bring @page from @writes to one write more. */
static void rewrite(struct guest *g, const struct remerge *m, uint64_t page, uint64_t writes)
{
	uint64_t *w = area_page(g, page), *stamp = w + remerge_stamp_at(m, page);
	uint64_t next = remerge_stamp(m, page, writes + 1);

	if (remerge_counts(page))
		__asm__ volatile("lock incq %0" : "+m"(*stamp));
	else if (writes % 4 == 3)
		remerge_fill(m, w, page, next);
	else
		*stamp = next;
	barrier();
}

static void remerge_step(struct guest *g)
{
	const struct remerge m = keys(g);
	struct mem_work *s = &g->mem;

	for (uint64_t n = 0; n < g->cfg.param; n++) {
		uint64_t stretch = area_order_at(&s->order, s->at / REMERGE_STRETCH);
		uint64_t page = stretch * REMERGE_STRETCH + s->at % REMERGE_STRETCH;

		if (check(g, &m, page, s->round))
			g->report->ops++;
		rewrite(g, &m, page, s->round);
		g->report->written_pages++;
		g->report->heartbeat += n % BEAT_PAGES == 0;
		if (++s->at < g->area.pages)
			continue;
		s->at = 0;
		s->round++;
		area_order_init(&s->order, g->area.pages / REMERGE_STRETCH,
				gen_key(s->key, s->round));
	}
	if (g->cfg.param2)
		agent_sleep(g, g->cfg.param2 * 1000);
}

const struct workload work_remerge = {
	.name = "remerge",
	.init = remerge_init,
	.step = remerge_step,
	.param = 64,
	.param2 = 10000,
};
