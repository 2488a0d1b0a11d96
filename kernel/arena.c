/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.c: memory that is accounted for by module.
 *
 * Each arena is a jemalloc arena of its own, so that "what does the page-state map cost" is
 * answered by the allocator, size classes included. Purging is off in them: each purge is a
 * madvise, which in a process with N VMs calls N MMU notifiers, for memory that lives as long as
 * its guest anyway.
 *
 * Sanitizer builds (OB_PLAIN_MALLOC) use malloc, which the sanitizer watches, with the same
 * counter.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/base.h"

#ifdef OB_PLAIN_MALLOC

#include <malloc.h>
#include <stdatomic.h>

struct ob_arena {
	_Atomic uint64_t bytes;
};

struct ob_arena *ob_arena_new(const char *name)
{
	struct ob_arena *a = calloc(1, sizeof(*a));

	(void)name;
	OB_ASSERT(a);
	return a;
}

void ob_arena_free(struct ob_arena *a)
{
	free(a);
}

void *ob_alloc(struct ob_arena *a, size_t bytes)
{
	void *p = calloc(1, bytes ? bytes : 1);

	OB_ASSERT(p);
	a->bytes += malloc_usable_size(p);
	return p;
}

void ob_free(struct ob_arena *a, void *p)
{
	if (!p)
		return;
	a->bytes -= malloc_usable_size(p);
	free(p);
}

uint64_t ob_arena_bytes(struct ob_arena *a)
{
	return a->bytes;
}

#else

#include <jemalloc/jemalloc.h>

struct ob_arena {
	unsigned int index;
};

struct ob_arena *ob_arena_new(const char *name)
{
	struct ob_arena *a = calloc(1, sizeof(*a));
	size_t len = sizeof(a->index);
	char key[64];
	ssize_t never = -1;

	(void)name;
	OB_ASSERT(a);
	OB_ASSERT(!mallctl("arenas.create", &a->index, &len, NULL, 0));
	snprintf(key, sizeof(key), "arena.%u.dirty_decay_ms", a->index);
	OB_ASSERT(!mallctl(key, NULL, NULL, &never, sizeof(never)));
	snprintf(key, sizeof(key), "arena.%u.muzzy_decay_ms", a->index);
	OB_ASSERT(!mallctl(key, NULL, NULL, &never, sizeof(never)));
	return a;
}

void ob_arena_free(struct ob_arena *a)
{
	char key[64];

	if (!a)
		return;
	snprintf(key, sizeof(key), "arena.%u.destroy", a->index);
	OB_ASSERT(!mallctl(key, NULL, NULL, NULL, 0));
	free(a);
}

void *ob_alloc(struct ob_arena *a, size_t bytes)
{
	void *p = mallocx(bytes ? bytes : 1,
			  MALLOCX_ARENA(a->index) | MALLOCX_TCACHE_NONE | MALLOCX_ZERO);

	OB_ASSERT(p);
	return p;
}

void ob_free(struct ob_arena *a, void *p)
{
	if (p)
		dallocx(p, MALLOCX_ARENA(a->index) | MALLOCX_TCACHE_NONE);
}

static uint64_t arena_stat(struct ob_arena *a, const char *what)
{
	char key[64];
	size_t v = 0, len = sizeof(v);

	snprintf(key, sizeof(key), "stats.arenas.%u.%s.allocated", a->index, what);
	OB_ASSERT(!mallctl(key, &v, &len, NULL, 0));
	return v;
}

uint64_t ob_arena_bytes(struct ob_arena *a)
{
	uint64_t epoch = 1;
	size_t len = sizeof(epoch);

	/* jemalloc's statistics are a snapshot; writing the epoch takes a new one. */
	OB_ASSERT(!mallctl("epoch", &epoch, &len, &epoch, sizeof(epoch)));
	return arena_stat(a, "small") + arena_stat(a, "large");
}

#endif
