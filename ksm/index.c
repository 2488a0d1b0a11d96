/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.c: from the hash of a page to a frame with that content, or to a page that had it.
 *
 * One table of 8-byte entries in the meta file, shared by all cells of the domain without a lock. A
 * lock would have to survive the death of its owner in the middle of an update; here an update is a
 * single compare-and-swap of one entry, so there is no middle. Only the growth of the table has one,
 * and nobody ever waits for that: index_grow.c.
 *
 * The table is made of buckets of 64 entries. A hash has two of them that it may be in
 * (index_place.c); the tag that is kept in the entry is its low 34 bits. A lookup reads both, 16
 * cache lines, whatever the load; an insert takes the emptier. Since a lookup always reads to the
 * end, an entry can simply become EMPTY again: there are no tombs, and so nothing that removals could
 * fill the table with.
 *
 * The rules that make it safe:
 *
 *  - A frame entry is as good as the frame says: its state word carries the name of its content, 20
 *    bits of the tag (pool.c), and an entry whose frame is free, or of another name, is none; but for
 *    one under the key of the frame's origin (notes.c), which is a name beside that. So no
 *    late hand (a cell that stops in the middle of moving an entry, and goes on when it has long
 *    been removed) can bring a frame back that is gone: what it writes is room for the next.
 *  - Hints may be lost: an insert that finds no room overwrites one, and asks for that page to be
 *    looked at again (ksm_again_ask), as its scanner looks at what changes only. Entries of frames in use are
 *    only ever removed, and before their frame becomes free: by the coordinator that reaps it, or by
 *    the cell that gives up filling it. What a cell that died leaves behind, ksm_index_sweep removes.
 *  - Two cells that insert the same tag at the same time may both succeed, in different entries.
 *    That is harmless: hints are only advice; of two frames with the same content the one that is
 *    met first is found by all who come later, and the other is given back when its holder lets go
 *    of it. The price is one page that is held twice for that long.
 *  - Equal tags do not mean equal content, and never have to: whoever merges compares all of it.
 *  - What is read is checked before it is used as a frame or a bucket number, so a damaged table
 *    costs merges, never memory safety.
 */
#include <errno.h>

#include "ksm/index.h"

/* The emptier of two places holds so many: time to grow. */
#define CROWDED 62

/* Where a hash may be, when there are so many buckets. */
struct places {
	uint64_t n, region, at[2];
};

static void places_of(const struct ksm_domain *d, uint64_t hash, struct places *p)
{
	p->n = ksm_index_buckets(d);
	p->region = ksm_region_of_hash(d, hash);
	ksm_index_places(d, p->n, p->region, hash, p->at);
	for (unsigned int i = 0; i < KSM_BUCKET; i += 64 / sizeof(uint64_t)) {
		__builtin_prefetch((const void *)(uintptr_t)&d->index[p->at[0] * KSM_BUCKET + i]);
		__builtin_prefetch((const void *)(uintptr_t)&d->index[p->at[1] * KSM_BUCKET + i]);
	}
}

/* Is the hash looked for elsewhere by now? Then there. */
static bool places_moved(const struct ksm_domain *d, uint64_t hash, struct places *p)
{
	uint64_t old[2] = {p->at[0], p->at[1]};

	if (ksm_index_buckets(d) == p->n)
		return false;
	places_of(d, hash, p);
	return p->at[0] != old[0] || p->at[1] != old[1];
}

/* Entry @i, below 2 * KSM_BUCKET, of two buckets. */
static uint64_t slot_of(const uint64_t at[2], unsigned int i)
{
	return at[i / KSM_BUCKET] * KSM_BUCKET + i % KSM_BUCKET;
}

/* How many buckets two places are. */
static unsigned int buckets_of(const uint64_t at[2])
{
	return at[0] == at[1] ? 1 : 2;
}

/* The next slot of those in @match, a look at bucket @bucket, and out with it. */
static uint64_t next_slot(uint64_t bucket, uint64_t *match)
{
	uint64_t slot = bucket * KSM_BUCKET + (unsigned int)__builtin_ctzll(*match);

	*match &= *match - 1;
	return slot;
}

static bool same_tag(uint64_t v, uint64_t hash)
{
	return !((v ^ hash) & KSM_TAG_MASK);
}

enum ksm_kind ksm_index_find(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref)
{
	struct places p;

