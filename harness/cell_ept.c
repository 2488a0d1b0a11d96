/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_ept.c: the cell's side of `overbook ept`: what it knows of its guests' pages, as JSON documents
 * that coordinator and socket hand on as they are. docs/control.md has their fields; the client shows
 * those that it knows.
 *
 * Each question is a function that fills the document of one guest. It runs in the cell's main thread,
 * beside the guest unless that is parked.
 */
#include <errno.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/proto.h"

static void set_count(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)OB_MIN(v, (uint64_t)INT64_MAX)));
}

/* Pages by state, and what ept has counted. Of this moment: first touches and breaks are harvested. */
static int stat_guest(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		      struct ob_err *e)
{
	json_t *states = json_object(), *counters = json_object();
	int r = ept_sync(&g->ept, 0, g->ept.pages, NULL);
	struct ept_stats st;

	(void)doc;
	if (r) {
		json_decref(states);
		json_decref(counters);
		return ob_fail(e, -r, "guest %u: cannot read the kernel's page map: %s", g->id,
			       strerror(-r));
	}
	ept_read_stats(&g->ept, &st);
	json_object_set_new(out, "cell", json_integer(c->number));
	if (!c->kvm_mode)
		c->kvm_mode = kvm_mode_name(kvm_mode_detect());
	json_object_set_new(out, "mode", json_string(c->kvm_mode));
	set_count(out, "pages", g->ept.pages);
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		set_count(states, ept_state_name((enum ept_state)s), st.state[s]);
	json_object_set_new(out, "states", states);
	set_count(counters, "touched", st.touched);
	set_count(counters, "broken", st.broken);
	set_count(counters, "shared", st.shared);
	set_count(counters, "dropped", st.dropped);
	set_count(counters, "freed_bytes", st.freed_bytes);
	set_count(counters, "dma_left_out", st.dma_left_out);
	set_count(counters, "dma_waits", st.dma_waits);
	json_object_set_new(out, "counters", counters);
	return 0;
}

/* Fill @out for guest @g; "vm" is there. 0, or -errno with a line in @e. */
typedef int (*ept_question_fn)(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
			       struct ob_err *e);

static const struct {
	const char *what;
	ept_question_fn ask;
} questions[] = {
	{"ept-stat", stat_guest},
};

json_t *cell_ept(struct cell *c, const json_t *doc)
{
	const json_t *only = json_object_get(doc, "vm");
	const char *what = proto_str(doc, "do");
	struct ob_err e = {""};
	ept_question_fn ask = NULL;
	json_t *vms = json_array();
	int r = 0;

	for (size_t i = 0; i < OB_ARRAY_SIZE(questions); i++)
		if (!strcmp(questions[i].what, what))
			ask = questions[i].ask;
	if (!ask)
		r = ob_fail(&e, EOPNOTSUPP, "this version does not answer %.40s", what);
	for (unsigned int i = 0; i < c->nguests && !r; i++) {
		struct cell_guest *g = &c->guest[i];
		json_t *out;

		if (only && json_integer_value(only) != g->id)
			continue;
		out = json_pack("{s:I}", "vm", (json_int_t)g->id);
		r = ask(c, g, doc, out, &e);
		json_array_append_new(vms, out);
	}
	if (!r)
		return json_pack("{s:o}", "vms", vms);
	json_decref(vms);
	return json_pack("{s:s,s:I}", "error", e.msg, "errno", (json_int_t)-r);
}
