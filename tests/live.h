/* SPDX-License-Identifier: Apache-2.0 */
/* live.h: a fleet that runs, and a client of its control socket, for tests. */
#ifndef OVERBOOK_TESTS_LIVE_H
#define OVERBOOK_TESTS_LIVE_H

#include "harness/qmp.h"
#include "tests/cli.h"

/* How long an answer may take. */
#define LIVE_PATIENCE_MS 60000

struct live {
	char dir[64], path[100]; /* a folder of its own; the socket there */
	struct cli cli;
	struct qmp_client *client;
};

/* The folder only; the test starts the command itself (cli_start), and connects or not. */
void live_dir(struct live *l);
void live_connect(struct live *l);
/* All: start `overbook @args --control ...`, connect, wait until its guests run. */
void live_start(struct live *l, const char *args, bool json);
/* Wait for its end: with exit status @status, and the socket gone. */
void live_wait(struct live *l, int status);
/* Hang up; the command has ended and has left nothing in the folder. */
void live_end(struct live *l);

/* Ask; a refusal fails the test. New reference. @args is taken, and may be NULL. */
json_t *live_ask(struct live *l, const char *command, json_t *args);
void live_do(struct live *l, const char *command);
/* Is it "prelaunch", "running", "paused"? */
bool live_status_is(struct live *l, const char *want);

#endif
