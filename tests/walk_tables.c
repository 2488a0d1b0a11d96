/* SPDX-License-Identifier: Apache-2.0 */
/* walk_tables.c: see walk_tables.h. */
#include <stdlib.h>
#include <string.h>

#include "tests/walk_tables.h"

uint64_t wt_rand(struct wt *t)
{
	uint64_t z = (t->rng += 0x9e3779b97f4a7c15ULL); /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

uint64_t wt_below(struct wt *t, uint64_t n)
{
	return wt_rand(t) % n;
}

static bool chance(struct wt *t, unsigned int percent)
{
	return wt_below(t, 100) < percent;
}

void wt_random_regs(struct wt *t, enum ept_walk_mode mode)
{
	static const unsigned int phys[] = {32, 36, 39, 40, 46, 48, 52};
	struct vcpu_paging *r = &t->regs;
	bool lme = mode == EPT_WALK_4LEVEL || mode == EPT_WALK_5LEVEL;

	t->mode = mode;
	*r = (struct vcpu_paging){
		.cr0 = 0x11 | (wt_rand(t) & 0x10000), /* PE, ET, and WP or not */
		.cr4 = wt_rand(t) & 0x90,	      /* PSE and PGE, or not */
		.efer = wt_rand(t) & 0x801,	      /* NXE and SCE, or not */
		.maxphyaddr = phys[wt_below(t, OB_ARRAY_SIZE(phys))],
		.has_1g = chance(t, 70),
	};
	if (mode != EPT_WALK_OFF)
		r->cr0 |= 0x80000000;
	if (mode == EPT_WALK_PAE || lme)
		r->cr4 |= 0x20;
	if (mode == EPT_WALK_5LEVEL)
		r->cr4 |= 0x1000;
	if (lme)
		r->efer |= 0x500;
}

/* --- formats -------------------------------------------------------------------------------- */

/* From the highest bit down; a letter may have a count. */
static const char *format(const struct wt *t, unsigned int level, bool page)
{
	if (t->mode == EPT_WALK_32BIT) {
		if (level == 1)
			return "@20 i3 G K D A C T U W P";
		return page ? "@10 r1 h8 K i3 G S D A C T U W P" : "@20 i3 i s i A C T U W P";
	}
	if (t->mode == EPT_WALK_PAE) {
		if (level == 3)
			return "r12 @40 i3 r4 C T r2 P";
		if (level == 1)
			return "X r11 @40 i3 G K D A C T U W P";
		return page ? "X r11 @31 r8 K i3 G S D A C T U W P"
			    : "X r11 @40 i3 i s i A C T U W P";
	}
	if (level >= 4)
		return "X i11 @40 i3 j r i A C T U W P";
	if (level == 1)
		return "X i11 @40 i3 G K D A C T U W P";
	if (!page)
		return "X i11 @40 i3 j s i A C T U W P";
	return level == 3 ? "X i11 @22 r17 K i3 G S D A C T U W P"
			  : "X i11 @31 r8 K i3 G S D A C T U W P";
}

bool wt_may_map(const struct wt *t, unsigned int level)
{
	if (level == 2)
		return t->mode != EPT_WALK_32BIT || t->regs.cr4 & 0x10;
	if (level == 3)
		return wt_top(t->mode) > 3 && t->regs.has_1g;
	return level == 1;
}

char wt_bit(const struct wt *t, unsigned int level, bool page, unsigned int bit)
{
	unsigned int at = wt_entry_bytes(t->mode) * 8;
	const char *f = format(t, level, page);
	char c = 0, *end;

	if (bit >= at)
		return 0;
	while (at > bit) {
		unsigned long run;

		c = *f;
		run = strtoul(f + 1, &end, 10);
		at -= end == f + 1 ? 1 : (unsigned int)run; /* no count: one */
		f = end + (*end == ' ');
	}
	if (c == '@' && bit >= t->regs.maxphyaddr)
		return 'r';
	if (c == 'h' && bit - 13 + 32 >= t->regs.maxphyaddr)
		return 'r';
	if (c == 'X' && !(t->regs.efer & 0x800))
		return 'r';
	if (c == 's' && !wt_may_map(t, level)) /* PS where no page can be */
		return t->mode == EPT_WALK_32BIT ? 'i' : 'r';
	return c;
}

unsigned int wt_top(enum ept_walk_mode mode)
{
	return (const unsigned int[]){0, 2, 3, 4, 5}[mode];
}

unsigned int wt_entry_bytes(enum ept_walk_mode mode)
{
	return mode == EPT_WALK_32BIT ? 4 : 8;
}

uint64_t wt_span(enum ept_walk_mode mode, unsigned int level)
{
	uint64_t span = OB_PAGE_SIZE;

	while (--level)
		span *= OB_PAGE_SIZE / wt_entry_bytes(mode);
	return span;
}

/* How many addresses there are: half of them at the bottom, half at the top, in the long modes. */
static uint64_t addresses(enum ept_walk_mode mode)
{
	return mode == EPT_WALK_5LEVEL	 ? 1ULL << 57
	       : mode == EPT_WALK_4LEVEL ? 1ULL << 48
					 : 1ULL << 32;
}

bool wt_canonical(enum ept_walk_mode mode, uint64_t va)
{
	uint64_t n = addresses(mode);

	if (wt_top(mode) < 4)
		return va < n;
	return va < n / 2 || va >= -(n / 2);
}

/* --- building ------------------------------------------------------------------------------- */

static const struct wt_claim *find(const struct wt *t, unsigned int level, uint64_t va)
{
	for (unsigned int i = 0; i < t->n; i++)
		if (t->claim[i].level == level && va - t->claim[i].base < t->claim[i].span)
			return &t->claim[i];
	return NULL;
}

/* Where the entry for @va lies in the table of @level that starts at @table. */
static uint64_t entry_at(const struct wt *t, unsigned int level, uint64_t table, uint64_t va)
{
	unsigned int bytes = wt_entry_bytes(t->mode);

	return table + va / wt_span(t->mode, level) % (OB_PAGE_SIZE / bytes) * bytes;
}

/* Above what no address in an entry of this kind can be. */
static uint64_t target_limit(const struct wt *t, unsigned int level, bool page)
{
	unsigned int phys = t->regs.maxphyaddr;

	if (t->mode == EPT_WALK_32BIT)
		phys = level == 2 && page ? OB_MIN(phys, t->as_kvm ? 36u : 40u) : 32;
	return 1ULL << phys;
}

static uint64_t entry_value(struct wt *t, const struct wt_claim *c, bool page)
{
	const char set[] = {'P',
			    'S',
			    c->w ? 'W' : '-',
			    c->u ? 'U' : '-',
			    c->nx ? 'X' : '-',
			    c->a ? 'A' : '-',
			    c->d ? 'D' : '-',
			    c->g ? 'G' : '-',
			    0};
	uint64_t v = 0;

	for (unsigned int b = 0; b < wt_entry_bytes(t->mode) * 8; b++) {
		char kind = wt_bit(t, c->level, page, b);
		bool on = strchr(set, kind);

		if (strchr("KCTi", kind) || (kind == 'j' && !t->as_kvm))
			on = chance(t, 50);
		else if (kind == '@')
			on = c->target >> b & 1;
		else if (kind == 'h')
			on = c->target >> (b - 13 + 32) & 1;
		v |= (uint64_t)on << b;
	}
	return v;
}

/* A bit that this entry must not have set; 64 when there is none. */
static unsigned int reserved_bit(struct wt *t, unsigned int level, bool page)
{
	unsigned int bit[64], n = 0;

	for (unsigned int b = 0; b < 64; b++)
		if (wt_bit(t, level, page, b) == 'r')
			bit[n++] = b;
	return n ? bit[wt_below(t, n)] : 64;
}

static struct wt_claim *new_claim(struct wt *t, unsigned int level, uint64_t table, uint64_t va,
				  bool page, bool bad)
{
	struct wt_claim *c = &t->claim[t->n];
	unsigned int rsvd = reserved_bit(t, level, page);
	bool pdpte = t->mode == EPT_WALK_PAE && level == 3;
	uint64_t limit = target_limit(t, level, page);

	OB_ASSERT(t->n < WT_MAX_CLAIMS);
	t->n++;
	*c = (struct wt_claim){
		.level = level,
		.span = wt_span(t->mode, level),
		.at = entry_at(t, level, table, va),
		.kind = page ? WT_PAGE : WT_TABLE,
		.w = chance(t, 70) || pdpte,
		.u = chance(t, 70) || pdpte,
		.nx = chance(t, 20) && wt_bit(t, level, page, 63) == 'X',
		.a = chance(t, 70) || pdpte,
		.d = page && chance(t, 50),
		.g = page && chance(t, 50),
	};
	c->base = va - va % c->span;
	if (bad) {
		static const enum wt_kind ways[] = {WT_ABSENT, WT_BROKEN, WT_LOST};

		c->kind = ways[wt_below(t, page ? 2 : 3)];
		if (c->kind == WT_BROKEN && (rsvd == 64 || (pdpte && t->as_kvm)))
			c->kind = WT_ABSENT;
	}
	if (c->kind == WT_LOST)
		c->target = t->ram.hole(t->ram.arg, limit);
	else if (c->kind == WT_TABLE)
		c->target = t->ram.page(t->ram.arg, limit);
	else
		c->target = wt_below(t, limit / (page ? c->span : OB_PAGE_SIZE)) *
			    (page ? c->span : OB_PAGE_SIZE);
	c->value = entry_value(t, c, page);
	if (c->kind == WT_BROKEN)
		c->value |= 1ULL << rsvd;
	if (c->kind == WT_ABSENT) /* all of it is ignored */
		c->value = wt_rand(t) & ~1ULL & (wt_entry_bytes(t->mode) == 4 ? UINT32_MAX : ~0ULL);
	t->ram.put(t->ram.arg, c->at, wt_entry_bytes(t->mode), c->value);
	return c;
}

/* The address of the first table, from CR3. */
static uint64_t root(const struct wt *t)
{
	if (wt_top(t->mode) > 3)
		return t->regs.cr3 & ~4095ULL & ((1ULL << t->regs.maxphyaddr) - 1);
	return (uint32_t)t->regs.cr3 & (t->mode == EPT_WALK_PAE ? ~31u : ~4095u);
}

void wt_begin(struct wt *t)
{
	bool is_long = wt_top(t->mode) > 3;

	t->n = 0;
	t->regs.cr3 = t->ram.page(t->ram.arg, is_long ? 1ULL << t->regs.maxphyaddr : 1ULL << 32);
	if (t->mode == EPT_WALK_PAE)
		t->regs.cr3 += 32 * wt_below(t, OB_PAGE_SIZE / 32);
	if (t->as_kvm)
		return;
	/* What is no part of the address: PWT and PCD, a PCID, LAM; above 32 bits, anything. */
	t->regs.cr3 |= wt_rand(t) & (is_long ? 0xfff | 3ULL << 61 : 0x18);
	if (!is_long)
		t->regs.cr3 |= wt_rand(t) << 32;
}

void wt_map(struct wt *t, uint64_t va, unsigned int leaf, unsigned int bad)
{
	uint64_t table = root(t);

	for (unsigned int level = wt_top(t->mode); level >= leaf; level--) {
		const struct wt_claim *c = find(t, level, va);

		if (!c)
			c = new_claim(t, level, table, va, level == leaf, bad && !wt_below(t, bad));
		if (c->kind != WT_TABLE)
			return;
		table = c->target;
	}
}

static uint64_t random_canonical(struct wt *t)
{
	uint64_t n = addresses(t->mode), va = wt_below(t, n);

	return wt_top(t->mode) > 3 ? va - n / 2 : va;
}

/* An address in or next to something that is there already, more often than not a page. */
static uint64_t close_by(struct wt *t)
{
	const struct wt_claim *c = &t->claim[wt_below(t, t->n)];

	while (c->kind != WT_PAGE && chance(t, 60))
		c = &t->claim[wt_below(t, t->n)];
	switch (wt_below(t, 8)) {
	case 0:
		return c->base;
	case 1:
		return c->base + c->span - 1;
	case 2:
		return c->base - 1;
	case 3:
		return c->base + c->span;
	default:
		return c->base + wt_below(t, c->span);
	}
}

void wt_fill(struct wt *t, unsigned int n, unsigned int bad)
{
	for (unsigned int i = 0; i < n; i++) {
		unsigned int leaf = 1 + (unsigned int)wt_below(t, 3);
		uint64_t va = t->n && chance(t, 80) ? close_by(t) : random_canonical(t);

		if (wt_canonical(t->mode, va))
			wt_map(t, va, wt_may_map(t, leaf) ? leaf : 1, bad);
	}
}

/* --- asking --------------------------------------------------------------------------------- */

uint64_t wt_some_gva(struct wt *t)
{
	uint64_t kind = wt_below(t, 20);

	if (!t->n || kind > 17)
		return random_canonical(t);
	if (kind == 17)
		return wt_rand(t); /* hardly ever an address of any mode */
	/* Where something is, if one goes by the low bits only. */
	return close_by(t) ^ (kind == 16 ? 1ULL << 63 : 0);
}

void wt_expect(const struct wt *t, uint64_t va, struct wt_answer *out)
{
	uint64_t table = root(t);

	*out = (struct wt_answer){.w = true, .u = true, .a = true};
	out->level = wt_top(t->mode);
	if (!wt_canonical(t->mode, va)) {
		out->stop = EPT_WALK_NONCANONICAL;
		return;
	}
	for (;; out->level--) {
		const struct wt_claim *c = find(t, out->level, va);
		struct wt_step *s = &out->step[out->n++];

		*s = (struct wt_step){.level = out->level, .w = out->w, .u = out->u, .nx = out->nx};
		s->at = out->stop_at = entry_at(t, out->level, table, va);
		s->value = c ? c->value : 0;
		OB_ASSERT(!c || c->at == s->at);
		out->stop = !c || c->kind == WT_ABSENT ? EPT_WALK_NOT_PRESENT
			    : c->kind == WT_BROKEN     ? EPT_WALK_RESERVED
						       : EPT_WALK_DONE;
		if (out->stop != EPT_WALK_DONE)
			return;
		s->w = out->w &= c->w;
		s->u = out->u &= c->u;
		s->nx = out->nx |= c->nx;
		out->a &= c->a;
		table = c->target;
		if (c->kind == WT_LOST) {
			out->stop = EPT_WALK_OUTSIDE;
			out->level--;
			out->stop_at = entry_at(t, out->level, table, va);
			return;
		}
		if (c->kind != WT_PAGE)
			continue;
		out->stop_at = 0;
		out->page_size = c->span;
		out->gpa = c->target + (va - c->base);
		out->d = c->d;
		out->g = c->g && t->regs.cr4 & 0x80;
		return;
	}
}
