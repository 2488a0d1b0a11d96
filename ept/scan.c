/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.c: written pages by the kernel's page tables, in two steps.
 *
 * First get the pages that are not protected, that is, were written; then protect exactly those,
 * run by run; only then may their content be looked at. A write between the two steps to a page
 * that was got is in the content that is looked at later; one to a page that was not got leaves
 * that page unprotected, to be got the next time. So a run that is protected holds no page that was
 * not got: runs are never joined over a gap. The kernel offers both steps in one call, but that one
 * calls the MMU notifiers for all of its range: over a guest's memory it empties KVM's tables in
 * every pass.
 */
#include "ept/scan.h"

#include <errno.h>

int ept_scan_begin(struct ept_scan *s, struct ob_host *host, hva_t at, uint64_t pages)
{
	*s = (struct ept_scan){.host = host, .at = at, .pages = pages, .fd = -1};
	if (!pages || at.v & OB_PAGE_MASK || pages > (UINT64_MAX - at.v) >> OB_PAGE_SHIFT)
		return -EINVAL;
	s->fd = host->ops->scan_open(host, at, pages << OB_PAGE_SHIFT);
	return s->fd < 0 ? s->fd : 0;
}

/* The first page from @page on whose bit is @set; @pages when there is none. */
static uint64_t next(const uint64_t *bitmap, uint64_t page, uint64_t pages, bool set)
{
	while (page < pages) {
		uint64_t w = set ? bitmap[page / 64] : ~bitmap[page / 64];

		w >>= page % 64;
		if (w)
			return OB_MIN(page + (uint64_t)__builtin_ctzll(w), pages);
		page = (page / 64 + 1) * 64;
	}
	return pages;
}

int64_t ept_scan_collect(struct ept_scan *s, uint64_t *bitmap)
{
	int r = s->host->ops->scan_get(s->host, s->at, s->pages, bitmap);
	int64_t found = 0;

	s->passes++;
	for (uint64_t p = next(bitmap, 0, s->pages, true), end; p < s->pages && !r;
	     p = next(bitmap, end, s->pages, true)) {
		end = next(bitmap, p, s->pages, false);
		r = s->host->ops->scan_protect(s->host, hva(s->at.v + (p << OB_PAGE_SHIFT)),
					       (end - p) << OB_PAGE_SHIFT);
		found += (int64_t)(end - p);
		s->runs++;
	}
	s->reported += (uint64_t)found;
	return r ? r : found;
}

void ept_scan_end(struct ept_scan *s)
{
	if (s->fd >= 0)
		s->host->ops->scan_close(s->host, s->fd, s->at, s->pages << OB_PAGE_SHIFT);
	s->fd = -1;
}
