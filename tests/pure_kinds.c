/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_kinds.c: what the pages of a Linux guest are, from the kernel's own words to the result: flags and
 * /proc/iomem, and what is saved of each kind against an oracle in fractions.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/kinds.h"
#include "ksm/ksm.h"
#include "tests/rnd.h"
#include "workloads/linux/kind.h"

/* --- classification ------------------------------------------------------------------------ */

/* Of a guest of 96 MiB with Debian's 6.1, moved by KASLR. */
static const char iomem[] = "00000000-00000fff : Reserved\n"
			    "00001000-0009fbff : System RAM\n"
			    "0009fc00-0009ffff : Reserved\n"
			    "000e0000-000effff : Reserved\n"
			    "00100000-05ffffff : System RAM\n"
			    "  03000000-03e02fff : Kernel code\n"
			    "  04000000-0463ffff : Kernel rodata\n"
			    "  04800000-04a2ac7f : Kernel data\n"
			    "  04ea4000-04ffffff : Kernel bss\n"
			    "d0001000-d00011ff : LNRO0005:00\n"
			    "100000000-11fffffff : System RAM\n";

static enum agent_page_kind of(const struct kind_map *m, uint64_t gfn, uint64_t flags)
{
	return kind_of(m, gfn, flags, AGENT_PAGE_UNKNOWN);
}

Test(kinds, ram_and_the_kernels_image_are_found)
{
	struct kind_map m;

	kind_map_read(&m, iomem);
	cr_assert_eq(m.nram, 3);
	cr_assert_eq(m.ram[0].from, 1);
	cr_assert_eq(m.ram[0].to, 0x9f, "the last page is not whole");
	cr_assert_eq(m.ram[1].from, 0x100);
	cr_assert_eq(m.ram[1].to, 0x6000);
	cr_assert_eq(m.ram[2].from, 0x100000);
	cr_assert_eq(m.ram[2].to, 0x120000);
	cr_assert_eq(of(&m, 0x3000, KPF_RESERVED), AGENT_PAGE_CODE);
	cr_assert_eq(of(&m, 0x3e02, KPF_RESERVED), AGENT_PAGE_CODE);
	cr_assert_eq(of(&m, 0x3e03, KPF_RESERVED), AGENT_PAGE_BOOT);
	cr_assert_eq(of(&m, 0x463f, KPF_RESERVED), AGENT_PAGE_RODATA);
	cr_assert_eq(of(&m, 0x4a2a, KPF_RESERVED), AGENT_PAGE_DATA, "a part of a page");
	cr_assert_eq(of(&m, 0x4fff, KPF_RESERVED), AGENT_PAGE_DATA, "bss");
	cr_assert_eq(of(&m, 0x5000, KPF_RESERVED), AGENT_PAGE_BOOT);
}

Test(kinds, who_may_not_see_addresses_finds_nothing)
{
	struct kind_map m;

	kind_map_read(&m, "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n");
	cr_assert_eq(m.nram + m.nimage, 0);
	kind_map_read(&m, "");
	cr_assert_eq(m.nram, 0);
	/* Nor does whoever reads what is none. */
	kind_map_read(&m, "\n-\n12\n12-\n5-4 : System RAM\n00100000-ffffffffffffffff : System RAM\n"
			  "0-ffff: System RAM\n00100000-001fffff : System RAMS\nx");
	cr_assert_eq(m.nram, 0);
}

Test(kinds, more_ranges_than_there_is_room_for)
{
	char text[64 * 40] = "";
	struct kind_map m;

	for (unsigned int i = 1; i <= 40; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 "%x00000-%xfffff : System RAM\n", i, i);
	kind_map_read(&m, text);
	cr_assert_eq(m.nram, KIND_RANGES);
}

