/* SPDX-License-Identifier: Apache-2.0 */
/* kinds.c: where two results differ in what they share, by kind of the guests' memory (docs/result.md). */
#include <stdio.h>
#include <string.h>

#include "tests/lab/kinds.h"

#define MIB 1048576.0

static const char *name_of(const json_t *kind)
{
	const char *s = json_string_value(json_object_get(kind, "kind"));

	return s ? s : "?";
}

/* NULL: the list has none of this kind. */
static const json_t *find(const json_t *list, const char *name)
{
	const json_t *k;
	size_t i;

	json_array_foreach (list, i, k)
		if (!strcmp(name_of(k), name))
			return k;
	return NULL;
}

static double mib(const json_t *kind, const char *key)
{
	return json_number_value(json_object_get(kind, key)) / MIB;
}

/* @a or @b may be NULL. */
static void row(const char *name, const json_t *a, const json_t *b)
{
	printf("%-20s%10.1f%10.1f%10.1f  %10.1f%10.1f%10.1f  %10.1f%10.1f%10.1f\n", name,
	       mib(a, "inter"), mib(b, "inter"), mib(b, "inter") - mib(a, "inter"), mib(a, "intra"),
	       mib(b, "intra"), mib(b, "intra") - mib(a, "intra"), mib(a, "zero"), mib(b, "zero"),
	       mib(b, "zero") - mib(a, "zero"));
}

static json_t *sum_of(const json_t *list)
{
	static const char *const keys[] = {"inter", "intra", "zero"};
	json_t *sum = json_object();
	const json_t *k;
	size_t i;

	for (size_t n = 0; n < sizeof(keys) / sizeof(keys[0]); n++) {
		double v = 0;

		json_array_foreach (list, i, k)
			v += json_number_value(json_object_get(k, keys[n]));
		json_object_set_new(sum, keys[n], json_real(v));
	}
	return sum;
}

void kinds_show(const char *mode, const char *name_a, const json_t *a, const char *name_b,
		const json_t *b)
{
	const json_t *of_a = json_object_get(a, "kinds"), *of_b = json_object_get(b, "kinds"), *k;
	json_t *sum_a, *sum_b;
	size_t i;

	if (!json_array_size(of_a) || !json_array_size(of_b))
		return;
	printf("\n%s, MiB saved by kind of memory in the guest: %s, %s, and by how much the first "
	       "saves less\n%-20s%30s  %30s  %30s\n",
	       mode, name_a, name_b, "", "across VMs", "within one", "zero");
	json_array_foreach (of_a, i, k)
		row(name_of(k), k, find(of_b, name_of(k)));
	json_array_foreach (of_b, i, k)
		if (!find(of_a, name_of(k)))
			row(name_of(k), NULL, k);
	sum_a = sum_of(of_a);
	sum_b = sum_of(of_b);
	row("all", sum_a, sum_b);
	json_decref(sum_a);
	json_decref(sum_b);
}
