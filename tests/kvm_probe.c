/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_probe.c: what a guest learns about another by timing its own writes (docs/threat-model.md): all
 * of it where both are in one sharing domain, nothing where they are not. The spy runs the workload
 * probe, its victim same; both are in this process, under one host and one scanner, so that nothing
 * but the domain differs.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ksm/ksm.h"
#include "tests/memrig.h"

#define GUESSES 512
#define MEM	(16 * OB_MIB)
#define PAGES	(MEM / OB_PAGE_SIZE)
#define ROUNDS	2
#define TWINS	256 /* pages of the spy that are there twice in its own memory */
/* A test that is right may fail by chance so often. */
#define CHANCE 1e-6

enum who { SPY, VICTIM, NWHO };

/* A domain and what merges in it. */
struct realm {
	int pool_fd, meta_fd;
	struct ksm_domain *coord, *domain;
	struct ksm *k;
};

struct town {
	struct bench_rig rig;
	struct ob_arena *arena;
	struct realm realm[NWHO];
	unsigned int nrealms;
	pthread_t scanner;
	_Atomic bool scan;
};

static struct realm *realm_of(struct town *t, enum who w)
{
	return &t->realm[t->nrealms == 1 ? 0 : w];
}

static void realm_make(struct town *t, struct realm *r)
{
	const struct ksm_opts opts = {.pass_gap_ns = 10 * OB_NS_PER_MS};
	struct ob_host *h = &t->rig.host;

	cr_assert(!ksm_domain_create(h, NWHO * PAGES, 1, &r->pool_fd, &r->meta_fd));
	cr_assert(!ksm_domain_open(h, r->pool_fd, r->meta_fd, KSM_NO_CELL, t->arena, &r->coord));
	cr_assert(!ksm_domain_open(h, r->pool_fd, r->meta_fd, 0, t->arena, &r->domain));
	cr_assert(!ksm_new(&r->k, ksm_engine_find("hash"), h, r->domain, &opts, t->arena));
}

static void realm_unmake(struct realm *r)
{
	ksm_stop(r->k);
	ksm_free(r->k);
	ksm_domain_close(r->domain);
	ksm_domain_close(r->coord);
	close(r->pool_fd);
	close(r->meta_fd);
}

static void *scanner(void *arg)
{
	const struct timespec nap = {.tv_nsec = 2 * 1000 * 1000};
	struct town *t = arg;

	while (t->scan) {
		uint64_t now = t->rig.host.ops->now_ns(&t->rig.host), rest = UINT64_MAX;

		for (unsigned int i = 0; i < t->nrealms; i++) {
			rest = OB_MIN(rest, ksm_step(t->realm[i].k, now, 512));
			ksm_domain_reap(t->realm[i].coord, UINT64_MAX);
		}
		if (rest)
			nanosleep(&nap, NULL);
	}
	return NULL;
}

static void town_make(struct town *t, unsigned int domains)
{
	struct bench_rig_config cfg = memrig_config("probe:0:512", NWHO);
	struct ob_err e = {""};

	memset(t, 0, sizeof(*t));
	cfg.mem_bytes = MEM;
	cfg.workload[VICTIM] = "same:0";
	cr_assert_eq(bench_rig_open(&t->rig, &cfg, &e), 0, "%s", e.msg);
	t->arena = ob_arena_new("probe");
	t->nrealms = domains;
	for (unsigned int i = 0; i < domains; i++)
		realm_make(t, &t->realm[i]);
	for (unsigned int w = 0; w < NWHO; w++)
		cr_assert(!ksm_add_guest(realm_of(t, w)->k, &(struct ksm_guest){
								    .ept = &t->rig.guest[w].ept,
								    .vm = w,
								    .page_base = w * PAGES,
							    }));
	cr_assert_eq(bench_rig_start(&t->rig, &e), 0, "%s", e.msg);
	for (unsigned int i = 0; i < domains; i++)
		cr_assert(!ksm_start(t->realm[i].k, &e), "%s", e.msg);
	t->scan = true;
	cr_assert(!pthread_create(&t->scanner, NULL, scanner, t));
}

static void town_unmake(struct town *t)
{
	struct ob_err e = {""};

	t->scan = false;
	pthread_join(t->scanner, NULL);
	for (unsigned int w = 0; w < NWHO; w++) {
		vm_stop(t->rig.guest[w].vm);
		ksm_remove_guest(realm_of(t, w)->k, w);
	}
	for (unsigned int i = 0; i < t->nrealms; i++)
		realm_unmake(&t->realm[i]);
	cr_assert_eq(bench_rig_close(&t->rig, &e), 0, "%s", e.msg);
	cr_assert_eq(ob_arena_bytes(t->arena), 0);
	ob_arena_free(t->arena);
}

