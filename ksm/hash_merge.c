/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_merge.c: carrying out what the scanner planned for one window.
 *
 *  1. Runs are found, and those taken for which there are mappings enough (hash_plan.c). The others
 *     wait (hash_defer.c).
 *  2. New frames are filled, and the frames to compare with are brought into our tables, while the
 *     guest runs (hash_frames.c).
 *  3. Pause by pause: freeze; compare each page in full with its frame, or with zeroes: this is where
 *     truth is established; map what is equal; thaw. How much goes into a pause is decided in it, by
 *     the clock and by what the rest will take (hash_pace.c).
 *
 * Whatever was prepared for a page and is not used (a hold on a frame, a frame that was filled and its
 * claim in the index) is given back.
 *
 * One freeze serves many runs: parking a vCPU that runs takes 60 us. A run that is too long for one
 * pause is merged in pieces, which the kernel joins into one mapping as they continue each other.
 *
 * Tried, and not done:
 *  - mapping the frames elsewhere first, populated, and moving that mapping over the guest's (mremap).
 *    It would spare the guest the faults of first reading its pages, but populating takes 0.4 to 0.8 us
 *    a page of the scanner's time in which most pages are not read again, and the move itself costs a
 *    second change of mappings for each run.
 *  - comparing by pread: 1.0 to 1.5 us a page in place of 0.3 to 0.5 (hash_frames.c).
 *  - emptying long runs before they are mapped: giving the pages back costs the same wherever it is
 *    done, and one flush is little beside it (ept/share.c).
 */
#include <errno.h>
#include <string.h>

#include "ksm/cost.h"
#include "ksm/hash_engine.h"

static void *page_ptr(const struct ksm_slot *s, uint64_t page)
{
	return hva_ptr(gmem_page_hva(s->g.ept->mem, page));
}

void hash_merge_init(struct ksm *k, struct hash *h)
{
	pace_init(&h->pace, k->opts.max_pause_ns);
	hash_count_maps(k, h, 0);
	/* Nothing is known of the guests yet. */
	h->room.pages = 0;
	for (unsigned int i = 0; i < k->nslots; i++)
		if (k->slot[i].used)
			h->room.pages += k->slot[i].g.ept->pages;
	h->bar = hash_bar(&h->room);
}

void hash_merge_exit(struct ksm *k, struct hash *h)
{
	hash_view_close(k, h);
	ob_free(k->arena, h->scratch);
	h->scratch = NULL;
}

/* --- what is merged at all --------------------------------------------------------------------- */

/* What lies in the window, and on both sides of it. */
static void read_ground(struct hash *h, struct ksm_slot *s)
{
	struct ept *e = s->g.ept;
	struct hash_ground *g = &h->ground;
	uint64_t first = h->plan[0].page - h->plan[0].page % HASH_WINDOW;
	uint64_t n = OB_MIN(gmem_page_span(e->mem, first), HASH_WINDOW);
	uint64_t before, after;

	/* A region may begin inside of a window; then the plan is of one of the window's parts. */
	while (first + n <= h->plan[0].page) {
		first += n;
		n = OB_MIN(gmem_page_span(e->mem, first), HASH_WINDOW - first % HASH_WINDOW);
	}
	before = first && gmem_page_span(e->mem, first - 1) > 1;
	after = gmem_page_span(e->mem, first) > n;
	g->first = (uint32_t)first;
	memset(g->edge, 0, sizeof(g->edge));
	g->edge[0] = !before;
	g->edge[n + 1] = !after;
	g->frame[0] = g->frame[n + 1] = EPT_NO_FRAME;
	g->over_pool[0] = g->over_pool[n + 1] = false;
	OB_ASSERT(!ept_mappings(e, first - before, n + before + after, &g->frame[1 - before],
				&g->over_pool[1 - before]));
}

