/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_hash_scan.c: what the scanner of the engine `hash` looks at when a tracker says what was
 * written: everything once, then only what changed, each page once for each time that it comes to
 * rest; what keeps changing less and less; and nothing that could be shared is left out.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/engine.h"
#include "tests/track_rig.h"

#define GUESTS 2
#define PAGES  TRACK_PAGES
#define GAP    (250 * OB_NS_PER_MS)

struct fix {
	struct track_rig rig[GUESTS];
	struct ob_host *h;
	struct ob_arena *arena;
	struct ksm_domain *d, *coord;
	int pool, meta;
	struct ksm *k;
	uint64_t now;
	uint32_t (*content)[PAGES]; /* what each guest has written, by page; 0 is all zero */
	unsigned int seed, inside;  /* of the hooks; writes that came inside of calls */
};

static void make(struct fix *x, const struct ksm_opts *opts, bool tracked)
{
	struct ob_err e;

	memset(x, 0, sizeof(*x));
	x->h = fake_host_new();
	x->arena = ob_arena_new("test");
	x->now = 1000 * OB_NS_PER_SEC;
	x->content = calloc(GUESTS, sizeof(*x->content));
	cr_assert(!ksm_domain_create(x->h, GUESTS * PAGES, 1, &x->pool, &x->meta));
	cr_assert(!ksm_domain_open(x->h, x->pool, x->meta, 0, x->arena, &x->d));
	cr_assert(!ksm_domain_open(x->h, x->pool, x->meta, KSM_NO_CELL, x->arena, &x->coord));
	cr_assert(!ksm_new(&x->k, ksm_engine_find("hash"), x->h, x->d, opts, x->arena));
	for (unsigned int i = 0; i < GUESTS; i++) {
		track_rig_make_on(&x->rig[i], x->h, true);
		cr_assert(!ksm_add_guest(
			x->k, &(struct ksm_guest){.ept = &x->rig[i].e,
						  .vm = i,
						  .page_base = i * PAGES,
						  .track = tracked ? &x->rig[i].t : NULL}));
	}
	cr_assert(!ksm_start(x->k, &e));
}

static void unmake(struct fix *x)
{
	ksm_free(x->k);
	/* Nobody holds a frame any more: the pool gives all its memory back. */
	while (ksm_domain_reap(x->coord, UINT64_MAX) > 0)
		;
	{
		struct ksm_domain_stats st;

		cr_assert(!ksm_domain_stats(x->coord, &st));
		cr_assert_eq(st.live + st.filling, 0);
		cr_assert_eq(st.pool_blocks_bytes, 0);
	}
	for (unsigned int i = 0; i < GUESTS; i++)
		track_rig_unmake_on(&x->rig[i]);
	ksm_domain_close(x->d);
	ksm_domain_close(x->coord);
	cr_assert_eq(ob_arena_bytes(x->arena), 0, "metadata left behind");
	ob_arena_free(x->arena);
	fake_host_free(x->h);
	free(x->content);
}

static struct ksm_stats stats(struct fix *x)
{
	struct ksm_stats st;

	ksm_read_stats(x->k, &st);
	return st;
}

static void fill(struct fix *x, unsigned int g, uint64_t page, uint32_t content)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
		buf[i] = content ? content * 2654435761u + i : 0;
	x->content[g][page] = content;
	log_model_write(&x->rig[g].log, page, NULL);
	fake_host_write(x->h, gmem_page_hva(&x->rig[g].mem, page), buf, sizeof(buf));
}

static void check_content(struct fix *x)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++) {
			uint32_t c = x->content[g][p];

			fake_host_read(x->h, gmem_page_hva(&x->rig[g].mem, p), buf, sizeof(buf));
			for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i += 97)
				cr_assert_eq(buf[i], c ? c * 2654435761u + i : 0);
		}
}

/* Step on until @ns later, resting as told. */
static void run_for(struct fix *x, uint64_t ns)
{
	uint64_t end = x->now + ns;

	while (x->now < end) {
		uint64_t rest = ksm_step(x->k, x->now, 512);

		/* A step is not for nothing: each takes a moment. */
		x->now += OB_MIN(OB_MAX(rest, 10000ULL), end - x->now);
	}
}

