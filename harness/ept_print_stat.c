/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept_print_stat.c: what `overbook ept stat` shows: one guest at length, or several in a line each. The
 * parts that no guest has are left out of the second, and states that we do not know are shown by the
 * name that they have.
 */
#include <string.h>

#include "harness/ept_print.h"

static const char *const states[] = {"untouched",  "zero",    "private",   "shared",
				     "compressed", "swapped", "ballooned", "remote"};
static const char *const outcomes[] = {"zero-filled", "staging",   "tier",
				       "cow-broken",  "redundant", "failed"};

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
	static const struct ept_column by_state[] = {
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
	static const struct ept_column more[] = {
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
	struct ept_column faults[OB_ARRAY_SIZE(outcomes) + 1] = {{"vm", "vm", NULL, 4, false}};
	json_t *counts = json_array(), *row;
	const json_t *vm;
	size_t i;

	ept_text_table(out, list, by_state, OB_ARRAY_SIZE(by_state));
	/* Counts lie one level deeper than a table looks. */
	json_array_foreach (list, i, vm) {
		row = json_object();
		json_object_set(row, "vm", json_object_get(vm, "vm"));
		for (size_t k = 0; k < OB_ARRAY_SIZE(outcomes); k++) {
			json_t *n = json_object_get(ept_text_member(vm, "faults", outcomes[k]),
						    "count");

			if (n)
				json_object_set(row, outcomes[k], n);
		}
		json_array_append_new(counts, row);
	}
	for (size_t k = 0; k < OB_ARRAY_SIZE(outcomes); k++)
		faults[k + 1] = (struct ept_column){outcomes[k], outcomes[k], NULL, 12, true};
	if (any_has(list, "faults")) {
		fputs("\nfaults by outcome\n", out);
		ept_text_table(out, counts, faults, OB_ARRAY_SIZE(faults));
	}
	json_decref(counts);
	if (any_has(list, "huge") || any_has(list, "working_set") || any_has(list, "staged")) {
		fputs("\nstaging, huge pages, working set\n", out);
		ept_text_table(out, list, more, OB_ARRAY_SIZE(more));
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
	char buf[EPT_TEXT], plain[EPT_TEXT];
	json_t *text = json_string(name);

	fprintf(out, "  %-16.28s%14s", ept_text_value(plain, text), ept_text_value(buf, v));
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
	char n[EPT_TEXT], a[EPT_TEXT], b[EPT_TEXT], c[EPT_TEXT];

	fprintf(out, "\n%-18s%14s%11s%11s%11s\n", "faults by outcome", "count", "p50", "p99",
		"p99.9");
	for (size_t i = 0; i < OB_ARRAY_SIZE(outcomes); i++) {
		const json_t *f = ept_text_member(vm, "faults", outcomes[i]);

		fprintf(out, "  %-16s%14s%11s%11s%11s\n", outcomes[i],
			ept_text_value(n, json_object_get(f, "count")),
			ept_text_latency(a, json_object_get(f, "p50_ns")),
			ept_text_latency(b, json_object_get(f, "p99_ns")),
			ept_text_latency(c, json_object_get(f, "p999_ns")));
	}
}

/* All members of an object, two in a line. */
static void print_pairs(FILE *out, const char *title, const json_t *o)
{
	const char *name;
	unsigned int n = 0;
	char a[EPT_TEXT], b[EPT_TEXT];
	const json_t *v;
	json_t *text;

	fprintf(out, "\n%s\n", title);
	json_object_foreach ((json_t *)(uintptr_t)o, name, v) {
		text = json_string(name);
		fprintf(out, "  %-26.26s%12.12s%s", ept_text_value(a, text),
			ept_text_count(b, v, 13), n % 2 ? "\n" : "");
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
	const json_t *domain = json_object_get(vm, "domain");
	char a[EPT_TEXT], b[EPT_TEXT], c[EPT_TEXT], d[EPT_TEXT], e[EPT_TEXT];
	size_t i;

	fprintf(out, "guest %s in cell %s, %s pages of 4 KiB, mapped by KVM as: %s%s%s\n",
		ept_text_value(a, json_object_get(vm, "vm")),
		ept_text_value(b, json_object_get(vm, "cell")),
		ept_text_value(c, json_object_get(vm, "pages")),
		ept_text_value(d, json_object_get(vm, "mode")), domain ? "; sharing domain " : "",
		domain ? ept_text_value(e, domain) : "");
	print_states(out, vm);
	print_faults(out, vm);
	fprintf(out, "\nhuge pages (2 MiB)\n  units %s, huge %s, broken %s, rebuilt %s\n",
		ept_text_value(a, ept_text_member(vm, "huge", "units")),
		ept_text_value(b, ept_text_member(vm, "huge", "huge")),
		ept_text_value(c, ept_text_member(vm, "huge", "broken")),
		ept_text_value(d, ept_text_member(vm, "huge", "rebuilt")));
	fprintf(out, "\nworking set\n  %s pages, %s samples in %s s",
		ept_text_value(a, ept_text_member(vm, "working_set", "pages")),
		ept_text_value(b, ept_text_member(vm, "working_set", "samples")),
		ept_text_value(c, ept_text_member(vm, "working_set", "period_s")));
	fprintf(out, "; fast %s, slow %s\n",
		ept_text_value(a, ept_text_member(vm, "working_set", "fast")),
		ept_text_value(b, ept_text_member(vm, "working_set", "slow")));
	print_pairs(out, "counters", json_object_get(vm, "counters"));
	print_pairs(out, "KVM's counters of the VM", json_object_get(kvm, "vm"));
	json_array_foreach (json_object_get(kvm, "vcpu"), i, vcpu) {
		snprintf(a, sizeof(a), "KVM's counters of vCPU %zu", i);
		print_pairs(out, a, vcpu);
	}
}

void ept_print_stat(FILE *out, const json_t *list)
{
	char mode[EPT_TEXT];

	if (json_array_size(list) == 1) {
		print_one(out, json_array_get(list, 0));
		return;
	}
	fprintf(out, "%zu guests, pages of 4 KiB, mapped by KVM as: %s\n\n", json_array_size(list),
		ept_text_value(mode, json_object_get(json_array_get(list, 0), "mode")));
	print_many(out, list);
}
