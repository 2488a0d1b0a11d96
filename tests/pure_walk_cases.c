/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_walk_cases.c: the guest page walk by hand: one example of each format with all its bits
 * written out, hostile tables, registers that cannot be, and what a walk costs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/fake_host.h"
#include "tests/walk_mem.h"

/* Registers as they are in @mode, with all that can be on, and CR3 = 0x1000, a table. */
static struct wt *rig(enum ept_walk_mode mode)
{
	struct wt *t = walk_rig(mode, 1);

	t->regs = (struct vcpu_paging){.cr0 = 0x80010011, .cr3 = 0x1000, .maxphyaddr = 46};
	t->regs.has_1g = true;
	t->regs.efer = mode >= EPT_WALK_4LEVEL ? 0xd01 : 0x800;
	t->regs.cr4 = mode == EPT_WALK_5LEVEL ? 0x10b0 : mode == EPT_WALK_32BIT ? 0x90 : 0xb0;
	for (uint64_t at = 0x1000; at <= 0x5000; at += 0x1000)
		walk_mem_add(t, at);
	return t;
}

Test(walk, a_4_mb_page_above_4_gib)
{
	struct wt *t = rig(EPT_WALK_32BIT);
	struct ept_walk w;

	/* Directory entry 0x201; bits 20:13 of it are bits 39:32 of the address: 0x5a. */
	walk_mem_put(t, 0x1000 + 4 * 0x201, 0x80400000 | 0x5a << 13 | 0x1e7);
	cr_assert_eq(walk_rig_walk(t, 0x80523456, &w), 0);
	cr_assert_eq(w.gpa.v, 0x5a80523456);
	cr_assert(w.page_size == 4 * OB_MIB && w.n == 1 && w.level == 2 && w.entry[0].level == 2);
	cr_assert(w.writable && w.user && !w.nx && w.accessed && w.dirty && w.global);

	t->regs.maxphyaddr = 36; /* then there are four of those bits, and 0x5a has more */
	cr_assert_eq(walk_rig_walk(t, 0x80523456, &w), -EFAULT);
	cr_assert(w.stop == EPT_WALK_RESERVED && w.level == 2);

	t->regs.cr4 = 0; /* without PSE it is a page table */
	cr_assert_eq(walk_rig_walk(t, 0x80523456, &w), -EFAULT);
	cr_assert(w.stop == EPT_WALK_OUTSIDE && w.level == 1);
	cr_assert_eq(w.stop_at.v, 0x804b4000 + 4 * 0x123);
	walk_rig_free(t);
}

Test(walk, pae_starts_from_registers)
{
	struct wt *t = rig(EPT_WALK_PAE);
	struct ept_walk w;

	t->regs.cr3 = 0x1fe0; /* the last 32 bytes of the page */
	walk_mem_put(t, 0x1fe0 + 8 * 2, 0x2001);
	walk_mem_put(t, 0x2000 + 8 * 3, 0x80000012006000e7);
	cr_assert_eq(walk_rig_walk(t, 0x80712345, &w), 0);
	cr_assert_eq(w.gpa.v, 0x1200712345);
	cr_assert(w.page_size == 2 * OB_MIB && w.n == 2 && w.nx && !w.global);
	cr_assert(w.entry[0].in_register && w.entry[0].at.v == 0x1ff0 && !w.entry[1].in_register);
	cr_assert(w.writable && w.user && w.accessed, "a PDPTE takes no rights away");
	cr_assert_eq(walk_rig_mem(t)->reads, 2, "registers not known: memory stands in for them");

	/* What the CPU holds counts, whatever the guest has written since. */
	t->regs.has_pdpte = true;
	t->regs.pdpte[2] = 0x3001;
	walk_mem_put(t, 0x3000 + 8 * 3, 0x4063);
	walk_mem_put(t, 0x4000 + 8 * 0x112, 0x5065);
	cr_assert_eq(walk_rig_walk(t, 0x80712345, &w), 0);
	cr_assert_eq(w.gpa.v, 0x5345);
	cr_assert(w.page_size == OB_PAGE_SIZE && w.n == 3 && !w.nx && !w.user && !w.writable);
	cr_assert(w.entry[0].value == 0x3001 && w.entry[0].in_register);
	cr_assert_eq(walk_rig_mem(t)->reads, 2);
	walk_rig_free(t);
}

