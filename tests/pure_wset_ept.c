/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_wset_ept.c: the sampler over a real ept and a host that is only memory: all states, faults
 * that are answered between its steps, kernels with and without UFFDIO_MOVE. All pages are sampled,
 * so what is counted must be what the guest uses, to the page.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ept/wset_int.h"
#include "tests/fake_host.h"

#define PAGES  2048
#define PERIOD (10 * OB_NS_PER_SEC)

struct guest {
	struct ob_host *h;
	struct gmem mem;
	struct ept e;
	struct ob_arena *arena;
	struct ept_wset w;
	int pool;
	bool uses[PAGES], writes[PAGES];
	unsigned int parked, most_parked;
};

static void park(void *arg)
{
	struct guest *g = arg;

	g->parked++;
	g->most_parked = OB_MAX(g->most_parked, g->parked);
}

static void unpark(void *arg)
{
	((struct guest *)arg)->parked--;
}

static hva_t at(struct guest *g, uint64_t page)
{
	return gmem_page_hva(&g->mem, page);
}

static void fill(struct guest *g, uint64_t page)
{
	uint8_t buf[OB_PAGE_SIZE];

	memset(buf, (int)(page % 250) + 1, sizeof(buf));
	fake_host_write(g->h, at(g, page), buf, sizeof(buf));
	cr_assert(!g->h->ops->file_write(g->h, g->pool, buf, sizeof(buf), page * OB_PAGE_SIZE));
}

/* A quarter of all pages each: private, shared (of these some broken off again), zero, untouched;
 * and of each some that the guest uses. */
static void make(struct guest *g, bool move, unsigned int seed)
{
	struct ept_wset_opts o = ept_wset_defaults();

	memset(g, 0, sizeof(*g));
	g->h = fake_host_new();
	fake_host_uffd_caps(g->h, (struct ob_uffd_caps){.move = move, .protect = true});
	g->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&g->mem, g->h, PAGES * OB_PAGE_SIZE, "test"));
	cr_assert(!ept_init(&g->e, g->h, &g->mem,
			    (struct ept_parker){.park = park, .unpark = unpark, .arg = g},
			    g->arena));
	g->e.no_thread = true;
	g->pool = g->h->ops->memfd(g->h, "pool", PAGES * OB_PAGE_SIZE);
	for (uint64_t p = 0; p < PAGES; p++) {
		g->uses[p] = rand_r(&seed) % 3 == 0;
		g->writes[p] = rand_r(&seed) % 2;
		if (p % 128 < 96)
			fill(g, p);
	}
	cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
	for (uint64_t p = 0; p < PAGES; p += 128) {
		cr_assert(!ept_freeze(&g->e, p + 32, 64));
		cr_assert(ept_share(&g->e, p + 32, 32, g->pool, (uint32_t)p + 32) >= 0);
		ept_thaw(&g->e);
		fill(g, p + 40);
		for (uint64_t q = p + 64; q < p + 96; q++) {
			uint8_t zero[OB_PAGE_SIZE] = {0};

			fake_host_write(g->h, at(g, q), zero, sizeof(zero));
		}
		cr_assert(!ept_freeze(&g->e, p + 64, 32));
		cr_assert(ept_drop_zero(&g->e, p + 64, 32) >= 0);
		ept_thaw(&g->e);
	}
	o.samples = EPT_WSET_MAX_SAMPLES;
	o.period_ns = PERIOD;
	o.seed = seed;
	cr_assert(!ept_wset_init(&g->w, &g->e, &o));
}

static void unmake(struct guest *g)
{
	struct ept_verify v;
	struct ept_stats st;

	ept_wset_exit(&g->w);
	ept_read_stats(&g->e, &st);
	cr_assert(!st.staged && !st.windows, "%d staged, %d windows", (int)st.staged,
		  (int)st.windows);
	cr_assert(!ept_verify(&g->e, &v));
	cr_assert_eq(v.differences, 0, "page %d: %s", (int)v.first[0].page, v.first[0].why);
	cr_assert_eq(g->parked, 0);
	ept_exit(&g->e);
	gmem_exit(&g->mem);
	cr_assert_eq(ob_arena_bytes(g->arena), 0);
	ob_arena_free(g->arena);
	fake_host_free(g->h);
}

/* The guest touches what it uses; what waits is answered, and tried again. */
static void guest_runs(struct guest *g)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		uint8_t was, is = (uint8_t)(p % 250 + 1);
		struct ob_fault f;

		if (!g->uses[p])
			continue;
		for (int tries = 0; !fake_host_try_read(g->h, at(g, p), &was, 1); tries++) {
			cr_assert_lt(tries, 3, "page %d waits for ever", (int)p);
			while (fake_host_faults(g->h, &f, 1))
				ept_fault_answer(&g->e, &f, 1);
		}
		cr_assert(was == is || !was, "page %d", (int)p);
		if (g->writes[p] && was)
			cr_assert(fake_host_try_write(g->h, at(g, p), &was, 1));
	}
}

static void to_the_end_of_a_period(struct guest *g, struct ept_wset_reading *r)
{
	uint64_t number = g->w.last.number;

	for (int i = 0; g->w.last.number == number; i++) {
		uint64_t wait = ept_wset_step(&g->w, g->h->ops->now_ns(g->h));

		cr_assert_lt(i, 100000);
		fake_host_advance(g->h, wait);
		if (g->w.phase == EPT_WSET_WATCH)
			guest_runs(g);
		ept_check(&g->e);
	}
	ept_wset_read(&g->w, r);
}

