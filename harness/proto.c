/* SPDX-License-Identifier: Apache-2.0 */
/* proto.c: framing of the documents between coordinator and cells. */
#include "harness/proto.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int send_all(int fd, const void *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ECONNRESET ? -EPIPE : -errno;
		buf = (const char *)buf + n;
		len -= (size_t)n;
	}
	return 0;
}

int proto_send(int fd, json_t *doc)
{
	char *text = json_dumps(doc, JSON_COMPACT);
	uint32_t len;
	int r;

	json_decref(doc);
	if (!text)
		return -ENOMEM;
	len = (uint32_t)strlen(text);
	r = send_all(fd, &len, sizeof(len));
	if (!r)
		r = send_all(fd, text, len);
	free(text);
	return r;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int recv_all(int fd, void *buf, size_t len, int64_t until_ms)
{
	while (len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until_ms < 0 ? -1 : until_ms - now_ms();
		ssize_t n;

		if (until_ms >= 0 && left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
			return -errno;
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

int proto_recv(int fd, json_t **doc, int timeout_ms)
{
	int64_t until = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	uint32_t len;
	char *text;
	int r;

	r = recv_all(fd, &len, sizeof(len), until);
	if (r)
		return r;
	if (len > PROTO_MAX)
		return -EPROTO;
	text = malloc(len);
	if (!text)
		return -ENOMEM;
	r = recv_all(fd, text, len, until);
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
