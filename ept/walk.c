/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.c: the guest's page tables, walked as the CPU does.
 *
 * All modes are one loop over levels; a table below says how they differ, and one function which
 * bits of an entry must be zero. Sections are those of Intel's SDM, volume 3A, chapter "Paging";
 * see walk.h. Three differences between modes are worth saying in words:
 *
 *  - 32-bit paging has 4-byte entries and 4 MB pages, whose address has eight bits more in bits
 *    20:13 of the entry (PSE-36, 4.3): up to 40 bits of physical address, or MAXPHYADDR if less.
 *  - PAE paging loads its four PDPTEs into registers when CR3 is loaded (4.4.1). A walk starts from
 *    those, not from memory: the copy in memory may be newer, and reading a register costs no
 *    memory reference. Where the host does not tell the registers, memory is read in their place.
 *  - In the modes with 8-byte entries the bits between MAXPHYADDR and 51 are reserved; above them
 *    PAE has reserved bits where the others have ignored ones.
 *
 * Bit 8 of entries that point to tables is ignored, as Intel has it (AMD reserves it in some).
 */
#include "ept/walk.h"

#include <errno.h>

#define CR0_PE	   (1ULL << 0)
#define CR0_PG	   (1ULL << 31)
#define CR3_LAM	   (3ULL << 61) /* linear-address masking: no part of the table's address */
#define CR4_PSE	   (1ULL << 4)
#define CR4_PAE	   (1ULL << 5)
#define CR4_PGE	   (1ULL << 7)
#define CR4_LA57   (1ULL << 12)
#define EFER_LME   (1ULL << 8)
#define EFER_LMA   (1ULL << 10)
#define EFER_NXE   (1ULL << 11)
#define PTE_P	   (1ULL << 0)
#define PTE_W	   (1ULL << 1)
#define PTE_U	   (1ULL << 2)
#define PTE_A	   (1ULL << 5)
#define PTE_D	   (1ULL << 6)
#define PTE_PS	   (1ULL << 7)
#define PTE_G	   (1ULL << 8)
#define PTE_XD	   (1ULL << 63)
#define PSE36_LOW  13 /* where bit 32 of the address of a 4 MB page lies in its entry */
#define PSE36_HIGH 21 /* and the first bit above all of them */
#define PSE36_BITS 40 /* of address, at most */

#define PHYS_MIN 32
#define PHYS_MAX 52

struct mode_desc {
	unsigned int top;	  /* level of the first table */
	unsigned int entry_bytes; /* 4 or 8 */
	unsigned int index_bits;  /* of the address, per level */
	unsigned int va_bits;
	bool sign; /* addresses are sign-extended to 64 bits, else zero-extended */
};

static const struct mode_desc modes[EPT_WALK_NMODES] = {
	[EPT_WALK_OFF] = {.va_bits = 32},
	[EPT_WALK_32BIT] = {.top = 2, .entry_bytes = 4, .index_bits = 10, .va_bits = 32},
	[EPT_WALK_PAE] = {.top = 3, .entry_bytes = 8, .index_bits = 9, .va_bits = 32},
	[EPT_WALK_4LEVEL] =
		{.top = 4, .entry_bytes = 8, .index_bits = 9, .va_bits = 48, .sign = true},
	[EPT_WALK_5LEVEL] =
		{.top = 5, .entry_bytes = 8, .index_bits = 9, .va_bits = 57, .sign = true},
};

/* Bits @hi to @lo, both included; none when @hi is below @lo. */
static uint64_t bits(unsigned int hi, unsigned int lo)
{
	return ~0ULL >> (63 - hi) & ~0ULL << lo;
}

static bool long_mode(enum ept_walk_mode mode)
{
	return mode == EPT_WALK_4LEVEL || mode == EPT_WALK_5LEVEL;
}

/* How far to the left a level's index lies: log2 of what one entry covers. */
static unsigned int level_shift(enum ept_walk_mode mode, unsigned int level)
{
	return OB_PAGE_SHIFT + modes[mode].index_bits * (level - 1);
}

/* 4.1.1 and 4.1.2: the mode, or -EINVAL for a state that the CPU refuses. */
static int find_mode(const struct vcpu_paging *r)
{
	bool pg = r->cr0 & CR0_PG, lme = r->efer & EFER_LME;

	if (r->maxphyaddr < PHYS_MIN || r->maxphyaddr > PHYS_MAX)
		return -EINVAL;
	if ((pg && !(r->cr0 & CR0_PE)) || !!(r->efer & EFER_LMA) != (pg && lme))
		return -EINVAL;
	if (!pg)
		return EPT_WALK_OFF;
	if (!(r->cr4 & CR4_PAE))
		return lme ? -EINVAL : EPT_WALK_32BIT;
	if (!lme)
		return EPT_WALK_PAE;
	if (r->cr3 & ~CR3_LAM & bits(63, r->maxphyaddr))
		return -EINVAL;
	return r->cr4 & CR4_LA57 ? EPT_WALK_5LEVEL : EPT_WALK_4LEVEL;
}

