/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_result.c: the document of schema overbook.result/1: its fields, and the rule that a run
 * which failed carries no figure.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report.h"

static struct fleet_config config(void)
{
	return (struct fleet_config){
		.guests = 2,
		.mem_bytes = 16 * OB_MIB,
		.workload = {"kv", "idle"},
		.nworkloads = 2,
		.sharing = {ksm_engine_find("hash")},
		.nsharing = 1,
		.seconds = 3,
		.seed = 9,
		.cell = 8,
		.inject = KSM_INJECT_FLIP_FRAME,
		.kernel_path = "/no/such/guest.elf",
		.image_path = "/no/such/guest.img",
	};
}

static struct run_result run(enum run_status status)
{
	struct run_result r = {
		.sharing = "hash",
		.status = status,
		.note = "a reason",
		.guests = 2,
		.cells = 1,
		.boot_seconds = 0.5,
		.configured_bytes = 32 * OB_MIB,
		.touched_bytes = 30 * OB_MIB,
		.resident_bytes = 10 * OB_MIB,
		.resident_bytes_kernel = 10 * OB_MIB + 4096,
		.saved_bytes = -4096,
		.saved_zero = 1,
		.saved_intra = 2,
		.saved_inter = 3,
		.metadata_ours = 100,
		.metadata_kernel = 23,
		.merge_cpu_seconds = 0.25,
		.merge_seconds_to_95 = -1,
		.ops_per_second = 1234.5,
		.lat_p50_us = 2,
		.lat_p99_us = -1,
		.checked_pages = 77,
		.checked_shared_pages = 55,
		.mismatches = 1,
		.reserve = {.on = true,
			    .bytes_max = 4096,
			    .host_mem = 64 * OB_MIB,
			    .fits_seconds = -1,
			    .low_seconds = 0.25,
			    .pauses = 3},
		.metadata_map = 40,
		.ksm = {.merged_pages = 42, .cost[KSM_COST_HASH] = {.ns = 900, .ops = 6}},
		.kind[AGENT_PAGE_SLAB] = {.touched = 2 * OB_PAGE_SIZE, .inter = 3},
		.kinds_known = true,
		.nsamples = 2,
	};

	r.guest = calloc(r.guests, sizeof(*r.guest));
	r.sample = calloc(r.nsamples, sizeof(*r.sample));
	cr_assert(r.guest && r.sample);
	strcpy(r.guest[1].end, "failed");
	strcpy(r.guest[1].reason, "bytes \xff\xfe of a guest");
	r.guest[1].id = 1;
	r.guest[1].ops = 11;
	r.guest[1].workers = 2;
	r.guest[1].workers_room = 5;
	r.guest[0].state_pages[EPT_SHARED] = 5;
	r.guest[1].state_pages[EPT_SHARED] = 6;
	r.guest[1].nmismatch = 1;
	r.guest[1].mismatch[0] =
		(struct agent_mismatch){.gpa = 0x1000, .expect = UINT64_MAX, .got = 1, .kind = 99};
	r.ndomains = 2;
	r.domain = calloc(r.ndomains, sizeof(*r.domain));
	r.npools = 2;
	r.pool = calloc(r.npools, sizeof(*r.pool));
	cr_assert(r.domain && r.pool);
	r.domain[0] = (struct run_domain){
		.name = "a", .guests = 1, .saved_inter = 3, .metadata_bytes = 7, .frames_made = 9};
	r.domain[1] = (struct run_domain){.name = "intra", .guests = 1, .saved_intra = 4096};
	r.pool[0] = (struct run_pool){.node = 1, .cells = 1, .guests = 1, .frames = 8};
	r.pool[1] = (struct run_pool){.domain = 1, .node = -1, .guests = 1, .blocks_bytes = 8192};
	r.guest[1].domain = 1;
	r.saved_foreign = 2 * OB_PAGE_SIZE;
	r.sample[0].t = -0.5;
	r.sample[1].t = 1.5;
	r.sample[1].resident_bytes = 4096;
	r.sample[1].merge_cpu_ns = 500000000;
	r.sample[1].saved_zero = 7;
	r.sample[1].saved_intra = 8;
	r.sample[1].saved_inter = 9;
	r.guest[1].share = (struct ksm_meter_share){10, 1, 2, 3, 4};
	return r;
}

