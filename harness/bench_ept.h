/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept.h: private to the benchmark `ept`: its parts, one file each (bench_ept_NAME.c). A part
 * enters its figures into the bench; 0, -EINTR when a signal asks to stop, or -errno with a line.
 * The table of parts is in bench_ept.c, and a new part is a line there.
 */
#ifndef OVERBOOK_HARNESS_BENCH_EPT_H
#define OVERBOOK_HARNESS_BENCH_EPT_H

#include <limits.h>

#include "harness/bench.h"
#include "harness/bench_child.h"
#include "harness/bench_rig.h"

struct ept_bench {
	struct bench *b;
	bool quick;		   /* few samples and small guests: to try it out */
	struct fleet_config files; /* kernel_path, image_path */
	char yardstick[PATH_MAX];  /* the program of references, beside our own */
	int cpu;		   /* where the vCPU of either side runs */
};

struct ept_part {
	const char *name;
	int (*run)(struct ept_bench *d, struct ob_err *e);
	const char *doc;
};
/* Ended by one without a name. */
extern const struct ept_part ept_parts[];

/* How many of a sample to take. */
static inline unsigned int ept_count(const struct ept_bench *d, unsigned int full,
				     unsigned int quick)
{
	return d->quick ? quick : full;
}

/*
 * Run the yardstick with these words (split at blanks; the guest and the CPU are added), and take
 * its document (new reference). It may take @seconds.
 */
int ept_yardstick(const struct ept_bench *d, unsigned int seconds, json_t **doc, struct ob_err *e,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* A number of its document; -EIO when it is not there. */
int ept_number(const json_t *doc, const char *name, double *out, struct ob_err *e);

int ept_part_first(struct ept_bench *d, struct ob_err *e); /* first touches, nothing taken */
int ept_part_fault(struct ept_bench *d, struct ob_err *e); /* a fault answered from staging */
int ept_part_move(struct ept_bench *d, struct ob_err *e);  /* all of a guest out and back */
int ept_part_track(struct ept_bench *d, struct ob_err *e); /* which pages were written */
/* Of that part, what it costs. (bench_ept_track_cost.c) */
int ept_track_cost(struct ept_bench *d, struct ob_err *e);
int ept_part_wset(struct ept_bench *d, struct ob_err *e); /* the working set's estimate */
int ept_part_huge(struct ept_bench *d, struct ob_err *e); /* adaptive huge pages */

/* `overbook bench ept`. */
int bench_ept(int argc, char **argv);

#endif
