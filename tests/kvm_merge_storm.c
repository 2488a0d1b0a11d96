/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_merge_storm.c: merging under guests that write at random all the time, to pages that are alike
 * again soon: merged, broken, merged again (workloads/remerge.h). Each page is verified in full
 * before each write of it, counters among them. Some twenty thousand merges in each test; with
 * OB_LONG=1 a million.
 */
#include <stdlib.h>
#include <string.h>

#include "ksm/domain.h"
#include "tests/storm.h"

#define MERGES	    (getenv("OB_LONG") ? 1000000 : 20000)
#define TIMEOUT	    1800
#define COLLIDE	    8	 /* bits of a hash */
#define SOME_MERGES 1500 /* where merges are few by design */

static struct storm *storm_make(const struct rig_opts *o)
{
	struct storm *s = calloc(1, sizeof(*s));
	const struct ept_run run = {.page = 0, .n = 1};
	int64_t n;

	rig_make_opts(&s->rig, o);
	rig_start(&s->rig);
	n = ept_take(&s->rig.ept[0], &run, 1, false);
	if (n < 0) {
		rig_unmake(&s->rig);
		free(s);
		cr_skip_test("no userfaultfd that answers for KVM");
	}
	return s;
}

static void report(struct storm *s)
{
	uint64_t ops = 0, writes = 0, now = s->rig.host.ops->now_ns(&s->rig.host);
	struct ksm_stats k;

	ksm_read_stats(s->rig.k, &k);
	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		ops += rig_report(&s->rig, i).ops;
		writes += rig_report(&s->rig, i).written_pages;
	}
	cr_log_info("merged %llu, zeroes dropped %llu, in %llu mappings, frames %llu, broken %llu; "
		    "pages verified %llu, written %llu; passes %llu, hashed %llu, not equal %llu; "
		    "taken %llu, spare filled %llu, discarded %llu, verified %llu; maps verified "
		    "%llu; %.1f s of CPU, until %.1f",
		    (unsigned long long)k.merged_pages, (unsigned long long)k.zero_pages,
		    (unsigned long long)k.merge_runs, (unsigned long long)k.frames_made,
		    (unsigned long long)k.broken, (unsigned long long)ops,
		    (unsigned long long)writes, (unsigned long long)k.passes,
		    (unsigned long long)k.hashed_pages, (unsigned long long)k.compare_failed,
		    (unsigned long long)s->taken, (unsigned long long)s->filled,
		    (unsigned long long)s->discarded, (unsigned long long)s->checked,
		    (unsigned long long)s->probed, (double)k.cpu_ns / OB_NS_PER_SEC,
		    (double)now / OB_NS_PER_SEC);
}

/* Until there were so many merges, @parts at work; then all is checked and given back. */
static void storm(const struct rig_opts *o, unsigned int bits, unsigned int parts, uint64_t merges)
{
	struct storm *s;
	struct ksm_stats k;

	NEED_KVM();
	s = storm_make(o);
	if (bits)
		ksm_domain_hash_bits(s->rig.domain, bits);
	report(s);
	storm_begin(s, parts);
	while (storm_goes_on(s, merges))
		rig_nap_ms(20);
	storm_end(s);
	report(s);
	ksm_read_stats(s->rig.k, &k);
	cr_assert_gt(k.merged_pages, 0);
	cr_assert_gt(k.zero_pages, 0);
	cr_assert_gt(k.broken, 0);
	cr_assert(!bits || k.compare_failed > 0);
	if (parts & STORM_TAKE)
		cr_assert_gt(s->taken, 0);
	if (parts & STORM_DISCARD)
		cr_assert(s->filled && s->discarded && s->checked);
	if (parts & STORM_PROBE)
		cr_assert_gt(s->probed, 0);
	rig_unmake(&s->rig);
	cr_assert_eq(s->rig.mismatches, 0);
	cr_assert_gt(s->rig.checked, 0);
	free(s);
}

Test(merge_storm, guests_that_write_at_random, .timeout = TIMEOUT)
{
	storm(&(struct rig_opts){.workload = "remerge:16:5000"}, 0, STORM_MERGE | STORM_REAP,
	      MERGES);
}

Test(merge_storm, under_takes_and_discards, .timeout = TIMEOUT)
{
	storm(&(struct rig_opts){.workload = "remerge:16:5000"}, 0, STORM_ALL, MERGES);
}

Test(merge_storm, without_a_tracker, .timeout = TIMEOUT)
{
	storm(&(struct rig_opts){.workload = "remerge:64:5000", .untracked = true}, 0, STORM_ALL,
	      MERGES);
}

Test(merge_storm, colliding_hashes_never_merge_wrongly, .timeout = TIMEOUT)
{
	storm(&(struct rig_opts){.workload = "remerge:16:5000"}, COLLIDE, STORM_ALL, SOME_MERGES);
}

