/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.h: private to harness/: the parts of the HTML report. All of them read a result document
 * and nothing else, so a report can be made anew from a result.json that somebody sent; none of
 * them trusts it: a field that is missing or of another type reads as "no such number".
 */
#ifndef OVERBOOK_HARNESS_REPORT_H
#define OVERBOOK_HARNESS_REPORT_H

#include "harness/result.h"

/* A member by its path, "saved.zero"; NULL when it is not there. */
const json_t *report_get(const json_t *o, const char *path);
/* A number by its path; NAN when there is none. */
double report_num(const json_t *o, const char *path);
/* A string by its path; "" when there is none. */
const char *report_str(const json_t *o, const char *path);
/* The run of this sharing mode, when it has figures; else NULL. */
const json_t *report_run(const json_t *doc, const char *sharing);
/* The colour of a sharing mode, the same in plot and bars: "#rrggbb". */
const char *report_colour(const char *sharing, size_t index);

/* Text with everything escaped that HTML would read. */
void report_text(FILE *out, const char *s);

/* What becomes of touched memory, in the order of bars and areas. The paths are those of a run, a
 * sample, and a guest's share alike. (report_body.c) */
#define REPORT_PARTS 4
struct report_part {
	const char *path, *label, *colour;
};
extern const struct report_part report_parts[REPORT_PARTS];

/* report_gnuplot.c: run gnuplot on a whole program, flushed to a file that can be read again. The
 * output (the caller's to free), with "<svg" in it; or NULL with a sentence in @why. */
char *report_gnuplot(FILE *program, const char **why);
/* report_plot.c: resident memory over time as an SVG element, or a sentence that says why not. */
void report_plot(FILE *out, const json_t *doc);
/* The same of the parts of touched memory, of the runs that merged; nothing when none did. */
void report_split(FILE *out, const json_t *doc);
/* report_share.c: each guest's part; report_cost.c: what operations cost. Nothing where a document
 * has nothing of it. */
void report_shares(FILE *out, const json_t *doc);
void report_costs(FILE *out, const json_t *doc);
/* report_body.c */
void report_verdict(FILE *out, const json_t *doc);
void report_bars(FILE *out, const json_t *doc);
void report_figures(FILE *out, const json_t *doc);
void report_guests(FILE *out, const json_t *doc);
/* report_domain.c: nothing where no run has several domains. */
void report_domains(FILE *out, const json_t *doc);
void report_setting(FILE *out, const json_t *doc);
/* report_content.c: nothing when there is nothing to say. */
void report_content(FILE *out, const json_t *doc);
/* report_kinds.c: nothing where no run that merged has kinds. */
void report_kinds(FILE *out, const json_t *doc);

#endif
