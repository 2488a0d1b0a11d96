/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_blk.c: the disk, its worker thread and a driver by hand, over a real file. Guest memory is
 * that of the fake host, so the model can be asked what a read under way has done to a page.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ept/ept.h"
#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RAM	(4 * OB_MIB)
#define RINGS	0x1000
#define HEADERS 0x10000
#define STATUS	0x18000
#define TABLE	0x1c000
#define DATA	0x100000

#define SECTORS	 1000
#define FILE_LEN (SECTORS * 512 + 100) /* the last 100 bytes are no sector */

#define T_IN	 0
#define T_OUT	 1
#define T_FLUSH	 4
#define T_GET_ID 8

#define S_OK	 0
#define S_IOERR	 1
#define S_UNSUPP 2

#define UNTOUCHED 0xee

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_blk blk;
	struct vdrv v;
	unsigned char *image;
	int fd;	  /* the file, for the test */
	int disk; /* and for the disk: to be read only */
};

static void nap(void)
{
	struct timespec ts = {.tv_nsec = 1000000};

	nanosleep(&ts, NULL);
}

/* A file without a name that holds @len bytes. */
static int file_with(const void *data, size_t len)
{
	char path[] = "/tmp/ob-blk-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	unlink(path);
	cr_assert_eq(write(fd, data, len), (ssize_t)len);
	return fd;
}

static int reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	return fd;
}

static struct bed *bed_new(uint16_t queue, uint64_t features)
{
	struct bed *b = calloc(1, sizeof(*b));
	unsigned int seed = 7;
	struct ob_err e;

	b->image = malloc(FILE_LEN);
	for (size_t i = 0; i < FILE_LEN; i++)
		b->image[i] = (unsigned char)rand_r(&seed);
	b->fd = file_with(b->image, FILE_LEN);
	b->disk = reopen(b->fd);
	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	cr_assert_eq(virtio_blk_init(&b->blk, NULL, &b->gm, b->worker, b->disk, &e), 0, "%s",
		     e.msg);
	cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, queue, gpa(RINGS), features), 15);
	return b;
}

/* All but the disk, which is gone already. */
static void bed_free_rest(struct bed *b)
{
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	close(b->fd);
	close(b->disk);
	free(b->image);
	free(b);
}

static void bed_free(struct bed *b)
{
	virtio_blk_exit(&b->blk);
	bed_free_rest(b);
}

static unsigned char *ram(struct bed *b, uint64_t at)
{
	return gmem_ptr(&b->gm, gpa(at), 1);
}

static void put_header(struct bed *b, unsigned int slot, uint32_t type, uint64_t sector)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = {type, 0, sector};

	cr_assert_eq(gmem_write(&b->gm, gpa(HEADERS + 16 * slot), &h, sizeof(h)), 0);
	*ram(b, STATUS + slot) = UNTOUCHED;
}

/* Header, one data buffer (none when @len is 0), status: from descriptor @slot * 3. */
static void offer(struct bed *b, unsigned int slot, uint32_t type, uint64_t sector, uint64_t at,
		  uint32_t len)
{
	unsigned int i = slot * 3;

	put_header(b, slot, type, sector);
	vdrv_desc(&b->v, b->v.desc, i, HEADERS + 16 * slot, 16, VDRV_NEXT,
		  (uint16_t)(len ? i + 1 : i + 2));
	vdrv_desc(&b->v, b->v.desc, i + 1, at, len, VDRV_NEXT | (type == T_OUT ? 0 : VDRV_WRITE),
		  (uint16_t)(i + 2));
	vdrv_desc(&b->v, b->v.desc, i + 2, STATUS + slot, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, (uint16_t)i);
}

/* One request, start to end. Returns its status. */
static unsigned int request(struct bed *b, uint32_t type, uint64_t sector, uint64_t at,
			    uint32_t len, uint32_t *written)
{
	uint32_t id;

	offer(b, 0, type, sector, at, len);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, written), "no answer");
	cr_assert_eq(id, 0);
	return *ram(b, STATUS);
}

