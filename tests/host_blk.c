/* SPDX-License-Identifier: Apache-2.0 */
/* host_blk.c: what a disk answers, what stops it, and resets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/blk_bed.h"

Test(blk, only_disks_are_taken)
{
	struct virtio_blk blk;
	struct ob_err e;
	int fd = blk_bed_file("x", 1), pipes[2];

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
	struct blk_bed *b = blk_bed_new(16, 0);
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
	blk_bed_free(b);
}

Test(blk, reads_are_what_the_file_holds)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	const uint64_t sector[] = {0, 1, 7, SECTORS - 1, SECTORS - 8};
	const uint32_t count[] = {1, 3, 8};
	uint32_t written;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sector); i++)
		for (unsigned int k = 0; k < OB_ARRAY_SIZE(count); k++) {
			uint32_t len = count[k] * 512;
			/* To odd addresses too: no alignment is asked of a driver. */
			uint64_t at = DATA + i * 0x4000 + k * 13;
			bool fits = sector[i] + count[k] <= SECTORS;

			memset(blk_bed_ram(b, at), UNTOUCHED, len + 1);
			cr_assert_eq(blk_bed_request(b, T_IN, sector[i], at, len, &written),
				     fits ? S_OK : S_IOERR);
			cr_assert_eq(written, fits ? len + 1 : 0);
			if (fits)
				cr_assert_arr_eq(blk_bed_ram(b, at), b->image + sector[i] * 512,
						 len);
			else
				cr_assert_eq(*blk_bed_ram(b, at), UNTOUCHED);
			cr_assert_eq(*blk_bed_ram(b, at + len), UNTOUCHED);
		}
	cr_assert_eq(vdrv_get(&b->blk.dev, VDRV_IRQ_STATUS), 1);
	blk_bed_free(b);
}

Test(blk, the_range_is_checked_without_wrapping)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	const uint64_t sector[] = {SECTORS,	     SECTORS + 1,	   UINT64_MAX,
				   UINT64_MAX / 512, UINT64_MAX / 512 + 1, 1ULL << 55,
				   UINT64_MAX - 1};
	uint32_t written;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sector); i++)
		cr_assert_eq(blk_bed_request(b, T_IN, sector[i], DATA, 1024, &written), S_IOERR);
	cr_assert_eq(blk_bed_request(b, T_IN, 0, DATA, 511, &written), S_IOERR,
		     "not whole sectors");
	cr_assert_eq(blk_bed_request(b, T_IN, 0, DATA, 513, &written), S_IOERR);
	cr_assert_eq(blk_bed_request(b, T_IN, 0, DATA, OB_MIB, &written), S_IOERR,
		     "more than there is");
	cr_assert_eq(b->blk.rejected, 10);
	cr_assert_eq(b->blk.read_bytes, 0);
	blk_bed_free(b);
}

Test(blk, other_requests)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	uint32_t written;
	unsigned char byte;

	cr_assert_eq(blk_bed_request(b, T_OUT, 0, DATA, 512, &written), S_IOERR, "read-only");
	cr_assert_eq(written, 1);
	cr_assert_eq(pread(b->fd, &byte, 1, 0), 1);
	cr_assert_eq(byte, b->image[0]);
	cr_assert_eq(blk_bed_request(b, T_FLUSH, 0, 0, 0, &written), S_OK);
	cr_assert_eq(blk_bed_request(b, 11, 0, DATA, 512, &written), S_UNSUPP, "discard");
	cr_assert_eq(blk_bed_request(b, UINT32_MAX, 0, DATA, 512, &written), S_UNSUPP);
	memset(blk_bed_ram(b, DATA), UNTOUCHED, 64);
	cr_assert_eq(blk_bed_request(b, T_GET_ID, 0, DATA, 20, &written), S_OK);
	cr_assert_eq(written, 21);
	cr_assert_str_eq((char *)blk_bed_ram(b, DATA), "overbook-disk");
	cr_assert_eq(*blk_bed_ram(b, DATA + 19), 0);
	cr_assert_eq(*blk_bed_ram(b, DATA + 20), UNTOUCHED);
	cr_assert_eq(blk_bed_request(b, T_GET_ID, 0, DATA, 19, &written), S_IOERR);
	blk_bed_free(b);
}

Test(blk, buffers_may_be_cut_anywhere)
{
	const unsigned int first_seed = 31;
	unsigned int seed = first_seed;
	struct blk_bed *b = blk_bed_new(VIRTQ_MAX, VIRTIO_F_INDIRECT_DESC);
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
		blk_bed_header(b, 0, T_IN, from);
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
			memset(blk_bed_ram(b, at), UNTOUCHED, len + 1);
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
			memcpy(p, blk_bed_ram(b, seg[k].at), seg[k].len);
			p += seg[k].len;
		}
		cr_assert_eq(p[-1], S_OK, "seed %u round %d", first_seed, round);
		cr_assert_arr_eq(got, b->image + from * 512, sectors * 512, "seed %u round %d",
				 first_seed, round);
		free(got);
	}
	blk_bed_free(b);
}

