/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp_server.c: QMP sessions over a Unix socket, for a process that has other things to do.
 *
 * There is no thread and no lock: the owner calls qmp_server_serve where it would otherwise sleep. All
 * sockets are non-blocking. From a client whose answers pile up no more commands are taken, so it waits
 * for itself; events come all the same, and a client that reads none of them is cut off in the end.
 *
 * Whoever may open the socket may do everything: it is made with mode 0600. A socket file outlives its
 * process when that is killed. So what stands at the path is tried: nobody there, and it is replaced;
 * somebody there, and that is an error. Two processes that start at once at the same path are kept apart
 * by a lock on the folder.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "harness/qmp.h"

#define CHUNK 4096
/* How long the lock of the folder is waited for. It is held for as long as a connect takes. */
#define LOCK_TRIES  200
#define LOCK_NAP_NS (10 * OB_NS_PER_MS)

struct conn {
	int fd; /* -1: free */
	struct qmp_session *session;
	char in[CHUNK]; /* read and not yet taken: [at, len) */
	size_t at, len;
};

struct qmp_server {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev; /* the socket file that we made */
	ino_t ino;
	const struct qmp_service *service;
	struct conn conn[QMP_MAX_CLIENTS];
};

/* --- the socket -------------------------------------------------------------------------- */

int qmp_server_alive(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r = 1;

	if (strlen(path) >= sizeof(to.sun_path))
		return -ENAMETOOLONG;
	strcpy(to.sun_path, path);
	if (lstat(path, &st))
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: it has more callers than it can take. */
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno != EAGAIN)
		r = errno == ECONNREFUSED ? 0 : -errno;
	close(fd);
	return r;
}

/* Make room at @path: what a dead process left there goes. */
static int clear_path(const char *path, struct ob_err *e)
{
	int r = qmp_server_alive(path);

	switch (r) {
	case -ENOENT:
		return 0;
	case 1:
		return ob_fail(e, EADDRINUSE, "control socket %s: somebody serves there already",
			       path);
	case -ENOTSOCK:
		return ob_fail(e, EEXIST,
			       "control socket %s: there is something, and it is no socket", path);
	case 0:
		if (!unlink(path) || errno == ENOENT)
			return 0;
		r = -errno;
	}
	return ob_fail(e, -r, "control socket %s: %s", path, strerror(-r));
}

/* Lock the folder @dir against others who do the same as we. A descriptor, or -errno. */
static int lock_folder(const char *dir, struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = LOCK_NAP_NS};
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return ob_fail(e, errno, "control socket: folder %s: %s", dir, strerror(errno));
	for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB); tries++) {
		if (errno == EWOULDBLOCK && tries < LOCK_TRIES) {
			nanosleep(&nap, NULL);
			continue;
		}
		r = errno;
		close(fd);
		return ob_fail(e, r, "control socket: cannot lock folder %s: %s", dir, strerror(r));
	}
	return fd;
}

void qmp_server_sweep(const char *dir)
{
	int lock = lock_folder(dir, NULL);
	struct dirent *d;
	DIR *list;

	if (lock < 0)
		return;
	list = opendir(dir);
	while (list && (d = readdir(list))) {
		char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, d->d_name) < sizeof(path) &&
		    qmp_server_alive(path) == 0)
			unlink(path);
	}
	if (list)
		closedir(list);
	close(lock);
}

static int bind_listen(struct qmp_server *s, struct ob_err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char copy[sizeof(at.sun_path)];
	struct stat st;
	int lock, r;

	strcpy(at.sun_path, s->path);
	strcpy(copy, s->path);
	lock = lock_folder(dirname(copy), e);
	if (lock < 0)
		return lock;
	r = clear_path(s->path, e);
	if (r)
		goto unlock;
	/* The file takes its mode from the socket: there is no moment in which it is another's. */
	if (fchmod(s->fd, 0600) || bind(s->fd, (struct sockaddr *)&at, sizeof(at))) {
		r = ob_fail(e, errno, "control socket %s: %s", s->path, strerror(errno));
		goto unlock;
	}
	if (lstat(s->path, &st) || listen(s->fd, QMP_MAX_CLIENTS)) {
		r = ob_fail(e, errno, "control socket %s: %s", s->path, strerror(errno));
		unlink(s->path);
		goto unlock;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
unlock:
	close(lock);
	return r;
}

int qmp_server_open(struct qmp_server **out, const char *path, const struct qmp_service *service,
		    struct ob_err *e)
{
	struct qmp_server *s;
	int r;

	*out = NULL;
	if (!*path)
		return ob_fail(e, EINVAL, "control socket: the path is empty");
	if (strlen(path) >= sizeof(s->path))
		return ob_fail(e, ENAMETOOLONG,
			       "control socket: the path has %zu bytes, a socket's may have %zu",
			       strlen(path), sizeof(s->path) - 1);
	s = calloc(1, sizeof(*s));
	OB_ASSERT(s);
	strcpy(s->path, path);
	s->service = service;
	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn); i++)
		s->conn[i].fd = -1;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		r = ob_fail(e, errno, "control socket: %s", strerror(errno));
	else
		r = bind_listen(s, e);
	if (r) {
		if (s->fd >= 0)
			close(s->fd);
		free(s);
		return r;
	}
	*out = s;
	return 0;
}

