/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_plot.c: memory over time. Two plots: what is resident, a line a sharing mode; and what has
 * become of the touched memory, an area for each way to save it, a panel a mode that merges.
 * gnuplot draws them (report_gnuplot.c) from the samples of the document.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"

#define PLOT_MAX_POINTS 1500 /* a line; more cannot be seen */

/* A word inside double quotes in gnuplot: what could end or steer the string is left out. */
static void plot_word(FILE *out, const char *s)
{
	for (; *s; s++)
		if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
		    (*s >= '0' && *s <= '9') || strchr(" .-_", *s))
			fputc(*s, out);
}

struct plot_range {
	double t0, t1, most;
};

/* One data block of the samples of @run: t, @field / @unit. Returns the number of points. */
static size_t plot_block(FILE *out, const json_t *run, const char *field, const char *block,
			 size_t nr, double unit)
{
	const json_t *samples = json_object_get(run, "samples"), *s;
	size_t n = json_array_size(samples), step = n / PLOT_MAX_POINTS + 1, points = 0, i;

	fprintf(out, "$%s%zu << EOD\n", block, nr);
	json_array_foreach (samples, i, s) {
		double t = report_num(s, "t"), v = report_num(s, field);

		if ((i % step && i + 1 != n) || !isfinite(t) || !isfinite(v))
			continue;
		fprintf(out, "%.6g %.8g\n", t, v / unit);
		points++;
	}
	fputs("EOD\n", out);
	return points;
}

static struct plot_range plot_extent(const json_t *runs)
{
	struct plot_range x = {0, 0, 0};
	const json_t *run, *s;
	size_t i, j;

	json_array_foreach (runs, i, run) {
		json_array_foreach (json_object_get(run, "samples"), j, s) {
			double t = report_num(s, "t");

			if (!isfinite(t))
				continue;
			x.t0 = fmin(x.t0, t);
			x.t1 = fmax(x.t1, t);
			x.most = fmax(x.most, fmax(report_num(s, "resident_bytes"),
						   report_num(s, "touched_bytes")));
		}
	}
	return x;
}

/* The whole program for gnuplot; false when there is nothing to draw. */
static bool plot_program(FILE *out, const json_t *doc)
{
	const json_t *runs = json_object_get(doc, "runs"), *run, *widest = NULL;
	struct plot_range x = plot_extent(runs);
	double unit = x.most >= 2.0 * (double)OB_GIB ? (double)OB_GIB : (double)OB_MIB;
	size_t i, points = 0;

	if (x.t1 <= x.t0 || x.most <= 0)
		return false;
	fputs("set terminal svg size 900,380 dynamic noenhanced font 'system-ui,sans-serif,13' "
	      "name 'resident' linewidth 1\n"
	      "set encoding utf8\n"
	      "set border 3 lc rgb '#8a929e'\nset tics nomirror out scale 0.5\n"
	      "set grid ytics lc rgb '#8a929e' lw 0.3 dt 3\n"
	      "set key above left horizontal Left reverse samplen 2.5 width 2\n"
	      "set xlabel 'seconds from the engine switched on'\n",
	      out);
	fprintf(out, "set ylabel '%s'\nset yrange [0:%.6g]\nset xrange [%.6g:%.6g]\n",
		unit == (double)OB_GIB ? "GiB" : "MiB", x.most / unit * 1.08, x.t0, x.t1);
	if (x.t0 < 0)
		fputs("set arrow from 0,graph 0 to 0,graph 1 nohead lc rgb '#8a929e' lw 0.8 dt 2\n"
		      "set label 'engine on' at 0,graph 0.96 offset 0.6,0 tc rgb '#8a929e'\n",
		      out);
	json_array_foreach (runs, i, run) {
		points += plot_block(out, run, "resident_bytes", "r", i, unit);
		if (!widest || json_array_size(json_object_get(run, "samples")) >
				       json_array_size(json_object_get(widest, "samples")))
			widest = run;
	}
	plot_block(out, widest, "touched_bytes", "t", 0, unit);
	fputs("plot ", out);
	json_array_foreach (runs, i, run) {
		const char *name = report_str(run, "sharing");

		if (json_array_size(json_object_get(run, "samples")) == 0)
			continue;
		fprintf(out, "$r%zu using 1:2 with lines lw 2.2 lc rgb '%s' title \"", i,
			report_colour(name, i));
		plot_word(out, name);
		fputs("\", ", out);
	}
	fputs("$t0 using 1:2 with lines lw 2 dt (5,4) lc rgb '#a45fb5' title \"touched (", out);
	plot_word(out, report_str(widest, "sharing"));
	fputs(")\"", out);
	fputs("\n", out);
	return points > 1;
}

