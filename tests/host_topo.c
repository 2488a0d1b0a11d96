/* SPDX-License-Identifier: Apache-2.0 */
/* host_topo.c: NUMA nodes as hwloc finds them, or is told to; binding to them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "harness/topo.h"

static struct topo *opened(const char *synthetic, bool this_system)
{
	struct topo *t;
	struct ob_err e;

	if (synthetic)
		cr_assert(!setenv("HWLOC_SYNTHETIC", synthetic, 1));
	if (this_system)
		cr_assert(!setenv("HWLOC_THISSYSTEM", "1", 1));
	cr_assert_eq(topo_open(&t, &e), 0, "%s", e.msg);
	return t;
}

Test(topo, this_host_has_a_node)
{
	struct topo *t = opened(NULL, false);

	cr_assert_geq(topo_nodes(t), 1);
	cr_assert_geq(topo_memory_nodes(t), topo_nodes(t));
	cr_assert(topo_is_host(t));
	topo_close(t);
}

Test(topo, a_given_one_is_not_bound_to)
{
	struct topo *t = opened("node:3 pu:2", false);
	cpu_set_t before, after;
	struct ob_err e = {""};

	cr_assert_eq(topo_nodes(t), 3);
	cr_assert(!topo_is_host(t));
	cr_assert(!sched_getaffinity(0, sizeof(before), &before));
	cr_assert_eq(topo_bind(t, 0, &e), -ENOTSUP);
	cr_assert(strlen(e.msg));
	cr_assert(!sched_getaffinity(0, sizeof(after), &after));
	cr_assert(CPU_EQUAL(&before, &after));
	topo_close(t);
}

static void *cpus_of_a_thread(void *arg)
{
	sched_getaffinity(0, sizeof(cpu_set_t), arg);
	return NULL;
}

/* A node of one CPU, said to be this host's: the thread and those it makes stay there. */
Test(topo, bound_to_its_cpus_with_all_its_threads)
{
	cpu_set_t here, there;
	pthread_t thread;
	struct topo *t;
	struct ob_err e;
	int r;

	cr_assert(!sched_getaffinity(0, sizeof(here), &here));
	if (!CPU_ISSET(0, &here))
		cr_skip_test("CPU 0 is not ours");
	t = opened("node:1 pu:1", true);
	cr_assert(topo_is_host(t));
	r = topo_bind(t, 0, &e);
	/* Containers may keep the memory of nodes to themselves; then it says so. */
	cr_assert(!r || strstr(e.msg, "memory"), "%s", e.msg);
	cr_assert(!pthread_create(&thread, NULL, cpus_of_a_thread, &there));
	pthread_join(thread, NULL);
	cr_assert_eq(CPU_COUNT(&there), 1);
	cr_assert(CPU_ISSET(0, &there));
	topo_close(t);
}

/* Each node has CPUs of its own, however the machine is built round them. */
Test(topo, nodes_do_not_share_cpus)
{
	static const char *const built[] = {"node:2 pu:1", "pack:2 node:1 core:1 pu:1",
					    "pack:1 node:2 pu:1"};
	cpu_set_t all, here;
	struct topo *t;
	struct ob_err e;

	cr_assert(!sched_getaffinity(0, sizeof(all), &all));
	if (!CPU_ISSET(0, &all) || !CPU_ISSET(1, &all))
		cr_skip_test("CPUs 0 and 1 are not both ours");
	for (size_t i = 0; i < sizeof(built) / sizeof(built[0]); i++) {
		t = opened(built[i], true);
		cr_assert_eq(topo_nodes(t), 2, "%s", built[i]);
		for (unsigned int node = 0; node < 2; node++) {
			topo_bind(t, node, &e);
			cr_assert(!sched_getaffinity(0, sizeof(here), &here));
			cr_assert_eq(CPU_COUNT(&here), 1, "%s, node %u: %d CPUs", built[i], node,
				     CPU_COUNT(&here));
			cr_assert(CPU_ISSET(node, &here));
		}
		topo_close(t);
	}
}

Test(topo, what_is_not_there_fails_with_a_line)
{
	struct topo *t = opened("node:2 pu:4096", true);
	struct ob_err e = {""};

	cr_assert_eq(topo_nodes(t), 2);
	cr_assert_lt(topo_bind(t, 1, &e), 0);
	cr_assert(strstr(e.msg, "node 1"), "%s", e.msg);
	cr_assert_eq(topo_bind(t, 2, &e), -ENODEV);
	topo_close(t);
}
