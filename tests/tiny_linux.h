/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiny_linux.h: a kernel for tests: a bzImage of a few hundred bytes of 64-bit code, so that PCs can
 * be tried where Linux would take minutes to boot. It says a line on its console, finds out by its
 * command line which guest it is ("overbook.guest=N", N < 10), and does what the N-th letter behind
 * "tiny=" says:
 *
 *	o	powers off			h	hangs
 *	p	says that it panics, resets	r	resets, but only the first time; then powers off
 *	t	triple fault			e	echoes what is typed until q, then powers off
 *	s	stays silent and hangs		l	says "tiny login: ", without a newline, and hangs
 *	a	resets, again and again		b	says that and resets, the first time; then hangs
 */
#ifndef OVERBOOK_TESTS_TINY_LINUX_H
#define OVERBOOK_TESTS_TINY_LINUX_H

#include <stddef.h>
#include <stdint.h>

#define TINY_VERSION "6.99.0-tiny (nobody@nowhere) #1 SMP"
#define TINY_MAX     8192

/* The kernel's file into @buf; returns its length. */
size_t tiny_kernel(uint8_t buf[TINY_MAX]);
/* The same as a new file in /tmp, whose name goes into @path (at least 40 bytes). Unlink it. */
void tiny_file(char *path, size_t n);
/* Set a field of @bytes bytes in the file's setup header. */
void tiny_set(uint8_t *kernel, unsigned int at, uint64_t v, unsigned int bytes);

#endif
