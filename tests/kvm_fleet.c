/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_fleet.c: fleets as a person runs them, through the command: integrity, planted bugs, guests
 * that misbehave, cells and coordinators that are killed, signals, and what is left behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/ksm_lock.h"

/* The guests' parts are the whole. */
static void shares_add_up(const json_t *r)
{
	static const char *const parts[] = {"zero", "intra", "inter"};
	json_int_t touched = 0, saved[3] = {0};
	const json_t *g;
	size_t i;

	json_array_foreach (json_object_get(r, "guest_list"), i, g) {
		const json_t *s = json_object_get(g, "share");

		cr_assert_eq(cli_num(g, "workers", NULL), 1);
		touched += cli_num(s, "touched_bytes", NULL);
		for (unsigned int p = 0; p < 3; p++)
			saved[p] += cli_num(s, "saved", parts[p]);
	}
	cr_assert_eq(touched, cli_num(r, "touched_bytes", NULL));
	for (unsigned int p = 0; p < 3; p++)
		cr_assert_eq(saved[p], cli_num(r, "saved", parts[p]), "%s", parts[p]);
}

static void samples_are_split(const json_t *r)
{
	const json_t *s;
	size_t i;

	json_array_foreach (json_object_get(r, "samples"), i, s)
		cr_assert_eq(cli_num(s, "saved_bytes", NULL), cli_num(s, "saved", "zero") +
								      cli_num(s, "saved", "intra") +
								      cli_num(s, "saved", "inter"));
}

Test(fleet, hash_saves_across_guests_and_cells, .timeout = 120)
{
	static const char *const merging[] = {"freeze", "compare", "make", "share_run"};
	const json_t *r;
	struct cli c;
	json_int_t ours, kernel, saved, touched;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 6 --cell 2 --mem 24M --sharing hash --seconds 5 --workload "
		"kv,filecache,churn --quiet",
		true, 90);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "ok");
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert_gt(cli_num(r, "integrity", "checked_pages"), 50000);
	cr_assert_gt(cli_num(r, "integrity", "checked_shared_pages"), 10000);
	/* Each guest's page cache is the same: more than a third of all memory goes. */
	cr_assert_gt(cli_num(r, "saved", "inter"), cli_num(r, "touched_bytes", NULL) / 3);
	/* What is saved is what was touched and is not resident; frames on their way out may
	 * differ. */
	saved = cli_num(r, "saved", "zero") + cli_num(r, "saved", "intra") +
		cli_num(r, "saved", "inter");
	touched = cli_num(r, "touched_bytes", NULL);
	cr_assert_leq(saved, touched - cli_num(r, "resident_bytes", NULL) + touched / 100);
	cr_assert_geq(saved, touched - cli_num(r, "resident_bytes", NULL));
	ours = cli_num(r, "resident_bytes", NULL);
	kernel = cli_num(r, "resident_bytes_kernel", NULL);
	cr_assert(ours <= kernel + kernel / 50 && ours >= kernel - kernel / 50, "%lld is not %lld",
		  (long long)ours, (long long)kernel);
	shares_add_up(r);
	samples_are_split(r);
	cr_assert_gt(
		cli_num(json_object_get(json_object_get(r, "hash"), "costs"), "hash", "measured"),
		100);
	cr_assert_gt(
		cli_num(json_object_get(json_object_get(r, "hash"), "costs"), "hash", "cpu_ns"),
		1000);
	for (size_t i = 0; i < sizeof(merging) / sizeof(merging[0]); i++)
		cr_assert_gt(cli_num(json_object_get(json_object_get(r, "hash"), "costs"),
				     merging[i], "measured"),
			     0, "%s", merging[i]);
	cli_free(&c);
}

/* The size that the specification speaks of. */
Test(fleet, sixteen_guests_of_64_mib, .timeout = 240)
{
	json_int_t ours, kernel;
	const json_t *r;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 16 --mem 64M --sharing hash --seconds 15 --workload "
		"kv,filecache,churn,idle --quiet",
		true, 180);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert_eq(cli_num(r, "integrity", "frame_check_errors"), 0);
	cr_assert_geq(cli_num(r, "integrity", "checked_pages"), 1000000);
	cr_assert_geq(cli_num(r, "integrity", "checked_shared_pages"), 100000);
	ours = cli_num(r, "resident_bytes", NULL);
	kernel = cli_num(r, "resident_bytes_kernel", NULL);
	cr_assert(ours <= kernel + kernel / 50 && ours >= kernel - kernel / 50, "%lld is not %lld",
		  (long long)ours, (long long)kernel);
	cli_free(&c);
}

