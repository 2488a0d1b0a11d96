/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.c: what is the same for all engines: finding one by name, the list of guests, the step
 * with its accounting, and giving back what a guest held. The engine `off` is here too, as it has
 * nothing of its own: the control of every experiment.
 */
#include "ksm/engine.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_STEP_PAGES 512
#define DEFAULT_MAX_PAUSE  (500 * OB_NS_PER_US)

static int off_start(struct ksm *k, struct ob_err *e)
{
	(void)k;
	(void)e;
	return 0;
}

const struct ksm_engine_ops ksm_engine_off = {
	.name = "off",
	.start = off_start,
};

const struct ksm_engine_ops *ksm_engine_find(const char *name)
{
	static const struct ksm_engine_ops *const all[] = {
		&ksm_engine_off,
		&ksm_engine_hash,
		&ksm_engine_kernel,
	};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(all); i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	return NULL;
}

/* Let other threads see what the engine has counted. */
static void stats_show(struct ksm *k)
{
	ob_lock(&k->lock);
	k->shown = k->st;
	ob_unlock(&k->lock);
}

int ksm_new(struct ksm **out, const struct ksm_engine_ops *ops, struct ob_host *host,
	    struct ksm_domain *domain, const struct ksm_opts *opts, struct ob_arena *arena)
{
	struct ksm *k = ob_alloc(arena, sizeof(*k));

	k->ops = ops;
	k->host = host;
	k->domain = domain;
	k->arena = arena;
	if (opts)
		k->opts = *opts;
	if (!k->opts.step_pages)
		k->opts.step_pages = DEFAULT_STEP_PAGES;
	if (!k->opts.pass_gap_ns)
		k->opts.pass_gap_ns = 250 * OB_NS_PER_MS;
	if (!k->opts.max_pause_ns)
		k->opts.max_pause_ns = DEFAULT_MAX_PAUSE;
	ob_mutex_init(&k->lock, OB_RANK_KSM);
	*out = k;
	return 0;
}

/* A place for one more guest: one that was left, else a new one. */
static struct ksm_slot *slot_get(struct ksm *k)
{
	struct ksm_slot *more;

	for (unsigned int i = 0; i < k->nslots; i++)
		if (!k->slot[i].used)
			return &k->slot[i];
	if (k->nslots == k->room) {
		unsigned int room = OB_MAX(8, 2 * k->room);

		more = ob_alloc(k->arena, room * sizeof(*more));
		if (k->nslots)
			memcpy(more, k->slot, k->nslots * sizeof(*more));
		ob_free(k->arena, k->slot);
		k->slot = more;
		k->room = room;
	}
	return &k->slot[k->nslots++];
}

int ksm_add_guest(struct ksm *k, const struct ksm_guest *g)
{
	struct ksm_slot *s;
	unsigned int n = 0;

	for (unsigned int i = 0; i < k->nslots; i++) {
		n += k->slot[i].used;
		if (k->slot[i].used && k->slot[i].g.vm == g->vm)
			return -EEXIST;
	}
	if (n == KSM_MAX_GUESTS)
		return -ENOSPC;
	s = slot_get(k);
	memset(s, 0, sizeof(*s));
	s->g = *g;
	s->used = true;
	return 0;
}

/* Put every frame that the guest's pages still name. One that broke off without a sync is among
 * them: its hold was not given back yet either. */
static void frames_put(struct ksm *k, struct ept *e)
{
	for (uint64_t page = 0; page < e->pages; page++) {
		uint32_t frame = ept_frame_of(e, page);

		if (frame != EPT_NO_FRAME)
			ksm_frame_put(k->domain, frame);
	}
}

static void slot_remove(struct ksm *k, unsigned int i)
{
	struct ksm_slot *s = &k->slot[i];

	if (k->ops->remove)
		k->ops->remove(k, i);
	if (k->domain)
		frames_put(k, s->g.ept);
	memset(s, 0, sizeof(*s));
}

void ksm_remove_guest(struct ksm *k, unsigned int vm)
{
	for (unsigned int i = 0; i < k->nslots; i++)
		if (k->slot[i].used && k->slot[i].g.vm == vm)
			slot_remove(k, i);
}

int ksm_start(struct ksm *k, struct ob_err *e)
{
	int r;

	OB_ASSERT(!k->started);
	r = k->ops->start(k, e);
	k->started = !r;
	stats_show(k);
	return r;
}

void ksm_set_pass_gap(struct ksm *k, uint64_t gap_ns)
{
	k->opts.pass_gap_ns = gap_ns;
}

bool ksm_engine_steps(const struct ksm *k)
{
	return k->ops->step != NULL;
}

uint64_t ksm_step(struct ksm *k, uint64_t now_ns, uint64_t budget_pages)
{
	uint64_t cpu, rest;

	if (!k->started || !k->ops->step)
		return k->opts.pass_gap_ns;
	rest = k->opts.budget ? ksm_budget_wait(k->opts.budget, now_ns) : 0;
	if (rest) {
		k->st.budget_rests++;
		stats_show(k);
		return rest;
	}
	cpu = k->host->ops->thread_cpu_ns(k->host);
	rest = k->ops->step(k, now_ns, budget_pages);
	cpu = k->host->ops->thread_cpu_ns(k->host) - cpu;
	k->st.cpu_ns += cpu;
	if (k->opts.budget)
		ksm_budget_charge(k->opts.budget, now_ns, cpu);
	stats_show(k);
	return rest;
}

uint64_t ksm_hint_step(struct ksm *k, uint64_t budget_pages)
{
	uint64_t cpu, pages, now = k->host->ops->now_ns(k->host);

	if (!k->started || !k->ops->hint_step ||
	    (k->opts.budget && ksm_budget_wait(k->opts.budget, now)))
		return 0;
	cpu = k->host->ops->thread_cpu_ns(k->host);
	pages = k->ops->hint_step(k, budget_pages);
	cpu = k->host->ops->thread_cpu_ns(k->host) - cpu;
	k->st.cpu_ns += cpu;
	if (k->opts.budget)
		ksm_budget_charge(k->opts.budget, now, cpu);
	stats_show(k);
	return pages;
}

void ksm_stop(struct ksm *k)
{
	if (!k->started)
		return;
	if (k->ops->stop)
		k->ops->stop(k);
	k->started = false;
	stats_show(k);
}

void ksm_read_stats(struct ksm *k, struct ksm_stats *out)
{
	ob_lock(&k->lock);
	*out = k->shown;
	ob_unlock(&k->lock);
	out->meta_bytes = ob_arena_bytes(k->arena);
	if (k->domain)
		out->meta_bytes += ksm_domain_private_bytes(k->domain);
}

void ksm_free(struct ksm *k)
{
	if (!k)
		return;
	ksm_stop(k);
	for (unsigned int i = 0; i < k->nslots; i++)
		if (k->slot[i].used)
			slot_remove(k, i);
	ob_mutex_destroy(&k->lock);
	ob_free(k->arena, k->slot);
	ob_free(k->arena, k);
}
