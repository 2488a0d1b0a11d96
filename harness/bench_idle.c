/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_idle.c: what an idle guest costs besides its memory: in user space, and in the kernel.
 *
 * Both sides run the same number of guests of the same size. Ours have filled their memory and go
 * on verifying it now and then; QEMU's have printed a line and halted. That does not matter for Pss
 * without guest RAM, but it does for the kernel's share, where page tables of memory in use are in
 * it: they have a figure of their own.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "harness/bench_demo.h"

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
	double kernel; /* all that MemAvailable shows */
	double slab;   /* of that: slab, stacks, per-CPU memory */
	double tables; /* of that: page tables */
};

static int read_host(struct bench_meminfo *m, struct ob_err *e)
{
	int ret = bench_meminfo_read("", m);

	return ret ? ob_fail(e, -ret, "cannot read /proc/meminfo: %s", strerror(-ret)) : 0;
}

/* A difference that may be negative: another process of the host may have ended meanwhile. */
static double grown(uint64_t before, uint64_t now)
{
	return (double)now - (double)before;
}

static int cost_of(const struct bench_child *c, unsigned int n, unsigned int guests, uint64_t mem,
		   const struct bench_meminfo *before, struct idle_cost *out, struct ob_err *e)
{
	struct bench_meminfo now;
	struct bench_pss p;
	int ret = read_host(&now, e);

	if (!ret)
		ret = bench_pss_tree(c, n, guests, mem, &p, e);
	if (ret)
		return ret;
	*out = (struct idle_cost){
		.pss = ((double)p.all - (double)p.ram) / OB_KIB / guests,
		.kernel =
			(grown(now.available, before->available) - (double)p.own) / OB_KIB / guests,
		.slab = grown(before->kernel, now.kernel) / OB_KIB / guests,
		.tables = grown(before->tables, now.tables) / OB_KIB / guests,
	};
	return 0;
}

static int ours(const struct demo *d, unsigned int guests, uint64_t mem, unsigned int cell,
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
	struct bench_meminfo before;
	struct ob_err late;
	int ret = read_host(&before, e), stop;

	if (ret)
		return ret;
	ret = demo_fleet_start(d, &f, &c, NULL, e);
	if (!ret)
		ret = bench_children_wait(&c, 1, BENCH_WARM, guests, IDLE_TIMEOUT, NULL, e);
	if (!ret)
		ret = bench_children_rest(&c, 1, SETTLE_MS, e);
	if (!ret)
		ret = cost_of(&c, 1, guests, mem, &before, out, e);
	stop = bench_children_stop(&c, 1, SIGTERM, STOP_GRACE, &late);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	return ret;
}

static int theirs(const struct demo *d, struct idle_cost *out, struct ob_err *e)
{
	struct bench_child c[IDLE_GUESTS];
	struct bench_meminfo before;
	struct ob_err late;
	unsigned int n = 0;
	int ret = read_host(&before, e), stop;

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
		ret = cost_of(c, n, n, IDLE_MEM, &before, out, e);
	stop = bench_children_stop(c, n, SIGKILL, STOP_GRACE, &late);
	if (!ret && stop) {
		ret = stop;
		*e = late;
	}
	return ret;
}

static int idle_pairs(struct demo *d, struct ob_err *e)
{
	struct bench_figure *pss, *kernel, *slab, *tables;
	struct idle_cost us, them;
	int ret = 0;

	pss = bench_figure(d->b, "idle guest, user space: Pss without guest RAM (16 of 64M)", "KiB",
			   d->peer);
	pss->goal = 1;
	pss->goal_is_max = true;
	kernel = bench_figure(d->b, "idle guest, kernel: MemAvailable less processes (16 of 64M)",
			      "KiB", d->peer);
	slab = bench_figure(d->b, "  of that slab, stacks and per-CPU memory (16 of 64M)", "KiB",
			    d->peer);
	tables = bench_figure(d->b, "  of that page tables, KVM's too (16 of 64M)", "KiB", d->peer);
	for (unsigned int i = 0; i < demo_count(d, 5, 1) && !ret; i++) {
		if (i % 2) {
			ret = theirs(d, &them, e);
			if (!ret)
				ret = ours(d, IDLE_GUESTS, IDLE_MEM, 0, &us, e);
		} else {
			ret = ours(d, IDLE_GUESTS, IDLE_MEM, 0, &us, e);
			if (!ret)
				ret = theirs(d, &them, e);
		}
		if (ret)
			break;
		demo_say("idle guest, pair %u: ours %.0f + %.0f KiB (Pss + kernel), QEMU %.0f + "
			 "%.0f KiB",
			 i + 1, us.pss, us.kernel, them.pss, them.kernel);
		bench_add(pss, us.pss, them.pss);
		bench_add(kernel, us.kernel, them.kernel);
		bench_add(slab, us.slab, them.slab);
		bench_add(tables, us.tables, them.tables);
	}
	return ret;
}

static int idle_many(struct demo *d, struct ob_err *e)
{
	struct bench_figure *pss, *kernel, *slab, *tables;
	struct idle_cost us;
	int ret = 0;

	pss = bench_figure(d->b, "idle guest, user space: Pss without guest RAM (200 of 16M)",
			   "KiB", NULL);
	kernel = bench_figure(d->b, "idle guest, kernel: MemAvailable less processes (200 of 16M)",
			      "KiB", NULL);
	slab = bench_figure(d->b, "  of that slab, stacks and per-CPU memory (200 of 16M)", "KiB",
			    NULL);
	tables = bench_figure(d->b, "  of that page tables, KVM's too (200 of 16M)", "KiB", NULL);
	for (unsigned int i = 0; i < demo_count(d, 3, 1) && !ret; i++) {
		ret = ours(d, MANY_GUESTS, MANY_MEM, 0, &us, e);
		if (ret)
			break;
		demo_say("%u idle guests, sample %u: %.0f + %.0f KiB a guest (Pss + kernel)",
			 MANY_GUESTS, i + 1, us.pss, us.kernel);
		bench_add_ours(pss, us.pss);
		bench_add_ours(kernel, us.kernel);
		bench_add_ours(slab, us.slab);
		bench_add_ours(tables, us.tables);
	}
	return ret;
}

int demo_idle_cell(const struct demo *d, unsigned int guests, uint64_t mem, unsigned int cell,
		   double *kib, struct ob_err *e)
{
	struct idle_cost us = {0};
	int ret = ours(d, guests, mem, cell, &us, e);

	*kib = us.pss + us.slab;
	return ret;
}

int demo_idle(struct demo *d, struct ob_err *e)
{
	int ret = idle_pairs(d, e);

	return ret ? ret : idle_many(d, e);
}
