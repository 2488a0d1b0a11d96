/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result_kvmstat.c: what KVM counted of each guest, over the time of a run.
 *
 * Cells answer with their guests' statistics when they are asked (cell_kvmstat.c); a reading is all
 * that they said at one time. There are dozens of statistics a guest, so readings are a second
 * apart at least, and a series does not grow without end: when it is full, every second reading is
 * left out, and from then on they come half as often. First and last reading are always there. Most
 * statistics are 0 for ever; they are named in the document, and have no series.
 *
 * Names and their order come with each answer. The first one counts; what does not fit it (cells
 * of another mind, a guest that is not of this fleet) is left out.
 */
#include <stdlib.h>
#include <string.h>

#include "harness/result.h"

#define PERIOD_NS OB_NS_PER_SEC
/* Values of all guests in all readings: bounds the memory of a fleet of thousands. */
#define MAX_VALUES   (1u << 20)
#define MIN_READINGS 16

struct result_kvmstat {
	unsigned int guests;
	json_t *vm, *vcpu; /* names; NULL: nobody has said anything yet */
	size_t nvm, nvcpu, vcpus;
	size_t width;	      /* values of a guest: of the VM, then of each vCPU */
	unsigned int n, room; /* readings */
	bool open;	      /* reading n has begun: somebody has answered */
	double *t;
	uint64_t *value; /* [room][guests][width] */
	bool *there;	 /* [room][guests] */
	uint64_t period_ns, next_ns;
};

struct result_kvmstat *result_kvmstat_new(unsigned int guests)
{
	struct result_kvmstat *k = calloc(1, sizeof(*k));

	OB_ASSERT(k);
	k->guests = guests;
	k->period_ns = PERIOD_NS;
	return k;
}

void result_kvmstat_free(struct result_kvmstat *k)
{
	if (!k)
		return;
	json_decref(k->vm);
	json_decref(k->vcpu);
	free(k->t);
	free(k->value);
	free(k->there);
	free(k);
}

bool result_kvmstat_due(struct result_kvmstat *k, uint64_t now_ns, bool last)
{
	if (now_ns < k->next_ns && !last)
		return false;
	k->next_ns = now_ns + k->period_ns;
	return true;
}

static uint64_t *values_of(struct result_kvmstat *k, unsigned int reading, unsigned int guest)
{
	return k->value + ((size_t)reading * k->guests + guest) * k->width;
}

/* The first answer says how much there is to keep. */
static bool learn(struct result_kvmstat *k, json_t *vm, json_t *vcpu, size_t vcpus)
{
	size_t row;

	if (!json_array_size(vm) || json_array_size(vm) > KVM_STATS_MAX ||
	    json_array_size(vcpu) > KVM_STATS_MAX || !vcpus || vcpus > RESULT_KVMSTAT_VCPUS)
		return false;
	k->vm = json_incref(vm);
	k->vcpu = json_incref(vcpu);
	k->nvm = json_array_size(vm);
	k->nvcpu = json_array_size(vcpu);
	k->vcpus = vcpus;
	k->width = k->nvm + vcpus * k->nvcpu;
	row = k->guests * k->width;
	k->room = (unsigned int)OB_MIN(OB_MAX(MAX_VALUES / row, (size_t)MIN_READINGS),
				       (size_t)RESULT_KVMSTAT_READINGS);
	k->t = calloc(k->room, sizeof(*k->t));
	k->value = calloc(k->room * row, sizeof(*k->value));
	k->there = calloc((size_t)k->room * k->guests, sizeof(*k->there));
	OB_ASSERT(k->t && k->value && k->there);
	return true;
}

static void take_values(uint64_t *to, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		to[i] = (uint64_t)json_integer_value(json_array_get(list, i));
}

static void take_guest(struct result_kvmstat *k, const json_t *g)
{
	json_int_t id = json_integer_value(json_object_get(g, "id"));
	const json_t *vm = json_object_get(g, "vm"), *vcpu = json_object_get(g, "vcpu");
	uint64_t *to;

	if (id < 0 || id >= (json_int_t)k->guests || json_array_size(vm) != k->nvm ||
	    json_array_size(vcpu) != k->vcpus)
		return;
	for (size_t i = 0; i < k->vcpus; i++)
		if (json_array_size(json_array_get(vcpu, i)) != k->nvcpu)
			return;
	to = values_of(k, k->n, (unsigned int)id);
	take_values(to, vm);
	for (size_t i = 0; i < k->vcpus; i++)
		take_values(to + k->nvm + i * k->nvcpu, json_array_get(vcpu, i));
	k->there[(size_t)k->n * k->guests + (size_t)id] = true;
	k->open = true;
}

/* Every second reading goes, the first stays. */
static void thin_out(struct result_kvmstat *k)
{
	for (unsigned int i = 0; i < k->room; i += 2) {
		k->t[i / 2] = k->t[i];
		memcpy(values_of(k, i / 2, 0), values_of(k, i, 0),
		       k->guests * k->width * sizeof(*k->value));
		memcpy(&k->there[(size_t)(i / 2) * k->guests], &k->there[(size_t)i * k->guests],
		       k->guests * sizeof(*k->there));
	}
	k->n = (k->room + 1) / 2;
	memset(&k->there[(size_t)k->n * k->guests], 0,
	       (size_t)(k->room - k->n) * k->guests * sizeof(*k->there));
	k->period_ns *= 2;
}

