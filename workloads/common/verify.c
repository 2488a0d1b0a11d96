/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c: the round through all memory whose content is known: page cache, heap, zeroed free
 * memory. A batch is at most 256 pages that lie together, and the host is told about it right after
 * it was read, so that it can say how many of these pages were shared at that moment.
 */
#include "workloads/common/guest.h"

enum area_kind {
	AREA_CACHE,
	AREA_HEAP,
	AREA_CLEAN,
	NAREAS,
};

static uint64_t area_pages(const struct guest *g, unsigned int a)
{
	return a == AREA_CACHE ? g->cache.pages : a == AREA_HEAP ? g->heap.pages : g->free.clean;
}

static uint64_t area_base(const struct guest *g, unsigned int a)
{
	return a == AREA_CACHE ? g->cache.base : a == AREA_HEAP ? g->heap.base : g->free.base;
}

void verify_step(struct guest *g, uint64_t pages)
{
	struct verify *v = &g->verify;

	while (pages) {
		uint64_t n = pages < VERIFY_BATCH ? pages : VERIFY_BATCH;
		uint64_t left = area_pages(g, v->area) - v->page, first;

		if (!left) {
			v->area = (v->area + 1) % NAREAS;
			v->page = 0;
			/* The heap always has pages, so this ends. */
			continue;
		}
		first = area_base(g, v->area) + v->page;
		n = ram_span(g, first, n < left ? n : left);
		for (uint64_t i = 0; i < n; i++) {
			if (v->area == AREA_CACHE)
				cache_check(g, v->page + i);
			else if (v->area == AREA_HEAP)
				heap_check(g, v->page + i);
			else
				freemem_check(g, v->page + i);
		}
		agent_checked(g, ram_page(g, first), n);
		v->page += n;
		pages -= n;
	}
}
