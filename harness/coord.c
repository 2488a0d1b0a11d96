/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord.c: one run of one fleet, from the first process to the last figure.
 *
 *	set up: pool, index and meter; cells; guests in them		(boot)
 *	start the guests, wait until all have filled their memory	(warm)
 *	switch the engine on, take readings while they work		(measured)
 *	park all guests, take the last reading; stop			(result)
 *
 * Merging starts over warm guests, so that all engines get the same work to do and the time that it
 * takes is theirs alone. A guest or a cell that is lost on the way makes the run `degraded`; the
 * others go on. A signal ends the run early with what was measured.
 *
 * Whoever waits here serves the control socket meanwhile (nap_until). What is asked there is done
 * between two readings, never in the middle of one.
 */
#include "harness/coord.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/control.h"

#include "harness/proto.h"
#include "harness/result.h"

#define SAMPLE_NS    (250 * OB_NS_PER_MS)
#define WARM_POLL_NS (100 * OB_NS_PER_MS)
#define READING_REST 3
/* A signal that comes just before a wait is seen after so long. */
#define NAP_NS (50 * OB_NS_PER_MS)
/* Linux KSM is the yardstick: it gets the time that it needs, up to so many times --seconds. So does
 * our merging where one fleet goes through several modes. */
#define PATIENCE 3
/* And so long beyond that, when guests stand for want of memory just then: nobody is switched who stands. */
#define STANDING_NS (60 * OB_NS_PER_SEC)
/* --inject flip-frame: begin when something has been merged, and go on: a flipped frame may be read
 * by nobody for a while. */
#define FLIP_AFTER 0.5

/* --- progress ---------------------------------------------------------------------------- */

void coord_progress(const struct coord *c, const char *fmt, ...)
{
	bool tty = isatty(STDERR_FILENO);
	char line[200];
	va_list ap;

	if (c->cfg->quiet)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, tty ? "\r\033[K%-6s  %s" : "%-6s  %s\n", c->engine->name, line);
}

static void progress_end(const struct coord *c)
{
	if (!c->cfg->quiet && isatty(STDERR_FILENO))
		fputc('\n', stderr);
}

/* --- the run ----------------------------------------------------------------------------- */

uint64_t coord_now(struct coord *c)
{
	return (c->stopped ? c->stopped_ns : c->host.ops->now_ns(&c->host)) - c->stood_ns;
}

/* Serve the control socket until it is time, at least once; while the fleet is stopped, until it goes
 * on. A signal ends it. */
static void nap_until(struct coord *c, uint64_t until_ns)
{
	struct ob_err e = {""};

	do {
		uint64_t now = coord_now(c), left = until_ns > now ? until_ns - now : 0;

		if (c->stopped)
			left = NAP_NS;
		left = c->sw.to && !c->stopped ? 0 : OB_MIN(left, coord_guard_look(c));
		control_serve(c->cfg->control, OB_MIN(left, NAP_NS));
		if (!c->sw.error && coord_switch_step(c, &e))
			c->sw.error = strdup(e.msg);
	} while (!ob_stop_signal && (c->stopped || coord_now(c) < until_ns));
}

static unsigned int count_guests(const struct coord *c, bool ended)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < c->cfg->guests; i++)
		n += ended ? c->guest[i].ended
			   : !c->guest[i].ended && c->guest[i].phase >= AGENT_WARM;
	return n;
}

/* A reading looks at each page of the guests: it began at @began, and the next one begins so much later
 * that all of them together take a quarter of the time at most. */
static uint64_t after_reading(struct coord *c, uint64_t began)
{
	uint64_t now = coord_now(c);

	return now + READING_REST * (now - began);
}

