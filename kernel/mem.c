/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.c: guest RAM, and the one translation from guest physical to host addresses.
 *
 * A guest's RAM is one host mapping a region. There are two at most: [0, 3 GiB), and what is more
 * from 4 GiB up, so that the gigabyte below 4 GiB stays free for devices. Whoever counts pages
 * counts them without that hole (first_page).
 *
 * KVM is told of a region in one piece or in several (slots): its log of writes goes by the slot,
 * and with the log on it maps a slot in small pages, so memory that is to stay huge here and to be
 * tracked there is cut into slots that are small enough to choose by.
 *
 * A translation takes a length and succeeds only when all of [at, at + len) lies in one region:
 * host addresses of two regions are not neighbours. All comparisons subtract from what is known to
 * be larger, so that no guest address can make them wrap.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/mem.h"

/* More than any region may be: keeps page counts and sums far from wrapping. */
#define GMEM_MAX_BYTES (1ULL << 46)

static int add_region(struct gmem *gm, uint64_t at, uint64_t size)
{
	struct gmem_region *r = &gm->region[gm->nregions];
	hva_t h;
	int rc = gm->host->ops->ram_map(gm->host, size, gm->name, &h);

	if (rc)
		return rc;
	*r = (struct gmem_region){
		.gpa = gpa(at),
		.hva = h,
		.size = size,
		.first_page = gm->pages,
		.page_size = OB_PAGE_SIZE,
	};
	gm->pages += size >> OB_PAGE_SHIFT;
	gm->nregions++;
	return 0;
}

int gmem_init(struct gmem *gm, struct ob_host *host, uint64_t size, const char *name)
{
	uint64_t low = OB_MIN(size, GMEM_HOLE_START);
	int rc;

	*gm = (struct gmem){.host = host};
	if (!size || size & OB_PAGE_MASK || size > GMEM_MAX_BYTES)
		return -EINVAL;
	snprintf(gm->name, sizeof(gm->name), "%s", name);
	rc = add_region(gm, 0, low);
	if (!rc && size > low)
		rc = add_region(gm, GMEM_HOLE_END, size - low);
	if (!rc)
		rc = gmem_divide(gm, 0);
	if (rc)
		gmem_exit(gm);
	return rc;
}

int gmem_divide(struct gmem *gm, uint64_t slot_bytes)
{
	uint64_t count = 0, most = slot_bytes ? slot_bytes >> OB_PAGE_SHIFT : UINT64_MAX;
	struct gmem_slot *slot;
	unsigned int n = 0;

	if (slot_bytes % GMEM_SLOT_ALIGN)
		return -EINVAL;
	for (unsigned int i = 0; i < gm->nregions; i++) {
		uint64_t pages = gm->region[i].size >> OB_PAGE_SHIFT;

		/* Only the last region may have an odd end: what is behind it starts a word. */
		OB_ASSERT(gm->region[i].first_page % 64 == 0);
		count += pages / most + (pages % most != 0);
	}
	if (count > GMEM_MAX_SLOTS)
		return -E2BIG;
	slot = calloc(count, sizeof(*slot));
	OB_ASSERT(slot);
	for (unsigned int i = 0; i < gm->nregions; i++) {
		uint64_t pages = gm->region[i].size >> OB_PAGE_SHIFT;

		for (uint64_t done = 0; done < pages; n++) {
			slot[n] = (struct gmem_slot){
				.first_page = gm->region[i].first_page + done,
				.pages = OB_MIN(pages - done, most),
				.id = n,
			};
			done += slot[n].pages;
		}
	}
	OB_ASSERT(n == count);
	free(gm->slot);
	gm->slot = slot;
	gm->nslots = n;
	return 0;
}

int gmem_huge(struct gmem *gm)
{
	const struct ob_host_ops *ops = gm->host->ops;
	int rc = 0;

	for (unsigned int i = 0; i < gm->nregions && !rc; i++)
		rc = ops->huge(gm->host, gm->region[i].hva, gm->region[i].size, true);
	for (unsigned int i = 0; i < gm->nregions; i++) {
		if (rc)
			ops->huge(gm->host, gm->region[i].hva, gm->region[i].size, false);
		else
			gm->region[i].page_size = OB_HUGE_SIZE;
	}
	return rc;
}

