/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_control.c: a running fleet and its control socket, as a person has them: the command, another
 * command that asks it, and a client of the protocol.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/harness.h"
#include "tests/live.h"

/* Operations of all guests up to this moment. */
static json_int_t ops(struct live *r)
{
	json_t *ret = live_ask(r, "x-overbook-query-guests", NULL), *g;
	json_int_t sum = 0;
	size_t i;

	cr_assert(json_array_size(ret) > 0);
	json_array_foreach (ret, i, g)
		sum += json_integer_value(json_object_get(g, "ops"));
	json_decref(ret);
	return sum;
}

static json_int_t wait_for_more(struct live *r, json_int_t than)
{
	json_int_t now = ops(r);

	for (int i = 0; i < 3000 && now <= than; i++) {
		cli_nap_ms(10);
		now = ops(r);
	}
	cr_assert_gt(now, than, "the guests do nothing");
	return now;
}

Test(control, stop_stops_and_cont_goes_on, .timeout = 120)
{
	json_int_t before, stopped;
	const json_t *run;
	struct live r;

	NEED_KVM();
	live_start(&r,
		   "fleet --guests 4 --cell 2 --mem 16M --workload kv,churn --seconds 4 --quiet",
		   true);
	before = wait_for_more(&r, wait_for_more(&r, 0));
	live_do(&r, "stop");
	cr_expect(live_status_is(&r, "paused"));
	stopped = ops(&r);
	cr_expect_geq(stopped, before);
	cli_nap_ms(500);
	cr_expect_eq(ops(&r), stopped, "guests work while they are stopped");
	live_do(&r, "stop"); /* twice is once */
	cr_expect(live_status_is(&r, "paused"));
	live_do(&r, "cont");
	cr_expect(live_status_is(&r, "running"));
	wait_for_more(&r, stopped);
	live_do(&r, "cont");
	/* Stopped for longer than it was to run: its time stands still, so it is not over. */
	live_do(&r, "stop");
	cli_nap_ms(5000);
	cr_expect(live_status_is(&r, "paused"));
	live_do(&r, "cont");
	live_wait(&r, 0);
	run = cli_run_of(&r.cli, 0);
	cr_expect_str_eq(cli_str(run, "status"), "ok");
	cr_expect(strstr(cli_str(run, "note"), "stood still"), "%s", cli_str(run, "note"));
	cr_expect_geq(json_real_value(json_object_get(run, "paused_seconds")), 5.5);
	cr_expect_geq(json_real_value(json_object_get(run, "measured_seconds")), 4.0);
	cr_expect_eq(json_integer_value(
			     json_object_get(json_object_get(run, "integrity"), "mismatches")),
		     0);
	live_end(&r);
}

/* One answer of `overbook ept`, as a document. */
static json_t *ept(const char *args, int status)
{
	struct cli c;
	json_t *doc;

	cli_run(&c, args, false, 60);
	cr_assert_eq(c.status, status, "%s: status %d\n%s%s", args, c.status, c.out, c.err);
	doc = json_loads(c.out, JSON_DECODE_ANY, NULL);
	cr_assert(doc, "%s: %s", args, c.out);
	cli_free(&c);
	return doc;
}

static void ept_refused(const char *args, const char *says)
{
	const char *nl;
	struct cli c;

	cli_run(&c, args, false, 60);
	nl = strchr(c.err, '\n');
	cr_expect_eq(c.status, 2, "%s: status %d\n%s%s", args, c.status, c.out, c.err);
	cr_expect(nl && !nl[1], "%s: not one line: %s", args, c.err);
	cr_expect(strstr(c.err, says), "%s: '%s' is not in: %s", args, says, c.err);
	cr_expect_str_empty(c.out);
	cli_free(&c);
}

static void check_stat(const json_t *vm, unsigned int id)
{
	const json_t *states = json_object_get(vm, "states"), *v;
	json_int_t sum = 0;
	const char *name;

	cr_expect_eq(json_integer_value(json_object_get(vm, "vm")), id);
	cr_expect_eq(json_integer_value(json_object_get(vm, "cell")), id / 2);
	cr_expect_eq(json_integer_value(json_object_get(vm, "pages")), 4096);
	json_object_foreach ((json_t *)(uintptr_t)states, name, v)
		sum += json_integer_value(v);
	cr_expect_eq(sum, 4096, "guest %u: states sum to %lld", id, (long long)sum);
	cr_expect_gt(json_integer_value(json_object_get(states, "private")), 0);
}