/* Wait until the device is broken, and see why. */
static void broke(struct bed *b, const char *why)
{
	for (int i = 0; i < 20000 && !(vdrv_get(&b->blk.dev, VDRV_STATUS) & VDRV_S_NEEDS_RESET);
	     i++)
		nap();
	cr_assert(b->blk.dev.broken, "should say: %s", why);
	cr_assert_str_eq(b->blk.dev.why, why);
	bed_free(b);
}

Test(blk, only_disks_are_taken)
{
	struct virtio_blk blk;
	struct ob_err e;
	int fd = file_with("x", 1), pipes[2];

	cr_assert_eq(virtio_blk_init(&blk, NULL, NULL, NULL, fd, &e), -EINVAL);
	cr_assert_not_null(strstr(e.msg, "1 bytes, but one sector is 512"));
	close(fd);
	cr_assert_eq(virtio_blk_init(&blk, NULL, NULL, NULL, fd, &e), -EBADF);
	cr_assert_eq(pipe(pipes), 0);
	cr_assert_eq(virtio_blk_init(&blk, NULL, NULL, NULL, pipes[0], &e), -EINVAL);
	cr_assert_not_null(strstr(e.msg, "not a regular file or a block device"));
}

Test(blk, configuration_is_that_of_the_file)
{
	struct bed *b = bed_new(16, 0);
	struct virtio_dev *d = &b->blk.dev;

	cr_assert_eq(vdrv_get(d, VDRV_DEVICE_ID), 2);
	vdrv_set(d, VDRV_DEV_FEATURES_SEL, 0);
	cr_assert_eq(vdrv_get(d, VDRV_DEV_FEATURES),
		     1U << 5 | 1U << 1 | 1U << 2 | 1U << 6 | 1U << 28);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG), SECTORS);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 4), 0);
	cr_assert_eq(virtio_mmio_bus_ops.read(d, VDRV_CONFIG, 8), SECTORS);
	cr_assert_eq(virtio_mmio_bus_ops.read(d, VDRV_CONFIG + 1, 1), SECTORS >> 8);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 8), 128 * OB_KIB);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 12), VIRTQ_MAX_CHAIN - 2);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 20), 512);
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 24), 0, "nothing beyond");
	cr_assert_eq(vdrv_get(d, 0xffc), 0);
	bed_free(b);
}

Test(blk, reads_are_what_the_file_holds)
{
	struct bed *b = bed_new(16, 0);
	const uint64_t sector[] = {0, 1, 7, SECTORS - 1, SECTORS - 8};
	const uint32_t count[] = {1, 3, 8};
	uint32_t written;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sector); i++)
		for (unsigned int k = 0; k < OB_ARRAY_SIZE(count); k++) {
			uint32_t len = count[k] * 512;
			/* To odd addresses too: no alignment is asked of a driver. */
			uint64_t at = DATA + i * 0x4000 + k * 13;
			bool fits = sector[i] + count[k] <= SECTORS;

			memset(ram(b, at), UNTOUCHED, len + 1);
			cr_assert_eq(request(b, T_IN, sector[i], at, len, &written),
				     fits ? S_OK : S_IOERR);
			cr_assert_eq(written, fits ? len + 1 : 0);
			if (fits)
				cr_assert_arr_eq(ram(b, at), b->image + sector[i] * 512, len);
			else
				cr_assert_eq(*ram(b, at), UNTOUCHED);
			cr_assert_eq(*ram(b, at + len), UNTOUCHED);
		}
	cr_assert_eq(vdrv_get(&b->blk.dev, VDRV_IRQ_STATUS), 1);
	bed_free(b);
}

Test(blk, the_range_is_checked_without_wrapping)
{
	struct bed *b = bed_new(16, 0);
	const uint64_t sector[] = {SECTORS,	     SECTORS + 1,	   UINT64_MAX,
				   UINT64_MAX / 512, UINT64_MAX / 512 + 1, 1ULL << 55,
				   UINT64_MAX - 1};
	uint32_t written;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sector); i++)
		cr_assert_eq(request(b, T_IN, sector[i], DATA, 1024, &written), S_IOERR);
	cr_assert_eq(request(b, T_IN, 0, DATA, 511, &written), S_IOERR, "not whole sectors");
	cr_assert_eq(request(b, T_IN, 0, DATA, 513, &written), S_IOERR);
	cr_assert_eq(request(b, T_IN, 0, DATA, OB_MIB, &written), S_IOERR, "more than there is");
	cr_assert_eq(b->blk.rejected, 10);
	cr_assert_eq(b->blk.read_bytes, 0);
	bed_free(b);
}

