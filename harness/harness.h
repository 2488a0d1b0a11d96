/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness.h: the header of harness/: experiments, their options and their results. The `overbook`
 * command is main.c; one file a verb (cmd_*.c). A *run* is one fleet under one sharing mode; a
 * *result* (schema overbook.result/1, docs/result.md) is a configuration with one or more runs.
 */
#ifndef OVERBOOK_HARNESS_HARNESS_H
#define OVERBOOK_HARNESS_HARNESS_H

#include <jansson.h>
#include <signal.h>
#include <stdio.h>

#include "harness/opts_domain.h"
#include "harness/opts_linux.h"
#include "harness/wset.h"
#include "ksm/ksm.h"

#ifndef OB_VERSION
#define OB_VERSION "0.1.0"
#endif

/* Exit statuses of the command. */
#define OB_EXIT_OK	    0
#define OB_EXIT_FAILED	    1 /* it ran, and something is wrong: integrity, degraded, host */
#define OB_EXIT_USAGE	    2 /* bad input: nothing was started */
#define OB_EXIT_INTERRUPTED 130

#define FLEET_MAX_GUESTS    4096
#define FLEET_MAX_MODES	    8
#define FLEET_MAX_WORKLOADS 16
#define FLEET_DEFAULT_PAUSE 500 /* us */
#define FLEET_DEFAULT_CELL  8	/* measured: docs/benchmarks.md, part cells */
_Static_assert(FLEET_MAX_GUESTS == DOMAIN_MAX_GUESTS, "every guest may be named");

/* --- options: opts.c --------------------------------------------------------------------- */

struct coord;

struct run_script {
	/* 0: go on; 1: the run has what it was for; or -errno with a line in @e. */
	int (*tick)(struct coord *c, void *arg, struct ob_err *e);
	void *arg;
	uint64_t tick_ns; /* how often, about */
};

struct fleet_config {
	unsigned int guests;
	uint64_t mem_bytes;
	char workload[FLEET_MAX_WORKLOADS][16]; /* guest i runs workload[i % nworkloads] */
	unsigned int nworkloads;
	const struct ksm_engine_ops *sharing[FLEET_MAX_MODES];
	unsigned int nsharing;
	bool live; /* --live: one fleet goes through all of them, each for @seconds */
	unsigned int
		seconds; /* measured, from the engine switched on over warm guests; 0: to their end */
	uint64_t seed;
	unsigned int cell;	      /* most guests in one cell */
	struct domain_opts domains;   /* --domain */
	bool across_nodes;	      /* --merge-across-nodes */
	unsigned int warm_timeout;    /* s until the guests are warm; 0: fleet_warm_timeout() */
	unsigned int inject;	      /* enum ksm_inject */
	unsigned int ksm_cpu_percent; /* of one core, for all scanners; 0: no limit */
	unsigned int scan_gap_ms;     /* rest between passes over settled guests; 0: the default */
	struct ksm_pace ksm_pace;     /* --ksm: how the engine kernel drives Linux KSM */
	unsigned int max_pause_us;    /* a guest stands still for merging so long at most */
	struct wset_config wset;      /* --working-set */
	bool io_hints;		      /* --io-hints: what guests read is merged at once */
	/* What backs the guests' memory. */
	enum ept_pages pages;
	/* adaptive: pages that breaking a huge page must give back, of 512; else 0. */
	unsigned int huge_threshold;
	/* A benchmark's: called while the run is measured, and says when it ends (@seconds is then the
	 * most that it may take). NULL: none. */
	const struct run_script *script;
	unsigned int sample_ms;	 /* between two readings; 0: the default, 250 */
	uint64_t host_mem_bytes; /* --host-mem; 0: what the host has */
	const char *json_path;	 /* --json FILE, or NULL; "-" is standard output */
	const char *out_dir;	 /* results/<run> of compare; NULL: none */
	const char *kernel_path, *image_path;
	struct linux_opts lx; /* not our microguest, but Linux */
	bool quiet;
	int console_fd; /* run: where the guests' consoles go; 0 or less: a file per guest */
	const char *control_path; /* --control PATH or "none"; NULL: the default place */
	struct control *control;  /* opened by the verb; NULL: none */
	/* What kernel_path, image_path and out_dir point to when they are defaults: do not let a
	 * copy of this struct outlive it. */
	char kernel_buf[1024], image_buf[1024], out_buf[96];
};

