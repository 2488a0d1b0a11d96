/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_body.c: the sections of the report: verdict, where the touched memory went (bars),
 * figures, guests, and what it was run on.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"

enum cell_kind { CELL_BYTES, CELL_COUNT, CELL_REAL, CELL_SECONDS, CELL_US };

struct figure_row {
	const char *label;
	const char *path;
	enum cell_kind kind;
	const char *class; /* of the table row */
};

static const struct figure_row figure_rows[] = {
	{"Configured", "configured_bytes", CELL_BYTES, ""},
	{"Touched", "touched_bytes", CELL_BYTES, ""},
	{"Resident", "resident_bytes", CELL_BYTES, "main"},
	{"by the kernel's count", "resident_bytes_kernel", CELL_BYTES, "sub"},
	{"Saved, net of metadata", "saved_bytes", CELL_BYTES, "main"},
	{"zero pages", "saved.zero", CELL_BYTES, "sub"},
	{"within one VM", "saved.intra", CELL_BYTES, "sub"},
	{"across VMs", "saved.inter", CELL_BYTES, "sub"},
	{"Metadata, ours", "metadata.ours", CELL_BYTES, ""},
	{"Metadata, the kernel's", "metadata.kernel", CELL_BYTES, ""},
	{"ours, bytes a touched page", "metadata_bytes_per_page.merging", CELL_REAL, "sub"},
	{"with the page-state map", "metadata_bytes_per_page.with_map", CELL_REAL, "sub"},
	{"KSM's items, bytes a touched page", "metadata_bytes_per_page.kernel_items", CELL_REAL,
	 "sub"},
	{"Working set, estimated", "working_set_bytes", CELL_BYTES, ""},
	{"Guest operations a second", "ops_per_second", CELL_COUNT, "main"},
	{"latency, median", "latency.p50_us", CELL_US, "sub"},
	{"latency, 99th percentile", "latency.p99_us", CELL_US, "sub"},
	{"CPU time of merging", "merge_cpu_seconds", CELL_SECONDS, ""},
	{"Time to 95 % of the saving", "merge_seconds_to_95", CELL_SECONDS, ""},
	{"Boot", "boot_seconds", CELL_SECONDS, ""},
	{"Until all guests were warm", "warm_seconds", CELL_SECONDS, ""},
	{"Pages verified by the guests", "integrity.checked_pages", CELL_COUNT, ""},
	{"of them shared just then", "integrity.checked_shared_pages", CELL_COUNT, "sub"},
	{"Mismatches", "integrity.mismatches", CELL_COUNT, "main"},
	{"Wrong host frames", "integrity.frame_check_errors", CELL_COUNT, ""},
};

/* "1 234 567", with narrow no-break spaces. */
static void grouped(FILE *out, double v)
{
	char buf[40];
	size_t n;

	snprintf(buf, sizeof(buf), "%.0f", v);
	n = strlen(buf);
	for (size_t i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0 && buf[i - 1] != '-')
			fputs("&#8239;", out);
		fputc(buf[i], out);
	}
}

static void cell(FILE *out, double v, enum cell_kind kind)
{
	char buf[24];

	if (!isfinite(v) || fabs(v) > 9e18) {
		fputs("&ndash;", out);
		return;
	}
	switch (kind) {
	case CELL_BYTES:
		fputs(table_bytes(buf, (int64_t)v), out);
		break;
	case CELL_COUNT:
		grouped(out, v);
		break;
	case CELL_REAL:
		fprintf(out, "%.1f", v);
		break;
	case CELL_SECONDS:
		fprintf(out, v < 10 ? "%.2f s" : "%.1f s", v);
		break;
	case CELL_US:
		fprintf(out, v < 1000 ? "%.1f &micro;s" : "%.2f ms", v < 1000 ? v : v / 1000);
		break;
	}
}

static void chip(FILE *out, const char *status)
{
	fputs("<span class=\"chip ", out);
	report_text(out, status);
	fputs("\">", out);
	report_text(out, status);
	fputs("</span>", out);
}

/* One mode beside the control. */
static void verdict_run(FILE *out, const json_t *run, const json_t *off)
{
	double has = report_num(run, "resident_bytes"), had = report_num(off, "resident_bytes");
	double ops = report_num(run, "ops_per_second"), ops_off = report_num(off, "ops_per_second");
	char a[24], b[24];

	if (!isfinite(has) || !isfinite(had) || had <= 0)
		return;
	fputs("<p><b>", out);
	report_text(out, report_str(run, "sharing"));
	fprintf(out, "</b> holds the guests in %s where they need %s without sharing: %.0f %% %s",
		table_bytes(a, (int64_t)has), table_bytes(b, (int64_t)had),
		100 * fabs(1 - has / had), has <= had ? "less" : "more");
	if (isfinite(ops) && ops_off > 0)
		fprintf(out, ". The guests ran at %.0f %% of the speed that they have without it",
			100 * ops / ops_off);
	fputs(".</p>\n", out);
}

