/* SPDX-License-Identifier: Apache-2.0 */
/* meter.h: private to the meter (meter*.c): its words, and its table of the frames that back guests. */
#ifndef OVERBOOK_KSM_METER_H
#define OVERBOOK_KSM_METER_H

#include <errno.h>
#include <stdlib.h>

#include "ksm/ksm.h"

#define METER_UNITS (1ULL << 32) /* of a frame, to be charged to its pages */

static inline bool meter_word_valid(uint64_t w)
{
	return w <= KSM_METER_ZERO || (KSM_METER_KIND(w) >= KSM_METER_KIND(KSM_METER_PFN) &&
				       KSM_METER_KIND(w) <= KSM_METER_KIND(KSM_METER_OWN));
}

/* One frame that backs guest pages. key 0: not used (the word UNTOUCHED names no frame). */
struct meter_seen {
	uint64_t key;
	uint32_t last_vm; /* counts from 1; 0: no page of it was met yet */
	uint32_t pages;
};

struct meter_table {
	struct meter_seen *at;
	uint64_t slots;
};

static inline int meter_table_init(struct meter_table *t, uint64_t keys)
{
	t->slots = keys + keys / 2 + 1;
	t->at = calloc(t->slots, sizeof(*t->at));
	return t->at ? 0 : -ENOMEM;
}

/* The entry of @key, made when there is none. The table is larger than the number of keys. */
static inline struct meter_seen *meter_table_get(struct meter_table *t, uint64_t key)
{
	uint64_t hash = key * 0x9e3779b97f4a7c15ULL;
	uint64_t at = (uint64_t)((unsigned __int128)hash * t->slots >> 64);

	while (t->at[at].key && t->at[at].key != key)
		at = at + 1 < t->slots ? at + 1 : 0;
	t->at[at].key = key;
	return &t->at[at];
}

#endif
