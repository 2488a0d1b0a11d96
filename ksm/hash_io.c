/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_io.c: pages that hints have named (io_hint.c) are merged without waiting for the scan.
 *
 * Of each such page that is private now:
 *
 *  - its origin names a frame: it joins that one, and is not even hashed.
 *  - else it is hashed. A frame of that content, found so, may be joined, and gets the origin as a
 *    name from then on. A hint of another page makes this one the second holder: it makes the frame
 *    (hash_merge.c). When the first holder is a guest of this cell, its page is looked at next, so
 *    that both are on the frame at once; one of another cell is asked to look again.
 *  - nothing of this content is known: a hint is left, as the scan would leave it.
 *
 * So the first guest to read a block of an image costs a hash, the second makes the frame, all others
 * are on it a moment after they have read; and copies of an image, which have other names, meet by
 * their content.
 *
 * As everywhere, what was found out beside the running guest only proposes, and the comparison in the
 * freeze decides: the guest may write to the page right after it was read, and the block may have
 * changed since the frame was named. In both cases the page stays as it is. A name that has led to a
 * page of another content goes, as it may be what is wrong, and the page is looked at once more,
 * without it; when it was the page that had changed, the next reader brings the name back.
 *
 * Pages of huge units are left to the scan, which weighs what breaking the unit is worth.
 */
#include <string.h>

#include "ksm/hash_engine.h"
#include "ksm/io_hint.h"

_Static_assert(KSM_IO_WINDOW == HASH_WINDOW, "runs are looked at in windows");

#define BATCH_RUNS 64

/* A page that is to be merged, while the plan is carried out. */
struct hash_io_page {
	uint64_t origin, hash;
	uint32_t page, frame; /* frame: of a JOIN */
	uint32_t first;	      /* fleet-wide page of the first holder, when this is a MAKE */
	uint8_t what;
	bool by_name;
};

struct hash_io {
	struct ksm *k;
	struct hash *h;
	struct ksm_slot *s;
	uint64_t written; /* for ksm_io_name */
	struct ksm_io_run run[BATCH_RUNS];
	unsigned int nrun;
	/* Of the window under work, by page: */
	bool named[HASH_WINDOW];
	uint64_t origin[HASH_WINDOW];
	struct ob_page view[HASH_WINDOW];
	uint8_t state[HASH_WINDOW];
	uint32_t frame[HASH_WINDOW];
	struct hash_io_page page[HASH_WINDOW];
	unsigned int npage;
};

/* Plan for one private page. */
static void plan(struct hash_io *w, uint32_t page, uint64_t origin)
{
	struct ksm_domain *d = w->k->domain;
	const void *at = hva_ptr(gmem_page_hva(w->s->g.ept->mem, page));
	uint64_t me = w->s->g.page_base + page;
	struct hash_io_page p = {.page = page, .origin = origin};
	enum ksm_kind kind = KSM_EMPTY;
	struct ksm_ref ref;

	if (origin != KSM_ORIGIN_NONE)
		kind = ksm_index_find(d, ksm_origin_key(d, origin), &ref);
	p.by_name = kind == KSM_FRAME && !ksm_frame_get(d, ksm_ref_payload(&ref));
	if (p.by_name) {
		p.what = HASH_JOIN;
		p.frame = ksm_ref_payload(&ref);
	} else if (ksm_page_is_zero(at)) {
		p.what = HASH_ZERO;
	} else {
		p.hash = ksm_hash(d, at);
		w->k->st.hashed_pages++;
		kind = ksm_index_find(d, p.hash, &ref);
		if (kind == KSM_EMPTY)
			(void)ksm_index_hint(d, p.hash, me);
		if (kind == KSM_EMPTY || (kind == KSM_HINT && ksm_ref_payload(&ref) == me))
			return;
		p.what = kind == KSM_FRAME ? HASH_JOIN : HASH_MAKE;
		p.frame = kind == KSM_FRAME ? ksm_ref_payload(&ref) : EPT_NO_FRAME;
		p.first = ksm_ref_payload(&ref);
		/* Not live: somebody is filling it at this moment, or it is on its way out. */
		if (kind == KSM_FRAME && ksm_frame_get(d, p.frame))
			return;
	}
	w->h->plan[w->h->nplan++] =
		(struct hash_plan){.page = page, .frame = p.frame, .hash = p.hash, .what = p.what};
	w->page[w->npage++] = p;
}

/* A frame was made: the page whose hint it was can join. */
static void tell_first(struct hash_io *w, uint64_t fleet_page)
{
	for (unsigned int i = 0; i < w->k->nslots; i++) {
		const struct ksm_slot *s = &w->k->slot[i];

		if (s->used && s->g.io && fleet_page >= s->g.page_base &&
		    fleet_page - s->g.page_base < s->g.ept->pages)
			ksm_io_look(s->g.io, fleet_page - s->g.page_base, KSM_ORIGIN_NONE);
	}
}

