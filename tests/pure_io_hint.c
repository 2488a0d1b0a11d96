/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_io_hint.c: hints at I/O time, on a host that is only memory: the ring, the names of frames,
 * and pages that are merged with no pass of the scanner at all (it is never stepped here, only the
 * looking at hints is). The "disk" of a test is a number: block B of image I has content I * 1000 + B.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/hash_engine.h"
#include "ksm/io_hint.h"
#include "tests/fake_host.h"

#define GUESTS 4
#define CELLS  2
#define PAGES  1200 /* three windows, the last one short */

struct fleet {
	struct ob_host *h;
	struct ob_arena *arena;
	int pool_fd, meta_fd;
	struct ksm_domain *coord, *domain[CELLS];
	struct ksm *k[CELLS];
	struct guest {
		struct fleet *f;
		struct gmem mem;
		struct ept e;
		struct ksm_io *io;
		int parked;
		uint8_t (*expect)[OB_PAGE_SIZE];
	} g[GUESTS];
	unsigned int woken, seed;
	bool write_inside;
};

static void park(void *arg)
{
	((struct guest *)arg)->parked++;
}

static void unpark(void *arg)
{
	((struct guest *)arg)->parked--;
}

static void wake(void *arg)
{
	((struct fleet *)arg)->woken++;
}

static void fill(struct fleet *f, int g, uint64_t page, uint32_t content)
{
	uint32_t buf[OB_PAGE_SIZE / 4];

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(buf); i++)
		buf[i] = content ? content * 2654435761u + i : 0;
	memcpy(f->g[g].expect[page], buf, sizeof(buf));
	fake_host_write(f->h, gmem_page_hva(&f->g[g].mem, page), buf, sizeof(buf));
}

static uint64_t disk(uint32_t image, uint64_t block)
{
	return ksm_origin(KSM_ORIGIN_DISK, image, block);
}

/* The guest reads blocks of an image: a device fills its pages, and says so. */
static void read_disk(struct fleet *f, int g, uint64_t page, uint64_t n, uint32_t image,
		      uint64_t block)
{
	for (uint64_t i = 0; i < n; i++)
		fill(f, g, page + i, image * 10000 + (uint32_t)(block + i));
	ksm_io_read(f->g[g].io, page, n, disk(image, block));
}

/* Guests that run write while the engine is in a call to the host. */
static void write_hook(void *arg, struct ob_host *h, enum fake_op op, bool after)
{
	struct fleet *f = arg;
	int g = rand_r(&f->seed) % GUESTS;

	(void)h;
	(void)op;
	(void)after;
	if (f->write_inside && !f->g[g].parked && rand_r(&f->seed) % 4 == 0) {
		uint64_t page = (uint64_t)rand_r(&f->seed) % 64;
		uint64_t off = (uint64_t)rand_r(&f->seed) % OB_PAGE_SIZE;
		uint8_t v = (uint8_t)rand_r(&f->seed);

		f->g[g].expect[page][off] = v;
		fake_host_write(f->h, hva(gmem_page_hva(&f->g[g].mem, page).v + off), &v, 1);
	}
}

static void make(struct fleet *f)
{
	struct ksm_opts opts = {0};
	struct ob_err e;

	memset(f, 0, sizeof(*f));
	f->seed = 99;
	f->h = fake_host_new();
	f->arena = ob_arena_new("test");
	cr_assert(!ksm_domain_create(f->h, GUESTS * PAGES, CELLS, &f->pool_fd, &f->meta_fd));
	cr_assert(!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, KSM_NO_CELL, f->arena, &f->coord));
	for (unsigned int c = 0; c < CELLS; c++) {
		cr_assert(
			!ksm_domain_open(f->h, f->pool_fd, f->meta_fd, c, f->arena, &f->domain[c]));
		cr_assert(!ksm_new(&f->k[c], ksm_engine_find("hash"), f->h, f->domain[c], &opts,
				   f->arena));
	}
	for (int i = 0; i < GUESTS; i++) {
		struct guest *g = &f->g[i];

		g->f = f;
		g->expect = calloc(PAGES, OB_PAGE_SIZE);
		cr_assert(!gmem_init(&g->mem, f->h, PAGES * OB_PAGE_SIZE, "test"));
		cr_assert(!ept_init(&g->e, f->h, &g->mem,
				    (struct ept_parker){.park = park, .unpark = unpark, .arg = g},
				    f->arena));
		g->io = ksm_io_new(f->domain[i % CELLS], f->arena, wake, f);
		cr_assert(!ksm_add_guest(f->k[i % CELLS], &(struct ksm_guest){
								  .ept = &g->e,
								  .vm = (unsigned int)i,
								  .page_base = (uint64_t)i * PAGES,
								  .io = g->io,
							  }));
	}
	for (unsigned int c = 0; c < CELLS; c++)
		cr_assert(!ksm_start(f->k[c], &e));
	fake_host_hook(f->h, write_hook, f);
}

