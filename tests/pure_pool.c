/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_pool.c: frames and their holders against a naive model, with several cells on one domain
 * that hold, let go, die and come back; the shape of allocations; and the refusal of files that are
 * no domain. Processes that really die are in host_pool.c.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/domain.h"
#include "tests/fake_host.h"
#include "tests/rnd.h"

#define VIEWS 3

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	int pool, meta;
	struct ksm_domain *coord, *cell[VIEWS];
	unsigned int number[VIEWS]; /* of each cell */
};

static struct ksm_domain *view(struct fix *x, unsigned int cell)
{
	struct ksm_domain *d = NULL;

	cr_assert_eq(ksm_domain_open(x->h, x->pool, x->meta, cell, x->arena, &d), 0);
	return d;
}

static struct fix fix_new(uint64_t frames, unsigned int cells)
{
	struct fix x = {.h = fake_host_new(), .arena = ob_arena_new("test")};

	cr_assert_eq(ksm_domain_create(x.h, frames, cells, &x.pool, &x.meta), 0);
	x.coord = view(&x, KSM_NO_CELL);
	for (unsigned int v = 0; v < VIEWS; v++) {
		x.number[v] = v * (cells - 1) / (VIEWS - 1);
		x.cell[v] = view(&x, x.number[v]);
	}
	return x;
}

static void fix_free(struct fix *x)
{
	for (unsigned int v = 0; v < VIEWS; v++)
		ksm_domain_close(x->cell[v]);
	ksm_domain_close(x->coord);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
}

static struct ksm_domain_stats stats(struct fix *x)
{
	struct ksm_domain_stats s;

	cr_assert_eq(ksm_domain_stats(x->coord, &s), 0);
	return s;
}

/* Give @frame content of its own, as an engine would. */
static uint64_t fill(struct fix *x, struct ksm_domain *d, uint32_t frame, uint64_t content)
{
	uint64_t page[OB_PAGE_SIZE / 8];

	for (unsigned int i = 0; i < OB_PAGE_SIZE / 8; i++)
		page[i] = content * 0x9e3779b97f4a7c15ULL + i;
	cr_assert_eq(x->h->ops->file_write(x->h, x->pool, page, OB_PAGE_SIZE, frame * OB_PAGE_SIZE),
		     0);
	return ksm_hash(d, page);
}

/* --- opening ------------------------------------------------------------------------------- */

Test(pool, sizes_that_make_no_sense)
{
	struct ob_host *h = fake_host_new();
	int pool, meta;

	cr_assert_eq(ksm_domain_create(h, 0, 1, &pool, &meta), -EINVAL);
	cr_assert_eq(ksm_domain_create(h, 10, 0, &pool, &meta), -EINVAL);
	cr_assert_eq(ksm_domain_create(h, 10, KSM_MAX_CELLS + 1, &pool, &meta), -EINVAL);
	cr_assert_eq(ksm_domain_create(h, 1ULL << 28, 1, &pool, &meta), -EINVAL);
	cr_assert_eq(ksm_domain_create(h, UINT64_MAX, 1, &pool, &meta), -EINVAL);
	fake_host_fail(h, FAKE_MEMFD, 2, EMFILE);
	cr_assert_eq(ksm_domain_create(h, 10, 1, &pool, &meta), -EMFILE);
	fake_host_free(h);
}

