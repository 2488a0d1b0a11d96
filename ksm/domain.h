/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain.h: private header of ksm/: what an engine needs of a sharing domain. The pool's frames and
 * their holders (pool.c), the index from content to frame (index.c), the hash of a page (hash.c).
 *
 * A domain lies in two memfds that all its cells map: the pool (page contents, never mapped shared,
 * only read, written, and mapped privately over guest pages) and the meta file (header, frame
 * table, index; offsets only). Every process has its own struct ksm_domain over them.
 *
 * The life of a page that becomes a frame, as an engine drives it. The second holder of a content
 * makes the frame:
 *
 *	ksm_frame_alloc(d, want, &first)	FREE -> FILLING, mine until published
 *	ksm_index_claim(d, &ref, f)		the hint of this content names the frame: other
 *						cells wait for it, as it is not live yet
 *	ept_freeze(...)				from here on the page stands still
 *	  hash it once more			is it still what the index promises?
 *	  host->ops->file_write(pool_fd, ...)	the content, from the frozen page
 *	  ksm_frame_publish(d, f)		FILLING -> LIVE, with one hold of mine
 *	  ept_share(...)			my page maps it: the hold counts this mapping
 *	ept_thaw(...)
 *
 * What is given up on the way goes back in the other order: ksm_index_remove while the frame is
 * still FILLING, then ksm_frame_abandon. Every further page of that content, in any cell, joins:
 *
 *	ksm_index_find(d, hash, &ref)		names the frame
 *	ksm_frame_get(d, f)			hold it (-EAGAIN: not live, look again next pass)
 *	ept_freeze(...)
 *	  compare in full			not equal: ksm_frame_put
 *	  ept_share(...)
 *	ept_thaw(...)
 *	...
 *	ksm_frame_put(d, f)			for each mapping that broke off or was dropped
 *
 * Threads: the frame and index functions are lock-free between processes. Inside one process the
 * frame functions that allocate, hold and give back belong to one thread, the scanner's (or whoever
 * runs while no step does); index functions, ksm_frame_live, ksm_hash and the statistics may be
 * called by any.
 */
#ifndef OVERBOOK_KSM_DOMAIN_H
#define OVERBOOK_KSM_DOMAIN_H

#include <stdatomic.h>

#include "ksm/ksm.h"

/* --- frames: pool.c, reap.c ---------------------------------------------------------------- */

enum ksm_frame_state {
	KSM_FRAME_FREE = 0,
	KSM_FRAME_FILLING = 1, /* a cell (its number is in the state word) is writing it */
	KSM_FRAME_LIVE = 2,    /* content fixed for as long as any cell holds it */
	KSM_FRAME_DYING = 3,   /* the coordinator is giving it back */
};

/*
 * A state word: the state, above it the cell of one that is FILLING, and above that the frame's
 * *name*, the low bits of its content's hash: an index entry that says otherwise is none (index.c).
 */
#define KSM_FRAME_STATE	     3u
#define KSM_FRAME_CELL_SHIFT 2
#define KSM_FRAME_NAME_SHIFT 12
#define KSM_FRAME_OWNER	     ((1u << KSM_FRAME_NAME_SHIFT) - 1) /* state and cell */
_Static_assert(KSM_MAX_CELLS <= 1u << (KSM_FRAME_NAME_SHIFT - KSM_FRAME_CELL_SHIFT), "room for it");

#define KSM_CHUNK_FRAMES 1024 /* frames whose states fill one page of the meta file */

#define KSM_BUCKET 64  /* entries of the index that lie together */
#define KSM_DRAWS  512 /* index_place.c */

struct ksm_domain {
	struct ob_host *host;
	struct ob_arena *arena;
	int pool_fd, meta_fd; /* not owned */
	unsigned int cell;    /* KSM_NO_CELL for the coordinator */
	unsigned int cells;
	unsigned int words; /* of 8 cells each, holder bits a frame */
	uint64_t frames;
	uint64_t slots; /* that the index can grow to */
	void *meta;	/* the meta file, mapped shared */
	uint64_t meta_size;
	_Atomic uint64_t *freed;	 /* frames that ever became free again, in the header */
	_Atomic uint64_t *reaped;	 /* of those, given back by ksm_domain_reap */
	_Atomic uint64_t *frame_touched; /* bit per KSM_CHUNK_FRAMES frames: ever allocated from */
	_Atomic uint32_t *state;
	_Atomic uint8_t *holder;       /* [frames][words] */
	_Atomic uint64_t *has_origins; /* 0: no frame has one */
	_Atomic uint64_t *origin;      /* [frames] */
	_Atomic uint64_t *again;       /* bit per page of the fleet */
	_Atomic uint64_t *index;
	_Atomic uint64_t *buckets;   /* that the index has now, in the header */
	_Atomic uint64_t *grow_lock; /* 1 + the cell that makes the next one, 0: none does */
	uint64_t first_buckets, max_buckets;
	uint64_t regions; /* a power of two */
	unsigned int region_shift;
	uint8_t share[9][KSM_DRAWS]; /* index_place.c */
	uint32_t *count;	     /* this process's mappings of each frame; lazily backed */
	uint64_t *count_touched;     /* bit per chunk: count was written there */
	uint64_t count_chunks;	     /* bits set in it */
	uint64_t home, cursor;	     /* where this cell looks for free frames */
	uint64_t home_freed;	     /* *freed when the cursor last went home */
	uint64_t full_freed;	     /* *freed when the pool was last found full */
	bool full;
	uint64_t reap_cursor; /* <= frames */
	unsigned int hash_bits;
	uint64_t (*hash_fn)(const void *page, const void *secret); /* hash.c */
	unsigned char secret[KSM_SECRET_BYTES];
};

