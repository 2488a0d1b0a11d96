/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_hash_huge.c: the engine `hash` over memory of huge pages: it breaks one when that gives back
 * enough, finds out what it shares although it merges nothing, is not fooled by hints that are out of
 * date, and where it breaks it saves what it saves over small pages.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/domain.h"
#include "tests/fake_host.h"

#define UNIT	  EPT_UNIT_PAGES
#define MAX_CELLS 4
#define THRESHOLD 64

/* A fleet of one guest a cell, of @units units each; cells know of each other by the domain only. */
struct fleet {
	struct ob_host *h;
	struct ob_arena *arena;
	unsigned int cells;
	uint64_t units;
	int pool_fd, meta_fd;
	struct ksm_domain *coord;
	struct cell {
		struct ksm_domain *domain;
		struct ksm *k;
		struct gmem mem;
		struct ept e;
		uint32_t *content; /* of each page */
	} c[MAX_CELLS];
};

static void nothing(void *arg)
{
	(void)arg;
}

static void make(struct fleet *f, unsigned int cells, uint64_t units, enum ept_pages pages)
{
	const struct ept_huge_rule rule = {
		.threshold = pages == EPT_PAGES_ADAPTIVE ? THRESHOLD : EPT_HUGE_NEVER};
	struct ob_err e;

	*f = (struct fleet){.cells = cells, .units = units, .h = fake_host_new()};
	f->arena = ob_arena_new("test");
	cr_assert(!ksm_domain_create(f->h, cells * units * UNIT, cells, &f->pool_fd, &f->meta_fd));
	cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, KSM_NO_CELL, f->arena, &f->coord));
	for (unsigned int i = 0; i < cells; i++) {
		struct cell *c = &f->c[i];

		cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, i, f->arena, &c->domain));
		cr_assert(
			!ksm_new(&c->k, ksm_engine_find("hash"), f->h, c->domain, NULL, f->arena));
		cr_assert(!gmem_init(&c->mem, f->h, units * OB_HUGE_SIZE, "test"));
		if (pages != EPT_PAGES_4K)
			cr_assert(!gmem_huge(&c->mem));
		cr_assert(!ept_init(&c->e, f->h, &c->mem,
				    (struct ept_parker){.park = nothing, .unpark = nothing},
				    f->arena));
		ept_huge_set_rule(&c->e, &rule);
		if (pages != EPT_PAGES_4K)
			fake_huge_touch(f->h, c->mem.region[0].hva, units);
		cr_assert(!ksm_add_guest(c->k, &(struct ksm_guest){
						       .ept = &c->e,
						       .vm = i,
						       .page_base = i * units * UNIT,
					       }));
		cr_assert(!ksm_start(c->k, &e));
		c->content = calloc(units * UNIT, sizeof(c->content[0]));
	}
}

/* A page of the content @v; 0: of zeroes. */
static void fill(struct fleet *f, unsigned int cell, uint64_t page, uint64_t n, uint32_t v)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (uint64_t p = page; p < page + n; p++, v += v != 0) {
		for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
			buf[i] = v ? v * 2654435761u + i : 0;
		f->c[cell].content[p] = v;
		fake_host_write(f->h, gmem_page_hva(&f->c[cell].mem, p), buf, sizeof(buf));
	}
}

/* All of it, with what is found nowhere else. */
static void fill_own(struct fleet *f)
{
	for (unsigned int i = 0; i < f->cells; i++)
		fill(f, i, 0, f->units * UNIT, (i + 1) << 24);
}

/* One pass of one cell. */
static void scan_cell(struct fleet *f, unsigned int i)
{
	struct ksm_stats st, now;

	ksm_read_stats(f->c[i].k, &st);
	do {
		ksm_step(f->c[i].k, f->h->ops->now_ns(f->h), 512);
		ksm_read_stats(f->c[i].k, &now);
	} while (now.passes == st.passes);
}

static void scan(struct fleet *f, int passes)
{
	for (int p = 0; p < passes; p++)
		for (unsigned int i = 0; i < f->cells; i++)
			scan_cell(f, i);
}

static struct ept_huge_stats huge(struct fleet *f, unsigned int cell)
{
	struct ept_huge_stats st;

	cr_assert(!ept_huge_read(&f->c[cell].e, &st));
	return st;
}

/* Pages that the host holds for the guests. */
static uint64_t held(struct fleet *f)
{
	uint64_t n = fake_host_file_pages(f->h, f->pool_fd);
	struct ept_stats st;

	for (unsigned int i = 0; i < f->cells; i++) {
		cr_assert(!ept_sync(&f->c[i].e, 0, f->units * UNIT, NULL));
		ept_read_stats(&f->c[i].e, &st);
		n += st.state[EPT_PRIVATE];
	}
	return n;
}