Test(pool, refuses_what_is_no_domain)
{
	struct fix x = fix_new(2000, 4);
	unsigned char header[OB_PAGE_SIZE], bad;
	struct ksm_domain *d;
	int tiny = x.h->ops->memfd(x.h, "tiny", OB_PAGE_SIZE);
	int empty = x.h->ops->memfd(x.h, "empty", 64 * OB_PAGE_SIZE);

	cr_assert_eq(ksm_domain_open(x.h, x.pool, x.meta, 4, x.arena, &d), -EINVAL, "no cell 4");
	cr_assert_eq(ksm_domain_open(x.h, x.pool, empty, 0, x.arena, &d), -EINVAL);
	cr_assert_eq(ksm_domain_open(x.h, tiny, x.meta, 0, x.arena, &d), -EINVAL, "short pool");
	cr_assert_eq(x.h->ops->file_read(x.h, x.meta, header, sizeof(header), 0), 0);
	cr_assert_eq(x.h->ops->file_write(x.h, tiny, header, sizeof(header), 0), 0);
	cr_assert_eq(ksm_domain_open(x.h, x.pool, tiny, 0, x.arena, &d), -EINVAL, "short meta");
	/* Every byte of the layout (96 bytes) is one that matters. */
	for (unsigned int at = 0; at < 96; at++) {
		bad = header[at] ^ 0x41;
		cr_assert_eq(x.h->ops->file_write(x.h, x.meta, &bad, 1, at), 0);
		cr_assert_eq(ksm_domain_open(x.h, x.pool, x.meta, 0, x.arena, &d), -EINVAL,
			     "byte %u", at);
		cr_assert_eq(x.h->ops->file_write(x.h, x.meta, &header[at], 1, at), 0);
	}
	fix_free(&x);
}

Test(pool, open_that_fails_leaves_nothing)
{
	struct fix x = fix_new(100, 4);
	uint64_t mapped = fake_host_mapped_bytes(x.h), bytes = ob_arena_bytes(x.arena);
	struct ksm_domain *d;

	fake_host_fail(x.h, FAKE_RAM_MAP, 1, ENOMEM);
	cr_assert_eq(ksm_domain_open(x.h, x.pool, x.meta, 1, x.arena, &d), -ENOMEM);
	fake_host_fail(x.h, FAKE_MAP_SHARED, 1, ENOMEM);
	cr_assert_eq(ksm_domain_open(x.h, x.pool, x.meta, 1, x.arena, &d), -ENOMEM);
	cr_assert_eq(fake_host_mapped_bytes(x.h), mapped);
	cr_assert_eq(ob_arena_bytes(x.arena), bytes);
	fix_free(&x);
}

/* --- allocation ---------------------------------------------------------------------------- */

Test(pool, neighbours_come_together)
{
	struct fix x = fix_new(9000, 3);
	uint32_t a, b, c;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 512, &a), 512);
	cr_assert_eq(ksm_frame_alloc(x.cell[1], 512, &b), 512);
	cr_assert_eq(ksm_frame_alloc(x.cell[0], 100, &c), 100);
	cr_assert_eq(c, a + 512, "goes on where it was, beside another cell");
	cr_assert_eq(b, 3000, "each cell starts at its own share");
	fix_free(&x);
}

Test(pool, prefers_a_whole_run_to_holes)
{
	struct fix x = fix_new(2048, 3);
	uint32_t a, b, c;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 300, &a), 300);
	for (uint32_t i = 0; i < 100; i += 2)
		cr_assert_eq(ksm_frame_abandon(x.cell[0], a + i, 1), 0);
	x.cell[0]->cursor = a;
	cr_assert_eq(ksm_frame_alloc(x.cell[0], 64, &b), 64);
	cr_assert_eq(b, a + 300);
	x.cell[0]->cursor = a;
	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &c), 1);
	cr_assert_eq(c, a, "a hole is good enough for one");
	fix_free(&x);
}

Test(pool, full_and_free_again)
{
	struct fix x = fix_new(100, 3);
	uint32_t first, n, total = 0;

	while ((n = ksm_frame_alloc(x.cell[2], 7, &first)))
		total += n;
	cr_assert_eq(total, 100);
	cr_assert_eq(ksm_frame_alloc(x.cell[1], 1, &first), 0);
	cr_assert_eq(ksm_frame_abandon(x.cell[2], 10, 5), 0);
	cr_assert_eq(ksm_frame_alloc(x.cell[1], 9, &first), 5, "noticed by another cell");
	cr_assert_eq(first, 10);
	cr_assert_eq(ksm_frame_alloc(x.cell[2], 1, &first), 0);
	fix_free(&x);
}

