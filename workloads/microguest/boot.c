/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.c: reads what a PVH boot loader leaves: struct hvm_start_info with the memory map and the
 * command line (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h). Only the first
 * GiB is mapped here, so everything must lie in it; addresses are checked as the loader may be
 * anyone's.
 */
#include "workloads/microguest/mg.h"

#define START_MAGIC 0x336ec578
#define MEMMAP_RAM  1
#define MEMMAP_MAX  128
#define CMDLINE_MAX 4096

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

extern const char kernel_end[];

static bool mapped(uint64_t at, uint64_t len)
{
	return at >= PAGE_SIZE && at < GIB && len <= GIB - at;
}

static void add_range(struct guest *g, uint64_t from, uint64_t to)
{
	struct platform *r = g->p;
	uint64_t low = ((uint64_t)kernel_end + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);

	/* Below the kernel's end lie the boot data and the kernel itself: left alone. */
	if (from < low)
		from = low;
	from = (from + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	to &= ~(PAGE_SIZE - 1);
	if (from >= to || r->nranges == RAM_RANGES)
		return;
	r->range[r->nranges++] = (struct ram_range){from, (to - from) / PAGE_SIZE, g->ram.pages};
	g->ram.pages += (to - from) / PAGE_SIZE;
}

/* Registers that are to be reached must be mapped: the device hole is, all of it. */
static bool device_address(uint64_t at)
{
	return at % PAGE_SIZE == 0 && at >= 3 * GIB && at < 4 * GIB;
}

void platform_word(struct guest *g, const char *w, bool *ok)
{
	struct platform *p = g->p;

	if (str_prefix(w, "agent=")) {
		*ok = str_number(w + 6, 0, &p->agent_at) && device_address(p->agent_at);
		if (!*ok)
			p->agent_at = 0;
	} else if (str_prefix(w, "virtio_mmio.device=") && !p->virtio_at) {
		const char *at = w;

		while (*at && *at != '@')
			at++;
		*ok = *at && str_number(at + 1, ':', &p->virtio_at) && device_address(p->virtio_at);
	}
}

/* Workloads that misbehave towards the machine itself. */
const struct workload *platform_workload(const char *name)
{
	for (unsigned int i = 0; i < work_nhostile; i++)
		if (str_equal(work_hostile[i].name, name))
			return &work_hostile[i];
	return NULL;
}

void boot_parse(struct guest *g, uint64_t start_info)
{
	const struct start_info *si = (const struct start_info *)start_info;

	boot_defaults(&g->cfg);
	if (!mapped(start_info, sizeof(*si)) || si->magic != START_MAGIC || si->version < 1)
		guest_fail(g, MG_EXIT_BOOT, "no PVH start info of version 1 at %x", start_info);
	if (si->cmdline) {
		if (!mapped(si->cmdline, CMDLINE_MAX))
			guest_fail(g, MG_EXIT_BOOT, "command line at %x", si->cmdline);
		boot_words(g, (const char *)si->cmdline, CMDLINE_MAX, "");
	}
	if (si->memmap_entries > MEMMAP_MAX ||
	    !mapped(si->memmap, si->memmap_entries * sizeof(struct memmap_entry)))
		guest_fail(g, MG_EXIT_BOOT, "memory map at %x with %u entries", si->memmap,
			   (uint64_t)si->memmap_entries);
	const struct memmap_entry *m = (const struct memmap_entry *)si->memmap;

	for (uint32_t i = 0; i < si->memmap_entries; i++)
		if (m[i].type == MEMMAP_RAM && m[i].size <= UINT64_MAX - m[i].addr) {
			g->ram.total += m[i].size / PAGE_SIZE;
			add_range(g, m[i].addr, m[i].addr + m[i].size);
		}
}
