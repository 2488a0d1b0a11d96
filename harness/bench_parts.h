/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_parts.h: private to harness/: what the benchmarks that are made of parts (ept, ksm, demo) have in
 * common: their words, what must be there before anything runs, and how they end.
 */
#ifndef OVERBOOK_HARNESS_BENCH_PARTS_H
#define OVERBOOK_HARNESS_BENCH_PARTS_H

#include <limits.h>

#include "harness/bench.h"

struct bench_words {
	const char *name;      /* ept */
	const char *one_of;    /* behind "--only needs a part" */
	const char *there_are; /* behind "no part 'x'" */
	void (*usage)(FILE *out);
	bool (*has_part)(const char *name);
};

/*
 * Take --quick and --only PART (NULL: all), and name the bench by them: a try is kept apart. 0,
 * OB_EXIT_USAGE after a line, or -1 when help was asked for and printed.
 */
int bench_take_words(const struct bench_words *w, struct bench *b, bool *quick, const char **only,
		     int argc, char **argv);

enum { BENCH_NEEDS_KSM = 1, BENCH_NEEDS_IMAGE = 2 };

/* All that can be known to be missing before anything runs: KVM, the guest's kernel, and what @needs says.
 * Fills in @files and our own path. 0 or -errno with a line. */
int bench_check(struct fleet_config *files, char exe[PATH_MAX], unsigned int needs,
		struct ob_err *e);

/* The end: unless @ret says that something went wrong (then @e has the line), write the figures. Returns the
 * exit status. */
int bench_end(const struct bench_words *w, struct bench *b, uint64_t begin_ns, int ret,
	      struct ob_err *e);

#endif
