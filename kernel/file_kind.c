/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_kind.c: what a file seems to be that a person gave in place of a kernel, or of a raw disk image:
 * most files say it in their first bytes.
 */
#include <string.h>

#include "kernel/boot_int.h"

struct magic {
	uint16_t off, len;
	const char *magic, *name;
};

static const struct magic kinds[] = {
	{0, 4, "\177ELF", "an ELF file"},
	{56, 4, "ARM\x64", "an arm64 kernel (Image)"},
	{36, 4, "\x18\x28\x6f\x01", "a 32-bit ARM kernel (zImage)"},
	{48, 5, "RISCV", "a RISC-V kernel (Image)"},
	{0, 4, "\x27\x05\x19\x56", "a U-Boot image"},
	{0, 2, "\x1f\x8b", "gzip data (unpack it first)"},
	{0, 6,
	 "\xfd"
	 "7zXZ",
	 "xz data (unpack it first)"},
	{0, 4, "\x28\xb5\x2f\xfd", "zstd data (unpack it first)"},
	{0, 4, "\x04\x22\x4d\x18", "lz4 data (unpack it first)"},
	{0, 4, "\x02\x21\x4c\x18", "lz4 data (unpack it first)"},
	{0, 3, "BZh", "bzip2 data (unpack it first)"},
	{0, 5, "07070", "a cpio archive (an initrd?)"},
	{0, 7, "!<arch>", "an archive or a Debian package (the vmlinuz is inside)"},
	{0, 2, "#!", "a script"},
	{32769, 5, "CD001", "an ISO image"},
	{0, 2, "MZ", "an EFI or Windows program without a Linux setup header"},
	{510, 2, "\x55\xaa", "a boot sector or disk image"},
};

/* Disk images that are not raw. */
static const struct magic disks[] = {
	{0, 4, "QFI\xfb", "a qcow2 disk image"},
	{0, 4, "KDMV", "a VMDK disk image"},
	{0, 21, "# Disk DescriptorFile", "a VMDK disk image"},
	{0, 8, "vhdxfile", "a VHDX disk image"},
	{0, 8, "conectix", "a VHD disk image"},
	{64, 4, "\x7f\x10\xda\xbe", "a VDI disk image"},
};

static const char *find(const struct magic *m, size_t n, const char *file, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (len >= (size_t)m[i].off + m[i].len &&
		    !memcmp(file + m[i].off, m[i].magic, m[i].len))
			return m[i].name;
	return NULL;
}

static bool is_text(const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < OB_MIN(len, 512); i++)
		if ((p[i] < ' ' && !strchr("\t\n\r\f", p[i])) || p[i] == 0x7f || !p[i])
			return false;
	return true;
}

const char *file_disk_kind(const void *file, size_t len)
{
	return find(disks, OB_ARRAY_SIZE(disks), file, len);
}

const char *file_kind(const void *file, size_t len)
{
	const char *name;

	if (!len)
		return "an empty file";
	name = file_disk_kind(file, len);
	if (!name)
		name = find(kinds, OB_ARRAY_SIZE(kinds), file, len);
	if (name)
		return name;
	return is_text(file, len) ? "a text file" : "no kernel of a known kind";
}
