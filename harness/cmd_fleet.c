/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_fleet.c: the verbs fleet and compare. They differ in the number of runs and in what they
 * write: both run the same guests once per sharing mode, one after the other, and end with a table;
 * compare leaves a folder with result.json and report.html.
 *
 * A mode that cannot be started, or that fails, is a failed run and does not keep the others from
 * theirs. A signal ends the run under way, and what was measured is still written.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/result.h"

static int exit_status(enum run_status s)
{
	static const int status[RUN_NSTATUS] = {
		[RUN_OK] = OB_EXIT_OK,
		[RUN_FAILED] = OB_EXIT_FAILED,
		[RUN_DEGRADED] = OB_EXIT_FAILED,
		[RUN_INTERRUPTED] = OB_EXIT_INTERRUPTED,
	};

	return status[s];
}

/* Is the file another than when we began, or written to since? */
static bool changed(const char *path, const struct stat *first)
{
	struct stat now;

	return stat(path, &now) || now.st_dev != first->st_dev || now.st_ino != first->st_ino ||
	       now.st_size != first->st_size || now.st_mtim.tv_sec != first->st_mtim.tv_sec ||
	       now.st_mtim.tv_nsec != first->st_mtim.tv_nsec;
}

/* Run every mode; @runs has room for them. Returns how many were run. */
static unsigned int run_modes(const struct fleet_config *c, struct run_result *runs)
{
	unsigned int n = 0;

	const char *const path[] = {c->kernel_path, c->image_path, c->lx.initrd};
	struct stat first[OB_ARRAY_SIZE(path)];

	for (size_t f = 0; f < OB_ARRAY_SIZE(path); f++)
		if (!path[f] || stat(path[f], &first[f]))
			first[f] = (struct stat){0};
	/* --live: one fleet goes through all the modes. */
	for (unsigned int i = 0; i < (c->live ? 1 : c->nsharing) && !ob_stop_signal; i++) {
		struct run_result *r = &runs[n++];
		struct ob_err e = {""};
		char buf[24];
		int ret;

		if (!c->quiet)
			fprintf(stderr, "sharing %s (%u of %u%s): %u guest%s of %s\n",
				c->sharing[i]->name, i + 1, c->nsharing, c->live ? ", live" : "",
				c->guests, c->guests == 1 ? "" : "s",
				table_bytes(buf, (int64_t)c->mem_bytes));
		ret = coord_run(c, c->sharing[i], r, &e);
		/* Runs are only compared when all booted the same. */
		for (size_t f = 0; f < OB_ARRAY_SIZE(path) && !ret; f++)
			if (path[f] && changed(path[f], &first[f]))
				ret = ob_fail(&e, ESTALE, "%.150s has changed meanwhile", path[f]);
		if (!ret)
			continue;
		r->status = RUN_FAILED;
		snprintf(r->note, sizeof(r->note), "could not run: %.180s",
			 e.msg[0] ? e.msg : strerror(-ret));
	}
	return n;
}

/* result.json and report.html. */
static int write_out_dir(const json_t *doc, const char *dir, FILE *say)
{
	char path[PATH_MAX];
	struct ob_err e = {""};
	int ret;

	snprintf(path, sizeof(path), "%.*s/result.json", PATH_MAX - 32, dir);
	ret = result_write(doc, path, &e);
	if (!ret) {
		fprintf(say, "result: %s\n", path);
		snprintf(path, sizeof(path), "%.*s/report.html", PATH_MAX - 32, dir);
		ret = report_write(doc, path, &e);
	}
	if (!ret)
		fprintf(say, "report: %s\n", path);
	else
		ob_warn("%s", e.msg);
	return ret;
}

static int fleet_main(const char *verb, int argc, char **argv)
{
	struct fleet_config c;
	struct run_result *runs;
	struct ob_err e = {""};
	enum run_status overall;
	unsigned int n;
	json_t *doc;
	FILE *say;
	int ret = opts_fleet(&c, verb, argc, argv);

	if (ret)
		return ret < 0 ? OB_EXIT_OK : ret;
	if (control_open(&c.control, c.control_path, &e)) {
		ob_warn("%s", e.msg);
		return OB_EXIT_USAGE;
	}
	if (c.out_dir && result_mkdirs(c.out_dir, &e)) {
		ob_warn("%s", e.msg);
		control_close(c.control);
		return OB_EXIT_USAGE;
	}
	if (c.control && !c.quiet)
		fprintf(stderr, "control socket: %s\n", control_path(c.control));
	runs = calloc(c.nsharing, sizeof(*runs));
	OB_ASSERT(runs);

	n = run_modes(&c, runs);
	control_close(c.control);
	overall = result_overall(runs, n);
	if (ob_stop_signal && overall != RUN_FAILED)
		overall = RUN_INTERRUPTED;

	/* Standard output is for one thing: the document, when it goes there. */
	say = c.json_path && strcmp(c.json_path, "-") == 0 ? stderr : stdout;
	table_print(say, &c, runs, n);
	ret = exit_status(overall);
	doc = result_json(&c, runs, n, overall);
	if (c.json_path && result_write(doc, c.json_path, &e)) {
		ob_warn("%s", e.msg);
		ret = OB_EXIT_FAILED;
	}
	if (c.out_dir && write_out_dir(doc, c.out_dir, say))
		ret = OB_EXIT_FAILED;
	json_decref(doc);
	for (unsigned int i = 0; i < n; i++)
		run_result_free(&runs[i]);
	free(runs);
	return ret;
}

int cmd_fleet(int argc, char **argv)
{
	return fleet_main("fleet", argc, argv);
}

int cmd_compare(int argc, char **argv)
{
	return fleet_main("compare", argc, argv);
}