/* Run one of the programs below. NULL, with a sentence in @why, when there is no plot. */
static char *plot_draw(const json_t *doc, bool (*write)(FILE *, const json_t *), const char **why)
{
	FILE *program = tmpfile();
	char *svg = NULL;

	*why = "there are too few samples";
	if (program && write(program, doc) && fflush(program) == 0)
		svg = report_gnuplot(program, why);
	if (program)
		fclose(program);
	return svg;
}

void report_plot(FILE *out, const json_t *doc)
{
	const char *why;
	char *svg = plot_draw(doc, plot_program, &why);

	if (svg) {
		fputs(strstr(svg, "<svg"), out); /* what is before it is for a file of its own */
		fputs("\n<p class=\"dim small\">Dashed: what the guests have touched. Lines begin "
		      "while the guests "
		      "boot and warm up; the merging engine is switched on at 0.</p>\n",
		      out);
	} else {
		fprintf(out, "<p class=\"dim\">No plot: %s. The samples are in result.json.</p>\n",
			why);
	}
	free(svg);
}

/* --- the split --------------------------------------------------------------------------- */

/* Has it merged anything at any time? */
static bool split_has(const json_t *run)
{
	const json_t *s;
	size_t i;

	json_array_foreach (json_object_get(run, "samples"), i, s)
		if (report_num(s, "saved.intra") > 0 || report_num(s, "saved.inter") > 0)
			return true;
	return false;
}

/* t, then the parts, each on top of those before it. */
static void split_block(FILE *out, const json_t *run, size_t nr, double unit)
{
	const json_t *samples = json_object_get(run, "samples"), *s;
	size_t n = json_array_size(samples), step = n / PLOT_MAX_POINTS + 1, i;

	fprintf(out, "$s%zu << EOD\n", nr);
	json_array_foreach (samples, i, s) {
		double t = report_num(s, "t"), sum = 0;

		if ((i % step && i + 1 != n) || !isfinite(t))
			continue;
		fprintf(out, "%.6g 0", t);
		for (size_t p = 0; p < REPORT_PARTS; p++) {
			sum += fmax(0, report_num(s, report_parts[p].path));
			fprintf(out, " %.8g", isfinite(sum) ? sum / unit : 0);
		}
		fputc('\n', out);
	}
	fputs("EOD\n", out);
}

static bool split_program(FILE *out, const json_t *doc)
{
	const json_t *runs = json_object_get(doc, "runs"), *run;
	struct plot_range x = plot_extent(runs);
	double unit = x.most >= 2.0 * (double)OB_GIB ? (double)OB_GIB : (double)OB_MIB;
	size_t i, panels = 0;

	json_array_foreach (runs, i, run) {
		if (!split_has(run))
			continue;
		split_block(out, run, i, unit);
		panels++;
	}
	if (!panels || x.t1 <= x.t0 || x.most <= 0)
		return false;
	fprintf(out,
		"set terminal svg size 900,%d dynamic noenhanced font 'system-ui,sans-serif,13' "
		"name 'saved' linewidth 1\nset encoding utf8\nunset key\n"
		"set border 3 lc rgb '#8a929e'\nset tics nomirror out scale 0.5 front\n"
		"set style fill solid 1 noborder\nset xlabel 'seconds' offset 0,0.4\n"
		"set yrange [0:%.6g]\nset xrange [%.6g:%.6g]\nset ylabel '%s'\n"
		"set multiplot layout 1,%zu\n",
		panels > 2 ? 260 : 300, x.most / unit * 1.04, x.t0, x.t1,
		unit == (double)OB_GIB ? "GiB" : "MiB", panels);
	json_array_foreach (runs, i, run) {
		if (!split_has(run))
			continue;
		fputs("set title \"", out);
		plot_word(out, report_str(run, "sharing"));
		fputs("\" offset 0,-0.5\nplot ", out);
		for (size_t p = 0; p < REPORT_PARTS; p++)
			fprintf(out, "%s$s%zu using 1:%zu:%zu with filledcurves lc rgb '%s'",
				p ? ", " : "", i, p + 2, p + 3, report_parts[p].colour);
		fputc('\n', out);
	}
	fputs("unset multiplot\n", out);
	return true;
}

void report_split(FILE *out, const json_t *doc)
{
	const char *why;
	char *svg = plot_draw(doc, split_program, &why);

	/* That there is no gnuplot was said at the first plot. */
	if (svg) {
		fputs("<h3>Over time</h3>\n", out);
		fputs(strstr(svg, "<svg"), out);
		fputc('\n', out);
	}
	free(svg);
}
