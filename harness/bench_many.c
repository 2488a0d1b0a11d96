/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_many.c: 200 guests of 16 MiB come up, run, are merged, and stop. A figure is only entered
 * when all of that went well: no mismatch, no guest or cell lost, exit status 0, and no process
 * left behind. Otherwise the benchmark fails.
 */
#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "harness/bench_demo.h"
#include "harness/report.h"

#define MANY_GUESTS  200
#define MANY_MEM     (16 * OB_MIB)
#define MANY_SECONDS 10
#define MANY_TIMEOUT 240

/* All that a fleet must have done for its figures to count. */
static int check_fleet(const json_t *doc, unsigned int guests, struct ob_err *e)
{
	const json_t *run = json_array_get(json_object_get(doc, "runs"), 0), *list, *g;
	size_t i;

	list = json_object_get(run, "guest_list");
	if (strcmp(report_str(doc, "status"), "ok") != 0 || json_array_size(list) != guests)
		return ob_fail(e, EIO, "the fleet of %u did not end well: %s", guests,
			       report_str(run, "note"));
	if (report_num(run, "integrity.mismatches") != 0 ||
	    !(report_num(run, "integrity.checked_pages") > 0))
		return ob_fail(e, EIO, "the fleet of %u found %.0f mismatches in %.0f pages",
			       guests, report_num(run, "integrity.mismatches"),
			       report_num(run, "integrity.checked_pages"));
	json_array_foreach (list, i, g)
		if (strcmp(report_str(g, "end"), "running") != 0 ||
		    !(report_num(g, "checked_pages") > 0))
			return ob_fail(e, EIO,
				       "guest %zu of %u did not run to the end: %.60s %.200s", i,
				       guests, report_str(g, "end"), report_str(g, "reason"));
	return 0;
}

int demo_many(struct demo *d, struct ob_err *e)
{
	const struct {
		const char *figure, *unit, *key;
		double scale;
	} want[] = {
		{"200 guests of 16M made (processes, VMs)", "s", "boot_seconds", 1},
		{"200 guests of 16M started and their memory filled", "s", "warm_seconds", 1},
		{"200 guests of 16M: touched", "MiB", "touched_bytes", 1.0 / OB_MIB},
		{"200 guests of 16M: resident after merging", "MiB", "resident_bytes",
		 1.0 / OB_MIB},
		{"200 guests of 16M: saved, net of metadata", "MiB", "saved_bytes", 1.0 / OB_MIB},
		{"200 guests of 16M: merge CPU", "s", "merge_cpu_seconds", 1},
		{"200 guests of 16M: 95 % of the saving after", "s", "merge_seconds_to_95", 1},
		{"200 guests of 16M: pages verified, all right", "pages", "integrity.checked_pages",
		 1},
	};
	struct bench_figure *fig[OB_ARRAY_SIZE(want)];

	for (size_t i = 0; i < OB_ARRAY_SIZE(want); i++)
		fig[i] = bench_figure(d->b, want[i].figure, want[i].unit, NULL);
	for (unsigned int n = 0; n < demo_count(d, 2, 1); n++) {
		const struct demo_fleet f = {
			.guests = MANY_GUESTS,
			.mem = MANY_MEM,
			.sharing = "hash",
			.workload = "idle",
			.seconds = MANY_SECONDS,
			.seed = n + 1,
		};
		struct bench_child c = {.out = -1};
		const json_t *run;
		json_t *doc = NULL;
		int ret;

		bench_say("%u guests of 16M, merged: run %u", MANY_GUESTS, n + 1);
		ret = demo_fleet_start(d, &f, &c, NULL, e);
		if (!ret)
			ret = bench_child_finish(&c, MANY_TIMEOUT, &doc, e);
		if (!ret)
			ret = check_fleet(doc, MANY_GUESTS, e);
		/* We adopt what a child leaves behind (bench_demo.c), so we would see it here. */
		if (!ret && waitpid(-1, NULL, WNOHANG) != -1)
			ret = ob_fail(e, EIO, "the fleet of %u left processes behind", MANY_GUESTS);
		if (!ret) {
			run = json_array_get(json_object_get(doc, "runs"), 0);
			for (size_t i = 0; i < OB_ARRAY_SIZE(want); i++)
				bench_add_ours(fig[i],
					       report_num(run, want[i].key) * want[i].scale);
		}
		json_decref(doc);
		if (ret)
			return ret;
	}
	return 0;
}
