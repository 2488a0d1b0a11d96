/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_ept.c: the verb ept: asks a running fleet, over its control socket, what its guests' pages are.
 * It starts nothing and changes nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "harness/control.h"
#include "harness/ept_print.h"

/* Reading may have to wait until the fleet has taken a reading of its own, or made its guests. */
#define CONNECT_TIMEOUT_MS 30000
#define ANSWER_TIMEOUT_MS  60000

struct ept_cli {
	const char *control; /* NULL: the one fleet that runs */
	json_t *vm;	     /* NULL: all */
	json_t *gva;
	bool json;
};

static void usage(FILE *out)
{
	fputs("Usage: overbook ept stat   [--control PATH] [--vm N] [--json]\n"
	      "       overbook ept verify [--control PATH] [--vm N] [--json]\n"
	      "       overbook ept walk   [--control PATH] [--json] VM GVA\n"
	      "Ask a running fleet what its guests' pages are.\n\n"
	      "  stat      pages by state, faults, KVM's mode and counters\n"
	      "  verify    compare the page-state map with the kernel's own\n"
	      "  walk      translate a guest virtual address, level by level\n\n"
	      "  --control PATH  its control socket; without it, that of the one fleet that runs\n"
	      "  --vm N          one guest, at length\n"
	      "  --json          the answer as it is (docs/control.md)\n\n"
	      "Exit status: 0 all well; 1 verify found a difference, or the address is not "
	      "mapped;\n"
	      "2 bad input, no fleet, or no answer.\n",
	      out);
}

/* A guest's number. Whether there is such a guest the fleet knows. */
static int take_vm(const char *word, json_t **out, struct ob_err *e)
{
	uint64_t v = 0;

	if (strspn(word, "0123456789") != strlen(word) || control_parse_addr(word, &v) ||
	    v >= FLEET_MAX_GUESTS)
		return ob_fail(e, EINVAL, "ept: '%.40s' is no guest's number; give 0 to %u", word,
			       FLEET_MAX_GUESTS - 1);
	json_decref(*out);
	*out = json_integer((json_int_t)v);
	return 0;
}

static int take_gva(const char *word, json_t **out, struct ob_err *e)
{
	uint64_t v;

	if (control_parse_addr(word, &v))
		return ob_fail(e, EINVAL,
			       "ept walk: '%.40s' is no 64-bit address; give 0x and hexadecimal "
			       "digits, or a decimal number",
			       word);
	*out = json_string(word);
	return 0;
}

static int take_options(struct ept_cli *cli, int argc, char **argv, struct ob_err *e)
{
	static const struct option options[] = {
		{"control", required_argument, NULL, 'c'},
		{"vm", required_argument, NULL, 'v'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	bool walk = !strcmp(argv[0], "walk");
	int o, r = 0;

	opterr = 0;
	optind = 1;
	while (!r && (o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 'c' && *optarg)
			cli->control = optarg;
		else if (o == 'j')
			cli->json = true;
		else if (o == 'v' && !walk)
			r = take_vm(optarg, &cli->vm, e);
		else if (o == 'v')
			r = ob_fail(e, EINVAL, "ept walk: give the guest as a word: VM GVA");
		else if (o == 'c')
			r = ob_fail(e, EINVAL, "ept: --control: the path is empty");
		else
			r = ob_fail(e, EINVAL, "ept %s: %s '%.60s' (try overbook ept --help)",
				    argv[0],
				    o == ':' ? "a value is missing behind" : "unknown option",
				    argv[optind - 1]);
	}
	if (r)
		return r;
	if (!walk)
		return optind == argc ? 0
				      : ob_fail(e, EINVAL, "ept %s: unexpected word '%.60s'",
						argv[0], argv[optind]);
	if (argc - optind != 2)
		return ob_fail(e, EINVAL,
			       "ept walk: takes a guest's number and an address: VM GVA");
	r = take_vm(argv[optind], &cli->vm, e);
	return r ? r : take_gva(argv[optind + 1], &cli->gva, e);
}

/* Connect, ask, hang up. */
static int ask(const struct ept_cli *cli, const char *command, json_t **answer, struct ob_err *e)
{
	char found[CONTROL_PATH_MAX];
	const char *path = cli->control;
	struct qmp_client *client;
	json_t *args;
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
	args = json_object();
	if (cli->vm)
		json_object_set(args, "vm", cli->vm);
	if (cli->gva)
		json_object_set(args, "gva", cli->gva);
	r = qmp_client_ask(client, command, args, ANSWER_TIMEOUT_MS, answer, e);
	qmp_client_close(client);
	return r;
}

static void show(const char *verb, bool json, const json_t *answer)
{
	if (json) {
		json_dumpf(answer, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
		putchar('\n');
	} else if (!strcmp(verb, "stat")) {
		ept_print_stat(stdout, answer);
	} else if (!strcmp(verb, "verify")) {
		ept_print_verify(stdout, answer);
	} else {
		ept_print_walk(stdout, answer);
	}
}

/* Does the answer say that something is wrong? */
static bool is_bad(const char *verb, const json_t *answer)
{
	if (!strcmp(verb, "verify"))
		return ept_differences(answer) > 0;
	return !strcmp(verb, "walk") && !json_is_true(json_object_get(answer, "ok"));
}

int cmd_ept(int argc, char **argv)
{
	static const struct {
		const char *verb, *command;
	} verbs[] = {
		{"stat", "x-overbook-ept-stat"},
		{"verify", "x-overbook-ept-verify"},
		{"walk", "x-overbook-ept-walk"},
	};
	struct ept_cli cli = {0};
	const char *command = NULL;
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
		if (argc > 1)
			ob_warn("ept: unknown word '%.40s'; there are stat, verify and walk (try "
				"overbook ept --help)",
				argv[1]);
		else
			ob_warn("ept: which question? There are stat, verify and walk (try "
				"overbook "
				"ept --help)");
		return OB_EXIT_USAGE;
	}
	if (!take_options(&cli, argc - 1, argv + 1, &e) && !ask(&cli, command, &answer, &e)) {
		show(argv[1], cli.json, answer);
		ret = is_bad(argv[1], answer) ? OB_EXIT_FAILED : OB_EXIT_OK;
	} else {
		ob_warn("%s", e.msg);
	}
	if (ret == OB_EXIT_USAGE && ob_stop_signal)
		ret = OB_EXIT_INTERRUPTED;
	json_decref(answer);
	json_decref(cli.vm);
	json_decref(cli.gva);
	return ret;
}
