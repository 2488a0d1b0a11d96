/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk_tables.h: random guest page tables for the tests of the page walk, and what they translate
 * to, answered from the list of what was put into them and never from the tables.
 *
 * The list holds claims: this range of addresses is, at this level, a table, a page, an absent
 * entry, one with a reserved bit, or a table that is not in RAM. Each claim is written into the
 * tables once. A translation is the chain of claims over an address, from the widest to the
 * narrowest; where the chain breaks off, the entry is empty. The formats of entries are strings,
 * one letter a bit, as the figures of the manual (SDM 3A, 4-4, 4-7 and 4-11) show them.
 */
#ifndef OVERBOOK_TESTS_WALK_TABLES_H
#define OVERBOOK_TESTS_WALK_TABLES_H

#include "ept/walk.h"

/* Where the tables go: chosen by the test. */
struct wt_ram {
	/* A zeroed page of RAM below @limit, not yet in use; a page that is not RAM. */
	uint64_t (*page)(void *arg, uint64_t limit);
	uint64_t (*hole)(void *arg, uint64_t limit);
	void (*put)(void *arg, uint64_t at, unsigned int bytes, uint64_t value);
	void *arg;
};

enum wt_kind {
	WT_TABLE,
	WT_PAGE,
	WT_ABSENT,
	WT_BROKEN, /* a reserved bit is set */
	WT_LOST,   /* a table that is not in RAM */
};

struct wt_claim {
	unsigned int level;
	uint64_t base, span; /* the addresses that the entry is about */
	enum wt_kind kind;
	uint64_t target; /* of the table, or of the page */
	bool w, u, nx, a, d, g;
	uint64_t at, value; /* of the entry */
};

#define WT_MAX_CLAIMS 4096

struct wt {
	enum ept_walk_mode mode;
	struct vcpu_paging regs; /* all but cr3 are the caller's; so is pdpte */
	struct wt_ram ram;
	/* Leave out what KVM's own walk sees otherwise than the manual: bit 8 of entries for tables
	 * (reserved on AMD), 4 MB pages above 36 bits, PDPTEs that loading CR3 refuses. */
	bool as_kvm;
	uint64_t seed, rng; /* the seed, for messages; the state */
	struct wt_claim claim[WT_MAX_CLAIMS];
	unsigned int n;
};

/* What a walk should find. */
struct wt_answer {
	enum ept_walk_stop stop;
	unsigned int level;
	uint64_t stop_at;
	uint64_t gpa, page_size;
	bool w, u, nx, a, d, g;
	unsigned int n; /* entries read, and for each: */
	struct wt_step {
		unsigned int level;
		uint64_t at, value;
		bool w, u, nx;
	} step[EPT_WALK_LEVELS];
};

uint64_t wt_rand(struct wt *t);
uint64_t wt_below(struct wt *t, uint64_t n);
/* Registers as a CPU in @mode may have them, at random. */
void wt_random_regs(struct wt *t, enum ept_walk_mode mode);

/*
 * The format of an entry: a letter for bit @bit (0 for bits that the entry has not). P W U T C A D
 * G: the flags; K: PAT; X: execute-disable; S: PS, and set; s: PS, and clear; @: address; h: bits
 * 39:32 of the address of a 4 MB page; i: ignored; j: ignored but by AMD; r: must be zero.
 */
char wt_bit(const struct wt *t, unsigned int level, bool page, unsigned int bit);

/* Levels of @mode's tables, and the size of what an entry of @level covers, in bytes. */
unsigned int wt_top(enum ept_walk_mode mode);
uint64_t wt_span(enum ept_walk_mode mode, unsigned int level);
unsigned int wt_entry_bytes(enum ept_walk_mode mode);
bool wt_canonical(enum ept_walk_mode mode, uint64_t va);

/* Make an empty root table and load CR3 with it. regs, ram, mode and rng are set. */
void wt_begin(struct wt *t);
/* Map an address by a page of @leaf's level, as far as what is there already lets it. The entries
 * made for it are good ones, but for one in @bad (0: none). */
void wt_map(struct wt *t, uint64_t va, unsigned int leaf, unsigned int bad);
/* @n mappings, many of them close to one another. */
void wt_fill(struct wt *t, unsigned int n, unsigned int bad);
/* May a page lie at this level? */
bool wt_may_map(const struct wt *t, unsigned int level);

/* An address to ask for: mostly in or at the edge of something; now and then not canonical. */
uint64_t wt_some_gva(struct wt *t);
void wt_expect(const struct wt *t, uint64_t va, struct wt_answer *out);

#endif
