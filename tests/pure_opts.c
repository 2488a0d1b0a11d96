/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_opts.c: command lines of run, fleet and compare: what is understood, and that everything
 * else is refused with one line.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"

#define MAX_WORDS 16

/* Parse "fleet --guests 4", split at spaces. */
static enum opts_outcome parse(struct fleet_config *c, struct opts_given *given, const char *line,
			       char *words, size_t len, struct ob_err *e)
{
	char *argv[MAX_WORDS + 1], *save = NULL;
	int argc = 0;

	cr_assert_lt(strlen(line), len);
	strcpy(words, line); /* the configuration points into it */
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		cr_assert_lt(argc, MAX_WORDS);
		argv[argc++] = w;
	}
	argv[argc] = NULL;
	e->msg[0] = '\0';
	return opts_parse(c, given, argv[0], argc, argv, e);
}

Test(opts, sizes)
{
	static const struct {
		const char *s;
		int ret;
		uint64_t v;
	} cases[] = {
		{"64M", 0, 64 * OB_MIB},
		{"1G", 0, OB_GIB},
		{"65536K", 0, 64 * OB_MIB},
		{"16777216", 0, 16 * OB_MIB},
		{"2t", 0, 2048 * OB_GIB},
		{"0", 0, 0},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"16777216T", -ERANGE, 0},
		{"00000000000000000000000000001", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"M", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1.5G", -EINVAL, 0},
		{"64MB", -EINVAL, 0},
		{"64X", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;
		int ret = opts_parse_size(cases[i].s, &v);

		cr_expect_eq(ret, cases[i].ret, "'%s' gives %d", cases[i].s, ret);
		if (!ret)
			cr_expect_eq(v, cases[i].v, "'%s'", cases[i].s);
	}
}

Test(opts, defaults)
{
	struct fleet_config c;
	struct opts_given g;
	struct ob_err e;
	char words[256];

	cr_assert_eq(parse(&c, &g, "fleet", words, sizeof(words), &e), OPTS_OK);
	cr_expect_eq(c.guests, 16);
	cr_expect_eq(c.mem_bytes, 64 * OB_MIB);
	cr_expect_eq(c.seconds, 10);
	cr_expect_eq(c.seed, 1);
	cr_expect_eq(c.nworkloads, 1);
	cr_expect_str_eq(c.workload[0], "kv");
	cr_expect_eq(c.nsharing, 1);
	cr_expect_str_eq(c.sharing[0]->name, "hash");
	cr_expect(!g.sharing && !g.out_dir && !c.quiet && !c.inject && !c.json_path);
	cr_expect(!c.control_path && !c.control);

	cr_assert_eq(parse(&c, &g, "compare", words, sizeof(words), &e), OPTS_OK);
	cr_assert_eq(c.nsharing, 3);
	cr_expect_str_eq(c.sharing[0]->name, "off");
	cr_expect_str_eq(c.sharing[1]->name, "hash");
	cr_expect_str_eq(c.sharing[2]->name, "kernel");

	cr_assert_eq(parse(&c, &g, "run", words, sizeof(words), &e), OPTS_OK);
	cr_expect_eq(c.guests, 1);
	cr_expect_str_eq(c.sharing[0]->name, "off");
}

Test(opts, all_of_them)
{
	struct fleet_config c;
	struct opts_given g;
	struct ob_err e;
	char words[256];

	cr_assert_eq(
		parse(&c, &g,
		      "fleet --guests=3 --mem 16M --workload kv,idle,kv --sharing off --seconds 2",
		      words, sizeof(words), &e),
		OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.guests, 3);
	cr_expect_eq(c.mem_bytes, 16 * OB_MIB);
	cr_expect_eq(c.nworkloads, 3);
	cr_expect_str_eq(c.workload[1], "idle");
	cr_expect_str_eq(c.sharing[0]->name, "off");
	cr_expect_eq(c.seconds, 2);
	cr_expect(g.sharing);
	cr_assert_eq(
		parse(&c, &g,
		      "fleet --seed 7 --json - --guest microguest --cell 5 --kernel k --image i",
		      words, sizeof(words), &e),
		OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.seed, 7);
	cr_expect_str_eq(c.json_path, "-");
	cr_expect_eq(c.cell, 5);
	cr_expect_str_eq(c.kernel_path, "k");
	cr_expect_str_eq(c.image_path, "i");
	cr_expect_eq(c.host_mem_bytes, 0, "what the host has");
	cr_assert_eq(parse(&c, &g, "compare --host-mem 1G --workload cowstorm:5:2,probe:0:16",
			   words, sizeof(words), &e),
		     OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.host_mem_bytes, OB_GIB);
	cr_assert_eq(parse(&c, &g,
			   "fleet --inject lose-break --inject flip-frame --warm-timeout 9 --quiet "
			   "--out d --control none",
			   words, sizeof(words), &e),
		     OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.inject, KSM_INJECT_LOSE_BREAK | KSM_INJECT_FLIP_FRAME);
	cr_expect_eq(c.warm_timeout, 9);
	cr_expect(c.quiet && g.out_dir);
	cr_expect_str_eq(c.out_dir, "d");
	cr_expect_str_eq(c.control_path, "none");
	cr_expect_eq(c.ksm_pace.kind, KSM_PACE_FASTEST);
	cr_assert_eq(parse(&c, &g, "compare --ksm sleep:250", words, sizeof(words), &e), OPTS_OK,
		     "%s", e.msg);
	cr_expect_eq(c.ksm_pace.kind, KSM_PACE_SLEEP);
	cr_expect_eq(c.ksm_pace.sleep_ms, 250);
	cr_expect(g.ksm);
	cr_expect_eq(c.scan_gap_ms, 0, "its default");
	cr_assert_eq(parse(&c, &g, "fleet --scan-gap 40 --workload steady,shuffle:3,unique:1:512",
			   words, sizeof(words), &e),
		     OPTS_OK, "%s", e.msg);
	cr_expect_eq(c.scan_gap_ms, 40);
}

/* No experiment without its control: compare puts it in front when it was not named. */
Test(opts, compare_has_its_control)
{
	struct fleet_config c;
	struct opts_given g;
	struct ob_err e;
	char words[256];

	cr_assert_eq(parse(&c, &g, "compare --sharing hash", words, sizeof(words), &e), OPTS_OK);
	cr_assert_eq(c.nsharing, 2);
	cr_expect_str_eq(c.sharing[0]->name, "off");
	cr_expect_str_eq(c.sharing[1]->name, "hash");
	cr_assert_eq(parse(&c, &g, "compare --sharing hash,off", words, sizeof(words), &e),
		     OPTS_OK);
	cr_assert_eq(c.nsharing, 2);
	cr_expect_str_eq(c.sharing[0]->name, "hash");
	cr_assert_eq(c.ksm_cpu_percent, 5);
	cr_assert_eq(c.scan_gap_ms, 0);
	cr_assert_eq(c.max_pause_us, 500);
	cr_assert_eq(parse(&c, &g, "compare --max-pause 50", words, sizeof(words), &e), OPTS_OK);
	cr_assert_eq(c.max_pause_us, 50);
	cr_assert_eq(parse(&c, &g, "fleet --ksm-cpu 0 --scan-gap 1000", words, sizeof(words), &e),
		     OPTS_OK);
	cr_assert_eq(c.ksm_cpu_percent, 0);
	cr_assert_eq(c.scan_gap_ms, 1000);
	/* One fleet may go through a mode more than once. */
	cr_assert_eq(parse(&c, &g, "fleet --sharing off,kernel,off,hash --live", words,
			   sizeof(words), &e),
		     OPTS_OK);
	cr_assert_eq(c.nsharing, 4);
	cr_expect(c.live);
	cr_expect_str_eq(c.sharing[2]->name, "off");
	cr_assert_eq(
		parse(&c, &g, "compare --live --sharing hash,kernel", words, sizeof(words), &e),
		OPTS_OK);
	cr_assert_eq(c.nsharing, 3);
	cr_expect_str_eq(c.sharing[0]->name, "off");
}

Test(opts, bad_lines)
{
	/* The line, and a word that the refusal must have in it. */
	static const char *const bad[][2] = {
		{"fleet --guests 0", "--guests 0"},
		{"fleet --guests 99999999", "4096"},
		{"fleet --guests -1", "--guests"},
		{"fleet --guests 1x", "1x"},
		{"fleet --guests", "needs a value"},
		{"fleet --mem 3K", "8M"},
		{"fleet --mem 12345678T", "1T"},
		{"fleet --mem 99999999999999999999T", "1T"},
		{"fleet --mem 4M", "8M"},
		{"fleet --mem 8388609", "multiple"},
		{"fleet --mem lots", "lots"},
		{"fleet --seconds 0", "--seconds 0"},
		{"fleet --seconds 100000", "86400"},
		{"fleet --seed x", "--seed"},
		{"fleet --cell 0", "--cell"},
		{"fleet --cell 1 --guests 4096", "cells"},
		{"fleet --ksm-cpu 6401", "6400"},
		{"fleet --ksm-cpu 5%", "--ksm-cpu '5%'"},
		{"fleet --scan-gap 0", "--scan-gap 0"},
		{"fleet --max-pause 19", "20"},
		{"fleet --max-pause 1000001", "1000000"},
		{"fleet --max-pause 1ms", "--max-pause '1ms'"},
		{"fleet --workload kv,frob", "frob"},
		{"fleet --workload kv,", "empty name"},
		{"fleet --workload touch:101", "at most 100"},
		{"fleet --workload kv:3", "takes no number"},
		{"fleet --workload touch:x", "whole number"},
		{"run --workload kv,idle", "one guest"},
		{"fleet --workload hostile-much-too-long", "hostile"},
		{"fleet --workload kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv,kv", "16"},
		{"fleet --sharing frob", "kernel"},
		{"fleet --sharing off,hash", "compare"},
		{"compare --sharing off,hash,off", "twice"},
		{"fleet --live --sharing off", "name the modes"},
		{"fleet --live", "name the modes"},
		{"fleet --live --sharing off,off,hash", "twice"},
		{"fleet --live --sharing off,hash --inject flip-frame", "--live"},
		{"compare --live --sharing hash,kernel,hash,kernel,hash,kernel,hash,kernel",
		 "more than 8"},
		{"run --live", "--live"},
		{"fleet --sharing off --inject flip-frame", "--sharing hash"},
		{"fleet --inject frob", "skip-compare"},
		{"fleet --sharing kernel --ksm frob", "advisor"},
		{"fleet --sharing kernel --ksm sleep:x", "sleep:MS"},
		{"fleet --sharing kernel --ksm sleep:600001", "600000"},
		{"fleet --sharing hash --ksm default", "--sharing kernel"},
		{"fleet --sharing off --scan-gap 5", "--sharing hash"},
		{"fleet --scan-gap 0", "--scan-gap"},
		{"fleet --workload steady:1", "takes no number"},
		{"fleet --workload shuffle:1:2", "one number"},
		{"fleet --host-mem 1K", "at least 8M"},
		{"fleet --host-mem much", "not a size"},
		{"fleet --host-mem 64M --sharing off", "--sharing hash"},
		{"run --host-mem 64M", "--host-mem"},
		{"fleet --workload cowstorm:0", "at least 1"},
		{"fleet --workload probe:1:8", "at least 16"},
		{"fleet --guest bsd", "microguest"},
		{"fleet --frob", "--frob"},
		{"fleet --frob=1", "--frob"},
		{"fleet -z", "-z"},
		{"fleet --se 4", "short for several"},
		{"fleet --quiet=4", "takes no value"},
		{"fleet word", "word"},
		{"fleet --json=", "--json"},
		{"fleet --control=", "--control"},
		{"fleet --control "
		 "0123456789012345678901234567890123456789012345678901234567890123456789012345678"
		 "90123456789012345678901234567",
		 "107"},
		{"run --guests 2", "--guests"},
		{"run --sharing hash", "--sharing"},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		struct fleet_config c;
		struct opts_given g;
		struct ob_err e;
		char words[256];
		enum opts_outcome o = parse(&c, &g, bad[i][0], words, sizeof(words), &e);

		cr_expect_eq(o, OPTS_BAD, "taken: %s", bad[i][0]);
		cr_expect(e.msg[0] && !strchr(e.msg, '\n'), "not one line for: %s", bad[i][0]);
		cr_expect(strstr(e.msg, bad[i][1]), "'%s' says: %s", bad[i][0], e.msg);
	}
}

Test(opts, workloads)
{
	for (unsigned int i = 0; opts_workloads[i]; i++)
		cr_expect(opts_known_workload(opts_workloads[i]));
	cr_expect(opts_known_workload("hostile-ring"));
	cr_expect(!opts_known_workload("hostile-"));
	cr_expect(!opts_known_workload(
		"hostile-a b")); /* it becomes a word of the guest's command line */
	cr_expect(!opts_known_workload(""));
	cr_expect(!opts_known_workload("kv "));
}

Test(opts, memory_of_the_host)
{
	struct fleet_config c = {.guests = 16, .mem_bytes = 64 * OB_MIB};
	struct opts_host h = {
		.mem_total = OB_GIB, .mem_available = OB_GIB, .mem_limit = UINT64_MAX};
	struct ob_err e = {""};

	cr_expect_eq(opts_check_memory(&c, &h, &e), 0);
	h.mem_available = 900 * OB_MIB;
	cr_expect_eq(opts_check_memory(&c, &h, &e), -ENOMEM);
	cr_expect(strstr(e.msg, "16 guests of 64.0 MiB are 1.0 GiB, this host has 1.0 GiB, of "
				"which 900.0 MiB are available"),
		  "%s", e.msg);
	c.guests = 14;
	cr_expect_eq(opts_check_memory(&c, &h, &e), 0);
	h.mem_available = OB_GIB;
	c.guests = 17;
	cr_expect_eq(opts_check_memory(&c, &h, &e), -ENOMEM);
	cr_expect(strstr(e.msg, "1.1 GiB") && strstr(e.msg, "1.0 GiB"), "both numbers: %s", e.msg);
	cr_expect(strstr(e.msg, "host"));
	h.mem_total = h.mem_available = 64 * OB_GIB;
	h.mem_limit = OB_GIB;
	cr_expect_eq(opts_check_memory(&c, &h, &e), -ENOMEM);
	cr_expect(strstr(e.msg, "cgroup"), "whose limit: %s", e.msg);
	c.guests = UINT32_MAX;
	c.mem_bytes = UINT64_MAX & ~OB_PAGE_MASK;
	cr_expect_eq(opts_check_memory(&c, &h, &e), -ENOMEM);
}

/* Random words: either refused with a line, or taken with everything inside its bounds. */
Test(opts, random_words)
{
	static const char *const words[] = {
		"--guests", "--mem",	  "--workload", "--sharing", "--seconds",
		"--seed",   "--cell",	  "--inject",	"--quiet",   "--json",
		"0",	    "1",	  "16",		"-1",	     "9G",
		"64M",	    "kv",	  "off",	"hash,off",  "idle,kv",
		"--",	    "-",	  "--m",	"--=",	     "--guests=5",
		"--mem=9M", "lose-break", "",		"4096",	     "--sharing=kernel"};
	unsigned int seed = 20240607, taken = 0;

	srand(seed);
	for (int round = 0; round < 20000; round++) {
		static char verb[] = "fleet";
		char store[6][24], *argv[8] = {verb};
		struct fleet_config c;
		struct opts_given g;
		struct ob_err e = {""};
		int n = 1 + rand() % 6;

		for (int i = 0; i < n; i++) {
			strcpy(store[i], words[(size_t)rand() % OB_ARRAY_SIZE(words)]);
			argv[i + 1] = store[i];
		}
		argv[n + 1] = NULL;
		switch (opts_parse(&c, &g, verb, n + 1, argv, &e)) {
		case OPTS_OK:
			taken++;
			cr_assert(c.guests >= 1 && c.guests <= FLEET_MAX_GUESTS, "seed %u round %d",
				  seed, round);
			cr_assert(c.mem_bytes >= OPTS_MIN_MEM && c.mem_bytes % OB_PAGE_SIZE == 0);
			cr_assert(c.nsharing == 1 && c.sharing[0]);
			cr_assert(c.nworkloads >= 1 && c.nworkloads <= FLEET_MAX_WORKLOADS);
			cr_assert(c.seconds >= 1 && c.cell >= 1);
			break;
		case OPTS_BAD:
			cr_assert(e.msg[0] && !strchr(e.msg, '\n'), "seed %u round %d: no line",
				  seed, round);
			break;
		case OPTS_HELP:
			cr_assert_fail("nobody asked for help: seed %u round %d", seed, round);
		}
	}
	cr_assert_gt(taken, 100);
}

Test(opts, io_hints)
{
	struct opts_given given;
	struct fleet_config c;
	char words[200];
	struct ob_err e;

	cr_assert_eq(parse(&c, &given, "fleet", words, sizeof(words), &e), OPTS_OK);
	cr_assert(c.io_hints, "on where nothing is said");
	cr_assert_eq(parse(&c, &given, "compare --io-hints off", words, sizeof(words), &e),
		     OPTS_OK);
	cr_assert(!c.io_hints);
	cr_assert_eq(parse(&c, &given, "fleet --io-hints=on", words, sizeof(words), &e), OPTS_OK);
	cr_assert(c.io_hints);
	cr_assert_eq(parse(&c, &given, "fleet --io-hints maybe", words, sizeof(words), &e),
		     OPTS_BAD);
	cr_assert_str_eq(e.msg, "--io-hints 'maybe': give on or off");
}
