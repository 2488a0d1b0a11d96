/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host.c: the model behind fake_host.h.
 *
 * One record per guest page says which mapping it belongs to (anonymous, or a page of a file) and
 * what backs it now. A page of a file mapping that is not broken shows the file's bytes because
 * they are copied into the RAM whenever mapping or file change; so a reader needs no help, and only
 * stores must go through the model.
 */
#include "tests/fake_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_FD       (1 << 20) /* no real descriptor has such a number */
#define RAM_ALIGN      (2 * OB_MIB)
#define ZERO_PFN       7
#define FIRST_PFN      1000
#define NO_MEMORY_BASE 0x100000000000ULL

struct fake_page {
	uint64_t file_page; /* page of the file it is mapped from */
	uint64_t pfn;	    /* of its private memory; 0: it has none */
	uint32_t file;	    /* 1 + index of the file; 0: anonymous */
	bool unmapped;
	bool hole; /* unmapped by a map call that failed: may be mapped again */
	bool present;
	bool swapped;
	bool migrating;
	bool ksm_zero; /* over a file: broken off, and now the zero page */
	bool mergeable;
};

struct fake_map {
	char *raw; /* what malloc gave; NULL without memory */
	uint64_t base, size;
	struct fake_page *page;
};

struct fake_file {
	char *data;
	uint64_t size;
	uint64_t *pfn;	/* per page; 0: a hole */
	uint32_t *maps; /* per page: how many guest pages are mapped from it */
};

struct fake_host {
	struct ob_host host; /* first: a struct ob_host is one of these */
	pthread_mutex_t lock;
	struct fake_map *map;
	unsigned int nmaps;
	struct fake_file *file;
	unsigned int nfiles;
	uint64_t next_pfn, next_base;
	uint64_t vmas, vma_limit, vma_others; /* mappings of guest RAM; others there are */
	bool no_memory;
	uint64_t calls[FAKE_NOPS];
	uint64_t fail_at[FAKE_NOPS]; /* call number, FAKE_EVERY: all */
	int fail_err[FAKE_NOPS];
	bool fail_hole[FAKE_NOPS];
	fake_hook_fn hook;
	void *hook_arg;
	_Atomic uint64_t now, cpu;
};

static const char zero_page[OB_PAGE_SIZE];

static struct fake_host *fake(struct ob_host *h)
{
	return (struct fake_host *)(void *)h;
}

static void *must_calloc(uint64_t n, uint64_t size)
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

/* The map that holds all of the range with nothing of it unmapped (but holes, if they are allowed),
 * or NULL. */
static struct fake_map *find_range_or_holes(struct fake_host *f, hva_t at, uint64_t size,
					    bool holes, uint64_t *first)
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

static struct fake_map *find_range(struct fake_host *f, hva_t at, uint64_t size, uint64_t *first)
{
	return find_range_or_holes(f, at, size, false, first);
}

static struct fake_file *find_file(struct fake_host *f, int fd)
{
	if (fd < FIRST_FD || (unsigned int)(fd - FIRST_FD) >= f->nfiles)
		return NULL;
	return &f->file[fd - FIRST_FD];
}

static char *page_data(struct fake_map *m, uint64_t i)
{
	return m->raw ? (char *)(uintptr_t)(m->base + i * OB_PAGE_SIZE) : NULL;
}

static bool page_unbroken(const struct fake_page *p)
{
	return p->file && !p->pfn && !p->ksm_zero;
}

/* A write to a file's page gives it a block. */
static void file_touch(struct fake_host *f, struct fake_file *file, uint64_t page)
{
	if (!file->pfn[page])
		file->pfn[page] = f->next_pfn++;
}

/* Show [from, to) of a file in all pages that are mapped from it and not broken. */
static void file_show(struct fake_host *f, uint32_t id, uint64_t from, uint64_t to)
{
	const struct fake_file *file = &f->file[id - 1];
	bool mapped = false;

	for (uint64_t i = from; i < to; i++)
		mapped |= file->maps[i] != 0;
	for (unsigned int k = 0; mapped && k < f->nmaps; k++) {
		struct fake_map *m = &f->map[k];

		for (uint64_t i = 0; m->raw && i < m->size / OB_PAGE_SIZE; i++) {
			struct fake_page *p = &m->page[i];

			if (p->file == id && page_unbroken(p) && p->file_page >= from &&
			    p->file_page < to)
				memcpy(page_data(m, i), file->data + p->file_page * OB_PAGE_SIZE,
				       OB_PAGE_SIZE);
		}
	}
}

