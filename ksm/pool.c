/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c: frames, and who holds them.
 *
 * A frame is a page of the pool file that guests of several processes map privately. It may only be
 * given back when the last mapping is gone, and the processes that map it may die at any
 * instruction. A shared count of references cannot live with that: nobody knows how much of it a
 * dead process owned. So each frame has one *bit* per cell, "this cell maps it at least once", and
 * each cell counts its own mappings in memory of its own. A bit can be set twice and cleared twice
 * without harm; when a cell is gone, its bit is cleared in all frames and its counts go with it.
 *
 * The state of a frame is one word, changed by compare-and-swap:
 *
 *	FREE --alloc--> FILLING(cell) --publish--> LIVE --reap--> DYING --> FREE
 *	  ^                  |                       ^              |
 *	  +-----abandon------+                       +--held again--+
 *
 * FILLING carries the number of the cell, so that a dead cell's can be told and freed. Only the
 * coordinator reaps, and when it dies all is over, so DYING needs no owner. From FILLING to DYING
 * the word also carries the *name* of the content, 20 bits of its hash, which is set when the frame
 * gets its entry in the index: so an entry that is left over from an earlier use of the frame can be
 * told from a true one (index.c), and nobody has to hunt it down before the frame is used again.
 *
 * Holding against reaping. A cell may take a frame out of the index at the very moment when the
 * coordinator finds that nobody holds it. Each side first says what it wants, then looks at what
 * the other has said:
 *
 *	cell (ksm_frame_get)			coordinator (ksm_domain_reap)
 *	set my bit				LIVE -> DYING
 *	is the state LIVE?			are all bits clear?
 *	  no: clear my bit, -EAGAIN		  no: DYING -> LIVE
 *
 * All four are sequentially consistent, so there is one order of them that both agree on, and in it
 * at least one of the two looks comes after the other's word. (This is Dekker's argument.) If the
 * cell's look came first of all, before DYING, then its bit was set still earlier, and the
 * coordinator sees it. If the coordinator saw no bit, then the bit was set later, hence the cell
 * looks later than DYING, and backs out. It can happen that both give way: the cell backs out and
 * the frame comes back to life. Then the cell finds it again on its next pass. It cannot happen
 * that neither does.
 *
 * The cell may be delayed between setting its bit and looking for so long that the frame has died,
 * was filled by another cell and is LIVE with other content when it looks. Then the hold is good,
 * but not on what the index promised. That is why the contract says that a frame is compared after
 * it was got: from then on it does not change. A bit that is set for a moment on a frame that is
 * free or being filled only delays its reaping.
 *
 * Where frames are taken: neighbouring guest pages should get neighbouring frames, as then one mmap
 * maps them all. Each cell starts at its own share of the pool and goes on from where it was, so
 * cells do not cut each other's runs. It looks at some frames ahead for a run of the wanted length
 * and otherwise takes the longest that it saw. After as many frames were freed as a quarter of its
 * way, it starts from home again: so the pool does not creep over the file, and the search is paid
 * for by what was freed.
 */
#include <errno.h>

#include "ksm/domain.h"

#define LOOK_AHEAD 1024

static bool frame_is_free(const struct ksm_domain *d, uint64_t f)
{
	if (!ksm_touched(d->frame_touched, f / KSM_CHUNK_FRAMES))
		return true;
	return atomic_load_explicit(&d->state[f], memory_order_relaxed) == KSM_FRAME_FREE;
}

static uint32_t filling_word(const struct ksm_domain *d)
{
	return KSM_FRAME_FILLING | d->cell << KSM_FRAME_CELL_SHIFT;
}

/* The name alone. */
static uint32_t name_of(uint32_t word)
{
	return word & ~KSM_FRAME_OWNER;
}

static uint32_t name_from(uint64_t tag)
{
	return (uint32_t)tag << KSM_FRAME_NAME_SHIFT;
}

static bool frame_take(struct ksm_domain *d, uint64_t f)
{
	uint32_t was = KSM_FRAME_FREE;

	/* First the map, so that a frame that is not free is never missed by a walk. */
	ksm_touch(d->frame_touched, f / KSM_CHUNK_FRAMES);
	return atomic_compare_exchange_strong(&d->state[f], &was, filling_word(d));
}

