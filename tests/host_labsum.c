/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_labsum.c: what says whether a run of the lab holds what is promised (tests/lab/summary.c): a
 * result that does passes, and one with anything amiss does not.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cli.h"

#define MIB ((json_int_t)1 << 20)

/* A guest after so many phases. */
static json_t *guest(int id, int phases)
{
	return json_pack("{s:i,s:s,s:i,s:i,s:i,s:i,s:i}", "id", id, "end", "running", "reboots", 0,
			 "workers", 2, "workers_room", 2, "ops", 10 * phases, "checked_pages",
			 100 * phases);
}

/* Phase number @n (from 1), a mode of two guests with @zero, @intra and @inter MiB saved. */
static json_t *phase(int n, const char *mode, int zero, int intra, int inter)
{
	json_t *ksm = strcmp(mode, "kernel") ? json_null() : json_pack("{s:b}", "converged", 1);

	return json_pack("{s:s,s:o,s:s,s:I,s:{s:I,s:I,s:I},s:{s:i,s:i,s:i},s:f,s:f,s:[o,o]}",
			 "sharing", mode, "kernel_ksm", ksm, "status", "ok", "saved_bytes",
			 (zero + intra + inter) * MIB, "saved", "zero", zero * MIB, "intra",
			 intra * MIB, "inter", inter * MIB, "integrity", "checked_pages", 1000,
			 "mismatches", 0, "frame_check_errors", 0, "from_seconds", 0.0,
			 "to_seconds", 1.0, "guest_list", guest(0, n), guest(1, n));
}

static json_t *good(void)
{
	return json_pack("{s:s,s:{s:s,s:s},s:{s:i,s:i,s:s,s:I,s:s,s:[s,s,s,s]},s:[{s:f,s:[o,o,o,o],"
			 "s:[o,o]}]}",
			 "status", "ok", "host", "kvm_mode", "tdp", "kernel", "6.12", "config",
			 "guests", 2, "vcpus", 2, "agent", "port", "mem_bytes", 96 * MIB, "append",
			 "quiet", "sharing", "off", "kernel", "off", "hash", "runs", "warm_seconds",
			 10.0, "phases", phase(1, "off", 1, 0, 0), phase(2, "kernel", 30, 10, 10),
			 phase(3, "off", 1, 0, 0), phase(4, "hash", 30, 10, 9), "guest_list",
			 guest(0, 4), guest(1, 4));
}

static json_t *run_of(json_t *doc)
{
	return json_array_get(json_object_get(doc, "runs"), 0);
}

static json_t *phase_of(json_t *doc, size_t i)
{
	return json_array_get(json_object_get(run_of(doc), "phases"), i);
}

/* What guest @k had after phase @i. */
static json_t *guest_of(json_t *doc, size_t i, size_t k)
{
	return json_array_get(json_object_get(phase_of(doc, i), "guest_list"), k);
}

/* What guest @k had in the end. */
static json_t *last_of(json_t *doc, size_t k)
{
	return json_array_get(json_object_get(run_of(doc), "guest_list"), k);
}

/* Exit status for @doc, asked for @mode; @doc is given up. */
static int verdict(json_t *doc, const char *mode)
{
	char path[] = "/tmp/overbook-labsum-XXXXXX", args[128];
	int fd = mkstemp(path);
	struct cli c;

	cr_assert_geq(fd, 0);
	cr_assert(!json_dumpfd(doc, fd, 0));
	close(fd);
	snprintf(args, sizeof(args), "here=%s:%s", path, mode);
	cli_run_as(&c, "labsum", args, 30);
	cr_assert(strstr(c.out, c.status ? "FAILED here: " : "lab: all as it should be"), "%s",
		  c.out);
	fd = c.status;
	cli_free(&c);
	unlink(path);
	json_decref(doc);
	return fd;
}

Test(labsum, what_holds_passes)
{
	cr_assert_eq(verdict(good(), "tdp"), 0);
}

/* Fewer workers than vCPUs are right where there is no memory for more, where the agent is not ours, and (who
 * knows) in a result that is too old to say. */
