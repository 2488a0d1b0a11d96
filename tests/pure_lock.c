/* SPDX-License-Identifier: Apache-2.0 */
/* pure_lock.c: the order of locks is held to in debug builds (the sanitizer builds are), and only there. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/lock.h"

Test(lock, ascending_order_is_fine)
{
	struct ob_mutex a, b;

	ob_mutex_init(&a, OB_RANK_VIRTIO);
	ob_mutex_init(&b, OB_RANK_EPT);
	for (int i = 0; i < 3; i++) {
		ob_rank_check(OB_RANK_PARK);
		ob_lock(&a);
		ob_lock(&b);
		ob_unlock(&a); /* not in reverse: also fine */
		ob_rank_check(OB_RANK_KSM);
		ob_unlock(&b);
	}
	ob_mutex_destroy(&a);
	ob_mutex_destroy(&b);
}

Test(lock, a_wait_gives_the_lock_up_and_takes_it_again)
{
	pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	struct timespec past = {0};
	struct ob_mutex a;

	ob_mutex_init(&a, OB_RANK_EPT);
	ob_lock(&a);
	cr_assert_eq(ob_cond_timedwait(&c, &a, &past), ETIMEDOUT);
	ob_unlock(&a);
	ob_rank_check(OB_RANK_SCAN); /* nothing is held */
	ob_mutex_destroy(&a);
}

#ifdef OB_DEBUG

/* Criterion prints what it aborts with; the signal is the check. */
Test(lock, descending_order_aborts, .signal = SIGABRT)
{
	struct ob_mutex a, b;

	ob_mutex_init(&a, OB_RANK_VIRTIO);
	ob_mutex_init(&b, OB_RANK_EPT);
	ob_lock(&b);
	ob_lock(&a);
}

Test(lock, parking_with_the_map_locked_aborts, .signal = SIGABRT)
{
	struct ob_mutex b;

	ob_mutex_init(&b, OB_RANK_EPT);
	ob_lock(&b);
	ob_rank_check(OB_RANK_PARK);
}

Test(lock, releasing_what_is_not_held_aborts, .signal = SIGABRT)
{
	struct ob_mutex a;

	ob_mutex_init(&a, OB_RANK_TEST);
	pthread_mutex_lock(&a.m);
	ob_unlock(&a);
}

#endif

/* The order in the program is the order in the documentation. */
Test(lock, every_rank_has_a_name)
{
	for (unsigned int i = 0; i < OB_NRANKS; i++) {
		cr_assert_not_null(ob_rank_name((enum ob_rank)i));
		for (unsigned int j = 0; j < i; j++)
			cr_assert_str_neq(ob_rank_name((enum ob_rank)i),
					  ob_rank_name((enum ob_rank)j));
	}
}
