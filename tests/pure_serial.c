/* SPDX-License-Identifier: Apache-2.0 */
/* pure_serial.c: the 16550: what a driver's probing sees, and where output goes. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/device.h"

static void out(struct serial *s, unsigned int reg, uint8_t v)
{
	serial_bus_ops.write(s, reg, 1, v);
}

static uint8_t in(struct serial *s, unsigned int reg)
{
	return (uint8_t)serial_bus_ops.read(s, reg, 1);
}

static void print(struct serial *s, const char *text)
{
	for (; *text; text++)
		out(s, 0, (uint8_t)*text);
}

/* What a temporary file holds. */
static size_t slurp(FILE *f, char *buf, size_t n)
{
	fflush(f);
	rewind(f);
	return fread(buf, 1, n, f);
}

Test(serial, probing_finds_a_16550a)
{
	struct serial s;

	serial_init(&s, -1);
	/* As Linux does it: interrupt enable keeps four bits, loopback shows the modem lines. */
	out(&s, 1, 0);
	cr_assert_eq(in(&s, 1), 0);
	out(&s, 1, 0xff);
	cr_assert_eq(in(&s, 1), 0x0f);
	out(&s, 1, 0);
	out(&s, 4, 0x10 | 0x0a);
	cr_assert_eq(in(&s, 6) & 0xf0, 0x90);
	out(&s, 4, 0);
	out(&s, 2, 1);
	cr_assert_eq(in(&s, 2) >> 6, 3, "FIFOs");
	out(&s, 2, 0);
	cr_assert_eq(in(&s, 2) >> 6, 0);
	out(&s, 7, 0x5a);
	cr_assert_eq(in(&s, 7), 0x5a);
	cr_assert_eq(in(&s, 5), 0x60, "transmitter always empty, nothing received");
	serial_exit(&s);
}

Test(serial, divisor_hides_behind_dlab)
{
	struct serial s;
	char line[8];

	serial_init(&s, -1);
	out(&s, 3, 0x80);
	out(&s, 0, 1);
	out(&s, 1, 2);
	cr_assert_eq(in(&s, 0), 1);
	cr_assert_eq(in(&s, 1), 2);
	out(&s, 3, 3);
	cr_assert_eq(in(&s, 1), 0);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "", "a divisor is not output");
	serial_exit(&s);
}

Test(serial, loopback_brings_the_byte_back)
{
	struct serial s;
	char line[8];

	serial_init(&s, -1);
	out(&s, 4, 0x10);
	out(&s, 0, 'L');
	cr_assert_eq(in(&s, 5) & 1, 1);
	cr_assert_eq(in(&s, 0), 'L');
	cr_assert_eq(in(&s, 5) & 1, 0);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "");
	serial_exit(&s);
}

Test(serial, transmit_interrupt_is_identified_once)
{
	struct serial s;

	serial_init(&s, -1);
	cr_assert_eq(in(&s, 2), 1);
	out(&s, 1, 2);
	cr_assert_eq(in(&s, 2), 2);
	cr_assert_eq(in(&s, 2), 1);
	out(&s, 0, 'x');
	cr_assert_eq(in(&s, 2), 2);
	serial_exit(&s);
}

Test(serial, output_arrives_whole)
{
	FILE *f = tmpfile();
	struct serial s;
	char buf[4096], want[3000];
	size_t n;

	cr_assert_not_null(f);
	serial_init(&s, fileno(f));
	print(&s, "first\n");
	cr_assert_eq(slurp(f, buf, sizeof(buf)), 6, "a line is written when it ends");
	print(&s, "part");
	cr_assert_eq(slurp(f, buf, sizeof(buf)), 6);
	serial_flush(&s);
	cr_assert_eq(slurp(f, buf, sizeof(buf)), 10);
	memset(want, 'w', sizeof(want));
	for (size_t i = 0; i < sizeof(want); i++)
		out(&s, 0, 'w');
	serial_exit(&s);
	n = slurp(f, buf, sizeof(buf));
	cr_assert_eq(n, 10 + sizeof(want));
	cr_assert_arr_eq(buf, "first\npart", 10);
	cr_assert_arr_eq(buf + 10, want, sizeof(want));
	fclose(f);
}

Test(serial, a_wide_access_is_one_to_each_port)
{
	struct serial s;

	serial_init(&s, -1);
	serial_bus_ops.write(&s, 3, 2, 0x0a03); /* LCR and MCR */
	cr_assert_eq(s.lcr, 3);
	cr_assert_eq(s.mcr, 0x0a);
	cr_assert_eq(serial_bus_ops.read(&s, 3, 2), 0x0a03);
	cr_assert_eq(serial_bus_ops.read(&s, 7, 2) >> 8, 0xff, "no port beyond the last");
	serial_exit(&s);
}

Test(serial, a_guest_cannot_fill_the_disk)
{
	FILE *f = tmpfile();
	struct serial s;
	char buf[4096];
	size_t n;

	serial_init(&s, fileno(f));
	cr_assert_neq(s.limit, UINT64_MAX, "a regular file has a limit");
	s.limit = 600;
	for (int i = 0; i < 5000; i++)
		out(&s, 0, 'a');
	serial_exit(&s);
	n = slurp(f, buf, sizeof(buf) - 1);
	buf[n] = '\0';
	cr_assert_lt(n, 700);
	cr_assert_not_null(strstr(buf, "output limit reached"));
	fclose(f);
}

