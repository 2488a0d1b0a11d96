/* SPDX-License-Identifier: Apache-2.0 */
/*
 * terminal.c: our terminal while a guest has it: what is typed goes to the guest as it is, key by
 * key, and the guest echoes it. Ctrl-C alone stays ours.
 */
#include "harness/terminal.h"

#include <unistd.h>

void terminal_give(struct terminal *t)
{
	struct termios raw;

	t->given = false;
	if (tcgetattr(STDIN_FILENO, &t->before))
		return;
	raw = t->before;
	raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IXON | ISTRIP);
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	raw.c_cc[VSUSP] = raw.c_cc[VQUIT] = _POSIX_VDISABLE;
	t->given = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

void terminal_take_back(struct terminal *t)
{
	if (t->given)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
	t->given = false;
}
