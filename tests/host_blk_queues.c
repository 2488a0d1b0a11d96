/* SPDX-License-Identifier: Apache-2.0 */
/* host_blk_queues.c: a disk with several queues, its serial number, and images that are block devices. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RAM	(4 * OB_MIB)
#define RINGS	0x1000 /* a page of rings for each queue */
#define HEADERS 0x10000
#define STATUS	0x18000
#define DATA	0x100000

#define SECTORS 256
#define QSIZE	16
#define NQ	4

#define T_IN	 0
#define T_OUT	 1
#define T_FLUSH	 4
#define T_GET_ID 8

#define F_FLUSH (1ULL << 9)
#define F_MQ	(1ULL << 12)

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_blk blk;
	struct vdrv v[NQ];
	unsigned char image[SECTORS * 512];
	int fd;
	uint64_t features; /* that the driver takes, but for F_MQ */
};

static int file_with(const void *data, size_t len)
{
	char path[] = "/tmp/ob-blk-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	unlink(path);
	cr_assert_eq(write(fd, data, len), (ssize_t)len);
	return fd;
}

/* Negotiate, set the first @n queues up, DRIVER_OK. */
static void start(struct bed *b, unsigned int n)
{
	vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
	for (unsigned int q = 0; q < n; q++) {
		vdrv_layout(&b->v[q], &b->blk.dev, &b->gm, QSIZE, gpa(RINGS + q * 0x1000ULL));
		b->v[q].queue = q;
	}
	cr_assert_eq(vdrv_negotiate(&b->blk.dev, b->features | (n > 1 ? F_MQ : 0)), 11);
	for (unsigned int q = 1; q < n; q++)
		vdrv_setup(&b->v[q]);
	cr_assert_eq(vdrv_start(&b->v[0]), 15);
}

static struct bed *bed_new(unsigned int queues)
{
	struct bed *b = calloc(1, sizeof(*b));
	unsigned int seed = 5;
	struct ob_err e;

	for (size_t i = 0; i < sizeof(b->image); i++)
		b->image[i] = (unsigned char)rand_r(&seed);
	b->fd = file_with(b->image, sizeof(b->image));
	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	cr_assert_eq(virtio_blk_init(&b->blk, NULL, &b->gm, b->worker, b->fd, &e), 0, "%s", e.msg);
	virtio_blk_set_queues(&b->blk, queues);
	return b;
}

static void bed_free(struct bed *b)
{
	virtio_blk_exit(&b->blk);
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	close(b->fd);
	free(b);
}

static unsigned char *ram(struct bed *b, uint64_t at)
{
	return gmem_ptr(&b->gm, gpa(at), 1);
}

/* Request @slot of queue @q: a number of its own, at most 4 in a queue. */
static void offer(struct bed *b, unsigned int q, unsigned int slot, uint32_t type, uint64_t sector,
		  uint64_t at, uint32_t len)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = {type, 0, sector};
	unsigned int i = slot * 3, n = q * 8 + slot;
	struct vdrv *v = &b->v[q];

	cr_assert_eq(gmem_write(&b->gm, gpa(HEADERS + 16 * n), &h, sizeof(h)), 0);
	*ram(b, STATUS + n) = 0xee;
	vdrv_desc(v, v->desc, i, HEADERS + 16 * n, 16, VDRV_NEXT, (uint16_t)(len ? i + 1 : i + 2));
	vdrv_desc(v, v->desc, i + 1, at, len, VDRV_NEXT | (type == T_OUT ? 0 : VDRV_WRITE),
		  (uint16_t)(i + 2));
	vdrv_desc(v, v->desc, i + 2, STATUS + n, 1, VDRV_WRITE, 0);
	vdrv_offer(v, (uint16_t)i);
}

/* On the worker, between two turns of the disk. */
struct look {
	struct io_work work; /* first */
	struct bed *bed;
	_Atomic bool gate;
	unsigned int answered;
};

static void nap(void)
{
	struct timespec ts = {.tv_nsec = 1000000};

	nanosleep(&ts, NULL);
}

