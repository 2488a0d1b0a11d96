/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_index.c: the index of a sharing domain against a naive list: frames are never lost and come
 * before hints, hints are only lost where two buckets are full, removed entries are gone, entries
 * that outlive their frame are none, and a table of garbage is survived. Its growth is in
 * pure_index_grow.c, several cells at once in pure_index_threads.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/index.h"
#include "tests/domain.h"
#include "tests/fake_host.h"
#include "tests/rnd.h"

#define TAG(h) ((h) & ((1ULL << 34) - 1))

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct ksm_domain *d;
};

static struct fix fix_new(uint64_t frames)
{
	struct fix x = {.h = fake_host_new(), .arena = ob_arena_new("test")};
	int pool, meta;

	cr_assert_eq(ksm_domain_create(x.h, frames, 2, &pool, &meta), 0);
	cr_assert_eq(ksm_domain_open(x.h, pool, meta, 0, x.arena, &x.d), 0);
	return x;
}

static void fix_free(struct fix *x)
{
	ksm_domain_close(x->d);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
}

/* Frames 0 .. n - 1, being filled by cell 0. */
static void frames_take(struct fix *x, uint32_t n)
{
	uint32_t first;

	cr_assert_eq(ksm_frame_alloc(x->d, n, &first), n);
	cr_assert_eq(first, 0);
}

Test(index, finds_what_was_put_in)
{
	struct fix x = fix_new(100);
	struct ksm_ref ref;

	frames_take(&x, 10);
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_hint(x.d, 0x1234, 77), 0);
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_HINT);
	cr_assert_eq(ksm_ref_payload(&ref), 77);
	cr_assert(ksm_index_rehint(x.d, &ref, 78));
	cr_assert_not(ksm_index_claim(x.d, &ref, 5), "the entry has changed meanwhile");
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_HINT);
	cr_assert_eq(ksm_ref_payload(&ref), 78);
	cr_assert(ksm_index_claim(x.d, &ref, 5));
	cr_assert_not(ksm_index_claim(x.d, &ref, 6), "only one can claim a hint");
	cr_assert_eq(ksm_index_hint(x.d, 0x1234, 79), 0);
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_FRAME);
	cr_assert_eq(ksm_ref_payload(&ref), 5);
	cr_assert_eq(ksm_index_find_next(x.d, 0x1234, &ref), KSM_EMPTY, "the rest is a hint");
	cr_assert_not(ksm_index_remove(x.d, 0x1234, 6));
	cr_assert(ksm_index_remove(x.d, 0x1234, 5));
	cr_assert_not(ksm_index_remove(x.d, 0x1234, 5));
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_HINT, "there was one more");
	cr_assert_eq(ksm_index_hint(x.d, 0x1234, KSM_MAX_PAYLOAD + 1), -ERANGE);
	cr_assert_not(ksm_index_forget(x.d, 0x1234, 78), "that page's is gone");
	cr_assert(ksm_index_forget(x.d, 0x1234, 79));
	cr_assert_not(ksm_index_forget(x.d, 0x1234, 79));
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_EMPTY);
	fix_free(&x);
}

Test(index, frame_before_hint_in_any_order)
{
	struct fix x = fix_new(100);
	struct ksm_ref ref;
	uint32_t one, two;

	frames_take(&x, 40);
	cr_assert_eq(ksm_index_hint(x.d, 9, 1), 0);
	cr_assert_eq(ksm_index_hint(x.d, 9, 2), 0);
	cr_assert_eq(ksm_index_find(x.d, 9, &ref), KSM_HINT);
	cr_assert(ksm_ref_payload(&ref) == 1 || ksm_ref_payload(&ref) == 2);
	cr_assert_eq(ksm_index_insert_frame(x.d, 9, 30), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, 9, 31), 0);
	cr_assert_eq(ksm_index_find(x.d, 9, &ref), KSM_FRAME);
	one = ksm_ref_payload(&ref);
	cr_assert_eq(ksm_index_find_next(x.d, 9, &ref), KSM_FRAME);
	two = ksm_ref_payload(&ref);
	cr_assert(one + two == 61 && one != two, "%u and %u", one, two);
	cr_assert_eq(ksm_index_find_next(x.d, 9, &ref), KSM_EMPTY);
	fix_free(&x);
}

