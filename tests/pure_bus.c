/* SPDX-License-Identifier: Apache-2.0 */
/* pure_bus.c: which device gets an access, against a byte map as oracle. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/device.h"

struct probe {
	uint64_t off, value;
	unsigned int size, reads, writes;
};

static uint64_t probe_read(void *dev, uint64_t off, unsigned int size)
{
	struct probe *p = dev;

	p->off = off;
	p->size = size;
	p->reads++;
	return 0x1122334455667788ULL;
}

static void probe_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct probe *p = dev;

	p->off = off;
	p->size = size;
	p->value = value;
	p->writes++;
}

static const struct bus_ops probe_ops = {.read = probe_read, .write = probe_write};

Test(bus, ranges_may_not_overlap)
{
	struct bus b = {0};
	struct probe p = {0};

	cr_assert_eq(bus_add(&b, 0x1000, 0x100, &probe_ops, &p), 0);
	cr_assert_eq(bus_add(&b, 0x1000, 0x100, &probe_ops, &p), -EEXIST);
	cr_assert_eq(bus_add(&b, 0x10ff, 1, &probe_ops, &p), -EEXIST);
	cr_assert_eq(bus_add(&b, 0xfff, 2, &probe_ops, &p), -EEXIST);
	cr_assert_eq(bus_add(&b, 0, UINT64_MAX, &probe_ops, &p), -EEXIST);
	cr_assert_eq(bus_add(&b, 0x1100, 0x100, &probe_ops, &p), 0);
	cr_assert_eq(bus_add(&b, 0xf00, 0x100, &probe_ops, &p), 0);
	cr_assert_eq(bus_add(&b, UINT64_MAX, 1, &probe_ops, &p), 0);
	cr_assert_eq(bus_add(&b, UINT64_MAX, 2, &probe_ops, &p), -EINVAL);
	cr_assert_eq(bus_add(&b, 0x9000, 0, &probe_ops, &p), -EINVAL);
	for (uint64_t i = b.n; i < BUS_MAX; i++)
		cr_assert_eq(bus_add(&b, 0x10000 * i, 1, &probe_ops, &p), 0);
	cr_assert_eq(bus_add(&b, 0x5000000, 1, &probe_ops, &p), -ENOSPC);
}

Test(bus, values_are_cut_to_the_width)
{
	struct bus b = {0};
	struct probe p = {0};
	uint64_t v;

	bus_add(&b, 0x100, 16, &probe_ops, &p);
	cr_assert(bus_read(&b, 0x100, 1, &v) && v == 0x88);
	cr_assert(bus_read(&b, 0x100, 2, &v) && v == 0x7788);
	cr_assert(bus_read(&b, 0x100, 4, &v) && v == 0x55667788);
	cr_assert(bus_read(&b, 0x108, 8, &v) && v == 0x1122334455667788ULL);
	cr_assert(bus_write(&b, 0x10e, 2, UINT64_MAX) && p.value == 0xffff && p.off == 14);
}

Test(bus, nobody_answers_what_no_device_claims)
{
	struct bus b = {0};
	struct probe p = {0};
	uint64_t v = 0;

	bus_add(&b, 0x100, 16, &probe_ops, &p);
	cr_assert(!bus_read(&b, 0x10f, 2, &v) && v == 0xffff);
	cr_assert(!bus_read(&b, 0xff, 2, &v) && v == 0xffff);
	cr_assert(!bus_read(&b, UINT64_MAX, 8, &v) && v == UINT64_MAX);
	cr_assert(!bus_read(&b, 0x100, 3, &v), "no such width");
	cr_assert(!bus_read(&b, 0x100, 0, &v));
	cr_assert(!bus_write(&b, 0x110, 1, 0));
	cr_assert_eq(p.reads + p.writes, 0);
	cr_assert_eq(b.unclaimed, 6);
}

#define SPACE 256

Test(bus, agrees_with_a_byte_map)
{
	const unsigned int first_seed = 99;
	unsigned int seed = first_seed;

	for (int round = 0; round < 300; round++) {
		struct probe dev[BUS_MAX] = {0};
		int owner[SPACE + 8];
		uint64_t base[BUS_MAX] = {0};
		struct bus b = {0};
		unsigned int n = 0;

		memset(owner, -1, sizeof(owner));
		for (int k = 0; k < 40 && n < BUS_MAX; k++) {
			uint64_t at = (uint64_t)rand_r(&seed) % SPACE;
			uint64_t len = 1 + (uint64_t)rand_r(&seed) % 20;
			bool clash = false;

			len = OB_MIN(len, SPACE - at);
			for (uint64_t i = at; i < at + len; i++)
				clash |= owner[i] >= 0;
			cr_assert_eq(bus_add(&b, at, len, &probe_ops, &dev[n]), clash ? -EEXIST : 0,
				     "seed %u round %d", first_seed, round);
			if (clash)
				continue;
			for (uint64_t i = at; i < at + len; i++)
				owner[i] = (int)n;
			base[n++] = at;
		}
		for (int k = 0; k < 200; k++) {
			uint64_t at = (uint64_t)rand_r(&seed) % SPACE;
			unsigned int size = 1U << rand_r(&seed) % 4;
			int who = owner[at];
			uint64_t v;

			for (unsigned int i = 0; i < size; i++)
				if (owner[at + i] != who)
					who = -1;
			cr_assert_eq(bus_read(&b, at, size, &v), who >= 0, "seed %u round %d",
				     first_seed, round);
			if (who >= 0)
				cr_assert_eq(dev[who].off, at - base[who], "seed %u round %d",
					     first_seed, round);
		}
	}
}