Test(kinds, flags_say_what_a_page_is)
{
	struct kind_map m;

	kind_map_read(&m, iomem);
	cr_assert_eq(of(&m, 0x200, KPF_BUDDY), AGENT_PAGE_FREE);
	cr_assert_eq(of(&m, 0x200, KPF_SLAB), AGENT_PAGE_SLAB);
	cr_assert_eq(of(&m, 0x200, KPF_PGTABLE), AGENT_PAGE_TABLES);
	cr_assert_eq(of(&m, 0x200, KPF_ANON | KPF_LRU | KPF_UPTODATE | KPF_SWAPBACKED),
		     AGENT_PAGE_ANON);
	cr_assert_eq(of(&m, 0x200, KPF_LRU | KPF_UPTODATE), AGENT_PAGE_CACHE);
	cr_assert_eq(of(&m, 0x200, KPF_UPTODATE), AGENT_PAGE_CACHE, "not on a list yet");
	cr_assert_eq(of(&m, 0x200, KPF_SWAPBACKED | KPF_LRU), AGENT_PAGE_CACHE, "tmpfs");
	cr_assert_eq(of(&m, 0x200, 0), AGENT_PAGE_KERNEL);
	cr_assert_eq(of(&m, 0x200, KPF_RESERVED), AGENT_PAGE_BOOT);
	cr_assert_eq(of(&m, 0x200, KPF_NOPAGE), AGENT_PAGE_BOOT);
	/* Of the kernel's image, what was freed after boot is like all else. */
	cr_assert_eq(of(&m, 0x3001, KPF_BUDDY), AGENT_PAGE_FREE);
	cr_assert_eq(of(&m, 0x3001, KPF_LRU | KPF_UPTODATE), AGENT_PAGE_CACHE);
	/* Pages that belong together. */
	cr_assert_eq(kind_of(&m, 0x200, KPF_COMPOUND_TAIL, AGENT_PAGE_CACHE), AGENT_PAGE_CACHE);
	cr_assert_eq(kind_of(&m, 0x200, KPF_COMPOUND_TAIL | KPF_ANON, AGENT_PAGE_CACHE),
		     AGENT_PAGE_ANON);
}

/* --- what is saved by kind ----------------------------------------------------------------- */

#define KINDS 5

/* Three pages in VM 0, one in VM 1: two are saved within, one across; each page has a quarter of it. */
Test(kinds, each_page_has_its_part)
{
	uint64_t a[] = {KSM_METER_PFN | 9, KSM_METER_PFN | 9, KSM_METER_PFN | 9, 0};
	uint64_t b[] = {KSM_METER_PFN | 9, KSM_METER_ZERO, KSM_METER_OWN | 5};
	uint8_t of_a[] = {1, 2, 2, 2}, of_b[] = {3, 3, 77};
	struct ksm_meter_vm vm[] = {{.words = a, .pages = 4, .kinds = of_a},
				    {.words = b, .pages = 3, .kinds = of_b}};
	struct ksm_meter_kind k[KINDS];

	cr_assert_eq(ksm_meter_kinds(vm, 2, KINDS, k), 0);
	cr_assert_eq(k[1].touched, OB_PAGE_SIZE);
	cr_assert_eq(k[1].intra, OB_PAGE_SIZE / 2);
	cr_assert_eq(k[1].inter, OB_PAGE_SIZE / 4);
	cr_assert_eq(k[2].touched, 2 * OB_PAGE_SIZE, "one was never touched");
	cr_assert_eq(k[2].intra, OB_PAGE_SIZE);
	cr_assert_eq(k[2].inter, OB_PAGE_SIZE / 2);
	cr_assert_eq(k[3].touched, 2 * OB_PAGE_SIZE);
	cr_assert_eq(k[3].zero, OB_PAGE_SIZE);
	cr_assert_eq(k[3].inter, OB_PAGE_SIZE / 4);
	cr_assert_eq(k[0].touched, OB_PAGE_SIZE, "there is no kind 77");
	cr_assert_eq(k[0].inter + k[0].intra + k[0].zero, 0);
	cr_assert_eq(k[4].touched, 0);
	a[0] = 77;
	cr_assert_eq(ksm_meter_kinds(vm, 2, KINDS, k), -EINVAL);
	vm[0].kinds = NULL;
	a[0] = 0;
	cr_assert_eq(ksm_meter_kinds(vm, 2, KINDS, k), 0);
	cr_assert_eq(k[0].touched, 3 * OB_PAGE_SIZE, "kinds are not told");
	cr_assert_eq(ksm_meter_kinds(NULL, 0, KINDS, k), 0);
	cr_assert_eq(k[0].touched, 0);
}

/* What kind @kind saves, page by page, in fractions of bytes. */
static void check_kind(const struct ksm_meter_vm *vm, unsigned int nvms, unsigned int kind,
		       const struct ksm_meter_kind *got)
{
	double intra = 0, inter = 0;
	uint64_t touched = 0, zero = 0;

	for (unsigned int v = 0; v < nvms; v++)
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			uint64_t id = vm[v].words[i], s = 0, vms = 0;

			if (vm[v].kinds[i] != kind)
				continue;
			touched += id != KSM_METER_UNTOUCHED;
			zero += id == KSM_METER_ZERO;
			if (id <= KSM_METER_ZERO)
				continue;
			for (unsigned int w = 0; w < nvms; w++) {
				uint64_t before = s;

				for (uint64_t j = 0; j < vm[w].pages; j++)
					s += vm[w].words[j] == id;
				vms += s > before;
			}
			intra += (double)(s - vms) / (double)s;
			inter += (double)(vms - 1) / (double)s;
		}
	cr_assert_eq(got->touched, touched * OB_PAGE_SIZE);
	cr_assert_eq(got->zero, zero * OB_PAGE_SIZE);
	cr_assert_float_eq((double)got->intra, intra * OB_PAGE_SIZE, 1.01);
	cr_assert_float_eq((double)got->inter, inter * OB_PAGE_SIZE, 1.01);
}