static void page_break(struct fake_host *f, struct fake_page *p)
{
	if (!p->pfn)
		p->pfn = f->next_pfn++;
	p->present = true;
	p->swapped = p->migrating = p->ksm_zero = false;
}

/* Notice a store that did not go through the model. */
static void page_reconcile(struct fake_host *f, struct fake_map *m, uint64_t i)
{
	struct fake_page *p = &m->page[i];
	const char *shown = zero_page;

	if (!m->raw || p->pfn || p->unmapped)
		return;
	if (page_unbroken(p))
		shown = f->file[p->file - 1].data + p->file_page * OB_PAGE_SIZE;
	if (memcmp(page_data(m, i), shown, OB_PAGE_SIZE))
		page_break(f, p);
}

/* --- mappings, as the kernel counts them ------------------------------------------------------ */

static bool same_vma(const struct fake_page *a, const struct fake_page *b)
{
	if (a->unmapped || b->unmapped || a->file != b->file || a->mergeable != b->mergeable)
		return false;
	return !a->file || b->file_page == a->file_page + 1;
}

/* How many mappings begin in pages [first, first + n] of @m. Changing pages [first, first + n) can
 * change only these. */
static uint64_t vma_starts(const struct fake_map *m, uint64_t first, uint64_t n)
{
	uint64_t found = 0, end = OB_MIN(first + n + 1, m->size / OB_PAGE_SIZE);

	for (uint64_t i = first; i < end; i++)
		if (!m->page[i].unmapped && (!i || !same_vma(&m->page[i - 1], &m->page[i])))
			found++;
	return found;
}

/* Set [first, first + n) of @m to a new mapping; @how gives file, first page of it, and flags. */
static void set_pages(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n,
		      struct fake_page how)
{
	uint64_t before = vma_starts(m, first, n);

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
	f->vmas += vma_starts(m, first, n) - before;
}

/* Map [first, first + n) of @m anew, @file 0 for anonymous. -ENOMEM when that makes too many. */
static int remap(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n, uint32_t file,
		 uint64_t file_page)
{
	struct fake_page *old = must_calloc(n, sizeof(*old));
	int rc = 0;

	memcpy(old, &m->page[first], n * sizeof(*old));
	set_pages(f, m, first, n, (struct fake_page){.file = file, .file_page = file_page});
	if (f->vmas + f->vma_others > f->vma_limit) {
		for (uint64_t i = 0; i < n; i++)
			set_pages(f, m, first + i, 1, old[i]);
		rc = -ENOMEM;
	}
	for (uint64_t i = 0; !rc && m->raw && i < n; i++)
		memcpy(page_data(m, first + i),
		       file ? f->file[file - 1].data + (file_page + i) * OB_PAGE_SIZE : zero_page,
		       OB_PAGE_SIZE);
	free(old);
	return rc;
}

/* --- entering and leaving an operation -------------------------------------------------------- */

/* Counts the call; -errno when it is to fail. On 0 the lock is held. */
static int enter(struct fake_host *f, enum fake_op op)
{
	int err = 0;

	if (f->hook)
		f->hook(f->hook_arg, &f->host, op, false);
	pthread_mutex_lock(&f->lock);
	f->calls[op]++;
	if (f->fail_err[op] && (f->fail_at[op] == FAKE_EVERY || f->fail_at[op] == f->calls[op]))
		err = f->fail_err[op];
	if (err)
		pthread_mutex_unlock(&f->lock);
	return -err;
}

static int leave(struct fake_host *f, enum fake_op op, int rc)
{
	pthread_mutex_unlock(&f->lock);
	if (f->hook)
		f->hook(f->hook_arg, &f->host, op, true);
	return rc;
}

