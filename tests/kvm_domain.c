/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_domain.c: sharing domains and NUMA nodes in fleets that run: what tenants share and do not share,
 * where cells and pools are, and that what a tenant held goes with its last guest.
 */
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/cli.h"

static const json_t *domain(const json_t *run, size_t i)
{
	const json_t *d = json_array_get(json_object_get(run, "domains"), i);

	cr_assert(d, "no domain %zu", i);
	return d;
}

static void guests_are(const json_t *d, const char *want)
{
	char got[64] = "";
	const json_t *g;
	size_t i;

	json_array_foreach (json_object_get(d, "guests"), i, g)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%lld ",
			 (long long)json_integer_value(g));
	cr_assert_str_eq(got, want, "domain %s", cli_str(d, "name"));
}

/* What domains save is what the run saves, and nothing was saved between them. */
static void adds_up(const json_t *r)
{
	json_int_t zero = 0, intra = 0, inter = 0, meta = 0;
	const json_t *d;
	size_t i;

	json_array_foreach (json_object_get(r, "domains"), i, d) {
		zero += cli_num(d, "saved", "zero");
		intra += cli_num(d, "saved", "intra");
		inter += cli_num(d, "saved", "inter");
		meta += cli_num(d, "metadata_bytes", NULL);
	}
	cr_assert_eq(zero, cli_num(r, "saved", "zero"));
	cr_assert_eq(intra, cli_num(r, "saved", "intra"));
	cr_assert_eq(inter, cli_num(r, "saved", "inter"));
	cr_assert_eq(meta, cli_num(r, "metadata_bytes", NULL));
	cr_assert_eq(cli_num(r, "integrity", "cross_domain_pages"), 0);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert(json_is_null(
			  json_object_get(json_object_get(r, "integrity"), "frame_check_errors")) ||
		  cli_num(r, "integrity", "frame_check_errors") == 0);
}

/*
 * Identical guests in two domains: each of them saves as two guests do. Were anything merged across,
 * four would save three times their common pages and not twice.
 */
Test(domains, identical_guests_share_within_only, .timeout = 120)
{
	json_int_t a, b;
	const json_t *r;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --mem 16M --seconds 5 --workload idle --domain a:0,3 --domain b "
		"--quiet --control none",
		true, 90);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(json_array_size(json_object_get(r, "domains")), 2);
	cr_assert_eq(cli_num(r, "cells", NULL), 2, "a process for both");
	cr_assert_str_eq(cli_str(domain(r, 0), "name"), "a");
	guests_are(domain(r, 0), "0 3 ");
	guests_are(domain(r, 1), "1 2 ");
	a = cli_num(domain(r, 0), "saved", "inter");
	b = cli_num(domain(r, 1), "saved", "inter");
	cr_assert_gt(a, 4 << 20);
	cr_assert_gt(b, 4 << 20);
	/* The same guests but for their seeds. */
	cr_assert(a < b + b / 10 && b < a + a / 10, "%lld and %lld", (long long)a, (long long)b);
	adds_up(r);
	cr_assert(strstr(c.out, "hash, by domain"), "no table of domains:\n%s", c.out);
	cli_free(&c);
}

/* Guests that are alone share nothing with each other; pages that repeat within one are merged. */
Test(domains, intra_saves_within_a_guest_only, .timeout = 120)
{
	const json_t *r;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 3 --mem 16M --seconds 4 --workload same:0:1000 --domain intra "
		"--quiet --control none",
		true, 90);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(json_array_size(json_object_get(r, "domains")), 3);
	cr_assert_eq(cli_num(r, "cells", NULL), 3);
	cr_assert_eq(cli_num(r, "saved", "inter"), 0);
	for (size_t i = 0; i < 3; i++) {
		cr_assert_str_eq(cli_str(domain(r, i), "name"), "intra");
		cr_assert_geq(cli_num(domain(r, i), "saved", "intra"), 1000 * 4096);
		cr_assert_eq(cli_num(domain(r, i), "saved", "inter"), 0);
	}
	adds_up(r);
	cli_free(&c);
}

/* The one topology that hwloc makes of a line: cells and pools are of a node each. */
static void on_two_nodes(const char *args, struct cli *c)
{
	char all[300];

	cr_assert(!setenv("HWLOC_SYNTHETIC", "node:2 pu:2", 1));
	snprintf(all, sizeof(all),
		 "fleet --guests 5 --cell 2 --mem 16M --seconds 4 --workload idle --quiet "
		 "--control none %s",
		 args);
	cli_run(c, all, true, 90);
	cr_assert(!unsetenv("HWLOC_SYNTHETIC"));
	cr_assert_eq(c->status, 0, "%s%s", c->out, c->err);
	cr_assert(strstr(c->err, "not all are bound"), "it does not say that it is not: %s",
		  c->err);
}

