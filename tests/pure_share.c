/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_share.c: many runs shared in one go (ept_share_runs): short ones are emptied first, by one call,
 * and none of it is ever lost, whichever call of the host fails and however.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ept/ept.h"
#include "tests/fake_host.h"

#define PAGES  128
#define FRAMES 256

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept e;
	int pool, parked;
	uint64_t lost;
};

static void park(void *arg)
{
	((struct fix *)arg)->parked++;
}

static void unpark(void *arg)
{
	((struct fix *)arg)->parked--;
}

static void lost(void *arg, const char *why)
{
	(void)why;
	((struct fix *)arg)->lost++;
}

static void content(uint8_t *buf, uint64_t page)
{
	for (unsigned int i = 0; i < OB_PAGE_SIZE; i++)
		buf[i] = (uint8_t)(page * 37 + i % 251 + 1);
}

/* A guest whose page p is what frame 2p and frame p + 128 hold. Page 0 is not touched. */
static void make(struct fix *x)
{
	uint8_t buf[OB_PAGE_SIZE];

	memset(x, 0, sizeof(*x));
	x->h = fake_host_new();
	x->arena = ob_arena_new("test");
	x->pool = x->h->ops->memfd(x->h, "pool", FRAMES * OB_PAGE_SIZE);
	cr_assert_eq(gmem_init(&x->mem, x->h, PAGES * OB_PAGE_SIZE, "guest"), 0);
	cr_assert_eq(ept_init(&x->e, x->h, &x->mem,
			      (struct ept_parker){
				      .park = park, .unpark = unpark, .fail = lost, .arg = x},
			      x->arena),
		     0);
	for (uint64_t p = 1; p < PAGES; p++) {
		content(buf, p);
		fake_host_write(x->h, gmem_page_hva(&x->mem, p), buf, sizeof(buf));
	}
	for (uint64_t f = 0; f < FRAMES; f++) {
		content(buf, f < 128 ? f / 2 : f - 128);
		cr_assert_eq(
			x->h->ops->file_write(x->h, x->pool, buf, sizeof(buf), f * OB_PAGE_SIZE),
			0);
	}
	cr_assert_eq(ept_sync(&x->e, 0, PAGES, NULL), 0);
}

static void unmake(struct fix *x)
{
	cr_assert_eq(x->parked, 0);
	ept_exit(&x->e);
	gmem_exit(&x->mem);
	cr_assert_eq(ob_arena_bytes(x->arena), 0);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
}

static uint64_t wrong(struct fix *x)
{
	uint8_t want[OB_PAGE_SIZE], got[OB_PAGE_SIZE];
	uint64_t n = 0;

	for (uint64_t p = 1; p < PAGES; p++) {
		content(want, p);
		fake_host_read(x->h, gmem_page_hva(&x->mem, p), got, sizeof(got));
		n += memcmp(want, got, sizeof(got)) != 0;
	}
	return n;
}

static void check(struct fix *x, const char *what, int i, uint64_t nth)
{
	struct ept_verify v;

	cr_assert_eq(ept_verify(&x->e, &v), 0);
	cr_assert_eq(v.differences, 0, "%s %d.%d: page %d: %s", what, i, (int)nth,
		     (int)v.first[0].page, v.first[0].why);
	ept_check(&x->e);
}

/* Some singles, some runs, one that is long. */
static unsigned int list(struct ept_share *s)
{
	unsigned int n = 0;

	for (uint64_t p = 1; p < 40; p += 3)
		s[n++] = (struct ept_share){.page = p, .n = 1, .frame = 2 * p};
	s[n++] = (struct ept_share){.page = 44, .n = 5, .frame = 128 + 44};
	s[n++] = (struct ept_share){.page = 50, .n = EPT_SHARE_EMPTY + 10, .frame = 128 + 50};
	s[n++] = (struct ept_share){.page = 100, .n = 2, .frame = 128 + 100};
	return n;
}

static unsigned int share(struct fix *x, struct ept_share *s)
{
	unsigned int n = list(s), done = 0;
	int64_t freed, sum = 0;
	uint64_t ns;

	cr_assert_eq(ept_freeze(&x->e, 0, PAGES), 0);
	freed = ept_share_runs(&x->e, s, n, x->pool, &ns);
	ept_thaw(&x->e);
	for (unsigned int i = 0; i < n; i++) {
		sum += s[i].err ? 0 : s[i].freed;
		done += !s[i].err;
		for (uint64_t p = s[i].page; p < s[i].page + s[i].n; p++)
			/* What is shared already is refused, and stays so. */
			cr_assert_eq(ept_state_of(&x->e, p),
				     s[i].err && s[i].err != -EINVAL ? EPT_PRIVATE : EPT_SHARED);
	}
	cr_assert_eq(freed, sum);
	return done;
}

