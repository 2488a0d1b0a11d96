/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_fleet.c: the hidden verb `overbook bench fleet`: a fleet like that of `overbook fleet`,
 * with the same options and the same code below, but as another program wants it: all consoles go
 * to standard output as they come, and the result document to a descriptor that the starter has
 * laid out. A benchmark can so see from outside when the last guest has run its first instruction.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_demo.h"
#include "harness/result.h"

int bench_fleet(int argc, char **argv)
{
	struct fleet_config c;
	struct run_result r = {0};
	struct ob_err e = {""};
	json_t *doc;
	int ret;

	if (fcntl(BENCH_FD_DOC, F_SETFD, FD_CLOEXEC)) {
		ob_warn("bench fleet: this is for overbook itself");
		return OB_EXIT_USAGE;
	}
	ret = opts_fleet(&c, "fleet", argc, argv);
	if (ret)
		return ret < 0 ? OB_EXIT_OK : ret;
	c.console_fd = STDOUT_FILENO;
	ret = coord_run(&c, c.sharing[0], &r, &e);
	snprintf(r.sharing, sizeof(r.sharing), "%s", c.sharing[0]->name);
	if (ret) {
		r.status = RUN_FAILED;
		ob_warn("%s", e.msg[0] ? e.msg : strerror(-ret));
	} else if (r.status != RUN_OK) {
		ob_warn("%s: %s", run_status_name(r.status), r.note);
	}
	doc = result_json(&c, &r, 1, r.status);
	if (json_dumpfd(doc, BENCH_FD_DOC, JSON_COMPACT)) {
		ob_warn("cannot write the result: %s", strerror(errno));
		r.status = RUN_FAILED;
	}
	json_decref(doc);
	ret = r.status == RUN_OK	    ? OB_EXIT_OK
	      : r.status == RUN_INTERRUPTED ? OB_EXIT_INTERRUPTED
					    : OB_EXIT_FAILED;
	run_result_free(&r);
	return ret;
}

int demo_fleet_start(const struct demo *d, const struct demo_fleet *f, struct bench_child *c,
		     uint64_t *started, struct ob_err *e)
{
	char guests[32], mem[40], cell[32], seconds[32], seed[48], sharing[32], workload[32];
	char *argv[] = {(char[]){"overbook"},
			(char[]){"bench"},
			(char[]){"fleet"},
			(char[]){"--quiet"},
			guests,
			mem,
			cell,
			seconds,
			seed,
			sharing,
			workload,
			NULL};
	char exe[PATH_MAX];

	snprintf(exe, sizeof(exe), "%s", d->exe);
	argv[0] = exe;
	snprintf(guests, sizeof(guests), "--guests=%u", f->guests);
	snprintf(mem, sizeof(mem), "--mem=%llu", (unsigned long long)f->mem);
	snprintf(cell, sizeof(cell), "--cell=%u", f->cell ? f->cell : FLEET_DEFAULT_CELL);
	snprintf(seconds, sizeof(seconds), "--seconds=%u", f->seconds);
	snprintf(seed, sizeof(seed), "--seed=%llu", (unsigned long long)f->seed);
	snprintf(sharing, sizeof(sharing), "--sharing=%s", f->sharing);
	snprintf(workload, sizeof(workload), "--workload=%s", f->workload);
	return bench_child_start(c, argv, d->cgroup.procs_fd, started, e);
}
