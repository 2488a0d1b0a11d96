/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_child.c: the programs that a benchmark measures: overbook and its reference alike are
 * started, heard and ended by the same code, so that what it costs falls on both.
 *
 * A child says on its standard output what its guests print; the first byte is the guest's first
 * instruction, and when it was read is what is measured. Standard error goes to a file without a
 * name, of which the last line is shown when the child fails.
 *
 * Nothing may be left behind. Each child is told to die with us (PR_SET_PDEATHSIG, which needs code
 * between fork and exec: hence vfork and not posix_spawn), and so are overbook's cells with their
 * coordinator. When a child is stopped we also wait until its pipe has no writer: the cells hold it
 * too, so its end is theirs.
 */
#include "harness/bench_child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_SLICE_MS 50

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	OB_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* The guest's texts are in workloads/microguest/main.c: "Overbook microguest", whose O is its first
 * act and the only one that it prints, and "microguest 3: idle is warm, ...". */
void bench_marks_feed(struct bench_marks *m, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		m->first += text[i] == 'O';
		if (text[i] != '\n') {
			if (m->fill + 1 < sizeof(m->line))
				m->line[m->fill++] = text[i];
			continue;
		}
		m->line[m->fill] = '\0';
		m->warm += strstr(m->line, " is warm,") != NULL;
		m->fill = 0;
	}
}

/* The last line of a child's standard error, for the message about it. */
static void last_words(const struct bench_child *c, char *out, size_t n)
{
	char buf[1024];
	off_t end = lseek(c->log, 0, SEEK_END);
	off_t from = end > (off_t)sizeof(buf) - 1 ? end - (off_t)sizeof(buf) + 1 : 0;
	ssize_t got = end > 0 ? pread(c->log, buf, sizeof(buf) - 1, from) : 0;
	char *line;

	got = OB_MAX(got, 0);
	while (got && (unsigned char)buf[got - 1] <= ' ')
		got--;
	buf[got] = '\0';
	line = strrchr(buf, '\n');
	snprintf(out, n, "%.200s", got ? (line ? line + 1 : buf) : "it said nothing");
}

static void child_close(struct bench_child *c)
{
	if (c->out >= 0)
		close(c->out);
	if (c->log >= 0)
		close(c->log);
	if (c->doc >= 0)
		close(c->doc);
	c->out = c->log = c->doc = -1;
	c->pid = 0;
}

/*
 * In a function of its own, that calls nothing but system calls in the child: it shares our memory
 * until exec, and our stack. @err is set by the child when it could not become the program.
 */
static pid_t spawn(char *const argv[], const int fds[BENCH_FD_DOC + 1], int procs_fd,
		   volatile int *err)
{
	pid_t parent = getpid(), pid = vfork();

	if (pid)
		return pid;
	if (procs_fd >= 0 && write(procs_fd, "0", 1) != 1) {
		*err = errno;
		_exit(127);
	}
	/* fds[] lie above BENCH_FD_DOC, so none is overwritten before it is used. */
	for (int i = 0; i <= BENCH_FD_DOC; i++)
		if (dup2(fds[i], i) < 0) {
			*err = errno;
			_exit(127);
		}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(127);
	execv(argv[0], argv);
	*err = errno;
	_exit(127);
}

/* A file that has no name and goes away with its last descriptor. */
static int nameless_file(void)
{
	const char *dir = getenv("TMPDIR");
	char path[PATH_MAX];
	int fd;

	dir = dir && *dir ? dir : "/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || snprintf(path, sizeof(path), "%s/overbook-XXXXXX", dir) >= (int)sizeof(path))
		return fd;
	/* A file system that knows only files with names. */
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/* Move a descriptor above those of a child. */
static int raise_fd(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, BENCH_FD_DOC + 1);

	if (fd >= 0)
		close(fd);
	return high;
}

int bench_child_start(struct bench_child *c, char *const argv[], int procs_fd, uint64_t *started,
		      struct ob_err *e)
{
	int pair[2] = {-1, -1}, fds[BENCH_FD_DOC + 1];
	volatile int err = 0;
	pid_t pid;

