/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysfs.c: Linux KSM as seen from user space: its counters, its settings, and when it has settled.
 *
 * "As fast as it can be made" means: no sleep between batches, batches so large that they do not
 * count, no advisor that would slow it down again, and zero pages merged with the kernel's zero
 * page, as our own engine does. Left as the host has them: max_page_sharing (it bounds the cost of
 * reverse mapping, and cannot be changed while anything is merged) and smart_scan (it saves time on
 * pages that did not merge before). merge_across_nodes is switched on where the kernel lets us: it
 * refuses while anything is merged.
 */
#include "ksm/sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSFS_DIR "/sys/kernel/mm/ksm"

const char *const ksm_setting_name[KSM_NSETTINGS] = {
	[KSM_SET_MERGE_ACROSS_NODES] = "merge_across_nodes",
	[KSM_SET_USE_ZERO_PAGES] = "use_zero_pages",
	[KSM_SET_SLEEP_MILLISECS] = "sleep_millisecs",
	[KSM_SET_PAGES_TO_SCAN] = "pages_to_scan",
	[KSM_SET_ADVISOR_MODE] = "advisor_mode",
	[KSM_SET_RUN] = "run",
};

static const char *const fastest_value[KSM_NSETTINGS] = {
	[KSM_SET_MERGE_ACROSS_NODES] = "1", [KSM_SET_USE_ZERO_PAGES] = "1",
	[KSM_SET_SLEEP_MILLISECS] = "0",    [KSM_SET_PAGES_TO_SCAN] = "1000000",
	[KSM_SET_ADVISOR_MODE] = "none",    [KSM_SET_RUN] = "1",
};

/* --- files --------------------------------------------------------------------------------- */

/* Read a small file whole; NUL-terminated. Returns its length or -errno. */
static int file_get(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int err;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	err = errno;
	close(fd);
	if (n < 0)
		return -err;
	buf[n] = '\0';
	return (int)n;
}

