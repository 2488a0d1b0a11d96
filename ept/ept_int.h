/* SPDX-License-Identifier: Apache-2.0 */
/* ept_int.h: private to ept/: how an entry of the map is put together (see map.c), and staging. */
#ifndef OVERBOOK_EPT_EPT_INT_H
#define OVERBOOK_EPT_EPT_INT_H

#include "ept/ept.h"

#define EPT_PAYLOAD_MASK ((1u << 28) - 1)
#define EPT_STATE_SHIFT	 28
#define EPT_STATE_MASK	 7u

/* The flag's meaning depends on the state. In a tier: somebody is loading it. Else: the page lies over
 * a mapping of the pool file, or over another one whose faults should be ours and are not. */
#define EPT_OVER_POOL (1u << 31)
#define EPT_LOADING   (1u << 31)

/* The payload of a private page. */
#define EPT_STAGED (1u << 0) /* it is in staging and not in the guest */
#define EPT_SAMPLE (1u << 1) /* staged, to see whether anybody touches it */
#define EPT_WHOLE  (1u << 2) /* staged as a part of a 2 MiB unit that goes back as one */
/* Not staged, and over a mapping of the pool: the frame that it broke off is known, and above this bit
 * (reshare.c). A frame that does not fit is not kept. */
#define EPT_UNDER	(1u << 1)
#define EPT_UNDER_SHIFT 2
/* The payload of a zero page: it had memory of its own, which came back when it was dropped, or Linux
 * KSM took it. Set by ept_set (unshare.c). */
#define EPT_HELD (1u << 0)
/* Staged by which taking: a page that was back meanwhile is another one. It wraps after 2^24 of them,
 * more than there are between a read and what is done with it. */
#define EPT_TAKING_SHIFT 4
#define EPT_TAKING_MASK	 (EPT_PAYLOAD_MASK >> EPT_TAKING_SHIFT)

/* How many pages are looked at in one go with the lock held. */
#define EPT_CHUNK 512
/* Faults come to us by windows of so many pages: one bit each, and few mappings. */
#define EPT_WINDOW 512
/* A fault brings back its neighbours, too, up to an aligned group of so many pages. */
#define EPT_AROUND 16
/* From so many separate runs on, the guest is parked: there is nobody then whose translations each
 * run would have to flush. */
#define EPT_PARK_RUNS 6
/* Unless they are so long that it does not matter. */
#define EPT_PARK_LENGTH 64

static inline uint32_t ept_entry(enum ept_state s, uint32_t payload, uint32_t flags)
{
	return (uint32_t)s << EPT_STATE_SHIFT | payload | flags;
}

static inline enum ept_state ept_entry_state(uint32_t entry)
{
	return (enum ept_state)(entry >> EPT_STATE_SHIFT & EPT_STATE_MASK);
}

static inline uint32_t ept_entry_payload(uint32_t entry)
{
	return entry & EPT_PAYLOAD_MASK;
}

static inline bool ept_entry_staged(uint32_t entry)
{
	return ept_entry_state(entry) == EPT_PRIVATE && entry & EPT_STAGED;
}

static inline bool ept_entry_dropped(uint32_t entry)
{
	return ept_entry_state(entry) == EPT_ZERO && entry & EPT_HELD;
}

static inline bool ept_entry_tiered(uint32_t entry)
{
	enum ept_state s = ept_entry_state(entry);

	return s == EPT_COMPRESSED || s == EPT_SWAPPED || s == EPT_REMOTE;
}

static inline uint32_t ept_entry_taking(uint32_t entry)
{
	return ept_entry_payload(entry) >> EPT_TAKING_SHIFT;
}

/* The way out of a guest and back, made when the first page leaves. Under e->lock, but for what the
 * handler's thread has for itself. */
struct ept_stage {
	int uffd, stop_fd;
	struct ob_uffd_caps caps;
	hva_t at; /* as large as the guest: page p lies at p * 4096 */
	uint64_t size;
	uint64_t *window; /* bit w: faults of window w come to us */
	pthread_t thread;
	bool has_thread;
};

