/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_plan.c: runs, and the budget of mappings.
 *
 * A run is a stretch of neighbouring pages whose frames are neighbours in the pool: one mmap merges
 * it, and it is one mapping afterwards. A process may only have so many (vm.max_map_count), so they
 * are what merging is short of where pages are scattered.
 *
 * How many mappings does a run add? The mappings of a stretch of memory are its borders, places where
 * two neighbouring pages are of different mappings. Mapping a run takes away all borders inside it and
 * can add one at its left and one at its right end. At an end there is none afterwards if the frame on
 * the other side is the neighbour in the pool: the kernel makes them one. And none is *added* if there
 * was one already: between memory of the guest's own and a mapping of the pool, or between two frames
 * that are no neighbours. What a page that was broken off its frame lies over is not known any more
 * (the map has no room for it), so there the border counts as new: the reckoning may be too high, never
 * too low. That leaves the case that matters exact: a page that was broken and merged again into its
 * old frame adds nothing, as it continues both its neighbours.
 *
 * Who gets mappings when they are short? The best is merged first: most pages for each mapping. The
 * scanner goes through memory once and cannot sort all of it, but it need not. With P pages that may
 * still want to be merged and room for M mappings, a run that merges at least P / M pages for each
 * mapping can be taken at once: even if all the other pages were in runs just as good, all of them
 * would fit. What is taken so leaves P / M as it was or lower, so the bar never rises. What is below it
 * waits for the end of the pass (hash_defer.c), when all that is left is known, and is taken best first.
 * With M >= P there is no bar: n pages have n borders. At the end of the pass the bar is where the
 * best of those that wait fill the room; they are counted by how good they are while they are put off.
 */
#include "ksm/hash_plan.h"

#include "ept/ept.h"

/* May @b follow @a in one mapping? */
static bool follows(const struct hash_plan *a, const struct hash_plan *b)
{
	if (b->page != a->page + 1 || b->what != a->what)
		return false;
	if (a->what == HASH_ZERO)
		return true;
	if (a->frame == EPT_NO_FRAME || b->frame == EPT_NO_FRAME)
		return a->frame == b->frame; /* both still to be found */
	return b->frame == a->frame + 1;
}

/* Is there a border between entries @i and @i + 1 of the ground as it is? False if in doubt. */
static bool border(const struct hash_ground *g, unsigned int i)
{
	if (g->edge[i] || g->edge[i + 1] || g->over_pool[i] != g->over_pool[i + 1])
		return true;
	return g->frame[i] != EPT_NO_FRAME && g->frame[i + 1] != EPT_NO_FRAME &&
	       g->frame[i + 1] != g->frame[i] + 1;
}

/* Would a run of @p have no border with the ground's entry @i, @step frames from its frame there? */
static bool joins(const struct hash_plan *p, const struct hash_ground *g, unsigned int i, int step)
{
	if (g->edge[i])
		return false;
	if (p->what == HASH_ZERO)
		return !g->over_pool[i];
	return p->frame != EPT_NO_FRAME && g->frame[i] != EPT_NO_FRAME &&
	       (int64_t)g->frame[i] == (int64_t)p->frame + step;
}

static void ends(const struct hash_plan *p, const struct hash_ground *g, struct hash_run *r)
{
	const struct hash_plan *a = &p[r->first], *b = &p[r->first + r->n - 1];
	unsigned int left = a->page - g->first, right = b->page - g->first + 1;

	/* Dropping what lies over no mapping of the pool takes none. */
	if (a->what == HASH_ZERO) {
		bool over = false;

		for (unsigned int i = left + 1; i <= right; i++)
			over |= g->over_pool[i];
		if (!over)
			return;
	}
	r->left = !joins(a, g, left, -1) && !border(g, left);
	r->right = !joins(b, g, right + 1, 1) && !border(g, right);
}

unsigned int hash_runs(const struct hash_plan *p, unsigned int n, const struct hash_ground *g,
		       struct hash_run *out)
{
	unsigned int m = 0;

