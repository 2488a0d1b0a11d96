/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_take.c: everything that ept does to a guest's memory, at once and on a real kernel, without a
 * VM: ordinary threads play guest and device on ordinary memory. Each counts in words of its own in
 * every page and knows what it counted; some pages are filled with patterns that are worth merging.
 * Others take pages out, put them back, hand them to tiers (two of them, who get in each other's
 * way), merge them in a freeze and in staging, zap them, put some into a balloon, and compare the map
 * with the kernel's. A count that is lost, or a byte that is wrong, is the end.
 *
 * No KVM is needed, so this is what runs under ThreadSanitizer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ept/ept.h"

#define PAGES	 1024
#define COUNTING 448 /* pages [0, COUNTING) are counted in, the rest but the last holds patterns */
#define GIVEN	 64  /* pages at the end that go into the balloon */
#define WINDOW	 512
#define GUESTS	 2
#define PATTERNS 4 /* 0: zeroes */
#define FRAMES	 32
#define SLOTS	 (2 * PAGES)

struct rack;

/* One thread. */
struct player {
	struct rack *r;
	unsigned int id, seed;
	pthread_t thread;
	uint64_t expect[PAGES]; /* its counts, or the patterns that it wrote */
};

/* A tier that keeps copies. */
struct shelf {
	pthread_mutex_t lock;
	uint8_t *slot[SLOTS];
	uint32_t next;
};

struct rack {
	struct ob_host host;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept e;
	int pool;
	struct shelf shelf[2]; /* compressed, swapped */
	/* The parker: guests are in, or kept out. */
	pthread_mutex_t lock;
	pthread_cond_t change;
	int in, parked;
	_Atomic bool stop;
	_Atomic uint64_t lost, rounds, shared, dropped, tiered, zapped;
};

static unsigned int rnd(struct player *p, unsigned int n)
{
	return (unsigned int)rand_r(&p->seed) % n;
}

/* --- the guest can be parked ------------------------------------------------------------------- */

static void guest_enter(struct rack *r)
{
	pthread_mutex_lock(&r->lock);
	while (r->parked)
		pthread_cond_wait(&r->change, &r->lock);
	r->in++;
	pthread_mutex_unlock(&r->lock);
}

static void guest_leave(struct rack *r)
{
	pthread_mutex_lock(&r->lock);
	r->in--;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static void park(void *arg)
{
	struct rack *r = arg;

	pthread_mutex_lock(&r->lock);
	r->parked++;
	while (r->in)
		pthread_cond_wait(&r->change, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void unpark(void *arg)
{
	struct rack *r = arg;

	pthread_mutex_lock(&r->lock);
	r->parked--;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static void fail(void *arg, const char *why)
{
	(void)why;
	((struct rack *)arg)->lost++;
}

/* --- guest and device -------------------------------------------------------------------------- */

/* The word of a player in a page of counters. */
static void count_in(struct player *p, void *page, uint64_t n)
{
	volatile uint64_t *word = (uint64_t *)page + 61 * p->id + n % 53;

	cr_assert_eq(*word, p->expect[n], "page %d: %d counts %d, not %d", (int)n, (int)p->id,
		     (int)*word, (int)p->expect[n]);
	p->expect[n] = ++*word;
}

static void pattern(uint8_t *buf, uint64_t k)
{
	memset(buf, k ? (int)(0x10 * k) : 0, OB_PAGE_SIZE);
	buf[100] = k ? (uint8_t)(k + 1) : 0;
}

static void check_pattern(struct player *p, uint64_t n)
{
	uint8_t buf[OB_PAGE_SIZE];

	pattern(buf, p->expect[n]);
	cr_assert(!memcmp(hva_ptr(gmem_page_hva(&p->r->mem, n)), buf, sizeof(buf)),
		  "page %d does not hold pattern %d", (int)n, (int)p->expect[n]);
}

static void *guest_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!r->stop) {
		guest_enter(r);
		for (int i = 0; i < 8; i++) {
			uint64_t n = rnd(p, COUNTING);

			count_in(p, hva_ptr(gmem_page_hva(&r->mem, n)), n);
			n = COUNTING + rnd(p, PAGES - GIVEN - COUNTING);
			if (n % GUESTS != p->id)
				continue;
			check_pattern(p, n);
			if (rnd(p, 8))
				continue;
			p->expect[n] = rnd(p, PATTERNS);
			pattern(hva_ptr(gmem_page_hva(&r->mem, n)), p->expect[n]);
		}
		guest_leave(r);
		r->rounds++;
	}
	return NULL;
}

static void *device_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!r->stop) {
		uint64_t n = rnd(p, COUNTING - 3), len = 1 + rnd(p, 3);
		struct gmem_access acc;

		cr_assert(!gmem_access_begin(&r->mem, gpa(n * OB_PAGE_SIZE), len * OB_PAGE_SIZE,
					     true, &acc));
		for (uint64_t i = 0; i < len; i++)
			count_in(p, (char *)acc.ptr + i * OB_PAGE_SIZE, n + i);
		gmem_access_end(&r->mem, &acc);
	}
	return NULL;
}

