/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial.c: a 16550 UART: its registers, its interrupt and its input. What the guest prints goes to
 * serial_out.c.
 *
 * The transmitter is always empty, so a driver that polls the line status never waits. Loopback mode
 * works, because Linux probes with it.
 *
 * The interrupt line is high while an interrupt is identified: data is there, or the transmitter has
 * become empty (which it always is, so: at a write, and when that interrupt is enabled), and each is
 * enabled. Reading the identification acknowledges the second. On a PC the line triggers by its edge,
 * and drivers then go on until nothing is identified, which is when the line is low; so it is enough
 * that each rise is told. OUT2, which gates the line on a real board, is not looked at.
 *
 * The line is told with nothing locked, since it goes to KVM and may do what it likes. Two threads
 * (the vCPU, and whoever types) may change it at once: one of them tells, and also what the other has
 * changed meanwhile, in order. A fall in between is never left out: it is what makes the next edge.
 *
 * The lock is there because of that, and because reports are read while the guest prints. It is held
 * over the wait for a console that is slow (serial_out.c): the only one that then waits is the guest
 * itself, or someone who wants its last line.
 */
#include <string.h>

#include "kernel/serial_int.h"

/* Registers, by port offset. */
enum {
	REG_DATA = 0, /* RBR, THR; DLL when DLAB is set */
	REG_IER = 1,  /* DLM when DLAB is set */
	REG_IIR = 2,  /* read; FCR on write */
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

#define IER_RDI	     0x01
#define IER_THRI     0x02
#define IIR_NONE     0x01
#define IIR_THRI     0x02
#define IIR_RDI	     0x04
#define IIR_FIFO     0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB     0x80
#define MCR_LOOP     0x10
#define LSR_DR	     0x01
#define LSR_TX_EMPTY 0x60 /* holding register and shifter */
#define MSR_CTS	     0x10
#define MSR_DSR	     0x20
#define MSR_RI	     0x40
#define MSR_DCD	     0x80

static uint8_t read_iir(struct serial *s)
{
	uint8_t fifo = s->fcr & FCR_ENABLE ? IIR_FIFO : 0;

	if (s->ier & IER_RDI && s->rx_fill)
		return fifo | IIR_RDI;
	if (s->ier & IER_THRI && s->thre) {
		s->thre = false; /* reading it acknowledges it */
		return fifo | IIR_THRI;
	}
	return fifo | IIR_NONE;
}

/* --- what was received ------------------------------------------------------------------------ */

static bool rx_put(struct serial *s, uint8_t c)
{
	if (s->rx_fill == sizeof(s->rx))
		return false;
	s->rx[(s->rx_at + s->rx_fill++) % sizeof(s->rx)] = c;
	return true;
}

/* The next byte; with none, the last one again, as a real one does. */
static uint8_t rx_get(struct serial *s)
{
	uint8_t c = s->rx[s->rx_at];

	if (!s->rx_fill)
		return s->rx[(s->rx_at + sizeof(s->rx) - 1) % sizeof(s->rx)];
	s->rx_at = (s->rx_at + 1) % sizeof(s->rx);
	s->rx_fill--;
	return c;
}

/* --- registers -------------------------------------------------------------------------------- */

/* In loopback the modem control outputs come back as modem status inputs. */
static uint8_t read_msr(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uint8_t)((s->mcr & 0x02 ? MSR_CTS : 0) | (s->mcr & 0x01 ? MSR_DSR : 0) |
			 (s->mcr & 0x04 ? MSR_RI : 0) | (s->mcr & 0x08 ? MSR_DCD : 0));
}

static uint8_t read_reg(struct serial *s, uint64_t off)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (off) {
	case REG_DATA:
		if (dlab)
			return s->dll;
		return rx_get(s);
	case REG_IER:
		return dlab ? s->dlm : s->ier;
	case REG_IIR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_TX_EMPTY | (s->rx_fill ? LSR_DR : 0);
	case REG_MSR:
		return read_msr(s);
	case REG_SCR:
		return s->scr;
	default:
		return 0xff;
	}
}

static void write_data(struct serial *s, uint8_t v)
{
	if (s->mcr & MCR_LOOP)
		rx_put(s, v);
	else
		serial_put(s, v);
	s->thre = true; /* sent at once */
}

