/* SPDX-License-Identifier: Apache-2.0 */
/* plain.c: runs the tests of plain/criterion/criterion.h. Usage: BINARY [--filter PATTERN]... with
 * patterns as of the shell, on SUITE/NAME; what else Criterion knows is taken and ignored. */
#include <criterion/criterion.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

static struct plain_test *first;
static struct plain_suite *suites;
static _Atomic bool failed;

void plain_register(struct plain_test *t)
{
	struct plain_test **at = &first;

	/* By name, so that the order does not depend on the linker. */
	while (*at && (strcmp((*at)->suite, t->suite) < 0 ||
		       (!strcmp((*at)->suite, t->suite) && strcmp((*at)->name, t->name) < 0)))
		at = &(*at)->next;
	t->next = *at;
	*at = t;
}

void plain_register_suite(struct plain_suite *s)
{
	s->next = suites;
	suites = s;
}

void plain_check(bool ok, bool fatal, const char *file, int line, const char *what, const char *fmt,
		 ...)
{
	va_list args;

	if (ok)
		return;
	failed = true;
	fprintf(stderr, "[----] %s:%d: %s:", file, line, what);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	if (fatal)
		_exit(1);
}

void plain_skip(const char *fmt, ...)
{
	va_list args;

	printf("[SKIP]");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(SKIPPED);
}

void plain_log(const char *fmt, ...)
{
	va_list args;

	printf("[----] ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

/* The status of its process. A sanitizer that has something to say makes it end by another one. */
static int run(const struct plain_test *t)
{
	struct plain_suite *s = suites;
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		if (t->timeout > 0)
			alarm((unsigned int)t->timeout);
		while (s && strcmp(s->name, t->suite))
			s = s->next;
		if (s && s->init)
			s->init();
		if (t->init)
			t->init();
		t->run();
		if (t->fini)
			t->fini();
		if (s && s->fini)
			s->fini();
		exit(failed);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	return status;
}

static bool wanted(const struct plain_test *t, int argc, char **argv)
{
	bool any = false;
	char name[256];

	snprintf(name, sizeof(name), "%s/%s", t->suite, t->name);
	for (int i = 1; i + 1 < argc; i++) {
		if (strcmp(argv[i], "--filter"))
			continue;
		any = true;
		if (!fnmatch(argv[i + 1], name, 0))
			return true;
	}
	return !any;
}

int main(int argc, char **argv)
{
	int n = 0, passed = 0, crashed = 0, skipped = 0;

	for (const struct plain_test *t = first; t; t = t->next) {
		int status;
		bool ok;

		if (!wanted(t, argc, argv))
			continue;
		n++;
		status = run(t);
		ok = t->signal ? WIFSIGNALED(status) && WTERMSIG(status) == t->signal
			       : WIFEXITED(status) &&
					 (!WEXITSTATUS(status) || WEXITSTATUS(status) == SKIPPED);
		skipped += WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED;
		passed += ok;
		crashed += !ok && WIFSIGNALED(status);
		printf("[%s] %s::%s\n", ok ? "PASS" : "FAIL", t->suite, t->name);
		if (!ok && WIFSIGNALED(status))
			printf("[----] ended by signal %d\n", WTERMSIG(status));
	}
	printf("[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d\n",
	       n - skipped, passed - skipped, n - passed - crashed, crashed);
	return passed != n;
}
