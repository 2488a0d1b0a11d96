/* SPDX-License-Identifier: Apache-2.0 */
/* pure_boot.c: what fits into a guest, where it is put, and what the guest is told of it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/boot_int.h"
#include "tests/boot_file.h"
#include "tests/fake_host.h"

static const struct boot_machine bare = {.pc = false};
static const struct boot_machine pc = {.pc = true, .acpi = {.vcpus = 2}};

static void parsed(const struct bz_file *f, struct boot_image *img)
{
	cr_assert_eq(boot_parse(f->b, f->len, img, NULL), 0);
}

static void says(const struct ob_err *e, const char *what)
{
	cr_assert_not_null(strstr(e->msg, what), "says \"%s\", should say \"%s\"", e->msg, what);
	cr_assert_null(strchr(e->msg, '\n'));
}

/* --- what fits -------------------------------------------------------------------------------- */

Test(boot, memory_that_is_too_small_is_said_in_numbers)
{
	struct boot_image img;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, 20 * OB_MIB, 0, 0, &e), 0);
	cr_assert_eq(boot_fit(&img, 20 * OB_MIB - 4096, 0, 0, &e), -ENOMEM);
	cr_assert_str_eq(e.msg, "the kernel needs 4 MiB from 16 MiB on: 19 MiB of memory are too "
				"few, give at least 20M");
	cr_assert_eq(boot_fit(&img, 24 * OB_MIB, 5 * OB_MIB - 1, 0, &e), -ENOMEM);
	cr_assert_str_eq(e.msg,
			 "the kernel needs 4 MiB from 16 MiB on and the initrd 5 MiB: 24 MiB "
			 "of memory are too few, give at least 25M");
	cr_assert_eq(boot_fit(&img, 4096, 0, 0, &e), -ENOMEM);
}

/* What a message says is enough is enough, and a page less is not, for any size. */
Test(boot, the_least_memory_is_told_exactly)
{
	struct boot_image img;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	for (uint64_t k = 1; k < 200; k++) {
		uint64_t init = k * 77777, initrd = k % 3 ? k * k * 1234 : 0, least;

		bz_set(&f, BZ_INIT_SIZE, init, 4);
		parsed(&f, &img);
		cr_assert_eq(boot_fit(&img, OB_MIB, initrd, 0, &e), -ENOMEM);
		least = strtoull(strstr(e.msg, "at least ") + 9, NULL, 10) * OB_MIB;
		cr_assert_eq(boot_fit(&img, least, initrd, 0, &e), 0, "%s", e.msg);
		cr_assert_eq(boot_fit(&img, least - OB_MIB, initrd, 0, &e), -ENOMEM);
	}
}

Test(boot, no_length_makes_it_wrap)
{
	const uint64_t huge[] = {GMEM_HOLE_START, 1ULL << 32, UINT64_MAX / 2, UINT64_MAX - 4095,
				 UINT64_MAX};
	struct boot_image img;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	parsed(&f, &img);
	for (size_t i = 0; i < OB_ARRAY_SIZE(huge); i++) {
		cr_assert_eq(boot_fit(&img, 64 * OB_MIB, huge[i], 0, &e), -ENOMEM);
		says(&e, "no guest has that much memory below 3 GiB");
		cr_assert_eq(boot_fit(&img, 64 * OB_GIB, huge[i], 0, &e), -ENOMEM);
	}
	bz_set(&f, BZ_INIT_SIZE, UINT32_MAX, 4);
	bz_set(&f, BZ_PREF, UINT32_MAX, 8);
	bz_set(&f, BZ_ALIGN, 1U << 31, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, 64 * OB_GIB, UINT64_MAX, 0, &e), -ENOMEM);
	img = (struct boot_image){.kind = BOOT_PVH};
	img.elf.nseg = 1;
	img.elf.seg[0] = (struct elf_segment){.paddr = OB_MIB, .mem_size = UINT64_MAX - OB_MIB};
	cr_assert_eq(boot_fit(&img, 64 * OB_GIB, UINT64_MAX, 0, &e), -ENOMEM);
	says(&e, "no guest has that much");
}

