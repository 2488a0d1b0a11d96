/* SPDX-License-Identifier: Apache-2.0 */
/* pure_wset_run.c: --working-set on the command line, in the result, in the table. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"
#include "harness/report.h"
#include "harness/result.h"

static enum opts_outcome parse(struct fleet_config *c, const char *line, struct ob_err *e)
{
	char words[256], *argv[20], *save = NULL;
	struct opts_given g;
	int n = 0;

	snprintf(words, sizeof(words), "%s", line);
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n] = NULL;
	e->msg[0] = '\0';
	return opts_parse(c, &g, argv[0], n, argv, e);
}

Test(wset_run, seconds_may_have_a_fraction)
{
	static const struct {
		const char *s;
		int ret;
		uint64_t ns;
	} cases[] = {
		{"30", 0, 30000000000},
		{"1.5", 0, 1500000000},
		{".5", 0, 500000000},
		{"2.", 0, 2000000000},
		{"0.000000001", 0, 1},
		{"0.0000000019", 0, 1},
		{"000", 0, 0},
		{"86400.25", 0, 86400250000000},
		{"18446744073", 0, 18446744073000000000ULL},
		{"18446744074", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{".", -EINVAL, 0},
		{"1.2.3", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{"1s", -EINVAL, 0},
		{"inf", -EINVAL, 0},
		{"nan", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		uint64_t ns = 7;
		int ret = opts_parse_seconds(cases[i].s, &ns);

		cr_expect_eq(ret, cases[i].ret, "'%s' gives %d", cases[i].s, ret);
		cr_expect_eq(ns, ret ? 7 : cases[i].ns, "'%s' is %llu", cases[i].s,
			     (unsigned long long)ns);
	}
}

Test(wset_run, options)
{
	static const char *const bad[][2] = {
		{"fleet --sample-pages 400", "--working-set"},
		{"fleet --sample-period 1", "--working-set"},
		{"fleet --working-set --sample-pages 9", "10 to 10000"},
		{"fleet --working-set --sample-pages 10001", "10 to 10000"},
		{"fleet --working-set --sample-pages x", "not a whole number"},
		{"fleet --working-set --sample-period 0.09", "0.1 to 86400"},
		{"fleet --working-set --sample-period 86401", "0.1 to 86400"},
		{"fleet --working-set --sample-period soon", "not a number of seconds"},
		{"fleet --working-set", "--seconds 34"},
		{"fleet --working-set --sample-period 10", "--sample-period"},
		{"fleet --working-set=yes", "takes no value"},
	};
	struct fleet_config c;
	struct ob_err e;

	cr_assert_eq(parse(&c, "fleet", &e), OPTS_OK);
	cr_expect_eq(c.wset.samples, 0, "off unless asked for");
	cr_assert_eq(parse(&c, "compare --working-set --seconds 60", &e), OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.wset.samples, 400);
	cr_expect_eq(c.wset.period_ns, 30 * OB_NS_PER_SEC);
	cr_assert_eq(parse(&c, "run --sample-period 2.5 --sample-pages 100 --working-set", &e),
		     OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.wset.samples, 100);
	cr_expect_eq(c.wset.period_ns, 2500 * OB_NS_PER_MS);
	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		cr_expect_eq(parse(&c, bad[i][0], &e), OPTS_BAD, "%s", bad[i][0]);
		cr_expect(strstr(e.msg, bad[i][1]), "%s: '%s' is not in: %s", bad[i][0], bad[i][1],
			  e.msg);
		cr_expect(!strchr(e.msg, '\n'), "one line: %s", e.msg);
	}
}

static struct run_result run(enum run_status status, unsigned int periods)
{
	struct run_result r = {.sharing = "hash", .status = status, .guests = 2};

	r.guest = calloc(2, sizeof(*r.guest));
	cr_assert(r.guest);
	for (unsigned int i = 0; i < 2; i++) {
		struct run_wset *w = &r.guest[i].wset;

		*w = (struct run_wset){.on = true,
				       .pages = 1000 + i,
				       .fraction = 0.25,
				       .samples = 400,
				       .period_s = 1.5,
				       .cpu_s = 0.5,
				       .nhistory = periods};
		w->history = calloc(periods + 1, sizeof(*w->history));
		for (unsigned int p = 0; p < periods; p++)
			w->history[p] = (struct run_wset_point){.t = p + 1,
								.pages = 900 + p,
								.fraction = 0.2,
								.error = 0.02,
								.low = 0.16,
								.high = 0.24,
								.samples = 398,
								.touched = 80,
								.windows = 12};
	}
	return r;
}

static const json_t *guest(const json_t *doc, size_t i)
{
	const json_t *run = json_array_get(json_object_get(doc, "runs"), 0);

	return json_array_get(json_object_get(run, "guest_list"), i);
}

Test(wset_run, document)
{
	struct fleet_config c = {.guests = 2, .wset = {400, 1500 * OB_NS_PER_MS}};
	struct run_result r = run(RUN_OK, 3);
	json_t *doc = result_json(&c, &r, 1, RUN_OK);
	const json_t *w = json_object_get(guest(doc, 1), "working_set"), *p;

	cr_expect_eq(report_num(doc, "config.working_set.samples"), 400);
	cr_expect_eq(report_num(doc, "config.working_set.period_seconds"), 1.5);
	cr_expect_eq(report_num(w, "pages"), 1001);
	cr_expect_eq(report_num(w, "fraction"), 0.25);
	cr_expect_eq(report_num(w, "samples"), 400);
	cr_expect_eq(report_num(w, "period_s"), 1.5);
	cr_expect_eq(report_num(w, "cpu_seconds"), 0.5);
	cr_assert_eq(json_array_size(json_object_get(w, "history")), 3);
	p = json_array_get(json_object_get(w, "history"), 2);
	cr_expect_eq(report_num(p, "t"), 3);
	cr_expect_eq(report_num(p, "pages"), 902);
	cr_expect_eq(report_num(p, "fraction"), 0.2);
	cr_expect_eq(report_num(p, "error"), 0.02);
	cr_expect_eq(report_num(p, "low"), 0.16);
	cr_expect_eq(report_num(p, "high"), 0.24);
	cr_expect_eq(report_num(p, "samples"), 398);
	cr_expect_eq(report_num(p, "touched"), 80);
	cr_expect_eq(report_num(p, "unit_samples"), 0);
	cr_expect_eq(report_num(p, "windows"), 12);
	cr_expect_eq(
		report_num(json_array_get(json_object_get(doc, "runs"), 0), "working_set_bytes"),
		2001 * 4096);
	json_decref(doc);
	run_result_free(&r);
}

/* No figure of a run that failed, and none before the first period was over; null where nobody
 * asked. */
