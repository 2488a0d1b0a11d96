/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.c: pages become frames of the pool.
 *
 * A mapping of the frames takes the place of the guest's own memory; the guest, which stands still or
 * waits, finds the same bytes there. What that costs is not the mapping itself but that the other CPUs
 * are to forget the old one: 10 to 15 us for each mmap while another guest of the process runs. So of
 * many runs in one freeze the short ones are emptied first, all by one call (one flush), and then
 * mapped over nothing, which needs none: measured 8 us a page in place of 28.
 *
 * In between there is a hole in the guest. Nobody may see it:
 *  - its vCPUs are parked, its devices kept off the range by the freeze; whatever else reads guest
 *    memory brackets that like a device (the page walk, the agent's report), or holds e->lock, which
 *    is held here from the first discard to the last mapping;
 *  - where faults are ours (a window of staging is open) nothing is emptied: filling such a page again
 *    would be a fault that waits for this very lock;
 *  - a mapping that fails has its pages put back at once. The frames hold the same bytes.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

/* Runs that are at most so far apart are looked up together. */
#define HELD_GAP 8

/*
 * Fill an empty place from its frame. A page that the map has as zero may have been written by its guest
 * since, so the frame says whether it is one; then the hole is what it was.
 */
static int refill(struct ept *e, uint64_t page, int pool_fd, uint64_t frame)
{
	_Alignas(64) uint8_t buf[OB_PAGE_SIZE];
	struct ob_host *h = e->host;
	int r;

	if (ept_entry_state(e->map[page]) == EPT_ZERO) {
		r = h->ops->file_read(h, pool_fd, buf, sizeof(buf), frame * OB_PAGE_SIZE);
		if (r || (!buf[0] && !memcmp(buf, buf + 1, sizeof(buf) - 1)))
			return r;
	}
	return h->ops->file_read(h, pool_fd, hva_ptr(gmem_page_hva(e->mem, page)), OB_PAGE_SIZE,
				 frame * OB_PAGE_SIZE);
}

/*
 * mmap over a mapping takes the old one away first, and some kernels can fail after that. The
 * frames hold the same bytes as the pages did, so what is gone is put back from them.
 */
static void put_back(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	struct ob_host *h = e->host;
	struct ob_page p = {0};

	for (uint64_t i = 0; i < n; i++) {
		hva_t at = gmem_page_hva(e->mem, page + i);

		if (!h->ops->pages(h, at, 1, &p) && ob_page_own(&p))
			continue; /* still there */
		if (ept_entry_state(e->map[page + i]) == EPT_ZERO && p.present)
			continue; /* the zero page: likewise */
		/* Going on with a hole in a guest would be one wrong page: better no guest at all. Its
		 * faults are not ours while we fill it: this thread's would wait for itself. */
		if (h->ops->map_empty(h, at, OB_PAGE_SIZE, e->mem->name)) {
			ept_lost(e,
				 "the host has no mapping left for a page that was to be shared");
			return;
		}
		if (refill(e, page + i, pool_fd, (uint64_t)frame + i))
			ept_lost(e, "a page could not be put back from its frame");
		ept_set(e, page + i, ept_entry(ept_entry_state(e->map[page + i]), 0, 0),
			EPT_BY_MERGE);
		if (ept_window_on(e, page + i) && ept_windows_open(e, page + i, 1))
			ept_lost(e, "faults of a page cannot be watched any more");
	}
}

/*
 * Staged pages hold still, but only while they are staged: between the caller's look and this call
 * one may have been back, written, and taken again by somebody else. So with the lock held they are
 * looked at once more. 0, -EAGAIN, or the -errno of reading the pool.
 */
static int still_equal(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	_Alignas(64) uint8_t buf[OB_PAGE_SIZE];

	for (uint64_t i = 0; i < n; i++) {
		int r = e->host->ops->file_read(e->host, pool_fd, buf, sizeof(buf),
						(frame + i) * OB_PAGE_SIZE);

		if (r)
			return r;
		if (memcmp(buf, hva_ptr(ept_stage_hva(e, page + i)), sizeof(buf)))
			return -EAGAIN;
	}
	return 0;
}

/* The content is in staging, and stays there when this fails. */
static int64_t share_staged(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	struct ept_run run = {.page = page, .n = n};
	int r = still_equal(e, page, n, pool_fd, frame);

	if (r)
		return r;
	r = h->ops->map_frames(h, at, n * OB_PAGE_SIZE, pool_fd, (uint64_t)frame * OB_PAGE_SIZE);
	if (r) {
		/* Some kernels have taken the old mapping away by now. The guest runs, and would find
		 * zeroes in a new one before its faults were ours again: it cannot go on. */
		if (ept_windows_open(e, page, n))
			ept_lost(e, "the host has no mapping left for a page that was taken out");
		return r;
	}
	for (uint64_t i = 0; i < n; i++)
		ept_set(e, page + i, ept_entry(EPT_SHARED, frame + (uint32_t)i, EPT_OVER_POOL),
			EPT_BY_MERGE);
	h->ops->uffd_wake(h, e->stage->uffd, at, n * OB_PAGE_SIZE);
	return ept_stage_discard(e, &run, 1);
}

static int64_t share_frozen(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	int64_t freed = ept_held_bytes(e, at, n);
	int r;

	if (freed < 0)
		return freed;
	r = h->ops->map_frames(h, at, n * OB_PAGE_SIZE, pool_fd, (uint64_t)frame * OB_PAGE_SIZE);
	if (r) {
		put_back(e, page, n, pool_fd, frame);
		return r;
	}
	for (uint64_t i = 0; i < n; i++)
		ept_set(e, page + i, ept_entry(EPT_SHARED, frame + (uint32_t)i, EPT_OVER_POOL),
			EPT_BY_MERGE);
	return freed;
}

int64_t ept_share(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	bool staged;
	int64_t freed;

	if (!ept_range_ok(e, page, n) || n > gmem_page_span(e->mem, page) ||
	    frame > EPT_MAX_FRAME || n > EPT_MAX_FRAME - frame + 1)
		return -ERANGE;
	ob_lock(&e->lock);
	freed = ept_changeable(e, page, n, 1u << EPT_PRIVATE | 1u << EPT_ZERO, &staged);
	if (!freed)
		freed = ept_huge_part(e, page, n, false);
	if (!freed)
		freed = staged ? share_staged(e, page, n, pool_fd, frame)
			       : share_frozen(e, page, n, pool_fd, frame);
	if (freed >= 0) {
		e->st.shared += n;
		e->st.freed_bytes += (uint64_t)freed;
	}
	ob_unlock(&e->lock);
	return freed;
}

/* Frozen: may this run be replaced? */
static int run_ok(struct ept *e, const struct ept_share *s)
{
	bool staged;
	int r;

	if (!s->n || !ept_range_ok(e, s->page, s->n) || s->n > gmem_page_span(e->mem, s->page) ||
	    s->frame > EPT_MAX_FRAME || s->n > EPT_MAX_FRAME - s->frame + 1)
		return -ERANGE;
	r = ept_changeable(e, s->page, s->n, 1u << EPT_PRIVATE | 1u << EPT_ZERO, &staged);
	if (!r && staged)
		r = -EBUSY;
	return r ? r : ept_huge_part(e, s->page, s->n, false);
}

/* May it be emptied before it is mapped? */
static bool may_empty(const struct ept *e, const struct ept_share *s)
{
	if (s->err || s->n > EPT_SHARE_EMPTY)
		return false;
	for (uint64_t p = s->page; p < s->page + s->n; p++)
		if (e->map[p] & EPT_OVER_POOL || ept_window_on(e, p))
			return false;
	return true;
}

/* What the kernel holds for the runs, looked up few at a time. Sets err where it does not say. */
static void look_held(struct ept *e, struct ept_share *s, unsigned int n)
{
	struct ob_page view[EPT_CHUNK];

	for (unsigned int i = 0, end; i < n; i = end) {
		uint64_t first = s[i].page, last = first + s[i].n;
		uint64_t span = OB_MIN(gmem_page_span(e->mem, first), EPT_CHUNK);
		int64_t held;
		int r;

		end = i + 1;
		s[i].freed = 0;
		if (s[i].err)
			continue;
		if (s[i].n > span) {
			held = ept_held_bytes(e, gmem_page_hva(e->mem, first), s[i].n);
			s[i].err = held < 0 ? (int)held : 0;
			s[i].freed = OB_MAX(held, 0);
			continue;
		}
		while (end < n && !s[end].err && s[end].page <= last + HELD_GAP &&
		       s[end].page + s[end].n <= first + span)
			last = s[end].page + s[end].n, end++;
		r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, first), last - first, view);
		for (unsigned int k = i; k < end; k++) {
			s[k].err = r;
			s[k].freed = 0;
			for (uint64_t p = s[k].page; p < s[k].page + s[k].n && !r; p++)
				if (ob_page_own(&view[p - first]) && view[p - first].present)
					s[k].freed += (int64_t)OB_PAGE_SIZE;
		}
	}
}

