/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.c: staging, where the pages go that are taken from a guest, and the windows of guest memory
 * whose faults come to us.
 *
 * Staging is a stretch of address space as large as the guest's RAM, with the same flags, so that
 * the kernel can move pages between the two without copying: page p of the guest is at page p of
 * staging, a run of pages is a run there, and a 2 MiB page stays one. It costs nothing but address
 * space until something is in it. There is one a guest, made when the first page leaves, with one
 * userfaultfd and one thread that answers (fault.c): a guest from which nothing was taken has none
 * of them, and its faults are the kernel's alone.
 *
 * userfaultfd tells us of faults where a range is registered. That is done by windows of 2 MiB, and
 * only for windows that something has left: single pages would cost a mapping or two each, all of
 * memory would send us the first touch of every page that the guest has never used. A window is
 * given back when everything in it is in place again; ept_put_back does so, faults do not, since it
 * costs more than it is worth to them. What lies over the pool is not registered: its faults are
 * plain ones of a file. And a new mapping in a window has forgotten, so whoever makes one registers
 * it again (ept_map_empty).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ept/fault.h"

static uint64_t window_of(uint64_t page)
{
	return page / EPT_WINDOW;
}

bool ept_window_on(const struct ept *e, uint64_t page)
{
	uint64_t w = window_of(page);

	return e->stage && e->stage->window[w / 64] >> (w % 64) & 1;
}

static void window_set(struct ept *e, uint64_t page, bool on)
{
	uint64_t w = window_of(page), bit = 1ULL << (w % 64);

	if (ept_window_on(e, page) == on)
		return;
	e->stage->window[w / 64] ^= bit;
	if (on)
		e->st.windows++;
	else
		e->st.windows--;
}

hva_t ept_stage_hva(const struct ept *e, uint64_t page)
{
	return hva(e->stage->at.v + page * OB_PAGE_SIZE);
}

static bool over_pool(uint32_t entry)
{
	return !ept_entry_tiered(entry) && entry & EPT_OVER_POOL;
}

int ept_watch(struct ept *e, uint64_t page, uint64_t n)
{
	return e->host->ops->uffd_register(e->host, e->stage->uffd, gmem_page_hva(e->mem, page),
					   n * OB_PAGE_SIZE, !e->stage->caps.move);
}

int ept_windows_open(struct ept *e, uint64_t page, uint64_t n)
{
	for (uint64_t end = page + n, run; page < end; page += run) {
		uint64_t most = OB_MIN(end - page, EPT_WINDOW - page % EPT_WINDOW);
		int r;

		most = OB_MIN(most, gmem_page_span(e->mem, page));
		for (run = 1;
		     run < most && over_pool(e->map[page + run]) == over_pool(e->map[page]);)
			run++;
		if (over_pool(e->map[page]))
			continue;
		r = ept_watch(e, page, run);
		if (r)
			return r;
	}
	return 0;
}

/* The whole window, cut where its region ends. */
static void window_bounds(const struct ept *e, uint64_t page, uint64_t *first, uint64_t *n)
{
	uint64_t end;

	*first = page - page % EPT_WINDOW;
	end = OB_MIN(*first + EPT_WINDOW, e->pages);
	*n = end - *first;
}

int ept_window_open(struct ept *e, uint64_t page)
{
	uint64_t first, n;
	int r;

	if (ept_window_on(e, page))
		return 0;
	window_bounds(e, page, &first, &n);
	/* What fails in the middle leaves a part registered: faults that are answered, and no harm. But
	 * only where all is may anything be taken. */
	r = ept_windows_open(e, first, n);
	if (!r)
		window_set(e, page, true);
	return r;
}

void ept_windows_close(struct ept *e, uint64_t page, uint64_t n)
{
	for (uint64_t end = page + n, first, most; page < end; page = first + most) {
		bool out = false;

		window_bounds(e, page, &first, &most);
		if (!ept_window_on(e, page))
			continue;
		for (uint64_t p = first; p < first + most && !out; p++)
			out = ept_entry_staged(e->map[p]) || ept_entry_tiered(e->map[p]);
		if (out)
			continue;
		for (uint64_t p = first, run; p < first + most; p += run) {
			run = OB_MIN(first + most - p, gmem_page_span(e->mem, p));
			/* What is left registered is answered: so the window stays open. */
			out |= e->host->ops->uffd_unregister(e->host, e->stage->uffd,
							     gmem_page_hva(e->mem, p),
							     run * OB_PAGE_SIZE) != 0;
		}
		window_set(e, page, out);
	}
}

#define STAGE_NAME (sizeof(((struct gmem *)NULL)->name) + 8)

static const char *stage_name(const struct ept *e, char *buf)
{
	snprintf(buf, STAGE_NAME, "%.24s:staged", e->mem->name);
	return buf;
}

int ept_stage_renew(struct ept *e, uint64_t page, uint64_t n)
{
	hva_t at = ept_stage_hva(e, page);
	uint64_t size = n * OB_PAGE_SIZE;
	char name[STAGE_NAME];
	int r = e->host->ops->map_empty(e->host, at, size, stage_name(e, name));

	return r ? r : e->host->ops->uffd_register(e->host, e->stage->uffd, at, size, false);
}

static int stage_open(struct ept *e, struct ept_stage *st)
{
	struct ob_host *h = e->host;
	char name[STAGE_NAME];
	int r;

	st->uffd = h->ops->uffd_open(h, &st->caps);
	if (st->uffd < 0)
		return st->uffd;
	if (e->copy_only)
		st->caps.move = false;
	if (!st->caps.move && !st->caps.protect)
		return -EOPNOTSUPP;
	st->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (st->stop_fd < 0)
		return -errno;
	st->size = e->pages * OB_PAGE_SIZE;
	r = h->ops->ram_map(h, st->size, stage_name(e, name), &st->at);
	if (r) {
		st->size = 0;
		return r;
	}
	return h->ops->uffd_register(h, st->uffd, st->at, st->size, false);
}

