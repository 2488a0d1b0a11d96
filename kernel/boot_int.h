/* SPDX-License-Identifier: Apache-2.0 */
/* boot_int.h: between the parts of booting (boot.c and its neighbours), for nobody else. */
#ifndef OVERBOOK_KERNEL_BOOT_INT_H
#define OVERBOOK_KERNEL_BOOT_INT_H

#include "kernel/boot.h"

/* Where boot data lies below 1 MiB, beside what elf.h places there for a PVH entry. */
#define BOOT_GDT_GPA	     0x1000ULL
#define BOOT_ZERO_PAGE_GPA   0x7000ULL
#define BOOT_PAGE_TABLES_GPA 0x9000ULL /* 6 pages: 4 GiB in pages of 2 MiB */
#define BOOT_CMDLINE_GPA     PVH_CMDLINE_GPA
#define BOOT_LOWEST_KERNEL   OB_MIB

/* --- load.c: writing guest memory -------------------------------------------------------- */

/* Copy @len bytes of @buf to @at; what is zero there and in @buf is not touched. 0 or -EFAULT. */
int load_write(struct gmem *mem, gpa_t at, const void *buf, uint64_t len);
/* Make [at, at + len) zero. 0 or -EFAULT. */
int load_zero(struct gmem *mem, gpa_t at, uint64_t len);

/* --- e820.c: the memory map -------------------------------------------------------------- */

enum e820_type {
	E820_RAM = 1,
	E820_RESERVED = 2,
};

#define E820_MAX (GMEM_MAX_REGIONS + 3)
struct e820_map {
	struct e820_entry {
		uint64_t addr, size;
		enum e820_type type;
	} entry[E820_MAX];
	unsigned int n;
};

/* What is where, in ascending order: of all of @mem as RAM, or (@pc) with the PC's holes. Pure. */
void e820_build(const struct gmem *mem, bool pc, struct e820_map *out);

/* --- file_kind.c ------------------------------------------------------------------------- */

/* What a file that is no kernel for us seems to be, in words ("gzip data"); never NULL. Pure. */
const char *file_kind(const void *file, size_t len);

/* --- pvh.c ------------------------------------------------------------------------------- */

struct pvh_info {
	const char *cmdline;
	const struct e820_map *map;
	uint64_t rsdp;			 /* 0: no ACPI */
	uint64_t initrd_gpa, initrd_len; /* length 0: none */
};
/* Start info, module list, memory map and command line. -E2BIG, -EFAULT with a line in @e. */
int pvh_write(struct gmem *mem, const struct pvh_info *info, struct ob_err *e);

/* --- zero_page.c: boot_params of a bzImage, and the CPU's tables of a 64-bit entry -------- */

struct zero_page_info {
	const struct bzimage *bz;
	const void *file; /* what @bz was parsed from */
	const struct e820_map *map;
	uint64_t kernel_gpa, cmdline_gpa;
	uint64_t initrd_gpa, initrd_len;
	uint64_t rsdp;
};
/* Fill the 4096 bytes at @page. Pure. */
void zero_page_build(const struct zero_page_info *info, void *page);
/* Write a GDT and page tables that map the first 4 GiB to themselves, and name them in @out. */
int long_mode_write(struct gmem *mem, struct boot_entry *out);

#endif
