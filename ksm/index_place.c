/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_place.c: which buckets of the index a content may be in, while their number grows one by
 * one.
 *
 * Ordinary linear hashing splits one bucket into two, round by round. In the middle of a round half
 * of the buckets are twice as full as the rest, so with buckets that cannot overflow the table would
 * have to stay half empty. Here a bucket more takes its share of *several* (Larson's partial
 * expansions): groups of 8 buckets grow to 9, all of them one after the other, then to 10, up to 16;
 * then each group counts as two groups of 8, and a new level begins. So no bucket is ever fuller than
 * another by more than an eighth.
 *
 * That alone still leaves the luck of the hash: of buckets with 54 entries on average one in ten
 * would have to hold more than its 64. So each content has *two* places, from two
 * chains of the same kind, and goes into the emptier. Then all buckets are nearly equally full: the
 * table is 0.9 full with one hint in ten thousand lost. And the emptier of two is so good a sample of
 * the whole that nobody has to count: when even that one is crowded, the table grows.
 *
 * Everything follows from the tag that is kept in the entry, and from the number of buckets:
 *
 *  - the *region* of a hash is the one thing that the tag does not say, and that never changes:
 *    bucket numbers are equal to it modulo the number of regions. These bits of the hash are known
 *    by where the entry lies, so the larger a table, the less do equal tags come by chance.
 *  - index i among the 8 of a group at level 0 is three bits of the mixed tag.
 *  - at each level a draw of nine bits says when, in the growth of a group from 8 to 16, this content
 *    leaves its bucket, and for which: share[k][draw] is its index among k, or STAY: where it was.
 *    share[k + 1] differs from share[k] only in what goes to the new bucket, the same part of each.
 *  - after a whole level the index, 0 .. 15, gives a bit of the group's number and the index among
 *    the next 8.
 *
 * Bucket numbers are given in the order in which they come to be, so the used part of the file is
 * always its beginning: bucket i of group g, at a level with G groups, is number i * G + g for
 * i >= 8, and the first 8 are what they were called at the levels before.
 */
#include <string.h>

#include "ksm/index.h"

#define STAY		0xff
#define DRAW_BITS	9
#define LEVELS_PER_WORD 3  /* a draw for each chain at each, in 54 bits */
#define FIRST_SHIFT	54 /* above them, in word 0: the index at level 0, three bits a chain */

_Static_assert(KSM_DRAWS == 1u << DRAW_BITS, "a draw picks a column");

void ksm_index_share_init(struct ksm_domain *d)
{
	memset(d->share[0], STAY, KSM_DRAWS);
	for (unsigned int k = 9; k <= 16; k++) {
		unsigned int seen[STAY + 1];

		/* Every k-th draw of each bucket, each beginning elsewhere, so that what is lost by
		 * rounding is not always lost at the end. */
		for (unsigned int i = 0; i <= STAY; i++)
			seen[i] = i * 5 % k;
		for (unsigned int u = 0; u < KSM_DRAWS; u++) {
			uint8_t was = d->share[k - 9][u];

			d->share[k - 8][u] = ++seen[was] % k ? was : (uint8_t)(k - 1);
		}
	}
}

/* Word @j of the random numbers that both chains draw from, for @tag (splitmix64). */
static uint64_t draw_word(uint64_t tag, unsigned int j)
{
	uint64_t x = tag + (j + 1) * 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static unsigned int draw_of(uint64_t word, unsigned int level, unsigned int c)
{
	return (unsigned int)(word >> (level % LEVELS_PER_WORD * 2 + c) * DRAW_BITS) % KSM_DRAWS;
}

/* The index @i after a draw: no branch, as none could foresee it. */
static unsigned int drawn_to(unsigned int to, unsigned int i)
{
	unsigned int stay = 0u - (to >> 7);

	return (to & ~stay) | (i & stay);
}

static unsigned int level_of(const struct ksm_domain *d, uint64_t n)
{
	return 63 - (unsigned int)__builtin_clzll(n / d->first_buckets);
}

static uint64_t bucket_number(const struct ksm_domain *d, unsigned int level, uint64_t group,
			      unsigned int i)
{
	unsigned int b;

	if (i >= 8)
		return ((uint64_t)i << (level + d->region_shift)) + group;
	if (group < d->regions)
		return ((uint64_t)i << d->region_shift) + group;
	/* The upper half of a group that had 16 when there were 2^b groups. */
	b = 63 - (unsigned int)__builtin_clzll(group);
	return ((7ULL + i) << b) + group;
}

void ksm_index_places(const struct ksm_domain *d, uint64_t n, uint64_t region, uint64_t tag,
		      uint64_t at[2])
{
	unsigned int level = level_of(d, n), shift = d->region_shift, i[2], l = 0, k;
	uint64_t word, group[2] = {region, region};

	tag &= KSM_TAG_MASK;
	word = draw_word(tag, 0);
	i[0] = word >> FIRST_SHIFT & 7;
	i[1] = word >> (FIRST_SHIFT + 3) & 7;
	while (l < level) {
		for (unsigned int c = 0; c < 2; c++) {
			i[c] = drawn_to(d->share[8][draw_of(word, l, c)], i[c]);
			group[c] += (uint64_t)(i[c] >> 3) << (l + shift);
			i[c] &= 7;
		}
		if (++l % LEVELS_PER_WORD == 0)
			word = draw_word(tag, l / LEVELS_PER_WORD);
	}
	/* Of this round, the groups up to that of the newest bucket have one more. */
	k = (unsigned int)(n >> (level + shift));
	for (unsigned int c = 0; c < 2; c++) {
		unsigned int more = group[c] < (n & ((d->regions << level) - 1));

		i[c] = drawn_to(d->share[k + more - 8][draw_of(word, level, c)], i[c]);
		at[c] = bucket_number(d, level, group[c], i[c]);
	}
}

struct ksm_growth ksm_index_growth(const struct ksm_domain *d, uint64_t n)
{
	unsigned int level = level_of(d, n);

	return (struct ksm_growth){
		.n = n,
		.group = n & ((d->regions << level) - 1),
		.olds = (unsigned int)(n >> (level + d->region_shift)),
		.level = level,
	};
}

uint64_t ksm_growth_old(const struct ksm_domain *d, const struct ksm_growth *g, unsigned int i)
{
	return bucket_number(d, g->level, g->group, i);
}

bool ksm_growth_moves(const struct ksm_domain *d, const struct ksm_growth *g, uint64_t old,
		      uint64_t v, uint64_t at[2])
{
	uint64_t tag = v & KSM_TAG_MASK, word = draw_word(tag, g->level / LEVELS_PER_WORD);
	const uint8_t *share = d->share[g->olds - 7];

	/* Nearly all are told from the draws of this level alone. */
	if (share[draw_of(word, g->level, 0)] != g->olds &&
	    share[draw_of(word, g->level, 1)] != g->olds)
		return false;
	ksm_index_places(d, g->n + 1, g->group & (d->regions - 1), tag, at);
	return at[0] != old && at[1] != old;
}
