/* SPDX-License-Identifier: Apache-2.0 */
/* coord.h: private to the coordinator: a running fleet, and its parts (coord*.c). */
#ifndef OVERBOOK_HARNESS_COORD_H
#define OVERBOOK_HARNESS_COORD_H

#include <sys/types.h>

#include "harness/harness.h"
#include "harness/place.h"
#include "harness/topo.h"

#define COORD_MAX_RAM 4

/* What the coordinator knows of one guest. */
struct coord_guest {
	unsigned int id;
	unsigned int cell;
	uint64_t page_base, pages;
	struct {
		uint64_t hva, size;
	} ram[COORD_MAX_RAM]; /* in its cell's address space */
	unsigned int nram;
	uint64_t staging, staging_size; /* the same of its staging; 0 bytes: it has none */
	uint64_t phase, ops;
	bool ended;	      /* by itself or by a fault, or its cell is lost */
	uint64_t silent_ns;   /* for so long its agent has said nothing, though it ran */
	bool told;	      /* how its console ended when it failed (coord_linux.c) */
	unsigned int remarks; /* on how it boots, that were told */
	uint64_t lat[AGENT_LAT_BUCKETS];
};

/* How far a run has come. Each stage needs all before it. */
enum coord_stage {
	COORD_SETUP,   /* cells and guests are being made: there may be cells without any */
	COORD_READY,   /* all guests are made */
	COORD_MEASURE, /* the engine is on */
};

struct coord_cell {
	pid_t pid;
	int fd;			   /* control; -1: lost */
	const unsigned int *guest; /* its guests, */
	unsigned int n;		   /* so many */
	uint64_t ept_bytes, vmas, huge_cpu_ns, log_bytes;
	uint64_t huge_cpu_t0;	 /* huge_cpu_ns when this phase began */
	uint64_t page_tables_t0; /* bytes of its page tables when the engine was switched on */
	struct ksm_stats ksm;
	char why[200]; /* how it was lost */
};

/* What the cells of one domain share, on one node or on all (place.h). */
struct coord_pool {
	struct ksm_domain *domain;
	int pool_fd, meta_fd;
	uint64_t frames;
	uint64_t frame_base; /* its first frame among those of the fleet, for the meter */
};

/* A switch of the sharing mode: coord_switch.c. */
struct coord_switch {
	const struct ksm_engine_ops *to; /* NULL: none is under way */
	unsigned int done;		 /* switches that were begun and have ended, well or not */
	struct run_switch last;		 /* the one under way, or the last */
	char failed[200];		 /* why the last one was not done; "": it was */
	uint64_t begin_ns;		 /* by the host's clock */
	uint64_t margin;		 /* bytes that the host is to have left meanwhile */
	unsigned int more;		 /* cells that are not through, in one round */
	char *error;			 /* the fleet cannot go on: a line; NULL */
};

struct coord {
	const struct fleet_config *cfg;
	const struct ksm_engine_ops *engine;
	struct run_result *out;
	struct ob_host host;
	struct ob_arena *arena;
	struct place place;
	struct coord_pool *pool; /* [npools], as in place */
	unsigned int npools;
	bool pooled; /* the engine uses them */
	int meter_fd, budget_fd;
	uint64_t fleet_pages, frames;
	uint64_t *meter, *frame_pfn;
	uint8_t *kinds;		   /* behind them: of each page (agent_abi.h); NULL: nobody says */
	struct ksm_budget *budget; /* of all cells together */
	struct coord_cell *cell;
	unsigned int ncells;
	struct coord_guest *guest;
	struct ksm_driver driver;
	bool driving;
	unsigned int mode; /* --live: of cfg->sharing, the one that is on */
	struct ksm_settle settle;
	enum coord_stage stage;
	uint64_t t0_ns;	 /* the engine was switched on; 0: not yet */
	uint64_t end_ns; /* the guests were parked for the last reading; 0: not yet */
	uint64_t boot_ns;
	uint64_t ops_t0;
	struct ksm_sysfs_counters kernel_t0; /* when the engine was switched on */
	uint64_t reap_cpu_ns;		     /* ours, for giving frames back */
	uint64_t lat_t0[AGENT_LAT_BUCKETS];
	unsigned int room; /* samples allocated */
	bool said_unbound; /* that cells could not be bound to their nodes */
	/* Stopped and let go on by the control socket (coord_control.c). */
	bool stopped;
	uint64_t stopped_ns;	   /* since when, by the host's clock */
	uint64_t stood_ns;	   /* for how long, in sum; without the stop under way */
	struct coord_guard *guard; /* against storms (coord_reserve.c); NULL: not on */
	struct coord_switch sw;	   /* from one mode to another (coord_switch.c) */
	uint64_t merge_base_ns;	   /* CPU time of merging in modes that were left */
	uint64_t phase_merge_ns;   /* that of the run when this phase began */
	double phase_at;	   /* when that was, in the time of samples */
	unsigned int phase_sample; /* the sample of that moment */
	/* What guests had verified and found by then. */
	uint64_t phase_checked, phase_checked_shared, phase_mismatches;
	uint64_t phase_errors; /* frame_check_errors of the phases before */
	json_t *answers;       /* what cells have said so far to what a client asks; else NULL */
};

