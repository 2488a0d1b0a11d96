/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.c: from the hash of a page to a frame with that content, or to a page that had it.
 *
 * One table of 8-byte entries in the meta file, open addressing, shared by all cells of the domain
 * without a lock. A lock would have to survive the death of its owner in the middle of an update;
 * here an update is a single compare-and-swap of one entry, so there is no middle.
 *
 * A hash may only be in a *window*: the KSM_WINDOW entries from its slot on. The slot comes from
 * the high bits of the hash (multiplied by the capacity, which therefore need not be a power of
 * two), the tag that is kept in the entry from the low 34 bits. A miss costs at most one window,
 * eight cache lines in a row, whatever the load.
 *
 * The rules that make it safe:
 *
 *  - EMPTY ends a lookup, and an entry that once left EMPTY never returns to it: what is removed
 *    becomes TOMB, which a lookup passes and an insert reuses. So nothing that is inserted before
 *    the first EMPTY of its window can be cut off from lookups. (Cleaning tombs back to EMPTY would
 *    race with an insert that has just gone past them.) The table never grows beyond what lookups
 *    can stand, as the window bounds them.
 *  - Hints may be lost: an insert that finds no room overwrites one. Frame entries are only ever
 *    removed, and before their frame becomes free: by the coordinator that reaps it, or by the cell
 *    that gives up filling it. What a cell that died leaves behind, ksm_index_sweep removes.
 *  - Two cells that insert the same tag at the same time may both succeed, in different entries.
 *    That is harmless: hints are only advice; of two frames with the same content the one first in
 *    the window is found by all who come later, and the other is given back when its holder lets go
 *    of it. The price is one page that is held twice for that long.
 *  - Equal tags do not mean equal content, and never have to: whoever merges compares all of it.
 *  - What is read is checked before it is used as a frame number, so a damaged table costs merges,
 *    never memory safety.
 */
#include <errno.h>

#include "ksm/domain.h"

#define PAYLOAD_SHIFT 34
#define TAG_MASK      ((1ULL << PAYLOAD_SHIFT) - 1)
#define ENTRY_TOMB    ((uint64_t)KSM_TOMB << 62)
#define CHUNK_ENTRIES (OB_PAGE_SIZE / sizeof(uint64_t))

static uint64_t entry(enum ksm_kind kind, uint64_t payload, uint64_t hash)
{
	return (uint64_t)kind << 62 | payload << PAYLOAD_SHIFT | (hash & TAG_MASK);
}

static enum ksm_kind kind_of(uint64_t v)
{
	return (enum ksm_kind)(v >> 62);
}

static uint64_t payload_of(uint64_t v)
{
	return v >> PAYLOAD_SHIFT & KSM_MAX_PAYLOAD;
}

/* Entry number @i of the window of @hash. */
static uint64_t window_slot(const struct ksm_domain *d, uint64_t hash, unsigned int i)
{
	uint64_t at = (uint64_t)((unsigned __int128)hash * d->slots >> 64) + i;

	return at < d->slots ? at : at - d->slots;
}

static uint64_t entry_read(const struct ksm_domain *d, uint64_t slot)
{
	return atomic_load_explicit(&d->index[slot], memory_order_acquire);
}

/* The only way in which the table changes. */
static bool entry_swap(struct ksm_domain *d, uint64_t slot, uint64_t was, uint64_t is)
{
	ksm_touch(d->index_touched, slot / CHUNK_ENTRIES);
	return atomic_compare_exchange_strong(&d->index[slot], &was, is);
}

static bool is_frame_of_tag(const struct ksm_domain *d, uint64_t v, uint64_t hash)
{
	return (v & TAG_MASK) == (hash & TAG_MASK) && kind_of(v) == KSM_FRAME &&
	       payload_of(v) < d->frames;
}

enum ksm_kind ksm_index_find(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref)
{
	*ref = (struct ksm_ref){0, 0};
	for (unsigned int i = 0; i < KSM_WINDOW; i++) {
		uint64_t slot = window_slot(d, hash, i), v = entry_read(d, slot);

		if (!v)
			break;
		if (is_frame_of_tag(d, v, hash)) {
			*ref = (struct ksm_ref){slot, v};
			return KSM_FRAME;
		}
		if (!ref->value && kind_of(v) == KSM_HINT && (v & TAG_MASK) == (hash & TAG_MASK))
			*ref = (struct ksm_ref){slot, v};
	}
	return ksm_ref_kind(ref);
}

enum ksm_kind ksm_index_find_next(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref)
{
	bool passed = false;

