/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_memory_fill.c: the memory workloads that fill memory and hardly use it (unique, same) and
 * those that measure single touches (first, ping), and remerge, whose pages become alike again.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/cli.h"
#include "tests/memrig.h"
#include "workloads/area.h"
#include "workloads/image.h"
#include "workloads/remerge.h"

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Checksums of all pages of both guests' areas, sorted: how many differ? */
static uint64_t different(struct bench_rig *r, uint64_t n)
{
	uint64_t *sum = calloc(2 * n, sizeof(*sum)), kinds = 0;

	for (unsigned int g = 0; g < 2; g++)
		for (uint64_t i = 0; i < n; i++)
			sum[g * n + i] = image_checksum(memrig_page(r, g, i));
	qsort(sum, 2 * n, sizeof(*sum), by_value);
	for (uint64_t i = 0; i < 2 * n; i++)
		kinds += i == 0 || sum[i] != sum[i - 1];
	free(sum);
	return kinds;
}

Test(vm_memory, unique_pages_are_unique_and_same_pages_are_the_same, .timeout = 60)
{
	struct bench_rig r;
	uint64_t n;

	NEED_KVM();
	memrig_start(&r, "unique:0", 2);
	n = r.guest[0].report.area_pages;
	cr_expect_eq(different(&r, n), 2 * n, "pages of unique are alike");
	memrig_finish(&r);

	memrig_start(&r, "same", 2);
	n = r.guest[0].report.area_pages;
	cr_expect_eq(different(&r, n), n, "pages of same differ, or are alike in one guest");
	for (uint64_t i = 0; i < n; i++)
		cr_assert(!memcmp(memrig_page(&r, 0, i), memrig_page(&r, 1, i), OB_PAGE_SIZE));
	memrig_finish(&r);
}

/* The same pages in both, no two neighbours of one neighbours in the other, but by chance. */
Test(vm_memory, shuffle_keeps_no_neighbours, .timeout = 60)
{
	uint64_t n, *sum, kept = 0;
	struct bench_rig r;

	NEED_KVM();
	memrig_start(&r, "shuffle", 2);
	n = r.guest[0].report.area_pages;
	cr_expect_eq(different(&r, n), n, "not the same pages, or alike in one guest");
	sum = calloc(2 * n, sizeof(*sum));
	cr_assert(sum);
	for (unsigned int g = 0; g < 2; g++)
		for (uint64_t i = 0; i < n; i++)
			sum[g * n + i] = image_checksum(memrig_page(&r, g, i));
	for (uint64_t i = 0; i + 1 < n; i++)
		for (uint64_t k = 0; k + 1 < n; k++)
			kept += sum[i] == sum[n + k] && sum[i + 1] == sum[n + k + 1];
	cr_expect_lt(kept, 12, "%llu of %llu", (unsigned long long)kept, (unsigned long long)n);
	free(sum);
	memrig_finish(&r);
}

/* Its last pages are left alone. */
Test(vm_memory, unique_with_free_memory, .timeout = 60)
{
	struct bench_rig r;
	uint64_t n;

	NEED_KVM();
	memrig_start(&r, "unique:0", 1);
	n = r.guest[0].report.area_pages;
	cr_expect_eq(r.guest[0].report.free_untouched_pages, 0);
	memrig_finish(&r);
	memrig_start(&r, "unique:100:512", 1);
	cr_expect_eq(r.guest[0].report.area_pages, n - 512);
	cr_expect_eq(r.guest[0].report.free_untouched_pages, 512);
	memrig_work(&r, 200);
	for (uint64_t i = 0; i < 512; i++) {
		const uint64_t *page =
			hva_ptr(gmem_page_hva(&r.guest[0].vm->mem, MEMRIG_PAGES - 512 + i));

		for (unsigned int w = 0; w < 512; w++)
			cr_assert_eq(page[w], 0);
	}
	memrig_finish(&r);
}

/* Checksums of all pages of the first guest's area, which stands still meanwhile. The caller frees them. */
static uint64_t *sums_of(struct bench_rig *r, uint64_t n)
{
	uint64_t *sum = calloc(n, sizeof(*sum));

	cr_assert(sum);
	vm_park(r->guest[0].vm);
	for (uint64_t i = 0; i < n; i++)
		sum[i] = image_checksum(memrig_page(r, 0, i));
	vm_unpark(r->guest[0].vm);
	return sum;
}

