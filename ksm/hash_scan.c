/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_scan.c: which pages are looked at, and when.
 *
 * A scanner that goes round all memory costs by its size, for ever. This one asks the guest's tracker
 * (ept/track.h) what was written since the pass before, and looks at nothing else:
 *
 *	settled ──written──► pending ──held still for a pass──► hashed, a candidate ──► settled
 *	                     ▲     │
 *	                     └─────┘ written again
 *
 * A page that was written is only noted, not hashed: it will be written again in a moment, more often
 * than not. When a pass finds that it was not, it held still since the pass before, and is hashed:
 * once for each time that it is written and comes to rest, however large the guest is. It is a
 * candidate at once, as the tracker says what comparing two hashes would: that it did not change.
 *
 * The tracker may say "written" of a page that was not. Above all does a merge make the guest's next
 * reads near by look like writes (docs/tracking.md), and in a window where merging goes on that could
 * keep pages pending for ever. So a page that is reported twice in a row is hashed all the same, and
 * is a candidate if some bits of its hash are those of the time before, whatever the tracker says.
 *
 * Pages that change all the time have their *heat* raised each time that they are found changed, and
 * one of heat h is looked at in every 2^h-th such pass only; each time that it comes to rest its heat goes
 * down. So what is volatile costs next to nothing and stays out of the index.
 *
 * A third reason to look at a page, beside "written" and "pending", is that somebody asks for it: the
 * cell that made a frame of this page's content, which it knew of by the hint that we left
 * (ksm_again_ask). It has not been written since, so it is a candidate.
 *
 * Where nothing tracks a page (no dirty log, memory slots whose log is off because huge pages live
 * there), all of it counts as written in each pass; then it is the hashes of two passes that are
 * compared, at the cost of all that memory a pass. Slots of guests with huge pages are tracked while
 * no huge page is in them (track_slots): the log would have KVM map it in small pages.
 *
 * How often. To collect is to write-protect what was written, so each page that is written in every
 * interval costs its guest a fault, some 3 us, in each. Intervals are therefore stretched until that
 * is at most a hundredth of the guest's time. A pass that comes earlier, because other guests are due
 * or to follow up on what the last one merged, does not collect here; it only looks at what was asked
 * for.
 */
#include <string.h>

#include "ksm/cost.h"
#include "ksm/hash_engine.h"

/* A page has held still when it was not written for so long. Less, while the guest is new. */
#define YOUNG_COLLECTS 3
#define YOUNG_GAP_NS   (100 * OB_NS_PER_MS)
/* A page written again after a collect costs its guest so long; and what part of its time that may
 * be. */
#define REWRITE_NS     3000
#define REWRITE_PART   100
#define COLLECT_MAX_NS (4 * OB_NS_PER_SEC)
/* Pages to be looked at that are so near are read from the kernel's page map in one call. */
#define SYNC_GAP 8

static bool bit_get(const uint64_t *map, uint64_t i)
{
	return map[i / 64] >> (i & 63) & 1;
}

static void bit_put(uint64_t *map, uint64_t i, bool v)
{
	map[i / 64] = (map[i / 64] & ~(1ULL << (i & 63))) | (uint64_t)v << (i & 63);
}

static uint16_t hash_mark(uint64_t hash)
{
	uint16_t low = hash & HASH_LAST_MARK;

	return low > HASH_LAST_ZERO ? low : (uint16_t)(low + 2);
}

static unsigned int heat_of(uint16_t last)
{
	return last >> HASH_HEAT_SHIFT;
}

static void heat_set(uint16_t *last, unsigned int heat)
{
	*last = (uint16_t)((*last & ((1u << HASH_HEAT_SHIFT) - 1)) | heat << HASH_HEAT_SHIFT);
}

static void mark_set(uint16_t *last, uint16_t mark)
{
	*last = (uint16_t)((*last & ~HASH_LAST_MARK & ~HASH_LAST_HINTED) | mark);
}

