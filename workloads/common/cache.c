/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c: the page cache: real files from the disk image, as many of its first ones as fit, so
 * that guests of one size hold the same files. Each guest reads them in an order of its own
 * (shuffled by its seed), and a file's pages lie together, as read-ahead leaves them. So guests
 * have the same pages at different addresses, in runs of different lengths.
 *
 * What a page must contain is known from the image's table of checksums, of which the needed part
 * is kept in memory. The tables are first read into the cache's own pages, before files fill them.
 */
#include "workloads/common/guest.h"

#define TAG_SHUFFLE    1
#define FILES_PER_PAGE 64

uint64_t *cache_page(const struct guest *g, uint64_t page)
{
	return ram_page(g, g->cache.base + page);
}

void cache_probe(struct guest *g, struct image_super *sb)
{
	uint64_t *page, disk = g->disk_pages, at = g->ram.taken;

	memset(sb, 0, sizeof(*sb));
	if (!disk)
		return;
	page = ram_take(g, PAGE_SIZE);
	disk_read(g, 0, at, 1);
	memcpy(sb, page, sizeof(*sb));
	if (sb->magic != IMAGE_MAGIC || sb->version != IMAGE_VERSION)
		guest_fail(g, MG_EXIT_IMAGE, "the disk holds no image of version %u",
			   (uint64_t)IMAGE_VERSION);
	/* Each part within the disk and after the one before; sizes first, so that no sum wraps. */
	if (sb->total_pages > disk || sb->nfiles > disk * FILES_PER_PAGE || sb->data_pages > disk ||
	    sb->files_page > disk || sb->sums_page > disk || sb->data_page > disk ||
	    sb->files_page + (sb->nfiles + FILES_PER_PAGE - 1) / FILES_PER_PAGE > sb->sums_page ||
	    sb->sums_page + (sb->data_pages + PAGE_WORDS - 1) / PAGE_WORDS > sb->data_page ||
	    sb->data_page + sb->data_pages > sb->total_pages || !sb->files_page)
		guest_fail(g, MG_EXIT_IMAGE, "the image's super block makes no sense");
}

/* Word @i of a table that starts at cache page @first.
 * Pages of the cache need not be contiguous. */
static uint64_t *table_word(const struct guest *g, uint64_t first, uint64_t i)
{
	return cache_page(g, first + i / PAGE_WORDS) + i % PAGE_WORDS;
}

/* Which files: the first of the image that fit. Their place in memory is not decided yet. */
static void choose(struct guest *g, const struct image_super *sb, uint64_t room)
{
	struct cache *c = &g->cache;

	for (uint64_t i = 0; i < sb->nfiles; i++) {
		const uint64_t *f = table_word(g, 0, i * sizeof(struct image_file) / 8);

		if (f[0] > sb->data_pages || f[1] > sb->data_pages - f[0] || !f[1])
			guest_fail(g, MG_EXIT_IMAGE, "file %u of the image is outside it", i);
		if (i % g->cfg.parts != g->cfg.part || f[1] > room - c->pages)
			continue;
		c->file[c->nfiles++] = (struct cache_file){.pages = (uint32_t)f[1], .disk = f[0]};
		c->pages += f[1];
	}
}

static void shuffle(struct guest *g)
{
	struct cache *c = &g->cache;
	struct gen_rng rng = {gen_key(g->cfg.seed, TAG_SHUFFLE)};
	uint32_t at = 0;

	for (uint64_t i = c->nfiles; i > 1; i--) {
		uint64_t k = gen_below(&rng, i);
		struct cache_file t = c->file[i - 1];

		c->file[i - 1] = c->file[k];
		c->file[k] = t;
	}
	for (uint64_t i = 0; i < c->nfiles; i++) {
		c->file[i].first = at;
		at += c->file[i].pages;
	}
}

void cache_verify(struct guest *g, uint64_t page, uint64_t n)
{
	g->report->disk_pages += n;
	g->report->heartbeat++;
	for (uint64_t i = 0; i < n; i++)
		cache_check(g, page + i);
	for (uint64_t i = 0; i < n;) {
		uint64_t k = ram_span(g, g->cache.base + page + i, n - i);

		agent_checked(g, cache_page(g, page + i), k);
		i += k;
	}
}

void cache_load(struct guest *g, const struct image_super *sb)
{
	struct cache *c = &g->cache;
	uint64_t room = c->pages, at = 0, sum = 0;
	uint64_t file_pages = (sb->nfiles + FILES_PER_PAGE - 1) / FILES_PER_PAGE;
	uint64_t sum_pages = (sb->data_pages + PAGE_WORDS - 1) / PAGE_WORDS;

	c->pages = 0;
	if (!room)
		return;
	if (file_pages + sum_pages > room)
		guest_fail(g, MG_EXIT_MEMORY, "a cache of %u pages cannot hold the image's tables",
			   room);
	disk_read(g, sb->files_page, c->base, file_pages);
	disk_read(g, sb->sums_page, c->base + file_pages, sum_pages);
	for (uint64_t i = 0; i < file_pages + sum_pages; i++)
		sum = image_fold(sum, image_checksum(cache_page(g, i)));
	if (sum != sb->super_sum)
		guest_fail(g, MG_EXIT_IMAGE, "the image's tables have checksum %x, not %x", sum,
			   sb->super_sum);
	c->data_page = sb->data_page;
	c->file = ram_take(g, (sb->nfiles < room ? sb->nfiles : room) * sizeof(*c->file));
	choose(g, sb, room);
	shuffle(g);
	c->sum = ram_take(g, c->pages * sizeof(*c->sum));
	for (uint64_t i = 0; i < c->nfiles; i++)
		for (uint32_t k = 0; k < c->file[i].pages; k++)
			c->sum[at++] = *table_word(g, file_pages, c->file[i].disk + k);
	disk_load_files(g, 0, c->nfiles);
}

bool cache_check(struct guest *g, uint64_t page)
{
	const uint64_t *w = cache_page(g, page);
	uint64_t sum;

	barrier();
	sum = image_checksum(w);
	if (sum == g->cache.sum[page])
		return true;
	agent_mismatch(g, w, g->cache.sum[page], sum, AGENT_KIND_CACHE);
	return false;
}

void cache_reload_pair(struct guest *g)
{
	struct cache *c = &g->cache;
	struct gen_rng *rng = &g->filecache.rng;

	if (c->nfiles < 2)
		return;
	uint64_t i = gen_below(rng, c->nfiles - 1);
	struct cache_file *a = &c->file[i], *b = &c->file[i + 1];
	struct cache_file old = *a;
	uint64_t at = a->first;

	a->disk = b->disk;
	a->pages = b->pages;
	b->disk = old.disk;
	b->pages = old.pages;
	b->first = a->first + a->pages;
	/*
	 * Their checksums change places as well: rotate [first of old b ...] to the front. One page
	 * at a time by reversal, as there is no memory to copy to.
	 */
	uint64_t na = old.pages, n = na + a->pages;
	const uint64_t part[3][2] = {{0, na}, {na, n}, {0, n}};

	for (unsigned int p = 0; p < 3; p++) {
		for (uint64_t lo = part[p][0], hi = part[p][1]; lo + 1 < hi; lo++, hi--) {
			uint64_t t = c->sum[at + lo];

			c->sum[at + lo] = c->sum[at + hi - 1];
			c->sum[at + hi - 1] = t;
		}
	}
	disk_load_files(g, i, i + 2);
}
