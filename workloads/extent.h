/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extent.h: a free list of page extents, sorted by address, neighbours joined, first fit from a
 * moving start (next fit). It is what the churn workload allocates from. The moving start spreads
 * allocations over the whole area as a busy allocator does, instead of using its first pages again
 * and again. All is in an array that the caller gives; needs <stdint.h> only, so that the host's
 * tests can drive it against an oracle.
 */
#ifndef OVERBOOK_WORKLOADS_EXTENT_H
#define OVERBOOK_WORKLOADS_EXTENT_H

#include <stdint.h>

#define EXTENT_MAX  512
#define EXTENT_NONE UINT64_MAX

struct extent {
	uint64_t start, pages;
};

struct extent_list {
	struct extent e[EXTENT_MAX];
	unsigned int n;
	unsigned int next; /* where the next search begins */
	uint64_t free_pages;
};

static inline void extent_init(struct extent_list *l, uint64_t pages)
{
	l->n = pages ? 1 : 0;
	l->next = 0;
	l->free_pages = pages;
	l->e[0] = (struct extent){0, pages};
}

/* Take @pages in a row, or EXTENT_NONE. */
static inline uint64_t extent_alloc(struct extent_list *l, uint64_t pages)
{
	for (unsigned int k = 0; k < l->n && pages; k++) {
		unsigned int i = (l->next + k) % l->n;
		uint64_t start = l->e[i].start;

		if (l->e[i].pages < pages)
			continue;
		l->e[i].start += pages;
		l->e[i].pages -= pages;
		l->free_pages -= pages;
		l->next = i;
		if (l->e[i].pages == 0) {
			for (unsigned int j = i; j + 1 < l->n; j++)
				l->e[j] = l->e[j + 1];
			l->n--;
		} else {
			l->next = i + 1;
		}
		return start;
	}
	return EXTENT_NONE;
}

/*
 * Give [start, start + pages) back. 0, or -1 when part of it is free already or the list is full
 * (which cannot be while fewer than EXTENT_MAX blocks are allocated).
 */
static inline int extent_free(struct extent_list *l, uint64_t start, uint64_t pages)
{
	unsigned int i = 0;

	while (i < l->n && l->e[i].start < start)
		i++;
	/* e[i] is the first extent at or above; e[i - 1] lies below. */
	if ((i > 0 && l->e[i - 1].start + l->e[i - 1].pages > start) ||
	    (i < l->n && start + pages > l->e[i].start))
		return -1;
	int below = i > 0 && l->e[i - 1].start + l->e[i - 1].pages == start;
	int above = i < l->n && start + pages == l->e[i].start;

	if (below && above) {
		l->e[i - 1].pages += pages + l->e[i].pages;
		for (unsigned int j = i; j + 1 < l->n; j++)
			l->e[j] = l->e[j + 1];
		l->n--;
	} else if (below) {
		l->e[i - 1].pages += pages;
	} else if (above) {
		l->e[i].start = start;
		l->e[i].pages += pages;
	} else {
		if (l->n == EXTENT_MAX)
			return -1;
		for (unsigned int j = l->n; j > i; j--)
			l->e[j] = l->e[j - 1];
		l->e[i] = (struct extent){start, pages};
		l->n++;
	}
	l->free_pages += pages;
	return 0;
}

#endif
