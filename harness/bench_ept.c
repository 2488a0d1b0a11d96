/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept.c: the benchmark `ept`: what it costs to take pages from a guest, to give them back, to
 * answer its faults, to know what it has written and what it uses. docs/benchmarks.md says what
 * each figure is and where its pitfalls are.
 *
 * Our side runs in this process (bench_rig.c), as its parts call the mechanisms themselves. The
 * reference is a program of its own, the yardstick, which shares nothing with ours but the guest
 * and the code that boots it, and which does the bare system calls. Both keep the guest's vCPU on
 * the same CPU.
 */
#include "harness/bench_ept.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_parts.h"

const struct ept_part ept_parts[] = {
	{"first", ept_part_first, "first touches of a guest from which nothing was taken"},
	{"fault", ept_part_fault, "a fault answered from staging"},
	{"move", ept_part_move, "all of a guest out and back while it writes"},
	{"track", ept_part_track, "which pages a guest has written: is any missed, what it costs"},
	{"wset", ept_part_wset, "the estimate of the working set: how good, at what cost"},
	{"huge", ept_part_huge, "adaptive huge pages: what stays huge, and what is saved"},
	{NULL, NULL, NULL},
};

static void usage(FILE *out)
{
	fputs("Usage: overbook bench ept [--quick] [--only PART]\n"
	      "What ept costs, beside a minimal program that does the bare system calls.\n"
	      "  --quick       few samples and small guests, to try it out; writes "
	      "results/bench/ept-try.json\n"
	      "  --only PART   one part; writes results/bench/ept-try.json:\n",
	      out);
	for (const struct ept_part *p = ept_parts; p->name; p++)
		fprintf(out, "    %-10s  %s\n", p->name, p->doc);
}

static bool has_part(const char *name)
{
	for (const struct ept_part *p = ept_parts; p->name; p++)
		if (strcmp(name, p->name) == 0)
			return true;
	return false;
}

static void part_names(char *buf, size_t n)
{
	size_t at = (size_t)snprintf(buf, n, "; there are: ");

	for (const struct ept_part *p = ept_parts; p->name && at < n; p++)
		at += (size_t)snprintf(buf + at, n - at, "%s%s", p == ept_parts ? "" : ", ",
				       p->name);
}

/* All that can be known to be missing before anything runs. */
static int check(struct ept_bench *d, struct ob_err *e)
{
	char exe[PATH_MAX];
	int ret = bench_check(&d->files, exe, 0, e);

	if (ret)
		return ret;
	if (snprintf(d->yardstick, sizeof(d->yardstick), "%s/yardstick", dirname(exe)) >=
	    (int)sizeof(d->yardstick))
		return ob_fail(e, ENAMETOOLONG, "the path of overbook is too long");
	if (access(d->yardstick, X_OK))
		return ob_fail(e, errno, "%.300s: %s; build it with make", d->yardstick,
			       strerror(errno));
	d->cpu = bench_last_cpu();
	return 0;
}

int ept_yardstick(const struct ept_bench *d, unsigned int seconds, json_t **doc, struct ob_err *e,
		  const char *fmt, ...)
{
	char words[400], rest[PATH_MAX], yardstick[PATH_MAX], *argv[32], *save = NULL;
	struct bench_child c;
	int n = 0, ret;
	va_list ap;

	*doc = NULL;
	va_start(ap, fmt);
	vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	snprintf(yardstick, sizeof(yardstick), "%s", d->yardstick);
	argv[n++] = yardstick;
	for (char *w = strtok_r(words, " ", &save); w && n < 20; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	/* A path may have blanks: it is a word as it is. */
	char kernel[] = "--kernel", out[] = "--out-fd", fd[12], cpu[] = "--cpu", number[12];

	snprintf(rest, sizeof(rest), "%s", d->files.kernel_path);
	snprintf(fd, sizeof(fd), "%d", BENCH_FD_DOC);
	snprintf(number, sizeof(number), "%d", d->cpu);
	argv[n++] = kernel;
	argv[n++] = rest;
	argv[n++] = out;
	argv[n++] = fd;
	argv[n++] = cpu;
	argv[n++] = number;
	argv[n] = NULL;
	ret = bench_child_start(&c, argv, -1, NULL, e);
	return ret ? ret : bench_child_finish(&c, seconds, doc, e);
}

int ept_number(const json_t *doc, const char *name, double *out, struct ob_err *e)
{
	const json_t *v = json_object_get(doc, name);

	if (!json_is_number(v))
		return ob_fail(e, EIO, "the yardstick's document has no number '%s'", name);
	*out = json_number_value(v);
	return 0;
}

static int run_parts(struct ept_bench *d, const char *only, struct ob_err *e)
{
	int ret = 0;

	bench_say("vCPUs on CPU %d; KVM mode %s", d->cpu, kvm_mode_name(kvm_mode_detect()));
	for (const struct ept_part *p = ept_parts; p->name && !ret; p++) {
		if (only && strcmp(only, p->name) != 0)
			continue;
		ret = ob_stop_signal ? ob_fail(e, EINTR, "interrupted") : p->run(d, e);
	}
	return ret;
}

int bench_ept(int argc, char **argv)
{
	struct ept_bench *d = calloc(1, sizeof(*d));
	struct bench *b = calloc(1, sizeof(*b));
	struct ob_err e = {""};
	uint64_t begin = bench_now_ns();
	char names[200];
	const struct bench_words words = {
		.name = "ept",
		.one_of = names,
		.there_are = names,
		.usage = usage,
		.has_part = has_part,
	};
	const char *only;
	int ret;

	OB_ASSERT(d && b);
	d->b = b;
	part_names(names, sizeof(names));
	ret = bench_take_words(&words, b, &d->quick, &only, argc, argv);
	if (ret) {
		ret = ret < 0 ? OB_EXIT_OK : ret;
		goto out;
	}
	if (check(d, &e)) {
		ob_warn("bench ept: %s", e.msg);
		ret = OB_EXIT_USAGE;
		goto out;
	}
	ret = bench_end(&words, b, begin, run_parts(d, only, &e), &e);
out:
	free(b);
	free(d);
	return ret;
}