	*c = (struct bench_child){.out = -1};
	c->log = raise_fd(nameless_file());
	c->doc = raise_fd(nameless_file());
	fds[0] = raise_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
	if (pipe2(pair, O_CLOEXEC))
		pair[0] = pair[1] = -1;
	c->out = raise_fd(pair[0]);
	fds[1] = raise_fd(pair[1]);
	fds[2] = c->log;
	fds[BENCH_FD_DOC] = c->doc;
	if (c->log < 0 || c->doc < 0 || fds[0] < 0 || fds[1] < 0 || c->out < 0 ||
	    fcntl(c->out, F_SETFL, O_NONBLOCK)) {
		err = errno;
		pid = 0;
	} else {
		if (started)
			*started = bench_now_ns();
		pid = spawn(argv, fds, procs_fd, &err);
		if (pid < 0)
			err = errno;
	}
	if (fds[0] >= 0)
		close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	if (pid > 0 && !err) {
		c->pid = pid;
		return 0;
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
	child_close(c);
	return ob_fail(e, err ? err : EIO, "cannot start %s: %s", argv[0], strerror(err));
}

/* Take what there is. False: no writer is left. */
static bool child_read(struct bench_child *c)
{
	char buf[4096];

	for (;;) {
		ssize_t n = read(c->out, buf, sizeof(buf));

		if (n > 0)
			bench_marks_feed(&c->marks, buf, (size_t)n);
		else if (n == 0)
			return false;
		else if (errno != EINTR)
			return errno == EAGAIN;
	}
}

/* Wait for output of any, at most @ms, and take it. Returns the index of one whose output has ended
 * just now, or -1. */
static int children_hear(struct bench_child *c, unsigned int n, int ms)
{
	struct pollfd *p = calloc(n, sizeof(*p));
	int ended = -1;

	OB_ASSERT(p);
	for (unsigned int i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = c[i].out, .events = POLLIN};
	if (poll(p, n, ms) > 0)
		for (unsigned int i = 0; i < n; i++)
			if (p[i].fd >= 0 && p[i].revents && !child_read(&c[i])) {
				close(c[i].out);
				c[i].out = -1;
				ended = (int)i;
			}
	free(p);
	return ended;
}

static int ended_early(const struct bench_child *c, struct ob_err *e)
{
	char words[256];

	if (ob_stop_signal)
		return ob_fail(e, EINTR, "interrupted");
	last_words(c, words, sizeof(words));
	return ob_fail(e, EIO, "a measured program ended before its time: %s", words);
}

static unsigned int count_marks(const struct bench_child *c, unsigned int n, enum bench_mark what)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < n; i++)
		sum += what == BENCH_FIRST ? c[i].marks.first : c[i].marks.warm;
	return sum;
}

int bench_children_wait(struct bench_child *c, unsigned int n, enum bench_mark what,
			unsigned int want, unsigned int timeout_s, uint64_t *at, struct ob_err *e)
{
	uint64_t until = bench_now_ns() + timeout_s * OB_NS_PER_SEC;

	while (count_marks(c, n, what) < want) {
		int ended = children_hear(c, n, POLL_SLICE_MS);
		uint64_t now = bench_now_ns();

		if (at)
			*at = now;
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (ended >= 0)
			return ended_early(&c[ended], e);
		if (now > until) {
			char words[256];

			last_words(&c[0], words, sizeof(words));
			return ob_fail(e, ETIMEDOUT, "only %u of %u guests %s within %u s: %s",
				       count_marks(c, n, what), want,
				       what == BENCH_FIRST ? "started" : "were ready", timeout_s,
				       words);
		}
	}
	return 0;
}

int bench_children_rest(struct bench_child *c, unsigned int n, unsigned int ms, struct ob_err *e)
{
	uint64_t until = bench_now_ns() + ms * OB_NS_PER_MS, now;

	while ((now = bench_now_ns()) < until) {
		int slice = (int)OB_MIN((until - now) / OB_NS_PER_MS + 1, (uint64_t)POLL_SLICE_MS);
		int ended = children_hear(c, n, slice);

		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (ended >= 0)
			return ended_early(&c[ended], e);
	}
	return 0;
}

int bench_children_stop(struct bench_child *c, unsigned int n, int sig, unsigned int grace_s,
			struct ob_err *e)
{
	uint64_t until = bench_now_ns() + grace_s * OB_NS_PER_SEC;
	bool late = false;

	for (unsigned int i = 0; i < n; i++)
		if (c[i].pid)
			kill(c[i].pid, sig);
	for (unsigned int i = 0; i < n; i++) {
		while (c[i].out >= 0) {
			children_hear(&c[i], 1, POLL_SLICE_MS);
			if (!late && c[i].out >= 0 && bench_now_ns() > until) {
				late = true;
				for (unsigned int k = i; k < n; k++)
					if (c[k].pid)
						kill(c[k].pid, SIGKILL);
			}
		}
		if (c[i].pid)
			while (waitpid(c[i].pid, NULL, 0) < 0 && errno == EINTR)
				;
		if (c[i].pid)
			child_close(&c[i]);
	}
	return late ? ob_fail(e, ETIMEDOUT, "a measured program did not stop within %u s", grace_s)
		    : 0;
}

int bench_child_finish(struct bench_child *c, unsigned int timeout_s, json_t **doc,
		       struct ob_err *e)
{
	uint64_t until = bench_now_ns() + timeout_s * OB_NS_PER_SEC;
	char words[256];
	int status = 0;

	*doc = NULL;
	while (c->out >= 0) {
		children_hear(c, 1, POLL_SLICE_MS);
		if (c->out >= 0 && (ob_stop_signal || bench_now_ns() > until)) {
			struct ob_err late;

			if (bench_children_stop(c, 1, SIGTERM, 10, &late))
				return ob_fail(e, ETIMEDOUT, "%s", late.msg);
			return ob_stop_signal
				       ? ob_fail(e, EINTR, "interrupted")
				       : ob_fail(e, ETIMEDOUT, "a measured program took over %u s",
						 timeout_s);
		}
	}
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
	last_words(c, words, sizeof(words));
	if (lseek(c->doc, 0, SEEK_SET) == 0)
		*doc = json_loadfd(c->doc, JSON_DISABLE_EOF_CHECK, NULL);
	child_close(c);
	if (ob_stop_signal) {
		json_decref(*doc);
		*doc = NULL;
		return ob_fail(e, EINTR, "interrupted");
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return ob_fail(e, EIO, "a measured program failed (%s %d): %s",
			       WIFEXITED(status) ? "exit status" : "signal",
			       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), words);
	return *doc ? 0 : ob_fail(e, EIO, "a measured program left no result: %s", words);
}
