/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track.c: collecting the pages that were written, once, for many.
 *
 * Two sources say what was written. KVM's log has the writes of vCPUs, those that KVM makes for
 * them included; it has one reader, so the tracker is that reader. What devices write through host
 * addresses KVM does not see: ept_dma_end marks it, and so does whoever changes a page by taking
 * its content away. A collect puts both together and adds them (or) to one bitmap a consumer. So
 * each consumer sees each write, at its own pace, and the log is read once.
 *
 * Why no write is missed. A consumer does, for a page p:
 *
 *	collect (1)	take p	read its content	...	collect (2)	take p: not set
 *
 * and concludes that up to the beginning of collect (2) the page held what was read. Take any write
 * to p that happened before that.
 *
 *  - By a vCPU. A collect is GET, then CLEAR of what GET returned, and CLEAR ends by
 *    write-protecting and flushing the TLBs. If the write came before CLEAR (1) was over, it came
 *    before the content was read, so what was read has it. If it came after, it found the page
 *    protected (or the page had been noted since, by another write), so it is in the log, where GET
 *    (2) finds it: KVM notes a page before it lets the write through. So p would be set.
 *    When GET (1) did not return p, CLEAR (1) does not touch it, and the same holds for the last
 *    collect that did return it: between the two, the first write puts p into the log.
 *    (Two moments are not exact. Where KVM itself writes for a vCPU, emulating an instruction, it
 *    notes the page after the write. Where it mends a protected entry without its lock, it notes
 *    the page after the entry is writable, and another vCPU may write in between. Such a write may
 *    be reported one collect late. Both are over when the vCPU has left KVM: a parked guest has
 *    none, and a write that a guest makes by itself with one vCPU has none either.)
 *    The order GET, CLEAR, read is what matters. To read before CLEAR would lose a write that comes
 *    in between: it is neither in what was read nor noted again.
 *
 *  - By a device. The write comes first and its mark after it. If the mark was there when collect
 *    (1) looked, the content was read after the write. If not, a later collect finds the mark: at
 *    the latest collect (2), when the access has ended by then. An access that has not ended may
 *    have written anything already; the conclusion above is for accesses that ended before collect
 *    (2), and others are reported when they end.
 *    That is why the mark is made at the END of an access. A mark at its beginning could be
 *    collected and taken, and the content read, before the device writes; the write would then have
 *    no mark.
 *
 *  - While a slot is being switched on. KVM's log is on first; then all pages are set for
 *    everybody; then the slot counts as known. What was written before the log was on is covered by
 *    the second step, what came after by the log. A log that begins with all pages set
 *    (INITIALLY_SET) notes nothing before its first CLEAR, as all is noted already: it reports all
 *    pages at the first collect. Whoever takes between is told of all pages twice, and must be.
 *
 * A collect that fails sets all pages of that slot: what the log said is lost, not what was
 * written.
 *
 * What is reported and was not written (false positives), all known: a page that a vCPU read after
 * its entry in KVM's tables was dropped, when the host's page was writable (KVM maps it writable at
 * once, and so notes it), hence up to 512 pages around the first merge in a 2 MiB window; a write
 * between CLEAR and the consumer's look at the page; a device access that did not write all that it
 * had announced; all pages of a slot after it was switched on.
 *
 * Words of bitmaps are atomic. A take fetches and clears a word in one step while a collect may add
 * to it: a bit that comes a moment later is there for the next take. The release of whoever adds
 * and the acquire of whoever takes make the mark's write, or the collect, visible before the bit.
 */
#include "ept/track.h"

#include <errno.h>
#include <string.h>

#include "ept/ept.h"

/* Of a slot. NEW: on, by the call that is going on and may yet have to undo it. */
enum {
	SLOT_OFF,
	SLOT_ON,
	SLOT_NEW,
};

static bool in_guest(const struct ept_track *t, uint64_t page, uint64_t n)
{
	return page < t->mem->pages && n <= t->mem->pages - page;
}

/* Bits [from, to) of a word; from < 64, to <= 64. */
static uint64_t mask(uint64_t from, uint64_t to)
{
	return (to == 64 ? UINT64_MAX : (1ULL << to) - 1) & ~((1ULL << from) - 1);
}

/* The bits of word @w that are of [page, page + n). */
static uint64_t mask_of(uint64_t w, uint64_t page, uint64_t n)
{
	uint64_t from = OB_MAX(page, w * 64), to = OB_MIN(page + n, w * 64 + 64);

	return mask(from - w * 64, to - w * 64);
}

static void set_range(_Atomic uint64_t *bits, uint64_t page, uint64_t n)
{
	for (uint64_t w = page / 64; w * 64 < page + n; w++)
		atomic_fetch_or_explicit(&bits[w], mask_of(w, page, n), memory_order_acq_rel);
}

