/* SPDX-License-Identifier: Apache-2.0 */
/* fake_host_map.c: what is done to guest memory: mapping, dropping, and asking what is there. */
#include "tests/fake_host_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Map [first, first + n) of @m anew, @file 0 for anonymous. -ENOMEM when that makes too many. */
static int remap(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n, uint32_t file,
		 uint64_t file_page)
{
	struct fake_page *old = fake_calloc(n, sizeof(*old));
	int rc = 0;

	memcpy(old, &m->page[first], n * sizeof(*old));
	fake_set_pages(f, m, first, n, (struct fake_page){.file = file, .file_page = file_page});
	if (f->vmas + f->vma_others > f->vma_limit) {
		for (uint64_t i = 0; i < n; i++)
			fake_set_pages(f, m, first + i, 1, old[i]);
		rc = -ENOMEM;
	}
	for (uint64_t i = 0; !rc && m->raw && i < n; i++)
		memcpy(fake_data(m, first + i),
		       file ? f->file[file - 1].data + (file_page + i) * OB_PAGE_SIZE : fake_zeroes,
		       OB_PAGE_SIZE);
	free(old);
	return rc;
}

/* The map call that has just failed has taken the old mapping away, if a test wants it so. */
static int fail_map(struct fake_host *f, enum fake_op op, hva_t at, uint64_t size, int rc)
{
	struct fake_map *m;
	uint64_t first;

	pthread_mutex_lock(&f->lock);
	m = f->fail_hole[op] ? fake_range_or_holes(f, at, size, true, &first) : NULL;
	if (m) {
		fake_set_pages(f, m, first, size / OB_PAGE_SIZE,
			       (struct fake_page){.unmapped = true, .hole = true});
		/* Who reads it all the same finds neither what was there nor zeroes. */
		if (m->raw)
			memset(fake_data(m, first), 0xdb, size);
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int fake_ram_map(struct ob_host *h, uint64_t size, const char *name, hva_t *out)
{
	struct fake_host *f = fake_of(h);
	struct fake_map m = {.size = size};
	int rc = fake_enter(f, FAKE_RAM_MAP);

	if (rc)
		return rc;
	if (!size || size & OB_PAGE_MASK || !name)
		return fake_leave(f, FAKE_RAM_MAP, -EINVAL);
	if (f->vmas + f->vma_others >= f->vma_limit)
		return fake_leave(f, FAKE_RAM_MAP, -ENOMEM);
	if (f->no_memory) {
		m.base = f->next_base;
		f->next_base += ob_align_up(size, RAM_ALIGN) + RAM_ALIGN;
	} else {
		m.raw = fake_calloc(1, size + RAM_ALIGN);
		m.base = ob_align_up((uint64_t)(uintptr_t)m.raw, RAM_ALIGN);
	}
	m.page = fake_calloc(size / OB_PAGE_SIZE, sizeof(*m.page));
	f->map = realloc(f->map, (f->nmaps + 1) * sizeof(*f->map));
	OB_ASSERT(f->map);
	f->map[f->nmaps++] = m;
	f->vmas++;
	*out = hva(m.base);
	return fake_leave(f, FAKE_RAM_MAP, 0);
}

int fake_unmap(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_UNMAP);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < f->nfiles; i++)
		if (at.v == (uint64_t)(uintptr_t)f->file[i].data)
			return fake_leave(f, FAKE_UNMAP, 0); /* a shared view: the file stays */
	m = fake_range_or_holes(f, at, size, true, &first);
	if (!m)
		return fake_leave(f, FAKE_UNMAP, -EINVAL);
	fake_set_pages(f, m, first, size / OB_PAGE_SIZE, (struct fake_page){.unmapped = true});
	if (!fake_vma_starts(m, 0, m->size / OB_PAGE_SIZE)) {
		free(m->raw);
		free(m->page);
		*m = f->map[--f->nmaps];
	}
	return fake_leave(f, FAKE_UNMAP, 0);
}

int fake_map_frames(struct ob_host *h, hva_t at, uint64_t size, int pool_fd, uint64_t off)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_MAP_FRAMES);

	if (rc)
		return fail_map(f, FAKE_MAP_FRAMES, at, size, rc);
	file = fake_find_file(f, pool_fd);
	m = fake_range_or_holes(f, at, size, true, &first);
	if (!file)
		rc = -EBADF;
	else if (!m || off & OB_PAGE_MASK || off > file->size || size > file->size - off)
		rc = -EINVAL;
	else
		rc = remap(f, m, first, size / OB_PAGE_SIZE, (uint32_t)(pool_fd - FIRST_FD + 1),
			   off / OB_PAGE_SIZE);
	return fake_leave(f, FAKE_MAP_FRAMES, rc);
}

int fake_map_empty(struct ob_host *h, hva_t at, uint64_t size, const char *name)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_MAP_EMPTY);

	if (rc)
		return fail_map(f, FAKE_MAP_EMPTY, at, size, rc);
	m = fake_range_or_holes(f, at, size, true, &first);
	rc = m && name ? remap(f, m, first, size / OB_PAGE_SIZE, 0, 0) : -EINVAL;
	return fake_leave(f, FAKE_MAP_EMPTY, rc);
}

bool fake_mapped(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	uint64_t first;
	bool yes;

	pthread_mutex_lock(&f->lock);
	yes = fake_range(f, at, size, &first) != NULL;
	pthread_mutex_unlock(&f->lock);
	return yes;
}

