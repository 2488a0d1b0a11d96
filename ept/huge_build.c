/* SPDX-License-Identifier: Apache-2.0 */
/*
 * huge_build.c: making a unit whole: one anonymous mapping, backed by one huge page.
 *
 * That is the kernel's work where it can (MADV_COLLAPSE, Linux 6.1): it copies the pages into a
 * huge one beside the running guest. It takes some milliseconds and is done without our lock, so
 * that faults elsewhere in the guest are answered meanwhile; whoever wants a part of the unit in
 * this time breaks it as ever, and the builder finds that out. What lies over the pool the kernel
 * does not collapse. Such a unit is frozen, copied, mapped anew, and copied back, and the first
 * touch of the new mapping makes the huge page. An older kernel's units are built like this, too.
 *
 * Faults of the unit must not come to us while its pages are copied back: this thread's would wait
 * for itself. So its window is closed first, which cannot be while a page of it is out. Nor does
 * the kernel collapse what a userfaultfd watches, if it has holes.
 */
#include <errno.h>
#include <string.h>

#include "ept/huge_int.h"

/* What the kernel made of the unit enters the map. Lock held. */
static int look(struct ept *e, uint64_t page)
{
	struct ob_page view[EPT_UNIT_PAGES];

	return ept_look(e, page, EPT_UNIT_PAGES, view);
}

/* Lock held: can it be built, and does any of it lie over the pool? */
static int buildable(struct ept *e, uint64_t page, bool *over_pool)
{
	int r = look(e, page);

	*over_pool = false;
	for (uint64_t p = page; p < page + EPT_UNIT_PAGES && !r; p++) {
		enum ept_state s = ept_entry_state(e->map[p]);

		if (ept_entry_staged(e->map[p]) ||
		    (s != EPT_PRIVATE && s != EPT_ZERO && s != EPT_UNTOUCHED))
			r = -EINVAL;
		*over_pool |= (e->map[p] & EPT_OVER_POOL) != 0;
	}
	/* Nothing of it is out, so this closes it. */
	if (!r && e->stage)
		ept_windows_close(e, page, EPT_UNIT_PAGES);
	return r;
}

static bool is_huge(struct ept *e, uint64_t page)
{
	uint8_t huge = 0;

	return !e->host->ops->huge_units(e->host, gmem_page_hva(e->mem, page), 1, &huge) && huge;
}

/* Lock held, and given up while the kernel works. */
static int collapse(struct ept *e, uint64_t unit)
{
	uint64_t page = unit * EPT_UNIT_PAGES;
	hva_t at = gmem_page_hva(e->mem, page);
	const struct ob_host_ops *ops = e->host->ops;
	struct ept_unit *u = &e->huge->unit[unit];
	int r = ops->huge(e->host, at, OB_HUGE_SIZE, true);

	if (r)
		return r;
	u->building = true;
	ob_unlock(&e->lock);
	r = ops->collapse(e->host, at, OB_HUGE_SIZE);
	ob_lock(&e->lock);
	if (!u->building)
		return -EAGAIN; /* somebody has broken it */
	u->building = false;
	if (!r)
		r = look(e, page);
	if (r)
		ops->huge(e->host, at, OB_HUGE_SIZE, false);
	else
		ept_unit_set_broken(e, unit, false);
	return r;
}

/* Frozen, lock held: what is in the unit goes to @copy, a new mapping takes its place, and it comes
 * back. */
