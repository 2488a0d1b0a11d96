/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_serial_panic.c: what is seen of a panic in a guest's output, and of the text that says that it has
 * booted; and the last lines for reports.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "kernel/device.h"

#define WHY "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"

struct heard {
	struct serial *s;
	unsigned int times;
	char line[300];
};

static void print(struct serial *s, const char *text)
{
	for (; *text; text++)
		serial_bus_ops.write(s, 0, 1, (uint8_t)*text);
}

static void on_panic(void *arg, const char *line)
{
	struct heard *h = arg;
	char last[32];

	h->times++;
	snprintf(h->line, sizeof(h->line), "%s", line);
	serial_last_line(h->s, last, sizeof(last)); /* nothing is locked */
}

static void listen(struct serial *s, struct heard *h)
{
	*h = (struct heard){.s = s};
	serial_init(s, -1);
	serial_on_panic(s, on_panic, h);
}

Test(serial_panic, is_told_once_at_its_end)
{
	struct serial s;
	struct heard h;
	char line[300];

	listen(&s, &h);
	print(&s, "[    1.0] Freeing unused kernel memory\r\n");
	cr_assert(!serial_panic_line(&s, line, sizeof(line)));
	cr_assert_str_eq(line, "");
	print(&s, "[    2.345678] " WHY "\r\n[    2.4] CPU: 0 PID: 1 Comm: init\r\n");
	cr_assert_eq(h.times, 0, "it has more to say");
	cr_assert(serial_panic_line(&s, line, sizeof(line)));
	cr_assert_str_eq(line, WHY);
	print(&s, "[    2.5] ---[ end " WHY " ]---");
	cr_assert_eq(h.times, 0);
	print(&s, "\r\n");
	cr_assert_eq(h.times, 1);
	cr_assert_str_eq(h.line, WHY);
	print(&s, "[    2.5] ---[ end " WHY " ]---\n" WHY "\n---[ end Kernel panic\n");
	cr_assert_eq(h.times, 1);
	serial_exit(&s);
}

Test(serial_panic, the_end_alone_says_why)
{
	struct serial s;
	struct heard h;

	listen(&s, &h);
	print(&s, "---[ end Kernel panic - not syncing: VFS: Unable to mount root fs ]---\n");
	cr_assert_eq(h.times, 1);
	cr_assert_not_null(strstr(h.line, "VFS: Unable to mount root fs"));
	serial_exit(&s);
}

Test(serial_panic, nobody_listens)
{
	struct serial s;
	char line[8];

	serial_init(&s, -1);
	print(&s, WHY "\n---[ end " WHY " ]---\n");
	cr_assert(serial_panic_line(&s, line, sizeof(line)));
	cr_assert_str_eq(line, "Kernel ", "cut");
	serial_exit(&s);
}

Test(serial_panic, other_lines_are_not_it)
{
	struct serial s;
	struct heard h;
	char line[300];

	listen(&s, &h);
	print(&s, "Kernel panic\n - not syncing: two lines\n---[ end trace 0000 ]---\n");
	print(&s, "---[ end Kernel pani\n");
	cr_assert(!serial_panic_line(&s, line, sizeof(line)));
	/* A line may be long, and hold anything. */
	for (int i = 0; i < 5000; i++)
		print(&s, "x");
	serial_bus_ops.write(&s, 0, 1, 0);
	print(&s, "\x1b[31m" WHY "\x07\x80\n");
	cr_assert(serial_panic_line(&s, line, sizeof(line)));
	cr_assert_str_eq(line, WHY "??");
	cr_assert_eq(h.times, 0);
	serial_exit(&s);
	/* Its reason may be long too: it is cut. */
	serial_init(&s, -1);
	print(&s, WHY);
	for (int i = 0; i < 5000; i++)
		print(&s, "x");
	print(&s, "\n");
	cr_assert(serial_panic_line(&s, line, sizeof(line)));
	cr_assert(!strncmp(line, WHY "xx", sizeof(WHY) + 1) && strlen(line) == SERIAL_LINE - 1);
	serial_exit(&s);
}

Test(serial_panic, a_reset_forgets_it)
{
	struct serial s;
	struct heard h;
	char line[300];

	listen(&s, &h);
	print(&s, WHY "\n---[ end " WHY " ]---\nhalf a line that ends as Kernel pa");
	serial_reset(&s);
	cr_assert(!serial_panic_line(&s, line, sizeof(line)));
	print(&s, "nic - not syncing: no\n");
	cr_assert(!serial_panic_line(&s, line, sizeof(line)));
	print(&s, "Kernel panic - not syncing: again\n---[ end Kernel panic\n");
	cr_assert_eq(h.times, 2);
	cr_assert_str_eq(h.line, "Kernel panic - not syncing: again");
	serial_exit(&s);
}

/* --- that it has booted ------------------------------------------------------------------------ */

