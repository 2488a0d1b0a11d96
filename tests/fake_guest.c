/* SPDX-License-Identifier: Apache-2.0 */
/* fake_guest.c: see fake_guest.h. */
#include "tests/fake_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void park(void *arg)
{
	struct fg *g = arg;

	if (g->on_park)
		g->on_park(g);
	g->parked++;
	g->parks++;
}

static void unpark(void *arg)
{
	((struct fg *)arg)->parked--;
}

static void fail(void *arg, const char *why)
{
	struct fg *g = arg;

	g->lost++;
	snprintf(g->why, sizeof(g->why), "%s", why);
}

static void on_broken(void *arg, uint64_t page, uint32_t frame)
{
	struct fg *g = arg;

	(void)page;
	g->nbroken++;
	cr_assert_lt(frame, FG_FRAMES);
	g->held[frame]--;
}

static void add_region(struct fg *g, uint64_t pages, uint64_t gpa_at)
{
	struct gmem_region *r = &g->mem.region[g->mem.nregions];

	*r = (struct gmem_region){
		.gpa = gpa(gpa_at),
		.size = pages * OB_PAGE_SIZE,
		.first_page = g->mem.pages,
		.page_size = OB_PAGE_SIZE,
	};
	cr_assert(!g->h->ops->ram_map(g->h, r->size, "fake", &r->hva));
	g->mem.nregions++;
	g->mem.pages += pages;
}

static void make(struct fg *g, uint64_t pages0, uint64_t pages1, bool huge)
{
	memset(g, 0, sizeof(*g));
	g->h = fake_host_new();
	g->arena = ob_arena_new("test");
	g->mem = (struct gmem){.host = g->h, .name = "fake"};
	add_region(g, pages0, 0);
	if (pages1)
		add_region(g, pages1, 4 * OB_GIB);
	cr_assert(!huge || !gmem_huge(&g->mem));
	cr_assert(!ept_init(
		&g->e, g->h, &g->mem,
		(struct ept_parker){.park = park, .unpark = unpark, .fail = fail, .arg = g},
		g->arena));
	g->e.no_thread = true;
	ept_on_broken(&g->e, on_broken, g);
	g->pool = g->h->ops->memfd(g->h, "pool", FG_FRAMES * OB_PAGE_SIZE);
	cr_assert(g->pool >= 0);
}

void fg_make(struct fg *g, uint64_t pages0, uint64_t pages1)
{
	make(g, pages0, pages1, false);
}

void fg_make_huge(struct fg *g, uint64_t pages0, uint64_t pages1)
{
	make(g, pages0, pages1, true);
}

void fg_unmake(struct fg *g)
{
	if (!g->lost && !g->e.tampered)
		fg_verify(g);
	cr_assert_eq(g->parked, 0);
	cr_assert_eq(fake_host_waiting(g->h), 0, "somebody still waits");
	ept_exit(&g->e);
	gmem_exit(&g->mem);
	cr_assert_eq(fake_host_mapped_bytes(g->h), 0);
	cr_assert_eq(ob_arena_bytes(g->arena), 0, "metadata left behind");
	ob_arena_free(g->arena);
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		for (unsigned int i = 0; i < FG_SLOTS; i++)
			free(g->tier[s].slot[i]);
	fake_host_free(g->h);
}

hva_t fg_at(struct fg *g, uint64_t page)
{
	return gmem_page_hva(&g->mem, page);
}

unsigned int fg_answer(struct fg *g)
{
	struct ob_fault f[16];
	unsigned int n, sum = 0;

	while ((n = fake_host_faults(g->h, f, OB_ARRAY_SIZE(f)))) {
		ept_fault_answer(&g->e, f, n);
		sum += n;
	}
	return sum;
}

void fg_fill(struct fg *g, uint64_t page, uint64_t n, uint8_t v)
{
	uint8_t buf[OB_PAGE_SIZE];

	memset(buf, v, sizeof(buf));
	for (uint64_t p = page; p < page + n; p++)
		for (int i = 0; !fake_host_try_write(g->h, fg_at(g, p), buf, sizeof(buf)); i++) {
			cr_assert(i < 3, "page %d is not to be had", (int)p);
			fg_answer(g);
		}
}

void fg_expect(struct fg *g, uint64_t page, uint64_t n, uint8_t v)
{
	uint8_t buf[OB_PAGE_SIZE], got[OB_PAGE_SIZE];

	memset(buf, v, sizeof(buf));
	for (uint64_t p = page; p < page + n; p++) {
		for (int i = 0; !fake_host_try_read(g->h, fg_at(g, p), got, sizeof(got)); i++) {
			cr_assert(i < 3, "page %d is not to be had", (int)p);
			fg_answer(g);
		}
		cr_assert(!memcmp(got, buf, sizeof(got)), "page %d holds %d, not %d", (int)p,
			  got[0], v);
	}
}

