/* SPDX-License-Identifier: Apache-2.0 */
/* pure_console.c: the console device with its port, its worker thread and a driver by hand. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RAM   (4 * OB_MIB)
#define RINGS 0x1000 /* a page of rings for each queue */
#define TABLE 0x20000
#define CTRL  0x30000 /* control buffers: 64 bytes each, from the host, then to it */
#define ASK   0x38000
#define DATA  0x100000

#define QSIZE 32

enum { IN, OUT, CTRL_IN, CTRL_OUT, NQ };

enum { READY = 0, ADD = 1, PORT_READY = 3, OPEN = 6, NAME = 7 };

struct message {
	uint32_t port;
	uint16_t event, value;
	char name[56];
};

/* What came out of the port. */
struct heard {
	pthread_mutex_t lock;
	char bytes[256 * 1024];
	size_t n;
	unsigned int opens, closes;
	size_t at_open, at_close; /* of the bytes, the last time */
	bool hold;		  /* out waits until it is false */
};

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct io_worker *worker;
	struct virtio_console con;
	struct vdrv v[NQ];
	struct heard heard;
};

static void nap(void)
{
	struct timespec ms = {.tv_nsec = 1000000};

	nanosleep(&ms, NULL);
}

static void on_out(void *arg, const void *bytes, size_t n)
{
	struct heard *h = arg;

	while (__atomic_load_n(&h->hold, __ATOMIC_ACQUIRE))
		nap();
	pthread_mutex_lock(&h->lock);
	cr_assert(n >= 1 && n <= 4096);
	cr_assert_leq(h->n + n, sizeof(h->bytes));
	memcpy(h->bytes + h->n, bytes, n);
	h->n += n;
	pthread_mutex_unlock(&h->lock);
}

static void on_opened(void *arg, bool open)
{
	struct heard *h = arg;

	pthread_mutex_lock(&h->lock);
	*(open ? &h->opens : &h->closes) += 1;
	*(open ? &h->at_open : &h->at_close) = h->n;
	pthread_mutex_unlock(&h->lock);
}

static const struct virtio_console_ops ops = {.out = on_out, .opened = on_opened};

/* Reset, negotiate, set all queues up, DRIVER_OK. */
static void start(struct bed *b)
{
	vdrv_set(&b->con.dev, VDRV_STATUS, 0);
	for (unsigned int q = 0; q < NQ; q++) {
		vdrv_layout(&b->v[q], &b->con.dev, &b->gm, QSIZE, gpa(RINGS + q * 0x1000ULL));
		b->v[q].queue = q;
	}
	cr_assert_eq(vdrv_negotiate(&b->con.dev, 2 | VIRTIO_F_INDIRECT_DESC), 11);
	for (unsigned int q = 1; q < NQ; q++)
		vdrv_setup(&b->v[q]);
	cr_assert_eq(vdrv_start(&b->v[0]), 15);
}

static struct bed *bed_new(void)
{
	struct bed *b = calloc(1, sizeof(*b));

	pthread_mutex_init(&b->heard.lock, NULL);
	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	cr_assert_eq(io_worker_start(&b->worker), 0);
	virtio_console_init(&b->con, NULL, &b->gm, b->worker, "a.port", &ops, &b->heard);
	start(b);
	return b;
}

static void bed_free(struct bed *b)
{
	virtio_console_exit(&b->con);
	io_worker_stop(b->worker);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	free(b);
}

static void put(struct bed *b, uint64_t at, const void *buf, uint64_t n)
{
	cr_assert_eq(gmem_write(&b->gm, gpa(at), buf, n), 0);
}

/* Give the device @n control buffers of 64 bytes. */
static void control_buffers(struct bed *b, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		vdrv_desc(&b->v[CTRL_IN], b->v[CTRL_IN].desc, i, CTRL + i * 64ULL, 64, VDRV_WRITE,
			  0);
		vdrv_offer(&b->v[CTRL_IN], (uint16_t)i);
	}
	vdrv_kick(&b->v[CTRL_IN]);
}

/* Send a control message, and wait until it is answered, as Linux does. */
static void say(struct bed *b, uint32_t port, uint16_t event, uint16_t value)
{
	struct message m = {.port = port, .event = event, .value = value};
	uint32_t id, len;

	put(b, ASK, &m, 8);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 0, ASK, 8, 0, 0);
	vdrv_offer(&b->v[CTRL_OUT], 0);
	vdrv_kick(&b->v[CTRL_OUT]);
	cr_assert(vdrv_wait_used(&b->v[CTRL_OUT], &id, &len), "%s",
		  b->con.dev.why ? b->con.dev.why : "no answer");
	cr_assert_eq(len, 0);
}