Test(control, ept_stat_sums_to_the_guests_pages, .timeout = 120)
{
	char line[200];
	struct cli c;
	struct live r;
	bool has_kvm;
	json_t *list;

	NEED_KVM();
	live_start(&r, "fleet --guests 3 --cell 2 --mem 16M --workload kv,idle --seconds 6 --quiet",
		   false);
	for (int round = 0; round < 10; round++) {
		snprintf(line, sizeof(line), "ept stat --json --control %s", r.path);
		list = ept(line, 0);
		cr_assert_eq(json_array_size(list), 3);
		for (unsigned int i = 0; i < 3; i++)
			check_stat(json_array_get(list, i), i);
		json_decref(list);
	}
	snprintf(line, sizeof(line), "ept stat --json --vm 2 --control %s", r.path);
	list = ept(line, 0);
	cr_assert_eq(json_array_size(list), 1);
	check_stat(json_array_get(list, 0), 2);
	has_kvm = json_object_get(json_array_get(list, 0), "kvm") != NULL;
	json_decref(list);
	/* At length: what KVM counts of it by KVM's names, where this KVM counts. */
	snprintf(line, sizeof(line), "ept stat --vm 2 --control %s", r.path);
	cli_run(&c, line, false, 60);
	cr_expect_eq(c.status, 0, "%s", c.err);
	cr_expect(strstr(c.out, "guest 2 in cell 1, 4096 pages"), "%s", c.out);
	cr_expect(strstr(c.out, "; sharing domain default\n"), "%s", c.out);
	cr_expect_eq(strstr(c.out, "KVM's counters of vCPU 0") != NULL, has_kvm, "%s", c.out);
	cli_free(&c);
	snprintf(line, sizeof(line), "ept stat --control %s", r.path);
	cli_run(&c, line, false, 60);
	cr_expect_eq(c.status, 0, "%s", c.err);
	cr_expect(strstr(c.out, " all    12288"), "%s", c.out);
	cli_free(&c);

	/* What cannot be is a line and status 2, and the fleet goes on. */
	snprintf(line, sizeof(line), "ept stat --vm 3 --control %s", r.path);
	ept_refused(line, "there is no guest 3; there are 0 to 2");
	snprintf(line, sizeof(line), "ept walk --control %s 3 0x1000", r.path);
	ept_refused(line, "there is no guest 3");
	snprintf(line, sizeof(line), "ept walk --control %s 0 0x100000000000000000", r.path);
	ept_refused(line, "is no 64-bit address");
	live_wait(&r, 0);
	snprintf(line, sizeof(line), "ept stat --control %s", r.path);
	ept_refused(line, "No such file");
	live_end(&r);
}

/* The map is what the kernel says, at any time: while guests run and are merged, and at rest. */
Test(control, ept_verify_finds_no_difference, .timeout = 120)
{
	struct cli c;
	char line[200];
	struct live r;

	NEED_KVM();
	live_start(
		&r,
		"fleet --guests 3 --cell 2 --mem 16M --workload kv,churn,idle --seconds 6 --quiet",
		false);
	for (int round = 0; round < 30; round++) {
		json_t *list, *vm;
		size_t i;

		if (round == 20)
			live_do(&r, "stop");
		list = live_ask(&r, "x-overbook-ept-verify", NULL);
		cr_assert_eq(json_array_size(list), 3);
		json_array_foreach (list, i, vm) {
			char *text = json_dumps(vm, 0);

			cr_expect_eq(json_integer_value(json_object_get(vm, "pages")), 4096);
			cr_expect(json_is_integer(json_object_get(vm, "lagged")));
			cr_expect_eq(json_integer_value(json_object_get(vm, "differences")), 0,
				     "round %d: %s", round, text);
			/* Nothing moves while it is stopped. */
			if (round > 20)
				cr_expect_eq(json_integer_value(json_object_get(vm, "lagged")), 0,
					     "round %d: %s", round, text);
			free(text);
		}
		json_decref(list);
		cli_nap_ms(50);
	}
	live_do(&r, "cont");
	snprintf(line, sizeof(line), "ept verify --control %s", r.path);
	cli_run(&c, line, false, 60);
	cr_expect_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_expect(strstr(c.out, "every page is what the map says"), "%s", c.out);
	cli_free(&c);
	live_wait(&r, 0);
	live_end(&r);
}

