/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_walk.c: the guest page walk: random tables of every mode against the list that they were
 * made from, each bit of each entry, and the end of a walk at each level.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/walk_mem.h"

#define SAME(got, want, what)                                                           \
	cr_assert_eq(got, want, "seed %lu, %s, 0x%lx: %s is 0x%lx, not 0x%lx", t->seed, \
		     ept_walk_mode_name(t->mode), va, what, (uint64_t)(got), (uint64_t)(want))

/* Walk, and compare all that it says with the list. */
static enum ept_walk_stop check(struct wt *t, uint64_t va)
{
	struct wt_answer a;
	struct ept_walk w;
	int rc = walk_rig_walk(t, va, &w);

	wt_expect(t, va, &a);
	SAME(w.gva.v, va, "gva");
	SAME(w.mode, t->mode, "mode");
	SAME(w.stop, a.stop, "stop");
	SAME(w.level, a.level, "level");
	SAME(rc, a.stop == EPT_WALK_DONE ? 0 : -EFAULT, "the return");
	SAME(w.stop_at.v, a.stop_at, "the entry that stopped it");
	SAME(w.n, a.n, "entries read");
	SAME(walk_rig_mem(t)->reads, a.n + (a.stop == EPT_WALK_OUTSIDE), "reads");
	for (unsigned int i = 0; i < a.n; i++) {
		SAME(w.entry[i].level, a.step[i].level, "an entry's level");
		SAME(w.entry[i].at.v, a.step[i].at, "an entry's address");
		SAME(w.entry[i].value, a.step[i].value, "an entry's value");
		SAME(w.entry[i].writable, a.step[i].w, "writable down to here");
		SAME(w.entry[i].user, a.step[i].u, "user down to here");
		SAME(w.entry[i].nx, a.step[i].nx, "nx down to here");
		SAME(w.entry[i].in_register, t->mode == EPT_WALK_PAE && i == 0, "in a register");
	}
	if (a.stop != EPT_WALK_DONE)
		return a.stop;
	SAME(w.gpa.v, a.gpa, "gpa");
	SAME(w.page_size, a.page_size, "page size");
	SAME(w.writable, a.w, "writable");
	SAME(w.user, a.u, "user");
	SAME(w.nx, a.nx, "nx");
	SAME(w.accessed, a.a, "accessed");
	SAME(w.dirty, a.d, "dirty");
	SAME(w.global, a.g, "global");
	SAME(w.entry[w.n - 1].dirty, a.d, "dirty of the entry");
	SAME(w.entry[w.n - 1].global, a.g, "global of the entry");
	return a.stop;
}

static void random_tables(enum ept_walk_mode mode)
{
	uint64_t stops[EPT_WALK_NSTOPS] = {0};

	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct wt *t = walk_rig(mode, seed);

		wt_begin(t);
		wt_fill(t, 60, 12);
		for (int i = 0; i < 1500; i++)
			stops[check(t, wt_some_gva(t))]++;
		walk_rig_free(t);
	}
	for (unsigned int s = EPT_WALK_DONE; s < EPT_WALK_NSTOPS; s++)
		cr_assert_gt(stops[s], 100, "%s: hardly any walk ended as \"%s\"",
			     ept_walk_mode_name(mode), ept_walk_stop_name(s));
}

Test(walk, random_tables_32bit)
{
	random_tables(EPT_WALK_32BIT);
}

Test(walk, random_tables_pae)
{
	random_tables(EPT_WALK_PAE);
}

Test(walk, random_tables_4level)
{
	random_tables(EPT_WALK_4LEVEL);
}

Test(walk, random_tables_5level)
{
	random_tables(EPT_WALK_5LEVEL);
}

Test(walk, paging_off)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct wt *t = walk_rig(EPT_WALK_OFF, seed);
		struct ept_walk w;

		cr_assert_eq(walk_rig_walk(t, 0xfffff123, &w), 0);
		cr_assert_eq(w.gpa.v, 0xfffff123);
		cr_assert(w.stop == EPT_WALK_DONE && w.level == 0 && w.n == 0 && w.page_size == 0);
		cr_assert(w.writable && w.user && !w.nx);
		cr_assert_eq(walk_rig_walk(t, 1ULL << 32, &w), -EFAULT,
			     "there are no more than 32 bits");
		cr_assert(w.stop == EPT_WALK_NONCANONICAL && w.level == 0);
		walk_rig_free(t);
	}
}

