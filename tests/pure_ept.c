/* SPDX-License-Identifier: Apache-2.0 */
/* pure_ept.c: the page-state map against a naive oracle, on a host that is only memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ept/ept.h"
#include "tests/fake_host.h"

#define PAGES 64

struct bench_vm {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept e;
	int pool;
	int parked;
	uint32_t broken[4096];
	unsigned int nbroken;
};

static void park(void *arg)
{
	((struct bench_vm *)arg)->parked++;
}

static void unpark(void *arg)
{
	((struct bench_vm *)arg)->parked--;
}

static void on_broken(void *arg, uint64_t page, uint32_t frame)
{
	struct bench_vm *b = arg;

	(void)page;
	cr_assert(b->nbroken < 4096);
	b->broken[b->nbroken++] = frame;
}

static void make(struct bench_vm *b, uint64_t pages)
{
	memset(b, 0, sizeof(*b));
	b->h = fake_host_new();
	b->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&b->mem, b->h, pages * OB_PAGE_SIZE, "test"));
	cr_assert(!ept_init(&b->e, b->h, &b->mem,
			    (struct ept_parker){.park = park, .unpark = unpark, .arg = b},
			    b->arena));
	ept_on_broken(&b->e, on_broken, b);
	b->pool = b->h->ops->memfd(b->h, "pool", PAGES * OB_PAGE_SIZE);
	cr_assert(b->pool >= 0);
}

static void unmake(struct bench_vm *b)
{
	ept_check(&b->e);
	ept_exit(&b->e);
	gmem_exit(&b->mem);
	ob_arena_free(b->arena);
	fake_host_free(b->h);
}

static hva_t at(struct bench_vm *b, uint64_t page)
{
	return gmem_page_hva(&b->mem, page);
}

static void fill(uint8_t *buf, uint8_t v)
{
	memset(buf, v, OB_PAGE_SIZE);
}

Test(ept, starts_untouched)
{
	struct bench_vm b;
	struct ept_stats st;

	make(&b, PAGES);
	ept_read_stats(&b.e, &st);
	cr_assert_eq(st.state[EPT_UNTOUCHED], PAGES);
	cr_assert_eq(ept_state_of(&b.e, PAGES - 1), EPT_UNTOUCHED);
	cr_assert_eq(ept_frame_of(&b.e, 0), EPT_NO_FRAME);
	unmake(&b);
}

Test(ept, sync_finds_first_touches)
{
	struct bench_vm b;
	struct ept_stats st;
	uint8_t v = 7;

	make(&b, PAGES);
	fake_host_write(b.h, at(&b, 3), &v, 1);
	fake_host_read(b.h, at(&b, 4), &v, 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 3), EPT_PRIVATE);
	cr_assert_eq(ept_state_of(&b.e, 4), EPT_ZERO, "a page only read holds the zero page");
	ept_read_stats(&b.e, &st);
	cr_assert_eq(st.touched, 2);
	unmake(&b);
}

Test(ept, without_frame_numbers_a_read_page_counts_as_private)
{
	struct bench_vm b;
	uint8_t v;

	make(&b, PAGES);
	fake_host_knows_pfn(b.h, false);
	fake_host_read(b.h, at(&b, 4), &v, 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 4), EPT_PRIVATE, "never claim a saving that is not known");
	unmake(&b);
}

/* The whole life of a page: private, shared, broken, shared again, dropped, touched. */
Test(ept, life_of_a_page)
{
	struct bench_vm b;
	uint8_t page[OB_PAGE_SIZE], got[OB_PAGE_SIZE];

	make(&b, PAGES);
	fill(page, 0xaa);
	fake_host_write(b.h, at(&b, 5), page, sizeof(page));
	cr_assert(!b.h->ops->file_write(b.h, b.pool, page, sizeof(page), 9 * OB_PAGE_SIZE));
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));

	ept_freeze(&b.e, 4, 4);
	cr_assert_eq(b.parked, 1);
	cr_assert_eq(ept_share(&b.e, 5, 1, b.pool, 9), OB_PAGE_SIZE, "one page was given back");
	ept_thaw(&b.e);
	cr_assert_eq(b.parked, 0);
	cr_assert_eq(ept_state_of(&b.e, 5), EPT_SHARED);
	cr_assert_eq(ept_frame_of(&b.e, 5), 9);
	fake_host_read(b.h, at(&b, 5), got, sizeof(got));
	cr_assert(!memcmp(page, got, sizeof(got)));
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(b.nbroken, 0, "reading breaks nothing");

	fake_host_write(b.h, at(&b, 5), "x", 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 5), EPT_PRIVATE);
	cr_assert_eq(b.nbroken, 1);
	cr_assert_eq(b.broken[0], 9);

	/* Dropping it now must not bring the frame to light again. */
	memset(got, 0, sizeof(got));
	fake_host_write(b.h, at(&b, 5), got, sizeof(got));
	ept_freeze(&b.e, 5, 1);
	cr_assert_eq(ept_drop_zero(&b.e, 5, 1), OB_PAGE_SIZE);
	ept_thaw(&b.e);
	cr_assert_eq(ept_state_of(&b.e, 5), EPT_ZERO);
	fake_host_read(b.h, at(&b, 5), got, sizeof(got));
	for (unsigned int i = 0; i < sizeof(got); i++)
		cr_assert_eq(got[i], 0);
	fake_host_write(b.h, at(&b, 5), "y", 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 5), EPT_PRIVATE);
	unmake(&b);
}

