/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_wset.c: the sampler over a model of a guest's pages, with a clock of its own. (What it
 * counts becomes an estimate in pure_wset_est.c; over a real ept it is in pure_wset_ept.c.)
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "ept/wset_int.h"

#define MAX_PAGES 65536
#define PERIOD	  (10 * OB_NS_PER_SEC)

static uint64_t rnd(uint64_t *s)
{
	*s += 0x9e3779b97f4a7c15ULL;
	uint64_t x = *s;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* --- a guest that is a table ------------------------------------------------------------------ */

struct model_page {
	enum ept_state state;
	bool out, sample, present, busy;
	bool uses;	    /* the guest touches it whenever it runs */
	unsigned int drawn; /* looked at while samples were being taken, as the so manieth */
	uint64_t taken_at;  /* when it went out */
};

struct model {
	uint64_t pages, now;
	struct model_page *p;
	struct ob_arena *arena;
	struct ept_wset w;
	bool hot;    /* the guest runs in the middle of each take */
	int64_t err; /* what take says */
	bool *huge;  /* by unit */
	/* What was asked of it. */
	unsigned int most_at_once, takes, out, windows, draws;
	uint64_t least_watched;
};

static void touch(struct model *m, struct model_page *p)
{
	switch (p->state) {
	case EPT_UNTOUCHED:
	case EPT_COMPRESSED:
	case EPT_SWAPPED:
	case EPT_REMOTE:
		p->state = EPT_PRIVATE;
		break;
	case EPT_PRIVATE:
		m->out -= p->out;
		p->out = p->sample = false;
		break;
	case EPT_ZERO:
	case EPT_SHARED:
		break;
	default:
		return;
	}
	p->present = true;
}

static void guest_runs(struct model *m)
{
	for (uint64_t i = 0; i < m->pages; i++) {
		/* One page of a unit that was taken whole brings back all. */
		bool unit = m->huge && m->huge[i / 512] && m->p[i].out && m->p[i].uses;

		if (m->p[i].uses)
			touch(m, &m->p[i]);
		for (uint64_t k = i - i % 512; unit && k < i - i % 512 + 512; k++)
			touch(m, &m->p[k]);
	}
}

static int model_look(void *arg, uint64_t page, struct ept_wset_page *out)
{
	struct model *m = arg;
	struct model_page *p = &m->p[page];

	cr_assert(page < m->pages);
	if (m->w.phase == EPT_WSET_TAKE)
		p->drawn = ++m->draws;
	*out = (struct ept_wset_page){.state = p->state, .staged = p->out, .present = p->present};
	return 0;
}

static int64_t model_take(void *arg, const struct ept_run *runs, unsigned int n)
{
	struct model *m = arg;
	int64_t taken = 0;

	if (m->err)
		return m->err;
	m->takes++;
	m->most_at_once = OB_MAX(m->most_at_once, n);
	for (unsigned int i = 0; i < n; i++) {
		struct model_page *p = &m->p[runs[i].page];

		cr_assert(runs[i].n == 1 && (!i || runs[i].page > runs[i - 1].page));
		cr_assert(!m->huge || !m->huge[runs[i].page / 512], "a huge page is split");
		if (p->state != EPT_PRIVATE || p->out || p->busy)
			continue;
		p->out = p->sample = true;
		p->taken_at = m->now;
		m->out++;
		taken++;
	}
	if (m->hot)
		guest_runs(m);
	return taken;
}

static int64_t model_take_unit(void *arg, uint64_t page)
{
	struct model *m = arg;

	cr_assert(page % 512 == 0 && m->huge && m->huge[page / 512]);
	for (uint64_t i = page; i < page + 512; i++) {
		cr_assert(!m->p[i].out);
		m->p[i].out = m->p[i].sample = true;
		m->p[i].taken_at = m->now;
	}
	m->out += 512;
	return 512;
}

static int64_t model_left(void *arg, uint64_t page, uint64_t n)
{
	struct model *m = arg;
	int64_t left = 0;

	for (uint64_t i = page; i < page + n; i++)
		left += m->p[i].out && m->p[i].sample;
	return left;
}

static int64_t model_put_back(void *arg, const struct ept_run *runs, unsigned int n)
{
	struct model *m = arg;
	int64_t back = 0;

	m->most_at_once = OB_MAX(m->most_at_once, n);
	for (unsigned int i = 0; i < n; i++)
		for (uint64_t k = runs[i].page; k < runs[i].page + runs[i].n; k++) {
			cr_assert(!i || runs[i].page > runs[i - 1].page);
			if (m->p[k].out)
				m->least_watched =
					OB_MIN(m->least_watched, m->now - m->p[k].taken_at);
			back += m->p[k].out;
			m->out -= m->p[k].out;
			m->p[k].out = m->p[k].sample = false;
		}
	return back;
}

static int64_t model_zap(void *arg, const struct ept_run *runs, unsigned int n, bool *zapped)
{
	struct model *m = arg;
	int64_t done = 0;

	m->most_at_once = OB_MAX(m->most_at_once, n);
	for (unsigned int i = 0; i < n; i++) {
		struct model_page *p = &m->p[runs[i].page];

		zapped[i] = (p->state == EPT_SHARED || p->state == EPT_ZERO) && !p->busy;
		done += zapped[i];
		if (zapped[i])
			p->present = false;
	}
	return done;
}

static uint64_t model_windows(void *arg)
{
	return ((struct model *)arg)->windows;
}

static uint64_t model_shared(void *arg)
{
	const struct model *m = arg;
	uint64_t n = 0;

	for (uint64_t i = 0; i < m->pages; i++)
		n += m->p[i].state == EPT_SHARED;
	return n;
}

static uint64_t model_cpu(void *arg)
{
	(void)arg;
	return 0;
}

static bool model_huge(void *arg, uint64_t page)
{
	return ((struct model *)arg)->huge[page / 512];
}

static const struct ept_wset_ops model_ops = {
	.look = model_look,
	.take = model_take,
	.take_unit = model_take_unit,
	.left = model_left,
	.put_back = model_put_back,
	.zap = model_zap,
	.windows = model_windows,
	.shared = model_shared,
	.cpu_ns = model_cpu,
	.handler_cpu_ns = model_cpu,
};

/* All pages private, none used. */
static void make(struct model *m, uint64_t pages, unsigned int samples, bool huge)
{
	struct ept_wset_opts o = ept_wset_defaults();

	*m = (struct model){.pages = pages, .now = 10 * PERIOD, .least_watched = UINT64_MAX};
	m->arena = ob_arena_new("test");
	m->p = calloc(pages, sizeof(*m->p));
	cr_assert(m->p);
	for (uint64_t i = 0; i < pages; i++)
		m->p[i] = (struct model_page){.state = EPT_PRIVATE, .present = true};
	o.samples = samples;
	o.period_ns = PERIOD;
	if (huge) {
		m->huge = calloc(pages / 512 + 1, sizeof(bool));
		o.unit_is_huge = model_huge;
		o.huge_arg = m;
	}
	cr_assert(!ept_wset_init_ops(&m->w, &model_ops, m, pages, m->arena, &o));
}

static void unmake(struct model *m)
{
	ept_wset_exit(&m->w);
	cr_assert_eq(m->out, 0, "pages are left outside");
	cr_assert_eq(ob_arena_bytes(m->arena), 0);
	ob_arena_free(m->arena);
	free(m->p);
	free(m->huge);
}

/* 4 KiB samples, and those of them that were touched. */
static unsigned int sampled(const struct ept_wset_part *p)
{
	return p[EPT_WSET_OWN].n + p[EPT_WSET_SHARED].n;
}

static unsigned int touched(const struct ept_wset_part *p)
{
	return p[EPT_WSET_OWN].t + p[EPT_WSET_SHARED].t;
}

static void step(struct model *m, bool run)
{
	m->now += ept_wset_step(&m->w, m->now);
	if (run)
		guest_runs(m);
}

/* To the end of the period under way. */
static struct ept_wset_reading period(struct model *m, bool run)
{
	uint64_t number = m->w.last.number;
	struct ept_wset_reading r;

	for (int i = 0; m->w.last.number == number; i++) {
		cr_assert_lt(i, 100000, "a period that does not end");
		step(m, run);
	}
	ept_wset_read(&m->w, &r);
	return r;
}

/* --- the sampler ------------------------------------------------------------------------------ */

Test(wset, options_are_checked)
{
	const struct ept_wset_opts good = ept_wset_defaults();
	struct ob_arena *arena = ob_arena_new("test");
	struct ept_wset_opts bad[10];
	struct ept_wset w;
	struct model m;

	make(&m, 100, 10, false);
	cr_assert_eq(good.samples, 400);
	cr_assert_eq(good.period_ns, 30 * OB_NS_PER_SEC);
	for (int i = 0; i < 10; i++)
		bad[i] = good;
	bad[0].samples = 0;
	bad[1].samples = EPT_WSET_MAX_SAMPLES + 1;
	bad[2].period_ns = EPT_WSET_MIN_PERIOD - 1;
	bad[3].period_ns = EPT_WSET_MAX_PERIOD + 1;
	bad[4].slow = 0;
	bad[5].fast = 1.01;
	bad[6].slow = 0.6;
	bad[7].slow = NAN;
	bad[8].fast = NAN;
	bad[9].slow = -0.1;
	for (int i = 0; i < 10; i++)
		cr_assert_eq(ept_wset_init_ops(&w, &model_ops, &m, 100, arena, &bad[i]), -EINVAL,
			     "%d", i);
	cr_assert_eq(ept_wset_init_ops(&w, &model_ops, &m, 0, arena, &good), -EINVAL);
	cr_assert_eq(ept_wset_init_ops(&w, &model_ops, &m, 1ULL << 32, arena, &good), -EINVAL);
	cr_assert_eq(ob_arena_bytes(arena), 0);
	ob_arena_free(arena);
	unmake(&m);
}

/* Of the shared pages of its fault-around group, the first one drawn? */
static bool first_of_group(const struct model *m, uint64_t page)
{
	for (uint64_t i = page - page % 16; i < m->pages && i / 16 == page / 16; i++)
		if (m->p[i].state == EPT_SHARED && m->p[i].drawn &&
		    m->p[i].drawn < m->p[page].drawn)
			return false;
	return true;
}

/* Pages of all kinds, some busy, some used; what a period counts is what the table says of the
 * pages that it drew. */
Test(wset, counts_agree_with_the_table)
{
	static const enum ept_state kinds[] = {
		EPT_UNTOUCHED, EPT_ZERO,       EPT_PRIVATE, EPT_PRIVATE,   EPT_SHARED,
		EPT_SHARED,    EPT_COMPRESSED, EPT_SWAPPED, EPT_BALLOONED, EPT_REMOTE};
	for (uint64_t seed = 1; seed <= 40; seed++) {
		uint64_t s = seed, pages = 64 + rnd(&s) % 8000, shared = 0;
		unsigned int samples = 10 + (unsigned int)(rnd(&s) % 500);
		struct model m;

		make(&m, pages, samples, false);
		m.w.key = seed;
		m.hot = seed % 2;
		for (uint64_t i = 0; i < pages; i++) {
			struct model_page *p = &m.p[i];

			p->state = kinds[rnd(&s) % OB_ARRAY_SIZE(kinds)];
			p->uses = rnd(&s) % 100 < seed * 2;
			p->present = p->state == EPT_PRIVATE || p->state == EPT_SHARED ||
				     p->state == EPT_ZERO;
			p->busy = p->state == EPT_PRIVATE && rnd(&s) % 10 == 0;
			shared += p->state == EPT_SHARED;
		}
		for (int k = 0; k < 4; k++) {
			unsigned int n[2] = {0}, t[2] = {0}, busy = 0, still = 0;
			double truth;
			struct ept_wset_reading r;
			enum ept_state *was = calloc(pages, sizeof(*was));

			for (uint64_t i = 0; i < pages; i++) {
				m.p[i].drawn = 0;
				was[i] = m.p[i].state;
			}
			r = period(&m, true);
			for (uint64_t i = 0; i < pages; i++) {
				bool ok = !m.p[i].busy;

				still += m.p[i].state == EPT_SHARED;
				if (!m.p[i].drawn)
					continue;
				/* Untouched pages that became private in between were drawn as
				 * they were when it was their turn; used they are all the same. */
				if (was[i] == EPT_SHARED)
					ok &= first_of_group(&m, i);
				n[was[i] == EPT_SHARED] += ok;
				t[was[i] == EPT_SHARED] +=
					ok && m.p[i].uses && was[i] != EPT_BALLOONED;
				busy += !ok;
			}
			for (int q = 0; q < 2; q++) {
				const struct ept_wset_part *got = &r.last.part[q];

				cr_assert_eq(got->n, n[q], "seed %d: %u, not %u", (int)seed, got->n,
					     n[q]);
				cr_assert_eq(got->t, t[q], "seed %d: %u, not %u", (int)seed, got->t,
					     t[q]);
				cr_assert_eq(got->of, q ? shared : pages - shared);
			}
			cr_assert_eq(r.last.refused, busy, "seed %d", (int)seed);
			cr_assert_eq(r.last.left_out, OB_MIN(samples, pages) - n[0] - n[1]);
			cr_assert_eq(still, shared, "sampling unshared pages");
			cr_assert(n[0] && n[1], "seed %d", (int)seed);
			truth = (double)t[0] / n[0] * (double)(pages - shared);
			truth += (double)t[1] / n[1] * (double)shared;
			cr_assert_float_eq(r.last.fraction, truth / (double)pages, 1e-12);
			free(was);
		}
		unmake(&m);
	}
}

Test(wset, all_of_a_small_guest_is_drawn)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 300, 400, false);
	for (int i = 0; i < 120; i++)
		m.p[i * 2].uses = true;
	r = period(&m, true);
	cr_assert_eq(sampled(r.last.part), 300);
	cr_assert_eq(touched(r.last.part), 120);
	cr_assert_eq(r.pages, 120, "no page is left to guess about");
	cr_assert_eq(r.last.error, 0);
	cr_assert(r.last.low == r.last.fraction && r.last.high == r.last.fraction);
	unmake(&m);
}

