/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_track_threads.c: collects, marks, takes and switching at once. Also built without Criterion,
 * for ThreadSanitizer (tests/tsan).
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ept/track_check.h"
#include "tests/track_rig.h"

#ifdef __SANITIZE_THREAD__
#define THREAD_PASSES 50
#else
#define THREAD_PASSES 150
#endif
#define THREADS 2 /* of each kind */

struct stress {
	struct track_rig r;
	_Atomic bool stop;
	pthread_mutex_t device; /* held over each device access; snapshots are taken under it */
	_Atomic unsigned int next_seed;
	_Atomic uint64_t missed, written, reported;
};

static _Atomic uint64_t *counter(struct stress *s, uint64_t page, unsigned int which)
{
	return (_Atomic uint64_t *)hva_ptr(gmem_page_hva(&s->r.mem, page)) + which;
}

static void *vcpu_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;

	while (!s->stop) {
		uint64_t p = (uint64_t)rand_r(&seed) % TRACK_PAGES;

		log_model_write(&s->r.log, p, counter(s, p, 0));
	}
	return NULL;
}

static void *device_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;

	while (!s->stop) {
		uint64_t p = (uint64_t)rand_r(&seed) % TRACK_PAGES;
		struct gmem_access acc;

		pthread_mutex_lock(&s->device);
		cr_assert(!gmem_access_begin(&s->r.mem, gpa(p * OB_PAGE_SIZE), 16, true, &acc));
		atomic_fetch_add((_Atomic uint64_t *)acc.ptr + 1, 1);
		gmem_access_end(&s->r.mem, &acc);
		pthread_mutex_unlock(&s->device);
	}
	return NULL;
}

/* A consumer that comes, does its passes and goes, again and again. */
static void *consumer_thread(void *arg)
{
	struct stress *s = arg;

	for (unsigned int life = 0; life < 3; life++) {
		uint64_t out[(TRACK_PAGES + 63) / 64];
		struct ept_track_check check;
		int c = ept_track_consumer_add(&s->r.t);

		cr_assert(c >= 0);
		cr_assert(!ept_track_check_init(&check, &s->r.mem, 0, TRACK_PAGES, 2, s->r.arena));
		for (int pass = 0; pass < THREAD_PASSES; pass++) {
			pthread_mutex_lock(&s->device);
			ept_track_check_snapshot(&check);
			pthread_mutex_unlock(&s->device);
			cr_assert(!ept_track_collect(&s->r.t));
			cr_assert(ept_track_take(&s->r.t, c, 0, TRACK_PAGES, out, NULL) >= 0);
			ept_track_check_compare(&check, out);
		}
		s->missed += check.st.missed;
		s->written += check.st.written;
		s->reported += check.st.reported;
		ept_track_check_exit(&check);
		cr_assert(!ept_track_consumer_remove(&s->r.t, c));
	}
	return NULL;
}

static void *switching_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;
	struct ept_track_stats st;

	while (!s->stop) {
		uint64_t page = (uint64_t)rand_r(&seed) % TRACK_PAGES;

		cr_assert(!ept_track_off(&s->r.t, 0, TRACK_PAGES / 2));
		cr_assert(!ept_track_on(&s->r.t, page, 1));
		cr_assert(!ept_track_on(&s->r.t, 0, TRACK_PAGES));
		ept_track_known(&s->r.t, page);
		ept_track_read_stats(&s->r.t, &st);
		cr_assert_eq(st.pages_on + st.pages_off, TRACK_PAGES);
	}
	return NULL;
}

static void stress(bool switching)
{
	struct stress *s = calloc(1, sizeof(*s));
	pthread_t vcpu[THREADS], device[THREADS], consumer[THREADS], toggler;

	cr_assert(s);
	track_rig_make(&s->r, true);
	pthread_mutex_init(&s->device, NULL);
	s->next_seed = 1;
	cr_assert(!ept_track_on(&s->r.t, 0, TRACK_PAGES));
	for (int i = 0; i < THREADS; i++) {
		cr_assert(!pthread_create(&vcpu[i], NULL, vcpu_thread, s));
		cr_assert(!pthread_create(&device[i], NULL, device_thread, s));
		cr_assert(!pthread_create(&consumer[i], NULL, consumer_thread, s));
	}
	if (switching)
		cr_assert(!pthread_create(&toggler, NULL, switching_thread, s));
	for (int i = 0; i < THREADS; i++)
		pthread_join(consumer[i], NULL);
	s->stop = true;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(vcpu[i], NULL);
		pthread_join(device[i], NULL);
	}
	if (switching)
		pthread_join(toggler, NULL);
	cr_assert_eq(s->missed, 0, "%lu of %lu written pages were missed", s->missed, s->written);
	cr_assert_gt(s->written, TRACK_PAGES * THREADS * 3, "nobody wrote");
	cr_assert_geq(s->reported, s->written);
	track_rig_unmake(&s->r);
	pthread_mutex_destroy(&s->device);
	free(s);
}

