/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_storm.c: guests that break everything that was merged, all at once (workload cowstorm): on a host
 * with room, on one with too little, and on one that they do not fit into at all.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_child.h"
#include "kernel/base.h"
#include "tests/cli.h"

/* Of a guest: its area is all but code, stack and report. */
#define AREA_LEAST(mib) (((mib)*OB_MIB - OB_MIB * 3 / 2) / OB_PAGE_SIZE)

/* Every guest, of @mib MiB, has written every page of its area, and found nothing wrong. */
static void all_stormed(const json_t *r, uint64_t mib)
{
	const json_t *g;
	size_t i;

	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	json_array_foreach (json_object_get(r, "guest_list"), i, g)
		cr_assert_geq(cli_num(g, "written_pages", NULL), (json_int_t)AREA_LEAST(mib),
			      "guest %zu", i);
}

/*
 * A host that is so busy that it is looked at a tenth of a second late, again and again, keeps so much
 * in reserve that there is none left to run in: then guests stand, as they are to, and whether all get
 * done is no question. true: that is how it was, and it is worth another try.
 */
static bool held_up_by_a_busy_host(struct cli *c, int tries)
{
	const json_t *r = cli_run_of(c, 0);
	double react =
		json_number_value(json_object_get(json_object_get(r, "reserve"), "react_seconds"));

	if (!strstr(cli_str(r, "note"), "stand still for want of memory") || react < 0.1)
		return false;
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	cr_assert_eq(cli_num(r, "cells_lost", NULL), 0);
	if (!json_is_null(json_object_get(json_object_get(r, "reserve"), "host_mem_bytes")))
		cr_assert_eq(cli_num(r, "reserve", "over_bytes"), 0, "it was passed:\n%s", c->out);
	cli_free(c);
	if (tries >= 2)
		cr_skip_test("the host is too busy: it was looked at %.2f s late", react);
	return true;
}

Test(storm, everything_breaks_and_is_merged_again, .timeout = 120)
{
	const json_t *r, *s;
	json_int_t touched, least = INT64_MAX, most_after = 0;
	bool stormed = false;
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --cell 2 --mem 32M --workload cowstorm:6 --seconds 25 --quiet",
		true, 90);
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "ok");
	all_stormed(r, 32);
	touched = cli_num(r, "touched_bytes", NULL);
	/* The reserve has seen it: so many breaks cannot come slower than in the whole of the run. */
	cr_assert_gt(cli_num(r, "reserve", "break_bytes_per_second_peak"), touched / 25);
	cr_assert_gt(cli_num(r, "reserve", "largest_bytes"), 0);
	cr_assert_eq(cli_num(r, "reserve", "standing_guests"), 0);
	cr_assert(json_is_null(json_object_get(json_object_get(r, "reserve"), "host_mem_bytes")));
	/* Down when merged, up in the storm (breaks that samples may miss are counted), down again. */
	cr_assert_geq(cli_num(r, "hash", "broken_pages"), 3 * (json_int_t)AREA_LEAST(32));
	json_array_foreach (json_object_get(r, "samples"), i, s) {
		json_int_t res = cli_num(s, "resident_bytes", NULL);

		least = OB_MIN(least, i > 20 ? res : least);
		stormed |= least < touched / 3 && res > touched / 2;
		most_after = res;
	}
	cr_assert(stormed, "it never went up again");
	cr_assert_lt(most_after, touched / 2, "it is merged again");
	cli_free(&c);
}

/* 256 MiB of guests that live in 220, the pool included. */
Test(storm, a_small_host_is_not_passed_and_all_get_done, .timeout = 160)
{
	const json_t *r;
	struct cli c;

	NEED_KVM();
	for (int tries = 1;; tries++) {
		cli_run(&c,
			"fleet --guests 4 --cell 1 --mem 64M --workload cowstorm:8 --seconds 30 "
			"--quiet --host-mem 220M",
			true, 70);
		if (!held_up_by_a_busy_host(&c, tries))
			break;
	}
	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "ok");
	cr_assert_eq(cli_num(r, "reserve", "host_mem_bytes"), 220 * (json_int_t)OB_MIB);
	cr_assert_eq(cli_num(r, "reserve", "over_bytes"), 0, "it was passed:\n%s", c.out);
	cr_assert_gt(cli_num(r, "reserve", "available_min_bytes"), 0);
	cr_assert(strstr(c.out, "reserve for breaks"), "%s", c.out);
	all_stormed(r, 64);
	cli_free(&c);
}