static json_t *walk(struct live *r, unsigned int vm, uint64_t gva)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)gva);
	return live_ask(r, "x-overbook-ept-walk", json_pack("{s:i,s:s}", "vm", vm, "gva", text));
}

/* The microguest maps its memory one to one, so where a walk must come out is known. */
Test(control, ept_walk_leads_to_the_page, .timeout = 120)
{
	static const struct {
		uint64_t gva;
		const char *stop;
	} nowhere[] = {
		{0x0000000fffffffff & ~0xfffull, "not present"},
		{0x00007ffffffff000, "not present"},
		{0xffff800000000000, "not present"},
		{0x0000800000000000, "non-canonical"},
		{0x8000000000000000, "non-canonical"},
	};
	unsigned int seed = 31337;
	char line[200];
	struct cli c;
	struct live r;

	NEED_KVM();
	live_start(&r, "fleet --guests 2 --mem 16M --workload kv --seconds 6 --quiet", false);
	wait_for_more(&r, 0);
	srand(seed);
	for (int round = 0; round < 200; round++) {
		uint64_t gva = (uint64_t)rand() % (16 * OB_MIB);
		json_t *w = walk(&r, (unsigned int)round % 2, gva);
		const json_t *page = json_object_get(w, "page");
		char *text = json_dumps(w, 0);

		cr_expect(json_is_true(json_object_get(w, "ok")), "seed %u: %s", seed, text);
		cr_expect_eq(strtoull(cli_str(w, "gpa"), NULL, 16), gva, "seed %u: %s", seed, text);
		cr_expect_eq(strtoull(cli_str(w, "gva"), NULL, 16), gva, "seed %u: %s", seed, text);
		cr_expect_str_eq(cli_str(w, "mode"), "4-level");
		cr_expect_geq(json_array_size(json_object_get(w, "levels")), 2, "%s", text);
		cr_expect(*cli_str(page, "state") && strtoull(cli_str(page, "hva"), NULL, 16), "%s",
			  text);
		cr_expect_eq((strtoull(cli_str(page, "hva"), NULL, 16) ^ gva) & OB_PAGE_MASK, 0,
			     "%s", text);
		/* A guest that runs may break the page off meanwhile, so the frame alone says it. */
		cr_expect_eq(json_is_integer(json_object_get(page, "frame")),
			     !strcmp(cli_str(page, "state"), "shared"), "%s", text);
		cr_expect_gt(json_integer_value(
				     json_object_get(json_object_get(w, "references"), "nested")),
			     json_integer_value(
				     json_object_get(json_object_get(w, "references"), "native")),
			     "%s", text);
		free(text);
		json_decref(w);
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(nowhere); i++) {
		json_t *w = walk(&r, 0, nowhere[i].gva);
		char *text = json_dumps(w, 0);

		cr_expect(json_is_false(json_object_get(w, "ok")), "%s", text);
		cr_expect_str_eq(cli_str(w, "stop"), nowhere[i].stop, "%s", text);
		cr_expect(*cli_str(w, "stop_level"), "%s", text);
		free(text);
		json_decref(w);
	}
	snprintf(line, sizeof(line), "ept walk --control %s 1 0x100000", r.path);
	cli_run(&c, line, false, 60);
	cr_expect_eq(c.status, 0, "%s", c.err);
	cr_expect(strstr(c.out, "gpa        0x100000"), "%s", c.out);
	cli_free(&c);
	snprintf(line, sizeof(line), "ept walk --control %s 1 0x800000000000", r.path);
	cli_run(&c, line, false, 60);
	cr_expect_eq(c.status, 1, "%s", c.err);
	cr_expect(strstr(c.out, "non-canonical"), "%s", c.out);
	cli_free(&c);
	live_wait(&r, 0);
	live_end(&r);
}

