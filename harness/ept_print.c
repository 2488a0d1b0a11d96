/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept_print.c: guests' pages for a person (ept_print.h). The documents come from another process, which
 * may be of another version: what is not there is "-", and what is not known is shown by its name.
 */
#include "harness/ept_print.h"

#include <string.h>

#include "harness/harness.h"

#define CELL 48

static const char *const states[] = {"untouched",  "zero",    "private",   "shared",
				     "compressed", "swapped", "ballooned", "remote"};
static const char *const outcomes[] = {"zero-filled", "staging",   "tier",
				       "cow-broken",  "redundant", "failed"};

/* --- values ------------------------------------------------------------------------------ */

/* Any value as one word or a few: harmless on a terminal, cut to @buf of CELL bytes. */
static const char *value(char *buf, const json_t *v)
{
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_INTEGER:
		snprintf(buf, CELL, "%lld", (long long)json_integer_value(v));
		break;
	case JSON_REAL:
		snprintf(buf, CELL, "%.4g", json_real_value(v));
		break;
	case JSON_STRING:
		snprintf(buf, CELL, "%s", json_string_value(v));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		snprintf(buf, CELL, "%s", json_is_true(v) ? "yes" : "no");
		break;
	default:
		snprintf(buf, CELL, "-");
	}
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	return buf;
}

/* The same of a member, perhaps of a member: @b may be NULL. */
static const json_t *member(const json_t *o, const char *a, const char *b)
{
	o = json_object_get(o, a);
	return b ? json_object_get(o, b) : o;
}

/* A count in at most @width - 1 characters: large ones lose their last digits, not their size. */
static const char *count(char *buf, const json_t *v, int width)
{
	static const char unit[] = " kMGTPE";
	long long n = json_integer_value(v);
	unsigned int u = 0;

	value(buf, v);
	if (!json_is_integer(v) || (int)strlen(buf) < width)
		return buf;
	while (u < sizeof(unit) - 2 && (n >= 100000 || n <= -100000)) {
		n /= 1000;
		u++;
	}
	snprintf(buf, CELL, "%lld%c", n, unit[u]);
	return buf;
}

