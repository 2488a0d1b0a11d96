/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_index_grow.c: the index while it grows: where entries go from one number of buckets to the
 * next, that nothing is lost on the way, what a hint costs at each size, and who may make it grow.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/index.h"
#include "tests/domain.h"
#include "tests/fake_host.h"
#include "tests/rnd.h"

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct ksm_domain *d, *coord;
	int meta;
};

static struct fix fix_new(uint64_t frames)
{
	struct fix x = {.h = fake_host_new(), .arena = ob_arena_new("test")};
	int pool;

	cr_assert_eq(ksm_domain_create(x.h, frames, 2, &pool, &x.meta), 0);
	cr_assert_eq(ksm_domain_open(x.h, pool, x.meta, 0, x.arena, &x.d), 0);
	cr_assert_eq(ksm_domain_open(x.h, pool, x.meta, KSM_NO_CELL, x.arena, &x.coord), 0);
	return x;
}

static void fix_free(struct fix *x)
{
	ksm_domain_close(x->d);
	ksm_domain_close(x->coord);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
}

/* Only what index_place.c needs: a table of any size, with nothing behind it. */
static struct ksm_domain *places_only(uint64_t frames)
{
	struct ksm_domain *d = calloc(1, sizeof(*d));

	d->frames = frames;
	ksm_index_init(d);
	return d;
}

/* --- places ---------------------------------------------------------------------------------- */

static void check_step(const struct ksm_domain *d, uint64_t n, uint64_t region, uint64_t tag)
{
	struct ksm_growth g = ksm_index_growth(d, n);
	uint64_t was[2], is[2], at[2];

	ksm_index_places(d, n, region, tag, was);
	ksm_index_places(d, n + 1, region, tag, is);
	cr_assert_leq(g.olds, 15u);
	for (unsigned int c = 0; c < 2; c++) {
		bool from_group = false, moves = is[0] != was[c] && is[1] != was[c];

		cr_assert_lt(was[c], n);
		cr_assert_eq(was[c] & (d->regions - 1), region);
		cr_assert(is[c] == was[c] || is[c] == n, "%llu buckets: from %llu to %llu",
			  (unsigned long long)n, (unsigned long long)was[c],
			  (unsigned long long)is[c]);
		for (unsigned int i = 0; i < g.olds; i++)
			from_group |= ksm_growth_old(d, &g, i) == was[c];
		cr_assert(from_group || is[c] == was[c], "it comes from no bucket of the group");
		if (!from_group)
			continue;
		cr_assert_eq(ksm_growth_moves(d, &g, was[c], ksm_entry(KSM_HINT, 3, tag), at),
			     moves);
		cr_assert(!moves || (at[0] == is[0] && at[1] == is[1]));
	}
}

Test(index_grow, only_to_the_new_bucket)
{
	const uint64_t sizes[] = {100, 20000, 300000, 3000000, EPT_MAX_FRAME};
	uint64_t s = 5;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sizes); i++) {
		struct ksm_domain *d = places_only(sizes[i]);

		cr_assert_leq(d->first_buckets * KSM_BUCKET * sizeof(uint64_t), 256 * OB_KIB);
		for (unsigned int j = 0; j < 60000 && d->first_buckets < d->max_buckets; j++) {
			uint64_t span = d->max_buckets - d->first_buckets, n;

			/* All sizes, small ones more often. */
			n = d->first_buckets +
			    rnd(&s) % (span >> rnd(&s) % 16 ? span >> rnd(&s) % 8 : 1);
			check_step(d, n, rnd(&s) & (d->regions - 1), rnd(&s) & KSM_TAG_MASK);
		}
		free(d);
	}
}

/* How much more the fullest bucket gets than the emptiest, if nobody chose between the two. */
static double unevenness(const struct ksm_domain *d, uint64_t n)
{
	const uint64_t draws = 4000;
	uint64_t *got = calloc(n, sizeof(*got)), s = 17, most = 0, least = UINT64_MAX, at[2];
	double r;

	for (uint64_t i = 0; i < n * draws / 2; i++) {
		uint64_t hash = rnd(&s);

		ksm_index_places(d, n, ksm_region_of_hash(d, hash), hash, at);
		got[at[0]]++;
		got[at[1]]++;
	}
	for (uint64_t i = 0; i < n; i++) {
		most = OB_MAX(most, got[i]);
		least = OB_MIN(least, got[i]);
	}
	r = (double)most / (double)least;
	free(got);
	return r;
}

Test(index_grow, no_bucket_is_much_fuller_than_another)
{
	struct ksm_domain *d = places_only(100000);

	/* An eighth at the most, and what 4000 draws scatter. */
	for (uint64_t n = 8; n < 40; n++)
		cr_assert_lt(unevenness(d, n), 1.125 * 1.13, "%llu buckets", (unsigned long long)n);
	cr_assert_lt(unevenness(d, 16), 1.12);
	cr_assert_lt(unevenness(d, 128), 1.17);
	cr_assert_lt(unevenness(d, 200), 1.125 * 1.17);
	free(d);
}

