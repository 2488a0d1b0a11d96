/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset_draw.c: which pages are sampled.
 *
 * Drawing without repetition needs to remember what was drawn, or an order: the first n of a random
 * permutation are n different numbers, and the next ones serve when some of them turn out to be of
 * no use. The permutation takes no memory: a Feistel network over as many bits as the number of
 * pages has, applied again until the result is a page (Black and Rogaway, "Ciphers with arbitrary
 * finite domains", 2002). Each period has a key of its own.
 *
 * Units of 2 MiB that are backed by a huge page are drawn apart from all other pages, with a part
 * of n that is their part of memory.
 */
#include <stdlib.h>
#include <string.h>

#include "ept/wset_int.h"

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint64_t ept_wset_permute(uint64_t n, uint64_t key, uint64_t i)
{
	unsigned int bits = n > 2 ? 64 - (unsigned int)__builtin_clzll(n - 1) : 2;
	unsigned int low = bits / 2, high = bits - low;

	/* At most three quarters of the values of so many bits are none of ours. */
	do {
		uint64_t l = i & ((1ULL << low) - 1), h = i >> low;

		for (unsigned int round = 0; round < 3; round++) {
			l ^= mix(key + 2 * round + (h << 8)) & ((1ULL << low) - 1);
			h ^= mix(key + 2 * round + 1 + (l << 8)) & ((1ULL << high) - 1);
		}
		i = h << low | l;
	} while (i >= n);
	return i;
}

bool ept_wset_in_huge(const struct ept_wset *w, uint64_t page)
{
	uint64_t unit = page / EPT_WSET_UNIT;

	return w->huge && w->huge[unit / 64] >> (unit % 64) & 1;
}

/* What there is of huge units now: they come and go. */
static uint64_t learn_units(struct ept_wset *w)
{
	uint64_t n = 0;

	for (uint64_t u = 0; w->huge && u < w->pages / EPT_WSET_UNIT; u++) {
		bool huge = w->opts.unit_is_huge(w->opts.huge_arg, u * EPT_WSET_UNIT);
		uint64_t bit = 1ULL << (u % 64);

		w->huge[u / 64] = (w->huge[u / 64] & ~bit) | (huge ? bit : 0);
		n += huge;
	}
	return n;
}

void ept_wset_draw_begin(struct ept_wset *w)
{
	uint64_t units = learn_units(w), of_4k = w->pages - units * EPT_WSET_UNIT;
	uint64_t shared = OB_MIN(w->ops->shared(w->arg), of_4k);
	unsigned int n = w->opts.samples, part;

	w->now = (struct ept_wset_period){
		.number = w->last.number + 1,
		.part[EPT_WSET_OWN].of = of_4k - shared,
		.part[EPT_WSET_SHARED].of = shared,
		.part[EPT_WSET_HUGE].of = units,
	};
	w->key = mix(w->key);
	w->next_page = w->next_unit = 0;
	w->kept = w->next = w->drawn = w->counted = w->rounds = w->looks = 0;
	part = (unsigned int)((double)n * (double)(w->pages - of_4k) / (double)w->pages + 0.5);
	/* Neither kind goes without, if there is any of it. */
	if (units)
		part = OB_MAX(part, 1u);
	if (of_4k)
		part = OB_MIN(part, n - 1);
	w->want_2m = (unsigned int)OB_MIN((uint64_t)part, units);
	w->want_4k = (unsigned int)OB_MIN((uint64_t)(n - part), of_4k);
}

static int by_page(const void *a, const void *b)
{
	const struct ept_wset_sample *x = a, *y = b;

	return x->page < y->page ? -1 : x->page > y->page;
}

static void add(struct ept_wset *w, uint64_t page, enum ept_wset_kind kind)
{
	w->sample[w->drawn++] =
		(struct ept_wset_sample){.page = (uint32_t)page, .kind = (uint8_t)kind};
}

void ept_wset_draw(struct ept_wset *w, unsigned int n4k, unsigned int nunits)
{
	uint64_t units = w->pages / EPT_WSET_UNIT;
	unsigned int first = w->drawn = w->next;

	for (; w->drawn < first + n4k && w->next_page < w->pages; w->next_page++) {
		uint64_t page = ept_wset_permute(w->pages, w->key, w->next_page);

		if (!ept_wset_in_huge(w, page))
			add(w, page, WSET_NEW);
	}
	qsort(w->sample + first, w->drawn - first, sizeof(*w->sample), by_page);
	first = w->drawn;
	for (; w->drawn < first + nunits && w->next_unit < units; w->next_unit++) {
		/* Another key, or units would be drawn in the order of pages. */
		uint64_t unit = ept_wset_permute(units, ~w->key, w->next_unit);

		if (ept_wset_in_huge(w, unit * EPT_WSET_UNIT))
			add(w, unit * EPT_WSET_UNIT, WSET_NEW_UNIT);
	}
	qsort(w->sample + first, w->drawn - first, sizeof(*w->sample), by_page);
}
