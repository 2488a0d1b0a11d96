/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_switch.c: the sharing mode of a running fleet is switched, again and again, while its guests
 * write and verify: none of them ever notices, what was shared is given up whole, and nothing is left
 * of it: no frame, no mapping, no setting of Linux KSM.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/ksm_lock.h"
#include "tests/live.h"

/* --- one fleet that goes through several modes ---------------------------------------------- */

static const json_t *phase(const struct cli *c, size_t i, const char *sharing)
{
	const json_t *p = json_array_get(json_object_get(cli_run_of(c, 0), "phases"), i);

	cr_assert(p, "there is no phase %zu", i);
	cr_assert_str_eq(cli_str(p, "sharing"), sharing);
	cr_expect_str_eq(cli_str(p, "status"), "ok");
	cr_expect_eq(cli_num(p, "integrity", "mismatches"), 0);
	cr_expect_gt(cli_num(p, "integrity", "checked_pages"), 0);
	cr_expect_gt(json_array_size(json_object_get(p, "samples")), 1);
	cr_expect_gt(json_number_value(json_object_get(p, "ops_per_second")), 0);
	cr_expect_geq(json_number_value(json_object_get(p, "measured_seconds")), 1.0);
	return p;
}

/* Left for the next one, with nothing of it left behind. */
static void left(const json_t *p, const char *to)
{
	const json_t *l = json_object_get(p, "left");

	cr_assert(json_is_object(l), "%s was not left", cli_str(p, "sharing"));
	cr_expect_str_eq(cli_str(l, "to"), to);
	cr_expect_eq(cli_num(l, "frames_left", NULL), 0);
}

static json_int_t saved(const json_t *p)
{
	return cli_num(p, "saved", "zero") + cli_num(p, "saved", "intra") +
	       cli_num(p, "saved", "inter");
}

/* A phase without sharing is like the first one, which never saw any: guests that write all their
 * memory hold all of it. */
static void is_control(const json_t *p, const json_t *first)
{
	json_int_t resident = cli_num(p, "resident_bytes", NULL);
	json_int_t was = cli_num(first, "resident_bytes", NULL);
	json_int_t kernel = cli_num(p, "resident_bytes_kernel", NULL);

	cr_expect_geq(resident, was, "%lld resident, not %lld", (long long)resident,
		      (long long)was);
	cr_expect_leq(resident, was + was / 50, "%lld resident, not %lld", (long long)resident,
		      (long long)was);
	cr_expect_lt(llabs(kernel - resident), was / 50, "by the kernel's count %lld, not %lld",
		     (long long)kernel, (long long)resident);
	cr_expect_eq(cli_num(p, "metadata_bytes", NULL), 0);
	cr_expect_eq(json_number_value(json_object_get(p, "merge_cpu_seconds")), 0);
	cr_expect_leq(saved(p), saved(first));
}

Test(live, hash_and_off_in_turn_on_the_same_guests, .timeout = 180)
{
	const json_t *off, *hash;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --cell 2 --mem 16M --workload kv,churn,counters,remerge "
		"--sharing "
		"off,hash,off,hash,off --live --seconds 1 --control none",
		true, 120);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	off = phase(&c, 0, "off");
	left(off, "hash");
	for (size_t i = 1; i < 5; i += 2) {
		hash = phase(&c, i, "hash");
		left(hash, "off");
		cr_expect_gt(saved(hash), saved(off) + (4 << 20));
		cr_expect_gt(cli_num(json_object_get(hash, "left"), "unmerged_pages", NULL), 500);
		cr_expect_gt(cli_num(json_object_get(hash, "left"), "given_up_bytes", NULL),
			     4 << 20);
		cr_expect_eq(cli_num(hash, "integrity", "frame_check_errors"), 0);
		is_control(phase(&c, i + 1, "off"), off);
	}
	cr_expect(json_is_null(json_object_get(phase(&c, 4, "off"), "left")));
	cr_expect_str_eq(cli_str(cli_run_of(&c, 0), "sharing"), "off");
	/* A column a phase. */
	cr_expect(strstr(c.out, "hash") && strstr(c.out, "(of off)"), "%s", c.out);
	cli_free(&c);
}

