/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_engine.c: merging by content hash.
 *
 * The scanner of a cell goes round its guests' pages in windows of 2 MiB, and of each window looks at
 * the pages that were written and have come to rest since (hash_scan.c). It hashes them beside the
 * running guest: they are candidates. What a candidate becomes is decided by the index of its domain:
 *
 *  - nothing of this content known: a *hint* is left, "page P has it". The page stays writable.
 *  - a hint of another page: this is the second holder. It claims the hint for a new frame, puts
 *    its own copy in, and maps it. The first holder is asked to look at its page again, finds the
 *    frame on its next pass, and joins. So no cell ever reads a page of another: content goes
 *    through the pool only.
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

/* A pass that merged less than this part of its pages has found little: rest before the next. */
#define LITTLE(pages) ((pages) / 256)

/* What a window costs where nothing is to be done, in pages looked at. */
#define IDLE_WINDOW 4

/* --inject skip-compare needs equal hashes of different pages: keep so few bits that some come,
 * but not so many that guests lose their own code before they can tell. */
#define INJECT_HASH_BITS 20

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

void hash_take_broken(struct ksm *k, struct hash *h, struct ksm_slot *s)
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
	g->pending = ob_alloc(k->arena, (s->g.ept->pages + 63) / 64 * sizeof(g->pending[0]));
	g->consumer = s->g.track ? ept_track_consumer_add(s->g.track) : -1;
	s->priv = g;
	ept_on_broken(s->g.ept, on_broken, g);
	if (k->opts.budget)
		ksm_budget_burst(k->opts.budget, k->host->ops->now_ns(k->host), s->g.ept->pages);
}

static void hash_remove(struct ksm *k, unsigned int slot)
{
	struct ksm_slot *s = &k->slot[slot];
	struct hash_guest *g = s->priv;
	struct hash *h = k->priv;

	/* Who gets this place is looked at from his first page on. */
	if (h && h->slot == slot)
		h->page = 0;
	if (!g)
		return;
	if (h && h->revert.slot == slot)
		hash_revert_drop(k, h);
	ept_on_broken(s->g.ept, NULL, NULL);
	hash_take_broken(k, NULL, s);
	if (g->consumer >= 0) {
		/* The log costs the guest a fault for each page that it writes: only while used. */
		(void)ept_track_off(s->g.track, 0, s->g.ept->pages);
		ept_track_consumer_remove(s->g.track, g->consumer);
	}
	ob_mutex_destroy(&g->lock);
	hash_defer_exit(g);
	ob_free(k->arena, g->pending);
	ob_free(k->arena, g->last);
	ob_free(k->arena, g);
	s->priv = NULL;
}

static int hash_start(struct ksm *k, struct ob_err *e)
{
	struct hash *h;

	if (!k->domain)
		return ob_fail(e, EINVAL, "engine hash needs a sharing domain");
	h = ob_alloc(k->arena, sizeof(*h));
	if (k->opts.inject & KSM_INJECT_SKIP_COMPARE)
		ksm_domain_hash_bits(k->domain, INJECT_HASH_BITS);
	hash_merge_init(k, h);
	k->priv = h;
	/* Once more: what was taken back since (unmerge.c) looks as if it had been seen. */
	for (unsigned int i = 0; i < k->nslots; i++) {
		struct hash_guest *g = k->slot[i].priv;

		for (uint64_t p = 0; g && p < k->slot[i].g.ept->pages; p++)
			g->pending[p / 64] |= 1ULL << (p & 63);
	}
	return 0;
}

static void hash_stop(struct ksm *k)
{
	struct hash *h = k->priv;

	if (!h)
		return;
	hash_revert_drop(k, h);
	hash_merge_exit(k, h);
	ob_free(k->arena, h);
	k->priv = NULL;
}

/* The next window after the cursor. False: the pass is over (and the next one begins). */
static bool next_window(struct ksm *k, struct hash *h, uint64_t now_ns, struct ksm_slot **s,
			uint64_t *page, uint64_t *n)
{
	for (; h->slot < k->nslots; h->slot++, h->page = 0) {
		struct ksm_slot *at = &k->slot[h->slot];

		if (!at->used)
			continue;
		if (!at->priv)
			hash_attach(k, at);
		if (!h->page)
			hash_scan_begin(k, at, now_ns);
		if (h->page >= at->g.ept->pages) {
			hash_revert_flush(k, h);
			hash_scan_end(k, at, now_ns);
			continue;
		}
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

/* A pass is over: how long to rest? */
static uint64_t pass_end(struct ksm *k, struct hash *h, uint64_t now_ns)
{
	uint64_t pages = 0, rest = k->opts.pass_gap_ns;
	bool little;

	for (unsigned int i = 0; i < k->nslots; i++)
		if (k->slot[i].used)
			pages += k->slot[i].g.ept->pages;
	hash_merge_pass_end(k, h, now_ns);
	hash_revert_flush(k, h);
	k->st.passes++;
	little = h->pass_merged <= LITTLE(pages);
	h->pass_merged = 0;
	/* Where much was merged, first holders have been asked to join: do so at once. */
	if (pages && !little)
		return 0;
	for (unsigned int i = 0; i < k->nslots; i++) {
		const struct hash_guest *g = k->slot[i].priv;

		if (!k->slot[i].used || !g)
			continue;
		/* Without a tracker the first pass only learns the hashes, and the second merges. */
		if (g->consumer < 0)
			rest = k->st.passes < 3 ? 0 : rest;
		else
			rest = OB_MIN(rest, g->collect_ns > now_ns ? g->collect_ns - now_ns : 0);
	}
	return rest;
}

static uint64_t hash_step(struct ksm *k, uint64_t now_ns, uint64_t budget)
{
	struct hash *h = k->priv;
	struct ksm_slot *s;
	uint64_t page, n;

	/* Hints first, but half of the step is left to the scan. */
	for (uint64_t done = hash_io_step(k, h, (budget + 1) / 2); done < budget;
	     done += IDLE_WINDOW) {
		if (!next_window(k, h, now_ns, &s, &page, &n))
			return pass_end(k, h, now_ns);
		done += hash_scan_window(k, h, s, page, n);
	}
	return 0;
}

static uint64_t hash_hint_step(struct ksm *k, uint64_t budget)
{
	return hash_io_step(k, k->priv, budget);
}

static void hash_release(struct ksm *k, struct ksm_slot *s)
{
	if (s->priv)
		hash_take_broken(k, NULL, s);
}

const struct ksm_engine_ops ksm_engine_hash = {
	.name = "hash",
	.merges = true,
	.release = hash_release,
	.start = hash_start,
	.step = hash_step,
	.hint_step = hash_hint_step,
	.stop = hash_stop,
	.remove = hash_remove,
};