/* The map call that has just failed has taken the old mapping away, if a test wants it so. */
static int fail_map(struct fake_host *f, enum fake_op op, hva_t at, uint64_t size, int rc)
{
	struct fake_map *m;
	uint64_t first;

	pthread_mutex_lock(&f->lock);
	m = f->fail_hole[op] ? find_range_or_holes(f, at, size, true, &first) : NULL;
	if (m) {
		set_pages(f, m, first, size / OB_PAGE_SIZE,
			  (struct fake_page){.unmapped = true, .hole = true});
		/* Who reads it all the same finds neither what was there nor zeroes. */
		if (m->raw)
			memset(page_data(m, first), 0xdb, size);
	}
	pthread_mutex_unlock(&f->lock);
	return rc;
}

/* --- operations ------------------------------------------------------------------------------- */

static int op_ram_map(struct ob_host *h, uint64_t size, const char *name, hva_t *out)
{
	struct fake_host *f = fake(h);
	struct fake_map m = {.size = size};
	int rc = enter(f, FAKE_RAM_MAP);

	if (rc)
		return rc;
	if (!size || size & OB_PAGE_MASK || !name)
		return leave(f, FAKE_RAM_MAP, -EINVAL);
	if (f->vmas + f->vma_others >= f->vma_limit)
		return leave(f, FAKE_RAM_MAP, -ENOMEM);
	if (f->no_memory) {
		m.base = f->next_base;
		f->next_base += ob_align_up(size, RAM_ALIGN) + RAM_ALIGN;
	} else {
		m.raw = must_calloc(1, size + RAM_ALIGN);
		m.base = ob_align_up((uint64_t)(uintptr_t)m.raw, RAM_ALIGN);
	}
	m.page = must_calloc(size / OB_PAGE_SIZE, sizeof(*m.page));
	f->map = realloc(f->map, (f->nmaps + 1) * sizeof(*f->map));
	OB_ASSERT(f->map);
	f->map[f->nmaps++] = m;
	f->vmas++;
	*out = hva(m.base);
	return leave(f, FAKE_RAM_MAP, 0);
}

static int op_unmap(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_UNMAP);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < f->nfiles; i++)
		if (at.v == (uint64_t)(uintptr_t)f->file[i].data)
			return leave(f, FAKE_UNMAP, 0); /* a shared view: the file stays */
	m = find_range_or_holes(f, at, size, true, &first);
	if (!m)
		return leave(f, FAKE_UNMAP, -EINVAL);
	set_pages(f, m, first, size / OB_PAGE_SIZE, (struct fake_page){.unmapped = true});
	if (!vma_starts(m, 0, m->size / OB_PAGE_SIZE)) {
		free(m->raw);
		free(m->page);
		*m = f->map[--f->nmaps];
	}
	return leave(f, FAKE_UNMAP, 0);
}

static int op_map_frames(struct ob_host *h, hva_t at, uint64_t size, int pool_fd, uint64_t off)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_MAP_FRAMES);

	if (rc)
		return fail_map(f, FAKE_MAP_FRAMES, at, size, rc);
	file = find_file(f, pool_fd);
	m = find_range_or_holes(f, at, size, true, &first);
	if (!file)
		rc = -EBADF;
	else if (!m || off & OB_PAGE_MASK || off > file->size || size > file->size - off)
		rc = -EINVAL;
	else
		rc = remap(f, m, first, size / OB_PAGE_SIZE, (uint32_t)(pool_fd - FIRST_FD + 1),
			   off / OB_PAGE_SIZE);
	return leave(f, FAKE_MAP_FRAMES, rc);
}

static int op_map_empty(struct ob_host *h, hva_t at, uint64_t size, const char *name)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_MAP_EMPTY);

	if (rc)
		return fail_map(f, FAKE_MAP_EMPTY, at, size, rc);
	m = find_range_or_holes(f, at, size, true, &first);
	rc = m && name ? remap(f, m, first, size / OB_PAGE_SIZE, 0, 0) : -EINVAL;
	return leave(f, FAKE_MAP_EMPTY, rc);
}

