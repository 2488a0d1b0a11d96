/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host_page.c: the model of pages and mappings.
 *
 * One record per guest page says which mapping it belongs to (anonymous, or a page of a file) and
 * what backs it now. A page of a file mapping that is not broken shows the file's bytes because
 * they are copied into the RAM whenever mapping or file change; so a reader needs no help, and only
 * stores must go through the model.
 */
#include "tests/fake_host_int.h"

#include <stdlib.h>
#include <string.h>

const char fake_zeroes[OB_PAGE_SIZE];

struct fake_host *fake_of(struct ob_host *h)
{
	return (struct fake_host *)(void *)h;
}

void *fake_calloc(uint64_t n, uint64_t size)
{
	void *p = calloc(n, size);

	OB_ASSERT(p);
	return p;
}

/* --- pages and files -------------------------------------------------------------------------- */

static struct fake_map *find_map(struct fake_host *f, uint64_t at, uint64_t size)
{
	for (unsigned int i = 0; i < f->nmaps; i++) {
		struct fake_map *m = &f->map[i];

		if (at >= m->base && at - m->base < m->size && size <= m->size - (at - m->base))
			return m;
	}
	return NULL;
}

struct fake_map *fake_range_or_holes(struct fake_host *f, hva_t at, uint64_t size, bool holes,
				     uint64_t *first)
{
	struct fake_map *m;

	if ((at.v | size) & OB_PAGE_MASK || !size)
		return NULL;
	m = find_map(f, at.v, size);
	if (!m)
		return NULL;
	*first = (at.v - m->base) / OB_PAGE_SIZE;
	for (uint64_t i = 0; i < size / OB_PAGE_SIZE; i++)
		if (m->page[*first + i].unmapped && !(holes && m->page[*first + i].hole))
			return NULL;
	return m;
}

struct fake_map *fake_range(struct fake_host *f, hva_t at, uint64_t size, uint64_t *first)
{
	return fake_range_or_holes(f, at, size, false, first);
}

char *fake_data(struct fake_map *m, uint64_t i)
{
	return m->raw ? (char *)(uintptr_t)(m->base + i * OB_PAGE_SIZE) : NULL;
}

bool fake_unbroken(const struct fake_page *p)
{
	return p->file && !p->pfn && !p->ksm_zero;
}

void fake_break(struct fake_host *f, struct fake_page *p)
{
	if (!p->pfn)
		p->pfn = f->next_pfn++;
	p->present = true;
	p->swapped = p->migrating = p->ksm_zero = false;
}

bool fake_populated(const struct fake_page *p)
{
	return p->present || p->swapped || p->migrating || p->pfn;
}

/* A file's page that has a block is there for whoever maps it, registered or not. */
bool fake_missing(struct fake_host *f, const struct fake_page *p)
{
	if (!p->uffd || p->unmapped)
		return false;
	return fake_unbroken(p) ? !f->file[p->file - 1].pfn[p->file_page] : !fake_populated(p);
}

/* What reading it through a pointer shows, as long as it has no memory of its own. */
static const char *shown(struct fake_host *f, const struct fake_page *p)
{
	if (fake_unbroken(p))
		return f->file[p->file - 1].data + p->file_page * OB_PAGE_SIZE;
	return fake_missing(f, p) ? f->poison : fake_zeroes;
}

void fake_show(struct fake_host *f, struct fake_map *m, uint64_t i)
{
	if (m->raw)
		memcpy(fake_data(m, i), shown(f, &m->page[i]), OB_PAGE_SIZE);
}

void fake_reconcile(struct fake_host *f, struct fake_map *m, uint64_t i)
{
	struct fake_page *p = &m->page[i];

	if (!m->raw || p->pfn || p->unmapped || !memcmp(fake_data(m, i), shown(f, p), OB_PAGE_SIZE))
		return;
	/* On a real host whoever has stored here would have waited, perhaps for himself. */
	OB_ASSERT(!fake_missing(f, p));
	fake_break(f, p);
}

/* --- mappings, as the kernel counts them ------------------------------------------------------ */

bool fake_same_vma(const struct fake_page *a, const struct fake_page *b)
{
	if (a->unmapped || b->unmapped || a->file != b->file || a->mergeable != b->mergeable ||
	    a->uffd != b->uffd || a->wp_mode != b->wp_mode || a->may_huge != b->may_huge)
		return false;
	return !a->file || b->file_page == a->file_page + 1;
}

/* Changing pages [first, first + n) can change only the mappings that begin in [first, first + n]. */
uint64_t fake_vma_starts(const struct fake_map *m, uint64_t first, uint64_t n)
{
	uint64_t found = 0, end = OB_MIN(first + n + 1, m->size / OB_PAGE_SIZE);

	for (uint64_t i = first; i < end; i++)
		if (!m->page[i].unmapped && (!i || !fake_same_vma(&m->page[i - 1], &m->page[i])))
			found++;
	return found;
}

void fake_set_pages(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n,
		    struct fake_page how)
{
	uint64_t before = fake_vma_starts(m, first, n);

	for (uint64_t i = 0; i < n; i++) {
		struct fake_page *p = &m->page[first + i];

		if (p->file)
			f->file[p->file - 1].maps[p->file_page]--;
		*p = how;
		if (how.file) {
			p->file_page = how.file_page + i;
			f->file[p->file - 1].maps[p->file_page]++;
		}
	}
	f->vmas += fake_vma_starts(m, first, n) - before;
}