/* A walk of 4 levels with every right taken away at another of them. */
Test(walk, rights_are_those_of_all_levels)
{
	struct wt *t = rig(EPT_WALK_4LEVEL);
	const uint64_t va = 0xffff918273645abc;
	struct ept_walk w;

	walk_mem_put(t, 0x1000 + 8 * (va >> 39 & 511), 0x2027);
	walk_mem_put(t, 0x2000 + 8 * (va >> 30 & 511), 0x3023);		    /* no U */
	walk_mem_put(t, 0x3000 + 8 * (va >> 21 & 511), 0x8000000000004025); /* no W, XD */
	walk_mem_put(t, 0x4000 + 8 * (va >> 12 & 511), 0x7ff0001077047);
	cr_assert_eq(walk_rig_walk(t, va, &w), -EFAULT);
	cr_assert(w.stop == EPT_WALK_RESERVED && w.level == 1, "bits above MAXPHYADDR");
	walk_mem_put(t, 0x4000 + 8 * (va >> 12 & 511), 0x7ff0000001077047);
	cr_assert_eq(walk_rig_walk(t, va, &w), 0);
	cr_assert_eq(w.gpa.v, 0x1077abc);
	cr_assert(w.n == 4 && w.level == 1 && w.page_size == OB_PAGE_SIZE);
	cr_assert(!w.writable && !w.user && w.nx && !w.accessed && w.dirty && !w.global);
	cr_assert(w.entry[0].writable && w.entry[0].user && !w.entry[0].nx);
	cr_assert(w.entry[1].writable && !w.entry[1].user && !w.entry[1].nx);
	cr_assert(!w.entry[2].writable && !w.entry[2].user && w.entry[2].nx);
	cr_assert(w.entry[2].accessed && !w.entry[3].accessed && w.entry[3].dirty);
	walk_rig_free(t);
}

Test(walk, a_1_gb_page_where_the_cpu_has_them)
{
	struct wt *t = rig(EPT_WALK_5LEVEL);
	const uint64_t va = 0x00c0ffee12345678;
	struct ept_walk w;

	walk_mem_put(t, 0x1000 + 8 * (va >> 48 & 511), 0x2067);
	walk_mem_put(t, 0x2000 + 8 * (va >> 39 & 511), 0x3067);
	walk_mem_put(t, 0x3000 + 8 * (va >> 30 & 511), 0x30c00010e7);
	cr_assert_eq(walk_rig_walk(t, va, &w), 0, "bit 12 is PAT, no address");
	cr_assert_eq(w.gpa.v, 0x30c0000000 + (va & (OB_GIB - 1)));
	cr_assert(w.page_size == OB_GIB && w.n == 3 && w.level == 3);
	t->regs.has_1g = false;
	cr_assert_eq(walk_rig_walk(t, va, &w), -EFAULT);
	cr_assert(w.stop == EPT_WALK_RESERVED && w.level == 3);
	walk_rig_free(t);
}

/* The trick by which systems see their own tables: an entry of the first table that leads to it. */
Test(walk, a_table_that_leads_to_itself)
{
	struct wt *t = rig(EPT_WALK_4LEVEL);
	uint64_t self = 0x1ed, va = 0xffff000000000000 | self << 39 | self << 30 | self << 21;
	struct ept_walk w;

	walk_mem_put(t, 0x1000 + 8 * self, 0x1063);
	walk_mem_put(t, 0x1000 + 8 * 7, 0x2063);
	cr_assert_eq(walk_rig_walk(t, va | self << 12 | 0xf68, &w), 0);
	cr_assert(w.gpa.v == 0x1f68 && w.n == 4, "the table itself");
	cr_assert_eq(walk_rig_walk(t, va | 7 << 12 | 0x123, &w), 0);
	cr_assert(w.gpa.v == 0x2123 && w.n == 4, "the table below its entry 7");
	walk_rig_free(t);
}

/* All entries lead to their own table: a walk still ends, after as many steps as it has levels. */
Test(walk, tables_of_nothing_but_themselves)
{
	for (enum ept_walk_mode mode = EPT_WALK_32BIT; mode < EPT_WALK_NMODES; mode++) {
		struct wt *t = rig(mode);
		struct ept_walk w;

		for (uint64_t at = 0x1000; at < 0x2000; at += wt_entry_bytes(mode))
			walk_mem_put(t, at, mode == EPT_WALK_PAE ? 0x1001 : 0x1067);
		for (int i = 0; i < 1000; i++) {
			uint64_t va = wt_rand(t) >> 32;

			cr_assert_eq(walk_rig_walk(t, va, &w), 0);
			cr_assert_eq(w.n, wt_top(mode));
			cr_assert_eq(w.gpa.v, 0x1000 + va % OB_PAGE_SIZE);
		}
		walk_rig_free(t);
	}
}

/* The highest addresses that entries can hold. */
Test(walk, the_end_of_physical_memory)
{
	static const unsigned int phys[] = {36, 46, 52};

	for (size_t i = 0; i < OB_ARRAY_SIZE(phys); i++) {
		struct wt *t = rig(EPT_WALK_4LEVEL);
		uint64_t last = (1ULL << phys[i]) - OB_PAGE_SIZE;
		struct ept_walk w;

		t->regs.maxphyaddr = phys[i];
		t->regs.cr3 = last;
		walk_mem_add(t, last);
		walk_mem_put(t, last + 8 * 511, last | 0x67);
		cr_assert_eq(walk_rig_walk(t, UINT64_MAX, &w), 0);
		cr_assert_eq(w.gpa.v, last + OB_PAGE_SIZE - 1);
		if (phys[i] < 52) {
			walk_mem_put(t, last + 8 * 511, last | 0x67 | 1ULL << phys[i]);
			cr_assert_eq(walk_rig_walk(t, UINT64_MAX, &w), -EFAULT);
			cr_assert_eq(w.stop, EPT_WALK_RESERVED);
		}
		walk_rig_free(t);
	}
}

