/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_churn.c: allocation and freeing: blocks of 1 to 64 pages (small ones more often, by Zipf),
 * filled when allocated, verified when freed; then zeroed or left as they are, one as often as the
 * other. About half of the area is in use at any time. To a hypervisor this is memory whose content
 * changes all the time: pages that become zero, are dropped, and are filled again.
 */
#include "workloads/common/guest.h"

#define TAG_CHURN   10
#define BLOCK_PAGES 64

static uint64_t *block_page(const struct guest *g, const struct churn_block *b, uint32_t i)
{
	return ram_page(g, g->area.base + b->start + i);
}

static void churn_alloc(struct guest *g)
{
	struct churn *c = &g->churn;
	uint64_t pages = gen_zipf_rank(&c->zipf, &c->rng) + 1;
	uint64_t at = extent_alloc(c->list, pages);
	struct churn_block *b = &c->block[c->n];

	if (at == EXTENT_NONE)
		return; /* fragmented: a real allocator fails now and then as well */
	*b = (struct churn_block){c->next_id++, (uint32_t)at, (uint32_t)pages};
	c->n++;
	for (uint32_t i = 0; i < b->pages; i++)
		gen_fill(block_page(g, b, i), c->key, i, b->id);
}

static void churn_free(struct guest *g)
{
	struct churn *c = &g->churn;
	uint64_t k = gen_below(&c->rng, c->n);
	struct churn_block b = c->block[k];
	bool zero = gen_below(&c->rng, 2);

	barrier();
	for (uint32_t i = 0; i < b.pages; i++) {
		uint64_t *w = block_page(g, &b, i), got = 0;
		unsigned int bad = gen_check(w, c->key, i, b.id, &got);

		if (bad < PAGE_WORDS)
			agent_mismatch(g, w + bad, gen_word(gen_start(c->key, i, b.id), bad), got,
				       AGENT_KIND_CHURN);
		if (zero)
			memset(w, 0, PAGE_SIZE);
	}
	/* It was allocated, so it cannot be free,
	 * and the list has room for more than all blocks. */
	if (extent_free(c->list, b.start, b.pages))
		agent_mismatch(g, c->list, b.start, b.pages, AGENT_KIND_CHURN);
	c->block[k] = c->block[--c->n];
}

static void churn_init(struct guest *g)
{
	struct churn *c = &g->churn;

	_Static_assert(CHURN_BLOCKS < EXTENT_MAX, "the free list has room for all gaps");
	c->key = gen_key(g->cfg.seed, TAG_CHURN);
	c->rng.s = gen_key(c->key, TAG_CHURN);
	c->list = ram_take(g, sizeof(*c->list));
	extent_init(c->list, g->area.pages);
	gen_zipf_init(&c->zipf, BLOCK_PAGES);
}

static void churn_op(struct guest *g)
{
	struct churn *c = &g->churn;
	bool full = c->list->free_pages < g->area.pages / 2 || c->n == CHURN_BLOCKS;

	/* Towards half full, but not in step: three of four operations go the needed way. */
	if (c->n == CHURN_BLOCKS || (c->n && full == (gen_below(&c->rng, 4) != 0)))
		churn_free(g);
	else
		churn_alloc(g);
}

const struct workload work_churn = {
	.name = "churn",
	.needs_area = true,
	.batch = 2,
	.sleep_ns = 4 * MS,
	.verify_rate = 12000,
	.write_rate = 100,
	.init = churn_init,
	.op = churn_op,
};
