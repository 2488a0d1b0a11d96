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
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/rack.h"

#define COUNTING 448 /* pages [0, COUNTING) are counted in, the rest but the last holds patterns */
#define GIVEN	 64  /* pages at the end that go into the balloon */
#define WINDOW	 512
#define GUESTS	 2

/* What they share. */
struct play {
	struct rack r;
	_Atomic bool stop;
	_Atomic uint64_t rounds, shared, dropped, tiered, zapped;
};

/* One thread. */
struct player {
	struct play *play;
	struct rack *r;
	unsigned int id, seed;
	pthread_t thread;
	uint64_t expect[RACK_PAGES]; /* its counts, or the patterns that it wrote */
};

static unsigned int rnd(struct player *p, unsigned int n)
{
	return (unsigned int)rand_r(&p->seed) % n;
}

static void nap_us(long us)
{
	nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
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

static void check_pattern(struct player *p, uint64_t n)
{
	uint8_t buf[OB_PAGE_SIZE];

	rack_pattern(buf, p->expect[n]);
	cr_assert(!memcmp(hva_ptr(gmem_page_hva(&p->r->mem, n)), buf, sizeof(buf)),
		  "page %d does not hold pattern %d", (int)n, (int)p->expect[n]);
}

static void *guest_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!p->play->stop) {
		rack_enter(r);
		for (int i = 0; i < 8; i++) {
			uint64_t n = rnd(p, COUNTING);

			count_in(p, hva_ptr(gmem_page_hva(&r->mem, n)), n);
			n = COUNTING + rnd(p, RACK_PAGES - GIVEN - COUNTING);
			if (n % GUESTS != p->id)
				continue;
			check_pattern(p, n);
			if (rnd(p, 8))
				continue;
			p->expect[n] = rnd(p, RACK_PATTERNS);
			rack_pattern(hva_ptr(gmem_page_hva(&r->mem, n)), p->expect[n]);
		}
		rack_leave(r);
		p->play->rounds++;
	}
	return NULL;
}

static void *device_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!p->play->stop) {
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

	while (!p->play->stop) {
		uint64_t n = RACK_PAGES - GIVEN + rnd(p, GIVEN),
			 len = 1 + rnd(p, (unsigned int)(RACK_PAGES - n));

		cr_assert(ept_balloon(&r->e, n, len, true) >= 0);
		cr_assert_eq(ept_balloon(&r->e, n, len, false), 0);
		rack_enter(r);
		for (uint64_t i = n; i < n + len; i++) {
			p->expect[i] = 0;
			check_pattern(p, i);
			p->expect[i] = rnd(p, RACK_PATTERNS);
			rack_pattern(hva_ptr(gmem_page_hva(&r->mem, i)), p->expect[i]);
		}
		rack_leave(r);
		rack_enter(r);
		for (uint64_t i = RACK_PAGES - GIVEN; i < RACK_PAGES; i++)
			check_pattern(p, i);
		rack_leave(r);
	}
	return NULL;
}

/* --- taking, tiers ----------------------------------------------------------------------------- */

static void *take_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	struct ept_run run[20];

	while (!p->play->stop) {
		unsigned int n = 0, want = 1 + rnd(p, 20), what = rnd(p, 8);

		for (uint64_t at = rnd(p, RACK_PAGES); n < want && at < RACK_PAGES;
		     at += run[n++].n + rnd(p, 40)) {
			run[n] = (struct ept_run){.page = at, .n = 1 + rnd(p, 32)};
			run[n].n = OB_MIN(run[n].n, RACK_PAGES - at);
		}
		if (what < 4)
			cr_assert(ept_take(&r->e, run, n, what == 0) >= 0);
		else if (what < 6)
			cr_assert(ept_put_back(&r->e, run, n) >= 0);
		else if (what == 6)
			cr_assert(ept_samples_left(&r->e, 0, RACK_PAGES, true) >= 0);
		else
			cr_assert(ept_take_huge(&r->e, 0, WINDOW) >= 0);
	}
	return NULL;
}

#define MOST 16

/* Read some, take a little time, hand them over: whichever tier, and whoever else reads them. */
static void *tier_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;

	while (!p->play->stop) {
		unsigned int which = rnd(p, 2), n = 0;
		enum ept_state s = which ? EPT_SWAPPED : EPT_COMPRESSED;
		struct ept_tiered list[MOST];
		uint8_t buf[OB_PAGE_SIZE];

		for (uint64_t at = rnd(p, RACK_PAGES); at < RACK_PAGES && n < MOST;
		     at += 1 + rnd(p, 4)) {
			if (ept_stage_read(&r->e, at, buf, &list[n].ticket))
				continue;
			list[n].page = at;
			list[n++].slot = shelf_put(&r->shelf[which], buf);
		}
		if (rnd(p, 4) == 0)
			nap_us(200);
		cr_assert(ept_to_tier(&r->e, s, list, n) >= 0);
		for (unsigned int i = 0; i < n; i++) {
			p->play->tiered += list[i].done;
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
			cr_assert(ept_load(&r->e, rnd(p, RACK_PAGES - 32), 32) >= 0);
	}
	return NULL;
}

/* --- merging ----------------------------------------------------------------------------------- */

