/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_switch.c: from one sharing mode to another, over the same guests, while they run.
 *
 *	the phase ends		a reading with all guests parked, as at the end of a run
 *	leave			the engine stops, and what it has merged is taken back in the cells
 *	enter			when the last page is: another engine takes its place
 *	a phase begins		a reading like the first of a run; the engine starts
 *
 * In between the guests run. So every mode begins over guests that hold what they would hold had
 * nothing ever been shared, and the figures of one phase are as good as those of a run of its own,
 * by the same meter. What needs a decision is asked before anything is changed: is there a fleet that
 * can be switched, can Linux KSM be driven, has the host the memory? Should memory run out all the
 * same (somebody else takes it), the engine that was left goes on, over what is still shared.
 *
 * Leaving takes its time, and is done in steps of some milliseconds, from wherever the coordinator
 * waits: it goes on taking readings, and answers its control socket.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/control.h"
#include "harness/coord.h"
#include "harness/opts.h"
#include "harness/proto.h"
#include "harness/result.h"

#define STEP_MS 40
/* The host is to have so much left beyond what is taken back: this, and a 16th of that. */
#define MARGIN (32 * OB_MIB)

/* --- phases of a run --------------------------------------------------------------------- */

static void *copy(const void *from, size_t n, size_t size)
{
	void *to = calloc(OB_MAX(n, (size_t)1), size);

	OB_ASSERT(to);
	if (n)
		memcpy(to, from, n * size);
	return to;
}

void coord_phase_add(struct coord *c)
{
	struct run_result *out = c->out, *p;
	unsigned int nsamples = out->nsamples - OB_MIN(c->phase_sample, out->nsamples), bad = 0;

	out->phase = realloc(out->phase, (out->nphases + 1) * sizeof(*out->phase));
	OB_ASSERT(out->phase);
	p = &out->phase[out->nphases];
	*p = *out;
	p->phase = NULL;
	p->nphases = 0;
	p->kvm_stats = NULL;
	p->note[0] = '\0';
	p->paused_seconds = 0;
	p->status = RUN_OK;
	if (c->driving && !out->converged)
		snprintf(p->note, sizeof(p->note), "not converged");
	for (unsigned int i = 0; i < out->guests; i++)
		bad += !strcmp(out->guest[i].end, "failed") || !strcmp(out->guest[i].end, "lost");
	if (coord_linux_silent(c, p->note, sizeof(p->note)))
		p->status = RUN_DEGRADED;
	if (bad) {
		p->status = RUN_DEGRADED;
		snprintf(p->note, sizeof(p->note), "%u of %u guests were gone by its end", bad,
			 out->guests);
	}
	if (p->mismatches || p->frame_check_errors)
		p->status = RUN_FAILED;
	/* Who has found a wrong page once is not to be believed any more; but it counts where it was found. */
	p->checked_pages -= OB_MIN(p->checked_pages, c->phase_checked);
	p->checked_shared_pages -= OB_MIN(p->checked_shared_pages, c->phase_checked_shared);
	p->mismatches -= OB_MIN(p->mismatches, c->phase_mismatches);
	p->guest = copy(out->guest, out->guests, sizeof(*out->guest));
	/* The working set is estimated over the whole run. */
	for (unsigned int i = 0; i < p->guests; i++)
		p->guest[i].wset = (struct run_wset){0};
	p->domain = copy(out->domain, out->ndomains, sizeof(*out->domain));
	p->pool = copy(out->pool, out->npools, sizeof(*out->pool));
	p->sample = copy(out->sample + c->phase_sample, nsamples, sizeof(*out->sample));
	p->nsamples = nsamples;
	for (unsigned int i = 0; i < nsamples; i++) {
		p->sample[i].t -= c->phase_at;
		p->sample[i].merge_cpu_ns -= OB_MIN(p->sample[i].merge_cpu_ns, c->phase_merge_ns);
	}
	p->from_seconds = c->phase_at;
	p->to_seconds = c->phase_at + p->measured_seconds;
	p->left = (struct run_switch){.seconds = -1};
	c->phase_errors += out->frame_check_errors;
	out->nphases++;
}