void result_kvmstat_take(struct result_kvmstat *k, const json_t *answer)
{
	json_t *vm = json_object_get(answer, "vm"), *vcpu = json_object_get(answer, "vcpu");
	const json_t *guests = json_object_get(answer, "guests"), *g;
	size_t i;

	if (!json_array_size(guests))
		return;
	g = json_array_get(guests, 0);
	if (!k->vm && !learn(k, vm, vcpu, json_array_size(json_object_get(g, "vcpu"))))
		return;
	if (!json_equal(vm, k->vm) || !json_equal(vcpu, k->vcpu))
		return;
	if (k->n == k->room)
		thin_out(k);
	json_array_foreach (guests, i, g)
		take_guest(k, g);
}

void result_kvmstat_end(struct result_kvmstat *k, double t)
{
	if (!k->open)
		return;
	k->t[k->n++] = t;
	k->open = false;
}

void result_kvmstat_shift(struct result_kvmstat *k, double since)
{
	for (unsigned int i = 0; k && i < k->n; i++)
		k->t[i] -= since;
}

double result_kvmstat_last(struct result_kvmstat *k, const char *name)
{
	const json_t *have;
	double sum = 0;
	size_t at;

	if (!k || !k->n)
		return -1;
	json_array_foreach (k->vm, at, have)
		if (!strcmp(json_string_value(have), name))
			break;
	if (at == k->nvm)
		return -1;
	for (unsigned int g = 0; g < k->guests; g++)
		sum += (double)values_of(k, k->n - 1, g)[at];
	return sum;
}

double result_kvmstat_last_vcpu(struct result_kvmstat *k, const char *name)
{
	const json_t *have;
	double sum = 0;
	size_t at;

	if (!k || !k->n)
		return -1;
	json_array_foreach (k->vcpu, at, have)
		if (!strcmp(json_string_value(have), name))
			break;
	if (at == k->nvcpu)
		return -1;
	for (unsigned int g = 0; g < k->guests; g++)
		for (size_t v = 0; v < k->vcpus; v++)
			sum += (double)values_of(k, k->n - 1, g)[k->nvm + v * k->nvcpu + at];
	return sum;
}

/* --- the document -------------------------------------------------------------------------- */

/* Is value @at (of one, or of each vCPU at steps of @step) 0 in all readings of all guests? */
static bool always_zero(struct result_kvmstat *k, size_t at, size_t step, size_t times)
{
	for (unsigned int r = 0; r < k->n; r++)
		for (unsigned int g = 0; g < k->guests; g++)
			for (size_t i = 0; i < times; i++)
				if (k->there[(size_t)r * k->guests + g] &&
				    values_of(k, r, g)[at + i * step])
					return false;
	return true;
}

static json_t *series(struct result_kvmstat *k, unsigned int guest, size_t at)
{
	json_t *list = json_array();

	for (unsigned int r = 0; r < k->n; r++) {
		uint64_t v = values_of(k, r, guest)[at];

		json_array_append_new(
			list, k->there[(size_t)r * k->guests + guest]
				      ? json_integer((json_int_t)OB_MIN(v, (uint64_t)INT64_MAX))
				      : json_null());
	}
	return list;
}

/* The series of a guest's values from @at on, @n of them, without those that are always 0. */
static json_t *all_series(struct result_kvmstat *k, unsigned int guest, size_t at, size_t n,
			  const bool *zero)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		if (!zero[i])
			json_array_append_new(list, series(k, guest, at + i));
	return list;
}

static void sort_names(json_t *names, const bool *zero, json_t *shown, json_t *left_out)
{
	const json_t *name;
	size_t i;

	json_array_foreach (names, i, name)
		json_array_append(zero[i] ? left_out : shown, (json_t *)(uintptr_t)name);
}

json_t *result_kvmstat_json(struct result_kvmstat *k)
{
	json_t *o, *t, *vm, *vcpu, *zero, *guests;
	bool *off;

	if (!k || !k->n)
		return json_null();
	o = json_object();
	t = json_array();
	vm = json_array();
	vcpu = json_array();
	zero = json_array();
	guests = json_array();
	off = calloc(k->nvm + k->nvcpu, sizeof(*off));
	OB_ASSERT(off);
	for (unsigned int r = 0; r < k->n; r++)
		json_array_append_new(t, result_real(k->t[r]));
	for (size_t i = 0; i < k->nvm; i++)
		off[i] = always_zero(k, i, 0, 1);
	for (size_t i = 0; i < k->nvcpu; i++)
		off[k->nvm + i] = always_zero(k, k->nvm + i, k->nvcpu, k->vcpus);
	sort_names(k->vm, off, vm, zero);
	sort_names(k->vcpu, off + k->nvm, vcpu, zero);
	for (unsigned int g = 0; g < k->guests; g++) {
		json_t *one = json_object(), *cpus = json_array();

		for (size_t i = 0; i < k->vcpus; i++)
			json_array_append_new(cpus, all_series(k, g, k->nvm + i * k->nvcpu,
							       k->nvcpu, off + k->nvm));
		json_object_set_new(one, "id", json_integer(g));
		json_object_set_new(one, "vm", all_series(k, g, 0, k->nvm, off));
		json_object_set_new(one, "vcpu", cpus);
		json_array_append_new(guests, one);
	}
	free(off);
	json_object_set_new(o, "t", t);
	json_object_set_new(o, "vm", vm);
	json_object_set_new(o, "vcpu", vcpu);
	json_object_set_new(o, "zero", zero);
	json_object_set_new(o, "guests", guests);
	return o;
}