static int op_discard(struct ob_host *h, hva_t at, uint64_t size)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_DISCARD);

	if (rc)
		return rc;
	m = find_range(f, at, size, &first);
	if (!m)
		return leave(f, FAKE_DISCARD, -EINVAL);
	for (uint64_t i = first; i < first + size / OB_PAGE_SIZE; i++) {
		struct fake_page *p = &m->page[i];

		p->pfn = 0;
		p->present = p->swapped = p->migrating = p->ksm_zero = false;
		if (m->raw)
			memcpy(page_data(m, i),
			       p->file ? f->file[p->file - 1].data + p->file_page * OB_PAGE_SIZE
				       : zero_page,
			       OB_PAGE_SIZE);
	}
	return leave(f, FAKE_DISCARD, 0);
}

/* As on a kernel that takes no vector: one after the other. */
static int op_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n)
{
	int r = 0;

	for (unsigned int i = 0; i < n && !r; i++)
		r = op_discard(h, ranges[i].at, ranges[i].size);
	return r;
}

static int op_mergeable(struct ob_host *h, hva_t at, uint64_t size, bool on)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_MERGEABLE);

	if (rc)
		return rc;
	m = find_range(f, at, size, &first);
	if (m) {
		uint64_t n = size / OB_PAGE_SIZE, before = vma_starts(m, first, n);

		for (uint64_t i = 0; i < n; i++)
			m->page[first + i].mergeable = on;
		f->vmas += vma_starts(m, first, n) - before;
	}
	return leave(f, FAKE_MERGEABLE, m ? 0 : -EINVAL);
}

static void page_view(struct fake_host *f, struct fake_map *m, uint64_t i, struct ob_page *out)
{
	struct fake_page *p = &m->page[i];
	uint64_t pfn = p->pfn;

	page_reconcile(f, m, i);
	*out = (struct ob_page){
		.present = p->present && !p->migrating,
		.swapped = p->swapped || p->migrating,
		.file = p->migrating && page_unbroken(p),
	};
	if (!out->present)
		return;
	out->file = page_unbroken(p);
	if (out->file) {
		file_touch(f, &f->file[p->file - 1], p->file_page);
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

static int op_pages(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first;
	int rc = enter(f, FAKE_PAGES);

	if (rc)
		return rc;
	m = n <= UINT64_MAX / OB_PAGE_SIZE ? find_range(f, at, n * OB_PAGE_SIZE, &first) : NULL;
	for (uint64_t i = 0; m && i < n; i++)
		page_view(f, m, first + i, &out[i]);
	return leave(f, FAKE_PAGES, m ? 0 : -EFAULT);
}

static int op_memfd(struct ob_host *h, const char *name, uint64_t size)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_MEMFD);

	if (rc)
		return rc;
	if (!name || !size)
		return leave(f, FAKE_MEMFD, -EINVAL);
	f->file = realloc(f->file, (f->nfiles + 1) * sizeof(*f->file));
	OB_ASSERT(f->file);
	file = &f->file[f->nfiles];
	file->size = size;
	file->data = must_calloc(1, ob_align_up(size, OB_PAGE_SIZE) + OB_PAGE_SIZE);
	file->pfn = must_calloc(ob_align_up(size, OB_PAGE_SIZE) / OB_PAGE_SIZE, sizeof(*file->pfn));
	file->maps =
		must_calloc(ob_align_up(size, OB_PAGE_SIZE) / OB_PAGE_SIZE, sizeof(*file->maps));
	return leave(f, FAKE_MEMFD, FIRST_FD + (int)f->nfiles++);
}

static int op_map_shared(struct ob_host *h, int fd, uint64_t size, void **out)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_MAP_SHARED);

	if (rc)
		return rc;
	file = find_file(f, fd);
	if (!file)
		return leave(f, FAKE_MAP_SHARED, -EBADF);
	if (!size || size > ob_align_up(file->size, OB_PAGE_SIZE))
		return leave(f, FAKE_MAP_SHARED, -EINVAL);
	*out = file->data;
	return leave(f, FAKE_MAP_SHARED, 0);
}

static int op_file_read(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_FILE_READ);

	if (rc)
		return rc;
	file = find_file(f, fd);
	if (!file)
		rc = -EBADF;
	else if (off > file->size || len > file->size - off)
		rc = -EIO;
	else
		memcpy(buf, file->data + off, len);
	return leave(f, FAKE_FILE_READ, rc);
}

