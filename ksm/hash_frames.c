/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_frames.c: the pool's side of merging: reading frames to compare with, and making new ones.
 *
 * **Reading.** All of the pool is mapped once more, for reading only, and frames are compared where they
 * are. Reading them into a buffer costs 1.0 to 1.5 us a page, the comparison included; in place it is
 * 0.3 to 0.5 us, and 1 us when a page of the view is touched for the first time, which happens outside
 * of any pause and once for all guests of a cell. The view costs the tables to map it, 8 bytes a frame
 * that was looked at, and is given back when a pass found nothing to merge. Only frames that are live or
 * ours are looked at: touching one that was never written would give it memory. Where the view cannot be
 * mapped, frames are read.
 *
 * **Making.** A new frame is filled while the guest runs: a copy is taken of a page that may change at
 * this moment. The copy holds still. If it has the hash that the index promises for it, it is a good
 * frame, whatever the page is by now; whether the page is still equal is seen when it is frozen, as with
 * any frame. So the 2.3 us that a page takes to be written are not part of the pause.
 *
 * Where its frame lies decides whether a page becomes part of a run. Neighbours get neighbouring frames,
 * and if the page before is shared, then the frames after that one are tried first: a page that changes
 * from one shared content to another stays in its run, and a file that goes on in the next window too.
 */
#include <errno.h>
#include <string.h>

#include "ksm/hash_engine.h"

const uint8_t *hash_frames(struct ksm *k, struct hash *h, uint32_t frame, unsigned int n)
{
	if (h->view)
		return h->view + (uint64_t)frame * OB_PAGE_SIZE;
	OB_ASSERT(n <= HASH_COMPARE_PAGES);
	if (!h->scratch) /* not before it is needed: with a view it never is */
		h->scratch = ob_alloc(k->arena, HASH_COMPARE_PAGES * OB_PAGE_SIZE);
	if (k->host->ops->file_read(k->host, k->domain->pool_fd, h->scratch, n * OB_PAGE_SIZE,
				    (uint64_t)frame * OB_PAGE_SIZE))
		return NULL;
	return h->scratch;
}

void hash_view_open(struct ksm *k, struct hash *h)
{
	const void *p;

	if (!h->view && !k->host->ops->map_view(k->host, k->domain->pool_fd,
						k->domain->frames * OB_PAGE_SIZE, &p))
		h->view = p;
}

void hash_view_close(struct ksm *k, struct hash *h)
{
	if (h->view)
		k->host->ops->unmap(k->host, hva((uint64_t)(uintptr_t)h->view),
				    k->domain->frames * OB_PAGE_SIZE);
	h->view = NULL;
}

void hash_forget(struct ksm *k, struct hash_plan *p)
{
	if (p->frame == EPT_NO_FRAME)
		return;
	if (p->what == HASH_JOIN) {
		ksm_frame_put(k->domain, p->frame);
	} else if (p->what == HASH_MAKE) {
		ksm_index_remove(k->domain, p->hash, p->frame);
		ksm_frame_abandon(k->domain, p->frame, 1);
	}
	p->frame = EPT_NO_FRAME;
}

/* The frame that would continue the page before @p; EPT_NO_FRAME: none would. */
static uint32_t next_frame(const struct hash *h, const struct hash_plan *p)
{
	uint32_t left = h->ground.edge[p->page - h->ground.first]
				? EPT_NO_FRAME
				: h->ground.frame[p->page - h->ground.first];

	if (p > h->plan && p[-1].page + 1 == p->page && p[-1].what != HASH_ZERO)
		left = p[-1].frame;
	return left == EPT_NO_FRAME ? left : left + 1;
}

/*
 * Claim the frames [first, first + n), ours, for the pages from @p on. Each is claimed in the index
 * while it is being filled, so that other cells wait for it and do not fill their own; should this cell
 * die, a frame that never went live is swept out of the index.
 */
static void claim(struct ksm *k, struct hash_plan *p, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct ksm_ref ref;

		/* Look again: equal pages within this plan, or another cell, may have been first. */
		if (ksm_index_find(k->domain, p[i].hash, &ref) == KSM_HINT &&
		    ksm_index_claim(k->domain, &ref, first + i)) {
			p[i].other = ksm_ref_payload(&ref);
			p[i].frame = first + i;
		} else {
			ksm_frame_abandon(k->domain, first + i, 1);
		}
	}
}

/* Fill the frames of @n neighbours, which are neighbours themselves. */
static void fill(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
		 unsigned int n)
{
	const void *from = hva_ptr(gmem_page_hva(s->g.ept->mem, p->page));
	const uint8_t *frames = NULL;
	int r = h->full ? -ENOSPC
			: k->host->ops->file_write(k->host, k->domain->pool_fd, from,
						   n * OB_PAGE_SIZE,
						   (uint64_t)p->frame * OB_PAGE_SIZE);

	if (!r)
		frames = hash_frames(k, h, p->frame, n);
	if (r && !h->full) {
		/* The pool's file system is full, or the host is out of memory for it: for all frames of this
		 * pass. Of a page that cannot be read (-EFAULT) that is not said. */
		h->full = r != -EFAULT;
		if (!h->fill_warned)
			ob_warn("the pool takes no more frames (%s), merging less", strerror(-r));
		h->fill_warned = true;
	}
	if (r) {
		k->st.fill_failed += n;
		hash_defer(k, s, p, n);
		h->retry += n;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (frames && ksm_hash(k->domain, frames + i * OB_PAGE_SIZE) == p[i].hash)
			continue;
		k->st.compare_failed += frames != NULL;
		hash_forget(k, &p[i]);
	}
}

/* Frames for @n neighbours that are second holders. Returns for how many it could say: all, or fewer
 * when the pool is full. */
static uint32_t make_some(struct ksm *k, struct hash *h, struct hash_plan *p, uint32_t n)
{
	uint32_t first = next_frame(h, p), got = 0;

	if (first != EPT_NO_FRAME)
		got = ksm_frame_alloc_at(k->domain, first, n);
	if (!got)
		got = ksm_frame_alloc(k->domain, n, &first);
	if (got)
		claim(k, p, first, got);
	return got;
}

void hash_make_frames(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_plan *p = h->plan, *end = h->plan + h->nplan;

	for (unsigned int i = 0; i < h->nplan; i++)
		if (p[i].what == HASH_MAKE)
			p[i].frame = EPT_NO_FRAME;
	while (p < end) {
		uint32_t want = 0, got;

		if (p->what != HASH_MAKE) {
			p++;
			continue;
		}
		while (p + want < end && p[want].what == HASH_MAKE &&
		       p[want].page == p->page + want)
			want++;
		got = h->full ? 0 : make_some(k, h, p, want);
		if (!got) {
			/* The pool is full: these pages stay as they are. */
			k->st.fill_failed += want;
			hash_defer(k, s, p, want);
			h->retry += want;
			got = want;
		}
		p += got;
	}
	for (p = h->plan; p < end;) {
		unsigned int n = 1;

		if (p->what != HASH_MAKE || p->frame == EPT_NO_FRAME) {
			p++;
			continue;
		}
		while (p + n < end && n < HASH_COMPARE_PAGES && p[n].what == HASH_MAKE &&
		       p[n].page == p->page + n && p[n].frame == p->frame + n)
			n++;
		fill(k, h, s, p, n);
		p += n;
	}
}
