/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_ept.c: the verb ept: asks a running fleet, over its control socket, what its guests' pages are.
 * It starts nothing and changes nothing.
 */
#include <errno.h>
#include <string.h>

#include "harness/client_verb.h"
#include "harness/control.h"
#include "harness/ept_print.h"

static const char usage[] =
	"Usage: overbook ept stat   [--control PATH] [--vm N] [--json]\n"
	"       overbook ept verify [--control PATH] [--vm N] [--json]\n"
	"       overbook ept walk   [--control PATH] [--json] VM GVA\n"
	"Ask a running fleet what its guests' pages are.\n\n"
	"  stat      pages by state, faults, KVM's mode and counters\n"
	"  verify    compare the page-state map with the kernel's own\n"
	"  walk      translate a guest virtual address, level by level\n\n"
	"  --control PATH  its control socket; without it, that of the one fleet that runs\n"
	"  --vm N          one guest, at length\n"
	"  --json          the answer as it is (docs/control.md)\n\n"
	"Exit status: 0 all well; 1 verify found a difference, or the address is not mapped;\n"
	"2 bad input, no fleet, or no answer.\n";

static bool is(const struct client_call *c, const char *word)
{
	return !strcmp(c->word, word);
}

/* A guest's number. Whether there is such a guest the fleet knows. */
static int take_vm(struct client_call *c, const char *word, struct ob_err *e)
{
	uint64_t v = 0;

	if (strspn(word, "0123456789") != strlen(word) || control_parse_addr(word, &v) ||
	    v >= FLEET_MAX_GUESTS)
		return ob_fail(e, EINVAL, "ept: '%.40s' is no guest's number; give 0 to %u", word,
			       FLEET_MAX_GUESTS - 1);
	return json_object_set_new(c->args, "vm", json_integer((json_int_t)v));
}

static int take_gva(struct client_call *c, const char *word, struct ob_err *e)
{
	uint64_t v;

	if (control_parse_addr(word, &v))
		return ob_fail(e, EINVAL,
			       "ept walk: '%.40s' is no 64-bit address; give 0x and hexadecimal "
			       "digits, or a decimal number",
			       word);
	return json_object_set_new(c->args, "gva", json_string(word));
}

/* --vm N */
static int take_option(struct client_call *c, struct ob_err *e)
{
	if (is(c, "walk"))
		return ob_fail(e, EINVAL, "ept walk: give the guest as a word: VM GVA");
	return take_vm(c, optarg, e);
}

static int take_words(struct client_call *c, char **words, int n, struct ob_err *e)
{
	int r;

	if (!is(c, "walk"))
		return 0;
	if (n != 2)
		return ob_fail(e, EINVAL,
			       "ept walk: takes a guest's number and an address: VM GVA");
	r = take_vm(c, words[0], e);
	if (!r)
		r = take_gva(c, words[1], e);
	return r ? r : 2;
}

static void show(const struct client_call *c, const json_t *answer)
{
	if (is(c, "stat"))
		ept_print_stat(stdout, answer);
	else if (is(c, "verify"))
		ept_print_verify(stdout, answer);
	else
		ept_print_walk(stdout, answer);
}

static bool is_bad(const struct client_call *c, const json_t *answer)
{
	if (is(c, "verify"))
		return ept_differences(answer) > 0;
	return is(c, "walk") && !json_is_true(json_object_get(answer, "ok"));
}

int cmd_ept(int argc, char **argv)
{
	static const struct client_verb verb = {
		.name = "ept",
		.usage = usage,
		.which = "which question? There are",
		.there_are = "stat, verify and walk",
		.words = {{"stat", "x-overbook-ept-stat"},
			  {"verify", "x-overbook-ept-verify"},
			  {"walk", "x-overbook-ept-walk"}},
		.option = {"vm", required_argument, NULL, 'v'},
		.take_option = take_option,
		.take_words = take_words,
		.show = show,
		.is_bad = is_bad,
	};

	return client_verb_run(&verb, argc, argv);
}
