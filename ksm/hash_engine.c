/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_engine.c: merging by content hash.
 *
 * The scanner of a cell goes round its guests' pages in windows of 2 MiB. Of each window it asks
 * the kernel what is there (ept_sync: pages first touched, shared pages broken), then hashes the
 * private pages beside the running guest. A page whose hash is that of the pass before is a
 * candidate: it held still for a while. What a candidate becomes is decided by the index of its
 * domain:
 *
 *  - nothing of this content known: a *hint* is left, "page P has it". The page stays writable.
 *  - a hint of another page: this is the second holder. It claims the hint for a new frame, puts
 *    its own copy in, and maps it. The first holder finds the frame on its next pass and joins. So
 *    no cell ever reads a page of another: content goes through the pool only.
 *  - a frame: the page is compared with it, in full, and joins.
 *  - all zero: the page is dropped, and costs neither frame nor mapping.
 *
 * Hashes only propose. What decides is a comparison while the guest is parked and its devices are
 * kept off the pages (ept_freeze), and mapping happens under the same freeze. So the hash may be
 * read from a page that changes at that moment, the index may be out of date, hints may lie: the
 * worst is a merge that does not happen.
 *
 * Frames made in one window get consecutive numbers, in page order, so one mmap merges a run of
 * pages; another guest that holds the same file in the same order joins in runs as well. Each run
 * is a mapping, and mappings are limited (vm.max_map_count): the scanner keeps away from the limit
 * and says so once.
 *
 * Where a huge page backs the window, nothing in it is merged until that is worth breaking it
 * (hash_huge.c).
 *
 * Pages that a guest has just read from its disk are not waited for: hints name them (hash_io.c).
 *
 * After a copy-on-write break the page has its own memory again, in front of the frame. The frame
 * is given back when a sync finds the break, and the page is a candidate again when it holds still.
 */
#include "ksm/hash_engine.h"

#include <errno.h>
#include <string.h>

/* Leave a tenth of the mappings to everything else in the process. */
#define VMA_SHARE(limit) ((limit) - (limit) / 10)

/* A pass that merged less than this part of its pages has found little: rest before the next. */
#define LITTLE(pages) ((pages) / 256)

/* --inject skip-compare needs equal hashes of different pages: keep so few bits that some come,
 * but not so many that guests lose their own code before they can tell. */
#define INJECT_HASH_BITS 20

static uint32_t hash_mark(uint64_t hash)
{
	uint32_t low = (uint32_t)hash & ~HASH_LAST_HINTED;

	return low > HASH_LAST_ZERO ? low : low + 2;
}

/* A sync found a break. Any thread; the ept's lock is held. */
static void on_broken(void *arg, uint64_t page, uint32_t frame)
{
	struct hash_guest *g = arg;

	ob_lock(&g->lock);
	if (g->nbroken == g->room) {
		struct hash_broken *more;

		g->room = g->room ? g->room * 2 : 64;
		more = ob_alloc(g->arena, g->room * sizeof(*more));
		if (g->nbroken)
			memcpy(more, g->broken, g->nbroken * sizeof(*more));
		ob_free(g->arena, g->broken);
		g->broken = more;
	}
	g->broken[g->nbroken++] = (struct hash_broken){.page = (uint32_t)page, .frame = frame};
	ob_unlock(&g->lock);
}

/* The planted bug: the guest's write is lost, the page shows the frame again. */
static void lose_break(struct ksm *k, struct ept *e, const struct hash_broken *b)
{
	if (ept_freeze(e, b->page, 1))
		return;
	e->tampered = true;
	k->host->ops->map_frames(k->host, gmem_page_hva(e->mem, b->page), OB_PAGE_SIZE,
				 k->domain->pool_fd, (uint64_t)b->frame * OB_PAGE_SIZE);
	ept_thaw(e);
}