Test(serial, a_console_that_cannot_be_written_does_no_harm)
{
	struct serial s;
	FILE *f = fopen("/dev/null", "r"); /* not open for writing */
	char line[32];

	serial_init(&s, fileno(f));
	print(&s, "lost\nkept in memory\n");
	cr_assert_eq(s.fd, -1);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "kept in memory");
	serial_exit(&s);
	fclose(f);
}

/* --- a console that nobody reads -------------------------------------------------------------- */

/* A pipe with no room for one byte more; its ends are blocking, as those of a shell are. */
static void full_pipe(int p[2])
{
	char block[4096] = {0};

	cr_assert(!pipe(p));
	cr_assert(!fcntl(p[1], F_SETFL, O_NONBLOCK));
	while (write(p[1], block, sizeof(block)) > 0)
		;
	cr_assert(!fcntl(p[1], F_SETFL, 0));
}

/* Read all that is in it; the end of it into @buf. */
static void empty_pipe(int fd, char *buf, size_t n)
{
	char block[4096];
	ssize_t r;

	buf[0] = '\0';
	cr_assert(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while ((r = read(fd, block, sizeof(block) - 1)) > 0) {
		block[r] = '\0';
		snprintf(buf, n, "%s", block);
	}
	cr_assert(!fcntl(fd, F_SETFL, 0));
}

Test(serial, a_console_that_nobody_reads_does_not_stop_the_guest, .timeout = 30)
{
	struct serial s;
	char got[4096], line[32];
	int p[2];

	full_pipe(p);
	serial_init(&s, p[1]);
	print(&s, "one\ntwo\n");
	cr_assert_eq(s.dropped, 8);
	serial_flush(&s);
	for (int i = 0; i < 1000; i++)
		print(&s, "more\n"); /* not even slowly: nothing is waited for again */
	cr_assert_eq(s.dropped, 8 + 5000);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "more");
	empty_pipe(p[0], got, sizeof(got));
	cr_assert_null(strstr(got, "more"));

	print(&s, "back\n");
	empty_pipe(p[0], got, sizeof(got));
	cr_assert_str_eq(
		got, "\n[overbook: nobody read the console, 5008 bytes are lost so far]\nback\n");
	print(&s, "again\n");
	empty_pipe(p[0], got, sizeof(got));
	cr_assert_str_eq(got, "again\n", "said once");
	cr_assert_eq(s.dropped, 5008);
	print(&s, "at the end");
	serial_exit(&s);
	empty_pipe(p[0], got, sizeof(got));
	cr_assert_str_eq(got, "at the end");
	close(p[0]);
	close(p[1]);
}

struct kicker {
	pthread_t target;
	_Atomic bool stop;
};

static void on_kick(int sig)
{
	(void)sig;
}

static void *kick(void *arg)
{
	struct kicker *k = arg;

	while (!k->stop) {
		pthread_kill(k->target, SIGUSR1);
		usleep(200);
	}
	return NULL;
}

/* Signals that come faster than the wait must not make it start over and over. */
Test(serial, kicks_do_not_prolong_the_wait, .timeout = 30)
{
	struct sigaction sa = {.sa_handler = on_kick};
	struct kicker k = {.target = pthread_self()};
	struct serial s;
	pthread_t t;
	int p[2];

	full_pipe(p);
	cr_assert(!sigaction(SIGUSR1, &sa, NULL));
	serial_init(&s, p[1]);
	cr_assert(!pthread_create(&t, NULL, kick, &k));
	print(&s, "lost\n");
	k.stop = true;
	pthread_join(t, NULL);
	cr_assert_eq(s.dropped, 5);
	serial_exit(&s);
	close(p[0]);
	close(p[1]);
}

/* A terminal that is not read: it says that it has room until the very end, and takes no more. */
Test(serial, a_terminal_that_nobody_reads_does_not_stop_the_guest, .timeout = 30)
{
	int top = posix_openpt(O_RDWR | O_NOCTTY), tty;
	struct serial s;

	if (top < 0 || grantpt(top) || unlockpt(top))
		cr_skip_test("no pseudo-terminals here");
	tty = open(ptsname(top), O_RDWR | O_NOCTTY);
	cr_assert_geq(tty, 0);
	serial_init(&s, tty);
	for (int i = 0; i < 4000; i++)
		print(&s, "a line\twith a tab, of which the terminal makes more\n");
	cr_assert_gt(s.dropped, 0);
	serial_exit(&s);
	close(tty);
	close(top);
}

Test(serial, last_line_is_found_cut_and_cleaned)
{
	struct serial s;
	char line[64], tiny[5];

	serial_init(&s, -1);
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "");
	print(&s, "one\ntwo \x1b[1mthree\r\n\n  \r\n");
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "two ?[1mthree");
	serial_last_line(&s, tiny, sizeof(tiny));
	cr_assert_str_eq(tiny, "two ");
	for (int i = 0; i < 2000; i++)
		out(&s, 0, 'z');
	serial_last_line(&s, line, sizeof(line));
	cr_assert_eq(strlen(line), sizeof(line) - 1);
	cr_assert_eq(strspn(line, "z"), sizeof(line) - 1);
	print(&s, "\nend");
	serial_last_line(&s, line, sizeof(line));
	cr_assert_str_eq(line, "end");
	serial_exit(&s);
}
