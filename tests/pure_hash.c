/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_hash.c: the engine `hash` on a host that is only memory: guests that write at random between
 * its steps, and in the middle of them, never see a byte that they did not write; what can be
 * shared is; and when the host fails, merging gets less and nothing else happens.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/domain.h"
#include "tests/fake_host.h"

#define GUESTS 4
#define PAGES  96
#define CELLS  2

/* Two cells in one process, two guests each: what they share they share through the domain only. */
struct fleet {
	struct ob_host *h;
	struct ob_arena *arena;
	int pool_fd, meta_fd;
	struct ksm_domain *coord, *domain[CELLS];
	struct ksm *k[CELLS];
	struct guest {
		struct fleet *f;
		struct gmem mem;
		struct ept e;
		int parked;
		uint8_t (*expect)[OB_PAGE_SIZE]; /* what the guest wrote */
	} g[GUESTS];
	unsigned int seed;
	bool write_inside; /* a hook writes while the engine works */
};

static void park(void *arg)
{
	((struct guest *)arg)->parked++;
}

static void unpark(void *arg)
{
	((struct guest *)arg)->parked--;
}

static void guest_write(struct fleet *f, int g, uint64_t page, uint64_t off, const void *buf,
			uint64_t n)
{
	memcpy(f->g[g].expect[page] + off, buf, n);
	fake_host_write(f->h, hva(gmem_page_hva(&f->g[g].mem, page).v + off), buf, n);
}

static void guest_fill(struct fleet *f, int g, uint64_t page, uint32_t content)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
		buf[i] = content ? content * 2654435761u + i : 0;
	guest_write(f, g, page, 0, buf, sizeof(buf));
}

/*
 * A guest that runs writes just when it hurts: while the scanner is in a call to the host. A frozen
 * guest does not. The kernel migrates pages as it likes, those of a frozen guest too.
 */
static void write_hook(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fleet *f = arg;
	int g = rand_r(&f->seed) % GUESTS;
	uint64_t page = (uint64_t)rand_r(&f->seed) % PAGES;
	uint8_t v = (uint8_t)rand_r(&f->seed);

	(void)op;
	(void)after;
	if (f->write_inside && !f->g[g].parked && rand_r(&f->seed) % 8 == 0)
		guest_write(f, g, page, (uint64_t)rand_r(&f->seed) % OB_PAGE_SIZE, &v, 1);
	if (f->write_inside && v % 4 == 0) {
		hva_t at = gmem_page_hva(&f->g[g].mem, page & ~7ULL);

		if (v % 8)
			fake_host_migrate_begin(h, at, 8);
		else
			fake_host_migrate_end(h, at, 8);
	}
}

static void make(struct fleet *f, unsigned int inject)
{
	struct ksm_opts opts = {.inject = inject};
	struct ob_err e;

	memset(f, 0, sizeof(*f));
	f->seed = 4711;
	f->h = fake_host_new();
	f->arena = ob_arena_new("test");
	cr_assert(!ksm_domain_create(f->h, GUESTS * PAGES, CELLS, &f->pool_fd, &f->meta_fd));
	cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, KSM_NO_CELL, f->arena, &f->coord));
	for (unsigned int c = 0; c < CELLS; c++) {
		cr_assert(
			!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, c, f->arena, &f->domain[c]));
		cr_assert(!ksm_new(&f->k[c], ksm_engine_find("hash"), f->h, f->domain[c], &opts,
				   f->arena));
	}
	for (int i = 0; i < GUESTS; i++) {
		struct guest *g = &f->g[i];

		g->f = f;
		g->expect = calloc(PAGES, OB_PAGE_SIZE);
		cr_assert(!gmem_init(&g->mem, f->h, PAGES * OB_PAGE_SIZE, "test"));
		cr_assert(!ept_init(&g->e, f->h, &g->mem,
				    (struct ept_parker){.park = park, .unpark = unpark, .arg = g},
				    f->arena));
		cr_assert(!ksm_add_guest(f->k[i % CELLS], &(struct ksm_guest){
								  .ept = &g->e,
								  .vm = (unsigned int)i,
								  .page_base = (uint64_t)i * PAGES,
							  }));
	}
	for (unsigned int c = 0; c < CELLS; c++)
		cr_assert(!ksm_start(f->k[c], &e));
	fake_host_hook(f->h, write_hook, f);
}

