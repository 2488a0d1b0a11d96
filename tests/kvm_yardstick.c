/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_yardstick.c: the program of references that the benchmark ept starts, and that benchmark's
 * own command line and child: what they print is what the benchmark reads.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/probe.h"
#include "tests/cli.h"
#include "tests/memrig.h"

#define NEED_MOVE()                                                                 \
	do {                                                                        \
		struct probe_memory p;                                              \
                                                                                    \
		probe_memory(&p);                                                   \
		if (p.uffd_move || (p.uffd_syscall && p.uffd_device))               \
			cr_skip_test("no UFFDIO_MOVE for guests here (Linux 6.8)"); \
	} while (0)

/* One line, which is a document. */
static json_t *measure(const char *args)
{
	json_error_t why;
	struct cli c;
	json_t *doc;

	cli_run_as(&c, "yardstick", args, 120);
	cr_assert_eq(c.status, 0, "%s: status %d\n%s%s", args, c.status, c.out, c.err);
	cr_assert_str_empty(c.err, "%s: %s", args, c.err);
	doc = json_loads(c.out, 0, &why);
	cr_assert(doc, "%s: %s\n%s", args, why.text, c.out);
	cr_assert_eq(strchr(c.out, '\n'), c.out + strlen(c.out) - 1, "not one line:\n%s", c.out);
	cr_assert_str_eq(json_string_value(json_object_get(doc, "schema")), "overbook.yardstick/1");
	cli_free(&c);
	return doc;
}

static double number(const json_t *doc, const char *name)
{
	const json_t *v = json_object_get(doc, name);

	cr_assert(json_is_number(v), "no number '%s'", name);
	return json_number_value(v);
}

Test(yardstick, first, .timeout = 150)
{
	json_t *doc;

	NEED_KVM();
	doc = measure("first --mem 32M --cpu 0");
	cr_expect_gt(number(doc, "pages"), 7000);
	cr_expect_gt(number(doc, "ns_per_page"), 0);
	cr_expect_gt(number(doc, "median_ns_per_page"), 0);
	cr_expect_float_eq(number(doc, "job_ns") / number(doc, "pages"), number(doc, "ns_per_page"),
			   0.01);
	json_decref(doc);
}

Test(yardstick, fault, .timeout = 150)
{
	json_t *doc;

	NEED_KVM();
	NEED_MOVE();
	doc = measure("fault --mem 32M --samples 200 --cpu 0");
	cr_expect_eq(number(doc, "samples"), 200);
	cr_expect_gt(number(doc, "handler_p50_ns"), 0);
	/* The guest waits for all that the handler does. */
	cr_expect_gt(number(doc, "guest_p50_ns"), number(doc, "handler_p50_ns"));
	cr_expect_leq(number(doc, "guest_p50_ns"), number(doc, "guest_p99_ns"));
	cr_expect_gt(number(doc, "guest_read_p50_ns"), 0);
	cr_expect_gt(number(doc, "guest_write_p50_ns"), 0);
	json_decref(doc);
}

Test(yardstick, move, .timeout = 150)
{
	json_t *doc;

	NEED_KVM();
	NEED_MOVE();
	doc = measure("move --mem 32M --seconds 1");
	cr_expect_gt(number(doc, "rounds"), 0);
	cr_expect_gt(number(doc, "pages_per_second"), 0);
	cr_expect_gt(number(doc, "faults"), 0, "the guest has missed no page");
	cr_expect_gt(number(doc, "guest_ops_per_second"), 0);
	cr_expect_eq(number(doc, "mismatches"), 0);
	json_decref(doc);
}

