/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_linux.c: Linux guests as the coordinator sees them: what the cells are told of them, who has
 * not booted in time, and how the console of one that failed ends.
 */
#include <limits.h>
#include <string.h>

#include "harness/coord.h"
#include "harness/proto.h"

json_t *coord_linux_doc(const struct fleet_config *cfg)
{
	const struct linux_opts *l = &cfg->lx;
	json_t *o;

	if (!l->on)
		return json_null();
	o = json_pack("{s:I,s:b,s:b,s:I,s:s}", "vcpus", (json_int_t)l->vcpus, "agent",
		      (int)l->agent, "input", (int)l->input, "boot_timeout",
		      (json_int_t)l->boot_timeout, "initrd", l->initrd ? l->initrd : "");
	OB_ASSERT(o);
	return o;
}

void coord_linux_guest(const struct fleet_config *cfg, unsigned int guest, json_t *doc)
{
	json_t *disks = json_array();
	char path[PATH_MAX];

	for (unsigned int i = 0; i < cfg->lx.ndisks; i++) {
		linux_disk_path(cfg, i, guest, path, sizeof(path));
		OB_ASSERT(!json_array_append_new(
			disks, json_pack("[s,b]", path, (int)cfg->lx.disk[i].rw)));
	}
	json_object_set_new(doc, "disks", disks);
}

/* The end of a console, to standard error, unless it was on the terminal all the time. */
static void say_tail(const struct coord *c, const struct run_guest *g)
{
	const char *p = g->console_tail;

	if (c->cfg->console_fd > 0 || !*p)
		return;
	fprintf(stderr, "  the end of the console of guest %u:\n", g->id);
	while (*p) {
		int n = (int)strcspn(p, "\n");

		fprintf(stderr, "  | %.*s\n", n, p);
		p += n;
		p += *p == '\n';
	}
}

void coord_linux_take(struct coord *c, struct run_guest *g, const json_t *guest)
{
	const char *tail = proto_str(guest, "tail");

	if (!c->cfg->lx.on)
		return;
	g->reboots = (unsigned int)proto_u64(guest, "reboots");
	g->silent = json_is_true(json_object_get(guest, "silent"));
	if (*tail && !*g->console_tail) {
		snprintf(g->console_tail, sizeof(g->console_tail), "%.*s",
			 (int)sizeof(g->console_tail) - 1, tail);
		say_tail(c, g);
	}
}

int coord_linux_boot_time(struct coord *c, struct ob_err *e)
{
	const struct linux_opts *l = &c->cfg->lx;

	if (!l->on || c->said_booting ||
	    coord_now(c) < c->boot_ns + l->boot_timeout * OB_NS_PER_SEC)
		return 0;
	c->said_booting = true;
	if (l->agent)
		return coord_ask(c, json_pack("{s:s,s:b}", "do", "fail-cold", "booting", 1), 10000,
				 NULL, e);
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		if (c->out->guest[i].silent && !c->guest[i].ended)
			ob_warn("guest %u has written nothing to its console in %u s: is "
				"console=ttyS0 the last console= of its kernel, and has that a "
				"driver for it?",
				i, l->boot_timeout);
	return 0;
}

bool coord_linux_all_off(const struct coord *c)
{
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		if (c->cfg->lx.agent && strcmp(c->out->guest[i].end, "exit"))
			return false;
	return c->cfg->lx.on;
}
