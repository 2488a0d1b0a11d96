/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_track.c: the tracker's fan-out against a naive oracle, and with threads, over a model of
 * KVM's log. The concurrent tests are also meant for ThreadSanitizer (SAN=thread).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ept/ept.h"
#include "ept/track_check.h"
#include "tests/fake_host.h"

#define SLOT_PAGES (GMEM_SLOT_ALIGN / OB_PAGE_SIZE)
#define PAGES	   (3 * SLOT_PAGES + 77) /* four slots, the last one odd */
#define SLOTS	   4

/*
 * KVM's log as the tracker may rely on it: a write to a slot that is on is noted before the write
 * itself can be seen, and after a collect the next write is noted anew. One lock a page stands for
 * the protection of its entry.
 */
struct log_model {
	const struct gmem *mem;
	bool starts_full; /* INITIALLY_SET */
	bool on[SLOTS];
	bool noted[PAGES];
	pthread_mutex_t page_lock[PAGES];
	int fail_set, fail_collect; /* the n-th call from now fails; 0: none */
	unsigned int sets, collects;
};

static int model_set(void *arg, unsigned int slot, bool on)
{
	struct log_model *m = arg;
	const struct gmem_slot *s = &m->mem->slot[slot];

	if (m->fail_set && !--m->fail_set)
		return -EIO;
	m->sets++;
	for (uint64_t p = s->first_page; p < s->first_page + s->pages; p++) {
		pthread_mutex_lock(&m->page_lock[p]);
		m->noted[p] = on && m->starts_full;
		if (p == s->first_page)
			m->on[slot] = on;
		pthread_mutex_unlock(&m->page_lock[p]);
	}
	return 0;
}

static int model_collect(void *arg, unsigned int slot, uint64_t *bitmap)
{
	struct log_model *m = arg;
	const struct gmem_slot *s = &m->mem->slot[slot];
	bool fail = m->fail_collect && !--m->fail_collect;

	cr_assert(m->on[slot], "collected while it is off");
	m->collects++;
	memset(bitmap, 0xa5, (s->pages + 63) / 64 * sizeof(bitmap[0]));
	for (uint64_t i = 0; i < s->pages; i++) {
		uint64_t p = s->first_page + i;

		pthread_mutex_lock(&m->page_lock[p]);
		bitmap[i / 64] &= ~(1ULL << i % 64);
		bitmap[i / 64] |= (uint64_t)m->noted[p] << i % 64;
		m->noted[p] = false;
		pthread_mutex_unlock(&m->page_lock[p]);
	}
	/* What comes behind the last page is nobody's. */
	return fail ? -EIO : 0;
}

static void model_write(struct log_model *m, uint64_t page, _Atomic uint64_t *counter)
{
	pthread_mutex_lock(&m->page_lock[page]);
	m->noted[page] = true; /* of a slot that is off: forgotten when it is switched on */
	if (counter)
		atomic_fetch_add(counter, 1);
	pthread_mutex_unlock(&m->page_lock[page]);
}

struct rig {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct log_model log;
	struct ept e;
	struct ept_track t;
};

static void nothing(void *arg)
{
	(void)arg;
}

static void make(struct rig *r, bool starts_full)
{
	memset(r, 0, sizeof(*r));
	r->h = fake_host_new();
	r->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&r->mem, r->h, PAGES * OB_PAGE_SIZE, "test"));
	cr_assert(!gmem_divide(&r->mem, GMEM_SLOT_ALIGN));
	cr_assert_eq(r->mem.nslots, SLOTS);
	cr_assert(!ept_init(&r->e, r->h, &r->mem,
			    (struct ept_parker){.park = nothing, .unpark = nothing}, r->arena));
	r->log.mem = &r->mem;
	r->log.starts_full = starts_full;
	for (uint64_t p = 0; p < PAGES; p++)
		pthread_mutex_init(&r->log.page_lock[p], NULL);
	ept_track_init(
		&r->t,
		(struct ept_log_ops){.set = model_set, .collect = model_collect, .arg = &r->log},
		&r->mem, r->arena);
	ept_track_attach(&r->e, &r->t);
}