/* Look at all hints of the cell of guest @g; its scanner does nothing else. */
static void look(struct fleet *f, int g)
{
	struct ksm *k = f->k[g % CELLS];

	while (hash_io_step(k, k->priv, 64))
		;
	cr_assert_eq(k->st.passes, 0);
}

static struct ksm_stats stats(struct fleet *f, int g)
{
	return f->k[g % CELLS]->st;
}

static uint64_t shared(struct fleet *f, int g, uint64_t page, uint64_t n)
{
	uint64_t count = 0;

	cr_assert(!ept_sync(&f->g[g].e, 0, PAGES, NULL));
	for (uint64_t i = 0; i < n; i++)
		count += ept_state_of(&f->g[g].e, page + i) == EPT_SHARED;
	return count;
}

static void all_right(struct fleet *f)
{
	uint8_t got[OB_PAGE_SIZE];

	for (int g = 0; g < GUESTS; g++) {
		for (uint64_t p = 0; p < PAGES; p++) {
			fake_host_read(f->h, gmem_page_hva(&f->g[g].mem, p), got, sizeof(got));
			cr_assert_arr_eq(got, f->g[g].expect[p], sizeof(got), "guest %d page %llu",
					 g, (unsigned long long)p);
		}
		ept_check(&f->g[g].e);
	}
}

/* All guests gone: no frame, no block of the pool, no entry in the index is left. */
static void unmake(struct fleet *f)
{
	uint64_t hints, entries;

	all_right(f);
	fake_host_hook(f->h, NULL, NULL);
	for (int i = 0; i < GUESTS; i++) {
		cr_assert_eq(f->g[i].parked, 0);
		ksm_remove_guest(f->k[i % CELLS], (unsigned int)i);
		ksm_io_free(f->g[i].io);
		ept_exit(&f->g[i].e);
		gmem_exit(&f->g[i].mem);
		free(f->g[i].expect);
	}
	for (int i = 0; i < 2; i++)
		cr_assert(ksm_domain_reap(f->coord, UINT64_MAX) >= 0);
	cr_assert_eq(fake_host_file_pages(f->h, f->pool_fd), 0);
	ksm_index_count(f->coord, &hints, &entries);
	cr_assert_eq(entries, 0, "a name of a frame is left behind");
	for (unsigned int c = 0; c < CELLS; c++) {
		ksm_free(f->k[c]);
		ksm_domain_close(f->domain[c]);
	}
	ksm_domain_close(f->coord);
	cr_assert_eq(ob_arena_bytes(f->arena), 0);
	ob_arena_free(f->arena);
	fake_host_free(f->h);
}

Test(io_hint, origins_are_packed_and_unpacked)
{
	uint64_t o = ksm_origin(KSM_ORIGIN_KERNEL, 0xfabcdef, KSM_ORIGIN_BLOCKS - 1);

	cr_assert_eq(KSM_ORIGIN_CLASS(o), KSM_ORIGIN_KERNEL);
	cr_assert_eq(KSM_ORIGIN_FILE(o), 0xabcdef);
	cr_assert_eq(KSM_ORIGIN_BLOCK(o), KSM_ORIGIN_BLOCKS - 1);
	cr_assert_eq(ksm_origin(KSM_ORIGIN_DISK, 1, KSM_ORIGIN_BLOCKS), KSM_ORIGIN_NONE);
	cr_assert_neq(disk(0, 0), KSM_ORIGIN_NONE);
}

Test(io_hint, keys_differ_by_file_block_and_domain)
{
	struct fleet a, b;

	make(&a);
	make(&b);
	cr_assert_eq(ksm_origin_key(a.domain[0], disk(1, 1)),
		     ksm_origin_key(a.domain[1], disk(1, 1)));
	cr_assert_neq(ksm_origin_key(a.coord, disk(1, 1)), ksm_origin_key(a.coord, disk(1, 2)));
	cr_assert_neq(ksm_origin_key(a.coord, disk(1, 1)), ksm_origin_key(a.coord, disk(2, 1)));
	cr_assert_neq(ksm_origin_key(a.coord, disk(1, 1)), ksm_origin_key(b.coord, disk(1, 1)),
		      "each domain has a secret");
	unmake(&a);
	unmake(&b);
}