Test(track, collects_marks_and_takes_at_once, .timeout = 240)
{
	stress(false);
}

Test(track, and_slots_are_switched_meanwhile, .timeout = 240)
{
	stress(true);
}

/* --- two threads at one word ----------------------------------------------------------------- */

/* A log in which nothing is ever written: collecting and switching take no time. */
static int quiet_set(void *arg, unsigned int slot, bool on)
{
	(void)arg;
	(void)slot;
	(void)on;
	return 0;
}

static int quiet_collect(void *arg, unsigned int slot, uint64_t *bitmap)
{
	const struct gmem *mem = arg;

	memset(bitmap, 0, (mem->slot[slot].pages + 63) / 64 * sizeof(bitmap[0]));
	return 0;
}

struct duel {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept_track t;
	int consumer;
	pthread_t other;
	_Atomic bool stop;
	_Atomic uint64_t taken[64];
	_Atomic uint64_t word; /* stands for the content of the last page */
	_Atomic uint64_t wrong;
};

static struct duel *duel_start(uint64_t pages, void *(*other)(void *))
{
	struct duel *d = calloc(1, sizeof(*d));

	cr_assert(d);
	d->h = fake_host_new();
	d->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&d->mem, d->h, pages * OB_PAGE_SIZE, "test"));
	ept_track_init(
		&d->t,
		(struct ept_log_ops){.set = quiet_set, .collect = quiet_collect, .arg = &d->mem},
		&d->mem, d->arena);
	cr_assert(!ept_track_on(&d->t, 0, 1));
	d->consumer = ept_track_consumer_add(&d->t);
	cr_assert(!pthread_create(&d->other, NULL, other, d));
	return d;
}

static void duel_end(struct duel *d)
{
	d->stop = true;
	pthread_join(d->other, NULL);
	ept_track_exit(&d->t);
	gmem_exit(&d->mem);
	ob_arena_free(d->arena);
	fake_host_free(d->h);
	free(d);
}

static void *take_without_a_pause(void *arg)
{
	struct duel *d = arg;
	uint64_t out;

	while (!d->stop) {
		cr_assert(ept_track_take(&d->t, d->consumer, 0, 64, &out, NULL) >= 0);
		for (; out; out &= out - 1)
			d->taken[__builtin_ctzll(out)]++;
	}
	return NULL;
}

/* The second page of a pair often comes while the first is being taken. */
Test(track, a_page_that_comes_during_a_take_is_not_lost, .timeout = 120)
{
	struct duel *d = duel_start(64, take_without_a_pause);

	for (int round = 0; round < 30000; round++) {
		uint64_t pair[2] = {(uint64_t)round % 64, ((uint64_t)round + 7) % 64}, before[2];

		for (int i = 0; i < 2; i++)
			before[i] = d->taken[pair[i]];
		for (int i = 0; i < 2; i++) {
			cr_assert(!ept_track_mark(&d->t, pair[i], 1));
			cr_assert(!ept_track_collect(&d->t));
		}
		for (int i = 0; i < 2; i++)
			for (int spin = 0; d->taken[pair[i]] == before[i]; spin++) {
				cr_assert_lt(spin, 1000000, "page %lu was lost in round %d",
					     pair[i], round);
				if (spin > 100)
					sched_yield();
			}
	}
	duel_end(d);
}

/* While the slot is off its last page is written; who is told "clean" must have seen that. */
static void *look_without_a_pause(void *arg)
{
	struct duel *d = arg;
	uint64_t out, seen = UINT64_MAX;

	while (!d->stop) {
		uint64_t now = d->word;

		cr_assert(ept_track_take(&d->t, d->consumer, d->mem.pages - 1, 1, &out, NULL) >= 0);
		if (out)
			seen = d->word;
		else
			d->wrong += now != seen;
	}
	return NULL;
}

Test(track, no_moment_of_switching_on_looks_clean, .timeout = 120)
{
	struct duel *d = duel_start(4096, look_without_a_pause);

	for (int round = 0; round < 50000; round++) {
		cr_assert(!ept_track_off(&d->t, 0, 4096));
		d->word++;
		cr_assert(!ept_track_on(&d->t, 0, 1));
	}
	cr_assert_eq(d->wrong, 0);
	duel_end(d);
}
