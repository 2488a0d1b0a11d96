/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.h: from the files that a person names to a guest's memory and the state of its first vCPU.
 *
 * Two kinds of file: an ELF executable with a PVH entry (our own guest, or an uncompressed
 * vmlinux), and a Linux bzImage, which is entered by the 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst, boot_params in zero-page.rst). boot_parse and boot_fit are
 * pure: they say what is wrong with a file before anything was started. boot_load writes guest
 * memory, and may be called again to boot the guest anew.
 */
#ifndef OVERBOOK_KERNEL_BOOT_H
#define OVERBOOK_KERNEL_BOOT_H

#include "kernel/acpi.h"
#include "kernel/elf.h"
#include "kernel/mem.h"

/* What a bzImage's setup header says (boot.rst), as far as we use it. */
struct bzimage {
	uint16_t version;      /* of the protocol: 0x20c or later */
	uint64_t payload_off;  /* of the protected-mode kernel in the file */
	uint64_t payload_size; /* bytes of it in the file */
	uint32_t header_end;   /* of the setup header: an offset in the file */
	uint32_t kernel_alignment;
	bool relocatable;
	uint64_t pref_address;
	uint32_t init_size;	  /* memory that it needs from its run-time address on */
	uint32_t initrd_addr_max; /* highest address that the initrd may take */
	uint32_t cmdline_size;	  /* most bytes of a command line, without its end */
};

/* Understand @len bytes of a bzImage. Pure: no field is trusted. -ENOEXEC with one line in @e. */
int bzimage_parse(const void *file, size_t len, struct bzimage *out, struct ob_err *e);

enum boot_kind {
	BOOT_PVH,     /* ELF with a PVH note */
	BOOT_BZIMAGE, /* 64-bit boot protocol */
};

struct boot_image {
	enum boot_kind kind;
	struct elf_image elf; /* BOOT_PVH */
	struct bzimage bz;    /* BOOT_BZIMAGE */
};

/* Which kind is it, and is it whole? -ENOEXEC with one line in @e (no file name in it). Pure. */
int boot_parse(const void *file, size_t len, struct boot_image *out, struct ob_err *e);

/* The machine as a guest's firmware would describe it. */
struct boot_machine {
	bool pc; /* e820-like map with the PC's holes, ACPI tables. False: all RAM is RAM
		  * and there are no tables, as our own guest wants it (pvh.c) */
	struct acpi_machine acpi; /* pc */
};

#define BOOT_CMDLINE_MAX 2048 /* with its end; a bzImage may allow less */

/*
 * Do kernel, initrd (@initrd_len bytes, 0: none) and a command line of @cmdline_len bytes (without
 * its end) fit into a guest of @mem_bytes? One line in @e that says what is missing and how much:
 * -E2BIG (command line), -ENOMEM (memory, initrd). Pure.
 */
int boot_fit(const struct boot_image *img, uint64_t mem_bytes, uint64_t initrd_len,
	     size_t cmdline_len, struct ob_err *e);

/* Is a file a disk image that is not raw? "a qcow2 disk image" by its first FILE_DISK_HEAD bytes, of which
 * @len are there; NULL: it does not look like one. Pure. */
#define FILE_DISK_HEAD 96
const char *file_disk_kind(const void *file, size_t len);

/* How the first vCPU starts (vcpu_set_boot). */
struct boot_entry {
	bool long_mode; /* 64-bit with paging on and identity-mapped; else 32-bit flat as PVH wants */
	uint64_t rip;
	uint64_t arg;	   /* rsi (64-bit): boot_params; ebx (32-bit): hvm_start_info */
	uint64_t cr3;	   /* long_mode: page tables that boot_load has written */
	uint64_t gdt_base; /* long_mode: a GDT that boot_load has written; */
	uint16_t gdt_limit, code_selector, data_selector; /* its limit, and the selectors in it */
};

/*
 * Write kernel, initrd, command line, memory map, tables. @initrd may be NULL. Goes through
 * gmem_access_begin, so it may be called while pages of the guest are shared or away, its vCPUs
 * being parked. What it overwrites is given in full; other memory stays as it is, as on a real PC.
 * 0 or -errno with a line in @e.
 */
int boot_load(struct gmem *mem, const struct boot_image *img, const void *kernel, size_t kernel_len,
	      const void *initrd, size_t initrd_len, const char *cmdline,
	      const struct boot_machine *machine, struct boot_entry *out, struct ob_err *e);

#endif
