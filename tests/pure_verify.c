/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_verify.c: the map against the kernel's: nothing is found where all is well, and each kind of
 * difference that can be planted is. And ept_zap, which empties what can be filled again.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "tests/fake_guest.h"

#define PAGES 64

/* A page in each state, and private ones in place, over the pool and in staging. */
enum {
	UNTOUCHED = 40,
	ZERO = 1,
	PRIVATE = 2,
	SHARED = 3,
	COMPRESSED = 4,
	BALLOONED = 7,
	STAGED = 8,
	OVER_POOL = 9
};

static void make_all(struct fg *g)
{
	fg_make(g, PAGES, 0);
	fg_set_tier(g, EPT_COMPRESSED, 0);
	fg_set_tier(g, EPT_SWAPPED, 0);
	fg_set_tier(g, EPT_REMOTE, 0);
	fg_frames(g, 0, 2, 7);
	fg_fill(g, 1, 15, 7);
	fg_fill(g, ZERO, 1, 0);
	cr_assert_eq(fg_share(g, SHARED, 1, 0), OB_PAGE_SIZE);
	cr_assert_eq(fg_share(g, OVER_POOL, 1, 1), OB_PAGE_SIZE);
	fg_fill(g, OVER_POOL, 1, 8);
	cr_assert_eq(fg_drop(g, ZERO, 1), OB_PAGE_SIZE);
	for (unsigned int s = 0; s < 3; s++)
		fg_to_tier(g, s == 2 ? EPT_REMOTE : EPT_COMPRESSED + s, COMPRESSED + s, 1);
	cr_assert_eq(ept_balloon(&g->e, BALLOONED, 1, true), OB_PAGE_SIZE);
	cr_assert_eq(fg_take(g, STAGED, 1), 1);
	fg_verify(g);
}

Test(verify, finds_nothing_where_all_is_well)
{
	struct ept_verify v;
	struct fg g;

	make_all(&g);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert_eq(v.pages, PAGES);
	cr_assert_eq(v.differences, 0);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert_eq(v.lagged, 0, "nothing has happened since");
	/* What the kernel does by itself is not a difference: two first touches, a break, a touch of a
	 * dropped page. */
	fake_host_lose(g.h, fg_at(&g, UNTOUCHED)); /* nothing: it is not there */
	fg_fill(&g, SHARED, 1, 9);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert(v.lagged == 1 && !v.differences);
	fake_host_migrate_begin(g.h, fg_at(&g, 0), 16);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert(v.lagged == 0 && !v.differences);
	fake_host_migrate_end(g.h, fg_at(&g, 0), 16);
	fake_host_swap_out(g.h, fg_at(&g, 0), 16);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert(v.lagged == 0 && !v.differences);
	fake_host_fail(g.h, FAKE_PAGES, 1, EIO);
	cr_assert_eq(ept_verify(&g.e, &v), -EIO);
	fake_host_fail(g.h, FAKE_PAGES, 2, EIO);
	cr_assert_eq(ept_verify(&g.e, &v), -EIO);
	fg_unmake(&g);
}

static void put_at(struct fg *g, hva_t at)
{
	static const _Alignas(4096) uint8_t page[OB_PAGE_SIZE] = {1};

	cr_assert(!g->h->ops->uffd_copy(g->h, g->e.stage->uffd, at, hva_of(page), OB_PAGE_SIZE));
}

static void lose_there(struct fg *g, uint64_t page)
{
	fake_host_lose(g->h, fg_at(g, page));
}

static void lose_staged(struct fg *g, uint64_t page)
{
	fake_host_lose(g->h, ept_stage_hva(&g->e, page));
}

static void put_there(struct fg *g, uint64_t page)
{
	put_at(g, fg_at(g, page));
}

static void put_staged(struct fg *g, uint64_t page)
{
	put_at(g, ept_stage_hva(&g->e, page));
}

static void zero_there(struct fg *g, uint64_t page)
{
	cr_assert(!g->h->ops->uffd_zero(g->h, g->e.stage->uffd, fg_at(g, page), OB_PAGE_SIZE));
}

