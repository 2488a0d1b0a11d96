/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reap.c: the coordinator's side of the pool: give frames back that nobody holds, clean up after a
 * cell that died, and plant a fault. Why reaping is safe beside cells that look frames up is told
 * in pool.c.
 *
 * The order in which a frame goes, each step harmless should it be the last:
 *
 *	LIVE -> DYING, nobody holds it	no cell can get it any more
 *	its index entry goes		found by hashing its content, which nobody changes now,
 *					and by its origin, when that is known
 *	its block is punched		in runs, as neighbours often go together
 *	DYING -> FREE			a cell may fill it anew
 *
 * The entry may not be found by the content: a planted fault has changed it, it was indexed under
 * shortened hashes, or another cell moves it at this moment. Then it stays, and is none: the frame is
 * free, or has another name (index.c).
 */
#include <errno.h>

#include "ksm/domain.h"

#define BATCH 256

struct batch {
	uint32_t frame[BATCH]; /* DYING, ascending but for the end of the pool */
	unsigned int n;
};

static bool frame_held(const struct ksm_domain *d, uint64_t f)
{
	for (unsigned int w = 0; w < d->words; w++)
		if (atomic_load(&d->holder[f * d->words + w]))
			return true;
	return false;
}

/* Between LIVE and DYING, in either direction: the name stays. */
#define LIVE_TO_DYING (KSM_FRAME_LIVE ^ KSM_FRAME_DYING)

static void frame_revive(struct ksm_domain *d, uint64_t f)
{
	atomic_fetch_xor(&d->state[f], LIVE_TO_DYING);
}

/* LIVE and held by nobody -> DYING. False when it is not so, or is not any more. */
static bool frame_condemn(struct ksm_domain *d, uint64_t f)
{
	uint32_t was = atomic_load(&d->state[f]);

	if ((was & KSM_FRAME_STATE) != KSM_FRAME_LIVE || frame_held(d, f) ||
	    !atomic_compare_exchange_strong(&d->state[f], &was, was ^ LIVE_TO_DYING))
		return false;
	if (!frame_held(d, f))
		return true;
	frame_revive(d, f);
	return false;
}

/* Punch @n frames, ascending, in as few calls as they have runs, then free them. */
static int frames_free(struct ksm_domain *d, const uint32_t *frame, unsigned int n)
{
	int err = 0;

	for (unsigned int i = 0, len; i < n; i += len) {
		int r;

		for (len = 1; i + len < n && frame[i + len] == frame[i] + len;)
			len++;
		r = d->host->ops->punch(d->host, d->pool_fd, frame[i] * OB_PAGE_SIZE,
					len * OB_PAGE_SIZE);
		/* Not punched is not given back, but the frame can be used again all the same. */
		if (r)
			err = r;
		for (unsigned int j = i; j < i + len; j++)
			atomic_store(&d->state[frame[j]], KSM_FRAME_FREE);
		atomic_fetch_add(d->freed, len);
	}
	return err;
}

static int batch_finish(struct ksm_domain *d, struct batch *b)
{
	int r = 0;

	if (b->n)
		r = frames_free(d, b->frame, b->n);
	if (!r)
		atomic_fetch_add(d->reaped, b->n);
	b->n = 0;
	return r;
}

int64_t ksm_domain_reap(struct ksm_domain *d, uint64_t budget)
{
	_Alignas(64) unsigned char page[OB_PAGE_SIZE];
	struct batch b = {.n = 0};
	uint64_t at = d->reap_cursor, start = at;
	bool round = false; /* past the end, and from the beginning again */
	int64_t freed = 0;
	int err = 0, r;

	for (uint64_t looked = 0; looked < budget; looked++, at++) {
		if (!ksm_frame_next(d, &at) && !round) {
			round = true;
			at = 0;
			ksm_frame_next(d, &at);
		}
		/* Once round is all of them; the end of the pool, too, is not before the start. */
		if (round && at >= start)
			break;
		if (!frame_condemn(d, at))
			continue;
		r = d->host->ops->file_read(d->host, d->pool_fd, page, OB_PAGE_SIZE,
					    at * OB_PAGE_SIZE);
		if (r) {
			/* This one stays until the next round; those behind it need not wait. */
			frame_revive(d, at);
			err = err ? err : r;
			continue;
		}
		ksm_index_remove(d, ksm_hash(d, page), (uint32_t)at);
		ksm_frame_forget_origin(d, (uint32_t)at);
		b.frame[b.n++] = (uint32_t)at;
		freed++;
		if (b.n == BATCH) {
			r = batch_finish(d, &b);
			err = err ? err : r;
		}
	}
	d->reap_cursor = at;
	r = batch_finish(d, &b);
	err = err ? err : r;
	return err ? err : freed;
}

void ksm_domain_cell_died(struct ksm_domain *d, unsigned int cell)
{
	uint32_t filling = KSM_FRAME_FILLING | cell << KSM_FRAME_CELL_SHIFT;
	struct batch b = {.n = 0};

	OB_ASSERT(cell < d->cells);
	ksm_index_recover(d, cell);
	/* The entries that it made for frames which never came to life are room for others as soon as
	 * these are free; a death is rare enough to tidy up at once. */
	ksm_index_sweep(d, cell);
	for (uint64_t f = 0; ksm_frame_next(d, &f); f++) {
		_Atomic uint8_t *word = &d->holder[f * d->words + cell / 8];
		uint8_t bit = (uint8_t)(1u << (cell & 7));

		if (atomic_load(word) & bit)
			atomic_fetch_and(word, (uint8_t)~bit);
		if ((atomic_load(&d->state[f]) & KSM_FRAME_OWNER) != filling)
			continue;
		b.frame[b.n++] = (uint32_t)f;
		if (b.n == BATCH) {
			frames_free(d, b.frame, b.n);
			b.n = 0;
		}
	}
	frames_free(d, b.frame, b.n);
}

int ksm_domain_flip(struct ksm_domain *d, uint64_t seed)
{
	uint64_t f = seed % d->frames;
	unsigned int bit = (unsigned int)(seed >> 32) % (8 * OB_PAGE_SIZE);
	uint64_t off;
	unsigned char byte;
	int r;

	/* From a frame that the seed chooses on, round to it again. */
	for (uint64_t looked = 0;; looked++, f++) {
		if (looked > d->frames)
			return -ENOENT;
		if (f == d->frames)
			f = 0;
		if (ksm_domain_frame_live(d, (uint32_t)f) && frame_held(d, f))
			break;
	}
	off = f * OB_PAGE_SIZE + bit / 8;
	r = d->host->ops->file_read(d->host, d->pool_fd, &byte, 1, off);
	if (r)
		return r;
	byte ^= (unsigned char)(1u << bit % 8);
	return d->host->ops->file_write(d->host, d->pool_fd, &byte, 1, off);
}
