/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_reserve.c: the coordinator's side of the guard against storms (ksm/reserve.h): it reads
 * what the host has left, lets the reserve judge, and has guests stand still when there is no other
 * way.
 *
 * Breaks are seen where they show first. A page's copy is memory of the cell's process at once (its
 * resident anonymous memory, /proc/PID/statm); that a frame lost a holder is known only when a sync
 * finds it. What is available is the least of
 *
 *	MemAvailable of /proc/meminfo
 *	what each memory cgroup around us leaves below its limit
 *	--host-mem less what the cells hold of their own and what the pool holds
 *
 * What stands still is a cell with all its guests: that is what can be told apart by one cheap
 * reading. Its scanner goes on, and so does merging, which is what brings memory back. Nobody is
 * ever ended for want of memory: a guest that stands loses nothing.
 *
 * All of it is done by the thread that waits in coord.c. A reading that comes late, since a sample
 * took its time, is a late reading, and makes the reserve larger.
 *
 * Guests move into --host-mem: they fill their memory before anything is merged, so the limit
 * counts from the moment when they first fit in, with the reserve to spare.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/coord.h"
#include "harness/opts.h"
#include "ksm/reserve.h"

/* What one CPU can break at most, and what a storm is like, bytes a second (docs/storm.md). */
#define CPU_RATE_MAX (1024 * OB_MIB)
#define CPU_RATE     (256 * OB_MIB)
/* Stopping and going on may alternate quickly: no more lines than one in so long. */
#define LINE_NS (2 * OB_NS_PER_SEC)
/* Merging gets an advance on its budget no more often than this. */
#define BURST_NS OB_NS_PER_SEC
/* Who stands for so long when the run ends did not get on: the run is degraded. */
#define STUCK_NS (3 * OB_NS_PER_SEC)

struct coord_guard {
	struct ksm_reserve reserve;
	struct ksm_breaker *cell;
	int *statm;	  /* of each cell's process; -1: none */
	bool *stands;	  /* as the cells were told */
	bool limited;	  /* a memory cgroup limits us */
	uint64_t next_ns; /* when to look again */
	uint64_t last_ns; /* when it was looked last */
	uint64_t line_ns; /* when a line was written */
	uint64_t stood_ns;
	unsigned int standing; /* cells */
	uint64_t burst_ns;     /* when merging last got an advance */
};