static void unmake(struct fleet *f)
{
	uint32_t got[OB_PAGE_SIZE / 4];

	cr_assert_eq(fake_huge_stuck(f->h), 0, "memory is held that was given back");
	for (unsigned int i = 0; i < f->cells; i++) {
		struct cell *c = &f->c[i];
		struct ept_verify v;

		for (uint64_t p = 0; p < f->units * UNIT; p++) {
			uint32_t first = c->content[p] * 2654435761u;

			fake_host_read(f->h, gmem_page_hva(&c->mem, p), got, sizeof(got));
			cr_assert_eq(got[0], first, "cell %d page %d", (int)i, (int)p);
			cr_assert_eq(got[1023], c->content[p] ? first + 1023 : 0);
		}
		cr_assert(!ept_verify(&c->e, &v));
		cr_assert_eq(v.differences, 0, "%s", v.first[0].why);
		ksm_stop(c->k);
		ksm_remove_guest(c->k, i);
		ept_exit(&c->e);
		gmem_exit(&c->mem);
		free(c->content);
	}
	for (int i = 0; i < 2; i++)
		cr_assert(ksm_domain_reap(f->coord, UINT64_MAX) >= 0);
	cr_assert_eq(fake_host_file_pages(f->h, f->pool_fd), 0, "pages left in the pool");
	for (unsigned int i = 0; i < f->cells; i++) {
		ksm_free(f->c[i].k);
		ksm_domain_close(f->c[i].domain);
	}
	ksm_domain_close(f->coord);
	cr_assert_eq(ob_arena_bytes(f->arena), 0, "metadata left behind");
	ob_arena_free(f->arena);
	fake_host_free(f->h);
}

Test(hash_huge, what_is_its_own_stays_huge)
{
	struct ksm_stats st;
	struct fleet f;

	make(&f, 3, 2, EPT_PAGES_ADAPTIVE);
	fill_own(&f);
	scan(&f, 8);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(huge(&f, i).huge, 2);
		ksm_read_stats(f.c[i].k, &st);
		cr_assert_eq(st.merged_pages + st.huge_broken, 0);
		cr_assert_geq(st.hashed_pages, 8 * 2 * UNIT, "it was looked at");
	}
	unmake(&f);
}

/* Guests that are alike: what small pages save adaptive saves, to the page; 2m saves nothing. */
Test(hash_huge, alike_guests_save_what_small_pages_save)
{
	uint64_t left[EPT_PAGES_NMODES];

	for (int mode = 0; mode < EPT_PAGES_NMODES; mode++) {
		struct fleet f;

		make(&f, 3, 2, (enum ept_pages)mode);
		for (unsigned int i = 0; i < 3; i++) {
			fill(&f, i, 0, UNIT, 100);
			fill(&f, i, UNIT, 300, 5000);
			fill(&f, i, UNIT + 300, 212, 0);
		}
		scan(&f, 6);
		left[mode] = held(&f);
		for (unsigned int i = 0; i < 3; i++)
			cr_assert_eq(huge(&f, i).huge, mode == EPT_PAGES_2M ? 2 : 0);
		unmake(&f);
	}
	cr_assert_eq(left[EPT_PAGES_4K], UNIT + 300, "one of each");
	cr_assert_eq(left[EPT_PAGES_ADAPTIVE], left[EPT_PAGES_4K]);
	cr_assert_eq(left[EPT_PAGES_2M], 3 * 2 * UNIT);
}

Test(hash_huge, from_the_threshold_on)
{
	for (uint64_t n = THRESHOLD - 2; n < THRESHOLD + 2; n++) {
		struct fleet f;

		make(&f, 2, 2, EPT_PAGES_ADAPTIVE);
		fill_own(&f);
		fill(&f, 0, 10, n, 100);
		fill(&f, 1, UNIT + 99, n, 100);
		scan(&f, 8);
		cr_assert_eq(huge(&f, 0).broken, n >= THRESHOLD, "%d pages", (int)n);
		cr_assert_eq(huge(&f, 1).broken, n >= THRESHOLD, "%d pages", (int)n);
		cr_assert_eq(held(&f), 4 * UNIT - (n >= THRESHOLD ? n : 0));
		unmake(&f);
	}
}

Test(hash_huge, zeroes_alone_are_worth_it)
{
	struct fleet f;

	make(&f, 1, 2, EPT_PAGES_ADAPTIVE);
	fill_own(&f);
	fill(&f, 0, 5, THRESHOLD - 1, 0);
	fill(&f, 0, UNIT + 5, THRESHOLD, 0);
	scan(&f, 3);
	cr_assert(ept_unit_is_huge(&f.c[0].e, 0));
	cr_assert(!ept_unit_is_huge(&f.c[0].e, UNIT));
	cr_assert_eq(held(&f), 2 * UNIT - THRESHOLD);
	unmake(&f);
}

/* Each shares some with each of the others, with none of them enough: together it is. */
Test(hash_huge, a_little_with_each_of_many)
{
	const uint64_t some = THRESHOLD / 2 + 2;
	struct fleet f;

	make(&f, 3, 1, EPT_PAGES_ADAPTIVE);
	fill_own(&f);
	for (unsigned int i = 0; i < 3; i++) {
		fill(&f, i, 0, some, 1000 * (i + 1));
		fill(&f, i, 200, some, 1000 * ((i + 1) % 3 + 1));
	}
	scan(&f, 10);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(huge(&f, i).broken, 1, "cell %u", i);
	cr_assert_eq(held(&f), 3 * UNIT - 3 * some);
	unmake(&f);
}

