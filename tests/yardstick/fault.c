/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c: the bare round trip of a fault: a page of the guest is moved out, the guest touches it,
 * and a thread on the same CPU moves it back. One page at a time; every second touch is a write.
 *
 * We stay on that CPU as well, and are asleep while the guest waits. A CPU that has run a thread of
 * this process, even one that is asleep now, is interrupted when a mapping changes, which costs 10
 * us of a round trip of 40.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/yardstick/yardstick.h"
#include "workloads/area.h"

#define WARM_UP	     64 /* touches that do not count */
#define PING_POLL_NS (200 * OB_NS_PER_US)
#define PING_SECONDS 10

struct fault {
	uint64_t *ns
		[3]; /* samples: reads and writes as the guest saw them, and the handler's share */
	uint64_t n[3];
	uint64_t room;
	bool counts; /* the warm-up is over */
};

enum { READS, WRITES, HANDLER };

static void add(struct fault *f, unsigned int what, uint64_t ns)
{
	if (f->counts && f->n[what] < f->room)
		f->ns[what][f->n[what]++] = ns;
}

static int answer(struct yard_uffd *u, uint64_t page)
{
	uint64_t begin = yard_now_ns();
	int ret = yard_move_back(u, page, 1);

	add(u->arg, HANDLER, yard_now_ns() - begin);
	return ret;
}

static int ping(struct yard_uffd *u, uint64_t page, bool write, uint64_t *ns, struct ob_err *e)
{
	struct agent_ping *p = (struct agent_ping *)u->y->area;
	uint64_t request = __atomic_load_n(&p->done, __ATOMIC_RELAXED) + 1;
	uint64_t until = yard_now_ns() + PING_SECONDS * OB_NS_PER_SEC;

	__atomic_store_n(&p->page, page, __ATOMIC_RELAXED);
	__atomic_store_n(&p->write, write, __ATOMIC_RELAXED);
	__atomic_store_n(&p->ask, request, __ATOMIC_RELEASE);
	do {
		int ret;

		yard_nap(PING_POLL_NS);
		ret = yard_look(u->y, e);
		if (ret)
			return ret;
		if (u->error)
			return ob_fail(e, -u->error, "moving a page back: %s", strerror(-u->error));
		if (yard_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "the guest did not touch its page");
	} while (__atomic_load_n(&p->done, __ATOMIC_ACQUIRE) != request);
	*ns = __atomic_load_n(&p->ns, __ATOMIC_RELAXED);
	return *ns == AGENT_PING_REFUSED ? ob_fail(e, EIO, "the guest refused its page") : 0;
}

static int touch_all(struct yard_uffd *u, struct fault *f, struct ob_err *e)
{
	uint64_t total = f->room + WARM_UP, faults;
	struct area_order order;

	/* Page 0 is the mailbox. */
	area_order_init(&order, u->y->pages - 1, 1);
	for (uint64_t i = 0; i < total; i++) {
		uint64_t page = 1 + area_order_at(&order, i % order.n), ns;
		int ret = yard_move_out(u, page, 1);

		if (ret)
			return ob_fail(e, -ret, "moving a page out: %s", strerror(-ret));
		if (i == WARM_UP)
			f->counts = true;
		faults = u->faults;
		ret = ping(u, page, i % 2, &ns, e);
		if (ret)
			return ret;
		if (u->faults != faults + 1)
			return ob_fail(e, EIO, "%llu faults for one page",
				       (unsigned long long)(u->faults - faults));
		add(f, i % 2 ? WRITES : READS, ns);
	}
	return yard_look(u->y, e);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static json_t *at_percent(const uint64_t *v, uint64_t n, unsigned int percent)
{
	return n ? json_integer((json_int_t)v[(n - 1) * percent / 100]) : json_null();
}

static void say(json_t *doc, const char *what, uint64_t *v, uint64_t n)
{
	char name[40];

	qsort(v, n, sizeof(*v), by_value);
	snprintf(name, sizeof(name), "%s_p50_ns", what);
	json_object_set_new(doc, name, at_percent(v, n, 50));
	snprintf(name, sizeof(name), "%s_p99_ns", what);
	json_object_set_new(doc, name, at_percent(v, n, 99));
}

int yard_fault(const struct yard_opts *o, json_t *doc, struct ob_err *e)
{
	struct fault f = {.room = o->samples};
	struct yard_uffd u = {.fd = -1};
	uint64_t *all;
	struct yard y;
	int ret;

	for (unsigned int i = 0; i < 3; i++) {
		f.ns[i] = calloc(f.room + 1, sizeof(*f.ns[i]));
		OB_ASSERT(f.ns[i]);
	}
	ret = yard_boot(&y, o, "ping", e);
	if (!ret)
		ret = yard_stay(o->cpu, e);
	if (!ret && y.pages < 2)
		ret = ob_fail(e, EIO, "the guest's area has no page to touch");
	if (!ret)
		ret = yard_uffd_open(&u, &y, answer, &f, e);
	if (!ret)
		ret = touch_all(&u, &f, e);
	yard_uffd_close(&u); /* its thread has added the last sample now */
	if (!ret) {
		all = calloc(f.room + 1, sizeof(*all));
		OB_ASSERT(all);
		memcpy(all, f.ns[READS], f.n[READS] * sizeof(*all));
		memcpy(all + f.n[READS], f.ns[WRITES], f.n[WRITES] * sizeof(*all));
		json_object_set_new(doc, "samples", json_integer((json_int_t)f.room));
		say(doc, "guest", all, f.n[READS] + f.n[WRITES]);
		say(doc, "guest_read", f.ns[READS], f.n[READS]);
		say(doc, "guest_write", f.ns[WRITES], f.n[WRITES]);
		say(doc, "handler", f.ns[HANDLER], f.n[HANDLER]);
		free(all);
	}
	yard_end(&y);
	for (unsigned int i = 0; i < 3; i++)
		free(f.ns[i]);
	return ret;
}
