/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_ept_ask.c: the documents of `overbook ept verify` and `overbook ept walk` for one guest.
 *
 * A walk needs the vCPU's registers, which the kernel hands out only while the vCPU does not run: the
 * guest is parked for the moment of reading them and its tables.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness/cell_ept.h"
#include "harness/proto.h"

/* --- verify ------------------------------------------------------------------------------ */

static const char *seen(const struct ob_page *p)
{
	if (p->present && p->zero)
		return "the zero page";
	if (p->present)
		return p->file ? "a page of a file" : "memory of its own";
	return p->swapped ? "swapped or migrating" : "nothing";
}

static json_t *difference_json(const struct cell_guest *g, const struct ept_difference *d)
{
	char there[64];

	snprintf(there, sizeof(there), "%s%s%s", seen(&d->there), d->staged ? ", in staging " : "",
		 d->staged ? seen(&d->staging) : "");
	return json_pack("{s:I,s:I,s:s,s:s,s:s}", "page", (json_int_t)d->page, "gfn",
			 (json_int_t)gmem_page_gfn(&g->vm->mem, d->page).v, "map",
			 d->staged ? "staged" : ept_state_name(d->state), "kernel", there, "why",
			 d->why);
}

int cell_ept_verify(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		    struct ob_err *e)
{
	json_t *first = json_array();
	struct ept_verify v;
	int r = ept_verify(&g->ept, &v);

	(void)c;
	(void)doc;
	if (r) {
		json_decref(first);
		return ob_fail(e, -r, "guest %u: cannot read the kernel's page map: %s", g->id,
			       strerror(-r));
	}
	for (uint64_t i = 0; i < OB_MIN(v.differences, (uint64_t)EPT_VERIFY_FIRST); i++)
		json_array_append_new(first, difference_json(g, &v.first[i]));
	cell_ept_count(out, "pages", v.pages);
	cell_ept_count(out, "lagged", v.lagged);
	cell_ept_count(out, "differences", v.differences);
	json_object_set_new(out, "first", first);
	return 0;
}

/* --- walk -------------------------------------------------------------------------------- */

static json_t *hex(uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "0x%" PRIx64, v);
	return json_string(buf);
}

static json_t *level_json(const struct ept_walk *w, const struct ept_walk_entry *entry)
{
	json_t *o = json_object();
	char flags[40];

	snprintf(flags, sizeof(flags), "%s%s%s%s%s%s", entry->writable ? "rw" : "r-",
		 entry->nx ? "-" : "x", entry->user ? "u" : "s", entry->accessed ? "A" : "",
		 entry->dirty ? "D" : "", entry->global ? "G" : "");
	json_object_set_new(o, "name", json_string(ept_walk_level_name(w->mode, entry->level)));
	/* Entries that the CPU holds in registers lie nowhere that it would look. */
	json_object_set_new(o, "at",
			    entry->in_register ? json_string("register") : hex(entry->at.v));
	json_object_set_new(o, "entry", hex(entry->value));
	/* An entry that is not present says nothing but that. */
	json_object_set_new(o, "flags", json_string(entry->value & 1 ? flags : "-"));
	return o;
}

/* Where the page is, beyond the guest's own view of it. */
static void page_json(struct cell *c, struct cell_guest *g, gpa_t at, json_t *out)
{
	uint64_t page = gmem_gfn_page(&g->vm->mem, gpa_gfn(at));
	struct ob_page view = {0};
	json_t *o = json_object();
	enum ept_state s;
	hva_t h;

	json_object_set_new(out, "page", o);
	if (page == UINT64_MAX) {
		json_object_set_new(o, "state", json_string("not RAM"));
		return;
	}
	ept_sync(&g->ept, page, 1, &view);
	s = ept_state_of(&g->ept, page);
	h = gmem_page_hva(&g->vm->mem, page);
	json_object_set_new(o, "state", json_string(ept_state_name(s)));
	json_object_set_new(o, "staged", json_boolean(ept_is_staged(&g->ept, page)));
	json_object_set_new(o, "frame",
			    s == EPT_SHARED ? json_integer(ept_frame_of(&g->ept, page))
					    : json_null());
	json_object_set_new(o, "hva", hex(h.v + (at.v & OB_PAGE_MASK)));
	json_object_set_new(o, "pfn",
			    view.present && c->host.knows_pfn ? json_integer((json_int_t)view.pfn)
							      : json_null());
}

static void cost_json(const struct ept_walk *w, json_t *out)
{
	struct ept_walk_cost cost;
	json_t *o = json_object();

	json_object_set_new(out, "references", o);
	/* On a host with tables of four levels that map the guest by small pages: the common case. */
	if (ept_walk_cost(w, 4, OB_PAGE_SIZE, &cost))
		return;
	cell_ept_count(o, "native", cost.native);
	cell_ept_count(o, "nested", cost.nested);
	cell_ept_count(o, "shadow", cost.shadow);
}

static void walk_json(struct cell *c, struct cell_guest *g, const struct ept_walk *w, json_t *out)
{
	bool ok = w->stop == EPT_WALK_DONE;
	json_t *levels = json_array();

	for (unsigned int i = 0; i < w->n; i++)
		json_array_append_new(levels, level_json(w, &w->entry[i]));
	json_object_set_new(out, "gva", hex(w->gva.v));
	json_object_set_new(out, "mode", json_string(ept_walk_mode_name(w->mode)));
	json_object_set_new(out, "levels", levels);
	json_object_set_new(out, "ok", json_boolean(ok));
	if (ok) {
		json_object_set_new(out, "gpa", hex(w->gpa.v));
		cell_ept_count(out, "page_size", w->page_size);
		json_object_set_new(out, "writable", json_boolean(w->writable));
		json_object_set_new(out, "user", json_boolean(w->user));
		json_object_set_new(out, "nx", json_boolean(w->nx));
		page_json(c, g, w->gpa, out);
	} else {
		json_object_set_new(out, "stop", json_string(ept_walk_stop_name(w->stop)));
		json_object_set_new(out, "stop_level",
				    json_string(ept_walk_level_name(w->mode, w->level)));
	}
	cost_json(w, out);
}

int cell_ept_walk(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		  struct ob_err *e)
{
	const struct ept_walk_mem mem = {.read = ept_walk_read_gmem, .arg = &g->vm->mem};
	gva_t gva = {(uint64_t)json_integer_value(json_object_get(doc, "gva"))};
	struct vcpu_paging regs;
	struct ept_walk w;
	int r;

	vm_park(g->vm);
	r = vcpu_read_paging(g->vm, 0, &regs, e);
	if (!r) {
		r = ept_walk(&regs, &mem, gva, &w);
		if (r == -EFAULT)
			r = 0; /* that is an answer, too */
		else if (r)
			ob_fail(e, -r, "guest %u: cannot walk its page tables: %s", g->id,
				strerror(-r));
	}
	vm_unpark(g->vm);
	if (!r)
		walk_json(c, g, &w, out);
	return r;
}
