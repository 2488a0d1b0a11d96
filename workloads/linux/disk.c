/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c: the cache's files are the kernel's own page cache of the block device: each file is mapped,
 * shared and read-only, in its place, so verifying it reads the very pages that the kernel cached. The
 * kernel fills them by DMA in the order in which files are asked for, which is each guest's own; and
 * when they are evicted (and should the kernel ever need the memory), they come back in other pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

uint64_t disk_open(struct guest *g)
{
	const struct agent *a = g->p->agent;

	if (a->disk_fd >= 0 && !a->disk_pages)
		guest_fail(g, MG_EXIT_IMAGE, "the disk is empty");
	return a->disk_pages;
}

void disk_read(struct guest *g, uint64_t disk, uint64_t index, uint64_t n)
{
	char *to = (char *)ram_page(g, index);
	size_t done = 0, want = n * PAGE_SIZE;

	while (done < want) {
		ssize_t r = pread(g->p->agent->disk_fd, to + done, want - done,
				  (off_t)(disk * PAGE_SIZE + done));

		if (r <= 0 && errno != EINTR)
			guest_fail(g, MG_EXIT_DISK, "the disk failed a read at page %u: %s", disk,
				   r ? strerror(errno) : "it ends there");
		done += r > 0 ? (size_t)r : 0;
	}
}

/* Out of the kernel's cache, which keeps what is mapped: so the places are emptied first. */
static void evict(struct guest *g, uint64_t from, uint64_t to)
{
	const struct cache *c = &g->cache;
	const struct cache_file *last = &c->file[to - 1];
	uint64_t pages = last->first + last->pages - c->file[from].first;

	if (mmap(cache_page(g, c->file[from].first), pages * PAGE_SIZE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		guest_fail(g, MG_EXIT_MEMORY, "cannot unmap cached files: %s", strerror(errno));
	for (uint64_t i = from; i < to; i++)
		posix_fadvise(g->p->agent->disk_fd,
			      (off_t)((c->data_page + c->file[i].disk) * PAGE_SIZE),
			      (off_t)(c->file[i].pages * PAGE_SIZE), POSIX_FADV_DONTNEED);
}

static void load_file(struct guest *g, const struct cache_file *f)
{
	off_t at = (off_t)((g->cache.data_page + f->disk) * PAGE_SIZE);
	size_t bytes = f->pages * PAGE_SIZE;
	int fd = g->p->agent->disk_fd;
	void *place = cache_page(g, f->first);

	posix_fadvise(fd, at, (off_t)bytes, POSIX_FADV_WILLNEED);
	if (mmap(place, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, at) == MAP_FAILED)
		guest_fail(g, MG_EXIT_MEMORY, "cannot map a cached file: %s", strerror(errno));
	/* All of it now; and an error of the disk is a line here, not a signal later. Kernels before
	 * 5.14 do not know this, there it comes page by page. */
	if (madvise(place, bytes, MADV_POPULATE_READ) && errno != EINVAL)
		guest_fail(g, MG_EXIT_DISK, "the disk failed a read of %u pages at page %u: %s",
			   (uint64_t)f->pages, g->cache.data_page + f->disk, strerror(errno));
}

void disk_load_files(struct guest *g, uint64_t from, uint64_t to)
{
	const struct cache *c = &g->cache;

	if (from == to)
		return;
	evict(g, from, to);
	for (uint64_t i = from; i < to; i++) {
		load_file(g, &c->file[i]);
		for (uint64_t done = 0; done < c->file[i].pages; done += VERIFY_BATCH) {
			uint64_t left = c->file[i].pages - done;

			cache_verify(g, c->file[i].first + done,
				     left < VERIFY_BATCH ? left : VERIFY_BATCH);
		}
	}
}