static void scan(struct fleet *f, int passes)
{
	for (int p = 0; p < passes; p++)
		for (unsigned int c = 0; c < CELLS; c++) {
			struct ksm_stats st, now;

			ksm_read_stats(f->k[c], &st);
			do {
				ksm_step(f->k[c], f->h->ops->now_ns(f->h), 64);
				ksm_read_stats(f->k[c], &now);
			} while (now.passes == st.passes);
		}
}

static uint64_t wrong_pages(struct fleet *f)
{
	uint8_t got[OB_PAGE_SIZE];
	uint64_t wrong = 0;

	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++) {
			fake_host_read(f->h, gmem_page_hva(&f->g[g].mem, p), got, sizeof(got));
			wrong += !!memcmp(got, f->g[g].expect[p], sizeof(got));
		}
	return wrong;
}

static uint64_t in_state(struct fleet *f, enum ept_state s)
{
	struct ept_stats st;
	uint64_t n = 0;

	for (int g = 0; g < GUESTS; g++) {
		cr_assert(!ept_sync(&f->g[g].e, 0, PAGES, NULL));
		ept_check(&f->g[g].e);
		ept_read_stats(&f->g[g].e, &st);
		n += st.state[s];
	}
	return n;
}

/* Give back all that nobody holds: a call goes to the end of the pool, the next one begins anew. */
static void reap(struct fleet *f)
{
	for (int i = 0; i < 2; i++)
		cr_assert(ksm_domain_reap(f->coord, UINT64_MAX) >= 0);
}

/* All guests gone: every frame comes back to the host. */
static void unmake(struct fleet *f, bool all_back)
{
	fake_host_hook(f->h, NULL, NULL);
	for (unsigned int c = 0; c < CELLS; c++)
		ksm_stop(f->k[c]);
	for (int i = 0; i < GUESTS; i++) {
		cr_assert_eq(f->g[i].parked, 0);
		ksm_remove_guest(f->k[i % CELLS], (unsigned int)i);
		ept_exit(&f->g[i].e);
		gmem_exit(&f->g[i].mem);
		free(f->g[i].expect);
	}
	reap(f);
	if (all_back)
		cr_assert_eq(fake_host_file_pages(f->h, f->pool_fd), 0, "%d pages left in the pool",
			     (int)fake_host_file_pages(f->h, f->pool_fd));
	for (unsigned int c = 0; c < CELLS; c++) {
		ksm_free(f->k[c]);
		ksm_domain_close(f->domain[c]);
	}
	ksm_domain_close(f->coord);
	cr_assert_eq(ob_arena_bytes(f->arena), 0, "metadata left behind");
	ob_arena_free(f->arena);
	fake_host_free(f->h);
}

Test(hash, merges_across_cells_and_within)
{
	struct fleet f;

	make(&f, 0);
	for (int g = 0; g < GUESTS; g++) {
		for (uint64_t p = 0; p < 32; p++)
			guest_fill(&f, g, p, 100 + (uint32_t)p); /* the same in every guest */
		for (uint64_t p = 32; p < 40; p++)
			guest_fill(&f, g, p, 0); /* zero */
		for (uint64_t p = 40; p < 48; p++)
			guest_fill(&f, g, p, 1000 + (uint32_t)g); /* the same within a guest */
		for (uint64_t p = 48; p < 64; p++)
			guest_fill(&f, g, p,
				   5000 + (uint32_t)(g * 100) + (uint32_t)p); /* its own */
	}
	scan(&f, 5);
	cr_assert_eq(wrong_pages(&f), 0);
	cr_assert_eq(in_state(&f, EPT_SHARED), GUESTS * (32 + 8));
	/* 16 of its own, the rest was read as zero or dropped. */
	cr_assert_eq(in_state(&f, EPT_PRIVATE), GUESTS * 16);
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 32 + GUESTS,
		     "one frame for each content");
	unmake(&f, true);
}

Test(hash, runs_are_merged_by_few_mappings)
{
	struct ksm_stats st;
	struct fleet f;

	make(&f, 0);
	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < 64;
		     p++) /* the same file, at another place in each guest */
			guest_fill(&f, g, p + (uint64_t)g * 8, 100 + (uint32_t)p);
	scan(&f, 5);
	cr_assert_eq(in_state(&f, EPT_SHARED), GUESTS * 64);
	for (unsigned int c = 0; c < CELLS; c++) {
		ksm_read_stats(f.k[c], &st);
		cr_assert_leq(st.merge_runs, 4, "%d mappings for %d pages", (int)st.merge_runs,
			      (int)st.merged_pages);
	}
	unmake(&f, true);
}

