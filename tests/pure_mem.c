/* SPDX-License-Identifier: Apache-2.0 */
/* pure_mem.c: guest RAM: layout round the device hole, translation,
 * and the fake host it stands on. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/mem.h"
#include "tests/fake_host.h"

Test(gmem, small_guest_is_one_region)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;

	cr_assert_eq(gmem_init(&gm, h, 4 * OB_MIB, "t"), 0);
	cr_assert_eq(gm.nregions, 1);
	cr_assert_eq(gm.pages, 1024);
	cr_assert_eq(gm.region[0].gpa.v, 0);
	cr_assert_eq(gm.region[0].hva.v % (2 * OB_MIB), 0);
	cr_assert_eq(fake_host_mapped_bytes(h), 4 * OB_MIB);
	gmem_exit(&gm);
	cr_assert_eq(fake_host_mapped_bytes(h), 0);
	fake_host_free(h);
}

Test(gmem, bad_sizes_are_refused)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;

	cr_assert_eq(gmem_init(&gm, h, 0, "t"), -EINVAL);
	cr_assert_eq(gmem_init(&gm, h, 4095, "t"), -EINVAL);
	cr_assert_eq(gmem_init(&gm, h, UINT64_MAX & ~OB_PAGE_MASK, "t"), -EINVAL);
	cr_assert_eq(fake_host_calls(h, FAKE_RAM_MAP), 0);
	fake_host_free(h);
}

Test(gmem, second_region_lies_above_the_hole)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;
	uint64_t low = GMEM_HOLE_START / OB_PAGE_SIZE;

	fake_host_no_memory(h);
	cr_assert_eq(gmem_init(&gm, h, 5 * OB_GIB, "t"), 0);
	cr_assert_eq(gm.nregions, 2);
	cr_assert_eq(gm.region[0].size, 3 * OB_GIB);
	cr_assert_eq(gm.region[1].gpa.v, 4 * OB_GIB);
	cr_assert_eq(gm.region[1].size, 2 * OB_GIB);
	cr_assert_eq(gm.nslots, 2);
	cr_assert_eq(gm.region[1].first_page, low);
	cr_assert_eq(gmem_gfn_page(&gm, gfn(low - 1)), low - 1);
	cr_assert_eq(gmem_gfn_page(&gm, gfn(low)), UINT64_MAX);
	cr_assert_eq(gmem_gfn_page(&gm, gpa_gfn(gpa(4 * OB_GIB - 1))), UINT64_MAX);
	cr_assert_eq(gmem_gfn_page(&gm, gpa_gfn(gpa(4 * OB_GIB))), low);
	cr_assert_eq(gmem_page_gfn(&gm, low).v, 4 * OB_GIB / OB_PAGE_SIZE);
	cr_assert_eq(gmem_page_hva(&gm, low).v, gm.region[1].hva.v);
	cr_assert_eq(gmem_page_span(&gm, low - 1), 1);
	cr_assert_eq(gmem_page_span(&gm, low), 2 * OB_GIB / OB_PAGE_SIZE);
	/* A range across the end of a region is not a range of host memory. */
	cr_assert_null(gmem_ptr(&gm, gpa(GMEM_HOLE_START - 1), 2));
	cr_assert_null(gmem_ptr(&gm, gpa(GMEM_HOLE_START), 1));
	cr_assert_null(gmem_ptr(&gm, gpa(6 * OB_GIB), 1));
	cr_assert_not_null(gmem_ptr(&gm, gpa(6 * OB_GIB - 1), 1));
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(gmem, failure_of_the_second_region_unmaps_the_first)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;

	fake_host_no_memory(h);
	fake_host_fail(h, FAKE_RAM_MAP, 2, ENOMEM);
	cr_assert_eq(gmem_init(&gm, h, 5 * OB_GIB, "t"), -ENOMEM);
	cr_assert_eq(fake_host_mapped_bytes(h), 0);
	cr_assert_eq(gm.nregions, 0);
	fake_host_free(h);
}

