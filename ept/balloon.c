/* SPDX-License-Identifier: Apache-2.0 */
/*
 * balloon.c: pages that the guest has given up, and takes back. A page in the balloon has no content
 * that anybody may rely on, so its memory goes wherever it is: in place, in staging, in a tier, in
 * the pool. A guest that touches it all the same gets zeroes, from the kernel or from us, and the
 * page is out of the balloon.
 */
#include <errno.h>

#include "ept/ept_int.h"

/* Give back the memory of pages that are alike. @unwatched as for ept_map_empty. */
static int64_t deflate_run(struct ept *e, uint64_t page, uint64_t n, int *unwatched)
{
	const struct ob_range range = {gmem_page_hva(e->mem, page), n * OB_PAGE_SIZE};
	struct ept_run run = {.page = page, .n = n};
	uint32_t entry = e->map[page];
	int64_t held;
	int r;

	*unwatched = 0;
	if (ept_entry_staged(entry))
		return ept_stage_discard(e, &run, 1);
	if (ept_entry_tiered(entry))
		return 0;
	held = ept_held_bytes(e, range.at, n);
	if (held < 0)
		return held;
	r = entry & EPT_OVER_POOL ? ept_map_empty(e, page, n, unwatched)
				  : e->host->ops->discard_many(e->host, &range, 1);
	return r ? r : held;
}

/* One run of pages whose state is the same. Gives the lock up to tell a tier and the merging engine. */
static int64_t inflate_run(struct ept *e, uint64_t page, uint64_t n)
{
	enum ept_state s = ept_entry_state(e->map[page]);
	int64_t freed;
	int unwatched;

	freed = deflate_run(e, page, n, &unwatched);
	if (freed < 0)
		return freed;
	for (uint64_t p = page; p < page + n; p++) {
		uint32_t payload = ept_entry_payload(e->map[p]);

		ept_set(e, p, ept_entry(EPT_BALLOONED, 0, unwatched ? EPT_OVER_POOL : 0),
			EPT_BY_BALLOON);
		if (s == EPT_SHARED && e->broken)
			e->broken(e->broken_arg, p, payload);
		if (s != EPT_COMPRESSED && s != EPT_SWAPPED && s != EPT_REMOTE)
			continue;
		ept_tier_drop(e, s, payload);
	}
	/* What reads as zeroes now may not have been zero: whoever watches is to look again. */
	if (e->track)
		ept_track_mark(e->track, page, n);
	e->st.ballooned += n;
	e->st.freed_bytes += (uint64_t)freed;
	return freed;
}

/* What makes pages alike here: the state, and where the page is. */
#define ALIKE (EPT_STATE_MASK << EPT_STATE_SHIFT | EPT_OVER_POOL)

static bool alike(uint32_t a, uint32_t b)
{
	return (a & ALIKE) == (b & ALIKE) && ept_entry_staged(a) == ept_entry_staged(b);
}

/* Bring the map up to date: a page that broke off its frame is not to be taken for a shared one. */
static int look(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_page view[EPT_CHUNK];
	int r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, page), n, view);

	for (uint64_t i = 0; i < n && !r; i++)
		ept_take_view(e, page + i, &view[i]);
	return r;
}

static int64_t inflate(struct ept *e, uint64_t page, uint64_t n)
{
	uint64_t before = e->st.ballooned;
	int64_t freed = 0;
	bool busy = false;

	for (uint64_t done = 0, run; done < n; done += run) {
		uint64_t at = page + done, most = OB_MIN(n - done, EPT_CHUNK);
		int64_t r;

		most = OB_MIN(most, gmem_page_span(e->mem, at));
		ept_wait_thawed(e, at, most);
		/* A page that is being loaded comes back first, or its slot would be read twice. */
		if (ept_entry_tiered(e->map[at]) && e->map[at] & EPT_LOADING) {
			ob_cond_wait(&e->thawed, &e->lock);
			run = 0;
			continue;
		}
		r = look(e, at, most);
		if (!r)
			r = ept_huge_part(e, at, most, false);
		if (r == -EBUSY) {
			/* Somebody in the kernel holds this unit; the others may go. */
			e->st.pinned += most;
			run = most;
			busy = true;
			continue;
		}
		if (r)
			return freed ? freed : r;
		for (run = 1; run < most && alike(e->map[at], e->map[at + run]); run++)
			;
		if (ept_entry_state(e->map[at]) == EPT_BALLOONED)
			continue;
		if (ept_entry_tiered(e->map[at]))
			run = 1; /* the lock is given up in between */
		r = inflate_run(e, at, run);
		if (r < 0)
			return freed ? freed : r;
		freed += r;
	}
	return busy && e->st.ballooned == before ? -EBUSY : freed;
}

int64_t ept_balloon(struct ept *e, uint64_t page, uint64_t n, bool in)
{
	int64_t r = 0;

	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	ob_lock(&e->lock);
	if (in) {
		r = inflate(e, page, n);
	} else {
		for (uint64_t p = page; p < page + n; p++)
			if (ept_entry_state(e->map[p]) == EPT_BALLOONED)
				ept_set(e, p, ept_entry(EPT_ZERO, 0, e->map[p] & EPT_OVER_POOL),
					EPT_BY_BALLOON);
	}
	ob_unlock(&e->lock);
	return r;
}
