/* SPDX-License-Identifier: Apache-2.0 */
/* elf.h: ELF kernels (elf.c), and what our own guest is told at its PVH entry (pvh.c). */
#ifndef OVERBOOK_KERNEL_ELF_H
#define OVERBOOK_KERNEL_ELF_H

#include "kernel/mem.h"

struct elf_segment {
	uint64_t file_off, file_size;
	uint64_t paddr, mem_size;
};

#define ELF_MAX_SEGMENTS 16
#define ELF_MAX_BYTES	 (256 * OB_MIB) /* of a guest's file: no kernel is larger */
struct elf_image {
	struct elf_segment seg[ELF_MAX_SEGMENTS];
	unsigned int nseg;
	uint64_t entry;	    /* e_entry */
	uint32_t pvh_entry; /* from the XEN_ELFNOTE_PHYS32_ENTRY note */
	bool has_pvh;
	bool is_linux; /* it has a note that Linux kernels have */
};

/*
 * Understand an ELF64 x86-64 executable of @len bytes. Pure: every offset and length is checked
 * against @len and against wrapping; segments may not overlap. -ENOEXEC with one line in @e.
 */
int elf_parse(const void *file, size_t len, struct elf_image *out, struct ob_err *e);
/* Copy the segments into RAM. -ENOEXEC when one does not fit into it. */
int elf_load(const struct elf_image *img, const void *file, size_t len, struct gmem *mem,
	     struct ob_err *e);

/* Where boot data lies in guest memory: below the kernel, which starts at 1 MiB. */
#define PVH_START_INFO_GPA 0x6000ULL
#define PVH_MEMMAP_GPA	   0x7000ULL
#define PVH_CMDLINE_GPA	   0x20000ULL
#define PVH_CMDLINE_MAX	   2048
/* Write hvm_start_info (version 1), memory map and command line (Xen's pvh.html, start_info.h). */
int pvh_write_boot_data(struct gmem *mem, const char *cmdline, struct ob_err *e);

#endif
