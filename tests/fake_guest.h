/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_guest.h: a guest on the fake host, of two regions, with a page map and a pool: for tests of
 * ept. Its faults are answered when a test says so, and by the accesses below.
 */
#ifndef OVERBOOK_TESTS_FAKE_GUEST_H
#define OVERBOOK_TESTS_FAKE_GUEST_H

#include <criterion/criterion.h>

#include "ept/ept_int.h"
#include "tests/fake_host.h"

#define FG_FRAMES 64
#define FG_SLOTS  4096

/* A tier that keeps copies. */
struct fg_tier {
	struct fg *g;
	struct ept_tier_ops ops;
	uint8_t *slot[FG_SLOTS];
	unsigned int used, loads, drops;
	int fail; /* errno of each load */
	/* Called in the middle of each load, when the map is not locked. May be NULL. */
	void (*hook)(struct fg *g, uint32_t slot);
};

struct fg {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept e;
	int pool;
	int parked;
	unsigned int parks;
	unsigned int lost; /* how often ept said that the guest cannot go on */
	char why[120];
	unsigned int nbroken;
	int held[FG_FRAMES]; /* pages that hold each frame, shared less broken */
	struct fg_tier tier[EPT_NSTATES];
	/* Called when the guest is about to be parked, with nothing locked. May be NULL. */
	void (*on_park)(struct fg *g);
	void *arg;
};

/* Two regions of so many pages (the second may be 0). */
void fg_make(struct fg *g, uint64_t pages0, uint64_t pages1);
/* The same of huge pages; all of the first region are whole units. */
void fg_make_huge(struct fg *g, uint64_t pages0, uint64_t pages1);
/* The map agrees with the kernel's, nobody waits, and nothing is left behind. */
void fg_unmake(struct fg *g);

hva_t fg_at(struct fg *g, uint64_t page);
/* Answer what faults there are. Returns how many. */
unsigned int fg_answer(struct fg *g);
/* The guest fills the page with @v, or expects to find that; its faults are answered. */
void fg_fill(struct fg *g, uint64_t page, uint64_t n, uint8_t v);
void fg_expect(struct fg *g, uint64_t page, uint64_t n, uint8_t v);
/* Sync, and expect that there are no differences. */
void fg_verify(struct fg *g);
struct ept_stats fg_stats(struct fg *g);
struct ept_faults fg_faults(struct fg *g);
/* Take or put back one run. */
int64_t fg_take(struct fg *g, uint64_t page, uint64_t n);
int64_t fg_back(struct fg *g, uint64_t page, uint64_t n);
/* Make frames [frame, frame + n) of the pool full of @v. */
void fg_frames(struct fg *g, uint32_t frame, uint32_t n, uint8_t v);
/* Share pages with frames, or drop them, synced and frozen. Keeps count in held. */
int64_t fg_share(struct fg *g, uint64_t page, uint64_t n, uint32_t frame);
int64_t fg_drop(struct fg *g, uint64_t page, uint64_t n);
/* A tier for @s, and pages that are taken, read and handed to it; slot = page. */
void fg_set_tier(struct fg *g, enum ept_state s, unsigned int around);
int64_t fg_to_tier(struct fg *g, enum ept_state s, uint64_t page, uint64_t n);
/* Put a copy of @page into a slot. */
void fg_slot_fill(struct fg_tier *t, uint32_t slot, const void *page);

#endif
