/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c: one HTML page from one result document: no script, no font, nothing fetched, so that it
 * can be mailed, archived and opened in ten years. This file has the page's frame and the helpers
 * that read the document; the sections are in report_body.c and the plot in report_plot.c.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"

static const char page_style[] =
	":root{color-scheme:light dark;--bg:#fdfdfc;--fg:#24292f;--dim:#667080;--line:#dfe2e6;"
	"--card:#f5f6f7;--ok:#1a7f4b;--bad:#b3261e;--warn:#996200}\n"
	"@media(prefers-color-scheme:dark){:root{--bg:#16181c;--fg:#dfe3e8;--dim:#98a2b0;--line:#"
	"32373e;"
	"--card:#1e2126;--ok:#5cc98d;--bad:#ff8a80;--warn:#e6b455}}\n"
	"*{box-sizing:border-box}\n"
	"body{margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:58rem;background:var(--bg);"
	"color:var(--fg);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',"
	"Arial,sans-serif}\n"
	"h1{font-size:1.65rem;line-height:1.25;font-weight:600;margin:0}\n"
	"h2{font-size:1.1rem;font-weight:600;margin:2.6rem 0 .6rem}\n"
	"h3{font-size:1rem;font-weight:600;margin:1.4rem 0 .4rem}\n"
	"p{margin:.5rem 0;max-width:46rem}\n"
	".dim{color:var(--dim)}.small{font-size:.875rem}\n"
	".chip{display:inline-block;padding:.05rem .6rem;border-radius:1rem;border:1px solid;"
	"font-size:.85rem;font-weight:600}\n"
	".ok{color:var(--ok)}.failed{color:var(--bad)}.degraded,.interrupted{color:var(--warn)}\n"
	".verdict{background:var(--card);border:1px solid var(--line);border-radius:.6rem;"
	"padding:.7rem 1.1rem;margin:1.2rem 0}\n"
	".wide{overflow-x:auto}\n"
	"table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:."
	"925rem}\n"
	"th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;"
	"vertical-align:top;font-weight:400}\n"
	"thead th{color:var(--dim);font-size:.85rem}\n"
	"th:first-child,td:first-child,.l{text-align:left}\n"
	"tr.sub th:first-child{padding-left:1.8rem;color:var(--dim)}\n"
	"tr.main th,tr.main td{font-weight:600}\n"
	".bars{display:grid;grid-template-columns:5.5rem 1fr;gap:.5rem .8rem;align-items:center}\n"
	".bar{display:flex;height:1.5rem;border-radius:.25rem;overflow:hidden}\n"
	".bar span{display:block;height:100%}\n"
	".slim{height:.8rem;min-width:9rem;margin-top:.35rem}\n"
	".key span{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;"
	"margin:0 .35rem 0 1rem;vertical-align:-.08rem}\n"
	".key span:first-child{margin-left:0}\n"
	"svg{width:100%;height:auto;display:block}svg text{fill:var(--dim)}\n"
	"code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}\n"
	"dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;margin:.5rem 0;"
	"font-size:.925rem}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}\n"
	"details{margin:.4rem 0}summary{cursor:pointer}a{color:inherit}\n";

static const char page_reading[] =
	"<h2>How to read it</h2>\n"
	"<p><b>Configured</b> is what the guests were promised, <b>touched</b> what they have ever "
	"used. "
	"<b>Resident</b> is what the host really holds for them, every shared page counted once; "
	"the line "
	"below it is the same by the kernel's own accounting (Pss of the guests' mappings and the "
	"blocks "
	"of the pool of shared pages), as a check.</p>\n"
	"<p><b>Saved</b> is touched minus resident, counted for all modes by the same walk over "
	"the host's "
	"page frames: pages that were all <b>zero</b>, copies <b>within one VM</b>, and copies "
	"<b>across VMs</b> (a frame with s holders in v VMs saves v &minus; 1 across and s &minus; "
	"v "
	"within). <b>Net</b> takes off what sharing itself costs in memory.</p>\n"
	"<p><b>Integrity</b>: the guests verify their own memory all the time, the shared pages "
	"too. One "
	"page that does not hold what was written to it makes a run <b>failed</b>, and a failed "
	"run shows "
	"no figure.</p>\n"
	"<p>Speeds and times are of this host and this hour: compare them between the columns of "
	"one "
	"report, not between reports.</p>\n";

const json_t *report_get(const json_t *o, const char *path)
{
	char name[64];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(name))
			return NULL;
		memcpy(name, path, n);
		name[n] = '\0';
		o = json_object_get(o, name);
		path += n + (path[n] == '.');
	}
	return o;
}

