/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_defer.c: what has to wait, and for how many mappings there is room.
 *
 * Where mappings are short, runs that are not good enough to be taken at once (hash_plan.c) wait for
 * the end of the pass: one bit a page. By then it is known what else there is, as each that was put off
 * has been counted by how good it is. So a bar can be set that lets the best have the room, and a walk
 * over the windows with bits plans them anew; what it plans may have changed meanwhile, and is hashed
 * again. What still finds no room keeps its bit for the next pass, and costs nothing until there is
 * room again, by pages that broke off or guests that left.
 *
 * The same bits serve what failed because of the host: no room in the pool's file, an mmap that was
 * refused. That is tried again at the end of a pass, and after each failure twice as many passes later,
 * up to REST_MOST.
 *
 * How many mappings there are is read from the kernel, which takes some milliseconds for thousands of
 * them, so it is not done in each pass. Between two counts each run is charged with the most that it can
 * add (hash_plan.c).
 */
#include <string.h>

#include "ksm/hash_engine.h"

#define REST_MOST 64 /* passes */
/* Counting mappings may take this part of the time: little, and more when room gets scarce. */
#define COUNT_PART	  5000
#define COUNT_PART_SCARCE 100
#define SCARCE		  2048 /* mappings left */
#define COUNT_PART_IDLE	  20000
#define WALKS		  3
/* Leave a tenth of the mappings to everything else in the process. */
#define VMA_SHARE(limit) ((limit) - (limit) / 10)

unsigned int hash_defer(struct ksm *k, struct ksm_slot *s, const struct hash_plan *p,
			unsigned int n)
{
	struct hash_guest *g = s->priv;
	uint64_t had = g->defer.n;

	if (!g->defer.bits)
		g->defer.bits = ob_alloc(k->arena, (s->g.ept->pages + 63) / 64 * sizeof(uint64_t));
	for (unsigned int i = 0; i < n; i++) {
		uint64_t *word = &g->defer.bits[p[i].page / 64], bit = 1ULL << p[i].page % 64;

		g->defer.n += !(*word & bit);
		*word |= bit;
	}
	return (unsigned int)(g->defer.n - had);
}

void hash_defer_exit(struct hash_guest *g)
{
	ob_free(g->arena, g->defer.bits);
	g->defer = (struct hash_defer){.bits = NULL};
}

static void count_pages(struct ksm *k, struct hash *h)
{
	h->room.pages = 0;
	for (unsigned int i = 0; i < k->nslots; i++) {
		struct ept_stats st;

		if (!k->slot[i].used)
			continue;
		ept_read_stats(k->slot[i].g.ept, &st);
		h->room.pages += st.state[EPT_PRIVATE];
	}
}

void hash_count_maps(struct ksm *k, struct hash *h, uint64_t now_ns)
{
	bool scarce = h->room.maps <= h->counted_room / 2 || h->room.maps < SCARCE;
	uint64_t have, limit, t0, part = COUNT_PART;

	/* Where nothing was mapped by us since, there are hardly more. */
	if (scarce)
		part = COUNT_PART_SCARCE;
	else if (h->room.maps == h->counted_room)
		part = COUNT_PART_IDLE;
	if (now_ns < h->counted_ns + h->count_cost_ns * part)
		return;
	t0 = k->host->ops->now_ns(k->host);
	if (k->host->ops->vma_count(k->host, &have, &limit))
		have = limit = 0;
	h->count_cost_ns = k->host->ops->now_ns(k->host) - t0;
	h->counted_ns = now_ns;
	h->room.maps = have < VMA_SHARE(limit) ? VMA_SHARE(limit) - have : 0;
	h->counted_room = h->room.maps;
}

