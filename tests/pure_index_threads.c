/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_index_threads.c: several cells, each in a thread, claim, insert, remove and make the index
 * grow at once, while the coordinator reaps. In the end each frame that is held is in the index, and
 * when all are given back, none is.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/index.h"
#include "tests/domain.h"
#include "tests/fake_host.h"
#include "tests/rnd.h"

#define CELLS	 4
#define CONTENTS 60
#define FRAMES	 16000 /* the index grows from 8 to 282 buckets */
#ifdef __SANITIZE_THREAD__
#define STEPS 6000
#else
#define STEPS 24000
#endif

struct worker {
	struct ksm_domain *d;
	pthread_t thread;
	uint64_t s;
	const uint64_t *hash;
	uint32_t held[CONTENTS]; /* frame of each content; EPT_NO_FRAME: none */
	uint64_t made, given_up, joined;
};

struct shared {
	struct ob_host *h;
	struct ob_arena *arena;
	struct ksm_domain *coord;
	struct worker worker[CELLS];
	uint64_t hash[CONTENTS], reaped;
	_Atomic bool stop;
	int pool, meta;
};

static void content(uint64_t *page, uint64_t c)
{
	for (unsigned int i = 0; i < OB_PAGE_SIZE / 8; i++)
		page[i] = (c + 1) * 0x9e3779b97f4a7c15ULL + i;
}

static bool has_content(struct ksm_domain *d, uint32_t frame, unsigned int c)
{
	uint64_t page[512], want[512];

	cr_assert_eq(d->host->ops->file_read(d->host, d->pool_fd, page, OB_PAGE_SIZE,
					     frame * OB_PAGE_SIZE),
		     0);
	content(want, c);
	return !memcmp(page, want, OB_PAGE_SIZE);
}

/* The second holder makes the frame; now and then it thinks better of it. */
static void make(struct worker *w, unsigned int c, const struct ksm_ref *ref)
{
	struct ksm_domain *d = w->d;
	uint64_t page[512];
	uint32_t frame;

	if (!ksm_frame_alloc(d, 1, &frame))
		return;
	if (!ksm_index_claim(d, ref, frame)) {
		cr_assert_eq(ksm_frame_abandon(d, frame, 1), 0);
		return;
	}
	if (rnd(&w->s) % 4 == 0) {
		ksm_index_remove(d, w->hash[c], frame);
		cr_assert_eq(ksm_frame_abandon(d, frame, 1), 0);
		w->given_up++;
		return;
	}
	content(page, c);
	cr_assert_eq(d->host->ops->file_write(d->host, d->pool_fd, page, OB_PAGE_SIZE,
					      frame * OB_PAGE_SIZE),
		     0);
	ksm_frame_publish(d, frame);
	w->held[c] = frame;
	w->made++;
}