/* Those that come back before anybody can look are those that count most. */
Test(wset, pages_that_come_back_at_once_count)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 5000, 400, false);
	m.hot = true;
	for (uint64_t i = 0; i < m.pages; i++) {
		m.p[i].uses = i % 2;
		/* So that the number taken is short in each batch. */
		m.p[i].busy = i % 16 == 0;
	}
	r = period(&m, false);
	cr_assert_eq(sampled(r.last.part), 400);
	/* 2500 of 4687 that can be sampled. */
	cr_assert_float_eq(r.last.fraction, 0.5333, 0.1);
	unmake(&m);
}

Test(wset, what_cannot_be_sampled_is_replaced_a_few_times)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 20000, 400, false);
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].busy = i % 2;
	r = period(&m, true);
	cr_assert_gt(sampled(r.last.part), 340, "%u", sampled(r.last.part));
	cr_assert_gt(r.last.refused, 300);
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].busy = true;
	r = period(&m, true);
	cr_assert_eq(sampled(r.last.part), 0);
	cr_assert_eq(r.last.left_out, 400);
	cr_assert_geq(r.last.ended_ns - r.last.began_ns, PERIOD, "a period without samples is one");
	cr_assert(r.last.low == 0 && r.last.high == 1, "nothing is known");
	unmake(&m);
}

