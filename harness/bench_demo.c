/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_demo.c: the benchmark `demo`: how fast guests start, what an idle one costs, whether 200
 * fit and run, and what memory operations cost with how many VMs in a process. docs/benchmarks.md
 * says what each figure is and where its pitfalls are.
 *
 * The benchmark adopts orphans (PR_SET_CHILD_SUBREAPER), so that whatever a measured program would
 * leave behind is seen and ended here.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/bench_demo.h"
#include "harness/bench_parts.h"

static const struct {
	const char *name;
	int (*run)(struct demo *d, struct ob_err *e);
} parts[] = {
	{"start", demo_start}, {"idle", demo_idle}, {"many", demo_many},
	{"cells", demo_cells}, {"ops", demo_ops},   {"stop", demo_stop},
};

static void usage(FILE *out)
{
	fputs("Usage: overbook bench demo [--quick] [--only PART]\n"
	      "How guests start, what they cost and how many fit, beside QEMU's microvm.\n"
	      "  --quick       few samples, to try it out; writes results/bench/demo-try.json\n"
	      "  --only PART   start, idle, many, cells, ops or stop; writes "
	      "results/bench/demo-try.json\n",
	      out);
}

static bool has_part(const char *name)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(parts); i++)
		if (strcmp(name, parts[i].name) == 0)
			return true;
	return false;
}

static const struct bench_words words = {
	.name = "demo",
	.one_of = ": start, idle, many, cells, ops or stop",
	.there_are = "; there are start, idle, many, cells, ops and stop",
	.usage = usage,
	.has_part = has_part,
};

/* All that can be known to be missing before anything runs. */
static int check(struct demo *d, struct ob_err *e)
{
	int ret = bench_check(&d->files, d->exe, BENCH_NEEDS_IMAGE, e);

	return ret ? ret : demo_qemu_find(d, e);
}

/* Nothing of ours should be running any more. What is, is ended, and that is a failure. */
static int sweep(struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = 10 * OB_NS_PER_MS};
	unsigned int left = 0;

	for (int tries = 0; tries < 500; tries++) {
		char path[64];
		int child;
		pid_t pid;
		FILE *f;

		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			;
		if (pid < 0 && errno == ECHILD)
			break;
		if (tries < 100) { /* an orphan on its way out is not yet a left-over */
			nanosleep(&nap, NULL);
			continue;
		}
		snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
		f = fopen(path, "re");
		for (; f && fscanf(f, "%d", &child) == 1; left += tries == 100)
			kill(child, SIGKILL);
		if (f)
			fclose(f);
		nanosleep(&nap, NULL);
	}
	return left ? ob_fail(e, EIO, "%u processes were left behind, and ended", left) : 0;
}

int bench_demo(int argc, char **argv)
{
	struct demo *d = calloc(1, sizeof(*d));
	struct bench *b = calloc(1, sizeof(*b));
	struct ob_err e = {""}, late = {""};
	uint64_t begin = bench_now_ns();
	const char *only;
	int ret;

	OB_ASSERT(d && b);
	d->b = b;
	d->cgroup.procs_fd = -1;
	ret = bench_take_words(&words, b, &d->quick, &only, argc, argv);
	if (ret) {
		ret = ret < 0 ? OB_EXIT_OK : ret;
		goto out;
	}
	if (check(d, &e)) {
		ob_warn("%s", e.msg);
		ret = OB_EXIT_USAGE;
		goto out;
	}
	d->charged = bench_cgroup_open(&d->cgroup);
	bench_cgroup_close(&d->cgroup);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	bench_say("reference: %s; KVM mode %s", d->peer, kvm_mode_name(kvm_mode_detect()));
	for (size_t i = 0; i < OB_ARRAY_SIZE(parts) && !ret; i++)
		if (!only || strcmp(only, parts[i].name) == 0)
			ret = ob_stop_signal ? ob_fail(&e, EINTR, "interrupted")
					     : parts[i].run(d, &e);
	bench_cgroup_close(&d->cgroup);
	if (sweep(&late) && !ret) {
		ret = -EIO;
		e = late;
	}
	ret = bench_end(&words, b, begin, ret, &e);
out:
	free(b);
	free(d);
	return ret;
}