Test(numa, a_pool_for_each_node, .timeout = 120)
{
	const json_t *r, *pools;
	json_int_t inter;
	struct cli c;

	NEED_KVM();
	on_two_nodes("", &c);
	r = cli_run_of(&c, 0);
	cr_assert_eq(cli_num(r, "numa", "nodes"), 2);
	cr_assert_eq(cli_num(r, "numa", "cells_bound"), 0);
	cr_assert_eq(cli_num(r, "cells", NULL), 3);
	pools = json_object_get(domain(r, 0), "pools");
	cr_assert_eq(json_array_size(pools), 2);
	for (size_t i = 0; i < 2; i++) {
		const json_t *p = json_array_get(pools, i);

		cr_assert_eq(cli_num(p, "node", NULL), (json_int_t)i);
		cr_assert_eq(cli_num(p, "guests", NULL), i ? 2 : 3);
		cr_assert_eq(cli_num(p, "cells", NULL), i ? 1 : 2);
		cr_assert_gt(cli_num(p, "frames", NULL), 1000, "node %zu shares nothing", i);
	}
	inter = cli_num(r, "saved", "inter");
	adds_up(r);
	cli_free(&c);

	/* And across: five guests share one copy, where two copies were before. */
	on_two_nodes("--merge-across-nodes", &c);
	r = cli_run_of(&c, 0);
	pools = json_object_get(domain(r, 0), "pools");
	cr_assert_eq(json_array_size(pools), 1);
	cr_assert(json_is_null(json_object_get(json_array_get(pools, 0), "node")));
	cr_assert_eq(cli_num(json_array_get(pools, 0), "guests", NULL), 5);
	cr_assert_eq(cli_num(r, "cells", NULL), 3);
	cr_assert_gt(cli_num(r, "saved", "inter"), inter + inter / 5);
	adds_up(r);
	cli_free(&c);
}

/* CPUs or nodes that are not there: the fleet runs all the same, and says so in one line. */
Test(numa, what_is_not_there_is_not_bound_to, .timeout = 120)
{
	struct cli c;
	char *said;

	NEED_KVM();
	cr_assert(!setenv("HWLOC_SYNTHETIC", "node:2 pu:1024", 1));
	cr_assert(!setenv("HWLOC_THISSYSTEM", "1", 1));
	cli_run(&c,
		"fleet --guests 4 --cell 1 --mem 16M --seconds 1 --workload idle --quiet "
		"--control none",
		true, 60);
	unsetenv("HWLOC_SYNTHETIC");
	unsetenv("HWLOC_THISSYSTEM");
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	said = strstr(c.err, "not all are bound");
	cr_assert(said, "%s", c.err);
	cr_assert_null(strstr(said + 1, "not all are bound"), "it says so twice: %s", c.err);
	cr_assert_leq(cli_num(cli_run_of(&c, 0), "numa", "cells_bound"), 2);
	cli_free(&c);
}

/* A topology that is said to be this host's: of two nodes with a CPU each. Whether their memory is there
 * is another question, but the cells are on these CPUs. */
Test(numa, cells_run_on_the_cpus_of_their_node, .timeout = 120)
{
	const struct timespec nap = {.tv_nsec = 50 * 1000000};
	cpu_set_t ours, now[2];
	pid_t cells[2] = {0};
	unsigned int bound = 0;
	struct cli c;

	NEED_KVM();
	cr_assert(!sched_getaffinity(0, sizeof(ours), &ours));
	if (!CPU_ISSET(0, &ours) || !CPU_ISSET(1, &ours))
		cr_skip_test("CPUs 0 and 1 are not both ours");
	cr_assert(!setenv("HWLOC_SYNTHETIC", "node:2 pu:1", 1));
	cr_assert(!setenv("HWLOC_THISSYSTEM", "1", 1));
	cli_start(&c,
		  "fleet --guests 2 --mem 16M --seconds 3 --workload idle --quiet --control none",
		  true);
	unsetenv("HWLOC_SYNTHETIC");
	unsetenv("HWLOC_THISSYSTEM");
	for (int i = 0; i < 100 && bound < 2; i++) {
		nanosleep(&nap, NULL);
		bound = 0;
		if (cli_children(c.pid, "cell", cells, 2) < 2)
			continue;
		for (int k = 0; k < 2; k++)
			bound += !sched_getaffinity(cells[k], sizeof(now[k]), &now[k]) &&
				 CPU_COUNT(&now[k]) == 1;
	}
	cr_assert_eq(bound, 2, "its cells are not bound");
	cr_assert(CPU_ISSET(0, &now[0]) != CPU_ISSET(0, &now[1]));
	cr_assert(CPU_ISSET(1, &now[0]) != CPU_ISSET(1, &now[1]));
	cli_wait(&c, 60);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cli_free(&c);
}