/* Empty those of the runs that may be, if they are two at least. @ns: how long that took. */
static void empty_runs(struct ept *e, struct ept_share *s, unsigned int n, uint64_t *ns)
{
	struct ob_range range[EPT_SHARE_RUNS];
	struct ob_host *h = e->host;
	unsigned int m = 0;
	uint64_t t0;

	for (unsigned int i = 0; i < n; i++) {
		s[i].emptied = may_empty(e, &s[i]);
		if (s[i].emptied)
			range[m++] = (struct ob_range){.at = gmem_page_hva(e->mem, s[i].page),
						       .size = s[i].n * OB_PAGE_SIZE};
	}
	for (unsigned int i = 0; i < n && m < 2; i++)
		s[i].emptied = false; /* a flush either way */
	if (m < 2)
		return;
	t0 = h->ops->now_ns(h);
	/* Where it fails, a part is gone or none: the mapping takes the place of both, and put_empty
	 * looks. */
	(void)h->ops->discard_many(h, range, m);
	*ns = h->ops->now_ns(h) - t0;
}

/*
 * A run that was emptied could not be mapped. As long as the empty mapping is still there it is filled
 * from the frames, with no mapping more; else put_back has to try for one.
 */
static void put_empty(struct ept *e, const struct ept_share *s, int pool_fd)
{
	for (uint64_t i = 0; i < s->n; i++) {
		if (refill(e, s->page + i, pool_fd, s->frame + i)) {
			put_back(e, s->page, s->n, pool_fd, (uint32_t)s->frame);
			return;
		}
	}
}