static int map_anew(struct ept *e, uint64_t page, uint8_t *copy)
{
	hva_t at = gmem_page_hva(e->mem, page);
	bool full[EPT_UNIT_PAGES];
	int r, unwatched;

	for (uint64_t i = 0; i < EPT_UNIT_PAGES; i++) {
		if (ept_busy(e, page + i))
			return -EBUSY;
		full[i] = ept_entry_state(e->map[page + i]) == EPT_PRIVATE;
		if (full[i])
			memcpy(copy + i * OB_PAGE_SIZE, hva_ptr(gmem_page_hva(e->mem, page + i)),
			       OB_PAGE_SIZE);
	}
	r = ept_map_empty(e, page, EPT_UNIT_PAGES, &unwatched);
	if (r) {
		struct ob_page view[EPT_UNIT_PAGES];
		bool lost = e->host->ops->pages(e->host, at, EPT_UNIT_PAGES, view) != 0;

		for (uint64_t i = 0; i < EPT_UNIT_PAGES && !lost; i++)
			lost = full[i] && !ob_page_own(&view[i]);
		/* A kernel that takes the old mapping away before it fails leaves a hole. */
		if (lost)
			ept_lost(e, "the host has no mapping left for memory that was to be huge");
		return r;
	}
	/* Allowed before the first touch, which can then make all of it at once. */
	e->host->ops->huge(e->host, at, OB_HUGE_SIZE, true);
	for (uint64_t i = 0; i < EPT_UNIT_PAGES; i++) {
		ept_set(e, page + i, ept_entry(ept_entry_state(e->map[page + i]), 0, 0),
			EPT_BY_MERGE);
		if (full[i])
			memcpy(hva_ptr(gmem_page_hva(e->mem, page + i)), copy + i * OB_PAGE_SIZE,
			       OB_PAGE_SIZE);
	}
	r = look(e, page);
	if (!r && is_huge(e, page))
		ept_unit_set_broken(e, ept_unit_of(page), false);
	else
		e->host->ops->huge(e->host, at, OB_HUGE_SIZE, false);
	return r;
}

static int build_by_copy(struct ept *e, uint64_t unit)
{
	uint64_t page = unit * EPT_UNIT_PAGES;
	struct ob_host *h = e->host;
	bool over_pool;
	hva_t copy;
	int r = h->ops->ram_map(h, OB_HUGE_SIZE, "ob:build", &copy);

	if (r)
		return r;
	/* Its memory comes now, and not while the guest stands still. */
	h->ops->huge(h, copy, OB_HUGE_SIZE, true);
	memset(hva_ptr(copy), 0, OB_HUGE_SIZE);
	r = ept_freeze(e, page, EPT_UNIT_PAGES);
	if (!r) {
		ob_lock(&e->lock);
		r = buildable(e, page, &over_pool);
		if (!r)
			r = map_anew(e, page, hva_ptr(copy));
		ob_unlock(&e->lock);
		ept_thaw(e);
	}
	OB_ASSERT(!h->ops->unmap(h, copy, OB_HUGE_SIZE));
	return r;
}

/* Lock held. @copy: the kernel cannot do it where it is. */
static int build_in_place(struct ept *e, uint64_t unit, bool *copy)
{
	int r;

	*copy = false;
	if (ept_huge_now(e, unit * EPT_UNIT_PAGES))
		return 0;
	if (e->huge->unit[unit].building)
		return -EBUSY;
	r = buildable(e, unit * EPT_UNIT_PAGES, copy);
	if (r || *copy)
		return r;
	r = collapse(e, unit);
	*copy = r == -EOPNOTSUPP;
	return *copy ? 0 : r;
}

int ept_huge_build(struct ept *e, uint64_t unit)
{
	bool copy;
	int r;

	if (!e->huge || !ept_unit_whole(e, unit))
		return -ERANGE;
	ob_lock(&e->lock);
	ept_wait_thawed(e, unit * EPT_UNIT_PAGES, EPT_UNIT_PAGES);
	r = build_in_place(e, unit, &copy);
	ob_unlock(&e->lock);
	if (!r && copy)
		r = build_by_copy(e, unit);
	ob_lock(&e->lock);
	/* When no huge page came of it: now it lies so that the kernel can make one. */
	if (!r && copy) {
		ept_wait_thawed(e, unit * EPT_UNIT_PAGES, EPT_UNIT_PAGES);
		r = build_in_place(e, unit, &copy);
		r = !r && copy ? -ENOMEM : r;
	}
	e->huge->st.refused += r != 0;
	ob_unlock(&e->lock);
	return r;
}
