/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.c: taking pages out of a guest while it runs, and putting them back.
 *
 * The kernel moves a page from guest to staging in one step (UFFDIO_MOVE): whoever touches it either
 * was before, and his write is in what was moved, or finds nothing there and waits for an answer.
 * So a page can be taken under a guest that writes, and holds still in staging until it goes back.
 *
 * Where the kernel cannot move (before 6.8) the same is done in three steps. Write-protect the
 * pages: who writes from now on waits. Copy them: they hold still. Discard them: who waits, or comes
 * later, finds nothing. The lock is held over all three, so that the answer to whoever waits is
 * given from what was copied.
 *
 * A page that lies over the pool (broken off a frame by a write) can be neither moved nor protected:
 * its mapping is one of a file. Taking such pages freezes them, copies them, and puts an ordinary
 * mapping in their place.
 *
 * Left out are pages that a device is using: the bracket around its access may hold a pointer into
 * the kernel by then. And pages that the kernel has pinned, which it says by EBUSY.
 *
 * Scattered pages: what a move costs is the flush of what other CPUs have in their translations,
 * some 12 us with a vCPU running, 1 us without. So from a handful of runs on the guest is parked.
 */
#include "ept/fault.h"

#include <errno.h>
#include <string.h>

/* Pages taken with the guest parked: then the others get their turn. */
#define PARKED_PAGES 512

/* In the map; that the kernel has it as the map says was looked at before, where it may not. */
static bool can_take(const struct ept *e, uint64_t page)
{
	uint32_t entry = e->map[page];

	return ept_entry_state(entry) == EPT_PRIVATE && !ept_entry_staged(entry) &&
	       !ept_busy(e, page);
}

/*
 * The kernel makes pages private without telling us, but none that is private something else (but
 * for one of zeroes, which may be taken as well). So what is in the map as private needs no look at
 * the kernel's page map, which costs a third of what moving it does.
 */
static int bring_up_to_date(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_page view[EPT_CHUNK];
	uint64_t first = page, end = page + n;
	int r;

	while (first < end && ept_entry_state(e->map[first]) == EPT_PRIVATE)
		first++;
	while (end > first && ept_entry_state(e->map[end - 1]) == EPT_PRIVATE)
		end--;
	if (first == end)
		return 0;
	r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, first), end - first, view);
	for (uint64_t p = first; p < end && !r; p++)
		ept_take_view(e, p, &view[p - first]);
	return r;
}

static void mark_staged(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	marks |= EPT_STAGED | (++e->takings & EPT_TAKING_MASK) << EPT_TAKING_SHIFT;
	for (uint64_t p = page; p < page + n; p++)
		ept_set(e, p, ept_entry(EPT_PRIVATE, marks, 0), EPT_BY_TIER);
	e->st.taken += n;
}

/* Pages that lie in place and not over the pool, by copying. All or -errno. */
static int64_t take_by_copy(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_host *h = e->host;
	struct ept_stage *st = e->stage;
	hva_t at = gmem_page_hva(e->mem, page), to = ept_stage_hva(e, page);
	uint64_t size = n * OB_PAGE_SIZE;
	int r;

	r = h->ops->uffd_protect(h, st->uffd, at, size, true);
	if (!r)
		r = h->ops->uffd_copy(h, st->uffd, to, at, size);
	if (!r)
		r = h->ops->discard(h, at, size);
	if (!r)
		return (int64_t)n;
	/* Nothing was taken: what was copied goes, and writers go on. Page by page, since what failed
	 * may have failed after a part, and may do so again. */
	h->ops->discard(h, to, size);
	for (uint64_t i = 0; i < n; i++)
		h->ops->uffd_protect(h, st->uffd, hva(at.v + i * OB_PAGE_SIZE), OB_PAGE_SIZE,
				     false);
	return r;
}

