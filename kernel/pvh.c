/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvh.c: what a guest that is entered by the PVH protocol finds in memory: a start info block,
 * whose address it gets in ebx, with a memory map and a command line. The layout is Xen's
 * (arch-x86/hvm/start_info.h, version 1); Linux has a copy of it.
 *
 * The map that our own guest gets names all RAM as RAM, from 0 on: there is no firmware that would
 * keep a part of the first megabyte. Linux gets that of a PC, and an initrd as the first module. A
 * guest may take the boot data's pages once it has read them.
 */
#include <errno.h>
#include <string.h>

#include "kernel/boot_int.h"

#define START_INFO_MAGIC   0x336ec578U
#define START_INFO_VERSION 1

struct start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "as Xen lays it out");

struct memmap_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};
_Static_assert(sizeof(struct memmap_entry) == 24, "as Xen lays it out");

struct modlist_entry {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};
_Static_assert(sizeof(struct modlist_entry) == 32, "as Xen lays it out");

/* The list of modules, of which there is at most one, lies behind the start info. */
#define MODLIST_GPA (PVH_START_INFO_GPA + 0x100)

_Static_assert(MODLIST_GPA - PVH_START_INFO_GPA >= sizeof(struct start_info), "room");
_Static_assert(PVH_MEMMAP_GPA - MODLIST_GPA >= sizeof(struct modlist_entry), "room");
_Static_assert(PVH_CMDLINE_GPA - PVH_MEMMAP_GPA >= E820_MAX * sizeof(struct memmap_entry), "room");

int pvh_write(struct gmem *mem, const struct pvh_info *info, struct ob_err *e)
{
	struct memmap_entry map[E820_MAX] = {0};
	struct modlist_entry initrd = {.paddr = info->initrd_gpa, .size = info->initrd_len};
	struct start_info si = {
		.magic = START_INFO_MAGIC,
		.version = START_INFO_VERSION,
		.nr_modules = info->initrd_len ? 1 : 0,
		.modlist_paddr = info->initrd_len ? MODLIST_GPA : 0,
		.cmdline_paddr = PVH_CMDLINE_GPA,
		.rsdp_paddr = info->rsdp,
		.memmap_paddr = PVH_MEMMAP_GPA,
		.memmap_entries = info->map->n,
	};
	size_t len = strlen(info->cmdline) + 1;
	int rc;

	if (len > PVH_CMDLINE_MAX)
		return ob_fail(e, E2BIG,
			       "guest command line of %zu bytes: at most %d are passed on", len - 1,
			       PVH_CMDLINE_MAX - 1);
	for (unsigned int i = 0; i < info->map->n; i++)
		map[i] = (struct memmap_entry){
			.addr = info->map->entry[i].addr,
			.size = info->map->entry[i].size,
			.type = info->map->entry[i].type, /* the same numbers */
		};
	rc = load_write(mem, gpa(PVH_CMDLINE_GPA), info->cmdline, len);
	if (!rc)
		rc = load_write(mem, gpa(PVH_MEMMAP_GPA), map, info->map->n * sizeof(map[0]));
	if (!rc && info->initrd_len)
		rc = load_write(mem, gpa(MODLIST_GPA), &initrd, sizeof(initrd));
	if (!rc)
		rc = load_write(mem, gpa(PVH_START_INFO_GPA), &si, sizeof(si));
	if (rc)
		return ob_fail(e, -rc, "the guest's memory is too small for its boot data");
	return 0;
}

int pvh_write_boot_data(struct gmem *mem, const char *cmdline, struct ob_err *e)
{
	struct e820_map map;

	e820_build(mem, false, &map);
	return pvh_write(mem, &(struct pvh_info){.cmdline = cmdline, .map = &map}, e);
}