void hash_no_room(struct ksm *k, struct hash *h, uint64_t pages)
{
	if (!pages)
		return;
	k->st.skipped_vma += pages;
	if (!h->vma_warned)
		ob_warn("close to vm.max_map_count, merging less: raise it with sysctl -w "
			"vm.max_map_count=1000000");
	h->vma_warned = true;
}

/* These runs were not taken: they wait, and what was prepared for them is given back. */
static void put_off(struct ksm *k, struct hash *h, struct ksm_slot *s, unsigned int nruns)
{
	uint32_t fresh = 0;

	for (unsigned int i = 0; i < nruns; i++) {
		struct hash_run *r = &h->run[i];
		struct hash_plan *p = &h->plan[r->first];

		if (r->take)
			continue;
		fresh += hash_defer(k, s, p, r->n);
		for (unsigned int j = 0; j < r->n; j++)
			hash_forget(k, &p[j]);
	}
	/* Those that waited already have been counted. */
	if (fresh)
		hash_queue_add(&h->queue, h->plan, h->run, nruns);
	if (h->at_end)
		return;
	h->put_off += fresh;
	k->st.deferred += fresh;
	if (h->room.maps < 2)
		hash_no_room(k, h, fresh);
}

/* Keep only the entries of runs that were taken. Returns how many. */
static unsigned int keep_taken(struct hash *h, unsigned int nruns)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < nruns; i++) {
		const struct hash_run *r = &h->run[i];

		if (!r->take)
			continue;
		memmove(&h->plan[n], &h->plan[r->first], r->n * sizeof(h->plan[0]));
		n += r->n;
	}
	return n;
}

/* Choose, make frames, and choose again where that has not gone as hoped. Returns the runs that are
 * left, in h->run. */
static unsigned int choose(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_room room = h->room;
	struct ksm_stopwatch w;
	unsigned int n, made = 0;

	for (unsigned int i = 0; i < h->nplan; i++)
		if (h->plan[i].what == HASH_MAKE)
			h->plan[i].frame = EPT_NO_FRAME;
	n = hash_runs(h->plan, h->nplan, &h->ground, h->run);
	hash_pick(h->plan, h->run, n, &room, h->bar);
	put_off(k, h, s, n);
	h->nplan = keep_taken(h, n);
	hash_view_open(k, h);
	w = ksm_cost_begin(k->host, &k->st, ksm_cost_sampled(k->st.hashed_pages));
	hash_make_frames(k, h, s);
	for (unsigned int i = 0; i < h->nplan; i++)
		made += h->plan[i].what == HASH_MAKE && h->plan[i].frame != EPT_NO_FRAME;
	ksm_cost_add(&w, KSM_COST_MAKE, made);
	/* A frame that could not be had leaves a gap in its run. */
	for (unsigned int i = n = 0; i < h->nplan; i++)
		if (h->plan[i].what == HASH_ZERO || h->plan[i].frame != EPT_NO_FRAME)
			h->plan[n++] = h->plan[i];
	h->nplan = n;
	n = hash_runs(h->plan, h->nplan, &h->ground, h->run);
	hash_pick(h->plan, h->run, n, &h->room, 0);
	put_off(k, h, s, n);
	for (unsigned int i = 0; i < n; i++)
		if (h->run[i].take && !h->run[i].left && !h->run[i].right &&
		    h->plan[h->run[i].first].what == HASH_JOIN)
			k->st.restored += h->run[i].n;
	return n;
}

/* Bring the frames to compare with into our tables now: in a pause that would be 0.5 us a page. Runs
 * that were not taken have none any more. */
static void touch_frames(const struct hash *h)
{
	for (unsigned int i = 0; i < h->nplan && h->view; i++)
		if (h->plan[i].what != HASH_ZERO && h->plan[i].frame != EPT_NO_FRAME)
			(void)*(const volatile uint8_t *)(h->view + (uint64_t)h->plan[i].frame *
									    OB_PAGE_SIZE);
}

/* --- one pause ----------------------------------------------------------------------------------- */