static void look(struct io_work *w)
{
	struct look *l = (struct look *)(void *)w;

	while (l->gate)
		nap();
	for (unsigned int q = 0; q < l->bed->blk.dev.nqueues; q++)
		l->answered += l->bed->blk.dev.q[q].used_idx;
}

static unsigned int answer(struct bed *b, unsigned int q, uint32_t *len)
{
	uint32_t id;

	cr_assert(vdrv_wait_used(&b->v[q], &id, len), "%s",
		  b->blk.dev.why ? b->blk.dev.why : "no answer");
	return *ram(b, STATUS + q * 8 + id / 3);
}

Test(blk_queues, the_number_is_what_was_asked_for)
{
	const unsigned int ask[] = {0, 1, 2, 4, 5, 100}, have[] = {1, 1, 2, 4, 4, 4};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(ask); i++) {
		struct bed *b = bed_new(ask[i]);
		struct virtio_dev *d = &b->blk.dev;
		uint32_t mq = have[i] > 1 ? (uint32_t)F_MQ : 0;

		vdrv_set(d, VDRV_DEV_FEATURES_SEL, 0);
		cr_assert_eq(vdrv_get(d, VDRV_DEV_FEATURES) & F_MQ, mq);
		cr_assert_eq(virtio_mmio_bus_ops.read(d, VDRV_CONFIG + 34, 2), mq ? have[i] : 0);
		for (unsigned int q = 0; q < 6; q++) {
			vdrv_set(d, VDRV_QUEUE_SEL, q);
			cr_assert_eq(vdrv_get(d, VDRV_QUEUE_NUM_MAX), q < have[i] ? VIRTQ_MAX : 0);
		}
		bed_free(b);
	}
}

Test(blk_queues, each_queue_is_answered_on_its_own)
{
	struct bed *b = bed_new(NQ);
	uint32_t len, id;

	start(b, NQ);
	for (unsigned int round = 0; round < 200; round++) {
		for (unsigned int q = 0; q < NQ; q++)
			for (unsigned int k = 0; k < 4; k++)
				offer(b, q, k, T_IN, (q * 4 + k + round) % SECTORS,
				      DATA + (q * 4 + k) * 512, 512);
		for (unsigned int q = 0; q < NQ; q++)
			vdrv_kick(&b->v[q]);
		for (unsigned int q = 0; q < NQ; q++)
			for (unsigned int k = 0; k < 4; k++) {
				cr_assert_eq(answer(b, q, &len), 0);
				cr_assert_eq(len, 513);
				cr_assert_arr_eq(ram(b, DATA + (q * 4 + k) * 512),
						 b->image + (q * 4 + k + round) % SECTORS * 512,
						 512);
			}
	}
	for (unsigned int q = 0; q < NQ; q++)
		cr_assert(!vdrv_used(&b->v[q], &id, &len));
	cr_assert_eq(b->blk.read_bytes, 200 * 16 * 512);
	bed_free(b);
}

/* A driver need not use all of them, nor know that there are several. */
Test(blk_queues, one_queue_is_enough)
{
	struct bed *b = bed_new(NQ);
	uint32_t len;

	start(b, 1);
	offer(b, 0, 0, T_IN, 3, DATA, 512);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	vdrv_set(&b->blk.dev, VDRV_QUEUE_NOTIFY, 3);
	cr_assert(!b->blk.dev.broken, "not in use, but there");
	vdrv_set(&b->blk.dev, VDRV_QUEUE_NOTIFY, 4);
	cr_assert(b->blk.dev.broken);
	bed_free(b);
}

/* In which order blocks were read. */
struct order {
	uint64_t block[32];
	unsigned int n;
};

static void on_read(void *arg, uint64_t page, uint64_t n, uint64_t block)
{
	struct order *o = arg;

	cr_assert(page && n == 1 && o->n < OB_ARRAY_SIZE(o->block));
	o->block[o->n++] = block;
}

