/* SPDX-License-Identifier: Apache-2.0 */
/* proto.c: framing of the documents between coordinator and cells. */
#include "harness/proto.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "harness/harness.h"

/* How long one poll may last: signals are looked at in between. */
#define SLICE_MS 100

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t proto_deadline(int timeout_ms)
{
	return now_ms() + timeout_ms;
}

/* Wait until @fd is ready for @events. */
static int wait_ready(int fd, short events, int64_t *deadline, bool *hurried)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int64_t now = now_ms();
		int r;

		if (ob_stop_signal && !*hurried) {
			*hurried = true;
			*deadline = OB_MIN(*deadline, now + PROTO_GRACE_MS);
		}
		r = poll(&p, 1, now < *deadline ? (int)OB_MIN(*deadline - now, SLICE_MS) : 0);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (!r && now >= *deadline)
			return -ETIMEDOUT;
	}
}

static int send_all(int fd, const void *buf, size_t len, int64_t deadline)
{
	bool hurried = false;

	while (len) {
		ssize_t n;
		int r = wait_ready(fd, POLLOUT, &deadline, &hurried);

		if (r)
			return r;
		n = send(fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

int proto_send(int fd, json_t *doc, int64_t deadline)
{
	char *text = json_dumps(doc, JSON_COMPACT);
	uint32_t len;
	int r;

	json_decref(doc);
	if (!text)
		return -ENOMEM;
	len = (uint32_t)strlen(text);
	r = send_all(fd, &len, sizeof(len), deadline);
	if (!r)
		r = send_all(fd, text, len, deadline);
	free(text);
	return r;
}

static int recv_all(int fd, void *buf, size_t len, int64_t deadline)
{
	bool hurried = false;

	while (len) {
		ssize_t n;
		int r = wait_ready(fd, POLLIN, &deadline, &hurried);

		if (r)
			return r;
		n = recv(fd, buf, len, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return -EPIPE;
		buf = (char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

int proto_recv(int fd, json_t **doc, int64_t deadline)
{
	uint32_t len;
	char *text;
	int r;

	r = recv_all(fd, &len, sizeof(len), deadline);
	if (r)
		return r;
	if (len > PROTO_MAX)
		return -EPROTO;
	text = malloc(len);
	if (!text)
		return -ENOMEM;
	r = recv_all(fd, text, len, deadline);
	if (!r) {
		*doc = json_loadb(text, len, 0, NULL);
		r = *doc ? 0 : -EPROTO;
	}
	free(text);
	return r;
}

uint64_t proto_u64(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

const char *proto_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}
