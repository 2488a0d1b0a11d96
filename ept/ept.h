/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept.h: the public header of ept/, which knows what every guest page is right now and is the only
 * one that changes it.
 *
 * One 4-byte entry per 4 KB page of RAM: state, flags, and for a page that is elsewhere where it is.
 * Pages are counted without holes (gmem_gfn_page). The counters per state sum to the guest's size
 * after every call. Two changes are made by the kernel without telling us, the first touch of a page
 * and the copy-on-write break of a shared one; ept_sync harvests them. Which changes there are, and
 * who may make them, is a table (docs/page-states.md), and each is held against it.
 *
 * Locking (docs/locking.md): one mutex per ept protects map, counters, freeze and DMA lists. It is
 * never held over something that waits for a vCPU or a device. One freezer at a time per guest; a
 * second one waits. All functions may be called from any thread but a vCPU's, unless said.
 *
 * Errors: a page or range outside the guest is -ERANGE, one that wraps included; a page in a state
 * that the call does not take is -EINVAL; both leave everything as it was.
 */
#ifndef OVERBOOK_EPT_EPT_H
#define OVERBOOK_EPT_EPT_H

#include <pthread.h>

#include "ept/huge.h"
#include "ept/track.h"
#include "kernel/kernel.h"

/* --- what a page is: map.c, transition.c ------------------------------------------------------- */

enum ept_state {
	EPT_UNTOUCHED,	/* never accessed: no memory behind it */
	EPT_ZERO,	/* all zero, no memory of its own: dropped, or the kernel's zero page */
	EPT_PRIVATE,	/* memory of its own: in place, or taken out to staging */
	EPT_SHARED,	/* a frame of the pool, mapped private: the first write breaks it off */
	EPT_COMPRESSED, /* held by a tier in memory, in a slot */
	EPT_SWAPPED,	/* held by a tier on a disk, in a slot */
	EPT_BALLOONED,	/* the guest has given it up: no memory, no content */
	EPT_REMOTE,	/* on another host, until it is fetched */
	EPT_NSTATES,
};
const char *ept_state_name(enum ept_state s);

/* Who changes a page. */
enum ept_actor {
	EPT_BY_KERNEL,	/* the host's kernel, silently: found by a sync */
	EPT_BY_MERGE,	/* ept_share, ept_drop_zero */
	EPT_BY_FAULT,	/* the answer to a fault, or the same ahead of it */
	EPT_BY_TIER,	/* ept_to_tier and what tiers do among themselves */
	EPT_BY_BALLOON, /* ept_balloon */
	EPT_NACTORS,
};
const char *ept_actor_name(enum ept_actor a);
/* May @a bring a page from @from to @to? Pure. A page may always stay what it is. */
bool ept_may(enum ept_state from, enum ept_state to, enum ept_actor a);

#define EPT_NO_FRAME  UINT32_MAX
#define EPT_MAX_FRAME ((1u << 28) - 1) /* 1 TiB of pool; the same limit holds for slots of tiers */

/* --- faults: fault.c --------------------------------------------------------------------------- */

enum ept_outcome {
	EPT_FAULT_ZERO,	   /* filled with zeroes */
	EPT_FAULT_STAGING, /* put back from staging */
	EPT_FAULT_TIER,	   /* loaded from a tier */
	EPT_FAULT_BROKEN, /* a copy-on-write break: the kernel's, so counted (by sync), not timed */
	EPT_FAULT_REDUNDANT, /* the page was there already: somebody else was first */
	EPT_FAULT_FAILED,    /* there is no content to be had: the VM is stopped */
	EPT_NOUTCOMES,
};
const char *ept_outcome_name(enum ept_outcome o);

/* Bucket b counts answers that took [2^(b/4), 2^((b+1)/4)) ns, roughly; as workloads/lat.h. */
#define EPT_LAT_BUCKETS 160

struct ept_faults {
	uint64_t count[EPT_NOUTCOMES];
	uint64_t pages[EPT_NOUTCOMES]; /* that they brought, with those around the fault */
	/* From the moment that the handler has read the fault to the moment that it is answered. */
	uint32_t lat[EPT_NOUTCOMES][EPT_LAT_BUCKETS];
};
/* Upper bound in ns of the fastest @part (0 to 1) of an outcome's answers; 0: there were none. */
uint64_t ept_fault_latency(const struct ept_faults *f, enum ept_outcome o, double part);