Test(pool, churn_does_not_creep_over_the_file)
{
	struct fix x = fix_new(200000, 3);
	uint32_t first;

	for (unsigned int i = 0; i < 3000; i++) {
		cr_assert_eq(ksm_frame_alloc(x.cell[1], 64, &first), 64);
		cr_assert_eq(ksm_frame_abandon(x.cell[1], first, 64), 0);
		cr_assert_lt(first, 100000 + 8192);
	}
	fix_free(&x);
}

/* --- holding and reaping --------------------------------------------------------------------- */

Test(pool, life_of_a_frame)
{
	struct fix x = fix_new(100, 3);
	struct ksm_domain *a = x.cell[0], *b = x.cell[1];
	struct ksm_ref ref;
	uint64_t hash;
	uint32_t f;

	cr_assert_eq(ksm_frame_alloc(a, 1, &f), 1);
	cr_assert_eq(ksm_frame_get(b, f), -EAGAIN, "being filled");
	hash = fill(&x, a, f, 1);
	ksm_frame_publish(a, f);
	cr_assert_eq(ksm_frame_count(a, f), 1);
	cr_assert_eq(ksm_index_insert_frame(a, hash, f), 0);
	cr_assert_eq(ksm_frame_get(b, f), 0);
	cr_assert_eq(ksm_frame_get(b, f), 0);
	cr_assert(ksm_frame_held_elsewhere(a, f));
	ksm_frame_put(a, f);
	cr_assert_not(ksm_frame_held_elsewhere(b, f));
	cr_assert_eq(ksm_domain_reap(x.coord, 1000), 0, "b holds it");
	ksm_frame_put(b, f);
	cr_assert_eq(ksm_domain_reap(x.coord, 1000), 0, "b holds it once more");
	ksm_frame_put(b, f);
	cr_assert_eq(stats(&x).pool_blocks_bytes, OB_PAGE_SIZE);
	cr_assert_eq(ksm_domain_reap(x.coord, 1000), 1);
	cr_assert_eq(stats(&x).pool_blocks_bytes, 0);
	cr_assert_eq(stats(&x).reaped, 1);
	cr_assert_eq(ksm_index_find(b, hash, &ref), KSM_EMPTY);
	cr_assert_eq(ksm_frame_get(b, f), -EAGAIN);
	cr_assert_eq(ksm_frame_get(b, 100), -EINVAL);
	cr_assert_eq(ksm_frame_get(b, UINT32_MAX), -EINVAL);
	fix_free(&x);
}

struct late {
	struct ksm_domain *d;
	uint32_t frame;
	unsigned int tries, gots;
};

/* While the coordinator is at it: another cell wants the frame. */
static void want_it(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct late *l = arg;

	(void)h;
	if (after || (op != FAKE_FILE_READ && op != FAKE_PUNCH))
		return;
	l->tries++;
	l->gots += ksm_frame_get(l->d, l->frame) == 0;
}

Test(pool, a_dying_frame_cannot_be_got)
{
	struct fix x = fix_new(100, 3);
	struct late l = {.d = x.cell[1]};

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &l.frame), 1);
	fill(&x, x.cell[0], l.frame, 1);
	ksm_frame_publish(x.cell[0], l.frame);
	ksm_frame_put(x.cell[0], l.frame);
	fake_host_hook(x.h, want_it, &l);
	cr_assert_eq(ksm_domain_reap(x.coord, 100), 1);
	fake_host_hook(x.h, NULL, NULL);
	cr_assert_eq(l.tries, 2);
	cr_assert_eq(l.gots, 0);
	cr_assert_not(ksm_frame_held_elsewhere(x.cell[0], l.frame), "it backed out");
	fix_free(&x);
}

