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
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/bench_ksm.h"
#include "harness/opts.h"

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

/* 0, OB_EXIT_USAGE after a line, or -1 when help was asked for and printed. */
static int parse(struct kbench *k, const char **only, int argc, char **argv)
{
	*only = NULL;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			return -1;
		}
		if (!strcmp(argv[i], "--quick")) {
			k->quick = true;
		} else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
			*only = argv[++i];
		} else if (!strcmp(argv[i], "--only")) {
			ob_warn("bench ksm: --only needs a part: " PART_NAMES);
			return OB_EXIT_USAGE;
		} else {
			ob_warn("bench ksm: unknown option '%.40s' (try overbook bench ksm --help)",
				argv[i]);
			return OB_EXIT_USAGE;
		}
	}
	for (size_t i = 0; *only && i < OB_ARRAY_SIZE(parts); i++)
		if (!strcmp(*only, parts[i].name))
			return 0;
	if (!*only)
		return 0;
	ob_warn("bench ksm: no part '%.40s'; there are similar, shuffle, kv, steady and unique",
		*only);
	return OB_EXIT_USAGE;
}

/* All that can be known to be missing before anything runs. */
static int check(struct kbench *k, struct ob_err *e)
{
	char exe[PATH_MAX];
	struct opts_host host;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	int ret;

	if (n <= 0)
		return ob_fail(e, EIO, "cannot read /proc/self/exe: is /proc mounted?");
	exe[n] = '\0';
	ret = opts_host_read(&host, e);
	if (!ret)
		ret = opts_check_kvm(host.kvm_path, e);
	if (!ret)
		ret = opts_check_ksm(host.ksm_dir, e);
	if (!ret)
		ret = opts_default_paths(&k->files, exe, e);
	if (!ret)
		ret = opts_check_kernel(k->files.kernel_path, e);
	if (!ret)
		ret = opts_check_image(k->files.image_path, e);
	return ret;
}

int bench_ksm(int argc, char **argv)
{
	struct kbench *k = calloc(1, sizeof(*k));
	struct bench *b = calloc(1, sizeof(*b));
	struct timespec begin, end;
	struct ob_err e = {""};
	const char *only;
	int ret;

	OB_ASSERT(k && b);
	k->b = b;
	ret = parse(k, &only, argc, argv);
	if (ret) {
		ret = ret < 0 ? OB_EXIT_OK : ret;
		goto out;
	}
	snprintf(b->name, sizeof(b->name), "%s", k->quick || only ? "ksm-try" : "ksm");
	if (check(k, &e)) {
		ob_warn("%s", e.msg);
		ret = OB_EXIT_USAGE;
		goto out;
	}
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (size_t i = 0; i < OB_ARRAY_SIZE(parts) && !ret; i++)
		if (!only || !strcmp(only, parts[i].name))
			ret = ob_stop_signal ? ob_fail(&e, EINTR, "interrupted")
					     : parts[i].run(k, &e);
	if (!ret)
		ret = bench_finish(b, BENCH_DIR, &e);
	clock_gettime(CLOCK_MONOTONIC, &end);
	bench_say("took %ld s", (long)(end.tv_sec - begin.tv_sec));
	if (ret)
		ob_warn("bench ksm: %s; no figure is written", e.msg);
	ret = !ret ? OB_EXIT_OK : ob_stop_signal ? OB_EXIT_INTERRUPTED : OB_EXIT_FAILED;
out:
	free(b);
	free(k);
	return ret;
}