static int sysfs_path(char *path, size_t size, const char *root, const char *name)
{
	int n = snprintf(path, size, "%s" SYSFS_DIR "/%s", root, name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int ksm_sysfs_get(const char *root, const char *name, char *value, size_t size)
{
	char path[PATH_MAX], buf[4 * KSM_VALUE_MAX], *from = buf, *end;
	int r = sysfs_path(path, sizeof(path), root, name);

	if (!r)
		r = file_get(path, buf, sizeof(buf));
	if (r < 0)
		return r;
	/* A choice: "[none] scan-time". */
	end = strchr(buf, '\n');
	if (end)
		*end = '\0';
	end = strchr(buf, '[');
	if (end) {
		from = end + 1;
		from[strcspn(from, "]")] = '\0';
	}
	if (strlen(from) >= size)
		return -EOVERFLOW;
	strcpy(value, from);
	return 0;
}

int ksm_sysfs_set(const char *root, const char *name, const char *value)
{
	char path[PATH_MAX], line[KSM_VALUE_MAX + 1];
	int r = sysfs_path(path, sizeof(path), root, name), fd, len;
	ssize_t n;

	if (r)
		return r;
	len = snprintf(line, sizeof(line), "%s\n", value);
	if (len < 0 || (size_t)len >= sizeof(line))
		return -EINVAL;
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = write(fd, line, (size_t)len);
	r = n < 0 ? -errno : n == len ? 0 : -EIO;
	close(fd);
	return r;
}

int ksm_driver_hold(bool hold)
{
	return ksm_sysfs_set("", "run", hold ? "0" : "1");
}

static int get_u64(const char *root, const char *name, uint64_t *out)
{
	char value[KSM_VALUE_MAX], *end;
	int r = ksm_sysfs_get(root, name, value, sizeof(value));

	if (r)
		return r;
	/* general_profit may be negative; it comes back by two's complement. */
	errno = 0;
	*out = value[0] == '-' ? (uint64_t)strtoll(value, &end, 10) : strtoull(value, &end, 10);
	return errno || end == value || *end ? -EINVAL : 0;
}

/* --- counters ------------------------------------------------------------------------------ */

/* utime + stime of /proc/<pid>/stat when that is ksmd's, in clock ticks. */
static bool ksmd_ticks(const char *root, const char *pid, uint64_t *ticks)
{
	char path[PATH_MAX], buf[1024], *at;
	uint64_t user, sys;
	int n = snprintf(path, sizeof(path), "%s/proc/%s/stat", root, pid);

	if (n < 0 || (size_t)n >= sizeof(path) || file_get(path, buf, sizeof(buf)) <= 0)
		return false;
	/* "77 (ksmd) S ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime" */
	at = strstr(buf, " (ksmd) ");
	if (!at ||
	    sscanf(at + 8, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
		   &user, &sys) != 2)
		return false;
	*ticks = user + sys;
	return true;
}

static uint64_t ksmd_cpu_ns(const char *root)
{
	char path[PATH_MAX];
	uint64_t ticks = 0;
	long hz = sysconf(_SC_CLK_TCK);
	struct dirent *ent;
	DIR *dir;
	int n = snprintf(path, sizeof(path), "%s/proc", root);

	if (n < 0 || (size_t)n >= sizeof(path))
		return 0;
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((ent = readdir(dir)))
		if (isdigit((unsigned char)ent->d_name[0]) && ksmd_ticks(root, ent->d_name, &ticks))
			break;
	closedir(dir);
	return ticks * (OB_NS_PER_SEC / (uint64_t)(hz > 0 ? hz : 100));
}

int ksm_sysfs_read_at(const char *root, struct ksm_sysfs_counters *out)
{
	uint64_t profit = 0;
	const struct {
		const char *name;
		uint64_t *to;
		bool optional; /* not in every kernel since 5.15 */
	} want[] = {
		{"full_scans", &out->full_scans, false},
		{"pages_shared", &out->pages_shared, false},
		{"pages_sharing", &out->pages_sharing, false},
		{"pages_unshared", &out->pages_unshared, false},
		{"pages_volatile", &out->pages_volatile, false},
		{"ksm_zero_pages", &out->zero_pages, true},
		{"stable_node_dups", &out->stable_node_dups, true},
		{"stable_node_chains", &out->stable_node_chains, true},
		{"general_profit", &profit, true},
	};

	*out = (struct ksm_sysfs_counters){0};
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(want); i++) {
		int r = get_u64(root, want[i].name, want[i].to);

		if (r && !(want[i].optional && r == -ENOENT))
			return r;
	}
	out->general_profit = (int64_t)profit;
	out->ksmd_cpu_ns = ksmd_cpu_ns(root);
	return 0;
}

int ksm_sysfs_read(struct ksm_sysfs_counters *out)
{
	return ksm_sysfs_read_at("", out);
}

/* --- settings ------------------------------------------------------------------------------ */

int ksm_settings_read(const char *root, struct ksm_settings *s)
{
	memset(s, 0, sizeof(*s));
	for (unsigned int i = 0; i < KSM_NSETTINGS; i++) {
		int r = ksm_sysfs_get(root, ksm_setting_name[i], s->value[i], KSM_VALUE_MAX);

		if (r == -ENOENT && i != KSM_SET_RUN)
			continue;
		if (r)
			return r;
	}
	return 0;
}

int ksm_settings_fastest(const char *root, const struct ksm_settings *s, struct ob_err *e)
{
	/* The advisor first: while it is on, pages_to_scan is its own. */
	static const enum ksm_setting order[] = {
		KSM_SET_ADVISOR_MODE,	KSM_SET_PAGES_TO_SCAN,	    KSM_SET_SLEEP_MILLISECS,
		KSM_SET_USE_ZERO_PAGES, KSM_SET_MERGE_ACROSS_NODES, KSM_SET_RUN,
	};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(order); i++) {
		const char *name = ksm_setting_name[order[i]], *value = fastest_value[order[i]];
		int r;

		if (!s->value[order[i]][0] || !strcmp(s->value[order[i]], value))
			continue;
		r = ksm_sysfs_set(root, name, value);
		if (r == -EBUSY && order[i] == KSM_SET_MERGE_ACROSS_NODES)
			continue;
		if (r)
			return ob_fail(e, -r, "cannot set %s" SYSFS_DIR "/%s to %s: %s", root, name,
				       value, strerror(-r));
	}
	return 0;
}

bool ksm_settings_are_fastest(const struct ksm_settings *s)
{
	static const enum ksm_setting which[] = {KSM_SET_PAGES_TO_SCAN, KSM_SET_SLEEP_MILLISECS};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(which); i++)
		if (strcmp(s->value[which[i]], fastest_value[which[i]]) != 0)
			return false;
	return true;
}