	*ref = (struct ksm_ref){0, 0};
	places_of(d, hash, &p);
	do {
		for (unsigned int b = 0; b < buckets_of(p.at); b++) {
			uint64_t match = ksm_bucket_match(d, p.at[b], hash);

			while (match) {
				uint64_t slot = next_slot(p.at[b], &match);
				uint64_t v = ksm_entry_read(d, slot);

				if (!same_tag(v, hash))
					continue;
				if (ksm_entry_is_frame(d, v)) {
					*ref = (struct ksm_ref){slot, v};
					return KSM_FRAME;
				}
				if (!ref->value && ksm_entry_kind(v) == KSM_HINT)
					*ref = (struct ksm_ref){slot, v};
			}
		}
	} while (!ref->value && places_moved(d, hash, &p));
	return ksm_ref_kind(ref);
}

enum ksm_kind ksm_index_find_next(struct ksm_domain *d, uint64_t hash, struct ksm_ref *ref)
{
	bool passed = false;
	struct places p;

	places_of(d, hash, &p);
	for (unsigned int b = 0; b < buckets_of(p.at); b++) {
		uint64_t match = ksm_bucket_match(d, p.at[b], hash);

		/* Also when it has been removed meanwhile. */
		if (ref->slot / KSM_BUCKET == p.at[b])
			match |= 1ULL << ref->slot % KSM_BUCKET;
		while (match) {
			uint64_t slot = next_slot(p.at[b], &match), v = ksm_entry_read(d, slot);

			if (passed && same_tag(v, hash) && ksm_entry_is_frame(d, v)) {
				*ref = (struct ksm_ref){slot, v};
				return KSM_FRAME;
			}
			passed |= slot == ref->slot;
		}
	}
	*ref = (struct ksm_ref){0, 0};
	return KSM_EMPTY;
}

/* The first free entry of a bucket, and how many are not. */
static uint64_t free_slot(const struct ksm_domain *d, uint64_t bucket, unsigned int *used)
{
	uint64_t m = ksm_bucket_used(d, bucket);

	*used = (unsigned int)__builtin_popcountll(m);
	return ~m ? bucket * KSM_BUCKET + (unsigned int)__builtin_ctzll(~m) : KSM_NO_SLOT;
}

/* A hint in two full buckets, or an entry that its frame does not own up to; from a place on that
 * the new entry chooses, so that not always the same one is lost. */
static uint64_t victim_slot(const struct ksm_domain *d, const uint64_t at[2], uint64_t v)
{
	unsigned int start = (unsigned int)(v ^ v >> KSM_PAYLOAD_SHIFT);

	for (unsigned int i = 0; i < 2 * KSM_BUCKET; i++) {
		uint64_t slot = slot_of(at, (start + i) % (2 * KSM_BUCKET));

		if (!ksm_entry_is_frame(d, ksm_entry_read(d, slot)))
			return slot;
	}
	return KSM_NO_SLOT;
}

/* Nobody would look at the page again by himself: its scanner believes that the index knows it. */
void ksm_index_lost(struct ksm_domain *d, uint64_t v)
{
	if (ksm_entry_kind(v) == KSM_HINT)
		ksm_again_ask(d, ksm_entry_payload(v));
}

uint64_t ksm_index_put(struct ksm_domain *d, const uint64_t at[2], uint64_t v, bool *crowded)
{
	uint64_t slot, other, was;
	unsigned int used, used_other;
	bool full;

	/* Each round that fails does so because another cell's change succeeded. */
	for (;;) {
		slot = free_slot(d, at[0], &used);
		other = free_slot(d, at[1], &used_other);
		if (used_other < used) {
			slot = other;
			used = used_other;
		}
		*crowded = used + 1 >= CROWDED;
		full = slot == KSM_NO_SLOT;
		if (full)
			slot = victim_slot(d, at, v);
		if (slot == KSM_NO_SLOT)
			return KSM_NO_SLOT;
		was = ksm_entry_read(d, slot);
		if ((full ? !ksm_entry_is_frame(d, was) : ksm_entry_is_free(was)) &&
		    ksm_entry_swap(d, slot, was, v)) {
			ksm_index_lost(d, was);
			return slot;
		}
	}
}

static int insert(struct ksm_domain *d, uint64_t hash, uint64_t v)
{
	struct places p;
	bool crowded;
	uint64_t slot;

	places_of(d, hash, &p);
	slot = ksm_index_put(d, p.at, v, &crowded);
	if (slot != KSM_NO_SLOT && ksm_index_buckets(d) != p.n)
		ksm_index_settle(d, slot, v);
	if (crowded)
		ksm_index_grow(d);
	return slot == KSM_NO_SLOT ? -ENOSPC : 0;
}

