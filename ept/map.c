/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c: one entry per guest page, and the counters that must sum to the guest's size.
 *
 * An entry is 4 bytes: the state in 3 bits, a payload in 28, and one flag. The payload says where
 * the page is: the frame of a shared one, the slot of one in a tier, and of a private page whether
 * it is in staging and why. The flag of a page in a tier says that it is being loaded; of any other
 * that it lies over a mapping of the pool file. That outlives the sharing: after a copy-on-write
 * break the page's own copy sits in front of the frame that was, in the same mapping. Discarding it
 * there would not give an empty page but reveal that frame, whoever uses it by then, so such a page
 * is only ever replaced by a mapping, never discarded.
 */
#include <errno.h>
#include <string.h>

#include "ept/ept_int.h"

const char *ept_state_name(enum ept_state s)
{
	static const char *const name[] = {
		[EPT_UNTOUCHED] = "untouched",	 [EPT_ZERO] = "zero",
		[EPT_PRIVATE] = "private",	 [EPT_SHARED] = "shared",
		[EPT_COMPRESSED] = "compressed", [EPT_SWAPPED] = "swapped",
		[EPT_BALLOONED] = "ballooned",	 [EPT_REMOTE] = "remote",
	};

	OB_ASSERT(s < EPT_NSTATES);
	return name[s];
}

static int ept_gmem_begin(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	return ept_dma_begin(arg, at, len, write, acc);
}

static void ept_gmem_end(void *arg, struct gmem_access *acc)
{
	ept_dma_end(arg, acc);
}

static const struct gmem_ops ept_gmem_ops = {
	.access_begin = ept_gmem_begin,
	.access_end = ept_gmem_end,
};

int ept_init(struct ept *e, struct ob_host *host, struct gmem *mem, struct ept_parker parker,
	     struct ob_arena *arena)
{
	*e = (struct ept){
		.host = host,
		.mem = mem,
		.parker = parker,
		.arena = arena,
		.pages = mem->pages,
	};
	if (!e->pages)
		return -EINVAL;
	ob_mutex_init(&e->lock, OB_RANK_EPT);
	pthread_cond_init(&e->thawed, NULL);
	e->map = ob_alloc(arena, e->pages * sizeof(e->map[0]));
	e->st.state[EPT_UNTOUCHED] = e->pages;
	ept_huge_init(e);
	mem->ops_arg = e;
	mem->ops = &ept_gmem_ops;
	return 0;
}

#ifdef OB_DEBUG
/* The last look, in builds that are for finding bugs. */
static void verify_at_exit(struct ept *e)
{
	struct ept_verify v;

	if (e->tampered || e->faults.count[EPT_FAULT_FAILED] || ept_verify(e, &v))
		return;
	if (v.differences)
		ob_warn("page %llu (%s%s): %s", (unsigned long long)v.first[0].page,
			ept_state_name(v.first[0].state), v.first[0].staged ? ", staged" : "",
			v.first[0].why);
	OB_ASSERT(!v.differences);
}
#endif

void ept_exit(struct ept *e)
{
	OB_ASSERT(!e->frozen_n && !e->ndma);
#ifdef OB_DEBUG
	verify_at_exit(e);
#endif
	ept_stage_exit(e);
	ept_huge_exit(e);
	e->mem->ops = NULL;
	ob_free(e->arena, e->map);
	e->map = NULL;
	pthread_cond_destroy(&e->thawed);
	ob_mutex_destroy(&e->lock);
}

/* The only place where a page changes its state. */
void ept_set(struct ept *e, uint64_t page, uint32_t entry, enum ept_actor who)
{
	enum ept_state from = ept_entry_state(e->map[page]), to = ept_entry_state(entry);

	OB_ASSERT(ept_may(from, to, who));
	OB_ASSERT(e->st.state[from] > 0);
	/* Whether a zero page ever had memory of its own outlives whatever else is entered of it. */
	if (to == EPT_ZERO &&
	    (from == EPT_PRIVATE || from == EPT_SHARED || ept_entry_dropped(e->map[page])))
		entry |= EPT_HELD;
	e->st.state[from]--;
	e->st.state[to]++;
	e->st.staged += ept_entry_staged(entry);
	e->st.staged -= ept_entry_staged(e->map[page]);
	e->map[page] = entry;
}

/* Subtracting from what is known to be larger, so that nothing wraps. */
bool ept_range_ok(const struct ept *e, uint64_t page, uint64_t n)
{
	return n && page < e->pages && n <= e->pages - page;
}

int ept_runs_ok(const struct ept *e, const struct ept_run *runs, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		if (!ept_range_ok(e, runs[i].page, runs[i].n))
			return -ERANGE;
		if (i && runs[i].page < runs[i - 1].page + runs[i - 1].n)
			return -EINVAL;
	}
	return 0;
}