/* -EINVAL, and nothing done, where there is what must not be dropped; or with @reveal, where there is
 * no file to show. */
static int drop(struct fake_host *f, hva_t at, uint64_t size, bool reveal)
{
	uint64_t first, n = size / OB_PAGE_SIZE;
	struct fake_map *m = fake_range(f, at, size, &first);

	if (!m)
		return -EINVAL;
	/* A page that was broken off a frame: dropping it would bring that frame to light. */
	for (uint64_t i = first; i < first + n; i++) {
		fake_reconcile(f, m, i);
		if (reveal ? !m->page[i].file : m->page[i].file && !fake_unbroken(&m->page[i]))
			return -EINVAL;
	}
	for (uint64_t i = first; i < first + n; i++) {
		struct fake_page *p = &m->page[i];

		p->pfn = 0;
		p->present = p->swapped = p->migrating = p->ksm_zero = p->protect = p->pinned =
			false;
		fake_show(f, m, i);
	}
	return 0;
}

/* Strict: only what is anonymous, and nothing that the caller would wait for. */
int fake_populate(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	uint64_t first, n = size / OB_PAGE_SIZE, limit;
	struct fake_map *m;
	int rc = fake_enter_partly(f, FAKE_POPULATE, &limit);

	if (rc)
		return rc;
	m = fake_range(f, at, size, &first);
	for (uint64_t i = 0; m && i < n; i++)
		if (m->page[first + i].file || fake_missing(f, &m->page[first + i]))
			m = NULL;
	for (uint64_t i = 0; m && i < n && !rc; i++) {
		if (i == limit)
			rc = -f->fail_err[FAKE_POPULATE];
		else
			fake_break(f, &m->page[first + i]);
	}
	return fake_leave(f, FAKE_POPULATE, m ? rc : -EINVAL);
}

int fake_discard(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	int rc = fake_enter(f, FAKE_DISCARD);

	return rc ? rc : fake_leave(f, FAKE_DISCARD, drop(f, at, size, false));
}

static int drop_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n, bool reveal)
{
	struct fake_host *f = fake_of(h);
	uint64_t limit;
	int rc = fake_enter_partly(f, FAKE_DISCARD_MANY, &limit);

	if (rc)
		return rc;
	for (unsigned int i = 1; i < n && !rc; i++)
		if (ranges[i].at.v < ranges[i - 1].at.v + ranges[i - 1].size)
			rc = -EINVAL;
	for (unsigned int i = 0; i < n && !rc; i++)
		rc = i == limit ? -f->fail_err[FAKE_DISCARD_MANY]
				: drop(f, ranges[i].at, ranges[i].size, reveal);
	return fake_leave(f, FAKE_DISCARD_MANY, rc);
}

int fake_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n)
{
	return drop_many(h, ranges, n, false);
}

int fake_reveal_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n)
{
	return drop_many(h, ranges, n, true);
}

int fake_mergeable(struct ob_host *h, hva_t at, uint64_t size, bool on)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_MERGEABLE);

	if (rc)
		return rc;
	m = fake_range(f, at, size, &first);
	if (m) {
		uint64_t n = size / OB_PAGE_SIZE, before = fake_vma_starts(m, first, n);

		for (uint64_t i = 0; i < n; i++)
			m->page[first + i].mergeable = on;
		f->vmas += fake_vma_starts(m, first, n) - before;
	}
	return fake_leave(f, FAKE_MERGEABLE, m ? 0 : -EINVAL);
}

static void page_view(struct fake_host *f, struct fake_map *m, uint64_t i, struct ob_page *out)
{
	struct fake_page *p = &m->page[i];
	uint64_t pfn = p->pfn;

	fake_reconcile(f, m, i);
	*out = (struct ob_page){
		.present = p->present && !p->migrating,
		.swapped = p->swapped || p->migrating,
		.file = p->migrating && fake_unbroken(p),
	};
	if (!out->present)
		return;
	out->file = fake_unbroken(p);
	if (out->file) {
		fake_file_touch(f, &f->file[p->file - 1], p->file_page);
		pfn = f->file[p->file - 1].pfn[p->file_page];
	} else if (!p->pfn) {
		pfn = ZERO_PFN;
	} else {
		pfn = p->pfn;
	}
	if (f->host.knows_pfn) {
		out->pfn = pfn;
		out->zero = pfn == ZERO_PFN;
	}
}

int fake_pages(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first;
	int rc = fake_enter(f, FAKE_PAGES);

	if (rc)
		return rc;
	m = n <= UINT64_MAX / OB_PAGE_SIZE ? fake_range(f, at, n * OB_PAGE_SIZE, &first) : NULL;
	for (uint64_t i = 0; m && i < n; i++)
		page_view(f, m, first + i, &out[i]);
	return fake_leave(f, FAKE_PAGES, m ? 0 : -EFAULT);
}

int fake_vma_count(struct ob_host *h, uint64_t *have, uint64_t *limit)
{
	struct fake_host *f = fake_of(h);
	int rc = fake_enter(f, FAKE_VMA_COUNT);

	if (rc)
		return rc;
	*have = f->vmas + f->vma_others;
	*limit = f->vma_limit;
	return fake_leave(f, FAKE_VMA_COUNT, 0);
}