/* The next message from the device; its length. */
static uint32_t hear(struct bed *b, struct message *m)
{
	uint32_t id, len;

	memset(m, 0, sizeof(*m));
	cr_assert(vdrv_wait_used(&b->v[CTRL_IN], &id, &len));
	cr_assert(len >= 8 && len <= 64);
	cr_assert_eq(gmem_read(&b->gm, gpa(CTRL + id * 64ULL), m, len), 0);
	return len;
}

static bool heard_nothing(struct bed *b)
{
	uint32_t id, len;

	io_worker_drain(b->worker, &b->con.work);
	return !vdrv_used(&b->v[CTRL_IN], &id, &len);
}

/* The driver has the port, and a program has opened it. */
static void open_port(struct bed *b)
{
	struct message m;

	control_buffers(b, 16);
	say(b, UINT32_MAX, READY, 1);
	hear(b, &m);
	say(b, 0, PORT_READY, 1);
	hear(b, &m);
	hear(b, &m);
	say(b, 0, OPEN, 1);
}

/* Write @n bytes to the port, from descriptor @slot. */
static void send(struct bed *b, uint16_t slot, const void *bytes, uint32_t n)
{
	put(b, DATA + slot * 0x1000ULL, bytes, n);
	vdrv_desc(&b->v[OUT], b->v[OUT].desc, slot, DATA + slot * 0x1000ULL, n, 0, 0);
	vdrv_offer(&b->v[OUT], slot);
}

static void sent(struct bed *b)
{
	uint32_t id, len;

	vdrv_kick(&b->v[OUT]);
	cr_assert(vdrv_wait_used(&b->v[OUT], &id, &len));
	cr_assert_eq(len, 0);
}

static void broke(struct bed *b, const char *why)
{
	for (int i = 0; i < 20000 && virtio_dev_live(&b->con.dev); i++)
		nap();
	cr_assert(b->con.dev.broken, "should say: %s", why);
	cr_assert_str_eq(b->con.dev.why, why);
	bed_free(b);
}

/* --- what a driver that means well sees ------------------------------------------------------- */

Test(console, configuration)
{
	struct bed *b = bed_new();
	struct virtio_dev *d = &b->con.dev;

	cr_assert_eq(vdrv_get(d, VDRV_DEVICE_ID), 3);
	vdrv_set(d, VDRV_DEV_FEATURES_SEL, 0);
	cr_assert_eq(vdrv_get(d, VDRV_DEV_FEATURES), 2U | 1U << 28, "MULTIPORT and indirect");
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 4), 1, "one port");
	cr_assert_eq(vdrv_get(d, VDRV_CONFIG + 8), 0);
	vdrv_set(d, VDRV_QUEUE_SEL, 3);
	cr_assert_eq(vdrv_get(d, VDRV_QUEUE_NUM_MAX), QSIZE, "few: Linux gives a page for each");
	vdrv_set(d, VDRV_QUEUE_SEL, 4);
	cr_assert_eq(vdrv_get(d, VDRV_QUEUE_NUM_MAX), 0);
	vdrv_set(d, VDRV_STATUS, 0);
	vdrv_negotiate(d, 2);
	vdrv_layout(&b->v[0], d, &b->gm, 2 * QSIZE, gpa(RINGS));
	vdrv_setup(&b->v[0]);
	broke(b, "queue size is not a power of two within the limit");
}

Test(console, the_port_is_told_step_by_step)
{
	struct bed *b = bed_new();
	struct message m;

	control_buffers(b, 8);
	cr_assert(heard_nothing(b), "the driver speaks first");
	say(b, UINT32_MAX, READY, 1);
	cr_assert_eq(hear(b, &m), 8);
	cr_assert(m.port == 0 && m.event == ADD);
	cr_assert(heard_nothing(b));
	say(b, 0, PORT_READY, 1);
	cr_assert_eq(hear(b, &m), 8 + strlen("a.port"));
	cr_assert(m.port == 0 && m.event == NAME && m.value == 1);
	cr_assert_str_eq(m.name, "a.port");
	cr_assert_eq(hear(b, &m), 8);
	cr_assert(m.port == 0 && m.event == OPEN && m.value == 1);
	cr_assert(heard_nothing(b));
	cr_assert_eq(b->heard.opens, 0);
	say(b, 0, OPEN, 1);
	cr_assert_eq(b->heard.opens, 1);
	say(b, 0, OPEN, 1);
	cr_assert_eq(b->heard.opens, 1, "it was open");
	say(b, 0, OPEN, 0);
	cr_assert_eq(b->heard.closes, 1);
	cr_assert_eq(b->con.odd, 0);
	bed_free(b);
}

