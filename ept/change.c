/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c: pages of zeroes are dropped; and what every change of a page's memory needs (sharing is in
 * share.c, the balloon in balloon.c).
 *
 * Sharing and dropping keep the content, so they need a page that holds still from the moment that
 * the caller looks at it: frozen, or out in staging. A page in the balloon has no content to keep.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

/* How many ranges are given back in one call. */
#define BATCH 512

int64_t ept_held_bytes(struct ept *e, hva_t at, uint64_t n)
{
	struct ob_page buf[EPT_CHUNK];
	int64_t bytes = 0;

	for (uint64_t done = 0; done < n;) {
		uint64_t chunk = OB_MIN(n - done, EPT_CHUNK);
		int r = e->host->ops->pages(e->host, hva(at.v + done * OB_PAGE_SIZE), chunk, buf);

		if (r)
			return r;
		for (uint64_t i = 0; i < chunk; i++)
			if (ob_page_own(&buf[i]) && buf[i].present)
				bytes += (int64_t)OB_PAGE_SIZE;
		done += chunk;
	}
	return bytes;
}

int ept_map_empty(struct ept *e, uint64_t page, uint64_t n, int *unwatched)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	int r = h->ops->map_empty(h, at, n * OB_PAGE_SIZE, e->mem->name);

	/* The second try is for kernels where a failed mmap has taken the old mapping away: then there
	 * is room for the new one. */
	if (r)
		r = h->ops->map_empty(h, at, n * OB_PAGE_SIZE, e->mem->name);
	*unwatched = 0;
	if (r)
		return r;
	/* The new mapping has forgotten that its faults are ours. */
	for (uint64_t end = page + n, run; page < end && !*unwatched; page += run) {
		run = OB_MIN(end - page, EPT_WINDOW - page % EPT_WINDOW);
		if (ept_window_on(e, page))
			*unwatched = ept_watch(e, page, run);
	}
	return 0;
}

int ept_changeable(const struct ept *e, uint64_t page, uint64_t n, uint32_t states, bool *staged)
{
	uint64_t out = 0;

	for (uint64_t p = page; p < page + n; p++) {
		if (!(states & 1u << ept_entry_state(e->map[p])))
			return -EINVAL;
		out += ept_entry_staged(e->map[p]);
	}
	*staged = out == n;
	if (*staged)
		return 0;
	if (out || !e->frozen_n || page < e->frozen_page || page + n > e->frozen_page + e->frozen_n)
		return -EBUSY;
	for (uint64_t p = page; p < page + n; p++)
		if (ept_busy(e, p))
			return -EBUSY;
	return 0;
}

static bool still_zero(struct ept *e, uint64_t page, uint64_t n)
{
	const uint64_t *v = hva_ptr(ept_stage_hva(e, page));
	uint64_t any = 0;

	for (uint64_t i = 0; i < n * OB_PAGE_SIZE / sizeof(*v) && !any; i += 8)
		any = v[i] | v[i + 1] | v[i + 2] | v[i + 3] | v[i + 4] | v[i + 5] | v[i + 6] |
		      v[i + 7];
	return !any;
}

/* Ranges of guest memory that are to be discarded in one call. */
struct batch {
	struct ob_range range[BATCH];
	struct ept_run run[BATCH];
	unsigned int n;
	int64_t held;  /* by what has been gathered */
	int64_t freed; /* by all that was dropped */
};

static void count_dropped(struct ept *e, struct batch *b, uint64_t n, int64_t freed)
{
	e->st.dropped += n;
	e->st.freed_bytes += (uint64_t)freed;
	b->freed += freed;
}

