/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c: the map against what the kernel says, page by page.
 *
 * The guest may run meanwhile. The lock is held from reading the kernel's page map of a stretch to
 * comparing it, so nobody of ours changes a page in between; what the kernel changes by itself a sync
 * enters first, and is counted as lagging. What differs then is a bug: memory where there should be
 * none, none where there should be, or a page that is at two places or at no place.
 */
#include <errno.h>

#include "ept/ept_int.h"

/* NULL: the page is as the map has it. */
static const char *wrong(uint32_t entry, const struct ob_page *there, const struct ob_page *staging)
{
	bool own = ob_page_own(there), some = there->present || there->swapped;
	/* Splitting a huge page, the kernel may put its zero page in the place of parts of zeroes. */
	bool out = staging && (staging->present || staging->swapped);

	if (out && !staging->zero && !ept_entry_staged(entry))
		return "memory in staging that is nobody's";
	switch (ept_entry_state(entry)) {
	case EPT_UNTOUCHED:
		return some ? "memory behind an untouched page" : NULL;
	case EPT_ZERO:
		if (there->file)
			return "a frame behind a zero page";
		return own ? "memory of its own behind a zero page" : NULL;
	case EPT_PRIVATE:
		if (!ept_entry_staged(entry))
			return own ? NULL : "no memory of its own behind a private page";
		if (some)
			return "something in the place of a page that was taken out";
		/* Linux KSM may have put the zero page in its place before it was taken. */
		return staging && (staging->present || staging->swapped)
			       ? NULL
			       : "nothing in staging behind a page that was taken out";
	case EPT_SHARED:
		return some && !there->file ? "no frame behind a shared page" : NULL;
	case EPT_COMPRESSED:
	case EPT_SWAPPED:
	case EPT_REMOTE:
		return some ? "something in the place of a page that is in a tier" : NULL;
	case EPT_BALLOONED:
		return some ? "memory behind a page in the balloon" : NULL;
	case EPT_NSTATES:
		break;
	}
	return "no state";
}

static void compare(struct ept *e, uint64_t page, const struct ob_page *there,
		    const struct ob_page *staging, struct ept_verify *out)
{
	const char *why;

	out->lagged += ept_take_view(e, page, there);
	why = wrong(e->map[page], there, staging);
	if (!why)
		return;
	if (out->differences < EPT_VERIFY_FIRST)
		out->first[out->differences] = (struct ept_difference){
			.page = page,
			.state = ept_entry_state(e->map[page]),
			.staged = ept_entry_staged(e->map[page]),
			.there = *there,
			.staging = staging ? *staging : (struct ob_page){0},
			.why = why,
		};
	out->differences++;
}

int ept_verify(struct ept *e, struct ept_verify *out)
{
	struct ob_page there[EPT_CHUNK], staging[EPT_CHUNK];
	int r = 0;

	*out = (struct ept_verify){0};
	for (uint64_t page = 0, n; page < e->pages && !r; page += n) {
		const struct ob_host_ops *ops = e->host->ops;
		bool out_there;

		n = OB_MIN(OB_MIN(e->pages - page, EPT_CHUNK), gmem_page_span(e->mem, page));
		ob_lock(&e->lock);
		out_there = e->stage != NULL;
		r = ops->pages(e->host, gmem_page_hva(e->mem, page), n, there);
		if (!r && out_there)
			r = ops->pages(e->host, ept_stage_hva(e, page), n, staging);
		for (uint64_t i = 0; i < n && !r; i++)
			compare(e, page + i, &there[i], out_there ? &staging[i] : NULL, out);
		ob_unlock(&e->lock);
	}
	out->pages = e->pages;
#ifdef OB_DEBUG
	ept_check(e);
#endif
	return r;
}
