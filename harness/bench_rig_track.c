/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_rig_track.c: write tracking of a guest in the benchmark's own process: KVM's log as the
 * source, the guest's devices beside it, and one consumer, whoever measures.
 */
#include <errno.h>
#include <string.h>

#include "harness/bench_rig.h"

int bench_rig_track_open(struct bench_rig *r, unsigned int i, struct bench_rig_track *t,
			 struct ob_err *e)
{
	struct bench_rig_guest *g = &r->guest[i];
	int ret;

	ept_track_init(&t->track, ept_log_kvm(g->vm), &g->vm->mem, r->arena);
	t->ept = &g->ept;
	ept_track_attach(t->ept, &t->track);
	t->consumer = ept_track_consumer_add(&t->track);
	OB_ASSERT(t->consumer >= 0);
	ret = ept_track_on(&t->track, 0, g->vm->mem.pages);
	if (!ret)
		return 0;
	bench_rig_track_close(t);
	return ob_fail(e, -ret, "guest %u: KVM does not log what it writes: %s", i, strerror(-ret));
}

void bench_rig_track_close(struct bench_rig_track *t)
{
	if (!t->ept)
		return;
	ept_track_attach(t->ept, NULL);
	ept_track_exit(&t->track);
	t->ept = NULL;
}