Test(vm_memory, unique_rewrites_its_pages_in_turn_and_notices_wrong_ones, .timeout = 60)
{
	uint64_t first, n, changed = 0, ends = 0, *before, *after, *page;
	struct bench_rig r;
	struct ob_err e;

	NEED_KVM();
	memrig_start(&r, "unique:1000", 1);
	first = r.guest[0].report.written_pages;
	n = r.guest[0].report.area_pages;
	before = sums_of(&r, n);
	memrig_work(&r, 640);
	cr_assert_eq(bench_rig_look(&r, &e), 0);
	cr_expect_gt(r.guest[0].report.written_pages, first + 500);
	after = sums_of(&r, n);
	/* In turn: one run of them, which may go over the end. */
	for (uint64_t i = 0; i < n; i++) {
		uint64_t next = (i + 1) % n;

		changed += before[i] != after[i];
		ends += before[i] != after[i] && before[next] == after[next];
	}
	cr_expect_gt(changed, 500);
	cr_expect_leq(ends, 1, "%llu runs", (unsigned long long)ends);
	free(before);
	free(after);
	vm_park(r.guest[0].vm);
	page = memrig_page(&r, 0, 5000);
	page[300] ^= 1;
	vm_unpark(r.guest[0].vm);
	memrig_noticed(&r);
	memrig_finish_wrong(&r);
}

static bool is_done(const struct agent_report *r, uint64_t arg)
{
	(void)arg;
	return r->job_ns != 0;
}

Test(vm_memory, first_touches_each_page_once, .timeout = 60)
{
	struct bench_rig r;
	struct ept_stats st;
	uint64_t n, lat = 0;
	struct ob_err e;

	NEED_KVM();
	memrig_start(&r, "first", 1);
	cr_assert_eq(bench_rig_wait(&r, is_done, 0, 60, &e), 0, "%s", e.msg);
	n = r.guest[0].report.area_pages;
	cr_expect_eq(r.guest[0].report.ops, n);
	for (unsigned int i = 0; i < AGENT_LAT_BUCKETS; i++)
		lat += r.guest[0].report.lat[i];
	cr_expect_gt(r.guest[0].report.job_page_ps, 0);
	cr_expect_eq(lat, n);
	for (uint64_t i = 0; i < n; i++)
		cr_assert_eq(memrig_page(&r, 0, i)[0], i + 1);
	memrig_finish(&r);

	/* Reading: memory that nobody has written before is the kernel's zero page. */
	memrig_start(&r, "first:0", 1);
	cr_assert_eq(bench_rig_wait(&r, is_done, 0, 60, &e), 0, "%s", e.msg);
	n = r.guest[0].report.area_pages;
	cr_assert_eq(ept_sync(&r.guest[0].ept, 0, MEMRIG_PAGES, NULL), 0);
	ept_read_stats(&r.guest[0].ept, &st);
	if (r.host.knows_pfn)
		cr_expect_geq(st.state[EPT_ZERO], n, "some of it had been touched before");
	memrig_finish(&r);
}

/* More than 3 GiB: the area goes on above the hole. Read only, so that it takes no memory. */
Test(vm_memory, an_area_has_a_hole_below_4_gib, .timeout = 240)
{
	const uint64_t mem = 3 * OB_GIB + 64 * OB_MIB;
	struct bench_rig_config cfg = memrig_config("first:0", 1);
	struct bench_rig r;
	uint64_t first, n;
	struct ob_err e;

	NEED_KVM();
	cfg.mem_bytes = mem;
	cr_assert_eq(bench_rig_open(&r, &cfg, &e), 0, "%s", e.msg);
	cr_assert_eq(bench_rig_start(&r, &e), 0, "%s", e.msg);
	cr_assert_eq(bench_rig_wait(&r, is_done, 0, 180, &e), 0, "%s", e.msg);
	cr_assert_eq(bench_rig_area(&r, 0, &first, &n, &e), 0, "%s", e.msg);
	cr_expect_eq(first + n, mem / OB_PAGE_SIZE);
	cr_expect_eq(r.guest[0].report.ops, n);
	/* The last page, beyond the hole, was reached: the kernel has something there. */
	cr_assert_eq(ept_sync(&r.guest[0].ept, first + n - 1, 1, NULL), 0);
	cr_expect_neq(ept_state_of(&r.guest[0].ept, first + n - 1), EPT_UNTOUCHED);
	cr_expect_geq(gmem_page_gfn(&r.guest[0].vm->mem, first + n - 1).v * OB_PAGE_SIZE,
		      4 * OB_GIB);
	memrig_finish(&r);
}

