/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_plant.c: planting. A benchmark that asks how soon a duplicate is found writes one itself, at
 * a moment that it knows, into memory of its guests that nobody has touched yet
 * (free_untouched_pages of their reports). It is written as a device writes, bracketed, so whoever
 * tracks writes sees it. Each place is planted once: what an engine knows of a page from before
 * (Linux KSM leaves out pages that did not merge for long, each at its own rhythm, so that two of
 * them may never meet) is not part of the question.
 *
 * Guests are planted in pairs, i and i + n / 2 of n, which lie in different cells when there are
 * two or more: both of a pair get the same page, no two pairs or places the same.
 */
#include <errno.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/proto.h"
#include "workloads/gen.h"

#define TAG_PLANT 77

/* RAM page of @place, or UINT64_MAX when the guest has not so many. */
static uint64_t place_of(struct vm *vm, uint64_t place)
{
	struct agent_report r = {0};
	uint64_t pages = vm->mem.pages;

	agent_read_report(&vm->agent, &r);
	if (r.free_dirty_pages >= pages || r.free_untouched_pages > pages - r.free_dirty_pages ||
	    place >= r.free_untouched_pages)
		return UINT64_MAX;
	return pages - 1 - r.free_dirty_pages - place;
}

int cell_plant(struct cell *c, const json_t *doc, struct ob_err *e)
{
	uint64_t place = proto_u64(doc, "place");
	uint64_t half = proto_u64(doc, "half"), key = gen_key(proto_u64(doc, "seed"), TAG_PLANT);

	for (unsigned int i = 0; i < c->nguests; i++) {
		struct vm *vm = c->guest[i].vm;
		uint64_t page[GEN_PAGE_WORDS], pair = c->guest[i].id % half, at;
		int r;

		if (c->guest[i].id >= 2 * half)
			continue;
		at = place_of(vm, place);
		if (at == UINT64_MAX)
			return ob_fail(e, ENOSPC, "guest %u has no free memory left to plant in",
				       c->guest[i].id);
		gen_fill(page, key, place * half + pair, 0);
		r = gmem_write(&vm->mem, gpa(gmem_page_gfn(&vm->mem, at).v * OB_PAGE_SIZE), page,
			       sizeof(page));
		if (r)
			return ob_fail(e, -r, "guest %u: planting: %s", c->guest[i].id,
				       strerror(-r));
	}
	return 0;
}

/* [guest, word of place @from, of @from + 1, ...], a guest each: the meter's words. */
json_t *cell_planted(struct cell *c, const json_t *doc)
{
	uint64_t from = proto_u64(doc, "from"), n = OB_MIN(proto_u64(doc, "n"), PLANT_OPEN);
	json_t *all = json_array();

	for (unsigned int i = 0; i < c->nguests; i++) {
		struct cell_guest *g = &c->guest[i];
		json_t *words = json_array();

		json_array_append_new(words, json_integer((json_int_t)g->id));
		for (uint64_t k = from; k < from + n; k++) {
			uint64_t word = 0, at = place_of(g->vm, k);

			if (at == UINT64_MAX ||
			    ksm_meter_pages(&g->ept, g->page_base, c->frame_base, at, 1, &word))
				word = 0;
			json_array_append_new(words, json_integer((json_int_t)word));
		}
		json_array_append_new(all, words);
	}
	return json_pack("{s:o}", "words", all);
}

void cell_scan_gap(struct cell *c, const json_t *doc)
{
	cell_scan_hold(c);
	ksm_set_pass_gap(c->ksm, proto_u64(doc, "ms") * OB_NS_PER_MS);
	cell_scan_release(c);
}

/* KVM keeps two bitmaps for a slot that is logged, one for who reads it. */
uint64_t cell_log_bytes(const struct cell *c)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < c->nguests; i++) {
		const struct gmem *m = &c->guest[i].vm->mem;

		for (unsigned int s = 0; s < m->nslots; s++)
			bytes += m->slot[s].log ? 2 * ((m->slot[s].pages + 63) / 64 * 8) : 0;
	}
	return bytes;
}