static unsigned int hints_of(struct ksm_domain *d)
{
	uint64_t hints, entries;

	ksm_index_count(d, &hints, &entries);
	return (unsigned int)hints;
}

Test(index, full_buckets_lose_hints_never_frames)
{
	/* A table that cannot grow, and a hash with two places, all of which it fills. */
	struct fix x = fix_new(300);
	const unsigned int room = 2 * KSM_BUCKET;
	struct ksm_ref ref;
	uint64_t hash = 7, at[2];
	bool seen[2 * KSM_BUCKET] = {false};
	unsigned int n = 0;

	frames_take(&x, 200);
	cr_assert_eq(x.d->max_buckets, x.d->first_buckets);
	do
		ksm_index_places(x.d, x.d->first_buckets, 0, ++hash, at);
	while (at[0] == at[1]);
	for (uint64_t i = 0; i < room; i++)
		cr_assert_eq(ksm_index_hint(x.d, hash, i), 0);
	cr_assert_eq(hints_of(x.d), room);
	cr_assert_eq(ksm_index_hint(x.d, hash, 1000), 0, "overwrites another");
	cr_assert_eq(hints_of(x.d), room, "exactly one hint was lost");
	cr_assert_eq(ksm_index_find(x.d, hash, &ref), KSM_HINT);
	for (uint32_t i = 0; i < room; i++)
		cr_assert_eq(ksm_index_insert_frame(x.d, hash, i), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, hash, 199), -ENOSPC);
	cr_assert_eq(ksm_index_hint(x.d, hash, 999), -ENOSPC);
	for (enum ksm_kind k = ksm_index_find(x.d, hash, &ref); k == KSM_FRAME;
	     k = ksm_index_find_next(x.d, hash, &ref), n++)
		seen[ksm_ref_payload(&ref)] = true;
	cr_assert_eq(n, room);
	for (unsigned int i = 0; i < room; i++)
		cr_assert(seen[i], "frame %u was lost", i);
	/* One whose frame has become free is room, without having been removed. */
	cr_assert_eq(ksm_frame_abandon(x.d, 10, 1), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, hash, 199), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, hash, 198), -ENOSPC);
	cr_assert(ksm_index_remove(x.d, hash, 20));
	cr_assert_eq(ksm_index_insert_frame(x.d, hash, 198), 0);
	fix_free(&x);
}

