/* SPDX-License-Identifier: Apache-2.0 */
/* terminal.h: private to harness/: the terminal that a guest's console is on. */
#ifndef OVERBOOK_HARNESS_TERMINAL_H
#define OVERBOOK_HARNESS_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

struct terminal {
	struct termios before;
	bool given;
};

/* Hand our terminal (standard input is one) to a guest, but for Ctrl-C; and take it back as it was:
 * nothing to do when it was not given. */
void terminal_give(struct terminal *t);
void terminal_take_back(struct terminal *t);

#endif
