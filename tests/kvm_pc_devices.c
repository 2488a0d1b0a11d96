/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_pc_devices.c: the virtio devices of a PC, from inside a VM: doorbells through KVM_IOEVENTFD, work on
 * the I/O worker. The guest is a few instructions that go through a table of register writes and waits,
 * which the test has written, as it has the queues: so it is a driver, or a hostile one.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/bed.h"
#include "tests/tiny.h"
#include "tests/virtio_driver.h"

#define RINGS  0x10000 /* of queue q at RINGS + q * 0x1000 */
#define BUFS   0x20000 /* a page each */
#define SCRIPT 0x200000
#define STEPS  50000 /* at most */

/* A step: what, where, and which value. */
enum { STEP_WRITE, STEP_WAIT, STEP_OFF, STEP_LOOP };

extern const char tiny_script[], tiny_script_end[];
/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	".code32\n"
	".globl tiny_script, tiny_script_end\n"
	"tiny_script:\n"
	"	mov $0x200000, %esi\n"
	"1:	lodsl\n"
	"	mov %eax, %ebx\n"
	"	lodsl\n"
	"	mov %eax, %edi\n"
	"	lodsl\n"
	"	cmp $1, %ebx\n"
	"	jb 2f\n"
	"	je 3f\n"
	"	cmp $2, %ebx\n"
	"	jne 4f\n"
	"	mov $0x604, %dx\n"
	"	mov $0x3400, %ax\n"
	"	out %ax, %dx\n"
	"4:	jmp 4b\n"
	"2:	mov %eax, (%edi)\n"
	"	jmp 1b\n"
	"3:	cmp %ax, (%edi)\n"
	"	jne 3b\n"
	"	jmp 1b\n"
	"tiny_script_end:\n"
	".code64\n"
	".popsection\n");
/* clang-format on */

struct guest {
	struct bed bed;
	struct vm *vm; /* the bed's */
	unsigned int steps;
	uint16_t offered[VIRTIO_MAX_QUEUES];
	int disk;
};

/* With the agent's port and the entropy device in places 0 and 1, or with a disk in place 0. */
static void guest_make(struct guest *g, bool disk)
{
	struct vm_config cfg = {
		.mem_bytes = 4 * OB_MIB,
		.pc = true,
		.vcpus = disk ? 2 : 1,
		.cmdline = "",
		.console_fd = -1,
		.agent_port = !disk,
		.rng = !disk,
	};

	*g = (struct guest){.disk = -1};
	if (disk) {
		g->disk = memfd_create("disk", MFD_CLOEXEC);
		cr_assert(g->disk >= 0 && !ftruncate(g->disk, 64 * 512));
		cfg.disk[cfg.ndisks++].fd = g->disk;
	}
	bed_tiny(&g->bed, tiny_script, tiny_script_end, cfg);
	g->vm = g->bed.vm;
}

static void guest_free(struct guest *g)
{
	bed_close(&g->bed);
	if (g->disk >= 0)
		close(g->disk);
}

static void step(struct guest *g, uint32_t what, uint64_t where, uint32_t value)
{
	uint32_t s[3] = {what, (uint32_t)where, value};

	cr_assert_lt(g->steps, STEPS);
	bed_write(&g->bed, SCRIPT + sizeof(s) * g->steps++, s, sizeof(s));
}

static uint64_t reg(unsigned int place, unsigned int r)
{
	return VIRTIO_GPA + place * VIRTIO_STRIDE + r;
}

/* Up to DRIVER_OK, with @n queues of 8 entries. */
static void driver(struct guest *g, unsigned int place, unsigned int n, uint32_t features)
{
	const uint32_t status[] = {0, 1, 3};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(status); i++)
		step(g, STEP_WRITE, reg(place, VDRV_STATUS), status[i]);
	for (uint32_t word = 0; word < 2; word++) {
		step(g, STEP_WRITE, reg(place, VDRV_DRV_FEATURES_SEL), word);
		step(g, STEP_WRITE, reg(place, VDRV_DRV_FEATURES), word ? 1 : features);
	}
	step(g, STEP_WRITE, reg(place, VDRV_STATUS), 11);
	for (uint32_t q = 0; q < n; q++) {
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_SEL), q);
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_NUM), 8);
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_DESC), RINGS + q * 0x1000);
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_AVAIL), RINGS + q * 0x1000 + 0x100);
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_USED), RINGS + q * 0x1000 + 0x200);
		step(g, STEP_WRITE, reg(place, VDRV_QUEUE_READY), 1);
	}
	step(g, STEP_WRITE, reg(place, VDRV_STATUS), 15);
}

