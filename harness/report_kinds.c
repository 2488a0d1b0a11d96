/* SPDX-License-Identifier: Apache-2.0 */
/* report_kinds.c: a section of the report: what is saved, by what the pages are to their Linux guests. */
#include <string.h>

#include "harness/kinds.h"
#include "harness/report.h"

/* A document is not to be trusted: what we do not know stands as it is. */
static const char *label(const char *name)
{
	for (unsigned int k = 0; k < AGENT_PAGE_KINDS; k++)
		if (!strcmp(name, kinds_name(k)))
			return kinds_label(k);
	return name;
}

static void bytes_cell(FILE *out, double v)
{
	char buf[24];

	fprintf(out, "<td>%s</td>", v >= 0 && v < 9e18 ? table_bytes(buf, (int64_t)v) : "&ndash;");
}

static void kinds_of_run(FILE *out, const json_t *run)
{
	const json_t *k;
	size_t i;

	fputs("<div class=\"wide\"><table>\n<thead><tr><th class=\"l\">sharing ", out);
	report_text(out, report_str(run, "sharing"));
	fputs("</th><th>touched</th><th>zero</th><th>within one VM</th><th>across VMs</th></tr>"
	      "</thead>\n<tbody>\n",
	      out);
	json_array_foreach (json_object_get(run, "kinds"), i, k) {
		fputs("<tr><td class=\"l\">", out);
		report_text(out, label(report_str(k, "kind")));
		fputs("</td>", out);
		bytes_cell(out, report_num(k, "pages") * OB_PAGE_SIZE);
		bytes_cell(out, report_num(k, "zero"));
		bytes_cell(out, report_num(k, "intra"));
		bytes_cell(out, report_num(k, "inter"));
		fputs("</tr>\n", out);
	}
	fputs("</tbody></table></div>\n", out);
}

void report_kinds(FILE *out, const json_t *doc)
{
	const json_t *run;
	bool any = false;
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		if (!json_array_size(json_object_get(run, "kinds")) ||
		    !(report_num(run, "saved.inter") > 0 || report_num(run, "saved.intra") > 0))
			continue;
		if (!any)
			fputs("<h2>By kind of memory</h2>\n<p class=\"dim small\">What the saved "
			      "pages "
			      "are to the guests' kernels, by what the agent in each guest reads "
			      "of "
			      "its kernel. A page that s pages share has an s-th part of what that "
			      "saves; the columns add up to the run's figures before "
			      "metadata.</p>\n",
			      out);
		any = true;
		kinds_of_run(out, run);
	}
}
