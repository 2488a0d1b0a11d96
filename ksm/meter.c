/* SPDX-License-Identifier: Apache-2.0 */
/*
 * meter.c: what sharing saves, measured the same way whoever shares.
 *
 * Each guest page is described by one word: which host frame backs it. Two words are equal exactly
 * when the pages are the same memory. So the meter needs to know nothing of how pages came to be
 * shared: it counts, for each frame, its pages s and the VMs v that they are in. Without sharing
 * these pages would hold s frames; they hold one. Of the s - 1 saved, v - 1 are saved across VMs
 * and s - v within one. Pages that the kernel's zero page backs, or that were dropped, are counted
 * apart.
 *
 * A page that shares a frame of our pool is named by that frame, and everything else by its host
 * frame. A pool frame has one host frame at any moment, but not for ever: the kernel migrates
 * pages, and a page that was not touched since it was merged is not in our page tables at all. That
 * such pages really are on their frame's host frame is checked apart, at one moment for both (the
 * cell's check_frames), and by the kernel's own account of resident memory. Where the kernel tells
 * no host frames (no CAP_SYS_ADMIN), pool frames alone still name all that we share.
 *
 * The count is one pass over the words and one hash table of frames. VMs come one after another, so
 * "which VM had this frame last" is enough: the first page of a frame saves nothing, one in another
 * VM than the page before saves across, one in the same VM saves within. That is all that an entry
 * has to remember, and 16 bytes are enough for it; most of what a count costs is the memory of this
 * table.
 *
 * Each VM's part takes a second pass, as the s-th part of a frame can only be charged when s is
 * known. A VM with p of its s pages is charged p/s of the frame and saves p - p/s: of that p - 1
 * are copies that it holds itself, and 1 - p/s is owed to others. Over the VMs these add up to s - v
 * and v - 1. To have it add up to the byte, a frame is cut in 2^32 units, of which its very first page
 * takes what does not divide, and units become bytes in one running sum over all VMs.
 */
#include <errno.h>
#include <stdlib.h>

#include "ksm/meter.h"

#define CHUNK 512
#define UNITS METER_UNITS

static uint64_t page_word(const struct ob_page *p, enum ept_state state, uint64_t frame,
			  uint64_t fleet_page)
{
	bool shared = state == EPT_SHARED && !ob_page_own(p);

	if (p->present && p->zero)
		return KSM_METER_ZERO;
	if (shared)
		return KSM_METER_FRAME | frame;
	if (p->present && p->pfn)
		return KSM_METER_PFN | p->pfn;
	if (p->present || p->swapped)
		return KSM_METER_OWN | fleet_page;
	switch (state) {
	case EPT_UNTOUCHED:
	case EPT_BALLOONED: /* given back: nobody has it */
		return KSM_METER_UNTOUCHED;
	case EPT_ZERO:
		return KSM_METER_ZERO;
	default:
		/* Private, and gone from the page tables for a moment: migrating, for example. */
		return KSM_METER_OWN | fleet_page;
	}
}

int ksm_meter_guest(struct ept *e, uint64_t page_base, uint64_t frame_base, uint64_t *words)
{
	return ksm_meter_pages(e, page_base, frame_base, 0, e->pages, words);
}

int ksm_meter_pages(struct ept *e, uint64_t page_base, uint64_t frame_base, uint64_t first,
		    uint64_t npages, uint64_t *words)
{
	struct ob_page view[CHUNK];
	uint32_t frame[CHUNK];
	uint8_t state[CHUNK];

	for (uint64_t page = first, n; page < first + npages; page += n) {
		int r;

		n = OB_MIN(CHUNK, first + npages - page);
		r = ept_sync(e, page, n, view);
		if (r)
			return r;
		/* The scanner may have merged some since: then the word is right for before. */
		ept_states(e, page, n, state, frame);
		for (uint64_t i = 0; i < n; i++)
			words[page - first + i] = page_word(
				&view[i], state[i], frame_base + frame[i], page_base + page + i);
	}
	return 0;
}

