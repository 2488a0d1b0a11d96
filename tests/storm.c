/* SPDX-License-Identifier: Apache-2.0 */
/* storm.c: see storm.h. */
#include "tests/storm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void wrong(struct storm *s, const char *what, int64_t r)
{
	const char *none = NULL;

	if (atomic_compare_exchange_strong(&s->failed, &none, what))
		s->failed_with = r;
}

/* Not an error? */
static bool ok(struct storm *s, int64_t r, const char *what)
{
	if (r < 0)
		wrong(s, what, r);
	return r >= 0;
}

/* One of the guests that are there; NULL: none is. */
static struct ept *some_guest(struct storm *s, uint64_t *seed, unsigned int *g)
{
	*g = (unsigned int)(rnd(seed) % RIG_GUESTS);
	for (unsigned int i = 0; i < RIG_GUESTS && !s->rig.vm[*g]; i++)
		*g = (*g + 1) % RIG_GUESTS;
	return s->rig.vm[*g] ? &s->rig.ept[*g] : NULL;
}

static void part_merge(struct storm *s, uint64_t *seed)
{
	(void)seed;
	/* However long it wants to rest: others may come and be merged meanwhile. */
	if (ksm_step(s->rig.k, s->rig.host.ops->now_ns(&s->rig.host), 512))
		rig_nap_ms(1);
}

static void part_reap(struct storm *s, uint64_t *seed)
{
	ok(s, ksm_domain_reap(s->rig.coord, 1 + rnd(seed) % 8192), "giving frames back failed");
	rig_nap_ms(1);
}

static void part_take(struct storm *s, uint64_t *seed)
{
	struct ept_run run = {.page = rnd(seed) % STORM_PAGES};
	unsigned int g;
	struct ept *e = some_guest(s, seed, &g);
	int64_t n;

	if (!e)
		return;
	run.n = 1 + rnd(seed) % OB_MIN(128, STORM_PAGES - run.page);
	n = ept_take(e, &run, 1, rnd(seed) % 8 == 0);
	if (ok(s, n, "taking pages failed"))
		s->taken += (uint64_t)n;
	if (rnd(seed) % 4 == 0)
		rig_nap_ms(1);
	/* What stays out comes back when its guest touches it. */
	if (rnd(seed) % 2)
		ok(s, ept_put_back(e, &run, 1), "putting pages back failed");
	rig_nap_ms(2);
}

/* Is spare page @page of guest @g what was last done to it? */
static bool spare_is_right(struct storm *s, const struct remerge *m, unsigned int g, uint64_t page,
			   gpa_t at)
{
	uint64_t w[GEN_PAGE_WORDS], got, want;
	uint8_t holds = s->holds[g][page];
	int r = gmem_read(&s->rig.vm[g]->mem, at, w, sizeof(w));

	if (r)
		return r == -EBUSY;
	s->checked++;
	if (holds)
		return remerge_check(m, w, page, remerge_value(m, page, holds - 1u), &got, &want) ==
		       GEN_PAGE_WORDS;
	for (unsigned int i = 0; i < GEN_PAGE_WORDS; i++)
		if (w[i])
			return false;
	return true;
}

/* Look at a few pages that the guest does not use, give them content that others have as well, or
 * give them up. */
static void part_discard(struct storm *s, uint64_t *seed)
{
	unsigned int g;
	struct ept *e = some_guest(s, seed, &g);
	const struct remerge m = remerge_of(1, g + 1);
	uint64_t w[GEN_PAGE_WORDS], page, n, ram, first, spare;
	uint64_t value = rnd(seed) % REMERGE_VALUES, what = rnd(seed) % 4;
	struct agent_report rep;

	if (!e)
		return;
	rep = rig_report(&s->rig, g);
	spare = rep.free_clean_pages;
	first = rep.area_pages;
	rig_nap_ms(1);
	if (rep.phase < AGENT_WARM || !spare || first + spare > STORM_PAGES)
		return;
	page = first + rnd(seed) % spare;
	n = 1 + rnd(seed) % OB_MIN(16, first + spare - page);
	/* The guest counts its area's pages, ept all of its memory. */
	ram = rep.area_gpa / OB_PAGE_SIZE;
	for (uint64_t p = page; p < page + n; p++)
		if (!spare_is_right(s, &m, g, p, (gpa_t){rep.area_gpa + p * OB_PAGE_SIZE}))
			wrong(s, "a page that is nobody's is not what it was", 0);
	if (what < 2) {
		for (uint64_t p = page; p < page + n; p++) {
			remerge_fill(&m, w, p, remerge_value(&m, p, value));
			if (gmem_write(&s->rig.vm[g]->mem, (gpa_t){rep.area_gpa + p * OB_PAGE_SIZE},
				       w, sizeof(w)))
				continue;
			s->holds[g][p] = (uint8_t)(value + 1);
			s->filled++;
		}
		return;
	}
	ok(s, ept_balloon(e, ram + page, n, true), "giving pages up failed");
	memset(&s->holds[g][page], 0, n);
	s->discarded += n;
	if (what == 2)
		ok(s, ept_balloon(e, ram + page, n, false), "deflating failed");
}

