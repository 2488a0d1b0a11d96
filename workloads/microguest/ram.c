/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ram.c: usable memory as one run of numbered pages, holes not counted, and the page tables for
 * what lies above the first GiB. Ring 3 may write them, as they are mapped for it; entries only go
 * from absent to present, so no translation has to be flushed (which ring 3 could not do). A table
 * is filled before it is linked: a KVM that shadows page tables watches only those that are in use.
 */
#include "workloads/microguest/mg.h"

#define PTE_TABLE 0x067ULL
#define PTE_LARGE 0x0e7ULL
#define RAM_MAX	  (512 * GIB) /* what one table of 1 GiB entries covers */

extern uint64_t boot_pdpt[512];
extern const char kernel_start[], kernel_end[];

uint64_t *ram_page(const struct guest *g, uint64_t index)
{
	const struct platform *r = g->p;
	unsigned int i = r->nranges - 1;

	while (i > 0 && index < r->range[i].first)
		i--;
	return (uint64_t *)(r->range[i].addr + (index - r->range[i].first) * PAGE_SIZE);
}

uint64_t ram_span(const struct guest *g, uint64_t index, uint64_t max)
{
	const struct platform *r = g->p;

	for (unsigned int i = 0; i < r->nranges; i++) {
		uint64_t end = r->range[i].first + r->range[i].pages;

		if (index < end)
			return end - index < max ? end - index : max;
	}
	return 0;
}

void *ram_take(struct guest *g, uint64_t bytes)
{
	uint64_t pages = (bytes + PAGE_SIZE - 1) / PAGE_SIZE;
	void *at;

	if (!pages)
		pages = 1;
	if (g->ram.taken + pages > g->ram.limit || ram_span(g, g->ram.taken, pages) < pages)
		guest_fail(g, MG_EXIT_MEMORY, "no %u pages in one piece for bookkeeping", pages);
	at = ram_page(g, g->ram.taken);
	g->ram.taken += pages;
	memset(at, 0, pages * PAGE_SIZE);
	return at;
}

void ram_init(struct guest *g)
{
	const struct platform *r = g->p;

	g->ram.limit = g->ram.pages;
	if (g->ram.pages < LAYOUT_MIN_PAGES)
		guest_fail(g, MG_EXIT_MEMORY,
			   "%u KiB of free memory are too little: it takes a guest of 8 MiB",
			   g->ram.pages * 4);
	/* Bookkeeping comes from the first range, before more is mapped. */
	if (r->range[0].addr >= GIB)
		guest_fail(g, MG_EXIT_MEMORY, "no memory in the first GiB above the kernel");
	for (unsigned int i = 0; i < r->nranges; i++) {
		uint64_t end = r->range[i].addr + r->range[i].pages * PAGE_SIZE;

		if (end > RAM_MAX || (i && r->range[i].addr < r->range[i - 1].addr))
			guest_fail(g, MG_EXIT_BOOT, "memory map: range at %x", r->range[i].addr);
		for (uint64_t gib = r->range[i].addr / GIB; gib * GIB < end; gib++) {
			if (boot_pdpt[gib] & 1)
				continue;
			uint64_t *pd = ram_take(g, PAGE_SIZE);

			for (uint64_t k = 0; k < 512; k++)
				pd[k] = (gib * GIB + k * (2ULL << 20)) | PTE_LARGE;
			barrier();
			boot_pdpt[gib] = (uint64_t)pd | PTE_TABLE;
			barrier();
		}
	}
}

/* Without a kernel below, memory that nobody uses is simply left alone. */
void ram_leave(struct guest *g, uint64_t index, uint64_t n)
{
	(void)g;
	(void)index;
	(void)n;
}

uint64_t ram_own(const struct guest *g)
{
	return (uint64_t)(kernel_end - kernel_start) / PAGE_SIZE + g->ram.taken;
}

uint64_t ram_gpa(const struct guest *g, const void *at)
{
	(void)g;
	return (uint64_t)at;
}