/* Queue @q: entry @i is a buffer. */
static void buffer(struct guest *g, unsigned int q, uint16_t i, uint64_t at, uint32_t len,
		   uint16_t flags)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {at, len, flags, (uint16_t)(i + 1)};

	bed_write(&g->bed, RINGS + q * 0x1000 + 16ULL * i, &d, sizeof(d));
}

/* Entry @i begins a chain that is offered from the start. */
static void offer(struct guest *g, unsigned int q, uint16_t i)
{
	uint64_t avail = RINGS + q * 0x1000 + 0x100;

	bed_write(&g->bed, avail + 4 + 2ULL * g->offered[q]++, &i, sizeof(i));
	bed_write(&g->bed, avail + 2, &g->offered[q], sizeof(uint16_t));
}

/* Ring, and wait until @n are used. */
static void kick(struct guest *g, unsigned int place, unsigned int q, uint16_t n)
{
	step(g, STEP_WRITE, reg(place, VDRV_QUEUE_NOTIFY), q);
	step(g, STEP_WAIT, RINGS + q * 0x1000 + 0x202, n);
}

static void run(struct guest *g)
{
	bed_start(&g->bed);
	bed_wait(&g->bed);
}

static size_t frame(uint8_t *to, unsigned int type, const void *body, size_t n)
{
	struct agent_frame h = {AGENT_FRAME_MAGIC, (uint16_t)type, (uint16_t)n};

	memcpy(to, &h, sizeof(h));
	memcpy(to + sizeof(h), body, n);
	return sizeof(h) + n;
}

/* What Linux does until a program has opened the port. The queues: from the port 0, to it 1, control
 * messages from the host 2, to it 3. */
static void open_port(struct guest *g)
{
	const struct virtio_console_control ask[] = {
		{UINT32_MAX, 0, 1}, /* DEVICE_READY */
		{0, 3, 1},	    /* PORT_READY */
		{0, 6, 1},	    /* PORT_OPEN */
	};

	driver(g, 0, 4, 2);
	bed_write(&g->bed, BUFS, ask, sizeof(ask));
	for (uint16_t i = 0; i < 3; i++) {
		buffer(g, 3, i, BUFS + i * sizeof(ask[0]), sizeof(ask[0]), 0);
		buffer(g, 2, i, BUFS + 0x1000 + i * 0x100ULL, 0x100, VDRV_WRITE);
		offer(g, 2, i);
		offer(g, 3, i);
	}
	kick(g, 0, 3, 3);
	kick(g, 0, 2, 3);
}

static void send(struct guest *g, const void *bytes, uint32_t n)
{
	bed_write(&g->bed, BUFS + 0x2000, bytes, n);
	buffer(g, 1, 0, BUFS + 0x2000, n, 0);
	offer(g, 1, 0);
}

/* There is a port for an agent, and no agent has said that this is the end. */
static void is_off(const struct guest *g)
{
	cr_assert_eq(g->vm->end, VM_END_FAILED);
	cr_assert_str_eq(g->vm->reason, "powered off, its agent has not said why");
}

Test(pc_devices, an_agent_reports_through_its_port, .timeout = 60)
{
	struct agent_report r = {.magic = AGENT_REPORT_MAGIC, .phase = AGENT_WARM, .ops = 77}, got;
	uint64_t checked[] = {0x100ULL << 16 | 3, AGENT_GFN_UNKNOWN << 16 | 4};
	char name[sizeof(AGENT_PORT_NAME)] = "";
	uint8_t out[4096];
	struct guest g;
	size_t n;

	NEED_KVM();
	guest_make(&g, false);
	open_port(&g);
	n = frame(out, AGENT_FRAME_CHECKED, checked, sizeof(checked));
	n += frame(out + n, AGENT_FRAME_REPORT, &r, sizeof(r));
	send(&g, out, (uint32_t)n);
	kick(&g, 0, 1, 1);
	step(&g, STEP_OFF, 0, 0);
	run(&g);
	is_off(&g);
	cr_assert(agent_read_report(&g.vm->agent, &got));
	cr_assert(!memcmp(&got, &r, sizeof(r)));
	cr_assert_eq(g.vm->agent.checked_pages, 7);
	bed_read(&g.bed, BUFS + 0x1100 + 8, name, sizeof(name) - 1);
	cr_assert_str_eq(name, AGENT_PORT_NAME);
	guest_free(&g);
}

