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

#define COST(name, kind)                                                                  \
	{"ns_" name, offsetof(struct ksm_stats, cost[KSM_COST_##kind].ns), false},        \
	{                                                                                 \
		"ops_" name, offsetof(struct ksm_stats, cost[KSM_COST_##kind].ops), false \
	}

/* Every counter of struct ksm_stats but the histograms: all are 64 bits wide. */
static const struct {
	const char *key;
	size_t at;
	bool maximum;
} stats_field[] = {
	{"passes", offsetof(struct ksm_stats, passes), false},
	{"hashed", offsetof(struct ksm_stats, hashed_pages), false},
	{"dirty", offsetof(struct ksm_stats, dirty_pages), false},
	{"asked", offsetof(struct ksm_stats, asked_pages), false},
	{"volatile", offsetof(struct ksm_stats, volatile_pages), false},
	{"budget_rests", offsetof(struct ksm_stats, budget_rests), false},
	{"candidates", offsetof(struct ksm_stats, candidates), false},
	{"frames", offsetof(struct ksm_stats, frames_made), false},
	{"merged", offsetof(struct ksm_stats, merged_pages), false},
	{"runs", offsetof(struct ksm_stats, merge_runs), false},
	{"zero", offsetof(struct ksm_stats, zero_pages), false},
	{"compare_failed", offsetof(struct ksm_stats, compare_failed), false},
	{"broken", offsetof(struct ksm_stats, broken), false},
	{"skipped_vma", offsetof(struct ksm_stats, skipped_vma), false},
	{"freezes", offsetof(struct ksm_stats, freezes), false},
	{"freeze_ns", offsetof(struct ksm_stats, freeze_ns), false},
	{"freeze_max_ns", offsetof(struct ksm_stats, freeze_max_ns), true},
	{"cpu_ns", offsetof(struct ksm_stats, cpu_ns), false},
	{"meta_bytes", offsetof(struct ksm_stats, meta_bytes), false},
	{"sync_failed", offsetof(struct ksm_stats, sync_failed), false},
	{"huge_broken", offsetof(struct ksm_stats, huge_broken), false},
	{"huge_left", offsetof(struct ksm_stats, huge_left), false},
	{"io_hints", offsetof(struct ksm_stats, io_hints), false},
	{"io_dropped", offsetof(struct ksm_stats, io_dropped), false},
	{"io_void", offsetof(struct ksm_stats, io_void), false},
	{"io_merged", offsetof(struct ksm_stats, io_merged), false},
	{"io_missed", offsetof(struct ksm_stats, io_missed), false},
	{"deferred", offsetof(struct ksm_stats, deferred), false},
	{"map_failed", offsetof(struct ksm_stats, map_failed), false},
	{"fill_failed", offsetof(struct ksm_stats, fill_failed), false},
	{"reverted", offsetof(struct ksm_stats, reverted), false},
	{"restored", offsetof(struct ksm_stats, restored), false},
	{"stall_ns", offsetof(struct ksm_stats, stall_ns), false},
	COST("skip", SKIP),
	COST("sync", SYNC),
	COST("hash", HASH),
	COST("look", LOOK),
	COST("freeze", FREEZE),
	COST("compare", COMPARE),
	COST("make", MAKE),
	COST("share_run", SHARE_RUN),
	COST("share_one", SHARE_ONE),
	COST("remerge", REMERGE),
	COST("zero", ZERO),
	COST("release", RELEASE),
};
_Static_assert(sizeof(stats_field) / sizeof(stats_field[0]) ==
		       (sizeof(struct ksm_stats) - sizeof(struct ksm_pauses)) / 8,
	       "a counter is missing here");

/* The histograms: words that are mostly 0, so [place, count, place, count, ...]. */
#define PAUSE_WORDS (sizeof(struct ksm_pauses) / sizeof(uint64_t))

static json_t *pack_pauses(const struct ksm_pauses *p)
{
	json_t *o = json_array();

	for (size_t i = 0; i < PAUSE_WORDS; i++) {
		uint64_t v;

		memcpy(&v, (const char *)p + i * sizeof(v), sizeof(v));
		if (!v)
			continue;
		json_array_append_new(o, json_integer((json_int_t)i));
		json_array_append_new(o, json_integer((json_int_t)v));
	}
	return o;
}

static void unpack_pauses(const json_t *o, struct ksm_pauses *p)
{
	memset(p, 0, sizeof(*p));
	for (size_t i = 0; i + 1 < json_array_size(o); i += 2) {
		json_int_t at = json_integer_value(json_array_get(o, i));
		uint64_t v = (uint64_t)json_integer_value(json_array_get(o, i + 1));

		if (at >= 0 && (size_t)at < PAUSE_WORDS)
			memcpy((char *)p + (size_t)at * sizeof(v), &v, sizeof(v));
	}
}

static void add_pauses(struct ksm_pauses *sum, const struct ksm_pauses *p)
{
	for (unsigned int i = 0; i < KSM_NLATE; i++)
		sum->late[i] += p->late[i];
	for (unsigned int i = 0; i < KSM_LAT_BUCKETS; i++) {
		sum->pause[i] += p->pause[i];
		sum->stall[i] += p->stall[i];
	}
}

json_t *proto_pack_stats(const struct ksm_stats *k)
{
	json_t *o = json_object();

	for (size_t i = 0; i < OB_ARRAY_SIZE(stats_field); i++) {
		uint64_t v;

		memcpy(&v, (const char *)k + stats_field[i].at, sizeof(v));
		json_object_set_new(o, stats_field[i].key, json_integer((json_int_t)v));
	}
	json_object_set_new(o, "pauses", pack_pauses(&k->pauses));
	return o;
}

void proto_unpack_stats(const json_t *o, struct ksm_stats *k)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(stats_field); i++) {
		uint64_t v = proto_u64(o, stats_field[i].key);

		memcpy((char *)k + stats_field[i].at, &v, sizeof(v));
	}
	unpack_pauses(json_object_get(o, "pauses"), &k->pauses);
}

void proto_add_stats(struct ksm_stats *sum, const struct ksm_stats *k)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(stats_field); i++) {
		uint64_t a, b;

		memcpy(&a, (const char *)sum + stats_field[i].at, sizeof(a));
		memcpy(&b, (const char *)k + stats_field[i].at, sizeof(b));
		a = stats_field[i].maximum ? OB_MAX(a, b) : a + b;
		memcpy((char *)sum + stats_field[i].at, &a, sizeof(a));
	}
	add_pauses(&sum->pauses, &k->pauses);
}
