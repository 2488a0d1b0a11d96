/* SPDX-License-Identifier: Apache-2.0 */
/* pure_track.c: the tracker's fan-out, by hand and against a naive oracle; and the check of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ept/track_check.h"
#include "tests/track_rig.h"

static bool bit(const uint64_t *bitmap, uint64_t i)
{
	return bitmap[i / 64] >> i % 64 & 1;
}

/* Take everything; returns how many. */
static int64_t take_all(struct track_rig *r, int consumer)
{
	uint64_t out[(TRACK_PAGES + 63) / 64];

	return ept_track_take(&r->t, consumer, 0, TRACK_PAGES, out, NULL);
}

Test(track, a_new_consumer_has_all_pages)
{
	struct track_rig r;
	uint64_t out[(TRACK_PAGES + 63) / 64], unknown = 1;
	int c;

	track_rig_make(&r, false);
	cr_assert(!ept_track_on(&r.t, 0, TRACK_PAGES));
	c = ept_track_consumer_add(&r.t);
	cr_assert_eq(c, 0);
	cr_assert_eq(ept_track_take(&r.t, c, 0, TRACK_PAGES, out, &unknown), TRACK_PAGES);
	cr_assert_eq(unknown, 0);
	for (uint64_t p = 0; p < TRACK_PAGES; p++)
		cr_assert(bit(out, p));
	cr_assert_eq(take_all(&r, c), 0, "taken is taken");
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), 0);
	track_rig_unmake(&r);
}

Test(track, a_slot_that_is_off_is_unknown_and_never_clean)
{
	struct track_rig r;
	uint64_t out[2], unknown;
	struct ept_track_stats st;
	int c;

	track_rig_make(&r, true);
	c = ept_track_consumer_add(&r.t);
	take_all(&r, c);
	cr_assert_eq(ept_track_take(&r.t, c, 60, 70, out, &unknown), 70);
	cr_assert_eq(unknown, 70);
	cr_assert(!ept_track_known(&r.t, 60));
	cr_assert(!ept_track_known(&r.t, TRACK_PAGES), "outside the guest");

	/* Across a border: one slot is on, the other off. */
	cr_assert(!ept_track_on(&r.t, TRACK_SLOT_PAGES, 1));
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(take_all(&r, c), TRACK_PAGES);
	log_model_write(&r.log, TRACK_SLOT_PAGES + 3, NULL);
	log_model_write(&r.log, TRACK_SLOT_PAGES - 1, NULL);
	cr_assert(!ept_track_collect(&r.t));
	cr_assert_eq(ept_track_take(&r.t, c, TRACK_SLOT_PAGES - 4, 10, out, &unknown), 5);
	cr_assert_eq(unknown, 4);
	cr_assert_eq(out[0], 0xf | 1 << 7);
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.slots_on, 1);
	cr_assert_eq(st.pages_on, TRACK_SLOT_PAGES);
	cr_assert_eq(st.pages_off, TRACK_PAGES - TRACK_SLOT_PAGES);
	track_rig_unmake(&r);
}

Test(track, switching_on_sets_all_pages_for_everybody)
{
	for (int full = 0; full < 2; full++) {
		struct track_rig r;
		int a, b;

		track_rig_make(&r, full);
		a = ept_track_consumer_add(&r.t);
		b = ept_track_consumer_add(&r.t);
		cr_assert(!ept_track_on(&r.t, 0, TRACK_PAGES));
		cr_assert(!ept_track_collect(&r.t));
		cr_assert_eq(take_all(&r, a), TRACK_PAGES);
		cr_assert(!ept_track_off(&r.t, 0, TRACK_SLOT_PAGES));
		cr_assert(!ept_track_on(&r.t, 0, 1));
		cr_assert_eq(take_all(&r, a), TRACK_SLOT_PAGES,
			     "what was written meanwhile is unknown");
		cr_assert(!ept_track_on(&r.t, 0, TRACK_SLOT_PAGES));
		cr_assert_eq(take_all(&r, a), 0, "it was on");
		cr_assert_eq(take_all(&r, b), TRACK_PAGES);
		track_rig_unmake(&r);
	}
}