Test(wset, each_is_watched_for_a_period_and_few_at_a_time)
{
	struct model m;

	make(&m, 20000, 1000, false);
	for (int i = 0; i < 3; i++) {
		struct ept_wset_reading r = period(&m, false);
		uint64_t took = r.last.ended_ns - r.last.began_ns;

		cr_assert(took >= PERIOD && took <= PERIOD + PERIOD / 8, "%llu",
			  (unsigned long long)took);
	}
	cr_assert_leq(m.most_at_once, EPT_WSET_BATCH);
	cr_assert_geq(m.least_watched, PERIOD - OB_NS_PER_MS);
	cr_assert_eq(m.out, 0);
	unmake(&m);
}

Test(wset, readings_in_mid_period_follow_what_was_touched)
{
	struct ept_wset_reading r, before;
	struct model m;

	make(&m, 10000, 400, false);
	ept_wset_read(&m.w, &before);
	cr_assert(!before.pages && !before.last.number);
	for (int i = 0; i < 5; i++)
		before = period(&m, true);
	cr_assert_eq(before.pages, 0);
	while (m.w.phase != EPT_WSET_WATCH)
		step(&m, false);
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].uses = true;
	guest_runs(&m);
	step(&m, true); /* to the next look */
	step(&m, true);
	ept_wset_read(&m.w, &r);
	cr_assert_eq(r.last.number, before.last.number, "the same period");
	cr_assert(sampled(r.now) == 400 && touched(r.now) == 400);
	cr_assert_eq(r.pages, 5000, "the fast average, a period of all touched included");
	r = period(&m, true);
	cr_assert_eq(r.pages, 5000, "and the same when it is over");
	r = period(&m, true);
	cr_assert_eq(r.pages, 7500);
	unmake(&m);
}

