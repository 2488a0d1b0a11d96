/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dma.c: devices and freezes keep out of each other's way.
 *
 * Parking the vCPUs does not stop a disk read that is on its way into guest memory. So devices
 * bracket each access, and a freeze holds for the pages that no device is using when it begins:
 *
 *  - an access that began before the freeze goes on; its pages are left out of the freeze;
 *  - an access that begins during the freeze, and overlaps it, waits for the thaw.
 *
 * A freezer never waits for a device, so a device may hold some brackets while it waits for others.
 * The guest is parked before the range is marked: a vCPU that emulates an access, and waits in it
 * for a range that is frozen, would otherwise never become parked.
 */
#include <errno.h>

#include "ept/ept_int.h"

static bool overlap(uint64_t a, uint64_t an, uint64_t b, uint64_t bn)
{
	return an && bn && a < b + bn && b < a + an;
}

bool ept_busy(const struct ept *e, uint64_t page)
{
	for (unsigned int i = 0; e->ndma && i < EPT_MAX_DMA; i++)
		if (overlap(e->dma[i].page, e->dma[i].n, page, 1))
			return true;
	return false;
}

void ept_wait_thawed(struct ept *e, uint64_t page, uint64_t n)
{
	while (overlap(e->frozen_page, e->frozen_n, page, n))
		ob_cond_wait(&e->thawed, &e->lock);
}

int ept_freeze(struct ept *e, uint64_t page, uint64_t n)
{
	if (!ept_range_ok(e, page, n) || n > gmem_page_span(e->mem, page))
		return -ERANGE;
	/* Whoever comes second waits before he parks, so that the guest does not stand still for both. */
	ob_lock(&e->lock);
	while (e->freezing)
		ob_cond_wait(&e->thawed, &e->lock);
	e->freezing = true;
	ob_unlock(&e->lock);
	e->parker.park(e->parker.arg);
	ob_lock(&e->lock);
	OB_ASSERT(!e->frozen_n);
	e->frozen_page = page;
	e->frozen_n = n;
	for (unsigned int i = 0; e->ndma && i < EPT_MAX_DMA; i++) {
		const struct ept_dma *d = &e->dma[i];

		if (overlap(d->page, d->n, page, n))
			e->st.dma_left_out +=
				OB_MIN(d->page + d->n, page + n) - OB_MAX(d->page, page);
	}
	ob_unlock(&e->lock);
	return 0;
}

void ept_thaw(struct ept *e)
{
	ob_lock(&e->lock);
	OB_ASSERT(e->frozen_n);
	e->frozen_n = 0;
	e->freezing = false;
	pthread_cond_broadcast(&e->thawed);
	ob_unlock(&e->lock);
	e->parker.unpark(e->parker.arg);
}

bool ept_frozen(struct ept *e, uint64_t page)
{
	bool r;

	if (page >= e->pages)
		return false;
	ob_lock(&e->lock);
	r = overlap(e->frozen_page, e->frozen_n, page, 1) && !ept_busy(e, page) &&
	    !ept_entry_staged(e->map[page]) && !ept_entry_tiered(e->map[page]);
	ob_unlock(&e->lock);
	return r;
}

int ept_dma_begin(struct ept *e, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	void *ptr = gmem_ptr(e->mem, at, len);
	uint64_t page, n;

	if (!ptr)
		return -EFAULT;
	page = gmem_gfn_page(e->mem, gpa_gfn(at));
	n = ((at.v & OB_PAGE_MASK) + len + OB_PAGE_MASK) >> OB_PAGE_SHIFT;

	ob_lock(&e->lock);
	if (overlap(e->frozen_page, e->frozen_n, page, n))
		e->st.dma_waits++;
	while (overlap(e->frozen_page, e->frozen_n, page, n))
		ob_cond_wait(&e->thawed, &e->lock);
	for (uint32_t i = 0; i < EPT_MAX_DMA; i++) {
		if (e->dma[i].n)
			continue;
		e->dma[i] = (struct ept_dma){.page = page, .n = n};
		e->ndma++;
		ob_unlock(&e->lock);
		*acc = (struct gmem_access){
			.ptr = ptr, .gpa = at, .len = len, .write = write, .priv = i};
		return 0;
	}
	ob_unlock(&e->lock);
	return -EBUSY;
}

void ept_dma_end(struct ept *e, struct gmem_access *acc)
{
	ob_lock(&e->lock);
	OB_ASSERT(acc->priv < EPT_MAX_DMA && e->dma[acc->priv].n && e->ndma);
	/* After the write, and before anybody may believe that the device is through (track.c). */
	if (e->track && acc->write)
		ept_track_mark(e->track, e->dma[acc->priv].page, e->dma[acc->priv].n);
	e->dma[acc->priv].n = 0;
	e->ndma--;
	ob_unlock(&e->lock);
}