/* Questions do not disturb the guests: many, by several clients, while they run. */
Test(control, asking_all_the_time_changes_nothing, .timeout = 120)
{
	struct qmp_client *more[3];
	struct ob_err e = {""};
	const json_t *run;
	unsigned int asked = 0;
	struct live r;
	json_t *ret;
	int got = 0;

	NEED_KVM();
	live_start(&r,
		   "fleet --guests 4 --cell 2 --mem 16M --workload kv,churn --seconds 4 --quiet",
		   true);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(qmp_client_open(&more[i], r.path, LIVE_PATIENCE_MS, &e), 0, "%s",
			     e.msg);
	while (!got) {
		got = qmp_client_ask(more[asked % 3], "x-overbook-ept-stat", NULL, LIVE_PATIENCE_MS,
				     &ret, &e);
		if (got)
			break;
		cr_assert_eq(json_array_size(ret), 4);
		for (unsigned int i = 0; i < 4; i++)
			check_stat(json_array_get(ret, i), i);
		json_decref(ret);
		asked++;
	}
	cr_expect_eq(got, -EPIPE, "%s", e.msg);
	cr_expect_gt(asked, 10);
	for (int i = 0; i < 3; i++)
		qmp_client_close(more[i]);
	live_wait(&r, 0);
	run = cli_run_of(&r.cli, 0);
	cr_expect_str_eq(cli_str(run, "status"), "ok", "%s", cli_str(run, "note"));
	cr_expect_str_eq(cli_str(run, "note"), "");
	live_end(&r);
}

static void no_cells_left(const pid_t *cells, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		cr_expect(kill(cells[i], 0) && errno == ESRCH, "a cell outlives its fleet");
}

Test(control, quit_ends_it_as_a_signal_would, .timeout = 120)
{
	unsigned int ncells;
	pid_t cells[4];
	struct live r;

	NEED_KVM();
	live_start(&r, "fleet --guests 4 --cell 2 --mem 16M --seconds 60 --quiet", true);
	ncells = cli_children(r.cli.pid, "cell", cells, 4);
	cr_expect_eq(ncells, 2);
	wait_for_more(&r, 0);
	live_do(&r, "quit");
	live_wait(&r, 130);
	cr_expect_str_eq(cli_str(cli_run_of(&r.cli, 0), "status"), "interrupted");
	cr_expect_str_eq(cli_str(cli_run_of(&r.cli, 0), "note"), "stopped by the control socket");
	cr_expect_gt(json_integer_value(json_object_get(cli_run_of(&r.cli, 0), "touched_bytes")), 0,
		     "what was measured is written");
	no_cells_left(cells, ncells);
	live_end(&r);
}

/* Stopped, and then ended: by quit, and by a signal. */
static void ended_while_stopped(int sig)
{
	unsigned int ncells;
	pid_t cells[4];
	struct live r;

	live_start(&r, "fleet --guests 4 --cell 2 --mem 16M --seconds 60 --quiet", true);
	ncells = cli_children(r.cli.pid, "cell", cells, 4);
	wait_for_more(&r, 0);
	live_do(&r, "stop");
	cli_nap_ms(300);
	if (sig)
		kill(r.cli.pid, sig);
	else
		live_do(&r, "quit");
	live_wait(&r, 130);
	cr_expect_str_eq(cli_str(cli_run_of(&r.cli, 0), "status"), "interrupted");
	cr_expect_gt(json_real_value(json_object_get(cli_run_of(&r.cli, 0), "paused_seconds")), 0);
	no_cells_left(cells, ncells);
	live_end(&r);
}

Test(control, quit_while_stopped, .timeout = 120)
{
	NEED_KVM();
	ended_while_stopped(0);
}

Test(control, ctrl_c_while_stopped, .timeout = 120)
{
	NEED_KVM();
	ended_while_stopped(SIGINT);
}

Test(control, a_lost_cell_is_left_out, .timeout = 120)
{
	json_int_t args_vm = 3;
	struct ob_err e = {""};
	pid_t cells[2];
	struct live r;
	json_t *ret;

	NEED_KVM();
	live_start(&r, "fleet --guests 4 --cell 2 --mem 16M --seconds 5 --quiet", true);
	cr_assert_eq(cli_children(r.cli.pid, "cell", cells, 2), 2);
	/* The one that has guests 2 and 3: the second that was started. */
	kill(cells[0] > cells[1] ? cells[0] : cells[1], SIGKILL);
	ret = live_ask(&r, "x-overbook-ept-stat", NULL);
	cr_expect_eq(json_array_size(ret), 2);
	for (unsigned int i = 0; i < 2; i++)
		check_stat(json_array_get(ret, i), i);
	json_decref(ret);
	cr_expect_eq(qmp_client_ask(r.client, "x-overbook-ept-stat",
				    json_pack("{s:I}", "vm", args_vm), LIVE_PATIENCE_MS, &ret, &e),
		     -EREMOTEIO);
	cr_expect(strstr(e.msg, "guest 3 is gone: cell 1"), "%s", e.msg);
	live_do(&r, "stop");
	cr_expect(live_status_is(&r, "paused"));
	live_do(&r, "cont");
	live_wait(&r, 1);
	cr_expect_str_eq(cli_str(cli_run_of(&r.cli, 0), "status"), "degraded");
	live_end(&r);
}

