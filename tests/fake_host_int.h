/* SPDX-License-Identifier: Apache-2.0 */
/* fake_host_int.h: private to the fake host: its model of pages, mappings and files. */
#ifndef OVERBOOK_TESTS_FAKE_HOST_INT_H
#define OVERBOOK_TESTS_FAKE_HOST_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "tests/fake_host.h"

#define FIRST_FD       (1 << 20) /* no real descriptor has such a number */
#define FIRST_UFFD     (1 << 21) /* nor such a one */
#define RAM_ALIGN      (2 * OB_MIB)
#define ZERO_PFN       7
#define FIRST_PFN      1000
#define NO_MEMORY_BASE 0x100000000000ULL

struct fake_page {
	uint64_t file_page; /* page of the file it is mapped from */
	uint64_t pfn;	    /* of its private memory; 0: it has none */
	uint32_t file;	    /* 1 + index of the file; 0: anonymous */
	bool unmapped;
	bool hole; /* unmapped by a map call that failed: may be mapped again */
	bool present;
	bool swapped;
	bool migrating;
	bool ksm_zero; /* over a file: broken off, and now the zero page */
	bool mergeable;
	bool pinned;
	bool may_huge; /* a huge page may be made here */
	uint32_t uffd; /* 1 + index of the userfaultfd it is registered with; 0: none */
	bool wp_mode;  /* registered for writes to protected pages, too */
	bool protect;
};

/* A huge page: so many neighbouring frames from @pfn on. */
struct fake_folio {
	uint64_t pfn;
	bool split;
};

/* An access that waits. */
struct fake_waiter {
	uint64_t at;
	bool write, protect;
	bool told; /* its fault has been read */
};

struct fake_map {
	char *raw; /* what malloc gave; NULL without memory */
	uint64_t base, size;
	struct fake_page *page;
};

struct fake_file {
	char *data;
	uint64_t size;
	uint64_t *pfn;	/* per page; 0: a hole */
	uint32_t *maps; /* per page: how many guest pages are mapped from it */
};

struct fake_host {
	struct ob_host host; /* first: a struct ob_host is one of these */
	pthread_mutex_t lock;
	struct fake_map *map;
	unsigned int nmaps;
	struct fake_file *file;
	unsigned int nfiles;
	struct fake_folio *folio;
	unsigned int nfolios;
	struct fake_waiter *waiter;
	unsigned int nwaiters;
	unsigned int nuffds;
	struct ob_uffd_caps caps;
	uint64_t next_pfn, next_base;
	uint64_t vmas, vma_limit, vma_others; /* mappings of guest RAM; others there are */
	bool no_memory;
	char poison[OB_PAGE_SIZE]; /* what a page shows that one would have to wait for */
	uint64_t calls[FAKE_NOPS];
	uint64_t fail_at[FAKE_NOPS]; /* call number, FAKE_EVERY: all */
	int fail_err[FAKE_NOPS];
	bool fail_hole[FAKE_NOPS];
	uint64_t fail_done[FAKE_NOPS]; /* pages that are done before it fails */
	fake_hook_fn hook;
	void *hook_arg;
	_Atomic uint64_t now, cpu, preempted;
};

extern const char fake_zeroes[OB_PAGE_SIZE];

struct fake_host *fake_of(struct ob_host *h);
void *fake_calloc(uint64_t n, uint64_t size);

/* fake_host.c. Counts the call; -errno when it is to fail. On 0 the lock is held. */
int fake_enter(struct fake_host *f, enum fake_op op);
/* The same; @limit says after how many pages it is to fail, with -fail_err[op] (never 0). */
int fake_enter_partly(struct fake_host *f, enum fake_op op, uint64_t *limit);
int fake_leave(struct fake_host *f, enum fake_op op, int rc);

/* fake_host_page.c, with the lock held like all below. The map that holds all of the range with
 * nothing of it unmapped (but holes, if they are allowed), or NULL. */
struct fake_map *fake_range(struct fake_host *f, hva_t at, uint64_t size, uint64_t *first);
struct fake_map *fake_range_or_holes(struct fake_host *f, hva_t at, uint64_t size, bool holes,
				     uint64_t *first);
