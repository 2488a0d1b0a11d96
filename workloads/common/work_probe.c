/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_probe.c: a guest that spies. It wants to know which of many pages, whose content it can guess,
 * somebody else holds, and has nothing to find out by but the time that its own writes take: the
 * first write to a page that was merged is a copy-on-write, and slower.
 *
 * It fills a page with each guess, waits until they would have been merged, then writes one word to
 * each and times it. The measure it makes itself, of pages about which it knows: some that are there
 * twice in its own memory, so they are merged whoever else is about, and some that are nowhere else.
 * A guess that took longer than the geometric mean of the two medians, which is well away from both,
 * is held by somebody.
 *
 * For a score, half of the guesses are pages that every guest with the workload `same` holds, and
 * half are pages that nobody holds, in an order that the spy's judgement makes no use of. Right
 * answers are then: half of them for one who learns nothing, all for one who learns all.
 *
 * param: seconds to wait; 0: until the host writes another number into `ask` of the struct agent_ping
 * in the first page (then also again and again: `done` follows). param2: guesses.
 */
#include "workloads/common/guest.h"

#define TAG_PROBE     19
#define TAG_COIN      20
#define MEASURE_PAGES 128 /* of each kind of the own measure */
#define META_PAGES    16  /* times of guesses, and of the two kinds */
#define MAX_GUESSES   ((META_PAGES - 2) * PAGE_WORDS)
#define PROBE_WORD    3
#define PROBE_SLEEP   (20 * MS)
#define TAG_SAME      16 /* work_fill.c: whose pages are guessed */

enum kind { GUESS, TWICE, ONCE };

/* Pages of the area: the mailbox, the guesses, the doubles, each beside its twin, the single ones. */
static uint64_t *page_of(const struct guest *g, enum kind kind, uint64_t i)
{
	uint64_t first = 1, guesses = g->cfg.param2;

	if (kind == GUESS)
		return area_page(g, first + i);
	if (kind == TWICE)
		return area_page(g, first + guesses + 2 * i);
	return area_page(g, first + guesses + 2 * MEASURE_PAGES + i);
}

/* The truth, for the score alone. */
static bool is_held(const struct guest *g, uint64_t i)
{
	return area_order_at(&g->mem.order, i) < g->cfg.param2 / 2;
}

static void probe_fill(struct guest *g)
{
	struct mem_work *m = &g->mem;
	uint64_t secret = gen_key(g->cfg.common, TAG_SAME), version = m->round;

	for (uint64_t i = 0; i < g->cfg.param2; i++) {
		if (is_held(g, i))
			gen_fill(page_of(g, GUESS, i), secret, i, 0);
		else
			gen_fill(page_of(g, GUESS, i), m->key, i, version);
		g->report->heartbeat += i % 64 == 0;
	}
	for (uint64_t i = 0; i < MEASURE_PAGES; i++) {
		uint64_t *twin = page_of(g, TWICE, i) + PAGE_WORDS;

		gen_fill(page_of(g, TWICE, i), m->key, MAX_GUESSES + i, version);
		gen_fill(twin, m->key, MAX_GUESSES + i, version);
		gen_fill(page_of(g, ONCE, i), m->key, MAX_GUESSES + MEASURE_PAGES + i, version);
	}
}

static void probe_init(struct guest *g)
{
	uint64_t need;

	area_param(g, "param", g->cfg.param, 0, 86400);
	area_param(g, "param2", g->cfg.param2, 16, MAX_GUESSES);
	need = 1 + g->cfg.param2 + 3 * MEASURE_PAGES;
	/* In one piece, since a double is found by its twin's address. */
	if (need > g->area.pages || ram_span(g, g->area.base, need) < need)
		guest_fail(g, MG_EXIT_MEMORY, "%u guesses need %u KiB in one piece", g->cfg.param2,
			   need * 4);
	g->mem.key = gen_key(g->cfg.seed, TAG_PROBE);
	area_order_init(&g->mem.order, g->cfg.param2, gen_key(g->mem.key, TAG_COIN));
	memset(area_page(g, 0), 0, PAGE_SIZE);
	probe_fill(g);
	g->mem.idle_since = clock_ns(g);
}

