/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_console.c: libFuzzer target: a hostile guest (fuzz_guest.h) at the agent's port and at the entropy
 * source. The first byte chooses:
 *
 *  - the frames alone: the input is the stream, cut where it says;
 *  - the console with that port behind its registers: the input is a list of register accesses and pokes
 *    into RAM;
 *  - the entropy source, likewise.
 */
#include "tests/fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A VM without vCPUs, which can end and say why, and its agent. */
struct bare {
	struct vm vm;
	struct agent_port port;
};

static uint64_t count_shared(void *arg, uint64_t page, uint64_t n)
{
	const struct bare *b = arg;

	OB_ASSERT(n && page < b->vm.mem.pages && n <= b->vm.mem.pages - page);
	return n;
}

static struct bare *bare_new(const struct gmem *mem)
{
	struct bare *b = calloc(1, sizeof(*b));

	OB_ASSERT(b);
	b->vm.mem = *mem;
	ob_mutex_init(&b->vm.end_lock, OB_RANK_VM_END);
	serial_init(&b->vm.serial, -1);
	b->vm.agent.vm = &b->vm;
	b->vm.agent.count_shared = count_shared;
	b->vm.agent.count_arg = b;
	b->vm.agent.kinds = calloc(mem->pages, 1);
	OB_ASSERT(b->vm.agent.kinds);
	agent_port_init(&b->port, &b->vm.agent);
	return b;
}

static void bare_free(struct bare *b)
{
	struct agent_report r;

	if (agent_read_report(&b->vm.agent, &r))
		OB_ASSERT(r.magic == AGENT_REPORT_MAGIC);
	OB_ASSERT(b->vm.agent.checked_shared <= b->vm.agent.checked_pages);
	for (uint64_t i = 0; i < b->vm.mem.pages; i++)
		OB_ASSERT(b->vm.agent.kinds[i] < AGENT_PAGE_KINDS);
	free(b->vm.agent.kinds);
	agent_port_exit(&b->port);
	serial_exit(&b->vm.serial);
	ob_mutex_destroy(&b->vm.end_lock);
	free(b);
}

/* --- the frames alone ------------------------------------------------------------------------- */

/* A frame that could be one, so that what is behind its header is reached. */
static void frame(struct bare *b, struct input *in)
{
	uint8_t buf[sizeof(struct agent_frame) + sizeof(struct agent_report)];
	uint64_t how = take(in, 1), magic = AGENT_REPORT_MAGIC;
	struct agent_frame h = {AGENT_FRAME_MAGIC, (uint16_t)(how % 6), 8};

	if (h.type == AGENT_FRAME_REPORT)
		h.bytes = sizeof(struct agent_report);
	else if (how & 64)
		h.bytes = (uint16_t)(take(in, 1) % 64);
	memcpy(buf, &h, sizeof(h));
	for (unsigned int i = 0; i < h.bytes; i++)
		buf[sizeof(h) + i] = (uint8_t)take(in, 1);
	if (how & 128)
		memcpy(buf + sizeof(h), &magic, sizeof(magic));
	agent_port_ops.out(&b->port, buf, sizeof(h) + h.bytes);
}

static void fuzz_frames(struct guest *g)
{
	struct bare *b = bare_new(&g->gm);

	for (int i = 0; i < 200 && g->in.left; i++) {
		uint64_t op = take(&g->in, 1);
		size_t n = OB_MIN(op >> 2, g->in.left);

		if (op % 4 == 0) {
			agent_port_ops.opened(&b->port, op & 4);
		} else if (op % 4 == 1) {
			agent_port_ops.out(&b->port, g->in.p, n);
			g->in.p += n;
			g->in.left -= n;
		} else {
			frame(b, &g->in);
		}
		OB_ASSERT(b->port.fill < sizeof(b->port.buf));
	}
	bare_free(b);
}

/* --- the devices ------------------------------------------------------------------------------ */

