/* SPDX-License-Identifier: Apache-2.0 */
/* result_wset.c: the working set of a guest in a result document, and of a run in the table. */
#include "harness/result.h"

static json_t *point_json(const struct run_wset_point *p)
{
	json_t *o = json_object();

	json_object_set_new(o, "t", result_real(p->t));
	json_object_set_new(o, "pages", json_integer((json_int_t)p->pages));
	json_object_set_new(o, "fraction", result_real(p->fraction));
	json_object_set_new(o, "error", result_real(p->error));
	json_object_set_new(o, "low", result_real(p->low));
	json_object_set_new(o, "high", result_real(p->high));
	json_object_set_new(o, "samples", json_integer(p->samples));
	json_object_set_new(o, "touched", json_integer(p->touched));
	json_object_set_new(o, "unit_samples", json_integer(p->unit_samples));
	json_object_set_new(o, "unit_touched", json_integer(p->unit_touched));
	json_object_set_new(o, "windows", json_integer((json_int_t)p->windows));
	return o;
}

json_t *result_wset_config_json(const struct wset_config *c)
{
	if (!c->samples)
		return json_null();
	return json_pack("{s:I,s:f}", "samples", (json_int_t)c->samples, "period_seconds",
			 (double)c->period_ns / OB_NS_PER_SEC);
}

json_t *result_wset_json(const struct run_result *r, const struct run_guest *g)
{
	const struct run_wset *w = &g->wset;
	/* Before a period is over there is an impression, but no estimate. */
	bool none = r->status == RUN_FAILED || !w->nhistory;
	json_t *o, *list;

	if (!w->on)
		return json_null();
	o = json_object();
	list = json_array();
	for (unsigned int i = 0; i < w->nhistory && !none; i++)
		json_array_append_new(list, point_json(&w->history[i]));
	json_object_set_new(o, "pages", none ? json_null() : json_integer((json_int_t)w->pages));
	json_object_set_new(o, "fraction", none ? json_null() : result_real(w->fraction));
	json_object_set_new(o, "samples", json_integer(w->samples));
	json_object_set_new(o, "period_s", result_real(w->period_s));
	json_object_set_new(o, "cpu_seconds", none ? json_null() : result_real(w->cpu_s));
	json_object_set_new(o, "handler_cpu_seconds",
			    none ? json_null() : result_real(w->handler_cpu_s));
	json_object_set_new(o, "history", list);
	return o;
}

bool result_wset_bytes(const struct run_result *r, uint64_t *bytes)
{
	unsigned int known = 0;

	*bytes = 0;
	for (unsigned int i = 0; r->guest && i < r->guests; i++) {
		known += r->guest[i].wset.nhistory > 0;
		*bytes += r->guest[i].wset.pages * OB_PAGE_SIZE;
	}
	return known && known == r->guests;
}