Test(labsum, workers_are_as_many_as_there_is_room_for)
{
	json_t *d = good();

	json_object_set_new(last_of(d, 1), "workers", json_integer(1));
	json_object_set_new(last_of(d, 1), "workers_room", json_integer(1));
	cr_assert_eq(verdict(d, "tdp"), 0);
	d = good();
	for (size_t k = 0; k < 2; k++)
		json_object_set_new(last_of(d, k), "workers_room", json_integer(9));
	cr_assert_eq(verdict(d, "tdp"), 0);
	d = good();
	for (size_t k = 0; k < 2; k++)
		json_object_set_new(last_of(d, k), "workers", json_integer(0));
	json_object_set_new(json_object_get(d, "config"), "agent", json_string("none"));
	cr_assert_eq(verdict(d, "tdp"), 0);
	d = good();
	for (size_t k = 0; k < 2; k++) {
		json_object_del(last_of(d, k), "workers");
		json_object_del(last_of(d, k), "workers_room");
	}
	cr_assert_eq(verdict(d, "tdp"), 0);
}

Test(labsum, anything_amiss_fails)
{
	json_t *d = good();

	cr_assert_eq(verdict(d, "shadow"), 1);
	d = good();
	json_object_set_new(d, "status", json_string("degraded"));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(phase_of(d, 1), "status", json_string("failed"));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(json_object_get(phase_of(d, 0), "integrity"), "mismatches",
			    json_integer(1));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(json_object_get(phase_of(d, 3), "integrity"), "frame_check_errors",
			    json_integer(1));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(json_object_get(phase_of(d, 3), "integrity"), "checked_pages",
			    json_integer(0));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* off after kernel still shares */
	json_object_set_new(json_object_get(phase_of(d, 2), "saved"), "inter", json_integer(4096));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* less than 95 % of kernel's 50 */
	json_object_set_new(phase_of(d, 3), "saved_bytes", json_integer(47 * MIB));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* nothing to compare with */
	json_object_set_new(phase_of(d, 1), "saved_bytes", json_integer(-4096));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* Linux KSM was still at it */
	json_object_set_new(json_object_get(phase_of(d, 1), "kernel_ksm"), "converged",
			    json_false());
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_del(phase_of(d, 1), "kernel_ksm");
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* a leak */
	json_object_set_new(phase_of(d, 3), "left", json_pack("{s:i}", "frames_left", 1));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* a mode is missing */
	json_array_remove(json_object_get(run_of(d), "phases"), 3);
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_array_remove(json_object_get(run_of(d), "guest_list"), 1);
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(json_array_get(json_object_get(run_of(d), "guest_list"), 0), "end",
			    json_string("failed"));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(json_array_get(json_object_get(run_of(d), "guest_list"), 1), "reboots",
			    json_integer(1));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* a guest that stood still in the last phase, or from the beginning */
	json_object_set_new(guest_of(d, 3, 1), "checked_pages", json_integer(300));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(guest_of(d, 3, 1), "ops", json_integer(30));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(guest_of(d, 0, 0), "ops", json_integer(0));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* a worker that is not there, also when all else goes on */
	json_object_set_new(last_of(d, 1), "workers", json_integer(1));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good();
	json_object_set_new(last_of(d, 0), "workers", json_integer(0));
	json_object_set_new(last_of(d, 0), "workers_room", json_integer(0));
	cr_assert_eq(verdict(d, "tdp"), 1);
	d = good(); /* one of whom a phase says nothing */
	json_array_remove(json_object_get(phase_of(d, 2), "guest_list"), 1);
	cr_assert_eq(verdict(d, "tdp"), 1);
}

/* Where the time was short Linux KSM may have been at it still; all else holds there too. */
Test(labsum, brief)
{
	json_t *d = good();

	cr_assert_eq(verdict(d, "tdp:brief"), 0);
	d = good();
	json_object_set_new(json_object_get(phase_of(d, 1), "kernel_ksm"), "converged",
			    json_false());
	cr_assert_eq(verdict(d, "tdp:brief"), 0);
	d = good();
	json_object_set_new(phase_of(d, 3), "saved_bytes", json_integer(47 * MIB));
	cr_assert_eq(verdict(d, "tdp:brief"), 1);
}

/* @n MiB of page cache, and @code of kernel code, are shared across VMs under hash. */
static void with_kinds(json_t *doc, int n, int code)
{
	json_t *list = json_pack("[{s:s,s:I,s:i,s:i}]", "kind", "page-cache", "inter", n * MIB,
				 "intra", 0, "zero", 0);

	if (code)
		json_array_append_new(list, json_pack("{s:s,s:I,s:i,s:i}", "kind", "kernel-code",
						      "inter", code * MIB, "intra", 0, "zero", 0));
	json_object_set_new(phase_of(doc, 3), "kinds", list);
}

/* A result on its way into a file. */
struct sheet {
	json_t *doc;
	char path[32];
};

