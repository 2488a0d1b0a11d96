/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result_host.c: where and from what a result came: the host as far as it bears on memory figures
 * (kernel, CPU, memory, KVM's mode, huge pages, KSM, swap), and the revision of this program. No
 * names of machines or people: results are made to be passed on.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "harness/opts.h"
#include "harness/result.h"

#ifndef OB_GIT_REV /* a build by hand, not by the Makefile */
#define OB_GIT_REV "unknown"
#endif
#ifndef OB_GIT_DIRTY
#define OB_GIT_DIRTY 1
#endif

json_t *result_git_json(void)
{
	json_t *o = json_object();

	json_object_set_new(o, "revision", json_string(OB_GIT_REV));
	json_object_set_new(o, "dirty", json_boolean(OB_GIT_DIRTY));
	return o;
}

/* First line of a small file; false when it cannot be read. */
static bool first_line(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok;

	if (!f)
		return false;
	ok = fgets(buf, (int)len, f) != NULL;
	fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/* A setting that is a number, else null. */
static json_t *setting(const char *path)
{
	char buf[64], *end;
	long long v;

	if (!first_line(path, buf, sizeof(buf)) || !buf[0])
		return json_null();
	errno = 0;
	v = strtoll(buf, &end, 10);
	return errno || *end ? json_null() : json_integer(v);
}

/* A setting as the kernel writes its choices, "always [madvise] never": the one in brackets. */
static json_t *choice(const char *path)
{
	char buf[256], *open_, *close_;

	if (!first_line(path, buf, sizeof(buf)))
		return json_null();
	open_ = strchr(buf, '[');
	close_ = open_ ? strchr(open_, ']') : NULL;
	if (!close_)
		return json_string(buf);
	*close_ = '\0';
	return json_string(open_ + 1);
}

/* The value of a "name : value" or NAME=value line. */
static json_t *field(const char *path, const char *name, char sep)
{
	char line[512];
	size_t n = strlen(name);
	FILE *f = fopen(path, "re");
	json_t *j = NULL;

	if (!f)
		return json_null();
	while (!j && fgets(line, sizeof(line), f)) {
		char *v;

		if (strncmp(line, name, n) != 0 || !strchr("\t =:", line[n]) ||
		    !(v = strchr(line, sep)))
			continue;
		v += 1 + strspn(v + 1, " \t\"");
		v[strcspn(v, "\"\n")] = '\0';
		j = json_string(v);
	}
	fclose(f);
	return j ? j : json_null();
}

static json_t *memory(const char *name)
{
	uint64_t v;

	return hostmem_meminfo("", name, &v) ? json_null() : json_integer((json_int_t)v);
}

json_t *result_host_json(void)
{
	static const char ksm_dir[] = "/sys/kernel/mm/ksm";
	static const char *const ksm_names[] = {"run",
						"pages_to_scan",
						"sleep_millisecs",
						"use_zero_pages",
						"merge_across_nodes",
						"smart_scan"};
	json_t *o = json_object(), *ksm = json_object(), *thp = json_object(),
	       *swap = json_object();
	uint64_t limit = hostmem_cgroup_limit("");
	struct utsname u;
	time_t now = time(NULL);
	struct tm tm;
	char path[96];

	gmtime_r(&now, &tm);
	strftime(path, sizeof(path), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(o, "time", json_string(path));
	if (uname(&u) == 0) {
		json_object_set_new(o, "kernel", json_string(u.release));
		json_object_set_new(o, "machine", json_string(u.machine));
	}
	json_object_set_new(o, "os", field("/etc/os-release", "PRETTY_NAME", '='));
	json_object_set_new(o, "cpu", field("/proc/cpuinfo", "model name", ':'));
	json_object_set_new(o, "cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_set_new(o, "memory_bytes", memory("MemTotal"));
	json_object_set_new(o, "memory_available_bytes", memory("MemAvailable"));
	json_object_set_new(o, "memory_limit_bytes",
			    limit >= INT64_MAX ? json_null() : json_integer((json_int_t)limit));
	json_object_set_new(o, "kvm_mode", json_string(kvm_mode_name(kvm_mode_detect())));
	json_object_set_new(o, "root", json_boolean(geteuid() == 0));

	json_object_set_new(thp, "enabled", choice("/sys/kernel/mm/transparent_hugepage/enabled"));
	json_object_set_new(thp, "defrag", choice("/sys/kernel/mm/transparent_hugepage/defrag"));
	json_object_set_new(o, "thp", thp);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(ksm_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", ksm_dir, ksm_names[i]);
		json_object_set_new(ksm, ksm_names[i], setting(path));
	}
	json_object_set_new(o, "ksm", ksm);
	json_object_set_new(swap, "total_bytes", memory("SwapTotal"));
	json_object_set_new(swap, "free_bytes", memory("SwapFree"));
	json_object_set_new(swap, "swappiness", setting("/proc/sys/vm/swappiness"));
	json_object_set_new(swap, "zswap", choice("/sys/module/zswap/parameters/enabled"));
	json_object_set_new(o, "swap", swap);
	json_object_set_new(o, "max_map_count", setting("/proc/sys/vm/max_map_count"));
	json_object_set_new(o, "overcommit_memory", setting("/proc/sys/vm/overcommit_memory"));
	json_object_set_new(o, "numa_balancing", setting("/proc/sys/kernel/numa_balancing"));
	json_object_set_new(o, "compiler", json_string(__VERSION__));
	return o;
}

/* Content hash of an open file, in pieces: a disk image may be large. */
static bool file_hash(int fd, uint64_t *bytes, uint64_t *sum)
{
	XXH3_state_t *x = XXH3_createState();
	char *buf = malloc(OB_MIB);
	ssize_t n;

	OB_ASSERT(x && buf);
	XXH3_64bits_reset(x);
	*bytes = 0;
	while ((n = read(fd, buf, OB_MIB)) > 0) {
		XXH3_64bits_update(x, buf, (size_t)n);
		*bytes += (uint64_t)n;
	}
	*sum = XXH3_64bits_digest(x);
	XXH3_freeState(x);
	free(buf);
	return n == 0 && *bytes;
}

json_t *result_file_json(const char *path, bool hash)
{
	json_t *o = json_object();
	const char *name = path ? strrchr(path, '/') : NULL;
	uint64_t bytes, sum;
	struct stat st;
	char hex[24];
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;

	/* The name without the folders: a result says what was run, not where it lay. */
	json_object_set_new(o, "name", path ? json_string(name ? name + 1 : path) : json_null());
	json_object_set_new(o, "bytes", json_null());
	json_object_set_new(o, "xxh3", json_null());
	if (fd >= 0 && !hash && !fstat(fd, &st)) {
		json_object_set_new(o, "bytes", json_integer((json_int_t)st.st_size));
	} else if (fd >= 0 && hash && file_hash(fd, &bytes, &sum)) {
		snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)sum);
		json_object_set_new(o, "bytes", json_integer((json_int_t)bytes));
		json_object_set_new(o, "xxh3", json_string(hex));
	}
	if (fd >= 0)
		close(fd);
	return o;
}