/* The second reader shares, and the first one with it: 0 and 2 are in one cell, 1 in another. */
Test(io_hint, the_second_reader_shares_without_a_scan)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 8, 1, 500);
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 0, 8), 0, "nobody else has it");
	read_disk(&f, 2, 100, 8, 1, 500);
	look(&f, 2);
	cr_assert_eq(shared(&f, 2, 100, 8), 8);
	cr_assert_eq(shared(&f, 0, 0, 8), 8, "the first holder is of the same cell");
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 8);
	cr_assert_eq(stats(&f, 0).io_merged, 16);
	cr_assert_eq(stats(&f, 0).io_hints, 16);
	cr_assert_eq(stats(&f, 0).io_missed, 0);
	for (uint32_t i = 0; i < 8; i++)
		cr_assert_eq(ksm_domain_origin(f.coord, ept_frame_of(&f.g[2].e, 100 + i)),
			     disk(1, 500 + i));
	/* The third finds the frames by their name, and hashes nothing; in another cell, too. */
	read_disk(&f, 1, 50, 8, 1, 500);
	look(&f, 1);
	cr_assert_eq(shared(&f, 1, 50, 8), 8);
	cr_assert_eq(stats(&f, 1).hashed_pages, 0);
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 8);
	unmake(&f);
}

Test(io_hint, readers_in_two_cells)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 4, 1, 500);
	look(&f, 0);
	read_disk(&f, 1, 0, 4, 1, 500);
	look(&f, 1);
	cr_assert_eq(shared(&f, 1, 0, 4), 4);
	cr_assert_eq(shared(&f, 0, 0, 4), 0, "that is another cell's to do");
	/* It reads the same again, elsewhere, and finds it by name. */
	read_disk(&f, 0, 40, 4, 1, 500);
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 40, 4), 4);
	unmake(&f);
}

/* Another image, the same content: a copy of an image. Its blocks have no name, their pages meet. */
Test(io_hint, copies_of_an_image_meet_by_content)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 4, 1, 500);
	look(&f, 0);
	for (uint64_t i = 0; i < 4; i++)
		fill(&f, 2, i, 10500 + (uint32_t)i);
	ksm_io_read(f.g[2].io, 0, 4, disk(2, 700));
	look(&f, 2);
	cr_assert_eq(shared(&f, 2, 0, 4), 4);
	cr_assert_eq(shared(&f, 0, 0, 4), 4);
	unmake(&f);
}

Test(io_hint, a_guest_that_writes_right_after_is_not_merged)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 4, 1, 500);
	read_disk(&f, 2, 0, 4, 1, 500);
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 0, 4) + shared(&f, 2, 0, 4), 8);
	/* By name, but it has written before anybody looked: its page stays, and the name comes back
	 * with the next reader. */
	read_disk(&f, 2, 20, 4, 1, 500);
	fill(&f, 2, 21, 777);
	look(&f, 2);
	cr_assert_eq(shared(&f, 2, 20, 4), 3);
	cr_assert_eq(stats(&f, 2).io_missed, 1);
	read_disk(&f, 0, 60, 4, 1, 500);
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 60, 4), 4);
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 4);
	/* And a write to what was merged leaves the others as they were. */
	fill(&f, 0, 60, 778);
	cr_assert_eq(shared(&f, 0, 60, 4), 3);
	unmake(&f);
}

/* A block that is written loses its name: what waits is void, what was named is found no more. */
Test(io_hint, a_written_block_has_no_identity)
{
	struct fleet f;
	struct ksm_ref ref;

	make(&f);
	read_disk(&f, 0, 0, 4, 1, 500);
	read_disk(&f, 2, 0, 4, 1, 500);
	look(&f, 0);
	cr_assert_eq(ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 501)), &ref),
		     KSM_FRAME);
	ksm_io_written(f.g[0].io, disk(1, 501), 2);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(
			ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 500 + i)), &ref),
			i == 1 || i == 2 ? KSM_EMPTY : KSM_FRAME);
	cr_assert_eq(shared(&f, 0, 0, 4) + shared(&f, 2, 0, 4), 8, "pages stay merged");
	/* Hints that wait for it are void. */
	read_disk(&f, 0, 30, 4, 1, 600);
	read_disk(&f, 0, 40, 1, 1, 700);
	ksm_io_written(f.g[0].io, disk(1, 603), 5);
	look(&f, 0);
	cr_assert_eq(stats(&f, 0).io_void, 4);
	/* The block's new content is shared by its own readers, under the old name. */
	for (int g = 0; g < 4; g += 2) {
		fill(&f, g, 80, 4242);
		ksm_io_read(f.g[g].io, 80, 1, disk(1, 501));
	}
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 80, 1) + shared(&f, 2, 80, 1), 2);
	cr_assert_eq(ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 501)), &ref),
		     KSM_FRAME);
	cr_assert_eq(ksm_ref_payload(&ref), ept_frame_of(&f.g[0].e, 80));
	unmake(&f);
}

