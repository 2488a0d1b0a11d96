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

/* Pages [from, to) hold @v, all of it. */
static void holds(struct bench_vm *b, uint64_t from, uint64_t to, uint8_t v)
{
	uint8_t page[OB_PAGE_SIZE], got[OB_PAGE_SIZE];

	fill(page, v);
	for (uint64_t p = from; p < to; p++) {
		fake_host_read(b->h, at(b, p), got, sizeof(got));
		cr_assert(!memcmp(page, got, sizeof(got)), "page %d", (int)p);
	}
}

/* Write @v to pages [from, to) and to the frames of the same numbers. */
static void fill_both(struct bench_vm *b, uint64_t from, uint64_t to, uint8_t v)
{
	uint8_t page[OB_PAGE_SIZE];

	fill(page, v);
	for (uint64_t p = from; p < to; p++) {
		fake_host_write(b->h, at(b, p), page, sizeof(page));
		cr_assert(!b->h->ops->file_write(b->h, b->pool, page, sizeof(page),
						 p * OB_PAGE_SIZE));
	}
	cr_assert(!ept_sync(&b->e, 0, PAGES, NULL));
}

static void share(struct bench_vm *b, uint64_t from, uint64_t to, int64_t result)
{
	ept_freeze(&b->e, from, to - from);
	cr_assert_eq(ept_share(&b->e, from, to - from, b->pool, (uint32_t)from), result);
	ept_thaw(&b->e);
}

static void drop(struct bench_vm *b, uint64_t from, uint64_t to, int64_t result)
{
	ept_freeze(&b->e, from, to - from);
	cr_assert_eq(ept_drop_zero(&b->e, from, to - from), result);
	ept_thaw(&b->e);
}

/* While the kernel migrates a frame it shows as swapped. It is as shared as before. */
Test(ept, a_frame_that_the_kernel_migrates_stays_shared)
{
	struct ob_page view[PAGES];
	struct bench_vm b;

	make(&b, PAGES);
	fill_both(&b, 4, 8, 0xaa);
	share(&b, 4, 8, 4 * OB_PAGE_SIZE);
	holds(&b, 4, 8, 0xaa);
	fake_host_migrate_begin(b.h, at(&b, 4), 4);
	cr_assert(!ept_sync(&b.e, 0, PAGES, view));
	cr_assert(view[5].swapped && view[5].file && !view[5].present && !view[5].pfn);
	cr_assert_eq(b.nbroken, 0);
	for (uint64_t p = 4; p < 8; p++) {
		cr_assert_eq(ept_state_of(&b.e, p), EPT_SHARED);
		cr_assert_eq(ept_frame_of(&b.e, p), p);
	}
	fake_host_migrate_end(b.h, at(&b, 4), 2);
	cr_assert(!ept_sync(&b.e, 0, PAGES, view));
	cr_assert(view[5].present && view[5].file && !view[5].swapped);
	cr_assert(view[6].swapped);
	cr_assert_eq(b.nbroken, 0);

	/* A real break of one that is being migrated is seen, its copy being migrated too. */
	fake_host_write(b.h, at(&b, 6), "x", 1);
	fake_host_migrate_begin(b.h, at(&b, 6), 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, view));
	cr_assert(view[6].swapped && !view[6].file);
	cr_assert_eq(b.nbroken, 1);
	cr_assert_eq(b.broken[0], 6);
	cr_assert_eq(ept_state_of(&b.e, 6), EPT_PRIVATE);
	holds(&b, 7, 8, 0xaa);
	unmake(&b);
}

/* A first touch is found even while the page that came of it is on its way. */
Test(ept, a_private_page_that_the_kernel_migrates_is_private)
{
	struct bench_vm b;

	make(&b, PAGES);
	fake_host_write(b.h, at(&b, 3), "x", 1);
	fake_host_migrate_begin(b.h, at(&b, 3), 1);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 3), EPT_PRIVATE);
	unmake(&b);
}

/* A page that lies over a mapping of the pool does so until it is mapped anew, whatever the
 * kernel's KSM and the guest make of it meanwhile. */
Test(ept, a_zero_page_over_the_pool_is_never_discarded)
{
	struct bench_vm b;
	uint8_t page[OB_PAGE_SIZE];
	uint64_t off;
	int fd;

	for (int written_again = 0; written_again < 2; written_again++) {
		make(&b, PAGES);
		fill_both(&b, 9, 10, 0xaa);
		share(&b, 9, 10, OB_PAGE_SIZE);
		fill(page, 0);
		fake_host_write(b.h, at(&b, 9), page, sizeof(page));
		cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
		cr_assert_eq(ept_state_of(&b.e, 9), EPT_PRIVATE);
		fake_host_ksm_zero(b.h, at(&b, 9));
		cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
		cr_assert_eq(ept_state_of(&b.e, 9), EPT_ZERO);
		holds(&b, 9, 10, 0);
		if (written_again) {
			fake_host_write(b.h, at(&b, 9), "x", 1);
			cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
			cr_assert_eq(ept_state_of(&b.e, 9), EPT_PRIVATE);
			fake_host_write(b.h, at(&b, 9), page, sizeof(page));
		}
		drop(&b, 9, 10, written_again ? (int64_t)OB_PAGE_SIZE : 0);
		cr_assert_eq(ept_state_of(&b.e, 9), EPT_ZERO);
		holds(&b, 9, 10, 0);
		cr_assert(!fake_host_frame_of(b.h, at(&b, 9), &fd, &off));
		cr_assert_eq(b.nbroken, 1);
		unmake(&b);
	}
}

