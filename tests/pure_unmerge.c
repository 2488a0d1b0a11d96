/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_unmerge.c: an engine stops, what it has merged is taken back while guests write at random, and
 * it, or another, begins anew: no byte is lost, no frame left, no mapping more than before; and when
 * the host fails in the middle, the engine goes on over what is still shared.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/engine.h"
#include "tests/fake_host.h"

#define GUESTS 3
#define PAGES  700 /* two windows, the second a part of one */

struct fleet {
	struct ob_host *h;
	struct ob_arena *arena;
	int pool_fd, meta_fd;
	struct ksm_domain *coord, *domain;
	struct ksm *k;
	struct ksm_unmerge undo;
	struct guest {
		struct gmem mem;
		struct ept e;
		int parked;
		uint8_t (*expect)[OB_PAGE_SIZE]; /* what the guest wrote */
	} g[GUESTS];
	unsigned int seed;
	bool write_inside;
	uint64_t vmas;
};

static void park(void *arg)
{
	((struct guest *)arg)->parked++;
}

static void unpark(void *arg)
{
	((struct guest *)arg)->parked--;
}

static void guest_write(struct fleet *f, unsigned int g, uint64_t page, uint64_t off,
			const void *buf, uint64_t n)
{
	memcpy(f->g[g].expect[page] + off, buf, n);
	fake_host_write(f->h, hva(gmem_page_hva(&f->g[g].mem, page).v + off), buf, n);
}

/* A guest that is not parked writes just when it hurts. */
static void write_hook(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fleet *f = arg;
	unsigned int g = (unsigned int)rand_r(&f->seed) % GUESTS;
	uint64_t page = (uint64_t)rand_r(&f->seed) % PAGES;
	uint8_t v = (uint8_t)(rand_r(&f->seed) % 3);

	(void)h;
	(void)op;
	(void)after;
	if (f->write_inside && !f->g[g].parked && rand_r(&f->seed) % 4 == 0)
		guest_write(f, g, page, (uint64_t)rand_r(&f->seed) % OB_PAGE_SIZE, &v, 1);
}

static uint64_t mappings(struct fleet *f)
{
	uint64_t have, limit;

	cr_assert(!f->h->ops->vma_count(f->h, &have, &limit));
	return have;
}

static void engine(struct fleet *f, const char *name)
{
	struct ob_err e;

	cr_assert(!ksm_new(&f->k, ksm_engine_find(name), f->h, f->domain, NULL, f->arena));
	for (unsigned int i = 0; i < GUESTS; i++)
		cr_assert(!ksm_add_guest(f->k, &(struct ksm_guest){
						       .ept = &f->g[i].e,
						       .vm = i,
						       .page_base = (uint64_t)i * PAGES,
					       }));
	cr_assert(!ksm_start(f->k, &e));
}

/* All pages are written: some contents are everywhere, every tenth page is of zeroes. */
static void make(struct fleet *f, const char *name)
{
	memset(f, 0, sizeof(*f));
	f->seed = 4711;
	f->h = fake_host_new();
	f->arena = ob_arena_new("test");
	cr_assert(!ksm_domain_create(f->h, GUESTS * PAGES, 1, &f->pool_fd, &f->meta_fd));
	cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, KSM_NO_CELL, f->arena, &f->coord));
	cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, 0, f->arena, &f->domain));
	for (unsigned int i = 0; i < GUESTS; i++) {
		struct guest *g = &f->g[i];

		g->expect = calloc(PAGES, OB_PAGE_SIZE);
		cr_assert(!gmem_init(&g->mem, f->h, PAGES * OB_PAGE_SIZE, "test"));
		cr_assert(!ept_init(&g->e, f->h, &g->mem,
				    (struct ept_parker){.park = park, .unpark = unpark, .arg = g},
				    f->arena));
		for (uint64_t p = 0; p < PAGES; p++) {
			uint32_t buf[OB_PAGE_SIZE / 4];
			uint32_t content = (uint32_t)(p % 2 ? p : p * GUESTS + i + 5000);

			for (unsigned int k = 0; k < OB_ARRAY_SIZE(buf); k++)
				buf[k] = p % 10 ? content * 2654435761u + k : 0;
			guest_write(f, i, p, 0, buf, sizeof(buf));
		}
		cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
	}
	f->vmas = mappings(f);
	engine(f, name);
	fake_host_hook(f->h, write_hook, f);
}

