/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk_cost.c: how often the hardware goes to memory for one translation, counted and not measured.
 *
 * Natively a walk reads one entry a level: g references, 4 for a 4 KB page in 4-level paging.
 *
 * Under nested paging the guest's tables lie at guest physical addresses, each of which has to be
 * translated by the host's table before the entry can be read, and so has the address that comes
 * out at the end. With n references for a host walk that makes g * (n + 1) + n, which is
 * (g + 1) * (n + 1) - 1: the two dimensions of Bhargava, Serebrin, Spadini and Manne, "Accelerating
 * Two-Dimensional Page Walks for Virtualized Systems" (ASPLOS 2008), and their 24 for 4 and 4.
 * Where the host maps by 2 MB its walks end a level earlier, which counts g + 1 times: 19.
 *
 * Under shadow paging the hardware never sees the guest's tables: it walks the hypervisor's shadow
 * of them, which leads from guest virtual to host physical addresses, in one dimension. The shadow
 * of a guest in 4-level or 5-level paging has as many levels; KVM shadows all others, paging off
 * included, by a PAE table (Linux, kvm_init_shadow_mmu). A shadow entry maps 2 MB where both guest
 * and host do. What shadow paging really costs is not in this figure: the exits that keep the
 * shadow like the original.
 *
 * PAE paging starts from registers (walk.c): its first level costs nothing, that is 2 at most.
 */
#include <errno.h>

#include "ept/walk.h"

#define HUGE_2M (2 * OB_MIB)

static unsigned int shadow_levels(enum ept_walk_mode mode)
{
	switch (mode) {
	case EPT_WALK_5LEVEL:
		return 5;
	case EPT_WALK_4LEVEL:
		return 4;
	default:
		return 2; /* of PAE, below its registers */
	}
}

int ept_walk_cost(const struct ept_walk *w, unsigned int host_levels, uint64_t host_page,
		  struct ept_walk_cost *out)
{
	/* With paging off the guest's mapping is as large as one likes. */
	bool guest_huge = w->mode == EPT_WALK_OFF || w->page_size >= HUGE_2M;
	bool host_huge = host_page == HUGE_2M;
	unsigned int g = 0, n = host_levels - host_huge;

	*out = (struct ept_walk_cost){0};
	if (w->stop != EPT_WALK_DONE || (host_levels != 4 && host_levels != 5) ||
	    (!host_huge && host_page != OB_PAGE_SIZE))
		return -EINVAL;
	for (unsigned int i = 0; i < w->n; i++)
		g += !w->entry[i].in_register;
	out->native = g;
	out->nested = (g + 1) * (n + 1) - 1;
	out->shadow = shadow_levels(w->mode) - (guest_huge && host_huge);
	return 0;
}