static uint64_t in_state(struct fix *x, unsigned int g, enum ept_state s)
{
	struct ept_stats st;

	cr_assert(!ept_sync(&x->rig[g].e, 0, PAGES, NULL));
	ept_read_stats(&x->rig[g].e, &st);
	return st.state[s];
}

/* @common pages alike in both guests, the rest unique. */
static void fill_all(struct fix *x, uint64_t common)
{
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			fill(x, g, p, (uint32_t)(p < common ? 1 + p : 100000 * (g + 1) + p));
}

Test(hash_scan, all_is_hashed_once_then_nothing)
{
	struct fix x;
	struct ksm_stats a, b;

	make(&x, NULL, true);
	fill_all(&x, 0);
	run_for(&x, 2 * OB_NS_PER_SEC);
	a = stats(&x);
	/* A log begins with all pages reported, and once more at its first collect. The index loses a
	 * few hints while it grows, and asks for these pages again. */
	cr_assert_eq(a.hashed_pages, GUESTS * PAGES + a.asked_pages);
	cr_assert_leq(a.asked_pages, GUESTS * PAGES / 20);
	run_for(&x, 60 * OB_NS_PER_SEC);
	b = stats(&x);
	cr_assert_eq(b.hashed_pages, a.hashed_pages, "%llu pages hashed for nothing",
		     (unsigned long long)(b.hashed_pages - a.hashed_pages));
	cr_assert_gt(b.passes, a.passes + 100);
	unmake(&x);
}

Test(hash_scan, what_is_equal_is_shared_after_one_look_at_each)
{
	struct fix x;
	struct ksm_stats st;

	make(&x, NULL, true);
	fill_all(&x, PAGES);
	run_for(&x, OB_NS_PER_SEC);
	st = stats(&x);
	for (unsigned int g = 0; g < GUESTS; g++)
		cr_assert_eq(in_state(&x, g, EPT_SHARED), PAGES);
	/* The first holder of each page once more, when it is asked to join. */
	cr_assert_geq(st.asked_pages, PAGES);
	cr_assert_leq(st.asked_pages, PAGES + PAGES / 20);
	cr_assert_leq(st.hashed_pages, GUESTS * PAGES + st.asked_pages + PAGES / 20);
	check_content(&x);
	unmake(&x);
}

Test(hash_scan, a_page_that_was_written_is_hashed_once_when_it_rests)
{
	struct fix x;
	uint64_t before;

	make(&x, NULL, true);
	fill_all(&x, 100);
	run_for(&x, 3 * OB_NS_PER_SEC);
	before = stats(&x).hashed_pages;
	for (unsigned int i = 0; i < 40; i++)
		fill(&x, 1, 700 + i, 5000000 + i);
	run_for(&x, 3 * OB_NS_PER_SEC);
	cr_assert_eq(stats(&x).hashed_pages, before + 40);
	/* And one that becomes what another has is shared, by one look at either. */
	before = stats(&x).hashed_pages;
	fill(&x, 0, 1000, 5000000);
	run_for(&x, 3 * OB_NS_PER_SEC);
	cr_assert_eq(ept_state_of(&x.rig[0].e, 1000), EPT_SHARED);
	cr_assert_eq(ept_state_of(&x.rig[1].e, 700), EPT_SHARED);
	cr_assert_eq(stats(&x).hashed_pages, before + 2);
	check_content(&x);
	unmake(&x);
}

Test(hash_scan, a_merged_page_that_is_written_back_is_merged_again)
{
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, PAGES);
	run_for(&x, OB_NS_PER_SEC);
	for (unsigned int i = 0; i < 50; i++)
		fill(&x, 0, 3 * i, 7000000 + i);
	run_for(&x, 2 * OB_NS_PER_SEC);
	cr_assert_eq(stats(&x).broken, 50);
	cr_assert_eq(in_state(&x, 0, EPT_SHARED), PAGES - 50);
	for (unsigned int i = 0; i < 50; i++)
		fill(&x, 0, 3 * i, 1 + 3 * i);
	run_for(&x, 2 * OB_NS_PER_SEC);
	cr_assert_eq(in_state(&x, 0, EPT_SHARED), PAGES);
	cr_assert_eq(stats(&x).reverted, 50, "only their copies were dropped");
	check_content(&x);
	unmake(&x);
}

