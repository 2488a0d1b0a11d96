/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_blk_hint.c: what a disk says of the blocks that it has read into guest memory: whole pages of
 * the one in whole pages of the other, when all of the request is done, and nothing else. And disks
 * that may be written: what is written is in the file, and blocks that it touches are named.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RAM	(4 * OB_MIB)
#define RINGS	0x1000
#define HEADER	0x10000
#define STATUS	0x18000
#define DATA	0x100000
#define BLOCKS	64
#define SECTORS (BLOCKS * 8)

struct said {
	uint64_t page, n, block;
};

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_blk blk;
	struct vdrv v;
	unsigned char *image;
	int fd;
	int disk; /* another descriptor of it, as the disk has it */
	struct said said[16];
	unsigned int n;
	struct said wrote; /* the last blocks written */
	unsigned int nwrote;
	bool answered_before; /* a hint came when the guest had its answer already */
};

static void on_read(void *arg, uint64_t page, uint64_t n, uint64_t block)
{
	struct bed *b = arg;

	cr_assert_lt(b->n, OB_ARRAY_SIZE(b->said));
	b->said[b->n++] = (struct said){page, n, block};
	b->answered_before |= *(unsigned char *)gmem_ptr(&b->gm, gpa(STATUS), 1) != 0xff;
	/* It is all there, and no bracket is held over it. */
	cr_assert_arr_eq(gmem_ptr(&b->gm, gpa(page << OB_PAGE_SHIFT), 1),
			 b->image + (block << OB_PAGE_SHIFT), n << OB_PAGE_SHIFT);
}

static void on_written(void *arg, uint64_t block, uint64_t n)
{
	struct bed *b = arg;

	b->wrote = (struct said){.block = block, .n = n};
	b->nwrote++;
	b->answered_before |= *(unsigned char *)gmem_ptr(&b->gm, gpa(STATUS), 1) != 0xff;
}

static const struct blk_hint_ops hint_ops = {.read = on_read, .written = on_written};

static struct bed *bed_open(bool writable)
{
	struct bed *b = calloc(1, sizeof(*b));
	char path[] = "/tmp/ob-blk-XXXXXX";
	unsigned int seed = 7;
	struct ob_err e;

	b->image = malloc(BLOCKS * OB_PAGE_SIZE);
	for (size_t i = 0; i < BLOCKS * OB_PAGE_SIZE; i++)
		b->image[i] = (unsigned char)rand_r(&seed);
	b->fd = mkstemp(path);
	cr_assert_geq(b->fd, 0);
	b->disk = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	cr_assert_geq(b->disk, 0);
	unlink(path);
	cr_assert_eq(write(b->fd, b->image, BLOCKS * OB_PAGE_SIZE), BLOCKS * OB_PAGE_SIZE);
	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	cr_assert_eq(virtio_blk_init(&b->blk, NULL, &b->gm, b->worker, b->disk, &e), 0, "%s",
		     e.msg);
	virtio_blk_on_io(&b->blk, &hint_ops, b);
	cr_assert_eq(vdrv_init(&b->v, &b->blk.dev, &b->gm, 64, gpa(RINGS), 0), 15);
	return b;
}

static struct bed *bed_new(void)
{
	return bed_open(false);
}

static void bed_free(struct bed *b)
{
	cr_assert(!b->answered_before, "a guest that has its answer may write already");
	virtio_blk_exit(&b->blk);
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	close(b->fd);
	close(b->disk);
	free(b->image);
	free(b);
}

/* One read of @n buffers from @sector on. Returns its status; b->said is what was said meanwhile. */
static unsigned int read_into(struct bed *b, uint64_t sector, const uint64_t *at,
			      const uint32_t *len, unsigned int n)
{
	const struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header = {0, 0, sector};
	unsigned char *status = gmem_ptr(&b->gm, gpa(STATUS), 1);
	uint32_t id, written;

	b->n = 0;
	*status = 0xff;
	cr_assert_eq(gmem_write(&b->gm, gpa(HEADER), &header, sizeof(header)), 0);
	vdrv_desc(&b->v, b->v.desc, 0, HEADER, 16, VDRV_NEXT, 1);
	for (unsigned int i = 0; i < n; i++)
		vdrv_desc(&b->v, b->v.desc, i + 1, at[i], len[i], VDRV_NEXT | VDRV_WRITE,
			  (uint16_t)(i + 2));
	vdrv_desc(&b->v, b->v.desc, n + 1, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written), "no answer");
	return *status;
}

static unsigned int read_one(struct bed *b, uint64_t sector, uint64_t at, uint32_t len)
{
	return read_into(b, sector, &at, &len, 1);
}

static void said(const struct bed *b, unsigned int i, uint64_t page, uint64_t n, uint64_t block)
{
	cr_assert_lt(i, b->n, "only %u were said", b->n);
	cr_assert_eq(b->said[i].page, page);
	cr_assert_eq(b->said[i].n, n);
	cr_assert_eq(b->said[i].block, block);
}