static int op_file_write(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_FILE_WRITE);

	if (rc)
		return rc;
	file = find_file(f, fd);
	if (!file)
		return leave(f, FAKE_FILE_WRITE, -EBADF);
	if (off > file->size || len > file->size - off)
		return leave(f, FAKE_FILE_WRITE, -EIO);
	if (len) {
		uint64_t from = off / OB_PAGE_SIZE, to = (off + len - 1) / OB_PAGE_SIZE + 1;

		memcpy(file->data + off, buf, len);
		for (uint64_t i = from; i < to; i++)
			file_touch(f, file, i);
		file_show(f, (uint32_t)(fd - FIRST_FD + 1), from, to);
	}
	return leave(f, FAKE_FILE_WRITE, 0);
}

static int op_punch(struct ob_host *h, int fd, uint64_t off, uint64_t len)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_PUNCH);

	if (rc)
		return rc;
	file = find_file(f, fd);
	if (!file)
		return leave(f, FAKE_PUNCH, -EBADF);
	if ((off | len) & OB_PAGE_MASK || !len || off > file->size || len > file->size - off)
		return leave(f, FAKE_PUNCH, -EINVAL);
	memset(file->data + off, 0, len);
	for (uint64_t i = off / OB_PAGE_SIZE; i < (off + len) / OB_PAGE_SIZE; i++)
		file->pfn[i] = 0;
	file_show(f, (uint32_t)(fd - FIRST_FD + 1), off / OB_PAGE_SIZE, (off + len) / OB_PAGE_SIZE);
	return leave(f, FAKE_PUNCH, 0);
}

/* Blocks of a file. Stores through a shared view are noticed by their content, as in RAM. */
static uint64_t file_pages(struct fake_host *f, struct fake_file *file)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < ob_align_up(file->size, OB_PAGE_SIZE) / OB_PAGE_SIZE; i++) {
		if (memcmp(file->data + i * OB_PAGE_SIZE, zero_page, OB_PAGE_SIZE))
			file_touch(f, file, i);
		n += file->pfn[i] != 0;
	}
	return n;
}

static int op_file_blocks(struct ob_host *h, int fd, uint64_t *bytes)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	int rc = enter(f, FAKE_FILE_BLOCKS);

	if (rc)
		return rc;
	file = find_file(f, fd);
	if (file)
		*bytes = file_pages(f, file) * OB_PAGE_SIZE;
	return leave(f, FAKE_FILE_BLOCKS, file ? 0 : -EBADF);
}

static int op_vma_count(struct ob_host *h, uint64_t *have, uint64_t *limit)
{
	struct fake_host *f = fake(h);
	int rc = enter(f, FAKE_VMA_COUNT);

	if (rc)
		return rc;
	*have = f->vmas + f->vma_others;
	*limit = f->vma_limit;
	return leave(f, FAKE_VMA_COUNT, 0);
}

static uint64_t op_now_ns(struct ob_host *h)
{
	return atomic_load(&fake(h)->now);
}

static uint64_t op_thread_cpu_ns(struct ob_host *h)
{
	return atomic_load(&fake(h)->cpu);
}

static const struct ob_host_ops fake_ops = {
	.ram_map = op_ram_map,
	.unmap = op_unmap,
	.map_frames = op_map_frames,
	.map_empty = op_map_empty,
	.discard = op_discard,
	.discard_many = op_discard_many,
	.mergeable = op_mergeable,
	.pages = op_pages,
	.memfd = op_memfd,
	.map_shared = op_map_shared,
	.file_read = op_file_read,
	.file_write = op_file_write,
	.punch = op_punch,
	.file_blocks = op_file_blocks,
	.vma_count = op_vma_count,
	.now_ns = op_now_ns,
	.thread_cpu_ns = op_thread_cpu_ns,
};

/* --- what tests call -------------------------------------------------------------------------- */

struct ob_host *fake_host_new(void)
{
	struct fake_host *f = must_calloc(1, sizeof(*f));

