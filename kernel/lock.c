/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock.c: mutexes, and in debug builds the list of what each thread holds. That list is the one
 * thing in the program that is neither passed nor constant: it belongs to the thread, not to any
 * part of the program.
 */
#include "kernel/lock.h"

#include <errno.h>

const char *ob_rank_name(enum ob_rank r)
{
	static const char *const name[] = {
		[OB_RANK_NONE] = "none",       [OB_RANK_SCAN] = "scan",
		[OB_RANK_SAMPLE] = "sample",   [OB_RANK_RESET] = "reset",
		[OB_RANK_PARK] = "park",       [OB_RANK_VIRTIO] = "virtio",
		[OB_RANK_IO] = "io",	       [OB_RANK_EPT] = "ept",
		[OB_RANK_TRACK] = "track",     [OB_RANK_BROKEN] = "broken",
		[OB_RANK_IO_HINT] = "io hint", [OB_RANK_WAKE] = "wake",
		[OB_RANK_KSM] = "ksm",	       [OB_RANK_AGENT] = "agent",
		[OB_RANK_SERIAL] = "serial",   [OB_RANK_VM_END] = "vm end",
		[OB_RANK_TEST] = "test",
	};

	OB_ASSERT(r < OB_NRANKS);
	return name[r];
}

#ifdef OB_DEBUG

#define MAX_HELD 8

static _Thread_local struct {
	enum ob_rank rank[MAX_HELD];
	unsigned int n;
} held;

/* Locks need not be released in the order in which they were taken, so all are looked at. */
void ob_rank_check(enum ob_rank rank)
{
	for (unsigned int i = 0; i < held.n; i++)
		if (held.rank[i] >= rank) {
			ob_warn("lock order: %s is wanted by a thread that holds %s",
				ob_rank_name(rank), ob_rank_name(held.rank[i]));
			OB_ASSERT(!"lock order");
		}
}

static void rank_push(enum ob_rank rank)
{
	OB_ASSERT(held.n < MAX_HELD);
	held.rank[held.n++] = rank;
}

static void rank_pop(enum ob_rank rank)
{
	unsigned int i = held.n;

	while (i && held.rank[i - 1] != rank)
		i--;
	OB_ASSERT(i); /* else it is not held by this thread */
	held.rank[i - 1] = held.rank[--held.n];
}

#else

static void rank_push(enum ob_rank rank)
{
	(void)rank;
}

static void rank_pop(enum ob_rank rank)
{
	(void)rank;
}

#endif

void ob_mutex_init(struct ob_mutex *l, enum ob_rank rank)
{
	OB_ASSERT(!pthread_mutex_init(&l->m, NULL));
	l->rank = rank;
}

void ob_mutex_destroy(struct ob_mutex *l)
{
	OB_ASSERT(!pthread_mutex_destroy(&l->m));
}

void ob_lock(struct ob_mutex *l)
{
	ob_rank_check(l->rank);
	OB_ASSERT(!pthread_mutex_lock(&l->m));
	rank_push(l->rank);
}

void ob_unlock(struct ob_mutex *l)
{
	rank_pop(l->rank);
	OB_ASSERT(!pthread_mutex_unlock(&l->m));
}

void ob_cond_wait(pthread_cond_t *c, struct ob_mutex *l)
{
	rank_pop(l->rank);
	ob_rank_check(l->rank); /* it is taken anew */
	OB_ASSERT(!pthread_cond_wait(c, &l->m));
	rank_push(l->rank);
}

int ob_cond_timedwait(pthread_cond_t *c, struct ob_mutex *l, const struct timespec *until)
{
	int r;

	rank_pop(l->rank);
	ob_rank_check(l->rank);
	r = pthread_cond_timedwait(c, &l->m, until);
	OB_ASSERT(!r || r == ETIMEDOUT);
	rank_push(l->rank);
	return r;
}