static bool ready(struct serial *s, unsigned int times)
{
	struct serial_heard h;

	serial_heard(s, &h);
	cr_assert_eq(h.times, times);
	return h.ready;
}

Test(serial_ready, a_text_in_a_line_or_a_prompt)
{
	struct serial s;

	serial_init(&s, -1);
	print(&s, "login: login: ");
	cr_assert(!ready(&s, 0), "nobody waits for it");
	serial_wait_for(&s, "aab login:");
	print(&s, "b login: aab\nlogin: aab logi\r\n ab login:");
	cr_assert(!ready(&s, 0));
	print(&s, "aaaab logi");
	cr_assert(!ready(&s, 0));
	/* Not in one piece, and by a wider access, as the guest likes it. */
	serial_bus_ops.write(&s, 0, 1, 'n');
	serial_flush(&s);
	serial_bus_ops.write(&s, 0, 1, ':');
	cr_assert(ready(&s, 1), "no end of the line is needed");
	print(&s, " aab login:\n");
	cr_assert(ready(&s, 1), "once is enough");
	serial_exit(&s);
}

Test(serial_ready, wherever_the_output_is_cut)
{
	static const char text[] = "ready!";
	struct serial s;

	/* Behind so many bytes that it goes over the end of each buffer there is. */
	for (unsigned int before = 4080; before < 4110; before++) {
		serial_init(&s, -1);
		serial_wait_for(&s, text);
		for (unsigned int i = 0; i < before; i++)
			print(&s, "r");
		for (unsigned int i = 0; i < sizeof(text) - 1; i++) {
			cr_assert(!ready(&s, 0), "%u, %u", before, i);
			serial_bus_ops.write(&s, 0, 1, (uint8_t)text[i]);
		}
		cr_assert(ready(&s, 1), "%u", before);
		serial_exit(&s);
	}
}

Test(serial_ready, each_boot_says_it_anew)
{
	struct serial_heard h;
	struct serial s;

	serial_init(&s, -1);
	serial_wait_for(&s, "up");
	print(&s, "it is up");
	cr_assert(ready(&s, 1));
	serial_reset(&s);
	cr_assert(!ready(&s, 1));
	serial_heard(&s, &h);
	cr_assert_eq(h.bytes, 0);
	print(&s, "u");
	serial_reset(&s);
	print(&s, "p");
	cr_assert(!ready(&s, 1), "half of it from another kernel");
	serial_heard(&s, &h);
	cr_assert_eq(h.bytes, 1);
	print(&s, "up");
	cr_assert(ready(&s, 2));
	serial_exit(&s);
}

/* --- the last lines --------------------------------------------------------------------------- */

Test(serial_tail, the_last_lines_clean)
{
	struct serial s;
	char out[2000];

	serial_init(&s, -1);
	serial_tail(&s, out, sizeof(out));
	cr_assert_str_eq(out, "");
	print(&s, "\r\n \r\n");
	serial_tail(&s, out, sizeof(out));
	cr_assert_str_eq(out, "");
	print(&s, "one\r\n\x1b[1mtwo\tx\r\n\r\nlast\r\n");
	serial_tail(&s, out, sizeof(out));
	cr_assert_str_eq(strstr(out, "one"), "one\n?[1mtwo x\n\nlast");
	serial_tail(&s, out, 0);
	serial_tail(&s, out, 1);
	cr_assert_str_eq(out, "");
	serial_tail(&s, out, 3);
	cr_assert_str_eq(out, "st", "the end of it, if no line fits");
	serial_tail(&s, out, 7);
	cr_assert_str_eq(out, "\nlast", "two lines, one of them empty");
	serial_exit(&s);
}

Test(serial_tail, some_ten_lines_and_a_thousand_bytes)
{
	struct serial s;
	char out[5000], line[200];
	unsigned int n = 0;

	serial_init(&s, -1);
	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		print(&s, line);
	}
	serial_tail(&s, out, sizeof(out));
	for (const char *p = out; (p = strchr(p, '\n')); p++)
		n++;
	cr_assert_eq(n, 9);
	cr_assert(!strncmp(out, "line 990\n", 9));
	for (int i = 0; i < 100; i++) {
		memset(line, 'a' + i % 26, 150);
		line[150] = '\n';
		line[151] = '\0';
		print(&s, line);
	}
	serial_tail(&s, out, sizeof(out));
	cr_assert(strlen(out) <= 1000 && strlen(out) > 800);
	cr_assert(strlen(out) % 151 == 150, "whole lines");
	serial_exit(&s);
}

Test(serial_tail, one_endless_line)
{
	struct serial s;
	char out[5000];

	serial_init(&s, -1);
	for (int i = 0; i < 10000; i++)
		print(&s, i % 2 ? "-" : "+");
	serial_tail(&s, out, sizeof(out));
	cr_assert_eq(strlen(out), 1000);
	serial_tail(&s, out, 10);
	cr_assert_str_eq(out, "-+-+-+-+-");
	serial_exit(&s);
}
