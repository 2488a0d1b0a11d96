/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_ctl.c: the verb ctl: steers a running fleet over its control socket.
 *
 * A switch of the sharing mode goes on in the fleet, whether somebody waits for it or not: the fleet
 * says that it has begun, and here it is asked again and again how far it is. So whoever stops waiting
 * (Ctrl-C) has not stopped it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "harness/client_verb.h"

#define POLL_NS (50 * OB_NS_PER_MS)

static const char usage[] =
	"Usage: overbook ctl sharing [--control PATH] [--json] [MODE]\n"
	"       overbook ctl status|stop|cont|quit [--control PATH] [--json]\n"
	"Steer a running fleet.\n\n"
	"  sharing        which sharing mode is it in?\n"
	"  sharing MODE   switch it to off, hash or kernel while its guests run; waits until\n"
	"                 all that was shared has memory of its own and the new mode is on\n"
	"  status         prelaunch, running or paused\n"
	"  stop, cont     let its guests stand still, and go on\n"
	"  quit           end it, with what was measured until now\n\n"
	"  --control PATH  its control socket; without it, that of the one fleet that runs\n"
	"  --json          the answer as it is (docs/control.md)\n\n"
	"Exit status: 0 done; 1 a switch was begun and could not be done; 2 bad input, no\n"
	"fleet, refused, or no answer.\n";

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

/* What to switch to; "": nothing is switched. */
static const char *mode_of(const struct client_call *c)
{
	return text(c->args, "mode");
}

static int take_words(struct client_call *c, char **words, int n, struct ob_err *e)
{
	if (strcmp(c->word, "sharing") != 0 || !n)
		return 0;
	if (!ksm_engine_find(words[0]))
		return ob_fail(e, EINVAL,
			       "ctl sharing: '%.40s': no such mode; there are off, hash and kernel",
			       words[0]);
	json_object_set_new(c->args, "mode", json_string(words[0]));
	return 1;
}

static json_int_t switches(const json_t *answer)
{
	return json_integer_value(json_object_get(answer, "switches"));
}

/* Begin the switch, and wait until it is done. */
static int ask_switch(struct client_call *c, json_t **answer, struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = POLL_NS};
	json_int_t before;
	int r = client_verb_ask(c, "x-overbook-sharing", json_incref(c->args), answer, e);

	if (r)
		return r;
	before = switches(*answer);
	while (!r && switches(*answer) == before) {
		json_decref(*answer);
		*answer = NULL;
		nanosleep(&nap, NULL);
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "the switch to %s goes on without us", mode_of(c));
		r = client_verb_ask(c, c->command, NULL, answer, e);
	}
	if (r)
		ob_fail(e, -r, "the fleet ended before it was switched to %s", mode_of(c));
	return r;
}

static int ask(struct client_call *c, json_t **answer, struct ob_err *e)
{
	return *mode_of(c) ? ask_switch(c, answer, e)
			   : client_verb_ask(c, c->command, NULL, answer, e);
}

/* Why it could not be switched; "": it was. */
static const char *why_not(const struct client_call *c, const json_t *answer)
{
	return *mode_of(c) ? text(json_object_get(answer, "switch"), "error") : "";
}

static void show_switch(const struct client_call *c, const json_t *answer)
{
	const json_t *s = json_object_get(answer, "switch");
	char bytes[24];

	if (*why_not(c, answer)) {
		ob_warn("not switched to %s, the mode is %s: %s", mode_of(c),
			text(answer, "sharing"), why_not(c, answer));
		return;
	}
	printf("%s -> %s in %.2f s: %lld shared and %lld zero pages have memory of their own "
	       "again, %s given up\n",
	       text(s, "from"), text(s, "to"), json_number_value(json_object_get(s, "seconds")),
	       (long long)json_integer_value(json_object_get(s, "unmerged_pages")),
	       (long long)json_integer_value(json_object_get(s, "unmerged_zero_pages")),
	       table_bytes(bytes, json_integer_value(json_object_get(s, "given_up_bytes"))));
}

static void show(const struct client_call *c, const json_t *answer)
{
	bool switching = json_is_true(json_object_get(answer, "switching"));

	if (*mode_of(c))
		show_switch(c, answer);
	else if (!strcmp(c->word, "sharing"))
		printf("%s%s%s\n", text(answer, "sharing"), switching ? ", being switched to " : "",
		       switching ? text(json_object_get(answer, "switch"), "to") : "");
	else if (!strcmp(c->word, "status"))
		printf("%s\n", text(answer, "status"));
}

static bool is_bad(const struct client_call *c, const json_t *answer)
{
	return *why_not(c, answer);
}

int cmd_ctl(int argc, char **argv)
{
	static const struct client_verb verb = {
		.name = "ctl",
		.usage = usage,
		.which = "do what? there are",
		.there_are = "sharing, status, stop, cont and quit",
		.words = {{"sharing", "x-overbook-query-sharing"},
			  {"status", "query-status"},
			  {"stop", "stop"},
			  {"cont", "cont"},
			  {"quit", "quit"}},
		.take_words = take_words,
		.ask = ask,
		.show = show,
		.is_bad = is_bad,
	};

	return client_verb_run(&verb, argc, argv);
}