static const json_t *run0(const json_t *doc)
{
	return json_array_get(json_object_get(doc, "runs"), 0);
}

Test(result, fields)
{
	struct fleet_config c = config();
	struct run_result r = run(RUN_OK);
	json_t *doc = result_json(&c, &r, 1, RUN_OK);
	const json_t *o = run0(doc), *g, *m;

	cr_expect_str_eq(report_str(doc, "schema"), "overbook.result/1");
	cr_expect_str_eq(report_str(doc, "status"), "ok");
	cr_expect(*report_str(doc, "git.revision"));
	cr_expect(*report_str(doc, "host.kernel"));
	cr_expect(*report_str(doc, "host.kvm_mode"));
	cr_expect_eq(report_num(doc, "host.cpus") >= 1, true);
	cr_expect_eq(report_num(doc, "config.mem_bytes"), 16.0 * OB_MIB);
	cr_expect_str_eq(json_string_value(json_array_get(report_get(doc, "config.inject"), 0)),
			 "flip-frame");
	cr_expect_str_eq(report_str(doc, "config.kernel.name"), "guest.elf", "a name and no place");
	cr_expect(json_is_null(report_get(doc, "config.kernel.xxh3")));

	cr_expect_str_eq(report_str(o, "sharing"), "hash");
	cr_expect_eq(report_num(o, "touched_bytes"), 30.0 * OB_MIB);
	cr_expect_eq(report_num(o, "resident_bytes_kernel"), 10.0 * OB_MIB + 4096);
	cr_expect_eq(report_num(o, "saved_bytes"), -4096);
	cr_expect_eq(report_num(o, "saved.zero"), 1);
	cr_expect_eq(report_num(o, "saved.intra"), 2);
	cr_expect_eq(report_num(o, "saved.inter"), 3);
	cr_expect_eq(report_num(o, "metadata_bytes"), 123);
	cr_expect_eq(report_num(o, "merge_cpu_seconds"), 0.25);
	cr_expect(json_is_null(report_get(o, "merge_seconds_to_95")), "never is null");
	cr_expect(json_is_null(report_get(o, "latency.p99_us")));
	cr_expect_eq(report_num(o, "ops_per_second"), 1234.5);
	cr_expect_eq(report_num(o, "integrity.checked_pages"), 77);
	cr_expect_eq(report_num(o, "integrity.mismatches"), 1);
	cr_expect_eq(report_num(o, "state_pages.shared"), 11);
	cr_expect_eq(report_num(o, "hash.merged_pages"), 42);
	cr_expect_eq(report_num(o, "reserve.largest_bytes"), 4096);
	cr_expect_eq(report_num(o, "reserve.low_seconds"), 0.25);
	cr_expect_eq(report_num(o, "reserve.pauses"), 3);
	cr_expect_eq(report_num(o, "reserve.over_bytes"), 0);
	cr_expect(json_is_null(report_get(o, "reserve.fits_seconds")), "it never fitted");
	cr_expect_str_eq(report_str(json_array_get(report_get(o, "kinds"), 0), "kind"), "slab");
	cr_expect_eq(report_num(json_array_get(report_get(o, "kinds"), 0), "pages"), 2);
	cr_expect_eq(report_num(json_array_get(report_get(o, "kinds"), 0), "inter"), 3);
	cr_expect(json_is_null(report_get(o, "kernel_ksm")),
		  "counters of an engine that did not run");
	cr_expect_eq(json_array_size(report_get(o, "samples")), 2);
	cr_expect_eq(report_num(json_array_get(report_get(o, "samples"), 1), "merge_cpu_seconds"),
		     0.5);

	g = json_array_get(report_get(doc, "config.domains"), 0);
	cr_expect_str_eq(report_str(g, "name"), "default", "nobody said otherwise");
	cr_expect_eq(json_array_size(report_get(g, "guests")), 2);
	cr_expect(json_is_null(report_get(o, "numa")), "one node is none");
	cr_expect_eq(report_num(o, "integrity.cross_domain_pages"), 2);
	g = json_array_get(report_get(o, "domains"), 0);
	cr_expect_str_eq(report_str(g, "name"), "a");
	cr_expect_eq(report_num(g, "saved.inter"), 3);
	cr_expect_eq(report_num(g, "metadata_bytes"), 7);
	cr_expect_eq(report_num(g, "frames"), 8);
	cr_expect_eq(report_num(g, "frames_made"), 9);
	cr_expect_eq(report_num(json_array_get(report_get(g, "pools"), 0), "node"), 1);
	g = json_array_get(report_get(o, "domains"), 1);
	cr_expect_eq(json_array_size(report_get(g, "guests")), 1);
	cr_expect_eq(json_integer_value(json_array_get(report_get(g, "guests"), 0)), 1);
	m = json_array_get(report_get(g, "pools"), 0);
	cr_expect(json_is_null(report_get(m, "node")), "all nodes");
	cr_expect_eq(report_num(m, "blocks_bytes"), 8192);
	g = json_array_get(report_get(o, "guest_list"), 1);
	cr_expect_str_eq(report_str(g, "domain"), "intra");
	cr_expect_eq(report_num(json_array_get(report_get(o, "samples"), 1), "saved.zero"), 7);
	cr_expect_eq(report_num(json_array_get(report_get(o, "samples"), 1), "saved.intra"), 8);
	cr_expect_eq(report_num(json_array_get(report_get(o, "samples"), 1), "saved.inter"), 9);
	cr_expect_eq(report_num(o, "hash.costs.hash.measured"), 6);
	cr_expect_eq(report_num(o, "hash.costs.hash.cpu_ns"), 900);
	cr_expect_eq(report_num(o, "hash.costs.hash.each_ns"), 150);
	cr_expect_eq(report_num(o, "hash.costs.zero.measured"), 0);
	cr_expect(json_is_null(report_get(o, "hash.costs.zero.each_ns")));
	/* 60 and 100 bytes over 7680 pages. */
	cr_expect_eq(report_num(o, "metadata_bytes_per_page.merging"), 60 / 7680.0);
	cr_expect_eq(report_num(o, "metadata_bytes_per_page.with_map"), 100 / 7680.0);
	cr_expect(json_is_null(report_get(o, "metadata_bytes_per_page.kernel_items")));

	g = json_array_get(report_get(o, "guest_list"), 1);
	cr_expect_eq(report_num(g, "share.touched_bytes"), 10);
	cr_expect_eq(report_num(g, "share.resident_bytes"), 1);
	cr_expect_eq(report_num(g, "share.saved.zero"), 2);
	cr_expect_eq(report_num(g, "share.saved.intra"), 3);
	cr_expect_eq(report_num(g, "share.saved.inter"), 4);
	cr_expect_eq(report_num(g, "ops"), 11);
	cr_expect_eq(report_num(g, "workers"), 2);
	cr_expect_eq(report_num(g, "workers_room"), 5);
	cr_expect_str_eq(report_str(g, "reason"), "bytes ?? of a guest", "is '%s'",
			 report_str(g, "reason"));
	m = json_array_get(report_get(g, "mismatch_list"), 0);
	cr_expect_str_eq(report_str(m, "expect"), "0xffffffffffffffff");
	cr_expect_str_eq(report_str(m, "kind"), "unknown");
	json_decref(doc);
	run_result_free(&r);
}