static void unmake(struct rig *r)
{
	ept_track_attach(&r->e, NULL);
	ept_track_exit(&r->t);
	for (unsigned int s = 0; s < SLOTS; s++)
		cr_assert(!r->log.on[s], "slot %u was left on", s);
	ept_exit(&r->e);
	gmem_exit(&r->mem);
	for (uint64_t p = 0; p < PAGES; p++)
		pthread_mutex_destroy(&r->log.page_lock[p]);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
	fake_host_free(r->h);
}

static bool bit(const uint64_t *bitmap, uint64_t i)
{
	return bitmap[i / 64] >> i % 64 & 1;
}

/* Take everything; returns how many. */
static int64_t take_all(struct rig *r, int consumer)
{
	uint64_t out[(PAGES + 63) / 64];

	return ept_track_take(&r->t, consumer, 0, PAGES, out, NULL);
}

Test(track, a_new_consumer_has_all_pages)
{
	struct rig r;
	uint64_t out[(PAGES + 63) / 64], unknown = 1;
	int c;

	make(&r, false);
	cr_assert(!ept_track_on(&r.t, 0, PAGES));
	c = ept_track_consumer_add(&r.t);
	cr_assert_eq(c, 0);
	cr_assert_eq(ept_track_take(&r.t, c, 0, PAGES, out, &unknown), PAGES);
	cr_assert_eq(unknown, 0);
	for (uint64_t p = 0; p < PAGES; p++)
		cr_assert(bit(out, p));
	cr_assert_eq(take_all(&r, c), 0, "taken is taken");
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), 0);
	unmake(&r);
}

Test(track, a_slot_that_is_off_is_unknown_and_never_clean)
{
	struct rig r;
	uint64_t out[2], unknown;
	struct ept_track_stats st;
	int c;

	make(&r, true);
	c = ept_track_consumer_add(&r.t);
	take_all(&r, c);
	cr_assert_eq(ept_track_take(&r.t, c, 60, 70, out, &unknown), 70);
	cr_assert_eq(unknown, 70);
	cr_assert(!ept_track_known(&r.t, 60));
	cr_assert(!ept_track_known(&r.t, PAGES), "outside the guest");

	/* Across a border: one slot is on, the other off. */
	cr_assert(!ept_track_on(&r.t, SLOT_PAGES, 1));
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), PAGES);
	model_write(&r.log, SLOT_PAGES + 3, NULL);
	model_write(&r.log, SLOT_PAGES - 1, NULL);
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(ept_track_take(&r.t, c, SLOT_PAGES - 4, 10, out, &unknown), 5);
	cr_assert_eq(unknown, 4);
	cr_assert_eq(out[0], 0xf | 1 << 7);
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.slots_on, 1);
	cr_assert_eq(st.pages_on, SLOT_PAGES);
	cr_assert_eq(st.pages_off, PAGES - SLOT_PAGES);
	unmake(&r);
}

Test(track, switching_on_sets_all_pages_for_everybody)
{
	for (int full = 0; full < 2; full++) {
		struct rig r;
		int a, b;

		make(&r, full);
		a = ept_track_consumer_add(&r.t);
		b = ept_track_consumer_add(&r.t);
		cr_assert(!ept_track_on(&r.t, 0, PAGES));
		cr_assert(!ept_track_collect(&r.t));
		cr_assert_eq(take_all(&r, a), PAGES);
		cr_assert(!ept_track_off(&r.t, 0, SLOT_PAGES));
		cr_assert(!ept_track_on(&r.t, 0, 1));
		cr_assert_eq(take_all(&r, a), SLOT_PAGES, "what was written meanwhile is unknown");
		cr_assert(!ept_track_on(&r.t, 0, SLOT_PAGES));
		cr_assert_eq(take_all(&r, a), 0, "it was on");
		cr_assert_eq(take_all(&r, b), PAGES);
		unmake(&r);
	}
}