/* [page, page + n): in place, and inside one region. Returns how many left, or -errno. */
static int64_t take_run(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page), to = ept_stage_hva(e, page);
	int64_t r;

	if (!e->stage->caps.move) {
		r = take_by_copy(e, page, n);
	} else {
		r = h->ops->uffd_move(h, e->stage->uffd, to, at, n * OB_PAGE_SIZE);
		if (r > 0)
			r /= (int64_t)OB_PAGE_SIZE;
	}
	if (r > 0)
		mark_staged(e, page, (uint64_t)r, marks);
	return r;
}

/* As many of the run as can be: one that cannot be moved is passed over. */
static int64_t take_most(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	/* Of several mappings, or too much at once for a kernel that protects one mapping only. */
	int64_t several = e->stage->caps.move ? -EINVAL : -ENOENT, taken = 0, r;

	/* A part of a unit that is to stay whole would split it. */
	if (marks & EPT_WHOLE) {
		r = take_run(e, page, n, marks);
		if (r == -EBUSY || r == -EINVAL || r == -ENOENT || r == -EEXIST) {
			e->st.pinned++;
			return 0;
		}
		/* It was one piece no longer: then it is no sample either. */
		if (r > 0 && (uint64_t)r < n) {
			e->st.pinned++;
			ept_stage_back(e, page, (uint64_t)r);
			return 0;
		}
		return r;
	}
	for (uint64_t done = 0, run = n; done < n; run = n - done) {
		while ((r = take_run(e, page + done, run, marks)) == several && run > 1)
			run /= 2;
		done += (uint64_t)OB_MAX(r, 1);
		if (r > 0) {
			taken += r;
		} else if (r == -EBUSY || r == -ENOENT || r == -EEXIST) {
			e->st.pinned++;
		} else if (r < 0) {
			return taken ? taken : r;
		}
	}
	return taken;
}

static bool can_take_any(const struct ept *e, uint64_t page, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (can_take(e, page + i))
			return true;
	return false;
}

static bool can_take_whole(const struct ept *e, uint64_t page, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (!can_take(e, page + i) || e->map[page + i] & EPT_OVER_POOL)
			return false;
	return n == EPT_WINDOW;
}

/* With the lock held: those of at most EPT_CHUNK pages that can be taken at once. @over gets how many
 * lie over the pool, for the second round. */
static int64_t take_chunk(struct ept *e, uint64_t page, uint64_t n, uint32_t marks, uint64_t *over)
{
	int64_t taken = 0, r = bring_up_to_date(e, page, n);

	/* To know about one page is not worth a huge one. */
	if (r >= 0 && marks == EPT_SAMPLE && ept_huge_now(e, page))
		return 0;
	/* What is taken as a whole stays huge, the rest leaves as small pages. A unit that somebody in the
	 * kernel holds stays as it is, and the others are looked at all the same. */
	if (r >= 0 && marks & EPT_WHOLE && !can_take_whole(e, page, n))
		return 0;
	if (r >= 0 && !(marks & EPT_WHOLE) && can_take_any(e, page, n))
		r = ept_huge_part(e, page, n, true);
	if (r == -EBUSY) {
		e->st.pinned += n;
		return 0;
	}

	if (r >= 0)
		ept_huge_to_stage(e, page, marks & EPT_WHOLE);
	for (uint64_t i = 0, run; i < n && r >= 0; i += run) {
		run = 1;
		if (!can_take(e, page + i)) {
			e->st.dma_left_out += ept_busy(e, page + i);
			continue;
		}
		if (e->map[page + i] & EPT_OVER_POOL) {
			++*over;
			continue;
		}
		while (i + run < n && can_take(e, page + i + run) &&
		       !(e->map[page + i + run] & EPT_OVER_POOL) && (page + i + run) % EPT_WINDOW)
			run++;
		r = ept_window_open(e, page + i);
		if (!r)
			r = take_most(e, page + i, run, marks);
		taken += OB_MAX(r, 0);
	}
	return r < 0 && !taken ? r : taken;
}

