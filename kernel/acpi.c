/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi.c: the tables that tell a PC's operating system what it runs on (ACPI 6.4, chapter 5;
 * numbers in brackets are its sections).
 *
 *	RSDP -> XSDT -> FADT -> FACS, DSDT
 *	             -> MADT
 *
 * The machine is an ACPI PC, not a "hardware-reduced" one: that would forbid the PIC and PIT, which
 * kernels fall back on for their clocks. There is no SMI command, so ACPI mode is always on, and no
 * power management timer, which FADT 5.0 and later may leave out (kvmclock is the better clock).
 * Fixed power and sleep buttons are declared absent, and so are the i8042, the RTC and VGA, whose
 * probing costs a booting kernel time. Power-off is _S5 through PM1a control, reset an I/O port.
 *
 * Tables lie one behind another. A table's length and checksum are known when it is complete, so
 * each is opened, filled, and closed; who points to a table comes after it.
 */
#include "kernel/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernel/aml.h"
#include "kernel/device.h"

#define OEM_ID	   "OVRBK "
#define OEM_TABLE  "OVERBOOK"
#define CREATOR	   "OVBK"
#define RSDP_SIZE  36
#define FACS_SIZE  64
#define FADT_SIZE  276
#define TABLE_HEAD 36

struct acpi_head { /* 5.2.6 */
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
};
_Static_assert(sizeof(struct acpi_head) == TABLE_HEAD, "as the specification lays it out");

struct acpi_gas { /* a register's address, 5.2.3.2 */
	uint8_t space, width, offset, access;
	uint32_t address_low, address_high; /* two, since FADT has them at odd places */
};
_Static_assert(sizeof(struct acpi_gas) == 12, "as the specification lays it out");

enum { GAS_IO = 1, GAS_BYTE = 1, GAS_WORD = 2, GAS_DWORD = 3 };

struct acpi_fadt { /* 5.2.9 */
	struct acpi_head head;
	uint32_t facs, dsdt;
	uint8_t reserved, profile;
	uint16_t sci;
	uint32_t smi_command;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate;
	uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer;
	uint32_t gpe0, gpe1;
	uint8_t pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len;
	uint8_t gpe0_len, gpe1_len, gpe1_base, cstate;
	uint16_t c2_latency, c3_latency, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint8_t boot_arch_low, boot_arch_high, reserved2;
	uint32_t flags;
	struct acpi_gas reset;
	uint8_t reset_value;
	uint8_t arm_low, arm_high, minor;
	uint32_t xfacs[2], xdsdt[2];
	struct acpi_gas xpm1a_event, xpm1b_event, xpm1a_control, xpm1b_control, xpm2_control;
	struct acpi_gas xpm_timer, xgpe0, xgpe1, sleep_control, sleep_status;
	char hypervisor[8];
};
_Static_assert(sizeof(struct acpi_fadt) == FADT_SIZE, "as the specification lays it out");

/* FADT flags and IAPC_BOOT_ARCH. */
#define FADT_WBINVD	       (1U << 0)
#define FADT_PROC_C1	       (1U << 2)
#define FADT_NO_POWER_BUTTON   (1U << 4) /* no fixed one, that is */
#define FADT_NO_SLEEP_BUTTON   (1U << 5)
#define FADT_NO_RTC_WAKE       (1U << 6)
#define FADT_RESET_REGISTER    (1U << 10)
#define BOOT_ARCH_LEGACY       (1U << 0) /* there is a serial port on ISA's addresses */
#define BOOT_ARCH_NO_VGA       (1U << 2)
#define BOOT_ARCH_NO_MSI       (1U << 3)
#define BOOT_ARCH_NO_RTC       (1U << 5)
#define FADT_NO_C2	       101
#define FADT_NO_C3	       1001
#define FADT_ENTERPRISE_SERVER 4

struct acpi_facs { /* 5.2.10 */
	char signature[4];
	uint32_t length, hardware_signature, waking_vector, global_lock, flags;
	uint64_t x_waking_vector;
	uint8_t version, reserved[3];
	uint32_t ospm_flags;
	uint8_t reserved2[24];
};
_Static_assert(sizeof(struct acpi_facs) == FACS_SIZE, "as the specification lays it out");

struct acpi_rsdp { /* 5.2.5.3 */
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint32_t xsdt[2];
	uint8_t extended_checksum, reserved[3];
};
_Static_assert(sizeof(struct acpi_rsdp) == RSDP_SIZE, "as the specification lays it out");

/* The sum of all bytes of a table is 0: what makes it so. */
static uint8_t checksum(const void *p, size_t n)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)p)[i]);
	return (uint8_t)-sum;
}

static void align(struct aml *a, size_t to)
{
	static const unsigned char zeros[64];

	OB_ASSERT(to <= sizeof(zeros));
	aml_bytes(a, zeros, (to - a->len % to) % to);
}

