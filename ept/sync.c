/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.c: harvest what the kernel did by itself.
 *
 * The first touch of a page and the copy-on-write break of a shared one happen in the kernel, at
 * full speed and without telling us. The kernel's page map shows both afterwards: a page that is
 * there, and a page of a pool mapping that is not of the file any more. (A frame that the kernel is
 * migrating at that moment is not present, but it is still of the file: ob_page_own.) The lock is
 * held from looking to noting: otherwise a page that is being shared in between would look as if
 * broken.
 */
#include <errno.h>

#include "ept/ept_int.h"

/* What an entry keeps of the frame that its page broke off. */
static uint32_t under(uint32_t frame)
{
	return frame > EPT_PAYLOAD_MASK >> EPT_UNDER_SHIFT ? 0
							   : frame << EPT_UNDER_SHIFT | EPT_UNDER;
}

/* What the kernel's view of a page makes of its entry. */
static uint32_t synced(uint32_t entry, const struct ob_page *p)
{
	bool own = ob_page_own(p);
	uint32_t over_pool = entry & EPT_OVER_POOL;

	switch (ept_entry_state(entry)) {
	case EPT_UNTOUCHED:
	case EPT_BALLOONED:
		if (own)
			return ept_entry(EPT_PRIVATE, 0, over_pool);
		return p->present && p->zero ? ept_entry(EPT_ZERO, 0, over_pool) : entry;
	case EPT_ZERO:
		return own ? ept_entry(EPT_PRIVATE, 0, over_pool) : entry;
	case EPT_PRIVATE:
		/* Linux KSM may put the zero page in the place of one of zeroes. */
		return p->present && p->zero && !ept_entry_staged(entry)
			       ? ept_entry(EPT_ZERO, 0, over_pool)
			       : entry;
	case EPT_SHARED:
		if (own)
			return ept_entry(EPT_PRIVATE, under(ept_entry_payload(entry)), over_pool);
		/* Broken off, and then of zeroes, since the last look. */
		return p->present && p->zero ? ept_entry(EPT_ZERO, 0, over_pool) : entry;
	case EPT_COMPRESSED:
	case EPT_SWAPPED:
	case EPT_REMOTE:
		/* Only we bring it back. */
		return entry;
	case EPT_NSTATES:
		break;
	}
	OB_ASSERT(!"page state");
	return entry;
}

bool ept_take_view(struct ept *e, uint64_t page, const struct ob_page *view)
{
	uint32_t was = e->map[page], is = synced(was, view);

	if (is == was)
		return false;
	ept_set(e, page, is, EPT_BY_KERNEL);
	if (ept_entry_state(was) == EPT_SHARED) {
		e->st.broken++;
		if (e->broken)
			e->broken(e->broken_arg, page, ept_entry_payload(was));
	} else if (ept_entry_state(was) == EPT_UNTOUCHED) {
		e->st.touched++;
	}
	return true;
}

int ept_look(struct ept *e, uint64_t page, uint64_t n, struct ob_page *view)
{
	int r = e->host->ops->pages(e->host, gmem_page_hva(e->mem, page), n, view);

	for (uint64_t i = 0; i < n && !r; i++)
		ept_take_view(e, page + i, &view[i]);
	return r;
}

int ept_sync(struct ept *e, uint64_t page, uint64_t n, struct ob_page *pages_out)
{
	struct ob_page buf[EPT_CHUNK];

	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	for (uint64_t end = page + n; page < end;) {
		uint64_t chunk =
			OB_MIN(OB_MIN(end - page, EPT_CHUNK), gmem_page_span(e->mem, page));
		struct ob_page *view = pages_out ? pages_out : buf;
		int r;

		ob_lock(&e->lock);
		r = ept_look(e, page, chunk, view);
		ob_unlock(&e->lock);
		if (r)
			return r;
		page += chunk;
		if (pages_out)
			pages_out += chunk;
	}
	return 0;
}