Test(track, slots_of_a_range)
{
	struct rig r;

	make(&r, false);
	cr_assert(!ept_track_on(&r.t, SLOT_PAGES - 1, 2));
	cr_assert(r.log.on[0] && r.log.on[1] && !r.log.on[2] && !r.log.on[3]);
	cr_assert(!ept_track_off(&r.t, 1, 2 * SLOT_PAGES - 1));
	cr_assert(r.log.on[0] && !r.log.on[1], "only what lies wholly inside is switched off");
	cr_assert(!ept_track_off(&r.t, 0, SLOT_PAGES - 1));
	cr_assert(r.log.on[0]);
	cr_assert(!ept_track_on(&r.t, 3 * SLOT_PAGES, 77));
	cr_assert(r.log.on[3]);
	unmake(&r);
}

Test(track, bad_ranges_and_consumers_are_refused)
{
	struct rig r;
	uint64_t out[8];
	int c;

	make(&r, false);
	c = ept_track_consumer_add(&r.t);
	cr_assert_eq(ept_track_on(&r.t, 0, PAGES + 1), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, PAGES, 1), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, 1, UINT64_MAX), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, 1, 0), -EINVAL);
	cr_assert_eq(ept_track_off(&r.t, UINT64_MAX, 1), -EINVAL);
	cr_assert_eq(ept_track_mark(&r.t, PAGES - 1, 2), -EINVAL);
	cr_assert_eq(ept_track_mark(&r.t, UINT64_MAX, 2), -EINVAL);
	cr_assert_eq(ept_track_take(&r.t, c, PAGES - 1, 2, out, NULL), -EINVAL);
	cr_assert_eq(ept_track_take(&r.t, c + 1, 0, 1, out, NULL), -EINVAL);
	cr_assert_eq(ept_track_take(&r.t, -1, 0, 1, out, NULL), -EINVAL);
	cr_assert_eq(ept_track_take(&r.t, EPT_TRACK_CONSUMERS, 0, 1, out, NULL), -EINVAL);
	cr_assert_eq(ept_track_consumer_remove(&r.t, c + 1), -EINVAL);
	cr_assert_eq(r.log.sets, 0, "nothing was switched");
	for (int i = 1; i < EPT_TRACK_CONSUMERS; i++)
		cr_assert_eq(ept_track_consumer_add(&r.t), i);
	cr_assert_eq(ept_track_consumer_add(&r.t), -ENOSPC);
	cr_assert(!ept_track_consumer_remove(&r.t, 3));
	cr_assert_eq(ept_track_consumer_remove(&r.t, 3), -EINVAL);
	cr_assert_eq(ept_track_consumer_add(&r.t), 3);
	unmake(&r);
}

Test(track, a_log_that_fails_hides_no_write)
{
	struct ept_track_stats st;
	struct rig r;
	int c;

	make(&r, false);
	c = ept_track_consumer_add(&r.t);
	/* The third slot cannot be switched on: none is. */
	r.log.fail_set = 3;
	cr_assert_eq(ept_track_on(&r.t, 0, PAGES), -EIO);
	for (unsigned int s = 0; s < SLOTS; s++)
		cr_assert(!r.log.on[s]);
	cr_assert(!ept_track_known(&r.t, 0));
	cr_assert(!ept_track_on(&r.t, 0, PAGES));
	cr_assert(!ept_track_collect(&r.t));
	take_all(&r, c);

	model_write(&r.log, 5, NULL);
	model_write(&r.log, SLOT_PAGES + 5, NULL);
	r.log.fail_collect = 2;
	cr_assert_eq(ept_track_collect(&r.t), -EIO);
	cr_assert_eq(take_all(&r, c), 1 + SLOT_PAGES, "the log that failed is all set");
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.failed, 1);
	cr_assert_eq(st.by_log, 1);
	cr_assert_eq(st.reported, 1 + SLOT_PAGES);
	unmake(&r);
}

