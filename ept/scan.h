/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h: which pages of a host range have been written, by the page tables of the kernel. For
 * memory that no guest maps (pools, staging areas, indexes), and to check write tracking of a
 * guest's memory by other means (ept/track_check.h). For a guest's memory itself ept/track.h is an
 * order of magnitude cheaper: protecting pages here makes KVM drop its entries for them.
 *
 * Needs Linux 6.7, and a range that no userfaultfd serves. Mappings that are replaced while they
 * are watched are not watched any more; their pages are reported always.
 *
 * Locking: none; one thread at a time for a scan, beside whoever writes the memory.
 */
#ifndef OVERBOOK_EPT_SCAN_H
#define OVERBOOK_EPT_SCAN_H

#include "kernel/kernel.h"

struct ept_scan {
	struct ob_host *host;
	hva_t at;
	uint64_t pages;
	int fd;
	/* So far: */
	uint64_t passes, reported;
	uint64_t runs; /* protected again, a call each */
};

/*
 * Watch @pages pages from @at, a page's address. Pages that hold memory now count as written. 0, or
 * -EINVAL, -EOPNOTSUPP (this kernel cannot), -EBUSY (a userfaultfd has the range).
 */
int ept_scan_begin(struct ept_scan *s, struct ob_host *host, hva_t at, uint64_t pages);
/*
 * The pages that were written since the collect before, one bit each into @bitmap, (pages + 63) /
 * 64 words. Their next write is noted anew. Look at their content after this call, never before.
 * Returns how many, or -errno: then some may be lost, take all as written.
 */
int64_t ept_scan_collect(struct ept_scan *s, uint64_t *bitmap);
void ept_scan_end(struct ept_scan *s);

#endif
