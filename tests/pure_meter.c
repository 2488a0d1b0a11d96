/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_meter.c: the count of what is saved against a quadratic oracle that compares every page with
 * every other; and the words of a guest on a fake host, through first touches, merges and breaks.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/ksm.h"
#include "tests/fake_host.h"
#include "tests/rnd.h"

/* --- the count --------------------------------------------------------------------------- */

/* One page at a time, the first of each frame looks for all others. */
static struct ksm_meter_result oracle(const struct ksm_meter_vm *vm, unsigned int nvms)
{
	struct ksm_meter_result r = {0};

	for (unsigned int v = 0; v < nvms; v++)
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			uint64_t id = vm[v].words[i], s = 0, vms = 0;
			bool first = true;

			r.pages++;
			r.touched += id != 0;
			r.zero += id == 1;
			if (id <= 1)
				continue;
			for (unsigned int w = 0; w < nvms; w++) {
				bool here = false;

				for (uint64_t j = 0; j < vm[w].pages; j++) {
					if (vm[w].words[j] != id)
						continue;
					s++;
					here = true;
					if (w < v || (w == v && j < i))
						first = false;
				}
				vms += here;
			}
			r.shared_pages += s > 1;
			if (!first)
				continue;
			r.frames++;
			r.pool_frames += KSM_METER_KIND(id) == 2;
			r.inter += vms - 1;
			r.intra += s - vms;
		}
	return r;
}

/* A VM's part of what is resident, page by page in fractions; and what it saves alone. */
static void check_shares(const struct ksm_meter_vm *vm, unsigned int nvms,
			 const struct ksm_meter_result *all, const struct ksm_meter_share *share)
{
	struct ksm_meter_share sum = {0};

	for (unsigned int v = 0; v < nvms; v++) {
		const struct ksm_meter_share *s = &share[v];
		struct ksm_meter_result alone = oracle(&vm[v], 1);
		double resident = 0;

		for (uint64_t i = 0; i < vm[v].pages; i++) {
			uint64_t id = vm[v].words[i], same = 0;

			for (unsigned int w = 0; w < nvms; w++)
				for (uint64_t j = 0; j < vm[w].pages; j++)
					same += vm[w].words[j] == id;
			resident += id > 1 ? (double)OB_PAGE_SIZE / (double)same : 0;
		}
		cr_assert_lt((double)s->resident, resident + 1.01);
		cr_assert_gt((double)s->resident, resident - 1.01);
		cr_assert_eq(s->touched, alone.touched * OB_PAGE_SIZE);
		cr_assert_eq(s->zero, alone.zero * OB_PAGE_SIZE);
		cr_assert_eq(s->intra, alone.intra * OB_PAGE_SIZE, "what it would save alone");
		cr_assert_leq(s->inter, s->touched, "not below 0");
		cr_assert_eq(s->touched, s->resident + s->zero + s->intra + s->inter);
		sum.touched += s->touched;
		sum.resident += s->resident;
		sum.zero += s->zero;
		sum.intra += s->intra;
		sum.inter += s->inter;
	}
	cr_assert_eq(sum.touched, all->touched * OB_PAGE_SIZE);
	cr_assert_eq(sum.resident, all->frames * OB_PAGE_SIZE);
	cr_assert_eq(sum.zero, all->zero * OB_PAGE_SIZE);
	cr_assert_eq(sum.intra, all->intra * OB_PAGE_SIZE);
	cr_assert_eq(sum.inter, all->inter * OB_PAGE_SIZE);
}