static void part_probe(struct storm *s, uint64_t *seed)
{
	unsigned int n = 0, g;
	struct ept *e = some_guest(s, seed, &g);
	uint64_t page = rnd(seed) % STORM_PAGES;
	struct ept_run run[32];
	struct ept_verify v;
	bool zapped[32];

	if (!e)
		return;
	switch (rnd(seed) % 8) {
	case 0:
		if (ok(s, ept_verify(e, &v), "verifying failed") && v.differences)
			wrong(s, v.first[0].why, 0);
		s->probed++;
		break;
	case 1:
	case 2:
		for (uint64_t p = rnd(seed) % 64; n < 32 && p < STORM_PAGES;
		     p += 1 + rnd(seed) % 200)
			run[n++] = (struct ept_run){.page = p, .n = 1};
		ok(s, ept_zap(e, run, n, zapped), "emptying page-table entries failed");
		break;
	default:
		ok(s, ept_sync(e, page, 1 + rnd(seed) % OB_MIN(512, STORM_PAGES - page), NULL),
		   "syncing failed");
	}
	rig_nap_ms(5);
}

static void (*const work[STORM_PARTS])(struct storm *s, uint64_t *seed) = {
	part_merge, part_reap, part_take, part_discard, part_probe,
};

struct part {
	struct storm *s;
	unsigned int i;
};

static void *part_thread(void *arg)
{
	struct part p = *(struct part *)arg;
	struct storm_turn *t = &p.s->turn[p.i];
	uint64_t seed = 0x9e3779b97f4a7c15ULL * (p.i + 1);

	free(arg);
	while (!p.s->stop) {
		pthread_mutex_lock(&t->lock);
		work[p.i](p.s, &seed);
		pthread_mutex_unlock(&t->lock);
		while (t->wanted)
			rig_nap_ms(1);
	}
	return NULL;
}

void storm_begin(struct storm *s, unsigned int parts)
{
	s->parts = parts;
	for (unsigned int i = 0; i < STORM_PARTS; i++) {
		struct part *p;

		pthread_mutex_init(&s->turn[i].lock, NULL);
		if (!(parts & 1u << i))
			continue;
		p = malloc(sizeof(*p));
		*p = (struct part){.s = s, .i = i};
		cr_assert(!pthread_create(&s->thread[i], NULL, part_thread, p));
	}
}

void storm_end(struct storm *s)
{
	const struct ept_run all = {.page = 0, .n = STORM_PAGES};

	s->stop = true;
	for (unsigned int i = 0; i < STORM_PARTS; i++) {
		if (s->parts & 1u << i)
			pthread_join(s->thread[i], NULL);
		pthread_mutex_destroy(&s->turn[i].lock);
	}
	cr_assert_null(s->failed, "%s: %lld", s->failed, (long long)s->failed_with);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		if (s->rig.vm[i])
			cr_assert(ept_put_back(&s->rig.ept[i], &all, 1) >= 0);
}

void storm_hold(struct storm *s)
{
	for (unsigned int i = 0; i < STORM_PARTS; i++) {
		s->turn[i].wanted = 1;
		pthread_mutex_lock(&s->turn[i].lock);
	}
}

void storm_release(struct storm *s)
{
	for (unsigned int i = 0; i < STORM_PARTS; i++) {
		s->turn[i].wanted = 0;
		pthread_mutex_unlock(&s->turn[i].lock);
	}
}

void storm_new_guest(struct storm *s, unsigned int i)
{
	memset(s->holds[i], 0, sizeof(s->holds[i]));
}

bool storm_goes_on(struct storm *s, uint64_t merges)
{
	struct ksm_stats k;

	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		struct vm *vm = s->rig.vm[i];

		cr_assert_eq(atomic_load(&vm->state), VM_RUNNING, "guest %u: %s", i, vm->reason);
		cr_assert(!rig_report(&s->rig, i).mismatches || s->rig.opts.inject,
			  "guest %u found a wrong page", i);
	}
	cr_assert_null(s->failed, "%s: %lld", s->failed, (long long)s->failed_with);
	ksm_read_stats(s->rig.k, &k);
	return k.merged_pages + k.zero_pages < merges;
}