/* --- clients ----------------------------------------------------------------------------- */

static void hang_up(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	qmp_session_exit(c->session);
	free(c->session);
	c->session = NULL;
}

/* Send what goes out as far as the socket takes it. False: the client is gone. */
static bool send_out(struct conn *c)
{
	const char *from;
	size_t n;

	while ((from = qmp_session_out(c->session, &n))) {
		ssize_t sent = send(c->fd, from, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return true;
		if (sent < 0) {
			hang_up(c);
			return false;
		}
		qmp_session_sent(c->session, (size_t)sent);
	}
	if (c->session->over) {
		hang_up(c);
		return false;
	}
	return true;
}

static size_t waiting(const struct conn *c)
{
	size_t n;

	qmp_session_out(c->session, &n);
	return n;
}

/* May a command be taken from this client now? */
static bool wants_more(const struct conn *c)
{
	return !c->session->over && waiting(c) <= QMP_LOW_OUTPUT;
}

static void welcome(struct qmp_server *s)
{
	struct conn *c = NULL, full = {.fd = -1};
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return; /* it has gone again, or we are out of descriptors: the next time */
	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn) && !c; i++)
		if (s->conn[i].fd < 0)
			c = &s->conn[i];
	if (!c)
		c = &full;
	c->fd = fd;
	c->at = c->len = 0;
	c->session = malloc(sizeof(*c->session));
	OB_ASSERT(c->session);
	qmp_session_init(c->session, s->service);
	if (c == &full)
		qmp_session_refuse(c->session, "too many clients are connected");
	if (send_out(c) && c == &full)
		hang_up(c);
}

/* Read when there is nothing left to take, then execute one command at most. */
static void attend(struct conn *c)
{
	if (c->at == c->len) {
		ssize_t n = recv(c->fd, c->in, sizeof(c->in), 0);

		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		if (n < 0) {
			hang_up(c);
			return;
		}
		/* It has nothing more to say, and may still be listening. */
		if (!n)
			c->session->over = true;
		c->at = 0;
		c->len = (size_t)n;
	}
	c->at += qmp_session_feed(c->session, c->in + c->at, c->len - c->at);
	send_out(c);
}

void qmp_server_serve(struct qmp_server *s, uint64_t timeout_ns)
{
	struct pollfd p[QMP_MAX_CLIENTS + 1];
	struct timespec ts;

	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn); i++) {
		struct conn *c = &s->conn[i];

		/* What events have added; sessions that are over end here. */
		if (c->fd >= 0)
			send_out(c);
		p[i] = (struct pollfd){.fd = c->fd}; /* a negative one is not looked at */
		if (c->fd < 0)
			continue;
		if (waiting(c))
			p[i].events |= POLLOUT;
		if (!wants_more(c))
			continue;
		if (c->at < c->len)
			timeout_ns = 0; /* it has sent more than it was served */
		else
			p[i].events |= POLLIN;
	}
	p[QMP_MAX_CLIENTS] = (struct pollfd){.fd = s->fd, .events = POLLIN};
	ts = (struct timespec){.tv_sec = (time_t)(timeout_ns / OB_NS_PER_SEC),
			       .tv_nsec = (long)(timeout_ns % OB_NS_PER_SEC)};
	if (ppoll(p, OB_ARRAY_SIZE(p), &ts, NULL) < 0)
		return;
	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn); i++) {
		struct conn *c = &s->conn[i];

		if (c->fd < 0)
			continue;
		if (wants_more(c) && (c->at < c->len || p[i].revents & POLLIN))
			attend(c);
		else if (p[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			hang_up(c);
	}
	if (p[QMP_MAX_CLIENTS].revents & POLLIN)
		welcome(s);
}

void qmp_server_event(struct qmp_server *s, const char *name, json_t *data)
{
	json_t *event = qmp_event(name, data);

	/* They go out with the next round: one of the sessions may be the one that caused it. */
	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn); i++)
		if (s->conn[i].fd >= 0)
			qmp_session_event(s->conn[i].session, event);
	json_decref(event);
}

const char *qmp_server_path(const struct qmp_server *s)
{
	return s->path;
}

void qmp_server_close(struct qmp_server *s)
{
	struct stat st;

	if (!s)
		return;
	for (size_t i = 0; i < OB_ARRAY_SIZE(s->conn); i++)
		if (s->conn[i].fd >= 0 && send_out(&s->conn[i]))
			hang_up(&s->conn[i]);
	/* Somebody may have put another there. */
	if (!lstat(s->path, &st) && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	close(s->fd);
	free(s);
}