static int wait_warm(struct coord *c, struct ob_err *e)
{
	const char *doing = coord_linux_agentless(c) ? "booting" : "filling memory";
	/* Of Linux guests, from when they must have booted. */
	uint64_t limit =
		c->boot_ns + (fleet_warm_timeout(c->cfg) + c->cfg->lx.boot_timeout) * OB_NS_PER_SEC;
	unsigned int warm = 0, ended = 0;
	uint64_t next = 0;
	int r;

	while (!ob_stop_signal) {
		uint64_t now = coord_now(c);

		r = coord_sample(c, false, e);
		if (r)
			return r;
		warm = count_guests(c, false);
		ended = count_guests(c, true);
		if (now >= next || isatty(STDERR_FILENO)) {
			coord_progress(c, "%s: %u of %u guests ready", doing, warm, c->cfg->guests);
			next = now + 2 * OB_NS_PER_SEC;
		}
		if (warm + ended == c->cfg->guests)
			break;
		if (now > limit) {
			r = coord_ask(c, json_pack("{s:s}", "do", "fail-cold"), COORD_ASK_MS, NULL,
				      e);
			if (r)
				return r;
		}
		nap_until(c, OB_MAX(now + WARM_POLL_NS, after_reading(c, now)));
	}
	c->out->warm_seconds = (double)(coord_now(c) - c->boot_ns) / OB_NS_PER_SEC;
	if (!ob_stop_signal && !warm && !coord_linux_was_ready(c))
		return ob_fail(e, EIO, "no guest came up: %s", c->out->guest[0].reason);
	return 0;
}

/* The readings until now were taken before zero; their times count from the boot, @since ago. */
static void count_back(struct coord *c, double since)
{
	for (unsigned int i = 0; i < c->out->nsamples; i++)
		c->out->sample[i].t -= since;
	result_kvmstat_shift(c->out->kvm_stats, since);
}

static int switch_on(struct coord *c, struct ob_err *e)
{
	int r;

	/* First KSM's settings, which take their time; it finds nothing to do before the cells say so. */
	if (!strcmp(c->engine->name, "kernel")) {
		r = ksm_driver_start(&c->driver, "/proc/self/exe", NULL, &c->cfg->ksm_pace, e);
		if (r)
			return r;
		c->driving = true;
	}
	r = coord_phase_begin(c, e);
	if (r)
		return r;
	c->t0_ns = coord_now(c);
	/* The readings before belong to the first phase as well. */
	c->phase_sample = 0;
	c->phase_checked = c->phase_mismatches = 0;
	count_back(c, (double)(c->t0_ns - c->boot_ns) / OB_NS_PER_SEC);
	c->stage = COORD_MEASURE;
	r = coord_ask(c, json_pack("{s:s}", "do", "engine"), COORD_ASK_MS, NULL, e);
	return r ? r : coord_guard_start(c, e);
}

static void reap(struct coord *c)
{
	uint64_t cpu = c->host.ops->thread_cpu_ns(&c->host);

	if (!c->pooled)
		return;
	coord_pools_reap(c);
	c->reap_cpu_ns += c->host.ops->thread_cpu_ns(&c->host) - cpu;
}

/* Wait until it is time for the next reading. 1: a script says that the run is over. */
static int wait_reading(struct coord *c, uint64_t until_ns, struct ob_err *e)
{
	const struct run_script *s = c->cfg->script;
	int r = 0;

	if (!s) {
		nap_until(c, until_ns);
		return 0;
	}
	do {
		nap_until(c, OB_MIN(until_ns, coord_now(c) + s->tick_ns));
		r = s->tick(c, s->arg, e);
	} while (!r && !ob_stop_signal && coord_now(c) < until_ns);
	return r;
}

/*
 * With --live modes are compared by where they end, so ours gets what Linux KSM gets: time, while it
 * still merges. It has settled when the last third of --seconds brought less than a hundredth more.
 */
static bool still_merging(const struct coord *c)
{
	const struct run_result *out = c->out;
	const struct run_sample *last = &out->sample[out->nsamples - 1], *s = last;

	while (s > out->sample && s->t > last->t - c->cfg->seconds / 3.0)
		s--;
	return s->t < c->phase_at || (double)last->saved_bytes > 1.01 * (double)s->saved_bytes;
}

/* By the fleet's clock: when the mode that is on began, with --live, else the run. */
static uint64_t mode_begin(const struct coord *c)
{
	return c->t0_ns + (c->cfg->live ? (uint64_t)(c->phase_at * OB_NS_PER_SEC) : 0);
}