Test(blk_hint, whole_pages_are_named)
{
	struct bed *b = bed_new();

	cr_assert_eq(read_one(b, 0, DATA, 4096), 0);
	cr_assert_eq(b->n, 1);
	said(b, 0, DATA >> 12, 1, 0);
	cr_assert_eq(read_one(b, 5 * 8, DATA + 0x3000, 7 * 4096), 0);
	cr_assert_eq(b->n, 1, "a buffer is one word, however long");
	said(b, 0, (DATA >> 12) + 3, 7, 5);
	cr_assert_eq(read_one(b, SECTORS - 8, DATA, 4096), 0);
	said(b, 0, DATA >> 12, 1, BLOCKS - 1);
	bed_free(b);
}

Test(blk_hint, of_a_longer_read_the_whole_pages_inside)
{
	struct bed *b = bed_new();

	/* From the middle of a page and block to the middle of another. */
	cr_assert_eq(read_one(b, 4, DATA + 2048, 3 * 4096), 0);
	cr_assert_eq(b->n, 1);
	said(b, 0, (DATA >> 12) + 1, 2, 1);
	cr_assert_eq(read_one(b, 1, DATA + 512, 4096 + 3584), 0);
	cr_assert_eq(b->n, 1);
	said(b, 0, (DATA >> 12) + 1, 1, 1);
	bed_free(b);
}

Test(blk_hint, nothing_of_unaligned_or_short_reads)
{
	struct bed *b = bed_new();

	cr_assert_eq(read_one(b, 1, DATA, 2 * 4096), 0, "the block begins elsewhere");
	cr_assert_eq(b->n, 0);
	cr_assert_eq(read_one(b, 0, DATA + 512, 2 * 4096), 0, "the page begins elsewhere");
	cr_assert_eq(b->n, 0);
	cr_assert_eq(read_one(b, 0, DATA, 4096 - 512), 0, "short by a sector");
	cr_assert_eq(b->n, 0);
	cr_assert_eq(read_one(b, 1, DATA + 512, 3584), 0, "the end of a page");
	cr_assert_eq(b->n, 0);
	cr_assert_eq(read_one(b, SECTORS - 8, DATA, 8192), 1, "beyond the disk");
	cr_assert_eq(b->n, 0);
	bed_free(b);
}

Test(blk_hint, pages_put_together_from_several_buffers_are_not_named)
{
	const uint64_t half[] = {DATA, DATA + 2048, DATA + 4096};
	const uint32_t len[] = {2048, 2048, 4096};
	struct bed *b = bed_new();

	cr_assert_eq(read_into(b, 8, half, len, 3), 0);
	cr_assert_eq(b->n, 1, "the last one is whole");
	said(b, 0, (DATA >> 12) + 1, 1, 2);
	bed_free(b);
}

Test(blk_hint, scattered_pages_each_have_their_block)
{
	const uint64_t at[] = {DATA + 0x8000, DATA, DATA + 0x2000};
	const uint32_t len[] = {4096, 8192, 4096};
	struct bed *b = bed_new();

	cr_assert_eq(read_into(b, 10 * 8, at, len, 3), 0);
	cr_assert_eq(b->n, 3);
	said(b, 0, (DATA >> 12) + 8, 1, 10);
	said(b, 1, DATA >> 12, 2, 11);
	said(b, 2, (DATA >> 12) + 2, 1, 13);
	bed_free(b);
}

Test(blk_hint, a_read_that_fails_names_nothing)
{
	struct bed *b = bed_new();

	/* The file has shrunk: the first half of what is asked for is still there. */
	cr_assert_eq(ftruncate(b->fd, 8 * 4096), 0);
	cr_assert_eq(read_one(b, 6 * 8, DATA, 4 * 4096), 1);
	cr_assert_eq(b->n, 0);
	cr_assert_eq(read_one(b, 6 * 8, DATA, 2 * 4096), 0);
	said(b, 0, DATA >> 12, 2, 6);
	virtio_blk_on_io(&b->blk, NULL, NULL);
	cr_assert_eq(read_one(b, 0, DATA, 4096), 0, "nobody listens");
	cr_assert_eq(b->n, 0);
	bed_free(b);
}

#define T_OUT	1
#define T_FLUSH 4
#define S_OK	0
#define S_IOERR 1
#define F_RO	(1u << 5)
#define F_FLUSH (1u << 9)
#define STREAM	0x40000 /* where a write's header and data are */

/* Write @len bytes at @sector: a stream of header and data, cut into buffers of @cut bytes. */
static unsigned int write_cut(struct bed *b, uint32_t type, uint64_t sector, const void *data,
			      uint32_t len, uint32_t cut)
{
	const struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header = {type, 0, sector};
	unsigned char *status = gmem_ptr(&b->gm, gpa(STATUS), 1);
	uint32_t id, written, left = len + 16, at = STREAM;
	uint16_t d = 0;

	*status = 0xff;
	memcpy(gmem_ptr(&b->gm, gpa(STREAM), 16), &header, 16);
	if (len)
		memcpy(gmem_ptr(&b->gm, gpa(STREAM + 16), len), data, len);
	for (; left; d++) {
		uint32_t n = OB_MIN(left, cut);

		vdrv_desc(&b->v, b->v.desc, d, at, n, VDRV_NEXT, (uint16_t)(d + 1));
		at += n;
		left -= n;
	}
	vdrv_desc(&b->v, b->v.desc, d, STATUS, 1, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 0);
	vdrv_kick(&b->v);
	cr_assert(vdrv_wait_used(&b->v, &id, &written), "no answer");
	cr_assert_eq(written, 1);
	return *status;
}

