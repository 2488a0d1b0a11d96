/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serial_out.c: what a guest prints: written to a file descriptor, kept in part, and watched.
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
 * A Linux kernel that panics says so on its console, and then stands still or resets, as it was told
 * to: nothing else tells from outside. So output is held against the two lines that frame a panic, and
 * against the text that says that a guest without our agent has booted, if there is one. They are what
 * a guest says, like everything here: one that prints a panic has ended itself.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel/serial_int.h"

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

/* --- the watch -------------------------------------------------------------------------------- */

#define PANIC_LINE "Kernel panic - not syncing"
#define PANIC_END  "---[ end Kernel panic"

/* As it may be shown to a person. */
static char harmless(char c)
{
	return (unsigned char)c < ' ' || (unsigned char)c >= 0x7f ? '?' : c;
}

/* Does what this kernel has said until now end in @text? Asked at each byte, so that no matter how its
 * output is cut, and that a prompt, which is a line without an end, is seen as it stands there. */
static bool ends_in(const struct serial *s, const char *text)
{
	size_t n = strlen(text);

	if (s->total - s->began < n)
		return false;
	for (size_t i = 1; i <= n; i++)
		if (s->tail[(s->total - i) % sizeof(s->tail)] != text[n - i])
			return false;
	return true;
}

/* From "Kernel panic" to the end of the line. */
static void watch_panic(struct serial *s, char c)
{
	if (c == '\n' || c == '\r')
		s->panic_open = false;
	if (s->panic_open && s->panic_fill < sizeof(s->panic) - 1)
		s->panic[s->panic_fill++] = harmless(c);
	if (!*s->panic && ends_in(s, PANIC_LINE)) {
		s->panic_fill = sizeof(PANIC_LINE) - 1;
		memcpy(s->panic, PANIC_LINE, s->panic_fill);
		s->panic_open = true;
	}
	s->panic[s->panic_fill] = '\0';
	if (c == '\n') {
		s->panic_over |= s->panic_end && *s->panic;
		s->panic_end = false;
	} else if (ends_in(s, PANIC_END)) {
		s->panic_end = true;
	}
}

/* @c has come, and is kept. */
static void watch(struct serial *s, char c)
{
	watch_panic(s, c);
	if (s->ready && !s->is_ready && ends_in(s, s->ready)) {
		s->is_ready = true;
		s->times_ready++;
	}
}

void serial_wait_for(struct serial *s, const char *text)
{
	s->ready = text;
}

void serial_heard(struct serial *s, struct serial_heard *h)
{
	ob_lock(&s->lock);
	h->resets = s->resets;
	h->bytes = s->total - s->began;
	h->ready = s->is_ready;
	h->times = s->times_ready;
	ob_unlock(&s->lock);
}

bool serial_panic_line(struct serial *s, char *out, size_t n)
{
	bool have;

	ob_lock(&s->lock);
	have = *s->panic;
	snprintf(out, n, "%s", s->panic);
	ob_unlock(&s->lock);
	return have;
}

/* --- what serial.c calls ---------------------------------------------------------------------- */

void serial_out_init(struct serial *s)
{
	struct stat st;

	s->limit = UINT64_MAX;
	s->part = sizeof(s->buf);
	if (s->fd >= 0 && isatty(s->fd))
		s->part = TTY_PART;
	if (s->fd >= 0 && fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode))
		s->limit = FILE_LIMIT;
}

void serial_out_reset(struct serial *s)
{
	s->resets++;
	s->began = s->total;
	s->is_ready = false;
	s->panic_fill = 0;
	s->panic[0] = '\0';
	s->panic_open = s->panic_end = s->panic_over = s->panic_told = false;
}

void serial_put(struct serial *s, uint8_t c)
{
	s->tail[s->total++ % sizeof(s->tail)] = (char)c;
	watch(s, (char)c);
	s->buf[s->fill++] = (char)c;
	if (c == '\n' || s->fill == sizeof(s->buf) || s->total == 1)
		flush_locked(s);
}

void serial_flush(struct serial *s)
{
	ob_lock(&s->lock);
	flush_locked(s);
	ob_unlock(&s->lock);
}

/* --- what is kept ----------------------------------------------------------------------------- */

#define TAIL_LINES 10
#define TAIL_BYTES 1000

/* What is kept, into @text, of sizeof(s->tail) bytes. Returns its length without the white space at
 * its end. */
static size_t copy_tail(struct serial *s, char *text)
{
	size_t have;

	ob_lock(&s->lock);
	have = (size_t)OB_MIN(s->total, (uint64_t)sizeof(s->tail));
	for (size_t i = 0; i < have; i++)
		text[i] = s->tail[(s->total - have + i) % sizeof(s->tail)];
	ob_unlock(&s->lock);
	while (have && (unsigned char)text[have - 1] <= ' ')
		have--;
	return have;
}

void serial_last_line(struct serial *s, char *out, size_t n)
{
	char text[sizeof(s->tail)];
	size_t begin, end;

	if (!n)
		return;
	end = copy_tail(s, text);
	begin = end;
	while (begin && text[begin - 1] != '\n')
		begin--;
	n = OB_MIN(n - 1, end - begin);
	for (size_t i = 0; i < n; i++)
		out[i] = harmless(text[begin + i]);
	out[n] = '\0';
}

void serial_tail(struct serial *s, char *out, size_t n)
{
	char text[sizeof(s->tail)];
	size_t begin, end, line, at = 0;
	unsigned int lines = 0;

	if (!n)
		return;
	begin = line = end = copy_tail(s, text);
	/* Whole lines from the end, as long as they fit. */
	while (line && lines < TAIL_LINES) {
		while (line && text[line - 1] != '\n')
			line--;
		if (end - line > OB_MIN(n - 1, (size_t)TAIL_BYTES))
			break;
		begin = line;
		lines++;
		line -= line > 0;
	}
	/* Not even one: then its end. */
	if (begin == end)
		begin = end - OB_MIN(end, OB_MIN(n - 1, (size_t)TAIL_BYTES));
	for (size_t i = begin; i < end; i++)
		if (text[i] == '\n')
			out[at++] = '\n';
		else if (text[i] == '\t')
			out[at++] = ' ';
		else if (text[i] != '\r')
			out[at++] = harmless(text[i]);
	out[at] = '\0';
}
