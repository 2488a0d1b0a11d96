/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kind.h: what a page is to the Linux kernel, from what that says of it: where RAM and the kernel's own
 * image are (/proc/iomem), and each page's flags (/proc/kpageflags). No system calls here: what is read
 * is given.
 */
#ifndef OVERBOOK_LINUX_KIND_H
#define OVERBOOK_LINUX_KIND_H

#include <stdint.h>

#include "kernel/agent_abi.h"

/* Flags of a page, by Documentation/admin-guide/mm/pagemap.rst; RESERVED is not named there, but by
 * include/linux/kernel-page-flags.h, for as long. */
#define KPF_UPTODATE	  (1ULL << 3)
#define KPF_LRU		  (1ULL << 5)
#define KPF_SLAB	  (1ULL << 7)
#define KPF_BUDDY	  (1ULL << 10)
#define KPF_ANON	  (1ULL << 12)
#define KPF_SWAPBACKED	  (1ULL << 14)
#define KPF_COMPOUND_TAIL (1ULL << 16)
#define KPF_NOPAGE	  (1ULL << 20)
#define KPF_PGTABLE	  (1ULL << 26)
#define KPF_RESERVED	  (1ULL << 32)

#define KIND_RANGES 16

struct kind_range {
	uint64_t from, to; /* pages, from <= page < to */
	enum agent_page_kind kind;
};

struct kind_map {
	struct kind_range ram[KIND_RANGES], image[KIND_RANGES];
	unsigned int nram, nimage;
};

/* From the text of /proc/iomem. To whom the kernel does not tell addresses, it says that all are 0: then
 * there is no RAM. */
void kind_map_read(struct kind_map *m, const char *iomem);
/* Of page @gfn with @flags; @before is that of the page before it. */
enum agent_page_kind kind_of(const struct kind_map *m, uint64_t gfn, uint64_t flags,
			     enum agent_page_kind before);

#endif