static void run_random(uint64_t seed)
{
	struct ksm_meter_share share[6];
	uint64_t s = seed, words[6][60];
	struct ksm_meter_vm vm[6];
	struct ksm_meter_result got, want;
	unsigned int nvms = (unsigned int)(rnd(&s) % 7);

	for (unsigned int v = 0; v < nvms; v++) {
		vm[v] = (struct ksm_meter_vm){.words = words[v], .pages = rnd(&s) % 60};
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			switch (rnd(&s) % 6) {
			case 0:
				words[v][i] = KSM_METER_UNTOUCHED;
				break;
			case 1:
				words[v][i] = KSM_METER_ZERO;
				break;
			case 2:
				words[v][i] = KSM_METER_PFN | (1 + rnd(&s) % 50);
				break;
			case 3:
				words[v][i] = KSM_METER_PFN | (5000 + rnd(&s) % 40);
				break;
			case 4:
				words[v][i] = KSM_METER_FRAME | rnd(&s) % 45;
				break;
			default:
				words[v][i] = KSM_METER_OWN | (v * 60 + i);
			}
		}
	}
	want = oracle(vm, nvms);
	cr_assert_eq(ksm_meter_count(vm, nvms, &got), 0);
	cr_assert_eq(memcmp(&got, &want, sizeof(got)), 0,
		     "seed %llx: frames %llu/%llu pool %llu/%llu inter %llu/%llu intra %llu/%llu",
		     (unsigned long long)seed, (unsigned long long)got.frames,
		     (unsigned long long)want.frames, (unsigned long long)got.pool_frames,
		     (unsigned long long)want.pool_frames, (unsigned long long)got.inter,
		     (unsigned long long)want.inter, (unsigned long long)got.intra,
		     (unsigned long long)want.intra);
	cr_assert_eq(ksm_meter_shares(vm, nvms, &got, share), 0);
	cr_assert_eq(memcmp(&got, &want, sizeof(got)), 0, "the same with shares");
	check_shares(vm, nvms, &want, share);
	/* What each page is must add up. */
	cr_assert_eq(got.touched, got.zero + got.frames + got.intra + got.inter);
}

Test(meter, count_against_oracle)
{
	for (uint64_t seed = 1; seed <= 300; seed++)
		run_random(seed * 0x9e3779b97f4a7c15ULL);
}

Test(meter, a_frame_with_s_pages_in_v_vms)
{
	uint64_t a[] = {KSM_METER_PFN | 9, KSM_METER_PFN | 9, KSM_METER_PFN | 9, 0};
	uint64_t b[] = {KSM_METER_PFN | 9, KSM_METER_ZERO};
	struct ksm_meter_vm vm[] = {{.words = a, .pages = 4}, {.words = b, .pages = 2}};
	struct ksm_meter_result r;

	cr_assert_eq(ksm_meter_count(vm, 2, &r), 0);
	cr_assert_eq(r.inter, 1);
	cr_assert_eq(r.intra, 2);
	cr_assert_eq(r.zero, 1);
	cr_assert_eq(r.frames, 1);
	cr_assert_eq(r.shared_pages, 4);
	cr_assert_eq(r.touched, 5);
	cr_assert_eq(r.pages, 6);
}

/* Three pages of one frame in VM 0, one in VM 1: 3/4 and 1/4 of it. Alone, VM 0 would save two. */
Test(meter, each_vm_is_charged_its_part)
{
	uint64_t a[] = {KSM_METER_PFN | 9, KSM_METER_PFN | 9, KSM_METER_PFN | 9, 0};
	uint64_t b[] = {KSM_METER_PFN | 9, KSM_METER_ZERO, KSM_METER_OWN | 5};
	struct ksm_meter_vm vm[] = {{.words = a, .pages = 4}, {.words = b, .pages = 3}};
	struct ksm_meter_share s[2];
	struct ksm_meter_result r;

	cr_assert_eq(ksm_meter_shares(vm, 2, &r, s), 0);
	cr_assert_eq(s[0].touched, 3 * OB_PAGE_SIZE);
	cr_assert_eq(s[0].resident, 3 * OB_PAGE_SIZE / 4);
	cr_assert_eq(s[0].intra, 2 * OB_PAGE_SIZE);
	cr_assert_eq(s[0].inter, OB_PAGE_SIZE / 4);
	cr_assert_eq(s[0].zero, 0);
	cr_assert_eq(s[1].touched, 3 * OB_PAGE_SIZE);
	cr_assert_eq(s[1].resident, OB_PAGE_SIZE / 4 + OB_PAGE_SIZE);
	cr_assert_eq(s[1].intra, 0);
	cr_assert_eq(s[1].inter, 3 * OB_PAGE_SIZE / 4);
	cr_assert_eq(s[1].zero, OB_PAGE_SIZE);
}

