/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_idle.c: what an idle guest costs besides its memory: in user space, and in the kernel.
 *
 * Both sides run the same number of guests of the same size. Ours have filled their memory and go
 * on verifying it now and then; QEMU's have printed a line and halted. That does not matter for Pss
 * without guest RAM, but it does for the kernel's share: the page tables of memory in use are in
 * it, those of the processes (which have a figure of their own) and those that KVM keeps.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "harness/bench_demo.h"
#include "harness/opts.h"

#define IDLE_GUESTS  16
#define IDLE_MEM     (64 * OB_MIB)
#define MANY_GUESTS  200
#define MANY_MEM     (16 * OB_MIB)
#define IDLE_TIMEOUT 240
#define SETTLE_MS    1000
#define STOP_GRACE   30

/* Of one guest, KiB. */
struct idle_cost {
	double pss;    /* user space, without guest RAM */
	double kernel; /* by the memory cgroup; without one, by MemAvailable */
	double tables; /* of that: page tables of the processes */
};

static int available(uint64_t *bytes, struct ob_err *e)
{
	int ret = hostmem_meminfo("", "MemAvailable", bytes);

	return ret ? ob_fail(e, -ret, "cannot read /proc/meminfo: %s", strerror(-ret)) : 0;
}

/* Before anything is started: the host as it is, and a fresh cgroup, when this host has them. */
static int begin(struct demo *d, uint64_t *before, struct ob_err *e)
{
	if (d->charged && !bench_cgroup_open(&d->cgroup))
		return ob_fail(e, EIO, "cannot make a memory cgroup any more: %s", strerror(errno));
	return available(before, e);
}

static int cost_of(const struct demo *d, const struct bench_child *c, unsigned int n,
		   unsigned int guests, uint64_t mem, uint64_t before, struct idle_cost *out,
		   struct ob_err *e)
{
	uint64_t now = 0, charged = 0;
	struct bench_pss p;
	int ret = available(&now, e);

	if (!ret)
		ret = bench_pss_tree(c, n, guests, mem, &p, e);
	if (!ret && d->charged && (ret = bench_cgroup_kernel(&d->cgroup, &charged)))
		ob_fail(e, -ret, "%s: %s", d->cgroup.dir, strerror(-ret));
	if (ret)
		return ret;
	*out = (struct idle_cost){
		.pss = ((double)p.all - (double)p.ram) / OB_KIB / guests,
		.kernel = (d->charged ? (double)charged
				      : (double)before - (double)now - (double)p.own) /
			  OB_KIB / guests,
		.tables = (double)p.tables / OB_KIB / guests,
	};
	return 0;
}

static int ours(struct demo *d, unsigned int guests, uint64_t mem, unsigned int cell,
		struct idle_cost *out, struct ob_err *e)
{
	const struct demo_fleet f = {
		.guests = guests,
		.mem = mem,
		.sharing = "off",
		.workload = "idle",
		.cell = cell,
		.seconds = 600,
		.seed = 1,
	};
	struct bench_child c = {.out = -1};
	uint64_t before;
	struct ob_err late;
	int ret = begin(d, &before, e), stop;

	if (ret)
		return ret;
	ret = demo_fleet_start(d, &f, &c, NULL, e);
	if (!ret)
		ret = bench_children_wait(&c, 1, BENCH_WARM, guests, IDLE_TIMEOUT, NULL, e);
	if (!ret)
		ret = bench_children_rest(&c, 1, SETTLE_MS, e);
	if (!ret)
		ret = cost_of(d, &c, 1, guests, mem, before, out, e);
	stop = bench_children_stop(&c, 1, SIGTERM, STOP_GRACE, &late);
	bench_cgroup_close(&d->cgroup);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	return ret;
}

