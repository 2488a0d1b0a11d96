/* SPDX-License-Identifier: Apache-2.0 */
/* pure_serial_irq.c: the 16550's interrupt line and its input, as a driver uses them. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "kernel/device.h"

#define IER_RDI	 1
#define IER_THRI 2

/* What the interrupt controller sees: edges are latched until they are taken. */
struct pic {
	struct serial *s;
	_Atomic bool level;
	_Atomic unsigned int rises, falls, inside, calls_at_once;
	bool use_in_call;
};

static void out(struct serial *s, unsigned int reg, uint8_t v)
{
	serial_bus_ops.write(s, reg, 1, v);
}

static uint8_t in(struct serial *s, unsigned int reg)
{
	return (uint8_t)serial_bus_ops.read(s, reg, 1);
}

static void on_irq(void *arg, bool level)
{
	struct pic *p = arg;

	if (atomic_fetch_add(&p->inside, 1))
		p->calls_at_once++;
	cr_assert_neq(p->level, level, "only changes are told");
	p->level = level;
	*(level ? &p->rises : &p->falls) += 1;
	/* Nothing is locked: the device may be used. */
	in(p->s, 5);
	atomic_fetch_sub(&p->inside, 1);
}

static void wire(struct serial *s, struct pic *p)
{
	*p = (struct pic){.s = s};
	serial_init(s, -1);
	serial_on_irq(s, on_irq, p);
}

Test(serial_irq, the_line_is_high_while_something_is_identified)
{
	struct serial s;
	struct pic p;

	wire(&s, &p);
	cr_assert_eq(serial_input(&s, "ab", 2), 2);
	cr_assert(!p.level, "not enabled");
	out(&s, 1, IER_RDI);
	cr_assert(p.level);
	cr_assert_eq(in(&s, 2) & 0x0f, 4);
	cr_assert_eq(in(&s, 5) & 1, 1);
	cr_assert_eq(in(&s, 0), 'a');
	cr_assert(p.level, "one byte more");
	cr_assert_eq(in(&s, 0), 'b');
	cr_assert(!p.level);
	cr_assert_eq(in(&s, 5) & 1, 0);
	cr_assert_eq(in(&s, 2) & 0x0f, 1);
	serial_input(&s, "c", 1);
	cr_assert(p.level);
	out(&s, 1, 0);
	cr_assert(!p.level, "disabled");
	cr_assert_eq(p.rises, 2);
	serial_exit(&s);
}

Test(serial_irq, transmitter_empty_is_an_edge_for_each_time_it_is_identified)
{
	struct serial s;
	struct pic p;

	wire(&s, &p);
	out(&s, 0, 'x');
	cr_assert_eq(p.rises, 0);
	out(&s, 1, IER_THRI);
	cr_assert(p.level, "it is empty");
	cr_assert_eq(in(&s, 2) & 0x0f, 2);
	cr_assert(!p.level, "reading acknowledges");
	for (unsigned int i = 0; i < 5; i++) {
		out(&s, 0, 'x');
		out(&s, 0, 'y');
		cr_assert(p.level);
		cr_assert_eq(p.rises, 2 + i, "both are one");
		cr_assert_eq(in(&s, 2) & 0x0f, 2);
	}
	/* As Linux tests for a UART that forgets: off and on again must bring it back. */
	cr_assert(!p.level);
	out(&s, 1, 0);
	out(&s, 1, IER_THRI);
	cr_assert(p.level);
	cr_assert_eq(in(&s, 2) & 0x0f, 2);
	serial_exit(&s);
}

Test(serial_irq, data_comes_before_the_transmitter)
{
	struct serial s;
	struct pic p;

	wire(&s, &p);
	out(&s, 1, IER_RDI | IER_THRI);
	serial_input(&s, "k", 1);
	cr_assert_eq(in(&s, 2) & 0x0f, 4);
	in(&s, 0);
	cr_assert(p.level);
	cr_assert_eq(in(&s, 2) & 0x0f, 2);
	cr_assert(!p.level);
	serial_exit(&s);
}

