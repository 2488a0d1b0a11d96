/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.c: guests onto nodes and into cells.
 *
 * The guests are lined up, domain by domain and by number within one. The line is cut into as many
 * equal parts as there are nodes, and the parts into cells wherever the domain changes or a cell is
 * full. So nodes have as many guests as each other, and a domain lies on as few nodes as it can: every
 * border between two nodes cuts at most one of them, and what it cuts apart is not merged (unless it is
 * to be, across nodes).
 */
#include "harness/place.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/base.h"

/* The guests by domain, by number within each: a counting sort. */
static void line_up(struct place *p)
{
	unsigned int *at = calloc(p->domains + 1, sizeof(*at));

	OB_ASSERT(at);
	for (unsigned int g = 0; g < p->guests; g++)
		at[p->domain_of[g] + 1]++;
	for (unsigned int d = 0; d < p->domains; d++)
		at[d + 1] += at[d];
	for (unsigned int g = 0; g < p->guests; g++)
		p->order[at[p->domain_of[g]]++] = g;
	free(at);
}

static void new_pool(struct place *p, unsigned int domain, int node)
{
	p->pool[p->npools++] = (struct place_pool){.domain = domain, .node = node};
}

static void new_cell(struct place *p, unsigned int first, unsigned int domain, unsigned int node)
{
	struct place_pool *pool = &p->pool[p->npools - 1];

	p->cell[p->ncells++] = (struct place_cell){
		.first = first,
		.domain = domain,
		.node = node,
		.pool = p->npools - 1,
		.number = pool->cells++,
	};
}

void place_make(struct place *p, const unsigned int *domain_of, unsigned int guests,
		unsigned int most, unsigned int nodes, bool across)
{
	OB_ASSERT(guests && most && nodes);
	*p = (struct place){.guests = guests, .nodes = OB_MIN(nodes, guests)};
	p->order = calloc(guests, sizeof(*p->order));
	p->cell_of = calloc(guests, sizeof(*p->cell_of));
	p->domain_of = calloc(guests, sizeof(*p->domain_of));
	p->cell = calloc(guests, sizeof(*p->cell));
	p->pool = calloc(guests, sizeof(*p->pool));
	OB_ASSERT(p->order && p->cell_of && p->domain_of && p->cell && p->pool);
	memcpy(p->domain_of, domain_of, guests * sizeof(*domain_of));
	for (unsigned int g = 0; g < guests; g++)
		p->domains = OB_MAX(p->domains, domain_of[g] + 1);
	line_up(p);
	for (unsigned int i = 0; i < guests; i++) {
		unsigned int g = p->order[i], domain = domain_of[g];
		unsigned int node = (unsigned int)((unsigned long long)i * p->nodes / guests);
		const struct place_cell *last = p->ncells ? &p->cell[p->ncells - 1] : NULL;
		bool other_domain = !last || last->domain != domain;
		bool other_node = !last || last->node != node;

		if (other_domain || (other_node && !across))
			new_pool(p, domain, across ? PLACE_ALL_NODES : (int)node);
		if (other_domain || other_node || last->n == most)
			new_cell(p, i, domain, node);
		p->cell[p->ncells - 1].n++;
		p->pool[p->npools - 1].guests++;
		p->cell_of[g] = p->ncells - 1;
	}
}

void place_free(struct place *p)
{
	free(p->order);
	free(p->cell_of);
	free(p->domain_of);
	free(p->cell);
	free(p->pool);
	*p = (struct place){0};
}
