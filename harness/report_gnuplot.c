/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report_gnuplot.c: from a program for gnuplot to an SVG.
 *
 * gnuplot is started directly, without a shell and without the user's start-up files; its program,
 * with the data in it, is its standard input (a file without a name, so that neither side can wait
 * for the other), and the SVG is what it writes. Colours of text and axes are left to the page
 * (currentColor), so that the plot is readable on light and dark ground. Whatever goes wrong with
 * gnuplot costs the plot and no more: a sentence stands in its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/report.h"

#define PLOT_TIMEOUT_S 30
#define PLOT_MAX_BYTES (8 << 20)

/* All that comes out of @fd, until its end, the limit or the deadline. NULL on the latter two. */
static char *plot_read(int fd)
{
	size_t cap = 64 << 10, n = 0;
	char *buf = malloc(cap);
	struct timespec now;
	time_t deadline;

	clock_gettime(CLOCK_MONOTONIC, &now);
	deadline = now.tv_sec + PLOT_TIMEOUT_S;
	while (buf) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got;

		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= deadline || cap > PLOT_MAX_BYTES)
			break;
		if (poll(&p, 1, 1000) <= 0)
			continue;
		got = read(fd, buf + n, cap - n - 1);
		if (got == 0) {
			buf[n] = '\0';
			return buf;
		}
		if (got < 0 && errno != EINTR)
			break;
		n += got > 0 ? (size_t)got : 0;
		if (n + 1 == cap) {
			char *more = realloc(buf, cap * 2);

			if (!more)
				break;
			buf = more;
			cap *= 2;
		}
	}
	free(buf);
	return NULL;
}

char *report_gnuplot(FILE *program, const char **why)
{
	static char gnuplot[] = "gnuplot", defaults[] = "-d";
	char *const argv[] = {gnuplot, defaults, NULL};
	posix_spawn_file_actions_t fa;
	int fds[2], status = 0, ret;
	char *svg;
	pid_t pid;

	*why = "there is no room to start gnuplot";
	if (lseek(fileno(program), 0, SEEK_SET) != 0 || pipe2(fds, O_CLOEXEC) != 0)
		return NULL;
	OB_ASSERT(posix_spawn_file_actions_init(&fa) == 0);
	OB_ASSERT(posix_spawn_file_actions_adddup2(&fa, fileno(program), STDIN_FILENO) == 0);
	OB_ASSERT(posix_spawn_file_actions_adddup2(&fa, fds[1], STDOUT_FILENO) == 0);
	OB_ASSERT(posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0) ==
		  0);
	ret = posix_spawnp(&pid, gnuplot, &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(fds[1]);
	if (ret) {
		close(fds[0]);
		*why = ret == ENOENT ? "gnuplot is not installed (apt-get install gnuplot-nox)"
				     : "gnuplot could not be started";
		return NULL;
	}
	svg = plot_read(fds[0]);
	close(fds[0]);
	if (!svg)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (svg && WIFEXITED(status) && WEXITSTATUS(status) == 0 && strstr(svg, "<svg"))
		return svg;
	free(svg);
	*why = "gnuplot failed";
	return NULL;
}
