/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.h: mutexes that know their place.
 *
 * Locks are taken in one order, which is the order of enum ob_rank (docs/locking.md says what each
 * protects, and why it stands where it does). A thread that holds a lock may only take locks of a
 * higher rank. Debug builds (OB_DEBUG) hold every thread to that and abort at the first step out of
 * line, whether or not it would have been a deadlock that day. Waiting for a guest to stand still is
 * waiting for whatever its vCPU holds, so parking has a rank as well, although it is no lock.
 */
#ifndef OVERBOOK_KERNEL_LOCK_H
#define OVERBOOK_KERNEL_LOCK_H

#include <pthread.h>

#include "kernel/base.h"

enum ob_rank {
	OB_RANK_NONE,
	OB_RANK_SCAN,	 /* struct cell: held during a step of merging */
	OB_RANK_SAMPLE,	 /* struct cell: held during a step of sampling */
	OB_RANK_RESET,	 /* struct pc: a reset under way */
	OB_RANK_PARK,	 /* no lock: waiting until a vCPU is out */
	OB_RANK_VIRTIO,	 /* struct virtio_dev */
	OB_RANK_IO,	 /* struct io_worker */
	OB_RANK_EPT,	 /* struct ept */
	OB_RANK_TRACK,	 /* struct ept_track */
	OB_RANK_BROKEN,	 /* struct hash_guest: frames that pages broke off */
	OB_RANK_IO_HINT, /* struct ksm_io: hints that wait */
	OB_RANK_WAKE,	 /* struct cell: wakes the scanner */
	OB_RANK_KSM,	 /* struct ksm: statistics */
	OB_RANK_AGENT,	 /* struct agent_port: the last report */
	OB_RANK_SERIAL,	 /* struct serial */
	OB_RANK_VM_END,	 /* struct vm: how it ended */
	OB_RANK_TEST,	 /* for tests, innermost */
	OB_NRANKS,
};
const char *ob_rank_name(enum ob_rank r);

struct ob_mutex {
	pthread_mutex_t m;
	enum ob_rank rank;
};

void ob_mutex_init(struct ob_mutex *l, enum ob_rank rank);
void ob_mutex_destroy(struct ob_mutex *l);
void ob_lock(struct ob_mutex *l);
void ob_unlock(struct ob_mutex *l);
/* The lock is given up while waiting. */
void ob_cond_wait(pthread_cond_t *c, struct ob_mutex *l);
/* 0 or ETIMEDOUT; by the clock that the condition was made with. */
int ob_cond_timedwait(pthread_cond_t *c, struct ob_mutex *l, const struct timespec *until);

/* About to wait for something of this rank: debug builds check what the thread holds. */
#ifdef OB_DEBUG
void ob_rank_check(enum ob_rank rank);
#else
static inline void ob_rank_check(enum ob_rank rank)
{
	(void)rank;
}
#endif

#endif