Test(fleet, off_saves_next_to_nothing, .timeout = 120)
{
	const json_t *r;
	struct cli c;

	NEED_KVM();
	cli_run(&c, "fleet --guests 3 --mem 16M --sharing off --seconds 2 --quiet", true, 60);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(cli_num(r, "saved", "inter"), 0);
	cr_assert_eq(cli_num(r, "saved", "intra"), 0);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cli_free(&c);
}

Test(fleet, hash_saves_what_linux_ksm_saves, .timeout = 180)
{
	char dir[] = "/tmp/overbook-test-compare-XXXXXX", args[256];
	struct cli c;
	json_int_t hash, kernel;

	NEED_KVM();
	NEED_KSM(false);
	cr_assert(mkdtemp(dir));
	snprintf(args, sizeof(args),
		 "compare --guests 4 --mem 24M --sharing hash,kernel --seconds 8 --workload idle "
		 "--out %s --quiet",
		 dir);
	cli_run(&c, args, true, 120);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	if (!cli_converged(cli_run_of(&c, 2)))
		cr_skip_test("the host is too busy: ksmd was not through in its time");
	/* The control comes first, always. */
	cr_assert_str_eq(cli_str(cli_run_of(&c, 0), "sharing"), "off");
	hash = cli_num(cli_run_of(&c, 1), "saved_bytes", NULL);
	kernel = cli_num(cli_run_of(&c, 2), "saved_bytes", NULL);
	cr_assert_geq(hash, kernel, "%lld, %lld", (long long)hash, (long long)kernel);
	cr_assert_gt(kernel, 0);
	cli_free(&c);
	snprintf(args, sizeof(args), "rm -r %s", dir);
	cr_assert_eq(system(args), 0);
}

/* The worst bugs, planted: each must be seen by the guests. */
static void planted(const char *what, const char *workload)
{
	char args[256];
	const json_t *r;
	struct cli c;

	snprintf(args, sizeof(args),
		 "fleet --guests 4 --mem 24M --sharing hash --seconds 8 --workload %s --inject %s "
		 "--quiet",
		 workload, what);
	cli_run(&c, args, true, 90);
	cr_assert_eq(c.status, 1, "--inject %s was not noticed:\n%s%s", what, c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "failed");
	/* A frame of guest code may be hit as well: then that guest faults, which is to be seen
	 * too. */
	cr_assert(cli_num(r, "integrity", "mismatches") > 0 ||
			  strstr(cli_str(r, "note"), "no guest is left"),
		  "%s: %s", what, cli_str(r, "note"));
	cr_assert(json_is_null(json_object_get(r, "saved_bytes")),
		  "a failed run carries no number");
	cli_free(&c);
}

Test(fleet, planted_flip_frame_is_caught, .timeout = 120)
{
	NEED_KVM();
	planted("flip-frame", "idle,filecache");
}

Test(fleet, planted_skip_compare_is_caught, .timeout = 120)
{
	NEED_KVM();
	planted("skip-compare", "idle,kv");
}

Test(fleet, planted_lose_break_is_caught, .timeout = 120)
{
	NEED_KVM();
	planted("lose-break", "kv,filecache");
}

/* One guest misbehaves, the others go on to the end. */
static void hostile(const char *workload, const char *reason)
{
	const json_t *r, *guests, *g;
	char args[256];
	struct cli c;
	size_t i;

	snprintf(args, sizeof(args),
		 "fleet --guests 3 --mem 16M --sharing hash --seconds %d --workload idle,%s,kv "
		 "--quiet",
		 /* One that loops has to have a second of CPU time first, of a busy host's. */
		 strcmp(workload, "hostile-spin") ? 4 : 12, workload);
	cli_run(&c, args, true, 90);
	cr_assert_eq(c.status, 1, "%s: status %d\n%s%s", workload, c.status, c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "degraded", "%s: %s", workload, cli_str(r, "note"));
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	guests = json_object_get(r, "guest_list");
	cr_assert_eq(json_array_size(guests), 3);
	json_array_foreach (guests, i, g) {
		if (i == 1) {
			cr_assert_str_eq(cli_str(g, "end"), "failed");
			cr_assert(strstr(cli_str(g, "reason"), reason), "%s: %s", workload,
				  cli_str(g, "reason"));
		} else {
			cr_assert_str_eq(cli_str(g, "end"), "running", "%s took guest %zu with it",
					 workload, i);
			cr_assert_gt(cli_num(g, "checked_pages", NULL), 1000);
		}
	}
	cli_free(&c);
}

