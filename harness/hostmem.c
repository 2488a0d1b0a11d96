/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostmem.c: how much memory this host, or the cgroup that we are in, lets us have. A limit of any
 * cgroup between ours and the root binds, in the hierarchy of version 1 as in that of version 2, so
 * all of them are asked and the smallest wins.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"

int hostmem_meminfo(const char *root, const char *field, uint64_t *bytes)
{
	char path[512], line[256];
	size_t n = strlen(field);
	int ret = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		uint64_t kib;

		if (strncmp(line, field, n) != 0 || line[n] != ':')
			continue;
		if (sscanf(line + n + 1, "%" SCNu64 " kB", &kib) == 1 && kib <= UINT64_MAX / 1024) {
			*bytes = kib * 1024;
			ret = 0;
		}
		break;
	}
	fclose(f);
	return ret;
}

/* One limit file. "max", what cannot be read, and the huge number that version 1 has for "no limit"
 * (LONG_MAX in whole pages) are none. */
static uint64_t limit_read(const char *path)
{
	uint64_t v = UINT64_MAX;
	FILE *f = fopen(path, "re");

	if (!f)
		return UINT64_MAX;
	if (fscanf(f, "%" SCNu64, &v) != 1 || v >= 1ULL << 62)
		v = UINT64_MAX;
	fclose(f);
	return v;
}

/* What a group may use, or what it leaves of that; UINT64_MAX: no limit. */
struct hierarchy {
	const char *limit, *usage, *inactive; /* files, and a line of memory.stat */
};
static const struct hierarchy v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
				    "total_inactive_file"};
static const struct hierarchy v2 = {"memory.max", "memory.current", "inactive_file"};

static uint64_t inactive_read(const char *dir, const char *name)
{
	char path[2200], line[160];
	size_t n = strlen(name);
	uint64_t v = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, name, n) == 0 && line[n] == ' ' &&
		    sscanf(line + n, "%" SCNu64, &v) == 1)
			break;
	fclose(f);
	return v;
}

static uint64_t group_read(const char *dir, const struct hierarchy *h, bool room)
{
	uint64_t limit, usage, inactive;
	char path[2200];

	snprintf(path, sizeof(path), "%s/%s", dir, h->limit);
	limit = limit_read(path);
	if (!room || limit == UINT64_MAX)
		return limit;
	snprintf(path, sizeof(path), "%s/%s", dir, h->usage);
	usage = limit_read(path);
	if (usage == UINT64_MAX)
		return limit;
	inactive = inactive_read(dir, h->inactive);
	usage -= OB_MIN(usage, inactive);
	return limit - OB_MIN(limit, usage);
}

/* From cgroup @rel below @base up to @base itself. */
static uint64_t limit_walk(const char *base, const char *rel, const struct hierarchy *h, bool room)
{
	size_t base_len = strlen(base);
	uint64_t least = UINT64_MAX;
	char dir[2048];

	if (snprintf(dir, sizeof(dir), "%s%s", base, rel) >= (int)sizeof(dir))
		return least;
	for (;;) {
		uint64_t v = group_read(dir, h, room);
		char *slash = strrchr(dir, '/');

		least = OB_MIN(least, v);
		if (!slash || (size_t)(slash - dir) < base_len)
			return least;
		*slash = '\0';
	}
}

/* Is @word one of the comma-separated @list? */
static bool list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

static uint64_t groups_read(const char *root, bool room)
{
	char path[512], base[512], line[2048];
	uint64_t least = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	f = fopen(path, "re");
	if (!f)
		return least;
	while (fgets(line, sizeof(line), f)) { /* ID:CONTROLLERS:PATH */
		char *ctl = strchr(line, ':'), *rel;
		uint64_t v = UINT64_MAX;

		if (!ctl)
			continue;
		*ctl++ = '\0';
		rel = strchr(ctl, ':');
		if (!rel)
			continue;
		*rel++ = '\0';
		rel[strcspn(rel, "\n")] = '\0';
		if (list_has(ctl, "memory")) {
			snprintf(base, sizeof(base), "%s/sys/fs/cgroup/memory", root);
			v = limit_walk(base, rel, &v1, room);
		} else if (strcmp(line, "0") == 0 && !*ctl) {
			snprintf(base, sizeof(base), "%s/sys/fs/cgroup", root);
			v = limit_walk(base, rel, &v2, room);
		}
		least = OB_MIN(least, v);
	}
	fclose(f);
	return least;
}

uint64_t hostmem_cgroup_limit(const char *root)
{
	return groups_read(root, false);
}

uint64_t hostmem_cgroup_room(const char *root)
{
	return groups_read(root, true);
}