static void write_reg(struct serial *s, uint64_t off, uint8_t v)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (off) {
	case REG_DATA:
		if (dlab)
			s->dll = v;
		else
			write_data(s, v);
		break;
	case REG_IER:
		if (dlab) {
			s->dlm = v;
			break;
		}
		if (v & IER_THRI && !(s->ier & IER_THRI))
			s->thre = true;
		s->ier = v & 0x0f;
		break;
	case REG_IIR:
		s->fcr = v & FCR_ENABLE;
		if (v & FCR_CLEAR_RX)
			s->rx_fill = 0;
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		s->mcr = v & 0x1f;
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

/* --- the interrupt line ----------------------------------------------------------------------- */

/* Under the lock, after whatever may have changed it. */
static void irq_update(struct serial *s)
{
	bool level = (s->ier & IER_RDI && s->rx_fill) || (s->ier & IER_THRI && s->thre);

	s->irq_dropped |= s->irq_level && !level;
	s->irq_level = level;
}

/* Tell what has changed, unless another thread is at it. With the lock held, dropped in between. */
static void irq_tell(struct serial *s)
{
	if (s->irq_telling || !s->irq)
		return;
	s->irq_telling = true;
	while (s->irq_told != s->irq_level || (s->irq_told && s->irq_dropped)) {
		bool level = s->irq_level && !(s->irq_told && s->irq_dropped);

		s->irq_dropped = false;
		s->irq_told = level;
		ob_unlock(&s->lock);
		s->irq(s->irq_arg, level);
		ob_lock(&s->lock);
	}
	s->irq_dropped = false;
	s->irq_telling = false;
}

/* --- what others call ------------------------------------------------------------------------- */

/* A wider access is one to each port in turn, as on the ISA bus. */
static uint64_t serial_read(void *dev, uint64_t off, unsigned int size)
{
	struct serial *s = dev;
	uint64_t v = 0;

	ob_lock(&s->lock);
	for (unsigned int i = 0; i < size; i++) {
		v |= (uint64_t)read_reg(s, off + i) << (8 * i);
		irq_update(s);
	}
	irq_tell(s);
	ob_unlock(&s->lock);
	return v;
}

static void serial_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct serial *s = dev;
	char line[SERIAL_LINE];
	bool tell;

	ob_lock(&s->lock);
	for (unsigned int i = 0; i < size; i++) {
		write_reg(s, off + i, (uint8_t)(value >> (8 * i)));
		irq_update(s);
	}
	irq_tell(s);
	tell = s->panic_over && !s->panic_told && s->panicked;
	if (tell) {
		s->panic_told = true;
		memcpy(line, s->panic, sizeof(line));
	}
	ob_unlock(&s->lock);
	if (tell)
		s->panicked(s->panic_arg, line);
}

const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
};

void serial_init(struct serial *s, int fd)
{
	*s = (struct serial){.fd = fd};
	serial_out_init(s);
	ob_mutex_init(&s->lock, OB_RANK_SERIAL);
}

void serial_on_irq(struct serial *s, void (*irq)(void *arg, bool level), void *arg)
{
	s->irq = irq;
	s->irq_arg = arg;
}

void serial_on_panic(struct serial *s, void (*panicked)(void *arg, const char *line), void *arg)
{
	s->panicked = panicked;
	s->panic_arg = arg;
}

size_t serial_input(struct serial *s, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	size_t took = 0;

	ob_lock(&s->lock);
	/* In loopback the line from outside is cut off; what comes then waits outside. */
	while (took < n && !(s->mcr & MCR_LOOP) && rx_put(s, p[took]))
		took++;
	irq_update(s);
	irq_tell(s);
	ob_unlock(&s->lock);
	return took;
}

void serial_reset(struct serial *s)
{
	ob_lock(&s->lock);
	s->ier = s->lcr = s->mcr = s->scr = s->dll = s->dlm = s->fcr = 0;
	s->thre = false;
	s->rx_at = s->rx_fill = 0;
	serial_out_reset(s);
	irq_update(s);
	irq_tell(s);
	ob_unlock(&s->lock);
}

void serial_exit(struct serial *s)
{
	serial_flush(s);
	ob_mutex_destroy(&s->lock);
}
