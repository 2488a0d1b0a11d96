/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_domain_life.c: two tenants in the test's own process. The guests of one stay, those of the other
 * are made and destroyed while a thread merges both. Whenever the other tenant's last guest is gone, all
 * that it had is the host's again, down to the blocks of its pool's file; and the first has lost nothing.
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "tests/rig.h"

#define ROUNDS	     4
#define TENANT_PAGES (RIG_MEM / OB_PAGE_SIZE)

struct life_guest {
	struct vm *vm;
	struct ept ept;
	struct ept_track track;
};

/* The tenant whose guests come and go; host, KVM, kernel and disk are the rig's. */
struct life {
	struct rig r;
	struct ksm_domain *coord, *domain;
	int pool_fd, meta_fd;
	struct ksm *k;
	struct life_guest guest[2];
	struct ob_mutex step; /* held during a step, and to add or remove a guest */
	pthread_t scanner;
	_Atomic bool scan;
};

static void park(void *vm)
{
	vm_park(vm);
}

static void unpark(void *vm)
{
	vm_unpark(vm);
}

static void fail(void *vm, const char *why)
{
	vm_fail(vm, "%s", why);
}

static void *scanner(void *arg)
{
	struct life *l = arg;

	while (l->scan) {
		ob_lock(&l->step);
		ksm_step(l->r.k, l->r.host.ops->now_ns(&l->r.host), 512);
		ksm_step(l->k, l->r.host.ops->now_ns(&l->r.host), 512);
		ob_unlock(&l->step);
		ksm_domain_reap(l->r.coord, 4096);
		ksm_domain_reap(l->coord, 4096);
	}
	return NULL;
}

static void life_make(struct life *l)
{
	const struct ksm_opts opts = {.pass_gap_ns = OB_NS_PER_MS};
	struct ob_host *h = &l->r.host;
	struct ob_err e;

	rig_make(&l->r, "idle");
	rig_start(&l->r);
	cr_assert(!ksm_domain_create(h, 2 * TENANT_PAGES, 1, &l->pool_fd, &l->meta_fd));
	cr_assert(!ksm_domain_open(h, l->pool_fd, l->meta_fd, KSM_NO_CELL, l->r.arena, &l->coord));
	cr_assert(!ksm_domain_open(h, l->pool_fd, l->meta_fd, 0, l->r.arena, &l->domain));
	cr_assert(!ksm_new(&l->k, ksm_engine_find("hash"), h, l->domain, &opts, l->r.arena));
	cr_assert(!ksm_start(l->k, &e), "%s", e.msg);
	ob_mutex_init(&l->step, OB_RANK_SCAN);
	l->scan = true;
	cr_assert(!pthread_create(&l->scanner, NULL, scanner, l));
}

static void life_unmake(struct life *l)
{
	l->scan = false;
	pthread_join(l->scanner, NULL);
	ob_mutex_destroy(&l->step);
	ksm_free(l->k);
	ksm_domain_close(l->domain);
	ksm_domain_close(l->coord);
	close(l->pool_fd);
	close(l->meta_fd);
	rig_unmake(&l->r);
}

static void guest_begin(struct life *l, unsigned int i, unsigned int id)
{
	const struct life_guest zero = {.vm = NULL};
	struct life_guest *g = &l->guest[i];
	char cmdline[128];
	struct vm_config cfg = {
		.id = id,
		.mem_bytes = RIG_MEM,
		.kernel = l->r.kernel,
		.kernel_len = l->r.kernel_len,
		.cmdline = cmdline,
		.disk[0].fd = l->r.image_fd,
		.ndisks = l->r.image_fd >= 0,
		.console_fd = -1,
		.worker = l->r.worker,
	};
	struct ob_err e;

	*g = zero;
	snprintf(cmdline, sizeof(cmdline), "workload=kv seed=%u common=1 guest=%u", id, id);
	cr_assert(!vm_create(&g->vm, &l->r.kvm, &l->r.host, &cfg, &e), "%s", e.msg);
	cr_assert(!ept_init(
		&g->ept, &l->r.host, &g->vm->mem,
		(struct ept_parker){.park = park, .unpark = unpark, .fail = fail, .arg = g->vm},
		l->r.arena));
	ept_track_init(&g->track, ept_log_kvm(g->vm), &g->vm->mem, l->r.arena);
	ept_track_attach(&g->ept, &g->track);
	ob_lock(&l->step);
	cr_assert(!ksm_add_guest(l->k, &(struct ksm_guest){
					       .ept = &g->ept,
					       .vm = id,
					       .page_base = (uint64_t)id * TENANT_PAGES,
					       .track = &g->track,
				       }));
	ob_unlock(&l->step);
	cr_assert(!vm_start(g->vm, &e), "%s", e.msg);
}

static void guest_end(struct life *l, unsigned int i, unsigned int id)
{
	struct life_guest *g = &l->guest[i];
	struct agent_report rep = {0};
	struct ept_verify v;

	vm_stop(g->vm);
	cr_assert_eq(g->vm->end, VM_END_ASKED, "guest %u: %s", id, g->vm->reason);
	agent_read_report(&g->vm->agent, &rep);
	cr_assert_eq(rep.mismatches, 0);
	vm_detach(g->vm);
	ob_lock(&l->step);
	cr_assert(!ept_verify(&g->ept, &v));
	cr_assert_eq(v.differences, 0, "guest %u: page %llu: %s", id,
		     (unsigned long long)v.first[0].page, v.first[0].why);
	ksm_remove_guest(l->k, id);
	ob_unlock(&l->step);
	ept_track_attach(&g->ept, NULL);
	ept_track_exit(&g->track);
	ept_exit(&g->ept);
	vm_destroy(g->vm);
}

static uint64_t shared_pages(struct ept *e)
{
	struct ept_stats st;

	ept_read_stats(e, &st);
	return st.state[EPT_SHARED];
}

/* Until so many of its pages are shared, or the time of the test is over. */
static void wait_shared(struct ept *e, uint64_t want)
{
	while (shared_pages(e) < want)
		rig_nap_ms(5);
}

Test(domains, guests_come_and_go_while_merging, .timeout = 120)
{
	static struct life l;
	struct ksm_domain_stats st;
	uint64_t reaped = 0;

	NEED_KVM();
	life_make(&l);
	wait_shared(&l.r.ept[0], 1000);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		unsigned int id = 10 + 2 * round;

		guest_begin(&l, 0, id);
		guest_begin(&l, 1, id + 1);
		/* Shared with each other, settled or in the middle of it; in the last round at once. */
		if (round < ROUNDS - 1)
			wait_shared(&l.guest[round % 2].ept, 200 + 600 * (round % 3));
		/* One of the two goes first, and what they shared is the other's for a while. */
		guest_end(&l, round % 2, id + round % 2);
		guest_end(&l, 1 - round % 2, id + 1 - round % 2);
		for (int i = 0; i < 400; i++) {
			cr_assert(!ksm_domain_stats(l.coord, &st));
			if (!st.live && !st.filling && !st.pool_blocks_bytes)
				break;
			rig_nap_ms(5);
		}
		cr_assert_eq(st.live + st.filling, 0, "round %u: frames of nobody", round);
		cr_assert_eq(st.pool_blocks_bytes, 0, "round %u: blocks of nobody", round);
		cr_assert(round == ROUNDS - 1 || st.reaped > reaped, "round %u shared nothing",
			  round);
		reaped = st.reaped;
		cr_assert_geq(shared_pages(&l.r.ept[0]), 1000, "the other tenant's pages went too");
	}
	life_unmake(&l);
}