/* --- one guest's memory ------------------------------------------------------------------------ */

#define EPT_MAX_DMA 64

struct ept_stats {
	uint64_t state[EPT_NSTATES]; /* pages in each */
	uint64_t staged;	     /* private pages that are in staging now */
	uint64_t touched;	     /* first touches found by sync */
	uint64_t broken;	     /* copy-on-write breaks found by sync */
	uint64_t shared;	     /* pages replaced by a frame */
	uint64_t dropped;	     /* zero pages dropped */
	uint64_t taken;		     /* pages moved out to staging */
	uint64_t put_back;	     /* pages moved back without a fault */
	uint64_t tiered;	     /* pages handed to a tier */
	uint64_t ballooned;	     /* pages that went into the balloon */
	uint64_t freed_bytes;	     /* given back to the host, as the kernel held it */
	uint64_t dma_left_out;	     /* pages left out because a device was using them */
	uint64_t dma_waits;	     /* device accesses that waited for a freeze to end */
	uint64_t pinned;  /* pages that could not be taken: somebody in the kernel holds them */
	uint64_t windows; /* 2 MiB windows whose faults come to us now */
};

struct ept_dma {
	uint64_t page, n; /* n = 0: free */
};

/* How to stop the guest that owns the memory; injected so that a test needs no VM. */
struct ept_parker {
	void (*park)(void *arg);
	void (*unpark)(void *arg);
	/* The CPU that the guest last ran on, -1: not known. May be NULL. */
	int (*cpu)(void *arg);
	/* The guest cannot go on: end it, with a reason. May be NULL: then it gets zeroes. */
	void (*fail)(void *arg, const char *why);
	void *arg;
};

/* Called for each frame that a sync found broken off, whoever called it, with the ept's lock held:
 * only record it. The holder of the frame (the merging engine) listens. */
typedef void (*ept_broken_fn)(void *arg, uint64_t page, uint32_t frame);

/*
 * A tier answers for pages that have left memory. All calls come without the ept's lock.
 */
struct ept_tier_ops {
	const char *name;
	/* How many pages around a fault are worth loading with it (an aligned group; 0: that page). */
	unsigned int around;
	/* Write the content of @slot into @page (4096 bytes). 0 or -errno: then a guest that waits for
	 * the page is ended, and ahead of that nothing is changed. */
	int (*load)(void *arg, uint32_t slot, void *page);
	/* The guest has its page back, or does not want it any more: @slot is free. */
	void (*drop)(void *arg, uint32_t slot);
};

struct ept_tier {
	const struct ept_tier_ops *ops; /* NULL: there is none */
	void *arg;
	unsigned int dropping; /* calls of drop under way: it is still needed */
};

struct ept_stage; /* the way out and back: stage.c */

struct ept {
	struct ob_host *host;
	struct gmem *mem;
	struct ept_parker parker;
	struct ob_arena *arena;
	uint32_t *map;
	uint64_t pages;
	struct ob_mutex lock;
	pthread_cond_t thawed; /* a freeze has ended, or a page has been loaded */
	struct ept_stats st;
	struct ept_dma dma[EPT_MAX_DMA];
	unsigned int ndma;
	uint64_t frozen_page, frozen_n; /* n = 0: nothing frozen */
	bool freezing;			/* somebody parks the guest, about to freeze */
	uint32_t takings;		/* how many times pages were taken */
	ept_broken_fn broken;
	void *broken_arg;
	struct ept_tier tier[EPT_NSTATES]; /* by state: compressed, swapped, remote */
	struct ept_stage *stage;	   /* NULL until the first page leaves */
	struct ept_huge *huge;		   /* NULL: its memory is of small pages */
	struct ept_faults faults;
	bool no_thread; /* tests answer faults themselves: set before the first page leaves */
	bool copy_only; /* tests: do as if this kernel had no UFFDIO_MOVE; set as the above */
	bool tampered;	/* a planted bug has changed memory behind our back: see ept_exit */
	struct ept_track *track; /* is told what devices have written; NULL: nobody */
};

