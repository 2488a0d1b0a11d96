/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_blk_int.h: what the parts of the disk share: virtio_blk.c, virtio_blk_request.c, virtio_blk_io.c. */
#ifndef OVERBOOK_KERNEL_VIRTIO_BLK_INT_H
#define OVERBOOK_KERNEL_VIRTIO_BLK_INT_H

#include "kernel/device.h"

#define BLK_F_FLUSH (1ULL << 9)

/*
 * Most bytes of one request: it is done in one go, and others of the cell wait for it. A driver that
 * takes what we offer stays below: as many segments as a chain has room for, of at most so many bytes.
 */
#define BLK_MAX_BYTES (16 * OB_MIB)
#define BLK_SEG_MAX   (VIRTQ_MAX_CHAIN - 2) /* without header and status */
#define BLK_SIZE_MAX  (128 * OB_KIB)
_Static_assert(BLK_SEG_MAX *BLK_SIZE_MAX <= BLK_MAX_BYTES, "what is offered is done");

/* The data of a request: what the device writes, or what it reads. */
struct blk_data {
	struct virtq_buf buf[VIRTQ_MAX_CHAIN];
	unsigned int n;
	uint64_t len;
};

/* Which way bytes go. */
enum blk_dir { BLK_TO_GUEST, BLK_TO_IMAGE };

/* What the device does before others have their turn. */
struct blk_turn {
	unsigned int requests;
	uint64_t bytes;
	unsigned int answered; /* queues whose driver is to be told, bits */
	bool synced;	       /* it has waited for the disk to write: that is a turn's worth */
};

/* --- virtio_blk.c; on the I/O worker ----------------------------------------------------- */

/* Tell the driver of what is answered. */
void virtio_blk_tell(struct virtio_blk *b, struct blk_turn *t);

/* --- virtio_blk_request.c; on the I/O worker --------------------------------------------- */

/* Do one request of queue @q and give it back, as a part of @t. NULL, or why the device cannot go on. */
const char *virtio_blk_request(struct virtio_blk *b, unsigned int q, const struct virtq_chain *c,
			       struct blk_turn *t);

/* --- virtio_blk_io.c; on the I/O worker -------------------------------------------------- */

/*
 * Read or write all of @data from byte @off of the image on; it is inside the image. 0 or -errno, also when the
 * device is no longer live; then a part may be done.
 */
int virtio_blk_move(struct virtio_blk *b, const struct blk_data *data, uint64_t off,
		    enum blk_dir dir);

#endif