int64_t ept_share_runs(struct ept *e, struct ept_share *s, unsigned int n, int pool_fd,
		       uint64_t *empty_ns)
{
	struct ob_host *h = e->host;
	int64_t freed = 0;

	*empty_ns = 0;
	if (n > EPT_SHARE_RUNS)
		return -EINVAL;
	for (unsigned int i = 1; i < n; i++)
		if (s[i].page < s[i - 1].page + s[i - 1].n)
			return -EINVAL;
	ob_lock(&e->lock);
	for (unsigned int i = 0; i < n; i++)
		s[i].err = run_ok(e, &s[i]);
	look_held(e, s, n);
	empty_runs(e, s, n, empty_ns);
	for (unsigned int i = 0; i < n; i++) {
		uint64_t t0 = h->ops->now_ns(h);

		s[i].ns = 0;
		if (s[i].err)
			continue;
		s[i].err = h->ops->map_frames(h, gmem_page_hva(e->mem, s[i].page),
					      s[i].n * OB_PAGE_SIZE, pool_fd,
					      s[i].frame * OB_PAGE_SIZE);
		s[i].ns = h->ops->now_ns(h) - t0;
		if (s[i].err) {
			if (s[i].emptied)
				put_empty(e, &s[i], pool_fd);
			else
				put_back(e, s[i].page, s[i].n, pool_fd, (uint32_t)s[i].frame);
			continue;
		}
		for (uint64_t k = 0; k < s[i].n; k++)
			ept_set(e, s[i].page + k,
				ept_entry(EPT_SHARED, (uint32_t)(s[i].frame + k), EPT_OVER_POOL),
				EPT_BY_MERGE);
		e->st.shared += s[i].n;
		e->st.freed_bytes += (uint64_t)s[i].freed;
		freed += s[i].freed;
	}
	ob_unlock(&e->lock);
	return freed;
}

int ept_mappings(struct ept *e, uint64_t page, uint64_t n, uint32_t *frame, bool *over_pool)
{
	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	ob_lock(&e->lock);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t entry = e->map[page + i];

		over_pool[i] = !ept_entry_tiered(entry) && entry & EPT_OVER_POOL;
		frame[i] = ept_entry_state(entry) == EPT_SHARED ? ept_entry_payload(entry)
								: EPT_NO_FRAME;
	}
	ob_unlock(&e->lock);
	return 0;
}
