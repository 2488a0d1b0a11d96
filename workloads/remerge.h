/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remerge.h: what the pages of the workload remerge hold: few contents, so that whatever is written
 * soon equals what another page has, is merged, is written again, and so on.
 *
 * Pages are of REMERGE_CLASSES classes, the same in all guests of a fleet, and all pages of a class
 * are alike but for one word, the *stamp*. It says how often the page has been written: exactly, in
 * one of 64 pages (a counter, incremented in place), and else by one of REMERGE_VALUES values, the
 * same for the pages of a stretch, so that there are runs to be merged. In some stretches all else
 * is zero, and one of the values, too: zero pages that come and go.
 *
 * What a page must hold follows from guest, page and the number of its writes; so a page that is
 * another one, that was cut in the middle, or that lost a write shows when it is verified.
 */
#ifndef OVERBOOK_WORKLOADS_REMERGE_H
#define OVERBOOK_WORKLOADS_REMERGE_H

#include "workloads/gen.h"

#define REMERGE_CLASSES 1024
#define REMERGE_STRETCH 16 /* pages that are written together */
#define REMERGE_VALUES	4
#define REMERGE_COUNTER 64 /* one page of so many is a counter */

struct remerge {
	uint64_t common; /* key of the contents, one for the fleet */
	uint64_t own;	 /* key of the choices, the guest's */
};

static inline struct remerge remerge_of(uint64_t common, uint64_t seed)
{
	return (struct remerge){.common = gen_key(common, 19), .own = gen_key(seed, 20)};
}

static inline int remerge_counts(uint64_t page)
{
	return page % REMERGE_COUNTER == REMERGE_COUNTER - 1;
}

/* Is all of the page zero but for its stamp? */
static inline int remerge_hollow(uint64_t page)
{
	return page / REMERGE_STRETCH % 8 == 5;
}

/* Which word of the page is the stamp. */
static inline unsigned int remerge_stamp_at(const struct remerge *m, uint64_t page)
{
	return (unsigned int)(gen_mix(m->common + page % REMERGE_CLASSES) % GEN_PAGE_WORDS);
}

/* The stamp of a @hollow or other page of this class for each of the values. */
static inline uint64_t remerge_value(const struct remerge *m, uint64_t page, uint64_t value)
{
	if (remerge_hollow(page) && !value)
		return 0;
	return gen_mix(m->common ^ (page % REMERGE_CLASSES * REMERGE_VALUES + value + 1));
}

/* The stamp after @writes. */
static inline uint64_t remerge_stamp(const struct remerge *m, uint64_t page, uint64_t writes)
{
	uint64_t draw = gen_mix(m->own ^ gen_mix(page / REMERGE_STRETCH * GEN_STEP + writes));

	return remerge_counts(page) ? writes : remerge_value(m, page, draw % REMERGE_VALUES);
}

static inline uint64_t remerge_word(const struct remerge *m, uint64_t page, unsigned int i)
{
	if (remerge_hollow(page))
		return 0;
	return gen_word(gen_start(m->common, page % REMERGE_CLASSES, 0), i);
}

/* All of the page, with this stamp. */
static inline void remerge_fill(const struct remerge *m, uint64_t *w, uint64_t page, uint64_t stamp)
{
	unsigned int at = remerge_stamp_at(m, page);

	for (unsigned int i = 0; i < GEN_PAGE_WORDS; i++)
		w[i] = i == at ? stamp : remerge_word(m, page, i);
}

/* The first word that is not what remerge_fill would write, what it is in @got and what it should be
 * in @want; or GEN_PAGE_WORDS. */
static inline unsigned int remerge_check(const struct remerge *m, const uint64_t *w, uint64_t page,
					 uint64_t stamp, uint64_t *got, uint64_t *want)
{
	unsigned int at = remerge_stamp_at(m, page);

	for (unsigned int i = 0; i < GEN_PAGE_WORDS; i++) {
		*got = w[i];
		*want = i == at ? stamp : remerge_word(m, page, i);
		if (*got != *want)
			return i;
	}
	return GEN_PAGE_WORDS;
}

#endif
