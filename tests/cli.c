/* SPDX-License-Identifier: Apache-2.0 */
/* cli.c: running the overbook command as a person would, for tests. */
#include "tests/cli.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

const char *cli_build(void)
{
	const char *b = getenv("OB_BUILD");

	return b && *b ? b : "build";
}

bool cli_have_kvm(void)
{
	if (!access("/dev/kvm", R_OK | W_OK))
		return true;
	cr_assert(!getenv("OB_REQUIRE_KVM"), "no /dev/kvm, and the tests were asked to need it");
	return false;
}

static void temp_name(char *buf, size_t n, const char *what)
{
	int fd;

	snprintf(buf, n, "/tmp/overbook-test-%s-XXXXXX", what);
	fd = mkstemp(buf);
	cr_assert(fd >= 0);
	close(fd);
}

static void start(struct cli *c, const char *name, const char *args, bool json)
{
	char program[600], words[2048], *argv[64], *save = NULL;
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t sigs;
	int n = 0, r;

	memset(c, 0, sizeof(*c));
	c->status = -1;
	temp_name(c->out_path, sizeof(c->out_path), "out");
	temp_name(c->err_path, sizeof(c->err_path), "err");
	temp_name(c->json_path, sizeof(c->json_path), "json");
	unlink(c->json_path);
	snprintf(program, sizeof(program), "%s/%s", cli_build(), name);
	snprintf(words, sizeof(words), "%s%s%s", args, json ? " --json " : "",
		 json ? c->json_path : "");
	argv[n++] = program;
	for (char *w = strtok_r(words, " ", &save); w && n < 63; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n] = NULL;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, c->out_path, O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 2, c->err_path, O_WRONLY, 0);
	/* Tests that are run under nohup pass an ignored SIGHUP on, which the command would heed. */
	sigfillset(&sigs);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigdefault(&attr, &sigs);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(&c->pid, program, &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	cr_assert(!r, "%s: %s", program, strerror(r));
}

void cli_start(struct cli *c, const char *args, bool json)
{
	start(c, "overbook", args, json);
}

static void slurp(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd >= 0 ? read(fd, buf, n - 1) : 0;

	buf[got > 0 ? got : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

void cli_nap_ms(long ms)
{
	const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

void cli_wait(struct cli *c, unsigned int seconds)
{
	bool late = false;
	int status;

	for (unsigned int i = 0; waitpid(c->pid, &status, WNOHANG) == 0; i++) {
		if (i > seconds * 100) {
			late = true;
			kill(c->pid, SIGKILL);
		}
		cli_nap_ms(10);
	}
	c->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	slurp(c->out_path, c->out, sizeof(c->out));
	slurp(c->err_path, c->err, sizeof(c->err));
	c->result = json_load_file(c->json_path, 0, NULL);
	cr_assert(!late, "still running after %u s:\n%s%s", seconds, c->out, c->err);
}

void cli_run(struct cli *c, const char *args, bool json, unsigned int seconds)
{
	cli_start(c, args, json);
	cli_wait(c, seconds);
}

void cli_run_as(struct cli *c, const char *program, const char *args, unsigned int seconds)
{
	start(c, program, args, false);
	cli_wait(c, seconds);
}

void cli_free(struct cli *c)
{
	json_decref(c->result);
	c->result = NULL;
	unlink(c->out_path);
	unlink(c->err_path);
	unlink(c->json_path);
}

unsigned int cli_children(pid_t pid, const char *word, pid_t *out, unsigned int max)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned int n = 0;

	cr_assert(d);
	while ((e = readdir(d)) && n < max) {
		char path[300], stat[512], cmd[512] = "";
		char *p;
		int ppid = 0;

		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		slurp(path, stat, sizeof(stat));
		p = strrchr(stat, ')');
		if (!p || sscanf(p + 1, " %*c %d", &ppid) != 1 || (pid && ppid != pid))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
		slurp(path, cmd, sizeof(cmd));
		if (!strcmp(cmd, "overbook") && !strcmp(cmd + strlen(cmd) + 1, word))
			out[n++] = (pid_t)atoi(e->d_name);
	}
	closedir(d);
	return n;
}

const json_t *cli_run_of(const struct cli *c, size_t i)
{
	const json_t *r = json_array_get(json_object_get(c->result, "runs"), i);

	cr_assert(r, "no run %zu in the result:\n%s%s", i, c->out, c->err);
	return r;
}

bool cli_converged(const json_t *r)
{
	return json_is_true(json_object_get(json_object_get(r, "kernel_ksm"), "converged"));
}

json_int_t cli_num(const json_t *o, const char *a, const char *b)
{
	const json_t *v = json_object_get(o, a);

	if (b)
		v = json_object_get(v, b);
	cr_assert(json_is_integer(v), "%s %s is not a number", a, b ? b : "");
	return json_integer_value(v);
}

const char *cli_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}