Test(boot, memory_above_4_gib_does_not_help)
{
	struct boot_image img;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	bz_set(&f, BZ_INITRD_MAX, UINT32_MAX, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, 8 * OB_GIB, 3 * OB_GIB - 20 * OB_MIB, 0, &e), 0);
	cr_assert_eq(boot_fit(&img, 8 * OB_GIB, 3 * OB_GIB - 20 * OB_MIB + 1, 0, &e), -ENOMEM);
}

Test(boot, an_initrd_stays_below_what_the_kernel_takes)
{
	struct boot_image img;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	bz_set(&f, BZ_INITRD_MAX, 30 * OB_MIB - 1, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, OB_GIB, 10 * OB_MIB, 0, &e), 0);
	cr_assert_eq(boot_fit(&img, OB_GIB, 10 * OB_MIB + 1, 0, &e), -ENOMEM);
	cr_assert_str_eq(e.msg,
			 "the initrd of 11 MiB does not fit between the kernel, which ends at 20 "
			 "MiB, and 30 MiB, the highest that the kernel takes");
	bz_set(&f, BZ_INITRD_MAX, 0, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, OB_GIB, 1, 0, &e), -ENOMEM);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 0, &e), 0);
}

Test(boot, the_command_line_is_limited)
{
	struct boot_image img;
	struct elf_file ef;
	struct bz_file f;
	struct ob_err e;

	bz_make(&f);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 2047, &e), 0);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 2048, &e), -E2BIG);
	cr_assert_str_eq(e.msg, "guest command line of 2048 bytes: at most 2047 are passed on");
	bz_set(&f, BZ_CMDLINE_SIZE, 255, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 255, &e), 0);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 256, &e), -E2BIG);
	bz_set(&f, BZ_CMDLINE_SIZE, UINT32_MAX, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 2048, &e), -E2BIG, "what we pass on is less");
	elf_file_make(&ef, EF_TEXT);
	cr_assert_eq(boot_parse(ef.b, ef.len, &img, NULL), 0);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 2047, &e), 0);
	cr_assert_eq(boot_fit(&img, OB_GIB, 0, 2048, &e), -E2BIG);
}

/* --- the memory map --------------------------------------------------------------------------- */

static void map_of(uint64_t bytes, bool is_pc, struct e820_map *m)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;

	fake_host_no_memory(h);
	cr_assert_eq(gmem_init(&gm, h, bytes, "t"), 0);
	e820_build(&gm, is_pc, m);
	gmem_exit(&gm);
	fake_host_free(h);
}

static void entry_is(const struct e820_map *m, unsigned int i, uint64_t from, uint64_t to,
		     enum e820_type type)
{
	cr_assert_lt(i, m->n);
	cr_assert_eq(m->entry[i].addr, from, "entry %u", i);
	cr_assert_eq(m->entry[i].addr + m->entry[i].size, to, "entry %u", i);
	cr_assert_eq(m->entry[i].type, type, "entry %u", i);
}

Test(e820, a_pc_has_holes_below_1_mib)
{
	struct e820_map m;

	map_of(128 * OB_MIB, true, &m);
	entry_is(&m, 0, 0, 0x9fc00, E820_RAM);
	entry_is(&m, 1, 0x9fc00, 0xa0000, E820_RESERVED);
	entry_is(&m, 2, 0xe0000, 0xf0000, E820_RESERVED);
	entry_is(&m, 3, OB_MIB, 128 * OB_MIB, E820_RAM);
	cr_assert_eq(m.n, 4);
}

Test(e820, memory_from_3_gib_on_lies_above_4_gib)
{
	struct e820_map m;

	map_of(3 * OB_GIB, true, &m);
	entry_is(&m, 3, OB_MIB, 3 * OB_GIB, E820_RAM);
	cr_assert_eq(m.n, 4);
	map_of(3 * OB_GIB + 4096, true, &m);
	entry_is(&m, 3, OB_MIB, 3 * OB_GIB, E820_RAM);
	entry_is(&m, 4, 4 * OB_GIB, 4 * OB_GIB + 4096, E820_RAM);
	cr_assert_eq(m.n, 5);
	map_of(5 * OB_GIB, true, &m);
	entry_is(&m, 4, 4 * OB_GIB, 6 * OB_GIB, E820_RAM);
	map_of(5 * OB_GIB, false, &m);
	entry_is(&m, 0, 0, 3 * OB_GIB, E820_RAM);
	entry_is(&m, 1, 4 * OB_GIB, 6 * OB_GIB, E820_RAM);
	cr_assert_eq(m.n, 2);
}