/* Attach to @mem (sets mem->ops). @arena for the map; all are the caller's and must outlive it. */
int ept_init(struct ept *e, struct ob_host *host, struct gmem *mem, struct ept_parker parker,
	     struct ob_arena *arena);
/* The guest has been stopped: nobody touches its memory any more. With OB_DEBUG the map must be the
 * kernel's once more, unless content was lost or a bug was planted. */
void ept_exit(struct ept *e);
/* Who is to be told of broken frames; NULL: nobody. */
void ept_on_broken(struct ept *e, ept_broken_fn fn, void *arg);

/* EPT_NSTATES when there is no such page. */
enum ept_state ept_state_of(struct ept *e, uint64_t page);
/* The frame of a shared page, else EPT_NO_FRAME. */
uint32_t ept_frame_of(struct ept *e, uint64_t page);
/* Is it private, and out in staging? */
bool ept_is_staged(struct ept *e, uint64_t page);
/* The states of [page, page + n), and with @frames (may be NULL) the frames of shared ones. */
int ept_states(struct ept *e, uint64_t page, uint64_t n, uint8_t *states, uint32_t *frames);
/*
 * Does any of [page, page + n) lie over a mapping of the pool file, shared or broken off it? To
 * drop such a page takes a mapping, and so may add two; to drop any other takes none.
 */
bool ept_over_pool(struct ept *e, uint64_t page, uint64_t n);
void ept_read_stats(struct ept *e, struct ept_stats *out);
void ept_read_faults(struct ept *e, struct ept_faults *out);

/*
 * Bring map and counters up to date for [page, page + n) with what the kernel holds. Runs beside
 * the guest: what it finds was true while it looked. @pages_out (may be NULL) gets the kernel's
 * view of each page. Returns 0 or -errno of reading it.
 */
int ept_sync(struct ept *e, uint64_t page, uint64_t n, struct ob_page *pages_out);

/* --- the map against the kernel's: verify.c ---------------------------------------------------- */

#define EPT_VERIFY_FIRST 8

struct ept_difference {
	uint64_t page;
	enum ept_state state;
	bool staged;
	struct ob_page there;	/* where the guest has it */
	struct ob_page staging; /* and in staging */
	const char *why;
};

struct ept_verify {
	uint64_t pages;
	uint64_t lagged; /* pages that the kernel had changed since the last sync */
	uint64_t differences;
	struct ept_difference first[EPT_VERIFY_FIRST];
};
/*
 * Sync, then compare each page with the kernel's page map, and the counters with the map. The guest
 * may go on. 0 (look at @out->differences) or -errno of reading the page map.
 */
int ept_verify(struct ept *e, struct ept_verify *out);
/* Sum of counters = pages, and map agrees with counters: for tests and debug builds. Aborts. */
void ept_check(struct ept *e);

/* --- frozen pages: dma.c, change.c, share.c ---------------------------------------------------- */

/*
 * Freeze [page, page + n) (inside one region): parks the guest; device accesses that come now wait
 * until ept_thaw. Pages that a device is using already are not frozen, nor those that are not in
 * place: ept_frozen says which are. One freeze at a time, a second one waits for it; the pair must
 * be from one thread. 0 or -ERANGE: then there is nothing to thaw.
 */
int ept_freeze(struct ept *e, uint64_t page, uint64_t n);
void ept_thaw(struct ept *e);
bool ept_frozen(struct ept *e, uint64_t page);

/* A run of guest pages. */
struct ept_run {
	uint64_t page, n;
};

/*
 * Replace [page, page + n) by the frames [frame, frame + n) of the pool. All pages frozen and
 * touched, or all staged, and already equal to their frames: the caller has compared them. (A staged
 * page may have been back meanwhile, and be another one: so those are compared here once more.)
 * Returns bytes of private memory given back (>= 0), or -errno with the guest's content unchanged;
 * -EBUSY when they are neither, -EAGAIN when a staged one is not equal any more.
 */