Test(live, linux_ksm_in_between_and_its_settings_back, .timeout = 240)
{
	const json_t *off, *kernel;
	char before[32] = "", after[32] = "";
	struct cli c;
	FILE *f;

	NEED_KVM();
	NEED_KSM(true);
	f = fopen("/sys/kernel/mm/ksm/pages_to_scan", "re");
	cr_assert(f && fgets(before, sizeof(before), f));
	fclose(f);
	for (int tries = 1;; tries++) {
		cli_run(&c,
			"compare --guests 4 --cell 2 --mem 16M --workload kv,churn --sharing "
			"off,kernel,off,hash --live --seconds 2 --control none --out "
			"/tmp/overbook-test-live-out",
			true, 70);
		cr_expect_eq(system("rm -rf /tmp/overbook-test-live-out"), 0);
		cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
		if (cli_converged(phase(&c, 1, "kernel")))
			break;
		cli_free(&c);
		if (tries == 3)
			cr_skip_test("the host is too busy: ksmd was not through in its time");
	}
	off = phase(&c, 0, "off");
	kernel = phase(&c, 1, "kernel");
	left(kernel, "off");
	cr_expect_gt(saved(kernel), saved(off) + (4 << 20));
	cr_expect_gt(json_number_value(json_object_get(kernel, "merge_cpu_seconds")), 0);
	is_control(phase(&c, 2, "off"), off);
	cr_expect_gt(saved(phase(&c, 3, "hash")), saved(off) + (4 << 20));
	cli_free(&c);
	f = fopen("/sys/kernel/mm/ksm/pages_to_scan", "re");
	cr_assert(f && fgets(after, sizeof(after), f));
	fclose(f);
	cr_expect_str_eq(after, before);
}

/* --- by the control socket ------------------------------------------------------------------- */

/* What ctl says, without the line end. */
static void ctl(struct live *r, const char *words, int status, const char *says)
{
	char line[200];
	struct cli c;

	snprintf(line, sizeof(line), "ctl %s --control %s", words, r->path);
	cli_run(&c, line, false, 120);
	cr_assert_eq(c.status, status, "%s: status %d\n%s%s", line, c.status, c.out, c.err);
	cr_assert(strstr(status ? c.err : c.out, says), "%s: '%s' is not in: %s%s", line, says,
		  c.out, c.err);
	cli_free(&c);
}

/* A fleet whose engine is on: from then on its mode can be switched. */
static void start(struct live *r, const char *args)
{
	struct ob_err e = {""};
	bool on = false;

	live_start(r, args, true);
	/* Filling their memory, guests refuse: the same mode again is refused in another way. */
	for (int i = 0; i < 3000 && !on; i++) {
		json_t *ret = live_ask(r, "x-overbook-query-sharing", NULL);
		json_t *no = NULL;

		cr_assert(qmp_client_ask(r->client, "x-overbook-sharing",
					 json_pack("{s:s}", "mode", cli_str(ret, "sharing")),
					 LIVE_PATIENCE_MS, &no, &e));
		on = strstr(e.msg, "already") != NULL;
		cr_assert(on || strstr(e.msg, "booting"), "%s", e.msg);
		json_decref(ret);
		cli_nap_ms(10);
	}
	cr_assert(on);
}

/* It ends by a quit. */
static void ended(struct live *r)
{
	live_wait(r, 130);
	live_end(r);
}

static void quit(struct live *r)
{
	live_do(r, "quit");
	ended(r);
}

static void verify(struct live *r)
{
	char line[200];
	struct cli c;

	snprintf(line, sizeof(line), "ept verify --control %s", r->path);
	cli_run(&c, line, false, 60);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cli_free(&c);
}

/* Mappings of all cells, and those of the pool. */
static unsigned int mappings(struct live *r, unsigned int *pool)
{
	pid_t cells[8];
	unsigned int n = cli_children(r->cli.pid, "cell", cells, 8), sum = 0;
	char line[400];

	*pool = 0;
	for (unsigned int i = 0; i < n; i++) {
		FILE *f;

		snprintf(line, sizeof(line), "/proc/%d/maps", (int)cells[i]);
		f = fopen(line, "re");
		cr_assert(f);
		for (; fgets(line, sizeof(line), f); sum++)
			*pool += strstr(line, "ob:ksm:pool") != NULL;
		fclose(f);
	}
	return sum;
}

static json_int_t mismatches(struct live *r)
{
	json_t *list = live_ask(r, "x-overbook-query-guests", NULL), *g;
	json_int_t sum = 0;
	size_t i;

	json_array_foreach (list, i, g)
		sum += cli_num(g, "mismatches", NULL);
	json_decref(list);
	return sum;
}

