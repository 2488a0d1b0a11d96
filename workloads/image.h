/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h: the disk image that the guests read, as mkimage writes it and the microguest reads it.
 * Page 0 is the super block; then the file table, the checksum table (one 8-byte checksum for each
 * data page), then the data, each file starting on a page and padded with zero bytes. All offsets
 * are in pages of 4096 bytes from the start of the image. Little-endian. Needs <stdint.h> only.
 */
#ifndef OVERBOOK_WORKLOADS_IMAGE_H
#define OVERBOOK_WORKLOADS_IMAGE_H

#include <stdint.h>

#define IMAGE_MAGIC   0x314547414d49424fULL /* "OBIMAGE1" */
#define IMAGE_VERSION 1
#define IMAGE_NAME    48

struct image_super {
	uint64_t magic;
	uint64_t version;
	uint64_t total_pages; /* of the whole image */
	uint64_t nfiles;
	uint64_t files_page; /* first page of the file table */
	uint64_t sums_page;  /* first page of the checksum table */
	uint64_t data_page;  /* first data page */
	uint64_t data_pages;
	uint64_t
		super_sum; /* image_checksum of files and sums tables' pages, folded (image_fold) */
};

struct image_file {
	uint64_t first; /* data page number, counted from data_page */
	uint64_t pages;
	char name[IMAGE_NAME]; /* tail of the path, NUL-terminated */
};
_Static_assert(sizeof(struct image_file) == 64, "64 files a page");

/*
 * Checksum of one page (512 words). Deliberately not the hash that the merging engine uses, so that
 * a fault of one is not hidden by the other. Position-dependent in each word: four lanes of
 * multiply-rotate, folded.
 */
static inline uint64_t image_rotl(uint64_t x, int r)
{
	return (x << r) | (x >> (64 - r));
}

static inline uint64_t image_checksum(const uint64_t *w)
{
	uint64_t a = 0x9e3779b97f4a7c15ULL, b = 0xbf58476d1ce4e5b9ULL;
	uint64_t c = 0x94d049bb133111ebULL, d = 0xd6e8feb86659fd93ULL;

	for (unsigned int i = 0; i < 512; i += 4) {
		a = image_rotl((a ^ w[i]) * 0x9fb21c651e98df25ULL, 29);
		b = image_rotl((b ^ w[i + 1]) * 0xa0761d6478bd642fULL, 31);
		c = image_rotl((c ^ w[i + 2]) * 0xe7037ed1a0b428dbULL, 33);
		d = image_rotl((d ^ w[i + 3]) * 0x8ebc6af09c88c6e3ULL, 37);
	}
	a ^= image_rotl(b, 17) ^ image_rotl(c, 34) ^ image_rotl(d, 51);
	a ^= a >> 32;
	a *= 0xd6e8feb86659fd93ULL;
	a ^= a >> 32;
	return a;
}

/* Fold the checksum of one more page into a sum over many; start with 0. Depends on their order. */
static inline uint64_t image_fold(uint64_t sum, uint64_t page_sum)
{
	return image_rotl(sum ^ page_sum, 23) * 0x9fb21c651e98df25ULL + 1;
}

#endif
