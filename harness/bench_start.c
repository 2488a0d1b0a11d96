/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_start.c: how fast a guest starts: alone, from exec of the program to the guest's first
 * instruction; and many, from exec of the first program until the last guest has run its first.
 *
 * The first thing that the microguest does is to write a byte to its serial port, under either
 * hypervisor, and the time is that when this byte has come through the pipe. Ours is the whole
 * command as a person would start it: coordinator, cell, options checked, the disk opened. QEMU has
 * no disk to open, and no second process.
 */
#include <errno.h>
#include <signal.h>

#include "harness/bench_demo.h"

#define START_MEM     (64 * OB_MIB)
#define START_GUESTS  16
#define START_TIMEOUT 60
#define STOP_GRACE    10

static int ours_first(const struct demo *d, unsigned int guests, struct bench_child *c,
		      uint64_t *t0, uint64_t *t1, struct ob_err *e)
{
	const struct demo_fleet f = {
		.guests = guests,
		.mem = START_MEM,
		.sharing = "off",
		.workload = "idle",
		.seconds = 600,
		.seed = 1,
	};
	char exe[PATH_MAX];
	char *run[] = {exe,
		       (char[]){"run"},
		       (char[]){"--workload=idle"},
		       (char[]){"--mem=64M"},
		       (char[]){"--quiet"},
		       NULL};
	int ret;

	snprintf(exe, sizeof(exe), "%s", d->exe);
	ret = guests == 1 ? bench_child_start(c, run, -1, t0, e)
			  : demo_fleet_start(d, &f, c, t0, e);
	return ret ? ret : bench_children_wait(c, 1, BENCH_FIRST, guests, START_TIMEOUT, t1, e);
}

static int ours(const struct demo *d, unsigned int guests, double *seconds, struct ob_err *e)
{
	struct bench_child c = {.out = -1};
	uint64_t t0 = 0, t1 = 0;
	int ret = ours_first(d, guests, &c, &t0, &t1, e), stop;
	struct ob_err late;

	stop = bench_children_stop(&c, 1, SIGTERM, STOP_GRACE, &late);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	*seconds = (double)(t1 - t0) / OB_NS_PER_SEC;
	return ret;
}

static int theirs(const struct demo *d, unsigned int guests, double *seconds, struct ob_err *e)
{
	struct bench_child c[START_GUESTS];
	uint64_t t0 = 0, t1 = 0;
	unsigned int n = 0;
	int ret = 0, stop;
	struct ob_err late;

	OB_ASSERT(guests <= OB_ARRAY_SIZE(c));
	for (; n < guests && !ret; n++)
		ret = demo_qemu_start(d, START_MEM, &c[n], n ? NULL : &t0, e);
	n -= ret != 0;
	if (!ret)
		ret = bench_children_wait(c, n, BENCH_FIRST, guests, START_TIMEOUT, &t1, e);
	stop = bench_children_stop(c, n, SIGKILL, STOP_GRACE, &late);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	*seconds = (double)(t1 - t0) / OB_NS_PER_SEC;
	return ret;
}

static int pair(const struct demo *d, unsigned int guests, unsigned int i, double *us, double *them,
		struct ob_err *e)
{
	int ret;

	if (i % 2) {
		ret = theirs(d, guests, them, e);
		return ret ? ret : ours(d, guests, us, e);
	}
	ret = ours(d, guests, us, e);
	return ret ? ret : theirs(d, guests, them, e);
}

int demo_start(struct demo *d, struct ob_err *e)
{
	struct bench_figure *one, *many;
	double us, them;
	int ret = pair(d, 1, 0, &us, &them, e); /* both warm: files read, memory backed */

	one = bench_figure(d->b, "exec to first guest instruction", "ms", d->peer);
	one->goal = 1;
	one->goal_is_max = true;
	for (unsigned int i = 0; i < demo_count(d, 20, 3) && !ret; i++) {
		ret = pair(d, 1, i, &us, &them, e);
		if (ret)
			break;
		bench_say("first instruction, pair %u: ours %.1f ms, QEMU %.1f ms", i + 1, us * 1e3,
			  them * 1e3);
		bench_add(one, us * 1e3, them * 1e3);
	}
	if (ret)
		return ret;
	many = bench_figure(d->b, "guests started a second (16 at once)", "1/s", d->peer);
	many->goal = 1;
	for (unsigned int i = 0; i < demo_count(d, 7, 2) && !ret; i++) {
		ret = pair(d, START_GUESTS, i, &us, &them, e);
		if (ret)
			break;
		bench_say("%u guests, pair %u: ours %.0f/s, QEMU %.0f/s", START_GUESTS, i + 1,
			  START_GUESTS / us, START_GUESTS / them);
		bench_add(many, START_GUESTS / us, START_GUESTS / them);
	}
	return ret;
}