static void run_random(uint64_t seed)
{
	uint64_t s = seed, words[6][60];
	struct ksm_meter_kind k[KINDS], sum = {0};
	struct ksm_meter_vm vm[6];
	struct ksm_meter_result all;
	unsigned int nvms = (unsigned int)(rnd(&s) % 7);
	uint8_t kinds[6][60];

	for (unsigned int v = 0; v < nvms; v++) {
		vm[v] = (struct ksm_meter_vm){words[v], rnd(&s) % 60, kinds[v]};
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			uint64_t w[] = {KSM_METER_UNTOUCHED, KSM_METER_ZERO,
					KSM_METER_PFN | (1 + rnd(&s) % 30),
					KSM_METER_FRAME | rnd(&s) % 25,
					KSM_METER_OWN | (v * 60 + i)};

			words[v][i] = w[rnd(&s) % OB_ARRAY_SIZE(w)];
			kinds[v][i] = (uint8_t)(rnd(&s) % KINDS);
		}
	}
	cr_assert_eq(ksm_meter_count(vm, nvms, &all), 0);
	cr_assert_eq(ksm_meter_kinds(vm, nvms, KINDS, k), 0);
	for (unsigned int i = 0; i < KINDS; i++) {
		check_kind(vm, nvms, i, &k[i]);
		sum.touched += k[i].touched;
		sum.zero += k[i].zero;
		sum.intra += k[i].intra;
		sum.inter += k[i].inter;
	}
	cr_assert_eq(sum.touched, all.touched * OB_PAGE_SIZE, "seed %llx",
		     (unsigned long long)seed);
	cr_assert_eq(sum.zero, all.zero * OB_PAGE_SIZE);
	cr_assert_eq(sum.intra, all.intra * OB_PAGE_SIZE);
	cr_assert_eq(sum.inter, all.inter * OB_PAGE_SIZE);
}

Test(kinds, parts_add_up_and_are_right_at_random)
{
	for (uint64_t seed = 1; seed <= 200; seed++)
		run_random(seed * 0x9e3779b97f4a7c15ULL);
}

/* --- in the result and the table ------------------------------------------------------------ */

Test(kinds, every_kind_has_a_name)
{
	for (unsigned int k = 0; k < AGENT_PAGE_KINDS; k++) {
		cr_assert(kinds_name(k) && kinds_label(k));
		for (unsigned int j = 0; j < k; j++)
			cr_assert_str_neq(kinds_name(k), kinds_name(j));
	}
}

Test(kinds, document_and_table)
{
	struct run_result r = {.sharing = "hash", .saved_inter = 8192, .kinds_known = true};
	size_t len = 0;
	char *text = NULL;
	json_t *o;
	FILE *f;

	r.kind[AGENT_PAGE_CACHE] = (struct ksm_meter_kind){20480, 4096, 0, 8192};
	o = kinds_json(&r);
	cr_assert_eq(json_array_size(o), 1, "only those that there are");
	o = json_array_get(o, 0);
	cr_assert_str_eq(json_string_value(json_object_get(o, "kind")), "page-cache");
	cr_assert_eq(json_integer_value(json_object_get(o, "pages")), 5);
	cr_assert_eq(json_integer_value(json_object_get(o, "zero")), 4096);
	cr_assert_eq(json_integer_value(json_object_get(o, "intra")), 0);
	cr_assert_eq(json_integer_value(json_object_get(o, "inter")), 8192);
	f = open_memstream(&text, &len);
	kinds_table(f, &r);
	fflush(f);
	cr_assert(strstr(text, "page cache") && strstr(text, "8.0 KiB"), "%s", text);
	cr_assert(!strstr(text, "slab"));
	len = strlen(text);
	r.status = RUN_FAILED;
	cr_assert(json_is_null(kinds_json(&r)), "a run that failed has no figures");
	kinds_table(f, &r);
	r.status = RUN_OK;
	r.kinds_known = false;
	cr_assert(json_is_null(kinds_json(&r)));
	kinds_table(f, &r);
	fflush(f);
	cr_assert_eq(strlen(text), len);
	fclose(f);
	free(text);
}