/* What is done in one pause. */
struct batch {
	struct ept_share share[EPT_SHARE_RUNS];
	struct hash_plan *share_at[EPT_SHARE_RUNS];
	struct ept_run zero[EPT_SHARE_RUNS]; /* over no mapping of the pool */
	unsigned int nshare, nzero;
	uint64_t to_come;   /* ns that mapping what was checked will take */
	uint64_t mapped_ns; /* by the calls that map or empty */
	/* What is learnt from it, if nothing came between: units, and how long they took. */
	uint64_t units[PACE_NOPS], ns[PACE_NOPS];
};

/* Frozen: is each page of the stretch what its plan says? Sets keep. */
static void check(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
		  unsigned int n)
{
	const uint8_t *frames = p->what == HASH_ZERO ? NULL : hash_frames(k, h, p->frame, n);

	for (unsigned int i = 0; i < n; i++) {
		const void *page = page_ptr(s, p[i].page);

		p[i].keep = (frames || p->what == HASH_ZERO) && ept_frozen(s->g.ept, p[i].page);
		if (!p[i].keep)
			continue;
		if (p->what == HASH_ZERO)
			p[i].keep = ksm_page_is_zero(page);
		else if (p->what == HASH_MAKE || !(k->opts.inject & KSM_INJECT_SKIP_COMPARE))
			p[i].keep = !memcmp(page, frames + i * OB_PAGE_SIZE, OB_PAGE_SIZE);
		k->st.compare_failed += !p[i].keep;
	}
}

/* Frozen and equal: a new frame goes live, and is one that we hold like any other. */
static void publish(struct ksm *k, struct hash_plan *p, unsigned int n)
{
	if (p->what != HASH_MAKE)
		return;
	k->st.frames_made += n;
	for (unsigned int i = 0; i < n; i++) {
		ksm_frame_publish(k->domain, p[i].frame);
		p[i].what = HASH_JOIN;
		/* Whoever had it first can join now. */
		ksm_again_ask(k->domain, p[i].other);
	}
}

/* Does @p go on where the last run of the batch ends? A long run is checked piece by piece. */
static bool continues(const struct batch *b, const struct hash_plan *p)
{
	const struct ept_share *last = b->nshare ? &b->share[b->nshare - 1] : NULL;

	return last && p->what == HASH_JOIN && b->share_at[b->nshare - 1]->what == HASH_JOIN &&
	       p->page == last->page + last->n && p->frame == last->frame + last->n;
}

/* Checked: add what may be merged of a stretch to the batch; the rest is forgotten. Never more runs than
 * there is room for: a stretch is only begun when it fits whatever becomes of it. */
static void collect(struct ksm *k, struct ksm_slot *s, struct batch *b, struct hash_plan *p,
		    unsigned int n)
{
	for (unsigned int i = 0, len; i < n; i += len) {
		len = 1;
		if (!p[i].keep) {
			hash_forget(k, &p[i]);
			continue;
		}
		while (i + len < n && p[i + len].keep)
			len++;
		if (p[i].what == HASH_ZERO && !ept_over_pool(s->g.ept, p[i].page, len)) {
			b->zero[b->nzero++] = (struct ept_run){.page = p[i].page, .n = len};
			continue;
		}
		publish(k, &p[i], len);
		if (continues(b, &p[i])) {
			b->share[b->nshare - 1].n += len;
			continue;
		}
		b->share[b->nshare] = (struct ept_share){
			.page = p[i].page,
			.n = len,
			.frame = p[i].frame,
		};
		b->share_at[b->nshare++] = &p[i];
	}
}

/*
 * Where the kernel does not say which page is its zero page, one that was dropped and then only read
 * looks as if it had memory again, and is dropped again, for ever. That is no reason to go on without a
 * rest.
 */
static void dropped(struct ksm *k, struct hash *h, uint64_t pages)
{
	k->st.zero_pages += pages;
	h->pass_merged += k->host->knows_pfn ? pages : 0;
}

