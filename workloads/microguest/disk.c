/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk.c: the files of the page cache, from the disk into their places: several requests in flight,
 * and every few of them scattered, a page a segment, as a fragmented cache leaves it.
 */
#include "workloads/microguest/mg.h"

#define SCATTER_EVERY 4
#define READ_MAX      BLK_SEGS

const char platform_no_disk[] = "no virtio_mmio.device= was given";

static void submit(struct guest *g, uint64_t disk, uint64_t index, unsigned int n, bool scatter,
		   unsigned int *slot)
{
	uint64_t *at[READ_MAX];

	for (unsigned int i = 0; i < n; i++)
		at[i] = ram_page(g, index + i);
	*slot = blk_submit(g, disk, at, n, scatter);
}

uint64_t disk_open(struct guest *g)
{
	blk_init(g);
	if (g->p->blk.base && !g->p->blk.disk_pages)
		guest_fail(g, MG_EXIT_IMAGE, "the disk is empty");
	return g->p->blk.disk_pages;
}

/* One request after the other. */
void disk_read(struct guest *g, uint64_t disk, uint64_t index, uint64_t n)
{
	unsigned int max = blk_max(&g->p->blk);

	while (n) {
		unsigned int k = n < max ? (unsigned int)n : max, slot;

		submit(g, disk, index, k, false, &slot);
		blk_wait(g, slot);
		disk += k;
		index += k;
		n -= k;
	}
}

/* A read under way. */
struct pending {
	unsigned int slot;
	uint64_t page;
	unsigned int n;
};

/* Wait for the oldest read, then verify what it brought. */
static void finish(struct guest *g, const struct pending *p)
{
	blk_wait(g, p->slot);
	cache_verify(g, p->page, p->n);
}

void disk_load_files(struct guest *g, uint64_t from, uint64_t to)
{
	struct cache *c = &g->cache;
	struct pending ring[BLK_SLOTS];
	unsigned int max = blk_max(&g->p->blk), depth = g->p->blk.nslots;
	uint64_t head = 0, tail = 0, disk;

	for (uint64_t i = from; i < to; i++) {
		for (uint32_t done = 0; done < c->file[i].pages;) {
			uint32_t left = c->file[i].pages - done;
			struct pending *p = &ring[head % BLK_SLOTS];

			if (head - tail == depth)
				finish(g, &ring[tail++ % BLK_SLOTS]);
			p->n = left < max ? left : max;
			p->page = c->file[i].first + done;
			disk = c->data_page + c->file[i].disk + done;
			submit(g, disk, c->base + p->page, p->n,
			       gen_mix(g->cfg.seed ^ disk) % SCATTER_EVERY == 0, &p->slot);
			head++;
			done += p->n;
		}
	}
	while (tail < head)
		finish(g, &ring[tail++ % BLK_SLOTS]);
}
