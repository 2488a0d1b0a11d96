/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guardian.c: the process that puts the settings of Linux KSM back.
 *
 * KSM's settings belong to the whole host. Whoever changes them must put them back, also when it is
 * killed; so they are put back by another process, that waits until its parent closes a socket,
 * which the kernel does for a parent however it ends. The guardian is its own session and ignores
 * the signals of a terminal, so that Ctrl-C does not end it before its time.
 *
 * Several runs may use KSM at once. The first must save the settings, the last must put them back,
 * and either may be killed. All of that is one file, with a lock (flock) on it:
 *
 *	each guardian holds a *shared* lock for as long as its run uses KSM
 *	the file holds the saved settings for as long as they are changed
 *	only a guardian with the *exclusive* lock changes the file or the settings
 *
 * Start: try for the exclusive lock. Got it: nobody else uses KSM. Is the file empty, then the
 * settings are as the host wants them: save them, and fsync, before the first one is changed. If it
 * is not empty, a guardian was killed before it could put them back: what the file says are the
 * originals, what the kernel says is not. Set our own, and turn the lock into a shared one. Not got
 * it: wait for a shared lock. Then, in either case, look at the file. Settings there: others use
 * KSM too, or nobody but us does. An empty file: the others ended in between and put all back:
 * begin again.
 *
 * With the originals the file names the pace (pace.c) that KSM is driven at. Who finds another than
 * its own once it has the shared lock does not start. The line of the pace has a fixed length, so
 * that a first user which finds originals left over writes its own pace over that of the dead one
 * by one write: the originals are in the file at every moment.
 *
 * End: try to turn the shared lock into the exclusive one, without waiting. Not got it: somebody
 * else uses KSM, and will do what is to be done. Got it: put back what the file says, then empty
 * it.
 *
 * Turning a lock is not atomic: the kernel drops the old one first, and when the new one is
 * refused, the old one is gone too. That does not hurt here.
 *  - At the start, between exclusive and shared, another guardian may get the exclusive lock. It
 *    finds the saved settings, takes them for what they are, the originals, and sets its own. If
 *    that is another pace, the one before finds it in the file and does not start.
 *  - At the end, of several guardians that try at once, look at the one whose try comes last: each
 *    other has either dropped its lock before (when its try failed) or holds the exclusive lock. In
 *    the first case the last one succeeds, in the second that other one is putting things back
 *    just now. So there is always one who does, and two at once are ruled out by the lock itself.
 *    A guardian that is starting may be what makes the try fail; then it is a user, and the last of
 *    the users puts back.
 *  - A killed guardian's lock is dropped by the kernel, its settings stay in the file, and whoever
 *    is last, or the next to come, puts them back.
 *
 * The file lies on a file system that does not survive a reboot, as the settings do not either. A
 * file that was cut off while it was being written has no end mark; then nothing was changed yet,
 * and it counts as empty. When something cannot be put back (merge_across_nodes while pages are
 * still merged, for example), the guardian tries for a while and else leaves the file as it is, so
 * that the next one to come tries again.
 *
 * All of this holds among those who see the same file. Two in different roots (containers, or a
 * chroot) may see one kernel's settings and two files; the second would take our settings for the
 * host's own, save them, and leave them behind. So a first user that finds nothing saved and yet
 * settings that only we make (fastest and sleep:MS can be told) refuses, and says how to put them
 * back by hand. (Two such that start within the same millisecond do not see each other.)
 *
 * A guardian that was killed is seen by its parent when that stops: one more guardian, started and
 * stopped at once, is then a user like any other, and puts back what the dead one left in the file.
 *
 * The parent and its guardian talk over a socket pair: one line from the guardian, "ready" or
 * "error ERRNO TEXT", and nothing from the parent but the end of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ksm/sysfs.h"

#define DEFAULT_LOCK	 "/run/overbook-ksm.lock"
#define TEXT_MAX	 1024
#define START_TRIES	 2000 /* of 1 to 8 ms each */
#define RESTORE_TRIES	 40   /* of 50 ms each */
#define READY_TIMEOUT_MS 30000

extern char **environ;

/* --- the guardian -------------------------------------------------------------------------- */

struct guardian {
	const char *lock_path, *root;
	const struct ksm_pace *pace;
	int lock_fd;
};

static void sleep_ms(unsigned int ms)
{
	poll(NULL, 0, (int)ms);
}

