/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial.c: a 16550 UART, transmit only: what the guest prints goes to a file descriptor.
 *
 * The transmitter is always empty, so a driver that polls the line status never waits. There is no
 * interrupt line; the interrupt registers behave, so that drivers which probe them find a 16550A.
 * Loopback mode works, because Linux probes with it.
 *
 * Output is gathered into lines, so that a guest's character costs no system call; only its very
 * first goes out at once, as from outside it marks the first instruction (docs/benchmarks.md). A
 * guest decides how much it prints, so what goes into a regular file is limited: after the limit a
 * last line says so and the rest is dropped. The last part of the output is also kept in memory,
 * for reports of how a guest ended.
 *
 * A console that nobody reads must not stop a guest: while the vCPU writes it cannot be parked or
 * ended, and whoever wants that waits with it. The descriptor is not ours, so it is not made
 * non-blocking (others write through it too). Instead nothing is written before poll(2) says that
 * there is room, and never more than fits then. What has no room after a short wait is dropped and
 * counted, and when there is room again the output says how much is missing.
 *
 * The lock is there because reports are read while the guest prints. It is held over that wait: the
 * only one that then waits is the guest itself, or someone who wants its last line.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel/device.h"

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
#define LCR_DLAB     0x80
#define MCR_LOOP     0x10
#define LSR_DR	     0x01
#define LSR_TX_EMPTY 0x60 /* holding register and shifter */
#define MSR_CTS	     0x10
#define MSR_DSR	     0x20
#define MSR_RI	     0x40
#define MSR_DCD	     0x80

#define FILE_LIMIT    (16 * OB_MIB)
#define WRITE_WAIT_MS 100 /* in all, for one flush */
/* A terminal that says that it has room may have it for less than it is given, and then blocks: it
 * has for one byte, even if it makes several of it. Anything else takes the whole buffer. */
#define TTY_PART 1

static uint64_t now_ms(void)
{
	struct timespec ts;

	OB_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Is there room for a part, or will there be until @deadline? */
static bool writable(int fd, uint64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	uint64_t now;
	int r;

	do {
		now = now_ms();
		r = poll(&pfd, 1, now < deadline ? (int)(deadline - now) : 0);
	} while (r < 0 && errno == EINTR && now < deadline);
	return r > 0;
}

/*
 * Give @n bytes to the descriptor; returns how many it did not take in time. After that nothing
 * is waited for until there is room at once: who reads slowly holds the guest up once, not always.
 */
static size_t send_bytes(struct serial *s, const char *p, size_t n)
{
	uint64_t deadline = now_ms() + (s->stalled ? 0 : WRITE_WAIT_MS);

	while (n && writable(s->fd, deadline)) {
		ssize_t w = write(s->fd, p, OB_MIN(n, s->part));

		if (w > 0) {
			p += w;
			n -= (size_t)w;
		} else if (w < 0 && (errno == EINTR || errno == EAGAIN)) {
			if (now_ms() >= deadline)
				break;
		} else {
			ob_warn("console output is lost from here on: %s",
				w < 0 ? strerror(errno) : "nothing was written");
			s->fd = -1;
			return n;
		}
	}
	s->stalled = n != 0;
	return n;
}

/* There may be a gap in what was written: say so where it is. */
static bool mend_gap(struct serial *s)
{
	char note[96];
	int n;

	if (!s->stalled)
		return true;
	n = snprintf(note, sizeof(note),
		     "\n[overbook: nobody read the console, %llu bytes are lost so far]\n",
		     (unsigned long long)s->dropped);
	return !send_bytes(s, note, (size_t)n);
}

static void flush_locked(struct serial *s)
{
	static const char over[] = "\n[overbook: output limit reached, the rest is dropped]\n";
	size_t left = s->fill;

	if (s->fd >= 0 && s->fill && s->sent + s->fill > s->limit) {
		send_bytes(s, over, sizeof(over) - 1);
		s->fd = -1;
	} else if (s->fd >= 0 && s->fill) {
		if (mend_gap(s))
			left = send_bytes(s, s->buf, s->fill);
		s->sent += s->fill - left;
		s->dropped += left;
	}
	s->fill = 0;
}

static void put_char(struct serial *s, uint8_t c)
{
	s->tail[s->total++ % sizeof(s->tail)] = (char)c;
	s->buf[s->fill++] = (char)c;
	if (c == '\n' || s->fill == sizeof(s->buf) || s->total == 1)
		flush_locked(s);
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t fifo = s->fcr & FCR_ENABLE ? IIR_FIFO : 0;

	if (s->ier & IER_RDI && s->rx_full)
		return fifo | IIR_RDI;
	if (s->ier & IER_THRI && s->thre) {
		s->thre = false; /* reading it acknowledges it */
		return fifo | IIR_THRI;
	}
	return fifo | IIR_NONE;
}

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
		s->rx_full = false;
		return s->rx;
	case REG_IER:
		return dlab ? s->dlm : s->ier;
	case REG_IIR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_TX_EMPTY | (s->rx_full ? LSR_DR : 0);
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
	if (s->mcr & MCR_LOOP) {
		s->rx = v;
		s->rx_full = true;
	} else {
		put_char(s, v);
	}
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
		s->fcr = v;
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

/* A wider access is one to each port in turn, as on the ISA bus. */
static uint64_t serial_read(void *dev, uint64_t off, unsigned int size)
{
	struct serial *s = dev;
	uint64_t v = 0;

	ob_lock(&s->lock);
	for (unsigned int i = 0; i < size; i++)
		v |= (uint64_t)read_reg(s, off + i) << (8 * i);
	ob_unlock(&s->lock);
	return v;
}

static void serial_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct serial *s = dev;

	ob_lock(&s->lock);
	for (unsigned int i = 0; i < size; i++)
		write_reg(s, off + i, (uint8_t)(value >> (8 * i)));
	ob_unlock(&s->lock);
}

const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
};

void serial_init(struct serial *s, int fd)
{
	struct stat st;

	*s = (struct serial){.fd = fd, .limit = UINT64_MAX, .part = sizeof(s->buf)};
	if (fd >= 0 && isatty(fd))
		s->part = TTY_PART;
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		s->limit = FILE_LIMIT;
	ob_mutex_init(&s->lock, OB_RANK_SERIAL);
}

void serial_flush(struct serial *s)
{
	ob_lock(&s->lock);
	flush_locked(s);
	ob_unlock(&s->lock);
}

void serial_last_line(struct serial *s, char *out, size_t n)
{
	char text[sizeof(s->tail)];
	size_t have, begin, end;

	if (!n)
		return;
	ob_lock(&s->lock);
	have = (size_t)OB_MIN(s->total, (uint64_t)sizeof(s->tail));
	for (size_t i = 0; i < have; i++)
		text[i] = s->tail[(s->total - have + i) % sizeof(s->tail)];
	ob_unlock(&s->lock);

	end = have;
	while (end && (unsigned char)text[end - 1] <= ' ')
		end--;
	begin = end;
	while (begin && text[begin - 1] != '\n')
		begin--;
	n = OB_MIN(n - 1, end - begin);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[begin + i];

		out[i] = c < ' ' || c >= 0x7f ? '?' : (char)c;
	}
	out[n] = '\0';
}

void serial_exit(struct serial *s)
{
	serial_flush(s);
	ob_mutex_destroy(&s->lock);
}
