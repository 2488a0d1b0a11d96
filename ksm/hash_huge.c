/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_huge.c: is a window that one huge page backs worth breaking?
 *
 * A huge page is hashed like any other memory; reading does not split it. What is merged in it is
 * lost to the guest as a huge page, so nothing is, until it is worth it: as many of its pages as the
 * rule asks for (ept/huge_policy.c) would be given back at once. Counted as such are
 *
 *  - pages that are zero, and pages whose content is a frame already;
 *  - pages whose content another page has as well, in whatever guest. The first of the two that is
 *    broken makes the frame, and then the other finds that.
 *
 * Of the latter the index only has hints, so a window that is not broken leaves its own like any
 * other. But there is one hint for a content: of two windows with the same pages one would see the
 * other's hints and the other only its own, as if it shared nothing. And a hint may be out of date:
 * data that was moved looks as if it were there twice.
 *
 * Both are mended by one rule. Who finds another's hint of what he has makes it his own, and the
 * page counts only if it finds another's hint *again*: then somebody who is alive has made it his in
 * between. So hints go to and fro between windows that stay whole, at a compare-and-swap a page and
 * pass, and each of them counts all that it shares, be it some with one and some with another.
 */
#include "ksm/hash_engine.h"

/* What merging would give back. Leaves hints of pages that the index does not know yet; @others: it
 * has hints of others for some that count. */
static unsigned int weigh(struct ksm *k, struct hash *h, const struct ksm_slot *s, bool *others)
{
	struct hash_guest *g = s->priv;
	unsigned int gain = 0;

	*others = false;

	for (unsigned int i = 0; i < h->ncand; i++) {
		const struct hash_cand *c = &h->cand[i];
		uint64_t me = s->g.page_base + c->page;
		uint16_t *last = &g->last[c->page];
		struct ksm_ref ref;

		if (c->zero) {
			gain++;
			continue;
		}
		switch (ksm_index_find(k->domain, c->hash, &ref)) {
		case KSM_FRAME:
			gain += ksm_domain_frame_live(k->domain, ksm_ref_payload(&ref));
			continue;
		case KSM_HINT:
			if (ksm_ref_payload(&ref) == me)
				break;
			if (*last & HASH_LAST_HINTED) {
				*others = true;
				gain++;
			} else {
				(void)ksm_index_rehint(k->domain, &ref, me);
			}
			break;
		default:
			(void)ksm_index_hint(k->domain, c->hash, me);
			break;
		}
		*last = (uint16_t)(*last | HASH_LAST_HINTED);
	}
	return gain;
}

/* It stays whole: the others are to find our hints again. */
static void keep_hints(struct ksm *k, const struct hash *h, const struct ksm_slot *s)
{
	for (unsigned int i = 0; i < h->ncand; i++) {
		const struct hash_cand *c = &h->cand[i];
		uint64_t me = s->g.page_base + c->page;
		struct ksm_ref ref;

		if (!c->zero && ksm_index_find(k->domain, c->hash, &ref) == KSM_HINT &&
		    ksm_ref_payload(&ref) != me)
			(void)ksm_index_rehint(k->domain, &ref, me);
	}
}

bool hash_may_merge(struct ksm *k, struct hash *h, struct ksm_slot *s, uint64_t page)
{
	uint64_t unit = page / EPT_UNIT_PAGES;
	unsigned int gain;
	bool others;

	if (!ept_unit_is_huge(s->g.ept, page))
		return true;
	gain = weigh(k, h, s, &others);
	/* Its pages become a mapping of their own, between two that were one. */
	if (ept_huge_worth(s->g.ept, unit, gain) && h->room.maps >= 2 &&
	    ept_huge_break(s->g.ept, unit) >= 0) {
		h->room.maps -= 2;
		k->st.huge_broken++;
		return true;
	}
	k->st.huge_left += gain;
	if (others)
		keep_hints(k, h, s);
	return false;
}