/* A driver of the balloon, which is a guest as well. What comes out is zero, until it is written. */
static void *balloon_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!r->stop) {
		uint64_t n = PAGES - GIVEN + rnd(p, GIVEN),
			 len = 1 + rnd(p, (unsigned int)(PAGES - n));

		cr_assert(ept_balloon(&r->e, n, len, true) >= 0);
		cr_assert_eq(ept_balloon(&r->e, n, len, false), 0);
		guest_enter(r);
		for (uint64_t i = n; i < n + len; i++) {
			p->expect[i] = 0;
			check_pattern(p, i);
			p->expect[i] = rnd(p, PATTERNS);
			pattern(hva_ptr(gmem_page_hva(&r->mem, i)), p->expect[i]);
		}
		guest_leave(r);
		guest_enter(r);
		for (uint64_t i = PAGES - GIVEN; i < PAGES; i++)
			check_pattern(p, i);
		guest_leave(r);
	}
	return NULL;
}

/* --- taking, tiers ----------------------------------------------------------------------------- */

static void *take_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	struct ept_run run[20];

	while (!r->stop) {
		unsigned int n = 0, want = 1 + rnd(p, 20), what = rnd(p, 8);

		for (uint64_t at = rnd(p, PAGES); n < want && at < PAGES;
		     at += run[n++].n + rnd(p, 40)) {
			run[n] = (struct ept_run){.page = at, .n = 1 + rnd(p, 32)};
			run[n].n = OB_MIN(run[n].n, PAGES - at);
		}
		if (what < 4)
			cr_assert(ept_take(&r->e, run, n, what == 0) >= 0);
		else if (what < 6)
			cr_assert(ept_put_back(&r->e, run, n) >= 0);
		else if (what == 6)
			cr_assert(ept_samples_left(&r->e, 0, PAGES, true) >= 0);
		else
			cr_assert(ept_take_huge(&r->e, 0, WINDOW) >= 0);
	}
	return NULL;
}

static int shelf_load(void *arg, uint32_t slot, void *page)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	cr_assert(s->slot[slot], "slot %u is empty", slot);
	memcpy(page, s->slot[slot], OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void shelf_drop(void *arg, uint32_t slot)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	cr_assert(s->slot[slot], "slot %u is dropped twice", slot);
	free(s->slot[slot]);
	s->slot[slot] = NULL;
	pthread_mutex_unlock(&s->lock);
}

static uint32_t shelf_put(struct shelf *s, const void *page)
{
	uint32_t slot;

	pthread_mutex_lock(&s->lock);
	do
		s->next = (s->next + 1) % SLOTS;
	while (s->slot[s->next]);
	slot = s->next;
	s->slot[slot] = malloc(OB_PAGE_SIZE);
	memcpy(s->slot[slot], page, OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return slot;
}

static const struct ept_tier_ops shelf_ops = {
	.name = "shelf", .around = 4, .load = shelf_load, .drop = shelf_drop};

#define MOST 16

/* Read some, take a little time, hand them over: whichever tier, and whoever else reads them. */
static void *tier_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!r->stop) {
		unsigned int which = rnd(p, 2), n = 0;
		enum ept_state s = which ? EPT_SWAPPED : EPT_COMPRESSED;
		struct ept_tiered list[MOST];
		uint8_t buf[OB_PAGE_SIZE];

		for (uint64_t at = rnd(p, PAGES); at < PAGES && n < MOST; at += 1 + rnd(p, 4)) {
			if (ept_stage_read(&r->e, at, buf, &list[n].ticket))
				continue;
			list[n].page = at;
			list[n++].slot = shelf_put(&r->shelf[which], buf);
		}
		if (rnd(p, 4) == 0)
			nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
		cr_assert(ept_to_tier(&r->e, s, list, n) >= 0);
		for (unsigned int i = 0; i < n; i++) {
			r->tiered += list[i].done;
			if (!list[i].done)
				shelf_drop(&r->shelf[which], list[i].slot);
		}
		if (n && list[0].done && rnd(p, 4) == 0) {
			/* From one tier to the other, unless the guest wants it just now. */
			uint32_t to = shelf_put(&r->shelf[!which], buf);
			bool gone;

			if (n > 1) /* buf is of the last one that was read */
				list[0] = list[n - 1];
			gone = !list[0].done ||
			       ept_retier(&r->e, list[0].page, s, list[0].slot,
					  which ? EPT_COMPRESSED : EPT_SWAPPED, to);
			shelf_drop(&r->shelf[gone ? !which : which], gone ? to : list[0].slot);
		}
		if (rnd(p, 8) == 0)
			cr_assert(ept_load(&r->e, rnd(p, PAGES - 32), 32) >= 0);
	}
	return NULL;
}

