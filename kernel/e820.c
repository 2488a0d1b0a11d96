/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e820.c: the memory map that a guest is told, by whichever protocol it is entered.
 *
 * The first megabyte of a PC has holes that kernels know of and keep away from in any case, so the
 * map names them: the extended BIOS data area below 640 KiB, video memory and option ROMs behind
 * (not named at all: nothing is there), and the ACPI tables, which the guest reads while it
 * runs and must not take for itself. All of them are RAM to KVM, so reading there is harmless. The
 * LAPIC and the IOAPIC lie in the hole below 4 GiB, where kernels expect no RAM; the MADT names
 * them.
 */
#include "kernel/boot_int.h"

#define EBDA_GPA    0x9fc00ULL
#define LOW_END_GPA 0xa0000ULL /* end of the 640 KiB */
#define HIGH_GPA    OB_MIB

/* The part of [addr, addr + size) below @end, if there is any. */
static void add(struct e820_map *m, uint64_t addr, uint64_t size, enum e820_type type, uint64_t end)
{
	if (addr >= end || !size)
		return;
	OB_ASSERT(m->n < E820_MAX);
	m->entry[m->n++] =
		(struct e820_entry){.addr = addr, .size = OB_MIN(size, end - addr), .type = type};
}

void e820_build(const struct gmem *mem, bool pc, struct e820_map *out)
{
	out->n = 0;
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct gmem_region *r = &mem->region[i];
		uint64_t end = r->gpa.v + r->size;

		if (!pc || r->gpa.v) {
			add(out, r->gpa.v, r->size, E820_RAM, end);
			continue;
		}
		add(out, 0, EBDA_GPA, E820_RAM, end);
		add(out, EBDA_GPA, LOW_END_GPA - EBDA_GPA, E820_RESERVED, end);
		add(out, ACPI_GPA, ACPI_SIZE, E820_RESERVED, end);
		add(out, HIGH_GPA, r->size, E820_RAM, end);
	}
}