/* Where the first table lies (tables 4-3, 4-7 and 4-12): CR3 without what is not its address. */
static uint64_t root_table(const struct vcpu_paging *r, enum ept_walk_mode mode)
{
	if (long_mode(mode))
		return r->cr3 & bits(r->maxphyaddr - 1, OB_PAGE_SHIFT);
	return r->cr3 & bits(31, mode == EPT_WALK_PAE ? 5 : OB_PAGE_SHIFT);
}

static bool canonical(enum ept_walk_mode mode, uint64_t va)
{
	const struct mode_desc *m = &modes[mode];
	uint64_t high = bits(63, m->sign ? m->va_bits - 1 : m->va_bits);

	return !(va & high) || (m->sign && (va & high) == high);
}

/* Does this entry map a page? One in which PS is reserved does not. */
static bool maps_page(const struct vcpu_paging *r, enum ept_walk_mode mode, unsigned int level,
		      uint64_t value)
{
	if (level == 1)
		return true;
	if (!(value & PTE_PS))
		return false;
	if (level == 2)
		return mode != EPT_WALK_32BIT || r->cr4 & CR4_PSE;
	return level == 3 && long_mode(mode) && r->has_1g;
}

/* Which bits of a present entry must be zero: tables 4-4 to 4-6, 4-8 to 4-11 and 4-14 to 4-20. */
static uint64_t reserved_bits(const struct vcpu_paging *r, enum ept_walk_mode mode,
			      unsigned int level, bool page)
{
	uint64_t v;

	if (mode == EPT_WALK_32BIT) {
		unsigned int phys = OB_MIN(r->maxphyaddr, (unsigned int)PSE36_BITS);

		return level == 2 && page ? bits(PSE36_HIGH, PSE36_LOW + phys - 32) : 0;
	}
	if (mode == EPT_WALK_PAE && level == 3)
		return bits(63, r->maxphyaddr) | bits(8, 5) | bits(2, 1);
	v = bits(mode == EPT_WALK_PAE ? 62 : 51, r->maxphyaddr);
	if (!(r->efer & EFER_NXE))
		v |= PTE_XD;
	if (page && level > 1) /* the address of the page is that much shorter; bit 12 is PAT */
		v |= bits(level_shift(mode, level) - 1, OB_PAGE_SHIFT + 1);
	if (!page && level > 2) /* a PDE with PS = 1 is a page always, so this is no concern */
		v |= PTE_PS;
	return v;
}

/* The address in an entry: of the next table, or of the page. */
static uint64_t target(const struct vcpu_paging *r, enum ept_walk_mode mode, unsigned int level,
		       bool page, uint64_t value)
{
	uint64_t a =
		value & bits(r->maxphyaddr - 1, page ? level_shift(mode, level) : OB_PAGE_SHIFT);

	if (mode == EPT_WALK_32BIT && level == 2 && page)
		a |= (value & bits(PSE36_HIGH - 1, PSE36_LOW)) << (32 - PSE36_LOW);
	return a;
}

/* Add @value's flags to the rights from the levels above. */
static void note_flags(const struct vcpu_paging *r, enum ept_walk_mode mode, bool page,
		       struct ept_walk_entry *en, struct ept_walk *w)
{
	bool pdpte = mode == EPT_WALK_PAE && en->level == 3; /* has none of them: table 4-8 */

	if (!pdpte) {
		w->writable = w->writable && en->value & PTE_W;
		w->user = w->user && en->value & PTE_U;
		w->nx = w->nx || en->value & PTE_XD; /* reserved without NXE: not seen here */
		en->accessed = en->value & PTE_A;
		w->accessed = w->accessed && en->accessed;
	}
	en->writable = w->writable;
	en->user = w->user;
	en->nx = w->nx;
	if (page) {
		en->dirty = en->value & PTE_D;
		en->global = r->cr4 & CR4_PGE && en->value & PTE_G;
	}
}

/* No page here: forget what would describe one. */
static int stopped(struct ept_walk *w, enum ept_walk_stop stop, gpa_t at)
{
	w->stop = stop;
	w->stop_at = at;
	w->writable = w->user = w->nx = w->accessed = false;
	return -EFAULT;
}

static int read_entry(const struct vcpu_paging *r, const struct ept_walk_mem *mem,
		      enum ept_walk_mode mode, struct ept_walk_entry *en, unsigned int index)
{
	int rc;