#define FLEET_WARM_SECONDS 120
#define FLEET_WARM_PER_GIB 30

/* How long guests may take to fill their memory, s: a host may need 100 us for a page's first touch. */
static inline unsigned int fleet_warm_timeout(const struct fleet_config *c)
{
	uint64_t gib = c->guests * c->mem_bytes / OB_GIB;

	return c->warm_timeout ? c->warm_timeout
			       : (unsigned int)OB_MIN(FLEET_WARM_SECONDS + FLEET_WARM_PER_GIB * gib,
						      (uint64_t)86400);
}

/*
 * Parse a verb's command line (argp). Returns 0, or OB_EXIT_USAGE after one line on stderr, or -1
 * when help was asked for and printed. Checks everything that can be checked without starting
 * anything: counts, sizes, workloads, that the files are there and whole, that /dev/kvm opens, that
 * the host has the memory.
 */
int opts_fleet(struct fleet_config *c, const char *verb, int argc, char **argv);
/* "64M", "1G", "65536K", "16777216": bytes. -EINVAL, -ERANGE. Pure. */
int opts_parse_size(const char *s, uint64_t *out);
/* Is this a workload of the microguest? hostile-* are: they are for tests. Memory workloads may
 * have up to two numbers: "touch:30", "counters:1:100". (opts_workload.c) */
bool opts_known_workload(const char *name);
/* The same, and are its numbers within bounds? 0 or -EINVAL with a line. */
int opts_check_workload(const char *name, struct ob_err *e);
extern const char *const opts_workloads[]; /* the names; NULL-terminated */
/* The words of the guest command line for it: "workload=touch param=30". At least 96 bytes. */
void opts_workload_words(const char *name, char *buf, size_t n);

/* --- what a run gives: result.c, table.c, report.c --------------------------------------- */

/* One reading while a run goes on. */
struct run_sample {
	double t; /* seconds from the engine switched on; negative before */
	uint64_t touched_bytes, resident_bytes, saved_bytes; /* saved: zero + intra + inter */
	uint64_t saved_zero, saved_intra, saved_inter;	     /* bytes */
	uint64_t ops;					     /* of all guests since boot */
	uint64_t checked_pages, mismatches;
	uint64_t merge_cpu_ns;
};

enum run_status {
	RUN_OK,
	RUN_FAILED,	 /* a mismatch, or the host failed: no figure is to be used */
	RUN_DEGRADED,	 /* a guest or a cell ended early, the others went on */
	RUN_INTERRUPTED, /* ended by a signal or by quit: figures are of the time until then */
	RUN_NSTATUS,
};
const char *run_status_name(enum run_status s);

struct run_guest {
	unsigned int id;
	unsigned int domain; /* of run_result.domain */
	char workload[16];
	char end[16];	  /* "running", "exit", "failed", "lost" (its cell died) */
	char reason[200]; /* when not running to the end */
	uint64_t ops, checked_pages, checked_shared_pages, mismatches, written_pages, disk_pages;
	uint64_t workers, workers_room; /* as the guest says */
	uint64_t state_pages[EPT_NSTATES];
	struct ept_huge_stats huge; /* all 0 with pages of 4 KiB */
	struct agent_mismatch mismatch[AGENT_MISMATCHES];
	unsigned int nmismatch;	      /* of those filled in */
	struct run_wset wset;	      /* --working-set */
	struct ksm_meter_share share; /* of what is resident and saved */
	/* Of Linux guests (all have vCPUs): resets that it booted anew from; what is remarked on one that goes
	 * on; and how its console ended then, or when it failed. */
	unsigned int vcpus, reboots;
	char remark[200];
	char console_tail[1100];
};

/* The guard against storms (ksm/reserve.h), over the measured time. */
struct run_reserve {
	bool on;		   /* the engine has a pool */
	uint64_t bytes, bytes_max; /* the reserve at the end, and at its largest */
	uint64_t break_rate_peak;  /* bytes a second */
	uint64_t available_min;	   /* bytes */
	uint64_t host_mem;	   /* --host-mem; 0: not given */
	uint64_t over_bytes;	   /* so much of it was passed; 0: never */
	double fits_seconds;	   /* --host-mem counts from then on; negative: never */
	double react_seconds, low_seconds, stood_seconds;
	unsigned int pauses;	      /* a cell was made to stand still */
	unsigned int standing_guests; /* at the end */
	unsigned int stuck_guests;    /* of them, for seconds: the run is degraded */
};

