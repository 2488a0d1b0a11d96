/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_budget.c: the account that scanners spend from. Over time they get the rate that was given, and
 * no more, however many of them there are and however they ask; a guest that comes brings an advance;
 * and what is left of that is void when its time is over.
 */
#include <criterion/criterion.h>

#include "ksm/engine.h"
#include "tests/fake_host.h"

#define SEC OB_NS_PER_SEC
#define MS  OB_NS_PER_MS

/* @n scanners that work whenever they may, @step_ns at a time, until @end. What they spent. */
static uint64_t spend(struct ksm_budget *b, uint64_t *now, uint64_t end, unsigned int n,
		      uint64_t step_ns)
{
	uint64_t next[8] = {0}, spent = 0;

	for (unsigned int i = 0; i < n; i++)
		next[i] = *now;
	for (;;) {
		unsigned int who = 0;
		uint64_t wait;

		for (unsigned int i = 1; i < n; i++)
			if (next[i] < next[who])
				who = i;
		if (next[who] >= end)
			break;
		*now = OB_MAX(*now, next[who]);
		wait = ksm_budget_wait(b, *now);
		if (!wait) {
			ksm_budget_charge(b, *now, step_ns);
			spent += step_ns;
			wait = step_ns;
		}
		next[who] = *now + wait;
	}
	*now = end;
	return spent;
}

Test(budget, the_rate_holds_however_many_ask)
{
	static const unsigned int percent[] = {1, 5, 50, 100};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(percent); i++)
		for (unsigned int n = 1; n <= 8; n *= 2) {
			uint64_t now = 1000 * SEC, spent, due = 60 * SEC / 100 * percent[i];
			struct ksm_budget b;

			ksm_budget_init(&b, percent[i], now);
			spent = spend(&b, &now, now + 60 * SEC, n, 300000);
			/* Each may be in the middle of a step when it is used up. */
			cr_assert_leq(spent, due + 2 * MS + n * 300000);
			/* One scanner can spend no more than the time that there is. */
			if (percent[i] <= 50 || n > 1)
				cr_assert_geq(spent, due - due / 20, "%u %% by %u: %llu ms",
					      percent[i], n, (unsigned long long)(spent / MS));
		}
}

Test(budget, an_idle_hour_is_not_saved_up)
{
	uint64_t now = 1000 * SEC, spent;
	struct ksm_budget b;

	ksm_budget_init(&b, 5, now);
	now += 3600 * SEC;
	spent = spend(&b, &now, now + SEC, 4, 100000);
	cr_assert_leq(spent, (50 + 200) * MS + 4 * 100000);
	cr_assert_geq(spent, 200 * MS);
}

Test(budget, a_new_guest_brings_an_advance_that_expires)
{
	uint64_t now = 1000 * SEC, spent;
	struct ksm_budget b;

	ksm_budget_init(&b, 5, now);
	/* 64 MiB: 16384 pages of 20 us. */
	ksm_budget_burst(&b, now, 16384);
	spent = spend(&b, &now, now + SEC, 1, 100000);
	cr_assert_geq(spent, 327 * MS);
	cr_assert_leq(spent, (328 + 50 + 2) * MS + 100000);
	/* A second one of which nothing is spent: later it is gone. */
	ksm_budget_burst(&b, now, 16384);
	now += 21 * SEC;
	spent = spend(&b, &now, now + SEC, 1, 100000);
	cr_assert_leq(spent, (50 + 200) * MS + 100000);
	ksm_budget_burst(&b, now, 1);
	spent = spend(&b, &now, now + SEC, 1, 100000);
	cr_assert_leq(spent, 53 * MS);
}

Test(budget, none_is_no_limit)
{
	uint64_t now = 1000 * SEC;
	struct ksm_budget b;

	ksm_budget_init(&b, 0, now);
	cr_assert_eq(spend(&b, &now, now + SEC, 1, MS), SEC);
}

/* The engine's step heeds it: a step of work costs what the clock of the thread says. */
static uint64_t work(struct ksm *k, uint64_t now_ns, uint64_t budget)
{
	(void)now_ns;
	(void)budget;
	fake_host_advance_cpu(k->host, 10 * MS);
	return 0;
}

static int begin(struct ksm *k, struct ob_err *e)
{
	(void)k;
	(void)e;
	return 0;
}

Test(budget, steps_are_put_off_and_counted)
{
	const struct ksm_engine_ops ops = {.name = "test", .start = begin, .step = work};
	struct ob_host *h = fake_host_new();
	struct ob_arena *arena = ob_arena_new("test");
	uint64_t now = 1000 * SEC, end = now + 20 * SEC, worked = 0, put_off = 0;
	struct ksm_budget b;
	struct ksm_opts opts = {.budget = &b};
	struct ksm_stats st;
	struct ob_err e;
	struct ksm *k;

	ksm_budget_init(&b, 10, now);
	cr_assert(!ksm_new(&k, &ops, h, NULL, &opts, arena));
	cr_assert(!ksm_start(k, &e));
	while (now < end) {
		uint64_t rest = ksm_step(k, now, 512);

		worked += !rest;
		put_off += rest != 0;
		now += rest ? rest : 10 * MS;
	}
	ksm_read_stats(k, &st);
	cr_assert_eq(st.cpu_ns, worked * 10 * MS);
	cr_assert_eq(st.budget_rests, put_off);
	cr_assert_leq(st.cpu_ns, 2 * SEC + 20 * MS);
	cr_assert_geq(st.cpu_ns, 2 * SEC - 100 * MS);
	ksm_free(k);
	ob_arena_free(arena);
	fake_host_free(h);
}