/* --- coord.c ------------------------------------------------------------------------------------ */

/* The fleet's clock: the host's, but it stands still while the fleet is stopped. All times of a run
 * are by it. */
uint64_t coord_now(struct coord *c);

/* A line that says how far it is: over the one before on a terminal, else a line of its own. */
void coord_progress(const struct coord *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* With --live: the next mode has to wait, as guests stand (@stands) for want of memory, but may go on soon. */
bool coord_waits_for_memory(const struct coord *c, bool stands, uint64_t now);

/* The last reading, with all figures: guests, scanner and ksmd stand still for it. The guests stand
 * when it returns. */
int coord_measure_last(struct coord *c, struct ob_err *e);

/* --- coord_setup.c ------------------------------------------------------------------------------ */

/* Which guest is in which cell, on @nodes NUMA nodes, and where its pages are among those of the fleet.
 * -E2BIG with a line when that takes too many cells. */
int coord_layout(struct coord *c, unsigned int nodes, struct ob_err *e);
/* Pool, index, meter, cells, and all guests in them. What was made on failure cleanup undoes. */
int coord_setup(struct coord *c, struct ob_err *e);

/* --- coord_domain.c: the pools of all domains ----------------------------------------------------- */

/* Make and open all pools, their sizes being set. On failure what was made coord_pools_close undoes. */
int coord_pools_open(struct coord *c, struct ob_err *e);
void coord_pools_close(struct coord *c);
/* Give frames back that nobody holds. */
void coord_pools_reap(struct coord *c);
/* The process of @cell is gone: drop what it held. */
void coord_pools_cell_died(struct coord *c, unsigned int cell);
/* --inject flip-frame, in a pool that @seed chooses among those that hold anything. */
void coord_pools_flip(struct coord *c, uint64_t seed);
/* Their figures together. */
void coord_pools_stats(struct coord *c, struct ksm_domain_stats *sum);
/* Host frame numbers of the pools' frames, into c->frame_pfn. */
void coord_pools_learn(struct coord *c);
/* Enter domains and pools into the result: who is in them; and at the end, figures. */
void coord_domains_init(struct coord *c);
int coord_domains_finish(struct coord *c);

/* --- coord_cell.c: the processes --------------------------------------------------------- */

/*
 * A cell that has not answered for so long is taken for lost, and its guests with it, which is for good:
 * so it is long. On a host that is out of CPU or in the midst of swapping an answer took ten seconds.
 */
#define COORD_ASK_MS 60000

int coord_spawn(struct coord *c, unsigned int cell, struct ob_err *e);
/*
 * Ask all cells that are there the same thing (@doc is taken) and gather the answers: @each is
 * called with each answer. A cell that does not answer in time (all have @timeout_ms together, and
 * less once a signal has asked us to stop), or whose end is closed, is lost. When an answer is an
 * error, the others are still gathered; -errno of the first with its line in @e.
 */
int coord_ask(struct coord *c, json_t *doc, int timeout_ms,
	      void (*each)(struct coord *c, unsigned int cell, const json_t *answer),
	      struct ob_err *e);
int coord_ask_one(struct coord *c, unsigned int cell, json_t *doc, int timeout_ms, json_t **answer,
		  struct ob_err *e);
void coord_lose_cell(struct coord *c, unsigned int cell, const char *why);
/* End all cells, kindly first; returns when no process is left. */
void coord_stop_cells(struct coord *c);

/* --- coord_reserve.c: the guard against storms ------------------------------------------- */

/* Once the engine is on. Does nothing for engines without a domain. */
int coord_guard_start(struct coord *c, struct ob_err *e);
/* Look at the host if it is time, and act; ns until the next time. */
uint64_t coord_guard_look(struct coord *c);
/* Its figures into the result. */
void coord_guard_finish(struct coord *c);
/* Is all well, as far as memory goes? @note (at least 100 bytes): what there is to say, or "". */
bool coord_guard_judge(const struct coord *c, char *note, size_t n);
void coord_guard_free(struct coord *c);

/* --- coord_switch.c: from one sharing mode to another --------------------------------------- */

/*
 * Begin to switch the fleet to @to; coord_switch_step does the rest wherever the coordinator waits.
 * Ends the phase that is measured. -errno with a line in @e, everything as it was: -EALREADY (a switch
 * is under way), -EAGAIN (not now), -EINVAL (it is in that mode), -EACCES and the like (Linux KSM cannot
 * be driven), -ENOMEM (what is shared would not fit into the host's memory).
 */
int coord_switch_begin(struct coord *c, const struct ksm_engine_ops *to, struct ob_err *e);
/* Go on with it for some milliseconds. -errno with a line: the fleet cannot go on. */
int coord_switch_step(struct coord *c, struct ob_err *e);
/* A phase has been read to its end (coord_measure_last): a copy of its figures goes into the result. */
void coord_phase_add(struct coord *c);
/* A phase begins: a full reading, and the figures of the result count from it. */
int coord_phase_begin(struct coord *c, struct ob_err *e);

/* --- coord_reserve.c's part of it: bytes that the fleet may still take, by the least of the limits there
 * are, and which that is. */
uint64_t coord_room(struct coord *c, const char **what);
/* Do guests stand still for want of memory? */
bool coord_guard_stands(const struct coord *c);

/* --- coord_measure.c: figures ------------------------------------------------------------ */

/* Count what backs the guests of @domain, UINT_MAX: of all. 0 or -errno. */
int coord_count(struct coord *c, unsigned int domain, struct ksm_meter_result *m);
/* Ask for a sample and enter it into the result. @full: the last one, guests parked. */
int coord_sample(struct coord *c, bool full, struct ob_err *e);
/* coord_wset.c: what cells are told about sampling (null: nothing), and what one says of a guest. */
json_t *coord_wset_doc(const struct fleet_config *cfg);
void coord_wset_take(struct coord *c, struct run_guest *g, const json_t *guest);
/* coord_linux.c: Linux guests: what cells are told of all of them (null: there are none) and of one; and
 * what a sample says of one. */
json_t *coord_linux_doc(const struct fleet_config *cfg);
void coord_linux_guest(const struct fleet_config *cfg, unsigned int guest, json_t *doc);
void coord_linux_take(struct coord *c, struct run_guest *g, const json_t *guest);
/* At the last reading: was an agent silent for so long that its guest may hang, though its time is not up? Then
 * which (@note). The figures are as if it had worked. */
bool coord_linux_silent(const struct coord *c, char *note, size_t n);
/* All have ended: is that as it may be? Those without an agent were to run until they power off, and
 * whoever has the console may power the others off as well. */
bool coord_linux_all_off(const struct coord *c);
/* There is nobody in the guests to say how they are; nor when they have booted: then they are measured
 * from their start; but some had booted, and are gone. */
bool coord_linux_agentless(const struct coord *c);
bool coord_linux_from_start(const struct coord *c);
bool coord_linux_was_ready(const struct coord *c);
/* coord_content.c: top shared content, from the last sample's meter. */
void coord_content(struct coord *c);
/* coord_kinds.c: what is saved by kind, from the same. 0 or -errno with a line. */
int coord_kinds(struct coord *c, struct ob_err *e);
/* Bytes of a cell's page tables now. */
uint64_t coord_page_tables(const struct coord_cell *k);
/* Of the phase that ends with the last sample; -1: nobody counts. */
double coord_ops_per_second(const struct coord *c);
/* All that is computed from the last sample. 0 or -errno with a line. */
int coord_finish(struct coord *c, struct ob_err *e);

#endif
