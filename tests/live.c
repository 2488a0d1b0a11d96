/* SPDX-License-Identifier: Apache-2.0 */
/* live.c: a fleet that runs, and a client of its control socket, for tests. */
#include "tests/live.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void live_dir(struct live *l)
{
	memset(l, 0, sizeof(*l));
	strcpy(l->dir, "/tmp/overbook-test-live-XXXXXX");
	cr_assert(mkdtemp(l->dir));
	snprintf(l->path, sizeof(l->path), "%s/s", l->dir);
}

void live_connect(struct live *l)
{
	struct ob_err e = {""};
	int got = -1;

	for (int i = 0; i < 1000 && got; i++) {
		got = qmp_client_open(&l->client, l->path, LIVE_PATIENCE_MS, &e);
		cli_nap_ms(10);
	}
	cr_assert_eq(got, 0, "%s", e.msg);
}

void live_start(struct live *l, const char *args, bool json)
{
	char line[400];

	live_dir(l);
	snprintf(line, sizeof(line), "%s --control %s", args, l->path);
	cli_start(&l->cli, line, json);
	live_connect(l);
	for (int i = 0; i < 3000 && !live_status_is(l, "running"); i++)
		cli_nap_ms(10);
	cr_assert(live_status_is(l, "running"), "its guests never ran");
}

void live_wait(struct live *l, int status)
{
	cli_wait(&l->cli, 120);
	cr_assert_eq(l->cli.status, status, "status %d\n%s%s", l->cli.status, l->cli.out,
		     l->cli.err);
	cr_assert(access(l->path, F_OK) && errno == ENOENT, "the socket is still there");
}

void live_end(struct live *l)
{
	if (l->client)
		qmp_client_close(l->client);
	cli_free(&l->cli);
	cr_assert_eq(rmdir(l->dir), 0, "something is left in %s", l->dir);
}

json_t *live_ask(struct live *l, const char *command, json_t *args)
{
	struct ob_err e = {""};
	json_t *ret;

	cr_assert_eq(qmp_client_ask(l->client, command, args, LIVE_PATIENCE_MS, &ret, &e), 0,
		     "%s: %s", command, e.msg);
	return ret;
}

void live_do(struct live *l, const char *command)
{
	json_decref(live_ask(l, command, NULL));
}

bool live_status_is(struct live *l, const char *want)
{
	json_t *ret = live_ask(l, "query-status", NULL);
	const char *status = cli_str(ret, "status");
	bool is = !strcmp(status, want);

	cr_assert(json_is_boolean(json_object_get(ret, "running")));
	cr_assert_eq(json_is_true(json_object_get(ret, "running")), !strcmp(status, "running"));
	json_decref(ret);
	return is;
}