static void stage_close(struct ept *e, struct ept_stage *st)
{
	if (st->has_thread)
		ept_handler_stop(st);
	/* Closing it wakes whoever still waits: the guest has been stopped by now. */
	if (st->uffd >= 0)
		close(st->uffd);
	if (st->stop_fd >= 0)
		close(st->stop_fd);
	if (st->size)
		OB_ASSERT(!e->host->ops->unmap(e->host, st->at, st->size));
	ob_free(e->arena, st->window);
	ob_free(e->arena, st);
}

int ept_stage_ready(struct ept *e)
{
	uint64_t windows = window_of(e->pages - 1) + 1;
	struct ept_stage *st;
	int r = 0;

	ob_lock(&e->lock);
	if (e->stage)
		goto out;
	st = ob_alloc(e->arena, sizeof(*st));
	*st = (struct ept_stage){.uffd = -1, .stop_fd = -1};
	st->window = ob_alloc(e->arena, (windows + 63) / 64 * sizeof(st->window[0]));
	r = stage_open(e, st);
	if (!r && !e->no_thread)
		r = ept_handler_start(e, st);
	if (r)
		stage_close(e, st);
	else
		e->stage = st;
out:
	ob_unlock(&e->lock);
	return r;
}

void ept_stage_exit(struct ept *e)
{
	if (e->stage)
		stage_close(e, e->stage);
	e->stage = NULL;
}

void ept_staging(struct ept *e, hva_t *at, uint64_t *size)
{
	ob_lock(&e->lock);
	*at = e->stage ? e->stage->at : hva(0);
	*size = e->stage ? e->stage->size : 0;
	ob_unlock(&e->lock);
}

/*
 * Page by page: what fails in the middle of a longer copy would leave pages at both places. Returns
 * the pages that are back.
 */
static int64_t copy_back(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_host *h = e->host;
	uint64_t done = 0;
	int r = 0;

	while (done < n && !r) {
		r = h->ops->uffd_copy(h, e->stage->uffd, gmem_page_hva(e->mem, page + done),
				      ept_stage_hva(e, page + done), OB_PAGE_SIZE);
		done += !r;
	}
	if (!done)
		return r;
	/* What cannot be given back is memory too much, and no harm to anybody's content; but the next
	 * page that goes there would find the place taken. */
	r = h->ops->discard(h, ept_stage_hva(e, page), done * OB_PAGE_SIZE);
	if (r)
		ept_lost(e, "staging cannot be emptied");
	return (int64_t)done;
}

/* By moving, or by copying. Wakes who waits. Returns the pages that are back. */
static int64_t back_pages(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_host *h = e->host;
	int64_t moved;

	if (!e->stage->caps.move)
		return copy_back(e, page, n);
	moved = h->ops->uffd_move(h, e->stage->uffd, gmem_page_hva(e->mem, page),
				  ept_stage_hva(e, page), n * OB_PAGE_SIZE);
	/* Somebody in the kernel holds the first page. Its content goes back all the same. */
	if (moved == -EBUSY || moved == -EAGAIN)
		return copy_back(e, page, 1);
	return moved < 0 ? moved : moved / (int64_t)OB_PAGE_SIZE;
}

int64_t ept_stage_back(struct ept *e, uint64_t page, uint64_t n)
{
	uint64_t done = 0, run = n;

	while (done < n) {
		int64_t r = back_pages(e, page + done, run);

		/* A move may not cross from one mapping into the next; and the kernel does not
		 * always join those that are alike. */
		if (r == -EINVAL && run > 1) {
			run /= 2;
			continue;
		}
		if (r <= 0)
			return done ? (int64_t)done : r ? r : -EIO;
		for (uint64_t p = page + done; p < page + done + (uint64_t)r; p++)
			ept_set(e, p, ept_entry(EPT_PRIVATE, 0, 0), EPT_BY_FAULT);
		done += (uint64_t)r;
		run = n - done;
	}
	return (int64_t)done;
}

int64_t ept_stage_discard(struct ept *e, const struct ept_run *runs, unsigned int n)
{
	struct ob_range range[EPT_CHUNK];
	int64_t bytes = 0;

	for (unsigned int done = 0, take; done < n; done += take) {
		int64_t held;
		int r;

		take = OB_MIN(n - done, (unsigned int)EPT_CHUNK);
		held = 0;
		for (unsigned int i = 0; i < take; i++) {
			const struct ept_run *run = &runs[done + i];
			int64_t b = ept_held_bytes(e, ept_stage_hva(e, run->page), run->n);

			held += OB_MAX(b, 0);
			range[i] = (struct ob_range){
				.at = ept_stage_hva(e, run->page),
				.size = run->n * OB_PAGE_SIZE,
			};
		}
		r = e->host->ops->discard_many(e->host, range, take);
		/* As above: the place must be free. On a range of our own it should not fail. */
		if (r)
			ept_lost(e, "staging cannot be emptied");
		bytes += held;
	}
	return bytes;
}

void ept_lost(struct ept *e, const char *why)
{
	e->faults.count[EPT_FAULT_FAILED]++;
	if (e->parker.fail)
		e->parker.fail(e->parker.arg, why);
	else
		ob_warn("guest memory is lost: %s", why);
}
