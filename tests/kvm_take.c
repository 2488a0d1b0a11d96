/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_take.c: taking memory from guests that write to it, and giving it back: by bulk, by fault, by
 * tier, in every way at once. The guests verify their memory all the time; a rig that is unmade has
 * found no mismatch, and the map is the kernel's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rig.h"

#define PAGES (RIG_MEM / OB_PAGE_SIZE)

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Skips where this process may not answer a guest's faults. */
static void need_uffd(struct rig *r)
{
	const struct ept_run run = {.page = 0, .n = 1};
	int64_t n = ept_take(&r->ept[0], &run, 1, false);

	if (n == -EPERM || n == -EOPNOTSUPP) {
		rig_unmake(r);
		cr_skip_test("no userfaultfd that answers for KVM");
	}
	cr_assert(n >= 0, "%lld", (long long)n);
}

static void take_everything(const char *workload, bool copy_only)
{
	const struct ept_run all = {.page = 0, .n = PAGES};
	struct ept_faults f;
	struct ept_stats st;
	uint64_t ops;
	struct rig r;

	NEED_KVM();
	rig_make(&r, workload);
	for (int i = 0; i < RIG_GUESTS; i++)
		r.ept[i].copy_only = copy_only;
	rig_start(&r);
	need_uffd(&r);
	for (int round = 0; round < 30; round++) {
		for (int i = 0; i < RIG_GUESTS; i++)
			cr_assert(ept_take(&r.ept[i], &all, 1, false) >= 0);
		rig_nap_ms(30);
		if (round % 3)
			continue; /* what the guest did not touch stays out */
		for (int i = 0; i < RIG_GUESTS; i++) {
			cr_assert(ept_put_back(&r.ept[i], &all, 1) >= 0);
			ept_read_stats(&r.ept[i], &st);
			cr_assert_eq(st.staged, 0);
			cr_assert_eq(st.windows, 0);
		}
	}
	ops = rig_report(&r, 0).heartbeat;
	for (int i = 0; i < 1000 && rig_report(&r, 0).heartbeat == ops; i++)
		rig_nap_ms(5);
	cr_assert_gt(rig_report(&r, 0).heartbeat, ops, "the guest does not go on: %s",
		     r.vm[0]->reason);
	ept_read_faults(&r.ept[0], &f);
	cr_assert_gt(f.count[EPT_FAULT_STAGING], 0);
	cr_assert_eq(f.count[EPT_FAULT_FAILED], 0);
	cr_assert_gt(ept_fault_latency(&f, EPT_FAULT_STAGING, 0.5), 0);
	rig_unmake(&r);
}

Test(take, everything_from_a_guest_that_writes, .timeout = 120)
{
	take_everything("churn", false);
}

Test(take, everything_without_uffdio_move, .timeout = 120)
{
	take_everything("churn", true);
}

Test(take, everything_under_disk_reads, .timeout = 120)
{
	take_everything("filecache", false);
}

/* A tier of two hands: keeps copies, and forgets them when they are dropped. */
struct shelf {
	pthread_mutex_t lock;
	uint8_t *page[PAGES]; /* slot = page number */
};

static int shelf_load(void *arg, uint32_t slot, void *page)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	cr_assert(s->page[slot], "slot %u is empty", slot);
	memcpy(page, s->page[slot], OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void shelf_drop(void *arg, uint32_t slot)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	free(s->page[slot]);
	s->page[slot] = NULL;
	pthread_mutex_unlock(&s->lock);
}

static const struct ept_tier_ops shelf_ops = {
	.name = "shelf", .around = 16, .load = shelf_load, .drop = shelf_drop};

struct mill {
	struct rig *r;
	struct shelf shelf[RIG_GUESTS];
	_Atomic bool stop;
	_Atomic uint64_t tiered, dropped;
};

/* Take a random stretch; put some of it back, drop the zeroes, shelve the rest. */
static void mill_round(struct mill *m, unsigned int g, uint64_t *seed)
{
	struct ept *e = &m->r->ept[g];
	struct ept_run run = {.page = rnd(seed) % PAGES};
	_Alignas(64) uint8_t buf[OB_PAGE_SIZE];
	struct ept_tiered t;
	uint32_t ticket;
	int64_t r;

	run.n = 1 + rnd(seed) % OB_MIN(256, PAGES - run.page);
	r = ept_take(e, &run, 1, rnd(seed) % 8 == 0);
	cr_assert(r >= 0, "%lld", (long long)r);
	if (rnd(seed) % 4 == 0) {
		cr_assert(ept_put_back(e, &run, 1) >= 0);
		return;
	}
	for (uint64_t p = run.page; p < run.page + run.n; p++) {
		static const uint8_t zero[OB_PAGE_SIZE];

		if (ept_stage_read(e, p, buf, &ticket))
			continue;
		if (!memcmp(buf, zero, sizeof(zero)) && ept_drop_zero(e, p, 1) >= 0) {
			m->dropped++;
			continue;
		}
		pthread_mutex_lock(&m->shelf[g].lock);
		t = (struct ept_tiered){.page = p, .slot = (uint32_t)p, .ticket = ticket};
		if (m->shelf[g].page[p]) { /* its last stay is not cleared away yet */
			pthread_mutex_unlock(&m->shelf[g].lock);
			continue;
		}
		m->shelf[g].page[p] = malloc(OB_PAGE_SIZE);
		memcpy(m->shelf[g].page[p], buf, OB_PAGE_SIZE);
		pthread_mutex_unlock(&m->shelf[g].lock);
		cr_assert(ept_to_tier(e, EPT_COMPRESSED, &t, 1) >= 0);
		if (t.done)
			m->tiered++;
		else
			shelf_drop(&m->shelf[g], (uint32_t)p);
	}
	if (rnd(seed) % 8 == 0)
		cr_assert(ept_load(e, run.page, run.n) >= 0);
}