/* In order, without overlaps, and no RAM but what the guest has, for any size. */
Test(e820, any_size_gives_a_map_in_order)
{
	const uint64_t sizes[] = {4096, 0x9f000, 0xa0000, 0xe1000, 0xf0000, OB_MIB, OB_MIB + 4096};

	for (size_t i = 0; i < OB_ARRAY_SIZE(sizes); i++) {
		struct e820_map m;
		uint64_t at = 0;

		map_of(sizes[i], true, &m);
		cr_assert(m.n);
		for (unsigned int k = 0; k < m.n; k++) {
			cr_assert(m.entry[k].addr >= at && m.entry[k].size);
			at = m.entry[k].addr + m.entry[k].size;
		}
		cr_assert_leq(at, sizes[i]);
	}
}

/* --- loading ---------------------------------------------------------------------------------- */

struct rig {
	struct ob_host *h;
	struct gmem gm;
	struct boot_entry entry;
	struct ob_err e;
};

static void rig_make(struct rig *r, uint64_t bytes)
{
	*r = (struct rig){.h = fake_host_new()};
	cr_assert_eq(gmem_init(&r->gm, r->h, bytes, "t"), 0);
}

static void rig_end(struct rig *r)
{
	gmem_exit(&r->gm);
	fake_host_free(r->h);
}

static uint64_t get(struct rig *r, uint64_t at, unsigned int bytes)
{
	uint64_t v = 0;

	cr_assert_eq(gmem_read(&r->gm, gpa(at), &v, bytes), 0);
	return v;
}

static void *at(struct rig *r, uint64_t where, uint64_t n)
{
	void *p = gmem_ptr(&r->gm, gpa(where), n);

	cr_assert(p);
	return p;
}

#define ZP 0x7000ULL

Test(boot, a_bzimage_is_loaded_and_described)
{
	unsigned char initrd[5000];
	struct boot_image img;
	struct bz_file f;
	struct rig r;

	memset(initrd, 0x5a, sizeof(initrd));
	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	memset(at(&r, ZP, 8192), 0xee, 8192);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, initrd, sizeof(initrd), "quiet a=b", &pc,
			       &r.entry, &r.e),
		     0, "%s", r.e.msg);
	cr_assert_arr_eq(at(&r, 16 * OB_MIB, BZ_PAYLOAD), f.b + BZ_PAYLOAD_OFF, BZ_PAYLOAD);
	cr_assert(r.entry.long_mode);
	cr_assert_eq(r.entry.rip, 16 * OB_MIB + 0x200);
	cr_assert_eq(r.entry.arg, ZP);
	/* boot_params: the header as it was, and what a loader fills in. */
	cr_assert_eq(get(&r, ZP + 0x206, 2), 0x20f);
	cr_assert_eq(get(&r, ZP + 0x202, 4), 0x53726448);
	cr_assert_eq(get(&r, ZP + 0x1f1, 1), BZ_SETUP_SECTS);
	cr_assert_eq(get(&r, ZP + 0x260, 4), 4 * OB_MIB);
	cr_assert_eq(get(&r, ZP + 0x210, 1), 0xff, "loader");
	cr_assert_eq(get(&r, ZP + 0x211, 1), 0x01, "loadflags");
	cr_assert_eq(get(&r, ZP + 0x214, 4), 16 * OB_MIB, "code32_start");
	cr_assert_str_eq(at(&r, get(&r, ZP + 0x228, 4), 10), "quiet a=b");
	cr_assert_eq(get(&r, ZP + 0x218, 4), 32 * OB_MIB - 8192, "page-aligned at the top");
	cr_assert_eq(get(&r, ZP + 0x21c, 4), sizeof(initrd));
	cr_assert_arr_eq(at(&r, 32 * OB_MIB - 8192, 5000), initrd, sizeof(initrd));
	cr_assert_eq(get(&r, ZP + 0x070, 8), ACPI_GPA);
	cr_assert_eq(get(&r, ZP + 0x1e8, 1), 4, "entries of the map");
	cr_assert_eq(get(&r, ZP + 0x2d0 + 3 * 20, 8), OB_MIB);
	cr_assert_eq(get(&r, ZP + 0x2d0 + 3 * 20 + 8, 8), 31 * OB_MIB);
	cr_assert_eq(get(&r, ZP + 0x2d0 + 3 * 20 + 16, 4), E820_RAM);
	/* What no one fills in is zero, whatever was there before or is so in the file. */
	for (unsigned int i = 0; i < 0x1ef; i++)
		cr_assert(i == 0x70 || i == 0x72 || i == 0x1e8 || !get(&r, ZP + i, 1), "0x%x", i);
	for (unsigned int i = 0x26c; i < 0x2d0; i++)
		cr_assert(!get(&r, ZP + i, 1), "0x%x", i);
	for (unsigned int i = 0x2d0 + 4 * 20; i < 4096; i++)
		cr_assert(!get(&r, ZP + i, 1), "0x%x", i);
	cr_assert(!memcmp(at(&r, ACPI_GPA, 8), "RSD PTR ", 8));
	rig_end(&r);
}

