/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_interactions.c: every two features at once.
 *
 * A feature is an actor: a step that is repeated in a thread of its own beside two guests that write
 * to their memory and verify it all the time. For each pair both actors run together for a while;
 * afterwards no guest has found a wrong page or has ended, and each map agrees with the kernel's.
 * docs/interactions.md says of each pair how the two meet; that every pair has its line there is
 * checked here, too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rig.h"

#define PAGES	  (RIG_MEM / OB_PAGE_SIZE)
#define PAIR_MS	  150
#define LONG_MS	  3000
#define SHELF_MAX PAGES

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* A tier that keeps copies; slot = page. */
struct shelf {
	pthread_mutex_t lock;
	uint8_t *page[SHELF_MAX];
};

static int shelf_load(void *arg, uint32_t slot, void *page)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	memcpy(page, s->page[slot], OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void shelf_drop(void *arg, uint32_t slot)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	free(s->page[slot]);
	s->page[slot] = NULL;
	pthread_mutex_unlock(&s->lock);
}

static const struct ept_tier_ops shelf_ops = {
	.name = "shelf", .around = 4, .load = shelf_load, .drop = shelf_drop};

/* What the actors work on. */
struct stage {
	struct rig rig;
	struct shelf shelf[RIG_GUESTS];
	int consumer[RIG_GUESTS];
	struct ept_wset wset[RIG_GUESTS];
	bool huge;
	/* Pages that the guest never uses, for the balloon: [first, first + n). */
	uint64_t spare[RIG_GUESTS], nspare[RIG_GUESTS];
	_Atomic bool stop;
	_Atomic uint64_t steps[16];
	const char *_Atomic failed; /* what an actor found wrong */
};

/* An actor's step; @seed is its own. */
typedef void (*actor_fn)(struct stage *s, unsigned int g, uint64_t *seed);

static void wrong(struct stage *s, const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&s->failed, &none, what);
}

static struct ept_run stretch(uint64_t *seed, uint64_t most)
{
	struct ept_run run = {.page = rnd(seed) % PAGES};

	run.n = 1 + rnd(seed) % OB_MIN(most, PAGES - run.page);
	return run;
}

/* --- the actors -------------------------------------------------------------------------- */

static void act_merge(struct stage *s, unsigned int g, uint64_t *seed)
{
	(void)g;
	(void)seed;
	ksm_step(s->rig.k, s->rig.host.ops->now_ns(&s->rig.host), 512);
	ksm_domain_reap(s->rig.coord, 4096);
}

static void act_take(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct ept_run run = stretch(seed, 300);

	if (ept_take(&s->rig.ept[g], &run, 1, false) < 0)
		wrong(s, "taking pages failed");
	if (rnd(seed) % 2 && ept_put_back(&s->rig.ept[g], &run, 1) < 0)
		wrong(s, "putting pages back failed");
}

static void shelve(struct stage *s, unsigned int g, uint64_t page)
{
	_Alignas(64) uint8_t buf[OB_PAGE_SIZE];
	struct ept_tiered t = {.page = page, .slot = (uint32_t)page};
	struct shelf *shelf = &s->shelf[g];

	if (ept_stage_read(&s->rig.ept[g], page, buf, &t.ticket))
		return;
	pthread_mutex_lock(&shelf->lock);
	if (shelf->page[page]) { /* its last stay is not cleared away yet */
		pthread_mutex_unlock(&shelf->lock);
		return;
	}
	shelf->page[page] = malloc(OB_PAGE_SIZE);
	memcpy(shelf->page[page], buf, OB_PAGE_SIZE);
	pthread_mutex_unlock(&shelf->lock);
	if (ept_to_tier(&s->rig.ept[g], EPT_COMPRESSED, &t, 1) < 0)
		wrong(s, "handing a page to its tier failed");
	if (!t.done)
		shelf_drop(shelf, (uint32_t)page);
}

static void act_tier(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct ept_run run = stretch(seed, 32);

	if (ept_take(&s->rig.ept[g], &run, 1, false) < 0)
		wrong(s, "taking pages failed");
	for (uint64_t p = run.page; p < run.page + run.n; p++)
		shelve(s, g, p);
	if (rnd(seed) % 2 && ept_load(&s->rig.ept[g], run.page, run.n) < 0)
		wrong(s, "loading pages failed");
}