static void on_written(void *arg, uint64_t block, uint64_t n)
{
	cr_assert_fail("%p %llu %llu", arg, (unsigned long long)block, (unsigned long long)n);
}

/* A queue that is full must not keep the others from their turn. */
Test(blk_queues, they_are_served_in_turns)
{
	static const struct blk_hint_ops ops = {.read = on_read, .written = on_written};
	const uint64_t want[] = {0, 1, 0, 2, 0, 0, 0};
	struct bed *b = bed_new(3);
	struct order o = {0};

	virtio_blk_on_io(&b->blk, &ops, &o);
	start(b, 3);
	/* The same request 16 times in one queue, and two in another. */
	offer(b, 0, 0, T_IN, 0, DATA, 4096);
	for (int i = 1; i < QSIZE; i++)
		vdrv_offer(&b->v[0], 0);
	offer(b, 2, 0, T_IN, 8, DATA, 4096);
	offer(b, 2, 1, T_IN, 16, DATA, 4096);
	vdrv_kick(&b->v[0]);
	io_worker_drain(b->worker, &b->blk.work);
	cr_assert_eq(o.n, QSIZE + 2);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(want); i++)
		cr_assert_eq(o.block[i], want[i], "%u", i);
	bed_free(b);
}

Test(blk_queues, a_broken_queue_stops_the_disk)
{
	struct bed *b = bed_new(NQ);

	start(b, NQ);
	vdrv_set_avail_idx(&b->v[2], 100);
	vdrv_kick(&b->v[2]);
	io_worker_drain(b->worker, &b->blk.work);
	cr_assert_str_eq(b->blk.dev.why, "available index is ahead by more than the queue size");
	start(b, NQ);
	cr_assert(!b->blk.dev.broken, "a reset mends it");
	bed_free(b);
}

Test(blk_queues, resets_in_the_middle_of_work)
{
	struct bed *b = bed_new(NQ);
	uint32_t len;

	for (int round = 0; round < 200; round++) {
		start(b, NQ);
		for (unsigned int q = 0; q < NQ; q++) {
			for (unsigned int k = 0; k < 4; k++)
				offer(b, q, k, T_IN, k, DATA + q * 0x10000, 64 * 512);
			vdrv_kick(&b->v[q]);
		}
	}
	start(b, NQ);
	offer(b, 3, 0, T_IN, 9, DATA, 512);
	vdrv_kick(&b->v[3]);
	cr_assert_eq(answer(b, 3, &len), 0);
	bed_free(b);
}

Test(blk_queues, the_serial_number_is_what_was_set)
{
	struct bed *b = bed_new(1);
	uint32_t len;

	start(b, 1);
	virtio_blk_set_id(&b->blk, "a-serial-number-that-is-too-long");
	memset(ram(b, DATA), 0xee, 32);
	offer(b, 0, 0, T_GET_ID, 0, DATA, 20);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_arr_eq(ram(b, DATA), "a-serial-number-that", 20);
	cr_assert_eq(*ram(b, DATA + 20), 0xee);
	virtio_blk_set_id(&b->blk, "b");
	offer(b, 0, 0, T_GET_ID, 0, DATA, 20);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_arr_eq(ram(b, DATA), "b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	bed_free(b);
}

/* --- block devices ---------------------------------------------------------------------------- */

/* A loop device over @file; -1 when there is none to be had. */
static int loop_open(int file)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n, fd;
	struct loop_info64 info = {.lo_flags = LO_FLAGS_AUTOCLEAR};
	char path[32];

	if (ctl < 0)
		return -1;
	n = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	if (n < 0)
		return -1;
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	fd = open(path, O_RDWR | O_CLOEXEC);
	/* It lets go of the file when it is closed, however this test ends. */
	if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, file) || ioctl(fd, LOOP_SET_STATUS64, &info))) {
		close(fd);
		return -1;
	}
	return fd;
}

