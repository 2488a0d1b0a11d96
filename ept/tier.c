/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier.c: pages that leave staging for a tier, which answers for them from then on.
 *
 * Whoever fills a tier reads a staged page, does with it what takes its time (compress it, write it
 * to a disk), and then hands it over. Meanwhile the guest may have touched the page: it is back, has
 * changed, and may even have been taken again, and read again by somebody else. So each taking has a
 * number, the page in staging bears it, the reader gets it as a ticket, and only a page that still
 * bears the reader's number is handed over. Nobody waits for anybody: the guest gets its page at
 * once, and the work was for nothing.
 */
#include <errno.h>
#include <string.h>

#include "ept/fault.h"

#define BATCH 256

static bool tier_state(enum ept_state s)
{
	return s == EPT_COMPRESSED || s == EPT_SWAPPED || s == EPT_REMOTE;
}

int ept_set_tier(struct ept *e, enum ept_state state, const struct ept_tier_ops *ops, void *arg)
{
	int r = 0;

	if (!tier_state(state))
		return -EINVAL;
	ob_lock(&e->lock);
	if (e->st.state[state] || e->tier[state].dropping)
		r = -EBUSY;
	else
		e->tier[state] = (struct ept_tier){.ops = ops, .arg = arg};
	ob_unlock(&e->lock);
	return r;
}

void ept_tier_drop(struct ept *e, enum ept_state state, uint32_t slot)
{
	const struct ept_tier t = e->tier[state];

	e->tier[state].dropping++;
	ob_unlock(&e->lock);
	t.ops->drop(t.arg, slot);
	ob_lock(&e->lock);
	e->tier[state].dropping--;
}

int ept_stage_read(struct ept *e, uint64_t page, void *buf, uint32_t *ticket)
{
	int r = -EAGAIN;

	if (page >= e->pages)
		return -ERANGE;
	ob_lock(&e->lock);
	if (ept_entry_staged(e->map[page])) {
		memcpy(buf, hva_ptr(ept_stage_hva(e, page)), OB_PAGE_SIZE);
		*ticket = ept_entry_taking(e->map[page]);
		r = 0;
	}
	ob_unlock(&e->lock);
	return r;
}

/* One batch; pages are in the order of the caller's. */
static int64_t hand_over(struct ept *e, enum ept_state state, struct ept_tiered *list,
			 unsigned int n)
{
	struct ept_run run[BATCH];
	unsigned int used = 0;
	int64_t freed;

	for (unsigned int i = 0; i < n; i++) {
		uint32_t entry = e->map[list[i].page];

		list[i].done = ept_entry_staged(entry) &&
			       ept_entry_taking(entry) == list[i].ticket &&
			       !ept_huge_part(e, list[i].page, 1, true);
		if (!list[i].done)
			continue;
		ept_set(e, list[i].page, ept_entry(state, list[i].slot, 0), EPT_BY_TIER);
		if (used && run[used - 1].page + run[used - 1].n == list[i].page)
			run[used - 1].n++;
		else
			run[used++] = (struct ept_run){.page = list[i].page, .n = 1};
		e->st.tiered++;
	}
	freed = ept_stage_discard(e, run, used);
	e->st.freed_bytes += (uint64_t)freed;
	return freed;
}

int64_t ept_to_tier(struct ept *e, enum ept_state state, struct ept_tiered *list, unsigned int n)
{
	int64_t freed = 0, r = 0;

	if (!tier_state(state))
		return -EINVAL;
	for (unsigned int i = 0; i < n; i++) {
		list[i].done = false;
		if (list[i].page >= e->pages || list[i].slot > EPT_MAX_FRAME)
			return -ERANGE;
		if (i && list[i].page <= list[i - 1].page)
			return -EINVAL;
	}
	ob_lock(&e->lock);
	if (!e->tier[state].ops)
		r = -EINVAL;
	for (unsigned int done = 0; done < n && r >= 0; done += BATCH) {
		r = hand_over(e, state, list + done, OB_MIN(n - done, (unsigned int)BATCH));
		freed += OB_MAX(r, 0);
	}
	ob_unlock(&e->lock);
	return r < 0 && !freed ? r : freed;
}

int ept_retier(struct ept *e, uint64_t page, enum ept_state from, uint32_t from_slot,
	       enum ept_state to, uint32_t to_slot)
{
	int r = -EAGAIN;

	if (page >= e->pages || from_slot > EPT_MAX_FRAME || to_slot > EPT_MAX_FRAME)
		return -ERANGE;
	if (!tier_state(from) || !tier_state(to) || !ept_may(from, to, EPT_BY_TIER))
		return -EINVAL;
	ob_lock(&e->lock);
	if (!e->tier[to].ops) {
		r = -EINVAL;
	} else if (e->map[page] == ept_entry(from, from_slot, 0)) {
		ept_set(e, page, ept_entry(to, to_slot, 0), EPT_BY_TIER);
		r = 0;
	}
	ob_unlock(&e->lock);
	return r;
}

/* With the lock held, at most EPT_CHUNK pages of one region. */
static int all_untouched(struct ept *e, uint64_t page, uint64_t n)
{
	struct ob_page view[EPT_CHUNK];
	int r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, page), n, view);

	for (uint64_t i = 0; i < n && !r; i++) {
		ept_take_view(e, page + i, &view[i]);
		if (ept_entry_state(e->map[page + i]) != EPT_UNTOUCHED)
			r = -EINVAL;
	}
	return r;
}

int ept_set_remote(struct ept *e, uint64_t page, uint64_t n, uint32_t first_slot)
{
	int r;

	if (!ept_range_ok(e, page, n) || first_slot > EPT_MAX_FRAME ||
	    n > EPT_MAX_FRAME - first_slot + 1)
		return -ERANGE;
	r = ept_stage_ready(e);
	if (r)
		return r;
	ob_lock(&e->lock);
	if (!e->tier[EPT_REMOTE].ops)
		r = -EINVAL;
	/* From when the windows are open on, a touch waits until we have given up the lock. */
	for (uint64_t p = page; p < page + n && !r; p += EPT_WINDOW - p % EPT_WINDOW)
		r = ept_window_open(e, p);
	for (uint64_t p = page, chunk; p < page + n && !r; p += chunk) {
		chunk = OB_MIN(OB_MIN(page + n - p, EPT_CHUNK), gmem_page_span(e->mem, p));
		r = all_untouched(e, p, chunk);
	}
	for (uint64_t i = 0; i < n && !r; i++)
		ept_set(e, page + i, ept_entry(EPT_REMOTE, first_slot + (uint32_t)i, 0),
			EPT_BY_TIER);
	if (r)
		ept_windows_close(e, page, n);
	ob_unlock(&e->lock);
	return r;
}