Test(track, slots_of_a_range)
{
	struct track_rig r;

	track_rig_make(&r, false);
	cr_assert(!ept_track_on(&r.t, TRACK_SLOT_PAGES - 1, 2));
	cr_assert(r.log.on[0] && r.log.on[1] && !r.log.on[2] && !r.log.on[3]);
	cr_assert(!ept_track_off(&r.t, 1, 2 * TRACK_SLOT_PAGES - 1));
	cr_assert(r.log.on[0] && !r.log.on[1], "only what lies wholly inside is switched off");
	cr_assert(!ept_track_off(&r.t, 0, TRACK_SLOT_PAGES - 1));
	cr_assert(r.log.on[0]);
	cr_assert(!ept_track_on(&r.t, 3 * TRACK_SLOT_PAGES, 77));
	cr_assert(r.log.on[3]);
	track_rig_unmake(&r);
}

Test(track, bad_ranges_and_consumers_are_refused)
{
	struct track_rig r;
	uint64_t out[8];
	int c;

	track_rig_make(&r, false);
	c = ept_track_consumer_add(&r.t);
	cr_assert_eq(ept_track_on(&r.t, 0, TRACK_PAGES + 1), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, TRACK_PAGES, 1), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, 1, UINT64_MAX), -EINVAL);
	cr_assert_eq(ept_track_on(&r.t, 1, 0), -EINVAL);
	cr_assert_eq(ept_track_off(&r.t, UINT64_MAX, 1), -EINVAL);
	cr_assert_eq(ept_track_mark(&r.t, TRACK_PAGES - 1, 2), -EINVAL);
	cr_assert_eq(ept_track_mark(&r.t, UINT64_MAX, 2), -EINVAL);
	cr_assert_eq(ept_track_take(&r.t, c, TRACK_PAGES - 1, 2, out, NULL), -EINVAL);
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
	track_rig_unmake(&r);
}

Test(track, a_log_that_fails_hides_no_write)
{
	struct ept_track_stats st;
	struct track_rig r;
	int c;

	track_rig_make(&r, false);
	c = ept_track_consumer_add(&r.t);
	/* The third slot cannot be switched on: none is. */
	r.log.fail_set = 3;
	cr_assert_eq(ept_track_on(&r.t, 0, TRACK_PAGES), -EIO);
	for (unsigned int s = 0; s < TRACK_SLOTS; s++)
		cr_assert(!r.log.on[s]);
	cr_assert(!ept_track_known(&r.t, 0));
	cr_assert(!ept_track_on(&r.t, 0, TRACK_PAGES));
	cr_assert(!ept_track_collect(&r.t));
	take_all(&r, c);

	log_model_write(&r.log, 5, NULL);
	log_model_write(&r.log, TRACK_SLOT_PAGES + 5, NULL);
	r.log.fail_collect = 2;
	cr_assert_eq(ept_track_collect(&r.t), -EIO);
	cr_assert_eq(take_all(&r, c), 1 + TRACK_SLOT_PAGES, "the log that failed is all set");
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.failed, 1);
	cr_assert_eq(st.by_log, 1);
	cr_assert_eq(st.reported, 1 + TRACK_SLOT_PAGES);
	track_rig_unmake(&r);
}

/* A device's write is reported after it has ended, however the collects lie. */
Test(track, a_device_access_is_marked_when_it_ends)
{
	struct ept_track_stats st;
	struct gmem_access acc, rd;
	struct track_rig r;
	uint64_t out[1];
	int c;

	track_rig_make(&r, false);
	c = ept_track_consumer_add(&r.t);
	cr_assert(!ept_track_on(&r.t, 0, TRACK_PAGES));
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
	track_rig_unmake(&r);
}

/* --- against an oracle ------------------------------------------------------------------- */

#define ROUNDS 20000

/* What must be so, page by page, in the plainest way. */
struct oracle {
	bool on[TRACK_SLOTS];
	bool noted[TRACK_PAGES], marked[TRACK_PAGES];
	bool there[EPT_TRACK_CONSUMERS];
	bool set[EPT_TRACK_CONSUMERS][TRACK_PAGES];
	uint64_t reported, by_log, by_devices;
};

static unsigned int slot_of(uint64_t page)
{
	return (unsigned int)(page / TRACK_SLOT_PAGES);
}