/* It was written between looking at the hint and naming the frame. */
Test(io_hint, a_name_is_not_given_after_a_write)
{
	struct ksm_io_counts count = {0};
	struct ksm_io_run run[4];
	struct ksm_ref ref;
	struct fleet f;
	uint64_t written;
	uint32_t frame;

	make(&f);
	cr_assert_eq(ksm_frame_alloc(f.domain[0], 1, &frame), 1);
	ksm_frame_publish(f.domain[0], frame);
	ksm_io_read(f.g[0].io, 7, 2, disk(1, 9));
	cr_assert_eq(ksm_io_take(f.g[0].io, run, 4, 100, &written, &count), 1);
	ksm_io_written(f.g[0].io, disk(1, 9), 1);
	ksm_io_name(f.g[0].io, frame, disk(1, 9), written);
	cr_assert_eq(ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 9)), &ref), KSM_EMPTY);
	ksm_io_name(f.g[0].io, frame, disk(1, 9), written + 1);
	cr_assert_eq(ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 9)), &ref), KSM_FRAME);
	/* A frame has one origin, so that who gives it back finds all its names. */
	ksm_io_name(f.g[0].io, frame, disk(1, 10), written + 1);
	cr_assert_eq(ksm_index_find(f.coord, ksm_origin_key(f.coord, disk(1, 10)), &ref),
		     KSM_EMPTY);
	ksm_frame_put(f.domain[0], frame);
	unmake(&f);
}

/* A name that is wrong (the image was changed under us): it is found out, and mended. */
Test(io_hint, a_wrong_name_goes)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 1, 1, 500);
	read_disk(&f, 2, 0, 1, 1, 500);
	look(&f, 0);
	for (int g = 0; g < 4; g += 2) {
		fill(&f, g, 9, 31337);
		ksm_io_read(f.g[g].io, 9, 1, disk(1, 500));
		look(&f, g);
	}
	cr_assert_eq(stats(&f, 0).io_missed, 1, "once");
	cr_assert_eq(shared(&f, 0, 9, 1) + shared(&f, 2, 9, 1), 2, "they met by their content");
	fill(&f, 1, 9, 31337);
	ksm_io_read(f.g[1].io, 9, 1, disk(1, 500));
	look(&f, 1);
	cr_assert_eq(shared(&f, 1, 9, 1), 1);
	cr_assert_eq(stats(&f, 1).hashed_pages, 0, "and the name is right again");
	unmake(&f);
}