Test(blk, other_requests)
{
	struct bed *b = bed_new(16, 0);
	uint32_t written;
	unsigned char byte;

	cr_assert_eq(request(b, T_OUT, 0, DATA, 512, &written), S_IOERR, "read-only");
	cr_assert_eq(written, 1);
	cr_assert_eq(pread(b->fd, &byte, 1, 0), 1);
	cr_assert_eq(byte, b->image[0]);
	cr_assert_eq(request(b, T_FLUSH, 0, 0, 0, &written), S_OK);
	cr_assert_eq(request(b, 11, 0, DATA, 512, &written), S_UNSUPP, "discard");
	cr_assert_eq(request(b, UINT32_MAX, 0, DATA, 512, &written), S_UNSUPP);
	memset(ram(b, DATA), UNTOUCHED, 64);
	cr_assert_eq(request(b, T_GET_ID, 0, DATA, 20, &written), S_OK);
	cr_assert_eq(written, 21);
	cr_assert_str_eq((char *)ram(b, DATA), "overbook-disk");
	cr_assert_eq(*ram(b, DATA + 19), 0);
	cr_assert_eq(*ram(b, DATA + 20), UNTOUCHED);
	cr_assert_eq(request(b, T_GET_ID, 0, DATA, 19, &written), S_IOERR);
	bed_free(b);
}

Test(blk, buffers_may_be_cut_anywhere)
{
	const unsigned int first_seed = 31;
	unsigned int seed = first_seed;
	struct bed *b = bed_new(VIRTQ_MAX, VIRTIO_F_INDIRECT_DESC);
	uint32_t id, written;

	for (int round = 0; round < 300; round++) {
		bool indirect = rand_r(&seed) % 2;
		gpa_t t = indirect ? gpa(TABLE) : b->v.desc;
		uint32_t sectors = 1 + (uint32_t)(rand_r(&seed) % 100), left;
		uint64_t from = (uint64_t)(rand_r(&seed) % (SECTORS - 100)), at = DATA, stream;
		unsigned int i = 0, first = indirect ? 0 : 1;
		unsigned char *got = malloc(sectors * 512 + 1), *p = got;
		struct {
			uint64_t at;
			uint32_t len;
		} seg[VIRTQ_MAX_CHAIN];
		unsigned int nseg = 0;

		/* The header in one to three pieces. */
		put_header(b, 0, T_IN, from);
		for (uint64_t h = HEADERS; h < HEADERS + 16; i++) {
			uint64_t len = 1 + (uint64_t)(rand_r(&seed) % 16);

			if (i == 2 || len > HEADERS + 16 - h)
				len = HEADERS + 16 - h;
			vdrv_desc(&b->v, t, first + i, h, (uint32_t)len, VDRV_NEXT,
				  (uint16_t)(first + i + 1));
			h += len;
		}
		/* Data and status in pieces that know nothing of sectors, with gaps between. */
		left = sectors * 512 + 1;
		stream = left;
		while (left) {
			uint32_t len = 1 + (uint32_t)rand_r(&seed) % 2000;

			if (nseg == 100 || len > left)
				len = left;
			at += (uint64_t)(rand_r(&seed) % 50);
			memset(ram(b, at), UNTOUCHED, len + 1);
			left -= len;
			vdrv_desc(&b->v, t, first + i, at, len, VDRV_WRITE | (left ? VDRV_NEXT : 0),
				  (uint16_t)(first + i + 1));
			seg[nseg].at = at;
			seg[nseg++].len = len;
			i++;
			at += len;
		}
		if (indirect)
			vdrv_desc(&b->v, b->v.desc, 1, TABLE, 16 * i, VDRV_INDIRECT, 0);
		vdrv_offer(&b->v, 1);
		vdrv_kick(&b->v);
		cr_assert(vdrv_wait_used(&b->v, &id, &written), "seed %u round %d: %s", first_seed,
			  round, b->blk.dev.why ? b->blk.dev.why : "no answer");
		cr_assert_eq(written, stream);
		for (unsigned int k = 0; k < nseg; k++) {
			memcpy(p, ram(b, seg[k].at), seg[k].len);
			p += seg[k].len;
		}
		cr_assert_eq(p[-1], S_OK, "seed %u round %d", first_seed, round);
		cr_assert_arr_eq(got, b->image + from * 512, sectors * 512, "seed %u round %d",
				 first_seed, round);
		free(got);
	}
	bed_free(b);
}