Test(hash, breaks_give_frames_back)
{
	struct fleet f;

	make(&f, 0);
	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < 16; p++)
			guest_fill(&f, g, p, 100 + (uint32_t)p);
	scan(&f, 5);
	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < 16; p++)
			guest_fill(&f, g, p, 9000 + (uint32_t)(g * 100) + (uint32_t)p);
	scan(&f, 2);
	reap(&f);
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 0);
	cr_assert_eq(wrong_pages(&f), 0);
	/* And what has become equal again is merged again, over the old mapping. */
	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < 16; p++)
			guest_fill(&f, g, p, 300 + (uint32_t)p);
	scan(&f, 5);
	cr_assert_eq(in_state(&f, EPT_SHARED), GUESTS * 16);
	cr_assert_eq(wrong_pages(&f), 0);
	unmake(&f, true);
}

/* What broke off and is as it was is shared again, also where the pool cannot be mapped for reading. */
Test(hash, what_is_as_it_was_is_shared_again)
{
	for (int view = 0; view < 2; view++) {
		struct ksm_stats st;
		struct fleet f;

		make(&f, 0);
		if (!view)
			fake_host_fail(f.h, FAKE_MAP_VIEW, FAKE_EVERY, ENOMEM);
		for (int g = 0; g < GUESTS; g++)
			for (uint64_t p = 0; p < 16; p++)
				guest_fill(&f, g, p, 100 + (uint32_t)p);
		scan(&f, 5);
		for (uint64_t p = 0; p < 16; p += 2)
			guest_fill(&f, 0, p, 9000);
		cr_assert_eq(in_state(&f, EPT_SHARED), GUESTS * 16 - 8);
		for (uint64_t p = 0; p < 16; p += 2)
			guest_fill(&f, 0, p, 100 + (uint32_t)p);
		scan(&f, 5);
		cr_assert_eq(in_state(&f, EPT_SHARED), GUESTS * 16);
		ksm_read_stats(f.k[0], &st);
		cr_assert_eq(st.reverted, view ? 8 : 0);
		cr_assert_eq(wrong_pages(&f), 0);
		unmake(&f, true);
	}
}

/* The heart of it: writes between and inside the steps, few contents so that much is merged. */
static void torture(unsigned int bits, int rounds)
{
	struct fleet f;

	make(&f, 0);
	for (unsigned int c = 0; c < CELLS && bits; c++)
		ksm_domain_hash_bits(f.domain[c], bits);
	if (bits)
		ksm_domain_hash_bits(f.coord, bits);
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 60; i++) {
			int g = rand_r(&f.seed) % GUESTS;
			uint64_t page = (uint64_t)rand_r(&f.seed) % PAGES;

			guest_fill(&f, g, page, (uint32_t)rand_r(&f.seed) % 24);
		}
		f.write_inside = round % 3 != 0;
		scan(&f, 1 + round % 3);
		f.write_inside = false;
		cr_assert_eq(wrong_pages(&f), 0, "seed 4711, round %d", round);
		reap(&f);
	}
	cr_assert_gt(in_state(&f, EPT_SHARED), 0);
	unmake(&f, true);
}

Test(hash, guests_that_write_all_the_time)
{
	torture(0, 150);
}

/* Hashes of 8 bits: nearly every page collides with others, and still nothing is merged wrongly. */
Test(hash, colliding_hashes_never_merge_wrongly)
{
	torture(8, 100);
}

Test(hash, one_bit_hashes_never_merge_wrongly)
{
	torture(1, 30);
}

/* Each host operation failing, once and always: less is merged, nothing is wrong or lost. */
Test(hash, failing_host_only_merges_less)
{
	static const struct {
		enum fake_op op;
		int err;
		bool hole; /* it fails when the old mapping is gone */
	} ops[] = {
		{FAKE_MAP_FRAMES, ENOMEM, false},   {FAKE_MAP_EMPTY, ENOMEM, false},
		{FAKE_MAP_FRAMES, ENOMEM, true},    {FAKE_MAP_EMPTY, ENOMEM, true},
		{FAKE_DISCARD_MANY, ENOMEM, false}, {FAKE_PAGES, EIO, false},
		{FAKE_FILE_READ, EIO, false},	    {FAKE_FILE_WRITE, ENOSPC, false},
		{FAKE_PUNCH, EOPNOTSUPP, false},    {FAKE_VMA_COUNT, ENOENT, false},
		{FAKE_MAP_VIEW, ENOMEM, false},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(ops); i++)
		/* Nothing helps when empty memory cannot be mapped ever again. */
		for (uint64_t nth = ops[i].hole && ops[i].op == FAKE_MAP_EMPTY; nth < 12; nth++) {
			struct fleet f;

			make(&f, 0);
			for (int g = 0; g < GUESTS; g++)
				for (uint64_t p = 0; p < 48; p++)
					guest_fill(&f, g, p, (uint32_t)p % 40);
			if (ops[i].hole)
				fake_host_fail_with_hole(f.h, ops[i].op, nth, ops[i].err);
			else
				fake_host_fail(f.h, ops[i].op, nth, ops[i].err);
			scan(&f, 4);
			for (int g = 0; g < GUESTS; g++)
				guest_fill(&f, g, 1, 0);
			scan(&f, 3);
			fake_host_fail(f.h, ops[i].op, 1, 0);
			cr_assert_eq(wrong_pages(&f), 0, "operation %d, call %d", (int)i, (int)nth);
			scan(&f, 4);
			cr_assert_eq(wrong_pages(&f), 0, "operation %d, call %d", (int)i, (int)nth);
			unmake(&f, ops[i].op != FAKE_PUNCH);
		}
}

