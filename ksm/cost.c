/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cost.c: what each operation of the engine `hash` costs, in CPU time of the scanner's thread.
 *
 * Wall time will not do: on a busy host the scanner waits for a CPU far longer than it works, in
 * the middle of anything. To read the clock of a thread is a system call, though, that takes longer
 * than hashing a page. So work is measured in one window (one batch) of 8 only, chosen as if at
 * random so that no pass always meets the same. An average is of what was measured; the engine's
 * counters say how often an operation was done.
 */
#include "ksm/cost.h"

static const struct {
	const char *name, *text;
} kinds[KSM_NCOSTS] = {
	[KSM_COST_SKIP] = {"skip", "page passed over"},
	[KSM_COST_SYNC] = {"sync", "page's backing read"},
	[KSM_COST_HASH] = {"hash", "page hashed"},
	[KSM_COST_LOOK] = {"look", "content looked up"},
	[KSM_COST_FREEZE] = {"freeze", "batch frozen and thawed"},
	[KSM_COST_COMPARE] = {"compare", "page compared, frozen"},
	[KSM_COST_MAKE] = {"make", "frame made"},
	[KSM_COST_SHARE_RUN] = {"share_run", "page shared, in a run"},
	[KSM_COST_SHARE_ONE] = {"share_one", "page shared, alone"},
	[KSM_COST_REMERGE] = {"remerge", "broken page shared again"},
	[KSM_COST_ZERO] = {"zero", "zero page dropped"},
	[KSM_COST_RELEASE] = {"release", "frame of a break put back"},
};

const char *ksm_cost_name(enum ksm_cost_kind kind)
{
	OB_ASSERT((unsigned int)kind < KSM_NCOSTS);
	return kinds[kind].name;
}

const char *ksm_cost_text(enum ksm_cost_kind kind)
{
	OB_ASSERT((unsigned int)kind < KSM_NCOSTS);
	return kinds[kind].text;
}

double ksm_cost_each(const struct ksm_cost *c)
{
	return c->ops ? (double)c->ns / (double)c->ops : -1;
}

struct ksm_stopwatch ksm_cost_begin(struct ob_host *host, struct ksm_stats *st, bool run)
{
	struct ksm_stopwatch w = {.host = host, .st = st};

	if (run) {
		uint64_t first = host->ops->thread_cpu_ns(host);

		w.running = true;
		w.ns = host->ops->thread_cpu_ns(host);
		w.read_ns = w.ns - first;
	}
	return w;
}

/* CPU time since the last reading, which this one becomes. */
static uint64_t lap(struct ksm_stopwatch *w)
{
	uint64_t now = w->host->ops->thread_cpu_ns(w->host), ns = now - w->ns;

	w->ns = now;
	return ns - OB_MIN(w->read_ns, ns);
}

void ksm_cost_note(struct ksm_stats *st, enum ksm_cost_kind kind, uint64_t ns, uint64_t ops)
{
	st->cost[kind].ns += ns;
	st->cost[kind].ops += ops;
}

void ksm_cost_add(struct ksm_stopwatch *w, enum ksm_cost_kind kind, uint64_t ops)
{
	uint64_t ns;

	if (!w->running)
		return;
	ns = lap(w);
	if (ops)
		ksm_cost_note(w->st, kind, ns, ops);
}

void ksm_cost_more(struct ksm_stopwatch *w, enum ksm_cost_kind kind)
{
	if (w->running)
		ksm_cost_note(w->st, kind, lap(w), 0);
}

bool ksm_cost_sampled(uint64_t n)
{
	return n * 0x9e3779b97f4a7c15ULL >> 61 == 0;
}