/* The plan was carried out: what has become of the page? */
static void conclude(struct hash_io *w, const struct hash_io_page *p, enum ept_state state,
		     uint32_t frame)
{
	struct ksm_domain *d = w->k->domain;
	struct ksm_io *io = w->s->g.io;
	struct ksm_ref ref;

	if (p->what == HASH_ZERO ? state == EPT_ZERO : state == EPT_SHARED) {
		w->k->st.io_merged++;
		if (p->what == HASH_ZERO)
			return;
		if (p->what == HASH_MAKE)
			tell_first(w, p->first);
		if (p->origin != KSM_ORIGIN_NONE && !p->by_name)
			ksm_io_name(io, frame, p->origin, w->written);
		return;
	}
	w->k->st.io_missed++;
	/* Each of these has something to do only so often as others have made a name or a frame. */
	if (p->by_name && ksm_index_remove(d, ksm_origin_key(d, p->origin), p->frame))
		ksm_io_look(io, p->page, p->origin);
	else if (p->what == HASH_MAKE && ksm_index_find(d, p->hash, &ref) == KSM_FRAME)
		ksm_io_look(io, p->page, p->origin);
}

/* Look at the pages of one window that are named, all of them in [first, end). */
static void look(struct hash_io *w, uint64_t first, uint64_t end)
{
	struct ept *e = w->s->g.ept;
	uint64_t n = end - first;
	int r;

	if (ept_unit_is_huge(e, first))
		return;
	r = ept_sync(e, first, n, w->view);
	if (r) {
		w->k->st.sync_failed++; /* the scan says it aloud */
		return;
	}
	ept_states(e, first, n, w->state, NULL);
	w->npage = w->h->nplan = 0;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t at = (first + i) % HASH_WINDOW;

		if (w->named[at] && w->state[i] == EPT_PRIVATE && w->view[i].present)
			plan(w, (uint32_t)(first + i), w->origin[at]);
	}
	if (!w->npage)
		return;
	hash_merge(w->k, w->h, w->s);
	ept_states(e, first, n, w->state, w->frame);
	for (unsigned int i = 0; i < w->npage; i++) {
		uint64_t at = w->page[i].page - first;

		conclude(w, &w->page[i], w->state[at], w->frame[at]);
	}
}

/* Of the runs that were taken, those of the first one's window: what was said last of a page counts.
 * Returns how many pages were named. */
static uint64_t look_window(struct hash_io *w)
{
	uint64_t window = w->run[0].page / HASH_WINDOW, first = UINT64_MAX, end = 0, pages = 0;
	unsigned int left = 0;

	memset(w->named, 0, sizeof(w->named));
	for (unsigned int i = 0; i < w->nrun; i++) {
		const struct ksm_io_run *r = &w->run[i];

		if (r->page / HASH_WINDOW != window) {
			w->run[left++] = *r;
			continue;
		}
		for (uint32_t j = 0; j < r->n; j++) {
			w->named[r->page % HASH_WINDOW + j] = true;
			w->origin[r->page % HASH_WINDOW + j] =
				r->origin == KSM_ORIGIN_NONE ? KSM_ORIGIN_NONE : r->origin + j;
		}
		first = OB_MIN(first, (uint64_t)r->page);
		end = OB_MAX(end, (uint64_t)r->page + r->n);
		pages += r->n;
	}
	w->nrun = left;
	/* A device names RAM only, but whoever else gives hints may be wrong. */
	end = OB_MIN(end, w->s->g.ept->pages);
	if (first < end)
		look(w, first, end);
	return pages;
}

/* Look at what waits for one guest, up to about @budget pages. Returns how many. */
static uint64_t look_guest(struct hash_io *w, uint64_t budget)
{
	struct ksm_io_counts count = {0};
	uint64_t done = 0;

	w->nrun = ksm_io_take(w->s->g.io, w->run, BATCH_RUNS, budget, &w->written, &count);
	w->k->st.io_hints += count.hints;
	w->k->st.io_dropped += count.dropped;
	w->k->st.io_void += count.voided;
	if (w->nrun && !w->s->priv)
		hash_attach(w->k, w->s);
	while (w->nrun)
		done += look_window(w);
	return done;
}

uint64_t hash_io_step(struct ksm *k, struct hash *h, uint64_t budget)
{
	struct hash_io w;
	uint64_t done = 0;

	w.k = k;
	w.h = h;
	/* Each guest has its turn, and a step ends in the middle of a round: the next goes on there. */
	for (unsigned int looked = 0; looked < k->nslots && done < budget; looked++) {
		h->io_slot = (h->io_slot + 1) % k->nslots;
		w.s = &k->slot[h->io_slot];
		if (!w.s->used || !w.s->g.io)
			continue;
		while (done < budget) {
			uint64_t n = look_guest(&w, budget - done);

			if (!n)
				break;
			done += n;
		}
	}
	return done;
}