void fg_verify(struct fg *g)
{
	struct ept_verify v;

	ept_check(&g->e);
	cr_assert(!ept_verify(&g->e, &v));
	cr_assert_eq(v.differences, 0, "page %d (%s): %s", (int)v.first[0].page,
		     ept_state_name(v.first[0].state), v.first[0].why);
}

struct ept_stats fg_stats(struct fg *g)
{
	struct ept_stats st;

	ept_read_stats(&g->e, &st);
	return st;
}

struct ept_faults fg_faults(struct fg *g)
{
	struct ept_faults f;

	ept_read_faults(&g->e, &f);
	return f;
}

int64_t fg_take(struct fg *g, uint64_t page, uint64_t n)
{
	const struct ept_run run = {.page = page, .n = n};

	return ept_take(&g->e, &run, 1, false);
}

int64_t fg_back(struct fg *g, uint64_t page, uint64_t n)
{
	const struct ept_run run = {.page = page, .n = n};

	return ept_put_back(&g->e, &run, 1);
}

void fg_frames(struct fg *g, uint32_t frame, uint32_t n, uint8_t v)
{
	uint8_t buf[OB_PAGE_SIZE];

	memset(buf, v, sizeof(buf));
	for (uint64_t f = frame; f < frame + n; f++)
		cr_assert(
			!g->h->ops->file_write(g->h, g->pool, buf, sizeof(buf), f * OB_PAGE_SIZE));
}

int64_t fg_share(struct fg *g, uint64_t page, uint64_t n, uint32_t frame)
{
	int64_t r;

	cr_assert(!ept_sync(&g->e, page, n, NULL));
	cr_assert(!ept_freeze(&g->e, page, n));
	r = ept_share(&g->e, page, n, g->pool, frame);
	ept_thaw(&g->e);
	for (uint32_t f = frame; r >= 0 && f < frame + n; f++)
		g->held[f]++;
	return r;
}

int64_t fg_drop(struct fg *g, uint64_t page, uint64_t n)
{
	int64_t r;

	cr_assert(!ept_sync(&g->e, page, n, NULL));
	cr_assert(!ept_freeze(&g->e, page, n));
	r = ept_drop_zero(&g->e, page, n);
	ept_thaw(&g->e);
	return r;
}

/* --- tiers ------------------------------------------------------------------------------------ */

static int tier_load(void *arg, uint32_t slot, void *page)
{
	struct fg_tier *t = arg;

	cr_assert(slot < FG_SLOTS && t->slot[slot], "slot %d is empty", (int)slot);
	t->loads++;
	if (t->hook)
		t->hook(t->g, slot);
	cr_assert(t->slot[slot], "slot %d was dropped while it was being loaded", (int)slot);
	if (t->fail)
		return -t->fail;
	memcpy(page, t->slot[slot], OB_PAGE_SIZE);
	return 0;
}

static void tier_drop(void *arg, uint32_t slot)
{
	struct fg_tier *t = arg;

	cr_assert(slot < FG_SLOTS && t->slot[slot], "slot %d is dropped twice", (int)slot);
	free(t->slot[slot]);
	t->slot[slot] = NULL;
	t->used--;
	t->drops++;
}

void fg_slot_fill(struct fg_tier *t, uint32_t slot, const void *page)
{
	cr_assert(!t->slot[slot]);
	t->slot[slot] = malloc(OB_PAGE_SIZE);
	memcpy(t->slot[slot], page, OB_PAGE_SIZE);
	t->used++;
}

void fg_set_tier(struct fg *g, enum ept_state s, unsigned int around)
{
	struct fg_tier *t = &g->tier[s];

	t->g = g;
	t->ops = (struct ept_tier_ops){
		.name = ept_state_name(s), .around = around, .load = tier_load, .drop = tier_drop};
	cr_assert(!ept_set_tier(&g->e, s, &t->ops, t));
}

int64_t fg_to_tier(struct fg *g, enum ept_state s, uint64_t page, uint64_t n)
{
	struct ept_tiered list[FG_SLOTS];
	uint8_t buf[OB_PAGE_SIZE];
	int64_t r;

	cr_assert(n <= FG_SLOTS);
	cr_assert_eq(fg_take(g, page, n), (int64_t)n);
	for (uint64_t i = 0; i < n; i++) {
		list[i] = (struct ept_tiered){.page = page + i, .slot = (uint32_t)(page + i)};
		cr_assert(!ept_stage_read(&g->e, page + i, buf, &list[i].ticket));
		fg_slot_fill(&g->tier[s], list[i].slot, buf);
	}
	r = ept_to_tier(&g->e, s, list, (unsigned int)n);
	for (uint64_t i = 0; i < n; i++)
		if (!list[i].done)
			tier_drop(&g->tier[s], list[i].slot);
	return r;
}
