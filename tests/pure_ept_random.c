/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_ept_random.c: everything at random, against an oracle that knows one byte a page: what the
 * guest would read there. A guest of two regions whose vCPUs touch memory between our calls and in
 * the middle of them, and sleep where they must; devices; frames, tiers, samples, a balloon; swapping,
 * migration, pins and mappings that are not joined; and host calls that fail. After each step every
 * page must hold what the oracle says, wherever it is; the map must agree with the kernel's, and
 * whoever holds a frame or a slot with the map. At the end nobody waits who has not been answered.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_guest.h"

#define REGION0 520
#define REGION1 24
#define PAGES	(REGION0 + REGION1)
#define VALUES	5
#define VCPUS	3
#define DMAS	3
#define READERS 6

/* A vCPU, or a device: what it wants to do next, and may have to wait for. */
struct actor {
	bool wants, write;
	uint64_t page;
	uint8_t v;
	bool under_way; /* a device's access */
	struct gmem_access acc;
};

/* Somebody who has looked at a staged page and will do something about it later. */
struct reader {
	bool used;
	uint64_t page;
	uint32_t ticket, slot;
	uint8_t v;
};

struct world {
	struct fg g;
	unsigned int seed, first;
	int step;
	const char *what;
	uint8_t content[PAGES];
	struct actor vcpu[VCPUS], dma[DMAS];
	struct reader reader[READERS];
	struct ob_fault fault[16]; /* that the handler has read, and not yet answered */
	unsigned int nfaults;
	bool answering;
	bool quiet;		/* nobody acts in the middle of a call */
	uint64_t given, ngiven; /* the guest does not touch what it is giving up */
	uint32_t next_slot;
	enum fake_op armed;
};

static uint8_t pattern[VALUES][OB_PAGE_SIZE];

#define HERE  "seed %u step %d (%s)"
#define AT(w) (w)->first, (w)->step, (w)->what

static unsigned int rnd(struct world *w, unsigned int n)
{
	return (unsigned int)rand_r(&w->seed) % n;
}

/* Mostly around the end of a window and of a region. */
static uint64_t some_page(struct world *w)
{
	if (rnd(w, 4))
		return 490 + rnd(w, PAGES - 490);
	return rnd(w, PAGES);
}

static uint64_t some_run(struct world *w, uint64_t page, unsigned int most)
{
	return 1 + rnd(w, (unsigned int)OB_MIN(most, PAGES - page));
}

/* --- vCPUs and devices ------------------------------------------------------------------------- */

/* True: done. */
static bool access_page(struct world *w, struct actor *a)
{
	hva_t at = fg_at(&w->g, a->page);
	uint8_t got[OB_PAGE_SIZE];

	if (a->write) {
		a->wants = !fake_host_try_write(w->g.h, at, pattern[a->v], OB_PAGE_SIZE);
		if (!a->wants)
			w->content[a->page] = a->v;
	} else {
		a->wants = !fake_host_try_read(w->g.h, at, got, sizeof(got));
		if (!a->wants)
			cr_assert(!memcmp(got, pattern[w->content[a->page]], sizeof(got)),
				  HERE ": the guest reads %d in page %d, not %d", AT(w), got[0],
				  (int)a->page, w->content[a->page]);
	}
	return !a->wants;
}

static void vcpu_step(struct world *w)
{
	struct actor *a = &w->vcpu[rnd(w, VCPUS)];

	if (w->g.parked)
		return;
	if (!a->wants)
		*a = (struct actor){.page = some_page(w),
				    .write = rnd(w, 3) == 0,
				    .v = (uint8_t)rnd(w, VALUES)};
	if (a->page - w->given >= w->ngiven)
		access_page(w, a);
}

static void dma_step(struct world *w)
{
	struct actor *a = &w->dma[rnd(w, DMAS)];

	if (a->under_way && access_page(w, a))
		a->write = rnd(w, 4) != 0;
}