Test(wset_run, document_without_figures)
{
	struct fleet_config c = {.guests = 2, .wset = {400, OB_NS_PER_SEC}};

	for (int i = 0; i < 3; i++) {
		struct run_result r = run(i ? RUN_OK : RUN_FAILED, i ? 0 : 3);
		const json_t *w;
		json_t *doc;

		if (i == 2) {
			r.guest[0].wset.on = r.guest[1].wset.on = false;
			c.wset.samples = 0;
		}
		doc = result_json(&c, &r, 1, r.status);
		w = json_object_get(guest(doc, 0), "working_set");
		cr_expect(json_is_null(report_get(json_array_get(json_object_get(doc, "runs"), 0),
						  "working_set_bytes")));
		if (i < 2) {
			cr_expect(json_is_null(json_object_get(w, "pages")));
			cr_expect(json_is_null(json_object_get(w, "fraction")));
			cr_expect_eq(json_array_size(json_object_get(w, "history")), 0);
		} else {
			cr_expect(json_is_null(w));
			cr_expect(json_is_null(report_get(doc, "config.working_set")));
		}
		json_decref(doc);
		run_result_free(&r);
	}
}

static char *printed(const struct fleet_config *c, const struct run_result *r)
{
	size_t n = 0;
	char *text = NULL;
	FILE *f = open_memstream(&text, &n);

	table_print(f, c, r, 1);
	fclose(f);
	return text;
}

Test(wset_run, table)
{
	struct fleet_config c = {.guests = 2, .mem_bytes = OB_MIB, .wset = {400, OB_NS_PER_SEC}};
	struct run_result r = run(RUN_OK, 1);
	char *text = printed(&c, &r);

	cr_expect(strstr(text, "working set, estimated"), "%s", text);
	cr_expect(strstr(text, "7.8 MiB"), "2001 pages: %s", text);
	free(text);
	c.wset.samples = 0;
	text = printed(&c, &r);
	cr_expect(!strstr(text, "working set"), "%s", text);
	free(text);
	run_result_free(&r);
}
