/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c: answering the faults of a guest on pages that are not in place.
 *
 * Each guest has one thread for it, made with its staging (handler.c, stage.c).
 *
 * An answer brings the neighbours, too, an aligned group of 16 pages: memory that was taken together
 * was idle together, and is wanted together. A sample (ept_take) comes alone, or its neighbours would
 * count as touched; a unit of 2 MiB that was taken whole comes back whole, since a part would split
 * it. A tier says for itself what is worth loading ahead.
 *
 * The map is the truth about where a page is, and the lock is held from looking into it until the
 * page is in place, so two answers to one fault cannot both think that they are the first; the second
 * finds the page there, and only wakes. A tier may take its time (a disk), so it is called without
 * the lock, the page marked as being loaded: whoever meets that mark leaves the page alone.
 *
 * Faults of other threads of this process come here as well: a device that writes into a page that
 * is out waits for it like the guest does. So nobody may touch guest memory with the lock held.
 */
#include "ept/fault.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *ept_outcome_name(enum ept_outcome o)
{
	static const char *const name[] = {
		[EPT_FAULT_ZERO] = "zero-filled",    [EPT_FAULT_STAGING] = "staging",
		[EPT_FAULT_TIER] = "tier",	     [EPT_FAULT_BROKEN] = "cow-broken",
		[EPT_FAULT_REDUNDANT] = "redundant", [EPT_FAULT_FAILED] = "failed",
	};

	OB_ASSERT(o < EPT_NOUTCOMES);
	return name[o];
}

/* Four buckets an octave: b >> 2 is the place of the leading bit, b & 3 the two bits below it. */
static unsigned int lat_bucket(uint64_t ns)
{
	unsigned int top;

	if (ns < 4)
		return (unsigned int)ns;
	top = 63 - (unsigned int)__builtin_clzll(ns);
	return OB_MIN(top << 2 | (unsigned int)(ns >> (top - 2) & 3), EPT_LAT_BUCKETS - 1u);
}

/* The least value that is beyond the bucket. */
static uint64_t lat_bound(unsigned int b)
{
	if (b < 8)
		return b + 1;
	return (4ULL + (b & 3) + 1) << ((b >> 2) - 2);
}

uint64_t ept_fault_latency(const struct ept_faults *f, enum ept_outcome o, double part)
{
	uint64_t sum = 0, seen = 0;

	for (unsigned int b = 0; b < EPT_LAT_BUCKETS; b++)
		sum += f->lat[o][b];
	for (unsigned int b = 0; b < EPT_LAT_BUCKETS && sum; b++) {
		seen += f->lat[o][b];
		if ((double)seen >= part * (double)sum)
			return lat_bound(b);
	}
	return 0;
}

static void count(struct ept *e, enum ept_outcome o, uint64_t pages, uint64_t since)
{
	uint64_t ns = e->host->ops->now_ns(e->host) - since;

	e->faults.count[o]++;
	e->faults.pages[o] += pages;
	e->faults.lat[o][lat_bucket(ns)]++;
}

/* The page behind a host address; UINT64_MAX: it is not guest RAM. */
static uint64_t page_of(const struct ept *e, hva_t at)
{
	for (unsigned int i = 0; i < e->mem->nregions; i++) {
		const struct gmem_region *r = &e->mem->region[i];

		if (at.v >= r->hva.v && at.v - r->hva.v < r->size)
			return r->first_page + ((at.v - r->hva.v) >> OB_PAGE_SHIFT);
	}
	return UINT64_MAX;
}

/* The aligned group around @page, inside its region. */
static void group(const struct ept *e, uint64_t page, uint64_t size, uint64_t *first, uint64_t *end)
{
	*first = page - page % size;
	*end = OB_MIN(*first + size, page + gmem_page_span(e->mem, page));
	/* The group's beginning may be in the region before. */
	while (gmem_page_span(e->mem, *first) < *end - *first)
		++*first;
}

/* Somebody needs a page whose content is gone: he gets zeroes, so that he can be stopped. */
static void give_zeroes(struct ept *e, hva_t at)
{
	struct ob_host *h = e->host;

	if (h->ops->uffd_zero(h, e->stage->uffd, at, OB_PAGE_SIZE))
		h->ops->uffd_wake(h, e->stage->uffd, at, OB_PAGE_SIZE);
}

