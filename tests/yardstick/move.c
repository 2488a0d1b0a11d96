/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move.c: all of a guest's area out and back again, as fast as it goes, under a guest that
 * increments a counter in every page meanwhile.
 *
 * One thread moves pages out in batches; another answers the guest's faults by moving back what is
 * out of the 16 pages round the one that is missing. When all have been out once, the first thread
 * moves back whatever is left, and that was a round. A byte per page says whether it is out, and
 * one lock is held over each move, so no page is moved twice and none is forgotten: less than that
 * would not work, and it is all that there is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/yardstick/yardstick.h"

#define BATCH	    512
#define AROUND	    16
#define END_SECONDS 60

struct moves {
	pthread_mutex_t lock;
	uint8_t *out; /* [pages] */
	uint64_t rounds;
	uint64_t ns;
};

/* Move back those of [page, end) that are out, in runs. The lock is held. */
static int bring_back(struct yard_uffd *u, struct moves *m, uint64_t page, uint64_t end)
{
	while (page < end) {
		uint64_t n = 0;
		int ret;

		while (page < end && !m->out[page])
			page++;
		while (page + n < end && m->out[page + n])
			n++;
		if (!n)
			break;
		ret = yard_move_back(u, page, n);
		if (ret)
			return ret;
		memset(m->out + page, 0, n);
		page += n;
	}
	return 0;
}

static int answer(struct yard_uffd *u, uint64_t page)
{
	uint64_t first = page / AROUND * AROUND;
	struct moves *m = u->arg;
	int ret;

	pthread_mutex_lock(&m->lock);
	/* It may have come back since it was missed: then nothing but the waking is left. */
	if (m->out[page])
		ret = bring_back(u, m, first, OB_MIN(first + AROUND, u->y->pages));
	else
		ret = yard_wake(u, page);
	pthread_mutex_unlock(&m->lock);
	return ret;
}

static int one_round(struct yard_uffd *u, struct moves *m)
{
	int ret = 0;

	for (uint64_t page = 0; page < u->y->pages && !ret; page += BATCH) {
		uint64_t n = OB_MIN(u->y->pages - page, (uint64_t)BATCH);

		pthread_mutex_lock(&m->lock);
		ret = yard_move_out(u, page, n);
		if (!ret)
			memset(m->out + page, 1, n);
		pthread_mutex_unlock(&m->lock);
	}
	for (uint64_t page = 0; page < u->y->pages && !ret; page += BATCH) {
		pthread_mutex_lock(&m->lock);
		ret = bring_back(u, m, page, OB_MIN(page + BATCH, u->y->pages));
		pthread_mutex_unlock(&m->lock);
	}
	return ret ? ret : u->error;
}

static bool has_done(const struct yard *y, uint64_t ops)
{
	return y->report.ops >= ops;
}

static int rounds(struct yard_uffd *u, struct moves *m, struct ob_err *e)
{
	uint64_t begin = yard_now_ns(), until = begin + u->y->opts->seconds * OB_NS_PER_SEC;
	int ret;

	do {
		ret = one_round(u, m);
		if (ret)
			return ob_fail(e, -ret, "moving pages: %s", strerror(-ret));
		m->rounds++;
		ret = yard_look(u->y, e);
	} while (!ret && yard_now_ns() < until);
	m->ns = yard_now_ns() - begin;
	return ret;
}

static void say(json_t *doc, const struct yard_uffd *u, const struct moves *m, uint64_t ops)
{
	const struct yard *y = u->y;
	double seconds = (double)m->ns / OB_NS_PER_SEC;

	json_object_set_new(doc, "pages", json_integer((json_int_t)y->pages));
	json_object_set_new(doc, "batch_pages", json_integer(BATCH));
	json_object_set_new(doc, "around_pages", json_integer(AROUND));
	json_object_set_new(doc, "rounds", json_integer((json_int_t)m->rounds));
	json_object_set_new(doc, "seconds", json_real(seconds));
	json_object_set_new(doc, "pages_per_second",
			    json_real((double)(m->rounds * y->pages) / seconds));
	json_object_set_new(doc, "faults", json_integer((json_int_t)u->faults));
	json_object_set_new(doc, "guest_ops_per_second", json_real((double)ops / seconds));
	json_object_set_new(doc, "mismatches", json_integer((json_int_t)y->report.mismatches));
}

int yard_moves(const struct yard_opts *o, json_t *doc, struct ob_err *e)
{
	struct moves m = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct yard_uffd u = {.fd = -1};
	struct yard y;
	uint64_t ops = 0, before;
	int ret = yard_boot(&y, o, "counters", e);

	if (!ret) {
		m.out = calloc(y.pages, 1);
		OB_ASSERT(m.out);
		ret = yard_uffd_open(&u, &y, answer, &m, e);
	}
	if (!ret)
		ret = yard_look(&y, e);
	before = y.report.ops;
	if (!ret)
		ret = rounds(&u, &m, e);
	if (!ret) {
		ops = y.report.ops - before;
		/* An update that was lost shows when the guest comes round again. */
		ret = yard_wait(&y, has_done, y.report.ops + 2 * y.pages, END_SECONDS, e);
	}
	if (!ret)
		say(doc, &u, &m, ops);
	yard_uffd_close(&u);
	yard_end(&y);
	free(m.out);
	return ret;
}