/* Slots leave nothing out, lie in one region each, and their pages are found again. */
static void check_slots(const struct gmem *gm, uint64_t slot_bytes)
{
	uint64_t page = 0;

	for (unsigned int i = 0; i < gm->nslots; i++) {
		const struct gmem_slot *s = &gm->slot[i];

		cr_assert_eq(s->id, i);
		cr_assert_eq(s->first_page, page);
		cr_assert_eq(s->first_page % 64, 0);
		cr_assert(!s->log);
		cr_assert_gt(s->pages, 0);
		cr_assert_leq(s->pages, gmem_page_span(gm, s->first_page), "lies over two regions");
		if (slot_bytes)
			cr_assert_leq(s->pages, slot_bytes / OB_PAGE_SIZE);
		cr_assert_eq(gmem_page_slot(gm, s->first_page), i);
		cr_assert_eq(gmem_page_slot(gm, s->first_page + s->pages / 2), i);
		cr_assert_eq(gmem_page_slot(gm, s->first_page + s->pages - 1), i);
		page += s->pages;
	}
	cr_assert_eq(page, gm->pages);
}

Test(gmem, regions_are_cut_into_slots)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;

	fake_host_no_memory(h);
	cr_assert_eq(gmem_init(&gm, h, 5 * OB_GIB + 3 * OB_PAGE_SIZE, "t"), 0);
	cr_assert_eq(gm.nslots, 2, "one a region");
	check_slots(&gm, 0);
	cr_assert_eq(gmem_divide(&gm, 64 * OB_MIB), 0);
	cr_assert_eq(gm.nslots, 48 + 32 + 1, "the last one has three pages");
	check_slots(&gm, 64 * OB_MIB);
	cr_assert_eq(gmem_divide(&gm, 6 * OB_MIB), 0);
	cr_assert_eq(gm.nslots, 512 + 342);
	check_slots(&gm, 6 * OB_MIB);

	cr_assert_eq(gmem_divide(&gm, OB_MIB), -EINVAL);
	cr_assert_eq(gmem_divide(&gm, 3 * OB_MIB), -EINVAL);
	cr_assert_eq(gmem_divide(&gm, UINT64_MAX), -EINVAL);
	cr_assert_eq(gm.nslots, 512 + 342, "a refusal changes nothing");
	check_slots(&gm, 6 * OB_MIB);
	cr_assert_eq(gmem_divide(&gm, 0), 0);
	check_slots(&gm, 0);
	gmem_exit(&gm);
	cr_assert_eq(gm.nslots, 0);

	cr_assert_eq(gmem_init(&gm, h, 65 * OB_GIB, "t"), 0);
	cr_assert_eq(gmem_divide(&gm, GMEM_SLOT_ALIGN), -E2BIG);
	cr_assert_eq(gm.nslots, 2);
	gmem_exit(&gm);
	fake_host_free(h);
}

/* Every translation agrees with a byte-by-byte notion of what is RAM. */
Test(gmem, translation_agrees_with_a_naive_oracle)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;
	unsigned int seed = 4711;
	const uint64_t edge[] = {0, GMEM_HOLE_START, GMEM_HOLE_END,
				 GMEM_HOLE_END + 3 * OB_PAGE_SIZE, UINT64_MAX};

	fake_host_no_memory(h);
	cr_assert_eq(gmem_init(&gm, h, GMEM_HOLE_START + 3 * OB_PAGE_SIZE, "t"), 0);
	for (int i = 0; i < 200000; i++) {
		uint64_t at = edge[(unsigned int)rand_r(&seed) % OB_ARRAY_SIZE(edge)] +
			      (uint64_t)(rand_r(&seed) % 40000) - 20000;
		uint64_t len = rand_r(&seed) % 8 ? (uint64_t)(rand_r(&seed) % 20000)
						 : UINT64_MAX - (uint64_t)(rand_r(&seed) % 20000);
		bool wraps = at + len < at;
		bool low = !wraps && at < GMEM_HOLE_START && at + len <= GMEM_HOLE_START;
		bool high = !wraps && at >= GMEM_HOLE_END &&
			    at + len <= GMEM_HOLE_END + 3 * OB_PAGE_SIZE &&
			    at < GMEM_HOLE_END + 3 * OB_PAGE_SIZE;
		uint64_t want = 0, got = hva_of(gmem_ptr(&gm, gpa(at), len)).v;

		if (len && low)
			want = gm.region[0].hva.v + at;
		else if (len && high)
			want = gm.region[1].hva.v + (at - GMEM_HOLE_END);
		cr_assert_eq(got, want, "seed 4711, round %d: at %#lx len %#lx", i, at, len);
	}
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(gmem, copies_are_bounded)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;
	char buf[16] = "0123456789abcde", back[16] = "";

	cr_assert_eq(gmem_init(&gm, h, OB_MIB, "t"), 0);
	cr_assert_eq(gmem_write(&gm, gpa(OB_MIB - 16), buf, 16), 0);
	cr_assert_eq(gmem_read(&gm, gpa(OB_MIB - 16), back, 16), 0);
	cr_assert_str_eq(back, buf);
	cr_assert_eq(gmem_write(&gm, gpa(OB_MIB - 15), buf, 16), -EFAULT);
	cr_assert_eq(gmem_read(&gm, gpa(UINT64_MAX - 3), back, 16), -EFAULT);
	cr_assert_eq(gmem_read(&gm, gpa(0), back, 0), -EFAULT);
	gmem_exit(&gm);
	fake_host_free(h);
}

