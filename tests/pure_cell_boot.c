/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_cell_boot.c: who has booted in time, by a clock that the test turns. The VM is one without vCPUs,
 * which can still end, and say why; its agent is frames that the test sends.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cell.h"
#include "kernel/vm.h"

#define TIMEOUT 60 /* s */
#define HANG	30

struct bed {
	struct cell c;
	struct cell_guest g;
	struct ob_host_ops ops;
	uint64_t s; /* what time it is */
	struct vm vm;
	struct agent_port port;
};

/* All that the cell asks its host for. */
static uint64_t now(struct ob_host *h)
{
	const struct bed *b = (const void *)((const char *)h - offsetof(struct bed, c.host));

	return b->s * OB_NS_PER_SEC;
}

/* A guest with an agent (@ready is NULL), one that is to say @ready, or one of which nobody knows (""). */
static struct bed *bed_new(const char *ready)
{
	struct bed *b = calloc(1, sizeof(*b));

	cr_assert(b);
	b->s = 1000;
	b->ops.now_ns = now;
	b->c.host.ops = &b->ops;
	b->c.lx.on = b->c.lx.remark = true;
	b->c.lx.agent = !ready;
	b->c.lx.boot_ns = TIMEOUT * OB_NS_PER_SEC;
	b->c.lx.hang_ns = HANG * OB_NS_PER_SEC;
	strcpy(b->c.lx.ready, ready ? ready : "");
	ob_mutex_init(&b->vm.end_lock, OB_RANK_VM_END);
	serial_init(&b->vm.serial, -1);
	b->vm.agent.vm = &b->vm;
	agent_port_init(&b->port, &b->vm.agent);
	agent_port_ops.opened(&b->port, true);
	b->g.vm = &b->vm;
	cell_boot_guest(&b->c, &b->g);
	cell_boot_watch(&b->c, &b->g);
	return b;
}

static void bed_free(struct bed *b)
{
	agent_port_exit(&b->port);
	serial_exit(&b->vm.serial);
	ob_mutex_destroy(&b->vm.end_lock);
	free(b);
}

static void print(struct bed *b, const char *text)
{
	for (; *text; text++)
		serial_bus_ops.write(&b->vm.serial, 0, 1, (uint8_t)*text);
}

/* The agent reports. */
static void report(struct bed *b)
{
	struct agent_frame h = {AGENT_FRAME_MAGIC, AGENT_FRAME_REPORT, sizeof(struct agent_report)};
	struct agent_report r = {.magic = AGENT_REPORT_MAGIC};

	agent_port_ops.out(&b->port, &h, sizeof(h));
	agent_port_ops.out(&b->port, &r, sizeof(r));
}

/* As pc_reset.c does it. */
static void reset(struct bed *b)
{
	agent_port_reset(&b->port);
	serial_reset(&b->vm.serial);
}

/* So many seconds later somebody looks. Has it been ended? */
static bool later(struct bed *b, uint64_t s)
{
	b->s += s;
	cell_boot_watch(&b->c, &b->g);
	return b->vm.end == VM_END_FAILED;
}

static void why(struct bed *b, const char *reason)
{
	cr_assert_str_eq(b->vm.reason, reason);
	bed_free(b);
}

Test(cell_boot, an_agent_that_does_not_speak)
{
	struct bed *b = bed_new(NULL);

	print(b, "booting\n");
	cr_assert(!later(b, TIMEOUT - 1));
	cr_assert(later(b, 1));
	why(b, "did not boot: its agent has not said anything in 60 s");
	b = bed_new(NULL);
	report(b);
	cr_assert(!later(b, 10 * TIMEOUT), "whether it hangs later is seen by others");
	bed_free(b);
}

Test(cell_boot, an_agent_that_does_not_speak_again)
{
	struct bed *b = bed_new(NULL);

	report(b);
	cr_assert(!later(b, TIMEOUT / 2));
	b->g.beat_ns = 1;
	b->s += 10 * TIMEOUT;
	agent_port_reset(&b->port);
	cr_assert(!later(b, 0), "somebody looks in the middle of it");
	reset(b);
	cr_assert(!later(b, 0));
	cr_assert_eq(b->g.beat_ns, 0, "its heartbeat counts anew");
	cr_assert(!later(b, TIMEOUT - 1));
	report(b);
	cr_assert(!later(b, TIMEOUT));
	reset(b);
	cr_assert(!later(b, 0));
	cr_assert(later(b, TIMEOUT));
	why(b, "did not boot again: its agent has not said anything in 60 s");
}

