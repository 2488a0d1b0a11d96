/* SPDX-License-Identifier: Apache-2.0 */
/* report_content.c: a section of the report: what is shared, by where it comes from. */
#include <math.h>

#include "harness/report.h"

static void content_row(FILE *out, const json_t *c)
{
	double bytes = report_num(c, "bytes_saved");
	char buf[24];

	fputs("<tr><td class=\"l\">", out);
	report_text(out, report_str(c, "what"));
	fputs("</td><td class=\"l\">", out);
	report_text(out, report_str(c, "image"));
	/* Comparisons with what is no number are false. */
	fprintf(out, "</td><td>%.0f</td><td>%.0f</td><td>%s</td></tr>\n",
		fmax(0, report_num(c, "frames")), fmax(0, report_num(c, "pages")),
		bytes >= 0 && bytes < 9e18 ? table_bytes(buf, (int64_t)bytes) : "&ndash;");
}

void report_content(FILE *out, const json_t *doc)
{
	const json_t *list = report_get(report_run(doc, "hash"), "top_content"), *c;
	size_t i;

	if (!json_array_size(list))
		return;
	fputs("<h2>Top shared content</h2>\n<p class=\"small dim\">Of sharing <b>hash</b>: where "
	      "the "
	      "frames were read from, as far as hints at I/O time know it.</p>\n"
	      "<div class=\"wide\"><table>\n<thead><tr><th class=\"l\">content</th>"
	      "<th class=\"l\">of</th><th>frames</th><th>pages on "
	      "them</th><th>saved</th></tr></thead>\n"
	      "<tbody>\n",
	      out);
	json_array_foreach (list, i, c)
		content_row(out, c);
	fputs("</tbody></table></div>\n", out);
}
