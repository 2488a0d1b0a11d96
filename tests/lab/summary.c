/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary.c: what the lab's runs say, side by side, and whether they hold what is promised of them
 * (scripts/lab.sh). Reads results and nothing else, so that it can be run again on what lies there.
 *
 *	labsum NAME=RESULT.JSON[:WORD]...
 *
 * WORDs ask for more of a result: `tdp` or `shadow` (how KVM mapped its guests), `reference` (without
 * KASLR: its saving is compared with that of the result that differs from it by KASLR alone; its checks
 * are the same, and there must be such a result). `brief` asks for less: it was too short for Linux KSM to have
 * finished for certain, so what hash saves is held against what that had saved by then.
 * Exit status: 0 all holds, 1 something does not, 2 bad usage.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/lab/check.h"
#include "tests/lab/kinds.h"

#define RESULTS_MAX 16

static double shared(const json_t *p)
{
	return result_number(p, "saved", "zero") + result_number(p, "saved", "intra") +
	       result_number(p, "saved", "inter");
}

/* Of all guests and vCPUs: statistic @name of KVM at reading @at. Negative: it was not counted. */
static double kvm_stat(const struct result *r, const char *name, size_t at)
{
	const json_t *stats = json_object_get(r->run, "kvm_stats"), *g, *name_of, *cpu;
	double sum = -1;
	size_t i, j, k;

	json_array_foreach (json_object_get(stats, "zero"), i, name_of)
		if (!strcmp(json_string_value(name_of), name))
			sum = 0;
	json_array_foreach (json_object_get(stats, "guests"), i, g) {
		json_array_foreach (json_object_get(stats, "vm"), j, name_of)
			if (!strcmp(json_string_value(name_of), name))
				sum = (sum < 0 ? 0 : sum) +
				      json_number_value(json_array_get(
					      json_array_get(json_object_get(g, "vm"), j), at));
		json_array_foreach (json_object_get(stats, "vcpu"), j, name_of) {
			if (strcmp(json_string_value(name_of), name))
				continue;
			json_array_foreach (json_object_get(g, "vcpu"), k, cpu)
				sum = (sum < 0 ? 0 : sum) +
				      json_number_value(json_array_get(json_array_get(cpu, j), at));
		}
	}
	return sum;
}

/* The reading at or after time @t of the run; the last one when there is none. */
static size_t reading(const struct result *r, double t)
{
	const json_t *times = json_object_get(json_object_get(r->run, "kvm_stats"), "t"), *v;
	size_t i;

	json_array_foreach (times, i, v)
		if (json_number_value(v) >= t)
			return i;
	return i ? i - 1 : 0;
}

static void row(const char *what, const struct result *r, unsigned int n,
		double (*value)(const struct result *r, const char *arg), const char *arg,
		const char *fmt)
{
	printf("%-34s", what);
	for (unsigned int i = 0; i < n; i++) {
		double v = value(&r[i], arg);
		char text[32] = "-";

		if (v >= 0) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			snprintf(text, sizeof(text), fmt, v);
#pragma GCC diagnostic pop
		}
		printf("%18s", text);
	}
	putchar('\n');
}

/* @arg: "PHASE KEY" or "PHASE KEY OF-IT". In MiB when it is bytes. */
static double of_phase(const struct result *r, const char *arg)
{
	char word[3][32] = {"", "", ""};
	const json_t *p;
	double v;

	if (sscanf(arg, "%31s %31s %31s", word[0], word[1], word[2]) < 2)
		return -1;
	p = result_phase(r, word[0]);
	if (!p)
		return -1;
	v = result_number(p, word[1], *word[2] ? word[2] : NULL);
	return !strncmp(word[1], "saved", 5) ? v / MIB : v;
}

static double of_run(const struct result *r, const char *arg)
{
	return result_number(r->run, arg, NULL);
}

/* @arg: "PHASE STATISTIC": how much it grew a second of that phase. */
static double stat_rate(const struct result *r, const char *arg)
{
	char word[2][64];
	const json_t *p;
	size_t from, to;
	double a, b;

	if (sscanf(arg, "%63s %63s", word[0], word[1]) != 2)
		return -1;
	p = result_phase(r, word[0]);
	if (!p)
		return -1;
	a = result_number(p, "from_seconds", NULL);
	b = result_number(p, "to_seconds", NULL);
	from = reading(r, a);
	to = reading(r, b);
	if (kvm_stat(r, word[1], to) < 0 || b <= a)
		return -1;
	return (kvm_stat(r, word[1], to) - kvm_stat(r, word[1], from)) / (b - a);
}

static double stat_all(const struct result *r, const char *arg)
{
	return kvm_stat(r, arg, reading(r, 1e18));
}