int coord_guard_start(struct coord *c, struct ob_err *e)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = OB_MIN((uint64_t)OB_MAX(cpus, 1), (uint64_t)c->cfg->guests);
	const struct ksm_reserve_opts opts = {.rate_min = n * CPU_RATE,
					      .rate_max = n * CPU_RATE_MAX};
	struct coord_guard *g;

	if (!c->pooled)
		return 0;
	g = calloc(1, sizeof(*g));
	OB_ASSERT(g);
	c->guard = g;
	g->cell = calloc(c->ncells, sizeof(*g->cell));
	g->statm = calloc(c->ncells, sizeof(*g->statm));
	g->stands = calloc(c->ncells, sizeof(*g->stands));
	OB_ASSERT(g->cell && g->statm && g->stands);
	ksm_reserve_init(&g->reserve, &opts);
	g->limited = hostmem_cgroup_limit("") != UINT64_MAX;
	for (unsigned int i = 0; i < c->ncells; i++)
		g->statm[i] = -1;
	for (unsigned int i = 0; i < c->ncells; i++) {
		char path[64];

		if (c->cell[i].fd < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/statm", (int)c->cell[i].pid);
		g->statm[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (g->statm[i] < 0)
			return ob_fail(e, errno, "%s: %s", path, strerror(errno));
	}
	c->out->reserve.on = true;
	c->out->reserve.fits_seconds = -1;
	c->out->reserve.host_mem = c->cfg->host_mem_bytes;
	return 0;
}

void coord_guard_free(struct coord *c)
{
	struct coord_guard *g = c->guard;

	if (!g)
		return;
	for (unsigned int i = 0; i < c->ncells; i++)
		if (g->statm[i] >= 0)
			close(g->statm[i]);
	free(g->cell);
	free(g->statm);
	free(g->stands);
	free(g);
	c->guard = NULL;
}

/* --- reading the host -------------------------------------------------------------------- */

/* Anonymous memory that process holds now. false: it is gone. */
static bool own_bytes(int fd, uint64_t *bytes)
{
	uint64_t resident, shared;
	char line[160];
	ssize_t n = fd < 0 ? -1 : pread(fd, line, sizeof(line) - 1, 0);

	if (n <= 0)
		return false;
	line[n] = '\0';
	if (sscanf(line, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2)
		return false;
	*bytes = (resident - OB_MIN(shared, resident)) * OB_PAGE_SIZE;
	return true;
}

/* What guests could come to hold: by the page maps, as they were at the last sample, or by what the
 * cells hold now; the larger, as either may be behind. */
static uint64_t could_break(const struct coord *c, uint64_t own)
{
	uint64_t pages = 0, all = 0;

	for (unsigned int i = 0; i < c->cfg->guests; i++) {
		uint64_t private = c->out->guest[i].state_pages[EPT_PRIVATE];

		if (c->guest[i].ended)
			continue;
		all += c->guest[i].pages;
		pages += c->guest[i].pages - OB_MIN(private, c->guest[i].pages);
	}
	all = all * OB_PAGE_SIZE > own ? all * OB_PAGE_SIZE - own : 0;
	return OB_MAX(pages * OB_PAGE_SIZE, all);
}

/* Under --host-mem: what is left of it. UINT64_MAX as long as the fleet has not fitted in. */
static uint64_t host_mem_left(struct coord *c, uint64_t own, uint64_t now)
{
	uint64_t limit = c->cfg->host_mem_bytes, pool = 0, blocks;
	struct run_reserve *out = &c->out->reserve;

	if (!limit)
		return UINT64_MAX;
	for (unsigned int i = 0; i < c->npools; i++)
		if (!c->host.ops->file_blocks(&c->host, c->pool[i].pool_fd, &blocks))
			pool += blocks;
	if (out->fits_seconds < 0) {
		if (own + pool + 3 * c->guard->reserve.bytes > limit)
			return UINT64_MAX;
		out->fits_seconds = (double)(now - c->t0_ns) / OB_NS_PER_SEC;
	}
	if (own + pool > limit)
		out->over_bytes = OB_MAX(out->over_bytes, own + pool - limit);
	return limit - OB_MIN(limit, own + pool);
}

static void read_host(struct coord *c, uint64_t now, struct ksm_reserve_reading *in)
{
	struct coord_guard *g = c->guard;

	*in = (struct ksm_reserve_reading){.available = UINT64_MAX};
	for (unsigned int i = 0; i < c->ncells; i++) {
		struct ksm_breaker *b = &g->cell[i];

		b->absent = c->cell[i].fd < 0 || !own_bytes(g->statm[i], &b->own);
		if (!b->absent)
			in->own += b->own;
	}
	in->could = could_break(c, in->own);
	/* Where it is not told it is not what binds. */
	if (hostmem_meminfo("", "MemAvailable", &in->available))
		in->available = UINT64_MAX;
	if (g->limited)
		in->available = OB_MIN(in->available, hostmem_cgroup_room(""));
	in->available = OB_MIN(in->available, host_mem_left(c, in->own, now));
}

uint64_t coord_room(struct coord *c, const char **what)
{
	uint64_t room, limit = c->cfg->host_mem_bytes, held = c->out->resident_bytes, cgroup;

	*what = "the host's memory";
	if (hostmem_meminfo("", "MemAvailable", &room))
		room = UINT64_MAX;
	cgroup = hostmem_cgroup_limit("") == UINT64_MAX ? UINT64_MAX : hostmem_cgroup_room("");
	if (cgroup < room) {
		*what = "the memory cgroup";
		room = cgroup;
	}
	/* By the last reading. */
	if (limit && limit - OB_MIN(limit, held) < room) {
		*what = "--host-mem";
		room = limit - OB_MIN(limit, held);
	}
	return room;
}

bool coord_guard_stands(const struct coord *c)
{
	return c->guard && c->guard->standing;
}

/* --- doing something about it ------------------------------------------------------------ */

static void say(struct coord *c, uint64_t now, unsigned int guests)
{
	struct coord_guard *g = c->guard;
	char left[24], reserve[24];

	if (g->line_ns && now - g->line_ns < LINE_NS)
		return;
	g->line_ns = now;
	coord_progress(
		c, "memory is short: %s left, %s are kept for what may break; %u guests %s",
		table_bytes(left, (int64_t)OB_MIN(g->reserve.available, (uint64_t)INT64_MAX)),
		table_bytes(reserve, (int64_t)g->reserve.bytes), guests,
		guests ? "stand still until there is more" : "stand still, all go on");
}

/* Tell the cells which of them are to stand. */
static void tell(struct coord *c, uint64_t now)
{
	struct coord_guard *g = c->guard;
	json_t *cells = json_array();
	unsigned int guests = 0;
	struct ob_err e = {""};
	bool stopped = false;
	uint64_t begin = c->host.ops->now_ns(&c->host);

	g->standing = 0;
	for (unsigned int i = 0; i < c->ncells; i++) {
		bool stands = g->cell[i].stands && !g->cell[i].absent;

		if (stands && !g->stands[i]) {
			stopped = true;
			c->out->reserve.pauses++;
		}
		g->stands[i] = stands;
		if (!stands)
			continue;
		json_array_append_new(cells, json_integer(i));
		g->standing++;
		guests += c->cell[i].n;
	}
	c->out->reserve.standing_guests = guests;
	if (coord_ask(c, json_pack("{s:s,s:o}", "do", "stand", "cells", cells), COORD_ASK_MS, NULL,
		      &e))
		ob_warn("guests cannot be held up: %s", e.msg);
	if (stopped)
		ksm_reserve_acted(&g->reserve, c->host.ops->now_ns(&c->host) - begin);
	say(c, now, guests);
}

/* Memory is low: what merging could bring back is worth more than the CPU that it takes. */
static void hurry(struct coord *c, uint64_t own)
{
	struct coord_guard *g = c->guard;
	uint64_t now = c->host.ops->now_ns(&c->host);

	if (!c->budget || (g->burst_ns && now - g->burst_ns < BURST_NS))
		return;
	g->burst_ns = now;
	ksm_budget_burst(c->budget, now, own / OB_PAGE_SIZE);
}

uint64_t coord_guard_look(struct coord *c)
{
	struct coord_guard *g = c->guard;
	struct ksm_reserve_reading in;
	uint64_t now;

	if (!g || c->stopped)
		return UINT64_MAX;
	now = coord_now(c);
	if (now < g->next_ns)
		return g->next_ns - now;
	if (g->last_ns && g->standing)
		g->stood_ns += now - g->last_ns;
	g->last_ns = now;
	read_host(c, now, &in);
	if (ksm_reserve_step(&g->reserve, now, &in) != KSM_RESERVE_OK)
		hurry(c, in.own);
	if (ksm_reserve_throttle(&g->reserve, now, g->cell, c->ncells))
		tell(c, now);
	g->next_ns = now + g->reserve.look_ns;
	now = coord_now(c);
	return g->next_ns > now ? g->next_ns - now : 1;
}

void coord_guard_finish(struct coord *c)
{
	const struct coord_guard *g = c->guard;
	struct run_reserve *out = &c->out->reserve;

	if (!g)
		return;
	out->bytes = g->reserve.bytes;
	out->bytes_max = g->reserve.bytes_max;
	out->break_rate_peak = g->reserve.rate_peak;
	out->available_min = g->reserve.available_min;
	out->react_seconds = (double)g->reserve.react_ns / OB_NS_PER_SEC;
	out->low_seconds = (double)g->reserve.low_ns / OB_NS_PER_SEC;
	out->stood_seconds = (double)g->stood_ns / OB_NS_PER_SEC;
	for (unsigned int i = 0; i < c->ncells; i++)
		if (g->stands[i] && coord_now(c) - g->cell[i].since_ns > STUCK_NS)
			out->stuck_guests += c->cell[i].n;
}

bool coord_guard_judge(const struct coord *c, char *note, size_t n)
{
	const struct run_reserve *r = &c->out->reserve;
	char a[24], b[24];

	*note = '\0';
	if (!c->guard)
		return true;
	if (r->over_bytes) {
		snprintf(note, n, "the fleet was %s over --host-mem %s",
			 table_bytes(a, (int64_t)r->over_bytes),
			 table_bytes(b, (int64_t)r->host_mem));
		return false;
	}
	if (r->stuck_guests) {
		snprintf(note, n, "%u guests stand still for want of memory", r->stuck_guests);
		return false;
	}
	if (r->host_mem && r->fits_seconds < 0) {
		snprintf(note, n, "the fleet never fitted into --host-mem %s",
			 table_bytes(b, (int64_t)r->host_mem));
		return false;
	}
	if (r->pauses)
		snprintf(note, n, "guests stood still for %.1f s for want of memory",
			 r->stood_seconds);
	return true;
}