/* --- against an oracle, growing all the time -------------------------------------------------- */

struct item {
	uint64_t hash;
	uint32_t payload;
	bool frame, there;
};

/* Every frame is there, nothing is that was removed, hardly a hint is lost. */
static void check_items(struct ksm_domain *d, const struct item *item, unsigned int n)
{
	uint64_t frames = 0, hints = 0, found = 0, counted, entries;
	struct ksm_ref ref;

	for (unsigned int i = 0; i < n; i++) {
		enum ksm_kind kind = ksm_index_find(d, item[i].hash, &ref);

		if (item[i].frame) {
			frames += item[i].there;
			cr_assert_eq(domain_reaches(d, item[i].hash, item[i].payload),
				     item[i].there, "item %u", i);
		} else if (item[i].there) {
			hints++;
			found += kind == KSM_HINT && ksm_ref_payload(&ref) == item[i].payload;
		} else {
			cr_assert_eq(kind, KSM_EMPTY, "item %u", i);
		}
	}
	ksm_index_count(d, &counted, &entries);
	cr_assert_eq(entries, frames);
	cr_assert_leq(counted, hints);
	cr_assert_geq(counted, found);
	cr_assert_geq(found + hints / 1000 + 3, hints, "%llu of %llu hints",
		      (unsigned long long)found, (unsigned long long)hints);
}

static void run_growing(uint64_t seed, unsigned int items)
{
	struct fix x = fix_new(items);
	struct item *item = calloc(items, sizeof(*item));
	uint64_t s = seed, n = ksm_index_buckets(x.d);

	for (unsigned int i = 0; i < items; i++) {
		struct item *it = &item[i], *old;
		uint32_t frame;

		*it = (struct item){.hash = rnd(&s), .payload = i, .there = true};
		cr_assert_eq(ksm_index_hint(x.d, it->hash, i), 0);
		/* What is there already changes meanwhile, of any age. */
		old = &item[rnd(&s) % (i + 1)];
		if (old->there && rnd(&s) % 4 == 0) {
			struct ksm_ref ref;

			if (!old->frame && rnd(&s) % 4 == 0) {
				old->there = false;
				ksm_index_forget(x.d, old->hash, old->payload);
			} else if (!old->frame &&
				   ksm_index_find(x.d, old->hash, &ref) == KSM_HINT) {
				cr_assert_eq(ksm_frame_alloc(x.d, 1, &frame), 1);
				cr_assert(ksm_index_claim(x.d, &ref, frame));
				old->frame = true;
				old->payload = frame;
			} else if (old->frame) {
				old->there = false;
				cr_assert(ksm_index_remove(x.d, old->hash, old->payload));
				cr_assert_eq(ksm_frame_abandon(x.d, old->payload, 1), 0);
			}
		}
		cr_assert_geq(ksm_index_buckets(x.d), n);
		if (ksm_index_buckets(x.d) > n && (i < 3000 || i % 512 == 0))
			check_items(x.d, item, i + 1);
		n = ksm_index_buckets(x.d);
	}
	check_items(x.d, item, items);
	/* It grew as far as it had to, and not much further. */
	cr_assert_geq(n * KSM_BUCKET, items / 2);
	cr_assert_leq(n, x.d->max_buckets);
	free(item);
	fix_free(&x);
}

Test(index_grow, random_against_oracle)
{
	run_growing(0x9e3779b9, 1500);
	run_growing(0x51ed270b, 6000);
	run_growing(0x2545f491, 40000);
}

/* --- what a hint costs ----------------------------------------------------------------------- */

/*
 * @pages pages of the fleet have been scanned, @used of them leave a hint, each of its own content.
 * Bytes for each of these, of all that the domain holds; and how many hints were lost.
 */
static double hint_cost(uint64_t pages, uint64_t used, double *lost)
{
	struct fix x = fix_new(pages);
	uint64_t s = 7, bytes, hints, entries, bitmap[OB_PAGE_SIZE / 8];

	for (uint64_t i = 0; i < used; i++)
		cr_assert_eq(ksm_index_hint(x.d, rnd(&s), i), 0);
	for (uint64_t i = 0; i < used; i += 512)
		ksm_again_take(x.d, i, 512, bitmap);
	ksm_index_count(x.d, &hints, &entries);
	*lost = 1 - (double)hints / (double)used;
	cr_assert_eq(x.h->ops->file_blocks(x.h, x.meta, &bytes), 0);
	bytes += ksm_domain_private_bytes(x.d) + ob_arena_bytes(x.arena);
	fix_free(&x);
	return (double)bytes / (double)used;
}