/* As a guest's driver and its device would: something is in the page, it is given up, comes back. */
static void act_balloon(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct gmem *mem = &s->rig.vm[g]->mem;
	uint64_t page, word = 0x5ca1ab1e0ddba11ULL;
	gpa_t at;
	int r;

	if (!s->nspare[g])
		return;
	page = s->spare[g] + rnd(seed) % s->nspare[g];
	at = gfn_gpa(gmem_page_gfn(mem, page));
	r = gmem_write(mem, at, &word, sizeof(word));
	if (!r && ept_balloon(&s->rig.ept[g], page, 1, true) < 0)
		wrong(s, "inflating failed");
	if (!r)
		r = gmem_read(mem, at, &word, sizeof(word));
	if (!r && word)
		wrong(s, "a page that came out of the balloon is not zero");
	if (r && r != -EBUSY)
		wrong(s, "the device cannot reach memory");
	if (ept_balloon(&s->rig.ept[g], page, 1, false) < 0)
		wrong(s, "deflating failed");
}

static void act_track(struct stage *s, unsigned int g, uint64_t *seed)
{
	uint64_t bits[PAGES / 64], unknown;

	(void)seed;
	if (ept_track_collect(&s->rig.track[g]) ||
	    ept_track_take(&s->rig.track[g], s->consumer[g], 0, PAGES, bits, &unknown) < 0)
		wrong(s, "written pages cannot be collected");
}

static void act_zap(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct ept_run run[32];
	bool zapped[32];
	unsigned int n = 0;

	for (uint64_t p = rnd(seed) % 64; n < 32 && p < PAGES; p += 1 + rnd(seed) % 200)
		run[n++] = (struct ept_run){.page = p, .n = 1};
	if (ept_zap(&s->rig.ept[g], run, n, zapped) < 0)
		wrong(s, "emptying page-table entries failed");
}

/* Reads from disk, half of them held up while they are under way. */
static void act_disk(struct stage *s, unsigned int g, uint64_t *seed)
{
	atomic_store(&s->rig.vm[g]->disk[0].delay_ns, rnd(seed) % 2 ? OB_NS_PER_MS : 0);
	rig_nap_ms(2);
}

static void act_pause(struct stage *s, unsigned int g, uint64_t *seed)
{
	vm_park(s->rig.vm[g]);
	if (rnd(seed) % 2)
		rig_nap_ms(1);
	vm_unpark(s->rig.vm[g]);
}

static void act_verify(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct ept_verify v;

	(void)seed;
	if (ept_verify(&s->rig.ept[g], &v) || v.differences)
		wrong(s, v.differences ? v.first[0].why : "verifying failed");
}

static void act_walk(struct stage *s, unsigned int g, uint64_t *seed)
{
	struct vm *vm = s->rig.vm[g];
	const struct ept_walk_mem mem = {.read = ept_walk_read_gmem, .arg = &vm->mem};
	gva_t gva = {rnd(seed) % RIG_MEM};
	struct vcpu_paging regs;
	struct ept_walk w;
	struct ob_err e;
	int r;

	vm_park(vm);
	if (vcpu_read_paging(vm, 0, &regs, &e)) {
		wrong(s, "registers cannot be read");
	} else {
		r = ept_walk(&regs, &mem, gva, &w);
		/* The guest maps its memory one to one. */
		if (r ? r != -EBUSY : w.gpa.v != gva.v)
			wrong(s, "a walk went astray");
	}
	vm_unpark(vm);
}

static void act_sample(struct stage *s, unsigned int g, uint64_t *seed)
{
	(void)seed;
	ept_wset_step(&s->wset[g], s->rig.host.ops->now_ns(&s->rig.host));
	rig_nap_ms(1);
}

/* Break a unit, or build it if that is possible: most have pages that are shared or out. */
static void act_huge(struct stage *s, unsigned int g, uint64_t *seed)
{
	uint64_t unit = rnd(seed) % (PAGES / EPT_UNIT_PAGES);
	int64_t r;

	if (rnd(seed) % 2)
		r = ept_huge_break(&s->rig.ept[g], unit);
	else
		r = ept_huge_build(&s->rig.ept[g], unit);
	if (r < 0 && r != -EINVAL && r != -EBUSY && r != -EAGAIN && r != -ENOMEM)
		wrong(s, "a unit could be neither broken nor built");
}

