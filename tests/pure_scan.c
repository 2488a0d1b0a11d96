/* SPDX-License-Identifier: Apache-2.0 */
/* pure_scan.c: the two steps of ept/scan.c, over a model of protected pages. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ept/scan.h"
#include "tests/fake_host.h"

#define PAGES 200
#define BASE  0x10000000ULL

struct model {
	struct ob_host host;
	bool written[PAGES];
	unsigned int protects;
	int fail_get, fail_protect; /* the n-th call from now; 0: none */
	unsigned int *seed;	    /* write at random between the steps; NULL: no */
	bool open;
};

static uint64_t index_of(hva_t at)
{
	return (at.v - BASE) / OB_PAGE_SIZE;
}

static int model_open(struct ob_host *h, hva_t at, uint64_t size)
{
	struct model *m = (struct model *)h;

	cr_assert(at.v == BASE && size == PAGES * OB_PAGE_SIZE);
	m->open = true;
	return 77;
}

static void model_close(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct model *m = (struct model *)h;

	cr_assert(fd == 77 && at.v == BASE && size == PAGES * OB_PAGE_SIZE);
	m->open = false;
}

static void write_some(struct model *m)
{
	for (int i = 0; m->seed && i < 20; i++)
		m->written[rand_r(m->seed) % PAGES] = true;
}

static int model_get(struct ob_host *h, hva_t at, uint64_t n, uint64_t *bitmap)
{
	struct model *m = (struct model *)h;

	cr_assert(at.v == BASE && n == PAGES);
	if (m->fail_get && !--m->fail_get)
		return -EIO;
	memset(bitmap, 0, (n + 63) / 64 * sizeof(bitmap[0]));
	for (uint64_t i = 0; i < n; i++)
		bitmap[i / 64] |= (uint64_t)m->written[i] << i % 64;
	write_some(m);
	return 0;
}

static int model_protect(struct ob_host *h, hva_t at, uint64_t size)
{
	struct model *m = (struct model *)h;

	m->protects++;
	if (m->fail_protect && !--m->fail_protect)
		return -EIO;
	for (uint64_t i = index_of(at); i < index_of(at) + size / OB_PAGE_SIZE; i++)
		m->written[i] = false;
	write_some(m);
	return 0;
}

static const struct ob_host_ops model_ops = {
	.scan_open = model_open,
	.scan_get = model_get,
	.scan_protect = model_protect,
	.scan_close = model_close,
};

static bool bit(const uint64_t *bitmap, uint64_t i)
{
	return bitmap[i / 64] >> i % 64 & 1;
}

Test(scan, protects_what_it_reports_in_runs)
{
	struct model m = {.host.ops = &model_ops};
	uint64_t out[4];
	struct ept_scan s;

	cr_assert(!ept_scan_begin(&s, &m.host, hva(BASE), PAGES));
	for (uint64_t i = 3; i < 140; i++)
		m.written[i] = i != 100;
	m.written[PAGES - 1] = true;
	cr_assert_eq(ept_scan_collect(&s, out), 137);
	cr_assert_eq(m.protects, 3, "[3, 100), [101, 140), and the last");
	for (uint64_t i = 0; i < PAGES; i++) {
		cr_assert_eq(bit(out, i), (i >= 3 && i < 140 && i != 100) || i == PAGES - 1);
		cr_assert(!m.written[i]);
	}
	cr_assert_eq(ept_scan_collect(&s, out), 0);
	cr_assert_eq(m.protects, 3);
	memset(m.written, 1, sizeof(m.written));
	cr_assert_eq(ept_scan_collect(&s, out), PAGES);
	cr_assert_eq(m.protects, 4);
	cr_assert(s.passes == 3 && s.runs == 4 && s.reported == 137 + PAGES);
	ept_scan_end(&s);
	cr_assert(!m.open);
	ept_scan_end(&s);
}

/* Whatever is written between the steps is in this report or in the next one. */
Test(scan, writes_between_the_steps_are_not_lost)
{
	unsigned int seed = 11, writes = 12;
	struct model m = {.host.ops = &model_ops, .seed = &writes};
	struct ept_scan s;
	uint64_t out[4];

	cr_assert(!ept_scan_begin(&s, &m.host, hva(BASE), PAGES));
	for (int round = 0; round < 2000; round++) {
		bool before[PAGES];

		m.written[rand_r(&seed) % PAGES] = true;
		memcpy(before, m.written, sizeof(before));
		cr_assert(ept_scan_collect(&s, out) > 0);
		for (uint64_t i = 0; i < PAGES; i++) {
			cr_assert(!before[i] || bit(out, i), "seed 11, 12, round %d", round);
			/* Not reported means not protected: what came meanwhile is still there. */
			cr_assert(before[i] || !bit(out, i));
		}
	}
	ept_scan_end(&s);
}

Test(scan, failures_and_bad_ranges)
{
	struct model m = {.host.ops = &model_ops};
	struct ob_host *fake = fake_host_new();
	uint64_t out[4];
	struct ept_scan s;

	cr_assert_eq(ept_scan_begin(&s, &m.host, hva(BASE), 0), -EINVAL);
	cr_assert_eq(ept_scan_begin(&s, &m.host, hva(BASE + 1), PAGES), -EINVAL);
	cr_assert_eq(ept_scan_begin(&s, &m.host, hva(BASE), UINT64_MAX / OB_PAGE_SIZE), -EINVAL);
	cr_assert(!m.open);
	ept_scan_end(&s);
	cr_assert_eq(ept_scan_begin(&s, fake, hva(BASE), PAGES), -EOPNOTSUPP);
	ept_scan_end(&s);

	cr_assert(!ept_scan_begin(&s, &m.host, hva(BASE), PAGES));
	m.fail_get = 1;
	cr_assert_eq(ept_scan_collect(&s, out), -EIO);
	m.written[1] = m.written[3] = m.written[5] = true;
	m.fail_protect = 2;
	cr_assert_eq(ept_scan_collect(&s, out), -EIO);
	cr_assert(m.written[3] && m.written[5], "still to be reported");
	cr_assert_eq(ept_scan_collect(&s, out), 2);
	ept_scan_end(&s);
	fake_host_free(fake);
}
