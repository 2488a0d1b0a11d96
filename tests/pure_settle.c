/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_settle.c: when Linux KSM counts as settled, and the text in which its settings are saved.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ksm/sysfs.h"

static bool at(struct ksm_settle *s, uint64_t scans, uint64_t sharing)
{
	struct ksm_sysfs_counters c = {.full_scans = scans, .pages_sharing = sharing};

	return ksm_settled(s, &c);
}

Test(settle, needs_two_whole_scans)
{
	struct ksm_settle s = {0};

	/* The first reading is in the middle of scan 10. */
	cr_assert_not(at(&s, 10, 5000));
	cr_assert_not(at(&s, 10, 5000));
	cr_assert_not(at(&s, 11, 5000));
	cr_assert_not(at(&s, 12, 5000), "the part of a scan is no scan");
	cr_assert(at(&s, 13, 5000));
	cr_assert(at(&s, 20, 5000), "and it stays so");
}

Test(settle, any_change_begins_anew)
{
	struct ksm_settle s = {0};

	cr_assert_not(at(&s, 1, 1000));
	cr_assert_not(at(&s, 3, 2000));
	cr_assert_not(at(&s, 5, 2000));
	cr_assert(at(&s, 6, 2000));
	cr_assert_not(at(&s, 7, 3000));
	cr_assert_not(at(&s, 9, 3000));
	cr_assert(at(&s, 10, 3000));
}

Test(settle, slow_growth_is_not_rest)
{
	struct ksm_settle s = {0};

	/* Half a percent a scan: each step is small, but they add up. */
	for (uint64_t i = 0; i < 200; i++)
		cr_assert_not(at(&s, 100 + i, 100000 + 500 * i), "scan %llu",
			      (unsigned long long)i);
}

Test(settle, busy_guests_may_settle)
{
	struct ksm_settle s = {0};
	bool settled = false;

	for (uint64_t i = 0; i < 8; i++)
		settled = at(&s, i, 100000 + (i % 3) * 100);
	cr_assert(settled, "a quarter of a percent to and fro");
}

Test(settle, counters_that_go_back)
{
	struct ksm_settle s = {0};

	cr_assert_not(at(&s, 100, 5000));
	cr_assert_not(at(&s, 2, 5000));
	cr_assert_not(at(&s, 4, 5000));
	cr_assert(at(&s, 5, 5000));
}

Test(settle, zero_pages_count)
{
	struct ksm_settle s = {0};
	struct ksm_sysfs_counters c = {.full_scans = 1, .pages_sharing = 100};

	for (; c.full_scans < 10; c.full_scans++) {
		c.zero_pages += 1000;
		cr_assert_not(ksm_settled(&s, &c), "zero pages are still being merged");
	}
}

/* --- saved settings -------------------------------------------------------------------------- */

static struct ksm_settings some(void)
{
	struct ksm_settings s = {0};

	strcpy(s.value[KSM_SET_RUN], "0");
	strcpy(s.value[KSM_SET_PAGES_TO_SCAN], "100");
	strcpy(s.value[KSM_SET_ADVISOR_MODE], "scan-time");
	return s;
}

Test(settings, there_and_back)
{
	static const struct ksm_pace paces[] = {
		{KSM_PACE_FASTEST, 0}, {KSM_PACE_ADVISOR, 0}, {KSM_PACE_SLEEP, KSM_PACE_MAX_SLEEP}};
	struct ksm_settings s = some(), t;
	struct ksm_pace p;
	char buf[1024];
	int n, last = 0;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(paces); i++, last = n) {
		n = ksm_settings_format(&s, &paces[i], buf, sizeof(buf));
		cr_assert_gt(n, 0);
		cr_assert_eq((size_t)n, strlen(buf));
		cr_assert(!last || n == last, "one may be written over another");
		cr_assert_eq(ksm_settings_parse(buf, (size_t)n, &t, &p), 0);
		cr_assert_eq(memcmp(&s, &t, sizeof(s)), 0);
		cr_assert(ksm_pace_equal(&p, &paces[i]));
		for (int room = 0; room <= n; room++)
			cr_assert_eq(ksm_settings_format(&s, &paces[i], buf, (size_t)room),
				     -EOVERFLOW);
	}
}

Test(settings, no_part_of_it_passes_for_all)
{
	const struct ksm_pace p = {.kind = KSM_PACE_DEFAULT};
	struct ksm_settings s = some(), t;
	char buf[1024];
	int n = ksm_settings_format(&s, &p, buf, sizeof(buf));

	for (int cut = 0; cut < n; cut++)
		cr_assert_eq(ksm_settings_parse(buf, (size_t)cut, &t, NULL), -EINVAL, "cut at %d",
			     cut);
}

Test(settings, nothing_else_passes)
{
	/* clang-format off */
	static const char *const bad[] = {
		"overbook saved KSM settings 1\nend\n",
		"overbook saved KSM settings 2\nrun 0\nend\n",
		"overbook saved KSM settings 1\npace fastest\nrun 0\nend\n",
		"overbook saved KSM settings 1\npace slow           \nrun 0\nend\n",
		"overbook saved KSM settings 1\nrun 0\npace default        \nend\n",
		"overbook saved KSM settings 1\npace default        \nend\n",
		"overbook saved KSM settings 1\nrun 0\nrun 1\nend\n",
		"overbook saved KSM settings 1\nrun \nend\n",
		"overbook saved KSM settings 1\nrun 0/../../x\nend\n",
		"overbook saved KSM settings 1\nrun 0\nmax_page_sharing 1\nend\n",
		"overbook saved KSM settings 1\nrun 0\n\nend\n",
		/* 64 digits: more than a value may have. */
		("overbook saved KSM settings 1\nrun "
		 "0000000000000000000000000000000000000000000000000000000000000000\nend\n"),
	};
	/* clang-format on */

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		struct ksm_settings t;

		cr_assert_eq(ksm_settings_parse(bad[i], strlen(bad[i]), &t, NULL), -EINVAL, "%s",
			     bad[i]);
	}
}

/* Saved before there were paces. */
Test(settings, without_a_pace)
{
	static const char old[] = "overbook saved KSM settings 1\nrun 0\nend\n";
	struct ksm_settings t;
	struct ksm_pace p = {.kind = KSM_PACE_SLEEP};

	cr_assert_eq(ksm_settings_parse(old, strlen(old), &t, &p), 0);
	cr_assert_eq(p.kind, KSM_PACE_FASTEST);
	cr_assert_str_eq(t.value[KSM_SET_RUN], "0");
}

Test(settings, pace_words)
{
	static const char *const good[] = {"fastest", "default", "advisor", "sleep:0",
					   "sleep:600000"};
	static const char *const bad[] = {"",	      "fast",	  "fastest ",  "sleep",
					  "sleep:",   "sleep:-1", "sleep:1 ",  "sleep:1x",
					  "sleep: 1", "Sleep:1",  "sleep:1e3", "default:1"};
	char text[KSM_PACE_TEXT];
	struct ksm_pace p;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(good); i++) {
		cr_assert_eq(ksm_pace_parse(good[i], &p), 0, "%s", good[i]);
		cr_assert_str_eq(ksm_pace_text(&p, text), good[i]);
	}
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(bad); i++)
		cr_assert_eq(ksm_pace_parse(bad[i], &p), -EINVAL, "%s", bad[i]);
	cr_assert_eq(ksm_pace_parse("sleep:600001", &p), -ERANGE);
}
