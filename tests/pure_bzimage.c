/* SPDX-License-Identifier: Apache-2.0 */
/* pure_bzimage.c: which bzImages are taken, and what is said of all that is none. */
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/boot.h"
#include "tests/boot_file.h"

static void refused_bytes(const void *b, size_t len, const char *why)
{
	struct boot_image img;
	struct ob_err e = {"nothing said"};

	cr_assert_eq(boot_parse(b, len, &img, &e), -ENOEXEC, "should say: %s", why);
	cr_assert_not_null(strstr(e.msg, why), "says \"%s\", should say \"%s\"", e.msg, why);
	cr_assert_null(strchr(e.msg, '\n'));
}

static void refused(const struct bz_file *f, const char *why)
{
	refused_bytes(f->b, f->len, why);
}

/* A good one with one field changed. */
static void refused_with(unsigned int off, uint64_t v, unsigned int bytes, const char *why)
{
	struct bz_file f;

	bz_make(&f);
	bz_set(&f, off, v, bytes);
	refused(&f, why);
}

Test(bzimage, a_kernel_is_understood)
{
	struct bz_file f;
	struct boot_image img;

	bz_make(&f);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(img.kind, BOOT_BZIMAGE);
	cr_assert_eq(img.bz.version, 0x20f);
	cr_assert_eq(img.bz.payload_off, BZ_PAYLOAD_OFF);
	cr_assert_eq(img.bz.payload_size, BZ_PAYLOAD);
	cr_assert_eq(img.bz.header_end, 0x26c);
	cr_assert_eq(img.bz.kernel_alignment, 2 * OB_MIB);
	cr_assert(img.bz.relocatable);
	cr_assert_eq(img.bz.pref_address, 16 * OB_MIB);
	cr_assert_eq(img.bz.init_size, 4 * OB_MIB);
	cr_assert_eq(img.bz.initrd_addr_max, 0x7fffffff);
	cr_assert_eq(img.bz.cmdline_size, 2047);
	bz_set(&f, BZ_VERSION, 0x20c, 2);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0, "the oldest protocol with 64 bits");
}

Test(bzimage, no_setup_sectors_means_four)
{
	static unsigned char b[5 * 512 + BZ_PAYLOAD];
	struct bz_file f;
	struct bzimage bz;

	bz_make(&f);
	bz_set(&f, BZ_SECTS, 0, 1);
	memcpy(b, f.b, BZ_PAYLOAD_OFF);
	cr_assert_eq(bzimage_parse(b, sizeof(b), &bz, NULL), 0);
	cr_assert_eq(bz.payload_off, 5 * 512);
	cr_assert_eq(bzimage_parse(b, sizeof(b) - 1, &bz, NULL), -ENOEXEC);
}

Test(bzimage, each_fault_has_its_line)
{
	refused_with(BZ_VERSION, 0x20b, 2, "boot protocol 2.11: 2.12 or later (Linux 3.8)");
	refused_with(BZ_XLOADFLAGS, 0x7e, 2, "a 32-bit kernel: a 64-bit x86-64 kernel is needed");
	refused_with(BZ_LOADFLAGS, 0x80, 1, "a zImage");
	refused_with(BZ_JUMP_LEN, 0x61, 1, "its setup header ends at 0x263");
	refused_with(BZ_JUMP_LEN, 0x8f, 1, "its setup header ends at 0x291");
	refused_with(BZ_SYSSIZE, BZ_PAYLOAD / 16 + 1, 4,
		     "truncated bzImage: it has 9728 bytes of 9744");
	refused_with(BZ_SYSSIZE, UINT32_MAX, 4, "truncated bzImage");
	refused_with(BZ_SECTS, 255, 1, "truncated bzImage");
	refused_with(BZ_SYSSIZE, 0x20, 4, "512 bytes of kernel");
	refused_with(BZ_SYSSIZE, 0, 4, "0 bytes of kernel");
	refused_with(BZ_ALIGN, 0, 4, "alignment 0x0 is no power of two");
	refused_with(BZ_ALIGN, 0x300000, 4, "alignment 0x300000 is no power of two");
	refused_with(BZ_INIT_SIZE, 0, 4, "needs no memory");
	refused_with(BZ_PREF, 1ULL << 32, 8, "wants to run at 0x100000000, above 4 GiB");
	refused_with(BZ_PREF, UINT64_MAX, 8, "above 4 GiB");
}