static void lost(struct ept *e, uint64_t page, const char *why, uint64_t since)
{
	ept_lost(e, why);
	e->faults.count[EPT_FAULT_FAILED]--; /* count counts it, with its time */
	count(e, EPT_FAULT_FAILED, 0, since);
	give_zeroes(e, gmem_page_hva(e->mem, page));
}

static void answer_staged(struct ept *e, uint64_t page, uint64_t since)
{
	uint32_t entry = e->map[page], alike = EPT_SAMPLE | EPT_WHOLE;
	uint64_t size = entry & EPT_WHOLE ? EPT_WINDOW : EPT_AROUND, first, end, from = page,
		 to = page + 1;
	int64_t r;

	if (!(entry & EPT_SAMPLE) || entry & EPT_WHOLE) {
		group(e, page, size, &first, &end);
		while (from > first && ept_entry_staged(e->map[from - 1]) &&
		       !((e->map[from - 1] ^ entry) & alike))
			from--;
		while (to < end && ept_entry_staged(e->map[to]) && !((e->map[to] ^ entry) & alike))
			to++;
	}
	r = ept_stage_back(e, from, to - from);
	if (r > 0 && !ept_entry_staged(e->map[page])) {
		count(e, EPT_FAULT_STAGING, (uint64_t)r, since);
		return;
	}
	/* A neighbour that could not be moved must not keep the page away. */
	r = ept_entry_staged(e->map[page]) ? ept_stage_back(e, page, 1) : 1;
	if (r == 1)
		count(e, EPT_FAULT_STAGING, 1, since);
	else
		lost(e, page, "a page could not be put back from staging", since);
}

/*
 * Bring one page back from its tier. e->lock is held, and given up meanwhile. 0: it is there. -errno:
 * the tier cannot load it, or there is no memory for it. It is where it was; whoever has begun to
 * wait for it is woken, and his fault comes again.
 */
static int load_page(struct ept *e, uint64_t page)
{
	uint32_t entry = e->map[page], slot = ept_entry_payload(entry);
	enum ept_state state = ept_entry_state(entry);
	const struct ept_tier t = e->tier[state];
	_Alignas(64) uint8_t buf[OB_PAGE_SIZE];
	hva_t at = gmem_page_hva(e->mem, page);
	struct ob_host *h = e->host;
	int r;

	ept_set(e, page, entry | EPT_LOADING, EPT_BY_FAULT);
	ob_unlock(&e->lock);
	r = t.ops->load(t.arg, slot, buf);
	ob_lock(&e->lock);
	OB_ASSERT(e->map[page] == (entry | EPT_LOADING));
	if (!r)
		r = h->ops->uffd_copy(h, e->stage->uffd, at, hva_of(buf), OB_PAGE_SIZE);
	ept_set(e, page, r ? entry : ept_entry(EPT_PRIVATE, 0, 0), EPT_BY_FAULT);
	pthread_cond_broadcast(&e->thawed);
	if (r) {
		h->ops->uffd_wake(h, e->stage->uffd, at, OB_PAGE_SIZE);
		return r;
	}
	ept_tier_drop(e, state, slot);
	return 0;
}

static bool loadable(uint32_t entry)
{
	return ept_entry_tiered(entry) && !(entry & EPT_LOADING);
}

static void answer_tiered(struct ept *e, uint64_t page, uint64_t since)
{
	enum ept_state s = ept_entry_state(e->map[page]);
	unsigned int around = e->tier[s].ops->around;
	uint64_t first, end;
	char why[100];
	int r = load_page(e, page);

	if (r) {
		snprintf(why, sizeof(why), "a page is lost: tier %s: %s", e->tier[s].ops->name,
			 strerror(-r));
		lost(e, page, why, since);
		return;
	}
	count(e, EPT_FAULT_TIER, 1, since);
	if (around < 2)
		return;
	/* The guest is on its way again; the rest is for later. */
	group(e, page, around, &first, &end);
	for (uint64_t p = first; p < end; p++) {
		if (ept_entry_state(e->map[p]) != s || !loadable(e->map[p]))
			continue;
		/* Whoever wants that one will hear of it. */
		if (load_page(e, p))
			return;
		e->faults.pages[EPT_FAULT_TIER]++;
	}
}

