/* SPDX-License-Identifier: Apache-2.0 */
/* pure_walk_cost.c: how many memory references a walk is, against published figures and by
 * counting them one by one. */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/walk_mem.h"

#define P4K OB_PAGE_SIZE
#define P2M (2 * OB_MIB)

/* A walk of @mode that ends at a page of level @leaf, through the walker itself. */
static struct ept_walk a_walk(enum ept_walk_mode mode, unsigned int leaf)
{
	struct wt *t = walk_rig(mode, 1);
	struct ept_walk w;

	t->regs.cr4 |= 0x10;
	t->regs.has_1g = true;
	if (mode != EPT_WALK_OFF) {
		wt_begin(t);
		wt_map(t, 0x12345678, leaf, 0);
	}
	cr_assert_eq(walk_rig_walk(t, 0x12345678, &w), 0);
	walk_rig_free(t);
	return w;
}

Test(walk, cost_of_each_mode)
{
	static const struct {
		enum ept_walk_mode mode;
		unsigned int leaf, host_levels;
		uint64_t host_page;
		struct ept_walk_cost want;
	} rows[] = {
		/* Bhargava et al.: 4 natively, 24 nested. */
		{EPT_WALK_4LEVEL, 1, 4, P4K, {4, 24, 4}}, {EPT_WALK_4LEVEL, 1, 4, P2M, {4, 19, 4}},
		{EPT_WALK_4LEVEL, 2, 4, P4K, {3, 19, 4}}, {EPT_WALK_4LEVEL, 2, 4, P2M, {3, 15, 3}},
		{EPT_WALK_4LEVEL, 3, 4, P4K, {2, 14, 4}}, {EPT_WALK_4LEVEL, 3, 4, P2M, {2, 11, 3}},
		{EPT_WALK_4LEVEL, 1, 5, P4K, {4, 29, 4}}, {EPT_WALK_5LEVEL, 1, 5, P4K, {5, 35, 5}},
		{EPT_WALK_5LEVEL, 2, 5, P2M, {4, 24, 4}}, {EPT_WALK_PAE, 1, 4, P4K, {2, 14, 2}},
		{EPT_WALK_PAE, 2, 4, P4K, {1, 9, 2}},	  {EPT_WALK_PAE, 2, 4, P2M, {1, 7, 1}},
		{EPT_WALK_32BIT, 1, 4, P4K, {2, 14, 2}},  {EPT_WALK_32BIT, 2, 4, P2M, {1, 7, 1}},
		{EPT_WALK_OFF, 0, 4, P4K, {0, 4, 2}},	  {EPT_WALK_OFF, 0, 4, P2M, {0, 3, 1}},
		{EPT_WALK_OFF, 0, 5, P4K, {0, 5, 2}},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(rows); i++) {
		struct ept_walk w = a_walk(rows[i].mode, rows[i].leaf);
		struct ept_walk_cost c;

		cr_assert(!ept_walk_cost(&w, rows[i].host_levels, rows[i].host_page, &c));
		cr_assert_eq(c.native, rows[i].want.native, "row %zu: %u", i, c.native);
		cr_assert_eq(c.nested, rows[i].want.nested, "row %zu: %u", i, c.nested);
		cr_assert_eq(c.shadow, rows[i].want.shadow, "row %zu: %u", i, c.shadow);
	}
}

/* Do the two-dimensional walk, one reference after the other. */
static unsigned int count_nested(unsigned int guest_entries, unsigned int levels, uint64_t page)
{
	unsigned int refs = 0;

	for (unsigned int g = 0; g <= guest_entries; g++) {
		uint64_t covers = 0x1000000000000 * (levels == 5 ? 512 : 1);

		while (covers > page) { /* the host's walk, to where the entry (or the page) lies */
			covers /= 512;
			refs++;
		}
		refs += g < guest_entries; /* and the entry */
	}
	return refs;
}

Test(walk, cost_nested_counted_one_by_one)
{
	for (enum ept_walk_mode mode = EPT_WALK_4LEVEL; mode <= EPT_WALK_5LEVEL; mode++)
		for (unsigned int leaf = 1; leaf <= 3; leaf++)
			for (unsigned int i = 0; i < 4; i++) {
				struct ept_walk w = a_walk(mode, leaf);
				uint64_t page = i & 1 ? P2M : P4K;
				struct ept_walk_cost c;

				cr_assert(!ept_walk_cost(&w, 4 + i / 2, page, &c));
				cr_assert_eq(c.nested, count_nested(wt_top(mode) - leaf + 1,
								    4 + i / 2, page));
			}
}

Test(walk, cost_of_what_is_no_walk_is_refused)
{
	struct ept_walk w = a_walk(EPT_WALK_4LEVEL, 1);
	struct ept_walk_cost c;

	cr_assert_eq(ept_walk_cost(&w, 3, P4K, &c), -EINVAL);
	cr_assert_eq(ept_walk_cost(&w, 6, P4K, &c), -EINVAL);
	cr_assert_eq(ept_walk_cost(&w, 4, 0, &c), -EINVAL);
	cr_assert_eq(ept_walk_cost(&w, 4, OB_GIB, &c), -EINVAL);
	w.stop = EPT_WALK_NOT_PRESENT;
	cr_assert_eq(ept_walk_cost(&w, 4, P4K, &c), -EINVAL);
}