Test(cell_boot, a_text_that_is_not_said)
{
	struct bed *b = bed_new("login:");

	cr_assert_eq(cell_boot_phase(&b->c, &b->g, AGENT_BOOT), AGENT_BOOT);
	print(b, "login\n");
	cr_assert(!later(b, TIMEOUT - 1));
	cr_assert(later(b, 1));
	why(b, "did not boot: has not said 'login:' in 60 s");
	b = bed_new("login:");
	cr_assert(later(b, TIMEOUT));
	why(b, "did not boot: has not said 'login:' in 60 s, nor anything else: is console=ttyS0 "
	       "the last console= of its kernel?");
	b = bed_new("login:");
	print(b, "login: ");
	cr_assert(!later(b, 10 * TIMEOUT));
	cr_assert_eq(cell_boot_phase(&b->c, &b->g, AGENT_BOOT), AGENT_WARM);
	cr_assert_eq(b->g.boot.remarks, 0, "it is known to be up");
	bed_free(b);
}

Test(cell_boot, a_text_that_is_not_said_again)
{
	struct bed *b = bed_new("login:");

	/* It was up, but nobody looked then. */
	cr_assert(!later(b, TIMEOUT / 2));
	print(b, "login: ");
	reset(b);
	cr_assert(!later(b, 0));
	cr_assert_eq(cell_boot_phase(&b->c, &b->g, AGENT_BOOT), AGENT_BOOT);
	print(b, "booting\n");
	cr_assert(!later(b, TIMEOUT - 1), "the clock has begun anew");
	print(b, "login: ");
	cr_assert(!later(b, 1));
	cr_assert_eq(cell_boot_phase(&b->c, &b->g, AGENT_BOOT), AGENT_WARM);
	/* Twice between two looks, and up in the first of them only. */
	reset(b);
	print(b, "login: ");
	reset(b);
	cr_assert(!later(b, TIMEOUT));
	cr_assert(!later(b, TIMEOUT - 1));
	cr_assert(later(b, 1));
	why(b, "did not boot again: has not said 'login:' in 60 s");
}

Test(cell_boot, the_first_look_is_late)
{
	struct bed *b = bed_new("login:");

	b->g.boot = (struct cell_boot){0};
	print(b, "login: ");
	reset(b);
	cr_assert(!later(b, 0));
	cr_assert(later(b, TIMEOUT));
	why(b, "did not boot again: has not said 'login:' in 60 s");
}

Test(cell_boot, resets_for_ever)
{
	struct bed *b = bed_new("login:");

	for (unsigned int i = 0; i < TIMEOUT / 10 - 1; i++) {
		print(b, "I panic, but do not say so\n");
		reset(b);
		cr_assert(!later(b, 10), "%u", i);
	}
	cr_assert(later(b, 10));
	why(b, "did not boot: has not said 'login:' in 60 s, and has reset 5 times");
}

Test(cell_boot, who_is_held_has_time)
{
	struct bed *b = bed_new("login:");

	cr_assert(!later(b, TIMEOUT / 2));
	b->c.paused = true;
	cell_boot_held(&b->c);
	cr_assert(!later(b, TIMEOUT));
	/* Held for two reasons, of which one ends. */
	b->c.stood = true;
	cell_boot_held(&b->c);
	b->c.paused = false;
	cell_boot_held(&b->c);
	cr_assert(!later(b, TIMEOUT));
	b->c.stood = false;
	cell_boot_held(&b->c);
	cr_assert(!later(b, TIMEOUT / 2 - 1));
	cr_assert(later(b, 1));
	bed_free(b);
}

