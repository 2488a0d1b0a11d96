/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_storm.c: cowstorm, the worst that guests can do to a host that has merged them: memory that
 * is the same in all of them is left alone until it is shared, then each guest writes one word into
 * every page, as fast as it can, and each write takes a page of its own. Then they verify every
 * page, and go on verifying.
 *
 * The first storm, and each second one after it, writes the same in all guests, so what they hold
 * afterwards can be merged again. In the others each guest writes what no other does: that memory
 * does not come back.
 *
 * A page holds the words of its generator, but for one, which is of the last storm that has come by:
 * the round, and one more where this round has been already.
 */
#include "workloads/common/guest.h"

#define TAG_STORM     18
#define STORM_WORD    3 /* of a page; the generator has zero there */
#define STORM_SLEEP   (20 * MS)
#define VERIFIED_STEP 64  /* pages */
#define STEP_PAGES    256 /* written between two heartbeats */
#define MAX_SECONDS   86400

static void storm_init(struct guest *g)
{
	area_param(g, "param", g->cfg.param, 1, MAX_SECONDS);
	area_param(g, "param2", g->cfg.param2, 0, 1000000);
	g->mem.key = gen_key(g->cfg.common, TAG_STORM);
	for (uint64_t i = 0; i < g->area.pages; i++) {
		gen_fill(area_page(g, i), g->mem.key, i, 0);
		g->report->heartbeat += i % 64 == 0;
	}
	g->mem.idle_since = clock_ns(g);
}

/* What is written by the storm with this number, from 1 on; 0: none has come yet. */
static uint64_t word_of(const struct guest *g, uint64_t storm)
{
	return storm % 2 || !storm ? storm : gen_key(g->cfg.seed, TAG_STORM + storm);
}

static void check(struct guest *g, uint64_t page)
{
	const struct mem_work *m = &g->mem;
	uint64_t start = gen_start(m->key, page, 0);
	uint64_t word = word_of(g, m->round + (page < m->at));
	const uint64_t *w = area_page(g, page);

	barrier();
	for (unsigned int i = 0; i < PAGE_WORDS; i++) {
		uint64_t expect = i == STORM_WORD ? word : gen_word(start, i), got = w[i];

		if (got != expect) {
			agent_mismatch(g, w + i, expect, got, AGENT_KIND_AREA);
			return;
		}
	}
	g->report->ops++;
}

/* The next pages, in one piece. */
static void verify(struct guest *g)
{
	uint64_t first = g->mem.seen, left = g->area.pages - first;
	uint64_t n = ram_span(g, g->area.base + first, left < VERIFIED_STEP ? left : VERIFIED_STEP);

	for (uint64_t i = 0; i < n; i++)
		check(g, first + i);
	agent_checked(g, area_page(g, first), n);
	g->mem.seen = first + n < g->area.pages ? first + n : 0;
}

static void write_all(struct guest *g)
{
	struct mem_work *m = &g->mem;
	uint64_t begin = rdtsc(), before, now = begin, word = word_of(g, m->round + 1);

	while (m->at < g->area.pages) {
		volatile uint64_t *w = area_page(g, m->at) + STORM_WORD;

		before = now;
		*w = word;
		m->at++;
		now = rdtsc();
		g->report->lat[lat_bucket(cycles_ns(g, now - before))]++;
		g->report->written_pages++;
		g->report->heartbeat += m->at % STEP_PAGES == 0;
	}
	m->at = 0;
	m->round++;
	g->report->job_ns = cycles_ns(g, now - begin);
}

static void storm_step(struct guest *g)
{
	struct mem_work *m = &g->mem;
	uint64_t storms = g->cfg.param2;

	if (storms && m->round >= storms) {
		verify(g);
		agent_sleep(g, STORM_SLEEP);
		return;
	}
	if (clock_ns(g) - m->idle_since < g->cfg.param * SECOND) {
		verify(g);
		agent_sleep(g, STORM_SLEEP);
		return;
	}
	write_all(g);
	m->seen = 0;
	do {
		verify(g);
		g->report->heartbeat++;
	} while (m->seen);
	m->idle_since = clock_ns(g);
}

const struct workload work_cowstorm = {
	.name = "cowstorm",
	.init = storm_init,
	.step = storm_step,
	.param = 5,
	.param2 = 1,
};
