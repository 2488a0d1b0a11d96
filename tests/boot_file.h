/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_file.h: small whole kernel files for tests of the loaders, made in memory, so that a test
 * breaks one thing of a good one.
 */
#ifndef OVERBOOK_TESTS_BOOT_FILE_H
#define OVERBOOK_TESTS_BOOT_FILE_H

#include "kernel/base.h"

#define BZ_SETUP_SECTS 2
#define BZ_PAYLOAD_OFF ((BZ_SETUP_SECTS + 1) * 512)
#define BZ_PAYLOAD     8192 /* bytes of kernel */
#define BZ_LEN	       (BZ_PAYLOAD_OFF + BZ_PAYLOAD)

/* A bzImage of protocol 2.15 that runs at 16 MiB and needs 4 MiB there. */
struct bz_file {
	unsigned char b[BZ_LEN];
	size_t len;
};
void bz_make(struct bz_file *f);
/* Set a field of the header, of @bytes bytes. */
void bz_set(struct bz_file *f, unsigned int off, uint64_t v, unsigned int bytes);

/* Offsets of the setup header that tests change. */
enum {
	BZ_SECTS = 0x1f1,
	BZ_SYSSIZE = 0x1f4,
	BZ_FLAG = 0x1fe,
	BZ_JUMP_LEN = 0x201,
	BZ_MAGIC = 0x202,
	BZ_VERSION = 0x206,
	BZ_LOADFLAGS = 0x211,
	BZ_INITRD_MAX = 0x22c,
	BZ_ALIGN = 0x230,
	BZ_RELOCATABLE = 0x234,
	BZ_XLOADFLAGS = 0x236,
	BZ_CMDLINE_SIZE = 0x238,
	BZ_PREF = 0x258,
	BZ_INIT_SIZE = 0x260,
};

/* An ELF with a PVH note: one segment of @mem_size bytes at 16 MiB, of which EF_TEXT are text. */
#define EF_LEN	 8192
#define EF_TEXT	 4096
#define EF_PADDR (16 * OB_MIB)
#define EF_ENTRY (EF_PADDR + 0x50)
struct elf_file {
	unsigned char b[EF_LEN];
	size_t len;
};
void elf_file_make(struct elf_file *f, uint64_t mem_size);

#endif
