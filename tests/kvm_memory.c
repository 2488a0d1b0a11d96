/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_memory.c: the memory workloads that visit pages, in guests of this process: each does what it
 * says, as seen from outside, and each notices when its memory is not what it must be.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli.h"
#include "tests/memrig.h"
#include "workloads/area.h"

Test(vm_memory, each_workload_runs_and_has_nearly_all_memory, .timeout = 120)
{
	static const char *const names[] = {
		"counters", "counters:1",    "counters:1:1", "touch:30", "touch:100:1",
		"writer",   "writer:1000:0", "unique",	     "same:100", "shuffle:100"};
	struct bench_rig r;
	uint64_t first, n;
	struct ob_err e;

	NEED_KVM();
	for (size_t i = 0; i < OB_ARRAY_SIZE(names); i++) {
		memrig_start(&r, names[i], 1);
		cr_assert_eq(bench_rig_area(&r, 0, &first, &n, &e), 0);
		cr_expect_gt(n, MEMRIG_PAGES * 95 / 100, "%s", names[i]);
		cr_expect_eq(first + n, MEMRIG_PAGES, "%s", names[i]);
		memrig_work(&r, 500);
		memrig_finish(&r);
	}
}

Test(vm_memory, bad_parameters_end_the_guest_with_a_line, .timeout = 60)
{
	static const struct {
		const char *workload, *says;
	} bad[] = {
		{"counters:2", "param= from 0 to 1"},
		{"touch:101", "param= from 0 to 100"},
		{"touch:10:2", "param2= from 0 to 1"},
		{"writer:0", "param= from 1 to"},
		{"first:2", "param= from 0 to 1"},
		{"ping:1", "param= from 0 to 0"},
		{"shuffle:100001", "param= from 0 to 100000"},
		{"unique:0:999999", "param2= from 0 to"},
		{"remerge:0", "param= from 1 to"},
	};
	struct bench_rig_config cfg;
	struct bench_rig r;
	struct ob_err e;

	NEED_KVM();
	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		cfg = memrig_config(bad[i].workload, 1);
		cr_assert_eq(bench_rig_open(&r, &cfg, &e), 0, "%s", e.msg);
		cr_expect_eq(bench_rig_start(&r, &e), -EIO);
		cr_expect(strstr(e.msg, bad[i].says), "%s: %s", bad[i].workload, e.msg);
		cr_expect_eq(bench_rig_close(&r, &e), -EIO);
	}
	cfg = memrig_config("counters", BENCH_RIG_GUESTS + 1);
	cr_expect_eq(bench_rig_open(&r, &cfg, &e), -EINVAL);
	cr_expect_eq(bench_rig_close(&r, &e), 0);
	cfg = memrig_config("counters", 1);
	cfg.kernel_path = "/no/such/file";
	cr_expect_eq(bench_rig_open(&r, &cfg, &e), -ENOENT);
	cr_expect_eq(bench_rig_close(&r, &e), 0);
}

/* Each round of counters increments every page once. */
Test(vm_memory, counters_counts_every_page, .timeout = 60)
{
	uint64_t n, least = UINT64_MAX, most = 0, sum = 0;
	struct bench_rig r;
	struct ob_err e;

	NEED_KVM();
	memrig_start(&r, "counters:1", 1);
	memrig_work(&r, 5 * MEMRIG_PAGES);
	vm_park(r.guest[0].vm);
	cr_assert_eq(bench_rig_look(&r, &e), 0);
	n = r.guest[0].report.area_pages;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t c = memrig_page(&r, 0, i)[AREA_COUNTER];

		least = OB_MIN(least, c);
		most = OB_MAX(most, c);
		sum += c;
	}
	cr_expect_geq(least, 4);
	cr_expect_leq(most - least, 1);
	/* It may stand between the page and the sum. */
	cr_expect_leq(sum - r.guest[0].report.ops, 1);
	vm_unpark(r.guest[0].vm);
	memrig_finish(&r);
}

/* A page goes back to what it was some rounds ago: whole, and in itself right. */
Test(vm_memory, counters_notices_a_lost_update, .timeout = 60)
{
	uint64_t old[GEN_PAGE_WORDS], *page;
	struct bench_rig r;
	struct agent_mismatch m;

	NEED_KVM();
	memrig_start(&r, "counters", 1);
	page = memrig_page(&r, 0, 1234);
	vm_park(r.guest[0].vm);
	memcpy(old, page, sizeof(old));
	vm_unpark(r.guest[0].vm);
	memrig_work(&r, 3 * MEMRIG_PAGES);
	vm_park(r.guest[0].vm);
	memcpy(page, old, sizeof(old));
	vm_unpark(r.guest[0].vm);
	m = memrig_noticed(&r);
	cr_expect_eq(m.gpa, r.guest[0].report.area_gpa + 1234 * OB_PAGE_SIZE);
	cr_expect_eq(m.got, old[AREA_COUNTER]);
	memrig_finish_wrong(&r);
}