static void unmake(struct fleet *f)
{
	fake_host_hook(f->h, NULL, NULL);
	ksm_free(f->k);
	for (unsigned int i = 0; i < GUESTS; i++) {
		cr_assert_eq(f->g[i].parked, 0);
		ept_exit(&f->g[i].e);
		gmem_exit(&f->g[i].mem);
		free(f->g[i].expect);
	}
	ksm_domain_close(f->domain);
	ksm_domain_close(f->coord);
	cr_assert_eq(ob_arena_bytes(f->arena), 0, "metadata left behind");
	ob_arena_free(f->arena);
	fake_host_free(f->h);
}

static void scan(struct fleet *f, int passes)
{
	struct ksm_stats st, now;

	ksm_read_stats(f->k, &st);
	do {
		ksm_step(f->k, f->h->ops->now_ns(f->h), 64);
		ksm_read_stats(f->k, &now);
	} while (now.passes < st.passes + (uint64_t)passes);
}

static void check(struct fleet *f)
{
	uint8_t got[OB_PAGE_SIZE];
	struct ept_verify v;

	for (unsigned int g = 0; g < GUESTS; g++) {
		for (uint64_t p = 0; p < PAGES; p++) {
			fake_host_read(f->h, gmem_page_hva(&f->g[g].mem, p), got, sizeof(got));
			cr_assert(!memcmp(got, f->g[g].expect[p], sizeof(got)), "guest %u page %d",
				  g, (int)p);
		}
		cr_assert(!ept_verify(&f->g[g].e, &v));
		cr_assert_eq(v.differences, 0, "%s", v.first[0].why);
		ept_check(&f->g[g].e);
	}
}

static uint64_t in_state(struct fleet *f, enum ept_state s)
{
	struct ept_stats st;
	uint64_t n = 0;

	for (unsigned int g = 0; g < GUESTS; g++) {
		ept_read_stats(&f->g[g].e, &st);
		n += st.state[s];
	}
	return n;
}

static int undo(struct fleet *f)
{
	int r = 1;

	ksm_stop(f->k);
	for (int steps = 0; r > 0; steps++) {
		cr_assert_lt(steps, 100000, "it never ends");
		r = ksm_unmerge_step(f->k, &f->undo);
	}
	ksm_unmerge_end(f->k, &f->undo);
	return r;
}

/* Everything is as it was before anything was merged. */
static void check_undone(struct fleet *f)
{
	struct ksm_domain_stats st;

	f->write_inside = false;
	check(f);
	cr_expect_eq(in_state(f, EPT_SHARED), 0);
	cr_expect_eq(in_state(f, EPT_PRIVATE), GUESTS * PAGES);
	cr_expect_eq(fake_host_private_pages(f->h), GUESTS * PAGES);
	cr_expect_eq(mappings(f), f->vmas);
	for (int i = 0; i < 2; i++)
		cr_assert_geq(ksm_domain_reap(f->coord, UINT64_MAX), 0);
	cr_assert(!ksm_domain_stats(f->coord, &st));
	cr_expect_eq(st.live + st.filling, 0);
	cr_expect_eq(fake_host_file_pages(f->h, f->pool_fd), 0);
}

Test(unmerge, hash_back_and_forth_under_random_writes)
{
	struct ksm_domain_stats st;
	struct fleet f;

	make(&f, "hash");
	for (int round = 0; round < 12; round++) {
		f.write_inside = true;
		scan(&f, 6);
		f.write_inside = round % 2;
		cr_assert_gt(in_state(&f, EPT_SHARED) + in_state(&f, EPT_ZERO), 100);
		cr_assert_eq(undo(&f), 0);
		check_undone(&f);
		ksm_free(f.k);
		/* What was learnt goes as well: the next one begins as the first. */
		cr_assert_eq(ksm_domain_reset(f.coord), 0);
		cr_assert(!ksm_domain_stats(f.coord, &st));
		cr_expect_eq(st.hints + st.entries, 0);
		cr_expect_leq(st.meta_bytes, 2 * OB_PAGE_SIZE);
		engine(&f, round % 3 ? "hash" : "off");
		if (round % 3)
			continue;
		cr_assert_eq(undo(&f), 0);
		check_undone(&f);
		ksm_free(f.k);
		engine(&f, "hash");
	}
	unmake(&f);
}

Test(unmerge, a_domain_in_use_is_not_reset)
{
	struct fleet f;

	make(&f, "hash");
	scan(&f, 4);
	cr_expect_eq(ksm_domain_reset(f.coord), -EBUSY);
	check(&f);
	cr_assert_eq(undo(&f), 0);
	check_undone(&f);
	unmake(&f);
}