Test(pc_devices, an_agent_ends_its_vm, .timeout = 60)
{
	uint64_t code = 5;
	uint8_t out[64];
	struct guest g;

	NEED_KVM();
	guest_make(&g, false);
	open_port(&g);
	send(&g, out, (uint32_t)frame(out, AGENT_FRAME_EXIT, &code, sizeof(code)));
	step(&g, STEP_WRITE, reg(0, VDRV_QUEUE_NOTIFY), 1);
	step(&g, STEP_LOOP, 0, 0);
	run(&g);
	cr_assert_eq(g.vm->end, VM_END_EXIT, "%s", g.vm->reason);
	cr_assert_eq(g.vm->exit_code, 5);
	guest_free(&g);
}

Test(pc_devices, noise_in_the_agents_port_ends_the_vm, .timeout = 60)
{
	struct guest g;

	NEED_KVM();
	guest_make(&g, false);
	open_port(&g);
	send(&g, "no frame at all", 15);
	step(&g, STEP_WRITE, reg(0, VDRV_QUEUE_NOTIFY), 1);
	step(&g, STEP_LOOP, 0, 0);
	run(&g);
	cr_assert_eq(g.vm->end, VM_END_FAILED);
	cr_assert_str_eq(g.vm->reason, "the agent's port: what it sends is not a frame");
	guest_free(&g);
}

Test(pc_devices, a_guest_gets_random_bytes, .timeout = 60)
{
	uint8_t got[2][64], none[64] = {0};
	struct guest g;

	NEED_KVM();
	guest_make(&g, false);
	driver(&g, 1, 1, 0);
	for (uint16_t i = 0; i < 2; i++) {
		buffer(&g, 0, i, BUFS + i * 64ULL, 64, VDRV_WRITE);
		offer(&g, 0, i);
	}
	kick(&g, 1, 0, 2);
	step(&g, STEP_OFF, 0, 0);
	run(&g);
	is_off(&g);
	bed_read(&g.bed, BUFS, got, sizeof(got));
	cr_assert(memcmp(got[0], none, 64) != 0);
	cr_assert(memcmp(got[0], got[1], 64) != 0);
	guest_free(&g);
}

/* A disk has a queue for each vCPU: read through the second. */
Test(pc_devices, a_disk_has_a_queue_for_each_vcpu, .timeout = 60)
{
	const struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header = {0, 0, 9};
	uint8_t sector[512], got[512];
	struct guest g;

	NEED_KVM();
	guest_make(&g, true);
	cr_assert_eq(g.vm->disk[0].dev.nqueues, 2);
	memset(sector, 0x6b, sizeof(sector));
	cr_assert_eq(pwrite(g.disk, sector, sizeof(sector), 9 * 512), 512);
	driver(&g, 0, 2, 1U << 12);
	bed_write(&g.bed, BUFS, &header, sizeof(header));
	buffer(&g, 1, 0, BUFS, sizeof(header), VDRV_NEXT);
	buffer(&g, 1, 1, BUFS + 0x1000, 512, VDRV_NEXT | VDRV_WRITE);
	buffer(&g, 1, 2, BUFS + 0x2000, 1, VDRV_WRITE);
	offer(&g, 1, 0);
	kick(&g, 0, 1, 1);
	step(&g, STEP_OFF, 0, 0);
	run(&g);
	cr_assert_eq(g.vm->end, VM_END_EXIT, "%s", g.vm->reason);
	bed_read(&g.bed, BUFS + 0x1000, got, sizeof(got));
	cr_assert_arr_eq(got, sector, sizeof(sector));
	guest_free(&g);
}

/* Is the driver's reset (or the end of a queue) under way? */
static bool resetting(struct virtio_dev *d)
{
	bool yes;

	ob_lock(&d->lock);
	yes = d->resetting;
	ob_unlock(&d->lock);
	return yes;
}

static void nap(void)
{
	struct timespec ts = {.tv_nsec = 1000000};

	nanosleep(&ts, NULL);
}

/* A guest resets a device, or takes a queue down, in the middle of a read that takes long: it is out for
 * whoever parks it, and while it is parked it does not go on. */
