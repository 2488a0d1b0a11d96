/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c: taking memory from a guest: a page replaced by a frame of the pool, or dropped because
 * it holds nothing. Both only on frozen pages whose content the caller has checked while frozen.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

/* How much memory of its own the kernel holds for the range: what taking it away gives back. */
static int64_t held_bytes(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_page buf[EPT_CHUNK];
	int64_t bytes = 0;

	for (uint64_t done = 0; done < n;) {
		uint64_t chunk = OB_MIN(n - done, EPT_CHUNK);
		hva_t at = gmem_page_hva(e->mem, page + done);
		int r = e->host->ops->pages(e->host, at, chunk, buf);

		if (r)
			return r;
		for (uint64_t i = 0; i < chunk; i++)
			if (ob_page_own(&buf[i]) && buf[i].present)
				bytes += (int64_t)OB_PAGE_SIZE;
		done += chunk;
	}
	return bytes;
}

static void assert_frozen(const struct ept *e, uint64_t page, uint64_t n)
{
	OB_ASSERT(n && page >= e->frozen_page && page + n <= e->frozen_page + e->frozen_n);
	for (uint64_t p = page; p < page + n; p++) {
		enum ept_state s = ept_entry_state(e->map[p]);

		OB_ASSERT(!ept_busy(e, p));
		OB_ASSERT(s == EPT_PRIVATE || s == EPT_ZERO);
	}
}

/*
 * mmap over a mapping takes the old one away first, and some kernels can fail after that. The
 * frames hold the same bytes as the pages did, so what is gone is put back from them.
 */
static void put_back(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	struct ob_host *h = e->host;
	struct ob_page p;

	for (uint64_t i = 0; i < n; i++) {
		hva_t at = gmem_page_hva(e->mem, page + i);
		uint64_t off = ((uint64_t)frame + i) * OB_PAGE_SIZE;

		if (!h->ops->pages(h, at, 1, &p) && ob_page_own(&p))
			continue; /* still there */
		/* Going on with a hole in a guest would be one wrong page: better none at all. */
		OB_ASSERT(!h->ops->map_empty(h, at, OB_PAGE_SIZE, e->mem->name));
		if (ept_entry_state(e->map[page + i]) == EPT_ZERO) {
			ept_set(e, page + i, ept_entry(EPT_ZERO, 0, 0));
			continue;
		}
		OB_ASSERT(!h->ops->file_read(h, pool_fd, hva_ptr(at), OB_PAGE_SIZE, off));
		ept_set(e, page + i, ept_entry(EPT_PRIVATE, 0, 0));
	}
}

int64_t ept_share(struct ept *e, uint64_t page, uint64_t n, int pool_fd, uint32_t frame)
{
	struct ob_host *h = e->host;
	uint64_t off = (uint64_t)frame * OB_PAGE_SIZE;
	int64_t freed;
	int r;

	OB_ASSERT(frame <= EPT_MAX_FRAME && n <= EPT_MAX_FRAME - frame + 1);
	pthread_mutex_lock(&e->lock);
	assert_frozen(e, page, n);
	freed = held_bytes(e, page, n);
	if (freed < 0)
		goto out;
	r = h->ops->map_frames(h, gmem_page_hva(e->mem, page), n * OB_PAGE_SIZE, pool_fd, off);
	if (r) {
		put_back(e, page, n, pool_fd, frame);
		freed = r;
		goto out;
	}
	for (uint64_t i = 0; i < n; i++)
		ept_set(e, page + i, ept_entry(EPT_SHARED, frame + (uint32_t)i, EPT_OVER_POOL));
	e->st.shared += n;
	e->st.freed_bytes += (uint64_t)freed;
out:
	pthread_mutex_unlock(&e->lock);
	return freed;
}

int64_t ept_drop_zero(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_host *h = e->host;
	int64_t freed = 0;

	pthread_mutex_lock(&e->lock);
	assert_frozen(e, page, n);
	for (uint64_t done = 0, run; done < n; done += run) {
		uint32_t over_pool = e->map[page + done] & EPT_OVER_POOL;
		hva_t at = gmem_page_hva(e->mem, page + done);
		int64_t held;
		int r;

		for (run = 1; done + run < n; run++)
			if ((e->map[page + done + run] & EPT_OVER_POOL) != over_pool)
				break;
		held = held_bytes(e, page + done, run);
		r = held < 0	? (int)held
		    : over_pool ? h->ops->map_empty(h, at, run * OB_PAGE_SIZE, e->mem->name)
				: h->ops->discard(h, at, run * OB_PAGE_SIZE);
		/* The second try is for kernels where a failed mmap has taken the old mapping away:
		 * then there is room for the new one. */
		if (r && over_pool && held >= 0)
			r = h->ops->map_empty(h, at, run * OB_PAGE_SIZE, e->mem->name);
		if (r) {
			if (!done)
				freed = r;
			break;
		}
		for (uint64_t p = page + done; p < page + done + run; p++)
			ept_set(e, p, ept_entry(EPT_ZERO, 0, 0));
		e->st.dropped += run;
		e->st.freed_bytes += (uint64_t)held;
		freed += held;
	}
	pthread_mutex_unlock(&e->lock);
	return freed;
}
