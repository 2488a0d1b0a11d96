/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.c: which kind of kernel a file is, where everything goes in a guest's memory, and putting it
 * there.
 *
 *	below 640 KiB   command line, memory map, boot_params, page tables (boot_int.h, elf.h)
 *	0xe0000         ACPI tables
 *	from 1 MiB on   the kernel, where its file says
 *	the top         the initrd, page-aligned, as high as kernel and RAM below 4 GiB allow
 *
 * A bzImage is loaded where it prefers to run (16 MiB, as a rule), not at 1 MiB as the tradition of
 * real-mode loaders has it. There it unpacks itself over its own packed image, as far as it fits:
 * loaded elsewhere, those 10 to 15 MiB would stay behind in pages of the guest that the host has to
 * hold, and that no one will read again. It needs no more memory for that: from its run-time
 * address on it wants init_size bytes in either case. With KASLR it may unpack itself somewhere
 * else; it then keeps away from boot_params, command line and initrd, whose addresses are in
 * boot_params.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/boot_int.h"

#define BOOT_ENTRY_64 0x200 /* of a bzImage's protected-mode part */

int boot_parse(const void *file, size_t len, struct boot_image *out, struct ob_err *e)
{
	int r;

	*out = (struct boot_image){.kind = BOOT_BZIMAGE};
	if (len < 4 || memcmp(file, "\177ELF", 4))
		return bzimage_parse(file, len, &out->bz, e);
	out->kind = BOOT_PVH;
	r = elf_parse(file, len, &out->elf, e);
	if (r)
		return r;
	if (!out->elf.has_pvh)
		return ob_fail(e, ENOEXEC,
			       "the guest has no PVH entry (an ELF note of type 18, Xen)");
	for (unsigned int i = 0; i < out->elf.nseg; i++)
		if (out->elf.seg[i].paddr < BOOT_LOWEST_KERNEL)
			return ob_fail(e, ENOEXEC,
				       "the kernel has a segment at 0x%llx: "
				       "below 1 MiB is boot data",
				       (unsigned long long)out->elf.seg[i].paddr);
	return 0;
}

/* --- where everything goes -------------------------------------------------------------------- */

struct boot_place {
	uint64_t kernel;     /* address of its lowest byte */
	uint64_t kernel_end; /* of all that it needs until it manages memory itself */
	uint64_t initrd;
};

/* What kernel @img occupies; no guest is too small for that. */
static void place_kernel(const struct boot_image *img, struct boot_place *p)
{
	const struct bzimage *bz = &img->bz;

	if (img->kind == BOOT_BZIMAGE) {
		p->kernel = bz->pref_address;
		if (bz->relocatable)
			p->kernel = ob_align_up(OB_MAX(bz->pref_address, BOOT_LOWEST_KERNEL),
						bz->kernel_alignment);
		p->kernel_end = p->kernel + OB_MAX(bz->init_size, bz->payload_size);
		return;
	}
	p->kernel = UINT64_MAX;
	p->kernel_end = 0;
	for (unsigned int i = 0; i < img->elf.nseg; i++) {
		const struct elf_segment *s = &img->elf.seg[i];

		p->kernel = OB_MIN(p->kernel, s->paddr);
		p->kernel_end = OB_MAX(p->kernel_end, s->paddr + s->mem_size);
	}
}

static unsigned long long mib_up(uint64_t bytes)
{
	return bytes / OB_MIB + (bytes % OB_MIB != 0);
}

static int too_small(const struct boot_place *p, uint64_t mem_bytes, uint64_t initrd_len,
		     struct ob_err *e)
{
	char what[160], initrd[80] = "";

	if (initrd_len)
		snprintf(initrd, sizeof(initrd), " and the initrd %llu MiB", mib_up(initrd_len));
	snprintf(what, sizeof(what), "the kernel needs %llu MiB from %llu MiB on%s",
		 mib_up(p->kernel_end - p->kernel), (unsigned long long)(p->kernel / OB_MIB),
		 initrd);
	if (p->kernel_end > GMEM_HOLE_START || initrd_len > GMEM_HOLE_START - p->kernel_end)
		return ob_fail(e, ENOMEM, "%s: no guest has that much memory below 3 GiB", what);
	return ob_fail(e, ENOMEM, "%s: %llu MiB of memory are too few, give at least %lluM", what,
		       (unsigned long long)(mem_bytes / OB_MIB),
		       mib_up(ob_align_up(p->kernel_end, OB_PAGE_SIZE) +
			      ob_align_up(initrd_len, OB_PAGE_SIZE)));
}

static int boot_place(const struct boot_image *img, uint64_t mem_bytes, uint64_t initrd_len,
		      size_t cmdline_len, struct boot_place *p, struct ob_err *e)
{
	uint64_t low = OB_MIN(mem_bytes, GMEM_HOLE_START), top = low, size, max;

	max = img->kind == BOOT_BZIMAGE ? OB_MIN(img->bz.cmdline_size, BOOT_CMDLINE_MAX - 1)
					: BOOT_CMDLINE_MAX - 1;
	if (cmdline_len > max)
		return ob_fail(e, E2BIG,
			       "guest command line of %zu bytes: at most %llu are passed on",
			       cmdline_len, (unsigned long long)max);
	place_kernel(img, p);
	/* A length that rounding up would wrap fits nowhere either. */
	size = ob_align_up(OB_MIN(initrd_len, UINT64_MAX / 2), OB_PAGE_SIZE);
	if (p->kernel_end > low || size > low - p->kernel_end)
		return too_small(p, mem_bytes, initrd_len, e);
	if (img->kind == BOOT_BZIMAGE)
		top = OB_MIN(top, (uint64_t)img->bz.initrd_addr_max + 1);
	p->initrd = 0;
	if (!initrd_len)
		return 0;
	if (size > top || top - size < ob_align_up(p->kernel_end, OB_PAGE_SIZE))
		return ob_fail(e, ENOMEM,
			       "the initrd of %llu MiB does not fit between the kernel, which ends "
			       "at %llu MiB, and %llu MiB, the highest that the kernel takes",
			       mib_up(initrd_len), mib_up(p->kernel_end),
			       (unsigned long long)(top / OB_MIB));
	p->initrd = (top - size) / OB_PAGE_SIZE * OB_PAGE_SIZE;
	return 0;
}

