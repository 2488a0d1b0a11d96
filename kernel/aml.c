/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml.c: AML by code. Numbers in brackets are sections of the ACPI specification, 6.4.
 *
 * The length of an object (PkgLength, 20.2.4) stands before its content, counts itself, and takes 1
 * to 4 bytes by its value. So content is appended first and moved up when its length is known.
 */
#include "kernel/aml.h"

#include <string.h>

enum {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE = 0x0a,
	AML_WORD = 0x0b,
	AML_DWORD = 0x0c,
	AML_STRING = 0x0d,
	AML_QWORD = 0x0e,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_EXT = 0x5b,
	AML_EXT_DEVICE = 0x82,
};

static void byte(struct aml *a, unsigned int v)
{
	unsigned char b = (unsigned char)v;

	aml_bytes(a, &b, 1);
}

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	if (a->full || n > a->size - a->len) {
		a->full = true;
		return;
	}
	memcpy(a->buf + a->len, p, n);
	a->len += n;
}

void aml_int(struct aml *a, uint64_t v)
{
	/* The host is little-endian as AML is: the first bytes are the low ones. */
	if (v <= 1) {
		byte(a, v ? AML_ONE : AML_ZERO);
	} else if (v <= UINT8_MAX) {
		byte(a, AML_BYTE);
		aml_bytes(a, &v, 1);
	} else if (v <= UINT16_MAX) {
		byte(a, AML_WORD);
		aml_bytes(a, &v, 2);
	} else if (v <= UINT32_MAX) {
		byte(a, AML_DWORD);
		aml_bytes(a, &v, 4);
	} else {
		byte(a, AML_QWORD);
		aml_bytes(a, &v, 8);
	}
}

void aml_name(struct aml *a, const char *name)
{
	OB_ASSERT(strlen(name) == 4);
	byte(a, AML_NAME);
	aml_bytes(a, name, 4);
}

void aml_string(struct aml *a, const char *s)
{
	byte(a, AML_STRING);
	aml_bytes(a, s, strlen(s) + 1);
}

static unsigned int hex(char c)
{
	return c <= '9' ? (unsigned int)(c - '0') : (unsigned int)(c - 'A' + 10);
}

void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;
	unsigned char b[4];

	OB_ASSERT(strlen(id) == 7);
	/* Three letters of 5 bits, four digits of 4, the most significant byte first (19.6.36). */
	for (int i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)(id[i] - '@') & 0x1f);
	for (int i = 3; i < 7; i++)
		v = v << 4 | hex(id[i]);
	for (int i = 0; i < 4; i++)
		b[i] = (unsigned char)(v >> (24 - 8 * i));
	byte(a, AML_DWORD);
	aml_bytes(a, b, sizeof(b));
}

/* --- objects with a length ---------------------------------------------------------------- */

size_t aml_scope(struct aml *a, const char *path)
{
	size_t at;

	byte(a, AML_SCOPE);
	at = a->len;
	aml_bytes(a, path, strlen(path));
	return at;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t at;

	OB_ASSERT(strlen(name) == 4);
	byte(a, AML_EXT);
	byte(a, AML_EXT_DEVICE);
	at = a->len;
	aml_bytes(a, name, 4);
	return at;
}

size_t aml_package(struct aml *a, unsigned int elements)
{
	size_t at;

	byte(a, AML_PACKAGE);
	at = a->len;
	byte(a, elements);
	return at;
}

/* The length of @content bytes and of itself. Returns how many bytes of @out it takes. */
static size_t pkg_length(size_t content, unsigned char out[4])
{
	size_t n = 1, total = content + 1;

	if (total > 0x3f) { /* beyond one byte, the first has 4 bits of it */
		n = 2;
		while (content + n >= (size_t)1 << (4 + 8 * (n - 1)))
			n++;
		OB_ASSERT(n <= 4);
		total = content + n;
	}
	out[0] = (unsigned char)(n == 1 ? total : ((n - 1) << 6 | (total & 0xf)));
	for (size_t i = 1; i < n; i++)
		out[i] = (unsigned char)(total >> (4 + 8 * (i - 1)));
	return n;
}

void aml_end(struct aml *a, size_t at)
{
	unsigned char len[4];
	size_t content, n;

	if (a->full)
		return;
	content = a->len - at;
	n = pkg_length(content, len);
	if (n > a->size - a->len) {
		a->full = true;
		return;
	}
	memmove(a->buf + at + n, a->buf + at, content);
	memcpy(a->buf + at, len, n);
	a->len += n;
}

/* --- resources (6.4) -------------------------------------------------------------------------- */

void aml_resources(struct aml_resources *r)
{
	r->body = (struct aml){.buf = r->bytes, .size = sizeof(r->bytes)};
}

void aml_memory32(struct aml_resources *r, uint32_t base, uint32_t len)
{
	const unsigned char head[] = {0x86, 9, 0, 1}; /* 6.4.3.4: large, writable */

	aml_bytes(&r->body, head, sizeof(head));
	aml_bytes(&r->body, &base, 4);
	aml_bytes(&r->body, &len, 4);
}

void aml_io(struct aml_resources *r, uint16_t base, uint8_t len)
{
	const unsigned char head[] = {0x47, 1}; /* 6.4.2.5: small, 16-bit decode */
	const unsigned char tail[] = {1, len};	/* alignment */

	aml_bytes(&r->body, head, sizeof(head));
	aml_bytes(&r->body, &base, 2); /* lowest and highest */
	aml_bytes(&r->body, &base, 2);
	aml_bytes(&r->body, tail, sizeof(tail));
}

void aml_irq(struct aml_resources *r, unsigned int irq)
{
	uint16_t mask = (uint16_t)(1U << irq);

	OB_ASSERT(irq < 16);
	byte(&r->body, 0x22); /* 6.4.2.1: small, without flags: edge, active high, exclusive */
	aml_bytes(&r->body, &mask, 2);
}

void aml_interrupt(struct aml_resources *r, uint32_t gsi)
{
	/* 6.4.3.6: large; consumer, edge, active high, exclusive; one of them */
	const unsigned char head[] = {0x89, 6, 0, 0x03, 1};

	aml_bytes(&r->body, head, sizeof(head));
	aml_bytes(&r->body, &gsi, 4);
}

void aml_resources_end(struct aml *a, struct aml_resources *r)
{
	const unsigned char end[] = {0x79, 0}; /* 6.4.2.9; checksum 0: not checked */
	size_t at;

	aml_bytes(&r->body, end, sizeof(end));
	OB_ASSERT(!r->body.full); /* our own code says how many there are */
	byte(a, AML_BUFFER);
	at = a->len;
	aml_int(a, r->body.len);
	aml_bytes(a, r->bytes, r->body.len);
	aml_end(a, at);
}
