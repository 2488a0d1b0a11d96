/* SPDX-License-Identifier: Apache-2.0 */
/* pure_table.c: the table for a person: sizes, columns,
 * what is left out and what is made harmless. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"

Test(table, bytes)
{
	static const struct {
		int64_t v;
		const char *s;
	} cases[] = {
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1536, "1.5 KiB"},
		{-1536, "-1.5 KiB"},
		{1048575, "1.0 MiB"}, /* not 1024.0 KiB */
		{512 * (int64_t)OB_MIB, "512.0 MiB"},
		{3 * (int64_t)OB_GIB / 2, "1.5 GiB"},
		{INT64_MAX, "8.0 EiB"},
		{INT64_MIN, "-8.0 EiB"},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		char buf[24];

		cr_expect_str_eq(table_bytes(buf, cases[i].v), cases[i].s);
	}
}

/* Against the number read back: within half a digit, and never 1024 of a unit. */
Test(table, bytes_random)
{
	unsigned int seed = 4711;

	srand(seed);
	for (int i = 0; i < 100000; i++) {
		int64_t v = ((int64_t)rand() << 32 | (int64_t)rand() << 1) >> (rand() % 63);
		char buf[24], unit[8];
		double shown, size = 1;

		table_bytes(buf, v);
		cr_assert_eq(sscanf(buf, "%lf %7s", &shown, unit), 2, "seed %u: %s", seed, buf);
		cr_assert_lt(shown, 1024.0, "seed %u: %lld is %s", seed, (long long)v, buf);
		for (const char *u = "BKMGTPE"; *u != unit[0]; u++)
			size *= 1024;
		cr_assert_leq((double)v - shown * size, 0.051 * size, "seed %u: %lld is %s", seed,
			      (long long)v, buf);
		cr_assert_geq((double)v - shown * size, -0.051 * size, "seed %u: %lld is %s", seed,
			      (long long)v, buf);
	}
}

static struct run_result a_run(const char *sharing)
{
	struct run_result r = {
		.guests = 2,
		.configured_bytes = OB_GIB,
		.touched_bytes = 900 * OB_MIB,
		.resident_bytes = 400 * OB_MIB,
		.resident_bytes_kernel = 401 * OB_MIB,
		.saved_bytes = 500 * (int64_t)OB_MIB,
		.merge_cpu_seconds = 12345.67,
		.merge_seconds_to_95 = -1,
		.ops_per_second = 123456789,
		.lat_p50_us = 999.9,
		.lat_p99_us = 123456,
		.checked_pages = 123456789012,
	};

	strcpy(r.sharing, sharing);
	return r;
}

static char *print(const struct run_result *runs, unsigned int n)
{
	struct fleet_config c = {
		.guests = 2, .mem_bytes = 512 * OB_MIB, .workload = {"kv"}, .nworkloads = 1};
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	cr_assert(f);
	table_print(f, &c, runs, n);
	fclose(f);
	return text;
}

/* The line that begins with @label. */
static void line_of(const char *text, const char *label, char *line, size_t n)
{
	const char *p = text;

	while (p && strncmp(p, label, strlen(label)) != 0) {
		p = strchr(p, '\n');
		p = p ? p + 1 : NULL;
	}
	cr_assert(p, "no line '%s'", label);
	snprintf(line, n, "%.*s", (int)strcspn(p, "\n"), p);
}

Test(table, three_runs_in_80_columns)
{
	struct run_result runs[] = {a_run("off"), a_run("hash"), a_run("kernel")};
	char *text = print(runs, 3), line[200];
	size_t width = 0;

	for (const char *p = text; *p; p += strcspn(p, "\n") + 1) {
		size_t n = strcspn(p, "\n");

		cr_expect_leq(n, 80, "too long: %.*s", (int)n, p);
	}
	line_of(text, "sharing", line, sizeof(line));
	width = strlen(line);
	line_of(text, "resident", line, sizeof(line));
	cr_expect_eq(strlen(line), width, "aligned");
	line_of(text, "guest ops/s (of off)", line, sizeof(line));
	cr_expect(strstr(line, "(100 %)"));
	line_of(text, "time to 95", line, sizeof(line));
	cr_expect_eq(line[strlen(line) - 1], '-', "never is a dash: %s", line);
	free(text);
}

Test(table, failed_run_shows_no_figure)
{
	struct run_result runs[] = {a_run("off"), a_run("hash")};
	char *text, line[200];

	runs[1].status = RUN_FAILED;
	runs[1].mismatches = 3;
	strcpy(runs[1].note, "memory was wrong");
	text = print(runs, 2);
	line_of(text, "resident", line, sizeof(line));
	cr_expect_eq(line[strlen(line) - 1], '-', "%s", line);
	line_of(text, "  mismatches", line, sizeof(line));
	cr_expect_eq(line[strlen(line) - 1], '3', "%s", line);
	line_of(text, "hash: failed: memory was wrong", line, sizeof(line));
	free(text);
	/* A control that failed is nothing to be relative to. */
	runs[0].status = RUN_FAILED;
	runs[1].status = RUN_OK;
	text = print(runs, 2);
	cr_expect(!strstr(text, "(of off)"));
	free(text);
}

/* What a guest says must not steer the terminal. */
Test(table, words_of_guests)
{
	struct run_result r = a_run("off");
	struct run_guest guests[20] = {0};
	char *text, line[200];

	r.guest = guests;
	r.guests = 20;
	for (unsigned int i = 0; i < 20; i++) {
		guests[i].id = i;
		strcpy(guests[i].end, "failed");
		strcpy(guests[i].reason, "a \033[2Jb\nc");
	}
	text = print(&r, 1);
	cr_expect(!strchr(text, '\033'));
	cr_expect(strstr(text, "a ?[2Jb?c"));
	line_of(text, "  and 12 guests more", line, sizeof(line));
	free(text);
}

/* A line for each domain; guests that are alone are one line together, however many they are. */
Test(table, domains_are_listed_when_there_are_several)
{
	struct run_domain domain[] = {
		{.name = "tenant-a", .guests = 2, .saved_inter = 5 * OB_MIB},
		{.name = "intra", .guests = 1, .saved_intra = OB_MIB},
		{.name = "intra", .guests = 1, .saved_intra = 2 * OB_MIB},
	};
	struct run_pool pool[] = {{.domain = 0, .frames = 256}, {.domain = 0, .frames = 256}};
	struct run_result r = a_run("hash");
	char *text = print(&r, 1), line[200];

	cr_expect_null(strstr(text, "by domain"));
	free(text);
	r.domain = domain;
	r.ndomains = 3;
	r.pool = pool;
	r.npools = 2;
	text = print(&r, 1);
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		cr_expect_leq(strcspn(p, "\n"), 80);
	line_of(text, "hash, by domain", line, sizeof(line));
	line_of(text, "  tenant-a", line, sizeof(line));
	cr_expect(strstr(line, "5.0 MiB") && strstr(line, "2.0 MiB"), "%s", line);
	line_of(text, "  intra", line, sizeof(line));
	cr_expect(strstr(line, " 2 ") && strstr(line, "3.0 MiB"), "%s", line);
	free(text);
	r.status = RUN_FAILED;
	text = print(&r, 1);
	cr_expect_null(strstr(text, "by domain"), "a failed run has no figure");
	free(text);
}