/*
 * Allocate up to @want consecutive frames, all now FILLING and mine. Returns how many (>= 1), the
 * first in @first; 0 when the pool is full. Not for the coordinator.
 */
uint32_t ksm_frame_alloc(struct ksm_domain *d, uint32_t want, uint32_t *first);
/* The same for frames from @first on, and no others: as many as are free in a row, at most @want. */
uint32_t ksm_frame_alloc_at(struct ksm_domain *d, uint32_t first, uint32_t want);
/* Make a frame of mine LIVE, its content being written. Takes one hold, as ksm_frame_get does. */
void ksm_frame_publish(struct ksm_domain *d, uint32_t frame);
/*
 * Give [first, first + n) back, FILLING and mine: punched and FREE. -errno of punch: still FREE.
 * Index entries that name them are removed before.
 */
int ksm_frame_abandon(struct ksm_domain *d, uint32_t first, uint32_t n);

/*
 * One more mapping of @frame in this process. 0, or -EAGAIN when it is not live: its content is not
 * what the index said, or it is being given back. The content of a frame that was got does not
 * change until it is put, but it need not be what the index said: compare. -EINVAL: no such frame.
 */
int ksm_frame_get(struct ksm_domain *d, uint32_t frame);
/* One mapping less; each get, publish is followed by one put at some time. */
void ksm_frame_put(struct ksm_domain *d, uint32_t frame);
/* For index.c: is @frame in use, and does an index entry with this @tag speak of its content, or of
 * where that came from? */
bool ksm_frame_named(const struct ksm_domain *d, uint64_t frame, uint64_t tag);
/* Name it so. By who fills or holds it. */
void ksm_frame_name(struct ksm_domain *d, uint32_t frame, uint64_t tag);
/* Is it being filled by @cell? */
bool ksm_frame_filled_by(const struct ksm_domain *d, uint64_t frame, unsigned int cell);
/* How often this process holds it. */
uint32_t ksm_frame_count(const struct ksm_domain *d, uint32_t frame);
/* Does any cell but this one hold it? For policy only: it may change at once. */
bool ksm_frame_held_elsewhere(const struct ksm_domain *d, uint32_t frame);
/* Memory of this process that counts and the like really hold, in bytes. */
uint64_t ksm_domain_private_bytes(const struct ksm_domain *d);

/* --- index: index.c, index_grow.c, index_place.c ------------------------------------------- */

/*
 * One entry: kind 2 bits, payload 28, tag 34. A *hint* says that page number P of the fleet had
 * this content when it was last looked at; it may be lost, overwritten or out of date at any time.
 * A *frame* entry is never overwritten while its frame is in use, only removed.
 */
enum ksm_kind {
	KSM_EMPTY = 0,
	KSM_HINT = 2,
	KSM_FRAME = 3,
};

#define KSM_MAX_PAYLOAD ((1ULL << 28) - 1)

/* An entry as it was seen. */
struct ksm_ref {
	uint64_t slot;
	uint64_t value;
};

static inline enum ksm_kind ksm_ref_kind(const struct ksm_ref *r)
{
	return (enum ksm_kind)(r->value >> 62);
}

/* The frame, or the fleet-wide page of a hint. */
static inline uint32_t ksm_ref_payload(const struct ksm_ref *r)
{
	return (uint32_t)(r->value >> 34 & KSM_MAX_PAYLOAD);
}

/*
 * Look @hash up: the first frame entry of its tag, else the first hint, else KSM_EMPTY. A frame is
 * below d->frames and in use, but need not be live. An equal tag is no proof of equal hash, nor that
 * of equal content.
 */
enum ksm_kind ksm_index_find(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref);
/* The next *frame* entry of the same tag after @ref, for when that one was not equal. One frame may
 * come twice while the table grows. */
enum ksm_kind ksm_index_find_next(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref);
/*
 * Insert a hint, whatever is there of this tag already. -ENOSPC when its buckets are full of frames,
 * -ERANGE when @page is beyond KSM_MAX_PAYLOAD.
 */
int ksm_index_hint(struct ksm_domain *d, uint64_t hash, uint64_t page);
/* Make a hint that was found name @page instead. False: it has changed meanwhile. */
bool ksm_index_rehint(struct ksm_domain *d, const struct ksm_ref *ref, uint64_t page);
/* Make the hint @ref name @frame, which the caller fills or holds. False: it has changed, find
 * again. A frame has one content, so one hash at a time: the one that was named last. */