Test(hostile, triple_fault, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-triple", "triple fault");
}

Test(hostile, endless_loop, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-spin", "loops");
}

Test(hostile, descriptor_loop, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-desc", "virtio");
}

Test(hostile, descriptors_outside_ram, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-addr", "virtio");
}

Test(hostile, rings_outside_ram, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-ring", "virtio");
}

Test(hostile, unmapped_access, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-panic", "panic");
}

Test(hostile, report_outside_ram, .timeout = 120)
{
	NEED_KVM();
	hostile("hostile-report", "report");
}

/* Random writes to the device's registers: the guest may come through or be stopped, the others
 * finish. */
Test(hostile, random_register_writes, .timeout = 120)
{
	const json_t *r, *guests;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 3 --mem 16M --sharing hash --seconds 4 --workload "
		"idle,hostile-mmio,kv --quiet",
		true, 90);
	cr_assert(c.status == 0 || c.status == 1, "status %d\n%s%s", c.status, c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	guests = json_object_get(r, "guest_list");
	cr_assert_str_eq(cli_str(json_array_get(guests, 0), "end"), "running");
	cr_assert_str_eq(cli_str(json_array_get(guests, 2), "end"), "running");
	cli_free(&c);
}

/* One guest, its console on standard output. */
Test(fleet, run_shows_the_console, .timeout = 60)
{
	struct cli c;

	NEED_KVM();
	cli_run(&c, "run --mem 16M --seconds 1 --workload idle --quiet", false, 30);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert(strstr(c.out, "microguest"), "%s", c.out);
	cli_free(&c);
}

/* --- killed and interrupted
 * ----------------------------------------------------------------------- */

static void wait_cells(const struct cli *c, pid_t *cells, unsigned int want)
{
	for (int i = 0; i < 500; i++) {
		if (cli_children(c->pid, "cell", cells, want) == want)
			return;
		cli_nap_ms(10);
	}
	cr_assert_fail("its cells did not come up");
}

Test(killed, cell_takes_only_its_guests, .timeout = 120)
{
	const json_t *r, *g;
	pid_t cells[2];
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_start(&c, "fleet --guests 4 --cell 2 --mem 16M --sharing hash --seconds 8 --quiet",
		  true);
	wait_cells(&c, cells, 2);
	cli_nap_ms(5000);
	kill(cells[1], SIGKILL);
	cli_wait(&c, 60);
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "degraded");
	cr_assert_eq(cli_num(r, "cells_lost", NULL), 1);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert_gt(cli_num(r, "saved", "zero") + cli_num(r, "saved", "inter"), 0);
	json_array_foreach (json_object_get(r, "guest_list"), i, g)
		cr_assert(!strcmp(cli_str(g, "end"), "lost") == (cli_str(g, "reason")[0] != '\0'));
	cli_free(&c);
}

/* What the frame pool of a running fleet holds, in pages; -1: there is no pool (yet). */
static long pool_pages(const struct cli *c)
{
	char dir[64], path[400], link[256];
	long pages = -1;
	struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)c->pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = '\0';
		if (strstr(link, "ob:ksm:pool") && !stat(path, &st))
			pages = (long)st.st_blocks / 8;
	}
	if (d)
		closedir(d);
	return pages;
}

/*
 * All cells but the last, one after another, in the middle of merging; their guests write all the
 * time, so that merges, breaks and frames that are being filled are under way. The last cell's
 * guests go on, verify all they have, and in the end the pool holds what they refer to and no more.
 */
