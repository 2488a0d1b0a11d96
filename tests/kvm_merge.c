/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_merge.c: merging under guests that run and write all the time, on a host that is short of
 * everything: of mappings, of room in the pool, of time. Less is merged, and no guest notices: each of
 * them checks its memory all the time, and its map is held against the kernel's while it runs and when
 * it has stopped (rig_unmake).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "ksm/engine.h"
#include "tests/rig.h"

/* The real host with some of its operations in between. A struct ob_host is one of these. */
struct poor {
	struct rig rig; /* first, and its host first of all */
	const struct ob_host_ops *real;
	struct ob_host_ops ops;
	_Atomic uint64_t calls, failed;
	_Atomic uint64_t vma_limit; /* 0: the kernel's */
	unsigned int part;	    /* one of so many calls fails; 0: none does */
};
_Static_assert(offsetof(struct poor, rig) == 0 && offsetof(struct rig, host) == 0, "see poor_of");

static struct poor *poor_of(struct ob_host *h)
{
	return (struct poor *)(void *)h;
}

static bool fails(struct poor *p)
{
	uint64_t n = atomic_fetch_add(&p->calls, 1) * 2654435761u;

	if (!p->part || n / 65536 % p->part)
		return false;
	atomic_fetch_add(&p->failed, 1);
	return true;
}

static int poor_map_frames(struct ob_host *h, hva_t at, uint64_t size, int fd, uint64_t off)
{
	return fails(poor_of(h)) ? -ENOMEM : poor_of(h)->real->map_frames(h, at, size, fd, off);
}

static int poor_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n)
{
	int r;

	if (!fails(poor_of(h)))
		return poor_of(h)->real->discard_many(h, ranges, n);
	/* A part is gone, as in a kernel that stops on the way. */
	r = n > 1 ? poor_of(h)->real->discard_many(h, ranges, n / 2) : 0;
	return r ? r : -ENOMEM;
}

static int poor_file_write(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off)
{
	return fails(poor_of(h)) ? -ENOSPC : poor_of(h)->real->file_write(h, fd, buf, len, off);
}

static int poor_map_view(struct ob_host *h, int fd, uint64_t size, const void **out)
{
	return fails(poor_of(h)) ? -ENOMEM : poor_of(h)->real->map_view(h, fd, size, out);
}

static int poor_vma_count(struct ob_host *h, uint64_t *have, uint64_t *limit)
{
	uint64_t tight = atomic_load(&poor_of(h)->vma_limit);
	int r = poor_of(h)->real->vma_count(h, have, limit);

	*limit = r || !tight ? *limit : tight;
	return r;
}

static void make(struct poor *p, const char *workload, uint64_t max_pause_ns)
{
	rig_make(&p->rig, workload);
	p->real = p->rig.host.ops;
	p->ops = *p->real;
	p->ops.map_frames = poor_map_frames;
	p->ops.discard_many = poor_discard_many;
	p->ops.reveal_many = poor_discard_many; /* the same call */
	p->ops.file_write = poor_file_write;
	p->ops.map_view = poor_map_view;
	p->ops.vma_count = poor_vma_count;
	p->rig.host.ops = &p->ops;
	if (max_pause_ns)
		p->rig.k->opts.max_pause_ns = max_pause_ns;
	p->part = 0;
	p->vma_limit = p->calls = p->failed = 0;
}

/* Merge for @ms; what ept knows is the kernel's meanwhile, as far as both hold still. */
static struct ksm_stats merge_for(struct poor *p, long ms)
{
	struct ksm_stats st;

	rig_scan_start(&p->rig);
	for (long done = 0; done < ms; done += 250) {
		rig_nap_ms(250);
		for (unsigned int i = 0; i < RIG_GUESTS; i++) {
			struct ept_verify v;

			cr_assert(!ept_verify(&p->rig.ept[i], &v));
			cr_assert_eq(v.differences, 0, "guest %u: page %llu: %s", i,
				     (unsigned long long)v.first[0].page, v.first[0].why);
		}
	}
	rig_scan_stop(&p->rig);
	ksm_read_stats(p->rig.k, &st);
	return st;
}

