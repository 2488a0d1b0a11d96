/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reshare.c: pages that broke off a frame and hold its content again.
 *
 * After a copy-on-write break the guest's own copy lies in front of the frame, in the same private
 * mapping of the pool. When the guest has written back what was there, nothing needs to be mapped: the
 * copy is discarded, and the frame shows again. All such pages of a freeze go by one call and one
 * flush, at about 1 us each, and no mapping is added, split or looked for: a tenth of what mapping the
 * frame anew costs.
 *
 * It has to be that very frame. So a private page over the pool keeps in its entry the number of the
 * frame that it broke off (EPT_UNDER), which goes with the entry when anything else is mapped there.
 * What is in the frame by now is the caller's business, who holds it and has compared it: a frame
 * that was given back after the break may be another content's, but that is for the comparison to say.
 *
 * What the discard has brought to light is compared once more, while the guest still stands. That is
 * a fault which the guest would have to take anyway, and it holds this file's belief about the mapping
 * against the kernel's, page by page. A guest in which it does not hold is ended.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

uint32_t ept_under(const struct ept *e, uint64_t page)
{
	uint32_t entry = e->map[page];

	if (ept_entry_state(entry) != EPT_PRIVATE || !(entry & EPT_OVER_POOL) ||
	    !(entry & EPT_UNDER))
		return EPT_NO_FRAME;
	return ept_entry_payload(entry) >> EPT_UNDER_SHIFT;
}

uint32_t ept_frame_under(struct ept *e, uint64_t page)
{
	uint32_t frame = EPT_NO_FRAME;

	ob_lock(&e->lock);
	if (page < e->pages && !ept_window_on(e, page))
		frame = ept_under(e, page);
	ob_unlock(&e->lock);
	return frame;
}

/* Frozen, and nothing but its copy lies in front of the frame? */
static int reshare_ok(struct ept *e, const struct ept_reshare *s)
{
	bool staged;
	int r;

	if (!ept_range_ok(e, s->page, 1))
		return -ERANGE;
	r = ept_changeable(e, s->page, 1, 1u << EPT_PRIVATE, &staged);
	if (r || staged)
		return r ? r : -EBUSY;
	/* Where faults come to us, the one below would wait for this thread. */
	if (ept_under(e, s->page) != s->frame || ept_window_on(e, s->page))
		return -EINVAL;
	return ept_huge_part(e, s->page, 1, false);
}

int64_t ept_reshare_pages(struct ept *e, struct ept_reshare *list, unsigned int n)
{
	struct ob_range range[EPT_SHARE_RUNS];
	struct ob_host *h = e->host;
	int64_t freed = 0;
	unsigned int m = 0;
	int r;

	if (n > EPT_SHARE_RUNS)
		return -EINVAL;
	for (unsigned int i = 1; i < n; i++)
		if (list[i].page <= list[i - 1].page)
			return -EINVAL;
	ob_lock(&e->lock);
	for (unsigned int i = 0; i < n; i++) {
		hva_t at = gmem_page_hva(e->mem, list[i].page);

		list[i].err = reshare_ok(e, &list[i]);
		if (list[i].err)
			continue;
		if (m && range[m - 1].at.v + range[m - 1].size == at.v)
			range[m - 1].size += OB_PAGE_SIZE;
		else
			range[m++] = (struct ob_range){.at = at, .size = OB_PAGE_SIZE};
	}
	r = m ? h->ops->reveal_many(h, range, m) : 0;
	for (unsigned int i = 0; i < n; i++) {
		struct ob_page view = {0};
		hva_t at = gmem_page_hva(e->mem, list[i].page);

		if (list[i].err)
			continue;
		/* Whichever of the two is there now, the copy or the frame, has this content. */
		if (memcmp(hva_ptr(at), list[i].content, OB_PAGE_SIZE)) {
			ept_lost(e, "a page that was to be shared again is not what it was");
			list[i].err = -EIO;
			continue;
		}
		/* It failed, maybe in the middle: which of them is it? Where nobody says, the frame: then its
		 * hold stays, and a sync that finds a copy gives it back. */
		if (r && !h->ops->pages(h, at, 1, &view) && ob_page_own(&view)) {
			list[i].err = r;
			continue;
		}
		ept_set(e, list[i].page, ept_entry(EPT_SHARED, list[i].frame, EPT_OVER_POOL),
			EPT_BY_MERGE);
		e->st.shared++;
		e->st.freed_bytes += OB_PAGE_SIZE;
		freed += (int64_t)OB_PAGE_SIZE;
	}
	ob_unlock(&e->lock);
	return freed;
}