int ksm_settings_restore(const char *root, const struct ksm_settings *s, struct ob_err *e)
{
	int err = 0;

	for (unsigned int i = 0; i < KSM_NSETTINGS; i++) {
		char now[KSM_VALUE_MAX];
		int r;

		if (!s->value[i][0])
			continue;
		r = ksm_sysfs_get(root, ksm_setting_name[i], now, sizeof(now));
		if (!r && !strcmp(now, s->value[i]))
			continue;
		r = ksm_sysfs_set(root, ksm_setting_name[i], s->value[i]);
		if (r)
			err = ob_fail(e, -r, "cannot put %s" SYSFS_DIR "/%s back to %s: %s", root,
				      ksm_setting_name[i], s->value[i], strerror(-r));
	}
	return err;
}

#define TEXT_HEAD "overbook saved KSM settings 1\n"
#define TEXT_END  "end\n"

int ksm_settings_format(const struct ksm_settings *s, char *buf, size_t size)
{
	int at = snprintf(buf, size, TEXT_HEAD);

	for (unsigned int i = 0; i <= KSM_NSETTINGS; i++) {
		if (at < 0 || (size_t)at >= size)
			return -EOVERFLOW;
		if (i == KSM_NSETTINGS)
			at += snprintf(buf + at, size - (size_t)at, TEXT_END);
		else if (s->value[i][0])
			at += snprintf(buf + at, size - (size_t)at, "%s %s\n", ksm_setting_name[i],
				       s->value[i]);
	}
	return (size_t)at < size ? at : -EOVERFLOW;
}

/* "name value\n": the settings that there are, values of what they are made of. */
static bool parse_line(const char *line, size_t len, struct ksm_settings *s)
{
	for (unsigned int i = 0; i < KSM_NSETTINGS; i++) {
		size_t n = strlen(ksm_setting_name[i]);

		if (len <= n || memcmp(line, ksm_setting_name[i], n) || line[n] != ' ')
			continue;
		line += n + 1;
		len -= n + 1;
		if (!len || len >= KSM_VALUE_MAX || s->value[i][0])
			return false;
		for (size_t c = 0; c < len; c++)
			if (!isalnum((unsigned char)line[c]) && line[c] != '-' && line[c] != '_')
				return false;
		memcpy(s->value[i], line, len);
		s->value[i][len] = '\0';
		return true;
	}
	return false;
}

int ksm_settings_parse(const char *buf, size_t len, struct ksm_settings *s)
{
	size_t head = strlen(TEXT_HEAD), tail = strlen(TEXT_END);
	const char *at = buf + head, *end = buf + len - tail;

	memset(s, 0, sizeof(*s));
	if (len < head + tail || memcmp(buf, TEXT_HEAD, head) || memcmp(end, TEXT_END, tail))
		return -EINVAL;
	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));

		if (!nl || !parse_line(at, (size_t)(nl - at), s))
			return -EINVAL;
		at = nl + 1;
	}
	return s->value[KSM_SET_RUN][0] ? 0 : -EINVAL;
}

/* --- settled ------------------------------------------------------------------------------- */

/* Guests that write make pages come and go: so much is standing still (1/256,
 * at least 16 pages). */
static bool same_sharing(uint64_t a, uint64_t b)
{
	uint64_t diff = a > b ? a - b : b - a;

	return diff <= OB_MAX(OB_MAX(a, b) / 256, 16);
}

/*
 * The count is held against the one reading at which it last moved, so a slow drift does not pass
 * as rest. That reading was taken in the middle of a scan: three ends of scans later, two whole
 * ones lie in between.
 */
bool ksm_settled(struct ksm_settle *s, const struct ksm_sysfs_counters *c)
{
	if (!s->seen || c->full_scans < s->last_scans ||
	    !same_sharing(c->pages_sharing + c->zero_pages, s->last_sharing)) {
		s->seen = true;
		s->last_scans = c->full_scans;
		s->last_sharing = c->pages_sharing + c->zero_pages;
		s->stable = 0;
		return false;
	}
	s->stable = (unsigned int)OB_MIN(c->full_scans - s->last_scans, UINT_MAX);
	return s->stable >= 3;
}