/* One more page of frame @s, in VM @v: what it adds to the count. */
static void count_page(struct ksm_meter_result *out, struct meter_seen *s, unsigned int v)
{
	s->pages++;
	if (!s->last_vm) {
		s->last_vm = v + 1;
		out->frames++;
		out->pool_frames += KSM_METER_KIND(s->key) == KSM_METER_KIND(KSM_METER_FRAME);
		return;
	}
	out->shared_pages += s->pages == 2 ? 2 : 1;
	if (s->last_vm == v + 1) {
		out->intra++;
	} else {
		s->last_vm = v + 1;
		out->inter++;
	}
}

/* The second pass over one VM: it is the @turn-th, counted on from those of the first pass. Returns
 * the units that it is charged. */
static uint64_t charge_vm(struct meter_table *t, const struct ksm_meter_vm *vm, uint32_t nvms,
			  uint32_t turn, struct ksm_meter_share *out)
{
	uint64_t units = 0;

	for (uint64_t i = 0; i < vm->pages; i++) {
		uint64_t w = vm->words[i];
		struct meter_seen *s;

		out->touched += w == KSM_METER_UNTOUCHED ? 0 : OB_PAGE_SIZE;
		out->zero += w == KSM_METER_ZERO ? OB_PAGE_SIZE : 0;
		if (w <= KSM_METER_ZERO)
			continue;
		s = meter_table_get(t, w);
		units += UNITS / s->pages;
		if (s->last_vm <= nvms)
			units += UNITS % s->pages;
		out->intra += s->last_vm == turn ? OB_PAGE_SIZE : 0;
		s->last_vm = turn;
	}
	return units;
}

static void charge(struct meter_table *t, const struct ksm_meter_vm *vm, unsigned int nvms,
		   struct ksm_meter_share *share)
{
	uint64_t sum = 0, bytes = 0;

	for (unsigned int v = 0; v < nvms; v++) {
		struct ksm_meter_share *out = &share[v];

		*out = (struct ksm_meter_share){0};
		sum += charge_vm(t, &vm[v], nvms, nvms + v + 1, out);
		out->resident = sum / (UNITS / OB_PAGE_SIZE) - bytes;
		bytes += out->resident;
		out->inter = out->touched - out->resident - out->zero - out->intra;
	}
}

int ksm_meter_shares(const struct ksm_meter_vm *vm, unsigned int nvms, struct ksm_meter_result *out,
		     struct ksm_meter_share *share)
{
	struct meter_table t;
	uint64_t pages = 0;
	int r;

	*out = (struct ksm_meter_result){0};
	for (unsigned int v = 0; v < nvms; v++) {
		pages += vm[v].pages;
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			if (!meter_word_valid(vm[v].words[i]))
				return -EINVAL;
		}
	}
	/* The sums below are in 64 bits: 16 TiB of guests. */
	if (share && pages >= UNITS)
		return -EINVAL;
	/* Sized by what there could be and not by what there is: readings of one fleet then ask the
	 * allocator for the same size each time, and get the same memory. */
	r = meter_table_init(&t, pages);
	if (r)
		return r;

	for (unsigned int v = 0; v < nvms; v++) {
		out->pages += vm[v].pages;
		for (uint64_t i = 0; i < vm[v].pages; i++) {
			uint64_t w = vm[v].words[i];

			out->touched += w != KSM_METER_UNTOUCHED;
			out->zero += w == KSM_METER_ZERO;
			if (w > KSM_METER_ZERO)
				count_page(out, meter_table_get(&t, w), v);
		}
	}
	if (share)
		charge(&t, vm, nvms, share);
	free(t.at);
	return 0;
}

int ksm_meter_count(const struct ksm_meter_vm *vm, unsigned int nvms, struct ksm_meter_result *out)
{
	return ksm_meter_shares(vm, nvms, out, NULL);
}
