/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_plot.c: resident memory over time, a line a sharing mode, drawn by gnuplot as SVG.
 *
 * gnuplot is started directly, without a shell and without the user's start-up files; its program,
 * with the data in it, is its standard input (a memory file, so that neither side can wait for the
 * other), and the SVG is what it writes. Colours of text and axes are left to the page
 * (currentColor), so that the plot is readable on light and dark ground. Whatever goes wrong with
 * gnuplot costs the plot and no more: a sentence stands in its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/report.h"

#define PLOT_TIMEOUT_S	30
#define PLOT_MAX_BYTES	(8 << 20)
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

/* All that comes out of @fd, until its end, the limit or the deadline. NULL on the latter two. */
static char *plot_read(int fd)
{
	size_t cap = 64 << 10, n = 0;
	char *buf = malloc(cap);
	struct timespec now;
	time_t deadline;

	clock_gettime(CLOCK_MONOTONIC, &now);
	deadline = now.tv_sec + PLOT_TIMEOUT_S;
	while (buf) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= deadline || cap > PLOT_MAX_BYTES)
			break;
		if (poll(&p, 1, 1000) <= 0)
			continue;
		got = read(fd, buf + n, cap - n - 1);
		if (got == 0) {
			buf[n] = '\0';
			return buf;
		}
		if (got < 0 && errno != EINTR)
			break;
		n += got > 0 ? (size_t)got : 0;
		if (n + 1 == cap) {
			char *more = realloc(buf, cap * 2);

			if (!more)
				break;
			buf = more;
			cap *= 2;
		}
	}
	free(buf);
	return NULL;
}

/* Run gnuplot on @program. Its output (the caller's to free), or NULL with a sentence in @why. */
static char *plot_run(int program, const char **why)
{
	static char gnuplot[] = "gnuplot", defaults[] = "-d";
	char *const argv[] = {gnuplot, defaults, NULL};
	posix_spawn_file_actions_t fa;
	int fds[2], status = 0, ret;
	char *svg;
	pid_t pid;

	*why = "there is no room to start gnuplot";
	if (pipe2(fds, O_CLOEXEC) != 0)
		return NULL;
	OB_ASSERT(posix_spawn_file_actions_init(&fa) == 0);
	OB_ASSERT(posix_spawn_file_actions_adddup2(&fa, program, STDIN_FILENO) == 0);
	OB_ASSERT(posix_spawn_file_actions_adddup2(&fa, fds[1], STDOUT_FILENO) == 0);
	OB_ASSERT(posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0) ==
		  0);
	ret = posix_spawnp(&pid, gnuplot, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(fds[1]);
	if (ret) {
		close(fds[0]);
		*why = ret == ENOENT ? "gnuplot is not installed (apt-get install gnuplot-nox)"
				     : "gnuplot could not be started";
		return NULL;
	}
	svg = plot_read(fds[0]);
	close(fds[0]);
	if (!svg)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (svg && WIFEXITED(status) && WEXITSTATUS(status) == 0 && strstr(svg, "<svg"))
		return svg;
	free(svg);
	*why = "gnuplot failed";
	return NULL;
}

void report_plot(FILE *out, const json_t *doc)
{
	const char *why = "there are too few samples";
	char *svg = NULL;
	FILE *program = tmpfile();

	if (program && plot_program(program, doc) && fflush(program) == 0 &&
	    lseek(fileno(program), 0, SEEK_SET) == 0)
		svg = plot_run(fileno(program), &why);
	if (program)
		fclose(program);
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