static void dma_begin_or_end(struct world *w)
{
	struct actor *a = &w->dma[rnd(w, DMAS)];

	if (a->under_way && !a->wants) {
		gmem_access_end(&w->g.mem, &a->acc);
		a->under_way = false;
	} else if (!a->under_way) {
		*a = (struct actor){
			.page = some_page(w), .write = true, .v = (uint8_t)rnd(w, VALUES)};
		a->under_way = !gmem_access_begin(
			&w->g.mem, gfn_gpa(gmem_page_gfn(&w->g.mem, a->page)), 1, true, &a->acc);
	}
}

/* In the middle of any call to the host, with the map locked as a rule. */
static void in_the_middle(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct world *w = arg;

	(void)h;
	(void)op;
	(void)after;
	if (w->quiet || rnd(w, 2))
		return;
	if (rnd(w, 2))
		vcpu_step(w);
	else
		dma_step(w);
}

/* The handler reads faults at one time, and answers them at another. */
static void handler_step(struct world *w)
{
	/* There is one handler; and an answer that fails for want of memory ends the guest. */
	if (w->answering || w->armed)
		return;
	w->answering = true;
	if (w->nfaults)
		ept_fault_answer(&w->g.e, w->fault, w->nfaults);
	w->answering = false;
	w->nfaults = fake_host_faults(w->g.h, w->fault, 1 + rnd(w, OB_ARRAY_SIZE(w->fault)));
}

/* --- readers of staged pages ------------------------------------------------------------------- */

static struct reader *some_reader(struct world *w, bool used)
{
	for (unsigned int i = 0, at = rnd(w, READERS); i < READERS; i++)
		if (w->reader[(at + i) % READERS].used == used)
			return &w->reader[(at + i) % READERS];
	return NULL;
}

static void look_at_staged(struct world *w)
{
	struct reader *r = some_reader(w, false);
	uint64_t page = some_page(w);
	uint8_t buf[OB_PAGE_SIZE];

	while (page < PAGES && !ept_is_staged(&w->g.e, page))
		page++;
	if (!r || page == PAGES || ept_stage_read(&w->g.e, page, buf, &r->ticket))
		return;
	r->used = true;
	r->page = page;
	r->v = w->content[page];
	cr_assert(!memcmp(buf, pattern[r->v], sizeof(buf)), HERE ": staged page %d", AT(w),
		  (int)page);
}

static enum ept_state some_tier(struct world *w)
{
	static const enum ept_state tiers[] = {EPT_COMPRESSED, EPT_SWAPPED, EPT_REMOTE};

	return tiers[rnd(w, 3)];
}

static uint32_t new_slot(struct world *w, enum ept_state s, uint8_t v)
{
	struct fg_tier *t = &w->g.tier[s];

	do
		w->next_slot = (w->next_slot + 1) % FG_SLOTS;
	while (t->slot[w->next_slot]);
	fg_slot_fill(t, w->next_slot, pattern[v]);
	return w->next_slot;
}

static void drop_slot(struct world *w, enum ept_state s, uint32_t slot)
{
	w->g.tier[s].ops.drop(&w->g.tier[s], slot);
}

/* What was decided long ago is done now. */
static void act_on_look(struct world *w)
{
	struct reader *r = some_reader(w, true);
	enum ept_state s = some_tier(w);
	uint32_t frame = r ? r->v + VALUES * rnd(w, FG_FRAMES / VALUES) : 0;
	struct ept_tiered t;

	if (!r)
		return;
	r->used = false;
	switch (rnd(w, 4)) {
	case 0:
		if (ept_share(&w->g.e, r->page, 1, w->g.pool, frame) >= 0)
			w->g.held[frame]++;
		return;
	case 1:
		if (r->v == 0)
			ept_drop_zero(&w->g.e, r->page, 1);
		return;
	default:
		t = (struct ept_tiered){
			.page = r->page, .slot = new_slot(w, s, r->v), .ticket = r->ticket};
		ept_to_tier(&w->g.e, s, &t, 1);
		if (!t.done)
			drop_slot(w, s, t.slot);
	}
}

