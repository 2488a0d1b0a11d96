/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_boot.c: has a Linux guest booted, and in time?
 *
 * Its agent's first report says so, or the text of --ready on its console. Who has not come so far in the
 * time that there is for it is ended. The time counts from the guest's start. When a guest that was up
 * resets, it counts anew from the reset. When one resets that was not, it does not: else a kernel that
 * panics early, and resets each time, would boot for ever.
 *
 * A guest without either is not ended, since nobody can tell one that hangs from one that has nothing to
 * say. But once a boot, when its console has been silent for that time, it is remarked on.
 *
 * A cell that is paused, or stands for want of memory, has guests that cannot boot meanwhile: the clock
 * here stands too. So it does while a disk of the host is so slow that no device is served.
 */
#include <stdio.h>
#include <string.h>

#include "harness/cell.h"

/* The guests' time. */
static uint64_t clock_ns(const struct cell *c, uint64_t host_ns)
{
	return (c->held_since_ns ? c->held_since_ns : host_ns) - c->held_ns;
}

void cell_boot_held(struct cell *c)
{
	bool held = c->paused || c->stood || c->deaf;
	uint64_t now = c->host.ops->now_ns(&c->host);

	if (held == (c->held_since_ns != 0))
		return;
	if (!held)
		c->held_ns += now - c->held_since_ns;
	c->held_since_ns = held ? now : 0;
}

static bool waits_for_text(const struct cell *c)
{
	return c->lx.on && !c->lx.agent && *c->lx.ready;
}

void cell_boot_guest(struct cell *c, struct cell_guest *g)
{
	if (waits_for_text(c))
		serial_wait_for(&g->vm->serial, c->lx.ready);
}

uint64_t cell_boot_phase(const struct cell *c, struct cell_guest *g, uint64_t said)
{
	struct serial_heard h;

	if (!c->lx.on || c->lx.agent)
		return said;
	if (!waits_for_text(c))
		return AGENT_WARM;
	serial_heard(&g->vm->serial, &h);
	return h.ready ? AGENT_WARM : AGENT_BOOT;
}

static void begin(struct cell_guest *g, const struct serial_heard *h, uint64_t now)
{
	struct cell_boot *b = &g->boot;
	/* It may have been up for so short a time that nobody looked. */
	bool was_up = b->up || h->times - h->ready > b->times;

	if (!b->begun || was_up) {
		b->since_ns = now;
		b->again = was_up;
		b->loops = 0;
	} else {
		b->loops += h->resets - b->resets;
	}
	b->begun = true;
	b->resets = h->resets;
	b->times = h->times - h->ready;
	b->up = false;
	b->bytes = 0;
	b->bytes_ns = now;
	b->remarked = false;
	/* What its agent counts begins anew. */
	g->beat_ns = g->silent_ns = 0;
}

static void fail(struct cell *c, struct cell_guest *g, const struct serial_heard *h)
{
	const struct cell_boot *b = &g->boot;
	char what[LINUX_MAX_READY + 32] = "its agent has not said anything", more[80] = "";

	if (!c->lx.agent)
		snprintf(what, sizeof(what), "has not said '%s'", c->lx.ready);
	if (b->loops)
		snprintf(more, sizeof(more), ", and has reset %u time%s", b->loops,
			 b->loops == 1 ? "" : "s");
	else if (!h->bytes && !b->again && !c->lx.agent)
		snprintf(more, sizeof(more),
			 ", nor anything else: is console=ttyS0 the last console= of its kernel?");
	vm_fail(g->vm, "did not boot%s: %s in %llu s%s", b->again ? " again" : "", what,
		(unsigned long long)(c->lx.boot_ns / OB_NS_PER_SEC), more);
}

static void watch_silence(struct cell *c, struct cell_guest *g, const struct serial_heard *h,
			  uint64_t now)
{
	unsigned long long s = c->lx.boot_ns / OB_NS_PER_SEC;
	struct cell_boot *b = &g->boot;

	if (h->bytes != b->bytes) {
		b->bytes = h->bytes;
		b->bytes_ns = now;
	}
	if (b->remarked || now - b->bytes_ns < c->lx.boot_ns || (h->bytes && !c->lx.remark))
		return;
	b->remarked = true;
	b->remarks++;
	if (!h->bytes && !b->resets)
		snprintf(b->remark, sizeof(b->remark),
			 "has written nothing to its console in %llu s: is console=ttyS0 the last "
			 "console= of its kernel, and has that a driver for it?",
			 s);
	else
		snprintf(b->remark, sizeof(b->remark),
			 "has said nothing%s on its console for %llu s%s: it hangs, or is idle, "
			 "which is all right; --ready TEXT would end one that hangs at boot",
			 h->bytes ? " more" : "", s, b->resets ? " after a reset" : "");
}

void cell_boot_watch(struct cell *c, struct cell_guest *g)
{
	uint64_t now = clock_ns(c, c->host.ops->now_ns(&c->host));
	struct cell_boot *b = &g->boot;
	struct agent_report r;
	struct serial_heard h;

	if (!c->lx.on)
		return;
	serial_heard(&g->vm->serial, &h);
	if (!b->begun || h.resets != b->resets)
		begin(g, &h, now);
	if (!c->lx.agent && !waits_for_text(c)) {
		watch_silence(c, g, &h, now);
		return;
	}
	/* In the middle of a reset its agent is forgotten, and the reset not counted yet. */
	b->up |= c->lx.agent ? agent_read_report(&g->vm->agent, &r) : h.ready;
	if (!b->up && now - b->since_ns >= c->lx.boot_ns)
		fail(c, g, &h);
}

void cell_boot_sample(const struct cell_guest *g, json_t *o)
{
	json_object_set_new(o, "remarks", json_integer(g->boot.remarks));
	json_object_set_new(o, "remark", json_string(g->boot.remark));
}