Test(wset, late_steps_lose_nothing)
{
	struct ept_wset_reading r;
	struct model m;
	uint64_t s = 5;

	make(&m, 10000, 400, false);
	for (uint64_t i = 0; i < 3000; i++)
		m.p[i].uses = true;
	for (int i = 0; i < 2000; i++) {
		ept_wset_step(&m.w, m.now);
		m.now += rnd(&s) % (2 * PERIOD);
		/* A clock that goes back does no harm. */
		if (i % 50 == 0)
			ept_wset_step(&m.w, m.now - PERIOD);
		guest_runs(&m);
	}
	ept_wset_read(&m.w, &r);
	cr_assert_gt(r.last.number, 10, "%d", (int)r.last.number);
	cr_assert_float_eq(r.fraction, 0.3, 0.05);
	unmake(&m);
}

Test(wset, withdrawn_at_any_step_nothing_is_out)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 10000, 100, false);
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].uses = i % 3 == 0;
	for (int steps = 0; steps < 40; steps++) {
		for (int i = 0; i < steps; i++)
			step(&m, i > 5);
		ept_wset_withdraw(&m.w);
		cr_assert_eq(m.out, 0, "after %d steps", steps);
		ept_wset_read(&m.w, &r);
		cr_assert_eq(sampled(r.now), 0);
	}
	r = period(&m, true);
	cr_assert_eq(sampled(r.last.part), 100);
	unmake(&m);
}

