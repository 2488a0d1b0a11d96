/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h: how much of a guest's memory is what. As in a server that has run for a while: most of
 * it is page cache, a fifth is heap, and the rest is free: some of it never touched since boot,
 * some used once and zeroed since, some used once and left as it was. A pure function of sizes, so
 * that the host's tests can check it. Needs <stdint.h> only.
 */
#ifndef OVERBOOK_MICROGUEST_LAYOUT_H
#define OVERBOOK_MICROGUEST_LAYOUT_H

#include <stdint.h>

#define LAYOUT_CACHE_PERCENT 60
#define LAYOUT_HEAP_PERCENT  20
/* Less usable memory than this (pages) is refused: a guest of 8 MiB has more, one of 4 MiB less. */
#define LAYOUT_MIN_PAGES 1600
/* Values of the hash table: bytes each, and how full it is. */
#define KV_VALUE      256
#define KV_PER_PAGE   (4096 / KV_VALUE)
#define KV_FILL_SHIFT 1 /* keys = slots >> 1 */

struct layout {
	uint64_t meta; /* bytes of bookkeeping: checksums, versions, file records */
	uint64_t cache, heap, heap_common, area, clean, untouched, dirty; /* pages */
};

/*
 * Divide @pages of memory. @data_pages and @files are what the image has (0 without one),
 * @want_area whether the workload has an area of its own. The parts and the bookkeeping add up to
 * @pages. 0, or -1 when @pages are too few.
 */
static inline int layout_divide(struct layout *l, uint64_t pages, uint64_t data_pages,
				uint64_t files, int want_area)
{
	if (pages < LAYOUT_MIN_PAGES)
		return -1;
	l->cache = pages * LAYOUT_CACHE_PERCENT / 100;
	if (l->cache > data_pages)
		l->cache = data_pages;
	l->heap = pages * LAYOUT_HEAP_PERCENT / 100;
	l->heap_common = l->heap / 2;
	/* A checksum a cached page, a record a file (each has at least a page), a version a heap
	 * page, a version a key of a table that is as large as it could get. */
	uint64_t recs = files < l->cache ? files : l->cache;
	uint64_t room = pages - l->cache - l->heap;

	l->meta = l->cache * 8 + recs * 16 + l->heap * 4;
	if (want_area)
		l->meta += ((room / 2 * KV_PER_PAGE) >> KV_FILL_SHIFT) * 4;
	l->meta += 8 * 4096; /* each array starts on a page; the free list of churn */
	uint64_t meta_pages = (l->meta + 4095) / 4096;

	if (meta_pages >= room)
		return -1;
	room -= meta_pages;
	l->area = want_area ? room / 2 : 0;
	room -= l->area;
	l->clean = room / 3;
	l->untouched = room / 3;
	l->dirty = room - l->clean - l->untouched;
	return 0;
}

#endif
