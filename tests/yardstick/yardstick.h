/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yardstick.h: the program that our own figures are held against (`overbook bench ept`). It boots
 * the same microguest by kernel/, and for all else does the bare system calls, with no table of
 * page states, no policy and no code of ept/: what is left to save when ours costs no more than
 * this.
 *
 * It is not a test. It is built beside overbook, runs one measurement and prints one line of JSON.
 */
#ifndef OVERBOOK_TESTS_YARDSTICK_H
#define OVERBOOK_TESTS_YARDSTICK_H

#include <jansson.h>
#include <pthread.h>

#include "kernel/kernel.h"

struct yard_opts {
	const char *what; /* first, fault, move */
	const char *kernel_path;
	uint64_t mem_bytes;
	uint64_t samples; /* fault: touches that count */
	uint64_t seconds; /* move */
	int cpu;	  /* of the vCPU, and of the thread that answers its faults; -1: any */
	int out_fd;
	char kernel_buf[4096];
};

/* One guest. */
struct yard {
	const struct yard_opts *opts;
	struct ob_host host;
	struct kvm kvm;
	void *elf;
	size_t elf_len;
	struct vm *vm;
	struct agent_report report; /* as it was last read */
	uint8_t *area;		    /* first page of its area, in this process */
	uint64_t pages;		    /* of the area */
	bool in_one_piece;	    /* the area: there is no hole in it */
};

/* guest.c: boot @workload and wait until it is warm. 0, or -errno with a line; yard_end in any
 * case. The vCPU stays on opts->cpu, the calling thread goes to the other CPUs if there are any. */
int yard_boot(struct yard *y, const struct yard_opts *opts, const char *workload, struct ob_err *e);
/* Read the report; -EIO when the guest has ended or found a wrong page. */
int yard_look(struct yard *y, struct ob_err *e);
/* Look again and again, asleep between, until @done says yes. */
int yard_wait(struct yard *y, bool (*done)(const struct yard *y, uint64_t arg), uint64_t arg,
	      unsigned int seconds, struct ob_err *e);
/* Keep the calling thread on @cpu (-1: as it is). */
int yard_stay(int cpu, struct ob_err *e);
void yard_end(struct yard *y);
uint64_t yard_now_ns(void);
void yard_nap(uint64_t ns);

/* --- uffd.c: userfaultfd as it is ------------------------------------------------------------- */

/*
 * The area of a guest and a place of the same size that its pages are moved to, both registered for
 * missing pages, and the thread that answers the faults.
 */
struct yard_uffd {
	struct yard *y;
	int fd;
	uint8_t *staging; /* page i of the area goes to page i */
	/* Answers one fault at this page of the area. 0 or -errno. */
	int (*answer)(struct yard_uffd *u, uint64_t page);
	void *arg;
	pthread_t thread;
	bool has_thread;
	_Atomic bool stop;
	_Atomic int error; /* -errno of the first answer that failed */
	_Atomic uint64_t faults;
};

/* Open, map, register and start the thread, on the CPU of the options. */
int yard_uffd_open(struct yard_uffd *u, struct yard *y, int (*answer)(struct yard_uffd *, uint64_t),
		   void *arg, struct ob_err *e);
/* Stops the thread; all pages must be back, or the guest must have ended. */
void yard_uffd_close(struct yard_uffd *u);
/* UFFDIO_MOVE of @n pages of the area from @page on, to staging or back. All of them, or -errno. */
int yard_move_out(struct yard_uffd *u, uint64_t page, uint64_t n);
int yard_move_back(struct yard_uffd *u, uint64_t page, uint64_t n);
/* Let whoever waits for this page go on: it is there. */
int yard_wake(struct yard_uffd *u, uint64_t page);

/* --- the measurements: fill in @doc ----------------------------------------------------------- */

int yard_first(const struct yard_opts *o, json_t *doc, struct ob_err *e);
int yard_fault(const struct yard_opts *o, json_t *doc, struct ob_err *e);
int yard_moves(const struct yard_opts *o, json_t *doc, struct ob_err *e);

#endif
