/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notes.c: what cells leave for each other in the meta file beside frames and index: which pages are
 * to be looked at again, and where a frame's content came from. All of it is advice: a note that is
 * lost costs a merge that comes later, a wrong one costs a look.
 */
#include <string.h>

#include "ksm/domain.h"

void ksm_again_ask(struct ksm_domain *d, uint64_t page)
{
	if (page <= KSM_MAX_PAYLOAD)
		ksm_touch(d->again, page);
}

void ksm_again_take(struct ksm_domain *d, uint64_t page, uint64_t n, uint64_t *bitmap)
{
	uint64_t end = OB_MIN(page + n, KSM_MAX_PAYLOAD + 1), base;

	for (uint64_t at = page, next; at < end; at = next) {
		uint64_t word, mask = UINT64_MAX << (at & 63);

		base = at & ~63ULL;
		next = OB_MIN(base + 64, end);
		if (next & 63)
			mask &= (1ULL << (next & 63)) - 1;
		/* Most words are empty: no write then. */
		word = atomic_load_explicit(&d->again[at / 64], memory_order_relaxed) & mask;
		if (word)
			word &= atomic_fetch_and(&d->again[at / 64], ~word);
		for (; word; word &= word - 1) {
			uint64_t bit = base + (unsigned int)__builtin_ctzll(word) - page;

			bitmap[bit / 64] |= 1ULL << (bit & 63);
		}
	}
}

uint64_t ksm_origin(enum ksm_origin_class cls, uint32_t file, uint64_t block)
{
	if (block >= KSM_ORIGIN_BLOCKS)
		return KSM_ORIGIN_NONE;
	return (uint64_t)cls << 60 | (uint64_t)(file & ((1u << KSM_ORIGIN_FILE_BITS) - 1)) << 36 |
	       block;
}

bool ksm_frame_tell_origin(struct ksm_domain *d, uint32_t frame, uint64_t origin)
{
	uint64_t was = KSM_ORIGIN_NONE;

	OB_ASSERT(frame < d->frames && origin != KSM_ORIGIN_NONE);
	/* While nobody knows any, they take no memory: even a read of a hole would. */
	if (!atomic_load(d->has_origins))
		atomic_store(d->has_origins, 1);
	return atomic_compare_exchange_strong(&d->origin[frame], &was, origin) || was == origin;
}

uint64_t ksm_domain_origin(const struct ksm_domain *d, uint32_t frame)
{
	if (frame >= d->frames || !atomic_load(d->has_origins))
		return KSM_ORIGIN_NONE;
	return atomic_load(&d->origin[frame]);
}

void ksm_frame_forget_origin(struct ksm_domain *d, uint32_t frame)
{
	uint64_t origin = ksm_domain_origin(d, frame);

	if (origin == KSM_ORIGIN_NONE)
		return;
	/* There may be none: the index was full, or its block was written. */
	(void)ksm_index_remove(d, ksm_origin_key(d, origin), frame);
	atomic_store(&d->origin[frame], KSM_ORIGIN_NONE);
}

/* Each domain's secret makes other keys, as it makes other hashes. The finalizer of splitmix64. */
uint64_t ksm_origin_key(const struct ksm_domain *d, uint64_t origin)
{
	uint64_t secret[2], x;

	memcpy(secret, d->secret, sizeof(secret));
	x = origin + secret[0];
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return (x ^ x >> 31) ^ secret[1];
}
