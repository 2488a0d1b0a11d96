/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zero_page.c: what a bzImage finds when it is entered in 64-bit mode: boot_params ("zero page",
 * Documentation/arch/x86/zero-page.rst), whose address is in rsi, and beneath it a GDT with
 * __BOOT_CS and __BOOT_DS and page tables in which each address is itself. They map the first
 * 4 GiB, in which all that the loader writes lies; the kernel brings its own for what is above.
 */
#include <string.h>

#include "kernel/boot_int.h"

/* Offsets in boot_params. */
#define ZP_ACPI_RSDP	    0x070
#define ZP_EXT_RAMDISK	    0x0c0
#define ZP_EXT_RAMDISK_SIZE 0x0c4
#define ZP_EXT_CMD_LINE	    0x0c8
#define ZP_E820_ENTRIES	    0x1e8
#define ZP_HEADER	    0x1f1
#define ZP_LOADER	    0x210
#define ZP_LOADFLAGS	    0x211
#define ZP_CODE32_START	    0x214
#define ZP_RAMDISK	    0x218
#define ZP_RAMDISK_SIZE	    0x21c
#define ZP_CMD_LINE	    0x228
#define ZP_SETUP_DATA	    0x250
#define ZP_E820_TABLE	    0x2d0
#define ZP_E820_SIZE	    20

#define LOADER_UNKNOWN 0xff /* no number is assigned to us */
#define LOADED_HIGH    0x01
#define QUIET_FLAG     0x20 /* of the file's loadflags, the one that is the kernel's own wish */
#define RSDP_SINCE     0x20e

static void set(unsigned char *page, unsigned int off, uint64_t v, unsigned int bytes)
{
	memcpy(page + off, &v, bytes);
}

/* A value whose upper half has a field of its own. */
static void set_split(unsigned char *page, unsigned int low, unsigned int high, uint64_t v)
{
	set(page, low, v & UINT32_MAX, 4);
	set(page, high, v >> 32, 4);
}

void zero_page_build(const struct zero_page_info *info, void *page)
{
	unsigned char *p = page;
	const char *file = info->file;

	OB_ASSERT(info->bz->header_end >= ZP_HEADER && info->map->n <= E820_MAX);
	memset(p, 0, OB_PAGE_SIZE);
	memcpy(p + ZP_HEADER, file + ZP_HEADER, info->bz->header_end - ZP_HEADER);
	p[ZP_LOADER] = LOADER_UNKNOWN;
	p[ZP_LOADFLAGS] = (p[ZP_LOADFLAGS] & QUIET_FLAG) | LOADED_HIGH;
	set(p, ZP_CODE32_START, info->kernel_gpa, 4);
	set(p, ZP_SETUP_DATA, 0, 8);
	set_split(p, ZP_CMD_LINE, ZP_EXT_CMD_LINE, info->cmdline_gpa);
	set_split(p, ZP_RAMDISK, ZP_EXT_RAMDISK, info->initrd_len ? info->initrd_gpa : 0);
	set_split(p, ZP_RAMDISK_SIZE, ZP_EXT_RAMDISK_SIZE, info->initrd_len);
	/* Earlier kernels look for it where BIOSes put it, and find it there (ACPI_GPA). */
	if (info->bz->version >= RSDP_SINCE)
		set(p, ZP_ACPI_RSDP, info->rsdp, 8);
	p[ZP_E820_ENTRIES] = (unsigned char)info->map->n;
	for (unsigned int i = 0; i < info->map->n; i++) {
		const struct e820_entry *en = &info->map->entry[i];
		unsigned int at = ZP_E820_TABLE + i * ZP_E820_SIZE;

		set(p, at, en->addr, 8);
		set(p, at + 8, en->size, 8);
		set(p, at + 16, (uint64_t)en->type, 4);
	}
}

#define PTE_TABLE   0x003ULL /* present, writable */
#define PTE_LARGE   0x083ULL /* present, writable, of 2 MiB */
#define LARGE_SHIFT 21
#define PER_TABLE   512
#define DIRECTORIES 4 /* of 1 GiB each */

#define GDT_CODE_64 0x00af9b000000ffffULL /* flat, 64-bit, execute and read, accessed */
#define GDT_DATA    0x00cf93000000ffffULL /* flat, read and write, accessed */
#define BOOT_CS	    0x10
#define BOOT_DS	    0x18

int long_mode_write(struct gmem *mem, struct boot_entry *out)
{
	const uint64_t gdt[] = {0, 0, GDT_CODE_64, GDT_DATA};
	uint64_t at = BOOT_PAGE_TABLES_GPA, table[PER_TABLE] = {(at + OB_PAGE_SIZE) | PTE_TABLE};
	int r;

	r = load_write(mem, gpa(BOOT_GDT_GPA), gdt, sizeof(gdt));
	if (!r)
		r = load_write(mem, gpa(at), table, sizeof(table));
	for (uint64_t i = 0; i < DIRECTORIES; i++)
		table[i] = (at + (2 + i) * OB_PAGE_SIZE) | PTE_TABLE;
	if (!r)
		r = load_write(mem, gpa(at + OB_PAGE_SIZE), table, sizeof(table));
	for (uint64_t d = 0; d < DIRECTORIES && !r; d++) {
		for (uint64_t i = 0; i < PER_TABLE; i++)
			table[i] = (d * PER_TABLE + i) << LARGE_SHIFT | PTE_LARGE;
		r = load_write(mem, gpa(at + (2 + d) * OB_PAGE_SIZE), table, sizeof(table));
	}
	out->long_mode = true;
	out->cr3 = at;
	out->gdt_base = BOOT_GDT_GPA;
	out->gdt_limit = sizeof(gdt) - 1;
	out->code_selector = BOOT_CS;
	out->data_selector = BOOT_DS;
	return r;
}
