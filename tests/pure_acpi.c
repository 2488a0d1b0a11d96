/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_acpi.c: the ACPI tables as an operating system reads them: from the RSDP by addresses and
 * lengths, with all checksums. What the AML in them means is iasl's to say (host_acpi.c).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/acpi.h"
#include "kernel/aml.h"

#define VCPUS_MOST 64

struct tables {
	unsigned char b[ACPI_SIZE];
	struct acpi_machine m;
	uint64_t base;
	int len;
};

static void build(struct tables *t, unsigned int vcpus, unsigned int nvirtio, uint64_t base)
{
	memset(t, 0xee, sizeof(*t));
	t->m = (struct acpi_machine){.vcpus = vcpus, .nvirtio = nvirtio};
	for (unsigned int i = 0; i < nvirtio; i++) {
		t->m.virtio[i].gpa = 0xd0000000U + i * 0x1000;
		t->m.virtio[i].size = 0x1000;
		t->m.virtio[i].gsi = PC_VIRTIO_GSI + i;
	}
	t->base = base;
	t->len = acpi_build(&t->m, base, t->b, sizeof(t->b));
	cr_assert_gt(t->len, 0);
}

static uint64_t num(const unsigned char *p, unsigned int off, unsigned int bytes)
{
	uint64_t v = 0;

	memcpy(&v, p + off, bytes);
	return v;
}

static unsigned int sum(const unsigned char *p, size_t n)
{
	unsigned int s = 0;

	for (size_t i = 0; i < n; i++)
		s += p[i];
	return s & 0xff;
}

/* The table at guest physical @at: whole, in the buffer, with a good checksum. */
static const unsigned char *table(const struct tables *t, uint64_t at, const char *signature)
{
	const unsigned char *p = t->b + (at - t->base);

	cr_assert(at >= t->base && at - t->base < (uint64_t)t->len, "%s is elsewhere", signature);
	cr_assert(!memcmp(p, signature, 4), "no %s there", signature);
	cr_assert_leq(num(p, 4, 4), (uint64_t)t->len - (at - t->base));
	if (strcmp(signature, "FACS"))
		cr_assert_eq(sum(p, num(p, 4, 4)), 0, "checksum of %s", signature);
	return p;
}

static const unsigned char *xsdt(const struct tables *t)
{
	cr_assert(!memcmp(t->b, "RSD PTR ", 8));
	cr_assert_eq(sum(t->b, 20), 0);
	cr_assert_eq(t->b[15], 2, "revision");
	cr_assert_eq(num(t->b, 20, 4), 36);
	cr_assert_eq(sum(t->b, 36), 0);
	return table(t, num(t->b, 24, 8), "XSDT");
}

/* The table that the XSDT names by @signature; each is there once. */
static const unsigned char *find(const struct tables *t, const char *signature)
{
	const unsigned char *x = xsdt(t), *found = NULL;

	for (unsigned int i = 36; i < num(x, 4, 4); i += 8) {
		uint64_t at = num(x, i, 8);

		if (!memcmp(t->b + (at - t->base), signature, 4)) {
			cr_assert_null(found);
			found = table(t, at, signature);
		}
	}
	cr_assert_not_null(found, "no %s", signature);
	return found;
}

static void check_madt(const struct tables *t)
{
	const unsigned char *p = find(t, "APIC");
	unsigned int lapics = 0, ioapics = 0, sci = 0, pit = 0, nmis = 0, n;

	cr_assert_eq(num(p, 36, 4), PC_LAPIC_GPA);
	cr_assert_eq(num(p, 40, 4), 1, "there is a PIC");
	for (unsigned int i = 44; i < num(p, 4, 4); i += n) {
		const unsigned char *s = p + i;

		n = s[1];
		cr_assert(n && i + n <= num(p, 4, 4));
		switch (s[0]) {
		case 0:
			cr_assert(n == 8 && s[2] == lapics && s[3] == lapics);
			cr_assert_eq(num(s, 4, 4), 1, "enabled");
			lapics++;
			break;
		case 1:
			cr_assert(n == 12 && num(s, 4, 4) == PC_IOAPIC_GPA && !num(s, 8, 4));
			cr_assert_geq(s[2], t->m.vcpus, "an id of its own");
			ioapics++;
			break;
		case 2:
			cr_assert_eq(n, 10);
			sci += s[3] == PC_SCI_IRQ && num(s, 4, 4) == PC_SCI_IRQ &&
			       num(s, 8, 2) == 0x0d;
			pit += s[3] == 0 && num(s, 4, 4) == t->m.pit_gsi && !num(s, 8, 2);
			break;
		case 4:
			cr_assert(n == 6 && s[2] == 0xff && s[5] == 1);
			nmis++;
			break;
		default:
			cr_assert_fail("entry of type %u", s[0]);
		}
	}
	cr_assert_eq(lapics, t->m.vcpus);
	cr_assert(ioapics == 1 && sci == 1 && nmis == 1);
	cr_assert_eq(pit, t->m.pit_gsi ? 1 : 0);
}