Test(blk, many_requests_are_answered_in_order)
{
	struct bed *b = bed_new(VIRTQ_MAX, 0);
	const unsigned int n = 80; /* more than one turn of the worker */
	uint32_t id, written;

	for (unsigned int i = 0; i < n; i++)
		offer(b, i, T_IN, i * 3, DATA + i * 4096, 1024);
	vdrv_kick(&b->v);
	for (unsigned int i = 0; i < n; i++) {
		cr_assert(vdrv_wait_used(&b->v, &id, &written));
		cr_assert_eq(id, i * 3);
		cr_assert_eq(*ram(b, STATUS + i), S_OK);
		cr_assert_arr_eq(ram(b, DATA + i * 4096), b->image + i * 3 * 512, 1024);
	}
	cr_assert_eq(b->blk.read_bytes, n * 1024);
	bed_free(b);
}

Test(blk, requests_without_an_answer_stop_the_device)
{
	struct bed *b = bed_new(16, 0);

	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, 0, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "disk request without room for its status");

	b = bed_new(16, 0);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 15, VDRV_NEXT, 1);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 513, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "disk request without a whole header");

	b = bed_new(16, 0);
	offer(b, 0, T_IN, 0, RAM - 511, 512);
	vdrv_kick(&b->v);
	broke(b, "buffer is not inside RAM");

	b = bed_new(16, 0);
	offer(b, 0, T_IN, 0, DATA, 512);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 512, VDRV_NEXT | VDRV_WRITE, 1);
	vdrv_kick(&b->v);
	broke(b, "descriptor chain is a loop");
}

Test(blk, a_good_request_before_a_broken_one_is_answered)
{
	struct bed *b = bed_new(16, 0);
	uint32_t id, written;

	offer(b, 0, T_IN, 5, DATA, 512);
	vdrv_offer(&b->v, 999);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(ram(b, DATA), b->image + 5 * 512, 512);
	broke(b, "first descriptor is out of range");
}

Test(blk, a_file_that_shrank_is_an_io_error)
{
	struct bed *b = bed_new(16, 0);
	uint32_t written;

	cr_assert_eq(ftruncate(b->fd, 700), 0);
	cr_assert_eq(request(b, T_IN, 0, DATA, 512, &written), S_OK);
	cr_assert_eq(request(b, T_IN, 1, DATA, 512, &written), S_IOERR);
	cr_assert_eq(request(b, T_IN, 50, DATA, 512, &written), S_IOERR);
	bed_free(b);
}

Test(blk, a_reset_waits_for_the_read_under_way)
{
	struct bed *b = bed_new(16, 0);
	uint32_t id, written;

	memset(ram(b, DATA), UNTOUCHED, 4096);
	b->blk.delay_ns = 30 * OB_NS_PER_MS;
	offer(b, 0, T_IN, 0, DATA, 4096);
	vdrv_kick(&b->v);
	/* Until its first half is there. */
	while (memcmp(ram(b, DATA), b->image, 2048))
		nap();
	vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
	cr_assert_arr_eq(ram(b, DATA), b->image, 4096, "nothing is written after a reset");
	cr_assert_eq(vdrv_get(&b->blk.dev, VDRV_STATUS), 0);
	b->blk.delay_ns = 0;
	cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, 8, gpa(RINGS), 0), 15);
	cr_assert(!vdrv_used(&b->v, &id, &written), "and it starts afresh");
	cr_assert_eq(request(b, T_IN, 9, DATA, 512, &written), S_OK);
	bed_free(b);
}

