/* SPDX-License-Identifier: Apache-2.0 */
/*
 * area.h: what the pages of the memory workloads (counters, touch, writer, ping) hold, and in which
 * order they are visited. These workloads use nearly all of a guest's memory as one area and keep
 * no table beside it: what a page must hold follows from its number and from how often it was its
 * turn.
 *
 * A page has a counter in its first word, and in its last word a check that follows from the guest,
 * the page and the counter. So a page that is another one, that was cut in the middle or that went
 * back to what it was shows; where the visitor also knows what the counter must be, so does an
 * update that was lost.
 *
 * The order is a permutation: a Feistel network over as many bits as the number of pages has,
 * applied again until the result is a page (Black and Rogaway, "Ciphers with arbitrary finite
 * domains", 2002: cycle walking). It takes no memory, and each key gives another order.
 *
 * Integer arithmetic only, so that the host's tests and benchmarks use the same source.
 */
#ifndef OVERBOOK_WORKLOADS_AREA_H
#define OVERBOOK_WORKLOADS_AREA_H

#include "workloads/gen.h"

#define AREA_COUNTER 0 /* words of a page */
#define AREA_CHECK   (GEN_PAGE_WORDS - 1)

/* The check word of @page when its counter is @counter; @key is the guest's own. */
static inline uint64_t area_check(uint64_t key, uint64_t page, uint64_t counter)
{
	return gen_start(key, page, counter);
}

static inline void area_set(uint64_t *w, uint64_t key, uint64_t page, uint64_t counter)
{
	w[AREA_COUNTER] = counter;
	w[AREA_CHECK] = area_check(key, page, counter);
}

/* An order of [0, n). */
struct area_order {
	uint64_t n, key;
	unsigned int low, high; /* bits of the two halves; either may be none */
};

static inline void area_order_init(struct area_order *o, uint64_t n, uint64_t key)
{
	unsigned int bits = n > 1 ? 64 - (unsigned int)__builtin_clzll(n - 1) : 0;

	o->n = n;
	o->key = key;
	o->low = bits / 2;
	o->high = bits - bits / 2;
}

/* The @i-th of the order, @i below n: each number of [0, n) for exactly one i. */
static inline uint64_t area_order_at(const struct area_order *o, uint64_t i)
{
	uint64_t low_mask = (1ULL << o->low) - 1, high_mask = (1ULL << o->high) - 1;

	/* Fewer than half of all values of so many bits are none of ours: two rounds on average
	 * at most. */
	do {
		uint64_t low = i & low_mask, high = i >> o->low;

		for (unsigned int round = 0; round < 3; round++) {
			low ^= gen_mix(high + o->key + round * GEN_STEP) & low_mask;
			high ^= gen_mix(low ^ o->key ^ (round * GEN_STEP)) & high_mask;
		}
		i = high << o->low | low;
	} while (i >= o->n);
	return i;
}

/*
 * The workload touch writes each of its pages in every second round and reads it in the others: the
 * even ones in rounds 1, 3, 5, the odd ones in rounds 0, 2, 4. Is @page written in @round, and how
 * often was it in the rounds before?
 */
static inline int area_touch_writes(uint64_t page, uint64_t round)
{
	return (int)((page ^ round) & 1);
}

static inline uint64_t area_touch_written(uint64_t page, uint64_t round)
{
	return (round + (page & 1)) / 2;
}

/*
 * How many of an area of @area pages to touch, so that the guest as a whole touches @percent of its
 * @total pages. @own is what it touches in any case: its code, stack and report.
 */
static inline uint64_t area_hot(uint64_t total, uint64_t own, uint64_t area, uint64_t percent)
{
	uint64_t want = total / 100 * percent + total % 100 * percent / 100;
	uint64_t hot = want > own ? want - own : 0;

	return hot < area ? hot : area;
}

/* Sort @n numbers, the least first (Shell's sort, with the gaps 1023, 511, ..., 3, 1). */
static inline void area_sort(uint64_t *v, uint64_t n)
{
	for (uint64_t gap = 1023; gap; gap /= 2) {
		for (uint64_t i = gap; i < n; i++) {
			uint64_t x = v[i], k = i;

			for (; k >= gap && v[k - gap] > x; k -= gap)
				v[k] = v[k - gap];
			v[k] = x;
		}
	}
}

#endif
