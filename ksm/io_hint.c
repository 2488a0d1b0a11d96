/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_hint.c: hints that wait to be looked at, one ring a guest.
 *
 * A device that has read a block of a disk image into a guest's page knows two things that a scanner
 * finds out late: that the page is filled now and is likely to stay as it is, and where its content
 * comes from. It may not wait, and what is to be done with a page is the engine's business on the
 * engine's thread. So it leaves a hint here, runs of pages as they were read, and hash_io.c looks at
 * them within about a millisecond. (The idea is that of Satori and XLH, and both are in here: a
 * block that was read before is found by its name, and any other page is hashed at once.)
 *
 * A hint is advice. One too many costs a look, one too few a merge that comes later, by the scan. So
 * the ring is small, and what does not fit is dropped.
 *
 * A block that is written loses its name: hints of it that wait are void, and the index's entry of a
 * frame by that name goes. Whoever has taken hints already, and is about to give a frame a name,
 * sees by the count of writes that he may not. Another guest's hint of the same block, taken before,
 * may still bring the old name back: then it leads to a comparison that fails, and goes for that.
 */
#include "ksm/io_hint.h"

struct ksm_io *ksm_io_new(struct ksm_domain *d, struct ob_arena *arena, void (*wake)(void *arg),
			  void *wake_arg)
{
	struct ksm_io *io = ob_alloc(arena, sizeof(*io));

	io->domain = d;
	io->arena = arena;
	io->wake = wake;
	io->wake_arg = wake_arg;
	ob_mutex_init(&io->lock, OB_RANK_IO_HINT);
	return io;
}

void ksm_io_free(struct ksm_io *io)
{
	if (!io)
		return;
	ob_mutex_destroy(&io->lock);
	ob_free(io->arena, io);
}

void ksm_io_forget(struct ksm_io *io)
{
	ob_lock(&io->lock);
	io->n = 0;
	io->count = (struct ksm_io_counts){0};
	ob_unlock(&io->lock);
}

static struct ksm_io_run *run_at(struct ksm_io *io, unsigned int i)
{
	return &io->ring[(io->head + i) % KSM_IO_RING];
}

/* Locked: these pages have been filled anew: hints of what they held before are void. */
static void forget_pages(struct ksm_io *io, uint64_t page, uint64_t n)
{
	for (unsigned int i = 0; i < io->n; i++) {
		struct ksm_io_run *r = run_at(io, i);

		/* All of the run: what is left of it is found by the scan. */
		if (r->page < page + n && page < (uint64_t)r->page + r->n) {
			io->count.voided += r->n;
			r->n = 0;
		}
	}
}

/* Locked: one run more, or the last one longer. False: no room. */
static bool push(struct ksm_io *io, struct ksm_io_run r)
{
	struct ksm_io_run *last = io->n ? run_at(io, io->n - 1) : NULL;

	if (last && last->n && r.origin != KSM_ORIGIN_NONE && r.page % KSM_IO_WINDOW &&
	    r.page == last->page + last->n && r.origin == last->origin + last->n) {
		last->n += r.n;
		return true;
	}
	if (io->n == KSM_IO_RING)
		return false;
	*run_at(io, io->n++) = r;
	return true;
}

void ksm_io_read(struct ksm_io *io, uint64_t page, uint64_t n, uint64_t origin)
{
	bool first;

	/* Of what has no name there is no hint; beyond 32 bits there is no page (ept). */
	if (origin == KSM_ORIGIN_NONE || n > KSM_ORIGIN_BLOCKS - KSM_ORIGIN_BLOCK(origin) ||
	    page > UINT32_MAX || n > UINT32_MAX - page)
		return;
	ob_lock(&io->lock);
	first = !io->n;
	forget_pages(io, page, n);
	while (n) {
		uint64_t part = OB_MIN(n, KSM_IO_WINDOW - page % KSM_IO_WINDOW);

		io->count.hints += part;
		if (!push(io, (struct ksm_io_run){(uint32_t)page, (uint32_t)part, origin}))
			io->count.dropped += part;
		page += part;
		origin += part;
		n -= part;
	}
	first &= io->n > 0;
	ob_unlock(&io->lock);
	if (first && io->wake)
		io->wake(io->wake_arg);
}

void ksm_io_look(struct ksm_io *io, uint64_t page, uint64_t origin)
{
	ob_lock(&io->lock);
	(void)push(io, (struct ksm_io_run){(uint32_t)page, 1, origin});
	ob_unlock(&io->lock);
}

static void name_remove(struct ksm_domain *d, uint64_t origin)
{
	uint64_t key = ksm_origin_key(d, origin);
	struct ksm_ref ref;

	while (ksm_index_find(d, key, &ref) == KSM_FRAME &&
	       ksm_index_remove(d, key, ksm_ref_payload(&ref)))
		;
}

void ksm_io_written(struct ksm_io *io, uint64_t origin, uint64_t n)
{
	ob_lock(&io->lock);
	io->written++;
	for (unsigned int i = 0; i < io->n; i++) {
		struct ksm_io_run *r = run_at(io, i);

		/* All of the run: what was not written is found by the scan. */
		if (r->n && r->origin < origin + n && origin < r->origin + r->n) {
			io->count.voided += r->n;
			r->n = 0;
		}
	}
	ob_unlock(&io->lock);
	for (uint64_t i = 0; i < n; i++)
		name_remove(io->domain, origin + i);
}

void ksm_io_name(struct ksm_io *io, uint32_t frame, uint64_t origin, uint64_t written)
{
	struct ksm_domain *d = io->domain;
	struct ksm_ref ref;
	uint64_t key = ksm_origin_key(d, origin);

	ob_lock(&io->lock);
	/* Without the lock a write could come after the look at the count, and before the entry. */
	if (io->written == written && ksm_frame_tell_origin(d, frame, origin) &&
	    ksm_index_find(d, key, &ref) != KSM_FRAME)
		(void)ksm_index_insert_origin(d, frame);
	ob_unlock(&io->lock);
}

unsigned int ksm_io_take(struct ksm_io *io, struct ksm_io_run *out, unsigned int room,
			 uint64_t pages, uint64_t *written, struct ksm_io_counts *count)
{
	uint64_t taken = 0;
	unsigned int n = 0;

	ob_lock(&io->lock);
	for (; io->n && n < room && taken < pages; io->n--) {
		struct ksm_io_run *r = run_at(io, 0);

		if (r->n)
			out[n++] = *r;
		taken += r->n;
		io->head = (io->head + 1) % KSM_IO_RING;
	}
	*written = io->written;
	count->hints += io->count.hints;
	count->dropped += io->count.dropped;
	count->voided += io->count.voided;
	io->count = (struct ksm_io_counts){0};
	ob_unlock(&io->lock);
	return n;
}