static void check_fadt(const struct tables *t)
{
	const unsigned char *p = find(t, "FACP"), *facs, *dsdt;

	cr_assert_eq(num(p, 4, 4), 276);
	cr_assert_eq(p[8], 6, "revision");
	facs = table(t, num(p, 36, 4), "FACS");
	cr_assert_eq(num(p, 36, 4) % 64, 0);
	cr_assert_eq(num(facs, 4, 4), 64);
	cr_assert_eq(num(p, 132, 8), 0, "one address of the FACS only");
	dsdt = table(t, num(p, 40, 4), "DSDT");
	cr_assert_eq(num(p, 140, 8), num(p, 40, 4));
	cr_assert_eq(dsdt[8], 2, "64-bit integers");
	cr_assert_eq(num(p, 46, 2), PC_SCI_IRQ);
	cr_assert_eq(num(p, 48, 4), 0, "no SMI command: ACPI is on");
	/* Each register block by both of its names. */
	cr_assert_eq(num(p, 56, 4), PC_PM1_EVENT_PORT);
	cr_assert(p[88] == 4 && p[148] == 1 && p[149] == 32);
	cr_assert_eq(num(p, 152, 8), PC_PM1_EVENT_PORT);
	cr_assert_eq(num(p, 64, 4), PC_PM1_CONTROL_PORT);
	cr_assert(p[89] == 2 && p[172] == 1 && p[173] == 16);
	cr_assert_eq(num(p, 176, 8), PC_PM1_CONTROL_PORT);
	cr_assert(!p[91] && !num(p, 76, 4), "no timer");
	cr_assert_eq(num(p, 112, 4) & (1 << 20), 0, "not hardware-reduced");
	cr_assert(num(p, 112, 4) & (1 << 10), "there is a reset register:");
	cr_assert(p[116] == 1 && p[117] == 8 && num(p, 120, 8) == PC_RESET_PORT);
	cr_assert_eq(p[128], PC_RESET_VALUE);
	cr_assert_eq(num(p, 109, 2), 0x2d, "legacy devices, no i8042, VGA, MSI, RTC");
}

static unsigned int count(const unsigned char *p, size_t n, const char *what, size_t len)
{
	unsigned int found = 0;

	for (size_t i = 0; i + len <= n; i++)
		found += !memcmp(p + i, what, len);
	return found;
}

static void check_dsdt(const struct tables *t)
{
	const unsigned char *p = table(t, num(find(t, "FACP"), 40, 4), "DSDT");
	size_t n = num(p, 4, 4);

	cr_assert_eq(count(p, n, "LNRO0005", 9), t->m.nvirtio);
	cr_assert_eq(count(p, n, "\x0c\x41\xd0\x05\x01", 5), 1, "PNP0501");
	cr_assert_eq(count(p, n, "_S5_\x12\x08\x04\x0a\x05\x0a\x05", 11), 1);
	for (unsigned int i = 0; i < t->m.nvirtio; i++) {
		char where[12] = "\x86\x09", irq[9] = "\x89\x06";

		where[3] = 1;
		memcpy(where + 4, &t->m.virtio[i].gpa, 4);
		memcpy(where + 8, &t->m.virtio[i].size, 4);
		irq[3] = 0x03;
		irq[4] = 1;
		memcpy(irq + 5, &t->m.virtio[i].gsi, 4);
		cr_assert_eq(count(p, n, where, sizeof(where)), 1, "device %u", i);
		cr_assert_eq(count(p, n, irq, sizeof(irq)), 1, "device %u", i);
	}
}

