/* SPDX-License-Identifier: Apache-2.0 */
/*
 * budget.c: how much CPU time merging may take on this host, all cells together.
 *
 * A guest that writes all its memory all the time gives a scanner work without end. So scanners
 * spend from an account that fills at a given rate (--ksm-cpu, a part of one core), and rest when it
 * is empty. What is not used is kept, but no more than SAVED_NS of it: a scanner that was idle for
 * an hour may not then take the CPU for minutes.
 *
 * A guest that has just come has all its memory still to be looked at, and there the work is worth
 * most. So with each guest comes an advance by its size, enough to hash and merge all of it. It is
 * spent first, and what is left of it when the burst is over (BURST_NS after the last guest came) is
 * void: else the first storm of writes would spend it.
 *
 * The account is one small struct in memory that all cells share; each update is a single atomic
 * operation, so a cell may die at any moment. Time is credited by whoever first moves `credited_ns`
 * forward. Several cells may find a little left at once and overdraw it together: the account then is
 * below zero, and all of them rest until it is not. So the rate holds over time, not at each instant.
 */
#include "ksm/ksm.h"

#define SAVED_NS      (200 * OB_NS_PER_MS)
#define BURST_NS      (20 * OB_NS_PER_SEC)
#define BURST_PAGE_NS 20000
/* A scanner that rests for lack of credit waits until so much is there: waking costs as well. */
#define SLICE_NS (2 * OB_NS_PER_MS)

void ksm_budget_init(struct ksm_budget *b, unsigned int percent, uint64_t now_ns)
{
	OB_ASSERT(percent <= KSM_BUDGET_MAX_PERCENT);
	atomic_store(&b->percent, percent);
	atomic_store(&b->credited_ns, now_ns);
	atomic_store(&b->credit_ns, (int64_t)SLICE_NS);
	atomic_store(&b->burst_ns, 0);
	atomic_store(&b->burst_end_ns, 0);
}

/* Credit what has come in until @now_ns. */
static void credit(struct ksm_budget *b, uint64_t now_ns)
{
	uint64_t since = atomic_load(&b->credited_ns);
	uint64_t percent = OB_MIN(atomic_load(&b->percent), (uint64_t)KSM_BUDGET_MAX_PERCENT);
	int64_t have, more;

	/* Small parts of a nanosecond would be lost: credit a microsecond at least. */
	if (now_ns < since + 1000 ||
	    !atomic_compare_exchange_strong(&b->credited_ns, &since, now_ns))
		return;
	more = (int64_t)(OB_MIN(now_ns - since, 3600 * OB_NS_PER_SEC) / 100 * percent);
	have = atomic_fetch_add(&b->credit_ns, more) + more;
	/* Another's charge may come in between: then it is more by that much for once. */
	if (have > (int64_t)SAVED_NS)
		atomic_fetch_sub(&b->credit_ns, have - (int64_t)SAVED_NS);
}

void ksm_budget_burst(struct ksm_budget *b, uint64_t now_ns, uint64_t pages)
{
	/* What is left of one that is over is not for this one. */
	if (now_ns >= atomic_load(&b->burst_end_ns))
		atomic_store(&b->burst_ns, 0);
	atomic_fetch_add(&b->burst_ns, (int64_t)(pages * BURST_PAGE_NS));
	atomic_store(&b->burst_end_ns, now_ns + BURST_NS);
}

static bool bursting(struct ksm_budget *b, uint64_t now_ns)
{
	return now_ns < atomic_load(&b->burst_end_ns) && atomic_load(&b->burst_ns) > 0;
}

uint64_t ksm_budget_wait(struct ksm_budget *b, uint64_t now_ns)
{
	uint64_t percent = OB_MIN(atomic_load(&b->percent), (uint64_t)KSM_BUDGET_MAX_PERCENT);
	int64_t have;

	if (!percent || bursting(b, now_ns))
		return 0;
	credit(b, now_ns);
	have = atomic_load(&b->credit_ns);
	if (have > 0)
		return 0;
	return ((uint64_t)-have + SLICE_NS) * 100 / percent;
}

void ksm_budget_charge(struct ksm_budget *b, uint64_t now_ns, uint64_t ns)
{
	if (!atomic_load(&b->percent))
		return;
	if (bursting(b, now_ns))
		atomic_fetch_sub(&b->burst_ns, (int64_t)ns);
	else
		atomic_fetch_sub(&b->credit_ns, (int64_t)ns);
}