bool coord_waits_for_memory(const struct coord *c, bool stands, uint64_t now)
{
	uint64_t most = PATIENCE * c->cfg->seconds * OB_NS_PER_SEC + STANDING_NS;

	return stands && c->cfg->live && c->mode + 1 < c->cfg->nsharing &&
	       now < mode_begin(c) + most;
}

/* Has the mode that is on been measured for long enough? With --live each mode has its time, else the
 * run has, whatever modes it is switched through. */
static bool measured(struct coord *c, uint64_t now)
{
	uint64_t all = c->cfg->seconds * OB_NS_PER_SEC, begin = mode_begin(c);

	if (c->sw.to || !all || now < begin + all)
		return false;
	if (c->cfg->script || now - begin >= PATIENCE * all)
		return true;
	return !(c->driving && !c->out->converged) &&
	       !(c->cfg->live && c->pooled && still_merging(c));
}

/* What comes after the mode that is on: 1: nothing; 0: the next one, with --live. */
static int next_mode(struct coord *c, struct ob_err *e)
{
	if (*c->sw.failed && c->cfg->live)
		return ob_fail(e, EIO, "switching to %s: %s", c->cfg->sharing[c->mode]->name,
			       c->sw.failed);
	if (!c->cfg->live || c->mode + 1 == c->cfg->nsharing)
		return 1;
	return coord_switch_begin(c, c->cfg->sharing[++c->mode], e);
}

static void say_measured(struct coord *c)
{
	const struct run_sample *s = &c->out->sample[c->out->nsamples - 1];
	char saved[24];

	coord_progress(c, "%4.1f of %u s, saved %s, %llu pages verified",
		       OB_MAX(s->t - (c->cfg->live ? c->phase_at : 0), 0.0), c->cfg->seconds,
		       table_bytes(saved, (int64_t)s->saved_bytes),
		       (unsigned long long)s->checked_pages);
}

static int measure(struct coord *c, struct ob_err *e)
{
	uint64_t every = c->cfg->sample_ms ? c->cfg->sample_ms * OB_NS_PER_MS : SAMPLE_NS;
	uint64_t all = c->cfg->seconds * OB_NS_PER_SEC;
	uint64_t next_line = 0;
	struct ksm_sysfs_counters k;
	int r, over;

	for (uint64_t next = c->t0_ns, now = next; !ob_stop_signal; next += every) {
		const struct run_sample *s;
		/* There is one at the moment when a mode's time is up. */
		uint64_t end = all && !c->sw.to ? mode_begin(c) + all : UINT64_MAX;
		uint64_t began;

		/* What a reading took longer is not made up for. */
		next = OB_MAX(next, now > every ? now - every : 0);
		over = wait_reading(c, now < end ? OB_MIN(next, end) : next, e);
		if (over < 0)
			return over;
		if (c->sw.error)
			return ob_fail(e, EIO, "%s", c->sw.error);
		began = coord_now(c);
		r = coord_sample(c, false, e);
		if (r)
			return r;
		/* Nor is one so near to the last that readings are all that is done. Who has said how often
		 * has it so. */
		if (!c->cfg->sample_ms)
			next = OB_MAX(next, after_reading(c, began) - every);
		reap(c);
		s = &c->out->sample[c->out->nsamples - 1];
		if (c->driving && !ksm_sysfs_read(&k))
			c->out->converged |= ksm_settled(&c->settle, &k);
		if (c->pooled && c->cfg->inject & KSM_INJECT_FLIP_FRAME && s->t > FLIP_AFTER)
			coord_pools_flip(c, c->cfg->seed + c->out->nsamples);
		now = coord_now(c);
		if (isatty(STDERR_FILENO) || now >= next_line) {
			say_measured(c);
			next_line = now + 2 * OB_NS_PER_SEC;
		}
		if (over ||
		    (measured(c, now) && !coord_waits_for_memory(c, coord_guard_stands(c), now))) {
			r = over ? 1 : next_mode(c, e);
			if (r)
				return r < 0 ? r : 0;
		}
		if (count_guests(c, true) == c->cfg->guests && coord_linux_all_off(c))
			break;
		if (count_guests(c, true) == c->cfg->guests)
			return ob_fail(e, EIO, "no guest is left: %s", c->out->guest[0].reason);
	}
	return 0;
}

