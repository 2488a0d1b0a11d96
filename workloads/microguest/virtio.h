/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio.h: numbers of the virtio 1.2 standard that the guest's driver uses: registers of the MMIO
 * transport (4.2.2), split queues (2.7), the block device (5.2).
 */
#ifndef OVERBOOK_MICROGUEST_VIRTIO_H
#define OVERBOOK_MICROGUEST_VIRTIO_H

#define VIRTIO_MAGIC 0x74726976 /* "virt" */

#define VIRTIO_REG_MAGIC	0x000
#define VIRTIO_REG_VERSION	0x004
#define VIRTIO_REG_DEVICE	0x008
#define VIRTIO_REG_FEATURES	0x010
#define VIRTIO_REG_FEATURES_SEL 0x014
#define VIRTIO_REG_DRIVER	0x020
#define VIRTIO_REG_DRIVER_SEL	0x024
#define VIRTIO_REG_QUEUE_SEL	0x030
#define VIRTIO_REG_QUEUE_MAX	0x034
#define VIRTIO_REG_QUEUE_SIZE	0x038
#define VIRTIO_REG_QUEUE_READY	0x044
#define VIRTIO_REG_NOTIFY	0x050
#define VIRTIO_REG_IRQ_STATUS	0x060
#define VIRTIO_REG_IRQ_ACK	0x064
#define VIRTIO_REG_STATUS	0x070
#define VIRTIO_REG_DESC		0x080
#define VIRTIO_REG_AVAIL	0x090
#define VIRTIO_REG_USED		0x0a0
#define VIRTIO_REG_CONFIG	0x100

#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER	  2
#define VIRTIO_STATUS_DRIVER_OK	  4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_FAILED	  128

#define VIRTIO_F_VERSION_1_WORD1 1u /* bit 32: bit 0 of the second word */
#define VIRTIO_BLK_F_SEG_MAX	 (1u << 2)

#define VIRTQ_NEXT  1
#define VIRTQ_WRITE 2

#define VIRTIO_ID_BLOCK		2
#define VIRTIO_BLK_CFG_CAPACITY 0 /* u64, in sectors of 512 bytes */
#define VIRTIO_BLK_CFG_SEG_MAX	12
#define VIRTIO_BLK_T_IN		0
#define VIRTIO_BLK_S_OK		0

#endif
