/* SPDX-License-Identifier: Apache-2.0 */
/*
 * topo.c: see topo.h.
 *
 * Memory is bound as a preference and not as a must: a node that is full takes from its neighbour, where
 * a strict binding would call the OOM killer. Nothing else has to be said about memory: guests' pages are
 * made by the vCPU that touches them first, a frame of a pool by the cell that writes it, and both are
 * threads of a cell, which inherit what its first thread was bound to.
 */
#include "harness/topo.h"

#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>

struct topo {
	hwloc_topology_t hw;
	unsigned int nodes; /* of those with CPUs, which come first in @node */
	unsigned int all;
	hwloc_obj_t *node;
};

int topo_open(struct topo **out, struct ob_err *e)
{
	struct topo *t = calloc(1, sizeof(*t));
	hwloc_obj_t o = NULL;
	int r;

	*out = NULL;
	OB_ASSERT(t);
	if (hwloc_topology_init(&t->hw)) {
		free(t);
		return ob_fail(e, ENOMEM, "hwloc cannot begin");
	}
	/* Not asked for. But what lies between nodes and CPUs must stay (packages, groups): without it
	 * hwloc hangs all nodes on the whole machine, and each has all CPUs. */
	hwloc_topology_set_cache_types_filter(t->hw, HWLOC_TYPE_FILTER_KEEP_NONE);
	hwloc_topology_set_io_types_filter(t->hw, HWLOC_TYPE_FILTER_KEEP_NONE);
	if (hwloc_topology_load(t->hw)) {
		r = errno ? errno : EIO;
		topo_close(t);
		return ob_fail(e, r,
			       "hwloc cannot read this host's topology: %s; what HWLOC_SYNTHETIC "
			       "or HWLOC_XMLFILE say may be none",
			       strerror(r));
	}
	r = hwloc_get_nbobjs_by_type(t->hw, HWLOC_OBJ_NUMANODE);
	t->node = calloc(r > 0 ? (size_t)r : 1, sizeof(*t->node));
	OB_ASSERT(t->node);
	while ((o = hwloc_get_next_obj_by_type(t->hw, HWLOC_OBJ_NUMANODE, o)) != NULL) {
		t->all++;
		if (!hwloc_bitmap_iszero(o->cpuset))
			t->node[t->nodes++] = o;
	}
	*out = t;
	return 0;
}

void topo_close(struct topo *t)
{
	if (!t)
		return;
	hwloc_topology_destroy(t->hw);
	free(t->node);
	free(t);
}

unsigned int topo_nodes(const struct topo *t)
{
	return OB_MAX(t->nodes, 1u);
}

unsigned int topo_memory_nodes(const struct topo *t)
{
	return OB_MAX(t->all, 1u);
}

bool topo_is_host(const struct topo *t)
{
	return hwloc_topology_is_thissystem(t->hw) == 1;
}

int topo_bind(const struct topo *t, unsigned int node, struct ob_err *e)
{
	hwloc_obj_t o;

	if (!topo_is_host(t))
		return ob_fail(e, ENOTSUP, "the topology is given and not this host's");
	if (node >= t->nodes)
		return ob_fail(e, ENODEV, "this host has no NUMA node %u with CPUs", node);
	o = t->node[node];
	if (hwloc_set_cpubind(t->hw, o->cpuset, HWLOC_CPUBIND_THREAD))
		return ob_fail(e, errno ? errno : EIO, "to the CPUs of NUMA node %u: %s", node,
			       strerror(errno));
	if (hwloc_set_membind(t->hw, o->nodeset, HWLOC_MEMBIND_BIND,
			      HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET))
		return ob_fail(e, errno ? errno : EIO, "to the memory of NUMA node %u: %s", node,
			       strerror(errno));
	return 0;
}