Test(share, short_runs_are_emptied_by_one_call)
{
	struct ept_share s[EPT_SHARE_RUNS];
	struct fix x;
	unsigned int n;

	make(&x);
	n = share(&x, s);
	cr_assert_eq(n, list(s) /* writes s anew */);
	cr_assert_eq(fake_host_calls(x.h, FAKE_DISCARD_MANY), 1);
	cr_assert_eq(fake_host_calls(x.h, FAKE_MAP_FRAMES), n);
	cr_assert_eq(wrong(&x), 0);
	check(&x, "plain", 0, 0);
	unmake(&x);
}

Test(share, what_lies_over_the_pool_is_never_emptied)
{
	struct ept_share s[EPT_SHARE_RUNS];
	uint8_t buf[OB_PAGE_SIZE];
	struct fix x;
	unsigned int n;

	make(&x);
	share(&x, s);
	/* Broken off, with the same content again: the frame beneath may be another's by now. */
	for (uint64_t p = 1; p < PAGES; p++) {
		content(buf, p);
		fake_host_write(x.h, gmem_page_hva(&x.mem, p), buf, sizeof(buf));
	}
	cr_assert_eq(ept_sync(&x.e, 0, PAGES, NULL), 0);
	n = share(&x, s);
	for (unsigned int i = 0; i < n; i++)
		cr_assert(!s[i].emptied);
	cr_assert_eq(fake_host_calls(x.h, FAKE_DISCARD_MANY), 1, "the first time only");
	cr_assert_eq(wrong(&x), 0);
	check(&x, "broken", 0, 0);
	unmake(&x);
}

Test(share, nothing_is_lost_when_calls_fail)
{
	for (int how = 0; how < 6; how++)
		for (uint64_t nth = 0; nth < 20; nth++) {
			struct ept_share s[EPT_SHARE_RUNS];
			struct fix x;
			unsigned int n;

			make(&x);
			switch (how) {
			case 0:
				fake_host_fail(x.h, FAKE_MAP_FRAMES, nth, ENOMEM);
				break;
			case 1:
				fake_host_fail_with_hole(x.h, FAKE_MAP_FRAMES, nth, ENOMEM);
				break;
			case 2: /* emptied in part, and then not mapped */
				fake_host_fail_partly(x.h, FAKE_DISCARD_MANY, 1, ENOMEM, nth);
				fake_host_fail(x.h, FAKE_MAP_FRAMES, FAKE_EVERY, ENOMEM);
				break;
			case 3:
				fake_host_fail_partly(x.h, FAKE_DISCARD_MANY, 1, ENOMEM, nth);
				fake_host_fail_with_hole(x.h, FAKE_MAP_FRAMES, FAKE_EVERY, ENOMEM);
				break;
			case 4:
				fake_host_fail(x.h, FAKE_PAGES, nth + 1, EIO);
				break;
			case 5: /* no mapping to be had for anything: what is there is filled again */
				fake_host_fail(x.h, FAKE_MAP_FRAMES, FAKE_EVERY, ENOMEM);
				fake_host_fail(x.h, FAKE_MAP_EMPTY, FAKE_EVERY, ENOMEM);
				break;
			default:
				break;
			}
			n = share(&x, s);
			if (how != 4)
				cr_assert_lt(n, list(s) + (nth > 0), "%d.%d", how, (int)nth);
			for (unsigned int op = 0; op < FAKE_NOPS; op++)
				fake_host_fail(x.h, (enum fake_op)op, 1, 0);
			cr_assert_eq(x.lost, 0, "%d.%d", how, (int)nth);
			cr_assert_eq(wrong(&x), 0, "%d.%d", how, (int)nth);
			check(&x, "failing", how, nth);
			/* And it goes on as if nothing had been. */
			share(&x, s);
			cr_assert_eq(wrong(&x), 0);
			unmake(&x);
		}
}

/* The map has a page as zero, which the guest has written since: it comes back like the others. */
Test(share, a_page_that_is_zero_no_more_comes_back)
{
	for (int hole = 0; hole < 2; hole++) {
		struct ept_share s[EPT_SHARE_RUNS];
		uint8_t buf[OB_PAGE_SIZE];
		struct fix x;
		uint64_t ns;

		make(&x);
		cr_assert_geq(ept_balloon(&x.e, 4, 1, true), 0);
		cr_assert_eq(ept_balloon(&x.e, 4, 1, false), 0);
		content(buf, 4);
		fake_host_write(x.h, gmem_page_hva(&x.mem, 4), buf, sizeof(buf));
		cr_assert_eq(ept_state_of(&x.e, 4), EPT_ZERO);
		if (hole)
			fake_host_fail_with_hole(x.h, FAKE_MAP_FRAMES, FAKE_EVERY, ENOMEM);
		else
			fake_host_fail(x.h, FAKE_MAP_FRAMES, FAKE_EVERY, ENOMEM);
		cr_assert_eq(ept_freeze(&x.e, 0, PAGES), 0);
		cr_assert_eq(ept_share_runs(&x.e, s, list(s), x.pool, &ns), 0);
		ept_thaw(&x.e);
		cr_assert_eq(wrong(&x), 0);
		check(&x, "zero", hole, 0);
		unmake(&x);
	}
}

