/* SPDX-License-Identifier: Apache-2.0 */
/* report_domain.c: what each sharing domain saves, in the report, where there are several. */
#include <math.h>
#include <string.h>

#include "harness/report.h"

/* Guests that are alone may be thousands, and say little one by one. */
#define SHOWN 64

static void bytes(FILE *out, double v)
{
	char buf[24];

	fprintf(out, "<td>%s</td>",
		isfinite(v) && fabs(v) < 9e18 ? table_bytes(buf, (int64_t)v) : "&ndash;");
}

static void domain_row(FILE *out, const json_t *d)
{
	fputs("<tr><td class=\"l\">", out);
	report_text(out, report_str(d, "name"));
	fprintf(out, "</td><td>%zu</td>", json_array_size(report_get(d, "guests")));
	bytes(out, report_num(d, "saved.zero"));
	bytes(out, report_num(d, "saved.intra"));
	bytes(out, report_num(d, "saved.inter"));
	bytes(out, report_num(d, "frames") * OB_PAGE_SIZE);
	bytes(out, report_num(d, "metadata_bytes"));
	fputs("</tr>\n", out);
}

static void domain_table(FILE *out, const json_t *run, const json_t *domains)
{
	size_t n = json_array_size(domains);

	fputs("<h3>", out);
	report_text(out, report_str(run, "sharing"));
	fputs("</h3>\n<div "
	      "class=\"wide\"><table>\n<thead><tr><th>domain</th><th>guests</th><th>zero "
	      "pages</th><th>within one VM</th><th>across "
	      "VMs</th><th>pool</th><th>metadata</th></tr>"
	      "</thead>\n<tbody>\n",
	      out);
	for (size_t i = 0; i < n && i < SHOWN; i++)
		domain_row(out, json_array_get(domains, i));
	fputs("</tbody></table></div>\n", out);
	if (n > SHOWN)
		fprintf(out, "<p>And %zu more, in result.json.</p>\n", n - SHOWN);
}

void report_domains(FILE *out, const json_t *doc)
{
	const json_t *run;
	bool any = false;
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		const json_t *domains = json_object_get(run, "domains");

		if (json_array_size(domains) < 2)
			continue;
		if (!any)
			fputs("<h2>Sharing domains</h2>\n", out);
		any = true;
		domain_table(out, run, domains);
	}
}