/* A device's write is reported after it has ended, however the collects lie. */
Test(track, a_device_access_is_marked_when_it_ends)
{
	struct ept_track_stats st;
	struct gmem_access acc, rd;
	struct rig r;
	uint64_t out[1];
	int c;

	make(&r, false);
	c = ept_track_consumer_add(&r.t);
	cr_assert(!ept_track_on(&r.t, 0, PAGES));
	take_all(&r, c);
	cr_assert(!gmem_access_begin(&r.mem, gpa(2 * OB_PAGE_SIZE - 1), 2, true, &acc));
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), 0);
	gmem_access_end(&r.mem, &acc);
	cr_assert(!gmem_access_begin(&r.mem, gpa(9 * OB_PAGE_SIZE), 2, false, &rd));
	gmem_access_end(&r.mem, &rd);
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(ept_track_take(&r.t, c, 0, 64, out, NULL), 2);
	cr_assert_eq(out[0], 6, "both pages that it touched, and none that was only read");
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.by_devices, 2);
	cr_assert_eq(st.by_log, 0);

	ept_track_attach(&r.e, NULL);
	cr_assert(!gmem_write(&r.mem, gpa(0), "x", 1));
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), 0, "detached");
	unmake(&r);
}

/* --- against an oracle ------------------------------------------------------------------- */

#define ROUNDS 20000

/* What must be so, page by page, in the plainest way. */
struct oracle {
	bool on[SLOTS];
	bool noted[PAGES], marked[PAGES];
	bool there[EPT_TRACK_CONSUMERS];
	bool set[EPT_TRACK_CONSUMERS][PAGES];
	uint64_t reported, by_log, by_devices;
};

static unsigned int slot_of(uint64_t page)
{
	return (unsigned int)(page / SLOT_PAGES);
}

static void oracle_on(struct oracle *o, uint64_t page, uint64_t n, bool full)
{
	for (unsigned int s = slot_of(page); s <= slot_of(page + n - 1); s++) {
		if (o->on[s])
			continue;
		o->on[s] = true;
		for (uint64_t p = 0; p < PAGES; p++) {
			if (slot_of(p) != s)
				continue;
			o->noted[p] = full;
			for (int c = 0; c < EPT_TRACK_CONSUMERS; c++)
				o->set[c][p] = true;
		}
	}
}

static void oracle_off(struct oracle *o, uint64_t page, uint64_t n)
{
	for (unsigned int s = 0; s < SLOTS; s++) {
		uint64_t first = s * SLOT_PAGES, last = OB_MIN(first + SLOT_PAGES, PAGES) - 1;

		if (first >= page && last < page + n)
			o->on[s] = false;
	}
}

static void oracle_collect(struct oracle *o)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		if (!o->on[slot_of(p)])
			continue;
		o->reported += o->noted[p] || o->marked[p];
		o->by_log += o->noted[p];
		o->by_devices += o->marked[p];
		for (int c = 0; c < EPT_TRACK_CONSUMERS; c++)
			o->set[c][p] |= o->noted[p] || o->marked[p];
		o->noted[p] = o->marked[p] = false;
	}
}

static void check_take(struct rig *r, struct oracle *o, int c, uint64_t page, uint64_t n,
		       unsigned int seed, int round)
{
	uint64_t out[(PAGES + 63) / 64 + 1], unknown = 0, none = 0;
	int64_t got, want = 0;

	memset(out, 0x5a, sizeof(out));
	got = ept_track_take(&r->t, c, page, n, out, &unknown);
	for (uint64_t i = 0; i < n; i++) {
		bool off = !o->on[slot_of(page + i)], set = off || o->set[c][page + i];

		cr_assert_eq(bit(out, i), set, "seed %u, round %d: page %lu of consumer %d", seed,
			     round, page + i, c);
		want += set;
		none += off;
		if (!off)
			o->set[c][page + i] = false;
	}
	for (uint64_t i = n; i < (n + 63) / 64 * 64; i++)
		cr_assert(!bit(out, i), "a bit behind the end");
	cr_assert_eq(out[(n + 63) / 64], 0x5a5a5a5a5a5a5a5aULL, "wrote too far");
	cr_assert_eq(got, want, "seed %u, round %d", seed, round);
	cr_assert_eq(unknown, none, "seed %u, round %d", seed, round);
}