/* A guest whose page can neither be mapped nor filled again is ended, with a reason. */
Test(share, a_page_that_cannot_come_back_ends_the_guest)
{
	struct ept_share s[EPT_SHARE_RUNS];
	struct fix x;

	make(&x);
	fake_host_fail_with_hole(x.h, FAKE_MAP_FRAMES, 1, ENOMEM);
	fake_host_fail(x.h, FAKE_MAP_EMPTY, FAKE_EVERY, ENOMEM);
	share(&x, s);
	cr_assert_gt(x.lost, 0);
	unmake(&x);
}

Test(share, wrong_lists_are_refused)
{
	struct ept_share s[2] = {{.page = 4, .n = 2, .frame = 8}, {.page = 5, .n = 1, .frame = 10}};
	struct fix x;
	uint64_t ns;

	make(&x);
	cr_assert_eq(ept_freeze(&x.e, 0, 8), 0);
	cr_assert_eq(ept_share_runs(&x.e, s, 2, x.pool, &ns), -EINVAL, "they overlap");
	cr_assert_eq(ept_share_runs(&x.e, s, EPT_SHARE_RUNS + 1, x.pool, &ns), -EINVAL);
	s[0] = (struct ept_share){.page = 7, .n = 2, .frame = 14}; /* partly not frozen */
	s[1] = (struct ept_share){.page = PAGES - 1, .n = 2, .frame = 1};
	cr_assert_eq(ept_share_runs(&x.e, s, 2, x.pool, &ns), 0);
	cr_assert_eq(s[0].err, -EBUSY);
	cr_assert_eq(s[1].err, -ERANGE);
	s[0] = (struct ept_share){.page = 0, .n = 1, .frame = 0}; /* never touched */
	cr_assert_eq(ept_share_runs(&x.e, s, 1, x.pool, &ns), 0);
	cr_assert_eq(s[0].err, -EINVAL);
	ept_thaw(&x.e);
	cr_assert_eq(wrong(&x), 0);
	unmake(&x);
}

/* --- reshare.c: a copy in front of its frame is dropped ---------------------------------------- */

static uint8_t frame_content[PAGES][OB_PAGE_SIZE];

/* Shared, then written with the same again. Fills @r with all such pages; returns how many. */
static unsigned int break_all(struct fix *x, struct ept_reshare *r)
{
	struct ept_share s[EPT_SHARE_RUNS];
	unsigned int nruns = share(x, s), n = 0;

	for (unsigned int i = 0; i < nruns; i++)
		for (uint64_t k = 0; k < s[i].n; k++) {
			uint64_t p = s[i].page + k;

			content(frame_content[p], p);
			fake_host_write(x->h, gmem_page_hva(&x->mem, p), frame_content[p],
					OB_PAGE_SIZE);
			r[n++] = (struct ept_reshare){.page = p,
						      .frame = (uint32_t)(s[i].frame + k),
						      .content = frame_content[p]};
		}
	cr_assert_eq(ept_sync(&x->e, 0, PAGES, NULL), 0);
	for (unsigned int i = 0; i < n; i++) {
		cr_assert_eq(ept_state_of(&x->e, r[i].page), EPT_PRIVATE);
		cr_assert_eq(ept_frame_under(&x->e, r[i].page), r[i].frame);
	}
	return n;
}

static unsigned int reshare(struct fix *x, struct ept_reshare *r, unsigned int n)
{
	unsigned int done = 0;
	int64_t freed;

	cr_assert_eq(ept_freeze(&x->e, 0, PAGES), 0);
	freed = ept_reshare_pages(&x->e, r, n);
	ept_thaw(&x->e);
	for (unsigned int i = 0; i < n; i++) {
		done += !r[i].err;
		/* What is shared already is refused, and stays so. */
		cr_assert_eq(ept_frame_of(&x->e, r[i].page),
			     r[i].err && r[i].err != -EINVAL ? EPT_NO_FRAME : r[i].frame);
	}
	cr_assert_eq(freed, (int64_t)(done * OB_PAGE_SIZE));
	return done;
}

