/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_blk_memory.c: a disk and the memory that it reads into: frozen, busy, or gone in the middle of a
 * request; and requests that ask for too much of it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ept/ept.h"
#include "tests/blk_bed.h"

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
	struct blk_bed *b = blk_bed_new(16, 0);
	int parked = 0;
	struct ept_parker p = {.park = park, .unpark = unpark, .arg = &parked};
	struct ob_arena *arena = ob_arena_new("test");
	uint64_t page = DATA / OB_PAGE_SIZE;
	uint32_t id, written;
	struct ept e;

	cr_assert_eq(ept_init(&e, b->h, &b->gm, p, arena), 0);
	memset(blk_bed_ram(b, DATA), UNTOUCHED, 2 * OB_PAGE_SIZE);
	b->blk.delay_ns = 100 * OB_NS_PER_MS;
	blk_bed_offer(b, 0, T_IN, 0, DATA, 4096);
	vdrv_kick(&b->v);
	while (memcmp(blk_bed_ram(b, DATA), b->image, 2048))
		blk_bed_nap();
	ept_freeze(&e, page, 4);
	cr_assert(!ept_frozen(&e, page));
	cr_assert(ept_frozen(&e, page + 1));
	cr_assert_eq(*blk_bed_ram(b, DATA + 4095), UNTOUCHED, "the read is still under way");
	ept_thaw(&e);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(blk_bed_ram(b, DATA), b->image, 4096);
	ept_freeze(&e, page, 4);
	cr_assert(ept_frozen(&e, page), "it can be frozen when the read is over");
	ept_thaw(&e);
	cr_assert_eq(parked, 0);
	ept_exit(&e);
	blk_bed_free(b);
	ob_arena_free(arena);
}

/* A read that comes during a freeze waits, writes nothing, and goes on after the thaw. */
Test(blk, a_read_waits_for_the_thaw)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	int parked = 0;
	struct ept_parker p = {.park = park, .unpark = unpark, .arg = &parked};
	struct ob_arena *arena = ob_arena_new("test");
	struct ept_stats st;
	uint32_t id, written;
	struct ept e;

	cr_assert_eq(ept_init(&e, b->h, &b->gm, p, arena), 0);
	memset(blk_bed_ram(b, DATA), UNTOUCHED, OB_PAGE_SIZE);
	blk_bed_offer(b, 0, T_IN, 0, DATA, 4096);
	ept_freeze(&e, DATA / OB_PAGE_SIZE, 1);
	vdrv_kick(&b->v);
	do {
		blk_bed_nap();
		ept_read_stats(&e, &st);
	} while (!st.dma_waits);
	blk_bed_nap();
	for (unsigned int i = 0; i < 4096; i++)
		cr_assert_eq(*blk_bed_ram(b, DATA + i), UNTOUCHED);
	ept_thaw(&e);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(blk_bed_ram(b, DATA), b->image, 4096);
	ept_exit(&e);
	blk_bed_free(b);
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
	struct blk_bed *b = blk_bed_new(64, 0);
	uint32_t id, written;

	for (unsigned int limit = 1; limit < 40; limit += 5) {
		struct few f = {.gm = &b->gm, .lock = PTHREAD_MUTEX_INITIALIZER, .limit = limit};

		blk_bed_header(b, 0, T_IN, 3);
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
		cr_assert_eq(*blk_bed_ram(b, STATUS), S_OK);
		for (unsigned int i = 1; i <= 40; i++)
			cr_assert_arr_eq(blk_bed_ram(b, DATA + 4096 * i), b->image + (2 + i) * 512,
					 512);
	}
	blk_bed_free(b);
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
		blk_bed_nap();
}

/* A disk asked for much at once goes to the end of the line after a MiB. */
Test(blk, a_turn_is_limited_in_bytes)
{
	struct blk_bed *b = blk_bed_new(64, 0);
	struct turn first = {.work.run = hold, .gate = 1};
	struct turn next = {.work.run = see_answered, .blk = &b->blk};
	const unsigned int n = 12;
	uint32_t id, written;

	io_worker_queue(b->worker, &first.work);
	for (unsigned int i = 0; i < n; i++)
		blk_bed_offer(b, i, T_IN, 0, DATA, SECTORS * 512);
	vdrv_kick(&b->v);
	io_worker_queue(b->worker, &next.work);
	first.gate = 0;
	io_worker_drain(b->worker, &next.work);
	cr_assert_eq(next.answered, 3, "%u answered: 3 are more than a MiB", next.answered);
	for (unsigned int i = 0; i < n; i++)
		cr_assert(vdrv_wait_used(&b->v, &id, &written), "the rest comes in later turns");
	blk_bed_free(b);
}

