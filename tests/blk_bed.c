/* SPDX-License-Identifier: Apache-2.0 */
/* blk_bed.c: see blk_bed.h. */
#include "tests/blk_bed.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void blk_bed_nap(void)
{
	struct timespec ts = {.tv_nsec = 1000000};

	nanosleep(&ts, NULL);
}

int blk_bed_file(const void *data, size_t len)
{
	char path[] = "/tmp/ob-blk-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	unlink(path);
	cr_assert_eq(write(fd, data, len), (ssize_t)len);
	return fd;
}

int blk_bed_reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	return fd;
}

struct blk_bed *blk_bed_new(uint16_t queue, uint64_t features)
{
	struct blk_bed *b = calloc(1, sizeof(*b));
	unsigned int seed = 7;
	struct ob_err e;

	b->image = malloc(FILE_LEN);
	for (size_t i = 0; i < FILE_LEN; i++)
		b->image[i] = (unsigned char)rand_r(&seed);
	b->fd = blk_bed_file(b->image, FILE_LEN);
	b->disk = blk_bed_reopen(b->fd);
	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	cr_assert_eq(virtio_blk_init(&b->blk, NULL, &b->gm, b->worker, b->disk, &e), 0, "%s",
		     e.msg);
	cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, queue, gpa(RINGS), features), 15);
	return b;
}

void blk_bed_free_rest(struct blk_bed *b)
{
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	close(b->fd);
	close(b->disk);
	free(b->image);
	free(b);
}

void blk_bed_free(struct blk_bed *b)
{
	virtio_blk_exit(&b->blk);
	blk_bed_free_rest(b);
}

unsigned char *blk_bed_ram(struct blk_bed *b, uint64_t at)
{
	return gmem_ptr(&b->gm, gpa(at), 1);
}

void blk_bed_header(struct blk_bed *b, unsigned int slot, uint32_t type, uint64_t sector)
{
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} h = {type, 0, sector};

	cr_assert_eq(gmem_write(&b->gm, gpa(HEADERS + 16 * slot), &h, sizeof(h)), 0);
	*blk_bed_ram(b, STATUS + slot) = UNTOUCHED;
}

void blk_bed_offer(struct blk_bed *b, unsigned int slot, uint32_t type, uint64_t sector,
		   uint64_t at, uint32_t len)
{
	unsigned int i = slot * 3;

	blk_bed_header(b, slot, type, sector);
	vdrv_desc(&b->v, b->v.desc, i, HEADERS + 16 * slot, 16, VDRV_NEXT,
		  (uint16_t)(len ? i + 1 : i + 2));
	vdrv_desc(&b->v, b->v.desc, i + 1, at, len, VDRV_NEXT | (type == T_OUT ? 0 : VDRV_WRITE),
		  (uint16_t)(i + 2));
	vdrv_desc(&b->v, b->v.desc, i + 2, STATUS + slot, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, (uint16_t)i);
}

unsigned int blk_bed_request(struct blk_bed *b, uint32_t type, uint64_t sector, uint64_t at,
			     uint32_t len, uint32_t *written)
{
	uint32_t id;

	blk_bed_offer(b, 0, type, sector, at, len);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, written), "no answer");
	cr_assert_eq(id, 0);
	return *blk_bed_ram(b, STATUS);
}

void blk_bed_broke(struct blk_bed *b, const char *why)
{
	for (int i = 0; i < 20000 && !(vdrv_get(&b->blk.dev, VDRV_STATUS) & VDRV_S_NEEDS_RESET);
	     i++)
		blk_bed_nap();
	cr_assert(b->blk.dev.broken, "should say: %s", why);
	cr_assert_str_eq(b->blk.dev.why, why);
	blk_bed_free(b);
}
