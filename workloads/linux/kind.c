/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kind.c: what a page is to the Linux kernel.
 *
 * Flags come first, the place second: parts of the kernel's image are freed after boot, and are then as
 * good as any other memory. A page without any flag that says something was allocated by the kernel for
 * itself, or rests on a CPU's list of free pages; the kernel does not tell these two apart.
 */
#include <stdlib.h>
#include <string.h>

#include "workloads/linux/kind.h"

#define PAGE 4096

static void add(struct kind_range *list, unsigned int *n, uint64_t from, uint64_t to,
		enum agent_page_kind kind)
{
	if (*n < KIND_RANGES && from < to)
		list[(*n)++] = (struct kind_range){from, to, kind};
}

/* "  01000000-01ffffff : Kernel code": the last byte is the range's. */
static void read_line(struct kind_map *m, const char *line)
{
	static const struct {
		const char *name;
		enum agent_page_kind kind;
	} parts[] = {
		{"Kernel code", AGENT_PAGE_CODE},
		{"Kernel rodata", AGENT_PAGE_RODATA},
		{"Kernel data", AGENT_PAGE_DATA},
		{"Kernel bss", AGENT_PAGE_DATA},
	};
	uint64_t from, last;
	char *at;
	size_t n;

	from = strtoull(line, &at, 16);
	if (*at != '-')
		return;
	last = strtoull(at + 1, &at, 16);
	if (strncmp(at, " : ", 3) || last <= from || last == UINT64_MAX)
		return;
	at += 3;
	n = strcspn(at, "\n");
	/* Of RAM whole pages, as the kernel takes them; of its image all that have some of it. */
	if (n == strlen("System RAM") && !strncmp(at, "System RAM", n))
		add(m->ram, &m->nram, (from + PAGE - 1) / PAGE, (last + 1) / PAGE,
		    AGENT_PAGE_UNKNOWN);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (n == strlen(parts[i].name) && !strncmp(at, parts[i].name, n))
			add(m->image, &m->nimage, from / PAGE, last / PAGE + 1, parts[i].kind);
}

void kind_map_read(struct kind_map *m, const char *iomem)
{
	*m = (struct kind_map){0};
	while (*iomem) {
		read_line(m, iomem);
		iomem += strcspn(iomem, "\n");
		iomem += *iomem == '\n';
	}
}

enum agent_page_kind kind_of(const struct kind_map *m, uint64_t gfn, uint64_t flags,
			     enum agent_page_kind before)
{
	if (flags & KPF_NOPAGE)
		return AGENT_PAGE_BOOT;
	if (flags & KPF_BUDDY)
		return AGENT_PAGE_FREE;
	if (flags & KPF_SLAB)
		return AGENT_PAGE_SLAB;
	if (flags & KPF_PGTABLE)
		return AGENT_PAGE_TABLES;
	if (flags & KPF_ANON)
		return AGENT_PAGE_ANON;
	/* The flags of pages that belong together are those of the first. */
	if (flags & KPF_COMPOUND_TAIL)
		return before;
	/* It is up to date before it is on a list. */
	if (flags & (KPF_LRU | KPF_UPTODATE | KPF_SWAPBACKED))
		return AGENT_PAGE_CACHE;
	for (unsigned int i = 0; i < m->nimage; i++)
		if (gfn >= m->image[i].from && gfn < m->image[i].to)
			return m->image[i].kind;
	return flags & KPF_RESERVED ? AGENT_PAGE_BOOT : AGENT_PAGE_KERNEL;
}
