/* SPDX-License-Identifier: Apache-2.0 */
/* pure_bench_demo.c: what the benchmark demo reads: guests' consoles in pieces, and smaps files. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_child.h"

/* Two guests on one pipe: their writes are whole, and between each other. */
static const char two_guests[] = "OO"
				 "verbook microguest\n"
				 "microguest 1: idle is warm, 100 cached, 20 heap pages\n"
				 "verbook microguest\n"
				 "microguest 0: idle is warm, 100 cached, 20 heap pages\n";

Test(bench_demo, marks_do_not_depend_on_how_the_text_comes)
{
	unsigned int seed = 4711;

	srand(seed);
	for (int round = 0; round < 1000; round++) {
		struct bench_marks m = {0};
		size_t at = 0, len = sizeof(two_guests) - 1;

		while (at < len) {
			size_t n = 1 + (size_t)rand() % 40;

			n = n > len - at ? len - at : n;
			bench_marks_feed(&m, two_guests + at, n);
			at += n;
		}
		cr_assert_eq(m.first, 2, "seed %u round %d", seed, round);
		cr_assert_eq(m.warm, 2, "seed %u round %d", seed, round);
	}
}

Test(bench_demo, a_line_without_end_is_harmless)
{
	static char text[100000];
	struct bench_marks m = {0};

	memset(text, 'x', sizeof(text));
	bench_marks_feed(&m, text, sizeof(text));
	cr_expect_lt(m.fill, sizeof(m.line));
	bench_marks_feed(&m, "\nmicroguest 0: kv is warm, 1\n", 29);
	cr_expect_eq(m.warm, 1);
	cr_expect_eq(m.first, 0);
}

static FILE *text_file(const char *text)
{
	FILE *f = tmpfile();

	cr_assert(f);
	fputs(text, f);
	rewind(f);
	return f;
}

Test(bench_demo, guest_ram_by_size)
{
	struct bench_pss p = {0};
	FILE *f = text_file("7f0000000000-7f0001000000 rw-p 00000000 00:00 0 \n"
			    "Size:              16384 kB\n"
			    "Rss:               14000 kB\n"
			    "Pss:               13000 kB\n"
			    "Pss_Dirty:         12000 kB\n"
			    "7f0002000000-7f0003001000 rw-p 00000000 00:00 0 \n" /* a page more */
			    "Pss:                 100 kB\n"
			    "7f0004000000-7f0005000000 rw-s 00000000 00:01 77 /memfd:x (deleted)\n"
			    "Pss:                 200 kB\n"
			    "7f0006000000-7f0007000000 ---p 00000000 00:00 0 \n"
			    "Pss:                 400 kB\n");

	bench_pss_ram(f, 16 * OB_MIB, &p);
	fclose(f);
	cr_expect_eq(p.ram, 13000 * OB_KIB);
	cr_expect_eq(p.ram_size, 16 * OB_MIB);
}

Test(bench_demo, guest_ram_by_name)
{
	struct bench_pss p = {0};
	/* Split in two, which only a name can tell. */
	FILE *f = text_file("7f0000000000-7f0000800000 rw-p 00000000 00:00 0  [anon:ob:vm3:ram]\n"
			    "Pss:                1000 kB\n"
			    "7f0000800000-7f0001000000 rw-p 00000000 00:00 0  [anon:ob:vm3:ram]\n"
			    "Pss:                2000 kB\n"
			    "7f0001000000-7f0001800000 rw-p 00000000 00:00 0  [anon:other]\n"
			    "Pss:                4000 kB\n");

	bench_pss_ram(f, 16 * OB_MIB, &p);
	fclose(f);
	cr_expect_eq(p.ram, 3000 * OB_KIB);
	cr_expect_eq(p.ram_size, 16 * OB_MIB);
}

Test(bench_demo, rollup)
{
	struct bench_pss p = {0};
	FILE *f = text_file("55e000000000-7ffd00000000 ---p 00000000 00:00 0 [rollup]\n"
			    "Rss:               33292 kB\n"
			    "Pss:               14283 kB\n"
			    "Pss_Dirty:         11588 kB\n"
			    "Pss_Anon:          11580 kB\n"
			    "Pss_File:           2603 kB\n"
			    "Pss_Shmem:           100 kB\n");

	cr_expect(bench_pss_rollup(f, &p));
	fclose(f);
	cr_expect_eq(p.all, 14283 * OB_KIB);
	cr_expect_eq(p.own, 11680 * OB_KIB);
	f = text_file("");
	cr_expect_not(bench_pss_rollup(f, &p), "a process that is gone has no figure");
	fclose(f);
}

Test(bench_demo, page_tables)
{
	FILE *f =
		text_file("Name:\tqemu\nVmRSS:\t  33292 kB\nVmPTE:\t     172 kB\nVmSwap:\t0 kB\n");

	cr_expect_eq(bench_pss_tables(f), 172 * OB_KIB);
	fclose(f);
	f = text_file("Name:\tzombie\n");
	cr_expect_eq(bench_pss_tables(f), 0);
	fclose(f);
}
