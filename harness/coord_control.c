/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_control.c: what can be asked and done over the control socket while a fleet runs
 * (docs/control.md lists it for a person).
 *
 * QEMU's commands mean here what they mean there, for the fleet as a whole: `stop` parks all guests and
 * stops merging until `cont`. The clock of the run stands still as well, so that a run that was stopped
 * has measured for as long as one that was not, and the result says how long it stood. `quit` ends the
 * command as a signal would. Questions about guests' pages go to the cells that hold them: each answers
 * for its own guests, and the answers are handed on as they are. So a new figure needs no change here.
 */
#include <errno.h>
#include <string.h>

#include "harness/control.h"
#include "harness/coord.h"
#include "harness/proto.h"

/* --- the fleet as a whole ---------------------------------------------------------------- */

/* The fleet that runs behind the socket, with guests; NULL: there is none yet. */
static struct coord *running(void *ctx, struct ob_err *e)
{
	const struct control *ctl = ctx;

	if (ctl->coord && ctl->coord->stage >= COORD_READY)
		return ctl->coord;
	ob_fail(e, EAGAIN, "the guests are being made, there are none to ask yet; try again");
	return NULL;
}

static json_t *do_status(void *ctx, const json_t *args, struct ob_err *e)
{
	const struct coord *c = running(ctx, e);
	const char *status = !c ? "prelaunch" : c->stopped ? "paused" : "running";

	(void)args;
	return json_pack("{s:s,s:b}", "status", status, "running", c && !c->stopped);
}

static json_t *do_stop(void *ctx, const json_t *args, struct ob_err *e)
{
	struct coord *c = running(ctx, e);
	uint64_t now;

	(void)args;
	if (!c)
		return NULL;
	if (c->stopped)
		return json_object();
	if (coord_ask(c, json_pack("{s:s}", "do", "pause"), COORD_ASK_MS, NULL, e))
		return NULL;
	now = c->host.ops->now_ns(&c->host);
	c->stopped_ns = now;
	c->stopped = true;
	/* Linux KSM would otherwise go on, and gain time that is not counted. */
	if (c->driving)
		ksm_driver_hold(true);
	coord_progress(c, "stopped, until cont on the control socket");
	control_event(ctx, "STOP", NULL);
	return json_object();
}

static json_t *do_cont(void *ctx, const json_t *args, struct ob_err *e)
{
	struct coord *c = running(ctx, e);

	(void)args;
	if (!c)
		return NULL;
	if (!c->stopped)
		return json_object();
	if (c->driving)
		ksm_driver_hold(false);
	c->stood_ns += c->host.ops->now_ns(&c->host) - c->stopped_ns;
	c->stopped = false;
	if (coord_ask(c, json_pack("{s:s}", "do", "resume"), COORD_ASK_MS, NULL, e))
		return NULL;
	coord_progress(c, "going on");
	control_event(ctx, "RESUME", NULL);
	return json_object();
}

static json_t *do_quit(void *ctx, const json_t *args, struct ob_err *e)
{
	(void)ctx;
	(void)args;
	(void)e;
	/* A signal that came first keeps its right. */
	if (!ob_stop_signal)
		ob_stop_signal = OB_STOP_CONTROL;
	return json_object();
}

/* --- guests ------------------------------------------------------------------------------ */

/* What a cell says of its guests goes behind what others said. */
static void gather(struct coord *c, const json_t *list)
{
	const json_t *doc;
	size_t i;

	json_array_foreach (list, i, doc)
		json_array_append(c->answers, (json_t *)(uintptr_t)doc);
}

static void gather_vms(struct coord *c, unsigned int cell, const json_t *a)
{
	(void)cell;
	gather(c, json_object_get(a, "vms"));
}

/* One guest as a sample has it, less what is for the result only. */
static void gather_sample(struct coord *c, unsigned int cell, const json_t *a)
{
	const json_t *guests = json_object_get(a, "guests"), *g;
	size_t i;

	json_array_foreach (guests, i, g) {
		uint64_t id = proto_u64(g, "id");

		if (id >= c->cfg->guests)
			continue;
		json_array_append_new(
			c->answers,
			json_pack("{s:I,s:I,s:s,s:s,s:s,s:s,s:I,s:I,s:I}", "vm", (json_int_t)id,
				  "cell", (json_int_t)cell, "domain",
				  c->out->domain[c->out->guest[id].domain].name, "workload",
				  c->out->guest[id].workload, "end", proto_str(g, "end"), "reason",
				  proto_str(g, "reason"), "ops", (json_int_t)proto_u64(g, "ops"),
				  "checked_pages", (json_int_t)proto_u64(g, "checked"),
				  "mismatches", (json_int_t)proto_u64(g, "mismatches")));
	}
}

static json_t *do_guests(void *ctx, const json_t *args, struct ob_err *e)
{
	struct coord *c = running(ctx, e);
	json_t *list;
	int r;

	(void)args;
	if (!c)
		return NULL;
	list = c->answers = json_array();
	r = coord_ask(c, json_pack("{s:s,s:b,s:b}", "do", "sample", "meter", 0, "full", 0),
		      COORD_ASK_MS, gather_sample, e);
	c->answers = NULL;
	if (!r)
		return list;
	json_decref(list);
	return NULL;
}

/* --- the sharing mode ---------------------------------------------------------------------- */

/* How the switch under way, or the last one, went. */
static json_t *switch_json(const struct coord_switch *sw)
{
	const struct run_switch *s = &sw->last;

	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:f,s:f}", "from", s->from, "to", s->to, "error",
			 sw->failed, "unmerged_pages", (json_int_t)s->pages, "unmerged_zero_pages",
			 (json_int_t)s->zero_pages, "given_up_bytes", (json_int_t)s->bytes,
			 "seconds", s->seconds, "longest_pause_us", s->pause_max_us);
}

