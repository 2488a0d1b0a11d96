/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_index.c: the index of a sharing domain against a naive list: frames are never lost and come
 * before hints, hints are only lost where a window is full, removed entries are gone, and a table
 * of garbage is survived.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/domain.h"
#include "tests/fake_host.h"

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

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dULL;
}

Test(index, finds_what_was_put_in)
{
	struct fix x = fix_new(100);
	struct ksm_ref ref;

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
	cr_assert_eq(ksm_index_find(x.d, 0x1234, &ref), KSM_HINT, "behind the tomb");
	cr_assert_eq(ksm_index_hint(x.d, 0x1234, KSM_MAX_PAYLOAD + 1), -ERANGE);
	fix_free(&x);
}

Test(index, frame_before_hint_in_any_order)
{
	struct fix x = fix_new(100);
	struct ksm_ref ref;

	cr_assert_eq(ksm_index_hint(x.d, 9, 1), 0);
	cr_assert_eq(ksm_index_hint(x.d, 9, 2), 0);
	cr_assert_eq(ksm_index_find(x.d, 9, &ref), KSM_HINT);
	cr_assert_eq(ksm_ref_payload(&ref), 1, "the first of two");
	cr_assert_eq(ksm_index_insert_frame(x.d, 9, 30), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, 9, 31), 0);
	cr_assert_eq(ksm_index_find(x.d, 9, &ref), KSM_FRAME);
	cr_assert_eq(ksm_ref_payload(&ref), 30);
	cr_assert_eq(ksm_index_find_next(x.d, 9, &ref), KSM_FRAME);
	cr_assert_eq(ksm_ref_payload(&ref), 31);
	cr_assert_eq(ksm_index_find_next(x.d, 9, &ref), KSM_EMPTY);
	fix_free(&x);
}