static void all_sampled(bool move)
{
	for (unsigned int seed = 1; seed <= 5; seed++) {
		struct ept_wset_reading r;
		struct guest g;

		make(&g, move, seed);
		for (int period = 0; period < 3; period++) {
			struct ept_stats before, after;
			unsigned int own = 0, used = 0, shared = 0;
			enum ept_state was[PAGES];

			cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
			ept_read_stats(&g.e, &before);
			for (uint64_t p = 0; p < PAGES; p++) {
				was[p] = ept_state_of(&g.e, p);
				shared += was[p] == EPT_SHARED;
				own += was[p] != EPT_SHARED;
				used += was[p] != EPT_SHARED && g.uses[p];
			}
			to_the_end_of_a_period(&g, &r);
			cr_assert_eq(r.err, 0);
			cr_assert_eq(r.last.part[EPT_WSET_OWN].of, own);
			cr_assert_eq(r.last.part[EPT_WSET_OWN].n, own, "seed %u: %u, not %u", seed,
				     r.last.part[EPT_WSET_OWN].n, own);
			cr_assert_eq(r.last.part[EPT_WSET_OWN].t, used, "seed %u: %u, not %u", seed,
				     r.last.part[EPT_WSET_OWN].t, used);
			/* Of each group of 16 one, and of two groups in eight. */
			cr_assert_eq(r.last.part[EPT_WSET_SHARED].of, shared);
			cr_assert_eq(r.last.part[EPT_WSET_SHARED].n, PAGES / 16 / 4);
			/* Sampling unshares nothing: what is missing the guest has written. */
			cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
			ept_read_stats(&g.e, &after);
			cr_assert_eq(before.state[EPT_SHARED] - after.state[EPT_SHARED],
				     after.broken - before.broken);
			cr_assert(!after.staged && !after.windows);
			for (uint64_t p = 0; p < PAGES; p++)
				if (!g.uses[p])
					cr_assert_eq(ept_state_of(&g.e, p), was[p], "page %d",
						     (int)p);
		}
		unmake(&g);
	}
}

Test(wset_ept, counts_to_the_page)
{
	all_sampled(true);
}

Test(wset_ept, counts_to_the_page_without_uffdio_move)
{
	all_sampled(false);
}

/* A page that a device is using, or that the kernel holds, is not sampled; the rest is. */
Test(wset_ept, busy_pages_are_left_out)
{
	struct ept_wset_reading r;
	struct gmem_access acc;
	struct guest g;

	make(&g, true, 9);
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	cr_assert(!ept_dma_begin(&g.e, gpa(3 * OB_PAGE_SIZE), 2 * OB_PAGE_SIZE, true, &acc));
	fake_host_pin(g.h, at(&g, 8), 3, true);
	to_the_end_of_a_period(&g, &r);
	cr_assert_eq(r.last.part[EPT_WSET_OWN].of - r.last.part[EPT_WSET_OWN].n, 5);
	ept_dma_end(&g.e, &acc);
	fake_host_pin(g.h, at(&g, 8), 3, false);
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	to_the_end_of_a_period(&g, &r);
	cr_assert_eq(r.last.part[EPT_WSET_OWN].of, r.last.part[EPT_WSET_OWN].n);
	unmake(&g);
}

/* Withdrawn in the middle, at any step, with faults that nobody has answered yet. */
Test(wset_ept, withdrawn_at_any_step)
{
	struct guest g;

	make(&g, true, 4);
	for (int steps = 0; steps < 150; steps += 7) {
		struct ept_stats st;
		struct ob_fault f;

		for (int i = 0; i < steps; i++)
			fake_host_advance(g.h, ept_wset_step(&g.w, g.h->ops->now_ns(g.h)));
		/* Somebody waits, and his fault is read late. */
		for (uint64_t p = 0; p < PAGES && !fake_host_waiting(g.h); p++)
			fake_host_try_read(g.h, at(&g, p), &(uint8_t){0}, 1);
		ept_wset_withdraw(&g.w);
		while (fake_host_faults(g.h, &f, 1))
			ept_fault_answer(&g.e, &f, 1);
		cr_assert_eq(fake_host_waiting(g.h), 0);
		ept_read_stats(&g.e, &st);
		cr_assert(!st.staged && !st.windows, "after %d steps", steps);
		ept_check(&g.e);
	}
	unmake(&g);
}

/* What fails costs samples, and nothing else. */
Test(wset_ept, failures_cost_samples_only)
{
	static const enum fake_op ops[] = {FAKE_UFFD_MOVE,    FAKE_UFFD_REGISTER, FAKE_PAGES,
					   FAKE_DISCARD_MANY, FAKE_MAP_EMPTY,	  FAKE_UFFD_COPY};
	struct ept_wset_reading r;
	struct guest g;

	make(&g, true, 6);
	to_the_end_of_a_period(&g, &r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(ops); i++)
		for (uint64_t nth = 1; nth < 40; nth += 6) {
			while (g.w.phase != EPT_WSET_DRAW)
				fake_host_advance(g.h, ept_wset_step(&g.w, g.h->ops->now_ns(g.h)));
			ept_wset_step(&g.w, g.h->ops->now_ns(g.h));
			/* While samples are taken; what goes wrong on the way back ends a guest. */
			fake_host_fail(g.h, ops[i], nth, ENOMEM);
			for (int k = 0; k < 30 && g.w.phase == EPT_WSET_TAKE; k++)
				fake_host_advance(g.h, ept_wset_step(&g.w, g.h->ops->now_ns(g.h)));
			fake_host_fail(g.h, ops[i], 1, 0);
			to_the_end_of_a_period(&g, &r);
			cr_assert_eq(r.err, 0);
			cr_assert_geq(r.last.part[EPT_WSET_OWN].n + 100,
				      r.last.part[EPT_WSET_OWN].of);
		}
	unmake(&g);
}