Test(cell_boot, silence_is_remarked_on_once_a_boot)
{
	struct bed *b = bed_new("");

	cr_assert_eq(cell_boot_phase(&b->c, &b->g, AGENT_BOOT), AGENT_WARM, "who knows");
	for (unsigned int i = 0; i < 5; i++) {
		print(b, "booting\n");
		cr_assert(!later(b, TIMEOUT - 1));
	}
	cr_assert(!later(b, TIMEOUT - 1));
	cr_assert_eq(b->g.boot.remarks, 0);
	cr_assert(!later(b, 1));
	cr_assert_eq(b->g.boot.remarks, 1);
	cr_assert(strstr(b->g.boot.remark, "has said nothing more on its console for 60 s: "), "%s",
		  b->g.boot.remark);
	print(b, "it was idle\n");
	cr_assert(!later(b, 10 * TIMEOUT));
	cr_assert_eq(b->g.boot.remarks, 1);
	reset(b);
	cr_assert(!later(b, 0));
	cr_assert(!later(b, TIMEOUT));
	cr_assert_eq(b->g.boot.remarks, 2);
	cr_assert(strstr(b->g.boot.remark, "nothing on its console for 60 s after a reset"), "%s",
		  b->g.boot.remark);
	bed_free(b);
}

Test(cell_boot, who_sees_the_console_needs_no_remark)
{
	struct bed *b = bed_new("");

	b->c.lx.remark = false;
	print(b, "booting\n");
	cr_assert(!later(b, 2 * TIMEOUT));
	cr_assert_eq(b->g.boot.remarks, 0);
	bed_free(b);
	/* But that there is nothing to be seen. */
	b = bed_new("");
	b->c.lx.remark = false;
	cr_assert(!later(b, TIMEOUT));
	cr_assert_eq(b->g.boot.remarks, 1);
	cr_assert(strstr(b->g.boot.remark, "console=ttyS0"));
	bed_free(b);
}

/* So many seconds later, looked at each second, with this heartbeat. Has it been ended? */
static bool beats(struct bed *b, uint64_t s, uint64_t heartbeat)
{
	for (; s; s--) {
		b->s++;
		cr_assert(cell_linux_watch(&b->c, &b->g, heartbeat, now(&b->c.host)));
	}
	return b->vm.end == VM_END_FAILED;
}

Test(cell_hang, an_agent_that_falls_silent)
{
	struct bed *b = bed_new(NULL);

	b->c.lx.boot_ns = 3600 * OB_NS_PER_SEC;
	cr_assert(!beats(b, 1, 7));
	cr_assert(!beats(b, HANG - 1, 7));
	cr_assert(!beats(b, 1, 8), "it was only slow");
	cr_assert_eq(b->g.silent_ns, 0);
	cr_assert(!beats(b, HANG - 1, 8));
	cr_assert_eq(b->g.silent_ns, (HANG - 1) * OB_NS_PER_SEC);
	cr_assert(beats(b, 1, 8), "however long it may take to boot");
	why(b, "hangs: its agent has said nothing for 30 s");
}

Test(cell_hang, who_is_held_cannot_speak)
{
	struct bed *b = bed_new(NULL);

	cr_assert(!beats(b, HANG - 5, 7));
	b->c.paused = true;
	cr_assert(!beats(b, 10 * HANG, 7));
	b->c.paused = false;
	b->c.stood = true;
	cr_assert(!beats(b, 10 * HANG, 7));
	b->c.stood = false;
	b->c.deaf = true;
	cr_assert(!beats(b, 10 * HANG, 7), "a slow disk keeps its port from being heard");
	b->c.deaf = false;
	cr_assert_eq(b->g.silent_ns, (HANG - 6) * OB_NS_PER_SEC, "nor is it forgotten for that");
	/* It stood between two looks: cell_pause says so. */
	b->g.beat_ns = 0;
	b->s += HANG;
	cr_assert(!beats(b, 1, 7));
	cr_assert(!beats(b, 5, 7));
	cr_assert(beats(b, 1, 7));
	bed_free(b);
}

Test(cell_hang, a_host_on_which_nobody_can_look_is_to_blame)
{
	struct bed *b = bed_new(NULL);

	cr_assert(!beats(b, 1, 7));
	for (unsigned int i = 0; i < HANG / 2 - 1; i++) {
		b->s += 10 * HANG;
		cr_assert(!beats(b, 1, 7), "%u", i);
	}
	b->s += HANG;
	cr_assert(beats(b, 1, 7));
	bed_free(b);
}

Test(cell_hang, a_reset_is_no_silence)
{
	struct bed *b = bed_new(NULL);

	report(b);
	cr_assert(!later(b, 1));
	cr_assert(!beats(b, HANG - 1, 0));
	reset(b);
	cr_assert(!later(b, 1));
	cr_assert_eq(b->g.silent_ns, 0);
	bed_free(b);
}
