/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_rig.h: private to the benchmarks and tests: guests in the calling process itself, with ept
 * attached, for what has to be driven and watched from inside. (What is measured from outside runs
 * overbook as a child: bench_child.h.)
 *
 * Not thread-safe: one thread opens, starts, asks and closes a rig. What a guest says is its claim:
 * addresses that come out of here have been checked.
 */
#ifndef OVERBOOK_HARNESS_BENCH_RIG_H
#define OVERBOOK_HARNESS_BENCH_RIG_H

#include <sched.h>

#include "harness/harness.h"

#define BENCH_RIG_GUESTS    16
#define BENCH_RIG_WORKLOADS 4

struct bench_rig_config {
	const char *kernel_path; /* microguest.elf */
	const char *image_path;	 /* NULL: no disk; memory workloads need none */
	unsigned int guests;	 /* at most BENCH_RIG_GUESTS */
	uint64_t mem_bytes;
	/* Guest i runs workload[i % number of them]: "touch:30" as on our command line. */
	const char *workload[BENCH_RIG_WORKLOADS];
	uint64_t seed;
	int cpu;		   /* the vCPUs' threads stay on this CPU; -1: anywhere */
	unsigned int warm_seconds; /* they may take so long until they are warm */
};

struct bench_rig_guest {
	struct vm *vm; /* NULL: not made */
	struct ept ept;
	struct agent_report report; /* as it was last read */
};

struct bench_rig {
	struct bench_rig_config cfg;
	struct ob_host host;
	struct kvm kvm;
	struct io_worker *worker;
	struct ob_arena *arena; /* of the page maps */
	void *elf;
	size_t elf_len;
	int image_fd;	/* -1: none */
	int thp;	/* PR_GET_THP_DISABLE before us */
	cpu_set_t cpus; /* where the thread that opened it may run */
	struct bench_rig_guest guest[BENCH_RIG_GUESTS];
};

/*
 * Make the guests, each with ept attached; they do not run yet. 0 or -errno with a line; close is
 * to be called in any case. The struct must stay where it is until then.
 */
int bench_rig_open(struct bench_rig *r, const struct bench_rig_config *cfg, struct ob_err *e);
/* Start them and wait until all are warm. -EINTR when a signal asks us to stop, -ETIMEDOUT, -EIO
 * when one ended. */
int bench_rig_start(struct bench_rig *r, struct ob_err *e);
/* Read all reports until @done says yes to each of them; @arg is its own. Same errors. */
int bench_rig_wait(struct bench_rig *r, bool (*done)(const struct agent_report *r, uint64_t arg),
		   uint64_t arg, unsigned int seconds, struct ob_err *e);
/* Read all reports now. -EIO when a guest has ended or found a wrong page. */
int bench_rig_look(struct bench_rig *r, struct ob_err *e);
/* The area of guest @i, which is warm, as RAM pages [first, first + n). -EIO: it makes no sense. */
int bench_rig_area(const struct bench_rig *r, unsigned int i, uint64_t *first, uint64_t *n,
		   struct ob_err *e);
/*
 * Where the calling thread runs from now on: on the CPU of the vCPUs, on the others (when there are
 * any), or wherever it might when the rig was opened. Both sides of a pair must agree on this: a
 * CPU that has run a thread of a process, even one that is asleep now, is interrupted when a
 * mapping of that process changes, which costs whoever changes it 10 us.
 */
enum bench_rig_place { BENCH_RIG_ANYWHERE, BENCH_RIG_NEAR, BENCH_RIG_APART };
void bench_rig_place(struct bench_rig *r, enum bench_rig_place where);
/*
 * Have guest @i, which runs ping, touch @page of its area (from 1 on), and wait for it, asleep. @ns
 * is what the touch took, measured by the guest. -EINTR, -ETIMEDOUT (10 s), -EINVAL, -EIO.
 */
int bench_rig_ping(struct bench_rig *r, unsigned int i, uint64_t page, bool write, uint64_t *ns,
		   struct ob_err *e);
/* Stop and unmake all. -EIO with a line when a guest had ended by itself or had found a wrong page,
 * or when its page map is not as the kernel's; then nothing that was measured is to be used. */
int bench_rig_close(struct bench_rig *r, struct ob_err *e);

/* --- write tracking of a guest: bench_rig_track.c ----------------------------------------- */

/* A guest's tracker, which has one consumer. Must stay where it is while it is open. */
struct bench_rig_track {
	struct ept_track track;
	struct ept *ept; /* NULL: not open */
	int consumer;
};
/*
 * Track guest @i, all of its memory, device accesses included, from now on; all pages count as
 * written. 0, or -errno with a line and nothing open. Close it before the rig.
 */
int bench_rig_track_open(struct bench_rig *r, unsigned int i, struct bench_rig_track *t,
			 struct ob_err *e);
/* Does nothing for one that is all zeroes. */
void bench_rig_track_close(struct bench_rig_track *t);

/* The last of the CPUs that this process may run on: where vCPUs go that are to stay put. */
int bench_last_cpu(void);

#endif
