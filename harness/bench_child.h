/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_child.h: private to the benchmarks: the programs that a benchmark starts, hears and ends
 * (bench_child.c), and what they hold in memory (bench_mem.c).
 */
#ifndef OVERBOOK_HARNESS_BENCH_CHILD_H
#define OVERBOOK_HARNESS_BENCH_CHILD_H

#include <sys/types.h>

#include "harness/harness.h"

/* What guests have said so far on one console, or on many that share a pipe: each of their writes
 * arrives whole, but between those of others. */
struct bench_marks {
	unsigned int first; /* first bytes: an 'O' each */
	unsigned int warm;  /* lines that say that a guest is warm */
	char line[200];	    /* the line under way */
	unsigned int fill;
};
void bench_marks_feed(struct bench_marks *m, const char *text, size_t n);

/* A descriptor on which a child of ours may leave a document; a QEMU gets it too and ignores it. */
#define BENCH_FD_DOC 3

struct bench_child {
	pid_t pid; /* 0: not running */
	int out;   /* our end of its standard output; -1: closed, or the other end is */
	int log;   /* its standard error: a file without a name */
	int doc;   /* its descriptor BENCH_FD_DOC: likewise */
	struct bench_marks marks;
};

/*
 * Start argv[0] (a path), inside the cgroup of @procs_fd unless that is -1. Should we be killed,
 * the kernel kills it. @started (may be NULL) is the time just before. The caller stops or finishes
 * it.
 */
int bench_child_start(struct bench_child *c, char *const argv[], int procs_fd, uint64_t *started,
		      struct ob_err *e);

enum bench_mark { BENCH_FIRST, BENCH_WARM };
/*
 * Wait until the @n children together have given @want marks; @at (may be NULL) is when the last
 * one was read. -EINTR when a signal asks us to stop, -ETIMEDOUT, -EIO when one ended before.
 */
int bench_children_wait(struct bench_child *c, unsigned int n, enum bench_mark what,
			unsigned int want, unsigned int timeout_s, uint64_t *at, struct ob_err *e);
/* Let them run for @ms, and hear what they say. -EINTR, -EIO as above. */
int bench_children_rest(struct bench_child *c, unsigned int n, unsigned int ms, struct ob_err *e);
/*
 * Ask all to end with @sig, and wait until they have, and until nobody holds their pipes: then
 * their own children have ended too. What does not end within @grace_s is killed, and that is
 * -ETIMEDOUT.
 */
int bench_children_stop(struct bench_child *c, unsigned int n, int sig, unsigned int grace_s,
			struct ob_err *e);
/* Wait for its own end. 0 when it exited with status 0; @doc (new reference) is what it left. */
int bench_child_finish(struct bench_child *c, unsigned int timeout_s, json_t **doc,
		       struct ob_err *e);

uint64_t bench_now_ns(void);

/* --- bench_mem.c ------------------------------------------------------------------------- */

/* What a tree of processes holds, as the kernel divides it among those who share it (Pss). */
struct bench_pss {
	uint64_t all;	   /* Pss */
	uint64_t own;	   /* of that, anonymous and shared memory: not backed by a file on disk */
	uint64_t ram;	   /* Pss of guest RAM */
	uint64_t ram_size; /* size of the mappings that were taken for guest RAM */
	uint64_t tables;   /* page tables of the processes, those of guest RAM included */
	unsigned int procs;
};
/* Guest RAM in an smaps file: mappings that we have named so, or anonymous and of exactly @mem
 * bytes. Adds to @out. */
void bench_pss_ram(FILE *smaps, uint64_t mem, struct bench_pss *out);
/* Pss in an smaps_rollup file. Adds to @out. False when it is not there. */
bool bench_pss_rollup(FILE *rollup, struct bench_pss *out);
/* Page tables in a status file. */
uint64_t bench_pss_tables(FILE *status);
/* All of a process and its descendants. -EIO unless the RAM of exactly @guests guests was found. */
int bench_pss_tree(const struct bench_child *c, unsigned int n, unsigned int guests, uint64_t mem,
		   struct bench_pss *out, struct ob_err *e);

/* --- bench_cgroup.c ---------------------------------------------------------------------- */

struct bench_cgroup {
	char dir[1000]; /* empty: there is none */
	int procs_fd;	/* -1: there is none */
	bool v2;
};
/* Make one, empty. False: this host or this user has none to offer. Closed in any case by close. */
bool bench_cgroup_open(struct bench_cgroup *g);
/* Bytes that the kernel holds for the processes in it. */
int bench_cgroup_kernel(const struct bench_cgroup *g, uint64_t *bytes);
void bench_cgroup_close(struct bench_cgroup *g);

#endif
