/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain.c: making, opening and counting a sharing domain.
 *
 * The meta file, each part starting on a page:
 *
 *	header		magic, version, sizes, the place of each part, the secret, two counters
 *	frame_touched	a bit for each 1024 frames: anything ever allocated there?
 *	state		4 bytes a frame
 *	holder		a bit a cell and frame
 *	origin		8 bytes a frame: where its content was first read from, if that is known
 *	index		8 bytes an entry, used from its beginning on
 *	again		a bit a page of the fleet: look at it once more
 *
 * All of it is made at its final size and sparse: a part that is not used holds no memory. Since
 * even a read of a hole through a mapping fills it, the map of what was touched, and the number of
 * buckets that the index has grown to, say where looking is worth it, and all walks go by them.
 *
 * The file comes from another process, so nothing in it is believed: opening works out from the
 * number of frames and cells alone how the file must look, and refuses one that says otherwise or
 * is too short. After that only the process's own copy of these numbers is used.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "ksm/domain.h"

#define META_MAGIC   0x3144534b424f3144ULL
#define META_VERSION 4

/* What is fixed when the domain is made. */
struct meta_layout {
	uint64_t magic;
	uint32_t version, page_size;
	uint64_t frames, slots;
	uint32_t cells, words;
	uint64_t frame_touched, state, holder, origin, index, again; /* offsets */
	uint64_t size;
};

struct meta_header {
	struct meta_layout layout;
	unsigned char secret[KSM_SECRET_BYTES];
	_Alignas(64) _Atomic uint64_t freed;
	_Atomic uint64_t reaped;
	_Atomic uint64_t has_origins;
	_Alignas(64) _Atomic uint64_t buckets; /* of the index; 0: as many as it begins with */
	_Atomic uint64_t grow_lock;
};
_Static_assert(sizeof(struct meta_header) <= OB_PAGE_SIZE, "the header is one page");

static uint64_t place(uint64_t *end, uint64_t bytes)
{
	uint64_t at = *end;

	*end = ob_align_up(at + bytes, OB_PAGE_SIZE);
	return at;
}

/* One bit for each @per of @n, in whole words, in bytes. */
static uint64_t map_bytes(uint64_t n, uint64_t per)
{
	return (ob_align_up(n, per) / per + 63) / 64 * sizeof(uint64_t);
}

static bool layout_make(struct meta_layout *l, uint64_t frames, uint64_t cells)
{
	uint64_t end = OB_PAGE_SIZE;

	if (!frames || frames > EPT_MAX_FRAME || !cells || cells > KSM_MAX_CELLS)
		return false;
	memset(l, 0, sizeof(*l));
	l->magic = META_MAGIC;
	l->version = META_VERSION;
	l->page_size = OB_PAGE_SIZE;
	l->frames = frames;
	l->slots = ksm_index_max_buckets(frames) * KSM_BUCKET;
	l->cells = (uint32_t)cells;
	l->words = (uint32_t)((cells + 7) / 8);
	l->frame_touched = place(&end, map_bytes(frames, KSM_CHUNK_FRAMES));
	l->state = place(&end, frames * sizeof(uint32_t));
	l->holder = place(&end, frames * l->words);
	l->origin = place(&end, frames * sizeof(uint64_t));
	l->index = place(&end, l->slots * sizeof(uint64_t));
	l->again = place(&end, map_bytes(KSM_MAX_PAYLOAD + 1, 1));
	l->size = end;
	return true;
}

int ksm_domain_create(struct ob_host *h, uint64_t frames, unsigned int cells, int *pool_fd,
		      int *meta_fd)
{
	struct meta_header header = {0};
	int pool, meta, r;

	if (!layout_make(&header.layout, frames, cells))
		return -EINVAL;
	if (getrandom(header.secret, sizeof(header.secret), 0) != sizeof(header.secret))
		return -EIO;
	pool = h->ops->memfd(h, "ob:ksm:pool", frames * OB_PAGE_SIZE);
	if (pool < 0)
		return pool;
	meta = h->ops->memfd(h, "ob:ksm:meta", header.layout.size);
	if (meta < 0) {
		close(pool);
		return meta;
	}
	r = h->ops->file_write(h, meta, &header, sizeof(header), 0);
	if (r) {
		close(pool);
		close(meta);
		return r;
	}
	*pool_fd = pool;
	*meta_fd = meta;
	return 0;
}

/* Is @fd at least @size bytes long? A whole read of its last byte is only possible then. */
static bool file_reaches(struct ob_host *h, int fd, uint64_t size)
{
	unsigned char last;

	return h->ops->file_read(h, fd, &last, 1, size - 1) == 0;
}

