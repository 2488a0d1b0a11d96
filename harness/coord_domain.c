/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_domain.c: the sharing domains of a fleet: a pool and an index for each of them, on each NUMA node
 * or on all (place.h), and what each domain saves.
 *
 * Nothing is common to two pools, neither a file nor a secret, and no cell maps two of them: only we do,
 * to give frames back. So a cell cannot name what another domain has, and needs no check for it; that
 * nothing is shared across is counted all the same, at the last reading (run_result.saved_foreign).
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/coord.h"

/* Frames looked at in one turn, in each pool. */
#define REAP_BUDGET 65536

int coord_pools_open(struct coord *c, struct ob_err *e)
{
	struct ob_host *h = &c->host;
	int r = 0;

	for (unsigned int i = 0; i < c->npools && !r; i++) {
		struct coord_pool *p = &c->pool[i];

		r = ksm_domain_create(h, p->frames, c->place.pool[i].cells, &p->pool_fd,
				      &p->meta_fd);
		if (!r)
			r = ksm_domain_open(h, p->pool_fd, p->meta_fd, KSM_NO_CELL, c->arena,
					    &p->domain);
		if (r)
			ob_fail(e, -r, "frame pool %u of %u: %s", i + 1, c->npools, strerror(-r));
	}
	return r;
}

void coord_pools_close(struct coord *c)
{
	for (unsigned int i = 0; i < c->npools; i++) {
		struct coord_pool *p = &c->pool[i];

		if (p->domain)
			ksm_domain_close(p->domain);
		if (p->pool_fd >= 0)
			close(p->pool_fd);
		if (p->meta_fd >= 0)
			close(p->meta_fd);
	}
	free(c->pool);
	c->pool = NULL;
	c->npools = 0;
}

void coord_pools_reap(struct coord *c)
{
	for (unsigned int i = 0; i < c->npools; i++)
		ksm_domain_reap(c->pool[i].domain, REAP_BUDGET);
}

void coord_pools_cell_died(struct coord *c, unsigned int cell)
{
	const struct place_cell *at = &c->place.cell[cell];

	if (c->npools && c->pool[at->pool].domain)
		ksm_domain_cell_died(c->pool[at->pool].domain, at->number);
}

void coord_pools_flip(struct coord *c, uint64_t seed)
{
	for (unsigned int i = 0; i < c->npools; i++)
		if (!ksm_domain_flip(c->pool[(seed + i) % c->npools].domain, seed))
			return;
}

void coord_pools_stats(struct coord *c, struct ksm_domain_stats *sum)
{
	*sum = (struct ksm_domain_stats){0};
	for (unsigned int i = 0; i < c->npools; i++) {
		struct ksm_domain_stats st;

		if (ksm_domain_stats(c->pool[i].domain, &st))
			continue;
		sum->frames += st.frames;
		sum->live += st.live;
		sum->filling += st.filling;
		sum->hints += st.hints;
		sum->entries += st.entries;
		sum->reaped += st.reaped;
		sum->pool_blocks_bytes += st.pool_blocks_bytes;
		sum->meta_bytes += st.meta_bytes;
	}
}

/* Through a mapping of our own that lasts a moment. */
static void learn_pool(struct coord *c, const struct coord_pool *p)
{
	struct ob_page view[512];
	void *pool;

	if (c->host.ops->map_shared(&c->host, p->pool_fd, p->frames * OB_PAGE_SIZE, &pool))
		return;
	for (uint64_t f = 0; f < p->frames; f += OB_ARRAY_SIZE(view)) {
		uint64_t n = OB_MIN(OB_ARRAY_SIZE(view), p->frames - f);
		volatile const uint8_t *at = (const uint8_t *)pool + f * OB_PAGE_SIZE;
		bool any = false;

		for (uint64_t i = 0; i < n; i++)
			if (ksm_domain_frame_live(p->domain, (uint32_t)(f + i))) {
				(void)at[i * OB_PAGE_SIZE];
				any = true;
			}
		if (!any || c->host.ops->pages(&c->host, hva((uint64_t)(uintptr_t)at), n, view))
			continue;
		for (uint64_t i = 0; i < n; i++)
			c->frame_pfn[p->frame_base + f + i] = view[i].pfn;
	}
	c->host.ops->unmap(&c->host, hva_of(pool), p->frames * OB_PAGE_SIZE);
}

void coord_pools_learn(struct coord *c)
{
	if (!c->host.knows_pfn || !c->pooled)
		return;
	for (unsigned int i = 0; i < c->npools; i++)
		learn_pool(c, &c->pool[i]);
}

/* --- in the result ------------------------------------------------------------------------------ */

void coord_domains_init(struct coord *c)
{
	struct run_result *out = c->out;
	const struct place *p = &c->place;

	out->nodes = p->nodes;
	out->ndomains = p->domains;
	out->domain = calloc(p->domains, sizeof(*out->domain));
	out->npools = c->pooled ? c->npools : 0;
	out->pool = calloc(OB_MAX(c->npools, 1u), sizeof(*out->pool));
	OB_ASSERT(out->domain && out->pool);
	for (unsigned int i = 0; i < p->guests; i++) {
		struct run_domain *d = &out->domain[p->domain_of[i]];

		snprintf(d->name, sizeof(d->name), "%s", domain_opts_name(&c->cfg->domains, i));
		d->guests++;
	}
	for (unsigned int i = 0; i < c->npools; i++)
		out->pool[i] = (struct run_pool){
			.domain = p->pool[i].domain,
			.node = p->pool[i].node,
			.cells = p->pool[i].cells,
			.guests = p->pool[i].guests,
		};
}

int coord_domains_finish(struct coord *c)
{
	struct run_result *out = c->out;
	uint64_t sum = 0;

	for (unsigned int i = 0; i < out->npools; i++) {
		struct ksm_domain_stats st;

		if (ksm_domain_stats(c->pool[i].domain, &st))
			continue;
		out->pool[i].frames = st.live + st.filling;
		out->pool[i].blocks_bytes = st.pool_blocks_bytes;
		out->pool[i].metadata_bytes = st.meta_bytes;
	}
	for (unsigned int i = 0; i < out->ndomains; i++) {
		struct run_domain *d = &out->domain[i];
		struct ksm_meter_result m;
		int r = coord_count(c, i, &m);

		if (r)
			return r;
		d->saved_zero = m.zero * OB_PAGE_SIZE;
		d->saved_intra = m.intra * OB_PAGE_SIZE;
		d->saved_inter = m.inter * OB_PAGE_SIZE;
		d->frames_made = d->merged_pages = d->metadata_bytes = 0;
		sum += m.intra + m.inter;
	}
	for (unsigned int i = 0; i < c->ncells; i++) {
		struct run_domain *d = &out->domain[c->place.cell[i].domain];

		d->frames_made += c->cell[i].ksm.frames_made;
		d->merged_pages += c->cell[i].ksm.merged_pages;
	}
	out->saved_foreign = out->saved_intra + out->saved_inter - sum * OB_PAGE_SIZE;
	return 0;
}