/* One socket for all runs of a comparison. */
Test(control, compare_keeps_its_socket, .timeout = 180)
{
	char line[300];
	unsigned int running = 0, prelaunch = 0;
	struct ob_err e = {""};
	struct live r;
	json_t *ret;
	int got;

	NEED_KVM();
	live_dir(&r);
	snprintf(line, sizeof(line),
		 "compare --guests 2 --mem 16M --sharing off,hash --seconds 1 --quiet --out %s/out "
		 "--control %s",
		 r.dir, r.path);
	cli_start(&r.cli, line, true);
	live_connect(&r);
	while (!(
		got = qmp_client_ask(r.client, "query-status", NULL, LIVE_PATIENCE_MS, &ret, &e))) {
		running += !strcmp(cli_str(ret, "status"), "running");
		/* From running back to being made: that is the second run. */
		prelaunch += running && !strcmp(cli_str(ret, "status"), "prelaunch");
		json_decref(ret);
		cli_nap_ms(1);
	}
	cr_expect_eq(got, -EPIPE, "%s", e.msg);
	cr_expect_gt(running, 0);
	cr_expect_gt(prelaunch, 0, "the second run was not seen");
	live_wait(&r, 0);
	cr_expect_eq(json_array_size(json_object_get(r.cli.result, "runs")), 2);
	snprintf(line, sizeof(line), "rm -r %s/out", r.dir);
	cr_assert_eq(system(line), 0);
	live_end(&r);
}

/* In the folder where it is when nobody names a place, and found there. */
Test(control, default_place_and_none, .timeout = 120)
{
	char folder[100], line[200];
	struct cli c;
	struct live r;
	bool found = false;

	NEED_KVM();
	live_dir(&r);
	setenv("XDG_RUNTIME_DIR", r.dir, 1);
	ept_refused("ept stat", "no fleet is running");
	cli_start(&r.cli, "run --mem 16M --workload idle --seconds 30 --quiet", false);
	for (int i = 0; i < 500 && !found; i++) {
		cli_nap_ms(20);
		cli_run(&c, "ept stat", false, 60);
		found = !c.status;
		cli_free(&c);
	}
	cr_expect(found, "it is not found: %s", c.err);
	cr_expect(strstr(c.out, "guest 0 in cell 0, 4096 pages"), "%s", c.out);
	snprintf(folder, sizeof(folder), "%s/overbook", r.dir);
	snprintf(line, sizeof(line), "run --mem 16M --seconds 1 --quiet --control %s/%d.sock",
		 folder, (int)r.cli.pid);
	ept_refused(line, "somebody serves there");
	kill(r.cli.pid, SIGTERM);
	cli_wait(&r.cli, 30);
	cr_expect_eq(r.cli.status, 130);
	cr_expect_eq(rmdir(folder), 0, "a socket is left in %s", folder);

	/* It is only a wish: without a folder to put it in, the guest runs all the same. */
	cli_run(&c, "run --mem 16M --workload idle --seconds 1 --quiet --control none", false, 60);
	cr_expect_eq(c.status, 0, "%s", c.err);
	cli_free(&c);
	cr_expect(access(folder, F_OK) && errno == ENOENT, "none makes nothing");
	setenv("XDG_RUNTIME_DIR", "/no/such/folder", 1);
	cli_run(&c, "run --mem 16M --workload idle --seconds 1 --quiet", false, 60);
	cr_expect_eq(c.status, 0, "%s", c.err);
	cr_expect(strstr(c.err, "without a control socket"), "%s", c.err);
	cli_free(&c);
	/* A place that was named is meant. */
	ept_refused("run --mem 16M --seconds 1 --quiet --control /no/such/folder/s",
		    "/no/such/folder");
	live_end(&r);
}
