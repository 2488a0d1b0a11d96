/* SPDX-License-Identifier: Apache-2.0 */
/* huge_int.h: private to ept/: the units of a guest's memory, for huge*.c. */
#ifndef OVERBOOK_EPT_HUGE_INT_H
#define OVERBOOK_EPT_HUGE_INT_H

#include "ept/ept_int.h"

/* Under e->lock, but for what never changes: units. */
struct ept_huge {
	struct ept_huge_rule rule;
	struct ept_huge_stats st; /* units, refused and what has been ever */
	uint64_t units;		  /* with those that are not whole */
	struct ept_unit *unit;
};

static inline uint64_t ept_unit_of(uint64_t page)
{
	return page / EPT_UNIT_PAGES;
}

/* Is there such a unit, and all of it in one region? */
bool ept_unit_whole(const struct ept *e, uint64_t unit);
/* It has been broken (or built): counts, and begins its rest. */
void ept_unit_set_broken(struct ept *e, uint64_t unit, bool broken);

/* For the policy; these take the lock. */
/* A unit as it is, and how long it is to rest. False: no whole one. */
bool ept_unit_read(struct ept *e, uint64_t unit, struct ept_unit *out, uint64_t *rest_ns);
/* Is all of it private and in place, but for at most @slack pages that are zero? Syncs. */
bool ept_unit_private(struct ept *e, uint64_t unit, unsigned int slack);
void ept_huge_count_probe(struct ept *e, bool hot);

#endif