Test(ept, share_that_fails_changes_nothing)
{
	struct bench_vm b;
	uint8_t page[OB_PAGE_SIZE], got[OB_PAGE_SIZE];

	make(&b, PAGES);
	fill(page, 0x55);
	fake_host_write(b.h, at(&b, 1), page, sizeof(page));
	cr_assert(!b.h->ops->file_write(b.h, b.pool, page, sizeof(page), 0));
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	for (int op = FAKE_MAP_FRAMES; op <= FAKE_PAGES; op += FAKE_PAGES - FAKE_MAP_FRAMES) {
		ept_freeze(&b.e, 1, 1);
		fake_host_fail(b.h, (enum fake_op)op, 1, ENOMEM);
		cr_assert_eq(ept_share(&b.e, 1, 1, b.pool, 0), -ENOMEM);
		fake_host_fail(b.h, (enum fake_op)op, 1, 0);
		ept_thaw(&b.e);
		cr_assert_eq(ept_state_of(&b.e, 1), EPT_PRIVATE);
		fake_host_read(b.h, at(&b, 1), got, sizeof(got));
		cr_assert(!memcmp(page, got, sizeof(got)));
		ept_check(&b.e);
	}
	unmake(&b);
}

Test(ept, bad_ranges_are_refused)
{
	struct bench_vm b;
	struct gmem_access acc;

	make(&b, PAGES);
	cr_assert_eq(ept_sync(&b.e, PAGES, 1, NULL), -EINVAL);
	cr_assert_eq(ept_sync(&b.e, 1, UINT64_MAX, NULL), -EINVAL);
	cr_assert_eq(ept_dma_begin(&b.e, gpa(PAGES * OB_PAGE_SIZE), 1, true, &acc), -EFAULT);
	cr_assert_eq(ept_dma_begin(&b.e, gpa(PAGES * OB_PAGE_SIZE - 1), 2, true, &acc), -EFAULT);
	cr_assert_eq(ept_dma_begin(&b.e, gpa(UINT64_MAX), 2, true, &acc), -EFAULT);
	cr_assert_eq(ept_dma_begin(&b.e, gpa(0), UINT64_MAX, true, &acc), -EFAULT);
	unmake(&b);
}

Test(ept, pages_under_dma_are_left_out)
{
	struct bench_vm b;
	struct gmem_access acc[EPT_MAX_DMA + 1];
	struct ept_stats st;

	make(&b, PAGES);
	/* From the middle of page 10 to the first byte of page 12. */
	cr_assert(!ept_dma_begin(&b.e, gpa(10 * OB_PAGE_SIZE + 100), 2 * OB_PAGE_SIZE - 99, true,
				 acc));
	ept_freeze(&b.e, 8, 8);
	for (uint64_t p = 0; p < 20; p++)
		cr_assert_eq(ept_frozen(&b.e, p), p >= 8 && p < 16 && (p < 10 || p > 12), "page %d",
			     (int)p);
	ept_dma_end(&b.e, acc);
	cr_assert(ept_frozen(&b.e, 11), "an access that has ended no longer keeps its pages out");
	ept_thaw(&b.e);
	ept_read_stats(&b.e, &st);
	cr_assert_eq(st.dma_left_out, 3);

	for (int i = 0; i < EPT_MAX_DMA; i++)
		cr_assert(!ept_dma_begin(&b.e, gpa(0), 1, false, &acc[i]));
	cr_assert_eq(ept_dma_begin(&b.e, gpa(0), 1, false, &acc[EPT_MAX_DMA]), -EBUSY);
	for (int i = 0; i < EPT_MAX_DMA; i++)
		ept_dma_end(&b.e, &acc[i]);
	unmake(&b);
}