static int lock(int fd, int how)
{
	int r;

	do {
		r = flock(fd, how) ? -errno : 0;
	} while (r == -EINTR);
	return r;
}

static int lock_open(struct guardian *g, struct ob_err *e)
{
	struct stat st;

	g->lock_fd = open(g->lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
	if (g->lock_fd < 0)
		return ob_fail(e, errno, "cannot open the KSM lock file %s: %s", g->lock_path,
			       strerror(errno));
	if (fstat(g->lock_fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return ob_fail(e, EPERM,
			       "the KSM lock file %s is not a regular file of ours: remove it",
			       g->lock_path);
	return 0;
}

/* 1: the file holds saved settings, 0: it does not, -errno: it holds something else. */
static int saved_read(struct guardian *g, struct ksm_settings *s, struct ksm_pace *pace,
		      struct ob_err *e)
{
	char buf[TEXT_MAX];
	ssize_t n = pread(g->lock_fd, buf, sizeof(buf), 0);

	if (n < 0)
		return ob_fail(e, errno, "cannot read %s: %s", g->lock_path, strerror(errno));
	if (!n)
		return 0;
	if (!ksm_settings_parse(buf, (size_t)n, s, pace))
		return 1;
	/* Cut off while being written? Then it begins as all of them do, and has no end. */
	if (!memcmp(buf, KSM_SAVED_HEAD, OB_MIN((size_t)n, strlen(KSM_SAVED_HEAD))) &&
	    (n < 4 || memcmp(buf + n - 4, "end\n", 4)))
		return 0;
	return ob_fail(
		e, EINVAL,
		"%s holds something that is not saved KSM settings: look at it and remove it",
		g->lock_path);
}

/* Over what is saved already it is the same but for the pace, and as long: one write, whole or
 * not. */
static int saved_write(struct guardian *g, const struct ksm_settings *s, bool over,
		       struct ob_err *e)
{
	char buf[TEXT_MAX];
	int n = ksm_settings_format(s, g->pace, buf, sizeof(buf));

	if (n < 0 || (!over && ftruncate(g->lock_fd, 0)) ||
	    pwrite(g->lock_fd, buf, (size_t)n, 0) != n || fsync(g->lock_fd))
		return ob_fail(e, EIO, "cannot save the KSM settings in %s", g->lock_path);
	return 0;
}

/* With the exclusive lock: what the file says, or else what the host has, is the original. */
static int first_user(struct guardian *g, struct ob_err *e)
{
	struct ksm_settings saved, now;
	struct ksm_pace left;
	int r = ksm_settings_read(g->root, &now);

	if (r)
		return ob_fail(e, -r, "cannot read %s/sys/kernel/mm/ksm: %s", g->root,
			       strerror(-r));
	r = saved_read(g, &saved, &left, e);
	if (r < 0)
		return r;
	if (r && !ksm_pace_equal(&left, g->pace)) {
		r = saved_write(g, &saved, true, e);
		if (r)
			return r;
	} else if (!r) {
		if (ksm_settings_are_ours(&now))
			return ob_fail(
				e, EBUSY,
				"Linux KSM is driven by another overbook (container, chroot); if "
				"there is none: cd %s/sys/kernel/mm/ksm; echo 0 >run; echo 100 "
				">pages_to_scan; echo 20 >sleep_millisecs",
				g->root);
		r = saved_write(g, &now, false, e);
		if (r)
			return r;
	}
	return ksm_settings_pace(g->root, &now, g->pace, e);
}

/* With the exclusive lock: everything back, then the file emptied. */
static int last_user(struct guardian *g, struct ob_err *e)
{
	struct ksm_settings saved;
	int r = saved_read(g, &saved, NULL, e);

	/* Nothing saved: another guardian has put it back already. */
	if (r <= 0)
		return r;
	for (unsigned int i = 0;; i++) {
		r = ksm_settings_restore(g->root, &saved, e);
		if (!r)
			break;
		if (i == RESTORE_TRIES)
			return r;
		sleep_ms(50);
	}
	if (ftruncate(g->lock_fd, 0) || fsync(g->lock_fd))
		return ob_fail(e, errno, "cannot empty %s: %s", g->lock_path, strerror(errno));
	return 0;
}

static int guardian_leave(struct guardian *g, struct ob_err *e)
{
	int r = lock(g->lock_fd, LOCK_EX | LOCK_NB);

	r = r ? 0 : last_user(g, e);
	close(g->lock_fd);
	return r;
}

/* Can KSM be driven here at all? Asked first, as its answer helps more than one about the lock. */
static int check_access(const struct guardian *g, struct ob_err *e)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/sys/kernel/mm/ksm/run", g->root);

	if (n < 0 || (size_t)n >= sizeof(path))
		return ob_fail(e, ENAMETOOLONG, "the root of the settings is too long");
	if (!access(path, W_OK))
		return 0;
	if (errno == ENOENT)
		return ob_fail(e, ENOENT, "no %s: this kernel is built without CONFIG_KSM", path);
	return ob_fail(e, errno, "cannot write %s: %s (Linux KSM is set up by root only)", path,
		       strerror(errno));
}

/* The kernel has one ksmd: two users can only want the same of it. Leave as every user does, since
 * we may be the last one by now. */
static int other_pace(struct guardian *g, const struct ksm_pace *pace, struct ob_err *e)
{
	char theirs[KSM_PACE_TEXT], ours[KSM_PACE_TEXT];
	struct ob_err ignored;

	if (!lock(g->lock_fd, LOCK_EX | LOCK_NB))
		last_user(g, &ignored);
	return ob_fail(
		e, EBUSY,
		"Linux KSM is driven by another run, with --ksm %s; this one wants --ksm %s: "
		"wait for that one to end",
		ksm_pace_text(pace, theirs), ksm_pace_text(g->pace, ours));
}

static int guardian_enter(struct guardian *g, struct ob_err *e)
{
	struct ksm_settings saved;
	struct ksm_pace pace;
	int r = check_access(g, e);

	if (!r)
		r = lock_open(g, e);
	if (r)
		return r;
	for (unsigned int i = 0; i < START_TRIES; i++) {
		if (!lock(g->lock_fd, LOCK_EX | LOCK_NB)) {
			r = first_user(g, e);
			if (r) {
				/* A part of it may be done: undo that, under the same lock. */
				struct ob_err ignored;

				last_user(g, &ignored);
				return r;
			}
		}
		r = lock(g->lock_fd, LOCK_SH);
		if (r)
			return ob_fail(e, -r, "cannot lock %s: %s", g->lock_path, strerror(-r));
		r = saved_read(g, &saved, &pace, e);
		if (r < 0)
			return r;
		if (r && ksm_pace_equal(&pace, g->pace))
			return 0;
		if (r)
			return other_pace(g, &pace, e);
		lock(g->lock_fd, LOCK_UN);
		/* Others that start now do the same: step out of their pace. */
		sleep_ms(1 + (unsigned int)(getpid() + (int)i * 5) % 8);
	}
	return ob_fail(e, EBUSY, "%s is locked by something that does not use KSM", g->lock_path);
}

static void say(int fd, const char *line)
{
	/* A parent that is dead already shows in the wait that follows. */
	(void)!send(fd, line, strlen(line), MSG_NOSIGNAL);
}

static void wait_for_end(int fd)
{
	char c;

	for (;;) {
		ssize_t n = read(fd, &c, 1);

		if (!n || (n < 0 && errno != EINTR))
			return;
	}
}

int ksm_guardian_run(int pipe_fd, const char *lock_path, const struct ksm_pace *pace,
		     const char *root)
{
	struct guardian g = {
		.lock_path = lock_path ? lock_path : DEFAULT_LOCK, .root = root, .pace = pace};
	struct ob_err e = {""};
	char line[sizeof(e.msg) + 32];
	int r;

	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	if (fcntl(pipe_fd, F_GETFD) < 0) {
		ob_warn("ksm-guardian: no descriptor %d; this is started by overbook itself",
			pipe_fd);
		return 2;
	}
	r = guardian_enter(&g, &e);
	if (r) {
		snprintf(line, sizeof(line), "error %d %s\n", -r, e.msg);
		say(pipe_fd, line);
		return 1;
	}
	say(pipe_fd, "ready\n");
	wait_for_end(pipe_fd);
	r = guardian_leave(&g, &e);
	if (r)
		ob_warn("%s; the saved settings stay in %s, the next run puts them back", e.msg,
			g.lock_path);
	return r ? 1 : 0;
}

int ksm_guardian_main(int pipe_fd, const char *lock_path, const struct ksm_pace *pace)
{
	return ksm_guardian_run(pipe_fd, lock_path, pace, "");
}

/* --- its parent ---------------------------------------------------------------------------- */

/* Start it: its end of the socket becomes descriptor 3, all others close by themselves. */
static int guardian_spawn(const struct ksm_driver *d, int fd, pid_t *pid)
{
	char name[] = "overbook", verb[] = "ksm-guardian", num[] = "3", pace[KSM_PACE_TEXT];
	char *argv[7] = {name, verb, num, NULL, pace, NULL, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none;
	int r;

	ksm_pace_text(&d->pace, pace);
	argv[3] = strdup(d->lock_path);
	argv[5] = d->root[0] ? strdup(d->root) : NULL;
	if (!argv[3] || (d->root[0] && !argv[5])) {
		free(argv[3]);
		free(argv[5]);
		return -ENOMEM;
	}
	sigemptyset(&none);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, fd, 3);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(pid, d->self_exe, &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	free(argv[3]);
	free(argv[5]);
	return -r;
}

/* The guardian's one line, without its end. -errno when it says nothing in time. */
static int answer_read(int fd, char *line, size_t size)
{
	size_t n = 0;

	while (n + 1 < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int r = poll(&p, 1, READY_TIMEOUT_MS);
		ssize_t got;

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r ? -errno : -ETIMEDOUT;
		got = read(fd, line + n, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EPIPE;
		if (line[n] == '\n')
			break;
		n++;
	}
	line[n] = '\0';
	return 0;
}

/* End the guardian; how it ended, or -1 when that is not known. */
static int driver_end(struct ksm_driver *d)
{
	int status;

	close(d->pipe_fd);
	d->pipe_fd = -1;
	while (waitpid(d->guardian_pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/* Start a guardian. On error none is left, and @status says how it ended (0: there was none). */
static int driver_begin(struct ksm_driver *d, int *status, struct ob_err *e)
{
	char line[sizeof(e->msg) + 32];
	int sv[2], r, err = 0, at = 0;
	pid_t pid;

	*status = 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return ob_fail(e, errno, "socketpair: %s", strerror(errno));
	r = guardian_spawn(d, sv[1], &pid);
	close(sv[1]);
	if (r) {
		close(sv[0]);
		return ob_fail(e, -r, "cannot start the KSM guardian from %s: %s", d->self_exe,
			       strerror(-r));
	}
	d->pipe_fd = sv[0];
	d->guardian_pid = pid;
	r = answer_read(sv[0], line, sizeof(line));
	if (!r && !strcmp(line, "ready"))
		return 0;
	*status = driver_end(d);
	if (!r && sscanf(line, "error %d %n", &err, &at) == 1 && err > 0 && at > 0)
		return ob_fail(e, err, "%s", line + at);
	return ob_fail(e, r ? -r : EPROTO, "the KSM guardian did not start: %s",
		       r ? strerror(-r) : line);
}

/* The guardian was killed: what it would have put back, another one does. */
static void driver_rescue(struct ksm_driver *d, int status)
{
	struct ob_err e = {""};
	int again, sig = WTERMSIG(status), r = driver_begin(d, &again, &e);

	if (!r) {
		again = driver_end(d);
		if (again >= 0 && WIFSIGNALED(again))
			r = ob_fail(&e, EINTR, "so was the next");
	}
	if (r)
		ob_warn("the KSM guardian was killed (signal %d): %s; the next run with --sharing "
			"kernel puts the settings back",
			sig, e.msg);
	else
		ob_warn("the KSM guardian was killed (signal %d); another one took its place", sig);
}

int ksm_driver_start_at(struct ksm_driver *d, const char *self_exe, const char *lock_path,
			const struct ksm_pace *pace, const char *root, struct ob_err *e)
{
	int status, r;

	*d = (struct ksm_driver){.pipe_fd = -1,
				 .guardian_pid = -1,
				 .self_exe = self_exe,
				 .lock_path = lock_path ? lock_path : DEFAULT_LOCK,
				 .root = root,
				 .pace = *pace};
	r = driver_begin(d, &status, e);
	if (r && status > 0 && WIFSIGNALED(status))
		driver_rescue(d, status);
	return r;
}

int ksm_driver_start(struct ksm_driver *d, const char *self_exe, const char *lock_path,
		     const struct ksm_pace *pace, struct ob_err *e)
{
	return ksm_driver_start_at(d, self_exe, lock_path, pace, "", e);
}

void ksm_driver_stop(struct ksm_driver *d)
{
	int status;

	if (d->pipe_fd < 0)
		return;
	status = driver_end(d);
	if (status >= 0 && WIFSIGNALED(status))
		driver_rescue(d, status);
}
