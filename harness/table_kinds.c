/* SPDX-License-Identifier: Apache-2.0 */
/* table_kinds.c: below the table, what is saved by what the pages are to their Linux guests. */
#include "harness/kinds.h"

void kinds_table(FILE *out, const struct run_result *r)
{
	char buf[4][24];

	if (!r->kinds_known || r->status == RUN_FAILED || !(r->saved_intra || r->saved_inter))
		return;
	fprintf(out, "\n%-8s saves by kind %12s%12s%12s%12s\n", r->sharing, "touched", "zero",
		"within one", "across");
	for (unsigned int k = 0; k < AGENT_PAGE_KINDS; k++) {
		const struct ksm_meter_kind *m = &r->kind[k];

		if (!m->touched)
			continue;
		fprintf(out, "%-22s %12s%12s%12s%12s\n", kinds_label(k),
			table_bytes(buf[0], (int64_t)m->touched),
			table_bytes(buf[1], (int64_t)m->zero),
			table_bytes(buf[2], (int64_t)m->intra),
			table_bytes(buf[3], (int64_t)m->inter));
	}
}
