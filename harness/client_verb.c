/* SPDX-License-Identifier: Apache-2.0 */
/* client_verb.c: the frame of the verbs that talk to a running fleet (client_verb.h). */
#include "harness/client_verb.h"

#include <errno.h>
#include <string.h>

#include "harness/control.h"

/* Reading may have to wait until the fleet has taken a reading of its own, or made its guests. */
#define CONNECT_TIMEOUT_MS 90000
#define ANSWER_TIMEOUT_MS  150000 /* that reading, then our question: COORD_ASK_MS each */

int client_verb_ask(struct client_call *c, const char *command, json_t *args, json_t **answer,
		    struct ob_err *e)
{
	return qmp_client_ask(c->client, command, args, ANSWER_TIMEOUT_MS, answer, e);
}

/* @argv[0] is the word. */
static int take_options(struct client_call *c, int argc, char **argv, struct ob_err *e)
{
	const struct client_verb *v = c->verb;
	const struct option options[] = {
		{"control", required_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		v->option,
		{0},
	};
	int o, r = 0;

	opterr = 0;
	optind = 1;
	while (!r && (o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'c' && *optarg)
			c->control = optarg;
		else if (o == 'c')
			r = ob_fail(e, EINVAL, "%s: --control: the path is empty", v->name);
		else if (o == 'j')
			c->json = true;
		else if (o == ':' || o == '?')
			r = ob_fail(e, EINVAL, "%s %s: %s '%.60s' (try overbook %s --help)",
				    v->name, c->word,
				    o == ':' ? "a value is missing behind" : "unknown option",
				    argv[optind - 1], v->name);
		else
			r = v->take_option(c, e);
	}
	if (!r)
		r = v->take_words(c, argv + optind, argc - optind, e);
	if (r < 0)
		return r;
	optind += r;
	return optind == argc ? 0
			      : ob_fail(e, EINVAL, "%s %s: unexpected word '%.60s'", v->name,
					c->word, argv[optind]);
}

/* Connect, ask, hang up. */
static int ask(struct client_call *c, json_t **answer, struct ob_err *e)
{
	char found[CONTROL_PATH_MAX];
	int r = c->control ? 0 : control_find(found, sizeof(found), e);

	if (!r)
		r = qmp_client_open(&c->client, c->control ? c->control : found, CONNECT_TIMEOUT_MS,
				    e);
	if (r)
		return r;
	r = c->verb->ask ? c->verb->ask(c, answer, e)
			 : client_verb_ask(c, c->command, json_incref(c->args), answer, e);
	qmp_client_close(c->client);
	return r;
}

static void show(const struct client_call *c, const json_t *answer)
{
	if (!c->json) {
		c->verb->show(c, answer);
		return;
	}
	json_dumpf(answer, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
	putchar('\n');
}

int client_verb_run(const struct client_verb *v, int argc, char **argv)
{
	struct client_call c = {.verb = v};
	json_t *answer = NULL;
	struct ob_err e = {""};
	int ret = OB_EXIT_USAGE;

	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--help")) {
			fputs(v->usage, stdout);
			return OB_EXIT_OK;
		}
	if (argc < 2) {
		ob_warn("%s: %s %s (try overbook %s --help)", v->name, v->which, v->there_are,
			v->name);
		return ret;
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(v->words) && v->words[i].word; i++)
		if (!strcmp(argv[1], v->words[i].word)) {
			c.word = v->words[i].word;
			c.command = v->words[i].command;
		}
	if (!c.word) {
		ob_warn("%s: unknown word '%.40s'; there are %s (try overbook %s --help)", v->name,
			argv[1], v->there_are, v->name);
		return ret;
	}
	c.args = json_object();
	if (!take_options(&c, argc - 1, argv + 1, &e) && !ask(&c, &answer, &e)) {
		show(&c, answer);
		ret = v->is_bad(&c, answer) ? OB_EXIT_FAILED : OB_EXIT_OK;
	} else {
		ob_warn("%s", e.msg);
		if (ob_stop_signal)
			ret = OB_EXIT_INTERRUPTED;
	}
	json_decref(answer);
	json_decref(c.args);
	return ret;
}
