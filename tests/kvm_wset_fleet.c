/* SPDX-License-Identifier: Apache-2.0 */
/* kvm_wset_fleet.c: --working-set as a person has it: fleets, their results, pauses and ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/harness.h"
#include "tests/live.h"

/* Skips where guests' faults may not be answered. */
static void need_uffd(void)
{
	struct ob_uffd_caps caps;
	struct ob_host h;
	struct ob_err e;
	int fd;

	cr_assert(!ob_host_linux_init(&h, &e), "%s", e.msg);
	fd = h.ops->uffd_open(&h, &caps);
	ob_host_linux_exit(&h);
	if (fd < 0)
		cr_skip_test("no userfaultfd that answers for KVM");
	close(fd);
}

static const json_t *guest_of(const struct cli *c, size_t i)
{
	const json_t *r = json_array_get(json_object_get(c->result, "runs"), 0), *g;

	g = json_array_get(json_object_get(r, "guest_list"), i);
	cr_assert(g, "no guest %zu:\n%s%s", i, c->out, c->err);
	return g;
}

static double real_of(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	cr_assert(json_is_number(v), "%s is not a number", key);
	return json_number_value(v);
}

/* As below. */
#define SECONDS 17
#define PERIOD	5

/* How often the slowest guest touched all that it uses in a period of sampling, on the average. */
static double rounds(const struct cli *c, const double *percent)
{
	double least = INFINITY;

	for (size_t i = 0; i < 4; i++)
		least = fmin(least, real_of(guest_of(c, i), "ops") / SECONDS * PERIOD /
					    (percent[i % 2] / 100 * 8192));
	return least;
}

/* Two guests that use a little, two that use three times as much. A guest visits all that it uses
 * in two seconds or a little more; where the host is so busy that it does not, it uses less. */
Test(wset_fleet, estimates_what_guests_touch, .timeout = 160)
{
	static const double percent[] = {30, 90};
	struct cli c;
	double r;

	NEED_KVM();
	need_uffd();
	for (int tries = 1;; tries++) {
		cli_run(&c,
			"fleet --guests 4 --cell 2 --mem 32M --workload touch:30,touch:90 "
			"--seconds 17 --sample-period 5 --working-set --quiet --control none",
			true, 50);
		cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
		r = rounds(&c, percent);
		if (r >= 1.8)
			break;
		cli_free(&c);
		if (tries == 3)
			cr_skip_test("the host is too busy: %.1f rounds a period", r);
	}
	cr_expect(strstr(c.out, "working set, estimated"), "%s", c.out);
	for (size_t i = 0; i < 4; i++) {
		const json_t *w = json_object_get(guest_of(&c, i), "working_set"), *p;
		const json_t *history = json_object_get(w, "history");
		double truth = percent[i % 2] / 100;

		cr_assert_geq(json_array_size(history), 2);
		p = json_array_get(history, json_array_size(history) - 1);
		/* Five standard errors, and what a busy host keeps a guest from. */
		cr_expect_float_eq(real_of(w, "fraction"), truth, 5 * real_of(p, "error") + 0.05,
				   "guest %zu", i);
		cr_expect_float_eq(real_of(w, "pages"), real_of(w, "fraction") * 8192, 1);
		cr_expect_gt(real_of(p, "samples"), 300);
		cr_expect(real_of(p, "low") <= real_of(p, "fraction") &&
			  real_of(p, "fraction") <= real_of(p, "high"));
		cr_expect_geq(real_of(p, "t"), 5.0);
		cr_expect_gt(real_of(w, "cpu_seconds"), 0);
	}
	cli_free(&c);
}

/* Guests that are stopped are not sampled, and have all their pages. */
Test(wset_fleet, stop_and_cont, .timeout = 120)
{
	json_t *ret, *history;
	struct ob_err e = {""};
	struct live l;
	char line[300];
	int got;

	NEED_KVM();
	need_uffd();
	live_dir(&l);
	snprintf(line, sizeof(line),
		 "fleet --guests 2 --mem 16M --workload churn --seconds 6 --working-set "
		 "--sample-period 0.4 --sample-pages 1000 --quiet --control %s",
		 l.path);
	cli_start(&l.cli, line, true);
	live_connect(&l);
	for (int i = 0; i < 12; i++) {
		const char *what = i % 2 ? "cont" : "stop";

		cli_nap_ms(300 + 70 * i);
		got = qmp_client_ask(l.client, what, NULL, LIVE_PATIENCE_MS, &ret, &e);
		/* At first there may be no guests yet. */
		cr_assert(!got || i < 4, "%s: %s", what, e.msg);
		if (!got)
			json_decref(ret);
	}
	live_wait(&l, 0);
	for (size_t i = 0; i < 2; i++) {
		history = json_object_get(json_object_get(guest_of(&l.cli, i), "working_set"),
					  "history");
		cr_expect_gt(json_array_size(history), 1);
		/* The run's time stands still while it is stopped, and so does the samplers'. */
		ret = json_array_get(history, json_array_size(history) - 1);
		cr_expect_leq(real_of(ret, "t"), 8.0);
	}
	live_end(&l);
}

/* Ctrl-C in the middle of a period: the result is of what there was. */
Test(wset_fleet, interrupted, .timeout = 120)
{
	const json_t *w;
	struct cli c;

	NEED_KVM();
	need_uffd();
	cli_start(
		&c,
		"fleet --guests 3 --cell 2 --mem 16M --workload churn,filecache,idle --seconds 600 "
		"--working-set --sample-period 1 --quiet --control none",
		true);
	cli_nap_ms(8000);
	kill(c.pid, SIGINT);
	cli_wait(&c, 30);
	cr_assert_eq(c.status, 130, "%s%s", c.out, c.err);
	w = json_object_get(guest_of(&c, 0), "working_set");
	cr_expect(json_is_object(w));
	cli_free(&c);
}

Test(wset_fleet, run_has_it_too, .timeout = 120)
{
	struct cli c;

	NEED_KVM();
	need_uffd();
	cli_run(&c,
		"run --mem 16M --workload idle --seconds 4 --working-set --sample-period 1 "
		"--sample-pages 50 --control none",
		true, 60);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	cr_expect_eq(real_of(json_object_get(guest_of(&c, 0), "working_set"), "samples"), 50);
	cli_free(&c);
}