int64_t ept_share(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame);
/* One of many runs, and what became of it. */
struct ept_share {
	uint64_t page, n;
	uint64_t frame;
	/* Out: */
	int err;       /* 0, or why it is as it was */
	bool emptied;  /* with others by one call, then mapped over nothing */
	int64_t freed; /* bytes, when err is 0 */
	uint64_t ns; /* that its mmap took; every change of a mapping of the process waits for it */
};
#define EPT_SHARE_RUNS	128
#define EPT_SHARE_EMPTY 16 /* pages of a run that is emptied first */
/*
 * The same for @n runs of frozen pages, at most EPT_SHARE_RUNS, in ascending order and not overlapping;
 * for runs of a few pages while other guests of the process run at a third of the cost. A run that
 * fails, for reasons of its own or the host's, does not keep the others from going on. Returns the
 * bytes given back in all; @empty_ns gets the time of the call that emptied the short ones. -EINVAL:
 * the list is wrong, nothing was done.
 */
int64_t ept_share_runs(struct ept *e, struct ept_share *runs, unsigned int n, int pool_fd,
		       uint64_t *empty_ns);
/* The frame that a private page broke off and that still lies under it; EPT_NO_FRAME: there is none, it
 * is not known, or faults of this page may come to us: then it cannot show the frame again. */
uint32_t ept_frame_under(struct ept *e, uint64_t page);
struct ept_reshare {
	uint64_t page;
	uint32_t frame;	     /* ept_frame_under said so, the caller holds it */
	const void *content; /* what is in the frame: the caller has compared the page with it */
	int err;	     /* out: 0, or why it is as it was */
};
/*
 * Frozen pages, at most EPT_SHARE_RUNS, ascending, become the frames under them again: their copies are
 * discarded. Returns the bytes given back, -EINVAL: the list is wrong.
 */
int64_t ept_reshare_pages(struct ept *e, struct ept_reshare *list, unsigned int n);
/*
 * For whoever counts mappings: the frames of shared pages among [page, page + n), else EPT_NO_FRAME;
 * and which pages lie over a mapping of the pool file, shared or broken off it.
 */
int ept_mappings(struct ept *e, uint64_t page, uint64_t n, uint32_t *frame, bool *over_pool);
/* Drop [page, page + n), all zero: frozen and private or broken off a frame, or staged. Same
 * returns; when it fails after a part, the bytes of that part. Staged pages are looked at again. */
int64_t ept_drop_zero(struct ept *e, uint64_t page, uint64_t n);
/* The same for @n runs, in ascending order: what lies over no pool mapping goes in one batch. */
int64_t ept_drop_zero_runs(struct ept *e, const struct ept_run *runs, unsigned int n);

/* What was taken back. */
struct ept_unshared {
	uint64_t pages;	 /* shared ones that have memory of their own */
	uint64_t zeroes; /* dropped ones, the same */
	uint64_t left;	 /* to be taken back, and a device is using them */
};
#define EPT_UNSHARE_PAGES 256
/*
 * Undo merging (unshare.c): of [page, page + n), frozen, in one region and at most EPT_UNSHARE_PAGES, all
 * that lies over the pool gets an ordinary mapping, and memory of its own with the same content; what
 * was dropped as zeroes, by us or by Linux KSM, gets memory. What is staged or in a tier stays. @buf is
 * of @n pages. Adds to @out; who holds the frames is told as of breaks (ept_on_broken). 0, or -errno
 * where the host would not: the rest stays as it was, and what was done is done.
 */
int ept_unshare(struct ept *e, uint64_t page, uint64_t n, void *buf, struct ept_unshared *out);
/* How many of [page, page + n) ept_unshare would change, by what the map says: sync before. */
uint64_t ept_unshare_wanted(struct ept *e, uint64_t page, uint64_t n);
/*
 * The guest has put [page, page + n) into its balloon (@in), or has taken it back. What is in it is
 * lost. Returns the bytes given back; a page that comes out is a zero page.
 */
int64_t ept_balloon(struct ept *e, uint64_t page, uint64_t n, bool in);

/* --- taking pages out and giving them back: take.c, stage.c ------------------------------------ */

/*
 * Take the private pages of @n runs (ascending) out to staging, where nobody changes them. The guest
 * goes on, and waits at the first touch of such a page until it is put back. Left out: pages that
 * are not private, that a device is using, that the kernel holds pinned. With @sample the pages are
 * marked as samples: a fault brings back that page alone; and pages of a huge unit are left out,
 * there the unit is the sample (ept_take_huge). Else a huge unit that a page is taken from is
 * broken. Gives nothing back to the host yet: the memory is in staging. Returns the pages taken, or
 * -errno when none could be (-EPERM: no userfaultfd that answers for KVM; -EOPNOTSUPP: this kernel
 * can neither move nor protect).
 */
