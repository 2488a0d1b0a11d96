/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_run.c: the verb run: one guest, its console on the terminal. It is a fleet of one without
 * sharing, so that there is one way to boot a guest and not two; what is said about it goes to
 * standard error, standard output is the guest's (or the JSON document's, when it was asked for
 * there: then the console goes to standard error). What is typed at a terminal is a Linux guest's.
 */
#include <string.h>
#include <unistd.h>

#include "harness/result.h"
#include "harness/terminal.h"

int cmd_run(int argc, char **argv)
{
	struct fleet_config c;
	struct run_result r = {0};
	struct ob_err e = {""};
	struct terminal terminal = {0};
	const struct run_guest *g;
	bool json_out;
	json_t *doc;
	int ret = opts_fleet(&c, "run", argc, argv);

	if (ret)
		return ret < 0 ? OB_EXIT_OK : ret;
	json_out = c.json_path && strcmp(c.json_path, "-") == 0;
	c.console_fd = json_out ? STDERR_FILENO : STDOUT_FILENO;
	/* The terminal is the guest's: no progress in the middle of its lines. */
	c.quiet = true;

	if (control_open(&c.control, c.control_path, &e)) {
		ob_warn("%s", e.msg);
		return OB_EXIT_USAGE;
	}
	if (c.lx.input)
		terminal_give(&terminal);
	ret = coord_run(&c, c.sharing[0], &r, &e);
	terminal_take_back(&terminal);
	control_close(c.control);
	snprintf(r.sharing, sizeof(r.sharing), "%s", c.sharing[0]->name);
	if (ret) {
		r.status = RUN_FAILED;
		snprintf(r.note, sizeof(r.note), "could not run: %.180s",
			 e.msg[0] ? e.msg : strerror(-ret));
	} else if (ob_stop_signal && r.status == RUN_OK) {
		r.status = RUN_INTERRUPTED;
	}

	g = r.guest && r.guests ? &r.guest[0] : NULL;
	fprintf(stderr, "\nstatus %s%s%s", run_status_name(r.status), r.note[0] ? ": " : "",
		r.note);
	if (g)
		fprintf(stderr, "\nguest %s%s%s",
			strcmp(g->end, "running") ? g->end : "ran to the end",
			g->reason[0] ? ": " : "", g->reason);
	if (g && (!c.lx.on || c.lx.agent))
		fprintf(stderr, ", %llu operations, %llu pages checked, %llu mismatches",
			(unsigned long long)g->ops, (unsigned long long)g->checked_pages,
			(unsigned long long)g->mismatches);
	fputc('\n', stderr);

	ret = r.status == RUN_OK	    ? OB_EXIT_OK
	      : r.status == RUN_INTERRUPTED ? OB_EXIT_INTERRUPTED
					    : OB_EXIT_FAILED;
	if (c.json_path) {
		doc = result_json(&c, &r, 1, r.status);
		if (result_write(doc, c.json_path, &e)) {
			ob_warn("%s", e.msg);
			ret = OB_EXIT_FAILED;
		}
		json_decref(doc);
	}
	run_result_free(&r);
	return ret;
}
