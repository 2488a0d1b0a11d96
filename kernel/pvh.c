/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvh.c: what a guest that is entered by the PVH protocol finds in memory: a start info block,
 * whose address it gets in ebx, with a memory map and a command line. The layout is Xen's
 * (arch-x86/hvm/start_info.h, version 1); Linux has a copy of it.
 *
 * The map names all RAM as RAM, from 0 on: there is no firmware that would keep a part of the first
 * megabyte, and the guest may take the boot data's pages once it has read them.
 */
#include <errno.h>
#include <string.h>

#include "kernel/vm.h"

#define START_INFO_MAGIC   0x336ec578U
#define START_INFO_VERSION 1
#define MEMMAP_TYPE_RAM	   1

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

_Static_assert(PVH_MEMMAP_GPA - PVH_START_INFO_GPA >= sizeof(struct start_info), "room");
_Static_assert(PVH_CMDLINE_GPA - PVH_MEMMAP_GPA >= GMEM_MAX_REGIONS * sizeof(struct memmap_entry),
	       "room");

int pvh_write_boot_data(struct gmem *mem, const char *cmdline, struct ob_err *e)
{
	struct memmap_entry map[GMEM_MAX_REGIONS] = {0};
	struct start_info si = {
		.magic = START_INFO_MAGIC,
		.version = START_INFO_VERSION,
		.cmdline_paddr = PVH_CMDLINE_GPA,
		.memmap_paddr = PVH_MEMMAP_GPA,
		.memmap_entries = mem->nregions,
	};
	size_t len = strlen(cmdline) + 1;
	int rc;

	if (len > PVH_CMDLINE_MAX)
		return ob_fail(e, E2BIG,
			       "guest command line of %zu bytes: at most %d are passed on", len - 1,
			       PVH_CMDLINE_MAX - 1);
	for (unsigned int i = 0; i < mem->nregions; i++)
		map[i] = (struct memmap_entry){
			.addr = mem->region[i].gpa.v,
			.size = mem->region[i].size,
			.type = MEMMAP_TYPE_RAM,
		};
	rc = gmem_write(mem, gpa(PVH_CMDLINE_GPA), cmdline, len);
	if (!rc)
		rc = gmem_write(mem, gpa(PVH_MEMMAP_GPA), map, mem->nregions * sizeof(map[0]));
	if (!rc)
		rc = gmem_write(mem, gpa(PVH_START_INFO_GPA), &si, sizeof(si));
	if (rc)
		return ob_fail(e, -rc, "the guest's memory is too small for its boot data");
	return 0;
}