/* What these tests stand on: a merge that goes wrong is noticed by a guest. */
static void planted(unsigned int inject, bool flip)
{
	const struct rig_opts o = {.workload = "remerge:64:5000", .inject = inject};
	struct storm *s;
	bool found = false;

	NEED_KVM();
	s = storm_make(&o);
	storm_begin(s, STORM_MERGE | STORM_REAP);
	for (uint64_t i = 0; !found && i < 6000; i++) {
		rig_nap_ms(10);
		if (flip)
			(void)ksm_domain_flip(s->rig.coord, 0x9e3779b97f4a7c15ULL * i);
		for (unsigned int g = 0; g < RIG_GUESTS; g++)
			found |= rig_report(&s->rig, g).mismatches ||
				 atomic_load(&s->rig.vm[g]->state) != VM_RUNNING;
	}
	storm_end(s);
	cr_assert(found, "no guest has noticed");
	rig_unmake(&s->rig);
	free(s);
}

Test(merge_storm, a_lost_write_is_noticed, .timeout = TIMEOUT)
{
	planted(KSM_INJECT_LOSE_BREAK, false);
}

Test(merge_storm, a_flipped_bit_is_noticed, .timeout = TIMEOUT)
{
	planted(KSM_INJECT_FLIP_FRAME, true);
}

/* --- guests that come and go ------------------------------------------------------------------ */

#define CYCLES (getenv("OB_LONG") ? 300 : 30)

static uint64_t merged(struct storm *s)
{
	struct ksm_stats k;

	ksm_read_stats(s->rig.k, &k);
	return k.merged_pages;
}

/* Its map is right to the end, and what it held is given back while the others go on. */
static void replace(struct storm *s, unsigned int i, uint64_t cycle)
{
	const struct ept_run all = {.page = 0, .n = STORM_PAGES};
	struct ob_err e;

	/* It has ended, or is about to, or runs until the last moment. */
	if (cycle % 3 == 0)
		vm_ask_stop(s->rig.vm[i]);
	if (cycle % 3 == 1)
		vm_stop(s->rig.vm[i]);
	storm_hold(s);
	cr_assert(ept_put_back(&s->rig.ept[i], &all, 1) >= 0);
	rig_guest_unmake(&s->rig, i);
	/* For some time there is one guest less. */
	if (cycle % 2) {
		storm_release(s);
		rig_nap_ms(20);
		storm_hold(s);
	}
	rig_guest_make(&s->rig, i);
	storm_new_guest(s, i);
	cr_assert(!vm_start(s->rig.vm[i], &e), "%s", e.msg);
	storm_release(s);
}

/* The last one of a tenant is gone, scanner and reaper go on: nothing of it stays in the pool. */
static void all_go(struct storm *s)
{
	const struct ept_run all = {.page = 0, .n = STORM_PAGES};
	struct ksm_domain_stats st;

	storm_hold(s);
	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		cr_assert(ept_put_back(&s->rig.ept[i], &all, 1) >= 0);
		rig_guest_unmake(&s->rig, i);
	}
	storm_release(s);
	for (int i = 0; i < 1000; i++) {
		cr_assert(!ksm_domain_stats(s->rig.coord, &st));
		if (!st.live && !st.filling && !st.entries && !st.pool_blocks_bytes)
			return;
		rig_nap_ms(10);
	}
	cr_assert_fail("%llu frames, %llu entries, %llu bytes of the pool are left",
		       (unsigned long long)st.live, (unsigned long long)st.entries,
		       (unsigned long long)st.pool_blocks_bytes);
}

static void come_and_go(const struct rig_opts *o)
{
	struct storm *s;

	NEED_KVM();
	s = storm_make(o);
	storm_begin(s, STORM_ALL);
	for (int cycle = 0; cycle < CYCLES; cycle++) {
		unsigned int i = (unsigned int)cycle % RIG_GUESTS;
		uint64_t before;

		replace(s, i, (uint64_t)cycle);
		before = merged(s);
		while (storm_goes_on(s, UINT64_MAX) &&
		       (rig_report(&s->rig, i).phase < AGENT_WARM || merged(s) < before + 200))
			rig_nap_ms(2);
	}
	report(s);
	all_go(s);
	storm_end(s);
	rig_unmake(&s->rig);
	cr_assert_eq(s->rig.mismatches, 0);
	free(s);
}

Test(merge_guests, come_and_go, .timeout = TIMEOUT)
{
	come_and_go(&(struct rig_opts){.workload = "remerge:16:5000"});
}

Test(merge_guests, come_and_go_without_a_tracker, .timeout = TIMEOUT)
{
	come_and_go(&(struct rig_opts){.workload = "remerge:16:5000", .untracked = true});
}
