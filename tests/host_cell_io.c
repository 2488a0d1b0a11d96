/* SPDX-License-Identifier: Apache-2.0 */
/* host_cell_io.c: the scanner's rest between two steps, and who ends it. */
#include <criterion/criterion.h>
#include <string.h>

#include "harness/cell.h"
#include "tests/fake_host.h"

static void make(struct cell *c)
{
	struct ob_err e;

	memset(c, 0, sizeof(*c));
	cr_assert(!ob_host_linux_init(&c->host, &e), "%s", e.msg);
	ob_mutex_init(&c->scan_lock, OB_RANK_SCAN);
	ob_mutex_init(&c->wake_lock, OB_RANK_WAKE);
	cell_io_setup(c, NULL);
	cr_assert(!c->io_hints, "nothing is asked for");
	ob_lock(&c->scan_lock);
}

static void unmake(struct cell *c)
{
	ob_unlock(&c->scan_lock);
	cell_io_exit(c);
	ob_mutex_destroy(&c->scan_lock);
	ob_host_linux_exit(&c->host);
}

static uint64_t in(struct cell *c, uint64_t ns)
{
	return c->host.ops->now_ns(&c->host) + ns;
}

static void *waker(void *arg)
{
	struct cell *c = arg;

	/* The scanner rests: its lock can be had. */
	ob_lock(&c->scan_lock);
	cell_io_wake(c);
	ob_unlock(&c->scan_lock);
	return NULL;
}

Test(cell_io, a_rest_lasts_until_its_end, .timeout = 20)
{
	struct cell c;
	uint64_t until;

	make(&c);
	until = in(&c, 20 * OB_NS_PER_MS);
	cr_assert(!cell_io_rest(&c, until));
	cr_assert_geq(c.host.ops->now_ns(&c.host), until);
	cr_assert(!cell_io_rest(&c, 0), "one that is over already");
	unmake(&c);
}

/* A rest of hours would fail by the test's timeout. */
Test(cell_io, a_hint_ends_it, .timeout = 20)
{
	pthread_t t;
	struct cell c;

	make(&c);
	for (int i = 0; i < 100; i++) {
		cr_assert(!pthread_create(&t, NULL, waker, &c));
		cr_assert(cell_io_rest(&c, in(&c, 10000 * OB_NS_PER_SEC)));
		pthread_join(t, NULL);
	}
	unmake(&c);
}

Test(cell_io, woken_before_it_rests, .timeout = 20)
{
	struct cell c;

	make(&c);
	cell_io_wake(&c);
	cell_io_wake(&c);
	cr_assert(cell_io_rest(&c, in(&c, 10000 * OB_NS_PER_SEC)));
	cr_assert(!cell_io_rest(&c, in(&c, OB_NS_PER_MS)), "once for all who woke it");
	unmake(&c);
}