/* A sharing domain. Bytes as in struct run_result, of this domain's guests alone. */
struct run_domain {
	char name[DOMAIN_NAME_SIZE];
	unsigned int guests;
	uint64_t saved_zero, saved_intra, saved_inter, metadata_bytes;
	uint64_t frames_made, merged_pages; /* ever, by cells that were there at the end */
};

/* A domain's pool on one node, or on all. */
struct run_pool {
	unsigned int domain; /* of run_result.domain */
	int node;	     /* -1: all nodes */
	unsigned int cells, guests;
	uint64_t frames;       /* in use */
	uint64_t blocks_bytes; /* what its file holds, by the kernel's count */
	uint64_t metadata_bytes;
};

/* A part of what is shared, by where it comes from (content.c). */
#define RUN_CONTENT_NAME 64
#define RUN_CONTENT_MAX	 17 /* 16, and one for the rest */
struct run_content {
	char what[RUN_CONTENT_NAME];  /* a file, "kernel", "not known" */
	char image[RUN_CONTENT_NAME]; /* what it is in; "": nothing that we know of */
	uint64_t frames, pages, bytes_saved;
};

/* A switch of the sharing mode while the guests ran, and what it took back. */
struct run_switch {
	char from[16], to[16];
	double seconds; /* until nothing was shared and the new mode was on; negative: none */
	uint64_t pages, zero_pages; /* that had no memory of their own, and have */
	uint64_t bytes;		    /* that were saved, and are not */
	uint64_t frames_left;	    /* in the pools afterwards: 0 */
	double pause_max_us;	    /* the longest that a guest stood still for it */
};

/* Result of one run. All byte figures are of the last reading, taken with all guests parked. */
struct run_result {
	char sharing[16];
	enum run_status status;
	char note[200]; /* why it is not ok; "not converged" for the kernel engine */
	bool converged; /* kernel engine: pages_sharing stable over two full scans */
	unsigned int guests, cells, cells_lost;
	double boot_seconds, warm_seconds, measured_seconds;
	double paused_seconds; /* stopped by the control socket; in none of the three above */
	uint64_t configured_bytes, touched_bytes, resident_bytes, resident_bytes_kernel;
	int64_t saved_bytes;			       /* net: zero + intra + inter - metadata */
	uint64_t saved_zero, saved_intra, saved_inter; /* bytes */
	uint64_t metadata_ours, metadata_kernel;       /* bytes that sharing itself costs */
	uint64_t metadata_map;			       /* of ours: the page-state maps */
	uint64_t metadata_items; /* of the kernel's: Linux KSM's items and nodes; 0: not told */
	double merge_cpu_seconds;
	double huge_cpu_seconds;    /* of building huge pages, in none of the others */
	double merge_seconds_to_95; /* negative: never (nothing was merged) */
	double ops_per_second;
	double lat_p50_us,
		lat_p99_us; /* of one operation, as the guests measured it; negative: none */
	uint64_t checked_pages, checked_shared_pages, mismatches;
	bool pfn_known;		     /* the meter saw host frame numbers (needs CAP_SYS_ADMIN) */
	bool frames_checked;	     /* the host frames of shared pages could be looked at */
	uint64_t frame_check_errors; /* shared pages whose host frame is not their pool frame's */
	struct ksm_stats ksm;	     /* hash engine: sum over cells */
	struct ksm_sysfs_counters kernel_ksm; /* kernel engine: at the end */
	struct run_reserve reserve;
	struct run_guest *guest;   /* [guests] */
	struct run_domain *domain; /* [ndomains] */
	unsigned int ndomains;
	struct run_pool *pool; /* [npools]; none but under hash */
	unsigned int npools;
	unsigned int nodes;	  /* NUMA nodes that the guests were spread over */
	unsigned int cells_bound; /* to their node; 0 with one node */
	uint64_t saved_foreign;	  /* by frames that guests of two domains share: must be 0 */
	struct run_content content[RUN_CONTENT_MAX]; /* hash engine: most saved first */
	unsigned int ncontent;
	struct ksm_meter_kind kind[AGENT_PAGE_KINDS]; /* what is saved, by enum agent_page_kind */
	bool kinds_known;			      /* of some page at least: else kind is void */
	struct run_sample *sample;
	unsigned int nsamples;
	/*
	 * When the mode was switched on the way: a copy of the result at the end of each phase, the last
	 * one included, whose figures are those of the run. Each has samples of its own, in its time,
	 * and neither phases nor kvm_stats.
	 */
	struct run_result *phase;
	unsigned int nphases;
	double from_seconds, to_seconds;  /* of a phase: in the run's time */
	struct run_switch left;		  /* of a phase: how it was left, if it was */
	struct result_kvmstat *kvm_stats; /* what KVM counted, over time; NULL: nothing */
};