Test(pool, reap_that_fails_loses_nothing)
{
	struct fix x = fix_new(100, 3);
	struct ksm_ref ref;
	uint64_t hash;
	uint32_t f;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &f), 1);
	hash = fill(&x, x.cell[0], f, 1);
	ksm_frame_publish(x.cell[0], f);
	cr_assert_eq(ksm_index_insert_frame(x.cell[0], hash, f), 0);
	ksm_frame_put(x.cell[0], f);
	fake_host_fail(x.h, FAKE_FILE_READ, 1, EIO);
	cr_assert_eq(ksm_domain_reap(x.coord, 100), -EIO);
	cr_assert_eq(ksm_index_find(x.cell[1], hash, &ref), KSM_FRAME);
	cr_assert_eq(ksm_frame_get(x.cell[1], f), 0, "still alive");
	ksm_frame_put(x.cell[1], f);
	fake_host_fail(x.h, FAKE_PUNCH, 1, EIO);
	cr_assert_eq(ksm_domain_reap(x.coord, 100), -EIO);
	cr_assert_eq(stats(&x).reaped, 0, "not given back");
	cr_assert_eq(stats(&x).live, 0, "but free to be used");
	fix_free(&x);
}

/* A frame that cannot be read is passed: the others are given back, it is met again later. */
Test(pool, reap_passes_what_it_cannot_read)
{
	struct fix x = fix_new(100, 3);
	uint32_t f;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 5, &f), 5);
	for (uint32_t i = 0; i < 5; i++) {
		fill(&x, x.cell[0], f + i, 1 + i);
		ksm_frame_publish(x.cell[0], f + i);
		ksm_frame_put(x.cell[0], f + i);
	}
	fake_host_fail(x.h, FAKE_FILE_READ, 2, EIO);
	cr_assert_eq(ksm_domain_reap(x.coord, 1000), -EIO);
	cr_assert_eq(stats(&x).live, 1);
	cr_assert(ksm_domain_frame_live(x.coord, f + 1));
	cr_assert_eq(stats(&x).pool_blocks_bytes, OB_PAGE_SIZE);
	/* Few at a time, and it fails again: the cursor is past it each time. */
	fake_host_fail(x.h, FAKE_FILE_READ, FAKE_EVERY, EIO);
	x.coord->reap_cursor = f + 1;
	cr_assert_eq(ksm_domain_reap(x.coord, 1), -EIO);
	cr_assert_eq(x.coord->reap_cursor, f + 2);
	fake_host_fail(x.h, FAKE_FILE_READ, 1, 0);
	x.coord->reap_cursor = 0;
	cr_assert_eq(ksm_domain_reap(x.coord, 1000), 1);
	cr_assert_eq(stats(&x).pool_blocks_bytes, 0);
	fix_free(&x);
}

/* A pool whose last chunk is a short one, and never used: no walk may leave it. */
Test(pool, reap_stays_within_the_pool)
{
	struct fix x = fix_new(1500, 1);
	uint64_t at = 1024;
	uint32_t f;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &f), 1);
	cr_assert_not(ksm_frame_next(x.coord, &at));
	cr_assert_eq(at, 1500);
	/* From the beginning of the last chunk on, once round and to the end again. */
	cr_assert_eq(ksm_domain_reap(x.coord, 1024), 0);
	cr_assert_eq(x.coord->reap_cursor, 1024);
	cr_assert_eq(ksm_domain_reap(x.coord, 5000), 0);
	cr_assert_leq(x.coord->reap_cursor, 1500);
	/* Now the last chunk is used as well; what lies behind its end looks like a frame. */
	x.cell[0]->cursor = 1400;
	cr_assert_eq(ksm_frame_alloc(x.cell[0], 100, &f), 100);
	cr_assert_eq(f, 1400);
	atomic_store(&x.coord->state[1500], KSM_FRAME_LIVE);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(ksm_domain_reap(x.coord, 5000), 0);
		cr_assert_leq(x.coord->reap_cursor, 1500);
	}
	cr_assert_eq(atomic_load(&x.coord->state[1500]), KSM_FRAME_LIVE, "not ours to change");
	fix_free(&x);
}