Test(wset, without_userfaultfd_there_is_no_figure)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 1000, 100, false);
	m.err = -EPERM;
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].state = i % 2 ? EPT_PRIVATE : EPT_SHARED;
	for (int i = 0; i < 100; i++)
		step(&m, true);
	ept_wset_read(&m.w, &r);
	cr_assert_eq(r.err, -EPERM);
	cr_assert(!r.pages && !sampled(r.now) && !r.last.number);
	unmake(&m);
}

Test(wset, huge_units_are_samples_of_their_own)
{
	struct ept_wset_reading r;
	unsigned int in_use = 0;
	struct model m;

	/* 40 units, half of them huge; of these a quarter is used, each by a page or two; of the
	 * other pages a tenth. A rest that is no whole unit. */
	make(&m, 40 * 512 + 100, 400, true);
	for (uint64_t u = 0; u < 40; u++)
		m.huge[u] = u % 2;
	for (uint64_t i = 0; i < m.pages; i++)
		m.p[i].uses =
			(i / 512 % 2 ? i % (4 * 1024) < 2 * 512 && i % 512 == 7 : i % 10 == 0);
	for (uint64_t u = 0; u < 40; u++)
		for (uint64_t i = u * 512; m.huge[u] && i < u * 512 + 512; i++)
			in_use += m.p[i].uses;
	cr_assert_eq(in_use, 5);
	r = period(&m, true);
	cr_assert_eq(r.last.part[EPT_WSET_HUGE].of, 20);
	cr_assert_eq(r.last.part[EPT_WSET_OWN].of, 20 * 512 + 100);
	cr_assert_eq(r.last.part[EPT_WSET_HUGE].n, 20,
		     "fewer than their part of 400: so all of them");
	cr_assert_eq(r.last.part[EPT_WSET_HUGE].t, 5);
	cr_assert(sampled(r.last.part) > 190 && sampled(r.last.part) < 210, "%u",
		  sampled(r.last.part));
	cr_assert_eq(r.pages_2m, 5 * 512);
	cr_assert_eq(r.pages, r.pages_4k + r.pages_2m);
	cr_assert_float_eq((double)r.pages_4k / (double)r.last.part[EPT_WSET_OWN].of, 0.1, 0.07);
	/* They come and go: no more huge ones, then nothing else. */
	memset(m.huge, 0, 40 * sizeof(bool));
	r = period(&m, true);
	cr_assert(!r.last.part[EPT_WSET_HUGE].n && !r.pages_2m && sampled(r.last.part) == 400);
	memset(m.huge, 1, 40 * sizeof(bool));
	r = period(&m, true);
	cr_assert_eq(r.last.part[EPT_WSET_HUGE].n, 40);
	cr_assert_gt(sampled(r.last.part), 0, "the rest is no unit");
	unmake(&m);
}

