/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host_huge.c: huge pages of the fake host.
 *
 * What is allocated as one stays so until it is split: the frames of a huge page are neighbours, and
 * those of it that no page of the guest shows any more, while another one does, are memory that was
 * given back and is held all the same (fake_huge_stuck). Which unit is mapped huge follows from the
 * frames: all of one huge page, in their order. A huge page comes into being when a test touches a
 * unit (fake_huge_touch), or when one is collapsed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_host_int.h"

#define UNIT (OB_HUGE_SIZE / OB_PAGE_SIZE)

/* The huge page that a frame is a part of, not split yet; NULL: none. */
static struct fake_folio *folio_of(struct fake_host *f, uint64_t pfn)
{
	for (unsigned int i = 0; i < f->nfolios; i++)
		if (!f->folio[i].split && pfn >= f->folio[i].pfn && pfn < f->folio[i].pfn + UNIT)
			return &f->folio[i];
	return NULL;
}

static struct fake_map *unit_at(struct fake_host *f, hva_t at, uint64_t n, uint64_t *first)
{
	return at.v % OB_HUGE_SIZE ? NULL : fake_range(f, at, n * OB_HUGE_SIZE, first);
}

/* Back a unit by a new huge page. What is in it stays. */
static void folio_make(struct fake_host *f, struct fake_page *p)
{
	uint64_t pfn = ob_align_up(f->next_pfn, UNIT);

	f->folio = realloc(f->folio, (f->nfolios + 1) * sizeof(*f->folio));
	OB_ASSERT(f->folio);
	f->folio[f->nfolios++] = (struct fake_folio){.pfn = pfn};
	f->next_pfn = pfn + UNIT;
	for (uint64_t i = 0; i < UNIT; i++) {
		p[i].pfn = pfn + i;
		p[i].present = true;
		p[i].swapped = p[i].migrating = false;
	}
}

int fake_huge(struct ob_host *h, hva_t at, uint64_t size, bool on)
{
	struct fake_host *f = fake_of(h);
	uint64_t first, n = size / OB_PAGE_SIZE, before;
	struct fake_map *m;
	int rc = fake_enter(f, FAKE_HUGE);

	if (rc)
		return rc;
	m = fake_range(f, at, size, &first);
	if (!m)
		return fake_leave(f, FAKE_HUGE, -ENOMEM);
	before = fake_vma_starts(m, first, n);
	for (uint64_t i = first; i < first + n; i++)
		m->page[i].may_huge = on;
	f->vmas += fake_vma_starts(m, first, n) - before;
	return fake_leave(f, FAKE_HUGE, 0);
}

/* Why the kernel would not collapse this unit; 0: it would. */
static int cannot_collapse(struct fake_host *f, struct fake_map *m, uint64_t first)
{
	for (uint64_t i = first; i < first + UNIT; i++) {
		const struct fake_page *p = &m->page[i];

		fake_reconcile(f, m, i);
		if (p->file || !p->may_huge)
			return -EINVAL;
		if (p->pinned || (p->uffd && !p->pfn))
			return -EBUSY;
	}
	return 0;
}

int fake_collapse(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_COLLAPSE);

	if (rc)
		return rc;
	m = unit_at(f, at, size / OB_HUGE_SIZE, &first);
	rc = m ? 0 : -EINVAL;
	for (uint64_t i = 0; i < size / OB_PAGE_SIZE && !rc; i += UNIT) {
		rc = cannot_collapse(f, m, first + i);
		if (!rc)
			folio_make(f, &m->page[first + i]);
	}
	return fake_leave(f, FAKE_COLLAPSE, rc);
}

int fake_split(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_SPLIT);

	if (rc)
		return rc;
	m = unit_at(f, at, 1, &first);
	if (!m)
		return fake_leave(f, FAKE_SPLIT, -EINVAL);
	for (uint64_t i = first; i < first + UNIT; i++)
		if (m->page[i].pinned)
			return fake_leave(f, FAKE_SPLIT, -EBUSY);
	for (uint64_t i = first; i < first + UNIT; i++) {
		struct fake_page *p = &m->page[i];
		struct fake_folio *folio = p->pfn ? folio_of(f, p->pfn) : NULL;

		if (folio)
			folio->split = true;
	}
	/* The zero page takes the place of pages of zeroes. */
	for (uint64_t i = first; i < first + UNIT; i++)
		if (m->page[i].pfn && m->page[i].present && m->raw &&
		    !memcmp(fake_data(m, i), fake_zeroes, OB_PAGE_SIZE))
			m->page[i].pfn = 0;
	return fake_leave(f, FAKE_SPLIT, 0);
}

static bool is_huge(struct fake_host *f, const struct fake_page *p)
{
	const struct fake_folio *folio = p[0].pfn ? folio_of(f, p[0].pfn) : NULL;

	for (uint64_t i = 0; i < UNIT && folio; i++)
		if (p[i].pfn != folio->pfn + i || p[i].file || !p[i].present)
			return false;
	return folio != NULL;
}

int fake_huge_units(struct ob_host *h, hva_t at, uint64_t n, uint8_t *out)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_HUGE_UNITS);

	if (rc)
		return rc;
	m = unit_at(f, at, n, &first);
	for (uint64_t i = 0; i < n && m; i++)
		out[i] = is_huge(f, &m->page[first + i * UNIT]);
	return fake_leave(f, FAKE_HUGE_UNITS, m || !n ? 0 : -EFAULT);
}

void fake_huge_touch(struct ob_host *h, hva_t at, uint64_t n)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;

	pthread_mutex_lock(&f->lock);
	m = unit_at(f, at, n, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n * UNIT; i++)
		OB_ASSERT(!m->page[i].pfn && m->page[i].may_huge && !m->page[i].uffd);
	for (uint64_t i = 0; i < n; i++)
		folio_make(f, &m->page[first + i * UNIT]);
	pthread_mutex_unlock(&f->lock);
}

bool fake_huge_may(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	bool r;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, OB_PAGE_SIZE, &first);
	r = m && m->page[first].may_huge;
	pthread_mutex_unlock(&f->lock);
	return r;
}

uint64_t fake_huge_stuck(struct ob_host *h)
{
	struct fake_host *f = fake_of(h);
	uint64_t stuck = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned int i = 0; i < f->nfolios; i++) {
		uint64_t shown = 0;

		if (f->folio[i].split)
			continue;
		for (unsigned int k = 0; k < f->nmaps; k++)
			for (uint64_t p = 0; p < f->map[k].size / OB_PAGE_SIZE; p++)
				shown += !f->map[k].page[p].unmapped &&
					 f->map[k].page[p].pfn >= f->folio[i].pfn &&
					 f->map[k].page[p].pfn < f->folio[i].pfn + UNIT;
		stuck += shown ? UNIT - shown : 0;
	}
	pthread_mutex_unlock(&f->lock);
	return stuck;
}