static void show_phases(const struct result *r, unsigned int n)
{
	static const char *const modes[] = {"off", "kernel", "hash"};
	static const char *const kinds[] = {"zero", "intra", "inter"};
	char what[64], arg[64];

	for (size_t m = 0; m < 3; m++) {
		for (size_t k = 0; k < 3; k++) {
			snprintf(what, sizeof(what), "%s: %s, MiB", modes[m], kinds[k]);
			snprintf(arg, sizeof(arg), "%s saved %s", modes[m], kinds[k]);
			row(what, r, n, of_phase, arg, "%.1f");
		}
		snprintf(what, sizeof(what), "%s: saved net, MiB", modes[m]);
		snprintf(arg, sizeof(arg), "%s saved_bytes", modes[m]);
		row(what, r, n, of_phase, arg, "%.1f");
		snprintf(what, sizeof(what), "%s: merge CPU, s", modes[m]);
		snprintf(arg, sizeof(arg), "%s merge_cpu_seconds", modes[m]);
		row(what, r, n, of_phase, arg, "%.1f");
		snprintf(what, sizeof(what), "%s: guest ops/s", modes[m]);
		snprintf(arg, sizeof(arg), "%s ops_per_second", modes[m]);
		row(what, r, n, of_phase, arg, "%.0f");
		snprintf(what, sizeof(what), "%s: mismatches", modes[m]);
		snprintf(arg, sizeof(arg), "%s integrity mismatches", modes[m]);
		row(what, r, n, of_phase, arg, "%.0f");
	}
}

static void show_stats(const struct result *r, unsigned int n)
{
	static const char *const rates[] = {"exits",	 "pf_taken",	     "pf_fixed",
					    "tlb_flush", "remote_tlb_flush", "mmu_shadow_zapped"};
	static const char *const sums[] = {
		"exits",	 "pf_taken",	"pf_fixed",	    "pf_guest",
		"invlpg",	 "tlb_flush",	"remote_tlb_flush", "mmu_shadow_zapped",
		"mmu_pte_write", "mmu_flooded", "mmu_recycled",	    "mmu_unsync",
		"pages_4k",	 "pages_2m",	"insn_emulation"};
	static const char *const modes[] = {"off", "kernel", "hash"};
	char what[96], arg[96];

	puts("\nKVM's own counters, all guests: in the whole run");
	for (size_t i = 0; i < sizeof(sums) / sizeof(*sums); i++)
		row(sums[i], r, n, stat_all, sums[i], "%.0f");
	puts("and a second of each mode");
	for (size_t i = 0; i < sizeof(rates) / sizeof(*rates); i++)
		for (size_t m = 0; m < 3; m++) {
			snprintf(what, sizeof(what), "%s, %s", rates[i], modes[m]);
			snprintf(arg, sizeof(arg), "%s %s", modes[m], rates[i]);
			row(what, r, n, stat_rate, arg, "%.0f");
		}
}

/* What @a saves less than @without, which differs from it in having no KASLR. */
static void show_kaslr(const struct result *a, const struct result *without)
{
	const json_t *x = result_phase(a, "hash"), *y = result_phase(without, "hash");

	if (!x || !y || shared(y) <= 0)
		return;
	printf("\nKASLR (%s beside %s), hash: %.1f MiB less are shared across VMs, %.1f MiB less "
	       "within "
	       "one,\n%.1f MiB less as zero pages\n",
	       a->name, without->name,
	       (result_number(y, "saved", "inter") - result_number(x, "saved", "inter")) / MIB,
	       (result_number(y, "saved", "intra") - result_number(x, "saved", "intra")) / MIB,
	       (result_number(y, "saved", "zero") - result_number(x, "saved", "zero")) / MIB);
	kinds_show("kernel", a->name, result_phase(a, "kernel"), without->name,
		   result_phase(without, "kernel"));
	kinds_show("hash", a->name, x, without->name, y);
}

static void show(const struct result *r, unsigned int n)
{
	const json_t *c = json_object_get(r[0].doc, "config");

	printf("%.0f guests of %.0f MiB, each started once and switched between the modes\n",
	       result_number(c, "guests", NULL), result_number(c, "mem_bytes", NULL) / MIB);
	printf("%-34s", "outer kernel, KVM, guests");
	for (unsigned int i = 0; i < n; i++)
		printf("%18s", r[i].name);
	printf("\n%-34s", "paging");
	for (unsigned int i = 0; i < n; i++) {
		const char *mode = json_string_value(
			json_object_get(json_object_get(r[i].doc, "host"), "kvm_mode"));

		printf("%18s", mode ? mode : "?");
	}
	putchar('\n');
	row("all guests' agents are ready, s", r, n, of_run, "warm_seconds", "%.1f");
	show_phases(r, n);
	show_stats(r, n);
	for (unsigned int i = 0; i < n; i++) {
		const struct result *partner = r[i].reference ? result_partner(r, n, &r[i]) : NULL;

		if (partner)
			show_kaslr(partner, &r[i]);
	}
}

int main(int argc, char **argv)
{
	struct result r[RESULTS_MAX] = {{0}};
	unsigned int n = 0, failures = 0;

	if (argc < 2 || argc > RESULTS_MAX + 1) {
		fprintf(stderr,
			"usage: labsum NAME=RESULT.JSON[:tdp|:shadow][:reference][:brief]...\n");
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		int status = result_load(&r[n], argv[i]);

		if (status == 2)
			return 2;
		failures += status == 1;
		n += status == 0;
	}
	if (n)
		show(r, n);
	putchar('\n');
	for (unsigned int i = 0; i < n; i++) {
		check(&r[i], r, n);
		failures += r[i].failures;
	}
	for (unsigned int i = 0; i < n; i++)
		json_decref(r[i].doc);
	printf("%s\n", failures ? "lab: NOT all as it should be" : "lab: all as it should be");
	return failures != 0;
}