static void map_frame(struct fg *g, uint64_t page)
{
	uint8_t b;

	cr_assert(!g->h->ops->map_frames(g->h, fg_at(g, page), OB_PAGE_SIZE, g->pool, 0));
	fake_host_read(g->h, fg_at(g, page), &b, 1);
}

Test(verify, finds_what_is_planted)
{
	static const struct {
		void (*plant)(struct fg *g, uint64_t page);
		uint64_t page;
	} bug[] = {
		{lose_there, PRIVATE},	     {lose_staged, STAGED},    {put_there, STAGED},
		{zero_there, STAGED},	     {put_there, COMPRESSED},  {put_there, COMPRESSED + 1},
		{put_there, COMPRESSED + 2}, {zero_there, COMPRESSED}, {put_staged, UNTOUCHED},
		{put_staged, ZERO},	     {put_staged, PRIVATE},    {put_staged, SHARED},
		{put_staged, COMPRESSED},    {put_staged, BALLOONED},  {put_staged, OVER_POOL},
		{map_frame, UNTOUCHED},	     {map_frame, PRIVATE},     {map_frame, COMPRESSED},
		{map_frame, STAGED},	     {map_frame, ZERO},	       {map_frame, BALLOONED},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(bug); i++) {
		struct ept_verify v;
		struct fg g;

		make_all(&g);
		bug[i].plant(&g, bug[i].page);
		cr_assert(!ept_verify(&g.e, &v));
		cr_assert_eq(v.differences, 1, "bug %zu was not found", i);
		cr_assert_eq(v.first[0].page, bug[i].page);
		cr_assert(v.first[0].why && strlen(v.first[0].why) > 10);
		cr_assert_eq(v.first[0].staged, bug[i].page == STAGED);
		g.e.tampered = true;
		fg_unmake(&g);
	}
}

Test(verify, counts_all_and_shows_some)
{
	struct ept_verify v;
	struct fg g;

	fg_make(&g, 40, 600);
	fg_fill(&g, 0, 640, 7);
	cr_assert_eq(fg_take(&g, 0, 1), 1);
	cr_assert(!ept_sync(&g.e, 0, 640, NULL));
	for (uint64_t p = 20; p < 620; p++)
		lose_there(&g, p);
	cr_assert(!ept_verify(&g.e, &v));
	cr_assert_eq(v.differences, 600);
	for (unsigned int i = 0; i < EPT_VERIFY_FIRST; i++)
		cr_assert_eq(v.first[i].page, 20 + i);
	g.e.tampered = true;
	fg_unmake(&g);
}

/* A counter that does not agree with the map is a bug of ours, and the end. */
Test(verify, wrong_counters_abort, .signal = SIGABRT)
{
	struct fg g;

	make_all(&g);
	g.e.st.state[EPT_ZERO]++;
	g.e.st.state[EPT_PRIVATE]--;
	ept_check(&g.e);
}

Test(verify, a_change_that_nobody_may_make_aborts, .signal = SIGABRT)
{
	struct fg g;

	make_all(&g);
	ept_set(&g.e, COMPRESSED, ept_entry(EPT_ZERO, 0, 0), EPT_BY_KERNEL);
}

/* --- emptying entries to see who fills them --------------------------------------------------- */

static int64_t zap(struct fg *g, uint64_t first, unsigned int n, uint64_t step, bool *zapped)
{
	struct ept_run runs[512];

	for (unsigned int i = 0; i < n; i++)
		runs[i] = (struct ept_run){.page = first + i * step, .n = 1};
	return ept_zap(&g->e, runs, n, zapped);
}

