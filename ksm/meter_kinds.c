/* SPDX-License-Identifier: Apache-2.0 */
/*
 * meter_kinds.c: what is saved, by what the pages are to their guests.
 *
 * Pages on one frame may be of different kinds: what one guest has in its page cache lies in a free
 * page of another. So no kind has a frame for itself, and each page gets its part, in two passes: what
 * a frame saves is known when all of its pages have been met. To have the parts add up to the byte,
 * they are counted in units (meter.h), of which a frame's first page takes what does not divide.
 */
#include "ksm/meter.h"

#define BYTES_OF(units) ((units) / (METER_UNITS / OB_PAGE_SIZE))

struct count {
	struct meter_table t;
	uint32_t *vms; /* [t.slots]: VMs that have pages of the frame */
};

static unsigned int kind_of(const struct ksm_meter_vm *vm, uint64_t page, unsigned int nkinds)
{
	/* It is written meanwhile, as the guest says. */
	unsigned int k = vm->kinds ? __atomic_load_n(&vm->kinds[page], __ATOMIC_RELAXED) : 0;

	return k < nkinds ? k : 0;
}

static void meet(struct count *c, const struct ksm_meter_vm *vm, unsigned int v)
{
	for (uint64_t i = 0; i < vm->pages; i++) {
		struct meter_seen *s;

		if (vm->words[i] <= KSM_METER_ZERO)
			continue;
		s = meter_table_get(&c->t, vm->words[i]);
		s->pages++;
		if (s->last_vm != v + 1)
			c->vms[s - c->t.at]++;
		s->last_vm = v + 1;
	}
}

/* In units; @n is what the frame saves. */
static uint64_t part(uint64_t n, const struct meter_seen *s, bool first)
{
	uint64_t units = n * METER_UNITS;

	return units / s->pages + (first ? units % s->pages : 0);
}

static void credit(struct count *c, const struct ksm_meter_vm *vm, unsigned int nkinds,
		   struct ksm_meter_kind *kind)
{
	for (uint64_t i = 0; i < vm->pages; i++) {
		struct ksm_meter_kind *k = &kind[kind_of(vm, i, nkinds)];
		uint64_t w = vm->words[i], vms;
		struct meter_seen *s;

		k->touched += w == KSM_METER_UNTOUCHED ? 0 : OB_PAGE_SIZE;
		k->zero += w == KSM_METER_ZERO ? OB_PAGE_SIZE : 0;
		if (w <= KSM_METER_ZERO)
			continue;
		s = meter_table_get(&c->t, w);
		vms = c->vms[s - c->t.at];
		k->intra += part(s->pages - vms, s, s->last_vm);
		k->inter += part(vms - 1, s, s->last_vm);
		s->last_vm = 0; /* its first page was met */
	}
}

/* From units to bytes, in one running sum: nothing is lost by rounding. */
static void round_off(struct ksm_meter_kind *kind, unsigned int nkinds)
{
	uint64_t intra = 0, inter = 0;

	for (unsigned int k = 0; k < nkinds; k++) {
		uint64_t to_intra = intra + kind[k].intra, to_inter = inter + kind[k].inter;

		kind[k].intra = BYTES_OF(to_intra) - BYTES_OF(intra);
		kind[k].inter = BYTES_OF(to_inter) - BYTES_OF(inter);
		intra = to_intra;
		inter = to_inter;
	}
}

int ksm_meter_kinds(const struct ksm_meter_vm *vm, unsigned int nvms, unsigned int nkinds,
		    struct ksm_meter_kind *kind)
{
	struct count c = {0};
	uint64_t pages = 0;
	int r;

	for (unsigned int k = 0; k < nkinds; k++)
		kind[k] = (struct ksm_meter_kind){0};
	for (unsigned int v = 0; v < nvms; v++) {
		pages += vm[v].pages;
		for (uint64_t i = 0; i < vm[v].pages; i++)
			if (!meter_word_valid(vm[v].words[i]))
				return -EINVAL;
	}
	/* The sums are in 64 bits. */
	if (pages >= METER_UNITS)
		return -EINVAL;
	r = meter_table_init(&c.t, pages);
	if (r)
		return r;
	c.vms = calloc(c.t.slots, sizeof(*c.vms));
	if (!c.vms) {
		free(c.t.at);
		return -ENOMEM;
	}
	for (unsigned int v = 0; v < nvms; v++)
		meet(&c, &vm[v], v);
	for (unsigned int v = 0; v < nvms; v++)
		credit(&c, &vm[v], nkinds, kind);
	round_off(kind, nkinds);
	free(c.vms);
	free(c.t.at);
	return 0;
}
