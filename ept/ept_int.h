/* SPDX-License-Identifier: Apache-2.0 */
/* ept_int.h: private to ept/: how an entry of the map is put together (see map.c). */
#ifndef OVERBOOK_EPT_EPT_INT_H
#define OVERBOOK_EPT_EPT_INT_H

#include "ept/ept.h"

#define EPT_FRAME_MASK	((1u << 28) - 1)
#define EPT_STATE_SHIFT 28
#define EPT_STATE_MASK	7u
#define EPT_OVER_POOL	(1u << 31) /* the page lies over a mapping of the pool file */

/* How many pages are looked at in one go with the lock held. */
#define EPT_CHUNK 512

static inline uint32_t ept_entry(enum ept_state s, uint32_t frame, uint32_t flags)
{
	return (uint32_t)s << EPT_STATE_SHIFT | frame | flags;
}

static inline enum ept_state ept_entry_state(uint32_t entry)
{
	return (enum ept_state)(entry >> EPT_STATE_SHIFT & EPT_STATE_MASK);
}

static inline uint32_t ept_entry_frame(uint32_t entry)
{
	return entry & EPT_FRAME_MASK;
}

/* With e->lock held. */
void ept_set(struct ept *e, uint64_t page, uint32_t entry);
bool ept_busy(const struct ept *e, uint64_t page);

#endif
