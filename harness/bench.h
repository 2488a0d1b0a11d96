/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h: private to harness/: the benchmark frame's parts that are not in harness.h, and how a
 * benchmark hangs on the verb `overbook bench NAME` (the table in cmd_bench.c).
 */
#ifndef OVERBOOK_HARNESS_BENCH_H
#define OVERBOOK_HARNESS_BENCH_H

#include "harness/harness.h"

#define BENCH_SCHEMA "overbook.bench/1"
#define BENCH_DIR    "results/bench"

struct bench_ratio {
	double median, min, max; /* over pairs: ours / reference of the same index */
	unsigned int pairs;	 /* 0: there is none, the others are not to be used */
};
struct bench_ratio bench_ratio(const struct bench_figure *f);
/* 1 reached, 0 missed, -1 there is no goal, or no pair to hold against it. */
int bench_reached(const struct bench_figure *f);

json_t *bench_json(const struct bench *b);
void bench_print(FILE *out, const struct bench *b);

/* What is going on, on standard error. */
void bench_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A benchmark: argv[0] is its name. Returns the exit status. */
struct bench_verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *doc; /* NULL: hidden, run by a benchmark itself */
};
/* The benchmarks of this build, ended by one without a name. */
const struct bench_verb *bench_verbs(void);

#endif