static void oracle_on(struct oracle *o, uint64_t page, uint64_t n, bool full)
{
	for (unsigned int s = slot_of(page); s <= slot_of(page + n - 1); s++) {
		if (o->on[s])
			continue;
		o->on[s] = true;
		for (uint64_t p = 0; p < TRACK_PAGES; p++) {
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
	for (unsigned int s = 0; s < TRACK_SLOTS; s++) {
		uint64_t first = s * TRACK_SLOT_PAGES,
			 last = OB_MIN(first + TRACK_SLOT_PAGES, TRACK_PAGES) - 1;

		if (first >= page && last < page + n)
			o->on[s] = false;
	}
}

static void oracle_collect(struct oracle *o)
{
	for (uint64_t p = 0; p < TRACK_PAGES; p++) {
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

static void check_take(struct track_rig *r, struct oracle *o, int c, uint64_t page, uint64_t n,
		       unsigned int seed, int round)
{
	uint64_t out[(TRACK_PAGES + 63) / 64 + 1], unknown = 0, none = 0;
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
	uint64_t most = rand_r(seed) % 2 ? 70 : TRACK_PAGES;

	*page = (uint64_t)rand_r(seed) % TRACK_PAGES;
	*n = 1 + (uint64_t)rand_r(seed) % OB_MIN(most, TRACK_PAGES - *page);
}

static void against_oracle(unsigned int seed, bool full)
{
	struct oracle *o = calloc(1, sizeof(*o));
	unsigned int first_seed = seed;
	struct ept_track_stats st;
	uint64_t page, n;
	struct track_rig r;
	int c;

	cr_assert(o);
	track_rig_make(&r, full);
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
			for (uint64_t p = 0; p < TRACK_PAGES; p++)
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
			log_model_write(&r.log, page, NULL);
			o->noted[page] |= o->on[slot_of(page)];
		}
		cr_assert_eq(ept_track_known(&r.t, page), o->on[slot_of(page)]);
	}
	ept_track_read_stats(&r.t, &st);
	cr_assert_eq(st.reported, o->reported, "seed %u", first_seed);
	cr_assert_eq(st.by_log, o->by_log);
	cr_assert_eq(st.by_devices, o->by_devices);
	cr_assert_eq(st.pages_on + st.pages_off, TRACK_PAGES);
	track_rig_unmake(&r);
	free(o);
}

Test(track, random_against_oracle, .timeout = 120)
{
	for (unsigned int seed = 1; seed <= 4; seed++)
		against_oracle(seed, seed % 2);
}

/* --- the check itself ------------------------------------------------------------------------ */

/* It must find what it is there to find. */
Test(track_check, finds_a_missed_page_and_counts_the_unchanged)
{
	struct ept_track_check c;
	uint64_t out[(TRACK_PAGES + 63) / 64], other[(TRACK_PAGES + 63) / 64] = {0};
	uint64_t *w;
	struct track_rig r;

	track_rig_make(&r, false);
	cr_assert_eq(ept_track_check_init(&c, &r.mem, 1, TRACK_PAGES, 1, r.arena), -EINVAL);
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
	/* Now neither. What has not changed is owed by nobody. */
	out[0] = 0;
	ept_track_check_compare(&c, out);
	ept_track_check_other(&c, other);
	cr_assert_eq(c.owed[0], 0, "a false report is no debt");
	/* What has is owed until it comes. */
	for (uint64_t i = 5; i <= 6; i++) {
		w = hva_ptr(gmem_page_hva(&r.mem, 10 + i));
		w[0]++;
	}
	ept_track_check_other(&c, other);
	ept_track_check_compare(&c, out);
	out[0] = 1ULL << 6;
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.disputed, 2, "at most two at once");
	cr_assert_eq(c.owed[0], 1ULL << 5);
	ept_track_check_exit(&c);
	track_rig_unmake(&r);
}

/* Never reported at all is missed as well. */
Test(track_check, what_is_never_reported_is_missed)
{
	uint64_t out[(TRACK_PAGES + 63) / 64] = {0};
	struct ept_track_check c;
	struct track_rig r;

	track_rig_make(&r, false);
	cr_assert(!ept_track_check_init(&c, &r.mem, 0, TRACK_PAGES, 1, r.arena));
	ept_track_check_snapshot(&c);
	ept_track_check_compare(&c, out);
	cr_assert_eq(c.st.missed, TRACK_PAGES);
	ept_track_check_exit(&c);
	track_rig_unmake(&r);
}
