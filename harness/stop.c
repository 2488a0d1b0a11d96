/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.c: the one word that a signal handler writes and everything that waits looks at. It is the
 * only variable of the process that is not owned by somebody: a handler has no other argument. The
 * control socket's `quit` writes it too, so that there is one way to end early.
 */
#include "harness/harness.h"

volatile sig_atomic_t ob_stop_signal;