/* The bytes of page @i; NULL without memory. */
char *fake_data(struct fake_map *m, uint64_t i);
/* Does it show a page of a file? */
bool fake_unbroken(const struct fake_page *p);
/* Is there anything, in memory or in swap? */
bool fake_populated(const struct fake_page *p);
/* Is it registered, and would an access wait for it? */
bool fake_missing(struct fake_host *f, const struct fake_page *p);
/* What its bytes are when it has no memory of its own. */
void fake_show(struct fake_host *f, struct fake_map *m, uint64_t i);
/* It gets memory of its own. */
void fake_break(struct fake_host *f, struct fake_page *p);
/* Notice a store that did not go through the model. */
void fake_reconcile(struct fake_host *f, struct fake_map *m, uint64_t i);
/* Are these neighbours in one mapping? */
bool fake_same_vma(const struct fake_page *a, const struct fake_page *b);
/* How many mappings begin in pages [first, first + n] of @m. */
uint64_t fake_vma_starts(const struct fake_map *m, uint64_t first, uint64_t n);
/* Set [first, first + n) of @m to a new mapping; @how gives file, first page of it, and flags. */
void fake_set_pages(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n,
		    struct fake_page how);

/* fake_host_file.c. NULL: there is none. */
struct fake_file *fake_find_file(struct fake_host *f, int fd);
/* A write to a file's page gives it a block. */
void fake_file_touch(struct fake_host *f, struct fake_file *file, uint64_t page);

/* fake_host_uffd.c. Whoever waits there tries again. */
void fake_wake(struct fake_host *f, uint64_t at, uint64_t size);
/* An access to the page at @at waits. */
void fake_wait_for(struct fake_host *f, uint64_t at, bool write, bool protect);

/* The operations (their locks are their own). fake_host_map.c: */
int fake_ram_map(struct ob_host *h, uint64_t size, const char *name, hva_t *out);
int fake_unmap(struct ob_host *h, hva_t at, uint64_t size);
int fake_map_view(struct ob_host *h, int fd, uint64_t size, const void **out);
int fake_map_frames(struct ob_host *h, hva_t at, uint64_t size, int pool_fd, uint64_t off);
bool fake_mapped(struct ob_host *h, hva_t at, uint64_t size);
int fake_map_empty(struct ob_host *h, hva_t at, uint64_t size, const char *name);
int fake_discard(struct ob_host *h, hva_t at, uint64_t size);
int fake_populate(struct ob_host *h, hva_t at, uint64_t size);
int fake_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n);
int fake_reveal_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n);
int fake_mergeable(struct ob_host *h, hva_t at, uint64_t size, bool on);
int fake_pages(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out);
int fake_vma_count(struct ob_host *h, uint64_t *have, uint64_t *limit);

/* fake_host_file.c: */
int fake_memfd(struct ob_host *h, const char *name, uint64_t size);
int fake_map_shared(struct ob_host *h, int fd, uint64_t size, void **out);
int fake_file_read(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off);
int fake_file_write(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off);
int fake_punch(struct ob_host *h, int fd, uint64_t off, uint64_t len);
int fake_file_blocks(struct ob_host *h, int fd, uint64_t *bytes);

/* fake_host_uffd.c: */
int fake_uffd_open(struct ob_host *h, struct ob_uffd_caps *caps);
int fake_uffd_register(struct ob_host *h, int fd, hva_t at, uint64_t size, bool protect);
int fake_uffd_unregister(struct ob_host *h, int fd, hva_t at, uint64_t size);
int64_t fake_uffd_move(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
int fake_uffd_copy(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
int fake_uffd_zero(struct ob_host *h, int fd, hva_t dst, uint64_t size);
int fake_uffd_protect(struct ob_host *h, int fd, hva_t at, uint64_t size, bool on);
int fake_uffd_wake(struct ob_host *h, int fd, hva_t at, uint64_t size);
int fake_uffd_wait(struct ob_host *h, int fd, int stop_fd, struct ob_fault *out, unsigned int max);

/* fake_host_huge.c: */
int fake_huge(struct ob_host *h, hva_t at, uint64_t size, bool on);
int fake_collapse(struct ob_host *h, hva_t at, uint64_t size);
int fake_split(struct ob_host *h, hva_t at);
int fake_huge_units(struct ob_host *h, hva_t at, uint64_t n, uint8_t *out);

#endif
