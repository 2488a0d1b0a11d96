/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_verb.h: private to harness/. The frame of the verbs that talk to a running fleet over its control
 * socket (ept, ctl): find the word, take the options, find the fleet, ask, show the answer, and say by the
 * exit status how it was. What a verb adds to that is a struct client_verb.
 */
#ifndef OVERBOOK_HARNESS_CLIENT_VERB_H
#define OVERBOOK_HARNESS_CLIENT_VERB_H

#include <getopt.h>

#include "harness/harness.h"
#include "harness/qmp.h"

/* One call of such a verb. */
struct client_call {
	const struct client_verb *verb;
	const char *word;    /* stat, sharing, ... */
	const char *command; /* of the protocol */
	const char *control; /* path of the socket; NULL: that of the one fleet that runs */
	json_t *args;	     /* what goes with the command, an object */
	bool json;	     /* show the answer as it is */
	struct qmp_client *client;
};

struct client_verb {
	const char *name, *usage;
	const char *which;     /* said to who names no word; goes on with @there_are */
	const char *there_are; /* the words, for people */
	const struct {
		const char *word, *command;
	} words[8];
	struct option option; /* one beside --control and --json; no name: there is none */
	/* Take it; its value is in optarg. */
	int (*take_option)(struct client_call *c, struct ob_err *e);
	/* Take words behind the options, of @n that there are; returns how many. */
	int (*take_words)(struct client_call *c, char **words, int n, struct ob_err *e);
	/* Ask, where it takes more than one question; NULL: @command with @args. */
	int (*ask)(struct client_call *c, json_t **answer, struct ob_err *e);
	void (*show)(const struct client_call *c, const json_t *answer);
	/* Does the answer say that something is wrong? */
	bool (*is_bad)(const struct client_call *c, const json_t *answer);
};

/* The whole verb. Returns the exit status. */
int client_verb_run(const struct client_verb *v, int argc, char **argv);

/* One question, for the verb's own ask. @args is taken, and may be NULL. As qmp_client_ask. */
int client_verb_ask(struct client_call *c, const char *command, json_t *args, json_t **answer,
		    struct ob_err *e);

#endif
