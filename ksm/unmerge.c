/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unmerge.c: what an engine has merged is taken back, while the guests go on.
 *
 * The engine has stopped, but still knows its guests: their frames are held, and what is found to have
 * broken off is given back as ever. The guests' pages are gone round in windows of 2 MiB; what the
 * kernel has done by itself is harvested (ept_sync), and what merging has changed is taken back in
 * pieces, each in one freeze (ept_unshare). A piece is as long as a guest may stand still for less than
 * half of what --max-pause allows: how many pages that is, is learnt from one piece to the next.
 *
 * One call does one piece at most, so that whoever drives it can let the guests run in between.
 * Pages that a device was using are met again in another round, after a rest where one round has met
 * nothing else. Rounds end: nothing is merged any more, and a device does not hold a page for ever; if
 * one does for STUCK_NS, in which nothing else was left to do, that is an error and not a hang.
 */
#include <errno.h>

#include "ksm/engine.h"

#define WINDOW	    512ULL
#define FIRST_PIECE 32
#define LEAST_PIECE 4
/* Windows in which there is nothing to do that one call passes over. */
#define IDLE_WINDOWS 16
#define STUCK_NS     (30 * OB_NS_PER_SEC)
#define REST_NS	     (5 * OB_NS_PER_MS)

/* Longer or shorter pieces from now on? */
static void learn(const struct ksm *k, struct ksm_unmerge *u, uint64_t ns)
{
	u->pauses++;
	u->pause_ns += ns;
	u->pause_max_ns = OB_MAX(u->pause_max_ns, ns);
	if (ns > k->opts.max_pause_ns / 2)
		u->piece = OB_MAX(u->piece / 2, LEAST_PIECE);
	else if (ns < k->opts.max_pause_ns / 4)
		u->piece = OB_MIN(u->piece * 2, EPT_UNSHARE_PAGES);
}

/* One freeze. 0 or -errno. */
static int piece(struct ksm *k, struct ksm_unmerge *u, struct ksm_slot *s, uint64_t page,
		 uint64_t n)
{
	const struct ob_host_ops *ops = k->host->ops;
	struct ept_unshared done = {0};
	uint64_t t0 = ops->now_ns(k->host);
	int r;

	OB_ASSERT(!ept_freeze(s->g.ept, page, n));
	r = ept_unshare(s->g.ept, page, n, u->buf, &done);
	ept_thaw(s->g.ept);
	learn(k, u, ops->now_ns(k->host) - t0);
	if (k->ops->release)
		k->ops->release(k, s);
	u->pages += done.pages;
	u->zero_pages += done.zeroes;
	u->left += done.left;
	return r;
}

/* Go on in the window of u->page. 1: a piece was done; 0: nothing is left in this window. */
static int window(struct ksm *k, struct ksm_unmerge *u, struct ksm_slot *s)
{
	struct ept *e = s->g.ept;
	uint64_t end = OB_MIN(u->page + WINDOW - u->page % WINDOW,
			      u->page + gmem_page_span(e->mem, u->page));
	bool fresh = u->page >= u->synced; /* else it has been looked at, and is on the way */
	int r;

	if (fresh && k->ops->forbid) {
		r = k->ops->forbid(k, s, u->page, end - u->page);
		if (r)
			return r;
	}
	if (fresh) {
		r = ept_sync(e, u->page, end - u->page, NULL);
		if (r)
			return r;
		u->synced = end;
	}
	while (u->page < end) {
		uint64_t n = OB_MIN(end - u->page, u->piece), at = u->page;

		u->page += n;
		if (!ept_unshare_wanted(e, at, n))
			continue;
		r = piece(k, u, s, at, n);
		return r ? r : 1;
	}
	return 0;
}

/* All guests have been gone round. 1: some pages are left. */
static int round_end(struct ksm *k, struct ksm_unmerge *u)
{
	uint64_t now = k->host->ops->now_ns(k->host), done = u->pages + u->zero_pages;
	bool again = u->left > 0, got_on = done != u->done;

	u->slot = 0;
	u->left = 0;
	u->done = done;
	if (!again)
		return 0;
	if (got_on || !u->stuck_since)
		u->stuck_since = now;
	else if (now - u->stuck_since >= STUCK_NS)
		return -EBUSY;
	if (!got_on)
		u->rest_until = now + REST_NS;
	return 1;
}

int ksm_unmerge_step(struct ksm *k, struct ksm_unmerge *u)
{
	OB_ASSERT(!k->started);
	/* An engine that has changed nothing has nothing to take back. */
	if (!k->ops->merges)
		return 0;
	if (!u->buf) {
		u->buf = ob_alloc(k->arena, EPT_UNSHARE_PAGES * OB_PAGE_SIZE);
		u->piece = FIRST_PIECE;
	}
	if (k->host->ops->now_ns(k->host) < u->rest_until)
		return 1;
	for (unsigned int idle = 0; u->slot < k->nslots;) {
		struct ksm_slot *s = &k->slot[u->slot];
		int r;

		if (!s->used || u->page >= s->g.ept->pages) {
			u->slot++;
			u->page = u->synced = 0;
			continue;
		}
		r = window(k, u, s);
		if (r || ++idle == IDLE_WINDOWS)
			return r < 0 ? r : 1;
	}
	return round_end(k, u);
}

void ksm_unmerge_end(struct ksm *k, struct ksm_unmerge *u)
{
	ob_free(k->arena, u->buf);
	*u = (struct ksm_unmerge){0};
}