static void random_range(unsigned int *seed, uint64_t *page, uint64_t *n)
{
	uint64_t most = rand_r(seed) % 2 ? 70 : PAGES;

	*page = (uint64_t)rand_r(seed) % PAGES;
	*n = 1 + (uint64_t)rand_r(seed) % OB_MIN(most, PAGES - *page);
}

static void against_oracle(unsigned int seed, bool full)
{
	struct oracle *o = calloc(1, sizeof(*o));
	unsigned int first_seed = seed;
	struct ept_track_stats st;
	uint64_t page, n;
	struct rig r;
	int c;

	cr_assert(o);
	make(&r, full);
	for (int round = 0; round < ROUNDS; round++) {
		random_range(&seed, &page, &n);
		c = rand_r(&seed) % EPT_TRACK_CONSUMERS;
		switch (rand_r(&seed) % 16) {
		case 0:
			cr_assert(!ept_track_on(&r.t, page, n));
			oracle_on(o, page, n, full);
			break;
		case 1:
			cr_assert(!ept_track_off(&r.t, page, n));
			oracle_off(o, page, n);
			break;
		case 2:
			c = ept_track_consumer_add(&r.t);
			for (int i = 0; i < EPT_TRACK_CONSUMERS; i++)
				cr_assert(c < 0 ? o->there[i] : i >= c || o->there[i]);
			if (c < 0)
				break;
			cr_assert(!o->there[c]);
			o->there[c] = true;
			for (uint64_t p = 0; p < PAGES; p++)
				o->set[c][p] = true;
			break;
		case 3:
			cr_assert_eq(ept_track_consumer_remove(&r.t, c), o->there[c] ? 0 : -EINVAL);
			o->there[c] = false;
			break;
		case 4:
		case 5:
			cr_assert(!ept_track_collect(&r.t));
			oracle_collect(o);
			break;
		case 6:
		case 7:
		case 8:
			if (o->there[c])
				check_take(&r, o, c, page, n, first_seed, round);
			break;
		case 9:
			cr_assert(!gmem_write(&r.mem, gpa(page * OB_PAGE_SIZE), "x", 1));
			o->marked[page] = true;
			break;
		case 10:
			cr_assert(!ept_track_mark(&r.t, page, n));
			for (uint64_t p = page; p < page + n; p++)
				o->marked[p] = true;
			break;
		default:
			model_write(&r.log, page, NULL);
			o->noted[page] |= o->on[slot_of(page)];
		}
		cr_assert_eq(ept_track_known(&r.t, page), o->on[slot_of(page)]);
	}
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.reported, o->reported, "seed %u", first_seed);
	cr_assert_eq(st.by_log, o->by_log);
	cr_assert_eq(st.by_devices, o->by_devices);
	cr_assert_eq(st.pages_on + st.pages_off, PAGES);
	unmake(&r);
	free(o);
}

Test(track, random_against_oracle, .timeout = 120)
{
	for (unsigned int seed = 1; seed <= 4; seed++)
		against_oracle(seed, seed % 2);
}

/* --- threads --------------------------------------------------------------------------------- */

#ifdef __SANITIZE_THREAD__
#define THREAD_PASSES 50
#else
#define THREAD_PASSES 150
#endif
#define THREADS 2 /* of each kind */

struct stress {
	struct rig r;
	_Atomic bool stop;
	pthread_mutex_t device; /* held over each device access; snapshots are taken under it */
	_Atomic unsigned int next_seed;
	_Atomic uint64_t missed, written, reported;
};