	for (unsigned int i = 0, len; i < n; i += len) {
		struct hash_run r = {.first = (uint16_t)i};

		for (len = 1; i + len < n && follows(&p[i + len - 1], &p[i + len]);)
			len++;
		if (p[i].what == HASH_JOIN && p[i].frame == EPT_NO_FRAME)
			continue;
		r.n = (uint16_t)len;
		ends(p, g, &r);
		out[m++] = r;
	}
	return m;
}

/* Are these neighbours, so that a border between them is counted for one of them only? */
static bool beside(const struct hash_plan *p, const struct hash_run *a, const struct hash_run *b)
{
	return p[a->first + a->n - 1].page + 1 == p[b->first].page;
}

/* What @r adds, given which of its neighbours are taken. */
static unsigned int adds(const struct hash_plan *p, const struct hash_run *runs, unsigned int n,
			 unsigned int i)
{
	const struct hash_run *r = &runs[i];
	bool left = r->left, right = r->right;

	if (left && i > 0 && runs[i - 1].take && runs[i - 1].right && beside(p, &runs[i - 1], r))
		left = false;
	if (right && i + 1 < n && runs[i + 1].take && runs[i + 1].left &&
	    beside(p, r, &runs[i + 1]))
		right = false;
	return (unsigned int)left + right;
}

static void take(struct hash_run *r, unsigned int maps, struct hash_room *room)
{
	r->take = true;
	room->maps -= maps;
	room->pages -= OB_MIN(room->pages, r->n);
}

uint32_t hash_bar(const struct hash_room *room)
{
	if (room->maps >= room->pages)
		return 0;
	if (!room->maps)
		return UINT32_MAX;
	return (uint32_t)OB_MIN((2 * room->pages + room->maps - 1) / room->maps, UINT32_MAX);
}

/* Is @n pages for @maps mappings better than @best for @best_maps? Nothing beats none. */
static bool better(uint64_t n, unsigned int maps, uint64_t best, unsigned int best_maps)
{
	return n * best_maps > best * maps || (!maps && best_maps);
}

uint32_t hash_pick(const struct hash_plan *p, struct hash_run *runs, unsigned int n,
		   struct hash_room *room, uint32_t bar)
{
	uint32_t pages = 0;
	bool plenty = !bar && room->maps >= 2ULL * n;

	for (unsigned int i = 0; i < n; i++)
		runs[i].take = false;
	/* Each round takes what is as good as the best that is left. That can make neighbours better, so
	 * then it is looked at anew; and with plenty there is one round. */
	for (bool more = true; more;) {
		uint64_t best = 0;
		unsigned int best_maps = 1;

		more = false;
		for (unsigned int i = 0; i < n && !plenty; i++) {
			unsigned int maps = adds(p, runs, n, i);

			if (!runs[i].take && maps <= room->maps &&
			    better(runs[i].n, maps, best, best_maps)) {
				best = runs[i].n;
				best_maps = maps;
			}
		}
		for (unsigned int i = 0; i < n; i++) {
			unsigned int maps = adds(p, runs, n, i);

			if (runs[i].take || maps > room->maps ||
			    2ULL * runs[i].n < (uint64_t)bar * maps ||
			    (!plenty && better(best, best_maps, runs[i].n, maps)))
				continue;
			pages += runs[i].n;
			take(&runs[i], maps, room);
			more = !plenty;
		}
	}
	return pages;
}

uint32_t hash_queue_add(struct hash_queue *q, const struct hash_plan *p,
			const struct hash_run *runs, unsigned int n)
{
	uint32_t pages = 0;

	for (unsigned int i = 0; i < n; i++) {
		unsigned int maps = OB_MAX(adds(p, runs, n, i), 1);

		if (runs[i].take)
			continue;
		q->maps[OB_MIN(2u * runs[i].n / maps, HASH_CLASSES - 1)] += maps;
		pages += runs[i].n;
	}
	return pages;
}

uint32_t hash_queue_bar(const struct hash_queue *q, uint64_t maps)
{
	uint64_t sum = 0;

	for (unsigned int c = HASH_CLASSES - 1; c > 0; c--) {
		sum += q->maps[c];
		/* Of the class that does not fit whole, some can have what is left, but not before the
		 * better ones: in a walk of its own, when there are no better ones any more. */
		if (sum > maps)
			return sum > q->maps[c] ? c + 1 : c;
	}
	return 0;
}
