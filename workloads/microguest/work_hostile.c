/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_hostile.c: guests that misbehave, for the tests of the hypervisor. Each does its misdeed
 * once it is warm; where the hypervisor puts up with it, the guest goes on as an idle one. Whatever
 * it does, the other guests and the process must not notice.
 */
#include "workloads/microguest/mg.h"
#include "workloads/microguest/virtio.h"

#define TAG_HOSTILE 11
#define BEYOND	    0x0000400000000000ULL /* an address that no guest has memory at */
#define SPRAYS	    2000
#define IDT_BYTES   512
#define LEAVE_NS    (6000 * MS)

extern uint8_t idt[IDT_BYTES];

/* Take the interrupt table away, then fault: the fault faults, and so does that. */
static void triple_fault(struct guest *g)
{
	(void)g;
	memset(idt, 0, IDT_BYTES);
	barrier();
	__asm__ volatile("ud2");
}

/* Run for ever without a sign of life. */
static void spin(struct guest *g)
{
	(void)g;
	for (;;)
		barrier();
}

/* A chain of descriptors that never ends. */
static void descriptor_loop(struct guest *g)
{
	struct blk *b = &g->p->blk;

	for (uint16_t i = 0; i < 2; i++)
		b->desc[i] =
			(struct virtq_desc){(uint64_t)b->head, 16, VIRTQ_NEXT, (uint16_t)(1 - i)};
	virtio_post(b, 0);
	virtio_notify(b);
}

/* A read of the disk into memory that is not there. */
static void descriptor_address(struct guest *g)
{
	struct blk *b = &g->p->blk;
	uint64_t *page = (uint64_t *)b->head;

	memset(b->head, 0, 16); /* type IN, sector 0 */
	b->desc[0] = (struct virtq_desc){(uint64_t)page, 16, VIRTQ_NEXT, 1};
	b->desc[1] = (struct virtq_desc){BEYOND, PAGE_SIZE, VIRTQ_NEXT | VIRTQ_WRITE, 2};
	b->desc[2] = (struct virtq_desc){(uint64_t)(page + 2), 1, VIRTQ_WRITE, 0};
	virtio_post(b, 0);
	virtio_notify(b);
}

/* A queue that lies outside memory. */
static void ring_address(struct guest *g)
{
	const struct blk *b = &g->p->blk;
	uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	virtio_write(b, VIRTIO_REG_STATUS, 0);
	virtio_write(b, VIRTIO_REG_STATUS, status);
	virtio_write(b, VIRTIO_REG_DRIVER_SEL, 1);
	virtio_write(b, VIRTIO_REG_DRIVER, VIRTIO_F_VERSION_1_WORD1);
	virtio_write(b, VIRTIO_REG_STATUS, status |= VIRTIO_STATUS_FEATURES_OK);
	virtio_write(b, VIRTIO_REG_QUEUE_SEL, 0);
	virtio_write(b, VIRTIO_REG_QUEUE_SIZE, b->size);
	virtio_write64(b, VIRTIO_REG_DESC, BEYOND);
	virtio_write64(b, VIRTIO_REG_AVAIL, BEYOND + PAGE_SIZE);
	virtio_write64(b, VIRTIO_REG_USED, BEYOND + 2 * PAGE_SIZE);
	virtio_write(b, VIRTIO_REG_QUEUE_READY, 1);
	virtio_write(b, VIRTIO_REG_STATUS, status | VIRTIO_STATUS_DRIVER_OK);
	virtio_notify(b);
}

/* Writes of all widths all over the device's registers. */
static void register_spray(struct guest *g)
{
	struct gen_rng r = {gen_key(g->cfg.seed, TAG_HOSTILE)};
	uint64_t base = g->p->blk.base;

	for (unsigned int i = 0; i < SPRAYS; i++) {
		/* The first 256 bytes are the standard's, more than half of the writes go there. */
		uint64_t off = gen_below(&r, gen_below(&r, 3) ? 0x100 : PAGE_SIZE - 8);
		uint64_t v = gen_next(&r) >> gen_below(&r, 64);

		/* These two last: a nonsense one is likely to end it all at once. */
		if (i < SPRAYS / 10 * 9 &&
		    ((off & ~7ULL) == VIRTIO_REG_STATUS || (off & ~7ULL) == VIRTIO_REG_NOTIFY))
			continue;
		barrier();
		switch (gen_below(&r, 6)) {
		case 0:
			*(volatile uint8_t *)(base + off) = (uint8_t)v;
			break;
		case 1:
			*(volatile uint16_t *)(base + (off & ~1ULL)) = (uint16_t)v;
			break;
		case 2:
			*(volatile uint64_t *)(base + (off & ~7ULL)) = v;
			break;
		default:
			*(volatile uint32_t *)(base + (off & ~3ULL)) = (uint32_t)v;
		}
		g->report->heartbeat++;
	}
}

/* A read that no page table maps: an exception, reported as any other. */
static void bad_read(struct guest *g)
{
	(void)g;
	(void)*(volatile uint64_t *)BEYOND;
}

/* Works on for a while, and is done long before the others: not a misdeed, but what it held is to go. */
static void leave(struct guest *g)
{
	uint64_t end = clock_ns(g) + LEAVE_NS;

	while (clock_ns(g) < end) {
		g->report->heartbeat++;
		agent_sleep(g, 20 * MS);
	}
	agent_write(&g->p->agent, AGENT_REG_EXIT, 0);
	guest_halt();
}

/* The report is said to lie where no memory is. */
static void report_address(struct guest *g)
{
	agent_write(&g->p->agent, AGENT_REG_REPORT, BEYOND);
}

#define HOSTILE_RATES .sleep_ns = 20 * MS, .verify_rate = 2000, .write_rate = 10

const struct workload work_hostile[] = {
	{.name = "hostile-triple", .misdeed = triple_fault, HOSTILE_RATES},
	{.name = "hostile-spin", .misdeed = spin, HOSTILE_RATES},
	{.name = "hostile-desc", .needs_disk = true, .misdeed = descriptor_loop, HOSTILE_RATES},
	{.name = "hostile-addr", .needs_disk = true, .misdeed = descriptor_address, HOSTILE_RATES},
	{.name = "hostile-ring", .needs_disk = true, .misdeed = ring_address, HOSTILE_RATES},
	{.name = "hostile-mmio", .needs_disk = true, .misdeed = register_spray, HOSTILE_RATES},
	{.name = "hostile-panic", .misdeed = bad_read, HOSTILE_RATES},
	{.name = "hostile-leave", .misdeed = leave, HOSTILE_RATES},
	{.name = "hostile-report", .misdeed = report_address, HOSTILE_RATES},
};
const unsigned int work_nhostile = sizeof(work_hostile) / sizeof(work_hostile[0]);
