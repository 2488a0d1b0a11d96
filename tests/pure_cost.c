/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_cost.c: what an operation costs: time goes to the kind that it was spent on, the clock's own
 * time is left out, what is not measured costs nothing, and cells add up.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "harness/proto.h"
#include "ksm/cost.h"
#include "tests/fake_host.h"

Test(cost, time_goes_where_it_was_spent)
{
	struct ob_host *h = fake_host_new();
	struct ksm_stats st = {0};
	struct ksm_stopwatch w = ksm_cost_begin(h, &st, true);

	fake_host_advance_cpu(h, 500);
	ksm_cost_add(&w, KSM_COST_HASH, 5);
	fake_host_advance_cpu(h, 7777);
	ksm_cost_add(&w, KSM_COST_LOOK, 0); /* something that nobody counts */
	fake_host_advance_cpu(h, 30);
	ksm_cost_add(&w, KSM_COST_LOOK, 10);
	fake_host_advance_cpu(h, 100);
	ksm_cost_add(&w, KSM_COST_HASH, 1);
	cr_assert_eq(st.cost[KSM_COST_HASH].ns, 600);
	cr_assert_eq(st.cost[KSM_COST_HASH].ops, 6);
	cr_assert_eq(ksm_cost_each(&st.cost[KSM_COST_HASH]), 100);
	cr_assert_eq(ksm_cost_each(&st.cost[KSM_COST_LOOK]), 3);
	cr_assert_lt(ksm_cost_each(&st.cost[KSM_COST_ZERO]), 0, "never done: no cost, not 0");

	/* Two parts of one operation. */
	fake_host_advance_cpu(h, 8);
	ksm_cost_add(&w, KSM_COST_FREEZE, 1);
	fake_host_advance_cpu(h, 4);
	ksm_cost_more(&w, KSM_COST_FREEZE);
	cr_assert_eq(ksm_cost_each(&st.cost[KSM_COST_FREEZE]), 12);

	/* Wall time is none of it. */
	w = ksm_cost_begin(h, &st, true);
	fake_host_advance(h, 1000000);
	ksm_cost_add(&w, KSM_COST_ZERO, 1);
	cr_assert_eq(st.cost[KSM_COST_ZERO].ns, 0);

	w = ksm_cost_begin(h, &st, false);
	fake_host_advance_cpu(h, 500);
	ksm_cost_add(&w, KSM_COST_MAKE, 5);
	ksm_cost_more(&w, KSM_COST_MAKE);
	cr_assert_eq(st.cost[KSM_COST_MAKE].ops, 0);
	cr_assert_eq(st.cost[KSM_COST_MAKE].ns, 0);
	fake_host_free(h);
}

/* A clock that takes 40 ns to read: a wrapper around the fake host's. */
static uint64_t slow_clock(struct ob_host *h)
{
	fake_host_advance_cpu(h, 40);
	return fake_host_cpu(h);
}

Test(cost, reading_the_clock_is_left_out)
{
	struct ob_host *h = fake_host_new();
	struct ob_host_ops ops = *h->ops;
	const struct ob_host_ops *old = h->ops;
	struct ksm_stats st = {0};
	struct ksm_stopwatch w;

	ops.thread_cpu_ns = slow_clock;
	h->ops = &ops;
	w = ksm_cost_begin(h, &st, true);
	for (unsigned int i = 0; i < 10; i++) {
		fake_host_advance_cpu(h, 7);
		ksm_cost_add(&w, KSM_COST_LOOK, 1);
	}
	cr_assert_eq(st.cost[KSM_COST_LOOK].ns, 70);
	/* A reading that is quicker than the first one takes nothing away from 0. */
	w.read_ns = 1000;
	ksm_cost_add(&w, KSM_COST_LOOK, 1);
	cr_assert_eq(st.cost[KSM_COST_LOOK].ns, 70);
	h->ops = old;
	fake_host_free(h);
}

/* One window of 8, for windows in a row, and for the same ones in pass after pass. */
Test(cost, an_eighth_is_measured)
{
	for (uint64_t base = 0; base < 10; base++) {
		unsigned int n = 0;

		for (uint64_t i = 0; i < 80000; i++)
			n += ksm_cost_sampled(base + i * 512);
		cr_assert(n > 9000 && n < 11000, "%u of 80000, base %llu", n,
			  (unsigned long long)base);
	}
	for (uint64_t window = 0; window < 100; window++) {
		unsigned int n = 0;

		for (uint64_t pass = 0; pass < 8000; pass++)
			n += ksm_cost_sampled(window * 512 + pass);
		cr_assert(n > 900 && n < 1100, "%u of 8000, window %llu", n,
			  (unsigned long long)window);
	}
}

Test(cost, names)
{
	for (unsigned int i = 0; i < KSM_NCOSTS; i++) {
		cr_assert(*ksm_cost_name((enum ksm_cost_kind)i));
		cr_assert_leq(strlen(ksm_cost_text((enum ksm_cost_kind)i)), 25);
		for (unsigned int j = 0; j < i; j++)
			cr_assert_str_neq(ksm_cost_name((enum ksm_cost_kind)i),
					  ksm_cost_name((enum ksm_cost_kind)j));
	}
}

/* Every word of the statistics, costs included, comes through to the coordinator; cells add up. */
Test(cost, cells_add_up)
{
	uint64_t in[sizeof(struct ksm_stats) / 8], out[OB_ARRAY_SIZE(in)];
	struct ksm_stats st, back, sum = {0};
	json_t *doc;

	for (size_t i = 0; i < OB_ARRAY_SIZE(in); i++)
		in[i] = 1000 + 17 * i;
	memcpy(&st, in, sizeof(st));
	doc = proto_pack_stats(&st);
	proto_unpack_stats(doc, &back);
	json_decref(doc);
	memcpy(out, &back, sizeof(out));
	for (size_t i = 0; i < OB_ARRAY_SIZE(in); i++)
		cr_assert_eq(out[i], in[i], "word %zu", i);
	proto_add_stats(&sum, &st);
	proto_add_stats(&sum, &st);
	for (unsigned int i = 0; i < KSM_NCOSTS; i++) {
		cr_assert_eq(sum.cost[i].ns, 2 * st.cost[i].ns);
		cr_assert_eq(sum.cost[i].ops, 2 * st.cost[i].ops);
	}
}