static void drop(struct ksm *k, struct hash *h, struct ksm_slot *s, struct batch *b)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < b->nzero; i++)
		pages += b->zero[i].n;
	if (b->nzero && ept_drop_zero_runs(s->g.ept, b->zero, b->nzero) >= 0)
		dropped(k, h, pages);
}

static void map_failed(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_plan *p,
		       unsigned int n, int err)
{
	k->st.map_failed++;
	if (!h->map_warned)
		ob_warn("the host does not map shared pages (%s), merging less", strerror(-err));
	h->map_warned = true;
	hash_defer(k, s, p, n);
	h->retry += n;
	for (unsigned int i = 0; i < n; i++)
		hash_forget(k, &p[i]);
}

/* One call that changes mappings has been made: every fault in this process may have waited for it. */
static void stalled(struct ksm *k, struct batch *b, uint64_t ns)
{
	unsigned int others = 0;

	b->mapped_ns += ns;
	for (unsigned int i = 0; i < k->nslots; i++)
		others += k->slot[i].used;
	if (others < 2 || !ns)
		return;
	k->st.stall_ns += ns;
	k->st.pauses.stall[ksm_lat_bucket(ns)]++;
}

static void note(struct batch *b, enum pace_op op, uint64_t n, uint64_t ns)
{
	b->units[op] += n;
	b->ns[op] += ns;
}

static void note_run(const struct hash *h, struct batch *b, const struct ept_share *r)
{
	uint64_t once = pace_cost(&h->pace, PACE_REPLACE, 1);

	if (r->emptied)
		note(b, PACE_MAP, 1, r->ns);
	else if (r->n >= 32)
		note(b, PACE_FREE, r->n, r->ns - OB_MIN(r->ns, once));
	else if (r->n <= 4)
		note(b, PACE_REPLACE, 1, r->ns);
}

static void map(struct ksm *k, struct hash *h, struct ksm_slot *s, struct batch *b)
{
	uint64_t empty_ns, emptied = 0;

	if (!b->nshare)
		return;
	OB_ASSERT(ept_share_runs(s->g.ept, b->share, b->nshare, k->domain->pool_fd, &empty_ns) >=
		  0);
	for (unsigned int i = 0; i < b->nshare; i++) {
		const struct ept_share *r = &b->share[i];

		stalled(k, b, r->ns);
		note_run(h, b, r);
		emptied += r->emptied ? r->n : 0;
		if (r->err) {
			map_failed(k, h, s, b->share_at[i], (unsigned int)r->n, r->err);
			continue;
		}
		k->st.merged_pages += r->n;
		k->st.merge_runs++;
		h->pass_merged += r->n;
	}
	stalled(k, b, empty_ns);
	note(b, PACE_EMPTY, emptied, empty_ns);
}

/* Zeroes over mappings of the pool: each run takes a mapping. */
static void drop_over_pool(struct ksm *k, struct hash *h, struct ksm_slot *s, struct batch *b)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < b->nshare; i++) {
		const struct hash_plan *p = b->share_at[i];
		uint64_t t0, ns;

		if (p->what != HASH_ZERO) {
			b->share[n] = b->share[i];
			b->share_at[n++] = b->share_at[i];
			continue;
		}
		t0 = k->host->ops->now_ns(k->host);
		if (ept_drop_zero(s->g.ept, p->page, b->share[i].n) >= 0)
			dropped(k, h, b->share[i].n);
		ns = k->host->ops->now_ns(k->host) - t0;
		note(b, PACE_REPLACE, 1, ns);
		stalled(k, b, ns);
	}
	b->nshare = n;
}

/* Where merging of the window is: entry @off of run @run. */
struct place {
	unsigned int run, off;
};

/* Frozen since @t0: check as much as the pause has time for. Goes on with @at. */
static void check_batch(struct ksm *k, struct hash *h, struct ksm_slot *s, struct batch *b,
			struct place *at, unsigned int nruns, uint64_t t0)
{
	const struct ob_host_ops *ops = k->host->ops;

