/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_driver.h: a guest's virtio driver, by hand, for tests: it goes through the register file
 * as a vCPU would and builds queues in guest memory. Every step can be done alone and done wrong.
 */
#ifndef OVERBOOK_TESTS_VIRTIO_DRIVER_H
#define OVERBOOK_TESTS_VIRTIO_DRIVER_H

#include "kernel/device.h"

#define VDRV_MAGIC	      0x000
#define VDRV_VERSION	      0x004
#define VDRV_DEVICE_ID	      0x008
#define VDRV_DEV_FEATURES     0x010
#define VDRV_DEV_FEATURES_SEL 0x014
#define VDRV_DRV_FEATURES     0x020
#define VDRV_DRV_FEATURES_SEL 0x024
#define VDRV_QUEUE_SEL	      0x030
#define VDRV_QUEUE_NUM_MAX    0x034
#define VDRV_QUEUE_NUM	      0x038
#define VDRV_QUEUE_READY      0x044
#define VDRV_QUEUE_NOTIFY     0x050
#define VDRV_IRQ_STATUS	      0x060
#define VDRV_IRQ_ACK	      0x064
#define VDRV_STATUS	      0x070
#define VDRV_QUEUE_DESC	      0x080 /* low; high is 4 further */
#define VDRV_QUEUE_AVAIL      0x090
#define VDRV_QUEUE_USED	      0x0a0
#define VDRV_CONFIG_GEN	      0x0fc
#define VDRV_CONFIG	      0x100

#define VDRV_S_ACK	   1
#define VDRV_S_DRIVER	   2
#define VDRV_S_DRIVER_OK   4
#define VDRV_S_FEATURES_OK 8
#define VDRV_S_NEEDS_RESET 64

#define VDRV_NEXT     1
#define VDRV_WRITE    2
#define VDRV_INDIRECT 4

struct vdrv {
	struct virtio_dev *d;
	struct gmem *mem;
	uint16_t size;
	gpa_t desc, avail, used;
	uint16_t next_avail, last_used;
	unsigned int queue; /* its number: 0 unless set after vdrv_layout */
};

uint32_t vdrv_get(struct virtio_dev *d, uint64_t reg);
void vdrv_set(struct virtio_dev *d, uint64_t reg, uint32_t v);
void vdrv_set64(struct virtio_dev *d, uint64_t reg, uint64_t v);

/* Lay the rings of a queue of @size out from @base; memory is made zero. */
void vdrv_layout(struct vdrv *v, struct virtio_dev *d, struct gmem *mem, uint16_t size, gpa_t base);
/* Acknowledge up to FEATURES_OK with @features (VERSION_1 is added).
 * Returns the status read back. */
uint32_t vdrv_negotiate(struct virtio_dev *d, uint64_t features);
/* Set the queue up as laid out. */
void vdrv_setup(struct vdrv *v);
/* That, then DRIVER_OK. Returns the status read back. */
uint32_t vdrv_start(struct vdrv *v);
/* All of that. */
uint32_t vdrv_init(struct vdrv *v, struct virtio_dev *d, struct gmem *mem, uint16_t size,
		   gpa_t base, uint64_t features);

/* Write entry @i of the table at @table. */
void vdrv_desc(struct vdrv *v, gpa_t table, unsigned int i, uint64_t addr, uint32_t len,
	       uint16_t flags, uint16_t next);
/* Put @head into the available ring. */
void vdrv_offer(struct vdrv *v, uint16_t head);
void vdrv_set_avail_idx(struct vdrv *v, uint16_t idx);
void vdrv_set_avail_flags(struct vdrv *v, uint16_t flags);
void vdrv_kick(struct vdrv *v);
/* Take the next used entry; false when there is none. */
bool vdrv_used(struct vdrv *v, uint32_t *id, uint32_t *len);
/* Wait for it, at most 20 s. */
bool vdrv_wait_used(struct vdrv *v, uint32_t *id, uint32_t *len);

#endif