Test(index, an_entry_that_outlives_its_frame_is_none)
{
	struct fix x = fix_new(100);
	struct ksm_ref ref;
	uint64_t hints, entries;

	frames_take(&x, 3);
	/* As a cell leaves it that put a copy in after the entry had been removed. */
	cr_assert_eq(ksm_index_insert_frame(x.d, 0x51234, 2), 0);
	cr_assert_eq(ksm_frame_abandon(x.d, 2, 1), 0);
	cr_assert_eq(ksm_index_find(x.d, 0x51234, &ref), KSM_EMPTY, "its frame is free");
	ksm_index_count(x.d, &hints, &entries);
	cr_assert_eq(entries, 0);
	x.d->cursor = 2;
	uint32_t again;
	cr_assert_eq(ksm_frame_alloc(x.d, 1, &again), 1);
	cr_assert_eq(again, 2);
	cr_assert_eq(ksm_index_insert_frame(x.d, 0x74321, 2), 0);
	cr_assert_eq(ksm_index_find(x.d, 0x51234, &ref), KSM_EMPTY, "it has other content");
	cr_assert_eq(ksm_index_find(x.d, 0x74321, &ref), KSM_FRAME);
	ksm_frame_publish(x.d, 2);
	cr_assert_eq(ksm_index_find(x.d, 0x51234, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_find(x.d, 0x74321, &ref), KSM_FRAME);
	fix_free(&x);
}

/* --- against an oracle ----------------------------------------------------------------------- */

struct item {
	uint64_t hash;
	uint32_t payload;
};

#define ITEMS 4096

struct oracle {
	struct item frame[ITEMS], hint[ITEMS]; /* hints: every one ever inserted */
	unsigned int nframe, nhint;
};

static void check_all(struct ksm_domain *d, const struct oracle *o, uint64_t seed)
{
	uint64_t hints, entries;

	for (unsigned int i = 0; i < o->nframe; i++)
		cr_assert(domain_reaches(d, o->frame[i].hash, o->frame[i].payload),
			  "seed %llx: frame %u lost", (unsigned long long)seed,
			  o->frame[i].payload);
	ksm_index_count(d, &hints, &entries);
	cr_assert_eq(entries, o->nframe, "seed %llx", (unsigned long long)seed);
	cr_assert_leq(hints, o->nhint);
}

static void check_find(struct ksm_domain *d, const struct oracle *o, uint64_t hash, uint64_t seed)
{
	struct ksm_ref ref;
	enum ksm_kind kind = ksm_index_find(d, hash, &ref);
	bool have = false, known = false;

	for (unsigned int i = 0; i < o->nframe; i++) {
		have |= o->frame[i].hash == hash;
		known |= kind == KSM_FRAME && TAG(o->frame[i].hash) == TAG(hash) &&
			 o->frame[i].payload == ksm_ref_payload(&ref);
	}
	for (unsigned int i = 0; i < o->nhint; i++)
		known |= kind == KSM_HINT && TAG(o->hint[i].hash) == TAG(hash) &&
			 o->hint[i].payload == ksm_ref_payload(&ref);
	if (have)
		cr_assert_eq(kind, KSM_FRAME, "seed %llx: a hint before a frame",
			     (unsigned long long)seed);
	cr_assert(kind == KSM_EMPTY || known, "seed %llx: found what nobody put in",
		  (unsigned long long)seed);
}

/* A frame of cell 0, being filled, for as long as the oracle has it. False: there is none. */
static bool frame_new(struct fix *x, uint32_t *f)
{
	return ksm_frame_alloc(x->d, 1, f) == 1;
}

static void run_random(uint64_t seed, uint64_t frames, unsigned int hash_bits)
{
	struct fix x = fix_new(frames);
	struct oracle *o = calloc(1, sizeof(*o));
	uint64_t s = seed;

	for (unsigned int step = 0; step < 4000; step++) {
		/* Few hashes, all over the table, so that they meet often. */
		uint64_t hash = (rnd(&s) >> (64 - hash_bits)) * 0x9e3779b97f4a7c15ULL;
		uint32_t payload = (uint32_t)(rnd(&s) % frames);
		struct ksm_ref ref;
		enum ksm_kind kind;

		switch (rnd(&s) % 8) {
		case 0:
		case 1:
			if (o->nhint < ITEMS && !ksm_index_hint(x.d, hash, payload))
				o->hint[o->nhint++] = (struct item){hash, payload};
			break;
		case 2:
		case 3:
			kind = ksm_index_find(x.d, hash, &ref);
			if (kind == KSM_HINT && o->nframe < ITEMS && frame_new(&x, &payload)) {
				cr_assert(ksm_index_claim(x.d, &ref, payload));
				o->frame[o->nframe++] = (struct item){hash, payload};
			}
			break;
		case 4:
			if (o->nframe == ITEMS || !frame_new(&x, &payload))
				break;
			if (!ksm_index_insert_frame(x.d, hash, payload))
				o->frame[o->nframe++] = (struct item){hash, payload};
			else
				cr_assert_eq(ksm_frame_abandon(x.d, payload, 1), 0);
			break;
		case 5:
		case 6:
			if (!o->nframe)
				break;
			payload = (uint32_t)(rnd(&s) % o->nframe);
			struct item gone = o->frame[payload];

			o->frame[payload] = o->frame[--o->nframe];
			cr_assert(ksm_index_remove(x.d, gone.hash, gone.payload), "seed %llx",
				  (unsigned long long)seed);
			cr_assert_eq(ksm_frame_abandon(x.d, gone.payload, 1), 0);
			break;
		default:
			check_find(x.d, o, hash, seed);
		}
		if (step % 128 == 0)
			check_all(x.d, o, seed);
	}
	check_all(x.d, o, seed);
	free(o);
	fix_free(&x);
}

Test(index, random_against_oracle)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		run_random(seed * 0x9e3779b9, 64, 5);
		run_random(seed * 0x51ed270b, 300, 8);
		run_random(seed * 0x2545f491, 3000, 14);
	}
}

