/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_workload.c: the names of the microguest's workloads. A memory workload takes up to two
 * numbers, which follow its name after colons: touch:30 touches 30 % of a guest's memory
 * (workloads/README.md). The guest would end with a reason when one is out of bounds; here it is said
 * before anything is started.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"

const char *const opts_workloads[] = {
	"kv",	"filecache", "churn", "idle", "steady",	  "counters", "touch",	 "writer", "unique",
	"same", "shuffle",   "first", "ping", "cowstorm", "probe",    "remerge", NULL};

/* The first of those that take numbers. */
#define MEMORY_WORKLOADS 5
/* Of each number: more would not fit 64 bits, and no workload takes so much. */
#define MAX_DIGITS 18

/* Index in opts_workloads of the @n letters of @name, or -1. */
static int find(const char *name, size_t n)
{
	for (int i = 0; opts_workloads[i]; i++)
		if (strlen(opts_workloads[i]) == n && strncmp(name, opts_workloads[i], n) == 0)
			return i;
	return -1;
}

/* ":N" or ":N:M", to the end. */
static bool numbers(const char *s)
{
	for (unsigned int n = 0; *s; n++) {
		size_t digits = *s == ':' ? strspn(s + 1, "0123456789") : 0;

		if (n == 2 || digits == 0 || digits > MAX_DIGITS)
			return false;
		s += 1 + digits;
	}
	return true;
}

bool opts_known_workload(const char *name)
{
	static const char hostile[] = "hostile-";
	size_t n = sizeof(hostile) - 1, len = strcspn(name, ":");
	int i = find(name, len);

	if (i >= 0)
		return !name[len] || (i >= MEMORY_WORKLOADS && numbers(name + len));
	/* Which of these exist only the guest knows; it ends with a reason when it is none. */
	return strncmp(name, hostile, n) == 0 && name[n] &&
	       name[n + strspn(name + n, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

/* What a memory workload takes: the bounds of its numbers, as the guest has them. */
static const struct bounds {
	const char *name;
	unsigned int numbers;
	uint64_t least[2], most[2];
} bounds[] = {
	{"counters", 2, {0, 0}, {1, UINT64_MAX}},
	{"touch", 2, {0, 0}, {100, 1}},
	{"writer", 2, {1, 0}, {UINT64_MAX, UINT64_MAX}},
	{"unique", 2, {0, 0}, {UINT64_MAX, UINT64_MAX}},
	{"same", 2, {0, 0}, {UINT64_MAX, UINT64_MAX}},
	{"shuffle", 1, {0, 0}, {UINT64_MAX, 0}},
	{"first", 1, {0, 0}, {1, 0}},
	{"ping", 0, {0, 0}, {0, 0}},
	{"cowstorm", 2, {1, 0}, {86400, 1000000}},
	{"probe", 2, {0, 16}, {86400, 7168}},
	{"remerge", 2, {1, 0}, {1000000, 1000000}},
};

static const struct bounds *bounds_of(const char *name, size_t n)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(bounds); i++)
		if (strlen(bounds[i].name) == n && !strncmp(bounds[i].name, name, n))
			return &bounds[i];
	return NULL;
}

int opts_check_workload(const char *name, struct ob_err *e)
{
	size_t len = strcspn(name, ":");
	const struct bounds *b = bounds_of(name, len);
	const char *s = name + len;

	if (find(name, len) < 0 && !opts_known_workload(name))
		return ob_fail(e, EINVAL,
			       "--workload '%.40s': unknown; there are kv, filecache, churn, idle, "
			       "steady, and counters, touch, writer, unique, same, shuffle, first, "
			       "ping, cowstorm, probe, remerge",
			       name);
	if (!*s)
		return 0;
	if (!b || !b->numbers)
		return ob_fail(e, EINVAL, "--workload '%.40s': %.*s takes no number", name,
			       (int)len, name);
	if (!numbers(s))
		return ob_fail(e, EINVAL,
			       "--workload '%.40s': what follows %.*s: is to be a whole number%s",
			       name, (int)len, name, b->numbers > 1 ? ", or two: NAME:N:M" : "");
	for (unsigned int i = 0; *s; i++, s += 1 + strcspn(s + 1, ":")) {
		uint64_t v = strtoull(s + 1, NULL, 10);

		if (i >= b->numbers)
			return ob_fail(e, EINVAL, "--workload '%.40s': %s takes one number", name,
				       b->name);
		if (v < b->least[i] || v > b->most[i])
			return ob_fail(
				e, EINVAL, "--workload '%.40s': the %s number of %s is %s%llu",
				name, i ? "second" : "first", b->name,
				v < b->least[i] ? "at least " : "at most ",
				(unsigned long long)(v < b->least[i] ? b->least[i] : b->most[i]));
	}
	return 0;
}

void opts_workload_words(const char *name, char *buf, size_t n)
{
	int len = (int)strcspn(name, ":");
	const char *first = name[len] ? name + len + 1 : "";
	int digits = (int)strcspn(first, ":");
	const char *second = first[digits] ? first + digits + 1 : "";

	snprintf(buf, n, "workload=%.*s%s%.*s%s%s", len, name, *first ? " param=" : "", digits,
		 first, *second ? " param2=" : "", second);
}