int coord_phase_begin(struct coord *c, struct ob_err *e)
{
	struct run_result *out = c->out;
	const struct run_sample *s;
	int r = coord_sample(c, true, e);

	if (r)
		return r;
	s = &out->sample[out->nsamples - 1];
	c->phase_sample = out->nsamples - 1;
	c->phase_at = c->t0_ns ? s->t : 0;
	c->phase_merge_ns = s->merge_cpu_ns;
	c->ops_t0 = s->ops;
	c->phase_checked = s->checked_pages;
	c->phase_mismatches = s->mismatches;
	c->phase_checked_shared = 0;
	for (unsigned int i = 0; c->out->nphases && i < c->cfg->guests; i++)
		c->phase_checked_shared += out->guest[i].checked_shared_pages;
	memset(c->lat_t0, 0, sizeof(c->lat_t0));
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++)
			c->lat_t0[b] += c->guest[i].lat[b];
	for (unsigned int i = 0; i < c->ncells; i++) {
		c->cell[i].page_tables_t0 = coord_page_tables(&c->cell[i]);
		c->cell[i].huge_cpu_t0 = c->cell[i].huge_cpu_ns;
	}
	if (c->driving)
		ksm_sysfs_read(&c->kernel_t0);
	c->settle = (struct ksm_settle){0};
	out->converged = false;
	return 0;
}

/* --- may it be? -------------------------------------------------------------------------- */

/* What taking back needs: all that is saved, and the frames, which go when their last page does. */
static uint64_t bytes_needed(struct coord *c)
{
	const struct run_sample *s = &c->out->sample[c->out->nsamples - 1];
	struct ksm_domain_stats st;

	coord_pools_stats(c, &st);
	return s->saved_bytes + st.live * OB_PAGE_SIZE;
}

static int check_memory(struct coord *c, const struct ksm_engine_ops *to, struct ob_err *e)
{
	uint64_t need = c->engine->merges ? bytes_needed(c) : 0, room;
	char needs[24], has[24], margin[24];
	const char *what;

	c->sw.margin = MARGIN + need / 16;
	if (!need)
		return 0;
	room = coord_room(c, &what);
	if (room >= need + c->sw.margin)
		return 0;
	return ob_fail(
		e, ENOMEM,
		"sharing %s: what the guests share now takes %s when it is not shared, and %s "
		"beside it for safety; %s leaves %s",
		to->name, table_bytes(needs, (int64_t)need),
		table_bytes(margin, (int64_t)c->sw.margin), what, table_bytes(has, (int64_t)room));
}

static int check(struct coord *c, const struct ksm_engine_ops *to, struct ob_err *e)
{
	if (c->sw.to)
		return ob_fail(e, EALREADY,
			       "a switch from %s to %s is under way; wait until it is done",
			       c->sw.last.from, c->sw.last.to);
	if (c->stage < COORD_MEASURE)
		return ob_fail(e, EAGAIN,
			       "the guests are still booting and filling their memory; try again");
	if (c->end_ns)
		return ob_fail(e, EAGAIN, "the run is over");
	if (c->stopped)
		return ob_fail(e, EAGAIN, "the fleet is stopped; let it go on first (cont)");
	if (c->cfg->script || c->cfg->inject)
		return ob_fail(e, EINVAL,
			       "the mode of a benchmark or of --inject stays what it is");
	if (to == c->engine)
		return ob_fail(e, EINVAL, "the mode is %s already", to->name);
	if (coord_guard_stands(c))
		return ob_fail(e, ENOMEM, "guests stand still for want of memory; try again later");
	if (!strcmp(to->name, "kernel") && c->out->ndomains > 1)
		return ob_fail(e, EINVAL, "sharing kernel: " OPTS_KSM_NO_DOMAINS);
	return 0;
}

/* --- leave and enter --------------------------------------------------------------------- */

static uint64_t cells_cpu_ns(const struct coord *c)
{
	uint64_t ns = 0;

	for (unsigned int i = 0; i < c->ncells; i++)
		ns += c->cell[i].ksm.cpu_ns;
	return ns;
}

/* Pages that share memory with others, and what that saves: for what was given up. */
static void count_shared(struct coord *c, uint64_t *pages, uint64_t *zero, uint64_t *saved)
{
	const struct run_sample *s = &c->out->sample[c->out->nsamples - 1];
	struct ksm_meter_result m = {0};

	(void)coord_count(c, UINT32_MAX, &m);
	*pages = m.shared_pages;
	*zero = s->saved_zero / OB_PAGE_SIZE;
	*saved = s->saved_bytes;
}