Test(blk, many_requests_are_answered_in_order)
{
	struct blk_bed *b = blk_bed_new(VIRTQ_MAX, 0);
	const unsigned int n = 80; /* more than one turn of the worker */
	uint32_t id, written;

	for (unsigned int i = 0; i < n; i++)
		blk_bed_offer(b, i, T_IN, i * 3, DATA + i * 4096, 1024);
	vdrv_kick(&b->v);
	for (unsigned int i = 0; i < n; i++) {
		cr_assert(vdrv_wait_used(&b->v, &id, &written));
		cr_assert_eq(id, i * 3);
		cr_assert_eq(*blk_bed_ram(b, STATUS + i), S_OK);
		cr_assert_arr_eq(blk_bed_ram(b, DATA + i * 4096), b->image + i * 3 * 512, 1024);
	}
	cr_assert_eq(b->blk.read_bytes, n * 1024);
	blk_bed_free(b);
}

Test(blk, requests_without_an_answer_stop_the_device)
{
	struct blk_bed *b = blk_bed_new(16, 0);

	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 16, 0, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	blk_bed_broke(b, "disk request without room for its status");

	b = blk_bed_new(16, 0);
	vdrv_desc(&b->v, b->v.desc, 0, HEADERS, 15, VDRV_NEXT, 1);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 513, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	blk_bed_broke(b, "disk request without a whole header");

	b = blk_bed_new(16, 0);
	blk_bed_offer(b, 0, T_IN, 0, RAM - 511, 512);
	vdrv_kick(&b->v);
	blk_bed_broke(b, "buffer is not inside RAM");

	b = blk_bed_new(16, 0);
	blk_bed_offer(b, 0, T_IN, 0, DATA, 512);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 512, VDRV_NEXT | VDRV_WRITE, 1);
	vdrv_kick(&b->v);
	blk_bed_broke(b, "descriptor chain is a loop");
}

Test(blk, a_good_request_before_a_broken_one_is_answered)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	uint32_t id, written;

	blk_bed_offer(b, 0, T_IN, 5, DATA, 512);
	vdrv_offer(&b->v, 999);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written));
	cr_assert_arr_eq(blk_bed_ram(b, DATA), b->image + 5 * 512, 512);
	blk_bed_broke(b, "first descriptor is out of range");
}

Test(blk, a_file_that_shrank_is_an_io_error)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	uint32_t written;

	cr_assert_eq(ftruncate(b->fd, 700), 0);
	cr_assert_eq(blk_bed_request(b, T_IN, 0, DATA, 512, &written), S_OK);
	cr_assert_eq(blk_bed_request(b, T_IN, 1, DATA, 512, &written), S_IOERR);
	cr_assert_eq(blk_bed_request(b, T_IN, 50, DATA, 512, &written), S_IOERR);
	blk_bed_free(b);
}

Test(blk, a_reset_waits_for_the_read_under_way)
{
	struct blk_bed *b = blk_bed_new(16, 0);
	uint32_t id, written;

	memset(blk_bed_ram(b, DATA), UNTOUCHED, 4096);
	b->blk.delay_ns = 30 * OB_NS_PER_MS;
	blk_bed_offer(b, 0, T_IN, 0, DATA, 4096);
	vdrv_kick(&b->v);
	/* Until its first half is there. */
	while (memcmp(blk_bed_ram(b, DATA), b->image, 2048))
		blk_bed_nap();
	vdrv_set(&b->blk.dev, VDRV_STATUS, 0);
	cr_assert_arr_eq(blk_bed_ram(b, DATA), b->image, 4096, "nothing is written after a reset");
	cr_assert_eq(vdrv_get(&b->blk.dev, VDRV_STATUS), 0);
	b->blk.delay_ns = 0;
	cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, 8, gpa(RINGS), 0), 15);
	cr_assert(!vdrv_used(&b->v, &id, &written), "and it starts afresh");
	cr_assert_eq(blk_bed_request(b, T_IN, 9, DATA, 512, &written), S_OK);
	blk_bed_free(b);
}

/* A driver that rings, resets and sets up again as fast as it can, against a worker with work. */
Test(blk, resets_in_the_middle_of_work)
{
	struct blk_bed *b = blk_bed_new(64, 0);
	const unsigned int first_seed = 12;
	unsigned int seed = first_seed, answered = 0;
	uint32_t id, written;

	for (int round = 0; round < 2000; round++) {
		for (unsigned int i = 0; i < 16; i++)
			blk_bed_offer(b, i, T_IN, i, DATA + i * 4096, 512);
		vdrv_kick(&b->v);
		if (rand_r(&seed) % 2)
			answered += vdrv_wait_used(&b->v, &id, &written);
		cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, 64, gpa(RINGS), 0), 15,
			     "seed %u round %d: %s", first_seed, round,
			     b->blk.dev.why ? b->blk.dev.why : "");
		cr_assert(!vdrv_used(&b->v, &id, &written));
	}
	cr_assert_gt(answered, 500);
	blk_bed_free(b);
}
