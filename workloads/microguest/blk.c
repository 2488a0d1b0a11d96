/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk.c: a driver for virtio-blk: one split queue, up to BLK_SLOTS requests in flight, polled. Each
 * slot owns a fixed part of the descriptor table and of a page of headers, so there is nothing to
 * allocate: chain [header][data]...[status].
 *
 * There are no interrupts in this guest; the device's interrupt ends the agent's sleep instead. No
 * wake-up gets lost: the host latches an interrupt that comes before the sleep, so it is enough to
 * look at the used index, sleep, and look again. A latched interrupt of a request that has been
 * seen already only costs one more turn of the loop.
 */
#include "workloads/microguest/mg.h"
#include "workloads/microguest/virtio.h"

#define QUEUE_MAX   256
#define QUEUE_MIN   8
#define SECTORS	    8 /* in a page */
#define HEAD_STRIDE 32
#define SLEEP_NS    (10 * MS)

struct blk_head {
	uint32_t type, reserved;
	uint64_t sector;
	uint8_t status; /* its own descriptor, written by the device */
};
_Static_assert(sizeof(struct blk_head) <= HEAD_STRIDE, "headers are HEAD_STRIDE bytes apart");

static struct blk_head *head_of(const struct blk *b, unsigned int slot)
{
	return (struct blk_head *)(b->head + (size_t)slot * HEAD_STRIDE);
}