/* A driver that rings, resets and sets up again as fast as it can, against a worker with work. */
Test(blk, resets_in_the_middle_of_work)
{
	struct bed *b = bed_new(64, 0);
	const unsigned int first_seed = 12;
	unsigned int seed = first_seed, answered = 0;
	uint32_t id, written;

	for (int round = 0; round < 2000; round++) {
		for (unsigned int i = 0; i < 16; i++)
			offer(b, i, T_IN, i, DATA + i * 4096, 512);
		vdrv_kick(&b->v);
		if (rand_r(&seed) % 2)
			answered += vdrv_wait_used(&b->v, &id, &written);
		cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, 64, gpa(RINGS), 0), 15,
			     "seed %u round %d: %s", first_seed, round,
			     b->blk.dev.why ? b->blk.dev.why : "");
		cr_assert(!vdrv_used(&b->v, &id, &written));
	}
	cr_assert_gt(answered, 500);
	bed_free(b);
}

/* --- reads and those who take pages away ------------------------------------------------------ */

static void park(void *arg)
{
	++*(int *)arg;
}

static void unpark(void *arg)
{
	--*(int *)arg;
}

/* While a read is in the middle of a page, a freeze leaves that page out, and does not wait. */
Test(blk, a_freeze_leaves_out_what_a_read_is_writing)
{
	struct bed *b = bed_new(16, 0);
	int parked = 0;
	struct ept_parker p = {.park = park, .unpark = unpark, .arg = &parked};
	struct ob_arena *arena = ob_arena_new("test");
	uint64_t page = DATA / OB_PAGE_SIZE;
	uint32_t id, written;
	struct ept e;

	cr_assert_eq(ept_init(&e, b->h, &b->gm, p, arena), 0);
	memset(ram(b, DATA), UNTOUCHED, 2 * OB_PAGE_SIZE);
	b->blk.delay_ns = 100 * OB_NS_PER_MS;
	offer(b, 0, T_IN, 0, DATA, 4096);
	vdrv_kick(&b->v);
	while (memcmp(ram(b, DATA), b->image, 2048))
		nap();
	ept_freeze(&e, page, 4);
	cr_assert(!ept_frozen(&e, page));
	cr_assert(ept_frozen(&e, page + 1));
	cr_assert_eq(*ram(b, DATA + 4095), UNTOUCHED, "the read is still under way");
	ept_thaw(&e);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(ram(b, DATA), b->image, 4096);
	ept_freeze(&e, page, 4);
	cr_assert(ept_frozen(&e, page), "it can be frozen when the read is over");
	ept_thaw(&e);
	cr_assert_eq(parked, 0);
	ept_exit(&e);
	bed_free(b);
	ob_arena_free(arena);
}

/* A read that comes during a freeze waits, writes nothing, and goes on after the thaw. */
Test(blk, a_read_waits_for_the_thaw)
{
	struct bed *b = bed_new(16, 0);
	int parked = 0;
	struct ept_parker p = {.park = park, .unpark = unpark, .arg = &parked};
	struct ob_arena *arena = ob_arena_new("test");
	struct ept_stats st;
	uint32_t id, written;
	struct ept e;

	cr_assert_eq(ept_init(&e, b->h, &b->gm, p, arena), 0);
	memset(ram(b, DATA), UNTOUCHED, OB_PAGE_SIZE);
	offer(b, 0, T_IN, 0, DATA, 4096);
	ept_freeze(&e, DATA / OB_PAGE_SIZE, 1);
	vdrv_kick(&b->v);
	do {
		nap();
		ept_read_stats(&e, &st);
	} while (!st.dma_waits);
	nap();
	for (unsigned int i = 0; i < 4096; i++)
		cr_assert_eq(*ram(b, DATA + i), UNTOUCHED);
	ept_thaw(&e);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(ram(b, DATA), b->image, 4096);
	ept_exit(&e);
	bed_free(b);
	ob_arena_free(arena);
}

/* Few accesses may be under way: reads then go in smaller groups, and no bracket is lost. */
struct few {
	struct gmem *gm;
	pthread_mutex_t lock;
	unsigned int open, max_open, limit, refused;
};

