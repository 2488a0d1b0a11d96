/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notes.c: what cells leave for each other in the meta file beside frames and index: which pages are
 * to be looked at again, and where a frame's content came from. All of it is advice: a note that is
 * lost costs a merge that comes later, a wrong one costs a look.
 */
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

void ksm_frame_set_origin(struct ksm_domain *d, uint32_t frame, uint64_t origin)
{
	OB_ASSERT(frame < d->frames);
	/* While nobody knows any, they take no memory: even a read of a hole would. */
	if (origin == KSM_ORIGIN_NONE && !atomic_load(d->has_origins))
		return;
	if (origin != KSM_ORIGIN_NONE)
		atomic_store(d->has_origins, 1);
	atomic_store_explicit(&d->origin[frame], origin, memory_order_relaxed);
}

uint64_t ksm_frame_origin(const struct ksm_domain *d, uint32_t frame)
{
	if (frame >= d->frames || !atomic_load(d->has_origins))
		return KSM_ORIGIN_NONE;
	return atomic_load_explicit(&d->origin[frame], memory_order_relaxed);
}
