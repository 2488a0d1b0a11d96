/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_console.c: a console device (virtio 1.2, section 5.3) with one port that is no console but a
 * named stream of bytes: how a program in the guest talks to us.
 *
 * There are four queues: to and from the port, and to and from "control", on which both sides say
 * what ports there are. We have nothing to say to the program: what the driver gives us for that it gets
 * back when it resets the device. The driver says that it is there (DEVICE_READY), is told of the port
 * (PORT_ADD), says that it has it (PORT_READY), and is told its name and that our end is open. What
 * we have to say is a set of bits and no list, so a driver that asks without end costs nothing but
 * its answers, which wait until it has given us a buffer for each.
 *
 * A program opens and closes the port, and another one may open it again: whoever reads the stream
 * wants to know where one ends and the next begins. The driver waits for the answer to each control
 * message, so what was written before it is in the port's queue by then: hence all of that is handed
 * out first, and only then is the message looked at.
 *
 * All the work is done on the I/O worker, in turns of bounded length (virtio_work.c).
 */
#include <string.h>

#include "kernel/device.h"

#define CONSOLE_F_MULTIPORT (1ULL << 1)

/* Queues, as the driver sees them: "in" is to the guest. The first one, Q_IN, is never looked at. */
enum { Q_IN, Q_OUT, Q_CONTROL_IN, Q_CONTROL_OUT, NQUEUES };

#define PORT 0 /* the only one */

enum {
	EVENT_DEVICE_READY = 0,
	EVENT_PORT_ADD = 1,
	EVENT_PORT_READY = 3,
	EVENT_PORT_OPEN = 6,
	EVENT_PORT_NAME = 7,
};

_Static_assert(sizeof(struct virtio_console_control) == 8, "as the driver lays it out");

struct console_config {
	uint16_t cols, rows;
	uint32_t max_nr_ports;
};
_Static_assert(sizeof(struct console_config) == 8, "as the driver lays it out");

/* What is owed to the guest, in the order in which it is sent. */
#define OWED_ADD  1U
#define OWED_NAME 2U
#define OWED_OPEN 4U

/* Linux fills both queues to it, the unused one too, with a page of its memory for each entry, for
 * good. */
#define QUEUE_ENTRIES  32
#define NAME_MAX_BYTES 64   /* with its end */
#define OUT_BYTES      4096 /* handed out at a time */
/* Of a turn, which may end in the middle of a chain: what somebody makes of these bytes takes longer
 * than the bytes themselves. */
#define TURN_BYTES (64 * OB_KIB)

static struct virtio_console *console_of(struct virtio_dev *d)
{
	return (struct virtio_console *)(void *)((char *)d - offsetof(struct virtio_console, dev));
}

/* What is left of a turn, and which queues have had answers in it. */
struct turn {
	unsigned int requests;
	uint64_t bytes;
	unsigned int answered;
	const char *why; /* the device cannot go on */
};

/* May another chain be taken? */
static bool turn_goes_on(struct virtio_console *c, const struct turn *t)
{
	return !t->why && t->requests < VIRTIO_TURN_REQUESTS && t->bytes < TURN_BYTES &&
	       virtio_dev_live(&c->dev);
}

static bool take(struct virtio_console *c, struct turn *t, unsigned int q, struct virtq_chain *ch)
{
	if (!turn_goes_on(c, t) || !virtio_dev_pop(&c->dev, q, ch, &t->why))
		return false;
	t->requests++;
	return true;
}

static void give(struct virtio_console *c, struct turn *t, unsigned int q, uint16_t head,
		 uint32_t len)
{
	if (!t->why)
		t->why = virtio_dev_push(&c->dev, q, head, len);
	t->answered |= 1U << q;
}

/* --- from the port ---------------------------------------------------------------------------- */