/* @kvm_mode, without KASLR or with it, @n and @code as above. */
static void sheet_init(struct sheet *s, const char *kvm_mode, bool nokaslr, int n, int code)
{
	s->doc = good();
	strcpy(s->path, "/tmp/overbook-labsum-XXXXXX");
	json_object_set_new(json_object_get(s->doc, "host"), "kvm_mode", json_string(kvm_mode));
	if (nokaslr)
		json_object_set_new(json_object_get(s->doc, "config"), "append",
				    json_string("quiet nokaslr"));
	with_kinds(s->doc, n, code);
}

/* Run labsum over those of @s that have a name ("without" is the reference); all are given up. */
static void sheets_run(struct cli *c, struct sheet s[3], const char *names[3])
{
	char args[256] = "";

	for (int i = 0; i < 3; i++) {
		int fd = mkstemp(s[i].path);
		size_t at = strlen(args);

		cr_assert_geq(fd, 0);
		cr_assert(!json_dumpfd(s[i].doc, fd, 0));
		close(fd);
		json_decref(s[i].doc);
		if (names[i])
			snprintf(args + at, sizeof(args) - at, "%s=%s%s ", names[i], s[i].path,
				 strcmp(names[i], "without") ? "" : ":reference");
	}
	cli_run_as(c, "labsum", args, 30);
	for (int i = 0; i < 3; i++)
		unlink(s[i].path);
}

static void sheets_init(struct sheet s[3])
{
	sheet_init(&s[0], "shadow", false, 1, 1);
	sheet_init(&s[1], "tdp", false, 4, 0);
	sheet_init(&s[2], "tdp", true, 5, 7);
}

/* Where results with and without KASLR differ; the other that is beside them is of other paging. */
Test(labsum, what_kaslr_takes_is_told_by_kind)
{
	const char *names[3] = {"shadow", "here", "without"};
	struct sheet s[3];
	struct cli c;

	sheets_init(s);
	sheets_run(&c, s, names);
	cr_assert_eq(c.status, 0, "%s", c.out);
	cr_assert(strstr(c.out, "KASLR (here beside without)"), "%s", c.out);
	cr_assert(strstr(c.out, "page-cache                 4.0       5.0       1.0"), "%s", c.out);
	cr_assert(strstr(c.out, "kernel-code                0.0       7.0       7.0"), "%s", c.out);
	cr_assert(strstr(c.out, "all                        4.0      12.0       8.0"), "%s", c.out);
	cli_free(&c);
}

/* A comparison that is not one of KASLR alone is none: it fails, and shows nothing. */
Test(labsum, a_reference_has_its_like)
{
	const char *names[3] = {"shadow", "here", "without"};
	const char *alone[3] = {"shadow", NULL, "without"};

	for (int i = 0; i < 5; i++) {
		struct sheet s[3];
		struct cli c;

		sheets_init(s);
		if (i == 1) /* it has KASLR itself */
			json_object_set_new(json_object_get(s[2].doc, "config"), "append",
					    json_string("quiet nokaslrs"));
		if (i == 2) /* other guests */
			json_object_set_new(json_object_get(s[1].doc, "config"), "mem_bytes",
					    json_integer(128 * MIB));
		if (i == 3) /* another outer kernel */
			json_object_set_new(json_object_get(s[1].doc, "host"), "kernel",
					    json_string("6.1"));
		if (i == 4) /* no KASLR in the other either */
			json_object_set_new(json_object_get(s[1].doc, "config"), "append",
					    json_string("nokaslr quiet"));
		sheets_run(&c, s, i ? names : alone);
		cr_expect_eq(c.status, 1, "%d: %s", i, c.out);
		cr_expect(strstr(c.out, "FAILED without: "), "%d: %s", i, c.out);
		cr_expect(!strstr(c.out, "KASLR ("), "%d: %s", i, c.out);
		cli_free(&c);
	}
}

Test(labsum, bad_usage)
{
	struct cli c;

	cli_run_as(&c, "labsum", "nothing", 30);
	cr_assert_eq(c.status, 2);
	cli_free(&c);
	cli_run_as(&c, "labsum", "here=/nowhere:tdp", 30);
	cr_assert_eq(c.status, 1);
	cr_assert(strstr(c.out, "FAILED here"));
	cli_free(&c);
	cli_run_as(&c, "labsum", "here=/nowhere:upsidedown", 30);
	cr_assert_eq(c.status, 2);
	cli_free(&c);
}