int ksm_index_hint(struct ksm_domain *d, uint64_t hash, uint64_t page)
{
	if (page > KSM_MAX_PAYLOAD)
		return -ERANGE;
	return insert(d, hash, ksm_entry(KSM_HINT, page, hash));
}

int ksm_index_insert_frame(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	OB_ASSERT(frame < d->frames);
	ksm_frame_name(d, frame, hash);
	return insert(d, hash, ksm_entry(KSM_FRAME, frame, hash));
}

int ksm_index_insert_origin(struct ksm_domain *d, uint32_t frame)
{
	uint64_t key = ksm_origin_key(d, ksm_domain_origin(d, frame));

	OB_ASSERT(frame < d->frames);
	return insert(d, key, ksm_entry(KSM_FRAME, frame, key));
}

/* Change a hint, which may be moved at this moment. */
static bool change(struct ksm_domain *d, const struct ksm_ref *ref, uint64_t v)
{
	if (!ksm_entry_swap(d, ref->slot, ref->value, v))
		return false;
	ksm_index_settle(d, ref->slot, v);
	return true;
}

bool ksm_index_rehint(struct ksm_domain *d, const struct ksm_ref *ref, uint64_t page)
{
	OB_ASSERT(ref->slot < d->slots && ksm_ref_kind(ref) == KSM_HINT);
	if (page > KSM_MAX_PAYLOAD)
		return false;
	return change(d, ref, ksm_entry(KSM_HINT, page, ref->value));
}

bool ksm_index_claim(struct ksm_domain *d, const struct ksm_ref *ref, uint32_t frame)
{
	OB_ASSERT(ref->slot < d->slots && ksm_ref_kind(ref) == KSM_HINT && frame < d->frames);
	/* Named first: an entry that its frame does not own up to is anyone's. */
	ksm_frame_name(d, frame, ref->value);
	return change(d, ref, ksm_entry(KSM_FRAME, frame, ref->value));
}

/* Take all copies of @v out, wherever they are looked for meanwhile. */
static bool take_out(struct ksm_domain *d, uint64_t hash, uint64_t v)
{
	bool removed = false;
	struct places p;

	places_of(d, hash, &p);
	do {
		for (unsigned int b = 0; b < buckets_of(p.at); b++) {
			uint64_t match = ksm_bucket_match(d, p.at[b], v);

			while (match)
				removed |= ksm_entry_swap(d, next_slot(p.at[b], &match), v, 0);
		}
	} while (places_moved(d, hash, &p));
	return removed;
}

bool ksm_index_remove(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	return take_out(d, hash, ksm_entry(KSM_FRAME, frame, hash));
}

bool ksm_index_forget(struct ksm_domain *d, uint64_t hash, uint64_t page)
{
	return page <= KSM_MAX_PAYLOAD && take_out(d, hash, ksm_entry(KSM_HINT, page, hash));
}

void ksm_index_count(struct ksm_domain *d, uint64_t *hints, uint64_t *entries)
{
	uint64_t slots = ksm_index_buckets(d) * KSM_BUCKET;

	*hints = *entries = 0;
	for (uint64_t slot = 0; slot < slots; slot++) {
		uint64_t v = ksm_entry_read(d, slot);

		*hints += ksm_entry_kind(v) == KSM_HINT;
		*entries += ksm_entry_is_frame(d, v);
	}
}

uint64_t ksm_index_sweep(struct ksm_domain *d, unsigned int dead_cell)
{
	uint64_t swept = 0, slots = ksm_index_buckets(d) * KSM_BUCKET;

	for (uint64_t slot = 0; slot < slots; slot++) {
		uint64_t v = ksm_entry_read(d, slot);

		/*
		 * A frame that is found free here may be filled anew before the swap, but then its
		 * owner makes another entry: this one is not overwritten. So what is removed is
		 * always the old one.
		 */
		if (ksm_entry_kind(v) == KSM_FRAME &&
		    (!ksm_entry_is_frame(d, v) ||
		     ksm_frame_filled_by(d, ksm_entry_payload(v), dead_cell)))
			swept += ksm_entry_swap(d, slot, v, 0);
	}
	return swept;
}