void ept_track_init(struct ept_track *t, struct ept_log_ops log, const struct gmem *mem,
		    struct ob_arena *arena)
{
	uint64_t largest = 0;

	*t = (struct ept_track){
		.log = log,
		.mem = mem,
		.arena = arena,
		.words = (mem->pages + 63) / 64,
		.st.pages_off = mem->pages,
	};
	ob_mutex_init(&t->lock, OB_RANK_TRACK);
	for (unsigned int s = 0; s < mem->nslots; s++) {
		OB_ASSERT(mem->slot[s].first_page % 64 == 0);
		largest = OB_MAX(largest, mem->slot[s].pages);
	}
	t->marks = ob_alloc(arena, t->words * sizeof(t->marks[0]));
	t->state = ob_alloc(arena, mem->nslots * sizeof(t->state[0]));
	t->scratch = ob_alloc(arena, (largest + 63) / 64 * sizeof(t->scratch[0]));
}

void ept_track_exit(struct ept_track *t)
{
	ept_track_off(t, 0, t->mem->pages);
	for (int c = 0; c < EPT_TRACK_CONSUMERS; c++)
		ob_free(t->arena, t->bits[c]);
	ob_free(t->arena, t->marks);
	ob_free(t->arena, t->state);
	ob_free(t->arena, t->scratch);
	ob_mutex_destroy(&t->lock);
}

void ept_track_attach(struct ept *e, struct ept_track *t)
{
	ob_lock(&e->lock);
	e->track = t;
	ob_unlock(&e->lock);
}

/* --- slots --------------------------------------------------------------------------------- */

static void count_slot(struct ept_track *t, const struct gmem_slot *s, bool on)
{
	t->st.slots_on += on ? 1u : -1u;
	t->st.pages_on += on ? s->pages : -s->pages;
	t->st.pages_off -= on ? s->pages : -s->pages;
}

static int slot_on(struct ept_track *t, unsigned int slot)
{
	const struct gmem_slot *s = &t->mem->slot[slot];
	int r = t->log.set(t->log.arg, slot, true);

	if (r)
		return r;
	for (int c = 0; c < EPT_TRACK_CONSUMERS; c++)
		if (t->bits[c])
			set_range(t->bits[c], s->first_page, s->pages);
	atomic_store(&t->state[slot], SLOT_NEW);
	count_slot(t, s, true);
	return 0;
}

static int slot_off(struct ept_track *t, unsigned int slot)
{
	atomic_store(&t->state[slot], SLOT_OFF);
	count_slot(t, &t->mem->slot[slot], false);
	return t->log.set(t->log.arg, slot, false);
}

int ept_track_on(struct ept_track *t, uint64_t page, uint64_t n)
{
	unsigned int first, end;
	int r = 0;

	if (!n || !in_guest(t, page, n))
		return -EINVAL;
	first = gmem_page_slot(t->mem, page);
	end = gmem_page_slot(t->mem, page + n - 1) + 1;
	ob_lock(&t->lock);
	for (unsigned int s = first; s < end && !r; s++)
		if (atomic_load(&t->state[s]) == SLOT_OFF)
			r = slot_on(t, s);
	for (unsigned int s = first; s < end; s++) {
		if (atomic_load(&t->state[s]) != SLOT_NEW)
			continue;
		if (r)
			slot_off(t, s);
		else
			atomic_store(&t->state[s], SLOT_ON);
	}
	ob_unlock(&t->lock);
	return r;
}

int ept_track_off(struct ept_track *t, uint64_t page, uint64_t n)
{
	int r = 0;

	if (!n || !in_guest(t, page, n))
		return -EINVAL;
	ob_lock(&t->lock);
	for (unsigned int s = gmem_page_slot(t->mem, page); s < t->mem->nslots; s++) {
		const struct gmem_slot *slot = &t->mem->slot[s];
		int err = 0;

		if (slot->first_page + slot->pages > page + n)
			break;
		if (slot->first_page >= page && atomic_load(&t->state[s]) != SLOT_OFF)
			err = slot_off(t, s);
		r = r ? r : err;
	}
	ob_unlock(&t->lock);
	return r;
}

bool ept_track_known(struct ept_track *t, uint64_t page)
{
	return in_guest(t, page, 1) &&
	       atomic_load(&t->state[gmem_page_slot(t->mem, page)]) != SLOT_OFF;
}

/* --- consumers ----------------------------------------------------------------------------- */

int ept_track_consumer_add(struct ept_track *t)
{
	int found = -ENOSPC;

	ob_lock(&t->lock);
	for (int c = 0; c < EPT_TRACK_CONSUMERS && found < 0; c++) {
		if (t->bits[c])
			continue;
		t->bits[c] = ob_alloc(t->arena, t->words * sizeof(t->bits[c][0]));
		set_range(t->bits[c], 0, t->mem->pages);
		t->st.consumers++;
		found = c;
	}
	ob_unlock(&t->lock);
	return found;
}

