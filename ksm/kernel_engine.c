/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_engine.c: the engine `kernel`: Linux KSM does the merging, as the yardstick.
 *
 * A process only has to say which of its memory may be merged (MADV_MERGEABLE); the scanning is
 * done by the kernel thread ksmd, for all processes of the host, once the coordinator drives it
 * (ksm_driver_start). So there is no step here, and the CPU time is ksmd's, read from sysfs.c. KSM
 * knows no sharing domains: it merges with whatever else on the host is mergeable.
 *
 * Stopping leaves everything as it is: MADV_UNMERGEABLE would copy every merged page at once, and
 * the memory goes with the guests anyway. When the guests are to go on without it, it is said window
 * by window (unmerge.c).
 */
#include <string.h>

#include "ksm/engine.h"

static int guest_advise(struct ob_host *h, const struct gmem *mem, bool on)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct gmem_region *r = &mem->region[i];
		int err = h->ops->mergeable(h, r->hva, r->size, on);

		if (err)
			return err;
	}
	return 0;
}

static int kernel_start(struct ksm *k, struct ob_err *e)
{
	for (unsigned int i = 0; i < k->nslots; i++) {
		int r;

		if (!k->slot[i].used)
			continue;
		r = guest_advise(k->host, k->slot[i].g.ept->mem, true);
		if (!r)
			continue;
		/* What was advised is taken back, in the order in which it was given. */
		for (unsigned int j = 0; j <= i; j++)
			if (k->slot[j].used)
				guest_advise(k->host, k->slot[j].g.ept->mem, false);
		return ob_fail(e, -r,
			       "sharing kernel: the kernel does not take guest %u as mergeable: %s "
			       "(is it built with CONFIG_KSM?)",
			       k->slot[i].g.vm, strerror(-r));
	}
	return 0;
}

/* All other faults of the process wait meanwhile, so not for a whole guest at once. */
#define FORBID_PAGES 64ULL

static int kernel_forbid(struct ksm *k, struct ksm_slot *s, uint64_t page, uint64_t n)
{
	int r = 0;

	for (uint64_t end = page + n; page < end && !r; page += FORBID_PAGES)
		r = k->host->ops->mergeable(k->host, gmem_page_hva(s->g.ept->mem, page),
					    OB_MIN(FORBID_PAGES, end - page) * OB_PAGE_SIZE, false);
	return r;
}

const struct ksm_engine_ops ksm_engine_kernel = {
	.name = "kernel",
	.start = kernel_start,
	.merges = true,
	.forbid = kernel_forbid,
};
