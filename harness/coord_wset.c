/* SPDX-License-Identifier: Apache-2.0 */
/* coord_wset.c: the coordinator's side of --working-set: what cells are told, and what they say. */
#include <stdlib.h>

#include "harness/coord.h"
#include "harness/proto.h"

json_t *coord_wset_doc(const struct fleet_config *cfg)
{
	if (!cfg->wset.samples)
		return json_null();
	return json_pack("{s:I,s:I,s:I}", "samples", (json_int_t)cfg->wset.samples, "period_ns",
			 (json_int_t)cfg->wset.period_ns, "seed", (json_int_t)cfg->seed);
}

static double real_at(const json_t *list, size_t i)
{
	return json_number_value(json_array_get(list, i));
}

static uint64_t count_at(const json_t *list, size_t i)
{
	return (uint64_t)json_integer_value(json_array_get(list, i));
}

static void take_history(struct run_wset *w, const json_t *list)
{
	const json_t *p;
	size_t i;

	free(w->history);
	w->nhistory = 0;
	w->history = calloc(json_array_size(list), sizeof(*w->history));
	OB_ASSERT(w->history);
	json_array_foreach (list, i, p)
		w->history[w->nhistory++] = (struct run_wset_point){
			.t = real_at(p, 0),
			.pages = count_at(p, 1),
			.fraction = real_at(p, 2),
			.error = real_at(p, 3),
			.low = real_at(p, 4),
			.high = real_at(p, 5),
			.samples = (unsigned int)count_at(p, 6),
			.touched = (unsigned int)count_at(p, 7),
			.unit_samples = (unsigned int)count_at(p, 8),
			.unit_touched = (unsigned int)count_at(p, 9),
			.windows = count_at(p, 10),
		};
}

void coord_wset_take(struct coord *c, struct run_guest *g, const json_t *guest)
{
	const json_t *o = json_object_get(guest, "working_set"), *list;
	struct run_wset *w = &g->wset;

	if (!o)
		return;
	w->on = true;
	w->pages = proto_u64(o, "pages");
	w->fraction = json_number_value(json_object_get(o, "fraction"));
	w->samples = c->cfg->wset.samples;
	w->period_s = (double)c->cfg->wset.period_ns / OB_NS_PER_SEC;
	w->cpu_s = (double)proto_u64(o, "cpu_ns") / OB_NS_PER_SEC;
	w->handler_cpu_s = (double)proto_u64(o, "handler_cpu_ns") / OB_NS_PER_SEC;
	list = json_object_get(o, "history");
	/* It comes with full readings only. */
	if (json_array_size(list))
		take_history(w, list);
}