/* No number below @o but those of the integrity block, the identity of a guest and its checks. */
static void no_figures(const json_t *o, const char *where)
{
	static const char *const kept[] = {
		"guests", "cells",	   "cells_lost",	   "configured_bytes", "integrity",
		"id",	  "checked_pages", "checked_shared_pages", "mismatches",       "node"};
	const char *name;
	json_t *v;
	size_t i;

	json_object_foreach ((json_t *)(uintptr_t)o, name, v) {
		bool keep = false;

		for (size_t k = 0; k < OB_ARRAY_SIZE(kept); k++)
			keep |= strcmp(name, kept[k]) == 0;
		if (keep)
			continue;
		cr_expect(!json_is_number(v), "%s.%s has a number", where, name);
		if (json_is_object(v))
			no_figures(v, name);
	}
	json_array_foreach (json_object_get(o, "guest_list"), i, v)
		no_figures(v, "guest");
	json_array_foreach (json_object_get(o, "domains"), i, v)
		no_figures(v, "domain");
	json_array_foreach (json_object_get(o, "pools"), i, v)
		no_figures(v, "pool");
}

/* What a guest has written to is not what it was given. */
Test(result, a_disk_that_is_written_has_no_hash)
{
	static const char path[] = "/proc/self/exe";
	struct fleet_config c = config();
	json_t *o = json_object();

	c.lx.on = true;
	c.lx.ndisks = 2;
	for (unsigned int i = 0; i < 2; i++)
		c.lx.disk[i] = (struct linux_disk){path, (int)strlen(path), i == 1};
	result_guest_config(o, &c);
	for (size_t i = 0; i < 2; i++) {
		const json_t *d = json_array_get(json_object_get(o, "disks"), i);

		cr_expect_str_eq(report_str(d, "name"), "exe");
		cr_expect(report_num(d, "bytes") > 0);
		cr_expect_eq(json_is_null(report_get(d, "xxh3")), i == 1);
		cr_expect_eq(json_is_true(report_get(d, "writable")), i == 1);
	}
	json_decref(o);
}