uint64_t ept_run_alike(const struct ept *e, uint64_t page, uint64_t n, uint32_t mask)
{
	uint64_t most = OB_MIN(n, EPT_WINDOW - page % EPT_WINDOW), run = 1;

	most = OB_MIN(most, gmem_page_span(e->mem, page));
	while (run < most && (e->map[page + run] & mask) == (e->map[page] & mask))
		run++;
	return run;
}

void ept_on_broken(struct ept *e, ept_broken_fn fn, void *arg)
{
	ob_lock(&e->lock);
	e->broken = fn;
	e->broken_arg = arg;
	ob_unlock(&e->lock);
}

int ept_states(struct ept *e, uint64_t page, uint64_t n, uint8_t *states, uint32_t *frames)
{
	if (!ept_range_ok(e, page, n))
		return -ERANGE;
	ob_lock(&e->lock);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t entry = e->map[page + i];

		states[i] = (uint8_t)ept_entry_state(entry);
		if (frames)
			frames[i] =
				states[i] == EPT_SHARED ? ept_entry_payload(entry) : EPT_NO_FRAME;
	}
	ob_unlock(&e->lock);
	return 0;
}

/* One entry; of a page that is not there, that of no state. */
static uint32_t entry_of(struct ept *e, uint64_t page)
{
	uint32_t entry;

	OB_ASSERT(page < e->pages);
	ob_lock(&e->lock);
	entry = e->map[page];
	ob_unlock(&e->lock);
	return entry;
}

enum ept_state ept_state_of(struct ept *e, uint64_t page)
{
	return page < e->pages ? ept_entry_state(entry_of(e, page)) : EPT_NSTATES;
}

uint32_t ept_frame_of(struct ept *e, uint64_t page)
{
	uint32_t entry = page < e->pages ? entry_of(e, page) : 0;

	return ept_entry_state(entry) == EPT_SHARED ? ept_entry_payload(entry) : EPT_NO_FRAME;
}

bool ept_is_staged(struct ept *e, uint64_t page)
{
	return page < e->pages && ept_entry_staged(entry_of(e, page));
}

bool ept_over_pool(struct ept *e, uint64_t page, uint64_t n)
{
	uint32_t any = 0;

	if (!ept_range_ok(e, page, n))
		return false;
	ob_lock(&e->lock);
	for (uint64_t i = 0; i < n; i++)
		if (!ept_entry_tiered(e->map[page + i]))
			any |= e->map[page + i] & EPT_OVER_POOL;
	ob_unlock(&e->lock);
	return any != 0;
}

void ept_read_stats(struct ept *e, struct ept_stats *out)
{
	ob_lock(&e->lock);
	*out = e->st;
	ob_unlock(&e->lock);
}

void ept_read_faults(struct ept *e, struct ept_faults *out)
{
	ob_lock(&e->lock);
	*out = e->faults;
	out->count[EPT_FAULT_BROKEN] = out->pages[EPT_FAULT_BROKEN] = e->st.broken;
	ob_unlock(&e->lock);
}

void ept_check(struct ept *e)
{
	uint64_t n[EPT_NSTATES] = {0}, sum = 0, staged = 0;

	ob_lock(&e->lock);
	for (uint64_t p = 0; p < e->pages; p++) {
		uint32_t entry = e->map[p], payload = ept_entry_payload(entry);
		enum ept_state s = ept_entry_state(entry);

		OB_ASSERT(s != EPT_SHARED || entry & EPT_OVER_POOL);
		OB_ASSERT(s == EPT_SHARED || s == EPT_PRIVATE || ept_entry_tiered(entry) ||
			  !payload || ept_entry_dropped(entry));
		OB_ASSERT(s != EPT_PRIVATE || !payload || payload & EPT_STAGED ||
			  (entry & EPT_OVER_POOL && payload & EPT_UNDER));
		/* What has left lies over no mapping of the pool: it could not be answered for. */
		OB_ASSERT(!ept_entry_staged(entry) || !(entry & EPT_OVER_POOL));
		OB_ASSERT(!(ept_entry_staged(entry) || ept_entry_tiered(entry)) ||
			  ept_window_on(e, p));
		n[s]++;
		staged += ept_entry_staged(entry);
	}
	for (unsigned int s = 0; s < EPT_NSTATES; s++) {
		OB_ASSERT(n[s] == e->st.state[s]);
		sum += n[s];
	}
	OB_ASSERT(sum == e->pages && staged == e->st.staged);
	ept_huge_check(e);
	ob_unlock(&e->lock);
}
