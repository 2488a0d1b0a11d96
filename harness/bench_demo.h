/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_demo.h: private to the benchmark `demo`: its parts, one file each. A part enters its
 * figures into the bench; 0, -EINTR when a signal asks to stop, or -errno with a line.
 */
#ifndef OVERBOOK_HARNESS_BENCH_DEMO_H
#define OVERBOOK_HARNESS_BENCH_DEMO_H

#include <limits.h>

#include "harness/bench.h"
#include "harness/bench_child.h"

struct demo {
	struct bench *b;
	bool quick;		   /* few samples: to try it out */
	struct fleet_config files; /* kernel_path, image_path */
	char exe[PATH_MAX];
	char qemu[PATH_MAX];
	bool charged;		    /* memory cgroups can be had here */
	struct bench_cgroup cgroup; /* round what is started, while memory is measured */
	char peer[96];		    /* what the reference is: "QEMU 7.2.22 microvm" */
};

/* How many of a sample to take. */
static inline unsigned int demo_count(const struct demo *d, unsigned int full, unsigned int quick)
{
	return d->quick ? quick : full;
}

/* bench_qemu.c: find QEMU and its version; start one microvm with @mem bytes. -ENOENT. */
int demo_qemu_find(struct demo *d, struct ob_err *e);
int demo_qemu_start(const struct demo *d, uint64_t mem, struct bench_child *c, uint64_t *started,
		    struct ob_err *e);

/* What a fleet of ours is asked for. */
struct demo_fleet {
	unsigned int guests;
	uint64_t mem;
	const char *sharing, *workload;
	unsigned int cell; /* 0: the default */
	unsigned int seconds;
	uint64_t seed;
};
/* Start it: consoles on the child's pipe, the result document when it ends by itself. */
int demo_fleet_start(const struct demo *d, const struct demo_fleet *f, struct bench_child *c,
		     uint64_t *started, struct ob_err *e);

/* bench_idle.c: KiB that an idle guest costs besides its memory, in user space and in the kernel,
 * when @guests of them run in cells of @cell. */
int demo_idle_cell(struct demo *d, unsigned int guests, uint64_t mem, unsigned int cell,
		   double *kib, struct ob_err *e);

int demo_start(struct demo *d, struct ob_err *e); /* bench_start.c: exec to first instruction */
int demo_idle(struct demo *d, struct ob_err *e);  /* bench_idle.c: what an idle guest costs */
int demo_stop(struct demo *d, struct ob_err *e);  /* bench_stop.c: SIGINT to the end */
int demo_many(struct demo *d, struct ob_err *e);  /* bench_many.c: 200 guests, merged */
int demo_cells(struct demo *d, struct ob_err *e); /* bench_cells.c: how many guests to a cell */
int demo_ops(struct demo *d, struct ob_err *e);	  /* bench_ops.c: merge, break, discard */

/* `overbook bench demo`, and the hidden `overbook bench fleet`, which it starts. */
int bench_demo(int argc, char **argv);
int bench_fleet(int argc, char **argv);

#endif
