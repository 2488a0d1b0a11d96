/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.h: which guest runs in which cell, and which cells share a pool: a pure function of the sharing
 * domains, the number of NUMA nodes and --cell.
 *
 * Guests of two domains never share a process: a cell maps the pool of its domain, writable, and its
 * guests' memory lies side by side. And a cell belongs to one node, whose CPUs and memory it is bound
 * to; so does a pool, unless domains merge across nodes.
 */
#ifndef OVERBOOK_HARNESS_PLACE_H
#define OVERBOOK_HARNESS_PLACE_H

#include <stdbool.h>

#define PLACE_ALL_NODES (-1)

struct place_cell {
	unsigned int first, n; /* its guests: place->order[first .. first + n) */
	unsigned int domain, node;
	unsigned int pool;   /* its pool, */
	unsigned int number; /* and which of that pool's cells it is */
};

/* What a (domain, node) has: a pool and an index. */
struct place_pool {
	unsigned int domain;
	int node; /* PLACE_ALL_NODES: of all */
	unsigned int guests, cells;
};

struct place {
	unsigned int guests, domains, nodes;
	unsigned int ncells, npools;
	unsigned int *order;	 /* guests, cell by cell */
	unsigned int *cell_of;	 /* by guest */
	unsigned int *domain_of; /* by guest */
	struct place_cell *cell;
	struct place_pool *pool;
};

/*
 * Guest i is in domain @domain_of[i], numbered from 0 without a gap. Cells of at most @most guests, on
 * at most @nodes nodes (from 1; never more than there are guests); @across: one pool a domain. Free it
 * with place_free, which is harmless on all zeroes.
 */
void place_make(struct place *p, const unsigned int *domain_of, unsigned int guests,
		unsigned int most, unsigned int nodes, bool across);
void place_free(struct place *p);

#endif