static void move_between_tiers(struct world *w)
{
	uint64_t page = some_page(w);
	enum ept_state to = some_tier(w), from;
	uint32_t old, slot;

	while (page < PAGES && !ept_entry_tiered(w->g.e.map[page]))
		page++;
	if (page == PAGES)
		return;
	from = ept_state_of(&w->g.e, page);
	old = ept_entry_payload(w->g.e.map[page]);
	slot = new_slot(w, to, w->content[page]);
	if (ept_retier(&w->g.e, page, from, old, to, slot))
		drop_slot(w, to, slot);
	else
		drop_slot(w, from, old);
}

/* --- the rest of what ept does ------------------------------------------------------------------ */

static unsigned int some_runs(struct world *w, struct ept_run *run, unsigned int most, bool single)
{
	unsigned int n = 0, want = 1 + rnd(w, most);

	for (uint64_t p = some_page(w); n < want && p < PAGES; p += run[n++].n + rnd(w, 4))
		run[n] = (struct ept_run){.page = p, .n = single ? 1 : some_run(w, p, 12)};
	return n;
}

static void merge(struct world *w)
{
	uint64_t page = some_page(w), n = some_run(w, page, 40), run;
	struct fg *g = &w->g;

	n = OB_MIN(n, gmem_page_span(&g->mem, page));
	if (ept_sync(&g->e, page, n, NULL) || ept_freeze(&g->e, page, n))
		return;
	for (uint64_t p = page; p < page + n; p += run) {
		uint32_t frame = w->content[p] + VALUES * rnd(w, FG_FRAMES / VALUES - 4);

		run = 1;
		if (!ept_frozen(&g->e, p) || rnd(w, 4) == 0)
			continue;
		if (w->content[p] == 0 && rnd(w, 2)) {
			while (p + run < page + n && ept_frozen(&g->e, p + run) &&
			       w->content[p + run] == 0)
				run++;
			ept_drop_zero(&g->e, p, run);
			continue;
		}
		while (p + run < page + n && ept_frozen(&g->e, p + run) &&
		       w->content[p + run] == (frame + run) % VALUES)
			run++;
		if (ept_share(&g->e, p, run, g->pool, frame) >= 0)
			for (uint64_t i = 0; i < run; i++)
				g->held[frame + i]++;
	}
	ept_thaw(&g->e);
}

static void balloon_in(struct world *w)
{
	w->given = some_page(w);
	w->ngiven = some_run(w, w->given, 12);
	for (int i = 0; i < DMAS; i++)
		if (w->dma[i].under_way && w->dma[i].page - w->given < w->ngiven)
			w->ngiven = 0;
	if (w->ngiven)
		ept_balloon(&w->g.e, w->given, w->ngiven, true);
	for (uint64_t p = w->given; p < w->given + w->ngiven; p++)
		if (ept_state_of(&w->g.e, p) == EPT_BALLOONED)
			w->content[p] = 0;
	w->ngiven = 0;
}

static void by_the_kernel(struct world *w)
{
	uint64_t page = some_page(w), n = some_run(w, page, 8);
	hva_t at = fg_at(&w->g, page), staging;
	struct ob_page view;
	uint64_t size;

	n = OB_MIN(n, gmem_page_span(&w->g.mem, page));
	ept_staging(&w->g.e, &staging, &size);
	if (size && rnd(w, 3) == 0) /* or to pages that are out */
		at = hva(staging.v + page * OB_PAGE_SIZE);
	switch (rnd(w, 8)) {
	case 0:
		fake_host_swap_out(w->g.h, at, n);
		break;
	case 1:
		fake_host_migrate_begin(w->g.h, at, n);
		break;
	case 2:
		fake_host_migrate_end(w->g.h, at, n);
		break;
	case 3:
		fake_host_pin(w->g.h, at, n, rnd(w, 3) == 0);
		break;
	case 4:
		cr_assert(!w->g.h->ops->mergeable(w->g.h, at, n * OB_PAGE_SIZE, rnd(w, 4) == 0));
		break;
	default:
		for (; page < PAGES; page++) {
			at = ept_is_staged(&w->g.e, page) ? hva(staging.v + page * OB_PAGE_SIZE)
							  : fg_at(&w->g, page);
			cr_assert(!w->g.h->ops->pages(w->g.h, at, 1, &view));
			if (view.present && ob_page_own(&view) && w->content[page] == 0)
				fake_host_ksm_zero(w->g.h, at);
		}
	}
}