Test(walk, registers_that_cannot_be_are_refused)
{
	static const struct vcpu_paging rows[] = {
		{.cr0 = 0x80000000, .maxphyaddr = 46},		      /* PG without PE */
		{.cr0 = 0x80000001, .efer = 0x500, .maxphyaddr = 46}, /* LME without PAE */
		{.cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x100, .maxphyaddr = 46}, /* no LMA */
		{.cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x400, .maxphyaddr = 46}, /* no LME */
		{.cr0 = 0x1, .efer = 0x500, .maxphyaddr = 46},			   /* LMA, no PG */
		{.cr0 = 0x80000001, .maxphyaddr = 31},
		{.cr0 = 0x80000001, .maxphyaddr = 53},
		{.cr0 = 0x80000001, .maxphyaddr = 0},
		{.cr0 = 0x80000001,
		 .cr4 = 0x20,
		 .efer = 0x500,
		 .cr3 = 1ULL << 46,
		 .maxphyaddr = 46},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(rows); i++) {
		struct wt *t = rig(EPT_WALK_4LEVEL);
		struct ept_walk w;

		t->regs = rows[i];
		cr_assert_eq(walk_rig_walk(t, 0x1234, &w), -EINVAL, "row %zu", i);
		cr_assert(w.stop == EPT_WALK_UNFINISHED && w.gva.v == 0x1234);
		cr_assert_eq(walk_rig_mem(t)->reads, 0);
		walk_rig_free(t);
	}
}

Test(walk, an_error_of_reading_is_passed_on)
{
	struct wt *t = rig(EPT_WALK_4LEVEL);
	struct ept_walk w;

	walk_mem_put(t, 0x1000, 0x2067);
	walk_rig_mem(t)->fail = -EBUSY;
	cr_assert_eq(walk_rig_walk(t, 0x1234, &w), -EBUSY, "that is not for the guest to answer");
	cr_assert(w.stop == EPT_WALK_UNFINISHED && w.level == 4 && w.n == 0);
	walk_rig_free(t);
}

Test(walk, reads_a_guests_ram)
{
	struct ob_host *h = fake_host_new();
	struct vcpu_paging regs = {.cr0 = 0x80000011, .cr3 = 0x1000, .maxphyaddr = 40};
	struct gmem mem;
	struct ept_walk_mem reader = {.read = ept_walk_read_gmem, .arg = &mem};
	uint64_t wide[] = {0x2067, 0x4000000000000067}, v;
	uint32_t narrow[] = {0x00000067, 0x2067, 0x4067};
	struct ept_walk w;

	cr_assert(!gmem_init(&mem, h, 4 * OB_PAGE_SIZE, "test"));
	cr_assert(!gmem_write(&mem, gpa(0x1000), narrow, sizeof(narrow)));
	cr_assert(!gmem_write(&mem, gpa(0x2008), wide, sizeof(wide)));
	cr_assert_eq(ept_walk(&regs, &reader, (gva_t){0x402123}, &w), 0);
	cr_assert(w.gpa.v == 0x2123 && w.entry[0].value == 0x2067 && w.entry[1].value == 0x2067);
	cr_assert_eq(ept_walk(&regs, &reader, (gva_t){0x802123}, &w), -EFAULT);
	cr_assert(w.stop == EPT_WALK_OUTSIDE && w.level == 1 && w.stop_at.v == 0x4008);
	cr_assert_eq(ept_walk_read_gmem(&mem, gpa(0x2010), 8, &v), 0);
	cr_assert_eq(v, wide[1]);
	gmem_exit(&mem);
	fake_host_free(h);
}

Test(walk, names)
{
	cr_assert_str_eq(ept_walk_mode_name(EPT_WALK_PAE), "PAE");
	cr_assert_str_eq(ept_walk_stop_name(EPT_WALK_NOT_PRESENT), "not present");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_5LEVEL, 5), "PML5");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_4LEVEL, 5), "none");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_PAE, 3), "PDPT");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_32BIT, 3), "none");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_32BIT, 2), "PD");
	cr_assert_str_eq(ept_walk_level_name(EPT_WALK_OFF, 0), "none");
	for (unsigned int m = 0; m < EPT_WALK_NMODES; m++)
		cr_assert(*ept_walk_mode_name(m));
	for (unsigned int s = 0; s < EPT_WALK_NSTOPS; s++)
		cr_assert(*ept_walk_stop_name(s));
}
