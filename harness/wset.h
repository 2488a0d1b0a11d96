/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset.h: the working set in a run (--working-set): what is asked for, and what comes of it.
 * Sampling itself is ept/wset.h; a cell samples its guests in a thread of its own (cell_wset.c).
 */
#ifndef OVERBOOK_HARNESS_WSET_H
#define OVERBOOK_HARNESS_WSET_H

#include "ksm/ksm.h"

/* Most periods that are kept of a guest: the last ones. */
#define RUN_WSET_HISTORY 4096

struct wset_config {
	unsigned int samples; /* 0: no sampling */
	uint64_t period_ns;
};

/* One period of one guest. */
struct run_wset_point {
	double t;		       /* seconds from the engine switched on to the period's end */
	uint64_t pages;		       /* the estimate then, smoothed */
	double fraction;	       /* of the guest's pages, touched in this period alone, */
	double error;		       /* its standard error, */
	double low, high;	       /* and the 95 % interval */
	unsigned int samples, touched; /* 4 KiB pages */
	unsigned int unit_samples, unit_touched; /* 2 MiB units */
	uint64_t windows;			 /* 2 MiB windows whose faults came to user space */
};

struct run_wset {
	bool on;	 /* it was asked for */
	uint64_t pages;	 /* at the last reading; of no use while nhistory is 0 */
	double fraction; /* of the guest's pages */
	unsigned int samples;
	double period_s;
	double cpu_s, handler_cpu_s; /* of sampling, and of answering the guest's faults */
	struct run_wset_point *history;
	unsigned int nhistory;
};

#endif