/*
 * The first run of @want free frames within LOOK_AHEAD of the cursor, else the longest, else the
 * first frame that is free at all. Returns its length, 0 when there is none in the whole pool. Only
 * what was seen: another cell may take it.
 */
static uint32_t find_run(const struct ksm_domain *d, uint32_t want, uint64_t *first)
{
	uint64_t at = d->cursor;
	uint32_t len = 0, best = 0;

	for (uint64_t seen = 0; seen < d->frames; seen++, at++) {
		if (at == d->frames) {
			at = 0;
			len = 0;
		}
		len = frame_is_free(d, at) ? len + 1 : 0;
		if (len > best) {
			best = len;
			*first = at + 1 - len;
		}
		if (best == want || (best && seen + 1 >= LOOK_AHEAD))
			break;
	}
	return best;
}

static uint64_t distance(const struct ksm_domain *d, uint64_t from, uint64_t to)
{
	return to >= from ? to - from : d->frames - from + to;
}

uint32_t ksm_frame_alloc(struct ksm_domain *d, uint32_t want, uint32_t *first)
{
	uint64_t freed = atomic_load(d->freed), at = 0, end;
	uint32_t seen, got = 0;

	OB_ASSERT(d->cell != KSM_NO_CELL && want > 0);
	/* A pool that was full stays so until something is freed: do not search it again. */
	if (d->full && freed == d->full_freed)
		return 0;
	d->full = false;
	if (freed - d->home_freed > OB_MAX(distance(d, d->home, d->cursor) / 4, LOOK_AHEAD)) {
		d->cursor = d->home;
		d->home_freed = freed;
	}
	do {
		seen = find_run(d, want, &at);
		if (!seen) {
			d->full = true;
			d->full_freed = freed;
			return 0;
		}
		while (got < seen && frame_take(d, at + got))
			got++;
	} while (!got); /* another cell was faster, so it made progress */
	end = at + got < d->frames ? at + got : 0;
	/* A shorter run near by: stay, the rest of what is ahead has not been looked
	 * at to its end. */
	if (got == want || distance(d, d->cursor, at) >= LOOK_AHEAD)
		d->cursor = end;
	*first = (uint32_t)at;
	return got;
}

uint32_t ksm_frame_alloc_at(struct ksm_domain *d, uint32_t first, uint32_t want)
{
	uint32_t got = 0;

	OB_ASSERT(d->cell != KSM_NO_CELL);
	while (got < want && first + (uint64_t)got < d->frames &&
	       frame_is_free(d, (uint64_t)first + got) && frame_take(d, (uint64_t)first + got))
		got++;
	return got;
}

int ksm_frame_abandon(struct ksm_domain *d, uint32_t first, uint32_t n)
{
	int r;

	OB_ASSERT(first < d->frames && n <= d->frames - first);
	r = d->host->ops->punch(d->host, d->pool_fd, first * OB_PAGE_SIZE, n * OB_PAGE_SIZE);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t was = atomic_load(&d->state[first + i]);

		OB_ASSERT((was & KSM_FRAME_OWNER) == filling_word(d));
		OB_ASSERT(
			atomic_compare_exchange_strong(&d->state[first + i], &was, KSM_FRAME_FREE));
	}
	atomic_fetch_add(d->freed, n);
	return r;
}

static _Atomic uint8_t *holder_word(const struct ksm_domain *d, uint32_t frame)
{
	return &d->holder[(uint64_t)frame * d->words + d->cell / 8];
}

static uint8_t holder_bit(const struct ksm_domain *d)
{
	return (uint8_t)(1u << (d->cell & 7));
}

static void count_first(struct ksm_domain *d, uint32_t frame)
{
	uint64_t chunk = frame / KSM_CHUNK_FRAMES, bit = 1ULL << (chunk & 63);

	if (!(d->count_touched[chunk / 64] & bit)) {
		d->count_touched[chunk / 64] |= bit;
		d->count_chunks++;
	}
	d->count[frame] = 1;
}

void ksm_frame_publish(struct ksm_domain *d, uint32_t frame)
{
	uint32_t was;

	OB_ASSERT(frame < d->frames && !d->count[frame]);
	was = atomic_load(&d->state[frame]);
	OB_ASSERT((was & KSM_FRAME_OWNER) == filling_word(d));
	count_first(d, frame);
	/* Held before it can be seen to be live: otherwise it might be reaped at once. */
	atomic_fetch_or(holder_word(d, frame), holder_bit(d));
	OB_ASSERT(atomic_compare_exchange_strong(&d->state[frame], &was,
						 KSM_FRAME_LIVE | name_of(was)));
}