/* Cells do not keep step: one comes by ten times as often as the other. */
Test(hash_huge, cells_at_different_paces)
{
	struct fleet f;

	make(&f, 2, 1, EPT_PAGES_ADAPTIVE);
	fill(&f, 0, 0, UNIT, 100);
	fill(&f, 1, 0, UNIT, 100);
	for (int i = 0; i < 8; i++) {
		for (int k = 0; k < 10; k++)
			scan_cell(&f, 0);
		scan_cell(&f, 1);
	}
	cr_assert_eq(huge(&f, 0).broken + huge(&f, 1).broken, 2);
	cr_assert_eq(held(&f), UNIT);
	unmake(&f);
}

/* Data that was moved is there once, although the index says twice. */
Test(hash_huge, data_that_was_moved_breaks_nothing)
{
	struct fleet f;

	make(&f, 2, 2, EPT_PAGES_ADAPTIVE);
	fill_own(&f);
	scan(&f, 4);
	for (uint32_t i = 1; i < 10; i++) {
		/* Cell 0 moves the first of its units to where its second was, and fills it anew. */
		fill(&f, 0, UNIT, UNIT, f.c[0].content[0]);
		fill(&f, 0, 0, UNIT, 100000 * i);
		scan(&f, 3);
	}
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(huge(&f, i).breaks, 0, "cell %u", i);
	unmake(&f);
}

/* A guest of small pages beside one of huge ones: what the first has as frames is sure. */
Test(hash_huge, frames_that_are_there_are_joined)
{
	struct fleet f;

	make(&f, 3, 1, EPT_PAGES_ADAPTIVE);
	fill_own(&f);
	for (unsigned int i = 0; i < 2; i++) {
		fill(&f, i, 0, 200, 100);
		cr_assert(ept_huge_break(&f.c[i].e, 0) >= 0);
	}
	scan(&f, 4);
	cr_assert_eq(huge(&f, 2).broken, 0);
	fill(&f, 2, 100, 200, 100);
	scan(&f, 3);
	cr_assert_eq(huge(&f, 2).broken, 1);
	cr_assert_eq(held(&f), 3 * UNIT - 2 * 200);
	unmake(&f);
}

Test(hash_huge, a_unit_that_cannot_be_broken_is_left_alone)
{
	struct fleet f;

	make(&f, 2, 1, EPT_PAGES_ADAPTIVE);
	for (unsigned int i = 0; i < 2; i++)
		fill(&f, i, 0, UNIT, 100);
	fake_host_fail(f.h, FAKE_SPLIT, FAKE_EVERY, EBUSY);
	scan(&f, 6);
	cr_assert_eq(held(&f), 2 * UNIT);
	cr_assert_gt(huge(&f, 0).refused, 0);
	/* Nor is one when mappings run out. */
	fake_host_vma_limit(f.h, 100, 100);
	scan(&f, 1);
	fake_host_fail(f.h, FAKE_SPLIT, 1, 0);
	scan(&f, 6);
	cr_assert_eq(held(&f), 2 * UNIT);
	fake_host_vma_limit(f.h, 65530, 100);
	scan(&f, 6);
	cr_assert_eq(held(&f), UNIT);
	unmake(&f);
}

/* Random guests, that share much or little: no content is ever wrong, nothing is held twice. */
Test(hash_huge, randomised, .timeout = 120)
{
	for (unsigned int seed = 1; seed <= 6; seed++) {
		unsigned int s = seed;
		struct fleet f;

		make(&f, 3, 2, seed % 3 ? EPT_PAGES_ADAPTIVE : EPT_PAGES_2M);
		fill_own(&f);
		for (int round = 0; round < 60; round++) {
			unsigned int cell = (unsigned int)rand_r(&s) % 3;
			uint64_t page = (uint64_t)rand_r(&s) % (2 * UNIT), n;

			n = 1 + (uint64_t)rand_r(&s) % OB_MIN(2 * UNIT - page, 300);
			fill(&f, cell, page, n,
			     rand_r(&s) % 4 ? 1 + (uint32_t)rand_r(&s) % 500 : 0);
			if (round % 4 == 0)
				scan(&f, 1);
			if (round % 10 == 9) {
				uint64_t unit = (uint64_t)rand_r(&s) % 2;

				fill(&f, cell, unit * UNIT, UNIT, (uint32_t)(round + 1) << 16);
				cr_assert_eq(ept_huge_build(&f.c[cell].e, unit), 0,
					     "seed %u round %d", seed, round);
			}
			cr_assert_eq(fake_huge_stuck(f.h), 0, "seed %u round %d", seed, round);
		}
		unmake(&f);
	}
}
