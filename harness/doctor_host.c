/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_host.c: limits, sizes and tools of this host.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "harness/opts.h"
#include "harness/topo.h"

/* The main job's default: 16 guests of 64 MiB, and a quarter on top for the rest. */
#define DOCTOR_WANT_BYTES (16 * 64 * OB_MIB * 5 / 4)
/* A merged page between others that are not costs a mapping. */
#define DOCTOR_WANT_MAPS 262144
/* A guest takes about six descriptors of its cell. */
#define DOCTOR_WANT_FILES 1024

static void memory(struct doctor *d)
{
	uint64_t total = 0, avail = 0, swap = 0, limit = hostmem_cgroup_limit("");
	char a[24], b[24];
	bool enough;

	if (hostmem_meminfo("", "MemTotal", &total) ||
	    hostmem_meminfo("", "MemAvailable", &avail)) {
		doctor_add(d, "memory", DOCTOR_LACK, "knowing how many guests fit", "mount /proc",
			   "cannot read /proc/meminfo");
		return;
	}
	enough = OB_MIN(avail, limit) >= DOCTOR_WANT_BYTES;
	doctor_add(d, "memory", enough ? DOCTOR_OK : DOCTOR_NOTE,
		   "the default of 16 guests of 64 MiB",
		   "run fewer or smaller guests: --guests, --mem", "%s, %s available",
		   table_bytes(a, (int64_t)total), table_bytes(b, (int64_t)avail));
	if (limit < total)
		doctor_add(d, "cgroup memory limit", DOCTOR_NOTE, "knowing how many guests fit",
			   "raise the limit of this cgroup or container if more guests are wanted",
			   "%s", table_bytes(a, (int64_t)limit));
	if (!hostmem_meminfo("", "SwapTotal", &swap) && swap)
		doctor_add(d, "swap", DOCTOR_NOTE, "figures that mean memory and not disk",
			   "sudo swapoff -a while measuring: what the host swaps out looks saved",
			   "%s", table_bytes(a, (int64_t)swap));
	else
		doctor_add(d, "swap", DOCTOR_OK, "figures that mean memory and not disk", "",
			   "none");
}

static bool read_line(const char *path, char *buf, size_t n)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, (int)n, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/* Huge pages in the pool's file: a frame that is punched out of such a page gives nothing back. */
static void pool_pages(struct doctor *d)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	char buf[96];

	if (!read_line(path, buf, sizeof(buf)))
		doctor_add(d, "huge pages in memfds", DOCTOR_OK,
			   "giving back each frame of the pool by itself", "", "none");
	/* Within its size the pool's file is from the beginning. */
	else if (strstr(buf, "[always]") || strstr(buf, "[force]") || strstr(buf, "[within_size]"))
		doctor_add(d, "huge pages in memfds", DOCTOR_NOTE,
			   "giving back each frame of the pool by itself",
			   "echo advise | sudo tee "
			   "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
			   "%s: frames that nobody holds any more may stay in memory", buf);
	else
		doctor_add(d, "huge pages in memfds", DOCTOR_OK,
			   "giving back each frame of the pool by itself", "", "%s", buf);
}

static void limits(struct doctor *d)
{
	struct rlimit nofile = {0};
	char buf[32];
	long maps = 0;

	if (read_line("/proc/sys/vm/max_map_count", buf, sizeof(buf)))
		maps = strtol(buf, NULL, 10);
	doctor_add(d, "vm.max_map_count", maps >= DOCTOR_WANT_MAPS ? DOCTOR_OK : DOCTOR_NOTE,
		   "merging many scattered pages; merging stops short of the limit",
		   "sudo sysctl vm.max_map_count=1048576, if results say skipped_vma_pages", "%ld",
		   maps);
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0)
		doctor_add(d, "open files",
			   nofile.rlim_cur >= DOCTOR_WANT_FILES ? DOCTOR_OK : DOCTOR_NOTE,
			   "many guests in a cell, each with its descriptors",
			   "ulimit -n 4096, or a smaller --cell", "%llu (at most %llu)",
			   (unsigned long long)nofile.rlim_cur,
			   (unsigned long long)nofile.rlim_max);
}

/* Is there a program of this name in the PATH? */
static bool in_path(const char *name)
{
	const char *path = getenv("PATH");
	char file[4096];

	while (path) {
		size_t n = strcspn(path, ":");

		if (n &&
		    snprintf(file, sizeof(file), "%.*s/%s", (int)OB_MIN(n, 4000), path, name) <
			    (int)sizeof(file) &&
		    access(file, X_OK) == 0)
			return true;
		path = path[n] ? path + n + 1 : NULL;
	}
	return false;
}

/* Where cells and pools would be. */
static void nodes(struct doctor *d)
{
	static const char need[] = "a cell's guests and their frames lying near its CPUs";
	struct topo *t;
	struct ob_err e;
	unsigned int n, all;

	if (topo_open(&t, &e)) {
		doctor_add(d, "NUMA nodes", DOCTOR_LACK, need,
			   "unset HWLOC_SYNTHETIC HWLOC_XMLFILE", "%s", e.msg);
		return;
	}
	n = topo_nodes(t);
	all = topo_memory_nodes(t);
	if (!topo_is_host(t))
		doctor_add(
			d, "NUMA nodes", DOCTOR_NOTE, need,
			"unset HWLOC_SYNTHETIC HWLOC_XMLFILE to have this host's",
			"%u by a topology that is given, not this host's: nothing is bound to it",
			n);
	else if (all > n)
		doctor_add(d, "NUMA nodes", DOCTOR_OK, need, "", "%u with CPUs, %u without", n,
			   all - n);
	else
		doctor_add(d, "NUMA nodes", DOCTOR_OK, need, "",
			   n > 1 ? "%u" : "%u: nothing is bound", n);
	topo_close(t);
}

void doctor_settings(struct doctor *d)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	memory(d);
	pool_pages(d);
	limits(d);
	nodes(d);
	doctor_add(d, "cores", cpus >= 2 ? DOCTOR_OK : DOCTOR_NOTE,
		   "the merging and the guests not taking turns",
		   "figures of guest speed will be rough", "%ld", cpus);
	doctor_add(d, "gnuplot", in_path("gnuplot") ? DOCTOR_OK : DOCTOR_LACK,
		   "the plot in the report (all else works without)",
		   "sudo apt-get install gnuplot-nox", "%s",
		   in_path("gnuplot") ? "found" : "not in the PATH");
	doctor_add(d, "qemu", in_path("qemu-system-x86_64") ? DOCTOR_OK : DOCTOR_NOTE,
		   "bench demo, whose reference it is", "sudo apt-get install qemu-system-x86",
		   "%s", in_path("qemu-system-x86_64") ? "found" : "not in the PATH");
}
