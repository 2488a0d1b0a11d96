/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzimage.c: what is in a Linux bzImage (Documentation/arch/x86/boot.rst).
 *
 * The file is a boot sector of another age, (1 + setup_sects) sectors of real-mode code, of which
 * we use only the setup header that lies in them from 0x1f1 on, and the protected-mode kernel: a
 * decompressor with the real kernel packed inside. Its 64-bit entry is 0x200 bytes into it. No
 * field of the header is trusted: it comes from a person, and may be anything.
 */
#include <errno.h>
#include <string.h>

#include "kernel/boot_int.h"

/* Offsets of the setup header's fields in the file, which are those in boot_params, too. */
#define HDR_SETUP_SECTS	      0x1f1
#define HDR_SYSSIZE	      0x1f4
#define HDR_BOOT_FLAG	      0x1fe
#define HDR_JUMP	      0x200 /* a short jump over the header: its operand says how long it is */
#define HDR_MAGIC	      0x202
#define HDR_VERSION	      0x206
#define HDR_LOADFLAGS	      0x211
#define HDR_INITRD_ADDR_MAX   0x22c
#define HDR_KERNEL_ALIGNMENT  0x230
#define HDR_RELOCATABLE	      0x234
#define HDR_XLOADFLAGS	      0x236
#define HDR_CMDLINE_SIZE      0x238
#define HDR_PREF_ADDRESS      0x258
#define HDR_INIT_SIZE	      0x260
#define HDR_NEEDED_END	      0x264 /* init_size is the last field that we need */
#define HDR_SPACE_END	      0x290 /* boot_params has room up to here */
#define HDR_SETUP_SECTS_UNSET 4	    /* what a 0 stands for */

#define BOOT_FLAG	0xaa55
#define LOADED_HIGH	0x01
#define XLF_KERNEL_64	0x0001
#define PROTOCOL_NEEDED 0x20c /* the first with a 64-bit entry: Linux 3.8 */
#define ENTRY_64	0x200

static int bad(struct ob_err *e, const char *what)
{
	return ob_fail(e, ENOEXEC, "%s", what);
}

static uint64_t get(const void *file, unsigned int off, unsigned int bytes)
{
	uint64_t v = 0;

	memcpy(&v, (const char *)file + off, bytes);
	return v;
}

/* Is it a kernel that we can enter at all? The file has a header up to HDR_NEEDED_END. */
static int check_kind(const void *file, const struct bzimage *bz, struct ob_err *e)
{
	if (bz->version < PROTOCOL_NEEDED)
		return ob_fail(
			e, ENOEXEC,
			"a kernel of boot protocol %u.%02u: 2.12 or later (Linux 3.8) is needed",
			bz->version >> 8, bz->version & 0xff);
	if (!(get(file, HDR_LOADFLAGS, 1) & LOADED_HIGH))
		return bad(e, "a zImage, which is loaded below 1 MiB: a bzImage is needed");
	if (!(get(file, HDR_XLOADFLAGS, 2) & XLF_KERNEL_64))
		return bad(e, "a 32-bit kernel: a 64-bit x86-64 kernel is needed");
	return 0;
}

/* Where it wants to be. */
static int check_place(const struct bzimage *bz, struct ob_err *e)
{
	uint32_t align = bz->kernel_alignment;

	if (!align || align & (align - 1))
		return ob_fail(e, ENOEXEC,
			       "a broken bzImage: its alignment 0x%x is no power of two", align);
	if (!bz->init_size)
		return bad(e, "a broken bzImage: it says that it needs no memory");
	if (bz->pref_address > UINT32_MAX)
		return ob_fail(e, ENOEXEC,
			       "a broken bzImage: it wants to run at 0x%llx, above 4 GiB",
			       (unsigned long long)bz->pref_address);
	if (!bz->relocatable && bz->pref_address < BOOT_LOWEST_KERNEL)
		return ob_fail(e, ENOEXEC,
			       "a bzImage that wants to run at 0x%llx: below 1 MiB is boot data",
			       (unsigned long long)bz->pref_address);
	return 0;
}

int bzimage_parse(const void *file, size_t len, struct bzimage *out, struct ob_err *e)
{
	uint64_t sects;
	int r;

	*out = (struct bzimage){0};
	if (len < HDR_MAGIC + 4 || memcmp((const char *)file + HDR_MAGIC, "HdrS", 4) ||
	    get(file, HDR_BOOT_FLAG, 2) != BOOT_FLAG)
		return ob_fail(e, ENOEXEC, "%s: a Linux bzImage or vmlinux is needed",
			       file_kind(file, len));
	if (len < HDR_NEEDED_END)
		return bad(e, "truncated bzImage: it ends in its setup header");
	out->version = (uint16_t)get(file, HDR_VERSION, 2);
	r = check_kind(file, out, e);
	if (r)
		return r;
	out->header_end = (uint32_t)(HDR_MAGIC + get(file, HDR_JUMP + 1, 1));
	sects = get(file, HDR_SETUP_SECTS, 1);
	out->payload_off = ((sects ? sects : HDR_SETUP_SECTS_UNSET) + 1) * 512;
	out->payload_size = get(file, HDR_SYSSIZE, 4) * 16;
	if (out->header_end < HDR_NEEDED_END || out->header_end > HDR_SPACE_END ||
	    out->header_end > out->payload_off)
		return ob_fail(e, ENOEXEC, "a broken bzImage: its setup header ends at 0x%x",
			       out->header_end);
	if (out->payload_size <= ENTRY_64)
		return ob_fail(e, ENOEXEC, "a broken bzImage: %llu bytes of kernel in it",
			       (unsigned long long)out->payload_size);
	if (out->payload_off > len || out->payload_size > len - out->payload_off)
		return ob_fail(e, ENOEXEC, "truncated bzImage: it has %llu bytes of %llu",
			       (unsigned long long)len,
			       (unsigned long long)(out->payload_off + out->payload_size));
	out->kernel_alignment = (uint32_t)get(file, HDR_KERNEL_ALIGNMENT, 4);
	out->relocatable = get(file, HDR_RELOCATABLE, 1) != 0;
	out->pref_address = get(file, HDR_PREF_ADDRESS, 8);
	out->init_size = (uint32_t)get(file, HDR_INIT_SIZE, 4);
	out->initrd_addr_max = (uint32_t)get(file, HDR_INITRD_ADDR_MAX, 4);
	out->cmdline_size = (uint32_t)get(file, HDR_CMDLINE_SIZE, 4);
	return check_place(out, e);
}