/* Another thread has its turn while the guest is being parked. */
static void before_the_park(struct fg *g)
{
	struct world *w = g->arg;
	struct ept_run run = {.page = some_page(w)};

	run.n = some_run(w, run.page, 12);
	if (w->quiet)
		return;
	switch (rnd(w, 8)) {
	case 0:
		ept_put_back(&g->e, &run, 1);
		break;
	case 1:
		/* A mapping that fails and leaves a hole is for frozen pages only. */
		if (w->armed != FAKE_MAP_FRAMES)
			act_on_look(w);
		break;
	case 2:
		ept_sync(&g->e, run.page, run.n, NULL);
		break;
	case 3:
		dma_begin_or_end(w);
		break;
	default:
		vcpu_step(w);
	}
}

/* And while a page is being loaded. */
static void during_a_load(struct fg *g, uint32_t slot)
{
	struct world *w = g->arg;

	(void)slot;
	if (rnd(w, 2))
		before_the_park(g);
	else if (!w->quiet)
		handler_step(w);
}

/* --- a step ------------------------------------------------------------------------------------ */

/* One call fails soon, if it comes to it. Not such as can lose a page: an answer without memory. */
static void arm(struct world *w, bool frozen)
{
	static const enum fake_op ops[] = {
		FAKE_PAGES,	   FAKE_MAP_FRAMES,    FAKE_MAP_EMPTY,
		FAKE_FILE_READ,	   FAKE_UFFD_REGISTER, FAKE_UFFD_UNREGISTER,
		FAKE_UFFD_PROTECT, FAKE_UFFD_MOVE,     FAKE_UFFD_COPY,
	};
	enum fake_op op = ops[rnd(w, OB_ARRAY_SIZE(ops))];

	unsigned int nth = 1 + rnd(w, 3), pages = rnd(w, 6);

	if (rnd(w, 4))
		return;
	w->armed = op;
	if (op == FAKE_MAP_FRAMES && frozen)
		fake_host_fail_with_hole(w->g.h, op, nth, ENOMEM);
	else if (op > FAKE_UFFD_OPEN)
		fake_host_fail_partly(w->g.h, op, nth, ENOMEM, pages);
	else
		fake_host_fail(w->g.h, op, nth, ENOMEM);
}

