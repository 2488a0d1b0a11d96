/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_merge.c: carrying out what the scanner planned for one window, in batches short enough that
 * the guest hardly notices. Each batch: freeze its range, check every page again (this is where
 * truth is established), map run by run, thaw. Whatever was prepared for a page and is not used
 * (a hold on a frame, a frame being filled and its claim in the index) is given back.
 */
#include <errno.h>
#include <string.h>

#include "ksm/hash_engine.h"

static void *page_ptr(const struct ksm_slot *s, uint64_t page)
{
	return hva_ptr(gmem_page_hva(s->g.ept->mem, page));
}

/*
 * Frames for the pages that are second holders: consecutive pages get consecutive frames. Each is
 * claimed in the index while it is being filled, so that other cells wait for it and do not fill
 * their own; should this cell die, a frame that never went live is swept out of the index.
 */
static void prepare_frames(struct ksm *k, struct hash *h)
{
	struct hash_plan *p = h->plan, *end = h->plan + h->nplan;

	while (p < end) {
		uint32_t want = 0, got, first;

		if (p->what != HASH_MAKE) {
			p++;
			continue;
		}
		while (p + want < end && p[want].what == HASH_MAKE &&
		       p[want].page == p->page + want)
			want++;
		got = ksm_frame_alloc(k->domain, want, &first);
		if (!got) {
			/* The pool is full: these pages stay as they are. */
			for (; want; want--, p++)
				p->frame = EPT_NO_FRAME;
			continue;
		}
		for (uint32_t i = 0; i < got; i++, p++) {
			struct ksm_ref ref;

			p->frame = EPT_NO_FRAME;
			/* Look again: equal pages within this plan, or another cell, may have been
			 * first. */
			if (ksm_index_find(k->domain, p->hash, &ref) == KSM_HINT &&
			    ksm_index_claim(k->domain, &ref, first + i)) {
				p->frame = first + i;
				/* Whose page it was can join as soon as the frame is live. */
				ksm_again_ask(k->domain, ksm_ref_payload(&ref));
			} else {
				ksm_frame_abandon(k->domain, first + i, 1);
			}
		}
	}
}

/* Give back what was prepared for a page that is not merged after all. */
static void forget(struct ksm *k, struct hash_plan *p)
{
	if (p->frame == EPT_NO_FRAME)
		return;
	if (p->what == HASH_JOIN) {
		ksm_frame_put(k->domain, p->frame);
	} else if (p->what == HASH_MAKE) {
		ksm_index_remove(k->domain, p->hash, p->frame);
		ksm_frame_abandon(k->domain, p->frame, 1);
	}
	p->frame = EPT_NO_FRAME;
}

/* May @b follow @a in one mapping? */
static bool follows(const struct hash_plan *a, const struct hash_plan *b)
{
	return b->page == a->page + 1 && b->what == a->what && b->keep == a->keep &&
	       (a->what == HASH_ZERO || b->frame == a->frame + 1);
}

static unsigned int run_length(const struct hash_plan *p, const struct hash_plan *end)
{
	unsigned int n = 1;

	while (p + n < end && follows(&p[n - 1], &p[n]))
		n++;
	return n;
}

/* Frozen: is each page of the run (at most HASH_COMPARE_PAGES) what its plan says? Sets keep. */
static void check_run(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
		      unsigned int n)
{
	bool readable = true;

	if (p->what == HASH_JOIN)
		readable = !k->host->ops->file_read(k->host, k->domain->pool_fd, h->scratch,
						    n * OB_PAGE_SIZE,
						    (uint64_t)p->frame * OB_PAGE_SIZE);
	for (unsigned int i = 0; i < n; i++) {
		const void *page = page_ptr(s, p[i].page);

		p[i].keep = readable && ept_frozen(s->g.ept, p[i].page);
		if (!p[i].keep)
			continue;
		switch ((enum hash_what)p[i].what) {
		case HASH_JOIN:
			if (k->opts.inject & KSM_INJECT_SKIP_COMPARE)
				break;
			p[i].keep = !memcmp(page, h->scratch + i * OB_PAGE_SIZE, OB_PAGE_SIZE);
			break;
		case HASH_MAKE:
			/* Its bytes become the frame; they must be those that the index
			 * promises. */
			p[i].keep = p[i].frame != EPT_NO_FRAME &&
				    ksm_hash(k->domain, page) == p[i].hash;
			break;
		case HASH_ZERO:
			p[i].keep = ksm_page_is_zero(page);
			break;
		}
		k->st.compare_failed += !p[i].keep && p[i].frame != EPT_NO_FRAME;
	}
}

/*
 * Room for one mapping more, over a run of @n pages? In the middle of another it splits that into
 * three, so it may add two; over a run that was several mappings it adds none inside. It is charged
 * before it is tried: what a failure did not use comes back when the room is counted anew.
 */
static bool take_mapping(struct ksm *k, struct hash *h, unsigned int n)
{
	if (h->vma_room >= 2) {
		h->vma_room -= 2;
		return true;
	}
	k->st.skipped_vma += n;
	if (!h->vma_warned)
		ob_warn("close to vm.max_map_count, merging less: raise it with sysctl -w "
			"vm.max_map_count=1000000");
	h->vma_warned = true;
	return false;
}

