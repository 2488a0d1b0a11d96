/* SPDX-License-Identifier: Apache-2.0 */
/* memrig.c: guests of this process that run a memory workload, for tests. */
#include "tests/memrig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/cli.h"

struct bench_rig_config memrig_config(const char *workload, unsigned int guests)
{
	static char kernel[600];

	snprintf(kernel, sizeof(kernel), "%s/microguest.elf", cli_build());
	return (struct bench_rig_config){
		.kernel_path = kernel,
		.guests = guests,
		.mem_bytes = MEMRIG_MEM,
		.workload = {workload},
		.seed = 1,
		.cpu = -1,
		.warm_seconds = 60,
	};
}

void memrig_start(struct bench_rig *r, const char *workload, unsigned int guests)
{
	struct bench_rig_config cfg = memrig_config(workload, guests);
	struct ob_err e = {""};

	cr_assert_eq(bench_rig_open(r, &cfg, &e), 0, "%s: %s", workload, e.msg);
	cr_assert_eq(bench_rig_start(r, &e), 0, "%s: %s", workload, e.msg);
}

void memrig_finish(struct bench_rig *r)
{
	struct ob_err e = {""};

	cr_assert_eq(bench_rig_close(r, &e), 0, "%s", e.msg);
}

static bool has_ops(const struct agent_report *r, uint64_t ops)
{
	return r->ops >= ops;
}

void memrig_work(struct bench_rig *r, uint64_t n)
{
	struct ob_err e = {""};

	cr_assert_eq(bench_rig_look(r, &e), 0, "%s", e.msg);
	cr_assert_eq(bench_rig_wait(r, has_ops, r->guest[0].report.ops + n, 60, &e), 0, "%s",
		     e.msg);
}

uint64_t *memrig_page(struct bench_rig *r, unsigned int g, uint64_t i)
{
	struct ob_err e = {""};
	uint64_t first, n;

	cr_assert_eq(bench_rig_area(r, g, &first, &n, &e), 0, "%s", e.msg);
	cr_assert_lt(i, n);
	return hva_ptr(gmem_page_hva(&r->guest[g].vm->mem, first + i));
}

struct agent_mismatch memrig_noticed(struct bench_rig *r)
{
	const struct timespec nap = {.tv_nsec = 5 * 1000 * 1000};
	struct agent_report rep = {0};

	for (int i = 0; i < 6000 && !rep.mismatches; i++) {
		nanosleep(&nap, NULL);
		agent_read_report(&r->guest[0].vm->agent, &rep);
	}
	cr_assert_gt(rep.mismatches, 0, "nothing was noticed");
	cr_assert_eq(rep.mismatch[0].kind, AGENT_KIND_AREA);
	return rep.mismatch[0];
}

void memrig_finish_wrong(struct bench_rig *r)
{
	struct ob_err e = {""};

	cr_assert_eq(bench_rig_look(r, &e), -EIO);
	cr_assert(strstr(e.msg, "wrong page"), "%s", e.msg);
	cr_assert_eq(bench_rig_close(r, &e), -EIO);
	cr_assert(strstr(e.msg, "wrong page"), "%s", e.msg);
}