static bool unit_is_huge(void *arg, uint64_t page)
{
	return ept_unit_is_huge(arg, page);
}

static const struct actor {
	const char *name;
	actor_fn step;
} actors[] = {
	{"merge", act_merge},	  {"take", act_take},	  {"tier", act_tier},
	{"balloon", act_balloon}, {"track", act_track},	  {"zap", act_zap},
	{"disk", act_disk},	  {"pause", act_pause},	  {"verify", act_verify},
	{"walk", act_walk},	  {"sample", act_sample}, {"huge", act_huge},
};
#define NACTORS OB_ARRAY_SIZE(actors)

/* --- the play ---------------------------------------------------------------------------- */

struct part {
	struct stage *s;
	unsigned int actor;
	pthread_t thread;
};

static void *part_thread(void *arg)
{
	struct part *p = arg;
	uint64_t seed = 0x9e3779b97f4a7c15ULL * (p->actor + 1);

	for (unsigned int g = 0; !p->s->stop; g = (g + 1) % RIG_GUESTS) {
		actors[p->actor].step(p->s, g, &seed);
		p->s->steps[p->actor]++;
	}
	return NULL;
}

/* The third of free memory that the guest does not touch, before the third that it has left dirty. */
static void find_spare(struct stage *s, unsigned int g)
{
	struct agent_report r = rig_report(&s->rig, g);
	uint64_t dirty = r.free_dirty_pages, untouched = r.free_clean_pages;

	/* Not its ends: the thirds may differ by a page. */
	s->nspare[g] = untouched > 8 ? untouched - 8 : 0;
	s->spare[g] = PAGES - dirty - untouched + 4;
	/* A huge page brings memory for its neighbours with it. */
	for (uint64_t i = 0; i < s->nspare[g] && !s->huge; i++)
		cr_assert_eq(ept_state_of(&s->rig.ept[g], s->spare[g] + i), EPT_UNTOUCHED,
			     "page %llu is no spare one", (unsigned long long)(s->spare[g] + i));
}

static void open_stage(struct stage *s, const char *workload, bool huge)
{
	memset(s, 0, sizeof(*s));
	s->huge = huge;
	if (huge)
		rig_make_huge(&s->rig, workload, &(struct ept_huge_rule){.threshold = 64});
	else
		rig_make(&s->rig, workload);
	rig_start(&s->rig);
	for (unsigned int g = 0; g < RIG_GUESTS; g++) {
		struct ept *e = &s->rig.ept[g];
		struct ept_wset_opts o = ept_wset_defaults();

		o.period_ns = EPT_WSET_MIN_PERIOD;
		o.seed = g + 1;
		o.unit_is_huge = huge ? unit_is_huge : NULL;
		o.huge_arg = e;
		cr_assert(!ept_wset_init(&s->wset[g], e, &o));
		cr_assert(!ept_sync(e, 0, PAGES, NULL));
		find_spare(s, g);
		pthread_mutex_init(&s->shelf[g].lock, NULL);
		cr_assert(!ept_set_tier(e, EPT_COMPRESSED, &shelf_ops, &s->shelf[g]));
		/* The rig's, which merging looks at too: KVM's log has one reader. */
		cr_assert(!ept_track_on(&s->rig.track[g], 0, PAGES));
		s->consumer[g] = ept_track_consumer_add(&s->rig.track[g]);
		cr_assert(s->consumer[g] >= 0);
	}
}

static void close_stage(struct stage *s)
{
	for (unsigned int g = 0; g < RIG_GUESTS; g++) {
		const struct ept_run all = {.page = 0, .n = PAGES};
		struct ept *e = &s->rig.ept[g];

		atomic_store(&s->rig.vm[g]->disk[0].delay_ns, 0);
		ept_wset_exit(&s->wset[g]);
		cr_assert(ept_load(e, 0, PAGES) >= 0);
		cr_assert(ept_put_back(e, &all, 1) >= 0);
		ept_track_consumer_remove(&s->rig.track[g], s->consumer[g]);
	}
	rig_unmake(&s->rig);
	for (unsigned int g = 0; g < RIG_GUESTS; g++)
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert(!s->shelf[g].page[p], "a slot of the tier was never dropped");
}