/* One access that is two, between which the line was low: there must be an edge. */
Test(serial_irq, a_fall_in_between_is_told)
{
	struct serial s;
	struct pic p;

	wire(&s, &p);
	out(&s, 1, IER_THRI);
	cr_assert_eq(p.rises, 1);
	/* Off, then on: as two ports of one access, ports 0 and 1 of which the first sends. */
	out(&s, 1, 0);
	serial_bus_ops.write(&s, 0, 2, 'z' | IER_THRI << 8);
	cr_assert_eq(p.rises, 2);
	cr_assert_eq(p.falls, 1);
	serial_exit(&s);
}

Test(serial_irq, input_is_bounded_and_cleared)
{
	struct serial s;
	struct pic p;
	char much[1000] = "q";
	size_t took;

	wire(&s, &p);
	out(&s, 1, IER_RDI);
	took = serial_input(&s, much, sizeof(much));
	cr_assert(took >= 16 && took < sizeof(much));
	cr_assert_eq(serial_input(&s, "x", 1), 0, "full");
	cr_assert_eq(in(&s, 0), 'q');
	cr_assert_eq(serial_input(&s, "x", 1), 1);
	out(&s, 2, 0x03); /* enable, clear the receiver */
	cr_assert_eq(in(&s, 5) & 1, 0);
	cr_assert(!p.level);
	cr_assert_eq(serial_input(&s, "y", 1), 1);
	cr_assert_eq(in(&s, 0), 'y');
	cr_assert_eq(in(&s, 0), 'y', "no data: what was there last");
	serial_exit(&s);
}

Test(serial_irq, loopback_cuts_the_line_from_outside)
{
	struct serial s;
	struct pic p;

	wire(&s, &p);
	out(&s, 1, IER_RDI);
	out(&s, 4, 0x10);
	cr_assert_eq(serial_input(&s, "o", 1), 0);
	out(&s, 0, 'L');
	cr_assert(p.level);
	cr_assert_eq(in(&s, 0), 'L');
	out(&s, 4, 0);
	cr_assert_eq(serial_input(&s, "o", 1), 1);
	serial_exit(&s);
}

Test(serial_irq, a_reset_is_power_on)
{
	struct serial s;
	struct pic p;
	char line[16];

	wire(&s, &p);
	out(&s, 0, 'k');
	out(&s, 1, IER_RDI | IER_THRI);
	out(&s, 3, 0x83);
	out(&s, 7, 9);
	serial_input(&s, "abc", 3);
	cr_assert(p.level);
	serial_reset(&s);
	cr_assert(!p.level);
	cr_assert_eq(in(&s, 1), 0);
	cr_assert_eq(in(&s, 3), 0);
	cr_assert_eq(in(&s, 5), 0x60);
	cr_assert_eq(in(&s, 7), 0);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "k", "output is kept");
	serial_exit(&s);
}

/* --- two threads ------------------------------------------------------------------------------ */

struct typist {
	struct serial *s;
	unsigned int n;
};

static void *type_all(void *arg)
{
	struct typist *t = arg;

	for (unsigned int i = 0; i < t->n;) {
		uint8_t c = (uint8_t)i;

		i += (unsigned int)serial_input(t->s, &c, 1);
	}
	return NULL;
}

/*
 * A driver on an edge-triggered line: it works only when an edge has come, and then until nothing is
 * identified. Should an edge be lost, it waits for ever.
 */
Test(serial_irq, no_edge_is_lost_between_two_threads, .timeout = 60)
{
	struct serial s;
	struct pic p;
	struct typist t = {&s, 200000};
	unsigned int got = 0, seen = 0;
	pthread_t th;

	wire(&s, &p);
	out(&s, 1, IER_RDI | IER_THRI);
	cr_assert_eq(pthread_create(&th, NULL, type_all, &t), 0);
	while (got < t.n) {
		unsigned int rises = p.rises;
		uint8_t iir;

		if (rises == seen)
			continue;
		seen = rises;
		while (!((iir = in(&s, 2)) & 1)) {
			if ((iir & 0x0f) == 4) {
				cr_assert_eq(in(&s, 0), (uint8_t)got, "in order");
				got++;
			} else if (got % 7 == 0) {
				out(&s, 0, '.');
			}
		}
	}
	pthread_join(th, NULL);
	cr_assert_eq(p.calls_at_once, 0);
	cr_assert(p.rises - p.falls <= 1);
	serial_exit(&s);
}