/* The first and the last address of each half, and their neighbours outside. */
Test(walk, addresses_that_are_none_are_refused_before_anything_is_read)
{
	static const struct {
		enum ept_walk_mode mode;
		uint64_t va;
		bool is;
	} rows[] = {
		{EPT_WALK_32BIT, 0xffffffff, true},
		{EPT_WALK_32BIT, 0x100000000, false},
		{EPT_WALK_32BIT, 0xffffffff80000000, false},
		{EPT_WALK_PAE, 0xffffffff, true},
		{EPT_WALK_PAE, 0x100000000, false},
		{EPT_WALK_PAE, 0xffffffffffffffff, false},
		{EPT_WALK_4LEVEL, 0x00007fffffffffff, true},
		{EPT_WALK_4LEVEL, 0x0000800000000000, false},
		{EPT_WALK_4LEVEL, 0xffff7fffffffffff, false},
		{EPT_WALK_4LEVEL, 0xffff800000000000, true},
		{EPT_WALK_4LEVEL, 0xffffffffffffffff, true},
		{EPT_WALK_4LEVEL, 0x8000000000000000, false},
		{EPT_WALK_5LEVEL, 0x00ffffffffffffff, true},
		{EPT_WALK_5LEVEL, 0x0100000000000000, false},
		{EPT_WALK_5LEVEL, 0xfeffffffffffffff, false},
		{EPT_WALK_5LEVEL, 0xff00000000000000, true},
		{EPT_WALK_5LEVEL, 0xffff7fffffffffff, true},
		{EPT_WALK_5LEVEL, 0x7fffffffffffffff, false},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(rows); i++) {
		struct wt *t = walk_rig(rows[i].mode, i);
		struct ept_walk w;

		wt_begin(t);
		cr_assert_eq(walk_rig_walk(t, rows[i].va, &w), -EFAULT);
		cr_assert_eq(w.stop, rows[i].is ? EPT_WALK_NOT_PRESENT : EPT_WALK_NONCANONICAL,
			     "0x%lx in %s: %s", rows[i].va, ept_walk_mode_name(rows[i].mode),
			     ept_walk_stop_name(w.stop));
		cr_assert_eq(w.level, wt_top(rows[i].mode), "it stops at the first level");
		cr_assert_eq(w.n, rows[i].is);
		cr_assert_eq(walk_rig_mem(t)->reads, rows[i].is);
		walk_rig_free(t);
	}
}

/* The entry at @level, where there is one mapping only. */
static struct wt_claim *claim_of(struct wt *t, unsigned int level)
{
	for (unsigned int i = 0; i < t->n; i++)
		if (t->claim[i].level == level)
			return &t->claim[i];
	cr_assert_fail("no entry at level %u", level);
	return NULL;
}

/* One mapping: flip one bit of one of its entries. It is reserved or it is not. */
static void each_bit(struct wt *t, uint64_t va, unsigned int leaf)
{
	struct ept_walk w;

	for (unsigned int level = wt_top(t->mode); level >= leaf; level--) {
		struct wt_claim *c = claim_of(t, level);

		for (unsigned int b = 0; b < wt_entry_bytes(t->mode) * 8; b++) {
			char kind = wt_bit(t, level, level == leaf, b);
			int rc;

			walk_mem_put(t, c->at, c->value ^ 1ULL << b);
			rc = walk_rig_walk(t, va, &w);
			walk_mem_put(t, c->at, c->value);
			if (kind == 'P') {
				SAME(w.stop, EPT_WALK_NOT_PRESENT, "stop");
				SAME(w.level, level, "level");
			} else if (kind == 'r') {
				SAME(w.stop, EPT_WALK_RESERVED, "stop");
				SAME(w.level, level, "level");
			} else if (kind == '@' || kind == 'h') {
				/* It leads elsewhere: to another page, or out of RAM. */
				SAME(w.stop, level == leaf ? EPT_WALK_DONE : EPT_WALK_OUTSIDE,
				     "stop");
			} else if (kind != 's' && kind != 'S') {
				SAME(rc, 0, "the return");
			}
		}
	}
	SAME(walk_rig_walk(t, va, &w), 0, "the return with all as it was");
}