Test(hash_scan, pages_that_always_change_are_hardly_looked_at)
{
	struct fix x;
	uint64_t before, passes;

	make(&x, NULL, true);
	fill_all(&x, 0);
	run_for(&x, 2 * OB_NS_PER_SEC);
	before = stats(&x).hashed_pages;
	passes = stats(&x).passes;
	for (unsigned int i = 0; i < 400; i++) {
		for (uint64_t p = 0; p < 64; p++)
			fill(&x, 0, 8 * p, 9000000 + 1000 * i + (uint32_t)p);
		run_for(&x, 100 * OB_NS_PER_MS);
	}
	passes = stats(&x).passes - passes;
	cr_assert_gt(passes, 100);
	/* Heat doubles the distance six times: 64 passes apart in the end. */
	cr_assert_leq(stats(&x).hashed_pages - before, 64 * (8 + passes / 64 + 1));
	/* When they come to rest, they are found. */
	for (uint64_t p = 0; p < 64; p++)
		fill(&x, 1, p, 9000000 + 1000 * 399 + (uint32_t)p);
	run_for(&x, 30 * OB_NS_PER_SEC);
	cr_assert_eq(in_state(&x, 0, EPT_SHARED), 64);
	check_content(&x);
	unmake(&x);
}

/* A log that reports what was not written (docs/tracking.md) delays merging, and does not prevent it. */
Test(hash_scan, reported_always_and_never_written)
{
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, 0);
	run_for(&x, 2 * OB_NS_PER_SEC);
	for (uint64_t p = 0; p < 32; p++) {
		fill(&x, 0, p, 77000 + (uint32_t)p);
		fill(&x, 1, 500 + p, 77000 + (uint32_t)p);
	}
	for (unsigned int i = 0; i < 100; i++) {
		for (uint64_t p = 0; p < 32; p++) {
			log_model_write(&x.rig[0].log, p, NULL);
			log_model_write(&x.rig[1].log, 500 + p, NULL);
		}
		run_for(&x, 50 * OB_NS_PER_MS);
	}
	cr_assert_eq(in_state(&x, 0, EPT_SHARED), 32);
	cr_assert_eq(in_state(&x, 1, EPT_SHARED), 32);
	check_content(&x);
	unmake(&x);
}

/* To collect costs the guest a fault a page that it writes again: the more it writes, the rarer. */
Test(hash_scan, a_guest_that_writes_everything_is_asked_less_often)
{
	struct fix x;
	unsigned int idle, busy;

	make(&x, NULL, true);
	fill_all(&x, 0);
	run_for(&x, 2 * OB_NS_PER_SEC);
	idle = x.rig[0].log.collects;
	run_for(&x, 10 * OB_NS_PER_SEC);
	idle = x.rig[0].log.collects - idle;
	cr_assert_geq(idle, 35 * TRACK_SLOTS);
	busy = x.rig[0].log.collects;
	for (unsigned int i = 0; i < 200; i++) {
		for (uint64_t p = 0; p < PAGES; p++)
			log_model_write(&x.rig[0].log, p, NULL);
		run_for(&x, 50 * OB_NS_PER_MS);
	}
	busy = x.rig[0].log.collects - busy;
	/* 1613 pages of 3 us are 4.8 ms: twice a second. */
	cr_assert_leq(busy, 25 * TRACK_SLOTS);
	cr_assert_geq(busy, 10 * TRACK_SLOTS);
	unmake(&x);
}

/* Logs that fail report everything: more work, nothing missed. */
Test(hash_scan, logs_that_cannot_be_read)
{
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, 300);
	for (unsigned int i = 0; i < 60; i++) {
		x.rig[i % 2].log.fail_collect = 1 + rand() % 4;
		run_for(&x, 50 * OB_NS_PER_MS);
	}
	run_for(&x, 2 * OB_NS_PER_SEC);
	cr_assert_gt(stats(&x).sync_failed, 0);
	cr_assert_eq(in_state(&x, 0, EPT_SHARED), 300);
	cr_assert_eq(in_state(&x, 1, EPT_SHARED), 300);
	check_content(&x);
	unmake(&x);
}

