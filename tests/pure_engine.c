/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_engine.c: what all engines stand on: finding them, guests that come and go, the frames that
 * a leaving guest gives back; and the engine `kernel`, which only has to mark memory.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/engine.h"
#include "tests/fake_host.h"

#define GUESTS 20
#define PAGES  64

static void park(void *arg)
{
	(void)arg;
}

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem[GUESTS];
	struct ept ept[GUESTS];
	struct ksm_domain *d, *coord;
	int pool;
	struct ksm *k;
};

static struct fix *fix_new(const struct ksm_engine_ops *ops)
{
	struct fix *x = calloc(1, sizeof(*x));
	struct ept_parker parker = {.park = park, .unpark = park};
	int meta;

	x->h = fake_host_new();
	x->arena = ob_arena_new("test");
	cr_assert_eq(ksm_domain_create(x->h, 100, 1, &x->pool, &meta), 0);
	cr_assert_eq(ksm_domain_open(x->h, x->pool, meta, 0, x->arena, &x->d), 0);
	cr_assert_eq(ksm_domain_open(x->h, x->pool, meta, KSM_NO_CELL, x->arena, &x->coord), 0);
	for (unsigned int i = 0; i < GUESTS; i++) {
		cr_assert_eq(gmem_init(&x->mem[i], x->h, PAGES * OB_PAGE_SIZE, "guest"), 0);
		cr_assert_eq(ept_init(&x->ept[i], x->h, &x->mem[i], parker, x->arena), 0);
	}
	cr_assert_eq(ksm_new(&x->k, ops, x->h, x->d, NULL, x->arena), 0);
	return x;
}

static void add(struct fix *x, unsigned int i)
{
	struct ksm_guest g = {
		.ept = &x->ept[i],
		.vm = 100 + i,
		.page_base = i * PAGES,
	};

	cr_assert_eq(ksm_add_guest(x->k, &g), 0);
	cr_assert_eq(ksm_add_guest(x->k, &g), -EEXIST);
}

static void fix_free(struct fix *x)
{
	ksm_free(x->k);
	for (unsigned int i = 0; i < GUESTS; i++) {
		ept_exit(&x->ept[i]);
		gmem_exit(&x->mem[i]);
	}
	ksm_domain_close(x->coord);
	ksm_domain_close(x->d);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
	free(x);
}

Test(engine, found_by_name)
{
	static const char *const names[] = {"off", "hash", "kernel"};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(names); i++) {
		cr_assert_not_null(ksm_engine_find(names[i]));
		cr_assert_str_eq(ksm_engine_find(names[i])->name, names[i]);
	}
	cr_assert_null(ksm_engine_find(""));
	cr_assert_null(ksm_engine_find("of"));
	cr_assert_null(ksm_engine_find("offf"));
}

Test(engine, off_does_nothing)
{
	struct fix *x = fix_new(ksm_engine_find("off"));
	struct ksm_stats st;
	struct ob_err e;

	add(x, 0);
	cr_assert_eq(ksm_start(x->k, &e), 0);
	cr_assert_not(ksm_engine_steps(x->k));
	cr_assert_gt(ksm_step(x->k, 0, 100), 0, "rest");
	ksm_stop(x->k);
	ksm_read_stats(x->k, &st);
	cr_assert_eq(st.merged_pages + st.hashed_pages + st.cpu_ns, 0);
	for (enum fake_op op = FAKE_MAP_FRAMES; op <= FAKE_PAGES; op++)
		cr_assert_eq(fake_host_calls(x->h, op), 0, "operation %d on the guest", (int)op);
	fix_free(x);
}

Test(engine, a_guest_that_leaves_gives_its_frames_back)
{
	struct fix *x = fix_new(ksm_engine_find("off"));
	unsigned char page[OB_PAGE_SIZE] = "frame";
	uint32_t f;

	add(x, 0);
	add(x, 1);
	cr_assert_eq(ksm_frame_alloc(x->d, 1, &f), 1);
	cr_assert_eq(x->h->ops->file_write(x->h, x->pool, page, OB_PAGE_SIZE, f * OB_PAGE_SIZE), 0);
	ksm_frame_publish(x->d, f);
	for (unsigned int i = 0; i < 4; i++) {
		struct ept *e = &x->ept[i / 3];
		hva_t at = gmem_page_hva(&x->mem[i / 3], i);

		fake_host_write(x->h, at, "frame", 5);
		cr_assert_eq(ept_sync(e, i, 1, NULL), 0);
		if (i)
			cr_assert_eq(ksm_frame_get(x->d, f), 0);
		ept_freeze(e, i, 1);
		cr_assert_geq(ept_share(e, i, 1, x->pool, f), 0);
		ept_thaw(e);
	}
	/* Broken off, and nobody has noticed yet. */
	fake_host_write(x->h, gmem_page_hva(&x->mem[0], 2), "other", 5);
	cr_assert_eq(ksm_frame_count(x->d, f), 4);
	ksm_remove_guest(x->k, 100);
	cr_assert_eq(ksm_frame_count(x->d, f), 1);
	ksm_remove_guest(x->k, 100);
	cr_assert_eq(ksm_domain_reap(x->coord, 100), 0);
	ksm_free(x->k);
	x->k = NULL;
	cr_assert_eq(ksm_frame_count(x->d, f), 0, "the other one's, when all ends");
	cr_assert_eq(ksm_domain_reap(x->coord, 100), 1);
	fix_free(x);
}