static void negotiate(struct guest *g)
{
	struct blk *b = &g->p->blk;
	uint32_t low;

	virtio_write(b, VIRTIO_REG_STATUS, 0);
	virtio_write(b, VIRTIO_REG_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
	virtio_write(b, VIRTIO_REG_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	virtio_write(b, VIRTIO_REG_FEATURES_SEL, 0);
	low = virtio_read(b, VIRTIO_REG_FEATURES) & VIRTIO_BLK_F_SEG_MAX;
	virtio_write(b, VIRTIO_REG_DRIVER_SEL, 0);
	virtio_write(b, VIRTIO_REG_DRIVER, low);
	virtio_write(b, VIRTIO_REG_DRIVER_SEL, 1);
	virtio_write(b, VIRTIO_REG_DRIVER, VIRTIO_F_VERSION_1_WORD1);
	virtio_write(b, VIRTIO_REG_STATUS,
		     VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
	if (!(virtio_read(b, VIRTIO_REG_STATUS) & VIRTIO_STATUS_FEATURES_OK))
		guest_fail(g, MG_EXIT_DISK, "the disk does not accept our features");
	b->per_slot = low ? virtio_read(b, VIRTIO_REG_CONFIG + VIRTIO_BLK_CFG_SEG_MAX) : 1;
	if (b->per_slot < 1)
		b->per_slot = 1;
	if (b->per_slot > BLK_SEGS)
		b->per_slot = BLK_SEGS;
	b->per_slot += 2;
}

void blk_init(struct guest *g)
{
	struct blk *b = &g->p->blk;
	uint32_t max;

	b->base = g->p->virtio_at;
	if (!b->base)
		return;
	if (virtio_read(b, VIRTIO_REG_MAGIC) != VIRTIO_MAGIC ||
	    virtio_read(b, VIRTIO_REG_VERSION) != 2 ||
	    virtio_read(b, VIRTIO_REG_DEVICE) != VIRTIO_ID_BLOCK)
		guest_fail(g, MG_EXIT_DISK, "no virtio 1 disk at %x", b->base);
	negotiate(g);
	b->disk_pages = virtio_read(b, VIRTIO_REG_CONFIG + VIRTIO_BLK_CFG_CAPACITY) |
			(uint64_t)virtio_read(b, VIRTIO_REG_CONFIG + VIRTIO_BLK_CFG_CAPACITY + 4)
				<< 32;
	b->disk_pages /= SECTORS;

	virtio_write(b, VIRTIO_REG_QUEUE_SEL, 0);
	max = virtio_read(b, VIRTIO_REG_QUEUE_MAX);
	if (virtio_read(b, VIRTIO_REG_QUEUE_READY) || max < QUEUE_MIN)
		guest_fail(g, MG_EXIT_DISK, "the disk offers a queue of %u", (uint64_t)max);
	b->size = QUEUE_MAX;
	while (b->size > max)
		b->size /= 2;
	b->nslots = BLK_SLOTS;
	while (b->nslots > 1 && b->nslots * b->per_slot > b->size)
		b->nslots /= 2;
	if (b->per_slot > b->size)
		b->per_slot = b->size;

	/* The available ring's entries follow flags and index; the used ring's likewise. */
	b->desc = ram_take(g, QUEUE_MAX * sizeof(*b->desc));
	b->avail = ram_take(g, 6 + 2 * QUEUE_MAX);
	b->used = ram_take(g, 6 + 8 * QUEUE_MAX);
	b->head = ram_take(g, BLK_SLOTS * HEAD_STRIDE);
	b->avail[0] = 0;
	virtio_write(b, VIRTIO_REG_QUEUE_SIZE, b->size);
	virtio_write64(b, VIRTIO_REG_DESC, (uint64_t)b->desc);
	virtio_write64(b, VIRTIO_REG_AVAIL, (uint64_t)b->avail);
	virtio_write64(b, VIRTIO_REG_USED, (uint64_t)b->used);
	virtio_write(b, VIRTIO_REG_QUEUE_READY, 1);
	virtio_write(b, VIRTIO_REG_STATUS,
		     VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
			     VIRTIO_STATUS_DRIVER_OK);
}

/* Take what is in the used ring. */
static void reap(struct guest *g)
{
	struct blk *b = &g->p->blk;

	while (__atomic_load_n(&b->used[1], __ATOMIC_ACQUIRE) != b->last_used) {
		const volatile uint32_t *elem =
			(const volatile uint32_t *)(b->used + 2) + 2 * (b->last_used % b->size);
		uint32_t id = elem[0];
		unsigned int slot = id / b->per_slot;

		if (id % b->per_slot || slot >= b->nslots || !b->slot[slot].busy ||
		    b->slot[slot].done)
			guest_fail(g, MG_EXIT_DISK, "the disk gave back chain %u, which is not out",
				   (uint64_t)id);
		b->slot[slot].done = true;
		b->slot[slot].error = *(volatile uint8_t *)&head_of(b, slot)->status;
		b->last_used++;
	}
	barrier();
}

/* Sleep until the device has something for us, at most SLEEP_NS. */
static void wait_some(struct guest *g, uint64_t deadline)
{
	struct blk *b = &g->p->blk;
	uint32_t irq;

	agent_sleep(g, SLEEP_NS);
	g->report->heartbeat++;
	irq = virtio_read(b, VIRTIO_REG_IRQ_STATUS);
	if (irq)
		virtio_write(b, VIRTIO_REG_IRQ_ACK, irq);
	reap(g);
	if (clock_ns(g) > deadline)
		guest_fail(g, MG_EXIT_DISK, "the disk has not answered for %u s",
			   BLK_TIMEOUT / SECOND);
}

unsigned int blk_max(const struct blk *b)
{
	return b->per_slot - 2;
}

unsigned int blk_submit(struct guest *g, uint64_t from, uint64_t *const *page, unsigned int n,
			bool scatter)
{
	struct blk *b = &g->p->blk;
	unsigned int slot = 0;

	if (!b->base || !n || n > blk_max(b) || from > b->disk_pages || n > b->disk_pages - from)
		guest_fail(g, MG_EXIT_DISK, "a read of %u pages at %u is outside the disk",
			   (uint64_t)n, from);
	while (slot < b->nslots && b->slot[slot].busy)
		slot++;
	if (slot == b->nslots)
		guest_fail(g, MG_EXIT_DISK, "more than %u reads at a time", (uint64_t)b->nslots);

	struct blk_head *h = head_of(b, slot);
	uint16_t first = (uint16_t)(slot * b->per_slot), d = first;

	h->type = VIRTIO_BLK_T_IN;
	h->reserved = 0;
	h->sector = from * SECTORS;
	h->status = 0xff; /* a device that forgets to write it is noticed */
	b->desc[d] = (struct virtq_desc){(uint64_t)h, 16, VIRTQ_NEXT, (uint16_t)(d + 1)};
	for (unsigned int i = 0; i < n; i++) {
		if (i && !scatter && page[i] == page[i - 1] + PAGE_WORDS) {
			b->desc[d].len += PAGE_SIZE;
			continue;
		}
		d++;
		b->desc[d] = (struct virtq_desc){(uint64_t)page[i], PAGE_SIZE,
						 VIRTQ_NEXT | VIRTQ_WRITE, (uint16_t)(d + 1)};
	}
	d++;
	b->desc[d] = (struct virtq_desc){(uint64_t)&h->status, 1, VIRTQ_WRITE, 0};
	b->slot[slot] = (struct blk_slot){.busy = true};
	virtio_post(b, first);
	virtio_notify(b);
	return slot;
}

void blk_wait(struct guest *g, unsigned int slot)
{
	struct blk *b = &g->p->blk;
	uint64_t deadline = clock_ns(g) + BLK_TIMEOUT;

	reap(g);
	while (!b->slot[slot].done)
		wait_some(g, deadline);
	b->slot[slot].busy = false;
	if (b->slot[slot].error != VIRTIO_BLK_S_OK)
		guest_fail(g, MG_EXIT_DISK, "the disk failed a read with status %u",
			   (uint64_t)b->slot[slot].error);
	barrier();
}
