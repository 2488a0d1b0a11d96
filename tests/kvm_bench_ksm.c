/* SPDX-License-Identifier: Apache-2.0 */
/* kvm_bench_ksm.c: the benchmark ksm through the command, small, and the workloads made for it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cli.h"
#include "tests/ksm_lock.h"

Test(bench_ksm_cli, bad_words_are_one_line_and_status_2, .timeout = 60)
{
	static const struct {
		const char *args, *says;
	} bad[] = {
		{"bench ksm --only", "similar, shuffle, kv, steady or unique"},
		{"bench ksm --only nonsense", "'nonsense'"},
		{"bench ksm --frob", "--frob"},
		{"bench ksm word", "word"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cli c;

		cli_run(&c, bad[i].args, false, 20);
		cr_expect_eq(c.status, 2, "%s: status %d", bad[i].args, c.status);
		cr_expect(strstr(c.err, bad[i].says), "%s: %s", bad[i].args, c.err);
		cr_expect_eq(strchr(c.err, '\n'), c.err + strlen(c.err) - 1, "%s", c.err);
		cr_expect_str_empty(c.out);
		cli_free(&c);
	}
}

/* The samples of the figure whose name has @name in it: ours, or else the reference's. */
static const json_t *samples(const json_t *doc, const char *name, const char *of)
{
	json_t *f;
	size_t i;

	json_array_foreach (json_object_get(doc, "figures"), i, f)
		if (strstr(json_string_value(json_object_get(f, "figure")), name))
			return json_object_get(f, of);
	cr_assert_fail("no figure with '%s'", name);
	return NULL;
}

static void expect_positive(const json_t *doc, const char *name)
{
	static const char *const of[] = {"ours", "reference"};

	for (size_t k = 0; k < 2; k++) {
		const json_t *v = samples(doc, name, of[k]);

		cr_expect_eq(json_array_size(v), 1, "%s", name);
		cr_expect_gt(json_number_value(json_array_get(v, 0)), 0, "%s, %s", name, of[k]);
	}
}

/* One small part from end to end: both engines merge; with OB_LONG=1 (a minute more) they are
 * calibrated, find what is planted, and have used CPU time while they did. A page found wrong would have
 * failed it. */
Test(bench_ksm_cli, a_part, .timeout = 400)
{
	bool all = getenv("OB_LONG");
	char *build = realpath(cli_build(), NULL), dir[] = "/tmp/overbook-test-bench-XXXXXX";
	char cmd[100];
	json_t *doc;
	struct cli c;

	NEED_KVM();
	NEED_KSM(true);
	cr_assert(build && !setenv("OB_BUILD", build, 1));
	free(build);
	cr_assert(mkdtemp(dir) && !chdir(dir));
	cli_run(&c, all ? "bench ksm --quick --only steady" : "bench ksm --quick --only shuffle",
		false, 380);
	cr_assert_eq(c.status, 0, "%s", c.err);
	doc = json_load_file("results/bench/ksm-try.json", 0, NULL);
	cr_assert(doc);
	if (all) {
		expect_positive(doc, "found after 1 s: CPU time");
		expect_positive(doc, "to be found after 1 s: found after");
		expect_positive(doc, "faults that KVM answered");
	} else {
		expect_positive(doc, "merged pages per CPU-second");
		expect_positive(doc, "95 % of the saving after");
		expect_positive(doc, "saved, net of metadata");
	}
	json_decref(doc);
	cli_free(&c);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}

/* It writes, many times what idle does, and nothing is wrong afterwards. */
Test(bench_ksm_cli, workload_steady, .timeout = 120)
{
	json_int_t written[2];
	const json_t *run;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 2 --mem 64M --workload steady,idle --sharing hash --scan-gap 50 "
		"--seconds 5 --quiet --control none",
		true, 110);
	cr_assert_eq(c.status, 0, "%s", c.err);
	run = json_array_get(json_object_get(c.result, "runs"), 0);
	for (size_t i = 0; i < 2; i++) {
		const json_t *g = json_array_get(json_object_get(run, "guest_list"), i);

		written[i] = json_integer_value(json_object_get(g, "written_pages"));
		cr_expect_eq(json_integer_value(json_object_get(g, "mismatches")), 0);
	}
	cr_expect_gt(written[0], 4 * written[1], "%lld and %lld", (long long)written[0],
		     (long long)written[1]);
	cr_expect_eq(json_integer_value(
			     json_object_get(json_object_get(c.result, "config"), "scan_gap_ms")),
		     50);
	cli_free(&c);
}