/*
 * Frozen and checked: map a run. False: nothing was merged (its frames are still to be forgotten).
 */
static bool map_run(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
		    unsigned int n)
{
	struct ksm_domain *d = k->domain;
	int64_t freed;

	if (p->what == HASH_ZERO) {
		if (ept_over_pool(s->g.ept, p->page, n) && !take_mapping(k, h, n))
			return false;
		freed = ept_drop_zero(s->g.ept, p->page, n);
		if (freed >= 0)
			k->st.zero_pages += n;
		return freed >= 0;
	}
	if (!take_mapping(k, h, n))
		return false;
	if (p->what == HASH_MAKE) {
		/* No room for the copy (the pool's file system is full): the page stays private. */
		if (k->host->ops->file_write(k->host, d->pool_fd, page_ptr(s, p->page),
					     n * OB_PAGE_SIZE, (uint64_t)p->frame * OB_PAGE_SIZE))
			return false;
		for (unsigned int i = 0; i < n; i++)
			ksm_frame_publish(d, p[i].frame);
		k->st.frames_made += n;
		/* Live and held from here on: like any frame that we join. */
		for (unsigned int i = 0; i < n; i++)
			p[i].what = HASH_JOIN;
	}
	freed = ept_share(s->g.ept, p->page, n, d->pool_fd, p->frame);
	if (freed < 0)
		return false;
	k->st.merged_pages += n;
	k->st.merge_runs++;
	return true;
}

/* Frozen and checked: drop all zero pages that lie over no pool mapping at once. Returns how many;
 * they keep nothing to be done for, and no longer say keep. */
static uint64_t drop_zeroes(struct ksm *k, struct ksm_slot *s, struct hash_plan *p,
			    struct hash_plan *end)
{
	struct ept_run runs[HASH_BATCH_PAGES];
	unsigned int n = 0;
	uint64_t pages = 0;

	for (struct hash_plan *q = p; q < end && n < HASH_BATCH_PAGES;) {
		unsigned int run = run_length(q, end);

		if (q->what == HASH_ZERO && q->keep && !ept_over_pool(s->g.ept, q->page, run)) {
			runs[n++] = (struct ept_run){.page = q->page, .n = run};
			pages += run;
			for (unsigned int i = 0; i < run; i++)
				q[i].keep = false;
		}
		q += run;
	}
	if (!n || ept_drop_zero_runs(s->g.ept, runs, n) < 0)
		return 0;
	k->st.zero_pages += pages;
	return pages;
}

/* One freeze: the plan entries [p, end). */
static void merge_batch(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
			struct hash_plan *end)
{
	uint64_t first = p->page, n = (uint64_t)end[-1].page - first + 1;
	uint64_t t0 = k->host->ops->now_ns(k->host), ns, zeroes;
	int r;

	r = ept_freeze(s->g.ept, first, n);
	OB_ASSERT(!r); /* a part of one window */
	for (struct hash_plan *q = p; q < end;) {
		unsigned int run = OB_MIN(run_length(q, end), (unsigned int)HASH_COMPARE_PAGES);

		check_run(k, h, s, q, run);
		q += run;
	}
	zeroes = drop_zeroes(k, s, p, end);
	h->pass_merged += k->host->knows_pfn ? zeroes : 0;
	for (struct hash_plan *q = p; q < end;) {
		unsigned int run = run_length(q, end);
		bool merged = q->keep && map_run(k, h, s, q, run);

		/*
		 * Where the kernel does not say which page is its zero page, one that was dropped
		 * and then only read looks as if it had memory again, and is dropped again, for
		 * ever. That is no reason to go on without a rest.
		 */
		if (merged && (q->what != HASH_ZERO || k->host->knows_pfn))
			h->pass_merged += run;
		for (unsigned int i = 0; i < run; i++) {
			if (!merged)
				forget(k, &q[i]);
		}
		q += run;
	}
	ept_thaw(s->g.ept);

	ns = k->host->ops->now_ns(k->host) - t0;
	k->st.freezes++;
	k->st.freeze_ns += ns;
	k->st.freeze_max_ns = OB_MAX(k->st.freeze_max_ns, ns);
}

void hash_merge(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_plan *end = h->plan + h->nplan;

	prepare_frames(k, h);
	for (struct hash_plan *p = h->plan; p < end;) {
		struct hash_plan *q = p;
		unsigned int runs = 0;

		/* Only neighbours by plan are batched; what lies between is frozen for nothing, but
		 * a parked guest does not notice more pages, only more time. */
		while (q < end && runs < HASH_BATCH_RUNS && q - p < HASH_BATCH_PAGES) {
			unsigned int run = run_length(q, end);

			run = OB_MIN(run, (unsigned int)(HASH_BATCH_PAGES - (q - p)));
			q += run;
			runs++;
		}
		merge_batch(k, h, s, p, q);
		p = q;
	}
	h->nplan = 0;
}