/* The last reading: guests, scanner and ksmd stand still, so that our figures and the kernel's are of
 * the same moment. */
int coord_measure_last(struct coord *c, struct ob_err *e)
{
	/* Waiting for ksmd's batch takes up to a second or two, more on a busy host: the guests run
	 * meanwhile, as ksmd does. Somebody who wants to stop does not have that time: then the two counts
	 * are some milliseconds apart. */
	bool hold = c->driving && !ob_stop_signal;
	int r;

	if (hold)
		ksm_driver_hold(true);
	r = coord_ask(c, json_pack("{s:s,s:b}", "do", "pause", "last", 1), COORD_ASK_MS, NULL, e);
	coord_guard_finish(c);
	c->end_ns = coord_now(c);
	reap(c);
	if (!r)
		r = coord_sample(c, true, e);
	/* Stopped before the engine was on: the last reading is as near to zero as it came. */
	if (!r && !c->t0_ns)
		count_back(c, c->out->sample[c->out->nsamples - 1].t);
	if (!r)
		r = coord_finish(c, e);
	/* Others may be using it. For us the guardian puts it back. */
	if (hold)
		ksm_driver_hold(false);
	return r;
}

static void judge(struct coord *c, int err, const struct ob_err *e)
{
	struct run_result *out = c->out;
	unsigned int bad = 0;
	char memory[100];
	bool room = coord_guard_judge(c, memory, sizeof(memory));

	for (unsigned int i = 0; i < c->cfg->guests; i++)
		bad += !strcmp(out->guest[i].end, "failed") || !strcmp(out->guest[i].end, "lost");
	if (out->mismatches) {
		out->status = RUN_FAILED;
		snprintf(out->note, sizeof(out->note), "%llu mismatches in guest memory",
			 (unsigned long long)out->mismatches);
	} else if (out->frame_check_errors) {
		out->status = RUN_FAILED;
		snprintf(out->note, sizeof(out->note), "%llu shared pages are not on their frames",
			 (unsigned long long)out->frame_check_errors);
	} else if (ob_stop_signal) {
		out->status = RUN_INTERRUPTED;
		if (ob_stop_signal == OB_STOP_CONTROL)
			snprintf(out->note, sizeof(out->note), "stopped by the control socket");
		else
			snprintf(out->note, sizeof(out->note), "stopped by signal %d",
				 (int)ob_stop_signal);
	} else if (err) {
		out->status = RUN_FAILED;
		snprintf(out->note, sizeof(out->note), "%.*s", (int)sizeof(out->note) - 1, e->msg);
	} else if (out->cells_lost || bad) {
		out->status = RUN_DEGRADED;
		snprintf(out->note, sizeof(out->note), "%u of %u guests did not run to the end",
			 bad, c->cfg->guests);
	} else if (coord_linux_silent(c, out->note, sizeof(out->note))) {
		out->status = RUN_DEGRADED;
	} else if (!room) {
		out->status = RUN_DEGRADED;
		snprintf(out->note, sizeof(out->note), "%s", memory);
	} else if (c->driving && !out->converged) {
		snprintf(out->note, sizeof(out->note), "not converged");
	} else if (out->paused_seconds > 0) {
		snprintf(out->note, sizeof(out->note), "stood still for %.1f s by request",
			 out->paused_seconds);
	} else if (*memory) {
		snprintf(out->note, sizeof(out->note), "%s", memory);
	} else if (coord_linux_agentless(c) && c->cfg->guests > 1) {
		snprintf(out->note, sizeof(out->note),
			 "guests without an agent: measured from %s, nothing was verified",
			 coord_linux_from_start(c) ? "their start" : "when all were ready");
	}
}

