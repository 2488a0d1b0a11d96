/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_fleet.c: from a command line to a configuration that can be run: parse (opts.c), fill in the
 * defaults that depend on where we are, check (opts_check.c), and say the one line when it is no.
 */
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/opts.h"

/* results/<UTC time>-<pid>: sorts by time, and two runs of one second do not meet. */
static void default_out_dir(struct fleet_config *c)
{
	time_t now = time(NULL);
	struct tm tm;
	char when[32];

	gmtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	snprintf(c->out_buf, sizeof(c->out_buf), "results/%s-%d", when, (int)getpid());
	c->out_dir = c->out_buf;
}

int opts_fleet(struct fleet_config *c, const char *verb, int argc, char **argv)
{
	char exe[PATH_MAX], note[400];
	struct ob_err e = {""};
	struct opts_given given;
	struct opts_host host;
	bool software;
	ssize_t n;

	switch (opts_parse(c, &given, verb, argc, argv, &e)) {
	case OPTS_HELP:
		return -1;
	case OPTS_BAD:
		ob_warn("%s", e.msg);
		return OB_EXIT_USAGE;
	case OPTS_OK:
		break;
	}
	software = kvm_mode_detect() == KVM_MODE_SOFTWARE;
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	exe[n < 0 ? 0 : n] = '\0';
	if (strcmp(verb, "compare") == 0 && !given.out_dir)
		default_out_dir(c);
	if (opts_linux_settle(c, &given, verb, exe, software, &e) ||
	    opts_default_paths(c, exe, &e) || opts_host_read(&host, &e) ||
	    opts_check(c, &given, &host, note, sizeof(note), &e)) {
		ob_warn("%s", e.msg);
		return OB_EXIT_USAGE;
	}
	if (note[0])
		ob_warn("%s", note);
	if (c->lx.on && software)
		ob_warn("this KVM has no hardware below it: Linux guests boot in many minutes "
			"here; "
			"make lab runs them in a machine of its own");
	return 0;
}