static unsigned int removed;

static void count_remove(struct ksm *k, unsigned int slot)
{
	cr_assert(k->slot[slot].used);
	removed++;
}

static int start_fails(struct ksm *k, struct ob_err *e)
{
	(void)k;
	return ob_fail(e, EPERM, "not today");
}

static uint64_t burn(struct ksm *k, uint64_t now_ns, uint64_t budget)
{
	k->st.hashed_pages += budget;
	fake_host_advance_cpu(k->host, 7);
	return now_ns;
}

Test(engine, slots_are_used_again)
{
	const struct ksm_engine_ops ops = {
		.name = "test", .start = ksm_engine_off.start, .remove = count_remove};
	struct fix *x = fix_new(&ops);
	uint64_t s = 3;
	bool in[GUESTS] = {false};

	removed = 0;
	for (unsigned int step = 0; step < 500; step++) {
		unsigned int i, n = 0, used = 0;

		s = s * 6364136223846793005ULL + 1442695040888963407ULL;
		i = (unsigned int)(s >> 33) % GUESTS;
		if (in[i]) {
			unsigned int was = removed;

			ksm_remove_guest(x->k, 100 + i);
			cr_assert_eq(removed, was + 1);
		} else {
			add(x, i);
		}
		in[i] = !in[i];
		for (unsigned int j = 0; j < GUESTS; j++)
			n += in[j];
		for (unsigned int j = 0; j < x->k->nslots; j++) {
			const struct ksm_slot *slot = &x->k->slot[j];

			used += slot->used;
			if (slot->used)
				cr_assert(in[slot->g.vm - 100]);
		}
		cr_assert_eq(used, n);
		cr_assert_leq(x->k->nslots, GUESTS);
	}
	fix_free(x);
}

Test(engine, step_only_between_start_and_stop)
{
	const struct ksm_engine_ops good = {
		.name = "test", .start = ksm_engine_off.start, .step = burn};
	const struct ksm_engine_ops bad = {.name = "test", .start = start_fails, .step = burn};
	struct fix *x = fix_new(&good);
	struct ksm_stats st;
	struct ob_err e;
	struct ksm *k;

	cr_assert(ksm_engine_steps(x->k));
	ksm_step(x->k, 5, 10);
	cr_assert_eq(ksm_start(x->k, &e), 0);
	cr_assert_eq(ksm_step(x->k, 5, 10), 5);
	cr_assert_eq(ksm_step(x->k, 5, 10), 5);
	ksm_stop(x->k);
	ksm_step(x->k, 5, 10);
	ksm_read_stats(x->k, &st);
	cr_assert_eq(st.hashed_pages, 20);
	cr_assert_eq(st.cpu_ns, 14);
	cr_assert_gt(st.meta_bytes, 0);

	cr_assert_eq(ksm_new(&k, &bad, x->h, NULL, NULL, x->arena), 0);
	cr_assert_eq(ksm_start(k, &e), -EPERM);
	cr_assert_str_eq(e.msg, "not today");
	ksm_step(k, 5, 10);
	ksm_read_stats(k, &st);
	cr_assert_eq(st.hashed_pages, 0);
	ksm_free(k);
	fix_free(x);
}

Test(engine, kernel_marks_all_memory)
{
	struct fix *x = fix_new(ksm_engine_find("kernel"));
	struct ob_err e;

	for (unsigned int i = 0; i < 5; i++)
		add(x, i);
	cr_assert_eq(ksm_start(x->k, &e), 0);
	for (unsigned int i = 0; i < GUESTS; i++)
		cr_assert_eq(fake_host_is_mergeable(x->h, gmem_page_hva(&x->mem[i], PAGES - 1)),
			     i < 5);
	ksm_stop(x->k);
	cr_assert(fake_host_is_mergeable(x->h, gmem_page_hva(&x->mem[0], 0)), "it stays");
	fix_free(x);
}

Test(engine, kernel_that_cannot_leaves_nothing_marked)
{
	struct fix *x = fix_new(ksm_engine_find("kernel"));
	struct ob_err e = {""};

	for (unsigned int i = 0; i < 5; i++)
		add(x, i);
	fake_host_fail(x->h, FAKE_MERGEABLE, 4, EINVAL);
	cr_assert_eq(ksm_start(x->k, &e), -EINVAL);
	cr_assert_not_null(strstr(e.msg, "guest 103"), "%s", e.msg);
	for (unsigned int i = 0; i < GUESTS; i++)
		cr_assert_not(fake_host_is_mergeable(x->h, gmem_page_hva(&x->mem[i], 0)));
	fix_free(x);
}