/* Nothing was there, or nothing that anybody may rely on. */
static void answer_empty(struct ept *e, uint64_t page, bool write, uint64_t since)
{
	static const _Alignas(4096) uint8_t zeroes[OB_PAGE_SIZE];
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	bool untouched = ept_entry_state(e->map[page]) == EPT_UNTOUCHED;
	int r;

	if (write)
		r = h->ops->uffd_copy(h, e->stage->uffd, at, hva_of(zeroes), OB_PAGE_SIZE);
	else
		r = h->ops->uffd_zero(h, e->stage->uffd, at, OB_PAGE_SIZE);
	/* Since the fault was read the page has come to be there, or its window has been closed, or a
	 * frame mapped over it: whoever waits is to look again, and comes back if it is missing. */
	if (r == -EEXIST || r == -ENOENT || r == -EINVAL || r == -EAGAIN) {
		h->ops->uffd_wake(h, e->stage->uffd, at, OB_PAGE_SIZE);
		count(e, EPT_FAULT_REDUNDANT, 0, since);
	} else if (r) {
		lost(e, page, "the host has no memory for a page", since);
	} else {
		ept_set(e, page, ept_entry(write ? EPT_PRIVATE : EPT_ZERO, 0, 0), EPT_BY_FAULT);
		e->st.touched += untouched;
		count(e, EPT_FAULT_ZERO, 1, since);
	}
}

/* The map says that the page is in place: somebody else has answered. */
static void answer_present(struct ept *e, uint64_t page, bool protect, uint64_t since)
{
	struct ob_host *h = e->host;
	hva_t at = gmem_page_hva(e->mem, page);
	struct ob_page view;

	if (ept_entry_state(e->map[page]) == EPT_PRIVATE && !h->ops->pages(h, at, 1, &view) &&
	    !view.present && !view.swapped) {
		/* The host has lost it: hardware, or a bug. */
		lost(e, page, "the host has lost a page", since);
		return;
	}
	/* Protection that a taking left behind when it failed: with the lock held there is none that
	 * is under way. Only woken, he would come again for ever. */
	if (!protect || h->ops->uffd_protect(h, e->stage->uffd, at, OB_PAGE_SIZE, false))
		h->ops->uffd_wake(h, e->stage->uffd, at, OB_PAGE_SIZE);
	count(e, EPT_FAULT_REDUNDANT, 0, since);
}

static void answer(struct ept *e, const struct ob_fault *f, uint64_t since)
{
	uint64_t page = page_of(e, f->at);

	if (page == UINT64_MAX) {
		/* Somebody reads staging itself: there is nothing to be had there. */
		give_zeroes(e, f->at);
		e->faults.count[EPT_FAULT_FAILED]++;
		return;
	}
	switch (ept_entry_state(e->map[page])) {
	case EPT_UNTOUCHED:
	case EPT_ZERO:
	case EPT_BALLOONED:
		if (f->protect)
			answer_present(e, page, true, since);
		else
			answer_empty(e, page, f->write, since);
		break;
	case EPT_PRIVATE:
		if (ept_entry_staged(e->map[page]))
			answer_staged(e, page, since);
		else
			answer_present(e, page, f->protect, since);
		break;
	case EPT_SHARED:
		answer_present(e, page, f->protect, since);
		break;
	case EPT_COMPRESSED:
	case EPT_SWAPPED:
	case EPT_REMOTE:
		/* Being loaded: whoever does that wakes all who wait. */
		if (loadable(e->map[page]))
			answer_tiered(e, page, since);
		else
			count(e, EPT_FAULT_REDUNDANT, 0, since);
		break;
	case EPT_NSTATES:
		OB_ASSERT(!"page state");
	}
}

void ept_fault_answer(struct ept *e, const struct ob_fault *faults, unsigned int n)
{
	uint64_t since = e->host->ops->now_ns(e->host);

	ob_lock(&e->lock);
	for (unsigned int i = 0; i < n; i++)
		answer(e, &faults[i], since);
	ob_unlock(&e->lock);
}

int64_t ept_load(struct ept *e, uint64_t page, uint64_t n)
{
	int64_t loaded = 0;
	int r = 0;

	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	ob_lock(&e->lock);
	for (uint64_t p = page; p < page + n && !r; p++) {
		if (!loadable(e->map[p]))
			continue;
		r = load_page(e, p);
		loaded += !r;
	}
	ob_unlock(&e->lock);
	return r && !loaded ? r : loaded;
}