static uint64_t shared(struct town *t, enum who w)
{
	struct ept_stats st;

	ept_read_stats(&t->rig.guest[w].ept, &st);
	return st.state[EPT_SHARED];
}

static uint64_t passes(struct town *t, enum who w)
{
	struct ksm_stats st;

	ksm_read_stats(realm_of(t, w)->k, &st);
	return st.passes;
}

/*
 * Everything that will be merged has been: there is no more for three passes, and what must be
 * merged, @least pages of the spy, is.
 */
static void settle(struct town *t, uint64_t least)
{
	for (unsigned int tries = 0; tries < 600; tries++) {
		uint64_t n = shared(t, SPY), v = shared(t, VICTIM), done = passes(t, SPY);

		while (passes(t, SPY) < done + 3)
			cli_nap_ms(5);
		if (n >= least && n == shared(t, SPY) && v == shared(t, VICTIM))
			return;
	}
	cr_assert(false, "it does not settle: %llu and %llu pages are shared",
		  (unsigned long long)shared(t, SPY), (unsigned long long)shared(t, VICTIM));
}

/* Let the spy make its guesses now. */
static struct agent_report ask(struct town *t, uint64_t n)
{
	struct agent_ping *p = (struct agent_ping *)memrig_page(&t->rig, SPY, 0);
	struct agent_report r = {0};
	struct ob_err e = {""};

	__atomic_store_n(&p->ask, n, __ATOMIC_RELEASE);
	for (int i = 0; i < 6000 && __atomic_load_n(&p->done, __ATOMIC_ACQUIRE) != n; i++) {
		cli_nap_ms(5);
		cr_assert_eq(bench_rig_look(&t->rig, &e), 0, "%s", e.msg);
	}
	cr_assert_eq(__atomic_load_n(&p->done, __ATOMIC_ACQUIRE), n, "the spy does not answer");
	cr_assert(agent_read_report(&t->rig.guest[SPY].vm->agent, &r));
	cr_assert_eq(r.probe_guesses, GUESSES);
	return r;
}

/* Of @n fair coins, at least @k heads: how likely? */
static double tail(unsigned int n, unsigned int k)
{
	double sum = 0;

	for (unsigned int i = k; i <= n; i++)
		sum += exp(lgamma(n + 1.0) - lgamma(i + 1.0) - lgamma(n - i + 1.0) - n * log(2));
	return sum;
}

/* So many right answers who guesses has less often than CHANCE. */
static unsigned int more_than_chance(unsigned int n)
{
	unsigned int k = n / 2;

	while (tail(n, k) > CHANCE)
		k++;
	return k;
}

Test(probe, the_bound_is_that_of_the_binomial_distribution)
{
	cr_assert_float_eq(tail(2, 1), 0.75, 1e-9);
	cr_assert_float_eq(tail(10, 9), 11.0 / 1024, 1e-9);
	cr_assert_float_eq(tail(GUESSES, 0), 1, 1e-9);
	/* 256 + 4.75 standard deviations of 11.3 each. */
	cr_assert_geq(more_than_chance(GUESSES), 307);
	cr_assert_leq(more_than_chance(GUESSES), 313);
}

/* What it could learn, if it did: the yes-or-no of nine guesses of ten. */
Test(probe, within_a_domain_the_spy_learns_what_its_victim_holds, .timeout = 120)
{
	struct town t;

	NEED_KVM();
	town_make(&t, 1);
	for (unsigned int i = 1; i <= ROUNDS; i++) {
		struct agent_report r;

		settle(&t, TWINS + GUESSES / 2);
		r = ask(&t, i);
		cr_assert_geq(r.probe_right, GUESSES * 9 / 10,
			      "round %u: %llu of %d right; held %llu ns, not held %llu ns", i,
			      (unsigned long long)r.probe_right, GUESSES,
			      (unsigned long long)r.probe_held_ns,
			      (unsigned long long)r.probe_other_ns);
		cr_assert_gt(r.probe_held_ns, r.probe_other_ns);
		/* The measure works: the spy sees its own doubles. */
		cr_assert_gt(r.probe_twice_ns, r.probe_once_ns);
	}
	town_unmake(&t);
}

Test(probe, across_domains_it_learns_nothing, .timeout = 120)
{
	unsigned int bound = more_than_chance(GUESSES);
	struct town t;

	NEED_KVM();
	town_make(&t, 2);
	for (unsigned int i = 1; i <= ROUNDS; i++) {
		struct agent_report r;

		settle(&t, TWINS);
		r = ask(&t, i);
		/* It has the same measure as above, and it is as good: */
		cr_assert_gt(r.probe_twice_ns, r.probe_once_ns);
		/* right no more often than a coin, and wrong no more often either. */
		cr_assert(r.probe_right < bound && r.probe_right > GUESSES - bound,
			  "round %u: %llu of %d right", i, (unsigned long long)r.probe_right,
			  GUESSES);
	}
	town_unmake(&t);
}
