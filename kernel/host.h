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

/* A stretch of host memory, in bytes. */
struct ob_range {
	hva_t at;
	uint64_t size;
};

/* A fault that waits for an answer, as userfaultfd reports it. */
struct ob_fault {
	hva_t at;
	uint32_t tid; /* the thread that waits; 0: not known */
	bool write;
	bool protect; /* the page is there, and write-protected; else it is missing */
};

/* What this kernel's userfaultfd can do beyond answering faults on missing pages. */
struct ob_uffd_caps {
	bool move;    /* UFFDIO_MOVE, Linux 6.8 */
	bool protect; /* write protection of anonymous memory, Linux 5.7 */
};

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
	/* Does a mapping lie over all of [at, at+size), whatever it shows? After one of the two has failed:
	 * some kernels have taken the old mapping away by then. */
	bool (*mapped)(struct ob_host *h, hva_t at, uint64_t size);
	/* Drop the pages of [at, at+size). Only for anonymous mappings: over a pool mapping it
	 * would reveal the frame beneath, so ept never asks for that. */
	int (*discard)(struct ob_host *h, hva_t at, uint64_t size);
	/* The same for @n ranges in ascending order that do not overlap. One system call where the
	 * kernel can (process_madvise on oneself, Linux 6.13), else one for each joined run. When it
	 * fails, a part may have been dropped. */
	int (*discard_many)(struct ob_host *h, const struct ob_range *ranges, unsigned int n);
	/* The same system call for another end: of pages that broke off a private mapping of a file the
	 * copies go, and what is in the file shows again. */
	int (*reveal_many)(struct ob_host *h, const struct ob_range *ranges, unsigned int n);
	/* Have each page of [at, at+size), anonymous memory that no userfaultfd watches, hold memory of
	 * its own; what is there reads as before. The caller sees to it that nobody writes meanwhile.
	 * MADV_POPULATE_WRITE (5.14), else a store to each. -errno: a part of it may have got some. */
	int (*populate)(struct ob_host *h, hva_t at, uint64_t size);
	/* Tell the kernel's KSM to look at (or leave) this range. */
	int (*mergeable)(struct ob_host *h, hva_t at, uint64_t size, bool on);

	/* Read what the kernel holds for @n pages from @at into @out. */
	int (*pages)(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out);

	/* A sparse shared memory file of @size bytes, close-on-exec. Returns the descriptor. */
	int (*memfd)(struct ob_host *h, const char *name, uint64_t size);
	/* Map a memfd shared, read-write. */
	int (*map_shared)(struct ob_host *h, int fd, uint64_t size, void **out);
	/* Map [0, size) of a memfd shared, for reading only: what is written to the file shows. Given
	 * back with unmap. Reading a page of it that was never written gives that page a block. */
	int (*map_view)(struct ob_host *h, int fd, uint64_t size, const void **out);
	/* Whole reads and writes of the pool: all of @len or an error. */
	int (*file_read)(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off);
	int (*file_write)(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off);
	/* Give the blocks of [off, off+len) back to the host. */
	int (*punch)(struct ob_host *h, int fd, uint64_t off, uint64_t len);

	/* How many bytes a file really holds, as the kernel counts them. */
	int (*file_blocks)(struct ob_host *h, int fd, uint64_t *bytes);

	/* How many mappings this process has, and may have (vm.max_map_count). */
	int (*vma_count)(struct ob_host *h, uint64_t *have, uint64_t *limit);

	/*
	 * userfaultfd. Returns a descriptor whose faults uffd_wait reads; -EPERM when this process
	 * may not answer faults that the kernel has on its behalf (KVM's are such).
	 */
	int (*uffd_open)(struct ob_host *h, struct ob_uffd_caps *caps);
	/* Report faults on missing pages (and, with @protect, on protected ones) of the range from
	 * now on. What is registered already may be registered again. */
	int (*uffd_register)(struct ob_host *h, int fd, hva_t at, uint64_t size, bool protect);
	/* No longer. Whoever waits there is woken. */
	int (*uffd_unregister)(struct ob_host *h, int fd, hva_t at, uint64_t size);
	/*
	 * Move pages from @src to @dst, both registered and each within one mapping; @dst is empty.
	 * Atomic for everybody: a page is at one place or at the other. Wakes those that wait at
	 * @dst. Returns the bytes moved, which may be less than @size when a page could not be
	 * moved, or -errno when it was the first one (-EBUSY: pinned; -ENOENT: a hole; -EEXIST: @dst
	 * is taken). A page that is at @dst already and not at @src counts as moved.
	 */
	int64_t (*uffd_move)(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
	/* Fill @dst, missing and registered, with a copy of @src, and wake. -EEXIST: it is there. */
	int (*uffd_copy)(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
	/* Fill @dst with the kernel's zero page, and wake. -EEXIST: it is there. */
	int (*uffd_zero)(struct ob_host *h, int fd, hva_t dst, uint64_t size);
	/* Protect against writes, or no longer (then those that wait are woken). */
	int (*uffd_protect)(struct ob_host *h, int fd, hva_t at, uint64_t size, bool on);
	int (*uffd_wake)(struct ob_host *h, int fd, hva_t at, uint64_t size);
	/* Wait for faults, or until @stop_fd is readable. Returns how many were read, 0: stop. */
	int (*uffd_wait)(struct ob_host *h, int fd, int stop_fd, struct ob_fault *out,
			 unsigned int max);

	uint64_t (*now_ns)(struct ob_host *h);	      /* CLOCK_MONOTONIC */
	uint64_t (*thread_cpu_ns)(struct ob_host *h); /* CPU time of the calling thread */
	/* How often the calling thread lost its CPU to another thread, though it could have gone on. */
	uint64_t (*thread_preempted)(struct ob_host *h);

	/* --- which pages were written, by the page tables: host_scan.c --------------------- */

	/* Have the kernel note writes to [at, at+size). A descriptor for scan_close. -EOPNOTSUPP
	 * where it cannot (Linux before 6.7), -EBUSY when userfaultfd has the range already. */
	int (*scan_open)(struct ob_host *h, hva_t at, uint64_t size);
	/* Those of the @n pages from @at that hold memory and were written since they were last
	 * protected (or never were), one bit each into @bitmap, (n + 63) / 64 words. */
	int (*scan_get)(struct ob_host *h, hva_t at, uint64_t n, uint64_t *bitmap);
	/* Note the next write to each page of [at, at+size) that scan_get would report. */
	int (*scan_protect)(struct ob_host *h, hva_t at, uint64_t size);
	void (*scan_close)(struct ob_host *h, int fd, hva_t at, uint64_t size);

	/*
	 * Huge pages (host_huge.c); a unit is OB_HUGE_SIZE bytes and aligned so. Without
	 * ob_host_linux_huge all memory is of small pages, whatever is asked for here.
	 */
	/* May the kernel back [at, at+size), multiples of the page size, by huge pages, now and
	 * later? What is mapped there stays as it is. A mapping is born with the answer no. */
	int (*huge)(struct ob_host *h, hva_t at, uint64_t size, bool on);
	/* Make the units of [at, at+size) huge now; they may be (huge), and each lies in one
	 * anonymous mapping that no userfaultfd watches. Holes are filled. -EOPNOTSUPP: before
	 * Linux 6.1; -ENOMEM, -EBUSY, -EAGAIN: not now. */
	int (*collapse)(struct ob_host *h, hva_t at, uint64_t size);
	/* Take the huge page at @at apart, so that each of its 4 KB pages can be given back alone:
	 * dropping a part of it does not, its memory is held until all of it goes. Some kernels put
	 * their zero page in the place of pages of zeroes. 0 also when there is no huge page;
	 * -EBUSY: somebody in the kernel holds it. */
	int (*split)(struct ob_host *h, hva_t at);
	/* Which of the @n units from @at on does one huge entry map, with memory of its own? Sets
	 * out[i] to 0 or 1. Exact from Linux 6.7 on; before, see host_huge.c. */
	int (*huge_units)(struct ob_host *h, hva_t at, uint64_t n, uint8_t *out);
};

#define OB_HUGE_SIZE (2 * OB_MIB)

/* A host: its operations and whatever they need. The real one has file descriptors, a fake one
 * its model. Every call passes it, there is no other state. */
struct ob_host {
	const struct ob_host_ops *ops;
	int pagemap_fd;
	uint64_t zero_pfn;	/* the kernel's zero page, or 0 if we may not know */
	bool knows_pfn;		/* may we read host frame numbers? */
	int pidfd;		/* of this process; -1: there is none */
	bool vectored;		/* process_madvise takes MADV_DONTNEED on oneself */
	bool huge;		/* huge pages where they are asked for: ob_host_linux_huge */
	bool collapses;		/* madvise takes MADV_COLLAPSE */
	bool no_scan;		/* tests: find huge pages as before Linux 6.7 */
	uint64_t huge_zero_pfn; /* of the kernel's huge zero page, or 0 if we may not know */
};

/* The real host. @h is the caller's and must stay while it is used. */
int ob_host_linux_init(struct ob_host *h, struct ob_err *e);
void ob_host_linux_exit(struct ob_host *h);
/* Its parts in host_scan.c. */
int host_scan_open(struct ob_host *h, hva_t at, uint64_t size);
int host_scan_get(struct ob_host *h, hva_t at, uint64_t n, uint64_t *bitmap);
int host_scan_protect(struct ob_host *h, hva_t at, uint64_t size);
void host_scan_close(struct ob_host *h, int fd, hva_t at, uint64_t size);
/*
 * From now on memory may be huge where it is asked for (ops->huge); until this is called, it is of 4
 * KB pages. Before any memory of a guest is mapped. 0, or -EOPNOTSUPP: this kernel has none.
 */
int ob_host_linux_huge(struct ob_host *h);

#endif