/* Frame f holds pattern f % RACK_PATTERNS; zeroes are dropped. */
static void merge_page(struct player *p, uint64_t at, uint64_t k)
{
	struct rack *r = p->r;

	if (k == 0)
		p->play->dropped += ept_drop_zero(&r->e, at, 1) >= 0;
	else if (k < RACK_PATTERNS)
		p->play->shared +=
			ept_share(&r->e, at, 1, r->pool,
				  (uint32_t)(k + RACK_PATTERNS *
							 rnd(p, RACK_FRAMES / RACK_PATTERNS))) >= 0;
}

static void *merge_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	uint8_t buf[OB_PAGE_SIZE];
	uint64_t known[32];
	uint32_t ticket;

	while (!p->play->stop) {
		uint64_t at = COUNTING - 8 + rnd(p, RACK_PAGES - COUNTING - 24);

		cr_assert(!ept_sync(&r->e, at, 32, NULL));
		cr_assert(!ept_freeze(&r->e, at, 32));
		for (uint64_t n = at; n < at + 32; n++)
			if (ept_frozen(&r->e, n) && ept_state_of(&r->e, n) == EPT_PRIVATE)
				merge_page(p, n,
					   rack_pattern_of(hva_ptr(gmem_page_hva(&r->mem, n))));
		ept_thaw(&r->e);
		/* And what is out: whoever had it back since is not merged. */
		for (uint64_t i = 0; i < 32; i++)
			known[i] = ept_stage_read(&r->e, at + i, buf, &ticket)
					   ? RACK_PATTERNS
					   : rack_pattern_of(buf);
		nap_us(rnd(p, 2) * 300);
		for (uint64_t i = 0; i < 32; i++)
			merge_page(p, at + i, known[i]);
	}
	return NULL;
}

static void *zap_thread(void *arg)
{
	struct player *p = arg;
	struct rack *r = p->r;
	struct ept_run run[64];
	bool zapped[64];

	while (!p->play->stop) {
		unsigned int n = 0;
		int64_t done;

		for (uint64_t at = COUNTING + rnd(p, 64); n < 64 && at < RACK_PAGES;
		     at += 1 + rnd(p, 10))
			run[n++] = (struct ept_run){.page = at, .n = 1};
		done = ept_zap(&r->e, run, n, zapped);
		cr_assert(done >= 0);
		p->play->zapped += (uint64_t)done;
		nap_us(1000);
	}
	return NULL;
}

static void *verify_thread(void *arg)
{
	struct player *p = arg;

	while (!p->play->stop) {
		rack_verify(p->r);
		nap_us(3000);
	}
	return NULL;
}

/* --- all of them ------------------------------------------------------------------------------- */

/* A minute with OB_LONG=1, else some seconds. */
static void all_at_once(bool copy_only, bool huge)
{
	void *(*const work[])(void *) = {guest_thread, guest_thread, device_thread, balloon_thread,
					 take_thread,  tier_thread,  tier_thread,   merge_thread,
					 merge_thread, zap_thread,   verify_thread};
	struct player *p = calloc(OB_ARRAY_SIZE(work), sizeof(*p));
	struct play *play = calloc(1, sizeof(*play));
	struct rack *r = &play->r;
	struct ept_faults f;
	struct ept_stats st;

	rack_make(r, copy_only, huge);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(work); i++) {
		p[i].play = play;
		p[i].r = r;
		p[i].id = i;
		p[i].seed = 77 + i;
		cr_assert(!pthread_create(&p[i].thread, NULL, work[i], &p[i]));
	}
	for (long ms = getenv("OB_LONG") ? 60000 : 4000; ms > 0; ms -= 100) {
		nap_us(100000);
		cr_assert_eq(r->lost, 0, "a page is lost");
	}
	play->stop = true;
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(work); i++)
		pthread_join(p[i].thread, NULL);
	for (unsigned int i = 0; i <= GUESTS; i++)
		for (uint64_t n = 0; n < COUNTING; n++)
			count_in(&p[i], hva_ptr(gmem_page_hva(&r->mem, n)), n);
	for (uint64_t n = COUNTING; n < RACK_PAGES - GIVEN; n++)
		check_pattern(&p[n % GUESTS], n);
	for (uint64_t n = RACK_PAGES - GIVEN; n < RACK_PAGES; n++)
		check_pattern(&p[GUESTS + 1], n);
	ept_read_faults(&r->e, &f);
	ept_read_stats(&r->e, &st);
	cr_assert_eq(f.count[EPT_FAULT_FAILED], 0);
	cr_assert_gt(f.count[EPT_FAULT_STAGING], 0);
	cr_assert_gt(f.count[EPT_FAULT_TIER], 0);
	cr_assert_gt(st.broken, 0);
	cr_assert_gt(play->shared, 0);
	cr_assert_gt(play->dropped, 0);
	cr_assert_gt(play->tiered, 0);
	cr_assert_gt(play->zapped, 0);
	cr_log_info("%d rounds, %d taken, %d tiered, %d shared, %d zapped", (int)play->rounds,
		    (int)st.taken, (int)play->tiered, (int)play->shared, (int)play->zapped);
	rack_unmake(r);
	free(play);
	free(p);
}

Test(take_host, all_at_once, .timeout = 300)
{
	all_at_once(false, false);
}

Test(take_host, all_at_once_without_uffdio_move, .timeout = 300)
{
	all_at_once(true, false);
}

Test(take_host, all_at_once_in_huge_pages, .timeout = 300)
{
	all_at_once(false, true);
}

Test(take_host, all_at_once_in_huge_pages_without_uffdio_move, .timeout = 300)
{
	all_at_once(true, true);
}