Test(walk, each_bit_of_each_entry_is_reserved_or_is_not)
{
	for (enum ept_walk_mode mode = EPT_WALK_32BIT; mode < EPT_WALK_NMODES; mode++)
		for (uint64_t seed = 1; seed <= 120; seed++) {
			struct wt *t = walk_rig(mode, seed);
			unsigned int leaf = 1 + (unsigned int)(seed % 3);
			uint64_t va = wt_below(t, 1ULL << 31);

			if (wt_may_map(t, leaf)) {
				wt_begin(t);
				wt_map(t, va, leaf, 0);
				each_bit(t, va, leaf);
			}
			walk_rig_free(t);
		}
}

/* At each level: an absent entry, a reserved bit, a table outside RAM; and what was read so far. */
static void stops_at(enum ept_walk_mode mode, unsigned int level)
{
	struct wt *t = walk_rig(mode, level);
	const uint64_t va = 0x12345678;
	unsigned int read = wt_top(mode) - level + 1;
	struct wt_claim *c;
	struct ept_walk w;

	t->regs.cr4 |= 0x10; /* PSE: a directory's entry of 32-bit paging then has a reserved bit */
	t->regs.maxphyaddr = 36;
	wt_begin(t);
	wt_map(t, va, 1, 0);
	SAME(walk_rig_walk(t, va, &w), 0, "the return");
	c = claim_of(t, level);

	walk_mem_put(t, c->at, c->value & ~1ULL);
	SAME(walk_rig_walk(t, va, &w), -EFAULT, "the return");
	SAME(w.stop, EPT_WALK_NOT_PRESENT, "stop");
	SAME(w.level, level, "level");
	SAME(w.n, read, "entries read");
	SAME(w.stop_at.v, c->at, "the entry");

	if (mode != EPT_WALK_32BIT || level == 2) { /* the other of 32-bit paging has none */
		walk_mem_put(t, c->at, c->value | (mode == EPT_WALK_32BIT ? 0x200080 : 1ULL << 40));
		SAME(walk_rig_walk(t, va, &w), -EFAULT, "the return");
		SAME(w.stop, EPT_WALK_RESERVED, "stop");
		SAME(w.level, level, "level");
		SAME(w.n, read, "entries read");
		SAME(w.stop_at.v, c->at, "the entry");
	}
	if (level > 1) {
		uint64_t hole = walk_mem_hole(t);

		walk_mem_put(t, c->at, (c->value & OB_PAGE_MASK) | hole);
		SAME(walk_rig_walk(t, va, &w), -EFAULT, "the return");
		SAME(w.stop, EPT_WALK_OUTSIDE, "stop");
		SAME(w.level, level - 1, "level");
		SAME(w.n, read, "entries read");
		SAME(w.stop_at.v & ~OB_PAGE_MASK, hole, "the table");
	}
	walk_rig_free(t);
}

Test(walk, stops_at_each_level_with_its_reason)
{
	for (enum ept_walk_mode mode = EPT_WALK_32BIT; mode < EPT_WALK_NMODES; mode++)
		for (unsigned int level = wt_top(mode); level; level--)
			stops_at(mode, level);
}

Test(walk, a_first_table_outside_ram)
{
	for (enum ept_walk_mode mode = EPT_WALK_32BIT; mode < EPT_WALK_NMODES; mode++) {
		struct wt *t = walk_rig(mode, 5);
		const uint64_t va = 0x12345678;
		struct ept_walk w;

		t->regs.cr3 = walk_mem_hole(t);
		SAME(walk_rig_walk(t, va, &w), -EFAULT, "the return");
		SAME(w.stop, EPT_WALK_OUTSIDE, "stop");
		SAME(w.level, wt_top(mode), "level");
		SAME(w.n, 0, "entries read");
		walk_rig_free(t);
	}
}