/* Nanoseconds as a person says them. */
static const char *latency(char *buf, const json_t *v)
{
	double ns = json_number_value(v);

	if (!json_is_number(v))
		return value(buf, NULL);
	if (ns < 1e3)
		snprintf(buf, CELL, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(buf, CELL, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(buf, CELL, "%.1f ms", ns / 1e6);
	else
		snprintf(buf, CELL, "%.1f s", ns / 1e9);
	return buf;
}

/* --- several guests, a line each --------------------------------------------------------- */

struct column {
	const char *head, *a, *b; /* b: member of a; NULL: a itself */
	int width;
	bool sum; /* of all guests: it has a meaning */
};

static void print_table(FILE *out, const json_t *list, const struct column *col, unsigned int n)
{
	const json_t *vm;
	char buf[CELL];
	size_t i;

	for (unsigned int k = 0; k < n; k++)
		fprintf(out, "%*s", col[k].width, col[k].head);
	fputc('\n', out);
	json_array_foreach (list, i, vm) {
		for (unsigned int k = 0; k < n; k++)
			fprintf(out, "%*s", col[k].width,
				count(buf, member(vm, col[k].a, col[k].b), col[k].width));
		fputc('\n', out);
	}
	if (json_array_size(list) < 2)
		return;
	fprintf(out, "%*s", col[0].width, "all");
	for (unsigned int k = 1; k < n; k++) {
		json_t *sum = NULL;

		json_array_foreach (list, i, vm) {
			const json_t *v = member(vm, col[k].a, col[k].b);

			if (!col[k].sum || !json_is_integer(v))
				continue;
			if (!sum)
				sum = json_integer(0);
			json_integer_set(sum, json_integer_value(sum) + json_integer_value(v));
		}
		fprintf(out, "%*s", col[k].width, count(buf, sum, col[k].width));
		json_decref(sum);
	}
	fputc('\n', out);
}

/* Has any guest this to show? */
static bool any_has(const json_t *list, const char *key)
{
	const json_t *vm;
	size_t i;

	json_array_foreach (list, i, vm)
		if (json_object_get(vm, key))
			return true;
	return false;
}

static void print_many(FILE *out, const json_t *list)
{
	static const struct column by_state[] = {
		{"vm", "vm", NULL, 4, false},
		{"pages", "pages", NULL, 9, true},
		{"untouched", "states", "untouched", 10, true},
		{"zero", "states", "zero", 8, true},
		{"private", "states", "private", 9, true},
		{"shared", "states", "shared", 8, true},
		{"compr.", "states", "compressed", 8, true},
		{"swapped", "states", "swapped", 8, true},
		{"balloon", "states", "ballooned", 8, true},
		{"remote", "states", "remote", 8, true},
	};
	static const struct column more[] = {
		{"vm", "vm", NULL, 4, false},
		{"cell", "cell", NULL, 6, false},
		{"staged", "staged", NULL, 10, true},
		{"2M units", "huge", "units", 10, true},
		{"huge", "huge", "huge", 8, true},
		{"broken", "huge", "broken", 9, true},
		{"rebuilt", "huge", "rebuilt", 9, true},
		{"working set", "working_set", "pages", 13, true},
		{"samples", "working_set", "samples", 10, false},
	};
	struct column faults[OB_ARRAY_SIZE(outcomes) + 1] = {{"vm", "vm", NULL, 4, false}};
	json_t *counts = json_array(), *row;
	const json_t *vm;
	size_t i;

	print_table(out, list, by_state, OB_ARRAY_SIZE(by_state));
	/* Counts lie one level deeper than a table looks. */
	json_array_foreach (list, i, vm) {
		row = json_object();
		json_object_set(row, "vm", json_object_get(vm, "vm"));
		for (size_t k = 0; k < OB_ARRAY_SIZE(outcomes); k++) {
			json_t *n = json_object_get(member(vm, "faults", outcomes[k]), "count");

			if (n)
				json_object_set(row, outcomes[k], n);
		}
		json_array_append_new(counts, row);
	}
	for (size_t k = 0; k < OB_ARRAY_SIZE(outcomes); k++)
		faults[k + 1] = (struct column){outcomes[k], outcomes[k], NULL, 12, true};
	if (any_has(list, "faults")) {
		fputs("\nfaults by outcome\n", out);
		print_table(out, counts, faults, OB_ARRAY_SIZE(faults));
	}
	json_decref(counts);
	if (any_has(list, "huge") || any_has(list, "working_set") || any_has(list, "staged")) {
		fputs("\nstaging, huge pages, working set\n", out);
		print_table(out, list, more, OB_ARRAY_SIZE(more));
	}
}

/* --- one guest at length ----------------------------------------------------------------- */

static bool known(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static void print_state(FILE *out, const char *name, const json_t *v, const json_t *pages)
{
	double all = (double)json_integer_value(pages);
	char buf[CELL], plain[CELL];
	json_t *text = json_string(name);

	fprintf(out, "  %-16.28s%14s", value(plain, text), value(buf, v));
	json_decref(text);
	if (json_is_integer(v) && all > 0)
		fprintf(out, "%8.1f %%", 100.0 * (double)json_integer_value(v) / all);
	fputc('\n', out);
}

static void print_states(FILE *out, const json_t *vm)
{
	const json_t *pages = json_object_get(vm, "pages"), *all = json_object_get(vm, "states"),
		     *v;
	const char *name;

	fputs("\npages by state\n", out);
	for (size_t i = 0; i < OB_ARRAY_SIZE(states); i++)
		print_state(out, states[i], json_object_get(all, states[i]), pages);
	json_object_foreach ((json_t *)(uintptr_t)all, name, v)
		if (!known(states, OB_ARRAY_SIZE(states), name))
			print_state(out, name, v, pages);
	print_state(out, "(in staging)", json_object_get(vm, "staged"), pages);
}

static void print_faults(FILE *out, const json_t *vm)
{
	char n[CELL], a[CELL], b[CELL], c[CELL];

	fprintf(out, "\n%-18s%14s%11s%11s%11s\n", "faults by outcome", "count", "p50", "p99",
		"p99.9");
	for (size_t i = 0; i < OB_ARRAY_SIZE(outcomes); i++) {
		const json_t *f = member(vm, "faults", outcomes[i]);

		fprintf(out, "  %-16s%14s%11s%11s%11s\n", outcomes[i],
			value(n, json_object_get(f, "count")),
			latency(a, json_object_get(f, "p50_ns")),
			latency(b, json_object_get(f, "p99_ns")),
			latency(c, json_object_get(f, "p999_ns")));
	}
}

/* All members of an object, two in a line. */
static void print_pairs(FILE *out, const char *title, const json_t *o)
{
	const char *name;
	unsigned int n = 0;
	char a[CELL], b[CELL];
	const json_t *v;
	json_t *text;

	fprintf(out, "\n%s\n", title);
	json_object_foreach ((json_t *)(uintptr_t)o, name, v) {
		text = json_string(name);
		fprintf(out, "  %-24.24s%12.20s%s", value(a, text), count(b, v, 13),
			n % 2 ? "\n" : "");
		json_decref(text);
		n++;
	}
	if (!n)
		fputs("  -\n", out);
	else if (n % 2)
		fputc('\n', out);
}

static void print_one(FILE *out, const json_t *vm)
{
	const json_t *kvm = json_object_get(vm, "kvm"), *vcpu;
	char a[CELL], b[CELL], c[CELL], d[CELL];
	size_t i;

	fprintf(out, "guest %s in cell %s, %s pages of 4 KiB, mapped by KVM as: %s\n",
		value(a, json_object_get(vm, "vm")), value(b, json_object_get(vm, "cell")),
		value(c, json_object_get(vm, "pages")), value(d, json_object_get(vm, "mode")));
	print_states(out, vm);
	print_faults(out, vm);
	fprintf(out, "\nhuge pages (2 MiB)\n  units %s, huge %s, broken %s, rebuilt %s\n",
		value(a, member(vm, "huge", "units")), value(b, member(vm, "huge", "huge")),
		value(c, member(vm, "huge", "broken")), value(d, member(vm, "huge", "rebuilt")));
	fprintf(out, "\nworking set\n  %s pages, %s samples in %s s",
		value(a, member(vm, "working_set", "pages")),
		value(b, member(vm, "working_set", "samples")),
		value(c, member(vm, "working_set", "period_s")));
	fprintf(out, "; fast %s, slow %s\n", value(a, member(vm, "working_set", "fast")),
		value(b, member(vm, "working_set", "slow")));
	print_pairs(out, "counters", json_object_get(vm, "counters"));
	print_pairs(out, "KVM's counters of the VM", json_object_get(kvm, "vm"));
	json_array_foreach (json_object_get(kvm, "vcpu"), i, vcpu) {
		snprintf(a, sizeof(a), "KVM's counters of vCPU %zu", i);
		print_pairs(out, a, vcpu);
	}
}

void ept_print_stat(FILE *out, const json_t *list)
{
	char mode[CELL];

	if (json_array_size(list) == 1) {
		print_one(out, json_array_get(list, 0));
		return;
	}
	fprintf(out, "%zu guests, pages of 4 KiB, mapped by KVM as: %s\n\n", json_array_size(list),
		value(mode, json_object_get(json_array_get(list, 0), "mode")));
	print_many(out, list);
}

/* --- verify ------------------------------------------------------------------------------ */

unsigned long long ept_differences(const json_t *list)
{
	unsigned long long sum = 0;
	const json_t *vm;
	size_t i;

	json_array_foreach (list, i, vm)
		sum += (unsigned long long)json_integer_value(json_object_get(vm, "differences"));
	return sum;
}

void ept_print_verify(FILE *out, const json_t *list)
{
	static const struct column col[] = {
		{"vm", "vm", NULL, 4, false},
		{"pages", "pages", NULL, 12, true},
		{"lagged", "lagged", NULL, 12, true},
		{"differences", "differences", NULL, 14, true},
	};
	char a[CELL], b[CELL], c[CELL], d[CELL], f[CELL];
	unsigned long long wrong = ept_differences(list);
	const json_t *vm, *first;
	size_t i, k;

	print_table(out, list, col, OB_ARRAY_SIZE(col));
	json_array_foreach (list, i, vm) {
		json_array_foreach (json_object_get(vm, "first"), k, first)
			fprintf(out, "guest %s: page %s (gfn %s): the map says %s, the kernel %s\n",
				value(a, json_object_get(vm, "vm")),
				value(b, json_object_get(first, "page")),
				value(c, json_object_get(first, "gfn")),
				value(d, json_object_get(first, "map")),
				value(f, json_object_get(first, "kernel")));
	}
	if (wrong)
		fprintf(out, "%llu pages are not what the map says\n", wrong);
}

/* --- walk -------------------------------------------------------------------------------- */

static void print_page(FILE *out, const json_t *page)
{
	char buf[CELL];

	fprintf(out, "page       %s", value(buf, json_object_get(page, "state")));
	fprintf(out, ", frame %s", value(buf, json_object_get(page, "frame")));
	fprintf(out, ", hva %s", value(buf, json_object_get(page, "hva")));
	fprintf(out, ", pfn %s\n", value(buf, json_object_get(page, "pfn")));
}

void ept_print_walk(FILE *out, const json_t *walk)
{
	char a[CELL], b[CELL], c[CELL], d[CELL];
	const json_t *level;
	size_t i;

	fprintf(out, "guest %s, gva %s, paging %s\n\n", value(a, json_object_get(walk, "vm")),
		value(b, json_object_get(walk, "gva")), value(c, json_object_get(walk, "mode")));
	fprintf(out, "%-8s%-22s%-22s%s\n", "level", "entry at", "entry", "flags");
	json_array_foreach (json_object_get(walk, "levels"), i, level)
		fprintf(out, "%-8.8s%-22.21s%-22.21s%.26s\n",
			value(a, json_object_get(level, "name")),
			value(b, json_object_get(level, "at")),
			value(c, json_object_get(level, "entry")),
			value(d, json_object_get(level, "flags")));
	fputc('\n', out);
	if (json_is_true(json_object_get(walk, "ok"))) {
		fprintf(out, "gpa        %s, in a page of %s bytes\n",
			value(a, json_object_get(walk, "gpa")),
			value(b, json_object_get(walk, "page_size")));
		fprintf(out, "allowed    writable %s, user %s, no-execute %s\n",
			value(a, json_object_get(walk, "writable")),
			value(b, json_object_get(walk, "user")),
			value(c, json_object_get(walk, "nx")));
		print_page(out, json_object_get(walk, "page"));
	} else {
		fprintf(out, "stopped    %s: %s\n", value(a, json_object_get(walk, "stop_level")),
			value(b, json_object_get(walk, "stop")));
	}
	fprintf(out, "references native %s, nested paging %s, shadow paging %s\n",
		value(a, member(walk, "references", "native")),
		value(b, member(walk, "references", "nested")),
		value(c, member(walk, "references", "shadow")));
}
