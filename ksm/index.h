/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h: private to the index: how an entry is laid out, which buckets a content may be in
 * (index_place.c), and how the table grows (index_grow.c). What others may call is in domain.h.
 */
#ifndef OVERBOOK_KSM_INDEX_H
#define OVERBOOK_KSM_INDEX_H

#include <emmintrin.h>

#include "ksm/domain.h"

#define KSM_PAYLOAD_SHIFT 34
#define KSM_TAG_MASK	  ((1ULL << KSM_PAYLOAD_SHIFT) - 1)
#define KSM_NO_SLOT	  UINT64_MAX

static inline uint64_t ksm_entry(enum ksm_kind kind, uint64_t payload, uint64_t tag)
{
	return (uint64_t)kind << 62 | payload << KSM_PAYLOAD_SHIFT | (tag & KSM_TAG_MASK);
}

static inline enum ksm_kind ksm_entry_kind(uint64_t v)
{
	return (enum ksm_kind)(v >> 62);
}

/* Room for another: also what only damage can have written. */
static inline bool ksm_entry_is_free(uint64_t v)
{
	return v >> 62 < KSM_HINT;
}

static inline uint64_t ksm_entry_payload(uint64_t v)
{
	return v >> KSM_PAYLOAD_SHIFT & KSM_MAX_PAYLOAD;
}

static inline uint64_t ksm_entry_read(const struct ksm_domain *d, uint64_t slot)
{
	return atomic_load(&d->index[slot]);
}

/*
 * A look at a whole bucket, as 64 bits: which entries may be of @hash's tag (32 bits of it are equal),
 * which are not free. Four entries at a time, as any x86-64 can; each of them is read at once, but
 * not as C's atomics are: who acts on what is seen reads that entry once more. An entry that changes
 * meanwhile may be seen or not, as if it had changed a little earlier or later.
 */
static inline uint64_t ksm_bucket_match(const struct ksm_domain *d, uint64_t bucket, uint64_t hash)
{
	uint64_t m = 0;
#ifdef __SANITIZE_THREAD__
	for (unsigned int i = 0; i < KSM_BUCKET; i++)
		m |= (uint64_t) !(uint32_t)(ksm_entry_read(d, bucket * KSM_BUCKET + i) ^ hash) << i;
#else
	const float *e = (const float *)(uintptr_t)&d->index[bucket * KSM_BUCKET];
	__m128i want = _mm_set1_epi32((int)(uint32_t)hash);

	for (unsigned int i = 0; i < KSM_BUCKET; i += 4) {
		__m128 low = _mm_shuffle_ps(_mm_load_ps(e + 2UL * i), _mm_load_ps(e + 2UL * i + 4),
					    _MM_SHUFFLE(2, 0, 2, 0));
		__m128i equal = _mm_cmpeq_epi32(_mm_castps_si128(low), want);

		m |= (uint64_t)(unsigned int)_mm_movemask_ps(_mm_castsi128_ps(equal)) << i;
	}
#endif
	return m;
}

static inline uint64_t ksm_bucket_used(const struct ksm_domain *d, uint64_t bucket)
{
	uint64_t m = 0;
#ifdef __SANITIZE_THREAD__
	for (unsigned int i = 0; i < KSM_BUCKET; i++)
		m |= (uint64_t)!ksm_entry_is_free(ksm_entry_read(d, bucket * KSM_BUCKET + i)) << i;
#else
	const float *e = (const float *)(uintptr_t)&d->index[bucket * KSM_BUCKET];

	/* A kind that is in use has the top bit. */
	for (unsigned int i = 0; i < KSM_BUCKET; i += 4) {
		__m128 high = _mm_shuffle_ps(_mm_load_ps(e + 2UL * i), _mm_load_ps(e + 2UL * i + 4),
					     _MM_SHUFFLE(3, 1, 3, 1));

		m |= (uint64_t)(unsigned int)_mm_movemask_ps(high) << i;
	}
#endif
	return m;
}

/* The only way in which a published bucket changes. */
static inline bool ksm_entry_swap(struct ksm_domain *d, uint64_t slot, uint64_t was, uint64_t is)
{
	return atomic_compare_exchange_strong(&d->index[slot], &was, is);
}

/* A frame entry is as good as the frame says: one that its frame does not own up to is no more
 * than room for another. */
static inline bool ksm_entry_is_frame(const struct ksm_domain *d, uint64_t v)
{
	return ksm_entry_kind(v) == KSM_FRAME && ksm_frame_named(d, ksm_entry_payload(v), v);
}

/* --- index_place.c ------------------------------------------------------------------------- */

/* How many buckets there are now: whatever the header says, one of the numbers possible. */
static inline uint64_t ksm_index_buckets(const struct ksm_domain *d)
{
	uint64_t n = atomic_load(d->buckets);

	return n < d->first_buckets ? d->first_buckets : OB_MIN(n, d->max_buckets);
}

/* The part of the table that an entry never leaves. */
static inline uint64_t ksm_region_of_hash(const struct ksm_domain *d, uint64_t hash)
{
	return hash >> KSM_PAYLOAD_SHIFT & (d->regions - 1);
}

static inline uint64_t ksm_region_of_slot(const struct ksm_domain *d, uint64_t slot)
{
	return slot / KSM_BUCKET & (d->regions - 1);
}

/* Fill in d->share. */
void ksm_index_share_init(struct ksm_domain *d);
/* The two buckets, maybe one twice, that @tag may be in when there are @n. */
void ksm_index_places(const struct ksm_domain *d, uint64_t n, uint64_t region, uint64_t tag,
		      uint64_t at[2]);

/* What bucket number n comes from: it takes its share of each of @olds buckets, ksm_growth_old. */
struct ksm_growth {
	uint64_t n; /* the new bucket */
	uint64_t group;
	unsigned int olds; /* 8 .. 15 */
	unsigned int level;
};

struct ksm_growth ksm_index_growth(const struct ksm_domain *d, uint64_t n);
uint64_t ksm_growth_old(const struct ksm_domain *d, const struct ksm_growth *g, unsigned int i);
/* Must the entry @v in bucket @old go, once the new bucket is there? To @at then. */
bool ksm_growth_moves(const struct ksm_domain *d, const struct ksm_growth *g, uint64_t old,
		      uint64_t v, uint64_t at[2]);

/* --- index.c ------------------------------------------------------------------------------- */

/* Entry @v has been overwritten: if it was a hint, its page is to be looked at again. */
void ksm_index_lost(struct ksm_domain *d, uint64_t v);
/*
 * Put @v into the emptier of two buckets; where both are full, over an entry that nobody misses or a
 * hint. Says in @crowded that the table should grow. Returns the slot, KSM_NO_SLOT: frames
 * everywhere.
 */
uint64_t ksm_index_put(struct ksm_domain *d, const uint64_t at[2], uint64_t v, bool *crowded);

/* --- index_grow.c -------------------------------------------------------------------------- */

/* One bucket more, unless another cell is at it. */
void ksm_index_grow(struct ksm_domain *d);
/* After any change that left @v in @slot: see to it that it lies where it is looked for. */
void ksm_index_settle(struct ksm_domain *d, uint64_t slot, uint64_t v);

#endif