	if (mode == EPT_WALK_PAE && en->level == 3) {
		en->in_register = true;
		if (r->has_pdpte) {
			en->value = r->pdpte[index];
			return 0;
		}
	}
	rc = mem->read(mem->arg, en->at, modes[mode].entry_bytes, &en->value);
	if (modes[mode].entry_bytes == 4)
		en->value &= UINT32_MAX;
	return rc;
}

int ept_walk(const struct vcpu_paging *regs, const struct ept_walk_mem *mem, gva_t gva,
	     struct ept_walk *out)
{
	int found = find_mode(regs), rc;
	struct ept_walk_entry *en;
	const struct mode_desc *m;
	enum ept_walk_mode mode;
	uint64_t table;

	*out = (struct ept_walk){.gva = gva};
	if (found < 0)
		return found;
	mode = out->mode = (enum ept_walk_mode)found;
	m = &modes[mode];
	out->level = m->top;
	if (!canonical(mode, gva.v))
		return stopped(out, EPT_WALK_NONCANONICAL, gpa(0));
	out->writable = out->user = true;
	if (mode == EPT_WALK_OFF) {
		out->gpa = gpa(gva.v);
		out->stop = EPT_WALK_DONE;
		return 0;
	}
	out->accessed = true;
	table = root_table(regs, mode);
	for (unsigned int level = m->top; level; level--) {
		unsigned int shift = level_shift(mode, level);
		unsigned int index = (unsigned int)(gva.v >> shift & bits(m->index_bits - 1, 0));
		bool page;

		out->level = level;
		en = &out->entry[out->n];
		*en = (struct ept_walk_entry){
			.level = level,
			.at = gpa(table + (uint64_t)index * m->entry_bytes),
			.writable = out->writable,
			.user = out->user,
			.nx = out->nx,
		};
		rc = read_entry(regs, mem, mode, en, index);
		if (rc == -EFAULT)
			return stopped(out, EPT_WALK_OUTSIDE, en->at);
		if (rc)
			return rc;
		out->n++;
		if (!(en->value & PTE_P))
			return stopped(out, EPT_WALK_NOT_PRESENT, en->at);
		page = maps_page(regs, mode, level, en->value);
		if (en->value & reserved_bits(regs, mode, level, page))
			return stopped(out, EPT_WALK_RESERVED, en->at);
		note_flags(regs, mode, page, en, out);
		table = target(regs, mode, level, page, en->value);
		if (page)
			break;
	}
	en = &out->entry[out->n - 1];
	out->page_size = 1ULL << level_shift(mode, en->level);
	out->gpa = gpa(table | (gva.v & (out->page_size - 1)));
	out->dirty = en->dirty;
	out->global = en->global;
	out->stop = EPT_WALK_DONE;
	return 0;
}

const char *ept_walk_mode_name(enum ept_walk_mode mode)
{
	static const char *const name[] = {
		[EPT_WALK_OFF] = "paging off", [EPT_WALK_32BIT] = "32-bit",
		[EPT_WALK_PAE] = "PAE",	       [EPT_WALK_4LEVEL] = "4-level",
		[EPT_WALK_5LEVEL] = "5-level",
	};

	OB_ASSERT((unsigned int)mode < EPT_WALK_NMODES);
	return name[mode];
}

const char *ept_walk_stop_name(enum ept_walk_stop stop)
{
	static const char *const name[] = {
		[EPT_WALK_UNFINISHED] = "not finished",	   [EPT_WALK_DONE] = "done",
		[EPT_WALK_NONCANONICAL] = "non-canonical", [EPT_WALK_NOT_PRESENT] = "not present",
		[EPT_WALK_RESERVED] = "reserved bit set",  [EPT_WALK_OUTSIDE] = "table outside RAM",
	};

	OB_ASSERT((unsigned int)stop < EPT_WALK_NSTOPS);
	return name[stop];
}

const char *ept_walk_level_name(enum ept_walk_mode mode, unsigned int level)
{
	static const char *const name[] = {"none", "PT", "PD", "PDPT", "PML4", "PML5"};

	OB_ASSERT((unsigned int)mode < EPT_WALK_NMODES);
	return level <= modes[mode].top ? name[level] : name[0];
}

int ept_walk_read_gmem(void *arg, gpa_t at, unsigned int bytes, uint64_t *value)
{
	struct gmem_access acc;
	int rc = gmem_access_begin(arg, at, bytes, false, &acc);

	if (rc)
		return rc;
	/* One load: a guest that runs may be writing this entry. */
	if (bytes == 8)
		*value = __atomic_load_n((const uint64_t *)acc.ptr, __ATOMIC_RELAXED);
	else
		*value = __atomic_load_n((const uint32_t *)acc.ptr, __ATOMIC_RELAXED);
	gmem_access_end(arg, &acc);
	return 0;
}
