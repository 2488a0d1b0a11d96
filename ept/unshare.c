/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unshare.c: merging is undone: pages get memory of their own again, where they had it.
 *
 * What merging has done to a guest is two things. Pages lie over mappings of the pool: they show a
 * frame, or have broken off one. And pages of zeroes were dropped: there is a hole, or the kernel's
 * page of zeroes. Both are taken back here, so that the guest holds what it would hold had nothing
 * ever been merged, in as many mappings.
 *
 * Over the pool: the content is copied aside, an empty mapping takes the place of the pool's (the
 * kernel joins it with its neighbours), and the content is copied into it. In between there is a hole
 * in the guest. Nobody may see it, for the same reasons and with the same care as in share.c: the
 * pages are frozen, and e->lock is held from the first look to the last byte. A mapping that fails
 * leaves the page over the pool; where the kernel has taken the old mapping away all the same, it is
 * put back page by page.
 *
 * Dropped: the kernel gives memory to a page that reads as zeroes anyway. Which pages those are the
 * map knows (EPT_HELD): a page that its guest has only ever read never had any, and gets none.
 *
 * Where faults come to us a store of ours would wait for ourselves, so there a dropped page goes the
 * first way too: a new mapping is watched by nobody until it is registered again.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

enum undo {
	UNDO_NOTHING,
	UNDO_MAPPING, /* it lies over the pool, or where we would wait for ourselves */
	UNDO_DROP,
};

static enum undo undo_of(const struct ept *e, uint64_t page)
{
	uint32_t entry = e->map[page];

	if (ept_entry_tiered(entry) || ept_entry_staged(entry))
		return UNDO_NOTHING;
	if (entry & EPT_OVER_POOL)
		return UNDO_MAPPING;
	if (!ept_entry_dropped(entry))
		return UNDO_NOTHING;
	return ept_window_on(e, page) ? UNDO_MAPPING : UNDO_DROP;
}

/* Has this page content that a new mapping has to be filled with? */
static bool has_content(uint32_t entry)
{
	return ept_entry_state(entry) == EPT_SHARED || ept_entry_state(entry) == EPT_PRIVATE;
}

static uint8_t *copy_of(void *buf, uint64_t i)
{
	return (uint8_t *)buf + i * OB_PAGE_SIZE;
}

/* What the page is from now on. Who holds its frame is told. */
static void enter(struct ept *e, uint64_t page, bool unwatched, struct ept_unshared *out)
{
	uint32_t was = e->map[page], flag = unwatched ? EPT_OVER_POOL : 0;
	enum ept_state s = ept_entry_state(was);

	if (has_content(was) || ept_entry_dropped(was)) {
		ept_set(e, page, ept_entry(EPT_PRIVATE, 0, flag), EPT_BY_MERGE);
		out->pages += s == EPT_SHARED;
		out->zeroes += s == EPT_ZERO;
	} else {
		ept_set(e, page, ept_entry(s, 0, flag), EPT_BY_MERGE);
	}
	if (s == EPT_SHARED && e->broken)
		e->broken(e->broken_arg, page, ept_entry_payload(was));
}

/* A mapping of its own for [page, page + n), inside one window, with the copies in it. */
static int renew(struct ept *e, uint64_t page, uint64_t n, void *buf, struct ept_unshared *out)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	int r = h->ops->map_empty(h, at, n * OB_PAGE_SIZE, e->mem->name);
	bool unwatched;

	/* As in ept_map_empty: once the old mapping is gone there is room for the new one. */
	if (r)
		r = h->ops->map_empty(h, at, n * OB_PAGE_SIZE, e->mem->name);
	if (r)
		return r;
	for (uint64_t i = 0, run; i < n; i += run) {
		uint32_t entry = e->map[page + i];

		run = 1;
		if (!has_content(entry) && !ept_entry_dropped(entry))
			continue;
		while (i + run < n && (has_content(e->map[page + i + run]) ||
				       ept_entry_dropped(e->map[page + i + run])))
			run++;
		/* Where it fails, the stores below take one fault each, which cannot fail. */
		(void)h->ops->populate(h, hva(at.v + i * OB_PAGE_SIZE), run * OB_PAGE_SIZE);
		for (uint64_t k = i; k < i + run; k++)
			if (has_content(e->map[page + k]))
				memcpy(hva_ptr(hva(at.v + k * OB_PAGE_SIZE)), copy_of(buf, k),
				       OB_PAGE_SIZE);
	}
	unwatched = ept_window_on(e, page) && ept_watch(e, page, n);
	for (uint64_t i = 0; i < n; i++)
		enter(e, page + i, unwatched, out);
	return 0;
}

