/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk_mem.h: a rig for tests of the page walk without a guest: RAM that may lie anywhere in 52
 * bits of address, page by page, and that watches how the walk reads it.
 */
#ifndef OVERBOOK_TESTS_WALK_MEM_H
#define OVERBOOK_TESTS_WALK_MEM_H

#include "tests/walk_tables.h"

#define WALK_MEM_PAGES 4096

struct walk_mem {
	struct wt *t;
	struct {
		uint64_t at;
		uint8_t *data;
	} page[WALK_MEM_PAGES];
	unsigned int n;
	unsigned int reads; /* of the last walk */
	int fail;	    /* what reads answer from now on, when not 0 */
};

/* Tables in such memory, with random registers for @mode; CR3 is not loaded yet (wt_begin). */
struct wt *walk_rig(enum ept_walk_mode mode, uint64_t seed);
void walk_rig_free(struct wt *t);
struct walk_mem *walk_rig_mem(struct wt *t);

/* Make @at (of a page) RAM, all zero. */
void walk_mem_add(struct wt *t, uint64_t at);
/* A page that is not RAM. */
uint64_t walk_mem_hole(struct wt *t);
/* Write an entry, of the size that the mode has. */
void walk_mem_put(struct wt *t, uint64_t at, uint64_t value);
/* ept_walk through a reader that fails the test when it is asked for anything but an aligned entry
 * below the end of physical memory. */
int walk_rig_walk(struct wt *t, uint64_t va, struct ept_walk *w);

#endif