/* Free what a result owns, not the struct. */
void run_result_free(struct run_result *r);

/* The whole document, schema overbook.result/1. New reference. */
json_t *result_json(const struct fleet_config *c, const struct run_result *runs, unsigned int nruns,
		    enum run_status overall);
/* host: kernel, CPU, memory, KVM mode, THP, KSM, swap settings. git: revision and dirty flag. */
json_t *result_host_json(void);
json_t *result_git_json(void);
/* Write a document so that it is whole or not there (temporary file, rename). "-" is stdout. */
int result_write(const json_t *doc, const char *path, struct ob_err *e);

/* The table at the end of compare and fleet, for a person; one column a run. */
void table_print(FILE *out, const struct fleet_config *c, const struct run_result *runs,
		 unsigned int nruns);
/* "512.0 MiB", "1.5 GiB". @buf at least 24 bytes; returns it. Negative values keep their sign. */
char *table_bytes(char *buf, int64_t bytes);

/* One self-contained HTML page (plots as inline SVG by gnuplot) from a result document. When
 * gnuplot is not there the page says so in place of the plot. */
int report_write(const json_t *doc, const char *path, struct ob_err *e);

/* --- running: coord.c, cell.c ------------------------------------------------------------ */

/* Set by SIGINT, SIGTERM and SIGHUP (main.c), and by `quit` on the control socket; looked at by
 * everything that waits. */
extern volatile sig_atomic_t ob_stop_signal;
#define OB_STOP_CONTROL 1000 /* no signal: the control socket */

/*
 * Run one fleet under one mode, start to end. @out is filled whatever happens; returns 0, or -errno
 * with a line in @e when the run could not be started.
 */
int coord_run(const struct fleet_config *c, const struct ksm_engine_ops *mode,
	      struct run_result *out, struct ob_err *e);
/* main() of a cell process (hidden verb "cell"). */
int cell_main(int argc, char **argv);

/* --- the control socket: control.c ------------------------------------------------------- */

struct control;

/*
 * Listen at @path: NULL is the default place, where failing is only warned of; "none" is none, and
 * leaves NULL in @out. 0, or -errno with a line in @e. The socket is gone after control_close (NULL:
 * nothing to do), which tells its clients why the command ends.
 */
int control_open(struct control **out, const char *path, struct ob_err *e);
void control_close(struct control *ctl);
const char *control_path(const struct control *ctl);

/* --- verbs ------------------------------------------------------------------------------- */

int cmd_doctor(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_fleet(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_ept(int argc, char **argv);
int cmd_ctl(int argc, char **argv);

/* --- the benchmark frame: bench.c -------------------------------------------------------- */

/*
 * A figure is measured in alternating pairs, ours and a reference, in one run. Schema
 * overbook.bench/1, written to results/bench/NAME.json (DESIGN: docs/benchmarks.md).
 */
#define BENCH_MAX_SAMPLES 64
#define BENCH_MAX_FIGURES 64

struct bench_figure {
	char figure[96], unit[24], reference_is[96];
	double ours[BENCH_MAX_SAMPLES], reference[BENCH_MAX_SAMPLES];
	unsigned int nours, nreference; /* pairs: sample i of both belong together */
	double goal;	  /* for the median of ours / reference; 0: no goal, only reported */
	bool goal_is_max; /* reached when the ratio is at most (else at least) the goal */
};

struct bench {
	char name[32];
	struct bench_figure fig[BENCH_MAX_FIGURES];
	unsigned int nfig;
};

struct bench_figure *bench_figure(struct bench *b, const char *figure, const char *unit,
				  const char *reference_is);
void bench_add(struct bench_figure *f, double ours, double reference);
/* For figures with no peer: a sample of ours alone. */
void bench_add_ours(struct bench_figure *f, double ours);
/* Print the table and write results/bench/NAME.json. */
int bench_finish(struct bench *b, const char *dir, struct ob_err *e);
double bench_median(const double *v, unsigned int n);

#endif
