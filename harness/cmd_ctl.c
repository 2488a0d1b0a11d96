/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_ctl.c: the verb ctl: steers a running fleet over its control socket.
 *
 * A switch of the sharing mode goes on in the fleet, whether somebody waits for it or not: the fleet
 * says that it has begun, and here it is asked again and again how far it is. So whoever stops waiting
 * (Ctrl-C) has not stopped it.
 */
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <time.h>

#include "harness/control.h"

/* Reading may have to wait until the fleet has taken a reading of its own, or made its guests. */
#define CONNECT_TIMEOUT_MS 30000
#define ANSWER_TIMEOUT_MS  60000
#define POLL_NS		   (50 * OB_NS_PER_MS)

struct ctl_cli {
	const char *control; /* NULL: the one fleet that runs */
	const char *mode;    /* sharing: to switch to; NULL: which is it? */
	bool json;
};

static void usage(FILE *out)
{
	fputs("Usage: overbook ctl sharing [--control PATH] [--json] [MODE]\n"
	      "       overbook ctl status|stop|cont|quit [--control PATH] [--json]\n"
	      "Steer a running fleet.\n\n"
	      "  sharing        which sharing mode is it in?\n"
	      "  sharing MODE   switch it to off, hash or kernel while its guests run; waits "
	      "until\n"
	      "                 all that was shared has memory of its own and the new mode is on\n"
	      "  status         prelaunch, running or paused\n"
	      "  stop, cont     let its guests stand still, and go on\n"
	      "  quit           end it, with what was measured until now\n\n"
	      "  --control PATH  its control socket; without it, that of the one fleet that runs\n"
	      "  --json          the answer as it is (docs/control.md)\n\n"
	      "Exit status: 0 done; 1 a switch was begun and could not be done; 2 bad input, no\n"
	      "fleet, refused, or no answer.\n",
	      out);
}

static const struct {
	const char *verb, *command;
} verbs[] = {
	{"sharing", "x-overbook-query-sharing"},
	{"status", "query-status"},
	{"stop", "stop"},
	{"cont", "cont"},
	{"quit", "quit"},
};