static struct acpi_head head(const char *signature, unsigned int revision)
{
	struct acpi_head h = {.revision = (uint8_t)revision, .oem_revision = 1};

	memcpy(h.signature, signature, 4);
	memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
	memcpy(h.oem_table_id, OEM_TABLE, sizeof(h.oem_table_id));
	memcpy(h.creator_id, CREATOR, sizeof(h.creator_id));
	h.creator_revision = 1;
	return h;
}

/* Open a table; what is appended until table_end is its body. Returns where it begins. */
static size_t table_begin(struct aml *a, const char *signature, unsigned int revision)
{
	struct acpi_head h = head(signature, revision);
	size_t at;

	align(a, 16);
	at = a->len;
	aml_bytes(a, &h, sizeof(h));
	return at;
}

static void table_end(struct aml *a, size_t at)
{
	struct acpi_head h;

	if (a->full)
		return;
	memcpy(&h, a->buf + at, sizeof(h));
	h.length = (uint32_t)(a->len - at);
	memcpy(a->buf + at, &h, sizeof(h));
	h.checksum = checksum(a->buf + at, h.length);
	memcpy(a->buf + at, &h, sizeof(h));
}

/* --- DSDT: the devices ------------------------------------------------------------------------ */

static void add_virtio(struct aml *a, const struct acpi_machine *m, unsigned int i)
{
	struct aml_resources res;
	char name[5];
	size_t at;

	snprintf(name, sizeof(name), "VIO%X", i & 0xf);
	at = aml_device(a, name);
	aml_name(a, "_HID");
	aml_string(a, "LNRO0005");
	aml_name(a, "_UID");
	aml_int(a, i);
	aml_name(a, "_CCA");
	aml_int(a, 1);
	aml_name(a, "_CRS");
	aml_resources(&res);
	aml_memory32(&res, m->virtio[i].gpa, m->virtio[i].size);
	aml_interrupt(&res, m->virtio[i].gsi);
	aml_resources_end(a, &res);
	aml_end(a, at);
}

static void add_serial(struct aml *a)
{
	struct aml_resources res;
	size_t at = aml_device(a, "COM1");

	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, 0);
	aml_name(a, "_CRS");
	aml_resources(&res);
	aml_io(&res, SERIAL_COM1, SERIAL_PORTS);
	aml_irq(&res, PC_SERIAL_IRQ);
	aml_resources_end(a, &res);
	aml_end(a, at);
}

static void add_s5(struct aml *a)
{
	size_t at;

	aml_name(a, "_S5_");
	at = aml_package(a, 4);
	aml_int(a, PC_SLP_TYP_S5); /* for PM1a control */
	aml_int(a, PC_SLP_TYP_S5); /* for PM1b, which there is none of */
	aml_int(a, 0);
	aml_int(a, 0);
	aml_end(a, at);
}

static size_t add_dsdt(struct aml *a, const struct acpi_machine *m)
{
	size_t table = table_begin(a, "DSDT", 2); /* 2: integers have 64 bits */
	size_t scope = aml_scope(a, "\\_SB_");

	for (unsigned int i = 0; i < m->nvirtio; i++)
		add_virtio(a, m, i);
	add_serial(a);
	aml_end(a, scope);
	add_s5(a);
	table_end(a, table);
	return table;
}

/* --- MADT: the interrupt controllers ---------------------------------------------------------- */

#define MADT_PCAT_COMPAT 1 /* there is a PIC */
#define MADT_ENABLED	 1
#define MADT_HIGH_LEVEL	 0x0d /* active high, level-triggered */
#define MADT_BUS_DEFAULT 0
#define MADT_ALL_CPUS	 0xff
#define MADT_NMI_LINT	 1

static void add_override(struct aml *a, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	const unsigned char head4[] = {2, 10, 0, irq}; /* 5.2.12.5 */

	aml_bytes(a, head4, sizeof(head4));
	aml_bytes(a, &gsi, 4);
	aml_bytes(a, &flags, 2);
}

static size_t add_madt(struct aml *a, const struct acpi_machine *m)
{
	const uint32_t lapic[] = {PC_LAPIC_GPA, MADT_PCAT_COMPAT};
	/* Its id must not be a CPU's; the first that is free. */
	const unsigned char ioapic[] = {1, 12, (unsigned char)m->vcpus, 0}; /* 5.2.12.3 */
	const uint32_t ioapic_at[] = {PC_IOAPIC_GPA, 0 /* its first GSI */};
	const unsigned char nmi[] = {4, 6, MADT_ALL_CPUS, 0, 0, MADT_NMI_LINT}; /* 5.2.12.7 */
	size_t table = table_begin(a, "APIC", 5);

	aml_bytes(a, lapic, sizeof(lapic));
	for (unsigned int i = 0; i < m->vcpus; i++) {
		const unsigned char cpu[] = {
			0, 8, (unsigned char)i, (unsigned char)i, MADT_ENABLED, 0,
			0, 0}; /* 5.2.12.2 */

		aml_bytes(a, cpu, sizeof(cpu));
	}
	aml_bytes(a, ioapic, sizeof(ioapic));
	aml_bytes(a, ioapic_at, sizeof(ioapic_at));
	if (m->pit_gsi)
		add_override(a, 0, m->pit_gsi, MADT_BUS_DEFAULT);
	add_override(a, PC_SCI_IRQ, PC_SCI_IRQ, MADT_HIGH_LEVEL);
	aml_bytes(a, nmi, sizeof(nmi));
	table_end(a, table);
	return table;
}

