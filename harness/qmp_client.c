/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp_client.c: the other end of the control socket, for our own verbs. It asks one thing at a time;
 * events that come in between are passed over. What serves at the path is most likely another
 * overbook, yet nothing is believed of it but that it speaks the protocol: lengths and times are
 * bounded.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "harness/harness.h"
#include "harness/qmp.h"

#define LINE_MAX_BYTES ((size_t)QMP_MAX_OUTPUT)

struct qmp_client {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	json_int_t id; /* of the last question */
	char *in;      /* received and not yet looked at */
	size_t len, room;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait until the socket is ready, or until @deadline, or a signal. */
static int wait_ready(struct qmp_client *c, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = events};
		int64_t left = deadline - now_ms();
		int r;

		if (ob_stop_signal)
			return -EINTR;
		if (left <= 0)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)OB_MIN(left, 100));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_line(struct qmp_client *c, const char *text, int64_t deadline)
{
	size_t len = strlen(text);

	while (len) {
		int r = wait_ready(c, POLLOUT, deadline);
		ssize_t n;

		if (r)
			return r;
		n = send(c->fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_more(struct qmp_client *c, int64_t deadline)
{
	ssize_t n;
	int r;

	if (c->len == c->room) {
		if (c->room >= LINE_MAX_BYTES)
			return -EMSGSIZE;
		c->room = c->room ? 2 * c->room : 4096;
		c->in = realloc(c->in, c->room);
		OB_ASSERT(c->in);
	}
	do {
		r = wait_ready(c, POLLIN, deadline);
		if (r)
			return r;
		n = recv(c->fd, c->in + c->len, c->room - c->len, 0);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return -errno;
	if (!n)
		return -EPIPE;
	c->len += (size_t)n;
	return 0;
}

/* The next line as a document. */
static int receive(struct qmp_client *c, int64_t deadline, json_t **doc)
{
	size_t seen = 0;
	char *end;

	while (!(end = c->len > seen ? memchr(c->in + seen, '\n', c->len - seen) : NULL)) {
		int r;

		seen = c->len;
		r = receive_more(c, deadline);
		if (r)
			return r;
	}
	*doc = json_loadb(c->in, (size_t)(end - c->in), 0, NULL);
	c->len -= (size_t)(end + 1 - c->in);
	memmove(c->in, end + 1, c->len);
	return *doc ? 0 : -EPROTO;
}

/* The line for what went wrong on the way. */
static int explain(const struct qmp_client *c, int r, struct ob_err *e)
{
	switch (r) {
	case -ETIMEDOUT:
		return ob_fail(e, ETIMEDOUT, "%s: no answer in time", c->path);
	case -EPIPE:
	case -ECONNRESET:
		return ob_fail(e, EPIPE, "%s: the connection was closed: the fleet has ended",
			       c->path);
	case -EPROTO:
	case -EMSGSIZE:
		return ob_fail(e, EPROTO, "%s: what answers there does not speak QMP", c->path);
	case -EINTR:
		return ob_fail(e, EINTR, "interrupted");
	default:
		return ob_fail(e, -r, "%s: %s", c->path, strerror(-r));
	}
}

/* The line of a refusal into @e. */
static int refused(const json_t *doc, struct ob_err *e)
{
	const char *desc =
		json_string_value(json_object_get(json_object_get(doc, "error"), "desc"));

	return ob_fail(e, EREMOTEIO, "%.380s", desc ? desc : "refused without a reason");
}

int qmp_client_ask(struct qmp_client *c, const char *command, json_t *args, int timeout_ms,
		   json_t **ret, struct ob_err *e)
{
	json_t *question = json_pack("{s:s,s:I}", "execute", command, "id", ++c->id), *doc;
	int64_t deadline = now_ms() + timeout_ms;
	char *text;
	int r;

	OB_ASSERT(question);
	if (args)
		json_object_set_new(question, "arguments", args);
	text = json_dumps(question, JSON_ENSURE_ASCII);
	OB_ASSERT(text);
	json_decref(question);
	r = send_line(c, text, deadline);
	if (!r)
		r = send_line(c, "\n", deadline);
	free(text);
	while (!r) {
		r = receive(c, deadline, &doc);
		if (r)
			break;
		if (json_object_get(doc, "error")) {
			r = refused(doc, e);
			json_decref(doc);
			return r;
		}
		*ret = json_object_get(doc, "return");
		if (*ret && json_integer_value(json_object_get(doc, "id")) == c->id) {
			json_incref(*ret);
			json_decref(doc);
			return 0;
		}
		json_decref(doc);
	}
	return explain(c, r, e);
}

static int handshake(struct qmp_client *c, int timeout_ms, struct ob_err *e)
{
	json_t *doc;
	int r = receive(c, now_ms() + timeout_ms, &doc);

	if (r)
		return explain(c, r, e);
	if (json_object_get(doc, "error"))
		r = refused(doc, e);
	else if (!json_is_object(json_object_get(doc, "QMP")))
		r = explain(c, -EPROTO, e);
	json_decref(doc);
	if (r)
		return r;
	r = qmp_client_ask(c, "qmp_capabilities", NULL, timeout_ms, &doc, e);
	if (!r)
		json_decref(doc);
	return r;
}

/* Connect; while more are waiting there than the other end can take, try again. */
static int connect_to(struct qmp_client *c, int timeout_ms, struct ob_err *e)
{
	const struct timespec nap = {.tv_nsec = 20 * OB_NS_PER_MS};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int64_t deadline = now_ms() + timeout_ms;

	strcpy(to.sun_path, c->path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return ob_fail(e, errno, "socket: %s", strerror(errno));
	while (connect(c->fd, (struct sockaddr *)&to, sizeof(to))) {
		if (errno == ECONNREFUSED)
			return ob_fail(e, ECONNREFUSED, "%s: nobody serves there", c->path);
		if (errno != EAGAIN)
			return explain(c, -errno, e);
		if (ob_stop_signal || now_ms() > deadline)
			return explain(c, ob_stop_signal ? -EINTR : -ETIMEDOUT, e);
		nanosleep(&nap, NULL);
	}
	return 0;
}

int qmp_client_open(struct qmp_client **out, const char *path, int timeout_ms, struct ob_err *e)
{
	struct qmp_client *c;
	int r;

	if (strlen(path) >= sizeof(c->path))
		return ob_fail(e, ENAMETOOLONG,
			       "control socket: the path has %zu bytes, a socket's may have %zu",
			       strlen(path), sizeof(c->path) - 1);
	c = calloc(1, sizeof(*c));
	OB_ASSERT(c);
	strcpy(c->path, path);
	r = connect_to(c, timeout_ms, e);
	if (!r)
		r = handshake(c, timeout_ms, e);
	if (r) {
		qmp_client_close(c);
		return r;
	}
	*out = c;
	return 0;
}

void qmp_client_close(struct qmp_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->in);
	free(c);
}