static void cleanup(struct coord *c)
{
	coord_stop_cells(c);
	coord_guard_free(c);
	/* It is driven as soon as a switch to it has begun. */
	if (c->driving || (c->sw.to && !strcmp(c->sw.to->name, "kernel")))
		ksm_driver_stop(&c->driver);
	coord_pools_close(c);
	if (c->meter)
		c->host.ops->unmap(&c->host, hva_of(c->meter),
				   cell_meter_size(c->fleet_pages, c->frames));
	if (c->budget)
		c->host.ops->unmap(&c->host, hva_of(c->budget), OB_PAGE_SIZE);
	if (c->meter_fd >= 0)
		close(c->meter_fd);
	if (c->budget_fd >= 0)
		close(c->budget_fd);
	place_free(&c->place);
	free(c->sw.error);
	free(c->cell);
	free(c->guest);
	ob_arena_free(c->arena);
	ob_host_linux_exit(&c->host);
}

/* NUMA nodes to spread the guests over. One guest is nobody's to spread: the kernel does what is best. */
static int count_nodes(const struct fleet_config *cfg, unsigned int *nodes, struct ob_err *e)
{
	struct topo *t;
	int r;

	*nodes = 1;
	if (cfg->guests == 1)
		return 0;
	r = topo_open(&t, e);
	if (r)
		return r;
	*nodes = topo_nodes(t);
	topo_close(t);
	return 0;
}

int coord_run(const struct fleet_config *cfg, const struct ksm_engine_ops *mode,
	      struct run_result *out, struct ob_err *e)
{
	struct coord c = {
		.cfg = cfg,
		.engine = mode,
		.out = out,
		.meter_fd = -1,
		.budget_fd = -1,
	};
	unsigned int nodes = 1;
	uint64_t begin;
	int r;

	*out = (struct run_result){.guests = cfg->guests};
	snprintf(out->sharing, sizeof(out->sharing), "%s", mode->name);
	out->configured_bytes = cfg->guests * cfg->mem_bytes;
	out->guest = calloc(cfg->guests, sizeof(*out->guest));
	OB_ASSERT(out->guest);
	r = ob_host_linux_init(&c.host, e);
	if (r) {
		out->status = RUN_FAILED;
		return r;
	}
	c.arena = ob_arena_new("coord");
	r = count_nodes(cfg, &nodes, e);
	begin = coord_now(&c);
	if (!r)
		r = coord_layout(&c, nodes, e);
	if (r) {
		out->status = RUN_FAILED;
		cleanup(&c);
		return r;
	}
	out->cells = c.ncells;
	if (cfg->control)
		cfg->control->coord = &c;

	c.boot_ns = begin;
	r = coord_setup(&c, e);
	if (!r && !ob_stop_signal) {
		c.stage = COORD_READY;
		c.boot_ns = coord_now(&c);
		out->boot_seconds = (double)(c.boot_ns - begin) / OB_NS_PER_SEC;
		r = coord_ask(&c, json_pack("{s:s}", "do", "start"), COORD_ASK_MS, NULL, e);
	}
	if (!r && !ob_stop_signal && !coord_linux_from_start(&c))
		r = wait_warm(&c, e);
	if (!r && !ob_stop_signal)
		r = switch_on(&c, e);
	if (!r && !ob_stop_signal)
		r = measure(&c, e);
	/* Also when interrupted: what there is, from guests that there are. */
	if (!r && c.stage >= COORD_READY)
		r = coord_measure_last(&c, e);
	if (!r && out->nphases && !c.sw.to)
		coord_phase_add(&c);
	else
		c.phase_errors += out->frame_check_errors;
	out->frame_check_errors = c.phase_errors;
	if (c.stopped)
		c.stood_ns += c.host.ops->now_ns(&c.host) - c.stopped_ns;
	out->paused_seconds = (double)c.stood_ns / OB_NS_PER_SEC;
	if (cfg->control)
		cfg->control->coord = NULL;
	judge(&c, r, e);
	coord_progress(&c, "%s%s%s", run_status_name(out->status), *out->note ? ": " : "",
		       out->note);
	progress_end(&c);
	cleanup(&c);
	return ob_stop_signal ? 0 : r;
}