/* The time stamp, after what came before it and before what comes after (SDM vol. 2, RDTSC). */
static inline uint64_t stamp(void)
{
	uint64_t t;

	__asm__ volatile("lfence" ::: "memory");
	t = rdtsc();
	__asm__ volatile("lfence" ::: "memory");
	return t;
}

/* One write to each page; what they took, in cycles, into @took. */
static void time_writes(struct guest *g, enum kind kind, uint64_t n, uint64_t *took)
{
	/* The table of times is there before: its own first touches are not to be timed. */
	memset(took, 0, n * sizeof(*took));
	for (uint64_t i = 0; i < n; i++) {
		volatile uint64_t *w = page_of(g, kind, i) + PROBE_WORD;
		uint64_t begin;

		/* Whatever else may be slow about this page is over before: a read maps it, too. */
		(void)*w;
		begin = stamp();
		*w = i + 1;
		took[i] = stamp() - begin;
		if (kind == GUESS)
			g->report->lat[lat_bucket(cycles_ns(g, took[i]))]++;
	}
	g->report->heartbeat++;
}

static uint64_t median(uint64_t *v, uint64_t n)
{
	if (!n)
		return 0;
	area_sort(v, n);
	return v[n / 2];
}

/* Of the guesses that are held, or that are not. @scratch: room for 1024. */
static uint64_t median_of(struct guest *g, bool held, const uint64_t *took, uint64_t *scratch)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < g->cfg.param2 && n < 2 * PAGE_WORDS; i++)
		if (is_held(g, i) == held)
			scratch[n++] = took[i];
	return median(scratch, n);
}

/* Rounded down; of what is below 2^62. */
static uint64_t square_root(uint64_t v)
{
	uint64_t root = 0;

	for (uint64_t bit = 1ULL << 30; bit; bit /= 2)
		if ((root + bit) * (root + bit) <= v)
			root += bit;
	return root;
}

static void probe(struct guest *g)
{
	struct agent_report *r = g->report;
	uint64_t n = g->cfg.param2, twice, once, limit, right = 0, yes = 0;
	uint64_t *scratch = g->mem.meta, *took = scratch + 2 * PAGE_WORDS;

	time_writes(g, GUESS, n, took);
	time_writes(g, TWICE, MEASURE_PAGES, scratch);
	twice = median(scratch, MEASURE_PAGES);
	time_writes(g, ONCE, MEASURE_PAGES, scratch);
	once = median(scratch, MEASURE_PAGES);
	limit = square_root(once * twice);
	for (uint64_t i = 0; i < n; i++) {
		bool guess = took[i] > limit;

		yes += guess;
		right += guess == is_held(g, i);
	}
	r->probe_twice_ns = cycles_ns(g, twice);
	r->probe_once_ns = cycles_ns(g, once);
	r->probe_held_ns = cycles_ns(g, median_of(g, true, took, scratch));
	r->probe_other_ns = cycles_ns(g, median_of(g, false, took, scratch));
	r->probe_yes = yes;
	r->probe_right = right;
	barrier();
	r->probe_guesses = n;
	r->ops += n;
	con_printf("%s %u: probe: %u of %u right (said yes to %u); medians in ns: held %u, "
		   "not held %u; own pages: there twice %u, once %u\n",
		   platform_name, g->cfg.guest, right, n, yes, r->probe_held_ns, r->probe_other_ns,
		   r->probe_twice_ns, r->probe_once_ns);
	g->mem.round++;
	probe_fill(g);
}

static void probe_step(struct guest *g)
{
	struct agent_ping *p = (struct agent_ping *)area_page(g, 0);
	uint64_t request = __atomic_load_n(&p->ask, __ATOMIC_ACQUIRE);

	if (request != g->mem.seen) {
		probe(g);
		g->mem.seen = request;
		__atomic_store_n(&p->done, request, __ATOMIC_RELEASE);
	} else if (g->cfg.param && !g->mem.round &&
		   clock_ns(g) - g->mem.idle_since > g->cfg.param * SECOND) {
		probe(g);
	}
	agent_sleep(g, PROBE_SLEEP);
}

const struct workload work_probe = {
	.name = "probe",
	.needs_bare = true,
	.init = probe_init,
	.step = probe_step,
	.param = 10,
	.param2 = 512,
	.meta = META_PAGES,
};