static int few_begin(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	struct few *f = arg;
	void *p = gmem_ptr(f->gm, at, len);
	int rc = 0;

	if (!p)
		return -EFAULT;
	pthread_mutex_lock(&f->lock);
	if (f->open == f->limit) {
		f->refused++;
		rc = -EBUSY;
	} else {
		f->open++;
		f->max_open = OB_MAX(f->max_open, f->open);
		*acc = (struct gmem_access){.ptr = p, .gpa = at, .len = len, .write = write};
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static void few_end(void *arg, struct gmem_access *acc)
{
	struct few *f = arg;

	cr_assert_not_null(acc->ptr);
	pthread_mutex_lock(&f->lock);
	cr_assert(f->open--);
	pthread_mutex_unlock(&f->lock);
}

Test(blk, busy_memory_only_slows_a_read)
{
	static const struct gmem_ops ops = {.access_begin = few_begin, .access_end = few_end};
	struct bed *b = bed_new(64, 0);
	uint32_t id, written;

	for (unsigned int limit = 1; limit < 40; limit += 5) {
		struct few f = {.gm = &b->gm, .lock = PTHREAD_MUTEX_INITIALIZER, .limit = limit};

		put_header(b, 0, T_IN, 3);
		vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
		for (unsigned int i = 1; i <= 40; i++)
			vdrv_desc(&b->v, b->v.desc, i, DATA + 4096 * i, 512, VDRV_NEXT | VDRV_WRITE,
				  (uint16_t)(i + 1));
		vdrv_desc(&b->v, b->v.desc, 41, STATUS, 1, VDRV_WRITE, 0);
		vdrv_offer(&b->v, 0);
		b->gm.ops_arg = &f;
		b->gm.ops = &ops;
		vdrv_kick(&b->v);
		/* Not through the rings: the test's own accesses would take part. */
		io_worker_drain(b->worker, &b->blk.work);
		b->gm.ops = NULL;
		cr_assert_eq(f.open, 0);
		cr_assert_leq(f.max_open, limit);
		cr_assert(limit >= 16 || f.refused);
		cr_assert(vdrv_used(&b->v, &id, &written));
		cr_assert_eq(*ram(b, STATUS), S_OK);
		for (unsigned int i = 1; i <= 40; i++)
			cr_assert_arr_eq(ram(b, DATA + 4096 * i), b->image + (2 + i) * 512, 512);
	}
	bed_free(b);
}

/* --- a guest that asks for too much ----------------------------------------------------------- */

struct turn {
	struct io_work work; /* first */
	struct virtio_blk *blk;
	_Atomic int gate;
	_Atomic unsigned int answered;
};

/* On the worker, so nothing goes on meanwhile. */
static void see_answered(struct io_work *w)
{
	struct turn *t = (struct turn *)(void *)w;

	t->answered = t->blk->dev.q[0].used_idx;
}

static void hold(struct io_work *w)
{
	struct turn *t = (struct turn *)(void *)w;

	while (t->gate)
		nap();
}

/* A disk asked for much at once goes to the end of the line after a MiB. */
Test(blk, a_turn_is_limited_in_bytes)
{
	struct bed *b = bed_new(64, 0);
	struct turn first = {.work.run = hold, .gate = 1};
	struct turn next = {.work.run = see_answered, .blk = &b->blk};
	const unsigned int n = 12;
	uint32_t id, written;

	io_worker_queue(b->worker, &first.work);
	for (unsigned int i = 0; i < n; i++)
		offer(b, i, T_IN, 0, DATA, SECTORS * 512);
	vdrv_kick(&b->v);
	io_worker_queue(b->worker, &next.work);
	first.gate = 0;
	io_worker_drain(b->worker, &next.work);
	cr_assert_eq(next.answered, 3, "%u answered: 3 are more than a MiB", next.answered);
	for (unsigned int i = 0; i < n; i++)
		cr_assert(vdrv_wait_used(&b->v, &id, &written), "the rest comes in later turns");
	bed_free(b);
}

/* A read of @n times @len bytes into the same memory, from the first sector. */
static void offer_again_and_again(struct bed *b, unsigned int n, uint32_t len)
{
	put_header(b, 0, T_IN, 0);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
	for (unsigned int i = 1; i <= n; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA, len, VDRV_NEXT | VDRV_WRITE,
			  (uint16_t)(i + 1));
	vdrv_desc(&b->v, b->v.desc, n + 1, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
}

/* A disk of 64 MiB that is not there: its first @SECTORS sectors are. */
static struct bed *large_bed(void)
{
	struct bed *b = bed_new(64, 0);

	cr_assert_eq(ftruncate(b->fd, 64 * OB_MIB), 0);
	b->blk.sectors = 64 * OB_MIB / 512;
	return b;
}

/* One request moves 16 MiB, which no driver exceeds that takes what is offered; not more. */
Test(blk, a_request_is_limited_in_bytes)
{
	struct bed *b = large_bed();
	uint32_t id, written;

	offer_again_and_again(b, 16, OB_MIB);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*ram(b, STATUS), S_OK);
	cr_assert_eq(written, 16 * OB_MIB + 1);
	cr_assert_eq(b->blk.read_bytes, 16 * OB_MIB);

	memset(ram(b, DATA), UNTOUCHED, OB_MIB);
	offer_again_and_again(b, 17, OB_MIB);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*ram(b, STATUS), S_IOERR);
	cr_assert_eq(written, 0);
	cr_assert_eq(*ram(b, DATA), UNTOUCHED, "nothing of it is done");
	cr_assert_eq(b->blk.read_bytes, 16 * OB_MIB);
	bed_free(b);
}

/* What is larger than a MiB is moved in parts, wherever buffers begin and end. */
Test(blk, a_large_read_is_what_the_file_holds)
{
	struct bed *b = large_bed();
	const uint32_t len[] = {3 * 512, 2 * OB_MIB - 512, 7 * 512};
	unsigned char *want = malloc(3 * OB_MIB);
	uint64_t at = DATA;
	uint32_t id, written;
	ssize_t n;

	for (uint64_t i = 0; i < 64 * OB_MIB; i += OB_MIB / 8)
		cr_assert_eq(pwrite(b->fd, &i, sizeof(i), (off_t)i + 13), sizeof(i));
	put_header(b, 0, T_IN, 5);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(len); i++, at += len[i - 1])
		vdrv_desc(&b->v, b->v.desc, i + 1, at, len[i], VDRV_NEXT | VDRV_WRITE,
			  (uint16_t)(i + 2));
	vdrv_desc(&b->v, b->v.desc, OB_ARRAY_SIZE(len) + 1, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*ram(b, STATUS), S_OK);
	n = (ssize_t)(at - DATA);
	cr_assert_eq(pread(b->fd, want, (size_t)n, 5 * 512), n);
	cr_assert(!memcmp(ram(b, DATA), want, (size_t)n));
	free(want);
	bed_free(b);
}