/* A tenant whose guests end while another's go on: what they held is the host's again. */
Test(domains, frames_go_with_the_last_guest, .timeout = 180)
{
	const json_t *r, *d, *g, *pool;
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --cell 4 --mem 16M --seconds 15 --workload hostile-leave,idle "
		"--domain gone:0,2 --domain stays --quiet --control none",
		true, 120);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	d = domain(r, 0);
	cr_assert_str_eq(cli_str(d, "name"), "gone");
	cr_assert_gt(cli_num(d, "merged_pages", NULL), 2000, "it had nothing to give back");
	cr_assert_eq(cli_num(d, "frames", NULL), 0);
	pool = json_array_get(json_object_get(d, "pools"), 0);
	cr_assert_eq(cli_num(pool, "blocks_bytes", NULL), 0, "blocks of its pool are left");
	cr_assert_eq(cli_num(d, "saved", "inter") + cli_num(d, "saved", "zero"), 0);
	json_array_foreach (json_object_get(r, "guest_list"), i, g) {
		const json_t *states = json_object_get(g, "state_pages");

		if (i % 2) {
			cr_assert_str_eq(cli_str(g, "end"), "running");
			continue;
		}
		cr_assert_str_eq(cli_str(g, "end"), "exit");
		cr_assert_eq(cli_num(states, "private", NULL) + cli_num(states, "shared", NULL), 0,
			     "guest %zu holds memory", i);
		/* What it said while it lived is not lost with its memory. */
		cr_assert_gt(cli_num(g, "checked_pages", NULL) + cli_num(g, "written_pages", NULL) +
				     cli_num(g, "disk_pages", NULL),
			     0);
	}
	d = domain(r, 1);
	cr_assert_gt(cli_num(d, "frames", NULL), 1000);
	cr_assert_gt(cli_num(d, "saved", "inter"), 4 << 20);
	adds_up(r);
	cli_free(&c);
}

/* The same when its process is killed. */
Test(domains, frames_go_with_a_lost_cell, .timeout = 120)
{
	const struct timespec nap = {.tv_nsec = 100 * 1000000};
	const json_t *r, *d;
	pid_t cells[2] = {0};
	struct cli c;
	int i;

	NEED_KVM();
	cli_start(&c,
		  "fleet --guests 4 --mem 16M --seconds 9 --workload idle --domain a:0-1 --domain "
		  "b:2-3 --quiet --control none",
		  true);
	for (i = 0; i < 100 && cli_children(c.pid, "cell", cells, 2) < 2; i++)
		nanosleep(&nap, NULL);
	cr_assert_lt(i, 100, "its cells did not come up");
	for (i = 0; i < 60; i++)
		nanosleep(&nap, NULL);
	kill(cells[0], SIGKILL);
	cli_wait(&c, 60);
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_eq(cli_num(r, "cells_lost", NULL), 1);
	/* Which of the two came first in the list of processes is not ours to know. */
	d = cli_num(domain(r, 0), "frames", NULL) ? domain(r, 1) : domain(r, 0);
	cr_assert_eq(cli_num(d, "frames", NULL), 0);
	cr_assert_eq(cli_num(json_array_get(json_object_get(d, "pools"), 0), "blocks_bytes", NULL),
		     0);
	d = d == domain(r, 0) ? domain(r, 1) : domain(r, 0);
	cr_assert_gt(cli_num(d, "frames", NULL), 1000, "the other tenant has lost its frames");
	adds_up(r);
	cli_free(&c);
}

/* compare by default: Linux KSM is left out with a line, as it cannot keep domains apart. */
Test(domains, compare_leaves_linux_ksm_out, .timeout = 180)
{
	char dir[] = "/tmp/overbook-test-domain-XXXXXX", args[300];
	const json_t *runs;
	struct cli c;

	NEED_KVM();
	cr_assert(mkdtemp(dir));
	snprintf(args, sizeof(args),
		 "compare --guests 2 --mem 16M --seconds 1 --workload idle --domain intra --quiet "
		 "--control none --out %s/r",
		 dir);
	cli_run(&c, args, true, 90);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_assert(strstr(c.err, "without sharing kernel: Linux KSM keeps no domains apart"), "%s",
		  c.err);
	runs = json_object_get(c.result, "runs");
	cr_assert_eq(json_array_size(runs), 2);
	cr_assert_str_eq(cli_str(json_array_get(runs, 1), "sharing"), "hash");
	cli_free(&c);
	snprintf(args, sizeof(args), "rm -r %s", dir);
	cr_assert_eq(system(args), 0);
}