static int domain_map(struct ksm_domain *d, const struct meta_layout *l)
{
	struct ob_host *h = d->host;
	unsigned char *base;
	struct meta_header *header;
	hva_t count;
	int r = h->ops->map_shared(h, d->meta_fd, l->size, &d->meta);

	if (r)
		return r;
	if (d->cell != KSM_NO_CELL) {
		r = h->ops->ram_map(h, ob_align_up(l->frames * sizeof(uint32_t), OB_PAGE_SIZE),
				    "ob:ksm:counts", &count);
		if (r) {
			h->ops->unmap(h, hva_of(d->meta), l->size);
			return r;
		}
		d->count = hva_ptr(count);
		d->count_touched = ob_alloc(d->arena, map_bytes(l->frames, KSM_CHUNK_FRAMES));
	}
	base = d->meta;
	header = d->meta;
	d->freed = &header->freed;
	d->reaped = &header->reaped;
	d->has_origins = &header->has_origins;
	d->buckets = &header->buckets;
	d->grow_lock = &header->grow_lock;
	d->frame_touched = (_Atomic uint64_t *)(void *)(base + l->frame_touched);
	d->state = (_Atomic uint32_t *)(void *)(base + l->state);
	d->holder = (_Atomic uint8_t *)(base + l->holder);
	d->origin = (_Atomic uint64_t *)(void *)(base + l->origin);
	d->again = (_Atomic uint64_t *)(void *)(base + l->again);
	d->index = (_Atomic uint64_t *)(void *)(base + l->index);
	return 0;
}

int ksm_domain_open(struct ob_host *h, int pool_fd, int meta_fd, unsigned int cell,
		    struct ob_arena *arena, struct ksm_domain **out)
{
	struct meta_header header;
	struct meta_layout l;
	struct ksm_domain *d;
	int r = h->ops->file_read(h, meta_fd, &header, sizeof(header), 0);

	if (r || !layout_make(&l, header.layout.frames, header.layout.cells) ||
	    memcmp(&l, &header.layout, sizeof(l)) || !file_reaches(h, meta_fd, l.size) ||
	    !file_reaches(h, pool_fd, l.frames * OB_PAGE_SIZE) ||
	    (cell != KSM_NO_CELL && cell >= l.cells))
		return -EINVAL;
	d = ob_alloc(arena, sizeof(*d));
	d->host = h;
	d->arena = arena;
	d->pool_fd = pool_fd;
	d->meta_fd = meta_fd;
	d->cell = cell;
	d->cells = l.cells;
	d->words = l.words;
	d->frames = l.frames;
	ksm_index_init(d);
	d->meta_size = l.size;
	d->hash_bits = 64;
	d->hash_fn = ksm_hash_pick();
	memcpy(d->secret, header.secret, sizeof(d->secret));
	r = domain_map(d, &l);
	if (r) {
		ob_free(arena, d);
		return r;
	}
	if (cell != KSM_NO_CELL)
		d->home = d->cursor = l.frames * cell / l.cells;
	*out = d;
	return 0;
}

void ksm_domain_close(struct ksm_domain *d)
{
	struct ob_host *h;

	if (!d)
		return;
	h = d->host;
	h->ops->unmap(h, hva_of(d->meta), d->meta_size);
	if (d->count)
		h->ops->unmap(h, hva_of(d->count),
			      ob_align_up(d->frames * sizeof(uint32_t), OB_PAGE_SIZE));
	ob_free(d->arena, d->count_touched);
	ob_free(d->arena, d);
}

int ksm_domain_reset(struct ksm_domain *d)
{
	uint64_t behind = (uint64_t)((uintptr_t)d->frame_touched - (uintptr_t)d->meta);

	for (uint64_t f = 0; ksm_frame_next(d, &f); f++)
		if ((atomic_load(&d->state[f]) & KSM_FRAME_STATE) != KSM_FRAME_FREE)
			return -EBUSY;
	atomic_store(d->has_origins, 0);
	atomic_store(d->grow_lock, 0);
	atomic_store(d->buckets, 0);
	return d->host->ops->punch(d->host, d->meta_fd, behind, d->meta_size - behind);
}

int ksm_domain_stats(struct ksm_domain *d, struct ksm_domain_stats *out)
{
	int r;

	memset(out, 0, sizeof(*out));
	out->frames = d->frames;
	for (uint64_t f = 0; ksm_frame_next(d, &f); f++) {
		unsigned int state = atomic_load(&d->state[f]) & KSM_FRAME_STATE;

		out->live += state == KSM_FRAME_LIVE || state == KSM_FRAME_DYING;
		out->filling += state == KSM_FRAME_FILLING;
	}
	ksm_index_count(d, &out->hints, &out->entries);
	out->reaped = atomic_load(d->reaped);
	r = d->host->ops->file_blocks(d->host, d->pool_fd, &out->pool_blocks_bytes);
	if (r)
		return r;
	return d->host->ops->file_blocks(d->host, d->meta_fd, &out->meta_bytes);
}

uint64_t ksm_domain_private_bytes(const struct ksm_domain *d)
{
	return d->count_chunks * OB_PAGE_SIZE;
}