	while (at->run < nruns) {
		const struct hash_run *r = &h->run[at->run];
		unsigned int n = r->n - at->off;
		uint64_t now, cost;
		uint32_t fit;

		if (!r->take || !n) {
			*at = (struct place){.run = at->run + 1};
			continue;
		}
		now = ops->now_ns(k->host);
		n = OB_MIN(n, HASH_COMPARE_PAGES);
		fit = pace_fit(&h->pace, pace_left(&h->pace, now - t0 + b->to_come), n,
			       r->n <= EPT_SHARE_EMPTY, &cost);
		/* Every pause does something. */
		if (!fit && b->units[PACE_CHECK])
			break;
		fit = OB_MAX(fit, 1);
		if (b->nshare + fit > EPT_SHARE_RUNS || b->nzero + fit > EPT_SHARE_RUNS)
			break;
		check(k, h, s, &h->plan[r->first + at->off], fit);
		note(b, PACE_CHECK, fit, ops->now_ns(k->host) - now);
		b->to_come += cost - OB_MIN(cost, pace_cost(&h->pace, PACE_CHECK, fit));
		collect(k, s, b, &h->plan[r->first + at->off], fit);
		at->off += fit;
	}
}

static void learn(struct ksm *k, struct hash *h, struct batch *b, const struct pace_pause *z)
{
	uint64_t known = z->park + b->ns[PACE_CHECK] + b->mapped_ns, work = z->whole - z->park;

	note(b, PACE_REST, 1, z->whole - OB_MIN(z->whole, known));
	/* A thread that was off its CPU has not learnt what the work takes. */
	for (unsigned int i = 0; i < b->nshare && !z->preempted; i++) {
		const struct ept_share *r = &b->share[i];

		if (!r->err)
			ksm_cost_note(&k->st, r->n > 1 ? KSM_COST_SHARE_RUN : KSM_COST_SHARE_ONE,
				      r->ns, r->n);
	}
	for (unsigned int i = 0; i < PACE_NOPS && work <= z->work_cpu + z->work_cpu / 4; i++)
		pace_learn(&h->pace, (enum pace_op)i, b->units[i], b->ns[i]);
}

static void merge_batch(struct ksm *k, struct hash *h, struct ksm_slot *s, struct place *at,
			unsigned int nruns)
{
	uint64_t first = h->plan[h->run[at->run].first + at->off].page, zeroes;
	struct batch b = {.nshare = 0};
	struct hash_pause p;
	struct ksm_stopwatch w = ksm_cost_begin(k->host, &k->st, ksm_cost_sampled(k->st.freezes));

	hash_pause_begin(k, h, s, first, h->plan[h->nplan - 1].page - first + 1, &p);
	ksm_cost_add(&w, KSM_COST_FREEZE, 1);
	b.to_come = pace_cost(&h->pace, PACE_REST, 1);
	check_batch(k, h, s, &b, at, nruns, p.t0);
	ksm_cost_add(&w, KSM_COST_COMPARE, b.units[PACE_CHECK]);
	zeroes = k->st.zero_pages;
	drop(k, h, s, &b);
	drop_over_pool(k, h, s, &b);
	ksm_cost_add(&w, KSM_COST_ZERO, k->st.zero_pages - zeroes);
	map(k, h, s, &b);
	ksm_cost_add(&w, KSM_COST_FREEZE, 0); /* mapping is told run by run */
	hash_pause_end(k, h, s, &p);
	ksm_cost_more(&w, KSM_COST_FREEZE);
	learn(k, h, &b, &p.z);
}

void hash_merge(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct place at = {.run = 0};
	unsigned int n;

	read_ground(h, s);
	n = choose(k, h, s);
	touch_frames(h);
	while (at.run < n) {
		if (!h->run[at.run].take || at.off == h->run[at.run].n)
			at = (struct place){.run = at.run + 1};
		else
			merge_batch(k, h, s, &at, n);
	}
	h->nplan = 0;
}
