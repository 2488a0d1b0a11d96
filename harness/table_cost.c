/* SPDX-License-Identifier: Apache-2.0 */
/* table_cost.c: what one operation of the engine `hash` costs, for a person, below the table. */
#include <string.h>

#include "harness/result.h"

char *result_ns(char *buf, size_t n, double ns)
{
	if (ns < 99.95)
		snprintf(buf, n, "%.1f ns", ns);
	else if (ns < 999.5)
		snprintf(buf, n, "%.0f ns", ns);
	else if (ns < 999950)
		snprintf(buf, n, "%.1f us", ns / 1e3);
	else
		snprintf(buf, n, "%.1f ms", ns / 1e6);
	return buf;
}

void table_costs(FILE *out, const struct run_result *r)
{
	unsigned int n = 0;

	if (strcmp(r->sharing, "hash") || r->status == RUN_FAILED)
		return;
	for (unsigned int i = 0; i < KSM_NCOSTS; i++) {
		double each = ksm_cost_each(&r->ksm.cost[i]);
		char buf[24];

		if (each < 0)
			continue;
		if (!n)
			fputs("CPU time of one operation of hash:\n", out);
		fprintf(out, "%s%-25s %10s", n % 2 ? "    " : "  ",
			ksm_cost_text((enum ksm_cost_kind)i), result_ns(buf, sizeof(buf), each));
		if (n++ % 2)
			fputc('\n', out);
	}
	if (n)
		fputs(n % 2 ? "\n\n" : "\n", out);
}
