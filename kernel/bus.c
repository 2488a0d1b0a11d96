/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.c: which device answers an MMIO or port access. A short unsorted table, searched in order:
 * ranges do not overlap, so at most one can claim an access, and a machine has a handful of them.
 *
 * An access that is not wholly inside one range belongs to nobody, as on a real bus: reads give all
 * ones, writes are lost, and both are counted.
 */
#include <errno.h>

#include "kernel/device.h"

int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev)
{
	if (!len || base + len - 1 < base || !ops || !ops->read || !ops->write)
		return -EINVAL;
	if (b->n == BUS_MAX)
		return -ENOSPC;
	for (unsigned int i = 0; i < b->n; i++) {
		const struct bus_range *r = &b->range[i];

		/* Last addresses, not ends: a range may end at the top of the address space. */
		if (base <= r->base + (r->len - 1) && r->base <= base + (len - 1))
			return -EEXIST;
	}
	b->range[b->n++] = (struct bus_range){.base = base, .len = len, .ops = ops, .dev = dev};
	return 0;
}

static bool size_ok(unsigned int size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

static uint64_t size_mask(unsigned int size)
{
	return size >= 8 ? UINT64_MAX : (1ULL << (8 * size)) - 1;
}

static const struct bus_range *find(struct bus *b, uint64_t addr, unsigned int size)
{
	for (unsigned int i = 0; size_ok(size) && i < b->n; i++) {
		const struct bus_range *r = &b->range[i];
		uint64_t off = addr - r->base;

		if (addr >= r->base && off < r->len && size <= r->len - off)
			return r;
	}
	atomic_fetch_add_explicit(&b->unclaimed, 1, memory_order_relaxed);
	return NULL;
}

bool bus_read(struct bus *b, uint64_t addr, unsigned int size, uint64_t *value)
{
	const struct bus_range *r = find(b, addr, size);

	*value = size_mask(size);
	if (!r)
		return false;
	*value &= r->ops->read(r->dev, addr - r->base, size);
	return true;
}

bool bus_write(struct bus *b, uint64_t addr, unsigned int size, uint64_t value)
{
	const struct bus_range *r = find(b, addr, size);

	if (!r)
		return false;
	r->ops->write(r->dev, addr - r->base, size, value & size_mask(size));
	return true;
}