static void file_is_image(struct bed *b)
{
	unsigned char *now = malloc(BLOCKS * OB_PAGE_SIZE);

	cr_assert_eq(pread(b->fd, now, BLOCKS * OB_PAGE_SIZE, 0), BLOCKS * OB_PAGE_SIZE);
	cr_assert_arr_eq(now, b->image, BLOCKS * OB_PAGE_SIZE);
	free(now);
}

static uint32_t features(struct bed *b)
{
	vdrv_set(&b->blk.dev, VDRV_DEV_FEATURES_SEL, 0);
	return vdrv_get(&b->blk.dev, VDRV_DEV_FEATURES);
}

Test(blk_write, what_is_written_is_in_the_file_and_named)
{
	static const struct {
		uint64_t sector, block, n;
		uint32_t len;
	} c[] = {
		{0, 0, 1, 512},
		{8, 1, 1, 4096},
		{15, 1, 2, 1024},
		{4, 0, 3, 8192},
		{SECTORS - 1, BLOCKS - 1, 1, 512},
		{16, 2, 2, 8192},
	};
	struct bed *b = bed_open(true);
	unsigned int seed = 3;
	unsigned char data[8192];

	cr_assert_eq(features(b) & (F_RO | F_FLUSH), F_FLUSH);
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(c); i++) {
		for (uint32_t k = 0; k < c[i].len; k++)
			data[k] = (unsigned char)rand_r(&seed);
		memcpy(b->image + c[i].sector * 512, data, c[i].len);
		cr_assert_eq(write_cut(b, T_OUT, c[i].sector, data, c[i].len, 9000), S_OK);
		cr_assert_eq(b->nwrote, i + 1);
		cr_assert_eq(b->wrote.block, c[i].block);
		cr_assert_eq(b->wrote.n, c[i].n);
		file_is_image(b);
	}
	cr_assert_eq(b->blk.written_bytes, 512 + 4096 + 1024 + 8192 + 512 + 8192);
	/* And is what is read, under its block's name. */
	cr_assert_eq(read_one(b, 8, DATA, 4096), S_OK);
	said(b, 0, DATA >> 12, 1, 1);
	cr_assert_eq(write_cut(b, T_FLUSH, 0, NULL, 0, 16), S_OK);
	bed_free(b);
}

Test(blk_write, buffers_may_be_cut_anywhere)
{
	struct bed *b = bed_open(true);
	unsigned int seed = 5;
	unsigned char data[4096];

	/* Small ones end in the middle of the header. */
	for (uint32_t cut = 9; cut < 5000; cut += cut < 40 ? 1 : 311) {
		uint64_t sector = (uint64_t)rand_r(&seed) % (SECTORS - 8);
		uint32_t len = cut < 100 ? 512 : 4096;

		for (uint32_t k = 0; k < len; k++)
			data[k] = (unsigned char)rand_r(&seed);
		memcpy(b->image + sector * 512, data, len);
		cr_assert_eq(write_cut(b, T_OUT, sector, data, len, cut), S_OK, "cut %u", cut);
		file_is_image(b);
	}
	/* Header alone in three buffers, nothing to write behind it. */
	b->nwrote = 0;
	cr_assert_eq(write_cut(b, T_OUT, 3, NULL, 0, 7), S_OK);
	cr_assert_eq(b->nwrote, 0, "nothing was written");
	file_is_image(b);
	bed_free(b);
}

Test(blk_write, what_may_not_be_written_is_not)
{
	const uint64_t sector[] = {SECTORS, SECTORS - 1, UINT64_MAX, UINT64_MAX / 512, 1ULL << 55};
	struct bed *b = bed_open(true);
	unsigned char data[1024] = {1};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(sector); i++)
		cr_assert_eq(write_cut(b, T_OUT, sector[i], data, 1024, 9000), S_IOERR);
	cr_assert_eq(write_cut(b, T_OUT, 0, data, 511, 9000), S_IOERR, "not whole sectors");
	cr_assert_eq(b->nwrote, 0);
	file_is_image(b);
	bed_free(b);

	b = bed_open(false);
	cr_assert_eq(features(b) & (F_RO | F_FLUSH), F_RO);
	cr_assert_eq(write_cut(b, T_OUT, 0, data, 512, 9000), S_IOERR, "read-only");
	cr_assert_eq(write_cut(b, T_FLUSH, 0, NULL, 0, 16), S_OK);
	cr_assert_eq(b->nwrote, 0);
	file_is_image(b);
	bed_free(b);
}
