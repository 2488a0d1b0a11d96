/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_bench.c: the verb bench: which benchmarks there are, and the choice of one by its name. A
 * benchmark is a file bench_NAME.c with one function in the table below; it measures in pairs and
 * ends with bench_finish (bench.c).
 */
#include <string.h>

#include "harness/bench_demo.h"
#include "harness/bench_ept.h"
#include "harness/bench_ksm.h"

const struct bench_verb *bench_verbs(void)
{
	static const struct bench_verb verbs[] = {
		{"demo", bench_demo,
		 "starting guests, what an idle one costs, 200 of them; beside QEMU's microvm"},
		{"ept", bench_ept,
		 "taking pages from guests and answering their faults; beside the bare calls"},
		{"ksm", bench_ksm,
		 "our merging beside Linux KSM: the first merge, and what it costs once settled"},
		{"fleet", bench_fleet, NULL},
		{NULL, NULL, NULL},
	};

	return verbs;
}

static void list(FILE *out)
{
	const struct bench_verb *v = bench_verbs();

	fputs("Usage: overbook bench NAME [OPTION...]\n"
	      "Measures in alternating pairs with a reference; writes results/bench/NAME.json.\n",
	      out);
	if (!v->name)
		fputs("There is no benchmark in this build.\n", out);
	for (; v->name; v++)
		if (v->doc)
			fprintf(out, "  %-10s %s\n", v->name, v->doc);
}

int cmd_bench(int argc, char **argv)
{
	if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
		list(stdout);
		return OB_EXIT_OK;
	}
	if (argc < 2) {
		ob_warn("which benchmark? try overbook bench --help");
		return OB_EXIT_USAGE;
	}
	for (const struct bench_verb *v = bench_verbs(); v->name; v++)
		if (strcmp(v->name, argv[1]) == 0)
			return v->run(argc - 1, argv + 1);
	ob_warn("unknown benchmark '%.40s' (try overbook bench --help)", argv[1]);
	return OB_EXIT_USAGE;
}