Test(blk_queues, a_block_device_is_an_image)
{
	struct bed *b = bed_new(1);
	int loop = loop_open(b->fd);
	unsigned char sector[512];
	struct ob_err e;
	uint32_t len;

	if (loop < 0) {
		bed_free(b);
		cr_skip_test("no loop devices here, or not root");
	}
	virtio_blk_exit(&b->blk);
	cr_assert_eq(virtio_blk_init(&b->blk, NULL, &b->gm, b->worker, loop, &e), 0, "%s", e.msg);
	cr_assert_eq(vdrv_get(&b->blk.dev, VDRV_CONFIG), SECTORS);
	cr_assert(b->blk.writable);
	start(b, 1);
	offer(b, 0, 0, T_IN, SECTORS - 1, DATA, 512);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_arr_eq(ram(b, DATA), b->image + sizeof(b->image) - 512, 512);
	memset(ram(b, DATA), 0x5a, 512);
	offer(b, 0, 0, T_OUT, 7, DATA, 512);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	offer(b, 0, 0, T_FLUSH, 0, 0, 0);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_eq(pread(b->fd, sector, 512, 7 * 512), 512);
	cr_assert_arr_eq(sector, ram(b, DATA), 512);
	offer(b, 0, 0, T_IN, SECTORS, DATA, 512);
	vdrv_kick(&b->v[0]);
	cr_assert_eq(answer(b, 0, &len), 1);
	close(loop);
	bed_free(b);
}

/* A sync takes as long as the disk does: others have their turn after each. */
Test(blk_queues, a_flush_ends_the_turn)
{
	struct bed *b = bed_new(1);
	struct look first = {.work.run = look, .bed = b, .gate = true};
	struct look next = {.work.run = look, .bed = b};
	uint32_t len;

	start(b, 1);
	io_worker_queue(b->worker, &first.work);
	offer(b, 0, 0, T_IN, 0, DATA, 512);
	for (unsigned int i = 1; i < 4; i++)
		offer(b, 0, i, T_FLUSH, 0, 0, 0);
	vdrv_kick(&b->v[0]);
	io_worker_queue(b->worker, &next.work);
	first.gate = false;
	io_worker_drain(b->worker, &next.work);
	cr_assert_eq(next.answered, 2, "%u answered: a read and a flush", next.answered);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_eq(b->blk.syncs, 3);
	bed_free(b);
}

/* And who has an answer is told before it. */
Test(blk_queues, nobody_waits_for_the_flush_behind_him)
{
	struct bed *b = bed_new(2);
	uint32_t len;

	start(b, 2);
	offer(b, 0, 0, T_IN, 0, DATA, 512);
	offer(b, 1, 0, T_FLUSH, 0, 0, 0);
	b->blk.delay_ns = OB_NS_PER_SEC;
	vdrv_kick(&b->v[0]);
	while (!vdrv_get(&b->blk.dev, VDRV_IRQ_STATUS))
		nap();
	cr_assert_eq(*ram(b, STATUS), 0);
	cr_assert_eq(*ram(b, STATUS + 8), 0xee, "the flush is under way");
	cr_assert_eq(answer(b, 0, &len), 0);
	cr_assert_eq(answer(b, 1, &len), 0);
	bed_free(b);
}

/* A driver that does not know how to flush has its writes on the disk when they are answered. */
Test(blk_queues, who_cannot_flush_need_not)
{
	for (int can = 0; can < 2; can++) {
		struct bed *b = bed_new(1);
		uint32_t len;

		b->features = can ? F_FLUSH : 0;
		start(b, 1);
		offer(b, 0, 0, T_OUT, 7, DATA, 512);
		offer(b, 0, 1, T_OUT, SECTORS, DATA, 512);
		offer(b, 0, 2, T_IN, 7, DATA, 512);
		vdrv_kick(&b->v[0]);
		cr_assert_eq(answer(b, 0, &len), 0);
		cr_assert_eq(answer(b, 0, &len), 1);
		cr_assert_eq(answer(b, 0, &len), 0);
		cr_assert_eq(b->blk.syncs, can ? 0 : 1);
		bed_free(b);
	}
}