Test(share, copies_in_front_of_their_frame_are_dropped_by_one_call)
{
	struct ept_reshare r[EPT_SHARE_RUNS];
	uint64_t discards, maps;
	struct fix x;
	unsigned int n;

	make(&x);
	n = break_all(&x, r);
	discards = fake_host_calls(x.h, FAKE_DISCARD_MANY);
	maps = fake_host_calls(x.h, FAKE_MAP_FRAMES);
	cr_assert_eq(reshare(&x, r, n), n);
	cr_assert_eq(fake_host_calls(x.h, FAKE_DISCARD_MANY), discards + 1);
	cr_assert_eq(fake_host_calls(x.h, FAKE_MAP_FRAMES), maps);
	cr_assert_eq(wrong(&x), 0);
	cr_assert_eq(x.lost, 0);
	check(&x, "again", 0, 0);
	unmake(&x);
}

Test(share, a_drop_that_fails_leaves_copy_or_frame)
{
	for (uint64_t nth = 0; nth < 12; nth++) {
		struct ept_reshare r[EPT_SHARE_RUNS];
		struct fix x;
		unsigned int n, done;

		make(&x);
		n = break_all(&x, r);
		fake_host_fail_partly(x.h, FAKE_DISCARD_MANY, 1, ENOMEM, nth);
		done = reshare(&x, r, n);
		cr_assert_lt(done, n);
		cr_assert_eq(wrong(&x), 0);
		check(&x, "failing", 0, nth);
		fake_host_fail(x.h, FAKE_DISCARD_MANY, 1, 0);
		for (unsigned int i = 0; i < n; i++)
			if (r[i].err)
				cr_assert_eq(ept_frame_under(&x.e, r[i].page), r[i].frame);
		cr_assert_eq(reshare(&x, r, n), n - done, "the others are shared already");
		cr_assert_eq(wrong(&x), 0);
		cr_assert_eq(x.lost, 0);
		unmake(&x);
	}
}

Test(share, only_the_frame_under_a_page_can_show_again)
{
	struct ept_reshare r[EPT_SHARE_RUNS], one;
	struct ept_run run = {.page = 1, .n = 1};
	struct fix x;
	unsigned int n;

	make(&x);
	n = break_all(&x, r);
	cr_assert_eq(ept_frame_under(&x.e, 0), EPT_NO_FRAME, "never shared");
	cr_assert_eq(ept_frame_under(&x.e, PAGES), EPT_NO_FRAME);
	/* Nobody froze it. */
	one = r[0];
	cr_assert_eq(ept_reshare_pages(&x.e, &one, 1), 0);
	cr_assert_eq(one.err, -EBUSY);
	/* Not that frame, though it holds the same; and lists that are none. */
	one.frame = (uint32_t)(128 + one.page);
	cr_assert_eq(ept_freeze(&x.e, 0, PAGES), 0);
	cr_assert_eq(ept_reshare_pages(&x.e, &one, 1), 0);
	ept_thaw(&x.e);
	cr_assert_eq(one.err, -EINVAL);
	cr_assert_eq(ept_state_of(&x.e, one.page), EPT_PRIVATE);
	one = r[0];
	r[0] = r[1];
	cr_assert_eq(ept_reshare_pages(&x.e, r, n), -EINVAL);
	r[0] = one;
	cr_assert_eq(ept_reshare_pages(&x.e, r, EPT_SHARE_RUNS + 1), -EINVAL);
	/* Another mapping has taken its place: balloon and take forget what was beneath. */
	cr_assert(ept_balloon(&x.e, r[0].page, 1, true) >= 0);
	cr_assert_eq(ept_frame_under(&x.e, r[0].page), EPT_NO_FRAME);
	run.page = r[1].page;
	x.e.no_thread = true;
	if (ept_take(&x.e, &run, 1, false) == 1) {
		cr_assert_eq(ept_frame_under(&x.e, run.page), EPT_NO_FRAME);
		cr_assert_eq(ept_put_back(&x.e, &run, 1), 1);
		cr_assert_eq(ept_frame_under(&x.e, run.page), EPT_NO_FRAME);
	}
	check(&x, "forgotten", 0, 0);
	unmake(&x);
}

/* The map is wrong about what lies beneath: no byte of it reaches the guest. */
Test(share, another_frame_beneath_ends_the_guest)
{
	struct ept_reshare r[EPT_SHARE_RUNS];
	struct fix x;
	unsigned int n;
	hva_t at;

	make(&x);
	n = break_all(&x, r);
	at = gmem_page_hva(&x.mem, r[2].page);
	cr_assert_eq(x.h->ops->map_frames(x.h, at, OB_PAGE_SIZE, x.pool, 9 * OB_PAGE_SIZE), 0);
	fake_host_write(x.h, at, frame_content[r[2].page], OB_PAGE_SIZE);
	cr_assert_eq(reshare(&x, r, n), n - 1);
	cr_assert_eq(r[2].err, -EIO);
	cr_assert_eq(x.lost, 1);
	x.e.tampered = true;
	unmake(&x);
}
