/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_stop.c: how long a fleet takes to end once a person has had enough: from SIGINT until its
 * last process is gone, all that was measured written and Linux KSM as it was. The reference is the
 * promise itself, two seconds. The guests have work
 * to do all the time.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_demo.h"

#define STOP_GUESTS  16
#define STOP_MEM     (64 * OB_MIB)
#define STOP_TIMEOUT 120
#define STOP_PROMISE 2.0

static int stop_once(struct demo *d, const char *sharing, unsigned int n, double *seconds,
		     struct ob_err *e)
{
	const struct demo_fleet f = {
		.guests = STOP_GUESTS,
		.mem = STOP_MEM,
		.sharing = sharing,
		.workload = "kv",
		.seconds = 600,
		.seed = n + 1,
	};
	struct bench_child c = {.out = -1};
	uint64_t begin;
	int ret = demo_fleet_start(d, &f, &c, NULL, e);

	if (ret)
		return ret;
	ret = bench_children_wait(&c, 1, BENCH_WARM, STOP_GUESTS, STOP_TIMEOUT, NULL, e);
	/* At another moment of merging each time. */
	if (!ret)
		ret = bench_children_rest(&c, 1, 1500 + 500 * n, e);
	begin = bench_now_ns();
	if (ret) {
		bench_children_stop(&c, 1, SIGTERM, 10, NULL);
		return ret;
	}
	ret = bench_children_stop(&c, 1, SIGINT, 30, e);
	*seconds = (double)(bench_now_ns() - begin) / OB_NS_PER_SEC;
	return ret;
}

int demo_stop(struct demo *d, struct ob_err *e)
{
	static const char *const sharing[] = {"off", "hash", "kernel"};

	for (size_t s = 0; s < OB_ARRAY_SIZE(sharing); s++) {
		struct bench_figure *fig;
		char name[96];

		if (!strcmp(sharing[s], "kernel") && access("/sys/kernel/mm/ksm/run", W_OK))
			continue;
		snprintf(name, sizeof(name), "16 guests of 64M, sharing %s: SIGINT to the end",
			 sharing[s]);
		fig = bench_figure(d->b, name, "s", "the promise");
		fig->goal = 1.0;
		fig->goal_is_max = true;
		for (unsigned int n = 0; n < demo_count(d, 5, 1); n++) {
			double seconds;
			int ret;

			bench_say("stopping 16 guests, sharing %s: run %u", sharing[s], n + 1);
			ret = stop_once(d, sharing[s], n, &seconds, e);
			if (ret)
				return ret;
			bench_add(fig, seconds, STOP_PROMISE);
		}
	}
	return 0;
}