Test(console, messages_wait_for_buffers)
{
	struct bed *b = bed_new();
	struct message m;

	say(b, UINT32_MAX, READY, 1);
	say(b, 0, PORT_READY, 1);
	control_buffers(b, 2);
	hear(b, &m);
	cr_assert_eq(m.event, ADD);
	hear(b, &m);
	cr_assert_eq(m.event, NAME);
	cr_assert(heard_nothing(b));
	control_buffers(b, 1);
	hear(b, &m);
	cr_assert_eq(m.event, OPEN);
	bed_free(b);
}

/* What is owed is a set: a driver that asks a thousand times costs no memory, and is answered once. */
Test(console, asking_often_is_answered_once)
{
	struct bed *b = bed_new();
	struct message m;

	for (int i = 0; i < 1000; i++)
		say(b, UINT32_MAX, READY, 1);
	control_buffers(b, 8);
	hear(b, &m);
	cr_assert_eq(m.event, ADD);
	cr_assert(heard_nothing(b));
	bed_free(b);
}

Test(console, messages_that_make_no_sense_are_ignored)
{
	struct bed *b = bed_new();

	control_buffers(b, 8);
	say(b, 1, PORT_READY, 1);
	say(b, 0, 77, 1);
	say(b, 7, OPEN, 1);
	say(b, 0, ADD, 1);
	cr_assert_eq(b->con.odd, 4);
	say(b, 0, READY, 0);
	say(b, 0, PORT_READY, 0);
	cr_assert(heard_nothing(b), "the driver could not take it: nothing to say");
	cr_assert_eq(b->heard.opens, 0);
	bed_free(b);
}

Test(console, bytes_come_out_whole_and_in_order)
{
	const unsigned int first_seed = 41;
	unsigned int seed = first_seed;
	struct bed *b = bed_new();
	char want[128 * 1024];
	size_t at = 0;

	open_port(b);
	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = (char)rand_r(&seed);
	while (at < sizeof(want)) {
		uint16_t n = (uint16_t)(1 + rand_r(&seed) % QSIZE), i;
		uint32_t id, len;

		for (i = 0; i < n && at < sizeof(want); i++) {
			uint32_t part = 1 + (uint32_t)rand_r(&seed) % 4096;

			part = (uint32_t)OB_MIN((size_t)part, sizeof(want) - at);
			send(b, i, want + at, part);
			at += part;
		}
		vdrv_kick(&b->v[OUT]);
		while (i--)
			cr_assert(vdrv_wait_used(&b->v[OUT], &id, &len));
	}
	cr_assert_eq(b->heard.n, sizeof(want), "seed %u", first_seed);
	cr_assert_arr_eq(b->heard.bytes, want, sizeof(want));
	cr_assert_eq(b->con.out_bytes, sizeof(want));
	bed_free(b);
}

Test(console, a_long_buffer_and_one_of_many_pieces)
{
	struct bed *b = bed_new();
	char *p = gmem_ptr(&b->gm, gpa(DATA), 100000);

	open_port(b);
	for (int i = 0; i < 100000; i++)
		p[i] = (char)(i * 7);
	vdrv_desc(&b->v[OUT], b->v[OUT].desc, 0, DATA, 100000, 0, 0);
	vdrv_offer(&b->v[OUT], 0);
	sent(b);
	for (unsigned int i = 0; i < 100; i++)
		vdrv_desc(&b->v[OUT], gpa(TABLE), i, DATA + i * 17ULL, 17,
			  (uint16_t)(i < 99 ? VDRV_NEXT : 0), (uint16_t)(i + 1));
	vdrv_desc(&b->v[OUT], b->v[OUT].desc, 0, TABLE, 1600, VDRV_INDIRECT, 0);
	vdrv_offer(&b->v[OUT], 0);
	sent(b);
	cr_assert_eq(b->heard.n, 101700);
	cr_assert_arr_eq(b->heard.bytes, p, 100000);
	cr_assert_arr_eq(b->heard.bytes + 100000, p, 1700);
	bed_free(b);
}

/* On the worker, between two turns of the port. */
struct look {
	struct io_work work; /* first */
	struct bed *bed;
	size_t n;
};

static void look(struct io_work *w)
{
	struct look *l = (struct look *)(void *)w;

	l->n = l->bed->heard.n;
}

