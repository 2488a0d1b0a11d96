/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_io.c: bytes between a disk's image and guest memory.
 *
 * They go straight from the file into guest memory: each buffer is bracketed by
 * gmem_access_begin/end, held over the read, so that nobody merges or moves a page that the host
 * kernel is just writing; a write to the disk goes the same way back. A group of buffers is
 * bracketed and moved at a time, smaller than what one guest may have under way, so that the rings
 * can always be reached too, and of a MiB at most, be it a part of one buffer. While it holds a group the worker may wait for a page that is frozen
 * just now: that ends well, since a freezer never waits for a device.
 *
 * Between groups it looks whether the device is still live, so that neither a reset nor the end of the
 * VM waits for what a guest has piled up.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "kernel/virtio_blk_int.h"

/* Buffers held in one go. */
#define BLK_GROUP 16

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

/*
 * Bracket what can be had of the first of @n buffers (something at least), of which @skip bytes are done
 * already, read or write it, let go. Returns how many bytes are done, at least one and at most
 * VIRTIO_TURN_BYTES, or -errno.
 */
static int64_t move_some(struct virtio_blk *b, const struct virtq_buf *buf, unsigned int n,
			 uint32_t skip, uint64_t off, enum blk_dir dir)
{
	struct gmem_access acc[BLK_GROUP];
	struct iovec iov[BLK_GROUP];
	unsigned int got = 0, tries = 0;
	uint64_t bytes = 0;
	int rc = 0;

	n = OB_MIN(n, BLK_GROUP);
	while (got < n && bytes < VIRTIO_TURN_BYTES) {
		uint64_t len = OB_MIN((uint64_t)(buf[got].len - skip), VIRTIO_TURN_BYTES - bytes);

		rc = gmem_access_begin(b->dev.mem, gpa(buf[got].gpa.v + skip), len,
				       dir == BLK_TO_GUEST, &acc[got]);
		if (rc == -EBUSY && !got && virtio_busy_again(&tries))
			continue;
		if (rc)
			break;
		iov[got] = (struct iovec){.iov_base = acc[got].ptr, .iov_len = len};
		bytes += len;
		skip = 0;
		got++;
	}
	/* Less than wanted is well; another fault than "busy" shows again when it is first in
	 * line. */
	if (got)
		rc = move_group(b, iov, got, off, dir);
	for (unsigned int i = 0; i < got; i++)
		gmem_access_end(b->dev.mem, &acc[i]);
	return rc ? rc : (int64_t)bytes;
}

int virtio_blk_move(struct virtio_blk *b, const struct blk_data *data, uint64_t off,
		    enum blk_dir dir)
{
	uint32_t skip = 0; /* of the first buffer that is not done */

	for (unsigned int i = 0; i < data->n;) {
		int64_t done;

		if (!virtio_dev_live(&b->dev))
			return -ECANCELED; /* nobody waits for the answer any more */
		done = move_some(b, &data->buf[i], data->n - i, skip, off, dir);
		if (done < 0)
			return (int)done;
		off += (uint64_t)done;
		for (uint64_t left = (uint64_t)done + skip;; i++) {
			skip = (uint32_t)left;
			if (i == data->n || left < data->buf[i].len)
				break;
			left -= data->buf[i].len;
		}
	}
	return 0;
}