Test(killed, cells_in_the_middle_of_merging, .timeout = 240)
{
	enum { CELLS = 4, FRAMES = 1500 };
	json_int_t left, saved;
	const json_t *r, *g;
	pid_t cells[CELLS];
	size_t i, lost = 0;
	long most = 0;
	struct cli c;

	NEED_KVM();
	cli_start(&c,
		  "fleet --guests 8 --cell 2 --mem 16M --sharing hash --ksm-cpu 0 --seconds 14 "
		  "--quiet "
		  "--workload remerge:16:5000,remerge:64:9999,remerge:16:5000,remerge:64:9999,"
		  "remerge:16:5000,remerge:64:9999,idle,idle",
		  true);
	wait_cells(&c, cells, CELLS);
	for (int tries = 0; tries < 6000 && most < FRAMES; tries++) {
		most = pool_pages(&c);
		cli_nap_ms(10);
	}
	cr_assert_geq(most, FRAMES, "nothing is merged");
	srand((unsigned int)c.pid);
	for (i = 0; i < CELLS - 1; i++) {
		cli_nap_ms(rand() % 1000);
		kill(cells[i], SIGKILL);
	}
	cli_wait(&c, 120);
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "degraded");
	cr_assert_eq(cli_num(r, "cells_lost", NULL), CELLS - 1);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert_gt(cli_num(r, "integrity", "checked_pages"), 0);
	json_array_foreach (json_object_get(r, "guest_list"), i, g)
		lost += !strcmp(cli_str(g, "end"), "lost");
	cr_assert_eq(lost, 2 * (CELLS - 1));
	/* docs/result.md: what is resident and refers to no page is frames that were not given back. */
	saved = cli_num(r, "saved", "zero") + cli_num(r, "saved", "intra") +
		cli_num(r, "saved", "inter");
	left = saved - (cli_num(r, "touched_bytes", NULL) - cli_num(r, "resident_bytes", NULL));
	cr_assert_leq(left, 64 * 4096, "%lld bytes of the pool are left behind", (long long)left);
	cli_free(&c);
}

Test(killed, coordinator_ends_its_cells, .timeout = 120)
{
	pid_t cells[2];
	struct cli c;
	int gone = 0;

	NEED_KVM();
	cli_start(&c, "fleet --guests 4 --cell 2 --mem 16M --sharing hash --seconds 30 --quiet",
		  false);
	wait_cells(&c, cells, 2);
	cli_nap_ms(1000);
	kill(c.pid, SIGKILL);
	cli_wait(&c, 10);
	for (int i = 0; i < 500 && gone < 2; i++) {
		gone = (kill(cells[0], 0) && errno == ESRCH) +
		       (kill(cells[1], 0) && errno == ESRCH);
		cli_nap_ms(10);
	}
	cr_assert_eq(gone, 2, "cells outlive their coordinator");
	cli_free(&c);
	/* And the next run finds nothing in its way. */
	cli_run(&c, "fleet --guests 2 --mem 16M --sharing hash --seconds 1 --quiet", true, 60);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cli_free(&c);
}

static void read_ksm(char *buf, size_t n)
{
	static const char *const names[] = {
		"run",	      "pages_to_scan", "sleep_millisecs",    "use_zero_pages",
		"smart_scan", "advisor_mode",  "merge_across_nodes", "max_page_sharing"};
	size_t used = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[128], value[64] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", names[i]);
		f = fopen(path, "re");
		if (f && !fgets(value, sizeof(value), f))
			value[0] = '\0';
		if (f)
			fclose(f);
		used += (size_t)snprintf(buf + used, n - used, "%s=%s ", names[i], value);
		cr_assert(used < n);
	}
}

/* Wait until nobody drives KSM: the guardian ends a moment after its fleet. */
static void settings_come_back(const char *before)
{
	char now[1024];

	for (int i = 0; i < 500; i++) {
		read_ksm(now, sizeof(now));
		if (!strcmp(now, before))
			return;
		cli_nap_ms(10);
	}
	cr_assert_str_eq(now, before);
}

static void wait_for_run(void)
{
	char now[1024];

	for (int i = 0; i < 3000; i++) {
		read_ksm(now, sizeof(now));
		if (strstr(now, "run=1"))
			return;
		cli_nap_ms(10);
	}
	cr_assert_fail("KSM was never switched on: %s", now);
}

