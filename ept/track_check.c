/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track_check.c: judging a tracker by the memory itself. The argument is in track_check.h; two
 * points of it are decided here.
 *
 * What was seen of a page is read again after the page was reported, so after KVM protected it
 * anew. A write before that is in what was seen, one after it is in the log. It may be in both:
 * then the page is reported once more without having changed, and counts as `unchanged`.
 *
 * Counters are read one by one while the guest writes. Each of them only grows, so a sum that has
 * mixed older and newer values is still larger than the one before if any write came in between
 * (and wraps only after 2^64 writes).
 */
#include "ept/track_check.h"

#include <errno.h>
#include <string.h>

static uint64_t page_sum(const struct ept_track_check *c, uint64_t i)
{
	const uint64_t *w = hva_ptr(gmem_page_hva(c->mem, c->page + i));
	uint64_t sum = 0;

	for (unsigned int k = 0; k < c->words; k++)
		sum += __atomic_load_n(&w[k], __ATOMIC_ACQUIRE);
	return sum;
}

int ept_track_check_init(struct ept_track_check *c, const struct gmem *mem, uint64_t page,
			 uint64_t n, unsigned int words, struct ob_arena *arena)
{
	if (!n || page >= mem->pages || n > mem->pages - page || !words ||
	    words > OB_PAGE_SIZE / sizeof(uint64_t))
		return -EINVAL;
	*c = (struct ept_track_check){
		.mem = mem,
		.arena = arena,
		.page = page,
		.n = n,
		.words = words,
		.st.first_bad = UINT64_MAX,
	};
	c->seen = ob_alloc(arena, n * sizeof(c->seen[0]));
	c->now = ob_alloc(arena, n * sizeof(c->now[0]));
	c->last = ob_alloc(arena, (n + 63) / 64 * sizeof(c->last[0]));
	c->owed = ob_alloc(arena, (n + 63) / 64 * sizeof(c->owed[0]));
	return 0;
}

void ept_track_check_exit(struct ept_track_check *c)
{
	ob_free(c->arena, c->seen);
	ob_free(c->arena, c->now);
	ob_free(c->arena, c->last);
	ob_free(c->arena, c->owed);
}

void ept_track_check_snapshot(struct ept_track_check *c)
{
	for (uint64_t i = 0; i < c->n; i++)
		c->now[i] = page_sum(c, i);
}

static bool test_bit(const uint64_t *bitmap, uint64_t i)
{
	return bitmap[i / 64] >> i % 64 & 1;
}

static void missed(struct ept_track_check *c, uint64_t i)
{
	c->st.missed++;
	if (c->st.first_bad == UINT64_MAX) {
		c->st.first_bad = c->page + i;
		c->st.bad_pass = c->st.passes;
	}
	c->seen[i] = c->now[i]; /* one miss counts once */
}

void ept_track_check_compare(struct ept_track_check *c, const uint64_t *reported)
{
	bool first = !c->st.passes++;
	uint64_t owed = 0;

	for (uint64_t w = 0; w < (c->n + 63) / 64; w++) {
		c->last[w] = reported[w];
		c->owed[w] &= ~reported[w];
		owed += (uint64_t)__builtin_popcountll(c->owed[w]);
	}
	c->st.disputed = OB_MAX(c->st.disputed, owed);
	for (uint64_t i = 0; i < c->n; i++) {
		bool written = first || c->now[i] != c->seen[i];
		uint64_t sum;

		c->st.written += written;
		if (!test_bit(reported, i)) {
			if (written)
				missed(c, i);
			continue;
		}
		sum = page_sum(c, i);
		c->st.reported++;
		c->st.unchanged += !first && sum == c->seen[i];
		c->seen[i] = sum;
	}
}

void ept_track_check_other(struct ept_track_check *c, const uint64_t *other)
{
	/* What has not changed is the other's false report (the kernel takes protection off a page that
	 * it migrates), and nothing that is owed. */
	for (uint64_t i = 0; i < c->n; i++)
		if (test_bit(other, i) && !test_bit(c->last, i) && page_sum(c, i) != c->seen[i])
			c->owed[i / 64] |= 1ULL << (i % 64);
}