Test(index, sweep_removes_what_is_not_alive)
{
	struct fix x = fix_new(200);
	struct ksm_ref ref;
	uint32_t first;

	cr_assert_eq(ksm_frame_alloc(x.d, 2, &first), 2);
	cr_assert_eq(ksm_index_insert_frame(x.d, 1, first), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, 2, first + 1), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, 3, 150), 0, "free all the time");
	ksm_frame_publish(x.d, first);
	cr_assert_eq(ksm_index_find(x.d, 3, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_sweep(x.d, KSM_NO_CELL), 1, "one is live, one is being filled");
	cr_assert_eq(ksm_index_find(x.d, 2, &ref), KSM_FRAME);
	cr_assert_eq(ksm_index_sweep(x.d, 1), 0, "the wrong cell");
	cr_assert_eq(ksm_index_sweep(x.d, 0), 1, "its cell is dead");
	cr_assert_eq(ksm_index_find(x.d, 2, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_find(x.d, 1, &ref), KSM_FRAME);
	fix_free(&x);
}

/* Entries, number of buckets and lock are whatever they are. */
static void garbage(uint64_t seed, uint64_t buckets, uint64_t lock)
{
	struct fix x = fix_new(5000);
	uint64_t s = seed;

	frames_take(&x, 100);
	for (uint64_t i = 0; i < x.d->slots; i++)
		atomic_store(&x.d->index[i], rnd(&s));
	atomic_store(x.d->buckets, buckets);
	atomic_store(x.d->grow_lock, lock);
	for (unsigned int i = 0; i < 20000; i++) {
		uint64_t hash = i & 1 ? rnd(&s) : atomic_load(&x.d->index[rnd(&s) % x.d->slots]);
		struct ksm_ref ref;
		enum ksm_kind k;

		for (k = ksm_index_find(x.d, hash, &ref); k == KSM_FRAME;
		     k = ksm_index_find_next(x.d, hash, &ref))
			cr_assert_lt(ksm_ref_payload(&ref), 5000);
		if (k == KSM_HINT)
			ksm_index_claim(x.d, &ref, (uint32_t)(rnd(&s) % 100));
		ksm_index_hint(x.d, hash, i);
		ksm_index_remove(x.d, hash, (uint32_t)(rnd(&s) % 5000));
		if (i % 1000 == 0) /* the number of buckets goes back and forth */
			atomic_store(x.d->buckets, rnd(&s) % (2 * x.d->max_buckets));
	}
	ksm_index_recover(x.d, 0);
	ksm_index_sweep(x.d, 0);
	for (uint64_t i = 0; i < ksm_index_buckets(x.d) * KSM_BUCKET; i++)
		cr_assert_neq(atomic_load(&x.d->index[i]) >> 62, KSM_FRAME, "no frame was live");
	fix_free(&x);
}

Test(index, garbage_is_survived)
{
	garbage(42, 0, 0);
	garbage(43, UINT64_MAX, 0);
	garbage(44, 17, 1);
	garbage(45, 30, UINT64_MAX);
}
