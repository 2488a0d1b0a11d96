/* SPDX-License-Identifier: Apache-2.0 */
/* cli.h: running the overbook command as a person would, for tests. */
#ifndef OVERBOOK_TESTS_CLI_H
#define OVERBOOK_TESTS_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct cli {
	pid_t pid;
	char out_path[64], err_path[64], json_path[64];
	int status; /* exit status; 128 + signal; -1 while it runs */
	char out[65536], err[65536];
	json_t *result; /* what --json wrote, NULL when nothing */
};

/* Folder of the build under test: OB_BUILD, else "build". */
const char *cli_build(void);
/* Can a guest boot here? Skips the test otherwise, or fails it when OB_REQUIRE_KVM is set. */
bool cli_have_kvm(void);

/* Start `overbook @args` (words split at blanks; with " --json FILE" appended when @json). */
void cli_start(struct cli *c, const char *args, bool json);
/* Wait for its end for up to @seconds (then it is killed and the test fails),
 * read what it wrote. */
void cli_wait(struct cli *c, unsigned int seconds);
/* Both. */
void cli_run(struct cli *c, const char *args, bool json, unsigned int seconds);
/* Another program of the build. */
void cli_run_as(struct cli *c, const char *program, const char *args, unsigned int seconds);
void cli_free(struct cli *c);
void cli_nap_ms(long ms);
/* Direct children of @pid whose command line has @word second; returns how many (at most @max). */
unsigned int cli_children(pid_t pid, const char *word, pid_t *out, unsigned int max);

/* What is in a result; what is not there fails the test. Run number @i. */
const json_t *cli_run_of(const struct cli *c, size_t i);
/* Was Linux KSM through in run or phase @r? ksmd has a low priority: on a busy host it may not be, and
 * then there is nothing to say of what it saves. */
bool cli_converged(const json_t *r);
/* A whole number: @o's @a, or with @b the @b of its @a. */
json_int_t cli_num(const json_t *o, const char *a, const char *b);
/* A text; "" when there is none. */
const char *cli_str(const json_t *o, const char *key);

/* For tests that boot guests (Criterion). */
#define NEED_KVM()                                                    \
	do {                                                          \
		if (!cli_have_kvm())                                  \
			cr_skip_test("no /dev/kvm that we may open"); \
	} while (0)

#endif