/* Broken off, written with zeroes, and replaced by the kernel's zero page, all since the last look. */
Test(ept, a_break_that_ends_in_the_zero_page_is_found)
{
	struct bench_vm b;
	uint8_t page[OB_PAGE_SIZE];

	make(&b, PAGES);
	fill_both(&b, 9, 10, 0xaa);
	share(&b, 9, 10, OB_PAGE_SIZE);
	fill(page, 0);
	fake_host_write(b.h, at(&b, 9), page, sizeof(page));
	fake_host_ksm_zero(b.h, at(&b, 9));
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	cr_assert_eq(ept_state_of(&b.e, 9), EPT_ZERO);
	cr_assert(ept_over_pool(&b.e, 9, 1));
	cr_assert(b.nbroken == 1 && b.broken[0] == 9);
	holds(&b, 9, 10, 0);
	drop(&b, 9, 10, 0);
	holds(&b, 9, 10, 0);
	unmake(&b);
}

/* Some kernels have taken the old mapping away when mmap fails. */
Test(ept, share_that_fails_late_puts_the_content_back)
{
	struct bench_vm b;
	struct ept_stats st;
	uint8_t byte;

	make(&b, PAGES);
	fake_host_read(b.h, at(&b, 6), &byte, 1); /* a zero page among them */
	fill_both(&b, 4, 6, 0xaa);
	fill_both(&b, 7, 8, 0xbb);
	cr_assert_eq(ept_state_of(&b.e, 6), EPT_ZERO);
	/* Page 7 has been broken off a frame before. */
	share(&b, 7, 8, OB_PAGE_SIZE);
	fill_both(&b, 7, 8, 0xcc);

	fake_host_fail_with_hole(b.h, FAKE_MAP_FRAMES, 1, ENOMEM);
	share(&b, 4, 8, -ENOMEM);
	cr_assert_eq(fake_host_mapped_bytes(b.h), PAGES * OB_PAGE_SIZE, "no hole is left");
	holds(&b, 4, 6, 0xaa);
	holds(&b, 6, 7, 0);
	holds(&b, 7, 8, 0xcc);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	for (uint64_t p = 4; p < 8; p++)
		cr_assert_eq(ept_state_of(&b.e, p), p == 6 ? EPT_ZERO : EPT_PRIVATE);
	ept_check(&b.e);

	/* And all of it goes on: what is not over the pool any more may be discarded. */
	fill_both(&b, 7, 8, 0);
	drop(&b, 7, 8, OB_PAGE_SIZE);
	holds(&b, 7, 8, 0);
	share(&b, 4, 6, 2 * OB_PAGE_SIZE);
	holds(&b, 4, 6, 0xaa);
	ept_read_stats(&b.e, &st);
	cr_assert_eq(st.shared, 3);
	unmake(&b);
}

Test(ept, drop_that_fails_late_leaves_no_hole)
{
	struct bench_vm b;

	make(&b, PAGES);
	fill_both(&b, 4, 8, 0xaa);
	share(&b, 4, 8, 4 * OB_PAGE_SIZE);
	fill_both(&b, 4, 8, 0);
	fake_host_fail_with_hole(b.h, FAKE_MAP_EMPTY, 1, ENOMEM);
	drop(&b, 4, 8, 4 * OB_PAGE_SIZE);
	cr_assert_eq(fake_host_mapped_bytes(b.h), PAGES * OB_PAGE_SIZE, "no hole is left");
	holds(&b, 4, 8, 0);
	cr_assert(!ept_sync(&b.e, 0, PAGES, NULL));
	for (uint64_t p = 4; p < 8; p++)
		cr_assert_eq(ept_state_of(&b.e, p), EPT_ZERO);
	unmake(&b);
}

Test(ept, bad_ranges_are_refused)
{
	struct bench_vm b;
	struct gmem_access acc;

	make(&b, PAGES);
	cr_assert_eq(ept_sync(&b.e, PAGES, 1, NULL), -ERANGE);
	cr_assert_eq(ept_sync(&b.e, 1, UINT64_MAX, NULL), -ERANGE);
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

/* Random writes, reads, shares, drops, swap-outs and migrations; after each sync map and memory
 * must agree. */
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
		} else if (what == 5 && v == 0) {
			fake_host_swap_out(b.h, at(&b, (uint64_t)p), 1);
		} else if (what == 5) { /* begun three pages at a time, ended one at a time */
			fake_host_migrate_end(b.h, at(&b, (uint64_t)p), 1);
			if (p >= 3)
				fake_host_migrate_begin(b.h, at(&b, (uint64_t)p - 3), 3);
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
