/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topo.h: the host's NUMA nodes, through hwloc. What hwloc's own variables say is taken for the host:
 * HWLOC_SYNTHETIC="node:2 pu:2" makes one of two nodes, HWLOC_XMLFILE reads one from a file. Guests are
 * placed by such a topology as by a real one, but nothing is bound to it, unless HWLOC_THISSYSTEM=1 says
 * that it is this host after all.
 */
#ifndef OVERBOOK_HARNESS_TOPO_H
#define OVERBOOK_HARNESS_TOPO_H

#include "kernel/base.h"

struct topo;

/* Look. 0, or -errno with a line. @out is to be closed (NULL: nothing to close). */
int topo_open(struct topo **out, struct ob_err *e);
void topo_close(struct topo *t);
/* Nodes that have both CPUs and memory, at least 1: what has no CPUs of its own (memory alone, as CXL
 * has it) is nobody's place to run. */
unsigned int topo_nodes(const struct topo *t);
/* All nodes, for a person: those without CPUs as well. */
unsigned int topo_memory_nodes(const struct topo *t);
/* Is it this host, so that one can bind to it? */
bool topo_is_host(const struct topo *t);
/*
 * Have the calling thread, and all that it makes from here on, run on the CPUs of @node (< topo_nodes)
 * and take its memory there while that has any. -ENOTSUP: the topology is not this host; -errno with a
 * line, then it may be bound in part.
 */
int topo_bind(const struct topo *t, unsigned int node, struct ob_err *e);

#endif