/* Counts the accesses to data; the first one lasts until the device is not live any more. */
struct until_dead {
	struct gmem *gm;
	struct virtio_dev *d;
	_Atomic unsigned int begun;
	_Atomic uint64_t most; /* bytes at a time */
};

static int until_dead_begin(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	struct until_dead *u = arg;
	void *p = gmem_ptr(u->gm, at, len);

	if (!p)
		return -EFAULT;
	u->most = OB_MAX(u->most, len);
	if (at.v >= DATA && !u->begun++)
		for (int i = 0; i < 2000 && virtio_dev_live(u->d); i++)
			nap();
	*acc = (struct gmem_access){.ptr = p, .gpa = at, .len = len, .write = write};
	return 0;
}

static void until_dead_end(void *arg, struct gmem_access *acc)
{
	(void)arg;
	cr_assert_not_null(acc->ptr);
}

/* Nobody waits for what a guest has piled up: the group under way ends, the rest is given up, be
 * it by a reset or because the VM ends. */
Test(blk, the_end_comes_in_the_middle_of_a_request)
{
	static const struct gmem_ops ops = {
		.access_begin = until_dead_begin,
		.access_end = until_dead_end,
	};

	for (int by_reset = 0; by_reset < 2; by_reset++) {
		struct bed *b = bed_new(VIRTQ_MAX, 0);
		struct until_dead u = {.gm = &b->gm, .d = &b->blk.dev};

		put_header(b, 0, T_IN, 0);
		vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
		for (unsigned int i = 1; i <= 100; i++)
			vdrv_desc(&b->v, b->v.desc, i, DATA, 512, VDRV_NEXT | VDRV_WRITE,
				  (uint16_t)(i + 1));
		vdrv_desc(&b->v, b->v.desc, 101, STATUS, 1, VDRV_WRITE, 0);
		for (int i = 0; i < 8; i++)
			vdrv_offer(&b->v, 0);
		b->gm.ops_arg = &u;
		b->gm.ops = &ops;
		vdrv_kick(&b->v);
		while (!u.begun)
			nap();
		if (by_reset)
			vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
		virtio_blk_exit(&b->blk);
		b->gm.ops = NULL;
		cr_assert_leq(u.begun, 16, "%u buffers were read", u.begun);
		bed_free_rest(b);
	}
}