/* Hand out what is in the chain that was taken, as far as this turn goes. True: all of it. */
static bool out_chain(struct virtio_console *c, struct turn *t)
{
	uint8_t bytes[OUT_BYTES];

	while (c->out_buf < c->out.n) {
		const struct virtq_buf *b = &c->out.buf[c->out_buf];
		uint32_t part = OB_MIN(b->len - c->out_at, (uint32_t)sizeof(bytes));

		if (t->bytes >= TURN_BYTES || !virtio_dev_live(&c->dev))
			return false;
		if (virtio_dev_read(&c->dev, gpa(b->gpa.v + c->out_at), bytes, part)) {
			t->why = "console output that cannot be read";
			return false;
		}
		atomic_fetch_add_explicit(&c->out_bytes, part, memory_order_relaxed);
		c->ops->out(c->arg, bytes, part);
		t->bytes += part;
		c->out_at += part;
		if (c->out_at == b->len) {
			c->out_buf++;
			c->out_at = 0;
		}
	}
	return true;
}

/* All that the guest has written; false when the turn is over before. */
static bool run_out(struct virtio_console *c, struct turn *t)
{
	while (c->out_taken || take(c, t, Q_OUT, &c->out)) {
		if (!c->out_taken) {
			c->out_taken = true;
			c->out_buf = c->out_at = 0;
		}
		if (c->out.write_len)
			t->why = "console output with a buffer that is to be written";
		if (t->why || !out_chain(c, t))
			return false;
		c->out_taken = false;
		give(c, t, Q_OUT, c->out.head, 0);
	}
	return turn_goes_on(c, t);
}

/* --- control ---------------------------------------------------------------------------------- */

static void set_open(struct virtio_console *c, bool open)
{
	if (c->open == open)
		return;
	c->open = open;
	if (c->ops->opened)
		c->ops->opened(c->arg, open);
}

static void control_message(struct virtio_console *c, const struct virtio_console_control *m)
{
	/* This one is of the device; its port number says nothing. */
	if (m->event == EVENT_DEVICE_READY) {
		if (m->value)
			c->owed |= OWED_ADD;
		return;
	}
	if (m->port == PORT && m->event == EVENT_PORT_READY) {
		if (m->value)
			c->owed |= OWED_NAME | OWED_OPEN;
	} else if (m->port == PORT && m->event == EVENT_PORT_OPEN) {
		set_open(c, m->value);
	} else {
		atomic_fetch_add_explicit(&c->odd, 1, memory_order_relaxed);
	}
}

/* The first bytes of a chain that is only read. */
static const char *read_message(struct virtio_console *c, const struct virtq_chain *ch,
				struct virtio_console_control *m)
{
	char *to = (char *)m;
	uint64_t left = sizeof(*m);

	if (ch->write_len)
		return "console control message with a buffer that is to be written";
	if (ch->read_len < sizeof(*m))
		return "console control message that is cut short";
	for (unsigned int i = 0; left; i++) {
		uint64_t part = OB_MIN(left, (uint64_t)ch->buf[i].len);

		if (virtio_dev_read(&c->dev, ch->buf[i].gpa, to, part))
			return "console control message that cannot be read";
		to += part;
		left -= part;
	}
	return NULL;
}

static void run_control_out(struct virtio_console *c, struct turn *t)
{
	struct virtq_chain ch;

	/* A message that was taken waits until the port's queue is empty, over turns if need be. */
	while (run_out(c, t)) {
		if (c->asked) {
			c->asked = false;
			control_message(c, &c->question);
			give(c, t, Q_CONTROL_OUT, c->asked_head, 0);
		} else if (take(c, t, Q_CONTROL_OUT, &ch)) {
			t->why = read_message(c, &ch, &c->question);
			c->asked_head = ch.head;
			c->asked = !t->why;
		} else {
			break;
		}
	}
}

/* Write @n bytes into a chain that is only written. @n is cut to its room: returns that. */
static uint32_t fill_chain(struct virtio_console *c, struct turn *t, const struct virtq_chain *ch,
			   const uint8_t *bytes, uint64_t n)
{
	uint64_t done = 0;

	n = OB_MIN(n, ch->write_len);
	for (unsigned int i = 0; done < n; i++) {
		uint64_t part = OB_MIN(n - done, (uint64_t)ch->buf[i].len);

		if (virtio_dev_write(&c->dev, ch->buf[i].gpa, bytes + done, part)) {
			t->why = "console control buffer that cannot be written";
			break;
		}
		done += part;
	}
	return (uint32_t)done;
}

