/* SPDX-License-Identifier: Apache-2.0 */
/*
 * freemem.c: memory that nobody uses. A third was never touched since boot; a third was used and
 * has been zeroed; a third was used and still holds what it held: half of that is the same in every
 * guest (freed common memory), half is the guest's own. The zeroed part is verified: it is where a
 * hypervisor that drops zero pages could go wrong. The dirty part is nobody's, so nobody looks.
 */
#include "workloads/common/guest.h"

#define TAG_DIRTY_OWN	 6
#define TAG_DIRTY_COMMON 7

void freemem_init(struct guest *g)
{
	struct freemem *f = &g->free;
	uint64_t own = gen_key(g->cfg.seed, TAG_DIRTY_OWN);
	uint64_t common = gen_key(g->cfg.common, TAG_DIRTY_COMMON);

	for (uint64_t i = 0; i < f->clean; i++) {
		uint64_t *w = ram_page(g, f->base + i);

		gen_fill(w, own, i, 0);
		barrier();
		memset(w, 0, PAGE_SIZE);
		g->report->heartbeat += i % 64 == 0;
	}
	for (uint64_t i = 0; i < f->dirty; i++) {
		gen_fill(ram_page(g, f->base + f->clean + f->untouched + i),
			 i < f->dirty / 2 ? common : own, i, 1);
		g->report->heartbeat += i % 64 == 0;
	}
	ram_leave(g, f->base + f->clean + f->untouched, f->dirty);
}

bool freemem_check(struct guest *g, uint64_t page)
{
	const uint64_t *w = ram_page(g, g->free.base + page);

	barrier();
	for (unsigned int i = 0; i < PAGE_WORDS; i += 8) {
		uint64_t v[8], any = 0;

		for (unsigned int k = 0; k < 8; k++)
			any |= v[k] = w[i + k];
		if (!any)
			continue;
		for (unsigned int k = 0; k < 8; k++) {
			if (v[k]) {
				agent_mismatch(g, w + i + k, 0, v[k], AGENT_KIND_FREE);
				return false;
			}
		}
	}
	return true;
}
