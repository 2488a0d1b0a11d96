/* SPDX-License-Identifier: Apache-2.0 */
/* host_io_worker.c: queued work, and doorbells beside it, on the one thread of the I/O worker. */
#include <criterion/criterion.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernel/device.h"

struct bell {
	struct io_bell bell;
	struct io_worker *w;
	_Atomic unsigned int rung, ran;
	struct io_work work;
	_Atomic bool hold; /* ring waits until it is cleared */
	_Atomic bool in;
};

static void on_work(struct io_work *work)
{
	struct bell *b = (struct bell *)((char *)work - offsetof(struct bell, work));

	b->ran++;
}

static void on_ring(struct io_bell *bell)
{
	struct bell *b = (struct bell *)(void *)bell;

	b->in = true;
	while (b->hold)
		sched_yield();
	b->rung++;
	io_worker_queue(b->w, &b->work);
	b->in = false;
}

static void bell_make(struct bell *b, struct io_worker *w)
{
	*b = (struct bell){.w = w, .bell.ring = on_ring, .work.run = on_work};
	b->bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	cr_assert(b->bell.fd >= 0);
	cr_assert_eq(io_worker_bell(w, &b->bell), 0);
}

static void tick(struct bell *b)
{
	uint64_t one = 1;

	cr_assert_eq(write(b->bell.fd, &one, sizeof(one)), (ssize_t)sizeof(one));
}

Test(io_worker, a_doorbell_wakes_it_and_queues_work, .timeout = 60)
{
	struct io_worker *w;
	struct bell b;

	cr_assert_eq(io_worker_start(&w), 0);
	bell_make(&b, w);
	for (unsigned int i = 1; i <= 1000; i++) {
		tick(&b);
		while (b.ran < i)
			sched_yield();
		cr_assert_eq(b.rung, i);
	}
	io_worker_unbell(w, &b.bell);
	io_worker_stop(w);
	close(b.bell.fd);
}

/* Work that queues itself again for ever does not keep the bells from being heard. */
static void again(struct io_work *work)
{
	struct bell *b = (struct bell *)((char *)work - offsetof(struct bell, work));

	b->ran++;
	if (!b->hold)
		io_worker_queue(b->w, work);
}

Test(io_worker, a_busy_device_does_not_silence_others, .timeout = 60)
{
	struct bell busy = {.work.run = again};
	struct io_worker *w;
	struct bell b;

	cr_assert_eq(io_worker_start(&w), 0);
	busy.w = w;
	io_worker_queue(w, &busy.work);
	bell_make(&b, w);
	tick(&b);
	while (b.ran < 1)
		sched_yield();
	busy.hold = true;
	io_worker_drain(w, &busy.work);
	io_worker_unbell(w, &b.bell);
	io_worker_stop(w);
	close(b.bell.fd);
}

static void *ringer(void *arg)
{
	struct bell *b = arg;

	for (int i = 0; i < 2000; i++)
		tick(b);
	return NULL;
}

/* After unbell nobody answers: not even one that was seen, or under way, when it was called. */
Test(io_worker, what_was_removed_is_not_answered, .timeout = 60)
{
	struct io_worker *w;

	cr_assert_eq(io_worker_start(&w), 0);
	for (int round = 0; round < 50; round++) {
		unsigned int rung;
		pthread_t t;
		struct bell b;

		bell_make(&b, w);
		cr_assert(!pthread_create(&t, NULL, ringer, &b));
		while (!b.rung)
			sched_yield();
		io_worker_unbell(w, &b.bell);
		rung = b.rung;
		pthread_join(t, NULL);
		cr_assert(!b.in);
		cr_assert_eq(b.rung, rung);
		io_worker_drain(w, &b.work);
		close(b.bell.fd);
	}
	io_worker_stop(w);
}

Test(io_worker, unbell_waits_for_the_answer_under_way, .timeout = 60)
{
	struct io_worker *w;
	struct bell b;
	pthread_t t;

	cr_assert_eq(io_worker_start(&w), 0);
	bell_make(&b, w);
	b.hold = true;
	tick(&b);
	while (!b.in)
		sched_yield();
	cr_assert(!pthread_create(&t, NULL, ringer, &b));
	pthread_join(t, NULL);
	b.hold = false;
	io_worker_unbell(w, &b.bell);
	cr_assert(!b.in);
	cr_assert_geq(b.rung, 1);
	io_worker_drain(w, &b.work);
	io_worker_stop(w);
	close(b.bell.fd);
}

Test(io_worker, how_long_an_item_has_run, .timeout = 60)
{
	struct io_worker *w;
	struct bell b;

	cr_assert_eq(io_worker_start(&w), 0);
	bell_make(&b, w);
	cr_assert_eq(io_worker_busy_ns(w), 0);
	b.hold = true;
	tick(&b);
	while (io_worker_busy_ns(w) < 20 * 1000 * 1000)
		sched_yield();
	cr_assert(b.in);
	b.hold = false;
	while (!b.ran || io_worker_busy_ns(w))
		sched_yield();
	io_worker_unbell(w, &b.bell);
	io_worker_stop(w);
	close(b.bell.fd);
}

/* --- the worker ------------------------------------------------------------------------------- */

struct item {
	struct io_work work; /* first */
	struct io_worker *w;
	_Atomic int runs, again, gate;
	int *order, at;
	_Atomic int *next;
};

static void item_run(struct io_work *w)
{
	struct item *it = (struct item *)(void *)w;

	while (it->gate)
		sched_yield();
	if (it->next)
		it->order[(*it->next)++] = it->at;
	it->runs++;
	if (it->again) {
		it->again--;
		io_worker_queue(it->w, &it->work);
	}
}

Test(io_worker, items_run_once_in_order)
{
	struct io_worker *w;
	_Atomic int next = 0;
	int order[8];
	struct item it[8] = {0};

	cr_assert_eq(io_worker_start(&w), 0);
	for (int i = 0; i < 8; i++) {
		it[i].work.run = item_run;
		it[i].order = order;
		it[i].at = i;
		it[i].next = &next;
	}
	it[0].gate = 1;
	io_worker_queue(w, &it[0].work);
	for (int i = 1; i < 8; i++)
		for (int k = 0; k < 3; k++)
			io_worker_queue(w, &it[i].work);
	it[0].gate = 0;
	io_worker_stop(w);
	cr_assert_eq(next, 8, "queued three times, run once; and stop finishes what is queued");
	for (int i = 0; i < 8; i++)
		cr_assert_eq(order[i], i);
}

Test(io_worker, queued_while_it_runs_it_runs_again)
{
	struct io_worker *w;
	struct item it = {.work.run = item_run, .again = 5};

	cr_assert_eq(io_worker_start(&w), 0);
	it.w = w;
	io_worker_queue(w, &it.work);
	io_worker_drain(w, &it.work);
	cr_assert_eq(it.runs, 6);
	it.again = 3;
	io_worker_queue(w, &it.work);
	io_worker_stop(w);
	cr_assert_eq(it.runs, 10);
}

Test(io_worker, drain_of_an_idle_item_returns)
{
	struct io_worker *w;
	struct item it = {.work.run = item_run}, other = {.work.run = item_run, .gate = 1};

	cr_assert_eq(io_worker_start(&w), 0);
	io_worker_queue(w, &other.work);
	io_worker_drain(w, &it.work);
	other.gate = 0;
	io_worker_drain(w, &other.work);
	cr_assert_eq(other.runs, 1);
	io_worker_stop(w);
}
