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
#define WORD_MAX    64

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

static void add_range(struct ram *r, uint64_t from, uint64_t to)
{
	uint64_t low = ((uint64_t)kernel_end + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);

	/* Below the kernel's end lie the boot data and the kernel itself: left alone. */
	if (from < low)
		from = low;
	from = (from + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	to &= ~(PAGE_SIZE - 1);
	if (from >= to || r->nranges == RAM_RANGES)
		return;
	r->range[r->nranges++] = (struct ram_range){from, (to - from) / PAGE_SIZE, r->pages};
	r->pages += (to - from) / PAGE_SIZE;
}

static bool number(const char *s, char stop, uint64_t *out)
{
	uint64_t v = 0, base = 10;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	if (*s == stop)
		return false;
	for (; *s && *s != stop; s++) {
		uint64_t d = *s >= '0' && *s <= '9'   ? (uint64_t)(*s - '0')
			     : *s >= 'a' && *s <= 'f' ? (uint64_t)(*s - 'a') + 10
						      : 16;

		if (d >= base || v > (UINT64_MAX - d) / base)
			return false;
		v = v * base + d;
	}
	*out = v;
	return true;
}

/* Registers that are to be reached must be mapped: the device hole is, all of it. */
static bool device_address(uint64_t at)
{
	return at % PAGE_SIZE == 0 && at >= 3 * GIB && at < 4 * GIB;
}

static void parse_word(struct guest *g, const char *w)
{
	struct boot_config *c = &g->cfg;
	bool ok = true;

	if (str_prefix(w, "seed=")) {
		ok = number(w + 5, 0, &c->seed);
	} else if (str_prefix(w, "common=")) {
		ok = number(w + 7, 0, &c->common);
	} else if (str_prefix(w, "guest=")) {
		ok = number(w + 6, 0, &c->guest);
	} else if (str_prefix(w, "param=")) {
		ok = number(w + 6, 0, &c->param);
	} else if (str_prefix(w, "param2=")) {
		ok = number(w + 7, 0, &c->param2);
	} else if (str_prefix(w, "agent=")) {
		ok = number(w + 6, 0, &c->agent) && device_address(c->agent);
		if (!ok)
			c->agent = 0;
	} else if (str_prefix(w, "virtio_mmio.device=") && !c->virtio) {
		const char *at = w;

		while (*at && *at != '@')
			at++;
		ok = *at && number(at + 1, ':', &c->virtio) && device_address(c->virtio);
	} else if (str_prefix(w, "workload=")) {
		size_t n = 0;

		for (const char *s = w + 9; *s && n < sizeof(c->workload) - 1; s++)
			c->workload[n++] = *s;
		c->workload[n] = 0;
	}
	/* Words of others, such as a hypervisor's own additions, are none of ours. */
	if (!ok)
		guest_fail(g, MG_EXIT_BOOT, "cannot make sense of %s on the command line", w);
}

void boot_parse(struct guest *g, uint64_t start_info)
{
	const struct start_info *si = (const struct start_info *)start_info;
	char word[WORD_MAX];
	size_t n = 0;

	memcpy(g->cfg.workload, "idle", 5);
	g->cfg.param = g->cfg.param2 = BOOT_NO_PARAM;
	if (!mapped(start_info, sizeof(*si)) || si->magic != START_MAGIC || si->version < 1)
		guest_fail(g, MG_EXIT_BOOT, "no PVH start info of version 1 at %x", start_info);
	if (si->cmdline) {
		if (!mapped(si->cmdline, CMDLINE_MAX))
			guest_fail(g, MG_EXIT_BOOT, "command line at %x", si->cmdline);
		const char *s = (const char *)si->cmdline;

		for (size_t i = 0; i < CMDLINE_MAX; i++) {
			if (s[i] && s[i] != ' ') {
				if (n < WORD_MAX - 1)
					word[n++] = s[i];
				continue;
			}
			word[n] = 0;
			if (n)
				parse_word(g, word);
			n = 0;
			if (!s[i])
				break;
		}
	}
	if (si->memmap_entries > MEMMAP_MAX ||
	    !mapped(si->memmap, si->memmap_entries * sizeof(struct memmap_entry)))
		guest_fail(g, MG_EXIT_BOOT, "memory map at %x with %u entries", si->memmap,
			   (uint64_t)si->memmap_entries);
	const struct memmap_entry *m = (const struct memmap_entry *)si->memmap;

	for (uint32_t i = 0; i < si->memmap_entries; i++)
		if (m[i].type == MEMMAP_RAM && m[i].size <= UINT64_MAX - m[i].addr) {
			g->ram.total += m[i].size / PAGE_SIZE;
			add_range(&g->ram, m[i].addr, m[i].addr + m[i].size);
		}
}