static _Atomic uint64_t *counter(struct stress *s, uint64_t page, unsigned int which)
{
	return (_Atomic uint64_t *)hva_ptr(gmem_page_hva(&s->r.mem, page)) + which;
}

static void *vcpu_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;

	while (!s->stop) {
		uint64_t p = (uint64_t)rand_r(&seed) % PAGES;

		model_write(&s->r.log, p, counter(s, p, 0));
	}
	return NULL;
}

static void *device_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;

	while (!s->stop) {
		uint64_t p = (uint64_t)rand_r(&seed) % PAGES;
		struct gmem_access acc;

		pthread_mutex_lock(&s->device);
		cr_assert(!gmem_access_begin(&s->r.mem, gpa(p * OB_PAGE_SIZE), 16, true, &acc));
		atomic_fetch_add((_Atomic uint64_t *)acc.ptr + 1, 1);
		gmem_access_end(&s->r.mem, &acc);
		pthread_mutex_unlock(&s->device);
	}
	return NULL;
}

/* A consumer that comes, does its passes and goes, again and again. */
static void *consumer_thread(void *arg)
{
	struct stress *s = arg;

	for (unsigned int life = 0; life < 3; life++) {
		uint64_t out[(PAGES + 63) / 64];
		struct ept_track_check check;
		int c = ept_track_consumer_add(&s->r.t);

		cr_assert(c >= 0);
		cr_assert(!ept_track_check_init(&check, &s->r.mem, 0, PAGES, 2, s->r.arena));
		for (int pass = 0; pass < THREAD_PASSES; pass++) {
			pthread_mutex_lock(&s->device);
			ept_track_check_snapshot(&check);
			pthread_mutex_unlock(&s->device);
			cr_assert(!ept_track_collect(&s->r.t));
			cr_assert(ept_track_take(&s->r.t, c, 0, PAGES, out, NULL) >= 0);
			ept_track_check_compare(&check, out);
		}
		s->missed += check.st.missed;
		s->written += check.st.written;
		s->reported += check.st.reported;
		ept_track_check_exit(&check);
		cr_assert(!ept_track_consumer_remove(&s->r.t, c));
	}
	return NULL;
}

static void *switching_thread(void *arg)
{
	struct stress *s = arg;
	unsigned int seed = s->next_seed++;
	struct ept_track_stats st;

	while (!s->stop) {
		uint64_t page = (uint64_t)rand_r(&seed) % PAGES;

		cr_assert(!ept_track_off(&s->r.t, 0, PAGES / 2));
		cr_assert(!ept_track_on(&s->r.t, page, 1));
		cr_assert(!ept_track_on(&s->r.t, 0, PAGES));
		ept_track_known(&s->r.t, page);
		ept_track_read_stats(&s->r.t, &st);
		cr_assert_eq(st.pages_on + st.pages_off, PAGES);
	}
	return NULL;
}

static void stress(bool switching)
{
	struct stress *s = calloc(1, sizeof(*s));
	pthread_t vcpu[THREADS], device[THREADS], consumer[THREADS], toggler;

	cr_assert(s);
	make(&s->r, true);
	pthread_mutex_init(&s->device, NULL);
	s->next_seed = 1;
	cr_assert(!ept_track_on(&s->r.t, 0, PAGES));
	for (int i = 0; i < THREADS; i++) {
		cr_assert(!pthread_create(&vcpu[i], NULL, vcpu_thread, s));
		cr_assert(!pthread_create(&device[i], NULL, device_thread, s));
		cr_assert(!pthread_create(&consumer[i], NULL, consumer_thread, s));
	}
	if (switching)
		cr_assert(!pthread_create(&toggler, NULL, switching_thread, s));
	for (int i = 0; i < THREADS; i++)
		pthread_join(consumer[i], NULL);
	s->stop = true;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(vcpu[i], NULL);
		pthread_join(device[i], NULL);
	}
	if (switching)
		pthread_join(toggler, NULL);
	cr_assert_eq(s->missed, 0, "%lu of %lu written pages were missed", s->missed, s->written);
	cr_assert_gt(s->written, PAGES * THREADS * 3, "nobody wrote");
	cr_assert_geq(s->reported, s->written);
	unmake(&s->r);
	pthread_mutex_destroy(&s->device);
	free(s);
}

