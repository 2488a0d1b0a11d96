/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_kvmstat.c: what KVM counts of a cell's guests, for the coordinator. A KVM that has no such
 * statistics, or says nonsense of them, is answered for with silence: they explain a run, and no
 * figure is computed from them.
 */
#include <stdlib.h>

#include "harness/cell.h"

struct cell_kvmstat {
	struct kvm_stats vm;
	struct kvm_stats *vcpu; /* [nvcpus] */
	unsigned int nvcpus;
};

void cell_kvmstat_open(struct cell_guest *g)
{
	struct cell_kvmstat *k = calloc(1, sizeof(*k));

	OB_ASSERT(k);
	g->kvmstat = k;
	k->vcpu = calloc(g->vm->nvcpus, sizeof(*k->vcpu));
	OB_ASSERT(k->vcpu);
	if (vm_stats_open(g->vm, -1, &k->vm)) {
		cell_kvmstat_close(g);
		return;
	}
	for (; k->nvcpus < g->vm->nvcpus; k->nvcpus++)
		if (vm_stats_open(g->vm, (int)k->nvcpus, &k->vcpu[k->nvcpus])) {
			cell_kvmstat_close(g);
			return;
		}
}

void cell_kvmstat_close(struct cell_guest *g)
{
	struct cell_kvmstat *k = g->kvmstat;

	g->kvmstat = NULL;
	if (!k)
		return;
	kvm_stats_close(&k->vm);
	for (unsigned int i = 0; i < k->nvcpus; i++)
		kvm_stats_close(&k->vcpu[i]);
	free(k->vcpu);
	free(k);
}

static json_t *names(const struct kvm_stats *s)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < s->n; i++)
		json_array_append_new(list, json_string(s->stat[i].name));
	return list;
}

/* NULL when they cannot be read. */
static json_t *values(struct kvm_stats *s)
{
	uint64_t v[KVM_STATS_MAX];
	json_t *list;

	if (kvm_stats_read(s, v))
		return NULL;
	list = json_array();
	for (unsigned int i = 0; i < s->n; i++)
		json_array_append_new(list,
				      json_integer((json_int_t)OB_MIN(v[i], (uint64_t)INT64_MAX)));
	return list;
}

json_t *cell_kvmstat_json(struct cell_guest *g)
{
	struct cell_kvmstat *k = g->kvmstat;
	json_t *o, *vm, *vcpus;

	vm = k ? values(&k->vm) : NULL;
	if (!vm)
		return NULL;
	vcpus = json_array();
	for (unsigned int i = 0; i < k->nvcpus; i++) {
		json_t *one = values(&k->vcpu[i]);

		json_array_append_new(vcpus, one ? one : json_array());
	}
	o = json_object();
	json_object_set_new(o, "id", json_integer(g->id));
	json_object_set_new(o, "vm", vm);
	json_object_set_new(o, "vcpu", vcpus);
	return o;
}

/* Names and values; NULL when they cannot be read. */
static json_t *named(struct kvm_stats *s)
{
	uint64_t v[KVM_STATS_MAX];
	json_t *o;

	if (kvm_stats_read(s, v))
		return NULL;
	o = json_object();
	for (unsigned int i = 0; i < s->n; i++)
		json_object_set_new(o, s->stat[i].name,
				    json_integer((json_int_t)OB_MIN(v[i], (uint64_t)INT64_MAX)));
	return o;
}

json_t *cell_kvmstat_named(struct cell_guest *g)
{
	struct cell_kvmstat *k = g->kvmstat;
	json_t *vm = k ? named(&k->vm) : NULL, *vcpus;

	if (!vm)
		return NULL;
	vcpus = json_array();
	for (unsigned int i = 0; i < k->nvcpus; i++) {
		json_t *one = named(&k->vcpu[i]);

		json_array_append_new(vcpus, one ? one : json_object());
	}
	return json_pack("{s:o,s:o}", "vm", vm, "vcpu", vcpus);
}

json_t *cell_kvmstat_sample(struct cell *c)
{
	json_t *o = NULL, *guests = json_array();

	for (unsigned int i = 0; i < c->nguests; i++) {
		struct cell_guest *g = &c->guest[i];
		json_t *one = cell_kvmstat_json(g);

		if (!one)
			continue;
		if (!o) {
			o = json_object();
			json_object_set_new(o, "vm", names(&g->kvmstat->vm));
			json_object_set_new(o, "vcpu", names(&g->kvmstat->vcpu[0]));
		}
		json_array_append_new(guests, one);
	}
	if (o)
		json_object_set(o, "guests", guests);
	json_decref(guests);
	return o;
}