/* So many frames cut by eleven that what does not divide would be bytes by now. */
Test(meter, parts_add_up_however_many_frames)
{
	enum { VMS = 11, FRAMES = 60000 };
	uint64_t *words = calloc(FRAMES, sizeof(*words)), resident = 0, inter = 0;
	struct ksm_meter_share s[VMS];
	struct ksm_meter_vm vm[VMS];
	struct ksm_meter_result r;

	cr_assert(words);
	for (uint64_t i = 0; i < FRAMES; i++)
		words[i] = KSM_METER_FRAME | i;
	for (unsigned int v = 0; v < VMS; v++)
		vm[v] = (struct ksm_meter_vm){.words = words, .pages = FRAMES};
	cr_assert_eq(ksm_meter_shares(vm, VMS, &r, s), 0);
	for (unsigned int v = 0; v < VMS; v++) {
		cr_assert_lt((double)s[v].resident, FRAMES * 4096.0 / VMS + 1.01);
		cr_assert_gt((double)s[v].resident, FRAMES * 4096.0 / VMS - 1.01);
		resident += s[v].resident;
		inter += s[v].inter;
	}
	cr_assert_eq(resident, FRAMES * OB_PAGE_SIZE);
	cr_assert_eq(inter, r.inter * OB_PAGE_SIZE);
	free(words);
}

Test(meter, words_that_nobody_writes_are_refused)
{
	uint64_t bad[] = {2, 1ULL << 59, 4ULL << 60, UINT64_MAX};

	for (unsigned int i = 0; i < 4; i++) {
		struct ksm_meter_vm vm = {.words = &bad[i], .pages = 1};
		struct ksm_meter_result r;

		cr_assert_eq(ksm_meter_count(&vm, 1, &r), -EINVAL);
	}
}

/* --- the words of a guest ---------------------------------------------------------------- */

static void park(void *arg)
{
	(void)arg;
}

struct fix {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct ept ept;
	int pool;
	uint64_t words[1024];
};

static struct fix *fix_new(bool pfn)
{
	struct fix *x = calloc(1, sizeof(*x));
	struct ept_parker parker = {.park = park, .unpark = park};

	x->h = fake_host_new();
	fake_host_knows_pfn(x->h, pfn);
	x->arena = ob_arena_new("test");
	cr_assert_eq(gmem_init(&x->mem, x->h, 1024 * OB_PAGE_SIZE, "guest"), 0);
	cr_assert_eq(ept_init(&x->ept, x->h, &x->mem, parker, x->arena), 0);
	x->pool = x->h->ops->memfd(x->h, "pool", 64 * OB_PAGE_SIZE);
	cr_assert_geq(x->pool, 0);
	return x;
}

static void fix_free(struct fix *x)
{
	ept_exit(&x->ept);
	gmem_exit(&x->mem);
	ob_arena_free(x->arena);
	fake_host_free(x->h);
	free(x);
}

static void guest_write(struct fix *x, uint64_t page, const char *text)
{
	fake_host_write(x->h, gmem_page_hva(&x->mem, page), text, strlen(text));
}