/* The reading at the end of a phase; the guests go on. */
static int end_phase(struct coord *c, struct ob_err *e)
{
	struct ob_err ignored;
	int r = coord_measure_last(c, e);

	c->end_ns = 0;
	if (!r)
		coord_phase_add(c);
	if (coord_ask(c, json_pack("{s:s}", "do", "resume"), COORD_ASK_MS, NULL, r ? &ignored : e))
		r = r ? r : -EIO;
	return r;
}

int coord_switch_begin(struct coord *c, const struct ksm_engine_ops *to, struct ob_err *e)
{
	uint64_t begin = c->host.ops->now_ns(&c->host);
	bool kernel = !strcmp(to->name, "kernel");
	struct coord_switch *sw = &c->sw;
	int r = check(c, to, e);

	if (!r)
		r = check_memory(c, to, e);
	/* Its settings first: where it cannot be driven nothing has changed yet. It finds nothing to do
	 * before the cells say so. */
	if (!r && kernel)
		r = opts_check_ksm("/sys/kernel/mm/ksm", e);
	if (!r && kernel)
		r = ksm_driver_start(&c->driver, "/proc/self/exe", NULL, &c->cfg->ksm_pace, e);
	if (r)
		return r;
	r = end_phase(c, e);
	if (r) {
		/* Without its last figures a phase cannot be; the fleet goes on as it is. */
		if (kernel)
			ksm_driver_stop(&c->driver);
		return r;
	}
	sw->last = (struct run_switch){.seconds = -1};
	snprintf(sw->last.from, sizeof(sw->last.from), "%s", c->engine->name);
	snprintf(sw->last.to, sizeof(sw->last.to), "%s", to->name);
	sw->failed[0] = '\0';
	sw->begin_ns = begin;
	count_shared(c, &sw->last.pages, &sw->last.zero_pages, &sw->last.bytes);
	/* What merging has cost until now; and no guest stands for the guard's sake any more. */
	c->merge_base_ns = c->out->sample[c->out->nsamples - 1].merge_cpu_ns;
	c->reap_cpu_ns = 0;
	coord_guard_free(c);
	sw->to = to;
	coord_progress(c, "switching to %s", to->name);
	return coord_ask(c, json_pack("{s:s}", "do", "switch-leave"), COORD_ASK_MS, NULL, e);
}

static void done(struct coord *c)
{
	struct coord_switch *sw = &c->sw;

	sw->last.seconds = (double)(c->host.ops->now_ns(&c->host) - sw->begin_ns) / OB_NS_PER_SEC;
	sw->to = NULL;
	sw->done++;
	if (c->out->nphases)
		c->out->phase[c->out->nphases - 1].left = sw->last;
	control_event(c->cfg->control, "X_OVERBOOK_SHARING",
		      json_pack("{s:s,s:s}", "from", sw->last.from, "to", c->engine->name));
	coord_progress(c, "switched from %s in %.2f s", sw->last.from, sw->last.seconds);
}

/* It cannot be: the engine that was left goes on, over what is still shared. */
static int turn_back(struct coord *c, const char *why, struct ob_err *e)
{
	struct coord_switch *sw = &c->sw;
	int r;

	snprintf(sw->failed, sizeof(sw->failed), "%s", why);
	if (!strcmp(sw->to->name, "kernel"))
		ksm_driver_stop(&c->driver);
	c->reap_cpu_ns = 0;
	r = coord_phase_begin(c, e);
	if (r)
		return r;
	/* The cells have not forgotten what it has cost. */
	c->merge_base_ns -= OB_MIN(c->merge_base_ns, cells_cpu_ns(c));
	snprintf(sw->last.to, sizeof(sw->last.to), "%s", c->engine->name);
	r = coord_ask(c, json_pack("{s:s}", "do", "switch-start"), COORD_ASK_MS, NULL, e);
	if (!r)
		r = coord_guard_start(c, e);
	done(c);
	ob_warn("sharing stays %s: %s", c->engine->name, why);
	return r;
}

/* Nothing is shared any more: give all frames back. Those that stay would be a leak. */
static void empty_pools(struct coord *c)
{
	struct ksm_domain_stats st;

	for (uint64_t turn = 0; turn <= c->frames / 65536 + 2; turn++)
		coord_pools_reap(c);
	coord_pools_stats(c, &st);
	/* And the next mode begins as the first did, with no hint of what was there. */
	for (unsigned int i = 0; i < c->npools; i++)
		(void)ksm_domain_reset(c->pool[i].domain);
	c->sw.last.frames_left = st.live + st.filling;
	if (c->sw.last.frames_left)
		ob_warn("%llu frames of the pool are left, though nothing is shared",
			(unsigned long long)c->sw.last.frames_left);
}

