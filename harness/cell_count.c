/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_count.c: what a guest has done in all, over its reboots.
 *
 * An agent counts from when it was started, and a guest that reboots has a new one, whose counters begin at
 * 0 again. What was counted by those before is kept here and added, so that no counter of a guest goes
 * backwards. Between a reset and the first report of the next agent there is nobody who works: the guest
 * boots, and what it has done it has done. What an agent reported after the last time that it was asked for
 * here is not known.
 */
#include <string.h>

#include "harness/cell.h"

/* What only grows in a report. The others are of the agent that is there. */
static void add(struct agent_report *to, const struct agent_report *from)
{
	uint64_t had = to->mismatches;

	to->heartbeat += from->heartbeat;
	to->ops += from->ops;
	to->checked_pages += from->checked_pages;
	to->mismatches += from->mismatches;
	to->written_pages += from->written_pages;
	to->disk_pages += from->disk_pages;
	for (uint64_t i = 0; i < from->mismatches && i < AGENT_MISMATCHES; i++)
		if (had + i < AGENT_MISMATCHES)
			to->mismatch[had + i] = from->mismatch[i];
	for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++)
		to->lat[b] += from->lat[b];
}

void cell_count(struct cell_count *n, unsigned int resets, const struct agent_report *said,
		struct agent_report *out)
{
	struct agent_report all = n->before;

	/* A program may also be started again without a reset: its heartbeat says so. */
	if (resets != n->resets || (said && said->heartbeat < n->last.heartbeat)) {
		add(&all, &n->last);
		n->before = all;
		n->last = (struct agent_report){0};
		n->resets = resets;
	}
	if (said)
		n->last = *said;
	add(&all, &n->last);
	*out = n->last;
	out->phase = said ? said->phase : AGENT_BOOT;
	out->heartbeat = all.heartbeat;
	out->ops = all.ops;
	out->checked_pages = all.checked_pages;
	out->mismatches = all.mismatches;
	out->written_pages = all.written_pages;
	out->disk_pages = all.disk_pages;
	memcpy(out->mismatch, all.mismatch, sizeof(out->mismatch));
	memcpy(out->lat, all.lat, sizeof(out->lat));
}

void cell_guest_report(struct cell_guest *g, struct agent_report *out)
{
	struct agent_report said;
	unsigned int resets;
	bool have;

	/* A reset forgets the report before it is counted, and lets the guest run after: so both are of the
	 * same boot. */
	do {
		resets = atomic_load(&g->vm->boot.resets);
		have = agent_read_report(&g->vm->agent, &said);
	} while (resets != atomic_load(&g->vm->boot.resets));
	cell_count(&g->count, resets, have ? &said : NULL, out);
}
