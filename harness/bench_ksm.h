/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm.h: private to the benchmark `ksm`: our merging beside Linux KSM on the same fleets.
 * What each figure is, and what is counted for it, is in docs/benchmarks.md.
 */
#ifndef OVERBOOK_HARNESS_BENCH_KSM_H
#define OVERBOOK_HARNESS_BENCH_KSM_H

#include "harness/bench.h"

struct kbench {
	struct bench *b;
	bool quick;		   /* few samples: to try it out */
	struct fleet_config files; /* kernel_path, image_path */
};

/* --- bench_ksm_math.c: the arithmetic; pure -------------------------------------------------- */

/* The first merge, by the meter's readings: what was saved at the end more than before the engine
 * was on, and when 95 % of that was there. */
struct kbench_first {
	double pages;		     /* saved, all of it */
	double seconds_95, cpu_95;   /* from the engine switched on, both in seconds */
	double pages_per_cpu_second; /* 95 % of @pages over @cpu_95 */
};
/* 0, or -ENODATA when nothing was saved or it took no time. */
int kbench_first(const struct run_sample *s, unsigned int n, struct kbench_first *out);
/*
 * Has the saving stopped growing? Of the last 3 seconds, or the last third of the time so far if that
 * is more, the later half is on average not more than 0.5 % above the earlier one, nor the last
 * reading more than 2 %: guests that write make it go up and down, and as they drift apart it may
 * shrink. With @any there must be more than before the engine was on.
 */
bool kbench_still(const struct run_sample *s, unsigned int n, bool any);
/* CPU seconds a second that merging took in [from, to]; NAN when the readings do not reach
 * there. */
double kbench_cpu_rate(const struct run_sample *s, unsigned int n, double from, double to);
/* What of @off is lost under @on, as a share, not below 0; and what @on is more than @off. */
double kbench_loss(double off, double on);
double kbench_added(double off, double on);

/*
 * The search for the rest between scans at which a planted page is found after @target seconds in
 * the median: measure with @gap_ms, tell step, until it says that it is over; @best_ms is then the
 * gap of the ones tried whose delay was nearest (by ratio). Delays grow with the gap, not in
 * proportion.
 */
#define KBENCH_CAL_STEPS 5
struct kbench_cal {
	double target;
	double gap_ms, least_ms;
	double best_ms, best_delay;
	double last_ms, last_delay; /* the try before; delay 0: there is none */
	unsigned int steps;
};
void kbench_cal_begin(struct kbench_cal *c, double target, double gap_ms, double least_ms);
bool kbench_cal_step(struct kbench_cal *c, double delay);
/* The gap for the next run, after a window in which @gap_ms came to @delay: the same when that was
 * near enough. */
double kbench_cal_nudge(double gap_ms, double delay, double target, double least_ms);

/* --- bench_ksm_fleet.c: one fleet under one engine ------------------------------------------- */

struct kfleet {
	const char *engine, *workload;
	unsigned int guests, cell;
	uint64_t mem, seed;
	unsigned int seconds;	/* at most */
	unsigned int sample_ms; /* between readings */
	struct ksm_pace pace;
	struct run_script script;
};
/* The caller frees @r whatever happens. -EINTR when a signal asked to stop, else -errno with a
 * line, also when the run was not ok. */
int kbench_run(struct kbench *k, const struct kfleet *f, struct run_result *r, struct ob_err *e);
/* A script: until the saving stands still. */
int kbench_until_still(struct coord *c, void *arg, struct ob_err *e);

/* --- bench_ksm_plant.c: settled, with planted duplicates ------------------------------------- */

#define KBENCH_TARGETS 2

struct kbench_settled {
	double target;	      /* seconds */
	double gap_ms;	      /* in and out: the rest that was calibrated; negative: not yet */
	double from, to;      /* the window whose CPU time counts, seconds of the run */
	double delay;	      /* the median in the one before */
	unsigned int planted; /* pages that it is of */
};
/*
 * One run: the first merge, then for each target the calibration where there is none yet, and a
 * window. @r as in kbench_run.
 */
int kbench_plant(struct kbench *k, const struct kfleet *f, struct kbench_settled *s,
		 unsigned int ntargets, struct run_result *r, struct ob_err *e);

/* --- the parts ------------------------------------------------------------------------------- */

int kbench_similar(struct kbench *k, struct ob_err *e);
int kbench_shuffle(struct kbench *k, struct ob_err *e);
int kbench_kv(struct kbench *k, struct ob_err *e);
int kbench_steady(struct kbench *k, struct ob_err *e);
int kbench_unique(struct kbench *k, struct ob_err *e);

int bench_ksm(int argc, char **argv);

#endif
