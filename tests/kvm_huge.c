/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_huge.c: guests over huge pages: merged or not as the mode has it, broken, built, taken and put
 * back while they run, without a wrong byte. And whether KVM's tables follow the host's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rig.h"

#define UNIT  EPT_UNIT_PAGES
#define PAGES (RIG_MEM / OB_PAGE_SIZE)
#define UNITS (PAGES / UNIT)

static const struct ept_huge_rule never = {.threshold = EPT_HUGE_NEVER};
static const struct ept_huge_rule often = {.threshold = 32, .rest_ns = OB_NS_PER_MS};

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static struct ept_huge_stats stats(struct rig *r, unsigned int g)
{
	struct ept_huge_stats st;

	cr_assert(!ept_huge_read(&r->ept[g], &st));
	return st;
}

/* Skips where the guest got no huge pages. */
static void need_huge(struct rig *r)
{
	if (stats(r, 0).huge >= UNITS / 2)
		return;
	rig_unmake(r);
	cr_skip_test("no huge page is to be had (switched off, or memory is in pieces)");
}

/* Of guest 0; -1: this KVM does not say. */
static int64_t kvm_huge(struct rig *r)
{
	struct kvm_stats s;
	int64_t pages = -1;
	uint64_t *v;

	if (vm_stats_open(r->vm[0], -1, &s))
		return -1;
	v = calloc(s.n, sizeof(*v));
	cr_assert(!kvm_stats_read(&s, v));
	for (unsigned int i = 0; i < s.n; i++)
		if (!strcmp(s.stat[i].name, "pages_2m"))
			pages = (int64_t)v[i];
	free(v);
	kvm_stats_close(&s);
	return pages;
}

Test(huge, guests_of_2m_are_not_broken_to_merge, .timeout = 120)
{
	struct ksm_stats k;
	struct rig r;

	NEED_KVM();
	rig_make_huge(&r, "kv", &never);
	rig_start(&r);
	need_huge(&r);
	rig_scan_for(&r, 2000);
	for (unsigned int g = 0; g < RIG_GUESTS; g++)
		cr_assert_eq(stats(&r, g).breaks, 0);
	ksm_read_stats(r.k, &k);
	cr_assert_gt(k.huge_left, 0, "there was something to merge");
	rig_unmake(&r);
}

Test(huge, adaptive_guests_are_merged, .timeout = 120)
{
	uint64_t shared = 0;
	struct ept_stats st;
	struct ksm_stats k;
	struct rig r;

	NEED_KVM();
	rig_make_huge(&r, "kv", &often);
	rig_start(&r);
	need_huge(&r);
	rig_scan_start(&r);
	for (int i = 0; i < 200 && shared < PAGES / 2; i++) {
		rig_nap_ms(50);
		shared = 0;
		for (unsigned int g = 0; g < RIG_GUESTS; g++) {
			ept_read_stats(&r.ept[g], &st);
			shared += st.state[EPT_SHARED];
		}
	}
	rig_scan_stop(&r);
	ksm_read_stats(r.k, &k);
	cr_assert_gt(k.huge_broken, 0);
	cr_assert_geq(shared, PAGES / 2, "two alike guests share %d pages", (int)shared);
	rig_unmake(&r);
}

/* KVM maps a huge page by one entry when the host has one, and no longer when it is broken. */
Test(huge, the_tables_of_kvm_follow, .timeout = 120)
{
	int64_t whole, broken, built = 0;
	struct rig r;

	NEED_KVM();
	rig_make_huge(&r, "kv", &never);
	rig_start(&r);
	need_huge(&r);
	whole = kvm_huge(&r);
	if (whole <= 0) {
		rig_unmake(&r);
		cr_skip_test("%s", whole ? "this KVM has no statistics"
					 : "this KVM maps small pages only");
	}
	cr_assert_geq(whole, (int64_t)UNITS / 2);
	for (uint64_t u = 0; u < UNITS; u++)
		cr_assert(ept_huge_break(&r.ept[0], u) >= 0);
	broken = kvm_huge(&r);
	cr_assert_eq(broken, 0, "%lld of %lld", (long long)broken, (long long)whole);
	for (uint64_t u = 0; u < UNITS; u++) {
		int ret = ept_huge_build(&r.ept[0], u);

		/* What the guest has never written, or what is zero, is not private. */
		cr_assert(ret == 0 || ret == -ENOMEM || ret == -EBUSY || ret == -EAGAIN, "%d", ret);
	}
	/* It maps them anew when the guest comes by. */
	for (int i = 0; i < 200 && stats(&r, 0).huge > UNITS / 2 && built < whole / 2; i++) {
		rig_nap_ms(20);
		built = kvm_huge(&r);
	}
	cr_assert(built >= whole / 2 || stats(&r, 0).huge <= UNITS / 2, "%lld of %lld",
		  (long long)built, (long long)whole);
	rig_unmake(&r);
}

/* --- everything at once ------------------------------------------------------------------------ */