/* A page of the same age, but another one. */
Test(vm_memory, counters_notices_a_wrong_page, .timeout = 60)
{
	struct agent_mismatch m;
	struct bench_rig r;

	NEED_KVM();
	memrig_start(&r, "counters:0:50", 1);
	vm_park(r.guest[0].vm);
	memrig_page(&r, 0, 77)[AREA_CHECK] = memrig_page(&r, 0, 78)[AREA_CHECK];
	vm_unpark(r.guest[0].vm);
	m = memrig_noticed(&r);
	cr_expect_eq(m.gpa, r.guest[0].report.area_gpa + 77 * OB_PAGE_SIZE + AREA_CHECK * 8);
	memrig_finish_wrong(&r);
}

/* What touch leaves alone keeps its first counter; all else is written in every second round. */
static void touches(const char *workload, uint64_t percent, bool scattered)
{
	uint64_t n, hot, written = 0, in_first_half = 0, total = MEMRIG_PAGES;
	struct bench_rig r;
	struct ob_err e;

	memrig_start(&r, workload, 1);
	hot = r.guest[0].report.area_hot;
	n = r.guest[0].report.area_pages;
	/* With the guest's own pages it is the share of all memory. */
	cr_expect_leq(hot, total * percent / 100);
	cr_expect_geq(hot + (total - n), total * percent / 100 - 256);
	memrig_work(&r, 2 * hot + hot / 50);
	vm_park(r.guest[0].vm);
	cr_assert_eq(bench_rig_look(&r, &e), 0);
	for (uint64_t i = 0; i < n; i++) {
		if (!memrig_page(&r, 0, i)[AREA_COUNTER])
			continue;
		written++;
		in_first_half += i < n / 2;
	}
	cr_expect_eq(written, hot, "%llu pages written, %llu are to be touched",
		     (unsigned long long)written, (unsigned long long)hot);
	if (scattered)
		cr_expect(in_first_half > written * 4 / 10 && in_first_half < written * 6 / 10);
	else
		cr_expect_eq(in_first_half, written);
	vm_unpark(r.guest[0].vm);
	memrig_finish(&r);
}

Test(vm_memory, touch_touches_its_share_and_no_more, .timeout = 120)
{
	NEED_KVM();
	touches("touch:30", 30, false);
	touches("touch:60:1", 60, true);
}

Test(vm_memory, touch_notices_a_lost_update, .timeout = 60)
{
	struct agent_mismatch m;
	struct bench_rig r;
	uint64_t *page;

	NEED_KVM();
	memrig_start(&r, "touch:40", 1);
	page = memrig_page(&r, 0, 10);
	vm_park(r.guest[0].vm);
	/* One more write than there was. */
	area_set(page, 0, 10, page[AREA_COUNTER] + 1);
	vm_unpark(r.guest[0].vm);
	m = memrig_noticed(&r);
	cr_expect_eq(m.gpa, r.guest[0].report.area_gpa + 10 * OB_PAGE_SIZE);
	memrig_finish_wrong(&r);
}

static uint64_t sum_of(struct bench_rig *r, uint64_t *counter, uint64_t n, uint64_t *changed)
{
	uint64_t sum = 0;

	*changed = 0;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t c = memrig_page(r, 0, i)[AREA_COUNTER];

		*changed += c != counter[i];
		counter[i] = c;
		sum += c;
	}
	return sum;
}

/* All counters together are the operations, so the host can tell by them what was written. */
Test(vm_memory, writer_counters_add_up_to_its_operations, .timeout = 60)
{
	uint64_t n = MEMRIG_PAGES, changed, ops, *counter = calloc(n, sizeof(*counter));
	struct bench_rig r;
	struct ob_err e;

	NEED_KVM();
	memrig_start(&r, "writer:32:500", 1);
	ops = 0;
	for (int i = 0; i < 20; i++) {
		uint64_t sum, did;

		memrig_work(&r, 100);
		vm_park(r.guest[0].vm);
		cr_assert_eq(bench_rig_look(&r, &e), 0, "%s", e.msg);
		sum = sum_of(&r, counter, r.guest[0].report.area_pages, &changed);
		cr_assert_leq(sum - r.guest[0].report.ops, 1, "round %d", i);
		did = sum - ops;
		ops = sum;
		/* Some page more than once, perhaps, but not all of them. */
		cr_assert(changed <= did && changed >= did / 2, "%llu pages by %llu writes",
			  (unsigned long long)changed, (unsigned long long)did);
		vm_unpark(r.guest[0].vm);
	}
	memrig_finish(&r);
	free(counter);
}
