/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_reshare.c: pages that broke off a frame show it again (ept_reshare_pages); and never another
 * thing than that frame, whatever has become of the mapping meanwhile.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/fake_guest.h"

#define PAGE  5
#define FRAME 9

static const uint8_t *seven(void)
{
	static uint8_t page[OB_PAGE_SIZE];

	memset(page, 7, sizeof(page));
	return page;
}

/* Page 5 was shared with a frame of sevens, was broken off, and is of sevens again. */
static void make(struct fg *g)
{
	fg_make(g, 64, 0);
	fg_frames(g, FRAME, 1, 7);
	fg_fill(g, PAGE, 1, 7);
	cr_assert_eq(fg_share(g, PAGE, 1, FRAME), OB_PAGE_SIZE);
	fg_fill(g, PAGE, 1, 8);
	cr_assert(!ept_sync(&g->e, 0, 64, NULL));
	fg_fill(g, PAGE, 1, 7);
}

static int reshare(struct fg *g)
{
	struct ept_reshare s = {.page = PAGE, .frame = FRAME, .content = seven()};

	cr_assert(!ept_freeze(&g->e, PAGE, 1));
	cr_assert_geq(ept_reshare_pages(&g->e, &s, 1), 0);
	ept_thaw(&g->e);
	g->held[FRAME] += !s.err;
	return s.err;
}

Test(reshare, the_copy_goes_and_the_frame_shows)
{
	struct fg g;

	make(&g);
	cr_assert_eq(ept_frame_under(&g.e, PAGE), FRAME);
	cr_assert_eq(reshare(&g), 0);
	cr_assert_eq(ept_frame_of(&g.e, PAGE), FRAME);
	cr_assert_eq(fake_host_private_pages(g.h), 0);
	fg_expect(&g, PAGE, 1, 7);
	fg_verify(&g);
	fg_unmake(&g);
}

/* Staging gets the page, a new mapping takes its place, and then its faults cannot be ours: the page
 * goes back, over no frame any more. */
Test(reshare, a_page_that_could_not_be_taken_lies_over_no_frame)
{
	for (uint64_t nth = 1; nth < 4; nth++)
		for (int op = 0; op < 2; op++) {
			struct fg g;

			make(&g);
			cr_assert_eq(fg_take(&g, 40, 1), 0); /* staging is made */
			fake_host_fail(g.h, op ? FAKE_DISCARD : FAKE_UFFD_REGISTER, nth, ENOMEM);
			fg_take(&g, PAGE, 1);
			fake_host_fail(g.h, op ? FAKE_DISCARD : FAKE_UFFD_REGISTER, 1, 0);
			fg_back(&g, 0, 64); /* closes the window */
			if (ept_frame_under(&g.e, PAGE) == FRAME) {
				cr_assert(fake_host_file_mapped(g.h, fg_at(&g, PAGE)));
				cr_assert_eq(reshare(&g), 0);
			} else {
				cr_assert_eq(reshare(&g), -EINVAL);
			}
			fg_expect(&g, PAGE, 1, 7);
			fg_verify(&g);
			fg_unmake(&g);
		}
}

/* Where faults come to us no page can show its frame again, so none is said to be under it. */
Test(reshare, not_where_faults_are_ours)
{
	struct fg g;

	make(&g);
	fg_fill(&g, 30, 1, 3);
	cr_assert_eq(fg_take(&g, 30, 1), 1);
	cr_assert_eq(ept_frame_under(&g.e, PAGE), EPT_NO_FRAME);
	cr_assert_eq(reshare(&g), -EINVAL);
	cr_assert_eq(fg_back(&g, 30, 1), 1);
	cr_assert_eq(ept_frame_under(&g.e, PAGE), FRAME);
	fg_unmake(&g);
}

/* Neither did the copy go, as far as the host says, nor does it say what is there: the frame may show,
 * so its hold is kept until a sync finds a copy. */
Test(reshare, a_host_that_fails_and_does_not_say)
{
	for (int say = 0; say < 2; say++) {
		struct fg g;

		make(&g);
		fake_host_fail(g.h, FAKE_DISCARD_MANY, 1, ENOMEM);
		if (!say)
			fake_host_fail(g.h, FAKE_PAGES, 1, EIO);
		cr_assert_eq(reshare(&g), say ? -ENOMEM : 0);
		cr_assert_eq(ept_state_of(&g.e, PAGE), say ? EPT_PRIVATE : EPT_SHARED);
		fake_host_fail(g.h, FAKE_PAGES, 1, 0);
		fg_verify(&g);
		cr_assert_eq(g.held[FRAME], 0);
		fg_expect(&g, PAGE, 1, 7);
		fg_unmake(&g);
	}
}