int64_t ept_take(struct ept *e, const struct ept_run *runs, unsigned int n, bool sample);
/* Take [page, page + n) that begins and ends at 2 MiB, to be put back as a whole. */
int64_t ept_take_huge(struct ept *e, uint64_t page, uint64_t n);
/* Put what is staged of @n runs back. Returns the pages put back, or -errno. */
int64_t ept_put_back(struct ept *e, const struct ept_run *runs, unsigned int n);
/* The same for what is in tiers: load it ahead of any fault. Stops where one cannot be loaded. */
int64_t ept_load(struct ept *e, uint64_t page, uint64_t n);
/*
 * Samples of [page, page + n) that nobody has touched: how many, and with @put_back they go back.
 */
int64_t ept_samples_left(struct ept *e, uint64_t page, uint64_t n, bool put_back);
/*
 * Empty the page-table entries of shared and zero pages among @n runs (ascending), so that the next
 * touch shows in the kernel's page map (present). Contents and sharing stay as they are. @zapped[i]
 * says for run i (of one page) whether it was. Parks the guest in short batches.
 */
int64_t ept_zap(struct ept *e, const struct ept_run *runs, unsigned int n, bool *zapped);

/* --- tiers: tier.c ----------------------------------------------------------------------------- */

/* Who answers for pages of @state (compressed, swapped or remote). Before any page is in it. */
int ept_set_tier(struct ept *e, enum ept_state state, const struct ept_tier_ops *ops, void *arg);
/*
 * Copy a staged page. -EAGAIN: it is not staged (any more). A page that is put back and taken again
 * is another page, so there is a @ticket for this one, which ept_to_tier asks for. Any number of
 * threads may read the same page.
 */
int ept_stage_read(struct ept *e, uint64_t page, void *buf, uint32_t *ticket);

struct ept_tiered {
	uint64_t page;
	uint32_t slot;
	uint32_t ticket; /* from ept_stage_read, by whoever filled the slot from it */
	bool done;	 /* out: the tier answers for it now. Else the slot stays the caller's. */
};
/*
 * Hand @n staged pages (ascending), as they were read by ept_stage_read, to the tier of @state. Their
 * memory in staging is given back: returns the bytes, or -errno with nothing done.
 */
int64_t ept_to_tier(struct ept *e, enum ept_state state, struct ept_tiered *list, unsigned int n);
/* A page moves from one tier to another, or to another slot of the same. -EAGAIN: it is not in
 * @from_slot any more, or is being loaded; -EINVAL: there is no such way. On success the old slot is
 * the caller's to free. */
int ept_retier(struct ept *e, uint64_t page, enum ept_state from, uint32_t from_slot,
	       enum ept_state to, uint32_t to_slot);
/* Pages that were never here: a migration's target begins so. All untouched: -EINVAL when one is not,
 * with nothing done. */
int ept_set_remote(struct ept *e, uint64_t page, uint64_t n, uint32_t first_slot);

/* --- answers ----------------------------------------------------------------------------------- */

/* Answer @n faults; what the handler's thread does. For tests without it (no_thread). */
void ept_fault_answer(struct ept *e, const struct ob_fault *faults, unsigned int n);
/* CPU time of the thread that answers this guest's faults; 0: there is none (yet). */
uint64_t ept_handler_cpu_ns(struct ept *e);
/* Where staging is: part of what the guest holds, for who counts by mappings. 0 bytes: none yet. */
void ept_staging(struct ept *e, hva_t *at, uint64_t *size);

/* The devices' side, behind gmem_access_begin/end. begin waits while the range is frozen. */
int ept_dma_begin(struct ept *e, gpa_t at, uint64_t len, bool write, struct gmem_access *acc);
void ept_dma_end(struct ept *e, struct gmem_access *acc);

/* --- the parts with a header of their own ------------------------------------------------------ */

#include "ept/walk.h"
#include "ept/wset.h"

#endif