int ksm_frame_get(struct ksm_domain *d, uint32_t frame)
{
	OB_ASSERT(d->cell != KSM_NO_CELL);
	if (frame >= d->frames)
		return -EINVAL;
	if (d->count[frame]) {
		OB_ASSERT(d->count[frame] < UINT32_MAX);
		d->count[frame]++;
		return 0;
	}
	if (!ksm_domain_frame_live(d, frame))
		return -EAGAIN;
	atomic_fetch_or(holder_word(d, frame), holder_bit(d));
	if ((atomic_load(&d->state[frame]) & KSM_FRAME_STATE) != KSM_FRAME_LIVE) {
		atomic_fetch_and(holder_word(d, frame), (uint8_t)~holder_bit(d));
		return -EAGAIN;
	}
	count_first(d, frame);
	return 0;
}

void ksm_frame_put(struct ksm_domain *d, uint32_t frame)
{
	OB_ASSERT(d->cell != KSM_NO_CELL && frame < d->frames && d->count[frame]);
	if (--d->count[frame] == 0)
		atomic_fetch_and(holder_word(d, frame), (uint8_t)~holder_bit(d));
}

uint32_t ksm_frame_count(const struct ksm_domain *d, uint32_t frame)
{
	return d->cell != KSM_NO_CELL && frame < d->frames ? d->count[frame] : 0;
}

bool ksm_frame_held_elsewhere(const struct ksm_domain *d, uint32_t frame)
{
	if (frame >= d->frames || !ksm_touched(d->frame_touched, frame / KSM_CHUNK_FRAMES))
		return false;
	for (unsigned int w = 0; w < d->words; w++) {
		uint8_t bits = atomic_load(&d->holder[(uint64_t)frame * d->words + w]);

		if (d->cell != KSM_NO_CELL && d->cell / 8 == w)
			bits &= (uint8_t)~holder_bit(d);
		if (bits)
			return true;
	}
	return false;
}

bool ksm_domain_frame_live(struct ksm_domain *d, uint32_t frame)
{
	return frame < d->frames && ksm_touched(d->frame_touched, frame / KSM_CHUNK_FRAMES) &&
	       (atomic_load(&d->state[frame]) & KSM_FRAME_STATE) == KSM_FRAME_LIVE;
}

static bool named_by_origin(const struct ksm_domain *d, uint32_t frame, uint64_t tag)
{
	uint64_t origin = ksm_domain_origin(d, frame);

	return origin != KSM_ORIGIN_NONE && name_from(ksm_origin_key(d, origin)) == name_from(tag);
}

bool ksm_frame_named(const struct ksm_domain *d, uint64_t frame, uint64_t tag)
{
	uint32_t word;

	if (frame >= d->frames || !ksm_touched(d->frame_touched, frame / KSM_CHUNK_FRAMES))
		return false;
	word = atomic_load(&d->state[frame]);
	if ((word & KSM_FRAME_STATE) == KSM_FRAME_FREE)
		return false;
	return name_of(word) == name_from(tag) || named_by_origin(d, (uint32_t)frame, tag);
}

void ksm_frame_name(struct ksm_domain *d, uint32_t frame, uint64_t tag)
{
	uint32_t word;

	if (!ksm_touched(d->frame_touched, frame / KSM_CHUNK_FRAMES))
		return;
	word = atomic_load(&d->state[frame]);
	while ((word & KSM_FRAME_STATE) != KSM_FRAME_FREE &&
	       !atomic_compare_exchange_weak(&d->state[frame], &word,
					     (word & KSM_FRAME_OWNER) | name_from(tag)))
		;
}

bool ksm_frame_filled_by(const struct ksm_domain *d, uint64_t frame, unsigned int cell)
{
	return frame < d->frames && ksm_touched(d->frame_touched, frame / KSM_CHUNK_FRAMES) &&
	       (atomic_load(&d->state[frame]) & KSM_FRAME_OWNER) ==
		       (KSM_FRAME_FILLING | cell << KSM_FRAME_CELL_SHIFT);
}
