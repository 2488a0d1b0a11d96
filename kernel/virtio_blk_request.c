/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_blk_request.c: one request of a disk (virtio 1.2, section 5.2.6): taken apart, checked, done,
 * answered.
 *
 * A request is a stream of readable bytes (the header, then the data of a write) and a stream of
 * writable ones (the data of a read, then one status byte); where one buffer ends and the next begins
 * means nothing, as the specification has it.
 *
 * What a request does wrong is answered with a status. Only a request that cannot be answered (no
 * room for a status) or a broken queue stops the VM.
 */
#include <errno.h>
#include <unistd.h>

#include "kernel/virtio_blk_int.h"

#define BLK_T_IN     0
#define BLK_T_OUT    1
#define BLK_T_FLUSH  4
#define BLK_T_GET_ID 8

#define BLK_S_OK     0
#define BLK_S_IOERR  1
#define BLK_S_UNSUPP 2

struct blk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};
_Static_assert(sizeof(struct blk_header) == 16, "as the driver lays it out");

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

/* Whole sectors, inside the image, and no more than one request may move? */
static bool range_ok(const struct virtio_blk *b, const struct blk_data *data, uint64_t sector)
{
	uint64_t n = data->len / VIRTIO_BLK_SECTOR;

	return !(data->len % VIRTIO_BLK_SECTOR) && data->len <= BLK_MAX_BYTES &&
	       sector <= b->sectors && n <= b->sectors - sector;
}

static uint8_t do_read(struct virtio_blk *b, const struct blk_data *out, uint64_t sector)
{
	uint64_t off = sector * VIRTIO_BLK_SECTOR;

	if (!range_ok(b, out, sector) || virtio_blk_move(b, out, off, BLK_TO_GUEST))
		return BLK_S_IOERR;
	atomic_fetch_add_explicit(&b->read_bytes, out->len, memory_order_relaxed);
	tell_read(b, out, off);
	return BLK_S_OK;
}

/* What was written is on the disk when this returns. It takes long: what is answered is told before. */
static uint8_t do_sync(struct virtio_blk *b, struct blk_turn *t)
{
	uint64_t delay = atomic_load(&b->delay_ns);

	if (!b->writable)
		return BLK_S_OK;
	virtio_blk_tell(b, t);
	t->synced = true;
	atomic_fetch_add_explicit(&b->syncs, 1, memory_order_relaxed);
	if (delay)
		virtio_rest(delay);
	return fdatasync(b->fd) ? BLK_S_IOERR : BLK_S_OK;
}

/* A driver that cannot flush takes what is answered for durable (5.2.6.2). */
static bool can_flush(const struct virtio_blk *b)
{
	return b->dev.drv_features & BLK_F_FLUSH;
}

static uint8_t do_write(struct virtio_blk *b, const struct blk_data *in, uint64_t sector,
			struct blk_turn *t)
{
	uint64_t off = sector * VIRTIO_BLK_SECTOR, first = off >> OB_PAGE_SHIFT;
	uint64_t end = (off + in->len + OB_PAGE_MASK) >> OB_PAGE_SHIFT;
	uint8_t status;

	if (!b->writable || !range_ok(b, in, sector))
		return BLK_S_IOERR;
	status = virtio_blk_move(b, in, off, BLK_TO_IMAGE) ? BLK_S_IOERR : BLK_S_OK;
	/* A write that failed may have written a part. */
	if (b->hint && in->len)
		b->hint->written(b->hint_arg, first, end - first);
	if (status == BLK_S_OK && !can_flush(b))
		status = do_sync(b, t);
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
			  const struct blk_data *in, struct blk_data *out, struct blk_turn *t,
			  uint64_t *written)
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
		return do_sync(b, t);
	case BLK_T_OUT:
		return do_write(b, in, h->sector, t);
	default:
		return BLK_S_UNSUPP;
	}
	if (status == BLK_S_OK)
		*written = out->len;
	return status;
}

const char *virtio_blk_request(struct virtio_blk *b, unsigned int q, const struct virtq_chain *c,
			       struct blk_turn *t)
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
	status = do_request(b, &h, &in, &out, t, &written);
	if (status != BLK_S_OK)
		atomic_fetch_add_explicit(&b->rejected, 1, memory_order_relaxed);
	if (virtio_dev_write(&b->dev, to_status, &status, sizeof(status)))
		return "disk request whose status cannot be written";
	/* Of the writable stream, what is written from its start without a gap. */
	if (written == c->write_len - 1)
		written++;
	return virtio_dev_push(&b->dev, q, c->head, (uint32_t)written);
}
