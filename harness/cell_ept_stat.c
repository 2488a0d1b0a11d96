/* SPDX-License-Identifier: Apache-2.0 */
/* cell_ept_stat.c: the document of `overbook ept stat` for one guest. */
#include <string.h>

#include "harness/cell_ept.h"

void cell_ept_count(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)OB_MIN(v, (uint64_t)INT64_MAX)));
}

static json_t *states_json(const struct ept_stats *st)
{
	json_t *o = json_object();

	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		cell_ept_count(o, ept_state_name((enum ept_state)s), st->state[s]);
	return o;
}

static json_t *counters_json(const struct ept_stats *st)
{
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {
		{"touched", st->touched},
		{"broken", st->broken},
		{"shared", st->shared},
		{"dropped", st->dropped},
		{"taken", st->taken},
		{"put_back", st->put_back},
		{"tiered", st->tiered},
		{"ballooned", st->ballooned},
		{"freed_bytes", st->freed_bytes},
		{"dma_left_out", st->dma_left_out},
		{"dma_waits", st->dma_waits},
		{"pinned", st->pinned},
		{"windows", st->windows},
	};
	json_t *o = json_object();

	/* States and staged have a place of their own. */
	_Static_assert(sizeof(*st) / 8 == EPT_NSTATES + 1 + OB_ARRAY_SIZE(all),
		       "a counter is missing here");
	for (size_t i = 0; i < OB_ARRAY_SIZE(all); i++)
		cell_ept_count(o, all[i].name, all[i].value);
	return o;
}

/* Times are of the handler; breaks are the kernel's own, and have none. */
static json_t *faults_json(struct ept *e)
{
	struct ept_faults f;
	json_t *all = json_object();

	ept_read_faults(e, &f);
	for (unsigned int k = 0; k < EPT_NOUTCOMES; k++) {
		enum ept_outcome outcome = (enum ept_outcome)k;
		json_t *o = json_object();

		cell_ept_count(o, "count", f.count[k]);
		cell_ept_count(o, "pages", f.pages[k]);
		if (f.count[k] && outcome != EPT_FAULT_BROKEN) {
			cell_ept_count(o, "p50_ns", ept_fault_latency(&f, outcome, 0.5));
			cell_ept_count(o, "p99_ns", ept_fault_latency(&f, outcome, 0.99));
			cell_ept_count(o, "p999_ns", ept_fault_latency(&f, outcome, 0.999));
		}
		json_object_set_new(all, ept_outcome_name(outcome), o);
	}
	return all;
}

int cell_ept_stat(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		  struct ob_err *e)
{
	int r = ept_sync(&g->ept, 0, g->ept.pages, NULL);
	struct ept_stats st;
	json_t *kvm;

	(void)doc;
	if (r)
		return ob_fail(e, -r, "guest %u: cannot read the kernel's page map: %s", g->id,
			       strerror(-r));
	ept_read_stats(&g->ept, &st);
	json_object_set_new(out, "cell", json_integer(c->number));
	json_object_set_new(out, "domain", json_string(c->domain_name));
	if (!c->kvm_mode)
		c->kvm_mode = kvm_mode_name(kvm_mode_detect());
	json_object_set_new(out, "mode", json_string(c->kvm_mode));
	cell_ept_count(out, "pages", g->ept.pages);
	json_object_set_new(out, "states", states_json(&st));
	cell_ept_count(out, "staged", st.staged);
	json_object_set_new(out, "faults", faults_json(&g->ept));
	if (ept_huge_on(&g->ept))
		json_object_set_new(out, "huge", cell_huge_json(g));
	json_object_set_new(out, "counters", counters_json(&st));
	cell_wset_stat(c, (unsigned int)(g - c->guest), out);
	kvm = cell_kvmstat_named(g);
	if (kvm)
		json_object_set_new(out, "kvm", kvm);
	return 0;
}