Test(index_grow, ten_bytes_a_hint_at_any_size, .timeout = 120)
{
	/* Pages of the fleet, and how many of them have content that the index must know. */
	const uint64_t fleet[][2] = {
		{16384, 16384},	  /* 64 MiB, all unique */
		{65536, 20000},	  /* 256 MiB, a third in use */
		{262144, 262144}, /* 1 GiB, all unique */
		{1048576, 30000}, /* 4 GiB, hardly used */
		{1048576, 100000}, {1048576, 700000},
	};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(fleet); i++) {
		double lost, cost = hint_cost(fleet[i][0], fleet[i][1], &lost);

		cr_log_info("%llu pages, %llu hints: %.2f bytes a hint, %.3f %% lost",
			    (unsigned long long)fleet[i][0], (unsigned long long)fleet[i][1], cost,
			    100 * lost);
		cr_assert_leq(cost, fleet[i][1] < 50000 ? 10 : 9.3);
		cr_assert_leq(lost, 0.001);
	}
}

/* --- who may make it grow -------------------------------------------------------------------- */

static void fill(struct fix *x, uint64_t *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		cr_assert_eq(ksm_index_hint(x->d, rnd(s), i), 0);
}

Test(index_grow, goes_on_without_the_lock_and_after_a_death)
{
	struct fix x = fix_new(20000);
	uint64_t s = 3, n;
	struct ksm_ref ref;

	atomic_store(x.d->grow_lock, 2); /* cell 1 */
	fill(&x, &s, 1000);
	cr_assert_eq(ksm_index_buckets(x.d), 8, "another has the lock");
	cr_assert_eq(ksm_index_hint(x.d, 1, 1), 0);
	cr_assert_eq(ksm_index_find(x.d, 1, &ref), KSM_HINT, "and nobody waits for it");
	ksm_domain_cell_died(x.coord, 0);
	cr_assert_eq(atomic_load(x.d->grow_lock), 2, "that one is alive");
	ksm_domain_cell_died(x.coord, 1);
	cr_assert_eq(atomic_load(x.d->grow_lock), 0);
	fill(&x, &s, 1000);
	n = ksm_index_buckets(x.d);
	cr_assert_gt(n, 16);
	ksm_index_grow(x.coord);
	cr_assert_eq(ksm_index_buckets(x.d), n, "nobody would free the coordinator's lock");
	fix_free(&x);
}

Test(index_grow, equal_hashes_do_not_blow_it_up)
{
	struct fix x = fix_new(100000);
	uint64_t s = 3;

	for (unsigned int i = 0; i < 5000; i++)
		cr_assert_eq(ksm_index_hint(x.d, 0x1234567, i), 0);
	cr_assert_eq(ksm_index_buckets(x.d), 8, "two full buckets are not a full table");
	fill(&x, &s, 20000);
	cr_assert_gt(ksm_index_buckets(x.d), 200);
	fix_free(&x);
}

Test(index_grow, a_full_table_stays_one)
{
	struct fix x = fix_new(4000);
	uint64_t s = 3, hints, entries;
	struct ksm_ref ref;

	fill(&x, &s, 20000);
	cr_assert_eq(ksm_index_buckets(x.d), x.d->max_buckets);
	ksm_index_count(x.d, &hints, &entries);
	cr_assert_geq(hints, x.d->slots - x.d->slots / 50);
	cr_assert_eq(ksm_index_hint(x.d, 99, 1), 0);
	cr_assert_eq(ksm_index_find(x.d, 99, &ref), KSM_HINT, "the newest is there");
	fix_free(&x);
}

/* All that a growth has to move came late, and the cell died when it had published the bucket. */
Test(index_grow, a_death_leaves_nothing_in_old_places)
{
	enum { N = 300 };
	struct fix x = fix_new(20000);
	uint64_t s = 3, hash[N], buckets = ksm_index_buckets(x.d);
	uint32_t first;
	unsigned int there = 0;

	cr_assert_eq(ksm_frame_alloc(x.d, N, &first), N);
	for (uint32_t i = 0; i < N; i++) {
		hash[i] = rnd(&s);
		cr_assert_eq(ksm_index_insert_frame(x.d, hash[i], first + i), 0);
	}
	cr_assert_eq(ksm_index_buckets(x.d), buckets);
	atomic_store(x.d->grow_lock, 2); /* cell 1 */
	atomic_store(x.d->buckets, buckets + 1);
	for (uint32_t i = 0; i < N; i++)
		there += domain_reaches(x.d, hash[i], first + i);
	cr_assert_lt(there, N, "some are looked for elsewhere");
	ksm_domain_cell_died(x.coord, 1);
	for (uint32_t i = 0; i < N; i++)
		cr_assert(domain_reaches(x.d, hash[i], first + i));
	fix_free(&x);
}