/*
 * Guest and devices stand still, but whoever only reads does not: the scanner hashes what it finds.
 * While the new mapping's faults were not ours yet, a read has found a hole and brought a zero
 * page, which the guest would take for its own. From here on that cannot happen again. When it
 * cannot be emptied its faults are not ours any more.
 */
static int empty_place(struct ept *e, hva_t at)
{
	struct ob_host *h = e->host;
	int r = h->ops->discard(h, at, OB_PAGE_SIZE);

	if (r && h->ops->uffd_unregister(h, e->stage->uffd, at, OB_PAGE_SIZE))
		ept_lost(e, "the place of a page that is taken out cannot be emptied");
	return r;
}

/* Frozen: a page over the pool becomes an ordinary one that is out. */
static int take_over_pool(struct ept *e, uint64_t page, uint32_t marks)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page), to = ept_stage_hva(e, page);
	int r = h->ops->uffd_copy(h, e->stage->uffd, to, at, OB_PAGE_SIZE), unwatched;

	if (r)
		return r;
	r = ept_window_open(e, page);
	if (!r)
		r = ept_map_empty(e, page, 1, &unwatched);
	if (!r && !unwatched)
		unwatched = empty_place(e, at);
	if (!r && unwatched) {
		/* Its faults would not be ours: zeroes, silently. So it stays. And we may touch it,
		 * for the same reason. */
		memcpy(hva_ptr(at), hva_ptr(to), OB_PAGE_SIZE);
		h->ops->discard(h, to, OB_PAGE_SIZE);
		/* The frame that it broke off is not under it any more. */
		ept_set(e, page, ept_entry(EPT_PRIVATE, 0, EPT_OVER_POOL), EPT_BY_TIER);
		return unwatched;
	}
	if (r) {
		struct ob_page view;

		/* A kernel that takes the old mapping away before it fails leaves a hole. */
		if (h->ops->pages(h, at, 1, &view) || !ob_page_own(&view))
			ept_lost(e, "the host has no mapping left for a page that is taken out");
		h->ops->discard(h, to, OB_PAGE_SIZE);
		return r;
	}
	mark_staged(e, page, 1, marks);
	return 0;
}

static int64_t take_frozen(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	int64_t taken = 0;
	int r = ept_freeze(e, page, n);

	if (r)
		return r;
	ob_lock(&e->lock);
	for (uint64_t p = page; p < page + n && !r; p++) {
		struct ob_page view;

		if (ept_entry_tiered(e->map[p]) || !(e->map[p] & EPT_OVER_POOL))
			continue;
		r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, p), 1, &view);
		if (r)
			break;
		ept_take_view(e, p, &view);
		if (!can_take(e, p) || !view.present)
			continue;
		r = take_over_pool(e, p, marks);
		taken += !r;
	}
	ob_unlock(&e->lock);
	ept_thaw(e);
	return r && !taken ? r : taken;
}

/* One run of the caller's. The lock is not held. */
static int64_t take_range(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	int64_t taken = 0, r;

	for (uint64_t end = page + n, chunk; page < end; page += chunk) {
		uint64_t over = 0;

		chunk = OB_MIN(OB_MIN(end - page, EPT_CHUNK - page % EPT_CHUNK),
			       gmem_page_span(e->mem, page));
		ob_lock(&e->lock);
		ept_wait_thawed(e, page, chunk);
		r = take_chunk(e, page, chunk, marks, &over);
		ob_unlock(&e->lock);
		if (r >= 0)
			taken += r;
		if (r >= 0 && over) {
			r = take_frozen(e, page, chunk, marks);
			taken += OB_MAX(r, 0);
		}
		if (r < 0)
			return taken ? taken : r;
	}
	return taken;
}

/*
 * Call @each for the runs. The guest is parked, in batches, when there are many and they are short:
 * of a long run the flush is a small part.
 */
