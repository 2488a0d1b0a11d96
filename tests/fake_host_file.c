/* SPDX-License-Identifier: Apache-2.0 */
/* fake_host_file.c: pool files: buffers whose pages get a host frame when they are first written. */
#include "tests/fake_host_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fake_file *fake_find_file(struct fake_host *f, int fd)
{
	if (fd < FIRST_FD || (unsigned int)(fd - FIRST_FD) >= f->nfiles)
		return NULL;
	return &f->file[fd - FIRST_FD];
}

void fake_file_touch(struct fake_host *f, struct fake_file *file, uint64_t page)
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

			if (p->file == id && fake_unbroken(p) && p->file_page >= from &&
			    p->file_page < to)
				memcpy(fake_data(m, i), file->data + p->file_page * OB_PAGE_SIZE,
				       OB_PAGE_SIZE);
		}
	}
}

int fake_memfd(struct ob_host *h, const char *name, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_MEMFD);

	if (rc)
		return rc;
	if (!name || !size)
		return fake_leave(f, FAKE_MEMFD, -EINVAL);
	f->file = realloc(f->file, (f->nfiles + 1) * sizeof(*f->file));
	OB_ASSERT(f->file);
	file = &f->file[f->nfiles];
	file->size = size;
	file->data = fake_calloc(1, ob_align_up(size, OB_PAGE_SIZE) + OB_PAGE_SIZE);
	file->pfn = fake_calloc(ob_align_up(size, OB_PAGE_SIZE) / OB_PAGE_SIZE, sizeof(*file->pfn));
	file->maps =
		fake_calloc(ob_align_up(size, OB_PAGE_SIZE) / OB_PAGE_SIZE, sizeof(*file->maps));
	return fake_leave(f, FAKE_MEMFD, FIRST_FD + (int)f->nfiles++);
}

int fake_map_shared(struct ob_host *h, int fd, uint64_t size, void **out)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_MAP_SHARED);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (!file)
		return fake_leave(f, FAKE_MAP_SHARED, -EBADF);
	if (!size || size > ob_align_up(file->size, OB_PAGE_SIZE))
		return fake_leave(f, FAKE_MAP_SHARED, -EINVAL);
	*out = file->data;
	return fake_leave(f, FAKE_MAP_SHARED, 0);
}

int fake_map_view(struct ob_host *h, int fd, uint64_t size, const void **out)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_MAP_VIEW);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (!file)
		return fake_leave(f, FAKE_MAP_VIEW, -EBADF);
	if (!size || size > ob_align_up(file->size, OB_PAGE_SIZE))
		return fake_leave(f, FAKE_MAP_VIEW, -EINVAL);
	*out = file->data;
	return fake_leave(f, FAKE_MAP_VIEW, 0);
}

/* The kernel writes to @buf: when that is guest memory, it is touched like by a guest. -EFAULT when
 * it was, and is mapped no more. */
static int read_into(struct fake_host *f, void *buf, const char *data, uint64_t len)
{
	uint64_t first = hva_of(buf).v & ~OB_PAGE_MASK, i;

	for (uint64_t at = first; at < hva_of(buf).v + len; at += OB_PAGE_SIZE) {
		struct fake_map *m = fake_range(f, hva(at), OB_PAGE_SIZE, &i);

		if (!m && fake_range_or_holes(f, hva(at), OB_PAGE_SIZE, true, &i))
			return -EFAULT;
		if (!m)
			continue;
		fake_reconcile(f, m, i);
		OB_ASSERT(!fake_missing(f, &m->page[i]));
		fake_break(f, &m->page[i]);
	}
	memcpy(buf, data, len);
	return 0;
}

int fake_file_read(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_FILE_READ);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (!file)
		rc = -EBADF;
	else if (off > file->size || len > file->size - off)
		rc = -EIO;
	else
		rc = read_into(f, buf, file->data + off, len);
	return fake_leave(f, FAKE_FILE_READ, rc);
}

int fake_file_write(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_FILE_WRITE);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (!file)
		return fake_leave(f, FAKE_FILE_WRITE, -EBADF);
	if (off > file->size || len > file->size - off)
		return fake_leave(f, FAKE_FILE_WRITE, -EIO);
	if (len) {
		uint64_t from = off / OB_PAGE_SIZE, to = (off + len - 1) / OB_PAGE_SIZE + 1;

		memcpy(file->data + off, buf, len);
		for (uint64_t i = from; i < to; i++)
			fake_file_touch(f, file, i);
		file_show(f, (uint32_t)(fd - FIRST_FD + 1), from, to);
	}
	return fake_leave(f, FAKE_FILE_WRITE, 0);
}

int fake_punch(struct ob_host *h, int fd, uint64_t off, uint64_t len)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_PUNCH);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (!file)
		return fake_leave(f, FAKE_PUNCH, -EBADF);
	if ((off | len) & OB_PAGE_MASK || !len || off > file->size || len > file->size - off)
		return fake_leave(f, FAKE_PUNCH, -EINVAL);
	memset(file->data + off, 0, len);
	for (uint64_t i = off / OB_PAGE_SIZE; i < (off + len) / OB_PAGE_SIZE; i++)
		file->pfn[i] = 0;
	file_show(f, (uint32_t)(fd - FIRST_FD + 1), off / OB_PAGE_SIZE, (off + len) / OB_PAGE_SIZE);
	return fake_leave(f, FAKE_PUNCH, 0);
}

/* Blocks of a file. Stores through a shared view are noticed by their content, as in RAM. */
static uint64_t blocks(struct fake_host *f, struct fake_file *file)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < ob_align_up(file->size, OB_PAGE_SIZE) / OB_PAGE_SIZE; i++) {
		if (memcmp(file->data + i * OB_PAGE_SIZE, fake_zeroes, OB_PAGE_SIZE))
			fake_file_touch(f, file, i);
		n += file->pfn[i] != 0;
	}
	return n;
}

int fake_file_blocks(struct ob_host *h, int fd, uint64_t *bytes)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	int rc = fake_enter(f, FAKE_FILE_BLOCKS);

	if (rc)
		return rc;
	file = fake_find_file(f, fd);
	if (file)
		*bytes = blocks(f, file) * OB_PAGE_SIZE;
	return fake_leave(f, FAKE_FILE_BLOCKS, file ? 0 : -EBADF);
}

uint64_t fake_host_file_pages(struct ob_host *h, int fd)
{
	struct fake_host *f = fake_of(h);
	struct fake_file *file;
	uint64_t n;

	pthread_mutex_lock(&f->lock);
	file = fake_find_file(f, fd);
	OB_ASSERT(file);
	n = blocks(f, file);
	pthread_mutex_unlock(&f->lock);
	return n;
}