Test(index, full_window_loses_hints_never_frames)
{
	/* The last slot, so that the window goes round the end of the table. */
	const uint64_t top = UINT64_MAX << 34;
	struct fix x = fix_new(1000);
	struct ksm_ref ref;
	unsigned int found = 0;

	for (uint64_t i = 0; i < KSM_WINDOW; i++)
		cr_assert_eq(ksm_index_hint(x.d, top | i, i), 0);
	cr_assert_eq(ksm_index_hint(x.d, top | 100, 100), 0, "overwrites another");
	cr_assert_eq(ksm_index_find(x.d, top | 100, &ref), KSM_HINT);
	for (uint64_t i = 0; i < KSM_WINDOW; i++)
		found += ksm_index_find(x.d, top | i, &ref) == KSM_HINT;
	cr_assert_eq(found, KSM_WINDOW - 1, "exactly one hint was lost");
	for (uint64_t i = 0; i < KSM_WINDOW; i++)
		cr_assert_eq(ksm_index_insert_frame(x.d, top | (200 + i), (uint32_t)i), 0);
	cr_assert_eq(ksm_index_insert_frame(x.d, top | 300, 999), -ENOSPC);
	cr_assert_eq(ksm_index_hint(x.d, top | 300, 999), -ENOSPC);
	for (uint64_t i = 0; i < KSM_WINDOW; i++) {
		cr_assert_eq(ksm_index_find(x.d, top | (200 + i), &ref), KSM_FRAME);
		cr_assert_eq(ksm_ref_payload(&ref), i);
	}
	cr_assert(ksm_index_remove(x.d, top | 210, 10));
	cr_assert_eq(ksm_index_insert_frame(x.d, top | 300, 999), 0, "a tomb is room");
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

/* Is (@hash, @frame) reached by find and find_next? */
static bool reaches(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	struct ksm_ref ref;

	for (enum ksm_kind k = ksm_index_find(d, hash, &ref); k == KSM_FRAME;
	     k = ksm_index_find_next(d, hash, &ref))
		if (ksm_ref_payload(&ref) == frame)
			return true;
	return false;
}

static void check_all(struct ksm_domain *d, const struct oracle *o, uint64_t seed)
{
	uint64_t hints, entries;

	for (unsigned int i = 0; i < o->nframe; i++)
		cr_assert(reaches(d, o->frame[i].hash, o->frame[i].payload),
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
			if (kind == KSM_HINT && o->nframe < ITEMS) {
				cr_assert(ksm_index_claim(x.d, &ref, payload));
				o->frame[o->nframe++] = (struct item){hash, payload};
			}
			break;
		case 4:
			if (o->nframe < ITEMS && !ksm_index_insert_frame(x.d, hash, payload))
				o->frame[o->nframe++] = (struct item){hash, payload};
			break;
		case 5:
		case 6:
			if (!o->nframe)
				break;
			payload = (uint32_t)(rnd(&s) % o->nframe);
			hash = o->frame[payload].hash;
			payload = o->frame[payload].payload;
			cr_assert(ksm_index_remove(x.d, hash, payload), "seed %llx",
				  (unsigned long long)seed);
			/* All equal ones go. */
			for (unsigned int i = 0; i < o->nframe;)
				if (o->frame[i].hash == hash && o->frame[i].payload == payload)
					o->frame[i] = o->frame[--o->nframe];
				else
					i++;
			break;
		default:
			check_find(x.d, o, hash, seed);
		}
		if (step % 64 == 0)
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
	cr_assert_eq(ksm_index_sweep(x.d, KSM_NO_CELL), 1, "one is live, one is being filled");
	cr_assert_eq(ksm_index_find(x.d, 3, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_find(x.d, 2, &ref), KSM_FRAME);
	cr_assert_eq(ksm_index_sweep(x.d, 1), 0, "the wrong cell");
	cr_assert_eq(ksm_index_sweep(x.d, 0), 1, "its cell is dead");
	cr_assert_eq(ksm_index_find(x.d, 2, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_index_find(x.d, 1, &ref), KSM_FRAME);
	fix_free(&x);
}

Test(index, garbage_is_survived)
{
	struct fix x = fix_new(500);
	uint64_t s = 42;

	for (uint64_t i = 0; i < x.d->slots; i++)
		atomic_store(&x.d->index[i], rnd(&s));
	memset((void *)(uintptr_t)x.d->index_touched, 0xff, 8);
	for (unsigned int i = 0; i < 20000; i++) {
		uint64_t hash = i & 1 ? rnd(&s) : atomic_load(&x.d->index[rnd(&s) % x.d->slots]);
		struct ksm_ref ref;

		for (enum ksm_kind k = ksm_index_find(x.d, hash, &ref); k == KSM_FRAME;
		     k = ksm_index_find_next(x.d, hash, &ref))
			cr_assert_lt(ksm_ref_payload(&ref), 500);
		ksm_index_hint(x.d, hash, i);
	}
	ksm_index_sweep(x.d, KSM_NO_CELL);
	for (uint64_t i = 0; i < x.d->slots; i++)
		cr_assert_neq(atomic_load(&x.d->index[i]) >> 62, KSM_FRAME, "no frame was live");
	fix_free(&x);
}

/* --- several at once ------------------------------------------------------------------------- */

#define THREADS	 4
#define CONTENTS 512

struct racer {
	struct ksm_domain *d;
	unsigned int id;
	unsigned int claimed[CONTENTS];
	pthread_t thread;
};

static uint64_t content_hash(unsigned int c)
{
	return (c + 1) * 0x9e3779b97f4a7c15ULL;
}

static void *race(void *arg)
{
	struct racer *r = arg;
	uint64_t s = 99 + r->id;

	for (unsigned int i = 0; i < 40 * CONTENTS; i++) {
		unsigned int c = (unsigned int)(rnd(&s) % CONTENTS);
		uint32_t frame = c * THREADS + r->id;
		struct ksm_ref ref;

		switch (ksm_index_find(r->d, content_hash(c), &ref)) {
		case KSM_HINT:
			if (!r->claimed[c] && ksm_index_claim(r->d, &ref, frame))
				r->claimed[c] = 1;
			break;
		case KSM_FRAME:
			/* Now and then its maker takes it out again. */
			if (r->claimed[c] && rnd(&s) % 4 == 0) {
				if (!ksm_index_remove(r->d, content_hash(c), frame))
					return r; /* a frame was lost */
				r->claimed[c] = 0;
			}
			break;
		default:
			ksm_index_hint(r->d, content_hash(c), c);
		}
	}
	return NULL;
}

Test(index, concurrent_claims_and_removals)
{
	struct fix x = fix_new(THREADS * CONTENTS);
	struct racer *r = calloc(THREADS, sizeof(*r));
	uint64_t hints, entries, expect = 0;

	for (unsigned int i = 0; i < THREADS; i++) {
		r[i].d = x.d;
		r[i].id = i;
		cr_assert_eq(pthread_create(&r[i].thread, NULL, race, &r[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		void *why;

		pthread_join(r[i].thread, &why);
		cr_assert_null(why, "thread %u lost a frame", i);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		for (unsigned int c = 0; c < CONTENTS; c++) {
			expect += r[i].claimed[c];
			if (r[i].claimed[c])
				cr_assert(reaches(x.d, content_hash(c), c * THREADS + i));
		}
	ksm_index_count(x.d, &hints, &entries);
	cr_assert_eq(entries, expect);
	free(r);
	fix_free(&x);
}