Test(ctl, back_and_forth_many_times, .timeout = 300)
{
	unsigned int base, now, pool;
	struct live r;

	NEED_KVM();
	start(&r, "fleet --guests 4 --cell 2 --mem 16M --workload kv,churn,counters,remerge "
		  "--sharing off --seconds 240 --quiet");
	base = mappings(&r, &pool);
	for (int round = 0; round < 8; round++) {
		ctl(&r, "sharing hash", 0, "off -> hash in ");
		/* Sometimes in the middle of its first passes. */
		cli_nap_ms(round * 120);
		verify(&r);
		ctl(&r, "sharing", 0, "hash");
		ctl(&r, "sharing off", 0, "hash -> off in ");
		verify(&r);
		now = mappings(&r, &pool);
		cr_expect_eq(pool, 0, "round %d: %u mappings of the pool", round, pool);
		/* A thread's stack comes and goes, and so does what an allocator has; a sanitizer's has
		 * many. */
#ifndef __SANITIZE_ADDRESS__
		cr_expect_leq(now, base + 24, "round %d: %u mappings, before %u", round, now, base);
#else
		(void)base;
		(void)now;
#endif
		cr_expect_eq(mismatches(&r), 0);
	}
	quit(&r);
}

Test(ctl, linux_ksm_and_back, .timeout = 300)
{
	struct live r;

	NEED_KVM();
	NEED_KSM(true);
	start(&r, "fleet --guests 4 --cell 2 --mem 16M --workload counters,kv "
		  "--sharing hash --seconds 240 --quiet");
	for (int round = 0; round < 3; round++) {
		ctl(&r, "sharing kernel", 0, "hash -> kernel in ");
		cli_nap_ms(700);
		verify(&r);
		ctl(&r, "sharing hash", 0, "kernel -> hash in ");
		cli_nap_ms(300);
		verify(&r);
		cr_expect_eq(mismatches(&r), 0);
	}
	quit(&r);
}

static int ksm_run(void)
{
	FILE *f = fopen("/sys/kernel/mm/ksm/run", "re");
	int v = -1;

	cr_assert(f && fscanf(f, "%d", &v) == 1);
	fclose(f);
	return v;
}

Test(ctl, a_killed_fleet_puts_linux_ksm_back, .timeout = 180)
{
	struct live r;
	int before;

	NEED_KVM();
	NEED_KSM(true);
	before = ksm_run();
	start(&r, "fleet --guests 2 --mem 16M --workload kv --sharing off --seconds 240 --quiet");
	ctl(&r, "sharing kernel", 0, "off -> kernel");
	cr_expect_eq(ksm_run(), 1);
	cr_assert_eq(kill(r.cli.pid, SIGKILL), 0);
	qmp_client_close(r.client);
	cli_wait(&r.cli, 30);
	for (int i = 0; i < 3000 && ksm_run() != before; i++)
		cli_nap_ms(10);
	cr_expect_eq(ksm_run(), before);
	cli_free(&r.cli);
	unlink(r.path);
	rmdir(r.dir);
}

Test(ctl, a_cell_that_dies_in_the_middle, .timeout = 240)
{
	struct live r;
	pid_t cells[4];
	json_t *ret = NULL;
	bool busy = true;

	NEED_KVM();
	start(&r, "fleet --guests 6 --cell 2 --mem 32M --workload churn,kv --sharing hash "
		  "--seconds 240 --quiet");
	cli_nap_ms(1500);
	cr_assert_eq(cli_children(r.cli.pid, "cell", cells, 4), 3);
	json_decref(live_ask(&r, "x-overbook-sharing", json_pack("{s:s}", "mode", "off")));
	cr_assert_eq(kill(cells[1], SIGKILL), 0);
	for (int i = 0; i < 3000 && busy; i++) {
		json_decref(ret);
		ret = live_ask(&r, "x-overbook-query-sharing", NULL);
		busy = json_is_true(json_object_get(ret, "switching"));
		cli_nap_ms(10);
	}
	cr_assert(!busy);
	cr_expect_str_eq(cli_str(ret, "sharing"), "off");
	cr_expect_str_empty(cli_str(json_object_get(ret, "switch"), "error"));
	json_decref(ret);
	verify(&r);
	ctl(&r, "sharing hash", 0, "off -> hash");
	cli_nap_ms(500);
	verify(&r);
	cr_expect_eq(mismatches(&r), 0);
	quit(&r);
}