static void *dma_thread(void *arg)
{
	struct bench_vm *b = arg;
	struct gmem_access acc;

	cr_assert(!ept_dma_begin(&b->e, gpa(9 * OB_PAGE_SIZE), 16, true, &acc));
	cr_assert(!b->e.frozen_n, "the access began while the range was frozen");
	ept_dma_end(&b->e, &acc);
	return NULL;
}

Test(ept, access_to_a_frozen_range_waits)
{
	struct bench_vm b;
	struct ept_stats st = {0};
	pthread_t t;

	make(&b, PAGES);
	ept_freeze(&b.e, 8, 8);
	cr_assert(!pthread_create(&t, NULL, dma_thread, &b));
	while (!st.dma_waits)
		ept_read_stats(&b.e, &st);
	ept_thaw(&b.e);
	pthread_join(t, NULL);
	unmake(&b);
}

/* --- against an oracle
 * ---------------------------------------------------------------------------- */

struct oracle {
	enum ept_state state[PAGES];
	uint32_t frame[PAGES];
	uint8_t content[PAGES];		     /* each page holds one byte value */
	bool touched[PAGES], written[PAGES]; /* since the last sync */
};

static void oracle_sync(struct oracle *o, unsigned int *broken)
{
	for (int p = 0; p < PAGES; p++) {
		if (o->written[p] && o->state[p] != EPT_PRIVATE) {
			*broken += o->state[p] == EPT_SHARED;
			o->state[p] = EPT_PRIVATE;
		} else if (o->touched[p] && o->state[p] == EPT_UNTOUCHED) {
			o->state[p] = EPT_ZERO;
		}
		o->written[p] = o->touched[p] = false;
	}
}

/* Random writes, reads, shares, drops and swap-outs; after each sync map and memory must agree. */
Test(ept, randomised_against_oracle)
{
	unsigned int seed = 20240117, broken = 0;
	uint8_t page[OB_PAGE_SIZE], got[OB_PAGE_SIZE];
	struct oracle o = {0};
	struct bench_vm b;

	make(&b, PAGES);
	for (int step = 0; step < 20000; step++) {
		int p = rand_r(&seed) % PAGES, v = rand_r(&seed) % 4;
		int what = rand_r(&seed) % 10;

		if (what < 3) { /* write one of four contents, 0 among them */
			fill(page, (uint8_t)v);
			fake_host_write(b.h, at(&b, (uint64_t)p), page, sizeof(page));
			o.content[p] = (uint8_t)v;
			o.touched[p] = o.written[p] = true;
		} else if (what < 5) {
			fake_host_read(b.h, at(&b, (uint64_t)p), got, sizeof(got));
			o.touched[p] = true;
			fill(page, o.content[p]);
			cr_assert(!memcmp(got, page, sizeof(got)), "seed 20240117 step %d", step);
		} else if (what == 5) {
			fake_host_swap_out(b.h, at(&b, (uint64_t)p), 1);
		} else {
			int n = 1 + rand_r(&seed) % 4;

			cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
			oracle_sync(&o, &broken);
			n = n > PAGES - p ? PAGES - p : n;
			ept_freeze(&b.e, (uint64_t)p, (uint64_t)n);
			for (int q = p; q < p + n; q++) {
				if (o.state[q] != EPT_PRIVATE)
					continue;
				fill(page, o.content[q]);
				if (!o.content[q]) {
					cr_assert(ept_drop_zero(&b.e, (uint64_t)q, 1) >= 0);
					o.state[q] = EPT_ZERO;
				} else {
					cr_assert(!b.h->ops->file_write(
						b.h, b.pool, page, sizeof(page),
						o.content[q] * OB_PAGE_SIZE));
					cr_assert(ept_share(&b.e, (uint64_t)q, 1, b.pool,
							    o.content[q]) >= 0);
					o.state[q] = EPT_SHARED;
					o.frame[q] = o.content[q];
				}
			}
			ept_thaw(&b.e);
			b.nbroken = 0;
			broken = 0;
		}
		if (what < 6)
			continue;
		for (int q = 0; q < PAGES; q++) {
			cr_assert_eq(ept_state_of(&b.e, (uint64_t)q), o.state[q],
				     "seed 20240117 step %d page %d: %s, not %s", step, q,
				     ept_state_name(ept_state_of(&b.e, (uint64_t)q)),
				     ept_state_name(o.state[q]));
			if (o.state[q] == EPT_SHARED)
				cr_assert_eq(ept_frame_of(&b.e, (uint64_t)q), o.frame[q]);
		}
		ept_check(&b.e);
	}
	unmake(&b);
}
