/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_grow.c: one bucket more for the index, beside cells that read and change it, and though the
 * cell that is at it may die at any instruction.
 *
 * The table is a sparse file of its greatest size, of which the first N buckets are in use; N is in
 * the header. An insert that finds even the emptier of its two places crowded makes bucket N, if the
 * group that this takes from is as full as that. So the whole cost of growth is one small step for
 * about every 57 inserts: read the 8 to 15 buckets of a group, copy a share of each, some 60
 * entries. Nobody counts entries, nobody stands still, nothing is ever built anew.
 *
 * Who grows holds a lock, taken by try: who does not get it goes on without. The steps:
 *
 *	1. copy what belongs to bucket N into it		nobody looks there yet
 *	2. publish N + 1					from here on they do
 *	3. take each old entry out, by compare-and-swap, and move what was put in or changed there
 *	   meanwhile
 *
 * All others go without a lock: they read N, which gives them the two places of their hash, and look
 * or change there. Why nothing is lost:
 *
 *  - A lookup that read the old N and comes to the old place when the entry has left it, reads N
 *    again when it has found nothing. The entry left after N + 1 was published, so it sees that.
 *  - Who changes an entry (puts one in, or makes a hint name something else) reads N again *after*
 *    the change, and if the entry should be elsewhere by now, moves it there (ksm_index_settle). The
 *    grower publishes N + 1, *then* looks at all of the old places again. Each side writes first and
 *    looks at the other's word after, all of it sequentially consistent: so at least one of the two
 *    sees the other (Dekker's argument, as in pool.c). When both do, both move the entry, and it may
 *    be there twice, which is harmless.
 *  - Who removes an entry looks in the old places, reads N again, and looks in the new. Only a copy
 *    that is written after that can survive, from a value that was read before: then it names a
 *    frame that is on its way out, and is none as soon as that is free (index.c).
 *
 * A cell that dies holding the lock leaves the table usable. Before step 2 nothing has happened: the
 * next grower writes bucket N anew. After it, what is left to be done in step 3 can be seen from the
 * entries themselves, so the coordinator does it when the cell is gone, and frees the lock.
 */
#include "ksm/index.h"

#define MAX_OLDS 15

/* A quarter of a group is free: it was not the table that was crowded, but two of its buckets. */
#define WORTH_GROWING(used, olds) ((used)*4 >= (olds)*KSM_BUCKET * 3)

#define FIRST_BUCKETS	   8 /* in each region */
#define MAX_REGIONS	   64
#define REGION_MIN_BUCKETS 1024 /* when it has grown as far as it can */

struct growing {
	struct ksm_growth g;
	uint64_t seen[MAX_OLDS][KSM_BUCKET];
	uint64_t copied[MAX_OLDS]; /* bit per entry: another copy of seen is where it belongs */
	uint64_t fresh[KSM_BUCKET];
	unsigned int nfresh;
};

uint64_t ksm_index_max_buckets(uint64_t frames)
{
	/* There are as many frames as pages. A hint for each, and an eighth to spare. */
	return OB_MAX((frames + frames / 8 + KSM_BUCKET - 1) / KSM_BUCKET, FIRST_BUCKETS);
}

void ksm_index_init(struct ksm_domain *d)
{
	d->max_buckets = ksm_index_max_buckets(d->frames);
	d->slots = d->max_buckets * KSM_BUCKET;
	d->region_shift = 0;
	while (2ULL << d->region_shift <= MAX_REGIONS &&
	       d->max_buckets >> (d->region_shift + 1) >= REGION_MIN_BUCKETS)
		d->region_shift++;
	d->regions = 1ULL << d->region_shift;
	d->first_buckets = d->regions * FIRST_BUCKETS;
	ksm_index_share_init(d);
}

static uint64_t slot_with(const struct ksm_domain *d, const uint64_t at[2], uint64_t v)
{
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t match = ksm_bucket_match(d, at[i], v);

		for (; match; match &= match - 1) {
			uint64_t s = at[i] * KSM_BUCKET + (unsigned int)__builtin_ctzll(match);

			if (ksm_entry_read(d, s) == v)
				return s;
		}
	}
	return KSM_NO_SLOT;
}

/*
 * Move @v from @slot to one of @at; others may be at it too, so what they have put there already
 * does as well, and a copy is never taken back. Returns its slot; KSM_NO_SLOT: there is no room, and
 * a frame stays where it was (its content can no longer be joined), a hint is lost.
 */
static uint64_t entry_move(struct ksm_domain *d, uint64_t slot, uint64_t v, const uint64_t at[2])
{
	uint64_t copy = slot_with(d, at, v), now;
	bool crowded;

	for (;;) {
		if (copy == KSM_NO_SLOT)
			copy = ksm_index_put(d, at, v, &crowded);
		if (copy == KSM_NO_SLOT && ksm_entry_kind(v) == KSM_FRAME)
			return KSM_NO_SLOT;
		if (copy == KSM_NO_SLOT)
			ksm_index_lost(d, v);
		if (ksm_entry_swap(d, slot, v, 0))
			return copy;
		now = ksm_entry_read(d, slot);
		if (ksm_entry_is_free(now) || (now ^ v) & KSM_TAG_MASK)
			return copy;
		/* Still of this content, but it says something else now. */
		if (copy != KSM_NO_SLOT && !ksm_entry_swap(d, copy, v, now))
			copy = slot_with(d, at, now);
		v = now;
	}
}

void ksm_index_settle(struct ksm_domain *d, uint64_t slot, uint64_t v)
{
	uint64_t at[2];

	while (slot != KSM_NO_SLOT) {
		ksm_index_places(d, ksm_index_buckets(d), ksm_region_of_slot(d, slot), v, at);
		if (slot / KSM_BUCKET == at[0] || slot / KSM_BUCKET == at[1])
			return;
		slot = entry_move(d, slot, v, at);
	}
}

