/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_cells.c: how many guests to a cell? The measurement behind FLEET_DEFAULT_CELL.
 *
 * Few guests to a cell: cheap memory operations (each VM is an MMU notifier on its process, see
 * bench_ops.c), but a process, a scanner and a coordinator's round for every few guests. Many: the
 * other way round. So the same fleet is run with cells of 1 to 32, under a workload that writes,
 * and three things are compared with the default size, run by run: what a merged page costs in CPU
 * time, how long it takes until 95 % are saved, and what an idle guest costs in memory.
 */
#include <errno.h>

#include "harness/bench_demo.h"
#include "harness/report.h"

#define CELLS_GUESTS  32
#define CELLS_MEM     (16 * OB_MIB)
#define CELLS_SECONDS 5
#define CELLS_TIMEOUT 120

struct cell_cost {
	double us_a_page, to_95, ops, idle_kib;
};

static int run_one(struct demo *d, unsigned int cell, uint64_t seed, struct cell_cost *out,
		   struct ob_err *e)
{
	const struct demo_fleet f = {
		.guests = CELLS_GUESTS,
		.mem = CELLS_MEM,
		.sharing = "hash",
		.workload = "kv",
		.cell = cell,
		.seconds = CELLS_SECONDS,
		.seed = seed,
	};
	struct bench_child c = {.out = -1};
	const json_t *run;
	json_t *doc = NULL;
	int ret = demo_fleet_start(d, &f, &c, NULL, e);

	if (!ret)
		ret = bench_child_finish(&c, CELLS_TIMEOUT, &doc, e);
	if (!ret) {
		run = json_array_get(json_object_get(doc, "runs"), 0);
		out->us_a_page =
			report_num(run, "merge_cpu_seconds") * 1e6 /
			(report_num(run, "hash.merged_pages") + report_num(run, "hash.zero_pages"));
		out->to_95 = report_num(run, "merge_seconds_to_95");
		out->ops = report_num(run, "ops_per_second");
	}
	json_decref(doc);
	return ret ? ret : demo_idle_cell(d, CELLS_GUESTS, CELLS_MEM, cell, &out->idle_kib, e);
}

int demo_cells(struct demo *d, struct ob_err *e)
{
	static const unsigned int size[] = {1, 2, 4, 8, 16, 32};
	enum { SIZES = OB_ARRAY_SIZE(size) };
	struct bench_figure *cpu[SIZES], *t95[SIZES], *ops[SIZES], *idle[SIZES];
	char name[96], ref[96];
	unsigned int base = 0;

	snprintf(ref, sizeof(ref), "cells of %u, the default", FLEET_DEFAULT_CELL);
	while (base < SIZES && size[base] != FLEET_DEFAULT_CELL)
		base++;
	OB_ASSERT(base < SIZES);
	for (unsigned int k = 0; k < 4; k++)
		for (unsigned int i = 0; i < SIZES; i++) {
			static const char *const what[] = {"merge CPU a page", "95 % saved after",
							   "guest operations",
							   "idle guest besides its memory"};
			static const char *const unit[] = {"us", "s", "1/s", "KiB"};
			struct bench_figure **f[] = {cpu, t95, ops, idle};

			snprintf(name, sizeof(name), "%s, 32 guests in cells of %u", what[k],
				 size[i]);
			f[k][i] = bench_figure(d->b, name, unit[k], i == base ? NULL : ref);
		}
	for (unsigned int n = 0; n < demo_count(d, 3, 1); n++) {
		struct cell_cost c[SIZES];

		/* Another one first in each round, up and down by turns. */
		for (unsigned int k = 0; k < SIZES; k++) {
			unsigned int i = ((n % 2 ? SIZES - 1 - k : k) + 2 * n) % SIZES;
			int ret;

			bench_say("cells of %u, round %u", size[i], n + 1);
			ret = run_one(d, size[i], n + 1, &c[i], e);
			if (ret)
				return ret;
		}
		for (unsigned int i = 0; i < SIZES; i++) {
			if (i == base) {
				bench_add_ours(cpu[i], c[i].us_a_page);
				bench_add_ours(t95[i], c[i].to_95);
				bench_add_ours(ops[i], c[i].ops);
				bench_add_ours(idle[i], c[i].idle_kib);
				continue;
			}
			bench_add(cpu[i], c[i].us_a_page, c[base].us_a_page);
			bench_add(t95[i], c[i].to_95, c[base].to_95);
			bench_add(ops[i], c[i].ops, c[base].ops);
			bench_add(idle[i], c[i].idle_kib, c[base].idle_kib);
		}
	}
	return 0;
}