Test(track, collects_marks_and_takes_at_once, .timeout = 240)
{
	stress(false);
}

Test(track, and_slots_are_switched_meanwhile, .timeout = 240)
{
	stress(true);
}

/* --- two threads at one word ----------------------------------------------------------------- */

/* A log in which nothing is ever written: collecting and switching take no time. */
static int quiet_set(void *arg, unsigned int slot, bool on)
{
	(void)arg;
	(void)slot;
	(void)on;
	return 0;
}

static int quiet_collect(void *arg, unsigned int slot, uint64_t *bitmap)
{
	const struct gmem *mem = arg;

	memset(bitmap, 0, (mem->slot[slot].pages + 63) / 64 * sizeof(bitmap[0]));
	return 0;
}

struct duel {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept_track t;
	int consumer;
	pthread_t other;
	_Atomic bool stop;
	_Atomic uint64_t taken[64];
	_Atomic uint64_t word; /* stands for the content of the last page */
	_Atomic uint64_t wrong;
};

static struct duel *duel_start(uint64_t pages, void *(*other)(void *))
{
	struct duel *d = calloc(1, sizeof(*d));

	cr_assert(d);
	d->h = fake_host_new();
	d->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&d->mem, d->h, pages * OB_PAGE_SIZE, "test"));
	ept_track_init(
		&d->t,
		(struct ept_log_ops){.set = quiet_set, .collect = quiet_collect, .arg = &d->mem},
		&d->mem, d->arena);
	cr_assert(!ept_track_on(&d->t, 0, 1));
	d->consumer = ept_track_consumer_add(&d->t);
	cr_assert(!pthread_create(&d->other, NULL, other, d));
	return d;
}

static void duel_end(struct duel *d)
{
	d->stop = true;
	pthread_join(d->other, NULL);
	ept_track_exit(&d->t);
	gmem_exit(&d->mem);
	ob_arena_free(d->arena);
	fake_host_free(d->h);
	free(d);
}

static void *take_without_a_pause(void *arg)
{
	struct duel *d = arg;
	uint64_t out;

	while (!d->stop) {
		cr_assert(ept_track_take(&d->t, d->consumer, 0, 64, &out, NULL) >= 0);
		for (; out; out &= out - 1)
			d->taken[__builtin_ctzll(out)]++;
	}
	return NULL;
}

/* The second page of a pair often comes while the first is being taken. */
Test(track, a_page_that_comes_during_a_take_is_not_lost, .timeout = 120)
{
	struct duel *d = duel_start(64, take_without_a_pause);

	for (int round = 0; round < 30000; round++) {
		uint64_t pair[2] = {(uint64_t)round % 64, ((uint64_t)round + 7) % 64}, before[2];

		for (int i = 0; i < 2; i++)
			before[i] = d->taken[pair[i]];
		for (int i = 0; i < 2; i++) {
			cr_assert(!ept_track_mark(&d->t, pair[i], 1));
			cr_assert(!ept_track_collect(&d->t));
		}
		for (int i = 0; i < 2; i++)
			for (int spin = 0; d->taken[pair[i]] == before[i]; spin++) {
				cr_assert_lt(spin, 1000000, "page %lu was lost in round %d",
					     pair[i], round);
				if (spin > 100)
					sched_yield();
			}
	}
	duel_end(d);
}

/* While the slot is off its last page is written; who is told "clean" must have seen that. */
static void *look_without_a_pause(void *arg)
{
	struct duel *d = arg;
	uint64_t out, seen = UINT64_MAX;

	while (!d->stop) {
		uint64_t now = d->word;

		cr_assert(ept_track_take(&d->t, d->consumer, d->mem.pages - 1, 1, &out, NULL) >= 0);
		if (out)
			seen = d->word;
		else
			d->wrong += now != seen;
	}
	return NULL;
}