Test(io_hint, the_ring_is_bounded_and_joins_runs)
{
	struct ksm_io_counts count = {0};
	struct ksm_io_run run[KSM_IO_RING];
	struct fleet f;
	struct ksm_io *io;
	uint64_t written;

	make(&f);
	io = f.g[0].io;
	cr_assert_eq(f.woken, 0);
	/* One file, read page by page, and beyond the end of a window. */
	for (uint64_t i = 0; i < 20; i++)
		ksm_io_read(io, 500 + i, 1, disk(1, 100 + i));
	cr_assert_eq(f.woken, 1, "once, until they are taken");
	cr_assert_eq(ksm_io_take(io, run, 8, UINT64_MAX, &written, &count), 2);
	cr_assert(run[0].page == 500 && run[0].n == 12 && run[0].origin == disk(1, 100));
	cr_assert(run[1].page == 512 && run[1].n == 8 && run[1].origin == disk(1, 112));
	cr_assert_eq(count.hints, 20);
	/* A long one is cut at windows. */
	ksm_io_read(io, 1000, 100, disk(1, 7));
	cr_assert_eq(f.woken, 2);
	cr_assert_eq(ksm_io_take(io, run, 1, UINT64_MAX, &written, &count), 1);
	cr_assert(run[0].page == 1000 && run[0].n == 24);
	cr_assert_eq(io->n, 1);
	cr_assert_eq(ksm_io_take(io, run, 1, UINT64_MAX, &written, &count), 1);
	cr_assert(run[0].page == 1024 && run[0].n == 76 && run[0].origin == disk(1, 31));
	/* A page that is read anew holds what was read last. */
	ksm_io_read(io, 0, 4, disk(1, 10));
	ksm_io_read(io, 2, 1, disk(1, 90));
	cr_assert_eq(ksm_io_take(io, run, 8, UINT64_MAX, &written, &count), 1);
	cr_assert(run[0].page == 2 && run[0].origin == disk(1, 90));
	cr_assert_eq(count.voided, 4);
	/* Full: what comes is dropped, what waits stays. */
	count = (struct ksm_io_counts){0};
	for (uint64_t i = 0; i < KSM_IO_RING + 10; i++)
		ksm_io_read(io, 2 * i, 1, disk(1, i));
	cr_assert_eq(ksm_io_take(io, run, KSM_IO_RING, 1, &written, &count), 1);
	cr_assert_eq(count.hints, KSM_IO_RING + 10);
	cr_assert_eq(count.dropped, 10);
	cr_assert_eq(ksm_io_take(io, run, KSM_IO_RING, UINT64_MAX, &written, &count),
		     KSM_IO_RING - 1);
	for (unsigned int i = 0; i < KSM_IO_RING - 1; i++)
		cr_assert_eq(run[i].page, 2 * (i + 1));
	/* What has no name, or is no page, is no hint. */
	ksm_io_read(io, 0, 1, KSM_ORIGIN_NONE);
	ksm_io_read(io, 0, 2, disk(1, KSM_ORIGIN_BLOCKS - 1));
	ksm_io_read(io, UINT32_MAX, 2, disk(1, 0));
	ksm_io_read(io, 0, UINT64_MAX, disk(1, 0));
	cr_assert_eq(io->n, 0);
	unmake(&f);
}

Test(io_hint, what_was_read_under_another_engine_is_forgotten)
{
	struct ksm_io_counts count = {0};
	struct ksm_io_run run[4];
	struct fleet f;
	struct ksm_io *io;
	uint64_t written;

	make(&f);
	io = f.g[0].io;
	for (uint64_t i = 0; i < KSM_IO_RING + 10; i++)
		ksm_io_read(io, 2 * i, 1, disk(1, i));
	ksm_io_forget(io);
	cr_assert_eq(ksm_io_take(io, run, 4, UINT64_MAX, &written, &count), 0);
	cr_assert_eq(count.hints + count.dropped + count.voided, 0);
	f.woken = 0;
	ksm_io_read(io, 3, 1, disk(1, 9));
	cr_assert_eq(f.woken, 1, "whoever rests hears of the next");
	cr_assert_eq(ksm_io_take(io, run, 4, UINT64_MAX, &written, &count), 1);
	cr_assert(run[0].page == 3 && run[0].origin == disk(1, 9));
	cr_assert_eq(count.hints, 1);
	unmake(&f);
}

Test(io_hint, pages_that_there_are_not_are_survived)
{
	struct fleet f;

	make(&f);
	ksm_io_read(f.g[0].io, PAGES - 2, 100, disk(1, 0));
	ksm_io_read(f.g[0].io, 1u << 30, 100, disk(1, 0));
	look(&f, 0);
	cr_assert_eq(stats(&f, 0).io_merged, 0);
	unmake(&f);
}

Test(io_hint, zero_blocks_are_dropped)
{
	struct fleet f;

	make(&f);
	fill(&f, 0, 3, 0);
	ksm_io_read(f.g[0].io, 3, 1, disk(1, 0));
	look(&f, 0);
	cr_assert_eq(ept_state_of(&f.g[0].e, 3), EPT_ZERO);
	cr_assert_eq(stats(&f, 0).io_merged, 1);
	unmake(&f);
}

/* The same block in two pages of one guest, in one batch and after one another. */
Test(io_hint, one_guest_reads_a_block_twice)
{
	struct fleet f;

	make(&f);
	read_disk(&f, 0, 0, 2, 1, 500);
	read_disk(&f, 0, 10, 2, 1, 500);
	read_disk(&f, 0, 600, 2, 1, 500);
	look(&f, 0);
	cr_assert_eq(shared(&f, 0, 0, 2) + shared(&f, 0, 10, 2) + shared(&f, 0, 600, 2), 6);
	cr_assert_eq(fake_host_file_pages(f.h, f.pool_fd), 2);
	unmake(&f);
}