Test(pool, flipped_frame_leaves_no_entry_behind)
{
	struct fix x = fix_new(100, 3);
	uint32_t f;
	uint64_t hash;

	cr_assert_eq(ksm_domain_flip(x.coord, 77), -ENOENT, "nothing is shared");
	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &f), 1);
	hash = fill(&x, x.cell[0], f, 1);
	ksm_frame_publish(x.cell[0], f);
	cr_assert_eq(ksm_index_insert_frame(x.cell[0], hash, f), 0);
	cr_assert_eq(ksm_domain_flip(x.coord, 0x123456789abcULL), 0);
	ksm_frame_put(x.cell[0], f);
	cr_assert_eq(ksm_domain_flip(x.coord, 77), -ENOENT, "nobody holds it");
	cr_assert_eq(ksm_domain_reap(x.coord, 100), 1);
	cr_assert_eq(stats(&x).entries, 0, "its hash is another now, and yet");
	fix_free(&x);
}

Test(pool, flip_is_one_bit)
{
	struct fix x = fix_new(100, 3);
	unsigned char was[OB_PAGE_SIZE], is[OB_PAGE_SIZE];
	unsigned int bits = 0;
	uint32_t f;

	cr_assert_eq(ksm_frame_alloc(x.cell[0], 1, &f), 1);
	fill(&x, x.cell[0], f, 1);
	ksm_frame_publish(x.cell[0], f);
	x.h->ops->file_read(x.h, x.pool, was, sizeof(was), f * OB_PAGE_SIZE);
	cr_assert_eq(ksm_domain_flip(x.coord, 0xfedcba9876543210ULL), 0);
	x.h->ops->file_read(x.h, x.pool, is, sizeof(is), f * OB_PAGE_SIZE);
	for (unsigned int i = 0; i < sizeof(is); i++)
		bits += (unsigned int)__builtin_popcount(was[i] ^ is[i]);
	cr_assert_eq(bits, 1);
	fix_free(&x);
}

/* --- against a model ------------------------------------------------------------------------- */

struct model_frame {
	enum ksm_frame_state state;
	unsigned int filler; /* view */
	uint32_t count[VIEWS];
	uint64_t content; /* 0: not written */
	bool indexed;
};

struct model {
	struct fix x;
	uint64_t s, frames, next_content;
	struct model_frame *f;
};

/* A frame that fulfils @want, from a random place on. */
static uint32_t pick(struct model *m, bool (*want)(const struct model_frame *, unsigned int),
		     unsigned int v)
{
	uint64_t start = rnd(&m->s) % m->frames;

	for (uint64_t i = 0; i < m->frames; i++) {
		uint64_t f = (start + i) % m->frames;

		if (want(&m->f[f], v))
			return (uint32_t)f;
	}
	return UINT32_MAX;
}

static bool is_filling(const struct model_frame *f, unsigned int v)
{
	return f->state == KSM_FRAME_FILLING && f->filler == v;
}

static bool is_held(const struct model_frame *f, unsigned int v)
{
	return f->count[v] > 0;
}

static bool is_free(const struct model_frame *f, unsigned int v)
{
	(void)v;
	return f->state == KSM_FRAME_FREE;
}

static bool is_idle(const struct model_frame *f)
{
	return f->state == KSM_FRAME_LIVE && !f->count[0] && !f->count[1] && !f->count[2];
}

static void step_alloc(struct model *m, unsigned int v)
{
	uint32_t want = 1 + (uint32_t)(rnd(&m->s) % 9), first, n;

	n = ksm_frame_alloc(m->x.cell[v], want, &first);
	cr_assert_leq(n, want);
	if (!n)
		cr_assert_eq(pick(m, is_free, 0), UINT32_MAX, "there was a free one");
	for (uint32_t i = 0; i < n; i++) {
		cr_assert_eq(m->f[first + i].state, KSM_FRAME_FREE);
		m->f[first + i] =
			(struct model_frame){.state = KSM_FRAME_FILLING, .filler = v, .content = 0};
	}
}