/* Is any unit of [page, page + n) one huge page? */
static bool any_huge(struct ept *e, uint64_t page, uint64_t n)
{
	for (uint64_t p = page; p < page + n; p += EPT_UNIT_PAGES - p % EPT_UNIT_PAGES)
		if (ept_unit_is_huge(e, p))
			return true;
	return false;
}

/* Track the slots that hold no huge page, and no others. */
static void track_slots(struct ksm_slot *s)
{
	const struct gmem *m = s->g.ept->mem;

	for (unsigned int i = 0; i < m->nslots; i++) {
		uint64_t page = m->slot[i].first_page, n = m->slot[i].pages;
		bool on = ept_track_known(s->g.track, page), want;

		want = !ept_huge_on(s->g.ept) || !any_huge(s->g.ept, page, n);
		/* Where KVM refuses, the slot counts as written in each pass. */
		if (want && !on)
			(void)ept_track_on(s->g.track, page, n);
		else if (!want && on)
			(void)ept_track_off(s->g.track, page, n);
	}
}

void hash_scan_begin(struct ksm *k, struct ksm_slot *s, uint64_t now_ns)
{
	struct hash_guest *g = s->priv;

	g->rewritten = 0;
	g->judging = g->consumer < 0 || now_ns >= g->collect_ns;
	if (!g->judging)
		return;
	if (g->consumer < 0) {
		g->collects++;
		return;
	}
	if (!g->collects || ept_huge_on(s->g.ept))
		track_slots(s);
	/* A log that cannot be read reports all its pages: they are looked at for nothing. */
	if (ept_track_collect(s->g.track))
		k->st.sync_failed++;
	g->collects++;
}

void hash_scan_end(struct ksm *k, struct ksm_slot *s, uint64_t now_ns)
{
	struct hash_guest *g = s->priv;
	uint64_t gap = k->opts.pass_gap_ns;

	if (g->consumer < 0 || !g->judging)
		return;
	if (g->collects <= YOUNG_COLLECTS)
		gap = OB_MIN(gap, YOUNG_GAP_NS);
	/* The first collect of a log reports everything: that is no measure. */
	else
		gap = OB_MAX(gap, OB_MIN(g->rewritten * REWRITE_NS * REWRITE_PART, COLLECT_MAX_NS));
	g->collect_ns = now_ns + gap;
	/* All guests at the same moments: to wake up for each costs more than to look at one more. */
	if (g->collects > YOUNG_COLLECTS)
		g->collect_ns = (g->collect_ns + k->opts.pass_gap_ns / 2) / k->opts.pass_gap_ns *
				k->opts.pass_gap_ns;
}

/*
 * Which pages of the window to hash now: their numbers within it in @list. A page whose bit is set in
 * @still was not written since the pass before.
 */
static unsigned int choose(struct ksm *k, struct ksm_slot *s, uint64_t page, uint64_t n,
			   uint16_t *list, uint64_t *still)
{
	struct hash_guest *g = s->priv;
	uint64_t dirty[HASH_WORDS] = {0}, asked[HASH_WORDS] = {0};
	bool tracked = g->consumer >= 0 && ept_track_known(s->g.track, page);
	unsigned int count = 0;

	OB_ASSERT(page % 64 == 0); /* as regions and slots begin */
	if (g->judging && g->consumer >= 0)
		ept_track_take(s->g.track, g->consumer, page, n, dirty, NULL);
	else if (g->judging)
		memset(dirty, 0xff, sizeof(dirty));
	ksm_again_take(k->domain, s->g.page_base + page, n, asked);
	for (uint64_t w = 0; w * 64 < n; w++) {
		uint64_t pend = g->pending[page / 64 + w], work;

		if (n - w * 64 < 64)
			dirty[w] &= (1ULL << (n & 63)) - 1;
		work = dirty[w] | asked[w] | (g->judging ? pend : 0);
		if (tracked) {
			k->st.dirty_pages += (unsigned int)__builtin_popcountll(dirty[w]);
			g->rewritten += (unsigned int)__builtin_popcountll(dirty[w]);
		}
		k->st.asked_pages += (unsigned int)__builtin_popcountll(asked[w]);
		for (; work; work &= work - 1) {
			unsigned int bit = (unsigned int)__builtin_ctzll(work);
			uint64_t i = w * 64 + bit;
			uint16_t *last = &g->last[page + i];
			bool is_dirty = dirty[w] >> bit & 1, was = pend >> bit & 1;

			if (tracked && is_dirty && !was) {
				/* Written: it is looked at when it has come to rest. */
				bit_put(g->pending, page + i, true);
				mark_set(last, HASH_LAST_NONE);
				continue;
			}
			/* Asked for, or its turn by its heat. */
			if (!(asked[w] >> bit & 1) && heat_of(*last) &&
			    g->collects & ((1u << heat_of(*last)) - 1))
				continue;
			bit_put(still, i, !is_dirty);
			list[count++] = (uint16_t)i;
		}
	}
	return count;
}