/* Hints, the scanner and guests that write at any moment, all at once. */
Test(io_hint, beside_the_scanner_and_guests_that_write)
{
	uint64_t merged = 0;
	struct fleet f;

	make(&f);
	for (int round = 0; round < 200; round++) {
		f.write_inside = false;
		for (int i = 0; i < 6; i++) {
			int g = rand_r(&f.seed) % GUESTS;
			uint64_t at = (uint64_t)rand_r(&f.seed) % 60;
			uint64_t block = (uint64_t)rand_r(&f.seed) % 20;

			if (rand_r(&f.seed) % 8 == 0)
				ksm_io_written(f.g[g].io, disk(1, block), 1);
			/* Some hints lie. */
			read_disk(&f, g, at, 1 + (uint64_t)rand_r(&f.seed) % 4, 1, block);
			if (rand_r(&f.seed) % 8 == 0)
				fill(&f, g, at, (uint32_t)rand_r(&f.seed) % 20);
		}
		f.write_inside = round % 3 != 0;
		for (unsigned int c = 0; c < CELLS; c++)
			ksm_step(f.k[c], f.h->ops->now_ns(f.h), 64 + (uint64_t)round % 500);
		f.write_inside = false;
		if (round % 10 == 0)
			all_right(&f);
		cr_assert(ksm_domain_reap(f.coord, UINT64_MAX) >= 0);
	}
	for (unsigned int c = 0; c < CELLS; c++)
		merged += f.k[c]->st.io_merged;
	cr_assert_gt(merged, 300);
	unmake(&f);
}

struct talker {
	struct ksm_io *io;
	_Atomic bool stop, heard;
};

static void *talk(void *arg)
{
	struct talker *t = arg;
	unsigned int seed = 8;

	/* Nobody may have listened yet: then nothing has been shown. */
	for (int i = 0; i < 200000 || !t->heard; i++) {
		uint64_t block = (uint64_t)rand_r(&seed) % 100;

		if (i % 64 == 0)
			ksm_io_written(t->io, disk(1, block), 1);
		else
			ksm_io_read(t->io, (uint64_t)rand_r(&seed) % PAGES, 1 + block % 3,
				    disk(1, block));
	}
	t->stop = true;
	return NULL;
}

/* A device talks while the scanner takes: every page that was named is taken, dropped or void. */
Test(io_hint, a_thread_talks_while_another_takes)
{
	struct ksm_io_counts count = {0};
	struct ksm_io_run run[32];
	uint64_t written, taken = 0;
	struct talker t;
	struct fleet f;
	pthread_t thread;
	bool last;

	make(&f);
	t = (struct talker){.io = f.g[0].io};
	cr_assert(!pthread_create(&thread, NULL, talk, &t));
	do {
		unsigned int n;

		last = t.stop;
		while ((n = ksm_io_take(t.io, run, 32, 100, &written, &count)))
			for (unsigned int i = 0; i < n; i++) {
				cr_assert(run[i].n &&
					  run[i].page % KSM_IO_WINDOW + run[i].n <= KSM_IO_WINDOW);
				taken += run[i].n;
				t.heard = true;
			}
	} while (!last);
	pthread_join(thread, NULL);
	cr_assert_gt(taken, 0);
	cr_assert_eq(taken + count.dropped + count.voided, count.hints);
	unmake(&f);
}

/* Hints are part of what the budget is for: when it is used up, they wait. */
Test(io_hint, the_budget_is_kept)
{
	struct ksm_budget b;
	struct fleet f;
	uint64_t now;

	make(&f);
	now = f.h->ops->now_ns(f.h);
	ksm_budget_init(&b, 1, now);
	ksm_budget_charge(&b, now, 3600 * OB_NS_PER_SEC);
	f.k[0]->opts.budget = &b;
	read_disk(&f, 0, 0, 4, 1, 500);
	read_disk(&f, 2, 0, 4, 1, 500);
	cr_assert_eq(ksm_hint_step(f.k[0], 100), 0);
	cr_assert_eq(shared(&f, 0, 0, 4), 0);
	ksm_budget_init(&b, 0, now);
	while (ksm_hint_step(f.k[0], 100))
		;
	cr_assert_eq(shared(&f, 0, 0, 4) + shared(&f, 2, 0, 4), 8);
	f.k[0]->opts.budget = NULL;
	unmake(&f);
}
