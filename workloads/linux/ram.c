/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram.c: a worker's memory: one stretch of private anonymous pages, of which the cache's part is
 * replaced by mappings of the disk (disk.c). Where a page is in the guest's physical memory is known to
 * root by /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst): one read for all pages of a
 * batch.
 *
 * Huge pages are not asked for and are turned off here: a page that was never touched is to stay so,
 * and 2 MiB for one page are a lot in a guest of 96 MiB.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

/* What the kernel keeps besides what it calls available: page tables, and a guest that lives on. */
#define RESERVE_PART  16
#define RESERVE_PAGES 512

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_PFN	((1ULL << 55) - 1)
#define PAGEMAP_BATCH	256
#define FLUSH_WORDS	256

/* The value of @name ("Name: %llu kB") in @text of /proc/meminfo, in pages; 0 when it is not there. */
static uint64_t meminfo(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) / 4 : 0;
}

/*
 * What the kernel says is available, without the part that it would first have to get out of its own
 * tables (dentries, inodes): it counts most of that, but in a small guest that has just booted little
 * of it can be had, and a first process that asks for more than there is is a panic.
 */
uint64_t ram_available(void)
{
	char text[4096];
	uint64_t pages, less;

	if (read_text("/proc/meminfo", text, sizeof(text)) <= 0)
		return 0;
	pages = meminfo(text, "MemAvailable:");
	less = meminfo(text, "SReclaimable:");
	less += pages / RESERVE_PART + RESERVE_PAGES;
	return pages > less ? pages - less : 0;
}

void ram_init(struct guest *g)
{
	const struct agent *a = g->p->agent;
	void *at;

	g->ram.pages = a->mem_pages / a->nworkers;
	g->ram.total = (uint64_t)sysconf(_SC_PHYS_PAGES) / a->nworkers;
	if (g->ram.total < g->ram.pages)
		g->ram.total = g->ram.pages;
	g->ram.limit = g->ram.pages;
	if (g->ram.pages < LAYOUT_MIN_PAGES)
		guest_fail(g, MG_EXIT_MEMORY,
			   "%u KiB of available memory are too little for a worker: it takes %u",
			   g->ram.pages * 4, (uint64_t)LAYOUT_MIN_PAGES * 4);
	at = mmap(NULL, g->ram.pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		guest_fail(g, MG_EXIT_MEMORY, "no %u KiB of addresses", g->ram.pages * 4);
	madvise(at, g->ram.pages * PAGE_SIZE, MADV_NOHUGEPAGE);
	g->p->base = at;
}

uint64_t *ram_page(const struct guest *g, uint64_t index)
{
	return g->p->base + index * PAGE_WORDS;
}

uint64_t ram_span(const struct guest *g, uint64_t index, uint64_t max)
{
	uint64_t left = index < g->ram.pages ? g->ram.pages - index : 0;

	return left < max ? left : max;
}

void *ram_take(struct guest *g, uint64_t bytes)
{
	uint64_t pages = (bytes + PAGE_SIZE - 1) / PAGE_SIZE;
	void *at;

	if (!pages)
		pages = 1;
	if (g->ram.taken + pages > g->ram.limit)
		guest_fail(g, MG_EXIT_MEMORY, "no %u pages for bookkeeping", pages);
	at = ram_page(g, g->ram.taken);
	g->ram.taken += pages;
	memset(at, 0, pages * PAGE_SIZE);
	return at;
}

/* Back to the kernel, which does not wipe what is freed. */
void ram_leave(struct guest *g, uint64_t index, uint64_t n)
{
	if (n)
		madvise(ram_page(g, index), n * PAGE_SIZE, MADV_DONTNEED);
}

/* The kernel below us is not counted: nobody says how much of it is touched. */
uint64_t ram_own(const struct guest *g)
{
	return g->ram.taken;
}

/* Frame numbers of @n pages, AGENT_GFN_UNKNOWN where the kernel does not say. @n at most
 * PAGEMAP_BATCH. */
static void frames(const struct guest *g, const void *at, uint64_t *gfn, uint64_t n)
{
	size_t want = n * sizeof(*gfn);
	off_t where = (off_t)((uintptr_t)at / PAGE_SIZE * sizeof(*gfn));
	bool ok = pread(g->p->agent->pagemap_fd, gfn, want, where) == (ssize_t)want;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t pfn = ok && gfn[i] & PAGEMAP_PRESENT ? gfn[i] & PAGEMAP_PFN : 0;

		/* Who may not know is told 0. */
		gfn[i] = pfn ? pfn : AGENT_GFN_UNKNOWN;
	}
}

uint64_t ram_gpa(const struct guest *g, const void *at)
{
	uint64_t gfn;

	frames(g, at, &gfn, 1);
	return gfn == AGENT_GFN_UNKNOWN ? UINT64_MAX : gfn * PAGE_SIZE + (uintptr_t)at % PAGE_SIZE;
}

/* Runs of frames that follow each other are one word each. */
void platform_checked(struct guest *g, const void *at, uint64_t n)
{
	struct platform *p = g->p;
	uint64_t gfn[PAGEMAP_BATCH], len;

	if (p->nchecked + n > CHECKED_MAX)
		port_flush_checked(p);
	frames(g, at, gfn, n);
	for (uint64_t i = 0; i < n; i += len) {
		bool known = gfn[i] != AGENT_GFN_UNKNOWN;

		for (len = 1; i + len < n && gfn[i + len] == gfn[i] + (known ? len : 0); len++)
			;
		p->checked[p->nchecked++] = gfn[i] << 16 | len;
	}
	/* Else with the next sleep; but loading does not sleep, and the host wants to know soon. */
	if (p->nchecked >= FLUSH_WORDS)
		port_flush_checked(p);
}