Test(hash, stays_away_from_the_limit_of_mappings)
{
	struct ksm_stats st;
	struct fleet f;
	uint64_t have, limit;

	make(&f, 0);
	fake_host_vma_limit(f.h, 200, 100);
	for (int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++) /* no two neighbours alike in two guests */
			guest_fill(&f, g, (p * (uint64_t)(2 * g + 5)) % PAGES, 100 + (uint32_t)p);
	/* One cell: here both would share one process and its limit, and know nothing of each
	 * other. */
	for (int pass = 0; pass < 2000; pass++)
		ksm_step(f.k[0], f.h->ops->now_ns(f.h), 64);
	cr_assert(!f.h->ops->vma_count(f.h, &have, &limit));
	cr_assert_leq(have, 200 - 20);
	ksm_read_stats(f.k[0], &st);
	cr_assert_gt(st.merged_pages, 0);
	cr_assert_gt(st.skipped_vma, 0);
	cr_assert_eq(wrong_pages(&f), 0);
	unmake(&f, true);
}

/*
 * A page of a run gets no frame, as another page of the same plan was first: the run is two, and
 * there are mappings for one only. What was prepared for the other is given back, and not looked at.
 */
Test(hash, run_that_falls_apart_at_the_limit_of_mappings)
{
	struct ksm_stats st;
	struct fleet f;
	uint64_t have, limit;

	make(&f, 0);
	for (int g = 0; g < GUESTS; g += CELLS) /* of one cell */
		for (uint64_t p = 0; p < 10; p++)
			guest_fill(&f, g, 10 + p, 100 + (uint32_t)(p == 5 ? 2 : p));
	cr_assert(!f.h->ops->vma_count(f.h, &have, &limit));
	fake_host_vma_limit(f.h, 1000, 900 - 3 - have + 100);
	for (int pass = 0; pass < 50; pass++)
		ksm_step(f.k[0], f.h->ops->now_ns(f.h), 64);
	ksm_read_stats(f.k[0], &st);
	cr_assert_gt(st.merged_pages, 0);
	cr_assert_gt(st.skipped_vma, 0);
	cr_assert_eq(wrong_pages(&f), 0);
	unmake(&f, true);
}

/* The planted bugs do what they are for: this test would pass a harness that cannot see them. */
Test(hash, planted_bugs_corrupt)
{
	static const unsigned int inject[] = {KSM_INJECT_SKIP_COMPARE, KSM_INJECT_LOSE_BREAK};

	for (size_t i = 0; i < OB_ARRAY_SIZE(inject); i++) {
		struct fleet f;

		make(&f, inject[i]);
		/* So few pages need shorter hashes to collide. */
		for (unsigned int c = 0; c < CELLS; c++)
			ksm_domain_hash_bits(f.domain[c],
					     inject[i] == KSM_INJECT_SKIP_COMPARE ? 4 : 64);
		for (int g = 0; g < GUESTS; g++)
			for (uint64_t p = 0; p < PAGES; p++)
				guest_fill(&f, g, p,
					   inject[i] == KSM_INJECT_LOSE_BREAK
						   ? (uint32_t)p + 1
						   : (uint32_t)(p * GUESTS) + (uint32_t)g + 1);
		scan(&f, 5);
		for (int g = 0; g < GUESTS; g++)
			guest_fill(&f, g, 3, 77777 + (uint32_t)g);
		scan(&f, 2);
		cr_assert_gt(wrong_pages(&f), 0, "injection %u", inject[i]);
		fake_host_hook(f.h, NULL, NULL);
	}
}