/* In the middle of it: the engine starts again, merges again, and leaves for good later. */
static void fails(enum fake_op op, uint64_t nth, bool hole)
{
	struct ob_err e;
	struct fleet f;
	uint64_t before;
	bool met;
	int r;

	make(&f, "hash");
	scan(&f, 5);
	before = fake_host_calls(f.h, op);
	if (hole)
		fake_host_fail_with_hole(f.h, op, nth, ENOMEM);
	else
		fake_host_fail(f.h, op, nth, ENOMEM);
	r = undo(&f);
	met = fake_host_calls(f.h, op) >= before + nth;
	fake_host_fail(f.h, op, 1, 0);
	/* An mmap that fails once is tried again. */
	cr_assert(!met || r == -ENOMEM || op == FAKE_MAP_EMPTY || op == FAKE_POPULATE, "%d", r);
	check(&f);
	cr_assert(!ksm_start(f.k, &e));
	f.write_inside = true;
	scan(&f, 6);
	f.write_inside = false;
	check(&f);
	cr_assert_gt(in_state(&f, EPT_SHARED), 100, "what was taken back is not merged again");
	cr_assert_eq(undo(&f), 0);
	check_undone(&f);
	unmake(&f);
}

Test(unmerge, a_host_that_fails_in_the_middle)
{
	for (uint64_t nth = 1; nth < 60; nth += 7) {
		fails(FAKE_PAGES, nth, false);
		fails(FAKE_MAP_EMPTY, nth, false);
		fails(FAKE_MAP_EMPTY, nth, true);
		fails(FAKE_POPULATE, nth, false);
	}
}

Test(unmerge, a_device_that_does_not_let_go_is_met_again)
{
	struct gmem_access acc;
	struct fleet f;
	uint64_t page = 1, pauses;
	int r = 1;

	make(&f, "hash");
	scan(&f, 5);
	while (ept_state_of(&f.g[0].e, page) != EPT_SHARED)
		cr_assert_lt(++page, PAGES);
	cr_assert(!ept_dma_begin(&f.g[0].e, gpa(page * OB_PAGE_SIZE), 16, false, &acc));
	ksm_stop(f.k);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(ksm_unmerge_step(f.k, &f.undo), 1);
	cr_expect_eq(ept_state_of(&f.g[0].e, page), EPT_SHARED);
	cr_expect_eq(in_state(&f, EPT_SHARED), 1);
	/* It rests by now: the guest does not stand still time and again for nothing. */
	pauses = f.undo.pauses;
	for (int i = 0; i < 200; i++)
		cr_assert_eq(ksm_unmerge_step(f.k, &f.undo), 1);
	cr_expect_eq(f.undo.pauses, pauses);
	/* A slow disk may take its time. For ever is an error, and not a hang. */
	for (int ms = 0; ms < 29000; ms++) {
		fake_host_advance(f.h, OB_NS_PER_MS);
		cr_assert_eq(ksm_unmerge_step(f.k, &f.undo), 1);
	}
	cr_expect_gt(f.undo.pauses, pauses + 1000, "it looks again, though");
	for (int ms = 0; ms < 2000 && r == 1; ms++) {
		fake_host_advance(f.h, OB_NS_PER_MS);
		r = ksm_unmerge_step(f.k, &f.undo);
	}
	cr_expect_eq(r, -EBUSY);
	ept_dma_end(&f.g[0].e, &acc);
	ksm_unmerge_end(f.k, &f.undo);
	cr_assert_eq(undo(&f), 0);
	check_undone(&f);
	unmake(&f);
}

Test(unmerge, kernel_takes_its_word_back)
{
	struct ob_err e;
	struct fleet f;

	make(&f, "kernel");
	f.write_inside = true;
	cr_assert(fake_host_is_mergeable(f.h, gmem_page_hva(&f.g[0].mem, 0)));
	/* What Linux KSM does to pages of zeroes. */
	for (uint64_t p = 0; p < PAGES; p += 10)
		fake_host_ksm_zero(f.h, gmem_page_hva(&f.g[1].mem, p));
	cr_assert_eq(undo(&f), 0);
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert_not(fake_host_is_mergeable(f.h, gmem_page_hva(&f.g[g].mem, p)));
	check_undone(&f);
	/* Refused in the middle: it goes on. */
	cr_assert(!ksm_start(f.k, &e));
	fake_host_fail(f.h, FAKE_MERGEABLE, 9, ENOMEM);
	cr_expect_eq(undo(&f), -ENOMEM);
	check(&f);
	cr_assert(!ksm_start(f.k, &e));
	cr_assert_eq(undo(&f), 0);
	check_undone(&f);
	unmake(&f);
}

Test(unmerge, off_has_nothing_to_take_back)
{
	struct fleet f;
	uint64_t calls;

	make(&f, "off");
	calls = fake_host_calls(f.h, FAKE_PAGES);
	cr_assert_eq(undo(&f), 0);
	cr_expect_eq(fake_host_calls(f.h, FAKE_PAGES), calls);
	check_undone(&f);
	unmake(&f);
}