static void park_in_a_reset(unsigned int r)
{
	const struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header = {0, 0, 9};
	const uint64_t data = BUFS + 0x1000, after = BUFS + 0x3000;
	uint8_t sector[512], got[512];
	struct virtio_dev *d;
	uint32_t word = 0;
	struct guest g;

	guest_make(&g, true);
	d = &g.vm->disk[0].dev;
	g.vm->disk[0].delay_ns = 3 * OB_NS_PER_SEC;
	memset(sector, 0x6b, sizeof(sector));
	cr_assert_eq(pwrite(g.disk, sector, sizeof(sector), 9 * 512), 512);
	driver(&g, 0, 1, 0);
	bed_write(&g.bed, BUFS, &header, sizeof(header));
	buffer(&g, 0, 0, BUFS, sizeof(header), VDRV_NEXT);
	buffer(&g, 0, 1, data, 512, VDRV_NEXT | VDRV_WRITE);
	buffer(&g, 0, 2, BUFS + 0x2000, 1, VDRV_WRITE);
	offer(&g, 0, 0);
	step(&g, STEP_WRITE, reg(0, VDRV_QUEUE_NOTIFY), 0);
	step(&g, STEP_WAIT, data, 0x6b6b); /* half of it */
	step(&g, STEP_WRITE, reg(0, r), 0);
	step(&g, STEP_WRITE, after, 1);
	step(&g, STEP_OFF, 0, 0);
	bed_start(&g.bed);
	while (!resetting(d))
		nap();
	vm_park(g.vm);
	cr_assert(resetting(d), "the read is still under way");
	while (resetting(d))
		nap();
	bed_read(&g.bed, after, &word, sizeof(word));
	cr_assert_eq(word, 0, "a parked guest went on");
	cr_assert_eq(d->status, r == VDRV_STATUS ? 0 : 15);
	cr_assert(!d->q[0].ready);
	vm_unpark(g.vm);
	bed_wait(&g.bed);
	cr_assert_eq(g.vm->end, VM_END_EXIT, "%s", g.vm->reason);
	bed_read(&g.bed, after, &word, sizeof(word));
	cr_assert_eq(word, 1);
	bed_read(&g.bed, data, got, sizeof(got));
	cr_assert_arr_eq(got, sector, sizeof(sector), "what was under way has ended");
	guest_free(&g);
}

Test(pc_devices, nobody_waits_for_a_guest_that_waits_for_its_disk, .timeout = 60)
{
	NEED_KVM();
	park_in_a_reset(VDRV_STATUS);
	park_in_a_reset(VDRV_QUEUE_READY);
}

/*
 * A hostile driver: it sets a device up, queues and buffers full of noise, then writes whatever to its
 * registers and those of its neighbours. The VM ends, with a reason or by itself, and nothing else does.
 */
static void hostile(unsigned int seed, bool disk)
{
	const unsigned int places = disk ? 1 : 2;
	unsigned int s = seed;
	struct guest g;

	guest_make(&g, disk);
	for (uint64_t at = RINGS; at < RINGS + 0x4000; at += 4) {
		uint32_t v = (uint32_t)rand_r(&s) >> rand_r(&s) % 24;

		if (rand_r(&s) % 2)
			bed_write(&g.bed, at, &v, sizeof(v));
	}
	driver(&g, 0, disk ? 2 : 4, disk ? 1U << 12 : 2);
	for (int i = 0; i < 400; i++) {
		unsigned int place = (unsigned int)rand_r(&s) % places;
		unsigned int r = (unsigned int)rand_r(&s) % 0x110;
		uint32_t v = (uint32_t)rand_r(&s) >> rand_r(&s) % 32;

		switch (rand_r(&s) % 6) {
		case 0: /* storm */
			for (uint32_t q = 0; q < 40; q++)
				step(&g, STEP_WRITE, reg(place, VDRV_QUEUE_NOTIFY), q % 4);
			break;
		case 1: /* reset in the middle, and again */
			driver(&g, place, disk ? 2 : 1 + 3 * !place, disk ? 1U << 12 : 2 * !place);
			break;
		case 2: /* more noise */
			step(&g, STEP_WRITE, RINGS + (unsigned int)rand_r(&s) % 0x4000, v);
			break;
		default:
			/* Seldom a register whose misuse is the end. */
			if (r != VDRV_STATUS && r / 4 != VDRV_QUEUE_NOTIFY / 4)
				step(&g, STEP_WRITE, reg(place, r), v);
			break;
		}
	}
	step(&g, STEP_OFF, 0, 0);
	run(&g);
	cr_assert(g.vm->end == VM_END_EXIT || g.vm->end == VM_END_FAILED, "seed %u", seed);
	cr_assert(*g.vm->reason, "seed %u", seed);
	guest_free(&g);
}

Test(pc_devices, hostile_drivers_end_their_vm_and_nothing_else, .timeout = 120)
{
	NEED_KVM();
	for (unsigned int seed = 1; seed <= 20; seed++)
		hostile(seed, seed % 3 == 0);
}