/* What is owed first, as a message. Returns its length. */
static size_t owed_message(const struct virtio_console *c, uint8_t *buf, unsigned int *bit)
{
	struct virtio_console_control m = {.port = PORT};
	size_t n = 0;

	if (c->owed & OWED_ADD) {
		*bit = OWED_ADD;
		m.event = EVENT_PORT_ADD;
	} else if (c->owed & OWED_NAME) {
		/* The name stands behind the message, without an end. */
		*bit = OWED_NAME;
		m.event = EVENT_PORT_NAME;
		m.value = 1;
		n = strlen(c->name);
		memcpy(buf + sizeof(m), c->name, n);
	} else {
		*bit = OWED_OPEN;
		m.event = EVENT_PORT_OPEN;
		m.value = 1;
	}
	memcpy(buf, &m, sizeof(m));
	return sizeof(m) + n;
}

static void run_control_in(struct virtio_console *c, struct turn *t)
{
	uint8_t message[sizeof(struct virtio_console_control) + NAME_MAX_BYTES];
	struct virtq_chain ch;
	unsigned int bit;

	while (c->owed && take(c, t, Q_CONTROL_IN, &ch)) {
		size_t n = owed_message(c, message, &bit);
		uint32_t done = 0;

		if (ch.read_len)
			t->why = "console control buffer that is not to be written";
		else if (ch.write_len < n)
			t->why = "console control buffer that is too small";
		else
			done = fill_chain(c, t, &ch, message, n);
		c->owed &= ~bit;
		give(c, t, Q_CONTROL_IN, ch.head, done);
	}
}

/* --- the work, and what the transport calls ---------------------------------------------------- */

static void console_work(struct io_work *w)
{
	struct virtio_console *c =
		(struct virtio_console *)(void *)((char *)w -
						  offsetof(struct virtio_console, work));
	struct turn t = {0};

	run_control_out(c, &t);
	run_control_in(c, &t);
	for (unsigned int q = 0; q < NQUEUES; q++)
		if (t.answered & 1U << q)
			virtio_dev_interrupt(&c->dev, q);
	if (t.why)
		virtio_dev_fail(&c->dev, t.why);
	else if (!turn_goes_on(c, &t) && virtio_dev_live(&c->dev))
		c->dev.ops->notify(&c->dev, Q_OUT);
}

static void console_notify(struct virtio_dev *d, unsigned int q)
{
	struct virtio_console *c = console_of(d);

	OB_ASSERT(q < NQUEUES);
	io_worker_queue(c->worker, &c->work);
}

static uint64_t console_config_read(struct virtio_dev *d, uint64_t off, unsigned int size)
{
	struct console_config cfg = {.max_nr_ports = 1};
	uint64_t v = 0;

	(void)d;
	if (off < sizeof(cfg) && size <= sizeof(cfg) - off)
		memcpy(&v, (const char *)&cfg + off, size);
	return v;
}

static void console_reset(struct virtio_dev *d)
{
	struct virtio_console *c = console_of(d);

	io_worker_drain(c->worker, &c->work);
	c->owed = 0;
	c->asked = false;
	c->out_taken = false;
	set_open(c, false);
}

static const struct virtio_dev_ops console_ops = {
	.device_id = 3,
	.features = CONSOLE_F_MULTIPORT | VIRTIO_F_INDIRECT_DESC,
	.nqueues = NQUEUES,
	.notify = console_notify,
	.config_read = console_config_read,
	.reset = console_reset,
};

void virtio_console_init(struct virtio_console *c, struct vm *vm, struct gmem *mem,
			 struct io_worker *w, const char *name,
			 const struct virtio_console_ops *ops, void *arg)
{
	OB_ASSERT(*name && strlen(name) < NAME_MAX_BYTES && ops->out);
	memset(c, 0, sizeof(*c));
	c->worker = w;
	c->work.run = console_work;
	c->name = name;
	c->ops = ops;
	c->arg = arg;
	virtio_dev_init(&c->dev, &console_ops, vm, mem);
	c->dev.queue_max = QUEUE_ENTRIES;
}

void virtio_console_exit(struct virtio_console *c)
{
	virtio_dev_exit(&c->dev);
}
