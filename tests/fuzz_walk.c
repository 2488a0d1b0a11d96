/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_walk.c: libFuzzer target: any bytes as registers and page tables. Whatever they are, a walk
 * ends after at most as many entries as its mode has levels, reads aligned entries below the end of
 * physical memory only, and what it says of itself agrees.
 *
 * RAM is what follows the registers, and every address leads into it but those with bit 32 set: so
 * that random entries lead somewhere.
 */
#include <errno.h>
#include <string.h>

#include "ept/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct head {
	uint32_t cr0, cr4, efer;
	uint8_t maxphyaddr, flags;
	uint64_t cr3, gva, pdpte[4];
} __attribute__((packed));

struct ram {
	const struct vcpu_paging *regs;
	const uint8_t *data;
	size_t len;
	unsigned int reads;
};

static int read_ram(void *arg, gpa_t at, unsigned int bytes, uint64_t *value)
{
	struct ram *m = arg;

	OB_ASSERT(bytes == 4 || bytes == 8);
	OB_ASSERT(at.v % bytes == 0 && at.v >> m->regs->maxphyaddr == 0);
	OB_ASSERT(++m->reads <= EPT_WALK_LEVELS);
	if (at.v & 1ULL << 32)
		return -EFAULT;
	*value = 0;
	for (unsigned int i = 0; i < bytes && m->len; i++)
		*value |= (uint64_t)m->data[(at.v + i) % m->len] << 8 * i;
	return 0;
}

static void check_entries(const struct ept_walk *w)
{
	bool writable = true, user = true, nx = false;

	for (unsigned int i = 0; i < w->n; i++) {
		const struct ept_walk_entry *en = &w->entry[i];

		OB_ASSERT(*ept_walk_level_name(w->mode, en->level) == 'P');
		OB_ASSERT(i == 0 || en->level == w->entry[i - 1].level - 1);
		/* Rights are only ever lost on the way down. */
		OB_ASSERT(writable >= en->writable && user >= en->user && nx <= en->nx);
		OB_ASSERT(i == w->n - 1 || en->value & 1);
		writable = en->writable;
		user = en->user;
		nx = en->nx;
	}
	if (w->stop == EPT_WALK_DONE)
		OB_ASSERT(w->writable == writable && w->user == user && w->nx == nx);
}

static void check_page(const struct ept_walk *w, const struct vcpu_paging *regs)
{
	struct ept_walk_cost c;

	OB_ASSERT(w->gpa.v >> regs->maxphyaddr == 0);
	if (w->mode == EPT_WALK_OFF) {
		OB_ASSERT(!w->n && !w->page_size && w->gpa.v == w->gva.v);
	} else {
		OB_ASSERT(w->page_size == OB_PAGE_SIZE || w->page_size == 2 * OB_MIB ||
			  w->page_size == 4 * OB_MIB || w->page_size == OB_GIB);
		OB_ASSERT(w->gpa.v % w->page_size == w->gva.v % w->page_size);
		OB_ASSERT(w->entry[w->n - 1].value & 1 && w->entry[w->n - 1].level == w->level);
	}
	OB_ASSERT(!ept_walk_cost(w, 4, OB_PAGE_SIZE, &c));
	OB_ASSERT(c.native <= w->n && c.nested == 5 * c.native + 4 && c.shadow >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct vcpu_paging regs;
	struct ram m = {.regs = &regs};
	const struct ept_walk_mem mem = {.read = read_ram, .arg = &m};
	struct head h;
	struct ept_walk w;
	int rc;

	if (len < sizeof(h))
		return 0;
	memcpy(&h, data, sizeof(h));
	m.data = data + sizeof(h);
	m.len = len - sizeof(h);
	regs = (struct vcpu_paging){
		.cr0 = h.cr0,
		.cr3 = h.cr3,
		.cr4 = h.cr4,
		.efer = h.efer,
		.maxphyaddr = h.maxphyaddr,
		.has_1g = h.flags & 1,
		.has_pdpte = h.flags & 2,
	};
	memcpy(regs.pdpte, h.pdpte, sizeof(regs.pdpte));
	rc = ept_walk(&regs, &mem, (gva_t){h.gva}, &w);
	OB_ASSERT(rc == 0 || rc == -EFAULT || rc == -EINVAL);
	OB_ASSERT((rc == 0) == (w.stop == EPT_WALK_DONE));
	OB_ASSERT((rc == -EINVAL) == (w.stop == EPT_WALK_UNFINISHED));
	OB_ASSERT(w.gva.v == h.gva && w.n <= EPT_WALK_LEVELS);
	OB_ASSERT(w.stop != EPT_WALK_NONCANONICAL || !m.reads);
	if (rc == -EINVAL)
		OB_ASSERT(!w.n && !m.reads);
	check_entries(&w);
	if (!rc)
		check_page(&w, &regs);
	return 0;
}
