/* SPDX-License-Identifier: Apache-2.0 */
/* pure_pages.c: the option --pages: what is understood, and what results and tables say of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"
#include "harness/result.h"

static enum opts_outcome parse(struct fleet_config *c, const char *line, struct ob_err *e)
{
	char words[200], *argv[12], *save = NULL;
	struct opts_given given;
	int argc = 0;

	snprintf(words, sizeof(words), "%s", line);
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	e->msg[0] = '\0';
	return opts_parse(c, &given, argv[0], argc, argv, e);
}

Test(pages, modes_and_thresholds)
{
	static const struct {
		const char *line;
		enum ept_pages pages;
		unsigned int threshold;
	} good[] = {
		{"fleet", EPT_PAGES_4K, 0},
		{"fleet --pages 4k", EPT_PAGES_4K, 0},
		{"run --pages 2m", EPT_PAGES_2M, 0},
		{"compare --pages adaptive", EPT_PAGES_ADAPTIVE, EPT_HUGE_THRESHOLD},
		{"fleet --pages adaptive --huge-threshold 1", EPT_PAGES_ADAPTIVE, 1},
		{"fleet --huge-threshold 512 --pages adaptive", EPT_PAGES_ADAPTIVE, 512},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(good); i++) {
		struct fleet_config c;
		struct ob_err e;

		cr_assert_eq(parse(&c, good[i].line, &e), OPTS_OK, "%s: %s", good[i].line, e.msg);
		cr_assert_eq(c.pages, good[i].pages, "%s", good[i].line);
		cr_assert_eq(c.huge_threshold, good[i].threshold, "%s", good[i].line);
	}
}

Test(pages, bad_lines)
{
	static const char *const bad[][2] = {
		{"fleet --pages 1g", "4k, 2m and adaptive"},
		{"fleet --pages=", "adaptive"},
		{"fleet --pages", "needs a value"},
		{"run --pages 2M", "'2M'"},
		{"fleet --pages adaptive --huge-threshold 0", "512"},
		{"fleet --pages adaptive --huge-threshold 513", "512"},
		{"fleet --pages adaptive --huge-threshold x", "whole number"},
		{"fleet --huge-threshold 64", "--pages 4k"},
		{"fleet --pages 2m --huge-threshold 64", "--pages 2m"},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		struct fleet_config c;
		struct ob_err e;

		cr_assert_eq(parse(&c, bad[i][0], &e), OPTS_BAD, "taken: %s", bad[i][0]);
		cr_assert(e.msg[0] && !strchr(e.msg, '\n'), "not one line for: %s", bad[i][0]);
		cr_assert(strstr(e.msg, bad[i][1]), "'%s' says: %s", bad[i][0], e.msg);
	}
}

static struct ept_huge_stats some(uint64_t v)
{
	return (struct ept_huge_stats){.units = 16 * v,
				       .huge = 10 * v,
				       .broken = 6 * v,
				       .breaks = 7 * v,
				       .builds = v,
				       .refused = 3 * v,
				       .freed_bytes = 4096 * v,
				       .probes = 5 * v,
				       .cold = 4 * v};
}

static void make(struct run_result *r, enum run_status status)
{
	*r = (struct run_result){.sharing = "hash", .status = status, .guests = 2};
	r->guest = calloc(2, sizeof(*r->guest));
	cr_assert(r->guest);
	r->guest[0].huge = some(1);
	r->guest[1].huge = some(100);
}

Test(pages, counters_survive_their_document)
{
	const struct ept_huge_stats is = some(3), none = {0};
	struct ept_huge_stats got;
	json_t *o = result_huge_json(&is);

	result_huge_take(&got, o);
	cr_assert(!memcmp(&got, &is, sizeof(is)));
	json_decref(o);
	o = result_huge_json(&none);
	cr_assert(json_is_null(o), "small pages have none");
	result_huge_take(&got, o);
	cr_assert(!memcmp(&got, &none, sizeof(none)));
	json_decref(o);
}

Test(pages, in_the_document)
{
	struct fleet_config c = {.guests = 2,
				 .workload = {"kv"},
				 .nworkloads = 1,
				 .pages = EPT_PAGES_ADAPTIVE,
				 .huge_threshold = 77};
	static const enum run_status status[] = {RUN_OK, RUN_FAILED};

	for (int i = 0; i < 2; i++) {
		const json_t *run, *config, *huge;
		struct run_result r;
		json_t *doc;

		make(&r, status[i]);
		doc = result_json(&c, &r, 1, r.status);
		config = json_object_get(doc, "config");
		run = json_array_get(json_object_get(doc, "runs"), 0);
		huge = json_object_get(run, "huge");
		cr_assert_str_eq(json_string_value(json_object_get(config, "pages")), "adaptive");
		cr_assert_eq(json_integer_value(json_object_get(config, "huge_threshold")), 77);
		if (status[i] == RUN_FAILED) {
			cr_assert(json_is_null(huge), "a failed run has no figure");
		} else {
			cr_assert_eq(json_integer_value(json_object_get(huge, "huge")), 1010);
			cr_assert_eq(json_integer_value(json_object_get(huge, "rebuilt")), 101);
			huge = json_object_get(
				json_array_get(json_object_get(run, "guest_list"), 1), "huge");
			cr_assert_eq(json_integer_value(json_object_get(huge, "units")), 1600);
		}
		json_decref(doc);
		run_result_free(&r);
	}
}

Test(pages, in_the_table)
{
	struct fleet_config c = {.guests = 2, .workload = {"kv"}, .nworkloads = 1};

	for (unsigned int m = 0; m < EPT_PAGES_NMODES; m++) {
		struct run_result r;
		char *text = NULL;
		size_t len = 0;
		FILE *f = open_memstream(&text, &len);

		c.pages = (enum ept_pages)m;
		make(&r, RUN_OK);
		table_print(f, &c, &r, 1);
		fclose(f);
		cr_assert_eq(strstr(text, "in huge pages") != NULL, m != EPT_PAGES_4K);
		cr_assert(m == EPT_PAGES_4K || strstr(text, ept_pages_name(c.pages)));
		cr_assert(m == EPT_PAGES_4K || strstr(text, "2.0 GiB"), "1010 units: %s", text);
		free(text);
		run_result_free(&r);
	}
}
