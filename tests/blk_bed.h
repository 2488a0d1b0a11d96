/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_bed.h: a disk, its worker thread and a driver by hand, over a real file. Guest memory is that of the
 * fake host, so the model can be asked what a read under way has done to a page.
 */
#ifndef OVERBOOK_TESTS_BLK_BED_H
#define OVERBOOK_TESTS_BLK_BED_H

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

struct blk_bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_blk blk;
	struct vdrv v;
	unsigned char *image;
	int fd;	  /* the file, for the test */
	int disk; /* and for the disk: to be read only */
};

void blk_bed_nap(void);
/* A file without a name that holds @len bytes; and one that is open, once more, to be read only. */
int blk_bed_file(const void *data, size_t len);
int blk_bed_reopen(int fd);

struct blk_bed *blk_bed_new(uint16_t queue, uint64_t features);
/* All but the disk, which is gone already. */
void blk_bed_free_rest(struct blk_bed *b);
void blk_bed_free(struct blk_bed *b);

unsigned char *blk_bed_ram(struct blk_bed *b, uint64_t at);
void blk_bed_header(struct blk_bed *b, unsigned int slot, uint32_t type, uint64_t sector);
/* Header, one data buffer (none when @len is 0), status: from descriptor @slot * 3. */
void blk_bed_offer(struct blk_bed *b, unsigned int slot, uint32_t type, uint64_t sector,
		   uint64_t at, uint32_t len);
/* One request, start to end. Returns its status. */
unsigned int blk_bed_request(struct blk_bed *b, uint32_t type, uint64_t sector, uint64_t at,
			     uint32_t len, uint32_t *written);
/* Wait until the device is broken, see why, and free it. */
void blk_bed_broke(struct blk_bed *b, const char *why);

#endif