/* A slot whose log cannot be switched on, and guests without any: by hashes alone. */
Test(hash_scan, without_a_log)
{
	struct fix x;
	struct ksm_stats st;

	for (unsigned int untracked = 0; untracked < 2; untracked++) {
		make(&x, NULL, !untracked);
		if (!untracked)
			for (unsigned int g = 0; g < GUESTS; g++)
				x.rig[g].log.fail_set = 2;
		fill_all(&x, 600);
		run_for(&x, 2 * OB_NS_PER_SEC);
		cr_assert_eq(in_state(&x, 0, EPT_SHARED), 600);
		cr_assert_eq(in_state(&x, 1, EPT_SHARED), 600);
		st = stats(&x);
		run_for(&x, 2 * OB_NS_PER_SEC);
		cr_assert_gt(stats(&x).hashed_pages, st.hashed_pages, "all of it, each pass");
		fill(&x, 0, 1, 100001);
		fill(&x, 1, 1, 100001);
		run_for(&x, 2 * OB_NS_PER_SEC);
		cr_assert_eq(in_state(&x, 0, EPT_SHARED), 600);
		check_content(&x);
		unmake(&x);
	}
}

/* --- at random --------------------------------------------------------------------------------- */

#define CONTENTS 600

/* All is at rest: what is equal is shared, what is zero is no memory. */
static void nothing_is_left_out(struct fix *x)
{
	static uint32_t seen[CONTENTS];

	memset(seen, 0, sizeof(seen));
	for (unsigned int g = 0; g < GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			seen[x->content[g][p]]++;
	for (unsigned int g = 0; g < GUESTS; g++) {
		cr_assert(!ept_sync(&x->rig[g].e, 0, PAGES, NULL));
		for (uint64_t p = 0; p < PAGES; p++) {
			uint32_t c = x->content[g][p];
			enum ept_state s = ept_state_of(&x->rig[g].e, p);

			if (!c)
				cr_assert(s == EPT_ZERO || s == EPT_UNTOUCHED);
			else if (seen[c] > 1)
				cr_assert_eq(s, EPT_SHARED, "guest %u page %llu: %s", g,
					     (unsigned long long)p, ept_state_name(s));
		}
	}
}

static void write_some(struct fix *x, unsigned int n)
{
	for (; n; n--)
		fill(x, (unsigned int)rand() % GUESTS, (uint64_t)rand() % PAGES,
		     (uint32_t)rand() % CONTENTS);
}

/* Random writes of few contents, at random times; then rest. */
static void at_random(unsigned int bits, unsigned int rounds)
{
	struct fix x;

	srand(4711);
	for (unsigned int round = 0; round < rounds; round++) {
		make(&x, NULL, true);
		if (bits)
			ksm_domain_hash_bits(x.d, bits);
		for (unsigned int i = 0; i < 400; i++) {
			write_some(&x, 1u + (unsigned int)rand() % 40);
			run_for(&x, (uint64_t)rand() % (60 * OB_NS_PER_MS));
			if (i % 50 == 0)
				check_content(&x);
		}
		run_for(&x, 60 * OB_NS_PER_SEC);
		if (bits) {
			cr_assert_gt(stats(&x).compare_failed, 0);
			cr_assert_gt(stats(&x).merged_pages, 0);
		} else {
			nothing_is_left_out(&x);
		}
		check_content(&x);
		unmake(&x);
	}
}

Test(hash_scan, at_random_nothing_that_is_equal_is_left_out)
{
	at_random(0, 4);
}

/* Only the comparison stands between these and a wrong merge. */
Test(hash_scan, at_random_with_colliding_hashes)
{
	at_random(8, 2);
	at_random(1, 1);
}

/* A guest that runs writes while the scanner is in a call to the host; a frozen one does not. */
static void write_inside(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fix *x = arg;
	unsigned int g = (unsigned int)rand_r(&x->seed) % GUESTS;
	const struct ept *e = &x->rig[g].e;

	(void)h;
	(void)op;
	(void)after;
	if (rand_r(&x->seed) % 8 || e->freezing || e->frozen_n)
		return;
	fill(x, g, (uint64_t)rand_r(&x->seed) % PAGES, (uint32_t)rand_r(&x->seed) % CONTENTS);
	x->inside++;
}

Test(hash_scan, guests_write_in_the_middle_of_everything)
{
	struct fix x;

	srand(4712);
	make(&x, NULL, true);
	x.seed = 4712;
	fake_host_hook(x.h, write_inside, &x);
	for (unsigned int i = 0; i < 1000; i++) {
		write_some(&x, 1u + (unsigned int)rand() % 40);
		run_for(&x, (uint64_t)rand() % (60 * OB_NS_PER_MS));
		if (i % 50 == 0)
			check_content(&x);
	}
	fake_host_hook(x.h, NULL, NULL);
	cr_assert_gt(x.inside, 1000);
	cr_assert_gt(stats(&x).broken, 0);
	run_for(&x, 60 * OB_NS_PER_SEC);
	nothing_is_left_out(&x);
	check_content(&x);
	unmake(&x);
}

static void replace_guest(struct fix *x, unsigned int g)
{
	ksm_remove_guest(x->k, g);
	track_rig_unmake_on(&x->rig[g]);
	track_rig_make_on(&x->rig[g], x->h, true);
	memset(x->content[g], 0, sizeof(x->content[g]));
	cr_assert(!ksm_add_guest(x->k, &(struct ksm_guest){.ept = &x->rig[g].e,
							   .vm = g,
							   .page_base = g * PAGES,
							   .track = &x->rig[g].t}));
}

/* To the next pass, or in it to the first guest's second window. */
static void step_to(struct fix *x, bool second_window)
{
	uint64_t passes = stats(x).passes;

	while (stats(x).passes == passes)
		ksm_step(x->k, x->now, 1);
	if (second_window)
		ksm_step(x->k, x->now, 1);
}

Test(hash_scan, who_takes_a_place_in_the_middle_of_a_pass_is_looked_at_from_the_beginning)
{
	uint64_t reported;
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, 0);
	run_for(&x, 3 * OB_NS_PER_SEC);
	step_to(&x, true);
	reported = stats(&x).dirty_pages;
	replace_guest(&x, 0);
	step_to(&x, false);
	cr_assert_eq(stats(&x).dirty_pages - reported, PAGES);
	unmake(&x);
}

