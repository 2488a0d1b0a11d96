/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_mem.c: what a guest costs besides its memory, as the kernel counts it.
 *
 * In user space that is Pss (a page that s processes share counts 1/s for each) of all processes
 * that belong to the guests, less the Pss of guest RAM. Guest RAM is known by its name (ours), or
 * by being anonymous and of exactly the guest's size (QEMU's, and ours on kernels that do not name
 * mappings); unless the sizes add up to that of all guests, there is no figure.
 *
 * In the kernel only a memory cgroup keeps such an account (bench_cgroup.c). Where there is none,
 * what is left is the difference of /proc/meminfo before and with the guests running: of
 * MemAvailable, less the processes' own memory (what is backed by files on disk is available all
 * the same). It holds everything, and is as noisy as the host. The counters that grow with KVM's
 * VMs say what it is made of: slab, stacks and per-CPU memory, and tables.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_child.h"
#include "harness/opts.h"

void bench_pss_ram(FILE *smaps, uint64_t mem, struct bench_pss *out)
{
	bool ram = false;
	char line[512];

	while (fgets(line, sizeof(line), smaps)) {
		uint64_t from, to, inode, kib;
		char perms[8];
		int name = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*x %*x:%*x %" SCNu64 " %n", &from,
			   &to, perms, &inode, &name) >= 4) {
			ram = strstr(line + name, "[anon:ob:vm") != NULL ||
			      (inode == 0 && strcmp(perms, "rw-p") == 0 && to - from == mem);
			if (ram)
				out->ram_size += to - from;
		} else if (ram && sscanf(line, "Pss: %" SCNu64 " kB", &kib) == 1) {
			out->ram += kib * OB_KIB;
		}
	}
}

bool bench_pss_rollup(FILE *rollup, struct bench_pss *out)
{
	bool found = false;
	char line[512];

	while (fgets(line, sizeof(line), rollup)) {
		uint64_t kib;

		if (sscanf(line, "Pss: %" SCNu64 " kB", &kib) == 1) {
			out->all += kib * OB_KIB;
			found = true;
		} else if (sscanf(line, "Pss_Anon: %" SCNu64 " kB", &kib) == 1 ||
			   sscanf(line, "Pss_Shmem: %" SCNu64 " kB", &kib) == 1) {
			out->own += kib * OB_KIB;
		}
	}
	return found;
}

uint64_t bench_pss_tables(FILE *status)
{
	char line[256];
	uint64_t kib;

	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "VmPTE: %" SCNu64 " kB", &kib) == 1)
			return kib * OB_KIB;
	return 0;
}

static FILE *open_proc(pid_t pid, const char *file)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return fopen(path, "re");
}

/* A process and, depth first, those that its main thread has started. */
static int add_process(pid_t pid, uint64_t mem, unsigned int depth, struct bench_pss *out)
{
	char kids[64];
	int child, ret = 0;
	FILE *f = open_proc(pid, "smaps_rollup");

	if (!f)
		return -errno;
	if (!bench_pss_rollup(f, out))
		ret = -EIO;
	fclose(f);
	f = open_proc(pid, "smaps");
	if (!f)
		return -errno;
	bench_pss_ram(f, mem, out);
	fclose(f);
	f = open_proc(pid, "status");
	if (!f)
		return -errno;
	out->tables += bench_pss_tables(f);
	fclose(f);
	out->procs++;
	snprintf(kids, sizeof(kids), "task/%d/children", (int)pid);
	f = open_proc(pid, kids);
	if (!f)
		return -errno;
	while (!ret && depth && fscanf(f, "%d", &child) == 1)
		ret = add_process(child, mem, depth - 1, out);
	fclose(f);
	return ret;
}

int bench_pss_tree(const struct bench_child *c, unsigned int n, unsigned int guests, uint64_t mem,
		   struct bench_pss *out, struct ob_err *e)
{
	*out = (struct bench_pss){0};
	for (unsigned int i = 0; i < n; i++) {
		int ret = add_process(c[i].pid, mem, 4, out);

		if (ret)
			return ob_fail(e, -ret, "cannot read the memory of process %d: %s",
				       (int)c[i].pid, strerror(-ret));
	}
	if (out->ram_size != guests * mem)
		return ob_fail(e, EIO,
			       "found %" PRIu64 " bytes of guest RAM in %u processes where %u "
			       "guests have %" PRIu64,
			       out->ram_size, out->procs, guests, guests * mem);
	return 0;
}