/* Give back the frames that pages broke off. */
static void take_broken(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_guest *g = s->priv;
	struct hash_broken *list;
	uint32_t n;

	ob_lock(&g->lock);
	list = g->broken;
	n = g->nbroken;
	g->broken = NULL;
	g->nbroken = g->room = 0;
	ob_unlock(&g->lock);

	for (uint32_t i = 0; i < n; i++) {
		k->st.broken++;
		if (k->opts.inject & KSM_INJECT_LOSE_BREAK && h && h->injected++ % 8 == 0)
			lose_break(k, s->g.ept, &list[i]); /* keeps its hold, and so the content */
		else
			ksm_frame_put(k->domain, list[i].frame);
	}
	ob_free(g->arena, list);
}

void hash_attach(struct ksm *k, struct ksm_slot *s)
{
	struct hash_guest *g = ob_alloc(k->arena, sizeof(*g));

	ob_mutex_init(&g->lock, OB_RANK_BROKEN);
	g->arena = k->arena;
	g->last = ob_alloc(k->arena, s->g.ept->pages * sizeof(g->last[0]));
	s->priv = g;
	ept_on_broken(s->g.ept, on_broken, g);
}

static void hash_remove(struct ksm *k, unsigned int slot)
{
	struct ksm_slot *s = &k->slot[slot];
	struct hash_guest *g = s->priv;

	if (!g)
		return;
	ept_on_broken(s->g.ept, NULL, NULL);
	take_broken(k, NULL, s);
	ob_mutex_destroy(&g->lock);
	ob_free(k->arena, g->last);
	ob_free(k->arena, g);
	s->priv = NULL;
}

static void vma_budget(struct ksm *k, struct hash *h)
{
	uint64_t have, limit;

	if (k->host->ops->vma_count(k->host, &have, &limit)) {
		h->vma_room = 0;
		return;
	}
	h->vma_room = have < VMA_SHARE(limit) ? VMA_SHARE(limit) - have : 0;
}

static int hash_start(struct ksm *k, struct ob_err *e)
{
	struct hash *h;

	if (!k->domain)
		return ob_fail(e, EINVAL, "engine hash needs a sharing domain");
	h = ob_alloc(k->arena, sizeof(*h));
	h->scratch = ob_alloc(k->arena, HASH_COMPARE_PAGES * OB_PAGE_SIZE);
	if (k->opts.inject & KSM_INJECT_SKIP_COMPARE)
		ksm_domain_hash_bits(k->domain, INJECT_HASH_BITS);
	vma_budget(k, h);
	k->priv = h;
	return 0;
}

static void hash_stop(struct ksm *k)
{
	struct hash *h = k->priv;

	if (!h)
		return;
	ob_free(k->arena, h->scratch);
	ob_free(k->arena, h);
	k->priv = NULL;
}

/* What is to become of a candidate? Adds to the plan. */
static void consider(struct ksm *k, struct hash *h, struct ksm_slot *s, const struct hash_cand *c)
{
	uint64_t me = s->g.page_base + c->page;
	struct ksm_ref ref;
	struct hash_plan *p;

	if (c->zero) {
		h->plan[h->nplan++] = (struct hash_plan){.page = c->page, .what = HASH_ZERO};
		return;
	}
	switch (ksm_index_find(k->domain, c->hash, &ref)) {
	case KSM_FRAME:
		/* Not live: somebody is filling it at this moment, or it is on its way out. */
		if (ksm_frame_get(k->domain, ksm_ref_payload(&ref)))
			return;
		p = &h->plan[h->nplan++];
		*p = (struct hash_plan){
			.page = c->page,
			.frame = ksm_ref_payload(&ref),
			.hash = c->hash,
			.what = HASH_JOIN,
		};
		return;
	case KSM_HINT:
		if (ksm_ref_payload(&ref) == me)
			return;
		p = &h->plan[h->nplan++];
		*p = (struct hash_plan){.page = c->page, .hash = c->hash, .what = HASH_MAKE};
		return;
	default:
		/* A full window of the index only means that this page waits for others. */
		(void)ksm_index_hint(k->domain, c->hash, me);
	}
}