/* Of the shared pages only one of 16 can be sampled. That they are fewer among the samples than in
 * the guest must not show. */
Test(wset, shared_pages_count_by_how_many_there_are)
{
	double sum = 0, inside = 0;
	const int periods = 200;
	struct model m;

	/* A small guest: most draws meet another one in their group. Shared pages are used. */
	make(&m, 4096, 400, false);
	for (uint64_t i = 0; i < 2048; i++) {
		m.p[i].state = EPT_SHARED;
		m.p[i].uses = i % 10;
	}
	for (int i = 0; i < periods; i++) {
		struct ept_wset_reading r = period(&m, true);

		cr_assert_leq(r.last.part[EPT_WSET_SHARED].n, 128);
		cr_assert_geq(r.last.part[EPT_WSET_OWN].n, 200);
		cr_assert_eq(r.last.part[EPT_WSET_SHARED].of, 2048);
		sum += r.last.fraction;
		inside += r.last.low <= 0.45 && 0.45 <= r.last.high;
	}
	cr_assert_float_eq(sum / periods, 0.45, 0.005, "%f", sum / periods);
	cr_assert_geq(inside, 0.92 * periods);
	unmake(&m);
}

static void become_huge(struct model *m)
{
	memset(m->huge, 1, m->pages / 512 * sizeof(bool));
}

Test(wset, a_unit_that_becomes_huge_meanwhile_is_left_alone)
{
	struct ept_wset_reading r;
	struct model m;

	make(&m, 40 * 512, 400, true);
	step(&m, true); /* drawn, nothing is huge */
	become_huge(&m);
	r = period(&m, true); /* model_take checks that no page of such a unit is taken */
	cr_assert_eq(sampled(r.last.part), 0);
	cr_assert_eq(r.last.left_out, 400);
	unmake(&m);
}

/*
 * What is promised: with n = 400 an estimate is within 5 points in at least 19 of 20 periods,
 * whatever part is used. And it is right on average, but for what the maximum of noisy averages
 * adds.
 */
Test(wset, estimates_are_within_five_points)
{
	static const int percent[] = {0, 10, 30, 60, 90, 100};

	for (unsigned int k = 0; k < OB_ARRAY_SIZE(percent); k++) {
		const int periods = 300, warm = 3;
		double truth = percent[k] / 100.0, raw = 0, smooth = 0, bars = 0;
		unsigned int within = 0, inside = 0;
		struct model m;
		uint64_t s = 77 + k;

		make(&m, MAX_PAGES / 4, 400, false);
		m.w.key = 1000 + k;
		/* Anywhere, but exactly so many. */
		for (uint64_t i = 0, left = m.pages * (uint64_t)percent[k] / 100; i < m.pages;
		     i++) {
			m.p[i].uses = rnd(&s) % (m.pages - i) < left;
			left -= m.p[i].uses;
		}
		for (int i = 0; i < periods + warm; i++) {
			struct ept_wset_reading r;

			/* The guest need not run at each step: all it does is to touch the same. */
			while (m.w.phase != EPT_WSET_WATCH)
				step(&m, false);
			guest_runs(&m);
			r = period(&m, false);
			if (i < warm)
				continue;
			raw += r.last.fraction;
			smooth += r.fraction;
			bars += r.last.error;
			within += fabs(r.fraction - truth) <= 0.05;
			inside += r.last.low <= truth + 1e-9 && truth <= r.last.high + 1e-9;
		}
		cr_assert_geq(within, periods * 95 / 100, "%d %%: %u", percent[k], within);
		cr_assert_geq(inside, periods * 92 / 100, "%d %%: %u", percent[k], inside);
		cr_assert_float_eq(raw / periods, truth, 5 * bars / periods / sqrt(periods) + 1e-9,
				   "%d %%: %f", percent[k], raw / periods);
		cr_assert(smooth >= raw - 1e-9 && smooth / periods < truth + 0.02);
		unmake(&m);
	}
}
