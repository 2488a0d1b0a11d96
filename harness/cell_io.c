/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_io.c: hints at I/O time, the cell's side: each guest's disk says what it has read, the loader
 * what it has loaded, under names that are the same in all cells (content.h); and the scanner, which
 * rests between its passes, is woken for them.
 *
 * The thread that does the disks' work must not wait for a step of the scanner to end. So what wakes
 * the scanner is a flag with a lock of its own, and the scanner gives up its own lock while it rests.
 * It lets a millisecond pass before it looks, as a read seldom comes alone.
 */
#include <time.h>

#include "harness/cell.h"
#include "harness/content.h"
#include "harness/proto.h"

#define GATHER_NS OB_NS_PER_MS

void cell_io_setup(struct cell *c, const json_t *doc)
{
	pthread_condattr_t attr;
	struct stat st;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->wake_cond, &attr);
	pthread_condattr_destroy(&attr);
	/* Whatever the engine is now: the fleet may be switched to one that looks at them. */
	c->io_hints = json_is_true(json_object_get(doc, "io_hints")) && c->domain;
	if (c->io_hints && !stat(proto_str(doc, "kernel"), &st))
		c->kernel_digest = content_digest(&st);
}

void cell_io_exit(struct cell *c)
{
	ob_mutex_destroy(&c->wake_lock);
}

bool cell_io_rest(struct cell *c, uint64_t until_ns)
{
	const struct timespec gather = {.tv_nsec = GATHER_NS};
	const struct timespec until = {
		.tv_sec = (time_t)(until_ns / OB_NS_PER_SEC),
		.tv_nsec = (long)(until_ns % OB_NS_PER_SEC),
	};
	bool woken;

	ob_unlock(&c->scan_lock);
	ob_lock(&c->wake_lock);
	while (!c->woken && !ob_cond_timedwait(&c->wake_cond, &c->wake_lock, &until))
		;
	woken = c->woken;
	c->woken = false;
	ob_unlock(&c->wake_lock);
	if (woken)
		nanosleep(&gather, NULL);
	ob_lock(&c->scan_lock);
	return woken && c->host.ops->now_ns(&c->host) < until_ns;
}

void cell_io_wake(struct cell *c)
{
	ob_lock(&c->wake_lock);
	if (!c->woken)
		pthread_cond_signal(&c->wake_cond);
	c->woken = true;
	ob_unlock(&c->wake_lock);
}

static void wake(void *arg)
{
	cell_io_wake(arg);
}

void cell_io_guest(struct cell *c, struct cell_guest *g)
{
	if (c->io_hints)
		g->io = ksm_io_new(c->domain, c->arena_ksm, wake, c);
}

void cell_io_guest_exit(struct cell_guest *g)
{
	ksm_io_free(g->io);
	g->io = NULL;
}

/*
 * The pages that are whole in the file: the same in all guests of this kernel until they write. Of a
 * bzImage the guest itself makes its pages, elsewhere in each with KASLR: they are left to the scan.
 */
static void kernel_loaded(struct cell *c, struct cell_guest *g)
{
	struct elf_image img;
	struct ob_err e;

	if (elf_parse(c->kernel, c->kernel_len, &img, &e))
		return;
	for (unsigned int i = 0; i < img.nseg; i++) {
		uint64_t first = ob_align_up(img.seg[i].paddr, OB_PAGE_SIZE) >> OB_PAGE_SHIFT;
		uint64_t end = (img.seg[i].paddr + img.seg[i].file_size) >> OB_PAGE_SHIFT;

		if (first < end)
			ksm_io_read(g->io, gmem_gfn_page(&g->vm->mem, gfn(first)), end - first,
				    ksm_origin(KSM_ORIGIN_KERNEL, c->kernel_digest, first));
	}
}

void cell_io_again(struct cell *c, struct cell_guest *g)
{
	if (!g->io)
		return;
	ksm_io_forget(g->io);
	kernel_loaded(c, g);
}

static void disk_read(void *arg, uint64_t page, uint64_t n, uint64_t block)
{
	struct cell_disk *d = arg;

	ksm_io_read(d->g->io, page, n, ksm_origin(KSM_ORIGIN_DISK, d->digest, block));
}

static void disk_written(void *arg, uint64_t block, uint64_t n)
{
	struct cell_disk *d = arg;

	ksm_io_written(d->g->io, ksm_origin(KSM_ORIGIN_DISK, d->digest, block), n);
}

void cell_io_listen(struct cell *c, struct cell_guest *g)
{
	static const struct blk_hint_ops ops = {.read = disk_read, .written = disk_written};
	struct stat st;

	if (!g->io)
		return;
	kernel_loaded(c, g);
	for (unsigned int i = 0; i < g->vm->ndisks; i++) {
		struct virtio_blk *b = &g->vm->disk[i];

		if (fstat(b->fd, &st))
			continue;
		g->disk[i] = (struct cell_disk){.g = g, .digest = content_digest(&st)};
		virtio_blk_on_io(b, &ops, &g->disk[i]);
	}
}
