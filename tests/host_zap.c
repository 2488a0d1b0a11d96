/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_zap.c: emptied page-table entries on the real kernel, with memory that looks like a guest's
 * but has no VM: who fills them again, and who must not.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "ept/ept.h"

#define PAGES 1024

struct guest {
	struct ob_host host;
	struct gmem mem;
	struct ept e;
	struct ob_arena *arena;
	int pool;
};

static void nothing(void *arg)
{
	(void)arg;
}

static uint8_t *page_at(struct guest *g, uint64_t page)
{
	return hva_ptr(gmem_page_hva(&g->mem, page));
}

/* Page p holds p everywhere; [first, first + n) are shared with as many frames in one mapping. */
static void make(struct guest *g, uint64_t first, uint64_t n)
{
	struct ob_err e;

	memset(g, 0, sizeof(*g));
	cr_assert(!ob_host_linux_init(&g->host, &e), "%s", e.msg);
	g->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&g->mem, &g->host, PAGES * OB_PAGE_SIZE, "ob:test:ram"));
	cr_assert(!ept_init(&g->e, &g->host, &g->mem,
			    (struct ept_parker){.park = nothing, .unpark = nothing}, g->arena));
	g->pool = g->host.ops->memfd(&g->host, "ob:test:pool", PAGES * OB_PAGE_SIZE);
	cr_assert_geq(g->pool, 0);
	for (uint64_t p = 0; p < PAGES; p++) {
		memset(page_at(g, p), (int)p, OB_PAGE_SIZE);
		cr_assert(!g->host.ops->file_write(&g->host, g->pool, page_at(g, p), OB_PAGE_SIZE,
						   p * OB_PAGE_SIZE));
	}
	cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
	cr_assert(!ept_freeze(&g->e, first, n));
	cr_assert(ept_share(&g->e, first, n, g->pool, (uint32_t)first) >= 0);
	ept_thaw(&g->e);
}

static void unmake(struct guest *g)
{
	struct ept_verify v;

	cr_assert(!ept_verify(&g->e, &v));
	cr_assert_eq(v.differences, 0, "page %d: %s", (int)v.first[0].page, v.first[0].why);
	for (uint64_t p = 0; p < PAGES; p++)
		cr_assert(*page_at(g, p) == (uint8_t)p || !*page_at(g, p), "page %d", (int)p);
	ept_exit(&g->e);
	gmem_exit(&g->mem);
	close(g->pool);
	ob_arena_free(g->arena);
	ob_host_linux_exit(&g->host);
}

static bool present(struct guest *g, uint64_t page)
{
	struct ob_page view;

	cr_assert(!ept_sync(&g->e, page, 1, &view));
	return view.present;
}

static void zap(struct guest *g, uint64_t page)
{
	const struct ept_run run = {.page = page, .n = 1};
	bool zapped = false;

	cr_assert_eq(ept_zap(&g->e, &run, 1, &zapped), 1);
	cr_assert(zapped);
	cr_assert(!present(g, page));
}

static void read_page(struct guest *g, uint64_t page)
{
	(void)*(volatile uint8_t *)page_at(g, page);
}

/* The kernel maps pages of a file with those around them. For a page that nobody touches it would
 * look as if somebody had. */
Test(zap, a_neighbours_touch_does_not_fill_the_entry)
{
	struct guest g;

	make(&g, 100, 200);
	for (uint64_t page = 101; page < 299; page += 33) {
		zap(&g, page);
		for (uint64_t p = 100; p < 300; p++)
			if (p != page)
				read_page(&g, p);
		cr_assert(!present(&g, page), "page %d was filled by a neighbour's touch",
			  (int)page);
		read_page(&g, page);
		cr_assert(present(&g, page), "page %d was touched", (int)page);
		cr_assert_eq(ept_state_of(&g.e, page), EPT_SHARED, "and is shared still");
	}
	unmake(&g);
}

Test(zap, a_neighbours_write_does_not_fill_the_entry)
{
	struct guest g;

	make(&g, 96, 64);
	zap(&g, 104);
	for (uint64_t p = 96; p < 112; p++)
		if (p != 104)
			memset(page_at(&g, p), (int)p, OB_PAGE_SIZE);
	cr_assert(!present(&g, 104));
	cr_assert_eq(ept_state_of(&g.e, 104), EPT_SHARED);
	cr_assert(!ept_sync(&g.e, 96, 16, NULL));
	cr_assert_eq(ept_state_of(&g.e, 105), EPT_PRIVATE);
	*page_at(&g, 104) = 104;
	cr_assert(present(&g, 104));
	cr_assert_eq(ept_state_of(&g.e, 104), EPT_PRIVATE, "the first write breaks it off");
	unmake(&g);
}

Test(zap, what_is_private_is_left_alone)
{
	const struct ept_run runs[] = {{.page = 99, .n = 1}, {.page = 150, .n = 1}};
	bool zapped[2] = {true, true};
	struct guest g;

	make(&g, 100, 100);
	/* Broken off behind our back. */
	memset(page_at(&g, 150), 150, OB_PAGE_SIZE);
	cr_assert_eq(ept_zap(&g.e, runs, 2, zapped), 0);
	cr_assert(!zapped[0] && !zapped[1]);
	cr_assert(present(&g, 99) && present(&g, 150));
	cr_assert_eq(ept_state_of(&g.e, 150), EPT_PRIVATE);
	unmake(&g);
}

Test(zap, zero_pages_are_filled_by_their_own_touch)
{
	struct guest g;

	make(&g, 100, 16);
	memset(page_at(&g, 40), 0, 8 * OB_PAGE_SIZE);
	cr_assert(!ept_freeze(&g.e, 40, 8));
	cr_assert(ept_drop_zero(&g.e, 40, 8) >= 0);
	ept_thaw(&g.e);
	zap(&g, 43);
	for (uint64_t p = 40; p < 48; p++)
		if (p != 43)
			read_page(&g, p);
	cr_assert(!present(&g, 43));
	read_page(&g, 43);
	cr_assert(present(&g, 43));
	unmake(&g);
}
