/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk.c: a disk (virtio 1.2, section 5.2) over a raw image: a file or a block device. One that is
 * open for reading only many guests may share; one that is open for writing, too, is a writable disk.
 *
 * There may be several queues, so that each vCPU can have its own and does not wait for others to
 * fill one; all of them are served by the I/O worker, a request at a time. A request is a stream of readable bytes
 * (the header) and a stream of writable ones (the data, then one status byte); where one buffer
 * ends and the next begins means nothing, as the specification has it.
 *
 * A read goes straight from the file into guest memory: each buffer is bracketed by
 * gmem_access_begin/end, held over the read, so that nobody merges or moves a page that the host
 * kernel is just writing; a write to the disk goes the same way back. A group of buffers is
 * bracketed and moved at a time, smaller than what one guest may have under way, so that the rings
 * can always be reached too. While it holds a group the worker may wait for a page that is frozen
 * just now: that ends well, since a freezer never waits for a device.
 *
 * A guest decides how much it asks for, and one thread serves all guests of the cell. So a turn
 * ends after so many requests or bytes, whichever comes first, and the device goes to the end of
 * the queue; and a read looks between its groups whether the device is still live, so that neither
 * a reset nor the end of the VM waits for what a guest has piled up.
 *
 * What a request does wrong is answered with a status. Only a request that cannot be answered (no
 * room for a status) or a broken queue stops the VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/vm.h"

#define BLK_F_SEG_MAX  (1ULL << 2)
#define BLK_F_RO       (1ULL << 5)
#define BLK_F_BLK_SIZE (1ULL << 6)
#define BLK_F_FLUSH    (1ULL << 9)
#define BLK_F_MQ       (1ULL << 12)

#define BLK_T_IN     0
#define BLK_T_OUT    1
#define BLK_T_FLUSH  4
#define BLK_T_GET_ID 8

#define BLK_S_OK     0
#define BLK_S_IOERR  1
#define BLK_S_UNSUPP 2

/* Buffers held in one go. */
#define BLK_GROUP 16

struct blk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};
_Static_assert(sizeof(struct blk_header) == 16, "as the driver lays it out");

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

/* --- the image -------------------------------------------------------------------------------- */

/* Which way bytes go. */
enum blk_dir { BLK_TO_GUEST, BLK_TO_IMAGE };