static void step_publish(struct model *m, unsigned int v)
{
	uint32_t f = pick(m, is_filling, v);
	uint64_t hash;

	if (f == UINT32_MAX)
		return;
	m->f[f].content = ++m->next_content;
	hash = fill(&m->x, m->x.cell[v], f, m->f[f].content);
	/* Indexed before it is live, after, or not at all. */
	switch (rnd(&m->s) % 4) {
	case 0:
		cr_assert_eq(ksm_index_insert_frame(m->x.cell[v], hash, f), 0);
		m->f[f].indexed = true;
		ksm_frame_publish(m->x.cell[v], f);
		break;
	case 1:
		ksm_frame_publish(m->x.cell[v], f);
		break;
	default:
		ksm_frame_publish(m->x.cell[v], f);
		cr_assert_eq(ksm_index_insert_frame(m->x.cell[v], hash, f), 0);
		m->f[f].indexed = true;
	}
	m->f[f].state = KSM_FRAME_LIVE;
	m->f[f].count[v] = 1;
}

static void step_reap(struct model *m)
{
	uint64_t budget = rnd(&m->s) % (2 * m->frames), freed = 0;
	int64_t n = ksm_domain_reap(m->x.coord, budget);

	for (uint64_t f = 0; f < m->frames; f++) {
		if (m->f[f].state != KSM_FRAME_LIVE ||
		    ksm_domain_frame_live(m->x.coord, (uint32_t)f))
			continue;
		cr_assert(is_idle(&m->f[f]), "a held frame was reaped");
		m->f[f] = (struct model_frame){.state = KSM_FRAME_FREE};
		freed++;
	}
	cr_assert_eq(n, (int64_t)freed);
}

static void step_die(struct model *m, unsigned int v)
{
	/* As if killed: nothing is put, perhaps an entry was made for what never came to life. */
	uint32_t f = pick(m, is_filling, v);

	if (f != UINT32_MAX)
		cr_assert_eq(ksm_index_insert_frame(m->x.cell[v], rnd(&m->s), f), 0);
	ksm_domain_close(m->x.cell[v]);
	ksm_domain_cell_died(m->x.coord, m->x.number[v]);
	m->x.cell[v] = view(&m->x, m->x.number[v]);
	for (uint64_t i = 0; i < m->frames; i++) {
		m->f[i].count[v] = 0;
		if (is_filling(&m->f[i], v))
			m->f[i] = (struct model_frame){.state = KSM_FRAME_FREE};
	}
}

static void step_get_put(struct model *m, unsigned int v, bool get)
{
	uint32_t f = get ? (uint32_t)(rnd(&m->s) % m->frames) : pick(m, is_held, v);

	if (f == UINT32_MAX)
		return;
	if (!get) {
		ksm_frame_put(m->x.cell[v], f);
		m->f[f].count[v]--;
		return;
	}
	if (m->f[f].state == KSM_FRAME_LIVE) {
		cr_assert_eq(ksm_frame_get(m->x.cell[v], f), 0);
		m->f[f].count[v]++;
	} else {
		cr_assert_eq(ksm_frame_get(m->x.cell[v], f), -EAGAIN);
	}
}

static void check(struct model *m)
{
	struct ksm_domain_stats s = stats(&m->x);
	uint64_t live = 0, filling = 0, indexed = 0, written = 0;

	for (uint64_t f = 0; f < m->frames; f++) {
		uint64_t page[OB_PAGE_SIZE / 8];

		live += m->f[f].state == KSM_FRAME_LIVE;
		filling += m->f[f].state == KSM_FRAME_FILLING;
		indexed += m->f[f].indexed;
		written += m->f[f].content != 0;
		for (unsigned int v = 0; v < VIEWS; v++)
			cr_assert_eq(ksm_frame_count(m->x.cell[v], (uint32_t)f), m->f[f].count[v]);
		if (m->f[f].state != KSM_FRAME_LIVE)
			continue;
		m->x.h->ops->file_read(m->x.h, m->x.pool, page, OB_PAGE_SIZE, f * OB_PAGE_SIZE);
		cr_assert_eq(page[0], m->f[f].content * 0x9e3779b97f4a7c15ULL);
	}
	cr_assert_eq(s.live, live);
	cr_assert_eq(s.filling, filling);
	cr_assert_eq(s.entries, indexed);
	cr_assert_eq(s.pool_blocks_bytes, written * OB_PAGE_SIZE);
}