/* Look at one window: [page, page + n) of one guest. */
static void scan_window(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
			uint64_t n)
{
	struct hash_guest *g = s->priv;
	struct ob_page view[HASH_WINDOW];
	uint8_t state[HASH_WINDOW];

	int r = ept_sync(s->g.ept, page, n, view);

	if (r) {
		/* Said aloud: else an engine that can read nothing looks like one that finds
		 * nothing. */
		k->st.sync_failed++;
		if (!h->sync_warned)
			ob_warn("guest %u: cannot see what backs its memory, not merged there: %s",
				s->g.vm, strerror(-r));
		h->sync_warned = true;
		return;
	}
	take_broken(k, h, s);
	ept_states(s->g.ept, page, n, state, NULL);
	h->ncand = h->nplan = 0;
	for (uint64_t i = 0; i < n; i++) {
		const void *at = hva_ptr(gmem_page_hva(s->g.ept->mem, page + i));
		uint32_t *last = &g->last[page + i], mark;
		struct hash_cand *c;

		if (state[i] != EPT_PRIVATE || !view[i].present) {
			*last = HASH_LAST_NONE;
			continue;
		}
		k->st.hashed_pages++;
		c = &h->cand[h->ncand];
		*c = (struct hash_cand){.page = (uint32_t)(page + i), .zero = ksm_page_is_zero(at)};
		if (!c->zero)
			c->hash = ksm_hash(k->domain, at);
		mark = c->zero ? HASH_LAST_ZERO : hash_mark(c->hash);
		if ((*last & ~HASH_LAST_HINTED) != mark) {
			*last = mark;
			continue;
		}
		k->st.candidates += !c->zero;
		h->ncand++;
	}
	if (!h->ncand || !hash_may_merge(k, h, s, page))
		return;
	for (unsigned int i = 0; i < h->ncand; i++)
		consider(k, h, s, &h->cand[i]);
	if (h->nplan)
		hash_merge(k, h, s);
}

/* The next window after the cursor. False: the pass is over (and the next one begins). */
static bool next_window(struct ksm *k, struct hash *h, struct ksm_slot **s, uint64_t *page,
			uint64_t *n)
{
	for (; h->slot < k->nslots; h->slot++, h->page = 0) {
		struct ksm_slot *at = &k->slot[h->slot];

		if (!at->used || h->page >= at->g.ept->pages)
			continue;
		if (!at->priv)
			hash_attach(k, at);
		*s = at;
		*page = h->page;
		*n = OB_MIN(HASH_WINDOW - h->page % HASH_WINDOW,
			    gmem_page_span(at->g.ept->mem, h->page));
		h->page += *n;
		return true;
	}
	h->slot = 0;
	h->page = 0;
	return false;
}

static uint64_t hash_step(struct ksm *k, uint64_t now_ns, uint64_t budget)
{
	struct hash *h = k->priv;
	struct ksm_slot *s;
	uint64_t page, n, pages = 0, merged;

	(void)now_ns;
	/* Hints first, but half of the step is left to the scan. */
	for (uint64_t done = hash_io_step(k, h, (budget + 1) / 2); done < budget; done += n) {
		if (next_window(k, h, &s, &page, &n)) {
			scan_window(k, h, s, page, n);
			continue;
		}
		k->st.passes++;
		merged = h->pass_merged;
		h->pass_merged = 0;
		vma_budget(k, h);
		for (unsigned int i = 0; i < k->nslots; i++)
			if (k->slot[i].used)
				pages += k->slot[i].g.ept->pages;
		/* The first pass only learns the hashes; the third is where first holders join. */
		if (k->st.passes >= 3 && merged <= LITTLE(pages))
			return k->opts.pass_gap_ns;
		return pages ? 0 : k->opts.pass_gap_ns;
	}
	return 0;
}

static uint64_t hash_hint_step(struct ksm *k, uint64_t budget)
{
	return hash_io_step(k, k->priv, budget);
}

const struct ksm_engine_ops ksm_engine_hash = {
	.name = "hash",
	.start = hash_start,
	.step = hash_step,
	.hint_step = hash_hint_step,
	.stop = hash_stop,
	.remove = hash_remove,
};
