/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c: what the guest says of itself: pages that were verified, words that were wrong, why it
 * gave up. How it reaches the host is the platform's.
 */
#include "workloads/common/guest.h"

void agent_checked(struct guest *g, const void *addr, uint64_t n)
{
	if (!n)
		return;
	g->report->checked_pages += n;
	platform_checked(g, addr, n);
}

void agent_mismatch(struct guest *g, const void *at, uint64_t expect, uint64_t got,
		    enum agent_kind kind)
{
	struct agent_report *r = g->report;
	uint64_t n = r->mismatches, gpa = ram_gpa(g, at);

	if (n < AGENT_MISMATCHES) {
		r->mismatch[n] = (struct agent_mismatch){gpa, expect, got, kind};
		con_printf("%s: mismatch at %x: %x, not %x (kind %u)\n", platform_name, gpa, got,
			   expect, (uint64_t)kind);
	}
	barrier(); /* the record is whole before the count includes it */
	r->mismatches = n + 1;
	platform_mismatch(g, gpa);
}

void guest_fail(struct guest *g, enum mg_exit code, const char *fmt, ...)
{
	va_list ap;

	con_printf("\n%s: ", platform_name);
	va_start(ap, fmt);
	con_vprintf(fmt, ap);
	va_end(ap);
	con_printf("\n");
	platform_end(g, code);
}
