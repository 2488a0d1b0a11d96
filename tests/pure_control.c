/* SPDX-License-Identifier: Apache-2.0 */
/* pure_control.c: what the control socket's side reads from a person: addresses, and its folder. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/control.h"

Test(control, addresses)
{
	static const struct {
		const char *s;
		int ret;
		uint64_t v;
	} cases[] = {
		{"0", 0, 0},
		{"0x0", 0, 0},
		{"4096", 0, 4096},
		{"0x1000", 0, 4096},
		{"0X1f", 0, 31},
		{"0xABCDEF", 0, 0xabcdef},
		{"0xffff800000000000", 0, 0xffff800000000000},
		{"0xffffffffffffffff", 0, UINT64_MAX},
		{"18446744073709551615", 0, UINT64_MAX},
		{"0x00000000000000000000001", 0, 1},
		{"010", 0, 10},
		{"18446744073709551616", -ERANGE, 0},
		{"0x10000000000000000", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"0x", -EINVAL, 0},
		{"x10", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1f", -EINVAL, 0},
		{"0x1g", -EINVAL, 0},
		{"0x1:", -EINVAL, 0},
		{"0x-1", -EINVAL, 0},
		{"1.5", -EINVAL, 0},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;
		int ret = control_parse_addr(cases[i].s, &v);

		cr_expect_eq(ret, cases[i].ret, "'%s' gives %d", cases[i].s, ret);
		cr_expect_eq(v, cases[i].v, "'%s' gives %llx", cases[i].s, (unsigned long long)v);
	}
}

Test(control, random_addresses_against_strtoull)
{
	unsigned int seed = 99;

	srand(seed);
	for (int i = 0; i < 100000; i++) {
		uint64_t want =
			((uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand()) >>
			(rand() % 64);
		char text[32];
		uint64_t v;

		snprintf(text, sizeof(text), i % 2 ? "0x%llx" : "%llu", (unsigned long long)want);
		cr_assert_eq(control_parse_addr(text, &v), 0, "seed %u: %s", seed, text);
		cr_assert_eq(v, want, "seed %u: %s", seed, text);
	}
}

Test(control, folder_by_user)
{
	char buf[64];

	cr_expect_eq(control_dir_name(buf, sizeof(buf), "/run/user/7", 7), 0);
	cr_expect_str_eq(buf, "/run/user/7/overbook");
	cr_expect_eq(control_dir_name(buf, sizeof(buf), "/run/user/7", 0), 0);
	cr_expect_str_eq(buf, "/run/user/7/overbook");
	cr_expect_eq(control_dir_name(buf, sizeof(buf), NULL, 0), 0);
	cr_expect_str_eq(buf, "/run/overbook");
	cr_expect_eq(control_dir_name(buf, sizeof(buf), NULL, 1000), 0);
	cr_expect_str_eq(buf, "/tmp/overbook-1000");
	/* A relative one does not count, nor an empty one. */
	cr_expect_eq(control_dir_name(buf, sizeof(buf), "run", 1000), 0);
	cr_expect_str_eq(buf, "/tmp/overbook-1000");
	cr_expect_eq(control_dir_name(buf, sizeof(buf), "", 0), 0);
	cr_expect_str_eq(buf, "/run/overbook");
	cr_expect_eq(control_dir_name(buf, 20, "/run/user/7/and/more", 7), -ENAMETOOLONG);
}
