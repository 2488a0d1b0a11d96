/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result_huge.c: what a run says of huge pages: the counters of ept (ept/huge.h) of each guest and of
 * all together, from the cells' answers into the document. One table for both ways.
 */
#include <stddef.h>
#include <string.h>

#include "harness/result.h"

static const struct {
	const char *key;
	size_t at;
} field[] = {
	{"units", offsetof(struct ept_huge_stats, units)},
	{"huge", offsetof(struct ept_huge_stats, huge)},
	{"broken", offsetof(struct ept_huge_stats, broken)},
	{"breaks", offsetof(struct ept_huge_stats, breaks)},
	{"rebuilt", offsetof(struct ept_huge_stats, builds)},
	{"refused", offsetof(struct ept_huge_stats, refused)},
	{"freed_bytes", offsetof(struct ept_huge_stats, freed_bytes)},
	{"probed", offsetof(struct ept_huge_stats, probes)},
	{"cold", offsetof(struct ept_huge_stats, cold)},
};
_Static_assert(OB_ARRAY_SIZE(field) == sizeof(struct ept_huge_stats) / sizeof(uint64_t),
	       "a counter is missing here");

static uint64_t get(const struct ept_huge_stats *h, size_t i)
{
	uint64_t v;

	memcpy(&v, (const char *)h + field[i].at, sizeof(v));
	return v;
}

static void set(struct ept_huge_stats *h, size_t i, uint64_t v)
{
	memcpy((char *)h + field[i].at, &v, sizeof(v));
}

json_t *result_huge_json(const struct ept_huge_stats *h)
{
	json_t *o;

	if (!h->units)
		return json_null();
	o = json_object();
	for (size_t i = 0; i < OB_ARRAY_SIZE(field); i++)
		json_object_set_new(
			o, field[i].key,
			json_integer((json_int_t)OB_MIN(get(h, i), (uint64_t)INT64_MAX)));
	return o;
}

void result_huge_take(struct ept_huge_stats *h, const json_t *o)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(field); i++)
		set(h, i, (uint64_t)json_integer_value(json_object_get(o, field[i].key)));
}

void result_huge_sum(const struct run_result *r, struct ept_huge_stats *sum)
{
	*sum = (struct ept_huge_stats){0};
	for (unsigned int g = 0; r->guest && g < r->guests; g++)
		for (size_t i = 0; i < OB_ARRAY_SIZE(field); i++)
			set(sum, i, get(sum, i) + get(&r->guest[g].huge, i));
}
