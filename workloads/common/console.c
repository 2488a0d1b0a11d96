/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c: formatted output on the console, byte by byte (con_put of the platform).
 */
#include "workloads/common/guest.h"

static void put_number(uint64_t v, unsigned int base)
{
	char buf[20];
	unsigned int n = 0;

	do {
		buf[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		con_put(buf[--n]);
}

void con_vprintf(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			con_put(*fmt);
			continue;
		}
		switch (*++fmt) {
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				con_put(*s);
			break;
		case 'u':
			put_number(va_arg(ap, uint64_t), 10);
			break;
		case 'x':
			con_put('0');
			con_put('x');
			put_number(va_arg(ap, uint64_t), 16);
			break;
		case '%':
			con_put('%');
			break;
		default: /* a mistake in the format: show it, take no argument */
			con_put('%');
			if (!*fmt)
				return;
			con_put(*fmt);
		}
	}
}

void con_printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	con_vprintf(fmt, ap);
	va_end(ap);
}