Test(yardstick, bad_words_are_one_line_and_status_2, .timeout = 60)
{
	static const struct {
		const char *args, *says;
	} bad[] = {
		{"", "first, fault or move"},	   {"third", "third"},
		{"first --mem 1M", "--mem"},	   {"first --mem 64Q", "--mem"},
		{"fault --mem 4G", "3G"},	   {"fault --samples 0", "--samples"},
		{"move --seconds x", "--seconds"}, {"move --seconds", "needs a value"},
		{"first --frob 1", "--frob"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cli c;

		cli_run_as(&c, "yardstick", bad[i].args, 20);
		cr_expect_eq(c.status, 2, "%s: status %d", bad[i].args, c.status);
		cr_expect(strstr(c.err, bad[i].says), "%s: %s", bad[i].args, c.err);
		cr_expect_eq(strchr(c.err, '\n'), c.err + strlen(c.err) - 1, "%s", c.err);
		cr_expect_str_empty(c.out);
		cli_free(&c);
	}
}

Test(yardstick, what_fails_is_one_line_and_status_1, .timeout = 60)
{
	struct cli c;

	NEED_KVM();
	cli_run_as(&c, "yardstick", "first --mem 32M --kernel /etc/passwd", 20);
	cr_expect_eq(c.status, 1);
	cr_expect(strstr(c.err, "yardstick first: "), "%s", c.err);
	cr_expect_str_empty(c.out);
	cli_free(&c);
}

Test(bench_ept, bad_words_are_one_line_and_status_2, .timeout = 60)
{
	static const struct {
		const char *args, *says;
	} bad[] = {
		{"bench ept --only", "there are: first"},
		{"bench ept --only nonsense", "there are: first"},
		{"bench ept --frob", "--frob"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cli c;

		cli_run(&c, bad[i].args, false, 20);
		cr_expect_eq(c.status, 2, "%s: status %d", bad[i].args, c.status);
		cr_expect(strstr(c.err, bad[i].says), "%s: %s", bad[i].args, c.err);
		cr_expect_str_empty(c.out);
		cli_free(&c);
	}
}

/* From now on in a folder of our own, as a benchmark writes below the current one. */
static void go_elsewhere(char *dir, size_t n)
{
	char *build = realpath(cli_build(), NULL);

	cr_assert(build && !setenv("OB_BUILD", build, 1));
	free(build);
	snprintf(dir, n, "/tmp/overbook-test-bench-XXXXXX");
	cr_assert(mkdtemp(dir) && !chdir(dir));
}

/* The part that needs nothing but KVM, from end to end. */
Test(bench_ept, part_first, .timeout = 150)
{
	static const char path[] = "results/bench/ept-try.json";
	char dir[64], cmd[100];
	json_t *doc, *figure;
	struct cli c;

	NEED_KVM();
	go_elsewhere(dir, sizeof(dir));
	cli_run(&c, "bench ept --quick --only first", false, 120);
	cr_assert_eq(c.status, 0, "%s", c.err);
	doc = json_load_file(path, 0, NULL);
	cr_assert(doc);
	figure = json_array_get(json_object_get(doc, "figures"), 0);
	cr_expect(strstr(json_string_value(json_object_get(figure, "figure")), "first touch"));
	cr_expect_eq(json_array_size(json_object_get(figure, "ours")), 3);
	cr_expect_eq(json_array_size(json_object_get(figure, "reference")), 3);
	cr_expect_float_eq(number(figure, "goal"), 1.05, 1e-9);
	json_decref(doc);
	cli_free(&c);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}

/* Median of ours of the figure whose name begins so. */
static double figure(const json_t *doc, const char *name)
{
	json_t *figures = json_object_get(doc, "figures"), *f;
	double v[BENCH_MAX_SAMPLES];
	size_t i, n = 0;

	json_array_foreach (figures, i, f) {
		const json_t *ours = json_object_get(f, "ours");

		if (strncmp(json_string_value(json_object_get(f, "figure")), name, strlen(name)))
			continue;
		for (; n < json_array_size(ours); n++)
			v[n] = json_number_value(json_array_get(ours, n));
		break;
	}
	cr_assert_gt(n, 0, "no figure '%s'", name);
	return bench_median(v, (unsigned int)n);
}

/* No written page is missed, and what is hashed is what was written: else it fails by itself. */
Test(bench_ept, part_track, .timeout = 150)
{
	static const char scan[] = "write tracking beside PAGEMAP_SCAN";
	char dir[64], cmd[100], name[100];
	json_t *doc;
	struct cli c;

	NEED_KVM();
	go_elsewhere(dir, sizeof(dir));
	cli_run(&c, "bench ept --quick --only track", false, 120);
	cr_assert_eq(c.status, 0, "%s", c.err);
	doc = json_load_file("results/bench/ept-try.json", 0, NULL);
	cr_assert(doc);
	cr_expect_geq(figure(doc, "write tracking: passes"), 1000);
	cr_expect_geq(figure(doc, "write tracking: pages written"), 1000);
	cr_expect_eq(figure(doc, "write tracking: of these, not reported"), 0);
	cr_expect_lt(figure(doc, "write tracking: of all reported, not changed"), 100);
	if (!strstr(c.err, "needs Linux 6.7")) {
		snprintf(name, sizeof(name), "%s: passes", scan);
		cr_expect_geq(figure(doc, name), 200);
		snprintf(name, sizeof(name), "%s: of these, not reported", scan);
		cr_expect_eq(figure(doc, name), 0);
		snprintf(name, sizeof(name), "%s: missed by it", scan);
		cr_expect_eq(figure(doc, name), 0);
	}
	cr_expect_geq(figure(doc, "of that pass, pages hashed"), 0.9);
	cr_expect_lt(figure(doc, "of that pass, pages hashed"), 100);
	json_decref(doc);
	cli_free(&c);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}
