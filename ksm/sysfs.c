/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysfs.c: Linux KSM as seen from user space: its counters, its settings, and when it has settled.
 * What the settings are set to is pace.c's.
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
	[KSM_SET_ADVISOR_MAX_CPU] = "advisor_max_cpu",
	[KSM_SET_ADVISOR_MIN_PAGES] = "advisor_min_pages_to_scan",
	[KSM_SET_ADVISOR_MAX_PAGES] = "advisor_max_pages_to_scan",
	[KSM_SET_ADVISOR_TARGET] = "advisor_target_scan_time",
	[KSM_SET_ADVISOR_MODE] = "advisor_mode",
	[KSM_SET_RUN] = "run",
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

int ksm_driver_sleep(unsigned int ms)
{
	char value[KSM_VALUE_MAX];

	snprintf(value, sizeof(value), "%u", ms);
	return ksm_sysfs_set("", ksm_setting_name[KSM_SET_SLEEP_MILLISECS], value);
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

/*
 * CPU time in ns of process @pid when that is ksmd. By schedstat, which the scheduler keeps to the ns:
 * a ksmd that works for a moment and sleeps again may never be met by a clock tick. Without it, by
 * stat, utime and stime in clock ticks.
 */
static bool ksmd_time(const char *root, const char *pid, uint64_t *ns)
{
	long hz = sysconf(_SC_CLK_TCK);
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
	*ns = (user + sys) * (OB_NS_PER_SEC / (uint64_t)(hz > 0 ? hz : 100));
	n = snprintf(path, sizeof(path), "%s/proc/%s/schedstat", root, pid);
	if (n > 0 && (size_t)n < sizeof(path) && file_get(path, buf, sizeof(buf)) > 0 &&
	    sscanf(buf, "%" SCNu64, &user) == 1 && user)
		*ns = user;
	return true;
}

static uint64_t ksmd_cpu_ns(const char *root)
{
	char path[PATH_MAX];
	uint64_t ns = 0;
	struct dirent *ent;
	DIR *dir;
	int n = snprintf(path, sizeof(path), "%s/proc", root);

	if (n < 0 || (size_t)n >= sizeof(path))
		return 0;
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((ent = readdir(dir)))
		if (isdigit((unsigned char)ent->d_name[0]) && ksmd_time(root, ent->d_name, &ns))
			break;
	closedir(dir);
	return ns;
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

int ksm_setting_put(const char *root, enum ksm_setting which, const char *value, struct ob_err *e)
{
	const char *name = ksm_setting_name[which];
	char now[KSM_VALUE_MAX];
	int r = ksm_sysfs_get(root, name, now, sizeof(now));

	if (!r && !strcmp(now, value))
		return 0;
	r = ksm_sysfs_set(root, name, value);
	return r ? ob_fail(e, -r, "cannot set %s" SYSFS_DIR "/%s to %s: %s", root, name, value,
			   strerror(-r))
		 : 0;
}

int ksm_settings_restore(const char *root, const struct ksm_settings *s, struct ob_err *e)
{
	char mode[KSM_VALUE_MAX];
	int err = 0, r;

	/* While an advisor is on, pages_to_scan is its own: it comes on again in its turn. */
	if (!ksm_sysfs_get(root, ksm_setting_name[KSM_SET_ADVISOR_MODE], mode, sizeof(mode)) &&
	    strcmp(mode, "none") != 0) {
		r = ksm_setting_put(root, KSM_SET_ADVISOR_MODE, "none", e);
		err = r ? r : err;
	}
	for (unsigned int i = 0; i < KSM_NSETTINGS; i++) {
		r = s->value[i][0] ? ksm_setting_put(root, i, s->value[i], e) : 0;
		err = r ? r : err;
	}
	return err;
}

#define TEXT_HEAD KSM_SAVED_HEAD
#define TEXT_PACE "pace "
#define TEXT_END  "end\n"

int ksm_settings_format(const struct ksm_settings *s, const struct ksm_pace *p, char *buf,
			size_t size)
{
	char pace[KSM_PACE_TEXT];
	int at = snprintf(buf, size, TEXT_HEAD TEXT_PACE "%-*s\n", KSM_PACE_TEXT - 1,
			  ksm_pace_text(p, pace));

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

/* "pace fastest        \n": filled up with spaces, so that it can be written over. */
static bool parse_pace(const char *line, size_t len, struct ksm_pace *p)
{
	char text[KSM_PACE_TEXT];
	const size_t head = strlen(TEXT_PACE);

	if (len != head + KSM_PACE_TEXT - 1 || memcmp(line, TEXT_PACE, head) != 0)
		return false;
	memcpy(text, line + head, KSM_PACE_TEXT - 1);
	text[KSM_PACE_TEXT - 1] = '\0';
	text[strcspn(text, " ")] = '\0';
	return !ksm_pace_parse(text, p);
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

int ksm_settings_parse(const char *buf, size_t len, struct ksm_settings *s, struct ksm_pace *p)
{
	size_t head = strlen(TEXT_HEAD), tail = strlen(TEXT_END);
	const char *at = buf + head, *end = buf + len - tail;
	struct ksm_pace pace = {.kind = KSM_PACE_FASTEST};
	bool first = true;

	memset(s, 0, sizeof(*s));
	if (len < head + tail || memcmp(buf, TEXT_HEAD, head) || memcmp(end, TEXT_END, tail))
		return -EINVAL;
	for (; at < end; first = false) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));

		if (!nl)
			return -EINVAL;
		/* Without a pace: from before there was one. */
		if (!(first && parse_pace(at, (size_t)(nl - at), &pace)) &&
		    !parse_line(at, (size_t)(nl - at), s))
			return -EINVAL;
		at = nl + 1;
	}
	if (p)
		*p = pace;
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