Test(boot, an_old_kernel_gets_no_rsdp_and_a_bare_one_no_tables)
{
	struct boot_image img;
	struct bz_file f;
	struct rig r;

	bz_make(&f);
	bz_set(&f, BZ_VERSION, 0x20d, 2);
	bz_set(&f, BZ_LOADFLAGS, 0xff, 1);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	cr_assert_eq(get(&r, ZP + 0x070, 8), 0);
	cr_assert_eq(get(&r, ZP + 0x211, 1), 0x21, "only QUIET is kept");
	cr_assert_eq(get(&r, ZP + 0x218, 8), 0, "no initrd");
	cr_assert_eq(get(&r, ACPI_GPA, 1), 'R', "it finds them by looking");
	rig_end(&r);
	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &bare, &r.entry, &r.e), 0);
	cr_assert_eq(get(&r, ZP + 0x070, 8), 0);
	cr_assert_eq(get(&r, ZP + 0x1e8, 1), 1);
	cr_assert_eq(get(&r, ACPI_GPA, 8), 0);
	rig_end(&r);
}

/* Walk the tables as the CPU does: the first 4 GiB are themselves, and no more is there. */
Test(boot, the_first_4_gib_are_mapped_to_themselves)
{
	struct boot_image img;
	struct bz_file f;
	struct rig r;
	uint64_t gdt;

	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	memset(at(&r, 0x9000, 6 * 4096), 0xff, 6 * 4096);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	for (uint64_t v = 0; v < 513 * OB_GIB; v += v < 5 * OB_GIB ? 2 * OB_MIB : OB_GIB) {
		uint64_t p4 = get(&r, r.entry.cr3 + (v >> 39) * 8, 8), p3, p2;

		cr_assert_eq(p4 & 1, v < 512 * OB_GIB);
		if (!(p4 & 1))
			continue;
		p3 = get(&r, (p4 & ~0xfffULL) + (v >> 30 & 511) * 8, 8);
		cr_assert_eq(p3 & 0x81, v < 4 * OB_GIB, "0x%llx", (unsigned long long)v);
		if (!(p3 & 1))
			continue;
		p2 = get(&r, (p3 & ~0xfffULL) + (v >> 21 & 511) * 8, 8);
		cr_assert_eq(p2, v | 0x83);
	}
	/* __BOOT_CS: 64-bit code; __BOOT_DS: writable data; both present, accessed, ring 0. */
	cr_assert_eq(r.entry.code_selector, 0x10);
	cr_assert_eq(r.entry.data_selector, 0x18);
	cr_assert_eq(r.entry.gdt_limit, 31);
	gdt = r.entry.gdt_base;
	cr_assert_eq(get(&r, gdt, 8), 0);
	cr_assert_eq(get(&r, gdt + 0x10, 8), 0x00af9b000000ffff);
	cr_assert_eq(get(&r, gdt + 0x18, 8), 0x00cf93000000ffff);
	rig_end(&r);
}