/* A read of @n times @len bytes into the same memory, from the first sector. */
static void offer_again_and_again(struct blk_bed *b, unsigned int n, uint32_t len)
{
	blk_bed_header(b, 0, T_IN, 0);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
	for (unsigned int i = 1; i <= n; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA, len, VDRV_NEXT | VDRV_WRITE,
			  (uint16_t)(i + 1));
	vdrv_desc(&b->v, b->v.desc, n + 1, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
}

/* A disk of 64 MiB that is not there: its first @SECTORS sectors are. */
static struct blk_bed *large_bed(void)
{
	struct blk_bed *b = blk_bed_new(64, 0);

	cr_assert_eq(ftruncate(b->fd, 64 * OB_MIB), 0);
	b->blk.sectors = 64 * OB_MIB / 512;
	return b;
}

/* One request moves 16 MiB, which no driver exceeds that takes what is offered; not more. */
Test(blk, a_request_is_limited_in_bytes)
{
	struct blk_bed *b = large_bed();
	uint32_t id, written;

	offer_again_and_again(b, 16, OB_MIB);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*blk_bed_ram(b, STATUS), S_OK);
	cr_assert_eq(written, 16 * OB_MIB + 1);
	cr_assert_eq(b->blk.read_bytes, 16 * OB_MIB);

	memset(blk_bed_ram(b, DATA), UNTOUCHED, OB_MIB);
	offer_again_and_again(b, 17, OB_MIB);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*blk_bed_ram(b, STATUS), S_IOERR);
	cr_assert_eq(written, 0);
	cr_assert_eq(*blk_bed_ram(b, DATA), UNTOUCHED, "nothing of it is done");
	cr_assert_eq(b->blk.read_bytes, 16 * OB_MIB);
	blk_bed_free(b);
}

/* What is larger than a MiB is moved in parts, wherever buffers begin and end. */
Test(blk, a_large_read_is_what_the_file_holds)
{
	struct blk_bed *b = large_bed();
	const uint32_t len[] = {3 * 512, 2 * OB_MIB - 512, 7 * 512};
	unsigned char *want = malloc(3 * OB_MIB);
	uint64_t at = DATA;
	uint32_t id, written;
	ssize_t n;

	for (uint64_t i = 0; i < 64 * OB_MIB; i += OB_MIB / 8)
		cr_assert_eq(pwrite(b->fd, &i, sizeof(i), (off_t)i + 13), sizeof(i));
	blk_bed_header(b, 0, T_IN, 5);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, VDRV_NEXT, 1);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(len); i++, at += len[i - 1])
		vdrv_desc(&b->v, b->v.desc, i + 1, at, len[i], VDRV_NEXT | VDRV_WRITE,
			  (uint16_t)(i + 2));
	vdrv_desc(&b->v, b->v.desc, OB_ARRAY_SIZE(len) + 1, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_eq(*blk_bed_ram(b, STATUS), S_OK);
	n = (ssize_t)(at - DATA);
	cr_assert_eq(pread(b->fd, want, (size_t)n, 5 * 512), n);
	cr_assert(!memcmp(blk_bed_ram(b, DATA), want, (size_t)n));
	free(want);
	blk_bed_free(b);
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
			blk_bed_nap();
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
		struct blk_bed *b = blk_bed_new(VIRTQ_MAX, 0);
		struct until_dead u = {.gm = &b->gm, .d = &b->blk.dev};

		blk_bed_header(b, 0, T_IN, 0);
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
			blk_bed_nap();
		if (by_reset)
			vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
		virtio_blk_exit(&b->blk);
		b->gm.ops = NULL;
		cr_assert_leq(u.begun, 16, "%u buffers were read", u.begun);
		blk_bed_free_rest(b);
	}
}

/* The same within one buffer. */
Test(blk, the_end_comes_in_the_middle_of_a_buffer)
{
	static const struct gmem_ops ops = {
		.access_begin = until_dead_begin,
		.access_end = until_dead_end,
	};
	struct blk_bed *b = large_bed();
	struct until_dead u = {.gm = &b->gm, .d = &b->blk.dev};

	offer_again_and_again(b, 4, 3 * OB_MIB - OB_MIB / 8);
	b->gm.ops_arg = &u;
	b->gm.ops = &ops;
	vdrv_kick(&b->v);
	while (!u.begun)
		blk_bed_nap();
	vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
	b->gm.ops = NULL;
	cr_assert_eq(u.begun, 1, "%u parts were read", u.begun);
	cr_assert_leq(u.most, OB_MIB);
	blk_bed_free(b);
}