/* There is no longest one, but others have their turn in the middle of it. */
Test(console, a_chain_longer_than_a_turn)
{
	struct bed *b = bed_new();
	struct look next = {.work.run = look, .bed = b};
	const uint32_t first = 150001, all = 230000;
	char *p = gmem_ptr(&b->gm, gpa(DATA), all);

	open_port(b);
	for (uint32_t i = 0; i < all; i++)
		p[i] = (char)(i * 7 ^ i >> 9);
	b->heard.hold = true;
	vdrv_desc(&b->v[OUT], b->v[OUT].desc, 0, DATA, first, VDRV_NEXT, 1);
	vdrv_desc(&b->v[OUT], b->v[OUT].desc, 1, DATA + first, all - first, 0, 0);
	vdrv_offer(&b->v[OUT], 0);
	vdrv_kick(&b->v[OUT]);
	io_worker_queue(b->worker, &next.work);
	__atomic_store_n(&b->heard.hold, false, __ATOMIC_RELEASE);
	io_worker_drain(b->worker, &next.work);
	cr_assert_eq(next.n, 64 * OB_KIB, "%zu bytes in a turn", next.n);
	sent(b);
	cr_assert_eq(b->heard.n, all);
	cr_assert_arr_eq(b->heard.bytes, p, all);
	bed_free(b);
}

/* One program ends and the next begins, and whoever listens can tell which bytes are whose, although
 * the worker comes late. */
Test(console, what_was_written_before_a_close_comes_before_it)
{
	struct bed *b = bed_new();
	struct message m = {.port = 0, .event = OPEN, .value = 0};
	uint32_t id, len;

	open_port(b);
	__atomic_store_n(&b->heard.hold, true, __ATOMIC_RELEASE);
	for (uint16_t i = 0; i < QSIZE; i++)
		send(b, i, "old program ", 12);
	vdrv_kick(&b->v[OUT]);
	put(b, ASK, &m, 8);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 0, ASK, 8, 0, 0);
	vdrv_offer(&b->v[CTRL_OUT], 0);
	vdrv_kick(&b->v[CTRL_OUT]);
	__atomic_store_n(&b->heard.hold, false, __ATOMIC_RELEASE);
	cr_assert(vdrv_wait_used(&b->v[CTRL_OUT], &id, &len));
	cr_assert_eq(b->heard.closes, 1);
	cr_assert_eq(b->heard.at_close, 12 * QSIZE);
	bed_free(b);
}

/* A driver gives buffers for what we might send, which is nothing: they stay unused, whatever they are. */
Test(console, buffers_for_input_are_let_be)
{
	struct bed *b = bed_new();
	uint32_t id, len;

	for (uint16_t i = 0; i < QSIZE; i++) {
		vdrv_desc(&b->v[IN], b->v[IN].desc, i, DATA + i * 0x1000ULL, 4096,
			  i % 2 ? 0 : VDRV_WRITE, 0);
		vdrv_offer(&b->v[IN], i);
	}
	vdrv_kick(&b->v[IN]);
	open_port(b);
	vdrv_kick(&b->v[IN]);
	send(b, 0, "out", 3);
	sent(b);
	io_worker_drain(b->worker, &b->con.work);
	cr_assert(!vdrv_used(&b->v[IN], &id, &len));
	cr_assert(virtio_dev_live(&b->con.dev));
	cr_assert_eq(b->heard.n, 3);
	bed_free(b);
}

/* --- hostile drivers -------------------------------------------------------------------------- */

/* One descriptor in queue @q of a fresh device; why it broke. */
static void one(unsigned int q, uint64_t at, uint32_t len, uint16_t flags, const char *why)
{
	struct bed *b = bed_new();

	if (q == CTRL_IN)
		say(b, UINT32_MAX, READY, 1);
	vdrv_desc(&b->v[q], b->v[q].desc, 0, at, len, flags, 0);
	vdrv_offer(&b->v[q], 0);
	vdrv_kick(&b->v[q]);
	broke(b, why);
}

Test(console, wrong_directions_stop_the_device)
{
	one(OUT, DATA, 8, VDRV_WRITE, "console output with a buffer that is to be written");
	one(CTRL_IN, DATA, 64, 0, "console control buffer that is not to be written");
	one(CTRL_OUT, DATA, 8, VDRV_WRITE,
	    "console control message with a buffer that is to be written");
}