/* Have the kernel's view of the listed pages, in runs. */
static int look(struct ksm_slot *s, uint64_t page, const uint16_t *list, unsigned int count,
		struct ob_page *view)
{
	for (unsigned int i = 0, j; i < count; i = j) {
		int r;

		for (j = i + 1; j < count && list[j] - list[j - 1] <= SYNC_GAP;)
			j++;
		r = ept_sync(s->g.ept, page + list[i], (uint64_t)list[j - 1] - list[i] + 1,
			     view + list[i]);
		if (r)
			return r;
	}
	return 0;
}

/* The hash of one page: what has become of it? Adds it to the candidates if it held still. */
static void examine(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page, bool still)
{
	struct hash_guest *g = s->priv;
	const void *at = hva_ptr(gmem_page_hva(s->g.ept->mem, page));
	uint16_t *last = &g->last[page], mark;
	struct hash_cand *c = &h->cand[h->ncand];

	k->st.hashed_pages++;
	*c = (struct hash_cand){.page = (uint32_t)page, .zero = ksm_page_is_zero(at)};
	if (!c->zero)
		c->hash = ksm_hash(k->domain, at);
	mark = c->zero ? HASH_LAST_ZERO : hash_mark(c->hash);
	if (!still && (*last & HASH_LAST_MARK) != mark) {
		/* The first look at a page says nothing about it. */
		if ((*last & HASH_LAST_MARK) != HASH_LAST_NONE) {
			k->st.volatile_pages++;
			heat_set(last, OB_MIN(heat_of(*last) + 1, HASH_HEAT_MAX));
		}
		mark_set(last, mark);
		bit_put(g->pending, page, true);
		return;
	}
	if ((*last & HASH_LAST_MARK) != mark)
		mark_set(last, mark);
	heat_set(last, heat_of(*last) ? heat_of(*last) - 1 : 0);
	bit_put(g->pending, page, false);
	k->st.candidates += !c->zero;
	h->ncand++;
}

void hash_consider(struct ksm *k, struct hash *h, struct ksm_slot *s, const struct hash_cand *c)
{
	struct hash_guest *g = s->priv;
	uint64_t me = s->g.page_base + c->page;
	struct ksm_ref ref;

	if (c->zero) {
		h->plan[h->nplan++] = (struct hash_plan){.page = c->page, .what = HASH_ZERO};
		return;
	}
	switch (ksm_index_find(k->domain, c->hash, &ref)) {
	case KSM_FRAME:
		/* Not live: somebody is filling it at this moment, or it is on its way out. */
		if (ksm_frame_get(k->domain, ksm_ref_payload(&ref))) {
			bit_put(g->pending, c->page, true);
			return;
		}
		if (hash_revert_add(k, h, s, c->page, ksm_ref_payload(&ref)))
			return;
		h->plan[h->nplan++] = (struct hash_plan){
			.page = c->page,
			.frame = ksm_ref_payload(&ref),
			.hash = c->hash,
			.what = HASH_JOIN,
		};
		return;
	case KSM_HINT:
		if (ksm_ref_payload(&ref) == me)
			return;
		h->plan[h->nplan++] =
			(struct hash_plan){.page = c->page, .hash = c->hash, .what = HASH_MAKE};
		return;
	default:
		/* A full window of the index only means that this page waits for others. */
		(void)ksm_index_hint(k->domain, c->hash, me);
	}
}

