/* SPDX-License-Identifier: Apache-2.0 */
/* walk_mem.c: see walk_mem.h. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/walk_mem.h"

static uint8_t *find(struct walk_mem *m, uint64_t at)
{
	for (unsigned int i = 0; i < m->n; i++)
		if (m->page[i].at == (at & ~OB_PAGE_MASK))
			return m->page[i].data + (at & OB_PAGE_MASK);
	return NULL;
}

static uint64_t hole(void *arg, uint64_t limit)
{
	struct walk_mem *m = arg;
	uint64_t at;

	do
		at = wt_below(m->t, limit >> OB_PAGE_SHIFT) << OB_PAGE_SHIFT;
	while (find(m, at));
	return at;
}

static void add(struct walk_mem *m, uint64_t at)
{
	cr_assert(m->n < WALK_MEM_PAGES && !find(m, at));
	m->page[m->n].at = at;
	m->page[m->n].data = calloc(1, OB_PAGE_SIZE);
	m->n++;
}

static uint64_t page(void *arg, uint64_t limit)
{
	uint64_t at = hole(arg, limit);

	add(arg, at);
	return at;
}

static void put(void *arg, uint64_t at, unsigned int bytes, uint64_t value)
{
	memcpy(find(arg, at), &value, bytes);
}

struct walk_mem *walk_rig_mem(struct wt *t)
{
	return t->ram.arg;
}

struct wt *walk_rig(enum ept_walk_mode mode, uint64_t seed)
{
	struct wt *t = calloc(1, sizeof(*t));
	struct walk_mem *m = calloc(1, sizeof(*m));

	cr_assert(t && m);
	t->seed = t->rng = seed;
	m->t = t;
	t->ram = (struct wt_ram){.page = page, .hole = hole, .put = put, .arg = m};
	wt_random_regs(t, mode);
	return t;
}

void walk_rig_free(struct wt *t)
{
	struct walk_mem *m = walk_rig_mem(t);

	for (unsigned int i = 0; i < m->n; i++)
		free(m->page[i].data);
	free(m);
	free(t);
}

void walk_mem_add(struct wt *t, uint64_t at)
{
	add(walk_rig_mem(t), at);
}

uint64_t walk_mem_hole(struct wt *t)
{
	return hole(walk_rig_mem(t), 1ULL << 32);
}

void walk_mem_put(struct wt *t, uint64_t at, uint64_t value)
{
	put(walk_rig_mem(t), at, wt_entry_bytes(t->mode), value);
}

static int read_entry(void *arg, gpa_t at, unsigned int bytes, uint64_t *value)
{
	struct walk_mem *m = arg;
	const uint8_t *p = find(m, at.v);

	m->reads++;
	cr_assert_eq(bytes, wt_entry_bytes(m->t->mode));
	cr_assert_eq(at.v % bytes, 0, "an entry at 0x%lx", at.v);
	cr_assert_eq(at.v >> m->t->regs.maxphyaddr, 0, "no physical address: 0x%lx", at.v);
	if (m->fail)
		return m->fail;
	if (!p)
		return -EFAULT;
	*value = 0xa5a5a5a5a5a5a5a5; /* what a careless reader leaves above 4 bytes */
	memcpy(value, p, bytes);
	return 0;
}

int walk_rig_walk(struct wt *t, uint64_t va, struct ept_walk *w)
{
	const struct ept_walk_mem reader = {.read = read_entry, .arg = walk_rig_mem(t)};

	walk_rig_mem(t)->reads = 0;
	return ept_walk(&t->regs, &reader, (gva_t){va}, w);
}