/* Plan the pages of a window anew that have bits, which they lose. */
static void plan_window(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
			uint64_t n)
{
	struct hash_guest *g = s->priv;
	struct ob_page view[HASH_WINDOW];
	uint8_t state[HASH_WINDOW];
	bool again[HASH_WINDOW];
	uint64_t bits = 0;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t *word = &g->defer.bits[(page + i) / 64], bit = 1ULL << (page + i) % 64;

		again[i] = *word & bit;
		*word &= ~bit;
		bits += again[i];
	}
	g->defer.n -= bits;
	if (!bits || ept_sync(s->g.ept, page, n, view))
		return;
	ept_states(s->g.ept, page, n, state, NULL);
	h->ncand = h->nplan = 0;
	for (uint64_t i = 0; i < n; i++) {
		const void *at = hva_ptr(gmem_page_hva(s->g.ept->mem, page + i));
		struct hash_cand *c = &h->cand[h->ncand];

		if (!again[i] || state[i] != EPT_PRIVATE || !view[i].present)
			continue;
		k->st.hashed_pages++;
		*c = (struct hash_cand){.page = (uint32_t)(page + i), .zero = ksm_page_is_zero(at)};
		if (!c->zero)
			c->hash = ksm_hash(k->domain, at);
		h->ncand++;
	}
	if (!h->ncand || !hash_may_merge(k, h, s, page))
		return;
	for (unsigned int i = 0; i < h->ncand; i++)
		hash_consider(k, h, s, &h->cand[i]);
	if (h->nplan)
		hash_merge(k, h, s);
}

static void walk(struct ksm *k, struct hash *h)
{
	h->bar = hash_queue_bar(&h->queue, h->room.maps);
	memset(&h->queue, 0, sizeof(h->queue));
	for (unsigned int i = 0; i < k->nslots; i++) {
		struct ksm_slot *s = &k->slot[i];
		struct hash_guest *g = s->priv;
		uint64_t n;

		if (!s->used || !g || !g->defer.n)
			continue;
		for (uint64_t page = 0; page < s->g.ept->pages; page += n) {
			n = OB_MIN(HASH_WINDOW - page % HASH_WINDOW,
				   gmem_page_span(s->g.ept->mem, page));
			plan_window(k, h, s, page, n);
		}
	}
}

static uint64_t waiting(const struct ksm *k)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < k->nslots; i++) {
		const struct hash_guest *g = k->slot[i].priv;

		pages += k->slot[i].used && g ? g->defer.n : 0;
	}
	return pages;
}

/* Is there anything among what waits that a walk could merge now? */
static bool walk_worth(const struct hash *h, bool failed)
{
	if (failed)
		return true;
	return h->room.maps && (h->put_off || h->room.maps > h->walk_room + h->walk_room / 8 + 16);
}

void hash_merge_pass_end(struct ksm *k, struct hash *h, uint64_t now_ns)
{
	uint64_t zero = k->st.zero_pages, merged = k->st.merged_pages;
	bool failed = h->retry && !h->rest;

	hash_count_maps(k, h, now_ns);
	if (h->rest)
		h->rest--;
	h->full = false;
	if (walk_worth(h, failed)) {
		uint64_t room;

		if (h->room.maps)
			h->retry = 0;
		h->at_end = true;
		/* The best first; what then has room left is for the next best. */
		for (unsigned int i = 0; i < WALKS && h->room.maps; i++) {
			room = h->room.maps;
			walk(k, h);
			if (h->room.maps == room)
				break;
		}
		h->at_end = false;
		if (h->room.maps < h->room.pages)
			hash_no_room(k, h, waiting(k));
		h->put_off = 0;
		h->walk_room = h->room.maps;
		h->full = false;
	}
	if (failed) {
		h->rests = h->retry ? OB_MIN(2 * h->rests + 1, REST_MOST) : 0;
		h->rest = h->rests;
	}
	if (!h->pass_merged && k->st.merged_pages == merged && k->st.zero_pages == zero)
		hash_view_close(k, h);
	count_pages(k, h);
	h->bar = hash_bar(&h->room);
}