/* With e->lock held. */
/* ept_frame_under */
uint32_t ept_under(const struct ept *e, uint64_t page);
/* Tell the tier of @state that @slot is free. The lock is given up meanwhile. */
void ept_tier_drop(struct ept *e, enum ept_state state, uint32_t slot);
/* The guest cannot go on. */
void ept_lost(struct ept *e, const char *why);
void ept_set(struct ept *e, uint64_t page, uint32_t entry, enum ept_actor who);
bool ept_busy(const struct ept *e, uint64_t page);
bool ept_range_ok(const struct ept *e, uint64_t page, uint64_t n);
/* Inside the guest, and ascending: 0, -ERANGE, -EINVAL. */
int ept_runs_ok(const struct ept *e, const struct ept_run *runs, unsigned int n);
/* What the kernel's view of @page makes of its entry: sync.c. True: it was behind. */
bool ept_take_view(struct ept *e, uint64_t page, const struct ob_page *view);
/* The kernel's view of [page, page + n), at most EPT_CHUNK pages of one region, into @view, and what
 * it makes of their entries. 0 or -errno. */
int ept_look(struct ept *e, uint64_t page, uint64_t n, struct ob_page *view);
/* Wait, the lock given up meanwhile, until nothing of the range is frozen. */
void ept_wait_thawed(struct ept *e, uint64_t page, uint64_t n);
/*
 * Can the range be changed: in place and frozen (then *@staged is false), or all of it staged? The
 * states that may be are those whose bits are set in @states. 0, -EINVAL, -EBUSY.
 */
int ept_changeable(const struct ept *e, uint64_t page, uint64_t n, uint32_t states, bool *staged);
/* Memory of its own that the kernel holds there; -errno. */
int64_t ept_held_bytes(struct ept *e, hva_t at, uint64_t n);
/*
 * map_empty inside one region, and faults come to us afterwards where the window is open. Where that
 * failed, @unwatched gets the -errno (else 0): there the new mapping is as good as one of the pool,
 * EPT_OVER_POOL, so that nobody takes a page from it without replacing it once more.
 */
int ept_map_empty(struct ept *e, uint64_t page, uint64_t n, int *unwatched);
/* The run of pages like @page from @page on, at most @n and inside one window and region: alike in
 * the bits of @mask. */
uint64_t ept_run_alike(const struct ept *e, uint64_t page, uint64_t n, uint32_t mask);

/* huge.c. From ept_huge_part on with e->lock held. */
void ept_huge_init(struct ept *e);
void ept_huge_exit(struct ept *e);
/*
 * Memory of [page, page + n) is about to be given back, replaced or taken: break the units that it
 * is a part of. If not @apart, all of a unit may go in one piece. 0, or -errno of the first that
 * cannot be broken, which must then be left alone.
 */
int ept_huge_part(struct ept *e, uint64_t page, uint64_t n, bool apart);
/*
 * Pages of the unit of @page are about to go to staging: all of it in one piece (@whole), or some. A
 * table that the kernel has in that place for small pages, even an empty one, would have it take a
 * huge page to pieces, so it goes before.
 */
void ept_huge_to_stage(struct ept *e, uint64_t page, bool whole);
/* ept_unit_is_huge */
bool ept_huge_now(struct ept *e, uint64_t page);
void ept_huge_check(const struct ept *e);

/* stage.c. ept_stage_ready takes the lock itself; the others are called with it held. */
int ept_stage_ready(struct ept *e);
void ept_stage_exit(struct ept *e);
hva_t ept_stage_hva(const struct ept *e, uint64_t page);
bool ept_window_on(const struct ept *e, uint64_t page);
/* Faults of [page, page + n), inside one region, come to us from now on. */
int ept_watch(struct ept *e, uint64_t page, uint64_t n);
/* The same for what lies over no mapping of the pool, in any range. */
int ept_windows_open(struct ept *e, uint64_t page, uint64_t n);
/* They go their way again where nothing is missing any more. */
void ept_windows_close(struct ept *e, uint64_t page, uint64_t n);
/* Move [page, page + n), all staged, back. Returns how many pages were, or -errno. */
int64_t ept_stage_back(struct ept *e, uint64_t page, uint64_t n);
/* A new mapping where staging has [page, page + n), which is empty there. 0 or -errno: then pages of
 * it cannot be taken until it was done. */
int ept_stage_renew(struct ept *e, uint64_t page, uint64_t n);
/* The memory in staging of pages that are staged no longer is given back. Returns the bytes; where the
 * kernel does not say what it held, none. */
int64_t ept_stage_discard(struct ept *e, const struct ept_run *runs, unsigned int n);

#endif