Test(track, no_moment_of_switching_on_looks_clean, .timeout = 120)
{
	struct duel *d = duel_start(4096, look_without_a_pause);

	for (int round = 0; round < 50000; round++) {
		cr_assert(!ept_track_off(&d->t, 0, 4096));
		d->word++;
		cr_assert(!ept_track_on(&d->t, 0, 1));
	}
	cr_assert_eq(d->wrong, 0);
	duel_end(d);
}

/* --- the check itself ------------------------------------------------------------------------ */

/* It must find what it is there to find. */
Test(track_check, finds_a_missed_page_and_counts_the_unchanged)
{
	struct ept_track_check c;
	uint64_t out[(PAGES + 63) / 64], other[(PAGES + 63) / 64] = {0};
	uint64_t *w;
	struct rig r;

	make(&r, false);
	cr_assert_eq(ept_track_check_init(&c, &r.mem, 1, PAGES, 1, r.arena), -EINVAL);
	cr_assert_eq(ept_track_check_init(&c, &r.mem, 0, 0, 1, r.arena), -EINVAL);
	cr_assert_eq(ept_track_check_init(&c, &r.mem, 0, 1, 513, r.arena), -EINVAL);
	cr_assert(!ept_track_check_init(&c, &r.mem, 10, 100, 2, r.arena));

	memset(out, 0xff, sizeof(out));
	ept_track_check_snapshot(&c);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.reported, 100);
	cr_assert_eq(c.st.missed, 0);
	cr_assert_eq(c.st.unchanged, 0, "nothing is known before the first pass");

	w = hva_ptr(gmem_page_hva(&r.mem, 10 + 42));
	w[1]++;
	w = hva_ptr(gmem_page_hva(&r.mem, 10 + 43));
	w[2]++; /* no counter */
	memset(out, 0, sizeof(out));
	out[1] = 1ULL << (99 - 64);
	ept_track_check_snapshot(&c);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.missed, 1);
	cr_assert_eq(c.st.first_bad, 10 + 42);
	cr_assert_eq(c.st.bad_pass, 2);
	cr_assert_eq(c.st.unchanged, 1);

	/* A write between snapshot and collect need not be reported yet, only in the end. */
	w = hva_ptr(gmem_page_hva(&r.mem, 10 + 7));
	memset(out, 0, sizeof(out));
	ept_track_check_snapshot(&c);
	w[0]++;
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.missed, 1);
	ept_track_check_snapshot(&c);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.missed, 2);

	/* Another tracker reports two pages; ours reports one of them now, and one had been. */
	out[0] = 1ULL << 5;
	ept_track_check_compare(&c, out);
	other[0] = 1ULL << 5 | 1ULL << 6;
	out[0] = 1ULL << 6;
	ept_track_check_other(&c, other);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.disputed, 0);
	/* Now neither: they are owed until they come. */
	out[0] = 0;
	ept_track_check_compare(&c, out);
	ept_track_check_other(&c, other);
	ept_track_check_compare(&c, out);
	out[0] = 1ULL << 6;
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.disputed, 2, "at most two at once");
	cr_assert_eq(c.owed[0], 1ULL << 5);
	ept_track_check_exit(&c);
	unmake(&r);
}

/* Never reported at all is missed as well. */
Test(track_check, what_is_never_reported_is_missed)
{
	uint64_t out[(PAGES + 63) / 64] = {0};
	struct ept_track_check c;
	struct rig r;

	make(&r, false);
	cr_assert(!ept_track_check_init(&c, &r.mem, 0, PAGES, 1, r.arena));
	ept_track_check_snapshot(&c);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.missed, PAGES);
	ept_track_check_exit(&c);
	unmake(&r);
}