static int theirs(struct demo *d, struct idle_cost *out, struct ob_err *e)
{
	struct bench_child c[IDLE_GUESTS];
	uint64_t before;
	struct ob_err late;
	unsigned int n = 0;
	int ret = begin(d, &before, e), stop;

	if (ret)
		return ret;
	for (; n < IDLE_GUESTS && !ret; n++)
		ret = demo_qemu_start(d, IDLE_MEM, &c[n], NULL, e);
	n -= ret != 0;
	if (!ret)
		ret = bench_children_wait(c, n, BENCH_FIRST, n, IDLE_TIMEOUT, NULL, e);
	if (!ret)
		ret = bench_children_rest(c, n, SETTLE_MS, e);
	if (!ret)
		ret = cost_of(d, c, n, n, IDLE_MEM, before, out, e);
	stop = bench_children_stop(c, n, SIGKILL, STOP_GRACE, &late);
	bench_cgroup_close(&d->cgroup);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	return ret;
}

/* The figures of one way to run; @guests is "16 of 64M". */
struct idle_figures {
	struct bench_figure *pss, *kernel, *tables;
};

static struct idle_figures figures(const struct demo *d, const char *guests, const char *peer)
{
	struct idle_figures f;
	char name[96];

	snprintf(name, sizeof(name), "idle guest, user space: Pss without guest RAM (%s)", guests);
	f.pss = bench_figure(d->b, name, "KiB", peer);
	snprintf(name, sizeof(name), "idle guest, kernel: %s (%s)",
		 d->charged ? "charged to its memory cgroup" : "MemAvailable less processes",
		 guests);
	f.kernel = bench_figure(d->b, name, "KiB", peer);
	snprintf(name, sizeof(name), "  of that page tables of the processes (%s)", guests);
	f.tables = bench_figure(d->b, name, "KiB", peer);
	return f;
}

static int idle_pairs(struct demo *d, struct ob_err *e)
{
	struct idle_figures f = figures(d, "16 of 64M", d->peer);

	f.pss->goal = 1;
	f.pss->goal_is_max = true;
	for (unsigned int i = 0; i < demo_count(d, 5, 1); i++) {
		struct idle_cost us, them;
		int ret = i % 2 ? theirs(d, &them, e) : ours(d, IDLE_GUESTS, IDLE_MEM, 0, &us, e);

		if (!ret)
			ret = i % 2 ? ours(d, IDLE_GUESTS, IDLE_MEM, 0, &us, e)
				    : theirs(d, &them, e);
		if (ret)
			return ret;
		bench_say("idle guest, pair %u: ours %.0f + %.0f KiB (Pss + kernel), QEMU %.0f + "
			  "%.0f KiB",
			  i + 1, us.pss, us.kernel, them.pss, them.kernel);
		bench_add(f.pss, us.pss, them.pss);
		bench_add(f.kernel, us.kernel, them.kernel);
		bench_add(f.tables, us.tables, them.tables);
	}
	return 0;
}

static int idle_many(struct demo *d, struct ob_err *e)
{
	struct idle_figures f = figures(d, "200 of 16M", NULL);

	for (unsigned int i = 0; i < demo_count(d, 3, 1); i++) {
		struct idle_cost us;
		int ret = ours(d, MANY_GUESTS, MANY_MEM, 0, &us, e);

		if (ret)
			return ret;
		bench_say("%u idle guests, sample %u: %.0f + %.0f KiB a guest (Pss + kernel)",
			  MANY_GUESTS, i + 1, us.pss, us.kernel);
		bench_add_ours(f.pss, us.pss);
		bench_add_ours(f.kernel, us.kernel);
		bench_add_ours(f.tables, us.tables);
	}
	return 0;
}

int demo_idle_cell(struct demo *d, unsigned int guests, uint64_t mem, unsigned int cell,
		   double *kib, struct ob_err *e)
{
	struct idle_cost us = {0};
	int ret = ours(d, guests, mem, cell, &us, e);

	*kib = us.pss + us.kernel;
	return ret;
}

int demo_idle(struct demo *d, struct ob_err *e)
{
	int ret = idle_pairs(d, e);

	return ret ? ret : idle_many(d, e);
}
