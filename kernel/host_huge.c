/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_huge.c: transparent huge pages of the real host: asked for, built, taken apart, counted.
 *
 * To give a part of a huge page back is not to free it. The kernel then maps the rest in small
 * pages, but what was allocated as one stays allocated as one until the last of it goes, or until
 * the host runs out of memory. It has to be split first. There is no call for that, but there is
 * one that does it on its way: MADV_COLD (Linux 5.4) of a part of a huge page, which is a hint
 * about small pages, splits it to be able to follow. That leaves the content as it is, needs no
 * privilege, takes some 300 us, and works beside a running guest. It says nothing when it could not
 * (somebody has pinned the page), so we look whether it is huge still.
 *
 * A kernel that splits a huge page puts its zero page in the place of those that are all zero (6.12
 * and later): it gives memory back by itself.
 *
 * Which units are mapped huge PAGEMAP_SCAN says (6.7). An older kernel is asked whether all pages
 * of the unit are there, none of them of a file, and, if we may know, whether their frames are
 * neighbours from an aligned one on. Small pages that have come to lie so are taken for a huge one
 * by this, and without frame numbers all small pages of a full unit are.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "kernel/compat.h"
#include "kernel/host_int.h"

#define UNIT_PAGES (OB_HUGE_SIZE / OB_PAGE_SIZE)
/* Another thread of the kernel's may be looking at a page just then: try again. */
#define SPLIT_TRIES 4

int host_huge(struct ob_host *h, hva_t at, uint64_t size, bool on)
{
	if (!h->huge)
		return on ? -EOPNOTSUPP : 0;
	return madvise(hva_ptr(at), size, on ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) ? -errno : 0;
}

int host_collapse(struct ob_host *h, hva_t at, uint64_t size)
{
	if (!h->collapses)
		return -EOPNOTSUPP;
	return madvise(hva_ptr(at), size, MADV_COLLAPSE) ? -errno : 0;
}

/* The regions of [at, at + n units) that are mapped huge. How many, or -errno. */
static int scan(struct ob_host *h, uint64_t at, uint64_t end, struct page_region *out,
		unsigned int max)
{
	struct pm_scan_arg a = {
		.size = sizeof(a),
		.start = at,
		.end = end,
		.vec = (uint64_t)(uintptr_t)out,
		.vec_len = max,
		/* The huge zero page is nobody's memory. */
		.category_mask = PAGE_IS_HUGE | PAGE_IS_PFNZERO,
		.category_inverted = PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_HUGE,
	};
	int got;

	if (h->no_scan)
		return -ENOTTY;
	got = ioctl(h->pagemap_fd, PAGEMAP_SCAN, &a);
	return got < 0 ? -errno : got;
}

/* As well as an older kernel lets us know. */
static int looks_huge(struct ob_host *h, hva_t at, uint8_t *out)
{
	struct ob_page p[UNIT_PAGES];
	int r = h->ops->pages(h, at, UNIT_PAGES, p);

	*out = !r && p[0].present && p[0].pfn % UNIT_PAGES == 0;
	for (unsigned int i = 0; i < UNIT_PAGES && *out; i++)
		*out = p[i].present && !p[i].file && !p[i].zero &&
		       (!p[0].pfn || p[i].pfn == p[0].pfn + i);
	return r;
}

int host_huge_units(struct ob_host *h, hva_t at, uint64_t n, uint8_t *out)
{
	uint64_t end = at.v + n * OB_HUGE_SIZE, from = at.v;
	struct page_region found[32];
	int got;

	for (uint64_t i = 0; i < n; i++)
		out[i] = 0;
	do {
		got = scan(h, from, end, found, OB_ARRAY_SIZE(found));
		for (int i = 0; i < got; i++)
			for (uint64_t v = found[i].start; v < found[i].end; v += OB_HUGE_SIZE)
				out[(v - at.v) / OB_HUGE_SIZE] = 1;
		if (got > 0)
			from = found[got - 1].end;
	} while (got == (int)OB_ARRAY_SIZE(found) && from < end);
	if (got != -ENOTTY && got != -EINVAL)
		return got < 0 ? got : 0;
	for (uint64_t i = 0; i < n; i++) {
		int r = looks_huge(h, hva(at.v + i * OB_HUGE_SIZE), &out[i]);

		if (r)
			return r;
	}
	return 0;
}

int host_split(struct ob_host *h, hva_t at)
{
	struct page_region one;
	int huge = scan(h, at.v, at.v + OB_HUGE_SIZE, &one, 1);

	for (int i = 0; i < SPLIT_TRIES; i++) {
		/*
		 * Its first page, when it is mapped by one entry. Else some of it may be gone
		 * already: all of it but a page, so that it cannot be taken for the whole.
		 */
		uint64_t part = huge > 0 ? OB_PAGE_SIZE : OB_HUGE_SIZE - OB_PAGE_SIZE;

		if (madvise(hva_ptr(at), part, MADV_COLD))
			return -errno;
		if (huge < 0)
			return 0; /* it will not say */
		huge = scan(h, at.v, at.v + OB_HUGE_SIZE, &one, 1);
		if (!huge)
			return 0;
	}
	return huge < 0 ? huge : -EBUSY;
}

/* The frame that the first page of a unit at @at has after it was read; 0: none that is known, or no
 * huge page. */
static uint64_t read_unit(struct ob_host *h, hva_t at)
{
	struct ob_page first, last;

	if (host_huge(h, at, OB_HUGE_SIZE, true))
		return 0;
	(void)*(volatile uint8_t *)hva_ptr(at);
	if (h->ops->pages(h, at, 1, &first) ||
	    h->ops->pages(h, hva(at.v + OB_HUGE_SIZE - OB_PAGE_SIZE), 1, &last))
		return 0;
	return first.pfn % UNIT_PAGES == 0 && last.pfn == first.pfn + UNIT_PAGES - 1 ? first.pfn
										     : 0;
}

/*
 * As zero_pfn of host_linux.c, of the huge one: this process keeps it from now until its end. A host
 * may have been told to use none (use_zero_page): then reading gives an ordinary huge page, whose
 * frame is somebody's memory tomorrow. Two units that are read have one frame only if it is the zero
 * page.
 */
static void learn_huge_zero_pfn(struct ob_host *h)
{
	uint64_t pfn;
	hva_t at;

	if (!h->knows_pfn || h->ops->ram_map(h, 2 * OB_HUGE_SIZE, "ob:zero", &at))
		return;
	pfn = read_unit(h, at);
	if (pfn && read_unit(h, hva(at.v + OB_HUGE_SIZE)) == pfn)
		h->huge_zero_pfn = pfn;
	h->ops->unmap(h, at, 2 * OB_HUGE_SIZE);
}

int ob_host_linux_huge(struct ob_host *h)
{
	hva_t at;
	int r;

	/* Not the heap, not stacks: only what is asked for. Before 6.18 it is as the host has it. */
	if (prctl(PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0))
		prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	h->huge = true;
	/* A kernel without huge pages does not know the advice. */
	r = h->ops->ram_map(h, OB_HUGE_SIZE, "ob:probe", &at);
	if (r)
		return r;
	if (host_huge(h, at, OB_HUGE_SIZE, true)) {
		h->huge = false;
		r = -EOPNOTSUPP;
	}
	/* Of nothing: only whether the word is known. */
	h->collapses = !madvise(hva_ptr(at), 0, MADV_COLLAPSE);
	h->ops->unmap(h, at, OB_HUGE_SIZE);
	if (!r)
		learn_huge_zero_pfn(h);
	return r;
}