	f->host = (struct ob_host){
		.ops = &fake_ops,
		.pagemap_fd = -1,
		.zero_pfn = ZERO_PFN,
		.knows_pfn = true,
	};
	pthread_mutex_init(&f->lock, NULL);
	f->next_pfn = FIRST_PFN;
	f->next_base = NO_MEMORY_BASE;
	f->vma_limit = 65530;
	f->vma_others = 100;
	f->now = f->cpu = OB_NS_PER_SEC;
	return &f->host;
}

void fake_host_free(struct ob_host *h)
{
	struct fake_host *f = fake(h);

	for (unsigned int i = 0; i < f->nmaps; i++) {
		free(f->map[i].raw);
		free(f->map[i].page);
	}
	for (unsigned int i = 0; i < f->nfiles; i++) {
		free(f->file[i].data);
		free(f->file[i].pfn);
		free(f->file[i].maps);
	}
	free(f->map);
	free(f->file);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void fake_host_no_memory(struct ob_host *h)
{
	OB_ASSERT(!fake(h)->nmaps);
	fake(h)->no_memory = true;
}

static void fail(struct fake_host *f, enum fake_op op, uint64_t nth, int err, bool hole)
{
	OB_ASSERT(op < FAKE_NOPS && err >= 0);
	pthread_mutex_lock(&f->lock);
	f->fail_at[op] = nth == FAKE_EVERY ? FAKE_EVERY : f->calls[op] + nth;
	f->fail_err[op] = err;
	f->fail_hole[op] = hole;
	pthread_mutex_unlock(&f->lock);
}

void fake_host_fail(struct ob_host *h, enum fake_op op, uint64_t nth, int err)
{
	fail(fake(h), op, nth, err, false);
}

void fake_host_fail_with_hole(struct ob_host *h, enum fake_op op, uint64_t nth, int err)
{
	OB_ASSERT(op == FAKE_MAP_FRAMES || op == FAKE_MAP_EMPTY);
	fail(fake(h), op, nth, err, true);
}

uint64_t fake_host_calls(struct ob_host *h, enum fake_op op)
{
	struct fake_host *f = fake(h);
	uint64_t n;

	OB_ASSERT(op < FAKE_NOPS);
	pthread_mutex_lock(&f->lock);
	n = f->calls[op];
	pthread_mutex_unlock(&f->lock);
	return n;
}

void fake_host_hook(struct ob_host *h, fake_hook_fn fn, void *arg)
{
	fake(h)->hook = fn;
	fake(h)->hook_arg = arg;
}

/* Run @fn on each page of [at, at + len): what an access by the guest does. */
static struct fake_map *access_pages(struct fake_host *f, hva_t at, uint64_t len, bool write)
{
	uint64_t from = at.v & ~OB_PAGE_MASK, first = 0;
	uint64_t size = ob_align_up(at.v + len, OB_PAGE_SIZE) - from;
	struct fake_map *m = find_range(f, hva(from), size, &first);

	OB_ASSERT(m && m->raw);
	for (uint64_t i = first; i < first + size / OB_PAGE_SIZE; i++) {
		struct fake_page *p = &m->page[i];

		page_reconcile(f, m, i);
		if (write)
			page_break(f, p);
		else
			p->present = true;
		p->swapped = p->migrating = false;
	}
	return m;
}

void fake_host_write(struct ob_host *h, hva_t at, const void *buf, uint64_t len)
{
	struct fake_host *f = fake(h);

	if (!len)
		return;
	pthread_mutex_lock(&f->lock);
	access_pages(f, at, len, true);
	memcpy(hva_ptr(at), buf, len);
	pthread_mutex_unlock(&f->lock);
}

void fake_host_read(struct ob_host *h, hva_t at, void *buf, uint64_t len)
{
	struct fake_host *f = fake(h);

	if (!len)
		return;
	pthread_mutex_lock(&f->lock);
	access_pages(f, at, len, false);
	memcpy(buf, hva_ptr(at), len);
	pthread_mutex_unlock(&f->lock);
}

void fake_host_swap_out(struct ob_host *h, hva_t at, uint64_t n)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = find_range(f, at, n * OB_PAGE_SIZE, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n; i++) {
		page_reconcile(f, m, i);
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
	m = find_range(f, at, n * OB_PAGE_SIZE, &first);
	OB_ASSERT(m);
	for (uint64_t i = first; i < first + n; i++) {
		struct fake_page *p = &m->page[i];

		page_reconcile(f, m, i);
		p->migrating = on && p->present && (p->pfn || page_unbroken(p));
	}
	pthread_mutex_unlock(&f->lock);
}

void fake_host_migrate_begin(struct ob_host *h, hva_t at, uint64_t n)
{
	set_migrating(fake(h), at, n, true);
}

void fake_host_migrate_end(struct ob_host *h, hva_t at, uint64_t n)
{
	set_migrating(fake(h), at, n, false);
}

void fake_host_ksm_zero(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake(h);
	struct fake_map *m;
	struct fake_page *p;
	uint64_t first = 0;

	pthread_mutex_lock(&f->lock);
	m = find_range(f, at, OB_PAGE_SIZE, &first);
	OB_ASSERT(m && m->raw);
	page_reconcile(f, m, first);
	p = &m->page[first];
	OB_ASSERT(p->present && p->pfn && !memcmp(page_data(m, first), zero_page, OB_PAGE_SIZE));
	p->pfn = 0;
	p->migrating = false;
	p->ksm_zero = p->file != 0;
	pthread_mutex_unlock(&f->lock);
}

void fake_host_advance(struct ob_host *h, uint64_t ns)
{
	atomic_fetch_add(&fake(h)->now, ns);
}

void fake_host_advance_cpu(struct ob_host *h, uint64_t ns)
{
	atomic_fetch_add(&fake(h)->cpu, ns);
}

void fake_host_vma_limit(struct ob_host *h, uint64_t limit, uint64_t others)
{
	struct fake_host *f = fake(h);

	pthread_mutex_lock(&f->lock);
	f->vma_limit = limit;
	f->vma_others = others;
	pthread_mutex_unlock(&f->lock);
}

void fake_host_knows_pfn(struct ob_host *h, bool yes)
{
	h->knows_pfn = yes;
	h->zero_pfn = yes ? ZERO_PFN : 0;
}

uint64_t fake_host_private_pages(struct ob_host *h)
{
	struct fake_host *f = fake(h);
	uint64_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (unsigned int k = 0; k < f->nmaps; k++)
		for (uint64_t i = 0; i < f->map[k].size / OB_PAGE_SIZE; i++) {
			page_reconcile(f, &f->map[k], i);
			n += f->map[k].page[i].present && f->map[k].page[i].pfn;
		}
	pthread_mutex_unlock(&f->lock);
	return n;
}

uint64_t fake_host_file_pages(struct ob_host *h, int fd)
{
	struct fake_host *f = fake(h);
	struct fake_file *file;
	uint64_t n;

	pthread_mutex_lock(&f->lock);
	file = find_file(f, fd);
	OB_ASSERT(file);
	n = file_pages(f, file);
	pthread_mutex_unlock(&f->lock);
	return n;
}

uint64_t fake_host_mapped_bytes(struct ob_host *h)
{
	struct fake_host *f = fake(h);
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
	struct fake_map *m = find_range(f, hva(at.v & ~OB_PAGE_MASK), OB_PAGE_SIZE, &first);

	if (m) {
		page_reconcile(f, m, first);
		*out = m->page[first];
	}
	return m != NULL;
}

bool fake_host_is_mergeable(struct ob_host *h, hva_t at)
{
	struct fake_host *f = fake(h);
	struct fake_page p = {0};

	pthread_mutex_lock(&f->lock);
	page_at(f, at, &p);
	pthread_mutex_unlock(&f->lock);
	return p.mergeable;
}

bool fake_host_frame_of(struct ob_host *h, hva_t at, int *fd, uint64_t *off)
{
	struct fake_host *f = fake(h);
	struct fake_page p = {0};
	bool yes;

	pthread_mutex_lock(&f->lock);
	yes = page_at(f, at, &p) && page_unbroken(&p);
	pthread_mutex_unlock(&f->lock);
	*fd = yes ? FIRST_FD + (int)p.file - 1 : -1;
	*off = yes ? p.file_page * OB_PAGE_SIZE : 0;
	return yes;
}