Test(zap, shows_the_next_touch_and_changes_nothing)
{
	struct ob_page view[20];
	bool zapped[20];
	struct fg g;

	for (int open = 0; open < 2; open++) {
		fg_make(&g, PAGES, 0);
		fg_frames(&g, 0, 8, 7);
		fg_fill(&g, 0, 20, 7);
		fg_expect(&g, 8, 4, 7);
		cr_assert_eq(fg_share(&g, 0, 8, 0), 8 * OB_PAGE_SIZE);
		fg_fill(&g, 8, 4, 0);
		cr_assert_eq(fg_drop(&g, 8, 4), 4 * OB_PAGE_SIZE);
		if (open)
			cr_assert_eq(fg_take(&g, 30, 1), 0);
		if (open)
			cr_assert_eq(fg_take(&g, 12, 1), 1);
		fg_expect(&g, 0, 8, 7);
		fg_expect(&g, 8, 4, 0);
		fg_fill(&g, 7, 1, 9); /* broken off, unknown to the map */
		fg_fill(&g, 11, 1, 9);
		cr_assert_eq(zap(&g, 0, 20, 1, zapped), 7 + 3);
		for (uint64_t p = 0; p < 20; p++)
			cr_assert_eq(zapped[p], p < 11 && p != 7, "page %d", (int)p);
		cr_assert(!ept_sync(&g.e, 0, 20, view));
		for (uint64_t p = 0; p < 11; p++)
			cr_assert_eq(view[p].present, p == 7);
		fg_verify(&g);
		cr_assert_eq(ept_frame_of(&g.e, 3), 3);
		fg_expect(&g, 3, 1, 7);
		fg_expect(&g, 9, 1, 0);
		cr_assert(!ept_sync(&g.e, 0, 20, view));
		cr_assert(view[3].present && view[9].present && !view[2].present &&
			  !view[8].present);
		cr_assert_eq(zap(&g, 0, 20, 1, zapped), 7 + 3, "empty or not, they are samples");
		fg_expect(&g, 7, 1, 9);
		fg_expect(&g, 11, 1, 9);
		fg_expect(&g, 0, 7, 7);
		fg_expect(&g, 8, 3, 0);
		cr_assert_eq(g.nbroken, 1);
		fg_unmake(&g);
	}
}

/* The guest writes just before it is parked. */
static void write_first(struct fg *g)
{
	fg_fill(g, 2, 1, 9);
	g->on_park = NULL;
}

Test(zap, a_write_that_comes_first_is_not_lost)
{
	struct gmem_access acc;
	bool zapped[8];
	struct fg g;

	fg_make(&g, PAGES, 0);
	fg_frames(&g, 0, 8, 7);
	fg_fill(&g, 0, 8, 7);
	cr_assert_eq(fg_share(&g, 0, 8, 0), 8 * OB_PAGE_SIZE);
	fg_expect(&g, 0, 8, 7);
	g.on_park = write_first;
	cr_assert(!gmem_access_begin(&g.mem, gpa(5 * OB_PAGE_SIZE), 1, true, &acc));
	cr_assert_eq(zap(&g, 0, 8, 1, zapped), 6);
	cr_assert(!zapped[2] && !zapped[5]);
	gmem_access_end(&g.mem, &acc);
	fg_expect(&g, 2, 1, 9);
	fg_verify(&g);
	fg_unmake(&g);
}

Test(zap, in_batches_and_regions_and_failing)
{
	const struct ept_run bad[][2] = {{{.page = 5, .n = 2}, {.page = 9, .n = 1}},
					 {{.page = 5, .n = 1}, {.page = 5, .n = 1}},
					 {{.page = 5, .n = 1}, {.page = 4, .n = 1}},
					 {{.page = 5, .n = 1}, {.page = 700, .n = 1}}};
	bool zapped[512];
	struct fg g;
	uint8_t b;

	fg_make(&g, 300, 400);
	for (uint64_t p = 0; p < 700; p++)
		fake_host_read(g.h, fg_at(&g, p), &b, 1);
	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++)
		cr_assert_eq(ept_zap(&g.e, bad[i], 2, zapped), i == 3 ? -ERANGE : -EINVAL);
	cr_assert_eq(g.parks, 0);
	cr_assert_eq(zap(&g, 0, 350, 2, zapped), 350);
	fake_host_fail(g.h, FAKE_DISCARD_MANY, 2, ENOMEM);
	cr_assert_eq(zap(&g, 1, 350, 2, zapped), -ENOMEM);
	for (unsigned int i = 0; i < 350; i++)
		cr_assert_eq(zapped[i], i < 64, "%u", i);
	fake_host_fail(g.h, FAKE_PAGES, 10, ENOMEM);
	cr_assert_eq(zap(&g, 1, 350, 2, zapped), -ENOMEM);
	cr_assert(!zapped[0]);
	fg_expect(&g, 0, 700, 0);
	fg_unmake(&g);
}
