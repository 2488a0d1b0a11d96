/* SPDX-License-Identifier: Apache-2.0 */
/* report_cost.c: what each operation of the merging engine cost in this run, a column a run. */
#include <math.h>

#include "harness/report.h"

static double cost_num(const json_t *run, unsigned int kind, const char *field)
{
	char path[64];

	snprintf(path, sizeof(path), "hash.costs.%s.%s", ksm_cost_name((enum ksm_cost_kind)kind),
		 field);
	return report_num(run, path);
}

static void cost_table(FILE *out, const json_t *run)
{
	fputs("<div class=\"wide\"><table>\n<thead><tr><th>operation (sharing ", out);
	report_text(out, report_str(run, "sharing"));
	fputs(")</th><th>CPU time of one</th><th>measured</th></tr></thead>\n<tbody>\n", out);
	for (unsigned int i = 0; i < KSM_NCOSTS; i++) {
		double n = cost_num(run, i, "measured"), each = cost_num(run, i, "each_ns");
		char buf[24];

		if (!(n > 0) || !isfinite(each))
			continue;
		fprintf(out, "<tr><th>%s</th><td>%s</td><td>%.0f times</td></tr>\n",
			ksm_cost_text((enum ksm_cost_kind)i), result_ns(buf, sizeof(buf), each), n);
	}
	fputs("</tbody></table></div>\n", out);
}

void report_costs(FILE *out, const json_t *doc)
{
	const json_t *run;
	bool any = false;
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		double n = 0;

		for (unsigned int k = 0; k < KSM_NCOSTS; k++)
			n += fmax(0, cost_num(run, k, "measured"));
		if (n <= 0)
			continue;
		if (!any)
			fputs("<h2>What one operation costs</h2>\n<p class=\"dim small\">CPU time "
			      "of "
			      "the scanner, measured while it ran; a part of the operations is "
			      "measured. "
			      "What a guest pays to write to a shared page is not seen from here: "
			      "<code>overbook bench demo --only ops</code> measures it.</p>\n",
			      out);
		any = true;
		cost_table(out, run);
	}
}
