/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk.c: a disk (virtio 1.2, section 5.2) over a raw image: a file or a block device. One that is
 * open for reading only many guests may share; one that is open for writing, too, is a writable disk.
 *
 * There may be several queues, so that each vCPU can have its own and does not wait for others to
 * fill one; all of them are served by the I/O worker, a request at a time (virtio_blk_request.c).
 *
 * A guest decides how much it asks for, and one thread serves all guests of the cell. So a turn
 * ends after so many requests or bytes, or a flush, whichever comes first, and the device goes to the
 * end of the queue. A request larger than a driver may make it is refused (BLK_MAX_BYTES).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "kernel/virtio_blk_int.h"

#define BLK_F_SIZE_MAX (1ULL << 1)
#define BLK_F_SEG_MAX  (1ULL << 2)
#define BLK_F_RO       (1ULL << 5)
#define BLK_F_BLK_SIZE (1ULL << 6)
#define BLK_F_MQ       (1ULL << 12)

/* Configuration space, as far as the offered features make it valid. */
struct blk_config {
	uint64_t capacity;
	uint32_t size_max;
	uint32_t seg_max;
	uint32_t geometry;
	uint32_t blk_size;
	uint64_t topology;
	uint8_t writeback;
	uint8_t unused;
	uint16_t num_queues;
};
_Static_assert(offsetof(struct blk_config, num_queues) == 34, "as the driver lays it out");

static struct virtio_blk *blk_of(struct virtio_dev *d)
{
	return (struct virtio_blk *)(void *)((char *)d - offsetof(struct virtio_blk, dev));
}

void virtio_blk_tell(struct virtio_blk *b, struct blk_turn *t)
{
	for (unsigned int q = 0; q < b->dev.nqueues; q++)
		if (t->answered & 1U << q)
			virtio_dev_interrupt(&b->dev, q);
	t->answered = 0;
}

static bool turn_over(const struct blk_turn *t)
{
	return t->requests >= VIRTIO_TURN_REQUESTS || t->bytes >= VIRTIO_TURN_BYTES || t->synced;
}

/*
 * A turn: a request of each queue after another, until they are all empty or others have their turn.
 * A turn goes on with the queue that the one before did not get to.
 */
static void blk_run(struct virtio_blk *b)
{
	struct blk_turn t = {0};
	struct virtq_chain c;
	const char *why = NULL;
	unsigned int idle = 0;

	while (!why && !turn_over(&t) && idle < b->dev.nqueues && virtio_dev_live(&b->dev)) {
		unsigned int q = b->next_queue;

		b->next_queue = (q + 1) % b->dev.nqueues;
		if (!virtio_dev_pop(&b->dev, q, &c, &why)) {
			idle++;
			continue;
		}
		idle = 0;
		t.requests++;
		t.bytes += c.read_len + c.write_len;
		why = virtio_blk_request(b, q, &c, &t);
		t.answered |= 1U << q;
	}
	virtio_blk_tell(b, &t);
	if (why)
		virtio_dev_fail(&b->dev, why);
	else if (turn_over(&t))
		b->dev.ops->notify(&b->dev, 0);
}

static void blk_work(struct io_work *w)
{
	blk_run((struct virtio_blk *)(void *)((char *)w - offsetof(struct virtio_blk, work)));
}

/* --- what the transport calls ----------------------------------------------------------------- */

static void blk_notify(struct virtio_dev *d, unsigned int q)
{
	struct virtio_blk *b = blk_of(d);

	OB_ASSERT(q < d->nqueues);
	io_worker_queue(b->worker, &b->work);
}

static uint64_t blk_config_read(struct virtio_dev *d, uint64_t off, unsigned int size)
{
	struct blk_config cfg = {
		.capacity = blk_of(d)->sectors,
		.size_max = BLK_SIZE_MAX,
		.seg_max = BLK_SEG_MAX,
		.blk_size = VIRTIO_BLK_SECTOR,
		.num_queues = d->features & BLK_F_MQ ? (uint16_t)d->nqueues : 0,
	};
	const uint64_t end = offsetof(struct blk_config, num_queues) + sizeof(cfg.num_queues);
	uint64_t v = 0;

	if (off < end && size <= end - off)
		memcpy(&v, (const char *)&cfg + off, size);
	return v;
}

static void blk_reset(struct virtio_dev *d)
{
	struct virtio_blk *b = blk_of(d);

	io_worker_drain(b->worker, &b->work);
}

#define BLK_OPS(more)                                                         \
	{                                                                     \
		.device_id = 2,                                               \
		.features = BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_BLK_SIZE | \
			    VIRTIO_F_INDIRECT_DESC | (more),                  \
		.nqueues = VIRTIO_MAX_QUEUES, .notify = blk_notify,           \
		.config_read = blk_config_read, .reset = blk_reset,           \
	}
static const struct virtio_dev_ops blk_ops = BLK_OPS(BLK_F_RO);
static const struct virtio_dev_ops blk_ops_writable = BLK_OPS(BLK_F_FLUSH);

/* Bytes of the image @fd. 0 or -errno, with a line in @e. */
static int image_bytes(int fd, uint64_t *bytes, struct ob_err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return ob_fail(e, errno, "disk image: %s", strerror(errno));
	if (S_ISREG(st.st_mode))
		*bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return ob_fail(e, EINVAL, "disk image: not a regular file or a block device");
	else if (ioctl(fd, BLKGETSIZE64, bytes))
		return ob_fail(e, errno, "disk image: size of the block device: %s",
			       strerror(errno));
	if (*bytes < VIRTIO_BLK_SECTOR)
		return ob_fail(e, EINVAL, "disk image: %llu bytes, but one sector is %d",
			       (unsigned long long)*bytes, VIRTIO_BLK_SECTOR);
	return 0;
}

int virtio_blk_init(struct virtio_blk *b, struct vm *vm, struct gmem *mem, struct io_worker *w,
		    int fd, struct ob_err *e)
{
	uint64_t bytes;
	int r = image_bytes(fd, &bytes, e);

	if (r)
		return r;
	memset(b, 0, sizeof(*b));
	b->worker = w;
	b->work.run = blk_work;
	b->fd = fd;
	b->sectors = bytes / VIRTIO_BLK_SECTOR;
	b->writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
	virtio_dev_init(&b->dev, b->writable ? &blk_ops_writable : &blk_ops, vm, mem);
	b->dev.nqueues = 1;
	snprintf(b->id, sizeof(b->id), "overbook-disk");
	return 0;
}

void virtio_blk_set_queues(struct virtio_blk *b, unsigned int n)
{
	b->dev.nqueues = OB_MAX(1U, OB_MIN(n, (unsigned int)VIRTIO_MAX_QUEUES));
	b->dev.features &= ~BLK_F_MQ;
	if (b->dev.nqueues > 1)
		b->dev.features |= BLK_F_MQ;
}

void virtio_blk_set_id(struct virtio_blk *b, const char *id)
{
	memset(b->id, 0, sizeof(b->id));
	memcpy(b->id, id, OB_MIN(strlen(id), sizeof(b->id)));
}

void virtio_blk_exit(struct virtio_blk *b)
{
	virtio_dev_exit(&b->dev);
}

void virtio_blk_on_io(struct virtio_blk *b, const struct blk_hint_ops *hint, void *arg)
{
	b->hint = hint;
	b->hint_arg = arg;
}
