/* SPDX-License-Identifier: Apache-2.0 */
/* cost.h: private to ksm/: measuring what operations cost (cost.c says how and why so). */
#ifndef OVERBOOK_KSM_COST_H
#define OVERBOOK_KSM_COST_H

#include "ksm/ksm.h"

/* One thread's; on its stack. */
struct ksm_stopwatch {
	struct ob_host *host;
	struct ksm_stats *st;
	uint64_t ns;	  /* of the last reading */
	uint64_t read_ns; /* what a reading itself takes: it is left out */
	bool running;
};

/* Start; one that does not @run measures nothing and costs nothing. */
struct ksm_stopwatch ksm_cost_begin(struct ob_host *host, struct ksm_stats *st, bool run);
/*
 * The CPU time since the start, or since the last call, went into @ops operations of @kind; 0 of
 * them: into something that is not counted. Same thread as the start.
 */
void ksm_cost_add(struct ksm_stopwatch *w, enum ksm_cost_kind kind, uint64_t ops);
/* The same, more time for operations that are counted elsewhere: of a batch, to thaw it. */
void ksm_cost_more(struct ksm_stopwatch *w, enum ksm_cost_kind kind);
/* @ops operations took @ns, as somebody else has measured: of one thread that was not preempted. */
void ksm_cost_note(struct ksm_stats *st, enum ksm_cost_kind kind, uint64_t ns, uint64_t ops);
/* Is the n-th window one of those that are measured? One of 8 is. */
bool ksm_cost_sampled(uint64_t n);

#endif