/* Make room among the copies by dropping a hint. */
static bool drop_fresh_hint(struct ksm_domain *d, struct growing *w)
{
	for (unsigned int i = 0; i < w->nfresh; i++) {
		if (ksm_entry_kind(w->fresh[i]) == KSM_HINT) {
			ksm_index_lost(d, w->fresh[i]);
			w->fresh[i] = w->fresh[--w->nfresh];
			return true;
		}
	}
	return false;
}

/* Copy @v to where it belongs when the new bucket is there. False: no room. */
static bool copy_out(struct ksm_domain *d, struct growing *w, uint64_t v, const uint64_t at[2])
{
	bool first_new = at[0] == w->g.n, second_new = at[1] == w->g.n, crowded;

	if ((first_new || second_new) &&
	    (w->nfresh < KSM_BUCKET || (ksm_entry_kind(v) == KSM_FRAME && drop_fresh_hint(d, w)))) {
		w->fresh[w->nfresh++] = v;
		return true;
	}
	if (first_new && second_new)
		return false;
	/* Its other place, which is one already. */
	uint64_t other = at[first_new ? 1 : 0], there[2] = {other, other};

	return ksm_index_put(d, there, v, &crowded) != KSM_NO_SLOT;
}

/* Is the group as full as the caller has found his places to be? */
static bool group_read(const struct ksm_domain *d, struct growing *w)
{
	unsigned int used = 0;

	for (unsigned int i = 0; i < w->g.olds; i++) {
		uint64_t old = ksm_growth_old(d, &w->g, i);

		for (unsigned int x = 0; x < KSM_BUCKET; x++) {
			w->seen[i][x] = ksm_entry_read(d, old * KSM_BUCKET + x);
			used += !ksm_entry_is_free(w->seen[i][x]);
		}
	}
	return WORTH_GROWING(used, w->g.olds);
}

static void group_copy(struct ksm_domain *d, struct growing *w)
{
	for (unsigned int i = 0; i < w->g.olds; i++) {
		uint64_t old = ksm_growth_old(d, &w->g, i), at[2];

		for (unsigned int x = 0; x < KSM_BUCKET; x++) {
			uint64_t v = w->seen[i][x];

			if (ksm_entry_is_free(v) || !ksm_growth_moves(d, &w->g, old, v, at))
				continue;
			/* What is no entry of a frame any more is not taken along. */
			if (ksm_entry_kind(v) == KSM_FRAME && !ksm_entry_is_frame(d, v))
				ksm_entry_swap(d, old * KSM_BUCKET + x, v, 0);
			else if (copy_out(d, w, v, at))
				w->copied[i] |= 1ULL << x;
			else if (ksm_entry_kind(v) != KSM_HINT)
				w->seen[i][x] = 0; /* looked at once more, later */
			else {
				w->copied[i] |= 1ULL << x;
				ksm_index_lost(d, v);
			}
		}
	}
	for (unsigned int x = 0; x < KSM_BUCKET; x++)
		atomic_store(&d->index[w->g.n * KSM_BUCKET + x], x < w->nfresh ? w->fresh[x] : 0);
}

static void group_clear(struct ksm_domain *d, const struct growing *w)
{
	for (unsigned int i = 0; i < w->g.olds; i++) {
		uint64_t old = ksm_growth_old(d, &w->g, i), at[2];

		for (unsigned int x = 0; x < KSM_BUCKET; x++) {
			uint64_t slot = old * KSM_BUCKET + x, seen = w->seen[i][x], v;
			bool copied = w->copied[i] >> x & 1;

			if (copied && ksm_entry_swap(d, slot, seen, 0))
				continue;
			v = ksm_entry_read(d, slot);
			if ((v != seen || copied) && !ksm_entry_is_free(v) &&
			    ksm_growth_moves(d, &w->g, old, v, at))
				entry_move(d, slot, v, at);
		}
	}
}

void ksm_index_grow(struct ksm_domain *d)
{
	struct growing w = {.nfresh = 0};
	uint64_t n = ksm_index_buckets(d), unlocked = 0;

	if (n == d->max_buckets || d->cell == KSM_NO_CELL || atomic_load(d->grow_lock) ||
	    !atomic_compare_exchange_strong(d->grow_lock, &unlocked, d->cell + 1ULL))
		return;
	n = ksm_index_buckets(d);
	if (n < d->max_buckets) {
		w.g = ksm_index_growth(d, n);
		if (group_read(d, &w)) {
			group_copy(d, &w);
			atomic_store(d->buckets, n + 1);
			group_clear(d, &w);
		}
	}
	atomic_store(d->grow_lock, 0);
}

void ksm_index_recover(struct ksm_domain *d, unsigned int cell)
{
	uint64_t n = ksm_index_buckets(d), at[2];
	struct ksm_growth g;

	if (atomic_load(d->grow_lock) != cell + 1ULL)
		return;
	/* If the cell did not get so far as to publish a bucket, the newest is one for which nothing
	 * is left to be done; or there is none yet. */
	g = ksm_index_growth(d, OB_MAX(n - 1, d->first_buckets));
	for (unsigned int i = 0; n > d->first_buckets && i < g.olds; i++) {
		uint64_t old = ksm_growth_old(d, &g, i);

		for (uint64_t s = old * KSM_BUCKET; s < (old + 1) * KSM_BUCKET; s++) {
			uint64_t v = ksm_entry_read(d, s);

			if (!ksm_entry_is_free(v) && ksm_growth_moves(d, &g, old, v, at))
				entry_move(d, s, v, at);
		}
	}
	atomic_store(d->grow_lock, 0);
}