Test(vm_memory, ping_touches_what_it_is_asked_for, .timeout = 60)
{
	struct agent_ping *p;
	struct bench_rig r;
	uint64_t n, ns, lat = 0;
	struct ob_err e;

	NEED_KVM();
	memrig_start(&r, "ping", 1);
	n = r.guest[0].report.area_pages;
	p = (struct agent_ping *)memrig_page(&r, 0, 0);
	for (uint64_t i = 1; i <= 50; i++) {
		cr_assert_eq(bench_rig_ping(&r, 0, i, i % 2, &ns, &e), 0, "%s", e.msg);
		cr_assert_gt(ns, 0);
		cr_assert_eq(p->counter, i % 2);
		cr_assert_eq(memrig_page(&r, 0, i)[AREA_COUNTER], i % 2);
	}
	cr_assert_eq(bench_rig_ping(&r, 0, n - 1, true, &ns, &e), 0, "%s", e.msg);
	cr_assert_eq(bench_rig_ping(&r, 0, n - 1, true, &ns, &e), 0, "%s", e.msg);
	cr_assert_eq(p->counter, 2);
	/* What is not a page of it we do not ask for; nor does the guest touch it when asked. */
	cr_expect_eq(bench_rig_ping(&r, 0, 0, true, &ns, &e), -EINVAL);
	cr_expect_eq(bench_rig_ping(&r, 0, n, true, &ns, &e), -EINVAL);
	p->page = n;
	__atomic_store_n(&p->ask, p->done + 1, __ATOMIC_RELEASE);
	for (int i = 0; i < 1000 && __atomic_load_n(&p->done, __ATOMIC_ACQUIRE) != p->ask; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	cr_expect_eq(p->ns, AGENT_PING_REFUSED);
	cr_assert_eq(bench_rig_look(&r, &e), 0);
	cr_expect_eq(r.guest[0].report.ops, 52);
	for (unsigned int i = 0; i < AGENT_LAT_BUCKETS; i++)
		lat += r.guest[0].report.lat[i];
	cr_expect_eq(lat, 52);
	memrig_page(&r, 0, 9)[AREA_CHECK]++;
	cr_expect_eq(bench_rig_ping(&r, 0, 9, false, &ns, &e), -EIO);
	memrig_noticed(&r);
	memrig_finish_wrong(&r);
}

/* Few contents, zero pages among them; and a part that the guest leaves alone. */
Test(vm_memory, remerge_has_few_contents, .timeout = 60)
{
	const uint64_t zero[GEN_PAGE_WORDS] = {0};
	uint64_t n, spare, kinds = 0, zeroes = 0, *sum;
	struct bench_rig r;

	NEED_KVM();
	memrig_start(&r, "remerge:16:1000000", 1); /* hardly ever writes */
	n = r.guest[0].report.area_pages;
	spare = r.guest[0].report.free_clean_pages;
	cr_expect_gt(n, MEMRIG_PAGES * 8 / 10);
	cr_expect_gt(spare, MEMRIG_PAGES / 10);
	sum = calloc(n, sizeof(*sum));
	for (uint64_t i = 0; i < n; i++) {
		sum[i] = image_checksum(memrig_page(&r, 0, i));
		zeroes += !memcmp(memrig_page(&r, 0, i), zero, sizeof(zero));
	}
	for (uint64_t i = n; i < n + spare; i++)
		cr_assert(!memcmp(memrig_page(&r, 0, 0) + i * GEN_PAGE_WORDS, zero, sizeof(zero)));
	qsort(sum, n, sizeof(*sum), by_value);
	for (uint64_t i = 0; i < n; i++)
		kinds += i == 0 || sum[i] != sum[i - 1];
	cr_expect_lt(kinds, n * 6 / 10, "%llu of %llu", (unsigned long long)kinds,
		     (unsigned long long)n);
	cr_expect_gt(zeroes, n / 100);
	cr_expect_lt(zeroes, n / 10);
	free(sum);
	memrig_finish(&r);
}

/* A counter that is one behind, a stamp of another time, a wrong word beside it. */
Test(vm_memory, remerge_notices_what_is_lost_or_wrong, .timeout = 120)
{
	for (unsigned int what = 0; what < 3; what++) {
		const uint64_t page = what ? 40 : REMERGE_COUNTER - 1;
		struct agent_mismatch got;
		struct bench_rig r;
		struct remerge m;
		unsigned int at;
		uint64_t *w;

		NEED_KVM();
		memrig_start(&r, "remerge:64:1000", 1);
		/* As bench_rig_open makes them of its seed. */
		m = remerge_of(1, 1000003 + 1);
		w = memrig_page(&r, 0, page);
		at = remerge_stamp_at(&m, page);
		memrig_work(&r, 3 * MEMRIG_PAGES);
		vm_park(r.guest[0].vm);
		if (what == 0) {
			cr_expect(w[at] >= 3 && w[at] < 1000000, "no count of writes");
			w[at]--;
		} else if (what == 1) {
			w[at] = remerge_value(&m, page,
					      w[at] == remerge_value(&m, page, 0) ? 1 : 0);
		} else {
			at = (at + 100) % GEN_PAGE_WORDS;
			w[at] ^= 4;
		}
		vm_unpark(r.guest[0].vm);
		got = memrig_noticed(&r);
		cr_expect_eq(got.gpa, r.guest[0].report.area_gpa + page * OB_PAGE_SIZE + at * 8);
		memrig_finish_wrong(&r);
	}
}
