/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_pause.c: a guest stands still, and goes on. Whoever freezes pages to merge them does it here, so
 * that each pause is planned for what is left of the bound when the guest has stopped, and is counted
 * with its cause if it was too long (hash_pace.c).
 */
#include "ksm/hash_engine.h"

void hash_pause_begin(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page, uint64_t n,
		      struct hash_pause *p)
{
	const struct ob_host_ops *ops = k->host->ops;

	p->t0 = ops->now_ns(k->host);
	OB_ASSERT(!ept_freeze(s->g.ept, page, n)); /* of one region */
	p->z.park = ops->now_ns(k->host) - p->t0;
	p->z.planned = pace_left(&h->pace, p->z.park);
	p->switches = ops->thread_preempted(k->host);
	p->z.work_cpu = ops->thread_cpu_ns(k->host);
}

void hash_pause_end(struct ksm *k, struct hash *h, struct ksm_slot *s, struct hash_pause *p)
{
	const struct ob_host_ops *ops = k->host->ops;

	ept_thaw(s->g.ept);
	p->z.whole = ops->now_ns(k->host) - p->t0;
	p->z.work_cpu = ops->thread_cpu_ns(k->host) - p->z.work_cpu;
	p->z.preempted = ops->thread_preempted(k->host) != p->switches;
	pace_ended(&h->pace, &p->z, &k->st.pauses);
	k->st.freezes++;
	k->st.freeze_ns += p->z.whole;
	k->st.freeze_max_ns = OB_MAX(k->st.freeze_max_ns, p->z.whole);
}
