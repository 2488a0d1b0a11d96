/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: the overbook command: picks the verb, and says what signals mean.
 *
 * Three kinds of process run this program. The one that a person started obeys SIGINT, SIGTERM and
 * SIGHUP (a terminal that was closed must not take the measurement with it; under nohup it stays
 * ignored): a handler notes the signal, system calls return (no SA_RESTART), and what waits looks at
 * ob_stop_signal. Cells and the KSM guardian are its children, in the same process group, so a
 * Ctrl-C reaches them as well; they must not act on it, since it is the coordinator that stops the
 * cells in order and ends the guardian, by closing their pipes. A broken pipe and a limit on the
 * size of files are error codes everywhere, never the end of a process.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "harness/harness.h"

static void note_signal(int sig)
{
	ob_stop_signal = sig;
}

static void signals_set(void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler}, old;

	sigemptyset(&sa.sa_mask);
	OB_ASSERT(sigaction(SIGINT, &sa, NULL) == 0);
	OB_ASSERT(sigaction(SIGTERM, &sa, NULL) == 0);
	OB_ASSERT(sigaction(SIGHUP, NULL, &old) == 0);
	if (old.sa_handler != SIG_IGN)
		OB_ASSERT(sigaction(SIGHUP, &sa, NULL) == 0);
	sa.sa_handler = SIG_IGN;
	OB_ASSERT(sigaction(SIGPIPE, &sa, NULL) == 0);
	OB_ASSERT(sigaction(SIGXFSZ, &sa, NULL) == 0);
}

/* Hidden verb: ksm-guardian FD [LOCK [PACE]]. */
static int guardian_verb(int argc, char **argv)
{
	struct ksm_pace pace = {.kind = KSM_PACE_FASTEST};
	char *end;
	long fd;

	if (argc < 2)
		return OB_EXIT_USAGE;
	errno = 0;
	fd = strtol(argv[1], &end, 10);
	if (errno || end == argv[1] || *end || fd < 0 || fd > 1 << 20) {
		ob_warn("ksm-guardian: '%.40s' is not a descriptor", argv[1]);
		return OB_EXIT_USAGE;
	}
	if (argc > 3 && ksm_pace_parse(argv[3], &pace)) {
		ob_warn("ksm-guardian: '%.40s' is not a pace", argv[3]);
		return OB_EXIT_USAGE;
	}
	if (argc > 4) {
		ob_warn("ksm-guardian: takes FD, LOCK and PACE only, not '%.40s'", argv[4]);
		return OB_EXIT_USAGE;
	}
	return ksm_guardian_main((int)fd, argc > 2 ? argv[2] : NULL, &pace);
}

struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *doc; /* NULL: hidden, run by this program itself */
};

static const struct verb verbs[] = {
	{"doctor", cmd_doctor, "what this host offers, and what to do about what it lacks"},
	{"run", cmd_run, "one guest, its console on the terminal"},
	{"fleet", cmd_fleet, "many guests under one sharing mode, measured"},
	{"ctl", cmd_ctl, "steer a running fleet: its sharing mode, stop, cont, quit"},
	{"compare", cmd_compare, "the same guests under several sharing modes, and a report"},
	{"bench", cmd_bench, "benchmarks, in pairs with a reference"},
	{"ept", cmd_ept, "ask a running fleet what its guests' pages are"},
	{"cell", cell_main, NULL},
	{"ksm-guardian", guardian_verb, NULL},
};

static void usage(FILE *out)
{
	fputs("Usage: overbook VERB [OPTION...]\n"
	      "Boots many similar guests on KVM, merges their identical memory, and measures "
	      "it.\n\n",
	      out);
	for (size_t i = 0; i < OB_ARRAY_SIZE(verbs); i++)
		if (verbs[i].doc)
			fprintf(out, "  %-9s %s\n", verbs[i].name, verbs[i].doc);
	fputs("\noverbook VERB --help lists the options of a verb.\n"
	      "Exit status: 0 all well; 1 it ran and something was wrong; 2 bad input, nothing "
	      "was\n"
	      "started; 130 stopped by a signal, or by quit on the control socket.\n",
	      out);
}

/* Output that did not get out is an error too (a full disk, a closed pipe). */
static int finish(int status)
{
	if ((fflush(stdout) != 0 || ferror(stdout)) && status == OB_EXIT_OK) {
		ob_warn("cannot write standard output: %s", strerror(errno));
		return OB_EXIT_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		ob_warn("which verb? try overbook --help");
		return OB_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return finish(OB_EXIT_OK);
	}
	if (strcmp(argv[1], "--version") == 0) {
		json_t *git = result_git_json();

		printf("overbook %s (%s%s)\n", OB_VERSION,
		       json_string_value(json_object_get(git, "revision")),
		       json_is_true(json_object_get(git, "dirty")) ? ", changed since" : "");
		json_decref(git);
		return finish(OB_EXIT_OK);
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(verbs); i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		signals_set(verbs[i].doc ? note_signal : SIG_IGN);
		return finish(verbs[i].run(argc - 1, argv + 1));
	}
	ob_warn("unknown verb '%.40s'; there are doctor, run, fleet, compare, bench and ept "
		"(try overbook --help)",
		argv[1]);
	return OB_EXIT_USAGE;
}