void report_verdict(FILE *out, const json_t *doc)
{
	const json_t *off = report_run(doc, "off"), *hash = report_run(doc, "hash");
	const json_t *kernel = report_run(doc, "kernel"), *run;
	double checked = 0, shared = 0, wrong = 0, ours, theirs;
	size_t i;

	fputs("<div class=\"verdict\">\n<p>", out);
	chip(out, report_str(doc, "status"));
	fputs("</p>\n", out);
	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		const char *note = report_str(run, "note"), *status = report_str(run, "status");

		/* With --live there may be several controls, one much like another. */
		if (off && strcmp(report_str(run, "sharing"), "off") != 0 &&
		    strcmp(status, "failed") != 0)
			verdict_run(out, run, off);
		checked += fmax(0, report_num(run, "integrity.checked_pages"));
		shared += fmax(0, report_num(run, "integrity.checked_shared_pages"));
		wrong += fmax(0, report_num(run, "integrity.mismatches"));
		if (!*note && strcmp(status, "ok") == 0)
			continue;
		fputs("<p>The run with sharing <b>", out);
		report_text(out, report_str(run, "sharing"));
		fputs("</b>", out);
		if (strcmp(status, "ok") != 0) {
			fputs(" is ", out);
			chip(out, status);
		}
		fputs(*note ? ": " : "", out);
		report_text(out, note);
		fputs(strcmp(status, "failed") == 0 ? ". None of its figures may be used.</p>\n"
						    : ".</p>\n",
		      out);
	}
	ours = report_num(hash, "saved_bytes");
	theirs = report_num(kernel, "saved_bytes");
	if (isfinite(ours) && theirs > 0)
		fprintf(out,
			"<p>On the same guests <b>hash</b> saves %.2f times what Linux KSM "
			"(<b>kernel</b>) "
			"saves.</p>\n",
			ours / theirs);
	fputs("<p>The guests verified ", out);
	grouped(out, checked);
	fputs(" pages, ", out);
	grouped(out, shared);
	fputs(" of them while they were shared: ", out);
	if (wrong > 0) {
		fputs("<b class=\"failed\">", out);
		grouped(out, wrong);
		fputs(" mismatches</b>.</p>\n</div>\n", out);
	} else {
		fputs(checked > 0 ? "every one as it was written.</p>\n</div>\n"
				  : "so nothing is known of their integrity.</p>\n</div>\n",
		      out);
	}
}

const struct report_part report_parts[REPORT_PARTS] = {
	{"resident_bytes", "resident", "#8a929e"},
	{"saved.inter", "saved across VMs", "#2f7fd1"},
	{"saved.intra", "saved within one VM", "#2f9e8f"},
	{"saved.zero", "saved as zero pages", "#d9a72e"},
};

/* Where the touched memory went, a bar a mode: held, and saved by each of the three ways. */
void report_bars(FILE *out, const json_t *doc)
{
	const struct report_part *parts = report_parts;
	const json_t *run;
	double most = 0;
	char buf[24];
	size_t i;

	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		double sum = 0;

		for (size_t p = 0; p < REPORT_PARTS; p++)
			sum += fmax(0, report_num(run, parts[p].path));
		most = fmax(most, sum);
	}
	if (most <= 0)
		return;
	fputs("<h2>Where the touched memory went</h2>\n<p class=\"key small dim\">", out);
	for (size_t p = 0; p < REPORT_PARTS; p++)
		fprintf(out, "<span style=\"background:%s\"></span>%s", parts[p].colour,
			parts[p].label);
	fputs("</p>\n<div class=\"bars\">\n", out);
	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		fputs("<div>", out);
		report_text(out, report_str(run, "sharing"));
		fputs("</div><div class=\"bar\">", out);
		for (size_t p = 0; p < REPORT_PARTS; p++) {
			double v = report_num(run, parts[p].path);

			if (!(v > 0))
				continue;
			fprintf(out,
				"<span style=\"width:%.3f%%;background:%s\" title=\"%s: "
				"%s\"></span>",
				100 * v / most, parts[p].colour, parts[p].label,
				table_bytes(buf, (int64_t)fmin(v, 9e18)));
		}
		fputs("</div>\n", out);
	}
	fputs("</div>\n", out);
}