static void step(struct worker *w)
{
	unsigned int c = (unsigned int)(rnd(&w->s) % CONTENTS);
	struct ksm_domain *d = w->d;
	struct ksm_ref ref;
	enum ksm_kind kind;

	/* A page of unique content: this is what the table grows by. */
	ksm_index_hint(d, rnd(&w->s), rnd(&w->s) % 1000000);
	if (w->held[c] != EPT_NO_FRAME) {
		if (rnd(&w->s) % 4) {
			ksm_frame_put(d, w->held[c]);
			w->held[c] = EPT_NO_FRAME;
		}
		return;
	}
	kind = ksm_index_find(d, w->hash[c], &ref);
	if (kind == KSM_EMPTY) {
		ksm_index_hint(d, w->hash[c], c);
	} else if (kind == KSM_HINT) {
		if (rnd(&w->s) % 4 == 0)
			ksm_index_rehint(d, &ref, c + CONTENTS);
		else
			make(w, c, &ref);
	} else if (!ksm_frame_get(d, ksm_ref_payload(&ref))) {
		if (has_content(d, ksm_ref_payload(&ref), c)) {
			w->held[c] = ksm_ref_payload(&ref);
			w->joined++;
		} else {
			ksm_frame_put(d, ksm_ref_payload(&ref));
		}
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (unsigned int i = 0; i < STEPS; i++)
		step(w);
	return NULL;
}

static void *reap(void *arg)
{
	struct shared *s = arg;

	while (!s->stop) {
		int64_t n = ksm_domain_reap(s->coord, FRAMES);

		cr_assert_geq(n, 0);
		s->reaped += (uint64_t)n;
		sched_yield();
	}
	return NULL;
}

static struct shared *shared_new(void)
{
	struct shared *s = calloc(1, sizeof(*s));
	uint64_t seed = 20260612, page[512];

	s->h = fake_host_new();
	s->arena = ob_arena_new("test");
	cr_assert_eq(ksm_domain_create(s->h, FRAMES, CELLS, &s->pool, &s->meta), 0);
	cr_assert_eq(ksm_domain_open(s->h, s->pool, s->meta, KSM_NO_CELL, s->arena, &s->coord), 0);
	for (unsigned int c = 0; c < CONTENTS; c++) {
		content(page, c);
		s->hash[c] = ksm_hash(s->coord, page);
	}
	for (unsigned int i = 0; i < CELLS; i++) {
		struct worker *w = &s->worker[i];

		cr_assert_eq(ksm_domain_open(s->h, s->pool, s->meta, i, s->arena, &w->d), 0);
		w->s = rnd(&seed);
		w->hash = s->hash;
		for (unsigned int c = 0; c < CONTENTS; c++)
			w->held[c] = EPT_NO_FRAME;
	}
	return s;
}

/* All threads once, to their end. */
static void run_threads(struct shared *s)
{
	pthread_t reaper;

	s->stop = false;
	cr_assert_eq(pthread_create(&reaper, NULL, reap, s), 0);
	for (unsigned int i = 0; i < CELLS; i++)
		cr_assert_eq(pthread_create(&s->worker[i].thread, NULL, work, &s->worker[i]), 0);
	for (unsigned int i = 0; i < CELLS; i++)
		pthread_join(s->worker[i].thread, NULL);
	s->stop = true;
	pthread_join(reaper, NULL);
}

/* Did all that is meant to meet happen? On a busy host a thread may be over before the next begins. */
static bool all_met(const struct shared *s)
{
	uint64_t held = 0, made = 0, given_up = 0, joined = 0;

	for (unsigned int i = 0; i < CELLS; i++) {
		const struct worker *w = &s->worker[i];

		made += w->made;
		given_up += w->given_up;
		joined += w->joined;
		for (unsigned int c = 0; c < CONTENTS; c++)
			held += w->held[c] != EPT_NO_FRAME;
	}
	cr_log_info("%llu made, %llu joined, %llu given up, %llu reaped, %llu held, %llu buckets",
		    (unsigned long long)made, (unsigned long long)joined,
		    (unsigned long long)given_up, (unsigned long long)s->reaped,
		    (unsigned long long)held, (unsigned long long)ksm_index_buckets(s->coord));
	return held && made && joined && given_up && s->reaped;
}

Test(index_threads, cells_change_it_while_it_grows, .timeout = 120)
{
	struct shared *s = shared_new();
	struct ksm_domain_stats st;
	bool met = false;

	for (int round = 0; round < 20 && !met; round++) {
		run_threads(s);
		met = all_met(s);
	}
	cr_assert(met, "in 20 rounds not all happened");
	cr_assert_gt(ksm_index_buckets(s->coord), 150);
	cr_assert_eq(atomic_load(s->coord->grow_lock), 0);
	for (unsigned int i = 0; i < CELLS; i++) {
		struct worker *w = &s->worker[i];

		for (unsigned int c = 0; c < CONTENTS; c++) {
			if (w->held[c] == EPT_NO_FRAME)
				continue;
			cr_assert(has_content(w->d, w->held[c], c), "a frame that is held changed");
			cr_assert(domain_reaches(w->d, s->hash[c], w->held[c]),
				  "cell %u: content %u, frame %u is not in the index", i, c,
				  w->held[c]);
			ksm_frame_put(w->d, w->held[c]);
		}
	}
	cr_assert_geq(ksm_domain_reap(s->coord, 2 * FRAMES), 0);
	cr_assert_geq(ksm_domain_reap(s->coord, 2 * FRAMES), 0);
	cr_assert_eq(ksm_domain_stats(s->coord, &st), 0);
	cr_assert_eq(st.live + st.filling, 0);
	cr_assert_eq(st.entries, 0, "an entry of a frame that is free");
	for (unsigned int i = 0; i < CELLS; i++)
		ksm_domain_close(s->worker[i].d);
	ksm_domain_close(s->coord);
	ob_arena_free(s->arena);
	fake_host_free(s->h);
	free(s);
}
