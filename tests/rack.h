/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rack.h: guest memory on the real host without a VM, for tests whose guests are ordinary threads: a
 * page map, a parker that keeps such threads out, a pool of patterns, and two tiers.
 */
#ifndef OVERBOOK_TESTS_RACK_H
#define OVERBOOK_TESTS_RACK_H

#include <criterion/criterion.h>
#include <pthread.h>

#include "ept/ept.h"

#define RACK_PAGES    1024
#define RACK_PATTERNS 4	 /* 0: zeroes */
#define RACK_FRAMES   32 /* frame f holds pattern f % RACK_PATTERNS */
#define RACK_SLOTS    (2 * RACK_PAGES)

/* A tier that keeps copies. */
struct shelf {
	pthread_mutex_t lock;
	uint8_t *slot[RACK_SLOTS];
	uint32_t next;
};

struct rack {
	struct ob_host host;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept e;
	int pool;
	struct shelf shelf[2]; /* compressed, swapped */
	/* The parker: guests are in, or kept out. */
	pthread_mutex_t lock;
	pthread_cond_t change;
	int in, parked;
	_Atomic uint64_t lost; /* how often ept said that the guest cannot go on */
};

/*
 * Skips the test where there is no userfaultfd that serves. @huge: guest memory and staging may be of
 * transparent huge pages, and are at first, if the host has any.
 */
void rack_make(struct rack *r, bool copy_only, bool huge);
/* Everything comes back, and nothing is left behind. */
void rack_unmake(struct rack *r);
/* The map is the kernel's. */
void rack_verify(struct rack *r);

/* A thread that plays the guest touches memory between these only. */
void rack_enter(struct rack *r);
void rack_leave(struct rack *r);

/* A page full of pattern @k; which pattern a page holds, RACK_PATTERNS: none. */
void rack_pattern(uint8_t *page, uint64_t k);
uint64_t rack_pattern_of(const void *page);

/* Keep a copy; the slot is freed by shelf_drop. */
uint32_t shelf_put(struct shelf *s, const void *page);
void shelf_drop(void *arg, uint32_t slot);

#endif