Test(bzimage, only_a_fixed_kernel_must_lie_above_1_mib)
{
	struct bz_file f;
	struct boot_image img;

	bz_make(&f);
	bz_set(&f, BZ_PREF, 0x90000, 8);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
	bz_set(&f, BZ_RELOCATABLE, 0, 1);
	refused(&f, "wants to run at 0x90000: below 1 MiB is boot data");
	bz_set(&f, BZ_PREF, OB_MIB, 8);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
}

/* Any prefix is refused in one line; of the whole, nothing is read behind its end. */
Test(bzimage, every_truncation_is_handled)
{
	struct bz_file f;
	struct boot_image img;

	bz_make(&f);
	for (size_t len = 0; len <= BZ_LEN; len++) {
		unsigned char *copy = malloc(len ? len : 1);
		struct ob_err e = {""};
		int r;

		memcpy(copy, f.b, len);
		r = boot_parse(copy, len, &img, &e);
		cr_assert_eq(r, len < BZ_LEN ? -ENOEXEC : 0, "at %zu", len);
		cr_assert(!r || e.msg[0]);
		free(copy);
	}
	f.len = 0x263;
	refused(&f, "truncated bzImage: it ends in its setup header");
}

/* --- files that are something else ------------------------------------------------------------ */

static void refused_magic(unsigned int off, const void *magic, size_t n, const char *why)
{
	static unsigned char b[40000];

	memset(b, 0, sizeof(b));
	memcpy(b + off, magic, n);
	refused_bytes(b, sizeof(b), why);
	/* As much of the file as has the magic, and no more. */
	refused_bytes(b, off + n, why);
}

Test(bzimage, what_is_no_kernel_is_called_by_its_name)
{
	const char *text = "linux /vmlinuz\n";
	const unsigned char noise[] = {1, 2, 3, 4, 5};

	refused_bytes("", 0, "an empty file: a Linux bzImage or vmlinux is needed");
	refused_bytes(text, strlen(text), "a text file: a Linux bzImage");
	refused_bytes(noise, sizeof(noise), "no kernel of a known kind: a Linux bzImage");
	refused_magic(0, "#!/bin/sh\n", 10, "a script: ");
	refused_magic(0, "\x1f\x8b\x08", 3,
		      "gzip data (unpack it first): a Linux bzImage or vmlinux is needed");
	refused_magic(0,
		      "\xfd"
		      "7zXZ\0",
		      6, "xz data");
	refused_magic(0, "\x28\xb5\x2f\xfd", 4, "zstd data");
	refused_magic(0, "\x02\x21\x4c\x18", 4, "lz4 data");
	refused_magic(0, "BZh9", 4, "bzip2 data");
	refused_magic(0, "070701", 6, "a cpio archive (an initrd?)");
	refused_magic(0, "!<arch>\n", 8, "Debian package");
	refused_magic(0, "QFI\xfb", 4, "a qcow2 disk image");
	refused_magic(32769, "CD001", 5, "an ISO image");
	refused_magic(0, "MZ", 2, "an EFI or Windows program");
	refused_magic(0x38, "ARM\x64", 4, "an arm64 kernel (Image)");
	refused_magic(0x24, "\x18\x28\x6f\x01", 4, "a 32-bit ARM kernel");
	refused_magic(0x30, "RISCV\0\0", 8, "a RISC-V kernel");
	refused_magic(0x1fe, "\x55\xaa", 2, "a boot sector or disk image");
}

Test(bzimage, other_elf_files_are_called_by_their_name)
{
	struct elf_file f;
	Elf64_Ehdr *h = (Elf64_Ehdr *)(void *)f.b;
	Elf64_Phdr *p = (Elf64_Phdr *)(void *)(f.b + sizeof(*h));

	elf_file_make(&f, EF_TEXT);
	h->e_type = ET_REL;
	h->e_phnum = 0;
	refused_bytes(f.b, f.len, "an object file or kernel module");
	elf_file_make(&f, EF_TEXT);
	p[1].p_type = PT_INTERP;
	refused_bytes(f.b, f.len, "a program for an operating system");
	elf_file_make(&f, EF_TEXT);
	h->e_phnum = 1;
	refused_bytes(f.b, f.len, "has no PVH entry");
	elf_file_make(&f, EF_TEXT);
	h->e_ident[EI_CLASS] = ELFCLASS32;
	refused_bytes(f.b, f.len, "32-bit ELF");
	elf_file_make(&f, 17 * OB_MIB);
	p[0].p_paddr = OB_MIB - 1;
	h->e_entry = OB_MIB;
	refused_bytes(f.b, f.len, "a segment at 0xfffff: below 1 MiB is boot data");
}
