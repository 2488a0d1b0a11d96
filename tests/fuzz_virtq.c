/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_virtq.c: libFuzzer target: a guest whose memory, and whose use of the registers, come from
 * the input. Two ways, chosen by the first byte:
 *
 *  - a queue alone: RAM, ring addresses and size from the input; every chain that is returned is
 *    held against what device.h promises, and chains are given back;
 *  - the whole disk behind its registers: the input is a list of register accesses and pokes into
 *    RAM.
 *
 * In both the guest changes its memory while it is looked at (fuzz_guest.h).
 */
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz_guest.h"

#define IMG_BYTES (16 * VIRTIO_BLK_SECTOR)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- a queue alone ---------------------------------------------------------------------------- */

static void check_chain(const struct virtq *q, const struct virtq_chain *c)
{
	uint64_t in = 0, out = 0;

	OB_ASSERT(c->head < q->size);
	OB_ASSERT(c->n && c->n <= VIRTQ_MAX_CHAIN);
	for (unsigned int i = 0; i < c->n; i++) {
		const struct virtq_buf *b = &c->buf[i];

		OB_ASSERT(b->len && b->gpa.v < RAM_BYTES && b->len <= RAM_BYTES - b->gpa.v);
		OB_ASSERT(b->write || !out);
		*(b->write ? &out : &in) += b->len;
	}
	OB_ASSERT(in == c->read_len && out == c->write_len);
	OB_ASSERT(in + out <= UINT32_MAX);
}

static gpa_t ring_addr(struct input *in, unsigned int align)
{
	uint64_t v = take(in, 2);

	/* Mostly in RAM and aligned, or little would happen. */
	return gpa(v & 1 ? take(in, 8) : v % RAM_BYTES / align * align);
}

static void fuzz_queue(struct guest *g)
{
	struct virtq q = {.mem = &g->gm};
	const char *why = NULL;
	struct virtq_chain c;
	uint64_t flags = take(&g->in, 1);

	q.indirect = flags & 1;
	q.size = (uint16_t)(flags & 2 ? take(&g->in, 2) : 1U << (flags >> 4));
	q.desc = ring_addr(&g->in, 16);
	q.avail = ring_addr(&g->in, 2);
	q.used = ring_addr(&g->in, 4);
	if (virtq_enable(&q, &why)) {
		OB_ASSERT(why && !q.ready);
		return;
	}
	for (int i = 0; i < 64; i++) {
		int rc = virtq_pop(&q, &c, &why);

		if (rc == 0)
			continue; /* the pokes may bring more */
		if (rc < 0) {
			OB_ASSERT(why && q.broken == why);
			OB_ASSERT(virtq_pop(&q, &c, &why) < 0);
			break;
		}
		check_chain(&q, &c);
		virtq_push(&q, c.head, (uint32_t)c.write_len, &why);
		virtq_wants_irq(&q);
		OB_ASSERT(!g->open);
	}
	virtq_reset(&q);
	OB_ASSERT(virtq_pop(&q, &c, &why) == 0);
}

/* --- the disk --------------------------------------------------------------------------------- */

/* What a driver that means well does, with the rings where the input says. */
static void well_behaved(struct virtio_blk *b, struct input *in)
{
	struct virtio_dev *d = &b->dev;
	uint64_t how = take(in, 1);

	reg_write(d, 0x70, 0);
	reg_write(d, 0x70, 3);
	reg_write(d, 0x24, 1);
	reg_write(d, 0x20, 1);
	reg_write(d, 0x24, 0);
	reg_write(d, 0x20, how & 1 ? VIRTIO_F_INDIRECT_DESC : 0);
	reg_write(d, 0x70, 11);
	for (unsigned int q = 0; q < (how & 2 ? 2 : 1); q++)
		queue_up(d, q, 1U << (how >> 5), in);
	reg_write(d, 0x70, 15);
	reg_write(d, 0x50, 0);
}

/* The doorbell only notes that it rang; the work is then done here and not by the worker, which
 * saves two switches of threads and lets an input do the same each time. */
struct disk {
	struct virtio_blk blk; /* first */
	struct virtio_dev_ops ops;
	bool rang;
};

static void note_ring(struct virtio_dev *d, unsigned int q)
{
	OB_ASSERT(q < d->nqueues);
	((struct disk *)(void *)d)->rang = true;
}

static void fuzz_disk(struct guest *g, struct io_worker *worker, int fd)
{
	struct disk disk;
	struct virtio_blk *b = &disk.blk;
	struct ob_err e;
	int rc = virtio_blk_init(b, NULL, &g->gm, worker, fd, &e);

	OB_ASSERT(!rc);
	virtio_blk_set_queues(b, 2);
	disk.ops = *b->dev.ops;
	disk.ops.notify = note_ring;
	disk.rang = false;
	b->dev.ops = &disk.ops;
	for (int i = 0; i < 200 && g->in.left; i++) {
		uint64_t op = take(&g->in, 1);
		unsigned int size = 1U << (op >> 4) % 4;

		switch (op % 8) {
		case 0:
			well_behaved(b, &g->in);
			break;
		case 1:
			virtio_mmio_bus_ops.read(&b->dev, take(&g->in, 2) % 0x200, size);
			break;
		case 2:
			virtio_mmio_bus_ops.write(&b->dev, take(&g->in, 2) % 0x200, size,
						  take(&g->in, 8));
			break;
		case 3:
			g->ram[take(&g->in, 2) % RAM_BYTES] = (uint8_t)take(&g->in, 1);
			break;
		case 4:
			reg_write(&b->dev, 0x50, 0);
			break;
		default:
			reg_write(&b->dev, take(&g->in, 1) % 64 * 4, take(&g->in, 4));
			break;
		}
		if (disk.rang) {
			disk.rang = false;
			b->work.run(&b->work);
		}
		OB_ASSERT(!g->open);
		OB_ASSERT(!b->dev.broken || b->dev.why);
	}
	virtio_blk_exit(b);
}

/* The disk's file and worker, made once. */
static struct io_worker *the_disk(int *fd)
{
	static struct io_worker *worker;
	static int disk = -1;

	if (!worker) {
		int rc = io_worker_start(&worker);

		disk = memfd_create("disk", MFD_CLOEXEC);
		OB_ASSERT(!rc && disk >= 0 && ftruncate(disk, IMG_BYTES) == 0);
	}
	*fd = disk;
	return worker;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct guest g;
	int fd;

	guest_init(&g, data, len);
	if (take(&g.in, 1) & 1) {
		struct io_worker *worker = the_disk(&fd);

		fuzz_disk(&g, worker, fd);
	} else {
		fuzz_queue(&g);
	}
	free(g.ram);
	return 0;
}