Test(result, failed_run_has_no_figure)
{
	struct fleet_config c = config();
	struct run_result r = run(RUN_FAILED);
	json_t *doc = result_json(&c, &r, 1, RUN_FAILED);
	const json_t *o = run0(doc);

	no_figures(o, "run");
	cr_expect_str_eq(report_str(o, "status"), "failed");
	cr_expect_str_eq(report_str(o, "note"), "a reason");
	cr_expect_eq(report_num(o, "integrity.mismatches"), 1, "what failed is kept");
	cr_expect_eq(json_array_size(report_get(json_array_get(report_get(o, "guest_list"), 1),
						"mismatch_list")),
		     1);
	cr_expect_eq(json_array_size(report_get(o, "samples")), 0);
	/* The fields are there, so that a reader need not know which may be missing. */
	cr_expect(json_is_null(report_get(o, "resident_bytes")));
	cr_expect(json_is_null(report_get(o, "saved.inter")));
	cr_expect(json_is_null(report_get(o, "kinds")));
	json_decref(doc);
	run_result_free(&r);
}

Test(result, degraded_and_interrupted_keep_their_figures)
{
	static const enum run_status status[] = {RUN_DEGRADED, RUN_INTERRUPTED};

	for (size_t i = 0; i < OB_ARRAY_SIZE(status); i++) {
		struct fleet_config c = config();
		struct run_result r = run(status[i]);
		json_t *doc = result_json(&c, &r, 1, status[i]);

		cr_expect_eq(report_num(run0(doc), "resident_bytes"), 10.0 * OB_MIB);
		json_decref(doc);
		run_result_free(&r);
	}
}

/* A run that could not even be started has neither guests nor samples. */
Test(result, nothing_at_all)
{
	struct fleet_config c = config();
	struct run_result r = {.sharing = "kernel", .status = RUN_FAILED, .guests = 2};
	json_t *doc = result_json(&c, &r, 1, RUN_FAILED);

	cr_expect_eq(json_array_size(report_get(run0(doc), "guest_list")), 0);
	cr_expect(json_is_object(report_get(run0(doc), "kernel_ksm")));
	json_decref(doc);
	run_result_free(&r);
	doc = result_json(&c, NULL, 0, RUN_INTERRUPTED);
	cr_expect_eq(json_array_size(report_get(doc, "runs")), 0);
	json_decref(doc);
}

Test(result, the_worst_of_several)
{
	struct run_result r[3] = {{.status = RUN_OK}, {.status = RUN_OK}, {.status = RUN_OK}};

	cr_expect_eq(result_overall(r, 0), RUN_OK);
	cr_expect_eq(result_overall(r, 3), RUN_OK);
	r[2].status = RUN_DEGRADED;
	cr_expect_eq(result_overall(r, 3), RUN_DEGRADED);
	r[0].status = RUN_INTERRUPTED;
	cr_expect_eq(result_overall(r, 3), RUN_INTERRUPTED);
	r[1].status = RUN_FAILED;
	cr_expect_eq(result_overall(r, 3), RUN_FAILED);
}

Test(result, not_a_number_is_null)
{
	json_t *j = result_real(NAN);

	cr_expect(json_is_null(j));
	json_decref(j);
	j = result_real(INFINITY);
	cr_expect(json_is_null(j));
	json_decref(j);
	j = result_real(0.5);
	cr_expect_eq(json_real_value(j), 0.5);
	json_decref(j);
}