static void one_step(struct world *w)
{
	struct ept_run run[16];
	bool zapped[16];
	struct fg *g = &w->g;
	unsigned int what = rnd(w, 20), n = some_runs(w, run, 12, what == 16);
	bool odd = rnd(w, 4) == 0;

	if (what < 17)
		arm(w, what == 8 || what == 9);
	switch (what) {
	case 0:
	case 1:
	case 2:
		w->what = "take";
		ept_take(&g->e, run, n, odd);
		break;
	case 3:
		w->what = "take huge";
		if (odd)
			ept_take_huge(&g->e, 0, EPT_WINDOW);
		break;
	case 4:
		w->what = "put back";
		ept_put_back(&g->e, run, n);
		break;
	case 5:
		w->what = "put all back";
		run[0] = (struct ept_run){.page = 0, .n = PAGES};
		if (odd && ept_load(&g->e, 0, PAGES) >= 0)
			ept_put_back(&g->e, run, 1);
		break;
	case 6:
		w->what = "load";
		ept_load(&g->e, run[0].page, run[0].n);
		break;
	case 7:
		w->what = "samples";
		ept_samples_left(&g->e, 0, PAGES, odd);
		break;
	case 8:
	case 9:
		w->what = "merge";
		merge(w);
		break;
	case 10:
		w->what = "look";
		for (int i = 0; i < 3; i++)
			look_at_staged(w);
		break;
	case 11:
	case 12:
		w->what = "act on a look";
		act_on_look(w);
		break;
	case 13:
		w->what = "retier";
		move_between_tiers(w);
		break;
	case 14:
		w->what = "balloon";
		balloon_in(w);
		break;
	case 15:
		w->what = "deflate";
		ept_balloon(&g->e, run[0].page, run[0].n, false);
		break;
	case 16:
		w->what = "zap";
		ept_zap(&g->e, run, n, zapped);
		break;
	case 17:
		w->what = "answers";
		handler_step(w);
		break;
	default:
		w->what = "guest and devices";
		for (int i = 0; i < 8; i++) {
			vcpu_step(w);
			dma_begin_or_end(w);
			dma_step(w);
			if (odd)
				handler_step(w);
		}
	}
	if (w->armed)
		fake_host_fail(g->h, w->armed, 1, 0);
	w->armed = 0;
	if (rnd(w, 3) == 0)
		by_the_kernel(w);
}

/* --- what must be so --------------------------------------------------------------------------- */

static void check_page(struct world *w, uint64_t page, const struct ob_page *view)
{
	uint32_t entry = w->g.e.map[page];
	const uint8_t *at = hva_ptr(fg_at(&w->g, page));
	uint8_t v = w->content[page];

	if (ept_entry_staged(entry)) {
		at = hva_ptr(ept_stage_hva(&w->g.e, page));
	} else if (ept_entry_tiered(entry)) {
		at = w->g.tier[ept_entry_state(entry)].slot[ept_entry_payload(entry)];
		cr_assert(at, HERE ": page %d is in an empty slot", AT(w), (int)page);
	} else if (!view->present && !view->swapped &&
		   fake_host_registered(w->g.h, fg_at(&w->g, page))) {
		cr_assert_eq(v, 0, HERE ": page %d (%s) is nothing, and should hold %d", AT(w),
			     (int)page, ept_state_name(ept_entry_state(entry)), v);
		return;
	}
	cr_assert(!memcmp(at, pattern[v], OB_PAGE_SIZE), HERE ": page %d (%s) holds %d, not %d",
		  AT(w), (int)page, ept_state_name(ept_entry_state(entry)), at[0], v);
}

/*
 * When ept puts a page of zeroes back by a plain store (into a mapping that it could not watch), the
 * fake host does not notice. A real one does.
 */
static void notice_stores(struct world *w)
{
	struct ob_page view;

	for (uint64_t p = 0; p < PAGES; p++) {
		hva_t at = fg_at(&w->g, p);

		if (w->g.e.map[p] != ept_entry(EPT_PRIVATE, 0, EPT_OVER_POOL) || w->content[p] ||
		    fake_host_file_mapped(w->g.h, at) || fake_host_registered(w->g.h, at))
			continue;
		cr_assert(!w->g.h->ops->pages(w->g.h, at, 1, &view));
		if (!view.present && !view.swapped)
			fake_host_write(w->g.h, at, pattern[0], OB_PAGE_SIZE);
	}
}