/* --- FADT, FACS ------------------------------------------------------------------------------- */

static size_t add_facs(struct aml *a)
{
	struct acpi_facs facs = {.length = FACS_SIZE, .version = 2};
	size_t at;

	memcpy(facs.signature, "FACS", 4);
	align(a, 64);
	at = a->len;
	aml_bytes(a, &facs, sizeof(facs)); /* has no checksum */
	return at;
}

static struct acpi_gas io(uint16_t port, uint8_t bits, uint8_t access)
{
	return (struct acpi_gas){
		.space = GAS_IO, .width = bits, .access = access, .address_low = port};
}

static size_t add_fadt(struct aml *a, uint64_t facs, uint64_t dsdt)
{
	const unsigned int arch =
		BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_MSI | BOOT_ARCH_NO_RTC;
	struct acpi_fadt f = {
		.facs = (uint32_t)facs,
		.dsdt = (uint32_t)dsdt,
		.profile = FADT_ENTERPRISE_SERVER,
		.sci = PC_SCI_IRQ,
		.pm1a_event = PC_PM1_EVENT_PORT,
		.pm1a_control = PC_PM1_CONTROL_PORT,
		.pm1_event_len = 4,
		.pm1_control_len = 2,
		.c2_latency = FADT_NO_C2,
		.c3_latency = FADT_NO_C3,
		.boot_arch_low = (uint8_t)arch,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
			 FADT_NO_RTC_WAKE | FADT_RESET_REGISTER,
		.reset = io(PC_RESET_PORT, 8, GAS_BYTE),
		.reset_value = PC_RESET_VALUE,
		.minor = 4,
		/* Linux takes the 64-bit addresses where there are any and holds both to be equal; of
		 * the FACS, only one may be given. */
		.xdsdt = {(uint32_t)dsdt, (uint32_t)(dsdt >> 32)},
		.xpm1a_event = io(PC_PM1_EVENT_PORT, 32, GAS_WORD),
		.xpm1a_control = io(PC_PM1_CONTROL_PORT, 16, GAS_WORD),
	};
	size_t table = table_begin(a, "FACP", 6);

	memcpy(f.hypervisor, OEM_TABLE, sizeof(f.hypervisor));
	aml_bytes(a, (char *)&f + sizeof(f.head), sizeof(f) - sizeof(f.head));
	table_end(a, table);
	return table;
}

/* --- the roots -------------------------------------------------------------------------------- */

static void put_rsdp(unsigned char *at, uint64_t xsdt)
{
	struct acpi_rsdp r = {
		.revision = 2,
		.length = RSDP_SIZE,
		.xsdt = {(uint32_t)xsdt, (uint32_t)(xsdt >> 32)},
	};

	memcpy(r.signature, "RSD PTR ", sizeof(r.signature));
	memcpy(r.oem_id, OEM_ID, sizeof(r.oem_id));
	/* The first checksum is of what revision 0 had. */
	r.checksum = checksum(&r, offsetof(struct acpi_rsdp, length));
	r.extended_checksum = checksum(&r, sizeof(r));
	memcpy(at, &r, sizeof(r));
}

int acpi_build(const struct acpi_machine *m, uint64_t base, void *buf, size_t size)
{
	struct aml a = {.buf = buf, .size = size};
	const unsigned char rsdp[RSDP_SIZE] = {0};
	size_t facs, dsdt, fadt, madt, xsdt;
	uint64_t tables[2];

	OB_ASSERT(m->vcpus >= 1 && m->vcpus <= ACPI_MAX_VCPUS && m->nvirtio <= ACPI_MAX_VIRTIO);
	OB_ASSERT(base % 64 == 0 && base <= UINT32_MAX - size); /* FADT has 32-bit addresses, too */
	aml_bytes(&a, rsdp, sizeof(rsdp));
	facs = add_facs(&a);
	dsdt = add_dsdt(&a, m);
	fadt = add_fadt(&a, base + facs, base + dsdt);
	madt = add_madt(&a, m);
	tables[0] = base + fadt;
	tables[1] = base + madt;
	xsdt = table_begin(&a, "XSDT", 1);
	aml_bytes(&a, tables, sizeof(tables));
	table_end(&a, xsdt);
	if (a.full)
		return -ENOSPC;
	put_rsdp(buf, base + xsdt);
	return (int)a.len;
}
