/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_linux.c: Linux guests as the coordinator sees them: what the cells are told of them, what is
 * remarked on one, and how its console ends then, or when it has failed.
 */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "harness/coord.h"
#include "harness/proto.h"

json_t *coord_linux_doc(const struct fleet_config *cfg)
{
	const struct linux_opts *l = &cfg->lx;
	json_t *o;

	if (!l->on)
		return json_null();
	/* Who has the console before him sees himself what it says. */
	o = json_pack("{s:I,s:b,s:b,s:I,s:I,s:s,s:b,s:s}", "vcpus", (json_int_t)l->vcpus, "agent",
		      (int)l->agent, "input", (int)l->input, "boot_timeout",
		      (json_int_t)l->boot_timeout, "hang", (json_int_t)l->hang, "ready",
		      l->ready ? l->ready : "", "remark",
		      (int)!(cfg->console_fd > 0 && isatty(cfg->console_fd)), "initrd",
		      l->initrd ? l->initrd : "");
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
	struct coord_guest *cg = &c->guest[g->id];
	unsigned int remarks = (unsigned int)proto_u64(guest, "remarks");
	bool failed = !strcmp(g->end, "failed") && !cg->told;

	if (!c->cfg->lx.on)
		return;
	g->reboots = (unsigned int)proto_u64(guest, "reboots");
	cg->silent_ns = proto_u64(guest, "silent_ns");
	if (remarks == cg->remarks && !failed)
		return;
	if (remarks > cg->remarks) {
		snprintf(g->remark, sizeof(g->remark), "%.*s", (int)sizeof(g->remark) - 1,
			 proto_str(guest, "remark"));
		ob_warn("guest %u %s", g->id, g->remark);
	}
	cg->remarks = remarks;
	cg->told |= failed;
	if (!*proto_str(guest, "tail"))
		return;
	snprintf(g->console_tail, sizeof(g->console_tail), "%.*s", (int)sizeof(g->console_tail) - 1,
		 proto_str(guest, "tail"));
	say_tail(c, g);
}

bool coord_linux_silent(const struct coord *c, char *note, size_t n)
{
	uint64_t most = LINUX_SILENT((uint64_t)c->cfg->lx.hang) * OB_NS_PER_SEC;

	for (unsigned int i = 0; c->cfg->lx.on && c->cfg->lx.agent && i < c->cfg->guests; i++) {
		const struct coord_guest *cg = &c->guest[i];

		if (cg->ended || cg->silent_ns < most)
			continue;
		snprintf(note, n, "guest %u (%s) has said nothing for %.0f s", i,
			 c->cfg->workload[i % c->cfg->nworkloads],
			 (double)cg->silent_ns / OB_NS_PER_SEC);
		return true;
	}
	return false;
}

bool coord_linux_all_off(const struct coord *c)
{
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		if (c->cfg->lx.agent && strcmp(c->out->guest[i].end, "exit"))
			return false;
	return c->cfg->lx.on;
}

bool coord_linux_agentless(const struct coord *c)
{
	return c->cfg->lx.on && !c->cfg->lx.agent;
}

bool coord_linux_from_start(const struct coord *c)
{
	return coord_linux_agentless(c) && !c->cfg->lx.ready;
}

bool coord_linux_was_ready(const struct coord *c)
{
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		if (coord_linux_agentless(c) && c->guest[i].phase >= AGENT_WARM)
			return true;
	return false;
}