static bool is_consumer(const struct ept_track *t, int consumer)
{
	return consumer >= 0 && consumer < EPT_TRACK_CONSUMERS && t->bits[consumer];
}

int ept_track_consumer_remove(struct ept_track *t, int consumer)
{
	int r = -EINVAL;

	ob_lock(&t->lock);
	if (is_consumer(t, consumer)) {
		ob_free(t->arena, t->bits[consumer]);
		t->bits[consumer] = NULL;
		t->st.consumers--;
		r = 0;
	}
	ob_unlock(&t->lock);
	return r;
}

/* Copy @bits to @out from bit @at on; @at may be down to -63: bits that fall below 0 are clear. */
static void put(uint64_t *out, int64_t at, uint64_t bits)
{
	if (!bits)
		return;
	if (at < 0) {
		out[0] |= bits >> -at;
		return;
	}
	out[at / 64] |= bits << at % 64;
	if (at % 64 && bits >> (64 - at % 64))
		out[at / 64 + 1] |= bits >> (64 - at % 64);
}

int64_t ept_track_take(struct ept_track *t, int consumer, uint64_t page, uint64_t n,
		       uint64_t *bitmap, uint64_t *unknown)
{
	uint64_t end = page + n, none = 0;
	int64_t taken = 0;

	if (!is_consumer(t, consumer) || !in_guest(t, page, n))
		return -EINVAL;
	memset(bitmap, 0, (n + 63) / 64 * sizeof(bitmap[0]));
	while (page < end) {
		const struct gmem_slot *s = &t->mem->slot[gmem_page_slot(t->mem, page)];
		bool off = atomic_load(&t->state[s - t->mem->slot]) == SLOT_OFF;
		uint64_t stop = OB_MIN(end, s->first_page + s->pages);

		for (uint64_t w = page / 64; w * 64 < stop; w++) {
			uint64_t want = mask_of(w, page, stop - page), got = want;
			_Atomic uint64_t *word = &t->bits[consumer][w];

			if (!off)
				got &= atomic_load_explicit(word, memory_order_relaxed);
			if (!off && got)
				got &= atomic_fetch_and_explicit(word, ~got, memory_order_acq_rel);
			put(bitmap, (int64_t)(w * 64) - (int64_t)(end - n), got);
			taken += __builtin_popcountll(got);
			none += off ? (uint64_t)__builtin_popcountll(got) : 0;
		}
		page = stop;
	}
	if (unknown)
		*unknown = none;
	return taken;
}

/* --- collecting ---------------------------------------------------------------------------- */

int ept_track_mark(struct ept_track *t, uint64_t page, uint64_t n)
{
	if (!in_guest(t, page, n))
		return -EINVAL;
	set_range(t->marks, page, n);
	return 0;
}

static int collect_slot(struct ept_track *t, unsigned int slot)
{
	const struct gmem_slot *s = &t->mem->slot[slot];
	uint64_t first = s->first_page / 64;
	int r = t->log.collect(t->log.arg, slot, t->scratch);

	t->st.failed += r != 0;
	for (uint64_t w = 0; w < (s->pages + 63) / 64; w++) {
		uint64_t all = mask_of(first + w, s->first_page, s->pages);
		uint64_t log = (r ? UINT64_MAX : t->scratch[w]) & all, marks = 0;

		if (atomic_load_explicit(&t->marks[first + w], memory_order_relaxed))
			marks = atomic_exchange_explicit(&t->marks[first + w], 0,
							 memory_order_acq_rel);
		if (!(log | marks))
			continue;
		t->st.reported += (uint64_t)__builtin_popcountll(log | marks);
		t->st.by_log += r ? 0 : (uint64_t)__builtin_popcountll(log);
		t->st.by_devices += (uint64_t)__builtin_popcountll(marks);
		for (int c = 0; c < EPT_TRACK_CONSUMERS; c++)
			if (t->bits[c])
				atomic_fetch_or_explicit(&t->bits[c][first + w], log | marks,
							 memory_order_acq_rel);
	}
	return r;
}

int ept_track_collect(struct ept_track *t)
{
	int r = 0;

	ob_lock(&t->lock);
	t->st.passes++;
	for (unsigned int s = 0; s < t->mem->nslots; s++)
		if (atomic_load(&t->state[s]) != SLOT_OFF) {
			int err = collect_slot(t, s);

			r = r ? r : err;
		}
	ob_unlock(&t->lock);
	return r;
}

void ept_track_read_stats(struct ept_track *t, struct ept_track_stats *out)
{
	ob_lock(&t->lock);
	*out = t->st;
	ob_unlock(&t->lock);
}
