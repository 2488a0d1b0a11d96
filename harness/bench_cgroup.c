/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_cgroup.c: a memory cgroup round what is measured, where one can be had: the only account
 * that the kernel keeps of its own memory by who caused it. KVM charges its VMs, vCPUs and the
 * tables that map their memory to the process that has them; page tables and thread stacks are
 * charged as well.
 *
 * Version 1 has that sum in memory.kmem.usage_in_bytes, version 2 in memory.stat ("kernel"). The
 * group is made below the one that we are in, needs the right to do so (mostly root), and goes when
 * the last process has left it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/bench_child.h"

/* The folder of our memory cgroup, from /proc/self/cgroup. */
static bool own_group(char *dir, size_t n, bool *v2)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	bool found = false;
	char line[800];

	while (f && !found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		*v2 = strncmp(line, "0::", 3) == 0;
		if (strstr(line, ":memory:"))
			snprintf(dir, n, "/sys/fs/cgroup/memory%s", strstr(line, ":memory:") + 8);
		else if (*v2)
			snprintf(dir, n, "/sys/fs/cgroup%s", line + 3);
		else
			continue;
		found = access(dir, W_OK) == 0;
	}
	if (f)
		fclose(f);
	return found;
}

bool bench_cgroup_open(struct bench_cgroup *g)
{
	char own[900], path[1100];
	uint64_t v;

	*g = (struct bench_cgroup){.procs_fd = -1};
	if (!own_group(own, sizeof(own), &g->v2))
		return false;
	snprintf(g->dir, sizeof(g->dir), "%s/overbook-bench-%d", own, (int)getpid());
	if (mkdir(g->dir, 0755)) {
		g->dir[0] = '\0';
		return false;
	}
	snprintf(path, sizeof(path), "%s/cgroup.procs", g->dir);
	g->procs_fd = open(path, O_WRONLY | O_CLOEXEC);
	/* In version 2 a group may be there and not account for memory. */
	if (g->procs_fd < 0 || bench_cgroup_kernel(g, &v)) {
		bench_cgroup_close(g);
		return false;
	}
	return true;
}

int bench_cgroup_kernel(const struct bench_cgroup *g, uint64_t *bytes)
{
	char path[1100], line[256];
	int ret = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", g->dir,
		 g->v2 ? "memory.stat" : "memory.kmem.usage_in_bytes");
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (ret && fgets(line, sizeof(line), f))
		if (sscanf(line, g->v2 ? "kernel %" SCNu64 : "%" SCNu64, bytes) == 1)
			ret = 0;
	fclose(f);
	return ret;
}

void bench_cgroup_close(struct bench_cgroup *g)
{
	if (g->procs_fd >= 0)
		close(g->procs_fd);
	g->procs_fd = -1;
	/* A process that has been reaped may still be on its way out of the group. */
	for (int tries = 0; g->dir[0] && rmdir(g->dir) && errno == EBUSY && tries < 100; tries++)
		usleep(10000);
	g->dir[0] = '\0';
}
