/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_elf.c: libFuzzer target: any bytes as a kernel. What elf_parse accepts must be as vm.h says,
 * and what elf_load accepts must be in RAM afterwards, and nothing else. Reads and writes out of
 * bounds are found by the address sanitizer: file and RAM are each an allocation of their own.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/vm.h"

#define RAM_START OB_MIB
#define RAM_BYTES (64 * OB_KIB)
#define FILLER	  0xa5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool inside_one(const struct elf_image *img, uint64_t addr)
{
	for (unsigned int i = 0; i < img->nseg; i++)
		if (addr - img->seg[i].paddr < img->seg[i].mem_size)
			return true;
	return false;
}

static void check_image(const struct elf_image *img, size_t len)
{
	OB_ASSERT(img->nseg && img->nseg <= ELF_MAX_SEGMENTS);
	for (unsigned int i = 0; i < img->nseg; i++) {
		const struct elf_segment *a = &img->seg[i];

		OB_ASSERT(a->file_off <= len && a->file_size <= len - a->file_off);
		OB_ASSERT(a->file_size <= a->mem_size && a->mem_size);
		OB_ASSERT(a->paddr + a->mem_size > a->paddr);
		for (unsigned int k = 0; k < i; k++) {
			const struct elf_segment *b = &img->seg[k];

			OB_ASSERT(a->paddr + a->mem_size <= b->paddr ||
				  b->paddr + b->mem_size <= a->paddr);
		}
	}
	OB_ASSERT(inside_one(img, img->entry));
	OB_ASSERT(!img->has_pvh || inside_one(img, img->pvh_entry));
}

/* What RAM should hold: byte by byte from the segments. */
static void check_ram(const struct elf_image *img, const uint8_t *file, const uint8_t *ram,
		      bool loaded)
{
	uint8_t *want = malloc(RAM_BYTES);

	memset(want, FILLER, RAM_BYTES);
	for (unsigned int i = 0; loaded && i < img->nseg; i++) {
		const struct elf_segment *s = &img->seg[i];

		for (uint64_t k = 0; k < s->mem_size; k++)
			want[s->paddr - RAM_START + k] =
				k < s->file_size ? file[s->file_off + k] : 0;
	}
	OB_ASSERT(!memcmp(want, ram, RAM_BYTES));
	free(want);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct elf_image img;
	struct gmem mem = {.nregions = 1, .pages = RAM_BYTES / OB_PAGE_SIZE};
	struct ob_err e = {""};
	uint8_t *ram;
	int rc = elf_parse(data, len, &img, &e);

	if (rc) {
		OB_ASSERT(e.msg[0] && !strchr(e.msg, '\n'));
		return 0;
	}
	check_image(&img, len);
	ram = aligned_alloc(OB_PAGE_SIZE, RAM_BYTES);
	memset(ram, FILLER, RAM_BYTES);
	mem.region[0] =
		(struct gmem_region){.gpa = gpa(RAM_START), .hva = hva_of(ram), .size = RAM_BYTES};
	rc = elf_load(&img, data, len, &mem, &e);
	check_ram(&img, data, ram, rc == 0);
	free(ram);
	return 0;
}
