/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h: the host seam. Every system call that touches guest memory, and the clock, goes through
 * one struct of operations, so that the mechanisms above can be tested against a fake host with a
 * fake clock, and so that one file (host_linux.c) holds all that is particular to Linux.
 *
 * All operations return 0 (or a count, where said) or -errno, and none of them aborts. Addresses
 * and sizes are in bytes and multiples of the page size unless said. Thread-safe.
 */
#ifndef OVERBOOK_KERNEL_HOST_H
#define OVERBOOK_KERNEL_HOST_H

#include "kernel/base.h"

struct ob_host;

/* What the kernel says of one page of ours, decoded from /proc/self/pagemap. */
struct ob_page {
	uint64_t pfn; /* host frame; 0 when not present or when we may not know (CAP_SYS_ADMIN) */
	bool present;
	bool swapped; /* in swap, or (for a moment) being migrated by the kernel */
	bool file;    /* mapped from a file: for guest RAM, a pool frame not yet broken */
	bool zero;    /* present and known to be the kernel's zero page */
};

/*
 * Does the kernel hold memory of the page's own for it? Not the zero page, and not a frame of the
 * pool, not even while the kernel migrates that frame and so shows it as swapped: the mapping is as
 * it was, and to take it for a copy-on-write break would give away a frame that is in use.
 */
static inline bool ob_page_own(const struct ob_page *p)
{
	return (p->swapped || (p->present && !p->zero)) && !p->file;
}

struct ob_host_ops {
	/* Map @size bytes of private anonymous memory, named, not inherited by fork, 4 KB pages.
	 * Aligned to 2 MiB. The caller owns it and gives it back with unmap. */
	int (*ram_map)(struct ob_host *h, uint64_t size, const char *name, hva_t *out);
	int (*unmap)(struct ob_host *h, hva_t at, uint64_t size);

	/* Replace [at, at+size) by a private mapping of the pool file from @off: reads see the
	 * frames, the first write to a page makes a private copy of it (the kernel's own CoW). */
	int (*map_frames)(struct ob_host *h, hva_t at, uint64_t size, int pool_fd, uint64_t off);
	/* Replace [at, at+size) by an empty anonymous mapping (reads as zero),
	 * whatever was there. */
	int (*map_empty)(struct ob_host *h, hva_t at, uint64_t size, const char *name);
	/* Drop the pages of [at, at+size). Only for anonymous mappings: over a pool mapping it
	 * would reveal the frame beneath, so ept never asks for that. */
	int (*discard)(struct ob_host *h, hva_t at, uint64_t size);
	/* Tell the kernel's KSM to look at (or leave) this range. */
	int (*mergeable)(struct ob_host *h, hva_t at, uint64_t size, bool on);

	/* Read what the kernel holds for @n pages from @at into @out. */
	int (*pages)(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out);

	/* A sparse shared memory file of @size bytes, close-on-exec. Returns the descriptor. */
	int (*memfd)(struct ob_host *h, const char *name, uint64_t size);
	/* Map a memfd shared, read-write. */
	int (*map_shared)(struct ob_host *h, int fd, uint64_t size, void **out);
	/* Whole reads and writes of the pool: all of @len or an error. */
	int (*file_read)(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off);
	int (*file_write)(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off);
	/* Give the blocks of [off, off+len) back to the host. */
	int (*punch)(struct ob_host *h, int fd, uint64_t off, uint64_t len);

	/* How many bytes a file really holds, as the kernel counts them. */
	int (*file_blocks)(struct ob_host *h, int fd, uint64_t *bytes);

	/* How many mappings this process has, and may have (vm.max_map_count). */
	int (*vma_count)(struct ob_host *h, uint64_t *have, uint64_t *limit);

	uint64_t (*now_ns)(struct ob_host *h);	      /* CLOCK_MONOTONIC */
	uint64_t (*thread_cpu_ns)(struct ob_host *h); /* CPU time of the calling thread */
};

/* A host: its operations and whatever they need. The real one has file descriptors, a fake one
 * its model. Every call passes it, there is no other state. */
struct ob_host {
	const struct ob_host_ops *ops;
	int pagemap_fd;
	uint64_t zero_pfn; /* the kernel's zero page, or 0 if we may not know */
	bool knows_pfn;	   /* may we read host frame numbers? */
};

/* The real host. @h is the caller's and must stay while it is used. */
int ob_host_linux_init(struct ob_host *h, struct ob_err *e);
void ob_host_linux_exit(struct ob_host *h);

#endif