double report_num(const json_t *o, const char *path)
{
	const json_t *v = report_get(o, path);

	return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *report_str(const json_t *o, const char *path)
{
	const json_t *v = report_get(o, path);

	return json_is_string(v) ? json_string_value(v) : "";
}

const json_t *report_run(const json_t *doc, const char *sharing)
{
	const json_t *run;
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		if (strcmp(report_str(run, "sharing"), sharing) == 0 &&
		    strcmp(report_str(run, "status"), "failed") != 0)
			return run;
	}
	return NULL;
}

const char *report_colour(const char *sharing, size_t index)
{
	/* Readable on light and on dark ground; told apart by people who see few
	 * colours as well. */
	static const char *const others[] = {"#7b61c9", "#2f9e8f", "#c2557a", "#8c8a3a"};

	if (strcmp(sharing, "off") == 0)
		return "#8a929e";
	if (strcmp(sharing, "hash") == 0)
		return "#2f7fd1";
	if (strcmp(sharing, "kernel") == 0)
		return "#dd8420";
	return others[index % OB_ARRAY_SIZE(others)];
}

void report_text(FILE *out, const char *s)
{
	for (; *s; s++) {
		switch (*s) {
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '&':
			fputs("&amp;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		case '\'':
			fputs("&#39;", out);
			break;
		default: /* control characters are not HTML */
			fputc((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t' ? '?' : *s, out);
		}
	}
}

/* What was run, in a line. */
static void page_title(FILE *out, const json_t *doc)
{
	const json_t *workloads = report_get(doc, "config.workload"), *w;
	double guests = report_num(doc, "config.guests"), mem = report_num(doc, "config.mem_bytes");
	char buf[24];
	size_t i;

	if (guests > 0 && mem > 0)
		fprintf(out, "%.0f guest%s of %s, ", guests, guests == 1 ? "" : "s",
			table_bytes(buf, (int64_t)mem));
	json_array_foreach (workloads, i, w) {
		fputs(i ? ", " : "", out);
		report_text(out, json_is_string(w) ? json_string_value(w) : "");
	}
}

/* The document with a run for each phase of those whose mode was switched. New reference. */
static json_t *by_phase(const json_t *doc)
{
	json_t *flat = json_copy((json_t *)(uintptr_t)doc), *list = json_array(), *run, *p;
	size_t i, k;

	OB_ASSERT(flat && list);
	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		json_t *phases = json_object_get(run, "phases");

		json_array_foreach (phases, k, p)
			json_array_append(list, p);
		if (!json_array_size(phases))
			json_array_append(list, run);
	}
	json_object_set_new(flat, "runs", list);
	return flat;
}

static void write_body(FILE *out, const json_t *doc)
{
	fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" "
	      "content=\"width=device-width,initial-scale=1\">\n<title>Overbook: ",
	      out);
	page_title(out, doc);
	fprintf(out,
		"</title>\n<style>\n%s</style>\n</head>\n<body>\n<p class=\"dim "
		"small\">Overbook</p>\n<h1>",
		page_style);
	page_title(out, doc);
	fputs("</h1>\n", out);
	report_verdict(out, doc);
	fputs("<h2>Resident memory over time</h2>\n", out);
	report_plot(out, doc);
	report_bars(out, doc);
	report_split(out, doc);
	report_figures(out, doc);
	fputs(page_reading, out);
	report_domains(out, doc);
	report_content(out, doc);
	report_kinds(out, doc);
	report_shares(out, doc);
	report_costs(out, doc);
	report_guests(out, doc);
	report_setting(out, doc);
	fputs("<p class=\"dim small\">Everything above, every raw sample and more: "
	      "<a href=\"result.json\">result.json</a> in the same folder (schema ",
	      out);
	report_text(out, RESULT_SCHEMA);
	fputs(").</p>\n</body>\n</html>\n", out);
}

int report_write(const json_t *doc, const char *path, struct ob_err *e)
{
	json_t *flat;
	char *text = NULL;
	size_t len = 0;
	FILE *out;
	int ret;

	if (strcmp(report_str(doc, "schema"), RESULT_SCHEMA) != 0)
		return ob_fail(e, EINVAL, "no report for %.200s: not a document of schema %s", path,
			       RESULT_SCHEMA);
	out = open_memstream(&text, &len);
	OB_ASSERT(out);
	flat = by_phase(doc);
	write_body(out, flat);
	json_decref(flat);
	OB_ASSERT(fclose(out) == 0);
	ret = result_write_text(text, len, path, e);
	free(text);
	return ret;
}