/* In the middle of a pass, with hints and requests of the one that went still about. */
Test(hash_scan, guests_come_and_go)
{
	struct fix x;

	srand(4713);
	make(&x, NULL, true);
	for (unsigned int i = 0; i < 100; i++) {
		write_some(&x, 300);
		run_for(&x, (uint64_t)rand() % (900 * OB_NS_PER_MS));
		for (int step = rand() % 8; step; step--)
			ksm_step(x.k, x.now, 1);
		replace_guest(&x, (unsigned int)rand() % GUESTS);
		check_content(&x);
	}
	write_some(&x, 2 * PAGES);
	run_for(&x, 60 * OB_NS_PER_SEC);
	cr_assert_gt(stats(&x).merged_pages, 1000);
	nothing_is_left_out(&x);
	check_content(&x);
	unmake(&x);
}

/* Each call to the host costs CPU time. */
static void spend(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	(void)arg;
	(void)op;
	if (after)
		fake_host_advance_cpu(h, 500000);
}

/* As run_for, on a CPU that takes its time; the most that one step took. */
static uint64_t work_for(struct fix *x, uint64_t ns)
{
	uint64_t end = x->now + ns, most = 0;

	while (x->now < end) {
		uint64_t before = stats(x).cpu_ns, rest = ksm_step(x->k, x->now, 512);
		uint64_t took = stats(x).cpu_ns - before;

		most = OB_MAX(most, took);
		x->now += OB_MAX(OB_MAX(rest, took), 10000ULL);
	}
	return most;
}

