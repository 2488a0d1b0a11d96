/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_dev_int.h: what the transport (virtio_mmio.c) shares with virtio_dev.c: a device's status, and how
 * it changes. All of it under the device's lock.
 */
#ifndef OVERBOOK_KERNEL_VIRTIO_DEV_INT_H
#define OVERBOOK_KERNEL_VIRTIO_DEV_INT_H

#include "kernel/device.h"

#define VIRTIO_S_ACKNOWLEDGE 0x01
#define VIRTIO_S_DRIVER	     0x02
#define VIRTIO_S_DRIVER_OK   0x04
#define VIRTIO_S_FEATURES_OK 0x08
#define VIRTIO_S_NEEDS_RESET 0x40 /* ours to set */
#define VIRTIO_S_FAILED	     0x80
#define VIRTIO_S_DRIVERS                                                                      \
	(VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_DRIVER_OK | VIRTIO_S_FEATURES_OK | \
	 VIRTIO_S_FAILED)

bool virtio_dev_live_locked(const struct virtio_dev *d);
/*
 * A reset by the driver; one queue taken out of use. Both drop the lock while they wait for work under way, and the
 * vCPU whose thread it is counts as out meanwhile. When another one is at it already, they do not wait: a
 * reset is made part of that, a queue is left as it is.
 */
void virtio_dev_reset_locked(struct virtio_dev *d);
void virtio_dev_stop_queue(struct virtio_dev *d, struct virtq *q);

#endif
