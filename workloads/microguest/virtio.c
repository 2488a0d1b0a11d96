/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio.c: the registers of a virtio-mmio device (virtio 1.2, 4.2.2, version 2) and posting to its
 * queue. Apart from the disk driver so that the hostile workloads can do with them what they like.
 */
#include "workloads/microguest/virtio.h"
#include "workloads/microguest/mg.h"

uint32_t virtio_read(const struct blk *b, unsigned int reg)
{
	return *(volatile uint32_t *)(b->base + reg);
}

void virtio_write(const struct blk *b, unsigned int reg, uint32_t v)
{
	barrier();
	*(volatile uint32_t *)(b->base + reg) = v;
	barrier();
}

void virtio_write64(const struct blk *b, unsigned int reg_low, uint64_t v)
{
	virtio_write(b, reg_low, (uint32_t)v);
	virtio_write(b, reg_low + 4, (uint32_t)(v >> 32));
}

void virtio_post(struct blk *b, uint16_t head)
{
	uint16_t idx = b->avail[1];

	b->avail[2 + idx % b->size] = head;
	/* The entry before the index that makes it visible; the device may be on another CPU. */
	__atomic_store_n(&b->avail[1], (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

void virtio_notify(const struct blk *b)
{
	virtio_write(b, VIRTIO_REG_NOTIFY, 0);
}