static void *mill_thread(void *arg)
{
	struct mill *m = arg;
	uint64_t seed = 88172645463325252ULL + (uint64_t)(uintptr_t)&seed;

	for (unsigned int g = 0; !m->stop; g ^= 1)
		mill_round(m, g, &seed);
	return NULL;
}

/* Empty page-table entries of shared and zero pages, here and there. */
static void *zap_thread(void *arg)
{
	struct mill *m = arg;
	uint64_t seed = 0x9e3779b97f4a7c15ULL;
	struct ept_run run[64];
	bool zapped[64];

	while (!m->stop) {
		uint64_t p = rnd(&seed) % 64;
		unsigned int n = 0;

		for (; n < 64 && p < PAGES; p += 1 + rnd(&seed) % 100)
			run[n++] = (struct ept_run){.page = p, .n = 1};
		cr_assert(ept_zap(&m->r->ept[n & 1], run, n, zapped) >= 0);
		rig_nap_ms(1);
	}
	return NULL;
}

static void *verify_thread(void *arg)
{
	struct mill *m = arg;
	struct ept_verify v;

	while (!m->stop)
		for (int g = 0; g < RIG_GUESTS; g++) {
			cr_assert(!ept_verify(&m->r->ept[g], &v));
			cr_assert_eq(v.differences, 0, "guest %d page %llu %s: %s", g,
				     (unsigned long long)v.first[0].page,
				     ept_state_name(v.first[0].state), v.first[0].why);
			rig_nap_ms(5);
		}
	return NULL;
}

static void all_at_once(const char *workload, bool copy_only, long ms)
{
	static const struct ept_run all = {.page = 0, .n = PAGES};
	void *(*const work[])(void *) = {mill_thread, zap_thread, verify_thread};
	pthread_t thread[OB_ARRAY_SIZE(work)];
	struct mill *m = calloc(1, sizeof(*m));
	struct ept_faults f;
	struct ksm_stats k;
	struct rig r;

	NEED_KVM();
	m->r = &r;
	rig_make(&r, workload);
	for (int i = 0; i < RIG_GUESTS; i++) {
		r.ept[i].copy_only = copy_only;
		pthread_mutex_init(&m->shelf[i].lock, NULL);
		cr_assert(!ept_set_tier(&r.ept[i], EPT_COMPRESSED, &shelf_ops, &m->shelf[i]));
	}
	rig_start(&r);
	need_uffd(&r);
	rig_scan_start(&r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(work); i++)
		cr_assert(!pthread_create(&thread[i], NULL, work[i], m));
	for (; ms > 0; ms -= 100) {
		rig_nap_ms(100);
		for (int i = 0; i < RIG_GUESTS; i++)
			cr_assert_eq(atomic_load(&r.vm[i]->state), VM_RUNNING, "guest %d: %s", i,
				     r.vm[i]->reason);
	}
	m->stop = true;
	for (size_t i = 0; i < OB_ARRAY_SIZE(work); i++)
		pthread_join(thread[i], NULL);
	rig_scan_stop(&r);
	for (int i = 0; i < RIG_GUESTS; i++) {
		ept_read_faults(&r.ept[i], &f);
		cr_assert_eq(f.count[EPT_FAULT_FAILED], 0);
		cr_assert_gt(f.count[EPT_FAULT_TIER], 0);
		cr_assert_gt(f.count[EPT_FAULT_STAGING], 0);
		cr_assert(ept_load(&r.ept[i], 0, PAGES) >= 0);
		cr_assert(ept_put_back(&r.ept[i], &all, 1) >= 0);
	}
	ksm_read_stats(r.k, &k);
	cr_assert_gt(k.merged_pages, 0);
	cr_assert_gt(m->tiered, 0);
	rig_unmake(&r);
	for (int i = 0; i < RIG_GUESTS; i++)
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert(!m->shelf[i].page[p], "slot %llu was never dropped",
				  (unsigned long long)p);
	free(m);
}

/* A minute with OB_LONG=1, else some seconds. */
static long how_long(void)
{
	return getenv("OB_LONG") ? 60000 : 6000;
}

Test(take, all_at_once, .timeout = 180)
{
	all_at_once("churn", false, how_long());
}

Test(take, all_at_once_without_uffdio_move, .timeout = 180)
{
	all_at_once("churn", true, how_long());
}

Test(take, all_at_once_under_disk_reads, .timeout = 180)
{
	all_at_once("filecache", false, how_long());
}
