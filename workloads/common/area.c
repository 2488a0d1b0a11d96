/* SPDX-License-Identifier: Apache-2.0 */
/*
 * area.c: what the memory workloads have in common: one area of nearly all memory, and pages whose
 * counter and check follow from their number and from how often it was their turn
 * (workloads/area.h).
 */
#include "workloads/common/guest.h"

uint64_t *area_page(const struct guest *g, uint64_t page)
{
	return ram_page(g, g->area.base + page);
}

void area_fill(struct guest *g, uint64_t from)
{
	for (uint64_t i = from; i < g->area.pages; i++) {
		area_set(area_page(g, i), g->mem.key, i, 0);
		g->report->heartbeat += i % 64 == 0;
	}
}

bool area_check_page(struct guest *g, uint64_t page, uint64_t counter)
{
	const uint64_t *w = area_page(g, page);
	uint64_t got, check, expect = area_check(g->mem.key, page, counter);

	barrier();
	got = w[AREA_COUNTER];
	check = w[AREA_CHECK];
	if (got != counter)
		agent_mismatch(g, w + AREA_COUNTER, counter, got, AGENT_KIND_AREA);
	else if (check != expect)
		agent_mismatch(g, w + AREA_CHECK, expect, check, AGENT_KIND_AREA);
	return got == counter && check == expect;
}

void area_param(struct guest *g, const char *name, uint64_t value, uint64_t least, uint64_t most)
{
	if (value < least || value > most)
		guest_fail(g, MG_EXIT_WORKLOAD, "%s takes %s= from %u to %u, not %u", g->work->name,
			   name, least, most, value);
}
