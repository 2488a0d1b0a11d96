/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c: how loaders write guest memory.
 *
 * A guest may be booted anew when it has run for long: by then some of its pages are frames that
 * others share, and some are away. So a loader writes like a device does, in brackets
 * (gmem_access_begin), and in pieces, since a page that is in a bracket is not merged meanwhile.
 *
 * A page that a loader writes is memory that the host must hold. So zeros are not written where
 * there are zeros already: a large .bss, or a hole in a file, costs nothing until the guest uses
 * it.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "kernel/boot_int.h"

#define LOAD_PIECE (64 * OB_KIB)

static bool is_zero(const char *p, uint64_t n)
{
	return p[0] == 0 && !memcmp(p, p + 1, n - 1);
}

/* One piece, page by page. @from NULL: zeros. */
static void put(char *to, const char *from, uint64_t n)
{
	while (n) {
		uint64_t part = OB_MIN(n, OB_PAGE_SIZE - ((uintptr_t)to & OB_PAGE_MASK));

		if (from && !is_zero(from, part))
			memcpy(to, from, part);
		else if (!is_zero(to, part))
			memset(to, 0, part);
		to += part;
		from = from ? from + part : NULL;
		n -= part;
	}
}

static int load(struct gmem *mem, gpa_t at, const char *from, uint64_t len)
{
	struct gmem_access acc;
	int r;

	while (len) {
		uint64_t n = OB_MIN(len, LOAD_PIECE - at.v % LOAD_PIECE);

		/* Busy: as many accesses are under way as can be. They end by themselves. */
		while ((r = gmem_access_begin(mem, at, n, true, &acc)) == -EBUSY)
			sched_yield();
		if (r)
			return r;
		put(acc.ptr, from, n);
		__asm__ volatile("" ::: "memory");
		gmem_access_end(mem, &acc);
		at.v += n;
		from = from ? from + n : NULL;
		len -= n;
	}
	return 0;
}

int load_write(struct gmem *mem, gpa_t at, const void *buf, uint64_t len)
{
	return load(mem, at, buf, len);
}

int load_zero(struct gmem *mem, gpa_t at, uint64_t len)
{
	return load(mem, at, NULL, len);
}