static int take_options(struct ctl_cli *cli, int argc, char **argv, struct ob_err *e)
{
	static const struct option options[] = {
		{"control", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	int o, r = 0;

	opterr = 0;
	optind = 1;
	while (!r && (o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'c' && *optarg)
			cli->control = optarg;
		else if (o == 'j')
			cli->json = true;
		else if (o == 'c')
			r = ob_fail(e, EINVAL, "ctl: --control: the path is empty");
		else
			r = ob_fail(e, EINVAL, "ctl %s: %s '%.60s' (try overbook ctl --help)",
				    argv[0],
				    o == ':' ? "a value is missing behind" : "unknown option",
				    argv[optind - 1]);
	}
	if (r)
		return r;
	if (!strcmp(argv[0], "sharing") && optind < argc)
		cli->mode = argv[optind++];
	if (cli->mode && !ksm_engine_find(cli->mode))
		return ob_fail(e, EINVAL,
			       "ctl sharing: '%.40s': no such mode; there are off, hash and kernel",
			       cli->mode);
	return optind == argc ? 0
			      : ob_fail(e, EINVAL, "ctl %s: unexpected word '%.60s'", argv[0],
					argv[optind]);
}

static int ask(struct qmp_client *client, const char *command, json_t *args, json_t **answer,
	       struct ob_err *e)
{
	return qmp_client_ask(client, command, args, ANSWER_TIMEOUT_MS, answer, e);
}

/* Begin the switch, and wait until it is done. */
static int ask_switch(const struct ctl_cli *cli, struct qmp_client *client, json_t **answer,
		      struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = POLL_NS};
	json_int_t before;
	int r = ask(client, "x-overbook-sharing", json_pack("{s:s}", "mode", cli->mode), answer, e);

	if (r)
		return r;
	before = json_integer_value(json_object_get(*answer, "switches"));
	while (!r && json_integer_value(json_object_get(*answer, "switches")) == before) {
		json_decref(*answer);
		*answer = NULL;
		nanosleep(&nap, NULL);
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "the switch to %s goes on without us", cli->mode);
		r = ask(client, "x-overbook-query-sharing", NULL, answer, e);
	}
	if (!r)
		return 0;
	snprintf(e->msg, sizeof(e->msg), "the fleet ended before it was switched to %s", cli->mode);
	return r;
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void show_sharing(const json_t *answer, bool switched)
{
	const json_t *s = json_object_get(answer, "switch");
	char bytes[24];

	if (!switched) {
		printf("%s%s%s\n", text(answer, "sharing"),
		       json_is_true(json_object_get(answer, "switching")) ? ", being switched to "
									  : "",
		       json_is_true(json_object_get(answer, "switching")) ? text(s, "to") : "");
		return;
	}
	printf("%s -> %s in %.2f s: %lld shared and %lld zero pages have memory of their own "
	       "again, "
	       "%s given up\n",
	       text(s, "from"), text(s, "to"), json_number_value(json_object_get(s, "seconds")),
	       (long long)json_integer_value(json_object_get(s, "unmerged_pages")),
	       (long long)json_integer_value(json_object_get(s, "unmerged_zero_pages")),
	       table_bytes(bytes, json_integer_value(json_object_get(s, "given_up_bytes"))));
}

static void show(const struct ctl_cli *cli, const char *verb, const json_t *answer)
{
	if (cli->json) {
		json_dumpf(answer, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (!strcmp(verb, "sharing")) {
		show_sharing(answer, cli->mode != NULL);
	} else if (!strcmp(verb, "status")) {
		printf("%s\n", text(answer, "status"));
	}
}

static int run(const struct ctl_cli *cli, const char *command, json_t **answer, struct ob_err *e)
{
	char found[CONTROL_PATH_MAX];
	const char *path = cli->control;
	struct qmp_client *client;
	int r;

	if (!path) {
		r = control_find(found, sizeof(found), e);
		if (r)
			return r;
		path = found;
	}
	r = qmp_client_open(&client, path, CONNECT_TIMEOUT_MS, e);
	if (r)
		return r;
	r = cli->mode ? ask_switch(cli, client, answer, e) : ask(client, command, NULL, answer, e);
	qmp_client_close(client);
	return r;
}

int cmd_ctl(int argc, char **argv)
{
	struct ctl_cli cli = {0};
	const char *command = NULL, *why;
	json_t *answer = NULL;
	struct ob_err e = {""};
	int ret = OB_EXIT_USAGE;

	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			return OB_EXIT_OK;
		}
	for (size_t i = 0; i < OB_ARRAY_SIZE(verbs) && argc > 1; i++)
		if (!strcmp(argv[1], verbs[i].verb))
			command = verbs[i].command;
	if (!command) {
		ob_warn("ctl: %s%.40s%s there are sharing, status, stop, cont and quit (try "
			"overbook "
			"ctl --help)",
			argc > 1 ? "unknown word '" : "do what?", argc > 1 ? argv[1] : "",
			argc > 1 ? "';" : "");
		return OB_EXIT_USAGE;
	}
	if (!take_options(&cli, argc - 1, argv + 1, &e) && !run(&cli, command, &answer, &e)) {
		why = cli.mode ? text(json_object_get(answer, "switch"), "error") : "";
		ret = *why ? OB_EXIT_FAILED : OB_EXIT_OK;
		if (*why && !cli.json)
			ob_warn("not switched to %s, the mode is %s: %s", cli.mode,
				text(answer, "sharing"), why);
		else
			show(&cli, argv[1], answer);
	} else {
		ob_warn("%s", e.msg);
	}
	if (ret == OB_EXIT_USAGE && ob_stop_signal)
		ret = OB_EXIT_INTERRUPTED;
	json_decref(answer);
	return ret;
}