static void interrupted(int sig, const char *sharing)
{
	char before[1024], args[200];
	const json_t *r;
	struct cli c;

	read_ksm(before, sizeof(before));
	snprintf(args, sizeof(args), "fleet --guests 4 --mem 24M --sharing %s --seconds 60 --quiet",
		 sharing);
	cli_start(&c, args, true);
	if (!strcmp(sharing, "kernel"))
		wait_for_run();
	else
		cli_nap_ms(4000);
	cli_nap_ms(1500);
	kill(c.pid, sig);
	cli_wait(&c, 20);
	cr_assert_eq(c.status, 130, "status %d\n%s%s", c.status, c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "interrupted");
	cr_assert_gt(cli_num(r, "touched_bytes", NULL), 0, "what was measured is written");
	settings_come_back(before);
	cli_free(&c);
}

Test(interrupted, by_ctrl_c, .timeout = 120)
{
	NEED_KVM();
	interrupted(SIGINT, "hash");
}

Test(interrupted, by_a_closed_terminal, .timeout = 120)
{
	NEED_KVM();
	interrupted(SIGHUP, "hash");
}

/* At any moment, from the first on: it ends by itself, says so, and leaves no cell. */
Test(interrupted, at_every_stage, .timeout = 240)
{
	static const long at_ms[] = {0, 5, 20, 50, 100, 200, 400, 800, 1500, 3000};
	unsigned int ncells, most = 0;
	pid_t cells[8];
	struct cli c;

	NEED_KVM();
	for (size_t i = 0; i < sizeof(at_ms) / sizeof(at_ms[0]); i++) {
		cli_start(&c,
			  "fleet --guests 8 --cell 2 --mem 24M --sharing hash --seconds 60 --quiet",
			  true);
		cli_nap_ms(at_ms[i]);
		/* Taken while they have a parent: orphans would no longer be found by it. */
		ncells = cli_children(c.pid, "cell", cells, 8);
		kill(c.pid, SIGINT);
		cli_wait(&c, 20);
		/* So early that nobody listened yet: the signal's own way of ending it. */
		if (c.status != 128 + SIGINT || c.result)
			cr_assert_eq(c.status, 130, "at %ld ms: status %d\n%s%s", at_ms[i],
				     c.status, c.out, c.err);
		cr_assert(!strstr(c.err, "died") && !strstr(c.err, "lost"), "at %ld ms: %s",
			  at_ms[i], c.err);
		for (unsigned int k = 0; k < ncells; k++)
			cr_assert(kill(cells[k], 0) && errno == ESRCH,
				  "at %ld ms: a cell outlives its fleet", at_ms[i]);
		most = ncells > most ? ncells : most;
		cli_free(&c);
	}
	cr_assert_eq(most, 4, "no signal ever met all cells: the test has shown nothing");
}

/* A cell that hangs does not keep the fleet from ending. */
Test(interrupted, with_a_cell_that_hangs, .timeout = 120)
{
	pid_t cells[2];
	struct cli c;

	NEED_KVM();
	cli_start(&c, "fleet --guests 4 --cell 2 --mem 16M --sharing hash --seconds 60 --quiet",
		  true);
	wait_cells(&c, cells, 2);
	cli_nap_ms(4000);
	kill(cells[0], SIGSTOP);
	cli_nap_ms(200);
	kill(c.pid, SIGINT);
	cli_wait(&c, 10);
	cr_assert_eq(c.status, 130, "status %d\n%s%s", c.status, c.out, c.err);
	cr_assert_eq(cli_num(cli_run_of(&c, 0), "cells_lost", NULL), 1);
	cr_assert(kill(cells[0], 0) && errno == ESRCH, "the hanging cell is still there");
	cli_free(&c);
}

Test(interrupted, by_sigterm_with_ksm, .timeout = 120)
{
	NEED_KVM();
	NEED_KSM(false);
	interrupted(SIGTERM, "kernel");
}

Test(killed, ksm_settings_come_back_after_kill_9, .timeout = 120)
{
	char before[1024];
	struct cli c;

	NEED_KVM();
	NEED_KSM(false);
	read_ksm(before, sizeof(before));
	cli_start(&c, "fleet --guests 2 --mem 16M --sharing kernel --seconds 60 --quiet", false);
	wait_for_run();
	kill(c.pid, SIGKILL);
	cli_wait(&c, 10);
	settings_come_back(before);
	cli_free(&c);
}