/* --- merging ----------------------------------------------------------------------------------- */

/* Which pattern is it? PATTERNS: none. */
static uint64_t pattern_of(const void *page)
{
	uint8_t buf[OB_PAGE_SIZE];
	uint64_t k;

	for (k = 0; k < PATTERNS; k++) {
		pattern(buf, k);
		if (!memcmp(buf, page, sizeof(buf)))
			break;
	}
	return k;
}

/* Frame f holds pattern f % PATTERNS; zeroes are dropped. */
static void merge_page(struct player *p, uint64_t at, uint64_t k)
{
	struct rack *r = p->r;

	if (k == 0)
		r->dropped += ept_drop_zero(&r->e, at, 1) >= 0;
	else if (k < PATTERNS)
		r->shared += ept_share(&r->e, at, 1, r->pool,
				       (uint32_t)(k + PATTERNS * rnd(p, FRAMES / PATTERNS))) >= 0;
}

static void *merge_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	uint8_t buf[OB_PAGE_SIZE];
	uint32_t ticket;

	while (!r->stop) {
		uint64_t at = COUNTING - 8 + rnd(p, PAGES - COUNTING - 24);

		cr_assert(!ept_sync(&r->e, at, 32, NULL));
		cr_assert(!ept_freeze(&r->e, at, 32));
		for (uint64_t n = at; n < at + 32; n++)
			if (ept_frozen(&r->e, n) && ept_state_of(&r->e, n) == EPT_PRIVATE)
				merge_page(p, n, pattern_of(hva_ptr(gmem_page_hva(&r->mem, n))));
		ept_thaw(&r->e);
		/* And what is out: whoever had it back since is not merged. */
		for (uint64_t n = at; n < at + 32; n++)
			if (!ept_stage_read(&r->e, n, buf, &ticket))
				merge_page(p, n, pattern_of(buf));
	}
	return NULL;
}

static void *zap_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	struct ept_run run[64];
	bool zapped[64];

	while (!r->stop) {
		unsigned int n = 0;
		int64_t done;

		for (uint64_t at = COUNTING + rnd(p, 64); n < 64 && at < PAGES;
		     at += 1 + rnd(p, 10))
			run[n++] = (struct ept_run){.page = at, .n = 1};
		done = ept_zap(&r->e, run, n, zapped);
		cr_assert(done >= 0);
		r->zapped += (uint64_t)done;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return NULL;
}

static void verify(struct rack *r)
{
	struct ept_verify v;

	cr_assert(!ept_verify(&r->e, &v));
	cr_assert_eq(v.differences, 0, "page %d %s%s: %s", (int)v.first[0].page,
		     ept_state_name(v.first[0].state), v.first[0].staged ? " staged" : "",
		     v.first[0].why);
}

static void *verify_thread(void *arg)
{
	struct rack *r = ((struct player *)arg)->r;

	while (!r->stop) {
		verify(r);
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
	}
	return NULL;
}

/* --- all of them ------------------------------------------------------------------------------- */