struct mill {
	struct rig *r;
	_Atomic bool stop;
	_Atomic uint64_t whole, built;
};

static void *mill_thread(void *arg)
{
	uint64_t seed = 88172645463325252ULL;
	struct mill *m = arg;

	while (!m->stop) {
		struct ept *e = &m->r->ept[rnd(&seed) % RIG_GUESTS];
		struct ept_run run = {.page = rnd(&seed) % PAGES};
		uint64_t unit = rnd(&seed) % UNITS;

		run.n = 1 + rnd(&seed) % OB_MIN(256, PAGES - run.page);
		switch (rnd(&seed) % 5) {
		case 0:
			cr_assert(ept_take(e, &run, 1, rnd(&seed) % 2) >= 0);
			break;
		case 1:
			cr_assert(ept_put_back(e, &run, 1) >= 0);
			break;
		case 2:
			ept_huge_break(e, unit);
			break;
		case 3:
			run = (struct ept_run){.page = unit * UNIT, .n = UNIT};
			cr_assert(ept_put_back(e, &run, 1) >= 0);
			m->built += ept_huge_build(e, unit) == 0;
			break;
		case 4:
			m->whole += ept_take_huge(e, unit * UNIT, UNIT) > 0;
			break;
		}
	}
	return NULL;
}

/* Who builds what is private and hot, in a hurry. */
static void *builder_thread(void *arg)
{
	static const struct ept_builder_opts opts = {.look_ns = 20 * OB_NS_PER_MS,
						     .probe_ns = 20 * OB_NS_PER_MS,
						     .hot = 1,
						     .slack = 400,
						     .gap_ns = OB_NS_PER_MS};
	struct ept_builder b[RIG_GUESTS];
	struct mill *m = arg;

	for (unsigned int g = 0; g < RIG_GUESTS; g++)
		ept_builder_init(&b[g], &m->r->ept[g], &opts, g + 1);
	while (!m->stop) {
		for (unsigned int g = 0; g < RIG_GUESTS; g++)
			ept_builder_step(&b[g], m->r->host.ops->now_ns(&m->r->host), 64);
		rig_nap_ms(2);
	}
	for (unsigned int g = 0; g < RIG_GUESTS; g++)
		ept_builder_exit(&b[g]);
	return NULL;
}

static void *verify_thread(void *arg)
{
	struct mill *m = arg;
	struct ept_verify v;

	while (!m->stop)
		for (unsigned int g = 0; g < RIG_GUESTS; g++) {
			cr_assert(!ept_verify(&m->r->ept[g], &v));
			cr_assert_eq(v.differences, 0, "guest %u page %llu %s: %s", g,
				     (unsigned long long)v.first[0].page,
				     ept_state_name(v.first[0].state), v.first[0].why);
			rig_nap_ms(5);
		}
	return NULL;
}

static void all_at_once(const char *workload)
{
	void *(*const work[])(void *) = {mill_thread, builder_thread, verify_thread};
	static const struct ept_run all = {.page = 0, .n = PAGES};
	pthread_t thread[OB_ARRAY_SIZE(work)];
	struct mill m = {0};
	struct rig r;
	int64_t n;

	NEED_KVM();
	m.r = &r;
	rig_make_huge(&r, workload, &often);
	rig_start(&r);
	need_huge(&r);
	n = ept_take_huge(&r.ept[0], 0, UNIT);
	if (n == -EPERM || n == -EOPNOTSUPP) {
		rig_unmake(&r);
		cr_skip_test("no userfaultfd that answers for KVM");
	}
	rig_scan_start(&r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(work); i++)
		cr_assert(!pthread_create(&thread[i], NULL, work[i], &m));
	/* A minute with OB_LONG=1, else some seconds. */
	for (long ms = getenv("OB_LONG") ? 60000 : 6000; ms > 0; ms -= 100) {
		rig_nap_ms(100);
		for (int g = 0; g < RIG_GUESTS; g++)
			cr_assert_eq(atomic_load(&r.vm[g]->state), VM_RUNNING, "guest %d: %s", g,
				     r.vm[g]->reason);
	}
	m.stop = true;
	for (size_t i = 0; i < OB_ARRAY_SIZE(work); i++)
		pthread_join(thread[i], NULL);
	rig_scan_stop(&r);
	for (unsigned int g = 0; g < RIG_GUESTS; g++) {
		struct ept_faults f;

		ept_read_faults(&r.ept[g], &f);
		cr_assert_eq(f.count[EPT_FAULT_FAILED], 0);
		cr_assert_gt(stats(&r, g).breaks, 0);
		cr_assert_gt(stats(&r, g).builds, 0);
		cr_assert(ept_put_back(&r.ept[g], &all, 1) >= 0);
	}
	cr_assert_gt(m.whole, 0);
	cr_assert_gt(m.built, 0);
	rig_unmake(&r);
}

Test(huge, all_at_once, .timeout = 180)
{
	all_at_once("churn");
}

Test(huge, all_at_once_under_disk_reads, .timeout = 180)
{
	all_at_once("filecache");
}
