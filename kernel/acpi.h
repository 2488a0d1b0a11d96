/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi.h: the ACPI tables of our PC (ACPI 6.4), emitted by code: RSDP, XSDT, FADT, FACS, MADT, and
 * a DSDT with the virtio-mmio devices (LNRO0005), the console's port (PNP0501) and _S5. So an
 * unmodified kernel finds its CPUs and devices and can power the machine off.
 */
#ifndef OVERBOOK_KERNEL_ACPI_H
#define OVERBOOK_KERNEL_ACPI_H

#include "kernel/base.h"

/* Fixed places of the PC (vm_pc.c has the registers behind the ports). */
#define PC_PM1_EVENT_PORT   0x600 /* 4 bytes: PM1a status, enable */
#define PC_PM1_CONTROL_PORT 0x604 /* 2 bytes: SLP_TYP at bit 10, SLP_EN bit 13; SCI_EN reads 1 */
#define PC_SLP_TYP_S5	    5
#define PC_SCI_IRQ	    9
#define PC_RESET_PORT	    0x64 /* the i8042's command port; also ACPI's reset register */
#define PC_RESET_VALUE	    0xfe
#define PC_IOAPIC_GPA	    0xfec00000U
#define PC_LAPIC_GPA	    0xfee00000U
#define PC_SERIAL_IRQ	    4
#define PC_VIRTIO_GSI	    16 /* virtio device n has GSI 16 + n, edge, active high */

#define ACPI_MAX_VIRTIO 8
#define ACPI_MAX_VCPUS	254 /* APIC ids of 8 bits, 255 means all of them, one is the IOAPIC's */
#define ACPI_GPA	0xe0000ULL /* the RSDP, and the tables behind it */
#define ACPI_SIZE	0x10000ULL /* at most; reserved in the memory map */

struct acpi_machine {
	unsigned int vcpus; /* 1 to ACPI_MAX_VCPUS: APIC ids 0 to vcpus - 1, all enabled */
	/*
	 * The IOAPIC's pin that the PIT is wired to. KVM's default routing is 0; whoever routes it
	 * to 2, as boards do, says so here, and the MADT then overrides IRQ 0.
	 */
	uint32_t pit_gsi;
	unsigned int nvirtio;
	struct {
		uint32_t gpa, size;
		uint32_t gsi;
	} virtio[ACPI_MAX_VIRTIO];
};

/*
 * All tables into @buf, as they are to lie at guest physical @base, the RSDP first. Returns their
 * length, or -ENOSPC. Pure.
 */
int acpi_build(const struct acpi_machine *m, uint64_t base, void *buf, size_t size);

#endif
