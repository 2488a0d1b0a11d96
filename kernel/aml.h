/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml.h: an emitter of AML, the byte code of ACPI's definition blocks (ACPI 6.4, chapter 20), as
 * much of it as describing devices takes. Each function appends to @a; one that finds no room sets
 * a->full and appends nothing, so that a caller looks once, at the end.
 *
 * Objects with a length are opened and closed: at = aml_device(a, "COM1"); ... aml_end(a, at).
 */
#ifndef OVERBOOK_KERNEL_AML_H
#define OVERBOOK_KERNEL_AML_H

#include "kernel/base.h"

struct aml {
	unsigned char *buf;
	size_t size, len;
	bool full;
};

void aml_bytes(struct aml *a, const void *p, size_t n);
/* An integer in the shortest form. */
void aml_int(struct aml *a, uint64_t v);
/* The head of Name (@name, ...): the value follows. @name: 4 characters. */
void aml_name(struct aml *a, const char *name);
void aml_string(struct aml *a, const char *s);
/* EISAID: @id is 3 letters and 4 hexadecimal digits, as "PNP0501". */
void aml_eisaid(struct aml *a, const char *id);

/* Openers return what aml_end takes. They nest. */
size_t aml_scope(struct aml *a, const char *path); /* a name, "\\" before it allowed */
size_t aml_device(struct aml *a, const char *name);
size_t aml_package(struct aml *a, unsigned int elements);
void aml_end(struct aml *a, size_t at);

/* Resource descriptors go between aml_resources and aml_resources_end. */
struct aml_resources {
	struct aml body; /* built aside, since its length comes first */
	unsigned char bytes[64];
};
void aml_resources(struct aml_resources *r);
void aml_memory32(struct aml_resources *r, uint32_t base, uint32_t len); /* ReadWrite */
void aml_io(struct aml_resources *r, uint16_t base, uint8_t len);
void aml_irq(struct aml_resources *r, unsigned int irq);   /* ISA: edge, active high */
void aml_interrupt(struct aml_resources *r, uint32_t gsi); /* edge, active high, exclusive */
/* Append ResourceTemplate() with them. */
void aml_resources_end(struct aml *a, struct aml_resources *r);

#endif