/* The mapping failed: pages that it has taken away all the same come back one by one. What the kernel
 * holds for a page does not tell: a dropped one has nothing in a mapping that is as it was. */
static void put_back(struct ept *e, uint64_t page, uint64_t n, void *buf, struct ept_unshared *out)
{
	for (uint64_t i = 0; i < n; i++) {
		if (e->host->ops->mapped(e->host, gmem_page_hva(e->mem, page + i), OB_PAGE_SIZE))
			continue;
		if (renew(e, page + i, 1, copy_of(buf, i), out)) {
			ept_lost(e, "the host has no mapping left for a page that was shared");
			return;
		}
	}
}

static int unshare_run(struct ept *e, uint64_t page, uint64_t n, void *buf,
		       struct ept_unshared *out)
{
	int r;

	for (uint64_t i = 0; i < n; i++)
		if (has_content(e->map[page + i]))
			memcpy(copy_of(buf, i), hva_ptr(gmem_page_hva(e->mem, page + i)),
			       OB_PAGE_SIZE);
	r = renew(e, page, n, buf, out);
	if (r)
		put_back(e, page, n, buf, out);
	return r;
}

static int refill_run(struct ept *e, uint64_t page, uint64_t n, struct ept_unshared *out)
{
	struct ob_host *h = e->host;
	int r = h->ops->populate(h, gmem_page_hva(e->mem, page), n * OB_PAGE_SIZE);

	/* What got memory before it failed a sync finds. */
	for (uint64_t i = 0; i < n && !r; i++)
		enter(e, page + i, false, out);
	return r;
}

int ept_unshare(struct ept *e, uint64_t page, uint64_t n, void *buf, struct ept_unshared *out)
{
	struct ob_page view[EPT_UNSHARE_PAGES];
	int r = 0;

	if (!ept_range_ok(e, page, n) || n > EPT_UNSHARE_PAGES || n > gmem_page_span(e->mem, page))
		return -ERANGE;
	ob_lock(&e->lock);
	if (!e->frozen_n || page < e->frozen_page || page + n > e->frozen_page + e->frozen_n)
		r = -EBUSY;
	if (!r)
		r = ept_look(e, page, n, view);
	for (uint64_t i = 0, run; i < n && !r; i += run) {
		enum undo what = undo_of(e, page + i);
		uint64_t most = OB_MIN(n - i, EPT_WINDOW - (page + i) % EPT_WINDOW);

		run = 1;
		if (what == UNDO_NOTHING)
			continue;
		if (ept_busy(e, page + i)) {
			out->left++;
			continue;
		}
		while (run < most && undo_of(e, page + i + run) == what &&
		       !ept_busy(e, page + i + run))
			run++;
		r = what == UNDO_DROP ? refill_run(e, page + i, run, out)
				      : unshare_run(e, page + i, run, buf, out);
	}
	ob_unlock(&e->lock);
	return r;
}

uint64_t ept_unshare_wanted(struct ept *e, uint64_t page, uint64_t n)
{
	uint64_t wanted = 0;

	if (!ept_range_ok(e, page, n))
		return 0;
	ob_lock(&e->lock);
	for (uint64_t p = page; p < page + n; p++)
		wanted += undo_of(e, p) != UNDO_NOTHING;
	ob_unlock(&e->lock);
	return wanted;
}