/* Discard what has been gathered, and enter that its pages are zero. */
static int batch_flush(struct ept *e, struct batch *b)
{
	struct ob_host *h = e->host;
	int r = b->n ? h->ops->discard_many(h, b->range, b->n) : 0;

	for (unsigned int i = 0; i < b->n; i++) {
		for (uint64_t p = b->run[i].page; p < b->run[i].page + b->run[i].n; p++) {
			/* When it failed, a part may be gone all the same. It was all zero. */
			int64_t left = r ? ept_held_bytes(e, gmem_page_hva(e->mem, p), 1) : 0;

			/* Where nobody says whether it is: a sync finds memory, and never a hole. */
			b->held -= left < 0 ? (int64_t)OB_PAGE_SIZE : left;
			if (left > 0)
				continue;
			ept_set(e, p, ept_entry(EPT_ZERO, 0, 0), EPT_BY_MERGE);
			e->st.dropped++;
		}
	}
	count_dropped(e, b, 0, OB_MAX(b->held, 0));
	b->held = 0;
	b->n = 0;
	return r;
}

/* Drop pages that are alike: all over a pool mapping, or none (then with the batch). */
static int drop_alike(struct ept *e, struct batch *b, uint64_t page, uint64_t n)
{
	hva_t at = gmem_page_hva(e->mem, page);
	int64_t held = ept_held_bytes(e, at, n);
	int r, unwatched;

	if (held < 0)
		return (int)held;
	if (!(e->map[page] & EPT_OVER_POOL)) {
		r = b->n == BATCH ? batch_flush(e, b) : 0;
		if (r)
			return r;
		b->range[b->n] = (struct ob_range){.at = at, .size = n * OB_PAGE_SIZE};
		b->run[b->n++] = (struct ept_run){.page = page, .n = n};
		b->held += held;
		return 0;
	}
	r = ept_map_empty(e, page, n, &unwatched);
	if (r)
		return r;
	for (uint64_t p = page; p < page + n; p++)
		ept_set(e, p, ept_entry(EPT_ZERO, 0, unwatched ? EPT_OVER_POOL : 0), EPT_BY_MERGE);
	count_dropped(e, b, n, held);
	return 0;
}

/* The guest's faults there are ours: a hole in staging is a zero page from now on. */
static int drop_staged(struct ept *e, struct batch *b, uint64_t page, uint64_t n)
{
	struct ept_run run = {.page = page, .n = n};

	if (!still_zero(e, page, n))
		return -EAGAIN;
	count_dropped(e, b, n, ept_stage_discard(e, &run, 1));
	for (uint64_t p = page; p < page + n; p++)
		ept_set(e, p, ept_entry(EPT_ZERO, 0, 0), EPT_BY_MERGE);
	e->host->ops->uffd_wake(e->host, e->stage->uffd, gmem_page_hva(e->mem, page),
				n * OB_PAGE_SIZE);
	return 0;
}

static int drop_run(struct ept *e, struct batch *b, uint64_t page, uint64_t n)
{
	bool staged;
	int r = ept_changeable(e, page, n, 1u << EPT_PRIVATE | 1u << EPT_ZERO, &staged);

	if (!r)
		r = ept_huge_part(e, page, n, false);
	for (uint64_t done = 0, run; done < n && !r; done += run) {
		run = ept_run_alike(e, page + done, n - done, EPT_OVER_POOL);
		r = (staged ? drop_staged : drop_alike)(e, b, page + done, run);
	}
	return r;
}

int64_t ept_drop_zero_runs(struct ept *e, const struct ept_run *runs, unsigned int n)
{
	struct batch b = {.n = 0};
	int r = ept_runs_ok(e, runs, n), err;

	if (r)
		return r;
	ob_lock(&e->lock);
	for (unsigned int i = 0; i < n && !r; i++)
		r = drop_run(e, &b, runs[i].page, runs[i].n);
	err = batch_flush(e, &b);
	ob_unlock(&e->lock);
	r = r ? r : err;
	return r && !b.freed ? r : b.freed;
}

int64_t ept_drop_zero(struct ept *e, uint64_t page, uint64_t n)
{
	const struct ept_run run = {.page = page, .n = n};

	return ept_drop_zero_runs(e, &run, 1);
}