Test(boot, a_kernel_runs_where_it_wants_to)
{
	struct boot_image img;
	struct bz_file f;
	struct rig r;

	bz_make(&f);
	bz_set(&f, BZ_PREF, 3 * OB_MIB, 8);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	cr_assert_eq(r.entry.rip, 4 * OB_MIB + 0x200, "aligned");
	bz_set(&f, BZ_RELOCATABLE, 0, 1);
	parsed(&f, &img);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	cr_assert_eq(r.entry.rip, 3 * OB_MIB + 0x200, "exactly there");
	bz_set(&f, BZ_RELOCATABLE, 1, 1);
	bz_set(&f, BZ_PREF, 0, 8);
	bz_set(&f, BZ_ALIGN, 4096, 4);
	parsed(&f, &img);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	cr_assert_eq(r.entry.rip, OB_MIB + 0x200, "but not over boot data");
	rig_end(&r);
}

Test(boot, what_does_not_fit_is_refused_and_nothing_written)
{
	struct boot_image img;
	struct bz_file f;
	struct rig r;

	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 19 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), -ENOMEM);
	says(&r.e, "give at least 20M");
	cr_assert_eq(fake_host_private_pages(r.h), 0);
	rig_end(&r);
}

/* An initrd of zeros, or the padding of a kernel, is not written: it costs no memory. */
Test(boot, zeros_cost_no_memory)
{
	const size_t zeros = 4 * OB_MIB;
	void *initrd = calloc(1, zeros);
	struct boot_image img;
	uint64_t before;
	struct bz_file f;
	struct rig r;

	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, NULL, 0, "", &pc, &r.entry, &r.e), 0);
	before = fake_host_private_pages(r.h);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, initrd, zeros, "", &pc, &r.entry, &r.e), 0);
	cr_assert_eq(fake_host_private_pages(r.h), before);
	/* But where something else was, they are written. */
	memset(at(&r, 28 * OB_MIB, zeros), 0xee, zeros);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, initrd, zeros, "", &pc, &r.entry, &r.e), 0);
	cr_assert(!memcmp(at(&r, 28 * OB_MIB, zeros), initrd, zeros));
	free(initrd);
	rig_end(&r);
}

/* --- whose pages they are --------------------------------------------------------------------- */

struct owner {
	struct gmem *gm;
	unsigned int begun, ended, busy;
	uint64_t longest;
};

static int owner_begin(void *arg, gpa_t a, uint64_t len, bool write, struct gmem_access *acc)
{
	struct owner *o = arg;

	cr_assert(write);
	/* Every third time somebody else has all brackets. */
	if (++o->busy % 3 == 0)
		return -EBUSY;
	o->begun++;
	o->longest = OB_MAX(o->longest, len);
	*acc = (struct gmem_access){.ptr = gmem_ptr(o->gm, a, len), .gpa = a, .len = len};
	return acc->ptr ? 0 : -EFAULT;
}

static void owner_end(void *arg, struct gmem_access *acc)
{
	struct owner *o = arg;

	cr_assert(acc->ptr);
	o->ended++;
}

/* A guest that is booted anew has pages that are shared, or away: all goes through their owner. */
Test(boot, every_write_is_bracketed_and_short)
{
	const struct gmem_ops ops = {.access_begin = owner_begin, .access_end = owner_end};
	static unsigned char initrd[300000];
	struct elf_file ef;
	struct boot_image img;
	struct owner o;
	struct bz_file f;
	struct rig r;

	memset(initrd, 0x5a, sizeof(initrd));
	bz_make(&f);
	parsed(&f, &img);
	rig_make(&r, 32 * OB_MIB);
	o = (struct owner){.gm = &r.gm};
	r.gm.ops = &ops;
	r.gm.ops_arg = &o;
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, initrd, sizeof(initrd), "x", &pc, &r.entry,
			       &r.e),
		     0);
	cr_assert_gt(o.begun, 6);
	cr_assert_eq(o.begun, o.ended);
	cr_assert_leq(o.longest, 64 * OB_KIB);
	cr_assert(!memcmp(gmem_ptr(&r.gm, gpa(32 * OB_MIB - 303104), 300000), initrd, 300000));
	elf_file_make(&ef, 200000);
	cr_assert_eq(boot_parse(ef.b, ef.len, &img, NULL), 0);
	o.begun = o.ended = 0;
	cr_assert_eq(boot_load(&r.gm, &img, ef.b, ef.len, NULL, 0, "x", &pc, &r.entry, &r.e), 0);
	cr_assert_gt(o.begun, 6);
	cr_assert_eq(o.begun, o.ended);
	cr_assert_leq(o.longest, 64 * OB_KIB);
	r.gm.ops = NULL;
	rig_end(&r);
}