static void words_of_a_guest(bool pfn)
{
	struct fix *x = fix_new(pfn);
	unsigned char page[OB_PAGE_SIZE] = "same";
	uint64_t own = pfn ? KSM_METER_KIND(KSM_METER_PFN) : KSM_METER_KIND(KSM_METER_OWN);

	guest_write(x, 1, "alone");
	guest_write(x, 2, "same");
	guest_write(x, 600, "same");
	guest_write(x, 601, "same");
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(x->words[0], KSM_METER_UNTOUCHED);
	cr_assert_eq(KSM_METER_KIND(x->words[1]), own);
	cr_assert_neq(x->words[2], x->words[600]);
	if (!pfn)
		cr_assert_eq(x->words[600], KSM_METER_OWN | 5600);

	/* Merged, and not touched since: known by the pool frame. */
	cr_assert_eq(x->h->ops->file_write(x->h, x->pool, page, OB_PAGE_SIZE, 3 * OB_PAGE_SIZE), 0);
	for (uint64_t p = 600; p <= 601; p++) {
		ept_freeze(&x->ept, p, 1);
		cr_assert_geq(ept_share(&x->ept, p, 1, x->pool, 3), 0);
		ept_thaw(&x->ept);
	}
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(x->words[600], KSM_METER_FRAME | 3);
	cr_assert_eq(x->words[601], KSM_METER_FRAME | 3);

	/* Read: in the page tables, and still named by its frame. */
	fake_host_read(x->h, gmem_page_hva(&x->mem, 600), page, 16);
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(x->words[600], KSM_METER_FRAME | 3, "one name for all holders");

	/* Written: broken off. */
	guest_write(x, 601, "other");
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(KSM_METER_KIND(x->words[601]), own);
	cr_assert_eq(ept_state_of(&x->ept, 601), EPT_PRIVATE, "it syncs");

	/* Swapped out: its own, whatever is known. */
	fake_host_swap_out(x->h, gmem_page_hva(&x->mem, 1), 1);
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(x->words[1], KSM_METER_OWN | 5001);

	/* All zero, and dropped. */
	fake_host_write(x->h, gmem_page_hva(&x->mem, 2), (char[4]){0}, 4);
	ept_freeze(&x->ept, 2, 1);
	cr_assert_eq(ept_drop_zero(&x->ept, 2, 1), OB_PAGE_SIZE);
	ept_thaw(&x->ept);
	cr_assert_eq(ksm_meter_guest(&x->ept, 5000, 0, x->words), 0);
	cr_assert_eq(x->words[2], KSM_METER_ZERO);

	/* A part of it: the same words. */
	for (uint64_t p = 0; p < 603; p += 7) {
		uint64_t some[603];

		cr_assert_eq(ksm_meter_pages(&x->ept, 5000, 0, p, 603 - p, some), 0);
		cr_assert_eq(memcmp(some, x->words + p, (603 - p) * sizeof(*some)), 0);
	}
	fix_free(x);
}

/* Frames of two pools have different names, though their numbers are the same; and what was given back
 * is nobody's memory. */
Test(meter, words_of_another_pool_and_of_a_balloon)
{
	struct fix *x = fix_new(true);
	unsigned char page[OB_PAGE_SIZE] = "same";

	guest_write(x, 7, "same");
	cr_assert_eq(x->h->ops->file_write(x->h, x->pool, page, OB_PAGE_SIZE, 3 * OB_PAGE_SIZE), 0);
	cr_assert_eq(ept_sync(&x->ept, 7, 1, NULL), 0);
	ept_freeze(&x->ept, 7, 1);
	cr_assert_geq(ept_share(&x->ept, 7, 1, x->pool, 3), 0);
	ept_thaw(&x->ept);
	cr_assert_eq(ksm_meter_guest(&x->ept, 0, 1000, x->words), 0);
	cr_assert_eq(x->words[7], KSM_METER_FRAME | 1003);
	guest_write(x, 8, "alone");
	cr_assert_geq(ept_balloon(&x->ept, 7, 2, true), 0);
	cr_assert_eq(ksm_meter_guest(&x->ept, 0, 1000, x->words), 0);
	cr_assert_eq(x->words[7], KSM_METER_UNTOUCHED);
	cr_assert_eq(x->words[8], KSM_METER_UNTOUCHED);
	fix_free(x);
}

Test(meter, words_with_host_frames)
{
	words_of_a_guest(true);
}

Test(meter, words_without_host_frames)
{
	words_of_a_guest(false);
}

Test(meter, failure_to_read_is_passed_on)
{
	struct fix *x = fix_new(true);

	fake_host_fail(x->h, FAKE_PAGES, 2, EIO);
	cr_assert_eq(ksm_meter_guest(&x->ept, 0, 0, x->words), -EIO);
	fix_free(x);
}
