/* SPDX-License-Identifier: Apache-2.0 */
/* pure_rng.c: the entropy source, its worker thread and a driver by hand. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RINGS 0x1000
#define TABLE 0x8000
#define DATA  0x10000

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_rng rng;
	struct vdrv v;
};

static struct bed *bed_new(uint16_t queue, uint64_t features)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, OB_MIB, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	virtio_rng_init(&b->rng, NULL, &b->gm, b->worker);
	cr_assert_eq(vdrv_init(&b->v, &b->rng.dev, &b->gm, queue, gpa(RINGS), features), 15);
	return b;
}

static void bed_free(struct bed *b)
{
	virtio_rng_exit(&b->rng);
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	free(b);
}

static unsigned char *ram(struct bed *b, uint64_t at)
{
	return gmem_ptr(&b->gm, gpa(at), 1);
}

/* Does [at, at + n) hold @n bytes that are all the same? */
static bool untouched(struct bed *b, uint64_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (*ram(b, at + i))
			return false;
	return true;
}

static void broke(struct bed *b, const char *why)
{
	struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < 20000 && virtio_dev_live(&b->rng.dev); i++)
		nanosleep(&ms, NULL);
	cr_assert(b->rng.dev.broken, "should say: %s", why);
	cr_assert_str_eq(b->rng.dev.why, why);
	bed_free(b);
}

Test(rng, a_buffer_is_filled_and_nothing_beside_it)
{
	struct bed *b = bed_new(8, 0);
	uint32_t id, len;

	cr_assert_eq(vdrv_get(&b->rng.dev, VDRV_DEVICE_ID), 4);
	vdrv_desc(&b->v, b->v.desc, 3, DATA + 5, 1000, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 3);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &len));
	cr_assert_eq(id, 3);
	cr_assert_eq(len, 1000);
	cr_assert(untouched(b, DATA, 5) && untouched(b, DATA + 1005, 100));
	/* 32 bytes in a row are zero with a chance of 2 to the -256. */
	for (unsigned int i = 0; i + 32 <= 1000; i += 32)
		cr_assert(!untouched(b, DATA + 5 + i, 32));
	cr_assert_eq(vdrv_get(&b->rng.dev, VDRV_IRQ_STATUS), 1);
	cr_assert_eq(b->rng.bytes, 1000);
	bed_free(b);
}

Test(rng, no_two_requests_are_given_the_same)
{
	struct bed *b = bed_new(8, 0);
	uint32_t id, len;

	for (int i = 0; i < 2; i++) {
		vdrv_desc(&b->v, b->v.desc, 0, DATA + (uint64_t)i * 64, 64, VDRV_WRITE, 0);
		vdrv_offer(&b->v, 0);
		vdrv_kick(&b->v);
		cr_assert(vdrv_wait_used(&b->v, &id, &len));
	}
	cr_assert(memcmp(ram(b, DATA), ram(b, DATA + 64), 64) != 0);
	bed_free(b);
}

/* It need not fill all, and what it says it has written is what it has written. */
Test(rng, what_one_request_gets_is_bounded)
{
	struct bed *b = bed_new(8, VIRTIO_F_INDIRECT_DESC);
	uint32_t id, len;

	for (unsigned int i = 0; i < 100; i++)
		vdrv_desc(&b->v, gpa(TABLE), i, DATA + i * 0x100ULL, 0x100,
			  (uint16_t)(VDRV_WRITE | (i < 99 ? VDRV_NEXT : 0)), (uint16_t)(i + 1));
	vdrv_desc(&b->v, b->v.desc, 0, TABLE, 1600, VDRV_INDIRECT, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &len));
	cr_assert(len >= 1 && len < 25600, "%u", len);
	cr_assert(!untouched(b, DATA + len - 32, 32));
	cr_assert(untouched(b, DATA + len, 25600 - len));
	bed_free(b);
}

/* More than are done in a turn, and more than the ring holds: it wraps. */
Test(rng, many_requests_are_answered_in_order)
{
	struct bed *b = bed_new(64, 0);
	uint32_t id, len;

	for (unsigned int i = 0; i < 64; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA + i * 64ULL, 64, VDRV_WRITE, 0);
	for (int round = 0; round < 10; round++) {
		for (uint16_t i = 0; i < 64; i++)
			vdrv_offer(&b->v, i);
		for (int i = 0; i < 100; i++)
			vdrv_kick(&b->v);
		for (unsigned int i = 0; i < 64; i++) {
			cr_assert(vdrv_wait_used(&b->v, &id, &len));
			cr_assert_eq(id, i);
			cr_assert_eq(len, 64);
		}
	}
	bed_free(b);
}

Test(rng, requests_that_make_no_sense_stop_the_device)
{
	struct bed *b = bed_new(8, 0);

	vdrv_desc(&b->v, b->v.desc, 0, DATA, 64, 0, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "entropy request with a buffer that is not to be written");
	b = bed_new(8, 0);
	vdrv_desc(&b->v, b->v.desc, 0, DATA, 64, VDRV_NEXT, 1);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 64, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "entropy request with a buffer that is not to be written");
	b = bed_new(8, 0);
	vdrv_desc(&b->v, b->v.desc, 0, OB_MIB - 32, 64, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "buffer is not inside RAM");
	b = bed_new(8, 0);
	vdrv_desc(&b->v, b->v.desc, 0, DATA, 64, VDRV_WRITE | VDRV_NEXT, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	broke(b, "descriptor chain is a loop");
}

Test(rng, resets_in_the_middle_of_work)
{
	struct bed *b = bed_new(64, 0);
	uint32_t id, len;

	for (int round = 0; round < 300; round++) {
		for (unsigned int i = 0; i < 64; i++)
			vdrv_desc(&b->v, b->v.desc, i, DATA, 4096, VDRV_WRITE, 0);
		for (uint16_t i = 0; i < 64; i++)
			vdrv_offer(&b->v, i);
		vdrv_kick(&b->v);
		cr_assert_eq(vdrv_init(&b->v, &b->rng.dev, &b->gm, 64, gpa(RINGS), 0), 15);
	}
	vdrv_desc(&b->v, b->v.desc, 0, DATA, 64, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &len), "and it still works");
	bed_free(b);
}