static void make(struct rack *r, bool copy_only)
{
	struct ob_err e;
	uint8_t buf[OB_PAGE_SIZE];
	const struct ept_run one = {.page = 0, .n = 1};
	int64_t n;

	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->change, NULL);
	cr_assert(!ob_host_linux_init(&r->host, &e), "%s", e.msg);
	r->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&r->mem, &r->host, PAGES * OB_PAGE_SIZE, "take"));
	cr_assert(!ept_init(
		&r->e, &r->host, &r->mem,
		(struct ept_parker){.park = park, .unpark = unpark, .fail = fail, .arg = r},
		r->arena));
	r->e.copy_only = copy_only;
	r->pool = r->host.ops->memfd(&r->host, "pool", FRAMES * OB_PAGE_SIZE);
	cr_assert(r->pool >= 0);
	for (uint64_t f = 0; f < FRAMES; f++) {
		pattern(buf, f % PATTERNS);
		cr_assert(!r->host.ops->file_write(&r->host, r->pool, buf, sizeof(buf),
						   f * OB_PAGE_SIZE));
	}
	for (int i = 0; i < 2; i++) {
		pthread_mutex_init(&r->shelf[i].lock, NULL);
		cr_assert(!ept_set_tier(&r->e, i ? EPT_SWAPPED : EPT_COMPRESSED, &shelf_ops,
					&r->shelf[i]));
	}
	n = ept_take(&r->e, &one, 1, false);
	if (n == -EPERM || n == -EOPNOTSUPP)
		cr_skip_test("no userfaultfd that answers for the kernel");
	cr_assert_eq(n, 0);
}

static void unmake(struct rack *r)
{
	const struct ept_run all = {.page = 0, .n = PAGES};
	struct ept_stats st;

	verify(r);
	cr_assert(ept_load(&r->e, 0, PAGES) >= 0);
	cr_assert(ept_put_back(&r->e, &all, 1) >= 0);
	ept_read_stats(&r->e, &st);
	cr_assert(!st.staged && !st.windows && !st.state[EPT_COMPRESSED] && !st.state[EPT_SWAPPED]);
	for (int i = 0; i < 2; i++)
		for (unsigned int k = 0; k < SLOTS; k++)
			cr_assert(!r->shelf[i].slot[k], "slot %u was never dropped", k);
	verify(r);
	ept_exit(&r->e);
	gmem_exit(&r->mem);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
	ob_host_linux_exit(&r->host);
}

/* A minute with OB_LONG=1, else some seconds. */
static void all_at_once(bool copy_only)
{
	void *(*const work[])(void *) = {guest_thread, guest_thread, device_thread, balloon_thread,
					 take_thread,  tier_thread,  tier_thread,   merge_thread,
					 merge_thread, zap_thread,   verify_thread};
	struct player *p = calloc(OB_ARRAY_SIZE(work), sizeof(*p));
	struct rack *r = calloc(1, sizeof(*r));
	struct ept_faults f;
	struct ept_stats st;

	make(r, copy_only);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(work); i++) {
		p[i].r = r;
		p[i].id = i;
		p[i].seed = 77 + i;
		cr_assert(!pthread_create(&p[i].thread, NULL, work[i], &p[i]));
	}
	for (long ms = getenv("OB_LONG") ? 60000 : 4000; ms > 0; ms -= 100) {
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
		cr_assert_eq(r->lost, 0, "a page is lost");
	}
	r->stop = true;
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(work); i++)
		pthread_join(p[i].thread, NULL);
	for (unsigned int i = 0; i <= GUESTS; i++)
		for (uint64_t n = 0; n < COUNTING; n++)
			count_in(&p[i], hva_ptr(gmem_page_hva(&r->mem, n)), n);
	for (uint64_t n = COUNTING; n < PAGES - GIVEN; n++)
		check_pattern(&p[n % GUESTS], n);
	for (uint64_t n = PAGES - GIVEN; n < PAGES; n++)
		check_pattern(&p[3], n);
	ept_read_faults(&r->e, &f);
	ept_read_stats(&r->e, &st);
	cr_assert_eq(f.count[EPT_FAULT_FAILED], 0);
	cr_assert_gt(f.count[EPT_FAULT_STAGING], 0);
	cr_assert_gt(f.count[EPT_FAULT_TIER], 0);
	cr_assert_gt(st.broken, 0);
	cr_assert_gt(r->shared, 0);
	cr_assert_gt(r->dropped, 0);
	cr_assert_gt(r->tiered, 0);
	cr_assert_gt(r->zapped, 0);
	cr_log_info("%d rounds, %d taken, %d tiered, %d shared, %d zapped", (int)r->rounds,
		    (int)st.taken, (int)r->tiered, (int)r->shared, (int)r->zapped);
	unmake(r);
	free(r);
	free(p);
}

Test(take_host, all_at_once, .timeout = 300)
{
	all_at_once(false);
}

Test(take_host, all_at_once_without_uffdio_move, .timeout = 300)
{
	all_at_once(true);
}
