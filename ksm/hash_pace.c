/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_pace.c: keeping a guest's pauses within a bound.
 *
 * A guest stands still while its pages are compared and mapped, so how many that are in one go decides
 * how long it stands. What each kind of work takes is learnt on this host, in this process: an mmap
 * costs four times more with 64 VMs in the process than with one, a flush ten times more while another
 * guest runs. Each kind has an expectation, an average that follows upwards fast (1/4 of the way) and
 * downwards slowly (1/16): too low an expectation costs a guest an overrun, too high a one costs the
 * scanner a few pauses more. Nothing is learnt from a pause in which the thread was off its CPU, and
 * a sample counts as four times the expectation at most: with one pause of 30 ms believed, nothing
 * would have fitted into the next hundred.
 *
 * A plan is made after the guest has been parked, for what is left of the bound then: how long parking
 * takes is not ours to foresee, as it is a running vCPU's way out and the host's scheduler. And it is
 * not filled to the brim: costs scatter. How much of it may be filled (the *aim*) is regulated by what
 * comes out: each pause that was too long by our own reckoning takes an eighth of the aim away, each
 * other one adds 3/65536. The two are in balance at about one overrun in 2000 pauses, half of what a
 * bound on the 99.9th percentile allows.
 *
 * Overruns are counted by cause. Only those of planning are ours to mend, and move the aim:
 *  - waiting: the work took no longer than was left to it by plan; parking did;
 *  - preempted, lock: the thread was off its CPU for at least as long as the pause was too long,
 *    having lost it to another thread, or having gone to sleep by itself;
 *  - planning: all else, also what nobody here can see: a host below that takes the CPU away.
 *
 * One page is always merged, however small the bound: with 50 us, parking a running guest alone takes
 * longer on some hosts, and no progress would be no bound kept but a feature that does nothing.
 */
#include "ksm/hash_pace.h"

#define UP	  4
#define DOWN	  16
#define MOST	  4
#define AIM_MOST  (PACE_ONE / 8 * 7)
#define AIM_LEAST (PACE_ONE / 8)
#define AIM_STEP  3 /* for a pause that was short enough */

/* What to begin with, in ns: measured with 8 VMs in a process, other guests running. */
static const uint32_t first_cost[PACE_NOPS] = {
	[PACE_REST] = 10000, [PACE_CHECK] = 1000,    [PACE_EMPTY] = 3500,
	[PACE_MAP] = 9000,   [PACE_REPLACE] = 25000, [PACE_FREE] = 600,
};

void pace_init(struct pace *p, uint64_t bound_ns)
{
	OB_ASSERT(bound_ns);
	*p = (struct pace){.bound_ns = bound_ns, .aim = PACE_ONE / 4 * 3};
	for (unsigned int i = 0; i < PACE_NOPS; i++)
		p->cost[i] = (uint64_t)first_cost[i] * PACE_ONE;
}

uint64_t pace_cost(const struct pace *p, enum pace_op op, uint64_t n)
{
	return p->cost[op] * n / PACE_ONE;
}

void pace_learn(struct pace *p, enum pace_op op, uint64_t n, uint64_t ns)
{
	uint64_t *cost = &p->cost[op], each;

	if (!n)
		return;
	/* One that stands out is more likely an accident than news; news comes again. */
	each = OB_MIN(OB_MIN(ns, OB_NS_PER_SEC) * PACE_ONE / n, MOST * *cost + PACE_ONE);
	if (each > *cost)
		*cost += (each - *cost) / UP;
	else
		*cost -= (*cost - each) / DOWN;
}

uint64_t pace_left(const struct pace *p, uint64_t elapsed)
{
	uint64_t all = p->bound_ns * p->aim / PACE_ONE;

	return elapsed < all ? all - elapsed : 0;
}

uint32_t pace_fit(const struct pace *p, uint64_t left, uint32_t n, bool emptied, uint64_t *cost)
{
	uint64_t once = pace_cost(p, emptied ? PACE_MAP : PACE_REPLACE, 1);
	uint64_t page = p->cost[PACE_CHECK] + p->cost[emptied ? PACE_EMPTY : PACE_FREE];
	uint64_t fit;

	*cost = 0;
	if (left < once)
		return 0;
	fit = page ? (left - once) * PACE_ONE / page : n;
	fit = OB_MIN(fit, n);
	if (fit)
		*cost = once + fit * page / PACE_ONE;
	return (uint32_t)fit;
}

enum ksm_late pace_cause(const struct pace *p, const struct pace_pause *z)
{
	uint64_t work = z->whole - z->park, off, late;

	if (z->whole <= p->bound_ns)
		return KSM_NLATE;
	late = z->whole - p->bound_ns;
	off = work > z->work_cpu ? work - z->work_cpu : 0;
	if (work <= z->planned)
		return KSM_LATE_WAITING;
	if (off >= late)
		return z->preempted ? KSM_LATE_PREEMPTED : KSM_LATE_LOCK;
	/* Parking alone was too long, and so one page was all that was tried. */
	if (z->park >= p->bound_ns)
		return KSM_LATE_WAITING;
	return KSM_LATE_PLANNING;
}

void pace_ended(struct pace *p, const struct pace_pause *z, struct ksm_pauses *count)
{
	enum ksm_late late = pace_cause(p, z);

	count->pause[ksm_lat_bucket(z->whole)]++;
	if (late == KSM_NLATE) {
		p->aim = OB_MIN(p->aim + AIM_STEP, AIM_MOST);
		return;
	}
	count->late[late]++;
	if (late == KSM_LATE_PLANNING)
		p->aim = OB_MAX(p->aim - p->aim / 8, AIM_LEAST);
}

const char *ksm_late_name(enum ksm_late l)
{
	static const char *const name[] = {
		[KSM_LATE_PLANNING] = "planning",
		[KSM_LATE_PREEMPTED] = "preempted",
		[KSM_LATE_WAITING] = "waiting",
		[KSM_LATE_LOCK] = "lock",
	};

	OB_ASSERT(l < KSM_NLATE);
	return name[l];
}