/* The same within one buffer. */
Test(blk, the_end_comes_in_the_middle_of_a_buffer)
{
	static const struct gmem_ops ops = {
		.access_begin = until_dead_begin,
		.access_end = until_dead_end,
	};
	struct bed *b = large_bed();
	struct until_dead u = {.gm = &b->gm, .d = &b->blk.dev};

	offer_again_and_again(b, 4, 3 * OB_MIB - OB_MIB / 8);
	b->gm.ops_arg = &u;
	b->gm.ops = &ops;
	vdrv_kick(&b->v);
	while (!u.begun)
		nap();
	vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
	b->gm.ops = NULL;
	cr_assert_eq(u.begun, 1, "%u parts were read", u.begun);
	cr_assert_leq(u.most, OB_MIB);
	bed_free(b);
}

/* --- the worker ------------------------------------------------------------------------------- */

struct item {
	struct io_work work; /* first */
	struct io_worker *w;
	_Atomic int runs, again, gate;
	int *order, at;
	_Atomic int *next;
};

static void item_run(struct io_work *w)
{
	struct item *it = (struct item *)(void *)w;

	while (it->gate)
		nap();
	if (it->next)
		it->order[(*it->next)++] = it->at;
	it->runs++;
	if (it->again) {
		it->again--;
		io_worker_queue(it->w, &it->work);
	}
}

Test(io_worker, items_run_once_in_order)
{
	struct io_worker *w;
	_Atomic int next = 0;
	int order[8];
	struct item it[8] = {0};

	cr_assert_eq(io_worker_start(&w), 0);
	for (int i = 0; i < 8; i++) {
		it[i].work.run = item_run;
		it[i].order = order;
		it[i].at = i;
		it[i].next = &next;
	}
	it[0].gate = 1;
	io_worker_queue(w, &it[0].work);
	for (int i = 1; i < 8; i++)
		for (int k = 0; k < 3; k++)
			io_worker_queue(w, &it[i].work);
	it[0].gate = 0;
	io_worker_stop(w);
	cr_assert_eq(next, 8, "queued three times, run once; and stop finishes what is queued");
	for (int i = 0; i < 8; i++)
		cr_assert_eq(order[i], i);
}

Test(io_worker, queued_while_it_runs_it_runs_again)
{
	struct io_worker *w;
	struct item it = {.work.run = item_run, .again = 5};

	cr_assert_eq(io_worker_start(&w), 0);
	it.w = w;
	io_worker_queue(w, &it.work);
	io_worker_drain(w, &it.work);
	cr_assert_eq(it.runs, 6);
	it.again = 3;
	io_worker_queue(w, &it.work);
	io_worker_stop(w);
	cr_assert_eq(it.runs, 10);
}

Test(io_worker, drain_of_an_idle_item_returns)
{
	struct io_worker *w;
	struct item it = {.work.run = item_run}, other = {.work.run = item_run, .gate = 1};

	cr_assert_eq(io_worker_start(&w), 0);
	io_worker_queue(w, &other.work);
	io_worker_drain(w, &it.work);
	other.gate = 0;
	io_worker_drain(w, &other.work);
	cr_assert_eq(other.runs, 1);
	io_worker_stop(w);
}