static void check(struct world *w)
{
	static struct ob_page view[PAGES];
	struct fg *g = &w->g;
	struct ept_verify v;
	int held[FG_FRAMES] = {0};
	struct ept_stats st;

	w->quiet = true;
	notice_stores(w);
	cr_assert(!ept_verify(&g->e, &v));
	cr_assert_eq(v.differences, 0, HERE ": page %d (%s): %s", AT(w), (int)v.first[0].page,
		     ept_state_name(v.first[0].state), v.first[0].why);
	cr_assert_eq(g->lost, 0, HERE ": %s", AT(w), g->why);
	cr_assert_eq(g->parked, 0);
	cr_assert(!ept_sync(&g->e, 0, PAGES, view));
	for (uint64_t p = 0; p < PAGES; p++) {
		uint32_t frame = ept_frame_of(&g->e, p);

		check_page(w, p, &view[p]);
		if (frame != EPT_NO_FRAME)
			held[frame]++;
	}
	cr_assert(!memcmp(held, g->held, sizeof(held)), HERE ": holders of frames", AT(w));
	ept_read_stats(&g->e, &st);
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		if (g->tier[s].g)
			cr_assert_eq(g->tier[s].used, st.state[s], HERE ": slots of %s", AT(w),
				     ept_state_name(s));
	w->quiet = false;
}

/* Answer everybody; then all that was wanted has happened, and everything can come back. */
static void finish(struct world *w)
{
	const struct ept_run all = {.page = 0, .n = PAGES};
	struct ept_stats st;

	w->what = "end";
	for (int round = 0; round < 4; round++) {
		do
			handler_step(w);
		while (w->nfaults);
		for (int i = 0; i < VCPUS; i++)
			if (w->vcpu[i].wants)
				access_page(w, &w->vcpu[i]);
		for (int i = 0; i < DMAS; i++)
			if (w->dma[i].wants && w->dma[i].under_way)
				access_page(w, &w->dma[i]);
	}
	for (int i = 0; i < DMAS; i++)
		if (w->dma[i].under_way)
			gmem_access_end(&w->g.mem, &w->dma[i].acc);
	for (int i = 0; i < VCPUS; i++)
		cr_assert(!w->vcpu[i].wants, HERE ": a vCPU waits for page %d for ever", AT(w),
			  (int)w->vcpu[i].page);
	check(w);
	fake_host_hook(w->g.h, NULL, NULL);
	w->g.on_park = NULL;
	w->quiet = true;
	cr_assert(ept_load(&w->g.e, 0, PAGES) >= 0);
	cr_assert(ept_put_back(&w->g.e, &all, 1) >= 0);
	ept_read_stats(&w->g.e, &st);
	cr_assert(!st.staged && !st.windows, HERE ": %d pages in %d windows are out", AT(w),
		  (int)st.staged, (int)st.windows);
	check(w);
}

static void run_world(unsigned int seed, int steps, bool copy)
{
	struct world *w = calloc(1, sizeof(*w));

	w->seed = w->first = seed;
	fg_make(&w->g, REGION0, REGION1);
	w->g.e.copy_only = copy;
	w->g.arg = w;
	w->g.on_park = before_the_park;
	fg_set_tier(&w->g, EPT_COMPRESSED, 16);
	fg_set_tier(&w->g, EPT_SWAPPED, 0);
	fg_set_tier(&w->g, EPT_REMOTE, 4);
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		w->g.tier[s].hook = during_a_load;
	for (uint32_t f = 0; f < FG_FRAMES; f++)
		fg_frames(&w->g, f, 1, (uint8_t)(f % VALUES));
	fake_host_hook(w->g.h, in_the_middle, w);
	for (w->step = 0; w->step < steps; w->step++) {
		one_step(w);
		check(w);
	}
	finish(w);
	fg_unmake(&w->g);
	free(w);
}

static void run_worlds(bool copy)
{
	bool many = getenv("OB_LONG");

	for (int v = 0; v < VALUES; v++)
		memset(pattern[v], v, OB_PAGE_SIZE);
	for (unsigned int seed = 1; seed <= (many ? 100u : 8u); seed++)
		run_world(seed + 1000 * copy, many ? 3000 : 1500, copy);
}

Test(ept_random, against_an_oracle, .timeout = 900)
{
	run_worlds(false);
}

Test(ept_random, against_an_oracle_without_uffdio_move, .timeout = 900)
{
	run_worlds(true);
}
