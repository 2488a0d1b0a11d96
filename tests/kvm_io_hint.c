/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_io_hint.c: hints at I/O time with guests that run: files that two guests read are shared with no
 * pass of the scanner at all, while they evict and read anew, and verify every page.
 */
#include "harness/cell.h"
#include "ksm/engine.h"
#include "tests/rig.h"

#define IMAGE 77

static void on_read(void *arg, uint64_t page, uint64_t n, uint64_t block)
{
	ksm_io_read(arg, page, n, ksm_origin(KSM_ORIGIN_DISK, IMAGE, block));
}

static void on_written(void *arg, uint64_t block, uint64_t n)
{
	ksm_io_written(arg, ksm_origin(KSM_ORIGIN_DISK, IMAGE, block), n);
}

static const struct blk_hint_ops hint_ops = {on_read, on_written};

static uint64_t shared(struct rig *r, unsigned int i)
{
	struct ept_stats st;

	cr_assert(!ept_sync(&r->ept[i], 0, r->ept[i].pages, NULL));
	ept_read_stats(&r->ept[i], &st);
	return st.state[EPT_SHARED];
}

Test(io_hint_kvm, files_are_shared_before_the_first_pass, .timeout = 120)
{
	struct ob_arena *arena = ob_arena_new("io");
	struct ksm_io *io[RIG_GUESTS];
	struct ksm_stats st, later;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "filecache");
	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		r.k->slot[i].g.io = io[i] = ksm_io_new(r.domain, arena, NULL, NULL);
		virtio_blk_on_io(&r.vm[i]->disk[0], &hint_ops, io[i]);
	}
	rig_start(&r);
	while (ksm_hint_step(r.k, 512))
		;
	ksm_read_stats(r.k, &st);
	cr_assert_eq(st.passes, 0);
	cr_assert_gt(st.io_hints, 500);
	cr_assert_gt(st.io_merged, 500, "%llu of %llu", (unsigned long long)st.io_merged,
		     (unsigned long long)st.io_hints);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		cr_assert_gt(shared(&r, i), 250);
	/* They evict files and read others into the same pages, which are shared and break. */
	for (int ms = 0; ms < 2500; ms += 5) {
		ksm_hint_step(r.k, 512);
		rig_nap_ms(5);
	}
	ksm_read_stats(r.k, &later);
	cr_assert_gt(later.io_merged, st.io_merged);
	cr_assert_eq(later.passes, 0);
	/* And the scanner joins in. */
	rig_scan_for(&r, 500);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		cr_assert_gt(rig_report(&r, i).checked_pages, 1000);
	rig_unmake(&r);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		ksm_io_free(io[i]);
	cr_assert_eq(ob_arena_bytes(arena), 0);
	ob_arena_free(arena);
}

static const json_t *hash_of(const struct cli *c)
{
	const json_t *run = json_array_get(json_object_get(c->result, "runs"), 0);

	cr_assert_eq(c->status, 0, "%s%s", c->out, c->err);
	cr_assert_eq(json_integer_value(
			     json_object_get(json_object_get(run, "integrity"), "mismatches")),
		     0);
	return json_object_get(run, "hash");
}

Test(io_hint_kvm, in_a_fleet_and_switched_off, .timeout = 120)
{
	const json_t *top, *o;
	json_int_t named = 0, saved = 0;
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 4 --cell 2 --mem 16M --seconds 3 --workload filecache --quiet "
		"--control none",
		true, 90);
	cr_assert_gt(cli_num(hash_of(&c), "io_hint_pages", NULL), 1000);
	cr_assert_gt(cli_num(hash_of(&c), "io_merged_pages", NULL), 1000);
	top = json_object_get(json_array_get(json_object_get(c.result, "runs"), 0), "top_content");
	cr_assert_gt(json_array_size(top), 3);
	json_array_foreach (top, i, o) {
		saved += cli_num(o, "bytes_saved", NULL);
		if (json_is_string(json_object_get(o, "image")))
			named += cli_num(o, "bytes_saved", NULL);
	}
	cr_assert_gt(named, saved / 4, "most of what a page cache shares has a name");
	cr_assert(strstr(c.out, "most shared: "), "%s", c.out);
	cli_free(&c);
	cli_run(&c,
		"fleet --guests 2 --mem 16M --seconds 2 --workload filecache --quiet --io-hints "
		"off "
		"--control none",
		true, 90);
	cr_assert_eq(cli_num(hash_of(&c), "io_hint_pages", NULL), 0);
	cr_assert_eq(cli_num(hash_of(&c), "io_merged_pages", NULL), 0);
	cr_assert_gt(cli_num(hash_of(&c), "merged_pages", NULL), 0);
	cli_free(&c);
}
