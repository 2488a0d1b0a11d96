/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_boot.c: libFuzzer target: any bytes as a kernel of any kind, any guest's size, initrd and
 * command line. What boot_fit lets pass is loaded into a small guest: then kernel and initrd are
 * where the guest is told they are, apart from each other, and nothing is written elsewhere.
 * What is refused has one line, and nothing is written at all. Reads and writes out of bounds are
 * found by the address sanitizer: file and RAM are each an allocation of their own.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/boot_int.h"

#define FILLER	  0xa5
#define RAM_PAGES 640 /* at most: 2.5 MiB */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* The first bytes of the input; the rest is the kernel's file. */
struct choice {
	uint16_t ram_pages, initrd_bytes, cmdline_bytes;
	uint8_t pc, vcpus;
};

struct guest {
	struct gmem mem;
	uint8_t *ram, *may; /* may[page]: it may have been written */
	uint64_t bytes;
};

static void guest_make(struct guest *g, unsigned int pages)
{
	*g = (struct guest){.bytes = pages * OB_PAGE_SIZE};
	g->ram = aligned_alloc(OB_PAGE_SIZE, g->bytes);
	g->may = calloc(pages, 1);
	memset(g->ram, FILLER, g->bytes);
	g->mem = (struct gmem){.nregions = 1, .pages = pages};
	g->mem.region[0] = (struct gmem_region){.hva = hva_of(g->ram), .size = g->bytes};
}

static void guest_end(struct guest *g)
{
	free(g->ram);
	free(g->may);
}

static void allow(struct guest *g, uint64_t at, uint64_t n)
{
	OB_ASSERT(n <= g->bytes && at <= g->bytes - n);
	for (uint64_t p = at >> OB_PAGE_SHIFT; n && p <= (at + n - 1) >> OB_PAGE_SHIFT; p++)
		g->may[p] = 1;
}

static void check_rest(const struct guest *g)
{
	for (uint64_t i = 0; i < g->bytes; i++)
		OB_ASSERT(g->may[i >> OB_PAGE_SHIFT] || g->ram[i] == FILLER);
}

static uint64_t get(const struct guest *g, uint64_t at, unsigned int n)
{
	uint64_t v = 0;

	OB_ASSERT(at + n <= g->bytes);
	memcpy(&v, g->ram + at, n);
	return v;
}

/* Segments are elf_load's (fuzz_elf.c): here, that they and the initrd keep apart. */
static void check_pvh(struct guest *g, const struct boot_image *img, const struct boot_entry *en,
		      const uint8_t *initrd, uint64_t initrd_len)
{
	uint64_t at = 0;

	OB_ASSERT(!en->long_mode && en->arg == PVH_START_INFO_GPA);
	if (initrd_len) {
		at = get(g, get(g, en->arg + 16, 8), 8);
		OB_ASSERT(!memcmp(g->ram + at, initrd, initrd_len));
		allow(g, at, initrd_len);
	}
	for (unsigned int i = 0; i < img->elf.nseg; i++) {
		const struct elf_segment *s = &img->elf.seg[i];

		OB_ASSERT(!initrd_len || s->paddr + s->mem_size <= at);
		OB_ASSERT(s->paddr >= OB_MIB);
		allow(g, s->paddr, s->mem_size);
	}
	allow(g, PVH_START_INFO_GPA, OB_PAGE_SIZE);
	allow(g, PVH_MEMMAP_GPA, OB_PAGE_SIZE);
}

static void check_bzimage(struct guest *g, const struct boot_image *img, const uint8_t *file,
			  const struct boot_entry *en, const uint8_t *initrd, uint64_t initrd_len)
{
	const struct bzimage *bz = &img->bz;
	uint64_t kernel = en->rip - 0x200, at = get(g, en->arg + 0x218, 4);

	OB_ASSERT(en->long_mode && en->rip >= OB_MIB + 0x200);
	OB_ASSERT(!memcmp(g->ram + kernel, file + bz->payload_off, bz->payload_size));
	OB_ASSERT(kernel + bz->init_size <= g->bytes);
	OB_ASSERT(bz->relocatable ? kernel % bz->kernel_alignment == 0
				  : kernel == bz->pref_address);
	OB_ASSERT(get(g, en->arg + 0x21c, 4) == initrd_len);
	allow(g, kernel, bz->payload_size);
	allow(g, en->arg, OB_PAGE_SIZE);
	allow(g, en->cr3, 6 * OB_PAGE_SIZE);
	allow(g, en->gdt_base, en->gdt_limit);
	if (!initrd_len)
		return;
	OB_ASSERT(at % OB_PAGE_SIZE == 0 && at + initrd_len - 1 <= bz->initrd_addr_max);
	OB_ASSERT(at >= kernel + OB_MAX(bz->init_size, bz->payload_size));
	OB_ASSERT(!memcmp(g->ram + at, initrd, initrd_len));
	allow(g, at, initrd_len);
}

static void load(const struct boot_image *img, const uint8_t *file, size_t len,
		 const struct choice *c)
{
	struct boot_machine machine = {.pc = c->pc & 1, .acpi.vcpus = 1 + c->vcpus % 64};
	size_t cmd_len = c->cmdline_bytes % 3000;
	uint8_t *initrd = malloc(c->initrd_bytes + 1U);
	char *cmdline = malloc(cmd_len + 1);
	struct boot_entry en;
	struct ob_err e = {""};
	struct guest g;
	int fits, r;

	memset(initrd, 0x5a, c->initrd_bytes + 1U);
	memset(cmdline, 'c', cmd_len);
	cmdline[cmd_len] = '\0';
	guest_make(&g, 1 + c->ram_pages % RAM_PAGES);
	fits = boot_fit(img, g.bytes, c->initrd_bytes, cmd_len, &e);
	OB_ASSERT(fits == 0 || (e.msg[0] && !strchr(e.msg, '\n')));
	r = boot_load(&g.mem, img, file, len, initrd, c->initrd_bytes, cmdline, &machine, &en, &e);
	OB_ASSERT(r == fits);
	if (!r) {
		if (img->kind == BOOT_PVH)
			check_pvh(&g, img, &en, initrd, c->initrd_bytes);
		else
			check_bzimage(&g, img, file, &en, initrd, c->initrd_bytes);
		OB_ASSERT(!strcmp((char *)g.ram + BOOT_CMDLINE_GPA, cmdline));
		allow(&g, BOOT_CMDLINE_GPA, cmd_len + 1);
		if (machine.pc)
			allow(&g, ACPI_GPA, ACPI_SIZE);
	}
	check_rest(&g);
	guest_end(&g);
	free(cmdline);
	free(initrd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct boot_image img;
	struct choice c;
	struct ob_err e = {""};
	uint8_t *file;

	if (len < sizeof(c))
		return 0;
	memcpy(&c, data, sizeof(c));
	len -= sizeof(c);
	file = malloc(len ? len : 1);
	memcpy(file, data + sizeof(c), len);
	if (boot_parse(file, len, &img, &e))
		OB_ASSERT(e.msg[0] && !strchr(e.msg, '\n'));
	else
		load(&img, file, len, &c);
	free(file);
	return 0;
}
