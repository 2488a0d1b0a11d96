/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_share.c: each guest's part in what is resident and saved (ksm_meter_shares says how a
 * shared frame is divided), as a table with bars, a table a run that merged.
 */
#include <math.h>
#include <string.h>

#include "harness/report.h"

#define SHARE_OPEN 32 /* guests: a longer table is folded away */

static double touched_most(const json_t *guests)
{
	const json_t *g;
	double most = 0;
	size_t i;

	json_array_foreach (guests, i, g)
		most = fmax(most, report_num(g, "share.touched_bytes"));
	return most;
}

static void bytes_cell(FILE *out, double v)
{
	char buf[24];

	fprintf(out, "<td>%s</td>", v >= 0 && v < 9e18 ? table_bytes(buf, (int64_t)v) : "&ndash;");
}

static void share_row(FILE *out, const json_t *g, double most)
{
	const json_t *share = json_object_get(g, "share");

	fprintf(out, "<tr><td>%.0f</td><td class=\"l\">", fmax(0, report_num(g, "id")));
	report_text(out, report_str(g, "workload"));
	fputs("</td>", out);
	bytes_cell(out, report_num(share, "touched_bytes"));
	for (size_t p = 0; p < REPORT_PARTS; p++)
		bytes_cell(out, report_num(share, report_parts[p].path));
	fputs("<td><div class=\"bar slim\">", out);
	for (size_t p = 0; p < REPORT_PARTS; p++) {
		double v = report_num(share, report_parts[p].path);

		if (v > 0 && v <= most)
			fprintf(out,
				"<span style=\"width:%.3f%%;background:%s\" title=\"%s\"></span>",
				100 * v / most, report_parts[p].colour, report_parts[p].label);
	}
	fputs("</div></td></tr>\n", out);
}

static void share_table(FILE *out, const json_t *run)
{
	const json_t *guests = json_object_get(run, "guest_list"), *g;
	double most = touched_most(guests);
	size_t i;

	fprintf(out, "<details%s><summary>sharing ",
		json_array_size(guests) <= SHARE_OPEN ? " open" : "");
	report_text(out, report_str(run, "sharing"));
	fprintf(out,
		": %zu guests</summary>\n<div class=\"wide\"><table>\n<thead><tr><th>guest</th>"
		"<th class=\"l\">workload</th><th>touched</th><th>resident</th><th>across VMs</th>"
		"<th>within it</th><th>zero</th><th></th></tr></thead>\n<tbody>\n",
		json_array_size(guests));
	json_array_foreach (guests, i, g)
		share_row(out, g, most);
	fputs("</tbody></table></div></details>\n", out);
}

void report_shares(FILE *out, const json_t *doc)
{
	const json_t *run;
	bool any = false;
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		if (!(report_num(run, "saved.inter") > 0 || report_num(run, "saved.intra") > 0) ||
		    !(touched_most(json_object_get(run, "guest_list")) > 0))
			continue;
		if (!any)
			fputs("<h2>By guest</h2>\n<p class=\"dim small\">A page that s pages share "
			      "is charged to each with an s-th part (as the kernel's Pss does). "
			      "Within "
			      "it: what the guest would save were it alone on the host; across "
			      "VMs: what "
			      "the others add to that. The columns add up to the run's figures "
			      "before "
			      "metadata.</p>\n",
			      out);
		any = true;
		share_table(out, run);
	}
}