	for (unsigned int i = 0; i < KSM_WINDOW; i++) {
		uint64_t slot = window_slot(d, hash, i), v = entry_read(d, slot);

		if (!v)
			break;
		if (passed && is_frame_of_tag(d, v, hash)) {
			*ref = (struct ksm_ref){slot, v};
			return KSM_FRAME;
		}
		passed |= slot == ref->slot;
	}
	*ref = (struct ksm_ref){0, 0};
	return KSM_EMPTY;
}

/*
 * Where @hash can go: the first entry of its window that is EMPTY or a TOMB, else a hint, chosen by
 * the low bits of the hash so that not always the same one is lost. False: frames everywhere.
 */
static bool find_room(const struct ksm_domain *d, uint64_t hash, struct ksm_ref *room)
{
	for (unsigned int i = 0; i < KSM_WINDOW; i++) {
		uint64_t slot = window_slot(d, hash, i), v = entry_read(d, slot);

		if (kind_of(v) == KSM_EMPTY || kind_of(v) == KSM_TOMB) {
			*room = (struct ksm_ref){slot, v};
			return true;
		}
	}
	for (unsigned int i = 0; i < KSM_WINDOW; i++) {
		uint64_t slot = window_slot(d, hash, (unsigned int)(hash + i) % KSM_WINDOW);
		uint64_t v = entry_read(d, slot);

		if (kind_of(v) != KSM_FRAME) {
			*room = (struct ksm_ref){slot, v};
			return true;
		}
	}
	return false;
}

static int insert(struct ksm_domain *d, uint64_t hash, uint64_t value)
{
	struct ksm_ref room;

	/* Each round that fails does so because another cell's insert succeeded. */
	do {
		if (!find_room(d, hash, &room))
			return -ENOSPC;
	} while (!entry_swap(d, room.slot, room.value, value));
	return 0;
}

int ksm_index_hint(struct ksm_domain *d, uint64_t hash, uint64_t page)
{
	if (page > KSM_MAX_PAYLOAD)
		return -ERANGE;
	return insert(d, hash, entry(KSM_HINT, page, hash));
}

int ksm_index_insert_frame(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	OB_ASSERT(frame < d->frames);
	return insert(d, hash, entry(KSM_FRAME, frame, hash));
}

bool ksm_index_rehint(struct ksm_domain *d, const struct ksm_ref *ref, uint64_t page)
{
	OB_ASSERT(ref->slot < d->slots && ksm_ref_kind(ref) == KSM_HINT);
	if (page > KSM_MAX_PAYLOAD)
		return false;
	return entry_swap(d, ref->slot, ref->value, entry(KSM_HINT, page, ref->value));
}

bool ksm_index_claim(struct ksm_domain *d, const struct ksm_ref *ref, uint32_t frame)
{
	OB_ASSERT(ref->slot < d->slots && ksm_ref_kind(ref) == KSM_HINT && frame < d->frames);
	return entry_swap(d, ref->slot, ref->value, entry(KSM_FRAME, frame, ref->value));
}

bool ksm_index_remove(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	uint64_t value = entry(KSM_FRAME, frame, hash);
	bool removed = false;

	for (unsigned int i = 0; i < KSM_WINDOW; i++) {
		uint64_t slot = window_slot(d, hash, i), v = entry_read(d, slot);

		if (!v)
			break;
		if (v == value)
			removed |= entry_swap(d, slot, v, ENTRY_TOMB);
	}
	return removed;
}

/*
 * Walks skip what was never written to: reading a hole of a mapped memfd would make the kernel put
 * a page there, and the table would cost its full size by being counted.
 */
static bool next_slot(struct ksm_domain *d, uint64_t *slot)
{
	while (*slot < d->slots && *slot % CHUNK_ENTRIES == 0 &&
	       !ksm_touched(d->index_touched, *slot / CHUNK_ENTRIES))
		*slot += CHUNK_ENTRIES;
	return *slot < d->slots;
}

void ksm_index_count(struct ksm_domain *d, uint64_t *hints, uint64_t *entries)
{
	*hints = *entries = 0;
	for (uint64_t slot = 0; next_slot(d, &slot); slot++) {
		enum ksm_kind kind = kind_of(entry_read(d, slot));

		*hints += kind == KSM_HINT;
		*entries += kind == KSM_FRAME;
	}
}

uint64_t ksm_index_sweep(struct ksm_domain *d, unsigned int dead_cell)
{
	uint64_t swept = 0;

	for (uint64_t slot = 0; next_slot(d, &slot); slot++) {
		uint64_t v = entry_read(d, slot);

		/*
		 * A frame that is found free or dying here may be filled anew before the swap, but
		 * then its owner makes another entry: this one is not overwritten. So what is
		 * removed is always the old one.
		 */
		if (kind_of(v) == KSM_FRAME && !ksm_frame_may_live(d, payload_of(v), dead_cell))
			swept += entry_swap(d, slot, v, ENTRY_TOMB);
	}
	return swept;
}
