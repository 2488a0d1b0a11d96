/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_revert.c: pages that broke off a frame, hold its content again, and still lie over it.
 *
 * In a settled fleet that is most of what is left to merge: a guest writes to a page that was shared,
 * and a moment later the page is as it was. Nothing has to be planned for it, as no mapping is added:
 * the copy goes, and the frame shows again (ept/reshare.c). So such pages do not go through a
 * window's plan, where each would cost a freeze of its own. They are gathered over all windows of a
 * guest, and go by one freeze and one call when the pass leaves it, or when there are as many as fit
 * into a pause.
 *
 * Each holds its frame from when it is found until it is shared; the comparison, as ever, is made
 * while the guest stands still.
 */
#include <stdlib.h>
#include <string.h>

#include "ksm/cost.h"
#include "ksm/hash_engine.h"

/* What one page takes in a pause, with much to spare: compared twice, discarded, one fault. */
#define PAGE_NS 8000

/* From the first to the last page: a device that comes to one in between waits for the pause. */
#define SPREAD 4096ULL

static unsigned int room(const struct ksm *k)
{
	uint64_t fit = k->opts.max_pause_ns / PAGE_NS;

	return (unsigned int)OB_MAX(1, OB_MIN(fit, (uint64_t)HASH_REVERTS));
}

static int by_page(const void *a, const void *b)
{
	const struct ept_reshare *x = a, *y = b;

	return x->page < y->page ? -1 : x->page > y->page;
}

/* It is not merged after all: a later pass looks at it again. */
static void give_up(struct ksm *k, struct hash_guest *g, const struct ept_reshare *p)
{
	ksm_frame_put(k->domain, p->frame);
	g->pending[p->page / 64] |= 1ULL << (p->page & 63);
}

static void compare(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_revert *v = &h->revert;
	unsigned int n = 0;

	for (unsigned int i = 0; i < v->n; i++) {
		struct ept_reshare *p = &v->page[i];
		const void *at = hva_ptr(gmem_page_hva(s->g.ept->mem, p->page));

		p->content = h->view + (uint64_t)p->frame * OB_PAGE_SIZE;
		if (ept_frozen(s->g.ept, p->page) && !memcmp(at, p->content, OB_PAGE_SIZE)) {
			v->page[n++] = *p;
			continue;
		}
		k->st.compare_failed++;
		give_up(k, s->priv, p);
	}
	v->n = n;
}

static void merge(struct ksm *k, struct hash *h, struct ksm_slot *s)
{
	struct hash_revert *v = &h->revert;
	uint64_t first = v->page[0].page;
	struct hash_pause p;

	hash_pause_begin(k, h, s, first, v->page[v->n - 1].page - first + 1, &p);
	compare(k, h, s);
	OB_ASSERT(ept_reshare_pages(s->g.ept, v->page, v->n) >= 0);
	hash_pause_end(k, h, s, &p);
	if (v->n && !p.z.preempted)
		ksm_cost_note(&k->st, KSM_COST_REMERGE, p.z.whole - p.z.park, v->n);
}

void hash_revert_flush(struct ksm *k, struct hash *h)
{
	struct hash_revert *v = &h->revert;
	struct ksm_slot *s;

	if (!v->n)
		return;
	s = &k->slot[v->slot];
	qsort(v->page, v->n, sizeof(v->page[0]), by_page);
	hash_view_open(k, h);
	for (unsigned int i = 0; i < v->n && h->view; i++) /* not in the pause */
		(void)*(const volatile uint8_t *)(h->view +
						  (uint64_t)v->page[i].frame * OB_PAGE_SIZE);
	if (h->view)
		merge(k, h, s);
	for (unsigned int i = 0; i < v->n; i++) {
		if (!h->view || v->page[i].err) {
			give_up(k, s->priv, &v->page[i]);
			continue;
		}
		k->st.merged_pages++;
		k->st.reverted++;
		h->pass_merged++;
	}
	v->n = 0;
}

bool hash_revert_add(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page,
		     uint32_t frame)
{
	struct hash_revert *v = &h->revert;
	unsigned int slot = (unsigned int)(s - k->slot);

	if (k->opts.inject & KSM_INJECT_SKIP_COMPARE || ept_frame_under(s->g.ept, page) != frame)
		return false;
	/* What cannot be compared in place goes by a plan, where frames are read. */
	hash_view_open(k, h);
	if (!h->view)
		return false;
	if (v->n && (v->slot != slot || v->n == room(k) ||
		     page - v->page[0].page >=
			     OB_MIN(gmem_page_span(s->g.ept->mem, v->page[0].page), SPREAD)))
		hash_revert_flush(k, h);
	for (unsigned int i = 0; i < v->n; i++)
		if (v->page[i].page == page)
			return false; /* named twice, by a hint and by the scan */
	v->slot = slot;
	v->page[v->n++] = (struct ept_reshare){.page = page, .frame = frame};
	return true;
}

void hash_revert_drop(struct ksm *k, struct hash *h)
{
	struct hash_revert *v = &h->revert;

	for (unsigned int i = 0; i < v->n; i++)
		ksm_frame_put(k->domain, v->page[i].frame);
	v->n = 0;
}
