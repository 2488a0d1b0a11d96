/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_guest.h: for fuzz targets of devices: a guest whose memory, and whose use of the registers, come
 * from the input. It changes its memory while it is looked at: with each access of the device one byte
 * of RAM is changed, also as the input says. Accesses out of bounds are found by the address sanitizer:
 * RAM is an allocation of its own.
 */
#ifndef OVERBOOK_TESTS_FUZZ_GUEST_H
#define OVERBOOK_TESTS_FUZZ_GUEST_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm.h"

#define RAM_BYTES (4 * OB_PAGE_SIZE)

struct input {
	const uint8_t *p;
	size_t left;
};

/* The next @n bytes as a number; zeros when there are no more. */
static inline uint64_t take(struct input *in, unsigned int n)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < n && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << (8 * i);
	return v;
}

struct guest {
	struct gmem gm;
	uint8_t *ram;
	struct input in;
	const uint8_t *pokes; /* what is changed under the device's eyes */
	size_t npokes, poke;
	unsigned int open;
};

/* The guest writes just when the device is about to look. */
static inline void poke(struct guest *g)
{
	const uint8_t *k;

	if (g->npokes < 3)
		return;
	k = &g->pokes[3 * (g->poke++ % (g->npokes / 3))];
	if (k[2] & 1)
		g->ram[(k[0] | k[1] << 8) % RAM_BYTES] = k[2] >> 1;
}

static inline int guest_begin(void *arg, gpa_t at, uint64_t len, bool write,
			      struct gmem_access *acc)
{
	struct guest *g = arg;
	void *p = gmem_ptr(&g->gm, at, len);

	poke(g);
	if (!p)
		return -EFAULT;
	g->open++;
	*acc = (struct gmem_access){.ptr = p, .gpa = at, .len = len, .write = write};
	return 0;
}

static inline void guest_end(void *arg, struct gmem_access *acc)
{
	struct guest *g = arg;

	OB_ASSERT(acc->ptr && g->open);
	g->open--;
	poke(g);
}

static const struct gmem_ops guest_ops = {.access_begin = guest_begin, .access_end = guest_end};

static inline void guest_init(struct guest *g, const uint8_t *data, size_t len)
{
	size_t ram = OB_MIN(len, RAM_BYTES);

	*g = (struct guest){.ram = aligned_alloc(OB_PAGE_SIZE, RAM_BYTES)};
	memset(g->ram, 0, RAM_BYTES);
	/* The end of the input is RAM and pokes; its beginning says what is done. */
	memcpy(g->ram, data + len - ram, ram);
	g->in = (struct input){data, len};
	g->pokes = data + len / 2;
	g->npokes = len - len / 2;
	g->gm = (struct gmem){
		.nregions = 1,
		.pages = RAM_BYTES / OB_PAGE_SIZE,
		.ops = &guest_ops,
		.ops_arg = g,
		.region[0] = {.hva = hva_of(g->ram), .size = RAM_BYTES},
	};
}

static inline void reg_write(struct virtio_dev *d, uint64_t reg, uint64_t v)
{
	virtio_mmio_bus_ops.write(d, reg, 4, v);
}

/* Queue @q of @size entries, with the rings where the input says. */
static inline void queue_up(struct virtio_dev *d, unsigned int q, unsigned int size,
			    struct input *in)
{
	reg_write(d, 0x30, q);
	reg_write(d, 0x38, size);
	reg_write(d, 0x80, take(in, 2) % RAM_BYTES / 16 * 16);
	reg_write(d, 0x84, 0);
	reg_write(d, 0x90, take(in, 2) % RAM_BYTES / 2 * 2);
	reg_write(d, 0x94, 0);
	reg_write(d, 0xa0, take(in, 2) % RAM_BYTES / 4 * 4);
	reg_write(d, 0xa4, 0);
	reg_write(d, 0x44, 1);
}

#endif
