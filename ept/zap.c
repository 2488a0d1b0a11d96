/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zap.c: emptying page-table entries whose content is kept elsewhere, to see who fills them again.
 *
 * A shared page is in the pool, a zero page is nothing: their entries in the page tables can be
 * dropped, and the kernel fills them anew at the next touch, by itself and without a copy. Whether
 * it has shows in the page map. So such pages can be sampled without taking or unsharing them.
 *
 * The danger is the write that comes first. A shared page that was broken off its frame a moment
 * ago looks as before in our map, and dropping it would bring the frame back to light and lose the
 * write. So the guest is parked, devices are kept off, and what the kernel says is looked at again
 * before each batch is dropped.
 *
 * And the neighbours. When a page of a file is read, the kernel maps those around it as well where
 * they are in memory, an aligned group of 16 (fault_around_bytes); so the touch of a neighbour
 * would fill the entry that was emptied. Neighbours that are mapped do not fault. So before a
 * shared page is dropped, we read those of its group ourselves.
 */
#include <errno.h>

#include "ept/ept_int.h"

/* Pages dropped in one go: what the guest stands still for. */
#define BATCH 64
/* Pages further apart are frozen one after the other: what lies between stands still with them, and
 * devices wait for it. */
#define NEAR 4096
/* fault_around_bytes in pages: what the kernel begins with, which few change. */
#define GROUP 16

/* Can the entry of this page be dropped? @now: there is one. */
static bool droppable(struct ept *e, uint64_t page, const struct ob_page *view, bool *now)
{
	uint32_t entry = e->map[page];

	*now = view->present;
	if (ept_busy(e, page))
		return false;
	if (ept_entry_state(entry) == EPT_SHARED)
		return view->present ? view->file : !view->swapped;
	if (ept_entry_state(entry) == EPT_ZERO && !(entry & EPT_OVER_POOL))
		return view->present ? view->zero : !view->swapped;
	return false;
}

/* No lock is held: a page that has been broken off and taken by now would have to be put back. */
static void map_neighbours(struct ept *e, uint64_t page)
{
	uint64_t first = page - page % GROUP, n = OB_MIN(e->pages - first, GROUP);
	uint8_t state[GROUP];

	if (ept_states(e, first, n, state, NULL) || state[page - first] != EPT_SHARED)
		return;
	for (uint64_t i = 0; i < n; i++)
		if (state[i] == EPT_SHARED)
			(void)*(const volatile uint8_t *)hva_ptr(gmem_page_hva(e->mem, first + i));
}

/* Frozen. */
static int64_t zap_batch(struct ept *e, const struct ept_run *runs, unsigned int n, bool *zapped)
{
	struct ob_range range[BATCH];
	unsigned int used = 0;
	int64_t done = 0;
	int r = 0;

	for (unsigned int i = 0; i < n && !r; i++) {
		hva_t at = gmem_page_hva(e->mem, runs[i].page);
		struct ob_page view;
		bool now;

		r = e->host->ops->pages(e->host, at, 1, &view);
		if (r)
			break;
		ept_take_view(e, runs[i].page, &view);
		zapped[i] = droppable(e, runs[i].page, &view, &now);
		done += zapped[i];
		if (zapped[i] && now)
			range[used++] = (struct ob_range){.at = at, .size = OB_PAGE_SIZE};
	}
	if (!r && used)
		r = e->host->ops->discard_many(e->host, range, used);
	for (unsigned int i = 0; i < n && r; i++)
		zapped[i] = false;
	return r ? r : done;
}

int64_t ept_zap(struct ept *e, const struct ept_run *runs, unsigned int n, bool *zapped)
{
	int64_t done = 0;

	for (unsigned int i = 0; i < n; i++) {
		zapped[i] = false;
		if (!ept_range_ok(e, runs[i].page, runs[i].n))
			return -ERANGE;
		if (runs[i].n != 1 || (i && runs[i].page <= runs[i - 1].page))
			return -EINVAL;
	}
	for (unsigned int i = 0, take; i < n; i += take) {
		uint64_t first = runs[i].page, span = gmem_page_span(e->mem, first);
		int64_t r;

		for (take = 1; i + take < n && take < BATCH; take++)
			if (runs[i + take].page - first >= span ||
			    runs[i + take].page - runs[i + take - 1].page > NEAR)
				break;
		for (unsigned int k = 0; k < take; k++)
			map_neighbours(e, runs[i + k].page);
		r = ept_freeze(e, first, runs[i + take - 1].page - first + 1);
		if (r)
			return r;
		ob_lock(&e->lock);
		r = zap_batch(e, &runs[i], take, &zapped[i]);
		ob_unlock(&e->lock);
		ept_thaw(e);
		if (r < 0)
			return r;
		done += r;
	}
	return done;
}
