/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap.c: memory that programs write. Half of it is common: the same content in every guest that
 * was given the same common=, as programs started from the same files leave it. Half is its own.
 *
 * A page's content follows from (key, page, version), so each page can be verified at any time from
 * a 4-byte version number. Rewriting gives a page its next version. The n-th write to the common
 * part goes to the same page in every guest, so guests that run equally fast stay alike, as far as
 * they do: a steady supply of pages that part and meet again. The common part is rotated by a
 * number of the guest's own, so equal pages lie at different addresses.
 */
#include "workloads/common/guest.h"

#define TAG_OWN	   2
#define TAG_COMMON 3
#define TAG_ROTATE 4
#define TAG_WRITES 5

static uint64_t *heap_page(const struct guest *g, uint64_t page)
{
	return ram_page(g, g->heap.base + page);
}

/* What the generator calls this page: in the common part, the same number in every guest. */
static uint64_t heap_name(const struct heap *h, uint64_t page)
{
	return page < h->common ? (page + h->rotate) % h->common : page;
}

static uint64_t heap_key(const struct heap *h, uint64_t page)
{
	return page < h->common ? h->common_key : h->key;
}

static void heap_fill(struct guest *g, uint64_t page)
{
	struct heap *h = &g->heap;

	gen_fill(heap_page(g, page), heap_key(h, page), heap_name(h, page), h->version[page]);
}

void heap_init(struct guest *g)
{
	struct heap *h = &g->heap;
	struct gen_rng r = {gen_key(g->cfg.seed, TAG_ROTATE)};

	h->key = gen_key(g->cfg.seed, TAG_OWN);
	h->common_key = gen_key(g->cfg.common, TAG_COMMON);
	h->rotate = gen_below(&r, h->common);
	h->rng.s = gen_key(g->cfg.seed, TAG_WRITES);
	h->version = ram_take(g, h->pages * sizeof(*h->version));
	for (uint64_t i = 0; i < h->pages; i++) {
		heap_fill(g, i);
		g->report->heartbeat += i % 64 == 0;
	}
}

bool heap_check(struct guest *g, uint64_t page)
{
	const struct heap *h = &g->heap;
	const uint64_t *w = heap_page(g, page);
	uint64_t got = 0, name = heap_name(h, page), key = heap_key(h, page);
	unsigned int i;

	barrier();
	i = gen_check(w, key, name, h->version[page], &got);
	if (i == PAGE_WORDS)
		return true;
	agent_mismatch(g, w + i, gen_word(gen_start(key, name, h->version[page]), i), got,
		       AGENT_KIND_HEAP);
	return false;
}

void heap_write(struct guest *g)
{
	struct heap *h = &g->heap;
	uint64_t page, n = g->report->written_pages;

	if (n % 2 == 0 && h->common) {
		struct gen_rng r = {gen_key(h->common_key, h->common_writes++)};

		page = (gen_below(&r, h->common) + h->common - h->rotate) % h->common;
	} else {
		page = h->common + gen_below(&h->rng, h->pages - h->common);
	}
	h->version[page]++;
	heap_fill(g, page);
	g->report->written_pages = n + 1;
}
