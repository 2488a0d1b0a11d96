/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_merge.c: how the engine `hash` keeps house: it stays within its budget of mappings also when
 * it drops pages, it comes to rest when there is nothing left to win, and it says when it cannot
 * see. That it never merges wrongly is in pure_hash.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/engine.h"
#include "tests/fake_host.h"

#define GUESTS 2
#define PAGES  128
#define GAP_NS 12345

static void park(void *arg)
{
	(void)arg;
}

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem[GUESTS];
	struct ept ept[GUESTS];
	struct ksm_domain *d;
	int pool, meta;
	struct ksm *k;
};

static struct fix *fix_new(void)
{
	struct ksm_opts opts = {.pass_gap_ns = GAP_NS};
	struct ept_parker parker = {.park = park, .unpark = park};
	struct fix *x = calloc(1, sizeof(*x));
	struct ob_err e;

	x->h = fake_host_new();
	x->arena = ob_arena_new("test");
	cr_assert_eq(ksm_domain_create(x->h, GUESTS * PAGES, 1, &x->pool, &x->meta), 0);
	cr_assert_eq(ksm_domain_open(x->h, x->pool, x->meta, 0, x->arena, &x->d), 0);
	cr_assert_eq(ksm_new(&x->k, ksm_engine_find("hash"), x->h, x->d, &opts, x->arena), 0);
	for (unsigned int i = 0; i < GUESTS; i++) {
		struct ksm_guest g = {.ept = &x->ept[i], .vm = i, .page_base = i * PAGES};

		cr_assert_eq(gmem_init(&x->mem[i], x->h, PAGES * OB_PAGE_SIZE, "guest"), 0);
		cr_assert_eq(ept_init(&x->ept[i], x->h, &x->mem[i], parker, x->arena), 0);
		cr_assert_eq(ksm_add_guest(x->k, &g), 0);
	}
	cr_assert_eq(ksm_start(x->k, &e), 0);
	return x;
}

static void fix_free(struct fix *x)
{
	ksm_free(x->k);
	for (unsigned int i = 0; i < GUESTS; i++) {
		ept_exit(&x->ept[i]);
		gmem_exit(&x->mem[i]);
	}
	ksm_domain_close(x->d);
	cr_assert_eq(ob_arena_bytes(x->arena), 0, "metadata left behind");
	ob_arena_free(x->arena);
	fake_host_free(x->h);
	free(x);
}

/* @content 0: all zero. */
static void fill(struct fix *x, unsigned int guest, uint64_t page, uint32_t content)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
		buf[i] = content ? content * 2654435761u + i : 0;
	fake_host_write(x->h, gmem_page_hva(&x->mem[guest], page), buf, sizeof(buf));
}

static bool holds(struct fix *x, unsigned int guest, uint64_t page, uint32_t content)
{
	uint32_t buf[OB_PAGE_SIZE / 4];
	bool equal = true;

	fake_host_read(x->h, gmem_page_hva(&x->mem[guest], page), buf, sizeof(buf));
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
		equal &= buf[i] == (content ? content * 2654435761u + i : 0);
	return equal;
}

static struct ksm_stats stats(struct fix *x)
{
	struct ksm_stats st;

	ksm_read_stats(x->k, &st);
	return st;
}

/* One pass to its end. Returns the rest that the engine asked for then. */
static uint64_t pass(struct fix *x)
{
	uint64_t passes = stats(x).passes, rest;

	do {
		rest = ksm_step(x->k, 0, 64);
	} while (stats(x).passes == passes);
	return rest;
}

Test(merge, dropping_merged_pages_keeps_to_the_budget_of_mappings)
{
	struct fix *x = fix_new();
	uint64_t have, limit, dropped;

	/* All merged, by few mappings; then every other page is zeroed by its guest. */
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			fill(x, g, p, 100 + (uint32_t)p);
	for (unsigned int i = 0; i < 5; i++)
		pass(x);
	cr_assert_eq(stats(x).merged_pages, GUESTS * PAGES);
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 1; p < PAGES; p += 2)
			fill(x, g, p, 0);
	fake_host_vma_limit(x->h, 200, 100);
	for (unsigned int i = 0; i < 8; i++) {
		pass(x);
		cr_assert_eq(x->h->ops->vma_count(x->h, &have, &limit), 0);
		cr_assert_leq(have, 200 - 20, "pass %u: %u mappings", i, (unsigned int)have);
	}
	dropped = stats(x).zero_pages;
	cr_assert_gt(dropped, 10);
	cr_assert_lt(dropped, PAGES, "there was no room for all");
	cr_assert_gt(stats(x).skipped_vma, 0);
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert(holds(x, g, p, p % 2 ? 0 : 100 + (uint32_t)p));

	/* With room again the others go too. */
	fake_host_vma_limit(x->h, 65530, 100);
	for (unsigned int i = 0; i < 3; i++)
		pass(x);
	cr_assert_eq(stats(x).zero_pages, PAGES);
	fix_free(x);
}

Test(merge, dropping_plain_pages_needs_no_mapping)
{
	struct fix *x = fix_new();

	for (uint64_t p = 1; p < PAGES; p += 2)
		fill(x, 0, p, 0);
	fake_host_vma_limit(x->h, 100, 100);
	for (unsigned int i = 0; i < 3; i++)
		pass(x);
	cr_assert_eq(stats(x).zero_pages, PAGES / 2);
	cr_assert_eq(stats(x).skipped_vma, 0);
	fix_free(x);
}

/* Not knowing the zero page: dropped, read, taken for memory, dropped again. No work for ever. */
Test(merge, zero_pages_that_are_read_do_not_keep_it_awake)
{
	struct fix *x = fix_new();

	fake_host_knows_pfn(x->h, false);
	for (uint64_t p = 0; p < PAGES; p++)
		fill(x, 0, p, 0);
	for (unsigned int i = 1; i <= 12; i++) {
		uint64_t rest = pass(x);

		if (i >= 3)
			cr_assert_eq(rest, GAP_NS, "pass %u", i);
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert(holds(x, 0, p, 0));
	}
	cr_assert_gt(stats(x).zero_pages, PAGES, "the case did not come up");
	fix_free(x);
}

Test(merge, work_keeps_it_awake)
{
	struct fix *x = fix_new();
	bool awake = false;

	for (unsigned int i = 1; i <= 12; i++) {
		uint64_t rest = pass(x);

		if (i == 4)
			for (uint64_t p = 0; p < PAGES; p++)
				fill(x, 0, p, 0);
		if (i == 3 || i == 12)
			cr_assert_eq(rest, GAP_NS, "pass %u", i);
		awake |= i > 4 && !rest;
	}
	cr_assert_eq(stats(x).zero_pages, PAGES);
	cr_assert(awake);
	fix_free(x);
}

Test(merge, what_cannot_be_seen_is_counted)
{
	struct fix *x = fix_new();

	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			fill(x, g, p, 100 + (uint32_t)p);
	fake_host_fail(x->h, FAKE_PAGES, FAKE_EVERY, EIO);
	for (unsigned int i = 0; i < 4; i++)
		pass(x);
	cr_assert_eq(stats(x).sync_failed, 4 * GUESTS, "one window for each guest and pass");
	cr_assert_eq(stats(x).hashed_pages, 0);
	fake_host_fail(x->h, FAKE_PAGES, 1, 0);
	for (unsigned int i = 0; i < 5; i++)
		pass(x);
	cr_assert_eq(stats(x).sync_failed, 4 * GUESTS);
	cr_assert_eq(stats(x).merged_pages, GUESTS * PAGES);
	fix_free(x);
}