/*
 * Merging was planned for these pages. Those that are private still are looked at again, later each
 * time: another page of this window was first, the pool is full, mappings have run out, or the page
 * has changed.
 */
static void look_again(struct hash_guest *g, struct ksm_slot *s, const uint64_t *planned,
		       uint64_t page, uint64_t n)
{
	uint8_t state[HASH_WINDOW];

	ept_states(s->g.ept, page, n, state, NULL);
	for (uint64_t i = 0; i < n; i++) {
		uint16_t *last = &g->last[page + i];

		if (!bit_get(planned, i))
			continue;
		if (state[i] != EPT_PRIVATE) {
			mark_set(last, HASH_LAST_NONE);
			continue;
		}
		/* It waits for the end of a pass (hash_defer.c). */
		if (g->defer.bits && bit_get(g->defer.bits, page + i))
			continue;
		bit_put(g->pending, page + i, true);
		heat_set(last, OB_MIN(heat_of(*last) + 1, HASH_HEAT_MAX));
	}
}

uint64_t hash_scan_window(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
			  uint64_t n)
{
	struct hash_guest *g = s->priv;
	uint64_t still[HASH_WORDS] = {0}, planned[HASH_WORDS] = {0};
	struct ob_page view[HASH_WINDOW];
	uint8_t state[HASH_WINDOW];
	uint16_t list[HASH_WINDOW];
	uint64_t broken = k->st.broken, hashed;
	struct ksm_stopwatch watch;
	unsigned int count;
	int r;

	watch = ksm_cost_begin(k->host, &k->st,
			       ksm_cost_sampled(s->g.page_base + page + g->collects));
	count = choose(k, s, page, n, list, still);
	ksm_cost_add(&watch, KSM_COST_SKIP, n - count);
	if (!count)
		return 0;
	r = look(s, page, list, count, view);
	if (r) {
		for (unsigned int i = 0; i < count; i++)
			bit_put(g->pending, page + list[i], true);
		/* Said aloud: else an engine that can read nothing looks like one that finds
		 * nothing. */
		k->st.sync_failed++;
		if (!h->sync_warned)
			ob_warn("guest %u: cannot see what backs its memory, not merged there: %s",
				s->g.vm, strerror(-r));
		h->sync_warned = true;
		return count;
	}
	ksm_cost_add(&watch, KSM_COST_SYNC, count);
	hash_take_broken(k, h, s);
	ksm_cost_add(&watch, KSM_COST_RELEASE, k->st.broken - broken);
	ept_states(s->g.ept, page, n, state, NULL);
	h->ncand = h->nplan = 0;
	hashed = k->st.hashed_pages;
	for (unsigned int i = 0; i < count; i++) {
		if (state[list[i]] == EPT_PRIVATE && view[list[i]].present) {
			examine(k, h, s, page + list[i], bit_get(still, list[i]));
			continue;
		}
		mark_set(&g->last[page + list[i]], HASH_LAST_NONE);
		/* What is out for a moment comes back without being written. */
		bit_put(g->pending, page + list[i], state[list[i]] == EPT_PRIVATE);
	}
	ksm_cost_add(&watch, KSM_COST_HASH, k->st.hashed_pages - hashed);
	if (!h->ncand || !hash_may_merge(k, h, s, page))
		return count;
	ksm_cost_add(&watch, KSM_COST_LOOK, 0);
	for (unsigned int i = 0; i < h->ncand; i++)
		hash_consider(k, h, s, &h->cand[i]);
	ksm_cost_add(&watch, KSM_COST_LOOK, h->ncand);
	if (!h->nplan)
		return count;
	for (unsigned int i = 0; i < h->nplan; i++)
		bit_put(planned, h->plan[i].page - page, true);
	hash_merge(k, h, s);
	look_again(g, s, planned, page, n);
	return count;
}