static int start(struct coord *c, struct ob_err *e)
{
	int r;

	c->engine = c->sw.to;
	c->pooled = c->engine == ksm_engine_find("hash");
	c->driving = !strcmp(c->engine->name, "kernel");
	c->out->npools = c->pooled ? c->npools : 0;
	c->out->reserve = (struct run_reserve){0};
	c->out->kernel_ksm = (struct ksm_sysfs_counters){0};
	snprintf(c->out->sharing, sizeof(c->out->sharing), "%s", c->engine->name);
	ksm_budget_init(c->budget, c->cfg->ksm_cpu_percent, c->host.ops->now_ns(&c->host));
	r = coord_ask(c, json_pack("{s:s,s:s}", "do", "switch-engine", "sharing", c->engine->name),
		      COORD_ASK_MS, NULL, e);
	/* What leaving took is no merging. */
	c->reap_cpu_ns = 0;
	for (unsigned int i = 0; i < c->ncells; i++)
		c->cell[i].ksm = (struct ksm_stats){0};
	if (!r)
		r = coord_phase_begin(c, e);
	if (!r)
		r = coord_ask(c, json_pack("{s:s}", "do", "switch-start"), COORD_ASK_MS, NULL, e);
	return r;
}

static int enter(struct coord *c, struct ob_err *e)
{
	const struct ksm_engine_ops *off = ksm_engine_find("off");
	struct coord_switch *sw = &c->sw;
	uint64_t pages, zero, saved;
	struct ob_err why = {""};
	int r;

	empty_pools(c);
	/* The guardian puts KSM's settings back. */
	if (c->driving)
		ksm_driver_stop(&c->driver);
	c->driving = false;
	r = start(c, &why);
	if (r && sw->to != off) {
		/* Some cells may have begun: they leave again, and the fleet is as without sharing. */
		if (c->driving)
			ksm_driver_stop(&c->driver);
		c->driving = false;
		snprintf(sw->failed, sizeof(sw->failed), "%.*s", (int)sizeof(sw->failed) - 1,
			 why.msg);
		snprintf(sw->last.to, sizeof(sw->last.to), "off");
		sw->to = off;
		return coord_ask(c, json_pack("{s:s}", "do", "switch-leave"), COORD_ASK_MS, NULL,
				 e);
	}
	if (r) {
		*e = why;
		return r;
	}
	/* By the reading that the new phase began with. */
	count_shared(c, &pages, &zero, &saved);
	sw->last.pages -= OB_MIN(sw->last.pages, pages);
	sw->last.zero_pages -= OB_MIN(sw->last.zero_pages, zero);
	sw->last.bytes -= OB_MIN(sw->last.bytes, saved);
	done(c);
	return coord_guard_start(c, e);
}

static void take_unmerged(struct coord *c, unsigned int cell, const json_t *a)
{
	uint64_t ns = proto_u64(a, "pause_max_ns");

	(void)cell;
	c->sw.more += json_is_true(json_object_get(a, "more"));
	c->sw.last.pause_max_us = OB_MAX(c->sw.last.pause_max_us, (double)ns / OB_NS_PER_US);
}

int coord_switch_step(struct coord *c, struct ob_err *e)
{
	struct coord_switch *sw = &c->sw;
	struct ob_err why = {""};
	char has[24];
	const char *what;
	uint64_t room;
	int r;

	if (!sw->to || c->stopped)
		return 0;
	sw->more = 0;
	r = coord_ask(c, json_pack("{s:s,s:i}", "do", "switch-unmerge", "ms", STEP_MS),
		      COORD_ASK_MS, take_unmerged, &why);
	if (r)
		return turn_back(c, why.msg, e);
	coord_pools_reap(c);
	if (!sw->more)
		return enter(c, e);
	room = coord_room(c, &what);
	if (room >= sw->margin / 2)
		return 0;
	snprintf(why.msg, sizeof(why.msg), "memory ran out meanwhile: %s leaves %s", what,
		 table_bytes(has, (int64_t)room));
	return turn_back(c, why.msg, e);
}