static void run_random(uint64_t seed, uint64_t frames, unsigned int cells)
{
	struct model m = {.x = fix_new(frames, cells), .s = seed, .frames = frames};

	cr_log_info("seed %llx, %llu frames, %u cells", (unsigned long long)seed,
		    (unsigned long long)frames, cells);
	m.f = calloc(frames, sizeof(*m.f));
	for (unsigned int step = 0; step < 3000; step++) {
		unsigned int v = (unsigned int)(rnd(&m.s) % VIEWS), what = rnd(&m.s) % 32;

		if (what < 6)
			step_alloc(&m, v);
		else if (what < 14)
			step_publish(&m, v);
		else if (what < 20)
			step_get_put(&m, v, true);
		else if (what < 29)
			step_get_put(&m, v, false);
		else if (what < 31)
			step_reap(&m);
		else if (rnd(&m.s) % 4 == 0)
			step_die(&m, v);
		if (step % 50 == 0)
			check(&m);
	}
	/* Everybody leaves: everything comes back. */
	for (unsigned int v = 0; v < VIEWS; v++)
		step_die(&m, v);
	cr_assert_geq(ksm_domain_reap(m.x.coord, 2 * frames), 0);
	cr_assert_geq(ksm_domain_reap(m.x.coord, 2 * frames), 0);
	cr_assert_eq(stats(&m.x).live + stats(&m.x).filling + stats(&m.x).entries, 0);
	cr_assert_eq(stats(&m.x).pool_blocks_bytes, 0);
	free(m.f);
	fix_free(&m.x);
}

Test(pool, random_against_model)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		run_random(seed * 0x9e3779b97f4a7c15ULL, 40, 3);
		run_random(seed * 0xbf58476d1ce4e5b9ULL, 600, 130);
		run_random(seed * 0x94d049bb133111ebULL, 3000, KSM_MAX_CELLS);
	}
}

/* --- content --------------------------------------------------------------------------------- */

Test(pool, hash_is_salted_and_can_be_cut)
{
	struct fix x = fix_new(10, 3), y = fix_new(10, 3);
	_Alignas(8) unsigned char page[OB_PAGE_SIZE + 8] = "content";
	uint64_t seen[4] = {0};
	unsigned int distinct = 0;

	cr_assert_eq(ksm_hash(x.cell[0], page), ksm_hash(x.coord, page), "one domain, one hash");
	cr_assert_neq(ksm_hash(x.cell[0], page), ksm_hash(y.cell[0], page));
	memmove(page + 3, page, OB_PAGE_SIZE);
	ksm_domain_hash_bits(x.cell[0], 2);
	for (unsigned int i = 0; i < 200; i++) {
		uint64_t hash;
		unsigned int j = 0;

		page[1000] = (unsigned char)i;
		hash = ksm_hash(x.cell[0], page);
		while (j < distinct && seen[j] != hash)
			j++;
		cr_assert_lt(j, 4, "more than 2 bits");
		if (j == distinct)
			seen[distinct++] = hash;
	}
	cr_assert_eq(distinct, 4);
	fix_free(&x);
	fix_free(&y);
}

Test(pool, every_implementation_hashes_alike)
{
	unsigned char page[OB_PAGE_SIZE], secret[KSM_SECRET_BYTES];
	uint64_t s = 5;

	for (unsigned int i = 0; i < sizeof(secret); i++)
		secret[i] = (unsigned char)rnd(&s);
	for (unsigned int round = 0; round < 100; round++) {
		for (unsigned int i = 0; i < sizeof(page); i++)
			page[i] = (unsigned char)rnd(&s);
		cr_assert_eq(ksm_hash_pick()(page, secret), ksm_hash_baseline(page, secret));
	}
}

Test(pool, zero_is_all_of_it)
{
	_Alignas(8) unsigned char page[OB_PAGE_SIZE] = {0};

	cr_assert(ksm_page_is_zero(page));
	for (unsigned int i = 0; i < sizeof(page); i++) {
		page[i] = (unsigned char)(1u << i % 8);
		cr_assert_not(ksm_page_is_zero(page), "byte %u", i);
		page[i] = 0;
	}
}