/* --- an ELF by its PVH entry ------------------------------------------------------------------ */

#define SI 0x6000ULL

Test(boot, a_vmlinux_gets_a_pc_map_tables_and_initrd)
{
	unsigned char initrd[100];
	struct boot_image img;
	struct elf_file f;
	struct rig r;
	uint64_t mods, map;

	memset(initrd, 0x5a, sizeof(initrd));
	elf_file_make(&f, 2 * OB_MIB);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(img.kind, BOOT_PVH);
	rig_make(&r, 32 * OB_MIB);
	cr_assert_eq(boot_load(&r.gm, &img, f.b, f.len, initrd, sizeof(initrd), "quiet", &pc,
			       &r.entry, &r.e),
		     0, "%s", r.e.msg);
	cr_assert(!r.entry.long_mode);
	cr_assert_eq(r.entry.rip, EF_ENTRY);
	cr_assert_eq(r.entry.arg, SI);
	cr_assert_eq(get(&r, SI, 4), 0x336ec578);
	cr_assert_eq(get(&r, SI + 4, 4), 1, "version");
	cr_assert_eq(get(&r, SI + 12, 4), 1, "modules");
	mods = get(&r, SI + 16, 8);
	cr_assert_eq(get(&r, mods, 8), 32 * OB_MIB - 4096);
	cr_assert_eq(get(&r, mods + 8, 8), sizeof(initrd));
	cr_assert_arr_eq(at(&r, 32 * OB_MIB - 4096, 100), initrd, 100);
	cr_assert_str_eq(at(&r, get(&r, SI + 24, 8), 6), "quiet");
	cr_assert_eq(get(&r, SI + 32, 8), ACPI_GPA);
	map = get(&r, SI + 40, 8);
	cr_assert_eq(get(&r, SI + 48, 4), 4, "entries of the map");
	cr_assert_eq(get(&r, map + 24 + 16, 4), E820_RESERVED);
	cr_assert_eq(get(&r, map + 3 * 24, 8), OB_MIB);
	cr_assert_eq(get(&r, map + 3 * 24 + 8, 8), 31 * OB_MIB);
	rig_end(&r);
}

/* Our own guest finds what it always did, to the byte. */
Test(boot, a_bare_machine_is_as_pvh_write_boot_data_has_it)
{
	struct boot_image img;
	struct elf_file f;
	struct rig a, b;

	elf_file_make(&f, 2 * OB_MIB);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
	rig_make(&a, 32 * OB_MIB);
	rig_make(&b, 32 * OB_MIB);
	cr_assert_eq(boot_load(&a.gm, &img, f.b, f.len, NULL, 0, "seed=1", &bare, &a.entry, &a.e),
		     0);
	cr_assert_eq(elf_load(&img.elf, f.b, f.len, &b.gm, NULL), 0);
	cr_assert_eq(pvh_write_boot_data(&b.gm, "seed=1", NULL), 0);
	cr_assert(!memcmp(at(&a, 0, 32 * OB_MIB), at(&b, 0, 32 * OB_MIB), 32 * OB_MIB));
	cr_assert_eq(get(&a, SI + 48, 4), 1);
	cr_assert_eq(get(&a, SI + 32, 8), 0);
	rig_end(&a);
	rig_end(&b);
}

Test(boot, a_vmlinux_that_is_too_large_is_said_in_numbers)
{
	struct boot_image img;
	struct elf_file f;
	struct ob_err e;

	elf_file_make(&f, 10 * OB_MIB);
	cr_assert_eq(boot_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(boot_fit(&img, 26 * OB_MIB, 0, 0, &e), 0);
	cr_assert_eq(boot_fit(&img, 26 * OB_MIB - 4096, 0, 0, &e), -ENOMEM);
	says(&e, "the kernel needs 10 MiB from 16 MiB on: 25 MiB of memory are too few, give at "
		 "least 26M");
}