void gmem_exit(struct gmem *gm)
{
	for (unsigned int i = 0; i < gm->nregions; i++) {
		struct gmem_region *r = &gm->region[i];
		int rc = gm->host->ops->unmap(gm->host, r->hva, r->size);

		/* Only a range that is not a mapping of ours can fail, and then we are lost. */
		OB_ASSERT(rc == 0);
	}
	free(gm->slot);
	gm->slot = NULL;
	gm->nslots = 0;
	gm->nregions = 0;
	gm->pages = 0;
	gm->ops = NULL;
	gm->ops_arg = NULL;
}

void *gmem_ptr(const struct gmem *gm, gpa_t at, uint64_t len)
{
	if (!len)
		return NULL;
	for (unsigned int i = 0; i < gm->nregions; i++) {
		const struct gmem_region *r = &gm->region[i];

		if (at.v < r->gpa.v || at.v - r->gpa.v >= r->size)
			continue;
		if (len > r->size - (at.v - r->gpa.v))
			return NULL;
		return hva_ptr(hva(r->hva.v + (at.v - r->gpa.v)));
	}
	return NULL;
}

/* The region of a RAM page. Page numbers come from our own code:
 * a wrong one is a broken invariant. */
static const struct gmem_region *region_of_page(const struct gmem *gm, uint64_t page)
{
	OB_ASSERT(page < gm->pages);
	for (unsigned int i = gm->nregions; i-- > 1;)
		if (page >= gm->region[i].first_page)
			return &gm->region[i];
	return &gm->region[0];
}

hva_t gmem_page_hva(const struct gmem *gm, uint64_t page)
{
	const struct gmem_region *r = region_of_page(gm, page);

	return hva(r->hva.v + ((page - r->first_page) << OB_PAGE_SHIFT));
}

gfn_t gmem_page_gfn(const struct gmem *gm, uint64_t page)
{
	const struct gmem_region *r = region_of_page(gm, page);

	return gfn(gpa_gfn(r->gpa).v + (page - r->first_page));
}

uint64_t gmem_gfn_page(const struct gmem *gm, gfn_t g)
{
	for (unsigned int i = 0; i < gm->nregions; i++) {
		const struct gmem_region *r = &gm->region[i];
		uint64_t first = gpa_gfn(r->gpa).v;

		if (g.v >= first && g.v - first < r->size >> OB_PAGE_SHIFT)
			return r->first_page + (g.v - first);
	}
	return UINT64_MAX;
}

uint64_t gmem_page_span(const struct gmem *gm, uint64_t page)
{
	const struct gmem_region *r = region_of_page(gm, page);

	return (r->size >> OB_PAGE_SHIFT) - (page - r->first_page);
}

unsigned int gmem_page_slot(const struct gmem *gm, uint64_t page)
{
	unsigned int lo = 0, hi = gm->nslots;

	OB_ASSERT(page < gm->pages && hi);
	while (hi - lo > 1) {
		unsigned int mid = lo + (hi - lo) / 2;

		if (page >= gm->slot[mid].first_page)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

int gmem_access_begin(struct gmem *gm, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	void *ptr;

	if (gm->ops)
		return gm->ops->access_begin(gm->ops_arg, at, len, write, acc);
	ptr = gmem_ptr(gm, at, len);
	if (!ptr)
		return -EFAULT;
	*acc = (struct gmem_access){.ptr = ptr, .gpa = at, .len = len, .write = write};
	return 0;
}

void gmem_access_end(struct gmem *gm, struct gmem_access *acc)
{
	if (gm->ops)
		gm->ops->access_end(gm->ops_arg, acc);
	acc->ptr = NULL;
}

/*
 * The guest may change its memory while we copy it. Callers copy once and then check the copy; the
 * barrier keeps the compiler from reading guest memory a second time in place of the copy.
 */
int gmem_read(struct gmem *gm, gpa_t at, void *buf, uint64_t len)
{
	struct gmem_access acc;
	int rc = gmem_access_begin(gm, at, len, false, &acc);

	if (rc)
		return rc;
	memcpy(buf, acc.ptr, len);
	__asm__ volatile("" ::: "memory");
	gmem_access_end(gm, &acc);
	return 0;
}

int gmem_write(struct gmem *gm, gpa_t at, const void *buf, uint64_t len)
{
	struct gmem_access acc;
	int rc = gmem_access_begin(gm, at, len, true, &acc);

	if (rc)
		return rc;
	memcpy(acc.ptr, buf, len);
	__asm__ volatile("" ::: "memory");
	gmem_access_end(gm, &acc);
	return 0;
}
