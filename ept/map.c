/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c: one entry per guest page, and the counters that must sum to the guest's size.
 *
 * An entry is 4 bytes: the frame of a shared page in 28 bits, the state in 3, and one flag: the
 * page lies over a mapping of the pool file. The flag outlives the sharing: after a copy-on-write
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
		[EPT_UNTOUCHED] = "untouched",
		[EPT_ZERO] = "zero",
		[EPT_PRIVATE] = "private",
		[EPT_SHARED] = "shared",
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
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->thawed, NULL);
	e->map = ob_alloc(arena, e->pages * sizeof(e->map[0]));
	e->st.state[EPT_UNTOUCHED] = e->pages;
	mem->ops_arg = e;
	mem->ops = &ept_gmem_ops;
	return 0;
}

void ept_exit(struct ept *e)
{
	OB_ASSERT(!e->frozen_n && !e->ndma);
	e->mem->ops = NULL;
	ob_free(e->arena, e->map);
	e->map = NULL;
	pthread_cond_destroy(&e->thawed);
	pthread_mutex_destroy(&e->lock);
}

/* The only place where a page changes its state. */
void ept_set(struct ept *e, uint64_t page, uint32_t entry)
{
	enum ept_state from = ept_entry_state(e->map[page]), to = ept_entry_state(entry);

	OB_ASSERT(e->st.state[from] > 0);
	e->st.state[from]--;
	e->st.state[to]++;
	e->map[page] = entry;
}

void ept_on_broken(struct ept *e, ept_broken_fn fn, void *arg)
{
	pthread_mutex_lock(&e->lock);
	e->broken = fn;
	e->broken_arg = arg;
	pthread_mutex_unlock(&e->lock);
}

void ept_states(struct ept *e, uint64_t page, uint64_t n, uint8_t *states, uint32_t *frames)
{
	OB_ASSERT(page <= e->pages && n <= e->pages - page);
	pthread_mutex_lock(&e->lock);
	for (uint64_t i = 0; i < n; i++) {
		uint32_t entry = e->map[page + i];

		states[i] = (uint8_t)ept_entry_state(entry);
		if (frames)
			frames[i] = states[i] == EPT_SHARED ? ept_entry_frame(entry) : EPT_NO_FRAME;
	}
	pthread_mutex_unlock(&e->lock);
}

enum ept_state ept_state_of(struct ept *e, uint64_t page)
{
	uint32_t entry;

	OB_ASSERT(page < e->pages);
	pthread_mutex_lock(&e->lock);
	entry = e->map[page];
	pthread_mutex_unlock(&e->lock);
	return ept_entry_state(entry);
}

uint32_t ept_frame_of(struct ept *e, uint64_t page)
{
	uint32_t entry;

	OB_ASSERT(page < e->pages);
	pthread_mutex_lock(&e->lock);
	entry = e->map[page];
	pthread_mutex_unlock(&e->lock);
	return ept_entry_state(entry) == EPT_SHARED ? ept_entry_frame(entry) : EPT_NO_FRAME;
}

bool ept_over_pool(struct ept *e, uint64_t page, uint64_t n)
{
	uint32_t any = 0;

	OB_ASSERT(page <= e->pages && n <= e->pages - page);
	pthread_mutex_lock(&e->lock);
	for (uint64_t i = 0; i < n; i++)
		any |= e->map[page + i] & EPT_OVER_POOL;
	pthread_mutex_unlock(&e->lock);
	return any != 0;
}

void ept_read_stats(struct ept *e, struct ept_stats *out)
{
	pthread_mutex_lock(&e->lock);
	*out = e->st;
	pthread_mutex_unlock(&e->lock);
}

void ept_check(struct ept *e)
{
	uint64_t n[EPT_NSTATES] = {0}, sum = 0;

	pthread_mutex_lock(&e->lock);
	for (uint64_t p = 0; p < e->pages; p++) {
		enum ept_state s = ept_entry_state(e->map[p]);

		OB_ASSERT(s < EPT_NSTATES);
		OB_ASSERT(s != EPT_SHARED || e->map[p] & EPT_OVER_POOL);
		OB_ASSERT(s == EPT_SHARED || !ept_entry_frame(e->map[p]));
		n[s]++;
	}
	for (unsigned int s = 0; s < EPT_NSTATES; s++) {
		OB_ASSERT(n[s] == e->st.state[s]);
		sum += n[s];
	}
	OB_ASSERT(sum == e->pages);
	pthread_mutex_unlock(&e->lock);
}
