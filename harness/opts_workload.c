/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_workload.c: the names of the microguest's workloads. A memory workload takes up to two
 * numbers, which follow its name after colons: touch:30 touches 30 % of a guest's memory. What they
 * mean and what is too much the guest knows (workloads/README.md); it ends with a reason then.
 */
#include <string.h>

#include "harness/harness.h"

const char *const opts_workloads[] = {"kv",	"filecache", "churn", "idle",  "counters", "touch",
				      "writer", "unique",    "same",  "first", "ping",	   NULL};

/* The first of those that take numbers. */
#define MEMORY_WORKLOADS 4
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

void opts_workload_words(const char *name, char *buf, size_t n)
{
	int len = (int)strcspn(name, ":");
	const char *first = name[len] ? name + len + 1 : "";
	int digits = (int)strcspn(first, ":");
	const char *second = first[digits] ? first + digits + 1 : "";

	snprintf(buf, n, "workload=%.*s%s%.*s%s%s", len, name, *first ? " param=" : "", digits,
		 first, *second ? " param2=" : "", second);
}