static json_t *sharing_json(const struct coord *c)
{
	const struct coord_switch *sw = &c->sw;
	json_t *o = json_pack("{s:s,s:b,s:I}", "sharing", c->engine->name, "switching",
			      sw->to != NULL, "switches", (json_int_t)sw->done);

	OB_ASSERT(o);
	json_object_set_new(o, "switch", *sw->last.from ? switch_json(sw) : json_null());
	return o;
}

static json_t *do_query_sharing(void *ctx, const json_t *args, struct ob_err *e)
{
	struct coord *c = running(ctx, e);

	(void)args;
	return c ? sharing_json(c) : NULL;
}

static json_t *do_sharing(void *ctx, const json_t *args, struct ob_err *e)
{
	const char *mode = proto_str(args, "mode");
	const struct ksm_engine_ops *to = ksm_engine_find(mode);
	struct coord *c;

	if (!to) {
		ob_fail(e, EINVAL, "'%.40s': no such mode; there are off, hash and kernel", mode);
		return NULL;
	}
	c = running(ctx, e);
	if (c && c->cfg->live) {
		ob_fail(e, EINVAL, "the fleet goes through its modes by itself (--live)");
		return NULL;
	}
	return c && !coord_switch_begin(c, to, e) ? sharing_json(c) : NULL;
}

/* --- guests' pages ----------------------------------------------------------------------- */

/* Ask the cell of guest @vm. */
static int ask_one(struct coord *c, json_int_t vm, json_t *doc, struct ob_err *e)
{
	unsigned int cell;
	json_t *a = NULL;
	int r;

	if (vm < 0 || vm >= c->cfg->guests) {
		json_decref(doc);
		return ob_fail(e, ENOENT, "there is no guest %lld; there are 0 to %u",
			       (long long)vm, c->cfg->guests - 1);
	}
	cell = c->guest[vm].cell;
	r = coord_ask_one(c, cell, doc, COORD_ASK_MS, &a, e);
	if (r == -EPIPE)
		return ob_fail(e, EPIPE, "guest %lld is gone: %.200s", (long long)vm,
			       c->cell[cell].why);
	if (r)
		return r;
	gather_vms(c, cell, a);
	json_decref(a);
	return 0;
}

/*
 * Have the cells answer @what for the guest that @args names, or for all: a list with a document for
 * each. NULL with a line in @e.
 */
static json_t *ask_ept(void *ctx, const char *what, const json_t *args, uint64_t gva,
		       struct ob_err *e)
{
	const json_t *vm = json_object_get(args, "vm");
	struct coord *c = running(ctx, e);
	json_t *doc, *list;
	int r;

	if (!c)
		return NULL;
	doc = json_pack("{s:s,s:I}", "do", what, "gva", (json_int_t)gva);
	OB_ASSERT(doc);
	list = c->answers = json_array();
	if (vm) {
		json_object_set_new(doc, "vm", json_integer(json_integer_value(vm)));
		r = ask_one(c, json_integer_value(vm), doc, e);
	} else {
		r = coord_ask(c, doc, COORD_ASK_MS, gather_vms, e);
	}
	c->answers = NULL;
	if (!r)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *do_ept_stat(void *ctx, const json_t *args, struct ob_err *e)
{
	return ask_ept(ctx, "ept-stat", args, 0, e);
}

static json_t *do_ept_verify(void *ctx, const json_t *args, struct ob_err *e)
{
	return ask_ept(ctx, "ept-verify", args, 0, e);
}

static json_t *do_ept_walk(void *ctx, const json_t *args, struct ob_err *e)
{
	const char *text = proto_str(args, "gva");
	json_t *list, *walk;
	uint64_t gva;

	if (control_parse_addr(text, &gva)) {
		ob_fail(e, EINVAL,
			"gva '%.40s': not a 64-bit address; give 0x and hexadecimal digits, or a "
			"decimal number",
			text);
		return NULL;
	}
	list = ask_ept(ctx, "ept-walk", args, gva, e);
	if (!list)
		return NULL;
	walk = json_incref(json_array_get(list, 0));
	json_decref(list);
	if (!walk)
		ob_fail(e, EPROTO, "its cell has no answer");
	return walk;
}

/* ----------------------------------------------------------------------------------------- */

const struct qmp_command control_commands[] = {
	{"query-status", do_status, {{NULL, JSON_NULL, false}}},
	{"stop", do_stop, {{NULL, JSON_NULL, false}}},
	{"cont", do_cont, {{NULL, JSON_NULL, false}}},
	{"quit", do_quit, {{NULL, JSON_NULL, false}}},
	{"x-overbook-query-guests", do_guests, {{NULL, JSON_NULL, false}}},
	{"x-overbook-query-sharing", do_query_sharing, {{NULL, JSON_NULL, false}}},
	{"x-overbook-sharing", do_sharing, {{"mode", JSON_STRING, false}}},
	{"x-overbook-ept-stat", do_ept_stat, {{"vm", JSON_INTEGER, true}}},
	{"x-overbook-ept-verify", do_ept_verify, {{"vm", JSON_INTEGER, true}}},
	{"x-overbook-ept-walk",
	 do_ept_walk,
	 {{"vm", JSON_INTEGER, false}, {"gva", JSON_STRING, false}}},
};
const size_t control_ncommands = OB_ARRAY_SIZE(control_commands);
