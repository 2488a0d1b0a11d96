/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host_guest.c: what happens to guest memory without being asked for: accesses by the guest,
 * what the kernel does by itself, and what a test wants to know of either.
 */
#include "tests/fake_host_int.h"

#include <string.h>

/* What an access by the guest does to the pages of [at, at + len). NULL: it waits for one. */
static struct fake_map *access_pages(struct fake_host *f, hva_t at, uint64_t len, bool write)
{
	uint64_t from = at.v & ~OB_PAGE_MASK, first = 0;
	uint64_t n = (ob_align_up(at.v + len, OB_PAGE_SIZE) - from) / OB_PAGE_SIZE;
	struct fake_map *m = fake_range(f, hva(from), n * OB_PAGE_SIZE, &first);

	OB_ASSERT(m && m->raw);
	for (uint64_t i = 0; i < n; i++) {
		struct fake_page *p = &m->page[first + i];
		bool protect;

		fake_reconcile(f, m, first + i);
		protect = write && p->protect && fake_populated(p);
		if (!protect && !fake_missing(f, p))
			continue;
		fake_wait_for(f, from + i * OB_PAGE_SIZE, write, protect);
		return NULL;
	}
	for (uint64_t i = first; i < first + n; i++) {
		struct fake_page *p = &m->page[i];

		if (write)
			fake_break(f, p);
		else
			p->present = true;
		p->swapped = p->migrating = false;
	}
	return m;
}

bool fake_host_try_write(struct ob_host *h, hva_t at, const void *buf, uint64_t len)
{
	struct fake_host *f = fake_of(h);
	bool done;

	if (!len)
		return true;
	pthread_mutex_lock(&f->lock);
	done = access_pages(f, at, len, true) != NULL;
	if (done)
		memcpy(hva_ptr(at), buf, len);
	pthread_mutex_unlock(&f->lock);
	return done;
}

bool fake_host_try_read(struct ob_host *h, hva_t at, void *buf, uint64_t len)
{
	struct fake_host *f = fake_of(h);
	bool done;

	if (!len)
		return true;
	pthread_mutex_lock(&f->lock);
	done = access_pages(f, at, len, false) != NULL;
	if (done)
		memcpy(buf, hva_ptr(at), len);
	pthread_mutex_unlock(&f->lock);
	return done;
}

void fake_host_write(struct ob_host *h, hva_t at, const void *buf, uint64_t len)
{
	OB_ASSERT(fake_host_try_write(h, at, buf, len));
}

void fake_host_read(struct ob_host *h, hva_t at, void *buf, uint64_t len)
{
	OB_ASSERT(fake_host_try_read(h, at, buf, len));
}

void fake_host_swap_out(struct ob_host *h, hva_t at, uint64_t n)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, n * OB_PAGE_SIZE, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n; i++) {
		fake_reconcile(f, m, i);
		if (m->page[i].pfn) {
			m->page[i].present = m->page[i].migrating = false;
			m->page[i].swapped = true;
		}
	}
	pthread_mutex_unlock(&f->lock);
}

static void set_migrating(struct fake_host *f, hva_t at, uint64_t n, bool on)
{
	struct fake_map *m;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, n * OB_PAGE_SIZE, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n; i++) {
		struct fake_page *p = &m->page[i];

		fake_reconcile(f, m, i);
		p->migrating = on && p->present && (p->pfn || fake_unbroken(p));
	}
	pthread_mutex_unlock(&f->lock);
}

void fake_host_migrate_begin(struct ob_host *h, hva_t at, uint64_t n)
{
	set_migrating(fake_of(h), at, n, true);
}

void fake_host_migrate_end(struct ob_host *h, hva_t at, uint64_t n)
{
	set_migrating(fake_of(h), at, n, false);
}

void fake_host_pin(struct ob_host *h, hva_t at, uint64_t n, bool on)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, n * OB_PAGE_SIZE, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n; i++)
		m->page[i].pinned = on;
	pthread_mutex_unlock(&f->lock);
}

void fake_host_lose(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, OB_PAGE_SIZE, &first);
	OB_ASSERT(m && !m->page[first].file);
	m->page[first].pfn = 0;
	m->page[first].present = m->page[first].swapped = m->page[first].migrating = false;
	fake_show(f, m, first);
	pthread_mutex_unlock(&f->lock);
}

void fake_host_ksm_zero(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *m;
	struct fake_page *p;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = fake_range(f, at, OB_PAGE_SIZE, &first);
	OB_ASSERT(m && m->raw);
	fake_reconcile(f, m, first);
	p = &m->page[first];
	OB_ASSERT(p->present && p->pfn && !memcmp(fake_data(m, first), fake_zeroes, OB_PAGE_SIZE));
	p->pfn = 0;
	p->migrating = false;
	p->ksm_zero = p->file != 0;
	pthread_mutex_unlock(&f->lock);
}

uint64_t fake_host_private_pages(struct ob_host *h)
{
	struct fake_host *f = fake_of(h);
	uint64_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned int k = 0; k < f->nmaps; k++)
		for (uint64_t i = 0; i < f->map[k].size / OB_PAGE_SIZE; i++) {
			fake_reconcile(f, &f->map[k], i);
			n += f->map[k].page[i].present && f->map[k].page[i].pfn;
		}
	pthread_mutex_unlock(&f->lock);
	return n;
}

uint64_t fake_host_mapped_bytes(struct ob_host *h)
{
	struct fake_host *f = fake_of(h);
	uint64_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned int k = 0; k < f->nmaps; k++)
		for (uint64_t i = 0; i < f->map[k].size / OB_PAGE_SIZE; i++)
			n += f->map[k].page[i].unmapped ? 0 : OB_PAGE_SIZE;
	pthread_mutex_unlock(&f->lock);
	return n;
}

static bool page_at(struct fake_host *f, hva_t at, struct fake_page *out)
{
	uint64_t first = 0;
	struct fake_map *m = fake_range(f, hva(at.v & ~OB_PAGE_MASK), OB_PAGE_SIZE, &first);

	if (m) {
		fake_reconcile(f, m, first);
		*out = m->page[first];
	}
	return m != NULL;
}

bool fake_host_is_mergeable(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_page p = {0};

	pthread_mutex_lock(&f->lock);
	page_at(f, at, &p);
	pthread_mutex_unlock(&f->lock);
	return p.mergeable;
}

bool fake_host_frame_of(struct ob_host *h, hva_t at, int *fd, uint64_t *off)
{
	struct fake_host *f = fake_of(h);
	struct fake_page p = {0};
	bool yes;

	pthread_mutex_lock(&f->lock);
	yes = page_at(f, at, &p) && fake_unbroken(&p);
	pthread_mutex_unlock(&f->lock);
	*fd = yes ? FIRST_FD + (int)p.file - 1 : -1;
	*off = yes ? p.file_page * OB_PAGE_SIZE : 0;
	return yes;
}

bool fake_host_registered(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_page p = {0};

	pthread_mutex_lock(&f->lock);
	page_at(f, at, &p);
	pthread_mutex_unlock(&f->lock);
	return p.uffd != 0;
}

bool fake_host_file_mapped(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake_of(h);
	struct fake_page p = {0};

	pthread_mutex_lock(&f->lock);
	page_at(f, at, &p);
	pthread_mutex_unlock(&f->lock);
	return p.file != 0;
}