/* The second storm breaks for good what does not fit: guests stand still before it is passed. */
Test(storm, guests_are_held_up_before_the_host_runs_out, .timeout = 120)
{
	json_int_t written = 0;
	const json_t *r, *g;
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --cell 1 --mem 64M --workload cowstorm:3:2 --seconds 25 --quiet "
		"--host-mem 200M",
		true, 90);
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "degraded");
	cr_assert(strstr(cli_str(r, "note"), "stand still for want of memory"), "%s",
		  cli_str(r, "note"));
	cr_assert_eq(cli_num(r, "reserve", "over_bytes"), 0, "it was passed:\n%s", c.out);
	cr_assert_gt(cli_num(r, "reserve", "available_min_bytes"), 0);
	cr_assert_gt(cli_num(r, "reserve", "pauses"), 0);
	cr_assert_gt(cli_num(r, "reserve", "standing_guests"), 0);
	cr_assert_leq(cli_num(r, "resident_bytes", NULL), 200 * (json_int_t)OB_MIB);
	cr_assert_eq(cli_num(r, "integrity", "mismatches"), 0);
	/* They stood in the middle of it, and what they had written is there. */
	json_array_foreach (json_object_get(r, "guest_list"), i, g) {
		cr_assert_str_eq(cli_str(g, "end"), "running");
		written += cli_num(g, "written_pages", NULL);
	}
	cr_assert_gt(written, 0);
	cr_assert_lt(written, 4 * 2 * 64 * (json_int_t)(OB_MIB / OB_PAGE_SIZE));
	cli_free(&c);
}

/* Nothing here can be merged, so it never gets below: that is an answer, and said. */
Test(storm, a_fleet_that_never_fits_says_so, .timeout = 60)
{
	const json_t *r;
	struct cli c;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 2 --mem 32M --workload unique --seconds 2 --quiet --host-mem 24M",
		true, 50);
	cr_assert_eq(c.status, 1, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "degraded");
	cr_assert(strstr(cli_str(r, "note"), "never fitted"), "%s", cli_str(r, "note"));
	cr_assert(json_is_null(json_object_get(json_object_get(r, "reserve"), "fits_seconds")));
	cr_assert_eq(cli_num(r, "reserve", "pauses"), 0);
	cli_free(&c);
}

/* --- a limit that the kernel enforces -------------------------------------------------------- */

static void put(const char *dir, const char *file, uint64_t v)
{
	char path[1300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "we");
	cr_assert(f, "%s", path);
	fprintf(f, "%llu\n", (unsigned long long)v);
	cr_assert_eq(fclose(f), 0, "%s: %llu", path, (unsigned long long)v);
}

/* Room for the fleet before it is merged, and little more: 265 MiB, measured. */
#define LIMIT (274 * OB_MIB)

/* In a memory cgroup that ends whoever passes its limit nobody is ended. */
Test(storm, a_memory_cgroup_is_not_run_into, .timeout = 200)
{
	struct bench_cgroup g;
	char above[1100];
	const json_t *r;
	struct cli c;

	NEED_KVM();
	for (int tries = 1;; tries++) {
		if (!bench_cgroup_open(&g))
			cr_skip_test("no memory cgroup to be had here (root)");
		put(g.dir, g.v2 ? "memory.max" : "memory.limit_in_bytes", LIMIT);
		put(g.dir, "cgroup.procs", (uint64_t)getpid());
		cli_run(&c,
			"fleet --guests 4 --cell 1 --mem 64M --workload cowstorm:8 --seconds 30 "
			"--quiet",
			true, 70);
		snprintf(above, sizeof(above), "%s", g.dir);
		*strrchr(above, '/') = '\0';
		put(above, "cgroup.procs", (uint64_t)getpid());
		bench_cgroup_close(&g);
		/* The limit is 9 MiB away, 20 ms of a storm: a host that is busy may be looked at later than
		 * that (docs/storm.md). Not three times in a row. */
		if (tries < 3 && cli_num(cli_run_of(&c, 0), "cells_lost", NULL) > 0) {
			cli_free(&c);
			continue;
		}
		if (!held_up_by_a_busy_host(&c, tries))
			break;
	}

	cr_assert_eq(c.status, 0, "%s%s", c.out, c.err);
	r = cli_run_of(&c, 0);
	cr_assert_str_eq(cli_str(r, "status"), "ok");
	cr_assert_eq(cli_num(r, "cells_lost", NULL), 0);
	/* The limit is what was looked at. */
	cr_assert_gt(cli_num(r, "reserve", "available_min_bytes"), 0);
	cr_assert_lt(cli_num(r, "reserve", "available_min_bytes"), (json_int_t)LIMIT / 4);
	cr_assert_gt(json_real_value(json_object_get(json_object_get(r, "reserve"), "low_seconds")),
		     0);
	all_stormed(r, 64);
	cli_free(&c);
}