static void all_is_well(struct stage *s, const char *a, const char *b)
{
	for (unsigned int g = 0; g < RIG_GUESTS; g++) {
		struct ept_verify v;

		cr_assert_eq(atomic_load(&s->rig.vm[g]->state), VM_RUNNING,
			     "%s and %s: guest %u ended: %s", a, b, g, s->rig.vm[g]->reason);
		cr_assert_eq(rig_report(&s->rig, g).mismatches, 0,
			     "%s and %s: guest %u found a wrong page", a, b, g);
		cr_assert(!ept_verify(&s->rig.ept[g], &v));
		cr_assert_eq(v.differences, 0, "%s and %s: guest %u, page %llu: %s", a, b, g,
			     (unsigned long long)v.first[0].page, v.first[0].why);
	}
}

static void play(struct stage *s, unsigned int a, unsigned int b, long ms)
{
	struct part part[2] = {{.s = s, .actor = a}, {.s = s, .actor = b}};

	s->stop = false;
	s->steps[a] = s->steps[b] = 0;
	for (int i = 0; i < 2; i++)
		cr_assert(!pthread_create(&part[i].thread, NULL, part_thread, &part[i]));
	rig_nap_ms(ms);
	/* Both have had their turn, however busy the host is. */
	for (int i = 0; i < 1000 && (!s->steps[a] || !s->steps[b]); i++)
		rig_nap_ms(5);
	s->stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(part[i].thread, NULL);
	cr_assert(s->steps[a] && s->steps[b], "%s and %s did not run", actors[a].name,
		  actors[b].name);
	cr_assert_null(s->failed, "%s and %s: %s", actors[a].name, actors[b].name, s->failed);
	all_is_well(s, actors[a].name, actors[b].name);
}

static void every_pair(const char *workload, bool huge)
{
	const struct ept_run probe = {.page = 0, .n = 1};
	struct stage *s = calloc(1, sizeof(*s));
	int64_t r;

	NEED_KVM();
	open_stage(s, workload, huge);
	r = ept_take(&s->rig.ept[0], &probe, 1, false);
	if (r == -EPERM || r == -EOPNOTSUPP) {
		close_stage(s);
		cr_skip_test("no userfaultfd that answers for KVM");
	}
	for (unsigned int a = 0; a < NACTORS; a++)
		for (unsigned int b = a + 1; b < NACTORS; b++) {
			if (!huge && (actors[a].step == act_huge || actors[b].step == act_huge))
				continue;
			play(s, a, b, getenv("OB_LONG") ? LONG_MS : PAIR_MS);
		}
	close_stage(s);
	free(s);
}

Test(interactions, every_pair_under_guests_that_allocate, .timeout = 600)
{
	every_pair("churn", false);
}

Test(interactions, every_pair_under_guests_that_read_files, .timeout = 600)
{
	every_pair("filecache", false);
}

Test(interactions, every_pair_on_huge_pages, .timeout = 600)
{
	every_pair("churn", true);
}

/* | a | b | how they meet | in docs/interactions.md, a line a pair. */
Test(interactions, every_pair_has_its_line)
{
	bool seen[NACTORS][NACTORS] = {0};
	char line[1024], a[32], b[32];
	FILE *f = fopen("docs/interactions.md", "r");

	cr_assert(f, "run from the checkout: docs/interactions.md");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "| %31[a-z] | %31[a-z] |", a, b) != 2)
			continue;
		for (unsigned int i = 0; i < NACTORS; i++)
			for (unsigned int j = i + 1; j < NACTORS; j++)
				if (!strcmp(a, actors[i].name) && !strcmp(b, actors[j].name)) {
					cr_expect(!seen[i][j], "%s and %s have two lines", a, b);
					seen[i][j] = true;
				}
	}
	fclose(f);
	for (unsigned int i = 0; i < NACTORS; i++)
		for (unsigned int j = i + 1; j < NACTORS; j++)
			cr_expect(seen[i][j], "%s and %s have no line", actors[i].name,
				  actors[j].name);
}