static int64_t each_run(struct ept *e, const struct ept_run *runs, unsigned int n, uint32_t arg,
			int64_t (*each)(struct ept *e, uint64_t page, uint64_t n, uint32_t arg))
{
	bool park, parked = false;
	int64_t sum = 0, r = 0;
	uint64_t pages = 0;

	for (unsigned int i = 0; i < n; i++)
		pages += runs[i].n;
	park = n >= EPT_PARK_RUNS && pages / n < EPT_PARK_LENGTH;
	pages = 0;
	for (unsigned int i = 0; i < n && r >= 0; i++) {
		/* A long one among the short ones is on its own. */
		if (parked && (pages >= PARKED_PAGES || runs[i].n >= EPT_PARK_LENGTH)) {
			e->parker.unpark(e->parker.arg);
			parked = false;
			pages = 0;
		}
		if (park && !parked && runs[i].n < EPT_PARK_LENGTH) {
			e->parker.park(e->parker.arg);
			parked = true;
		}
		r = each(e, runs[i].page, runs[i].n, arg);
		sum += OB_MAX(r, 0);
		pages += runs[i].n;
	}
	if (parked)
		e->parker.unpark(e->parker.arg);
	return r < 0 && !sum ? r : sum;
}

int64_t ept_take(struct ept *e, const struct ept_run *runs, unsigned int n, bool sample)
{
	int r = ept_runs_ok(e, runs, n);

	if (!r)
		r = ept_stage_ready(e);
	return r ? r : each_run(e, runs, n, sample ? EPT_SAMPLE : 0, take_range);
}

int64_t ept_take_huge(struct ept *e, uint64_t page, uint64_t n)
{
	int r;

	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	if (page % EPT_WINDOW || n % EPT_WINDOW)
		return -EINVAL;
	r = ept_stage_ready(e);
	return r ? r : take_range(e, page, n, EPT_WHOLE | EPT_SAMPLE);
}

/* Is it staged, with these marks? */
static bool staged_as(uint32_t entry, uint32_t marks)
{
	return ept_entry_staged(entry) && (entry & marks) == marks;
}

/* What is staged of a range, with these marks. */
static int64_t back_range(struct ept *e, uint64_t page, uint64_t n, uint32_t marks)
{
	int64_t back = 0, r = 0;

	for (uint64_t end = page + n, run, chunk; page < end && r >= 0; page += chunk) {
		chunk = OB_MIN(OB_MIN(end - page, EPT_CHUNK - page % EPT_CHUNK),
			       gmem_page_span(e->mem, page));
		ob_lock(&e->lock);
		ept_wait_thawed(e, page, chunk);
		for (uint64_t p = page; p < page + chunk && r >= 0; p += run) {
			run = 1;
			if (!staged_as(e->map[p], marks))
				continue;
			while (p + run < page + chunk && staged_as(e->map[p + run], marks))
				run++;
			r = ept_stage_back(e, p, run);
			back += OB_MAX(r, 0);
			e->st.put_back += (uint64_t)OB_MAX(r, 0);
		}
		if (e->stage)
			ept_windows_close(e, page, chunk);
		ob_unlock(&e->lock);
	}
	return r < 0 && !back ? r : back;
}

int64_t ept_put_back(struct ept *e, const struct ept_run *runs, unsigned int n)
{
	int r = ept_runs_ok(e, runs, n);

	return r ? r : each_run(e, runs, n, 0, back_range);
}

int64_t ept_samples_left(struct ept *e, uint64_t page, uint64_t n, bool put_back)
{
	int64_t left = 0;

	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	ob_lock(&e->lock);
	for (uint64_t p = page; p < page + n; p++)
		left += staged_as(e->map[p], EPT_SAMPLE);
	ob_unlock(&e->lock);
	if (left && put_back) {
		int64_t r = back_range(e, page, n, EPT_SAMPLE);

		return r < 0 ? r : left;
	}
	return left;
}