/* All of @iov from @off: 0, or -errno; the end of the file is an error. Changes @iov. */
static int move_all(int fd, struct iovec *iov, unsigned int n, uint64_t off, enum blk_dir dir)
{
	while (n) {
		ssize_t r = dir == BLK_TO_GUEST ? preadv(fd, iov, (int)n, (off_t)off)
						: pwritev(fd, iov, (int)n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -EIO;
		off += (uint64_t)r;
		for (; n && (size_t)r >= iov->iov_len; iov++, n--)
			r -= (ssize_t)iov->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
	return 0;
}

/* As move_all; with a delay set, half of each buffer is there before the delay and half after. */
static int move_group(struct virtio_blk *b, const struct iovec *iov, unsigned int n, uint64_t off,
		      enum blk_dir dir)
{
	uint64_t delay = atomic_load(&b->delay_ns);
	struct iovec part[BLK_GROUP];

	memcpy(part, iov, n * sizeof(*iov));
	if (!delay)
		return move_all(b->fd, part, n, off, dir);
	for (int half = 0; half < 2; half++) {
		uint64_t at = off;

		for (unsigned int i = 0; i < n; i++) {
			size_t first = iov[i].iov_len / 2;
			struct iovec v = {
				.iov_base = (char *)iov[i].iov_base + (half ? first : 0),
				.iov_len = half ? iov[i].iov_len - first : first,
			};
			int rc = v.iov_len ? move_all(b->fd, &v, 1, at + (half ? first : 0), dir)
					   : 0;

			if (rc)
				return rc;
			at += iov[i].iov_len;
		}
		if (!half)
			virtio_rest(delay);
	}
	return 0;
}

/* Bracket the first of @n buffers that can be had (one at least), read or write them, let go.
 * Returns how many buffers are done, or -errno. */
static int move_some(struct virtio_blk *b, const struct virtq_buf *buf, unsigned int n,
		     uint64_t off, enum blk_dir dir)
{
	struct gmem_access acc[BLK_GROUP];
	struct iovec iov[BLK_GROUP];
	unsigned int got = 0, tries = 0;
	uint64_t bytes = 0;
	int rc = 0;

	n = OB_MIN(n, BLK_GROUP);
	while (got < n && bytes < VIRTIO_TURN_BYTES) {
		rc = gmem_access_begin(b->dev.mem, buf[got].gpa, buf[got].len, dir == BLK_TO_GUEST,
				       &acc[got]);
		if (rc == -EBUSY && !got && virtio_busy_again(&tries))
			continue;
		if (rc)
			break;
		iov[got] = (struct iovec){.iov_base = acc[got].ptr, .iov_len = buf[got].len};
		bytes += buf[got].len;
		got++;
	}
	/* Fewer than wanted is well; another fault than "busy" shows again when it is first in
	 * line. */
	if (got)
		rc = move_group(b, iov, got, off, dir);
	for (unsigned int i = 0; i < got; i++)
		gmem_access_end(b->dev.mem, &acc[i]);
	return rc ? rc : (int)got;
}

/* --- requests --------------------------------------------------------------------------------- */

/* The data of a request: what the device writes, or what it reads. */
struct blk_data {
	struct virtq_buf buf[VIRTQ_MAX_CHAIN];
	unsigned int n;
	uint64_t len;
};

/* Split off the status byte, the last of the writable stream. The chain has at least one. */
static gpa_t split_status(const struct virtq_chain *c, struct blk_data *out)
{
	struct virtq_buf *last;
	gpa_t status;

	out->n = 0;
	out->len = c->write_len - 1;
	for (unsigned int i = 0; i < c->n; i++)
		if (c->buf[i].write)
			out->buf[out->n++] = c->buf[i];
	OB_ASSERT(out->n);
	last = &out->buf[out->n - 1];
	status = gpa(last->gpa.v + last->len - 1);
	if (!--last->len)
		out->n--;
	return status;
}

/* What is behind the header, which is there. */
static void split_header(const struct virtq_chain *c, struct blk_data *in)
{
	uint64_t skip = sizeof(struct blk_header);

	in->n = 0;
	in->len = c->read_len - skip;
	for (unsigned int i = 0; i < c->n && !c->buf[i].write; i++) {
		uint32_t cut = (uint32_t)OB_MIN(skip, (uint64_t)c->buf[i].len);

		skip -= cut;
		if (cut < c->buf[i].len)
			in->buf[in->n++] = (struct virtq_buf){
				.gpa = gpa(c->buf[i].gpa.v + cut),
				.len = c->buf[i].len - cut,
			};
	}
}

static int read_header(struct virtio_blk *b, const struct virtq_chain *c, struct blk_header *h)
{
	char *to = (char *)h;
	uint64_t left = sizeof(*h);

	for (unsigned int i = 0; left && i < c->n && !c->buf[i].write; i++) {
		uint64_t take = OB_MIN(left, (uint64_t)c->buf[i].len);
		int rc = virtio_dev_read(&b->dev, c->buf[i].gpa, to, take);

		if (rc)
			return rc;
		to += take;
		left -= take;
	}
	return left ? -EINVAL : 0;
}

/*
 * All of a read is done: say which whole pages of the guest hold which whole blocks. What is not
 * aligned to both, or is put together from several buffers, is not worth a word.
 */
static void tell_read(struct virtio_blk *b, const struct blk_data *out, uint64_t off)
{
	for (unsigned int i = 0; b->hint && i < out->n; i++) {
		uint64_t at = out->buf[i].gpa.v, len = out->buf[i].len;
		uint64_t skip = -at & OB_PAGE_MASK,
			 n = len > skip ? (len - skip) >> OB_PAGE_SHIFT : 0;

		if (n && !((off + skip) & OB_PAGE_MASK))
			b->hint->read(b->hint_arg,
				      gmem_gfn_page(b->dev.mem, gpa_gfn(gpa(at + skip))), n,
				      (off + skip) >> OB_PAGE_SHIFT);
		off += len;
	}
}

/* Read or write all of @data from @off on; it is inside the image. */
static uint8_t move_data(struct virtio_blk *b, const struct blk_data *data, uint64_t off,
			 enum blk_dir dir)
{
	for (unsigned int i = 0; i < data->n;) {
		int done;

		if (!virtio_dev_live(&b->dev))
			return BLK_S_IOERR; /* nobody waits for the answer any more */
		done = move_some(b, &data->buf[i], data->n - i, off, dir);
		if (done < 0)
			return BLK_S_IOERR;
		for (unsigned int end = i + (unsigned int)done; i < end; i++)
			off += data->buf[i].len;
	}
	return BLK_S_OK;
}

/* Whole sectors, inside the image? */
static bool range_ok(const struct virtio_blk *b, const struct blk_data *data, uint64_t sector)
{
	uint64_t n = data->len / VIRTIO_BLK_SECTOR;

	return !(data->len % VIRTIO_BLK_SECTOR) && sector <= b->sectors && n <= b->sectors - sector;
}

static uint8_t do_read(struct virtio_blk *b, const struct blk_data *out, uint64_t sector)
{
	uint64_t off = sector * VIRTIO_BLK_SECTOR;

	if (!range_ok(b, out, sector) || move_data(b, out, off, BLK_TO_GUEST) != BLK_S_OK)
		return BLK_S_IOERR;
	atomic_fetch_add_explicit(&b->read_bytes, out->len, memory_order_relaxed);
	tell_read(b, out, off);
	return BLK_S_OK;
}

static uint8_t do_write(struct virtio_blk *b, const struct blk_data *in, uint64_t sector)
{
	uint64_t off = sector * VIRTIO_BLK_SECTOR, first = off >> OB_PAGE_SHIFT;
	uint64_t end = (off + in->len + OB_PAGE_MASK) >> OB_PAGE_SHIFT;
	uint8_t status;

	if (!b->writable || !range_ok(b, in, sector))
		return BLK_S_IOERR;
	status = move_data(b, in, off, BLK_TO_IMAGE);
	/* A write that failed may have written a part. */
	if (b->hint && in->len)
		b->hint->written(b->hint_arg, first, end - first);
	if (status == BLK_S_OK)
		atomic_fetch_add_explicit(&b->written_bytes, in->len, memory_order_relaxed);
	return status;
}

static uint8_t do_get_id(struct virtio_blk *b, struct blk_data *out)
{
	uint64_t done = 0;

	if (out->len < sizeof(b->id))
		return BLK_S_IOERR;
	out->len = sizeof(b->id);
	for (unsigned int i = 0; done < sizeof(b->id) && i < out->n; i++) {
		uint64_t take = OB_MIN(sizeof(b->id) - done, (uint64_t)out->buf[i].len);

		if (virtio_dev_write(&b->dev, out->buf[i].gpa, b->id + done, take))
			return BLK_S_IOERR;
		done += take;
	}
	return BLK_S_OK;
}

/* @written: bytes from the start of @out. */
static uint8_t do_request(struct virtio_blk *b, const struct blk_header *h,
			  const struct blk_data *in, struct blk_data *out, uint64_t *written)
{
	uint8_t status;

	*written = 0;
	switch (h->type) {
	case BLK_T_IN:
		status = do_read(b, out, h->sector);
		break;
	case BLK_T_GET_ID:
		status = do_get_id(b, out);
		break;
	case BLK_T_FLUSH:
		return b->writable && fdatasync(b->fd) ? BLK_S_IOERR : BLK_S_OK;
	case BLK_T_OUT:
		return do_write(b, in, h->sector);
	default:
		return BLK_S_UNSUPP;
	}
	if (status == BLK_S_OK)
		*written = out->len;
	return status;
}

/* Do one request of queue @q and give it back. NULL, or why the device cannot go on. */
static const char *do_chain(struct virtio_blk *b, unsigned int q, const struct virtq_chain *c)
{
	struct blk_header h;
	struct blk_data in, out;
	gpa_t to_status;
	uint64_t written;
	uint8_t status;

	if (c->read_len < sizeof(h))
		return "disk request without a whole header";
	if (!c->write_len)
		return "disk request without room for its status";
	to_status = split_status(c, &out);
	split_header(c, &in);
	if (read_header(b, c, &h))
		return "disk request whose header cannot be read";
	status = do_request(b, &h, &in, &out, &written);
	if (status != BLK_S_OK)
		atomic_fetch_add_explicit(&b->rejected, 1, memory_order_relaxed);
	if (virtio_dev_write(&b->dev, to_status, &status, sizeof(status)))
		return "disk request whose status cannot be written";
	/* Of the writable stream, what is written from its start without a gap. */
	if (written == c->write_len - 1)
		written++;
	return virtio_dev_push(&b->dev, q, c->head, (uint32_t)written);
}

/*
 * A turn: a request of each queue after another, until they are all empty or others have their turn.
 * A turn goes on with the queue that the one before did not get to.
 */
static void blk_run(struct virtio_blk *b)
{
	unsigned int done = 0, idle = 0, answered = 0;
	uint64_t bytes = 0;
	struct virtq_chain c;
	const char *why = NULL;
	bool more = true;

	while (!why && more && idle < b->dev.nqueues && virtio_dev_live(&b->dev)) {
		unsigned int q = b->next_queue;

		b->next_queue = (q + 1) % b->dev.nqueues;
		if (!virtio_dev_pop(&b->dev, q, &c, &why)) {
			idle++;
			continue;
		}
		idle = 0;
		why = do_chain(b, q, &c);
		answered |= 1U << q;
		bytes += c.read_len + c.write_len;
		more = ++done < VIRTIO_TURN_REQUESTS && bytes < VIRTIO_TURN_BYTES;
	}
	for (unsigned int q = 0; q < b->dev.nqueues; q++)
		if (answered & 1U << q)
			virtio_dev_interrupt(&b->dev, q);
	if (why)
		virtio_dev_fail(&b->dev, why);
	else if (!more)
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
		.seg_max = VIRTQ_MAX_CHAIN - 2, /* without header and status */
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

#define BLK_OPS(more)                                                                         \
	{                                                                                     \
		.device_id = 2,                                                               \
		.features = BLK_F_SEG_MAX | BLK_F_BLK_SIZE | VIRTIO_F_INDIRECT_DESC | (more), \
		.nqueues = VIRTIO_MAX_QUEUES, .notify = blk_notify,                           \
		.config_read = blk_config_read, .reset = blk_reset,                           \
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