struct seen {
	int begins, ends, rc;
};

static int seen_begin(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	static char mem[64];
	struct seen *s = arg;

	s->begins++;
	*acc = (struct gmem_access){.ptr = mem, .gpa = at, .len = len, .write = write};
	return s->rc;
}

static void seen_end(void *arg, struct gmem_access *acc)
{
	struct seen *s = arg;

	cr_assert_not_null(acc->ptr);
	s->ends++;
}

Test(gmem, accesses_go_through_the_owner_of_the_pages)
{
	static const struct gmem_ops ops = {.access_begin = seen_begin, .access_end = seen_end};
	struct ob_host *h = fake_host_new();
	struct seen s = {0};
	struct gmem gm;
	char c = 'x';

	cr_assert_eq(gmem_init(&gm, h, OB_MIB, "t"), 0);
	gm.ops = &ops;
	gm.ops_arg = &s;
	cr_assert_eq(gmem_write(&gm, gpa(5), &c, 1), 0);
	c = 0;
	cr_assert_eq(gmem_read(&gm, gpa(5), &c, 1), 0);
	cr_assert_eq(c, 'x');
	cr_assert_eq(s.begins, 2);
	cr_assert_eq(s.ends, 2);
	s.rc = -EBUSY;
	cr_assert_eq(gmem_write(&gm, gpa(5), &c, 1), -EBUSY);
	cr_assert_eq(s.ends, 2, "what did not begin does not end");
	gmem_exit(&gm);
	fake_host_free(h);
}

/* --- the fake host: what the tests of the mechanisms rely on ---------------------------------- */

Test(fake_host, pages_follow_guest_accesses)
{
	struct ob_host *h = fake_host_new();
	struct ob_page p[4];
	hva_t at;
	char c = 1;

	cr_assert_eq(h->ops->ram_map(h, 4 * OB_PAGE_SIZE, "t", &at), 0);
	fake_host_write(h, hva(at.v + OB_PAGE_SIZE), &c, 1);
	fake_host_read(h, hva(at.v + 2 * OB_PAGE_SIZE), &c, 1);
	*(char *)hva_ptr(hva(at.v + 3 * OB_PAGE_SIZE)) = 1; /* a store past the model */
	cr_assert_eq(h->ops->pages(h, at, 4, p), 0);
	cr_assert(!p[0].present && !p[0].zero);
	cr_assert(p[1].present && !p[1].file && !p[1].zero && p[1].pfn);
	cr_assert(p[2].present && p[2].zero && p[2].pfn == h->zero_pfn);
	cr_assert(p[3].present && p[3].pfn && p[3].pfn != p[1].pfn);
	cr_assert_eq(fake_host_private_pages(h), 2);
	cr_assert_eq(h->ops->discard(h, at, 4 * OB_PAGE_SIZE), 0);
	cr_assert_eq(fake_host_private_pages(h), 0);
	cr_assert_eq(*(char *)hva_ptr(hva(at.v + OB_PAGE_SIZE)), 0);
	fake_host_free(h);
}

