/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept.h: the public header of ept/, which knows what every guest page is right now and is the only
 * one that changes it.
 *
 * One 4-byte entry per 4 KB page of RAM: state, flags, and for a shared page its frame. Pages are
 * counted without holes (gmem_gfn_page). The counters per state sum to the guest's size after every
 * call. Two changes are made by the kernel without telling us, the first touch of a page and the
 * copy-on-write break of a shared one; ept_sync harvests them.
 *
 * Locking: one mutex per ept protects map, counters, freeze and DMA lists. It is never held over a
 * system call that can wait for a vCPU. One freezer at a time per guest (the scanner's thread).
 */
#ifndef OVERBOOK_EPT_EPT_H
#define OVERBOOK_EPT_EPT_H

#include <pthread.h>

#include "kernel/kernel.h"

enum ept_state {
	EPT_UNTOUCHED, /* never accessed: no memory behind it */
	EPT_ZERO,      /* all zero, no memory of its own: dropped, or the kernel's zero page */
	EPT_PRIVATE,   /* memory of its own */
	EPT_SHARED,    /* a frame of the pool, mapped private: the first write breaks it off */
	EPT_NSTATES,
};
const char *ept_state_name(enum ept_state s);

#define EPT_NO_FRAME  UINT32_MAX
#define EPT_MAX_FRAME ((1u << 28) - 1) /* 1 TiB of pool */

#define EPT_MAX_DMA 64

struct ept_stats {
	uint64_t state[EPT_NSTATES]; /* pages in each */
	uint64_t touched;	     /* first touches found by sync */
	uint64_t broken;	     /* copy-on-write breaks found by sync */
	uint64_t shared;	     /* pages replaced by a frame */
	uint64_t dropped;	     /* zero pages dropped */
	uint64_t freed_bytes;	     /* given back by share and drop, as the kernel held it */
	uint64_t dma_left_out; /* pages left out of a freeze because a device was using them */
	uint64_t dma_waits;    /* device accesses that waited for a freeze to end */
};

struct ept_dma {
	uint64_t page, n; /* n = 0: free */
};

/* How to stop the guest that owns the memory; injected so that a test needs no VM. */
struct ept_parker {
	void (*park)(void *arg);
	void (*unpark)(void *arg);
	void *arg;
};

/* Called for each frame that a sync found broken off, whoever called it, with the ept's lock held:
 * only record it. The holder of the frame (the merging engine) listens. */
typedef void (*ept_broken_fn)(void *arg, uint64_t page, uint32_t frame);

struct ept {
	struct ob_host *host;
	struct gmem *mem;
	struct ept_parker parker;
	struct ob_arena *arena;
	uint32_t *map;
	uint64_t pages;
	pthread_mutex_t lock;
	pthread_cond_t thawed;
	struct ept_stats st;
	struct ept_dma dma[EPT_MAX_DMA];
	unsigned int ndma;
	uint64_t frozen_page, frozen_n; /* n = 0: nothing frozen */
	ept_broken_fn broken;
	void *broken_arg;
};

/* Attach to @mem (sets mem->ops). @arena for the map; all are the caller's and must outlive it. */
int ept_init(struct ept *e, struct ob_host *host, struct gmem *mem, struct ept_parker parker,
	     struct ob_arena *arena);
void ept_exit(struct ept *e);
/* Who is to be told of broken frames; NULL: nobody. */
void ept_on_broken(struct ept *e, ept_broken_fn fn, void *arg);

enum ept_state ept_state_of(struct ept *e, uint64_t page);
/* The frame of a shared page, else EPT_NO_FRAME. */
uint32_t ept_frame_of(struct ept *e, uint64_t page);
/* The states of [page, page + n), and with @frames (may be NULL) the frames of shared ones. */
void ept_states(struct ept *e, uint64_t page, uint64_t n, uint8_t *states, uint32_t *frames);
/*
 * Does any of [page, page + n) lie over a mapping of the pool file, shared or broken off it? To
 * drop such a page takes a mapping, and so may add two; to drop any other takes none.
 */
bool ept_over_pool(struct ept *e, uint64_t page, uint64_t n);
void ept_read_stats(struct ept *e, struct ept_stats *out);

/*
 * Bring map and counters up to date for [page, page + n) with what the kernel holds. Runs beside
 * the guest: what it finds was true while it looked. @pages_out (may be NULL) gets the kernel's
 * view of each page. Returns 0 or -errno of reading it.
 */
int ept_sync(struct ept *e, uint64_t page, uint64_t n, struct ob_page *pages_out);

/*
 * Freeze [page, page + n) (inside one region): parks the guest; device accesses that come now wait
 * until ept_thaw. Pages that a device is using already are not frozen: ept_frozen says which are.
 * One freeze at a time; the pair must be from one thread.
 */
void ept_freeze(struct ept *e, uint64_t page, uint64_t n);
void ept_thaw(struct ept *e);
bool ept_frozen(struct ept *e, uint64_t page);

/*
 * Replace [page, page + n) by the frames [frame, frame + n) of the pool. All pages frozen, touched,
 * and already equal to their frames: the caller has compared them. Returns bytes of private memory
 * given back (>= 0), or -errno with the guest's content unchanged.
 */
int64_t ept_share(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame);
/* Drop [page, page + n), frozen, private or broken off a frame, and all zero. Same returns; when it
 * fails after a part, the bytes of that part. */
int64_t ept_drop_zero(struct ept *e, uint64_t page, uint64_t n);

/* The devices' side, behind gmem_access_begin/end. begin waits while the range is frozen. */
int ept_dma_begin(struct ept *e, gpa_t at, uint64_t len, bool write, struct gmem_access *acc);
void ept_dma_end(struct ept *e, struct gmem_access *acc);

/* Sum of counters = pages, and map agrees with counters: for tests and debug builds. Aborts. */
void ept_check(struct ept *e);

#endif
