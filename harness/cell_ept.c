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

#include "harness/cell_ept.h"
#include "harness/proto.h"

typedef int (*ept_question_fn)(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
			       struct ob_err *e);

static const struct {
	const char *what;
	ept_question_fn ask;
} questions[] = {
	{"ept-stat", cell_ept_stat},
	{"ept-verify", cell_ept_verify},
	{"ept-walk", cell_ept_walk},
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