Test(ctl, a_client_that_goes_away_has_not_stopped_it, .timeout = 180)
{
	struct qmp_client *other;
	struct ob_err e = {""};
	bool busy = true;
	struct live r;
	json_t *ret;

	NEED_KVM();
	start(&r, "fleet --guests 4 --cell 2 --mem 64M --workload kv,churn --sharing hash "
		  "--seconds 240 --quiet");
	cli_nap_ms(1500);
	cr_assert_eq(qmp_client_open(&other, r.path, LIVE_PATIENCE_MS, &e), 0, "%s", e.msg);
	cr_assert_eq(qmp_client_ask(other, "x-overbook-sharing", json_pack("{s:s}", "mode", "off"),
				    LIVE_PATIENCE_MS, &ret, &e),
		     0, "%s", e.msg);
	json_decref(ret);
	/* It takes a while, in which nothing else may be begun. */
	if (qmp_client_ask(r.client, "x-overbook-sharing", json_pack("{s:s}", "mode", "hash"),
			   LIVE_PATIENCE_MS, &ret, &e))
		cr_expect(strstr(e.msg, "under way") || strstr(e.msg, "already"), "%s", e.msg);
	else
		json_decref(ret);
	qmp_client_close(other);
	for (int i = 0; i < 3000 && busy; i++) {
		ret = live_ask(&r, "x-overbook-query-sharing", NULL);
		busy = json_is_true(json_object_get(ret, "switching"));
		json_decref(ret);
		cli_nap_ms(10);
	}
	cr_assert(!busy);
	verify(&r);
	quit(&r);
}

Test(ctl, refuses_what_does_not_fit_into_memory, .timeout = 180)
{
	struct live r;

	NEED_KVM();
	/* Two thirds of it are the same in all. */
	start(&r, "fleet --guests 6 --cell 2 --mem 32M --workload kv --sharing hash --host-mem "
		  "150M --seconds 240 --quiet");
	cli_nap_ms(3000);
	ctl(&r, "sharing off", 2, "--host-mem leaves ");
	ctl(&r, "sharing off", 2, "MiB when it is not shared");
	ctl(&r, "sharing", 0, "hash");
	verify(&r);
	quit(&r);
}

/* --live has an order of its own: somebody else's switch would spoil the result. */
Test(ctl, a_live_fleet_refuses, .timeout = 180)
{
	char path[64], line[300];
	struct cli fleet, c;
	int tries = 0;

	NEED_KVM();
	snprintf(path, sizeof(path), "/tmp/overbook-test-live-%d", (int)getpid());
	snprintf(line, sizeof(line),
		 "fleet --guests 2 --mem 16M --workload kv --sharing off,hash --live --seconds 3 "
		 "--quiet --control %s",
		 path);
	cli_start(&fleet, line, true);
	snprintf(line, sizeof(line), "ctl sharing hash --control %s", path);
	do {
		cli_nap_ms(100);
		cli_run(&c, line, false, 60);
		cr_assert_eq(c.status, 2, "%s%s", c.out, c.err);
		if (strstr(c.err, "--live"))
			break;
		cli_free(&c);
	} while (++tries < 300);
	cr_assert_lt(tries, 300);
	cli_free(&c);
	cli_wait(&fleet, 120);
	cr_assert_eq(fleet.status, 0, "%s%s", fleet.out, fleet.err);
	cli_free(&fleet);
}

Test(ctl, errors_are_one_line, .timeout = 120)
{
	struct live r;

	NEED_KVM();
	start(&r, "fleet --guests 2 --mem 16M --workload kv --sharing off --seconds 240 --quiet "
		  "--domain a:0 --domain b:1");
	ctl(&r, "sharing nope", 2, "no such mode");
	ctl(&r, "sharing off", 2, "the mode is off already");
	ctl(&r, "sharing hash kernel", 2, "unexpected word");
	ctl(&r, "sharing --frob", 2, "unknown option");
	ctl(&r, "frob", 2, "unknown word");
	if (!access("/sys/kernel/mm/ksm/run", W_OK))
		ctl(&r, "sharing kernel", 2, "keeps no domains apart");
	ctl(&r, "status", 0, "running");
	ctl(&r, "stop", 0, "");
	ctl(&r, "status", 0, "paused");
	ctl(&r, "sharing hash", 2, "is stopped");
	ctl(&r, "cont", 0, "");
	ctl(&r, "sharing hash", 0, "off -> hash");
	ctl(&r, "quit", 0, "");
	ended(&r);
}