int boot_fit(const struct boot_image *img, uint64_t mem_bytes, uint64_t initrd_len,
	     size_t cmdline_len, struct ob_err *e)
{
	struct boot_place p;

	return boot_place(img, mem_bytes, initrd_len, cmdline_len, &p, e);
}

/* --- putting it there ------------------------------------------------------------------------- */

static int load_acpi(struct gmem *mem, const struct acpi_machine *m, struct ob_err *e)
{
	unsigned char *buf = malloc(ACPI_SIZE);
	int n, r = 0;

	OB_ASSERT(buf);
	n = acpi_build(m, ACPI_GPA, buf, ACPI_SIZE);
	if (n < 0)
		r = ob_fail(e, -n, "the ACPI tables of %u vCPUs and %u devices are over %llu KiB",
			    m->vcpus, m->nvirtio, (unsigned long long)(ACPI_SIZE / OB_KIB));
	else
		r = load_write(mem, gpa(ACPI_GPA), buf, (uint64_t)n);
	free(buf);
	return r;
}

struct boot_load {
	const struct boot_image *img;
	const void *kernel;
	size_t kernel_len;
	const char *cmdline;
	uint64_t initrd_len, rsdp;
	struct boot_place place;
	struct e820_map map;
};

static int load_pvh(struct gmem *mem, const struct boot_load *l, struct boot_entry *out,
		    struct ob_err *e)
{
	const struct pvh_info info = {
		.cmdline = l->cmdline,
		.map = &l->map,
		.rsdp = l->rsdp,
		.initrd_gpa = l->place.initrd,
		.initrd_len = l->initrd_len,
	};
	int r = elf_load(&l->img->elf, l->kernel, l->kernel_len, mem, e);

	if (r)
		return r;
	out->rip = l->img->elf.pvh_entry;
	out->arg = PVH_START_INFO_GPA;
	return pvh_write(mem, &info, e);
}

static int load_bzimage(struct gmem *mem, const struct boot_load *l, struct boot_entry *out)
{
	const struct bzimage *bz = &l->img->bz;
	const struct zero_page_info info = {
		.bz = bz,
		.file = l->kernel,
		.map = &l->map,
		.kernel_gpa = l->place.kernel,
		.cmdline_gpa = BOOT_CMDLINE_GPA,
		.initrd_gpa = l->place.initrd,
		.initrd_len = l->initrd_len,
		.rsdp = l->rsdp,
	};
	unsigned char page[OB_PAGE_SIZE];
	int r;

	zero_page_build(&info, page);
	r = load_write(mem, gpa(l->place.kernel), (const char *)l->kernel + bz->payload_off,
		       bz->payload_size);
	if (!r)
		r = load_write(mem, gpa(BOOT_CMDLINE_GPA), l->cmdline, strlen(l->cmdline) + 1);
	if (!r)
		r = load_write(mem, gpa(BOOT_ZERO_PAGE_GPA), page, sizeof(page));
	if (!r)
		r = long_mode_write(mem, out);
	out->rip = l->place.kernel + BOOT_ENTRY_64;
	out->arg = BOOT_ZERO_PAGE_GPA;
	return r;
}

int boot_load(struct gmem *mem, const struct boot_image *img, const void *kernel, size_t kernel_len,
	      const void *initrd, size_t initrd_len, const char *cmdline,
	      const struct boot_machine *machine, struct boot_entry *out, struct ob_err *e)
{
	struct boot_load l = {
		.img = img,
		.kernel = kernel,
		.kernel_len = kernel_len,
		.cmdline = cmdline,
		.initrd_len = initrd ? initrd_len : 0,
		.rsdp = machine->pc ? ACPI_GPA : 0,
	};
	int r;

	*out = (struct boot_entry){0};
	if (e)
		e->msg[0] = '\0';
	/* All checks before the first write: a refused kernel leaves RAM as it was. */
	r = boot_place(img, mem->pages << OB_PAGE_SHIFT, l.initrd_len, strlen(cmdline), &l.place,
		       e);
	if (r)
		return r;
	e820_build(mem, machine->pc, &l.map);
	r = img->kind == BOOT_PVH ? load_pvh(mem, &l, out, e) : load_bzimage(mem, &l, out);
	if (!r && l.initrd_len)
		r = load_write(mem, gpa(l.place.initrd), initrd, l.initrd_len);
	if (!r && machine->pc)
		r = load_acpi(mem, &machine->acpi, e);
	if (r && e && !e->msg[0])
		ob_fail(e, -r, "writing the guest's memory: %s", strerror(-r));
	return r;
}