/* More to be done than may be: it takes longer, and all of it is done in the end. */
Test(hash_scan, within_its_budget_nothing_is_left_out)
{
	struct ksm_budget b;
	const struct ksm_opts opts = {.budget = &b};
	uint64_t spent, start, most = 0, allowed;
	struct fix x;

	srand(4714);
	ksm_budget_init(&b, 5, 1000 * OB_NS_PER_SEC);
	make(&x, &opts, true);
	fake_host_hook(x.h, spend, NULL);
	write_some(&x, PAGES);
	/* The advance for new guests is over after this. */
	work_for(&x, 60 * OB_NS_PER_SEC);
	spent = stats(&x).cpu_ns;
	start = x.now;
	for (unsigned int i = 0; i < 600; i++) {
		uint64_t step;

		write_some(&x, 40);
		step = work_for(&x, 50 * OB_NS_PER_MS);
		most = OB_MAX(most, step);
	}
	spent = stats(&x).cpu_ns - spent;
	/* A part of the time, what was saved up before, and the step that overdrew. */
	allowed = (x.now - start) / 20 + 200 * OB_NS_PER_MS + most;
	cr_assert_gt(stats(&x).budget_rests, 10);
	cr_assert_leq(spent, allowed, "%llu us of %llu", (unsigned long long)spent / 1000,
		      (unsigned long long)allowed / 1000);
	/* It was used, too. */
	cr_assert_geq(spent, (x.now - start) / 20 * 8 / 10);
	work_for(&x, 600 * OB_NS_PER_SEC);
	nothing_is_left_out(&x);
	fake_host_hook(x.h, NULL, NULL);
	check_content(&x);
	unmake(&x);
}

/* What reading the kernel's page map takes, and nothing else here takes any. */
static void sync_takes_time(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	(void)arg;
	if (op == FAKE_PAGES && !after)
		fake_host_advance_cpu(h, 5000);
}

Test(hash_scan, costs_are_those_of_the_windows_measured)
{
	const struct ksm_cost *c;
	struct ksm_stats st;
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, 0);
	fake_host_hook(x.h, sync_takes_time, NULL);
	run_for(&x, 20 * OB_NS_PER_SEC);
	fake_host_hook(x.h, NULL, NULL);
	st = stats(&x);
	c = st.cost;
	cr_assert_gt(c[KSM_COST_SKIP].ops, 0);
	cr_assert_gt(c[KSM_COST_HASH].ops, 0);
	cr_assert_leq(c[KSM_COST_HASH].ops, st.hashed_pages);
	cr_assert_eq(c[KSM_COST_HASH].ops, c[KSM_COST_SYNC].ops, "all that was read was hashed");
	cr_assert_eq(c[KSM_COST_HASH].ops, c[KSM_COST_LOOK].ops, "and held still");
	/* Its pages lie side by side: one reading a window. */
	cr_assert_gt(c[KSM_COST_SYNC].ns, 0);
	cr_assert_eq(c[KSM_COST_SYNC].ns % 5000, 0);
	cr_assert_eq(c[KSM_COST_HASH].ns + c[KSM_COST_LOOK].ns + c[KSM_COST_SKIP].ns, 0);
	unmake(&x);
}

/* Breaks that are found are counted where they are found, and nowhere else. */
Test(hash_scan, costs_of_breaks_found)
{
	struct ksm_stats st;
	struct fix x;

	make(&x, NULL, true);
	fill_all(&x, PAGES);
	run_for(&x, 2 * OB_NS_PER_SEC);
	st = stats(&x);
	cr_assert_eq(st.cost[KSM_COST_RELEASE].ops, 0, "none was broken");
	for (uint32_t round = 1; round <= 8; round++) {
		for (uint64_t p = 0; p < PAGES; p += 3)
			fill(&x, 0, p, 900000 * round + (uint32_t)p);
		run_for(&x, 2 * OB_NS_PER_SEC);
		for (uint64_t p = 0; p < PAGES; p += 3)
			fill(&x, 0, p, (uint32_t)(1 + p));
		run_for(&x, 2 * OB_NS_PER_SEC);
	}
	st = stats(&x);
	cr_assert_geq(st.broken, 8 * PAGES / 3);
	cr_assert_gt(st.cost[KSM_COST_RELEASE].ops, 0);
	cr_assert_lt(st.cost[KSM_COST_RELEASE].ops, st.broken / 2, "a part is measured");
	check_content(&x);
	unmake(&x);
}