bool ksm_index_claim(struct ksm_domain *d, const struct ksm_ref *ref, uint32_t frame);
/* Insert an entry for @frame, which the caller fills or holds. -ENOSPC when its buckets are full of
 * frames. */
int ksm_index_insert_frame(struct ksm_domain *d, uint64_t hash, uint32_t frame);
/* The same under the key of the frame's origin (below), which it has. It keeps its other name. */
int ksm_index_insert_origin(struct ksm_domain *d, uint32_t frame);
/* Remove all entries of @hash's tag that name @frame. False: there was none. */
bool ksm_index_remove(struct ksm_domain *d, uint64_t hash, uint32_t frame);
/* Remove the hint of @page, which had this hash and has it no more. False: there was none (any
 * more). A frame that it has become stays. */
bool ksm_index_forget(struct ksm_domain *d, uint64_t hash, uint64_t page);

/* For domain.c: how far the index can grow with so many frames. */
uint64_t ksm_index_max_buckets(uint64_t frames);
/* For domain.c: fill in d->first_buckets and what else follows from d->frames. */
void ksm_index_init(struct ksm_domain *d);
/* For domain.c: entries by kind. */
void ksm_index_count(struct ksm_domain *d, uint64_t *hints, uint64_t *entries);
/* For reap.c: remove the entries of frames that are not in use, or are filled by a cell that is dead
 * (KSM_NO_CELL: none is). Returns how many. */
uint64_t ksm_index_sweep(struct ksm_domain *d, unsigned int dead_cell);
/* For reap.c: @cell is dead. If it was about to grow the table, finish that. */
void ksm_index_recover(struct ksm_domain *d, unsigned int cell);

/* --- what cells tell each other: notes.c ------------------------------------------------------- */

/*
 * Whoever makes a page's hint into a frame asks the page's scanner, maybe in another cell, to look
 * at it again: it can join now. A bit may be set for nothing, and is lost with its cell; a page
 * beyond KSM_MAX_PAYLOAD has none. Any thread, no lock.
 */
void ksm_again_ask(struct ksm_domain *d, uint64_t page);
/* Add the bits of the fleet's pages [page, page + n) to @bitmap (bit 0: @page), and clear them. */
void ksm_again_take(struct ksm_domain *d, uint64_t page, uint64_t n, uint64_t *bitmap);

/*
 * Where a frame's content was read from (ksm.h). A frame that is not live has none: the first cell
 * to know tells it, while it holds the frame, and the coordinator forgets it when it gives the frame
 * back. So a frame has one origin in its life.
 *
 * An origin is also a name: the index has entries of frames under ksm_origin_key, beside those under
 * the hash of their content. Only the frame's own origin may name it, so that whoever gives it back
 * knows all its entries.
 */
/* Tell where the content of @frame, which the caller holds, came from. False: it has another origin. */
bool ksm_frame_tell_origin(struct ksm_domain *d, uint32_t frame, uint64_t origin);
/* For reap.c: @frame is dying. Its name goes, and its origin. */
void ksm_frame_forget_origin(struct ksm_domain *d, uint32_t frame);
/* What an origin is looked up by: as good as a hash, and like all of them, no proof. */
uint64_t ksm_origin_key(const struct ksm_domain *d, uint64_t origin);

/* --- content: hash.c ----------------------------------------------------------------------- */

/* Hash of a page (4096 bytes, any alignment), salted by the domain. Any thread. */
uint64_t ksm_hash(const struct ksm_domain *d, const void *page);
/* Keep only 1 <= @bits <= 64 of each hash, in this process: to make collisions. */
void ksm_domain_hash_bits(struct ksm_domain *d, unsigned int bits);
/* 4096 bytes, 8-byte aligned. */
bool ksm_page_is_zero(const void *page);

/* What ksm_hash_pick picks from, all with the same result: for any x86-64, and in hash_avx2.c. */
uint64_t ksm_hash_baseline(const void *page, const void *secret);
uint64_t ksm_hash_page_avx2(const void *page, const void *secret);

/* --- the shared bitmaps ---------------------------------------------------------------------- */

/* Set @bit, with no write when it is set already. */
static inline void ksm_touch(_Atomic uint64_t *map, uint64_t bit)
{
	uint64_t m = 1ULL << (bit & 63);

	if (!(atomic_load_explicit(&map[bit / 64], memory_order_relaxed) & m))
		atomic_fetch_or(&map[bit / 64], m);
}

static inline bool ksm_touched(_Atomic uint64_t *map, uint64_t bit)
{
	return atomic_load(&map[bit / 64]) >> (bit & 63) & 1;
}

/*
 * Go on to the next frame, *f itself included, where anything was ever allocated. False: no more,
 * and *f is the number of frames.
 */
static inline bool ksm_frame_next(struct ksm_domain *d, uint64_t *f)
{
	while (*f < d->frames && *f % KSM_CHUNK_FRAMES == 0 &&
	       !ksm_touched(d->frame_touched, *f / KSM_CHUNK_FRAMES))
		*f += KSM_CHUNK_FRAMES;
	*f = OB_MIN(*f, d->frames); /* the last chunk may be a short one */
	return *f < d->frames;
}

#endif