Test(acpi, tables_of_every_machine_are_whole)
{
	static struct tables t;

	for (unsigned int vcpus = 1; vcpus <= VCPUS_MOST; vcpus++) {
		for (unsigned int n = 0; n <= ACPI_MAX_VIRTIO; n++) {
			build(&t, vcpus, n, ACPI_GPA);
			check_madt(&t);
			check_fadt(&t);
			check_dsdt(&t);
		}
	}
	build(&t, ACPI_MAX_VCPUS, ACPI_MAX_VIRTIO, 0x12340000);
	check_madt(&t);
	check_fadt(&t);
	check_dsdt(&t);
}

Test(acpi, a_rerouted_timer_is_told)
{
	static struct tables t;

	build(&t, 2, 1, ACPI_GPA);
	t.m.pit_gsi = 2;
	t.len = acpi_build(&t.m, t.base, t.b, sizeof(t.b));
	check_madt(&t);
}

/* What is too small is said to be, and nothing is written behind its end. */
Test(acpi, every_buffer_that_is_too_small_is_refused)
{
	static struct tables t;

	build(&t, 3, 2, ACPI_GPA);
	for (size_t size = 0; size <= (size_t)t.len; size++) {
		unsigned char *b = malloc(size + 16);

		memset(b, 0xee, size + 16);
		cr_assert_eq(acpi_build(&t.m, ACPI_GPA, b, size),
			     size < (size_t)t.len ? -ENOSPC : t.len, "%zu", size);
		for (unsigned int i = 0; i < 16; i++)
			cr_assert_eq(b[size + i], 0xee);
		free(b);
	}
}

/* --- the emitter ------------------------------------------------------------------------------ */

static size_t emitted_int(uint64_t v, unsigned char *b)
{
	struct aml a = {.buf = b, .size = 16};

	aml_int(&a, v);
	return a.len;
}

Test(aml, integers_take_the_shortest_form)
{
	unsigned char b[16];

	cr_assert(emitted_int(0, b) == 1 && b[0] == 0);
	cr_assert(emitted_int(1, b) == 1 && b[0] == 1);
	cr_assert(emitted_int(2, b) == 2 && b[0] == 0x0a && b[1] == 2);
	cr_assert(emitted_int(255, b) == 2);
	cr_assert(emitted_int(256, b) == 3 && b[0] == 0x0b && b[1] == 0 && b[2] == 1);
	cr_assert(emitted_int(65536, b) == 5 && b[0] == 0x0c);
	cr_assert(emitted_int(1ULL << 32, b) == 9 && b[0] == 0x0e && b[5] == 1);
}

/* Read a PkgLength as an interpreter does. Returns how many bytes it takes. */
static size_t pkg_read(const unsigned char *p, size_t *len)
{
	size_t more = p[0] >> 6;

	*len = more ? p[0] & 0xf : p[0] & 0x3f;
	for (size_t i = 0; i < more; i++)
		*len |= (size_t)p[1 + i] << (4 + 8 * i);
	return 1 + more;
}

Test(aml, lengths_count_themselves)
{
	const size_t sizes[] = {0,    1,    57,	  58,	   59,	    60,	     4087,   4088,
				4089, 4090, 4095, 1048570, 1048571, 1048572, 2000000};
	unsigned char *b = malloc(3000000), *content = calloc(1, 2000000);

	for (size_t i = 0; i < OB_ARRAY_SIZE(sizes); i++) {
		struct aml a = {.buf = b, .size = 3000000};
		size_t at = aml_package(&a, 7), len, head;

		aml_bytes(&a, content, sizes[i]);
		aml_end(&a, at);
		cr_assert(!a.full);
		cr_assert_eq(b[0], 0x12);
		head = pkg_read(b + 1, &len);
		cr_assert_eq(len, a.len - 1, "content of %zu bytes", sizes[i]);
		cr_assert_eq(len, head + 1 + sizes[i]);
		cr_assert_eq(b[1 + head], 7, "it was moved behind its length");
		/* One byte less could not have said it. */
		cr_assert(head == 1 || len - 1 >= (head == 2 ? 0x40U : 1U << (4 + 8 * (head - 2))));
	}
	free(content);
	free(b);
}