/* The doorbell only notes that it rang; the work is then done here and not by the worker, which
 * saves two switches of threads and lets an input do the same each time. */
struct rigged {
	union {
		struct virtio_dev dev; /* of both, the first */
		struct virtio_console console;
		struct virtio_rng rng;
	};
	struct virtio_dev_ops ops;
	struct io_work *work;
	bool rang;
};

static void note_ring(struct virtio_dev *d, unsigned int q)
{
	OB_ASSERT(q < d->nqueues);
	((struct rigged *)(void *)d)->rang = true;
}

/* What a driver that means well does, with the rings where the input says. */
static void well_behaved(struct virtio_dev *d, struct input *in)
{
	uint64_t how = take(in, 1);

	reg_write(d, 0x70, 0);
	reg_write(d, 0x70, 3);
	reg_write(d, 0x24, 1);
	reg_write(d, 0x20, 1);
	reg_write(d, 0x24, 0);
	reg_write(d, 0x20, how & 1 ? VIRTIO_F_INDIRECT_DESC : 0);
	reg_write(d, 0x70, 11);
	for (unsigned int q = 0; q < d->nqueues; q++)
		queue_up(d, q, 1U << (how >> 5), in);
	reg_write(d, 0x70, 15);
	reg_write(d, 0x50, 0);
}

static void fuzz_device(struct guest *g, struct rigged *r)
{
	struct virtio_dev *d = &r->dev;

	r->ops = *d->ops;
	r->ops.notify = note_ring;
	r->rang = false;
	d->ops = &r->ops;
	for (int i = 0; i < 200 && g->in.left; i++) {
		uint64_t op = take(&g->in, 1);
		unsigned int size = 1U << (op >> 4) % 4;

		switch (op % 8) {
		case 0:
			well_behaved(d, &g->in);
			break;
		case 1:
			virtio_mmio_bus_ops.read(d, take(&g->in, 2) % 0x200, size);
			break;
		case 2:
			virtio_mmio_bus_ops.write(d, take(&g->in, 2) % 0x200, size,
						  take(&g->in, 8));
			break;
		case 3:
			g->ram[take(&g->in, 2) % RAM_BYTES] = (uint8_t)take(&g->in, 1);
			break;
		case 4:
			break; /* kept free, so that the corpus goes on meaning what it does */
		default:
			reg_write(d, take(&g->in, 1) % 64 * 4, take(&g->in, 4));
			break;
		}
		for (int turn = 0; r->rang && turn < 4; turn++) {
			r->rang = false;
			r->work->run(r->work);
		}
		OB_ASSERT(!g->open);
		OB_ASSERT(!d->broken || d->why);
	}
}

static struct io_worker *the_worker(void)
{
	static struct io_worker *worker;
	int rc = worker ? 0 : io_worker_start(&worker);

	OB_ASSERT(!rc);
	return worker;
}

static void fuzz_console(struct guest *g)
{
	struct bare *b = bare_new(&g->gm);
	struct rigged *r = calloc(1, sizeof(*r));

	OB_ASSERT(r);
	virtio_console_init(&r->console, NULL, &g->gm, the_worker(), AGENT_PORT_NAME,
			    &agent_port_ops, &b->port);
	r->work = &r->console.work;
	fuzz_device(g, r);
	virtio_console_exit(&r->console);
	free(r);
	bare_free(b);
}

static void fuzz_rng(struct guest *g)
{
	struct rigged *r = calloc(1, sizeof(*r));

	OB_ASSERT(r);
	virtio_rng_init(&r->rng, NULL, &g->gm, the_worker());
	r->work = &r->rng.work;
	fuzz_device(g, r);
	virtio_rng_exit(&r->rng);
	free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct guest g;

	guest_init(&g, data, len);
	switch (take(&g.in, 1) % 4) {
	case 0:
		fuzz_frames(&g);
		break;
	case 1:
		fuzz_rng(&g);
		break;
	default:
		fuzz_console(&g);
		break;
	}
	free(g.ram);
	return 0;
}
