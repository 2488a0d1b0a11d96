/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host.c: the host itself: making it, its clock, and letting its calls fail.
 *
 * The model behind it is in files of their own: fake_host_page.c (pages and mappings),
 * fake_host_map.c (what is done to guest memory), fake_host_file.c (pool files),
 * fake_host_uffd.c (userfaultfd), fake_host_guest.c (what guest and kernel do by themselves).
 */
#include "tests/fake_host_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fake_enter(struct fake_host *f, enum fake_op op)
{
	uint64_t limit;

	return fake_enter_partly(f, op, &limit);
}

int fake_enter_partly(struct fake_host *f, enum fake_op op, uint64_t *limit)
{
	bool fails;

	if (f->hook)
		f->hook(f->hook_arg, &f->host, op, false);
	pthread_mutex_lock(&f->lock);
	f->calls[op]++;
	fails = f->fail_err[op] && (f->fail_at[op] == FAKE_EVERY || f->fail_at[op] == f->calls[op]);
	*limit = fails ? f->fail_done[op] : UINT64_MAX;
	if (*limit)
		return 0;
	pthread_mutex_unlock(&f->lock);
	return -f->fail_err[op];
}

int fake_leave(struct fake_host *f, enum fake_op op, int rc)
{
	pthread_mutex_unlock(&f->lock);
	if (f->hook)
		f->hook(f->hook_arg, &f->host, op, true);
	return rc;
}

static uint64_t op_now_ns(struct ob_host *h)
{
	return atomic_load(&fake_of(h)->now);
}

static uint64_t op_thread_cpu_ns(struct ob_host *h)
{
	return atomic_load(&fake_of(h)->cpu);
}

static uint64_t op_thread_preempted(struct ob_host *h)
{
	return atomic_load(&fake_of(h)->preempted);
}

/* --- what it has not ------------------------------------------------------------------------ */

static int no_scan_open(struct ob_host *h, hva_t at, uint64_t size)
{
	(void)h;
	(void)at;
	(void)size;
	return -EOPNOTSUPP;
}

static int no_scan_get(struct ob_host *h, hva_t at, uint64_t n, uint64_t *bitmap)
{
	(void)bitmap;
	return no_scan_open(h, at, n);
}

static int no_scan_protect(struct ob_host *h, hva_t at, uint64_t size)
{
	return no_scan_open(h, at, size);
}

static void no_scan_close(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	(void)fd;
	no_scan_open(h, at, size);
}

static const struct ob_host_ops fake_ops = {
	.ram_map = fake_ram_map,
	.unmap = fake_unmap,
	.map_frames = fake_map_frames,
	.map_empty = fake_map_empty,
	.mapped = fake_mapped,
	.discard = fake_discard,
	.discard_many = fake_discard_many,
	.populate = fake_populate,
	.reveal_many = fake_reveal_many,
	.mergeable = fake_mergeable,
	.pages = fake_pages,
	.memfd = fake_memfd,
	.map_shared = fake_map_shared,
	.map_view = fake_map_view,
	.file_read = fake_file_read,
	.file_write = fake_file_write,
	.punch = fake_punch,
	.file_blocks = fake_file_blocks,
	.vma_count = fake_vma_count,
	.uffd_open = fake_uffd_open,
	.uffd_register = fake_uffd_register,
	.uffd_unregister = fake_uffd_unregister,
	.uffd_move = fake_uffd_move,
	.uffd_copy = fake_uffd_copy,
	.uffd_zero = fake_uffd_zero,
	.uffd_protect = fake_uffd_protect,
	.uffd_wake = fake_uffd_wake,
	.uffd_wait = fake_uffd_wait,
	.now_ns = op_now_ns,
	.thread_cpu_ns = op_thread_cpu_ns,
	.thread_preempted = op_thread_preempted,

	.scan_open = no_scan_open,
	.scan_get = no_scan_get,
	.scan_protect = no_scan_protect,
	.scan_close = no_scan_close,
	.huge = fake_huge,
	.collapse = fake_collapse,
	.split = fake_split,
	.huge_units = fake_huge_units,
};

struct ob_host *fake_host_new(void)
{
	struct fake_host *f = fake_calloc(1, sizeof(*f));

	f->host = (struct ob_host){
		.ops = &fake_ops,
		.pagemap_fd = -1,
		.zero_pfn = ZERO_PFN,
		.knows_pfn = true,
	};
	pthread_mutex_init(&f->lock, NULL);
	memset(f->poison, 0xdb, sizeof(f->poison));
	f->next_pfn = FIRST_PFN;
	f->next_base = NO_MEMORY_BASE;
	f->caps = (struct ob_uffd_caps){.move = true, .protect = true};
	f->vma_limit = 65530;
	f->vma_others = 100;
	f->now = f->cpu = OB_NS_PER_SEC;
	return &f->host;
}

void fake_host_free(struct ob_host *h)
{
	struct fake_host *f = fake_of(h);

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
	free(f->folio);
	free(f->file);
	free(f->waiter);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void fake_host_no_memory(struct ob_host *h)
{
	OB_ASSERT(!fake_of(h)->nmaps);
	fake_of(h)->no_memory = true;
}

static void fail(struct fake_host *f, enum fake_op op, uint64_t nth, int err, bool hole,
		 uint64_t done)
{
	OB_ASSERT(op < FAKE_NOPS && err >= 0);
	pthread_mutex_lock(&f->lock);
	f->fail_at[op] = nth == FAKE_EVERY ? FAKE_EVERY : f->calls[op] + nth;
	f->fail_err[op] = err;
	f->fail_hole[op] = hole;
	f->fail_done[op] = done;
	pthread_mutex_unlock(&f->lock);
}

void fake_host_fail(struct ob_host *h, enum fake_op op, uint64_t nth, int err)
{
	fail(fake_of(h), op, nth, err, false, 0);
}

void fake_host_fail_with_hole(struct ob_host *h, enum fake_op op, uint64_t nth, int err)
{
	OB_ASSERT(op == FAKE_MAP_FRAMES || op == FAKE_MAP_EMPTY);
	fail(fake_of(h), op, nth, err, true, 0);
}

void fake_host_fail_partly(struct ob_host *h, enum fake_op op, uint64_t nth, int err,
			   uint64_t pages)
{
	OB_ASSERT(op >= FAKE_DISCARD_MANY);
	fail(fake_of(h), op, nth, err, false, pages);
}

uint64_t fake_host_calls(struct ob_host *h, enum fake_op op)
{
	struct fake_host *f = fake_of(h);
	uint64_t n;

	OB_ASSERT(op < FAKE_NOPS);
	pthread_mutex_lock(&f->lock);
	n = f->calls[op];
	pthread_mutex_unlock(&f->lock);
	return n;
}

void fake_host_hook(struct ob_host *h, fake_hook_fn fn, void *arg)
{
	fake_of(h)->hook = fn;
	fake_of(h)->hook_arg = arg;
}

void fake_host_advance(struct ob_host *h, uint64_t ns)
{
	atomic_fetch_add(&fake_of(h)->now, ns);
}

uint64_t fake_host_cpu(struct ob_host *h)
{
	return op_thread_cpu_ns(h);
}

void fake_host_advance_cpu(struct ob_host *h, uint64_t ns)
{
	atomic_fetch_add(&fake_of(h)->cpu, ns);
}

void fake_host_preempt(struct ob_host *h)
{
	atomic_fetch_add(&fake_of(h)->preempted, 1);
}

void fake_host_vma_limit(struct ob_host *h, uint64_t limit, uint64_t others)
{
	struct fake_host *f = fake_of(h);

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