Test(fake_host, frames_are_shared_until_written)
{
	struct ob_host *h = fake_host_new();
	char a[OB_PAGE_SIZE], b[OB_PAGE_SIZE];
	struct ob_page p, q;
	uint64_t off;
	hva_t x, y;
	int fd, fd2;

	memset(a, 'a', sizeof(a));
	cr_assert_eq(h->ops->ram_map(h, 2 * OB_PAGE_SIZE, "x", &x), 0);
	cr_assert_eq(h->ops->ram_map(h, 2 * OB_PAGE_SIZE, "y", &y), 0);
	fd = h->ops->memfd(h, "pool", 8 * OB_PAGE_SIZE);
	cr_assert_geq(fd, 0);
	cr_assert_eq(h->ops->file_write(h, fd, a, sizeof(a), 3 * OB_PAGE_SIZE), 0);
	cr_assert_eq(h->ops->map_frames(h, x, OB_PAGE_SIZE, fd, 3 * OB_PAGE_SIZE), 0);
	cr_assert_eq(h->ops->map_frames(h, y, OB_PAGE_SIZE, fd, 3 * OB_PAGE_SIZE), 0);
	cr_assert_eq(h->ops->map_frames(h, y, OB_PAGE_SIZE, fd, 8 * OB_PAGE_SIZE), -EINVAL);
	fake_host_read(h, x, b, sizeof(b));
	cr_assert_arr_eq(a, b, sizeof(a));
	fake_host_read(h, y, b, 1);
	cr_assert_eq(h->ops->pages(h, x, 1, &p), 0);
	cr_assert_eq(h->ops->pages(h, y, 1, &q), 0);
	cr_assert(p.present && p.file && q.file && p.pfn == q.pfn);
	cr_assert_eq(fake_host_private_pages(h), 0);
	cr_assert_eq(fake_host_file_pages(h, fd), 1);

	fake_host_write(h, y, "b", 1);
	cr_assert_eq(h->ops->pages(h, x, 1, &p), 0);
	cr_assert_eq(h->ops->pages(h, y, 1, &q), 0);
	cr_assert(p.file && !q.file && q.present && p.pfn != q.pfn);
	fake_host_read(h, x, b, 1);
	cr_assert_eq(b[0], 'a');
	cr_assert(fake_host_frame_of(h, x, &fd2, &off));
	cr_assert(fd2 == fd && off == 3 * OB_PAGE_SIZE);
	cr_assert(!fake_host_frame_of(h, y, &fd2, &off));

	/* A frame that changes shows in who still shares it, and in nobody else. */
	cr_assert_eq(h->ops->file_write(h, fd, "c", 1, 3 * OB_PAGE_SIZE), 0);
	cr_assert_eq(*(char *)hva_ptr(x), 'c');
	cr_assert_eq(*(char *)hva_ptr(y), 'b');
	cr_assert_eq(h->ops->punch(h, fd, 3 * OB_PAGE_SIZE, OB_PAGE_SIZE), 0);
	cr_assert_eq(*(char *)hva_ptr(x), 0);
	cr_assert_eq(fake_host_file_pages(h, fd), 0);
	fake_host_free(h);
}

Test(fake_host, mappings_are_counted_and_limited)
{
	struct ob_host *h = fake_host_new();
	uint64_t have, limit;
	hva_t x;
	int fd;

	fake_host_vma_limit(h, 14, 10);
	cr_assert_eq(h->ops->ram_map(h, 16 * OB_PAGE_SIZE, "x", &x), 0);
	fd = h->ops->memfd(h, "pool", 16 * OB_PAGE_SIZE);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	cr_assert(have == 11 && limit == 14);
	cr_assert_eq(h->ops->map_frames(h, hva(x.v + OB_PAGE_SIZE), OB_PAGE_SIZE, fd, 0), 0);
	cr_assert_eq(h->ops->map_frames(h, hva(x.v + 2 * OB_PAGE_SIZE), 2 * OB_PAGE_SIZE, fd,
					OB_PAGE_SIZE),
		     0);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	cr_assert_eq(have, 13, "consecutive offsets are one mapping");
	cr_assert_eq(h->ops->map_frames(h, hva(x.v + 8 * OB_PAGE_SIZE), OB_PAGE_SIZE, fd, 0),
		     -ENOMEM);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	cr_assert_eq(have, 13);
	cr_assert_eq(h->ops->map_empty(h, x, 16 * OB_PAGE_SIZE, "x"), 0);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	cr_assert_eq(have, 11);
	fake_host_free(h);
}

Test(fake_host, failures_come_when_asked_for)
{
	struct ob_host *h = fake_host_new();
	uint64_t have, limit;

	fake_host_fail(h, FAKE_VMA_COUNT, 2, EIO);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), -EIO);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), 0);
	fake_host_fail(h, FAKE_VMA_COUNT, FAKE_EVERY, EIO);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), -EIO);
	cr_assert_eq(h->ops->vma_count(h, &have, &limit), -EIO);
	cr_assert_eq(fake_host_calls(h, FAKE_VMA_COUNT), 5);
	fake_host_free(h);
}
