/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm.c: the benchmark `ksm`: our merging beside Linux KSM, on the same fleets, in
 * alternating order. docs/benchmarks.md says what each figure is, and what is counted.
 *
 * KSM is slowed by many VMs in one process, so it runs in two layouts: *same*, in our cells, and
 * *alone*, a process for each VM. It drives KSM, which belongs to the whole host: nothing else on
 * the host should use it meanwhile, and it needs root.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_child.h"
#include "harness/bench_ksm.h"
#include "harness/bench_parts.h"

static const struct {
	const char *name;
	int (*run)(struct kbench *k, struct ob_err *e);
} parts[] = {
	{"similar", kbench_similar}, {"shuffle", kbench_shuffle}, {"kv", kbench_kv},
	{"steady", kbench_steady},   {"unique", kbench_unique},
};

#define PART_NAMES "similar, shuffle, kv, steady or unique"

static void usage(FILE *out)
{
	fputs("Usage: overbook bench ksm [--quick] [--only PART]\n"
	      "Our merging beside Linux KSM on the same fleets. Needs root.\n"
	      "  --quick       small fleets, one or two pairs, to try it out; writes "
	      "results/bench/ksm-try.json\n"
	      "  --only PART   " PART_NAMES "; writes results/bench/ksm-try.json\n",
	      out);
}

static bool has_part(const char *name)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(parts); i++)
		if (!strcmp(name, parts[i].name))
			return true;
	return false;
}

static const struct bench_words words = {
	.name = "ksm",
	.one_of = ": " PART_NAMES,
	.there_are = "; there are similar, shuffle, kv, steady and unique",
	.usage = usage,
	.has_part = has_part,
};

int bench_ksm(int argc, char **argv)
{
	struct kbench *k = calloc(1, sizeof(*k));
	struct bench *b = calloc(1, sizeof(*b));
	uint64_t begin = bench_now_ns();
	char exe[PATH_MAX];
	struct ob_err e = {""};
	const char *only;
	int ret;

	OB_ASSERT(k && b);
	k->b = b;
	ret = bench_take_words(&words, b, &k->quick, &only, argc, argv);
	if (ret) {
		ret = ret < 0 ? OB_EXIT_OK : ret;
		goto out;
	}
	if (bench_check(&k->files, exe, BENCH_NEEDS_KSM | BENCH_NEEDS_IMAGE, &e)) {
		ob_warn("%s", e.msg);
		ret = OB_EXIT_USAGE;
		goto out;
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(parts) && !ret; i++)
		if (!only || !strcmp(only, parts[i].name))
			ret = ob_stop_signal ? ob_fail(&e, EINTR, "interrupted")
					     : parts[i].run(k, &e);
	ret = bench_end(&words, b, begin, ret, &e);
out:
	free(b);
	free(k);
	return ret;
}