Test(console, wrong_lengths_stop_the_device)
{
	one(CTRL_OUT, DATA, 7, 0, "console control message that is cut short");
	one(CTRL_IN, DATA, 7, VDRV_WRITE, "console control buffer that is too small");
	one(OUT, RAM - 4, 8, 0, "buffer is not inside RAM");
	one(OUT, UINT64_MAX - 4, 8, 0, "buffer address wraps");
	one(OUT, DATA, 0, 0, "buffer of length 0");
	one(OUT, DATA, 8, VDRV_NEXT, "descriptor chain is a loop");
}

Test(console, a_name_that_does_not_fit_stops_the_device)
{
	struct bed *b = bed_new();
	struct message m;

	say(b, UINT32_MAX, READY, 1);
	say(b, 0, PORT_READY, 1);
	for (uint16_t i = 0; i < 2; i++) {
		vdrv_desc(&b->v[CTRL_IN], b->v[CTRL_IN].desc, i, CTRL + i * 64ULL, 13, VDRV_WRITE,
			  0);
		vdrv_offer(&b->v[CTRL_IN], i);
	}
	vdrv_kick(&b->v[CTRL_IN]);
	hear(b, &m);
	broke(b, "console control buffer that is too small");
}

/* A message in pieces, with the last ones behind what a message is. */
Test(console, a_message_may_be_cut_anywhere)
{
	struct bed *b = bed_new();
	struct message m = {.port = 0, .event = PORT_READY, .value = 1};
	uint32_t id, len;

	put(b, ASK, &m, 64);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 0, ASK, 1, VDRV_NEXT, 1);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 1, ASK + 1, 4, VDRV_NEXT, 2);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 2, ASK + 5, 20, VDRV_NEXT, 3);
	vdrv_desc(&b->v[CTRL_OUT], b->v[CTRL_OUT].desc, 3, ASK + 25, 20, 0, 0);
	vdrv_offer(&b->v[CTRL_OUT], 0);
	vdrv_kick(&b->v[CTRL_OUT]);
	cr_assert(vdrv_wait_used(&b->v[CTRL_OUT], &id, &len));
	control_buffers(b, 4);
	hear(b, &m);
	cr_assert_eq(m.event, NAME);
	bed_free(b);
}

Test(console, a_reset_forgets_what_was_said)
{
	struct bed *b = bed_new();
	struct message m;

	open_port(b);
	say(b, UINT32_MAX, READY, 1);
	say(b, 0, PORT_READY, 1);
	start(b);
	cr_assert_eq(b->heard.closes, 1, "nobody has it open any more");
	control_buffers(b, 8);
	cr_assert(heard_nothing(b));
	say(b, UINT32_MAX, READY, 1);
	hear(b, &m);
	cr_assert_eq(m.event, ADD);
	bed_free(b);
}

Test(console, resets_in_the_middle_of_work)
{
	struct bed *b = bed_new();
	char page[4096] = "x";

	for (int round = 0; round < 200; round++) {
		open_port(b);
		b->heard.n = 0;
		for (uint16_t i = 0; i < QSIZE; i++)
			send(b, i, page, sizeof(page));
		for (unsigned int q = 0; q < NQ; q++)
			vdrv_kick(&b->v[q]);
		start(b);
	}
	cr_assert_eq(b->heard.opens, b->heard.closes);
	open_port(b);
	b->heard.n = 0;
	send(b, 0, "end", 3);
	sent(b);
	cr_assert_eq(b->heard.n, 3, "and it still works");
	bed_free(b);
}

/* Two vCPUs ring all bells, and one writes; nothing is lost, and nobody is kept from the worker. */
static void *ring_all(void *arg)
{
	struct bed *b = arg;

	for (int i = 0; i < 20000; i++)
		vdrv_set(&b->con.dev, VDRV_QUEUE_NOTIFY, (uint32_t)i % NQ);
	return NULL;
}

struct other {
	struct io_work work; /* first */
	_Atomic int ran;
};

static void other_run(struct io_work *w)
{
	((struct other *)(void *)w)->ran++;
}

Test(console, a_storm_of_notifications_keeps_nobody_waiting)
{
	struct bed *b = bed_new();
	struct other o = {.work.run = other_run};
	pthread_t t;

	open_port(b);
	cr_assert_eq(pthread_create(&t, NULL, ring_all, b), 0);
	for (int i = 0; i < 500; i++) {
		send(b, (uint16_t)(i % QSIZE), "0123456789", 10);
		sent(b);
		io_worker_queue(b->worker, &o.work);
		io_worker_drain(b->worker, &o.work);
	}
	pthread_join(t, NULL);
	cr_assert_eq(b->heard.n, 5000);
	cr_assert_eq(o.ran, 500);
	bed_free(b);
}