static uint64_t shared_pages(struct poor *p)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		struct ept_stats st;

		ept_read_stats(&p->rig.ept[i], &st);
		n += st.state[EPT_SHARED];
	}
	return n;
}

static uint64_t pauses(const struct ksm_stats *st)
{
	uint64_t n = 0;

	for (unsigned int b = 0; b < KSM_LAT_BUCKETS; b++)
		n += st->pauses.pause[b];
	return n;
}

Test(merge_kvm, few_mappings, .timeout = 120)
{
	static const char *const workload[] = {"kv", "churn"};

	NEED_KVM();
	for (size_t i = 0; i < OB_ARRAY_SIZE(workload); i++) {
		struct poor *p = calloc(1, sizeof(*p));
		uint64_t have, had, limit, shared;
		struct ksm_stats st;

		make(p, workload[i], 0);
		cr_assert(!p->real->vma_count(&p->rig.host, &have, &limit));
		had = have;
		/* Room for some 40 more, and a tenth that is left alone. */
		limit = (have + 120) * 10 / 9 + 40;
		atomic_store(&p->vma_limit, limit);
		rig_start(&p->rig);
		st = merge_for(p, 3000);
		cr_assert_gt(st.merged_pages, 0, "%s", workload[i]);
		cr_assert_gt(st.skipped_vma, 0, "%s", workload[i]);
		cr_assert(!p->real->vma_count(&p->rig.host, &have, &(uint64_t){0}));
		shared = shared_pages(p);
		/* However many calls it took: a slow host's pauses are long after a few pages. */
		cr_assert_gt(shared, 4 * (have - had),
			     "%s: the long runs first: %llu pages in %llu mappings more",
			     workload[i], (unsigned long long)shared,
			     (unsigned long long)(have - had));
		cr_assert_leq(have, limit, "%s", workload[i]);
		/* With room, the others follow. */
		atomic_store(&p->vma_limit, 0);
		st.merged_pages = merge_for(p, 3000).merged_pages - st.merged_pages;
		cr_assert_gt(st.merged_pages, 0, "%s", workload[i]);
		rig_unmake(&p->rig);
		free(p);
	}
}

Test(merge_kvm, calls_that_fail, .timeout = 120)
{
	static const char *const workload[] = {"kv", "churn", "filecache"};

	NEED_KVM();
	for (size_t i = 0; i < OB_ARRAY_SIZE(workload); i++) {
		struct poor *p = calloc(1, sizeof(*p));
		struct ksm_stats st, after;

		make(p, workload[i], 0);
		p->part = 5;
		rig_start(&p->rig);
		st = merge_for(p, 2500);
		cr_assert_gt(atomic_load(&p->failed), 0, "%s", workload[i]);
		cr_assert_gt(st.merged_pages, 0, "%s", workload[i]);
		/* Nothing works at all, then everything again. */
		p->part = 1;
		merge_for(p, 500);
		p->part = 0;
		after = merge_for(p, 1500);
		cr_assert_geq(after.merged_pages, st.merged_pages);
		rig_unmake(&p->rig);
		free(p);
	}
}

Test(merge_kvm, a_bound_of_50_us, .timeout = 120)
{
	static const char *const workload[] = {"kv", "churn"};

	NEED_KVM();
	for (size_t i = 0; i < OB_ARRAY_SIZE(workload); i++) {
		struct poor *p = calloc(1, sizeof(*p));
		uint64_t late = 0;
		struct ksm_stats st;

		make(p, workload[i], 50 * OB_NS_PER_US);
		rig_start(&p->rig);
		st = merge_for(p, 3000);
		cr_assert_gt(st.merged_pages, 100, "%s", workload[i]);
		cr_assert_eq(pauses(&st), st.freezes);
		for (unsigned int l = 0; l < KSM_NLATE; l++)
			late += st.pauses.late[l];
		cr_assert_leq(late, st.freezes);
		/* The bound is small and work was cut to it: a few pages a pause. */
		cr_assert_lt(st.merged_pages + st.zero_pages, 64 * st.freezes, "%s", workload[i]);
		rig_unmake(&p->rig);
		free(p);
	}
}