void report_figures(FILE *out, const json_t *doc)
{
	const json_t *runs = json_object_get(doc, "runs"), *run;
	size_t i;

	fputs("<h2>Figures</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>sharing</th>", out);
	json_array_foreach (runs, i, run) {
		fputs("<th>", out);
		report_text(out, report_str(run, "sharing"));
		fputs("</th>", out);
	}
	fputs("</tr></thead>\n<tbody>\n", out);
	for (size_t r = 0; r < OB_ARRAY_SIZE(figure_rows); r++) {
		/* Only where it was asked for. */
		if (!strcmp(figure_rows[r].path, "working_set_bytes") &&
		    !json_is_object(report_get(doc, "config.working_set")))
			continue;
		fprintf(out, "<tr class=\"%s\"><th>%s</th>", figure_rows[r].class,
			figure_rows[r].label);
		json_array_foreach (runs, i, run) {
			fputs("<td>", out);
			cell(out, report_num(run, figure_rows[r].path), figure_rows[r].kind);
			fputs("</td>", out);
		}
		fputs("</tr>\n", out);
	}
	fputs("<tr><th>Status</th>", out);
	json_array_foreach (runs, i, run) {
		fputs("<td>", out);
		chip(out, report_str(run, "status"));
		fputs("</td>", out);
	}
	fputs("</tr>\n</tbody></table></div>\n", out);
}

/* The first word that was wrong. */
static void guest_mismatch(FILE *out, const json_t *g)
{
	const json_t *m = json_array_get(json_object_get(g, "mismatch_list"), 0);
	static const char *const parts[][2] = {{"; wrong first at gpa ", "gpa"},
					       {" (", "kind"},
					       {"), is ", "got"},
					       {" and was ", "expect"}};

	for (size_t i = 0; m && i < OB_ARRAY_SIZE(parts); i++) {
		fputs(parts[i][0], out);
		report_text(out, report_str(m, parts[i][1]));
	}
}

static void guest_row(FILE *out, const json_t *g)
{
	fprintf(out, "<tr><td>%.0f</td><td class=\"l\">", fmax(0, report_num(g, "id")));
	report_text(out, report_str(g, "workload"));
	fputs("</td><td>", out);
	cell(out, report_num(g, "ops"), CELL_COUNT);
	fputs("</td><td>", out);
	cell(out, report_num(g, "checked_pages"), CELL_COUNT);
	fputs("</td><td>", out);
	cell(out, report_num(g, "mismatches"), CELL_COUNT);
	fputs("</td><td>", out);
	cell(out, report_num(g, "state_pages.shared"), CELL_COUNT);
	fputs("</td><td class=\"l\">", out);
	report_text(out, report_str(g, "end"));
	if (*report_str(g, "reason")) {
		fputs(": ", out);
		report_text(out, report_str(g, "reason"));
	}
	if (*report_str(g, "remark")) {
		fputs("; ", out);
		report_text(out, report_str(g, "remark"));
	}
	guest_mismatch(out, g);
	fputs("</td></tr>\n", out);
}

void report_guests(FILE *out, const json_t *doc)
{
	const json_t *run, *g;
	size_t i, j;

	fputs("<h2>Guests</h2>\n", out);
	json_array_foreach (json_object_get(doc, "runs"), i, run) {
		const json_t *guests = json_object_get(run, "guest_list");
		/* What went wrong is not hidden behind a click. */
		bool bad = strcmp(report_str(run, "status"), "ok") != 0;

		fprintf(out, "<details%s><summary>sharing ", bad ? " open" : "");
		report_text(out, report_str(run, "sharing"));
		fprintf(out,
			": %zu guests</summary>\n<div "
			"class=\"wide\"><table>\n<thead><tr><th>guest</th>"
			"<th class=\"l\">workload</th><th>operations</th><th>pages verified</th>"
			"<th>mismatches</th><th>shared pages</th><th "
			"class=\"l\">end</th></tr></thead>\n"
			"<tbody>\n",
			json_array_size(guests));
		json_array_foreach (guests, j, g)
			guest_row(out, g);
		fputs("</tbody></table></div></details>\n", out);
	}
}

/* Members of an object as a definition list; members that are objects in turn as name.member. */
static void settings(FILE *out, const json_t *o, const char *prefix)
{
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)(uintptr_t)o, name, v) {
		char *text;

		if (json_is_object(v)) {
			settings(out, v, name);
			continue;
		}
		if (json_is_null(v))
			continue;
		fputs("<dt>", out);
		report_text(out, prefix);
		fputs(*prefix ? "." : "", out);
		report_text(out, name);
		fputs("</dt><dd>", out);
		text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY);
		report_text(out, text ? text : json_is_string(v) ? json_string_value(v) : "");
		free(text);
		fputs("</dd>\n", out);
	}
}

void report_setting(FILE *out, const json_t *doc)
{
	fputs("<h2>What it was run on</h2>\n<details><summary>host</summary><dl>\n", out);
	settings(out, report_get(doc, "host"), "");
	fputs("</dl></details>\n<details><summary>configuration</summary><dl>\n", out);
	settings(out, report_get(doc, "config"), "");
	fputs("</dl></details>\n<details><summary>program</summary><dl>\n", out);
	settings(out, report_get(doc, "git"), "");
	fputs("</dl></details>\n", out);
}
