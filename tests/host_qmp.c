/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_qmp.c: the control socket with real sockets: several clients, clients that are slow or dead,
 * what stands at the path before, who may open it, and the folder where it is by default. Server and
 * clients take turns in one thread, so that nothing depends on timing; where the client is our own,
 * which waits, the server has a thread.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness/control.h"
#include "tests/cli.h"

#define LARGE (1u << 20)

/* --- a place, a service ------------------------------------------------------------------ */

struct rig {
	char dir[64], path[100];
	struct qmp_service service;
	struct qmp_server *server;
	unsigned int served;
	_Atomic bool stop;
	pthread_t thread;
};

static json_t *do_count(void *ctx, const json_t *args, struct ob_err *e)
{
	struct rig *r = ctx;

	(void)args;
	(void)e;
	return json_integer(++r->served);
}

static json_t *do_large(void *ctx, const json_t *args, struct ob_err *e)
{
	static char text[LARGE + 1];
	struct rig *r = ctx;

	(void)args;
	(void)e;
	memset(text, 'x', LARGE);
	r->served++;
	return json_string(text);
}

static json_t *do_fail(void *ctx, const json_t *args, struct ob_err *e)
{
	(void)ctx;
	(void)args;
	ob_fail(e, EIO, "no such luck");
	return NULL;
}

static json_t *do_tell(void *ctx, const json_t *args, struct ob_err *e)
{
	struct rig *r = ctx;

	(void)args;
	(void)e;
	qmp_server_event(r->server, "TOLD", NULL);
	return json_object();
}

/* As a fleet would answer `overbook ept`: guest 1 has a difference, address 0x1000 is mapped. */
static json_t *do_verify(void *ctx, const json_t *args, struct ob_err *e)
{
	json_int_t vm = json_integer_value(json_object_get(args, "vm"));

	(void)ctx;
	(void)e;
	return json_pack("[{s:I,s:i,s:i,s:I,s:[]}]", "vm", vm, "pages", 10, "lagged", 3,
			 "differences", vm, "first");
}

static json_t *do_walk(void *ctx, const json_t *args, struct ob_err *e)
{
	const char *gva = json_string_value(json_object_get(args, "gva"));

	(void)ctx;
	(void)e;
	return json_pack("{s:O,s:s,s:b,s:s}", "vm", json_object_get(args, "vm"), "gva", gva, "ok",
			 !strcmp(gva, "0x1000"), "stop", "not present");
}

static const struct qmp_command commands[] = {
	{"x-overbook-ept-verify", do_verify, {{"vm", JSON_INTEGER, true}}},
	{"x-overbook-ept-walk",
	 do_walk,
	 {{"vm", JSON_INTEGER, false}, {"gva", JSON_STRING, false}}},
	{"count", do_count, {{NULL, JSON_NULL, false}}},
	{"large", do_large, {{NULL, JSON_NULL, false}}},
	{"fail", do_fail, {{NULL, JSON_NULL, false}}},
	{"tell", do_tell, {{NULL, JSON_NULL, false}}},
};

static void rig_place(struct rig *r)
{
	*r = (struct rig){.service = {.command = commands,
				      .ncommands = OB_ARRAY_SIZE(commands),
				      .package = "overbook test"}};
	r->service.ctx = r;
	strcpy(r->dir, "/tmp/overbook-test-qmp-XXXXXX");
	cr_assert(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
	/* As main does. */
	signal(SIGPIPE, SIG_IGN);
}

static void rig_open(struct rig *r)
{
	struct ob_err e = {""};

	rig_place(r);
	cr_assert_eq(qmp_server_open(&r->server, r->path, &r->service, &e), 0, "%s", e.msg);
}

static void rig_close(struct rig *r)
{
	qmp_server_close(r->server);
	cr_assert(access(r->path, F_OK) && errno == ENOENT, "the socket is still there");
	cr_assert_eq(rmdir(r->dir), 0, "%s is not empty", r->dir);
}

/* --- a client that never waits ----------------------------------------------------------- */

static int dial(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	cr_assert(fd >= 0 && strlen(path) < sizeof(to.sun_path));
	strcpy(to.sun_path, path);
	cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0, "%s: %s", path,
		     strerror(errno));
	return fd;
}

static void say(int fd, const char *text)
{
	cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text), "%s",
		     strerror(errno));
}

static void serve(struct rig *r)
{
	for (int i = 0; i < 20; i++)
		qmp_server_serve(r->server, 0);
}

/* What has come, up to @n - 1 bytes; false when the other end has closed and nothing is left. */
static bool hear(int fd, char *buf, size_t n)
{
	ssize_t got = recv(fd, buf, n - 1, 0);

	buf[got > 0 ? got : 0] = '\0';
	return got > 0 || (got < 0 && errno == EAGAIN);
}

static int dial_and_negotiate(struct rig *r)
{
	int fd = dial(r->path);
	char buf[512];

	serve(r);
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_assert(strstr(buf, "\"QMP\""), "no greeting: %s", buf);
	say(fd, "{\"execute\": \"qmp_capabilities\"}");
	serve(r);
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_assert_str_eq(buf, "{\"return\": {}}\r\n");
	return fd;
}

static void expect(struct rig *r, int fd, const char *question, const char *answer)
{
	char buf[1024];

	say(fd, question);
	serve(r);
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_assert_str_eq(buf, answer, "to %s", question);
}

Test(qmp_socket, two_clients_at_once)
{
	struct rig r;
	char buf[1024];
	int a, b, c;

	rig_open(&r);
	a = dial_and_negotiate(&r);
	c = dial(r.path);
	b = dial_and_negotiate(&r);
	expect(&r, a, "{\"execute\": \"count\", \"id\": \"a\"}",
	       "{\"return\": 1, \"id\": \"a\"}\r\n");
	say(a, "{\"execute\":");
	expect(&r, b, "{\"execute\": \"count\", \"id\": \"b\"}",
	       "{\"return\": 2, \"id\": \"b\"}\r\n");
	expect(&r, a, "\"count\"}", "{\"return\": 3}\r\n");
	/* An event reaches both, before the answer of the one that caused it; not the third, which has
	 * not negotiated. */
	cr_assert(hear(c, buf, sizeof(buf)));
	cr_assert(strstr(buf, "\"QMP\""), "%s", buf);
	say(a, "{\"execute\": \"tell\"}");
	serve(&r);
	cr_assert(hear(a, buf, sizeof(buf)));
	cr_assert(strstr(buf, "\"TOLD\"") && strstr(buf, "\"return\"") > strstr(buf, "\"TOLD\""),
		  "%s", buf);
	cr_assert(hear(b, buf, sizeof(buf)));
	cr_assert(strstr(buf, "\"TOLD\""), "%s", buf);
	cr_assert(hear(c, buf, sizeof(buf)));
	cr_assert_str_empty(buf);
	close(a);
	close(b);
	close(c);
	serve(&r);
	/* Their places are free again. */
	for (int i = 0; i < 3 * QMP_MAX_CLIENTS; i++) {
		a = dial_and_negotiate(&r);
		close(a);
	}
	rig_close(&r);
}

Test(qmp_socket, many_commands_in_one_piece)
{
	struct rig r;
	char buf[4096], want[4096] = "";
	int fd;

	rig_open(&r);
	fd = dial_and_negotiate(&r);
	for (int i = 1; i <= 50; i++) {
		say(fd, "{\"execute\": \"count\"}");
		snprintf(want + strlen(want), sizeof(want) - strlen(want), "{\"return\": %d}\r\n",
			 i);
	}
	for (int i = 0; i < 10; i++)
		serve(&r);
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_assert_str_eq(buf, want);
	close(fd);
	rig_close(&r);
}

/* It asks for much and reads nothing: the others are served, its memory is bounded, and when it reads
 * in the end it gets everything, in order. */
Test(qmp_socket, a_slow_client_slows_nobody_else)
{
	static char buf[LARGE];
	unsigned int asked = 60, at_rest;
	size_t got = 0, newlines = 0;
	struct rig r;
	int slow, quick;

	rig_open(&r);
	slow = dial_and_negotiate(&r);
	quick = dial_and_negotiate(&r);
	for (unsigned int i = 0; i < asked; i++)
		say(slow, "{\"execute\": \"large\"}\n");
	for (int i = 0; i < 20; i++)
		serve(&r);
	at_rest = r.served;
	cr_expect_leq(at_rest, 3, "%u answers of a megabyte pile up", at_rest);
	expect(&r, quick, "{\"execute\": \"fail\"}",
	       "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such luck\"}}\r\n");
	for (int idle = 0; idle < 50;) {
		cr_assert(hear(slow, buf, sizeof(buf)), "cut off after %zu bytes", got);
		idle = *buf ? 0 : idle + 1;
		got += strlen(buf);
		for (const char *p = buf; *p; p++)
			newlines += *p == '\n';
		qmp_server_serve(r.server, 0);
	}
	cr_expect_eq(newlines, asked);
	cr_expect_eq(got, asked * (LARGE + strlen("{\"return\": \"\"}\r\n")));
	cr_expect_eq(r.served, asked);
	close(slow);
	close(quick);
	rig_close(&r);
}

/* Events come unasked, so they cannot be held back for ever. */
Test(qmp_socket, who_reads_no_events_is_cut_off)
{
	static char text[LARGE + 1], buf[LARGE];
	struct rig r;
	size_t got = 0;
	int deaf, other;

	rig_open(&r);
	deaf = dial_and_negotiate(&r);
	other = dial(r.path);
	serve(&r);
	memset(text, 'y', LARGE);
	for (unsigned int i = 0; i < QMP_MAX_OUTPUT / LARGE + 2; i++)
		qmp_server_event(r.server, "NOISE", json_pack("{s:s}", "text", text));
	serve(&r);
	while (hear(deaf, buf, sizeof(buf)) && *buf)
		got += strlen(buf);
	cr_expect(!hear(deaf, buf, sizeof(buf)), "still connected");
	cr_expect_lt(got, QMP_MAX_OUTPUT);
	/* The one that had not negotiated has heard nothing of it. */
	cr_expect(hear(other, buf, sizeof(buf)));
	expect(&r, other, "{\"execute\": \"qmp_capabilities\"}", "{\"return\": {}}\r\n");
	close(deaf);
	close(other);
	rig_close(&r);
}

Test(qmp_socket, clients_that_go)
{
	char buf[1024];
	struct rig r;
	int fd;

	rig_open(&r);
	/* In the middle of a command. */
	fd = dial_and_negotiate(&r);
	say(fd, "{\"execute\": \"cou");
	close(fd);
	serve(&r);
	/* With an answer under way, read by nobody. */
	fd = dial_and_negotiate(&r);
	say(fd, "{\"execute\": \"large\"}{\"execute\": \"large\"}{\"execute\": \"large\"}");
	serve(&r);
	close(fd);
	serve(&r);
	/* Before its greeting. */
	fd = dial(r.path);
	close(fd);
	serve(&r);
	cr_expect_leq(r.served, 1);
	r.served = 0;
	/* One that has said all it wants to say still gets its answers. */
	fd = dial_and_negotiate(&r);
	say(fd, "{\"execute\": \"count\"} {\"execute\": \"count\"}");
	cr_assert_eq(shutdown(fd, SHUT_WR), 0);
	serve(&r);
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_expect_str_eq(buf, "{\"return\": 1}\r\n{\"return\": 2}\r\n");
	cr_expect(!hear(fd, buf, sizeof(buf)), "not closed");
	close(fd);
	/* And a command that is too long ends it, with a line. */
	fd = dial_and_negotiate(&r);
	memset(buf, 'x', sizeof(buf) - 1);
	buf[sizeof(buf) - 1] = '\0';
	say(fd, "{\"execute\": \"");
	for (unsigned int i = 0; i < QMP_MAX_INPUT / (sizeof(buf) - 1) + 1; i++) {
		say(fd, buf);
		serve(&r);
	}
	cr_assert(hear(fd, buf, sizeof(buf)));
	cr_expect(strstr(buf, "limit exceeded"), "%s", buf);
	cr_expect(!hear(fd, buf, sizeof(buf)), "not closed");
	close(fd);
	rig_close(&r);
}

Test(qmp_socket, one_client_too_many)
{
	int fd[QMP_MAX_CLIENTS], more;
	struct rig r;
	char buf[512];

	rig_open(&r);
	for (int i = 0; i < QMP_MAX_CLIENTS; i++)
		fd[i] = dial_and_negotiate(&r);
	more = dial(r.path);
	serve(&r);
	cr_assert(hear(more, buf, sizeof(buf)));
	cr_expect(strstr(buf, "too many clients"), "%s", buf);
	cr_expect(!hear(more, buf, sizeof(buf)), "not closed");
	close(more);
	close(fd[3]);
	serve(&r);
	fd[3] = dial_and_negotiate(&r);
	for (int i = 0; i < QMP_MAX_CLIENTS; i++)
		close(fd[i]);
	rig_close(&r);
}

/* --- the path ---------------------------------------------------------------------------- */

/* A socket whose process is dead. */
static void leave_dead(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_lt(strlen(path), sizeof(at.sun_path));
	strcpy(at.sun_path, path);
	cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	close(fd);
}

static void refused(struct rig *r, const char *path, int err, const char *says)
{
	struct ob_err e = {""};
	struct qmp_server *s = NULL;

	cr_expect_eq(qmp_server_open(&s, path, &r->service, &e), -err, "%s", path);
	cr_expect_null(s);
	cr_expect(strstr(e.msg, says) && !strchr(e.msg, '\n'), "%s", e.msg);
}

Test(qmp_socket, mode_is_0600_whatever_the_umask)
{
	static const mode_t masks[] = {0, 022, 0777};
	struct stat st;
	struct rig r;

	for (size_t i = 0; i < OB_ARRAY_SIZE(masks); i++) {
		mode_t old;

		rig_place(&r);
		old = umask(masks[i]);
		cr_assert_eq(qmp_server_open(&r.server, r.path, &r.service, NULL), 0);
		umask(old);
		cr_assert_eq(lstat(r.path, &st), 0);
		cr_expect(S_ISSOCK(st.st_mode));
		cr_expect_eq(st.st_mode & 0777 & ~0600u, 0, "mode %o", st.st_mode & 0777);
		cr_expect(masks[i] == 0777 || (st.st_mode & 0777) == 0600);
		rig_close(&r);
	}
}

Test(qmp_socket, what_stands_at_the_path)
{
	struct ob_err e = {""};
	char long_path[300];
	struct stat st;
	struct rig r;
	int fd;

	rig_open(&r);
	cr_expect_eq(qmp_server_alive(r.path), 1);
	refused(&r, r.path, EADDRINUSE, "somebody serves there");
	serve(&r);
	fd = dial_and_negotiate(&r); /* the one that is there is none the worse */
	close(fd);
	rig_close(&r);

	/* A socket of a dead process. */
	rig_place(&r);
	leave_dead(r.path);
	cr_expect_eq(qmp_server_alive(r.path), 0);
	cr_assert_eq(qmp_server_open(&r.server, r.path, &r.service, &e), 0, "%s", e.msg);
	fd = dial_and_negotiate(&r);
	close(fd);
	rig_close(&r);

	/* Things that are no sockets stay as they are. */
	rig_place(&r);
	fd = open(r.path, O_WRONLY | O_CREAT, 0600);
	cr_assert_eq(write(fd, "precious", 8), 8);
	close(fd);
	refused(&r, r.path, EEXIST, "no socket");
	cr_expect(!lstat(r.path, &st) && st.st_size == 8);
	unlink(r.path);
	cr_assert_eq(symlink("/nowhere", r.path), 0);
	refused(&r, r.path, EEXIST, "no socket");
	unlink(r.path);
	refused(&r, r.dir, EEXIST, "no socket");
	refused(&r, "", EINVAL, "empty");
	refused(&r, "/no/such/folder/s", ENOENT, "/no/such/folder");
	memset(long_path, 'x', sizeof(long_path));
	long_path[108] = '\0';
	refused(&r, long_path, ENAMETOOLONG, "107");
	rmdir(r.dir);
}

Test(qmp_socket, only_our_own_is_taken_away)
{
	struct rig r, other;
	char aside[120];

	rig_open(&r);
	snprintf(aside, sizeof(aside), "%s/aside", r.dir);
	cr_assert_eq(rename(r.path, aside), 0);
	other = r;
	cr_assert_eq(qmp_server_open(&other.server, other.path, &r.service, NULL), 0);
	qmp_server_close(r.server);
	cr_expect_eq(qmp_server_alive(r.path), 1, "that was somebody else's");
	unlink(aside);
	rig_close(&other);
}

static void *open_one(void *arg)
{
	struct rig *r = arg;

	return qmp_server_open(&r->server, r->path, &r->service, NULL) ? NULL : r;
}

/* Many find the same dead socket at the same time: one of them gets the place. */
Test(qmp_socket, one_of_many_at_the_same_path)
{
	enum { MANY = 16, ROUNDS = 30 };
	struct rig place;

	rig_place(&place);
	for (int round = 0; round < ROUNDS; round++) {
		struct rig many[MANY];
		void *ret;
		int won = 0;

		leave_dead(place.path);
		for (int i = 0; i < MANY; i++) {
			many[i] = place;
			cr_assert_eq(pthread_create(&many[i].thread, NULL, open_one, &many[i]), 0);
		}
		for (int i = 0; i < MANY; i++) {
			pthread_join(many[i].thread, &ret);
			won += ret != NULL;
		}
		cr_assert_eq(won, 1, "round %d: %d serve at one path", round, won);
		cr_assert_eq(qmp_server_alive(place.path), 1, "round %d", round);
		for (int i = 0; i < MANY; i++)
			qmp_server_close(many[i].server);
		cr_assert(access(place.path, F_OK), "round %d: it is still there", round);
	}
	rmdir(place.dir);
}

/* --- the default folder ------------------------------------------------------------------ */

Test(control_dir, ours_alone_or_not_at_all)
{
	char path[CONTROL_PATH_MAX], dir[100];
	struct ob_err e = {""};
	struct stat st;
	struct rig r;

	rig_place(&r);
	setenv("XDG_RUNTIME_DIR", r.dir, 1);
	snprintf(dir, sizeof(dir), "%s/overbook", r.dir);
	cr_assert_eq(control_default_path(path, sizeof(path), &e), 0, "%s", e.msg);
	cr_expect_eq(strncmp(path, dir, strlen(dir)), 0, "%s", path);
	cr_assert_eq(lstat(dir, &st), 0);
	cr_expect(S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
	cr_expect_eq(control_default_path(path, sizeof(path), &e), 0, "the second time: %s", e.msg);

	chmod(dir, 0750);
	cr_expect_eq(control_default_path(path, sizeof(path), &e), -EPERM);
	cr_expect(strstr(e.msg, "chmod 700"), "%s", e.msg);
	cr_expect_eq(control_find(path, sizeof(path), &e), -EPERM);
	chmod(dir, 0700);
	if (!geteuid()) {
		cr_assert_eq(chown(dir, 65534, 65534), 0);
		cr_expect_eq(control_default_path(path, sizeof(path), &e), -EPERM);
		cr_expect(strstr(e.msg, "somebody else"), "%s", e.msg);
		cr_expect_eq(control_find(path, sizeof(path), &e), -EPERM);
	}
	rmdir(dir);

	cr_assert_eq(symlink("/tmp", dir), 0);
	cr_expect_neq(control_default_path(path, sizeof(path), &e), 0);
	cr_expect(strstr(e.msg, "no folder"), "%s", e.msg);
	unlink(dir);
	close(open(dir, O_WRONLY | O_CREAT, 0600));
	cr_expect_neq(control_default_path(path, sizeof(path), &e), 0);
	unlink(dir);
	setenv("XDG_RUNTIME_DIR", "/no/such/folder", 1);
	cr_expect_eq(control_default_path(path, sizeof(path), &e), -ENOENT);
	rmdir(r.dir);
}

Test(control_dir, dead_ones_are_swept_out)
{
	char path[CONTROL_PATH_MAX], dir[80], file[100], dead[100], live[100];
	struct ob_err e = {""};
	struct qmp_server *s;
	struct rig r;

	rig_place(&r);
	setenv("XDG_RUNTIME_DIR", r.dir, 1);
	snprintf(dir, sizeof(dir), "%s/overbook", r.dir);
	snprintf(dead, sizeof(dead), "%s/1.sock", dir);
	snprintf(live, sizeof(live), "%s/2.sock", dir);
	snprintf(file, sizeof(file), "%s/3.sock", dir);
	cr_assert_eq(mkdir(dir, 0700), 0);
	leave_dead(dead);
	close(open(file, O_WRONLY | O_CREAT, 0600));
	cr_assert_eq(qmp_server_open(&s, live, &r.service, &e), 0, "%s", e.msg);
	cr_assert_eq(control_default_path(path, sizeof(path), &e), 0, "%s", e.msg);
	cr_expect(access(dead, F_OK), "the dead one is still there");
	cr_expect_eq(access(file, F_OK), 0, "that was no socket");
	cr_expect_eq(qmp_server_alive(live), 1);
	qmp_server_close(s);
	unlink(file);
	cr_expect_eq(rmdir(dir), 0);
	rmdir(r.dir);
}

Test(control_dir, the_one_that_lives_is_found)
{
	char path[CONTROL_PATH_MAX], dir[80], one[200], two[200], dead[200], strange[200];
	struct qmp_server *a, *b;
	struct ob_err e = {""};
	struct rig r;
	int fd;

	rig_place(&r);
	setenv("XDG_RUNTIME_DIR", r.dir, 1);
	snprintf(dir, sizeof(dir), "%s/overbook", r.dir);
	snprintf(one, sizeof(one), "%s/1.sock", dir);
	snprintf(two, sizeof(two), "%s/2.sock", dir);
	snprintf(dead, sizeof(dead), "%s/3.sock", dir);
	snprintf(strange, sizeof(strange), "%s/file.sock", dir);
	cr_expect_eq(control_find(path, sizeof(path), &e), -ENOENT);
	cr_expect(strstr(e.msg, "no fleet is running") && strstr(e.msg, dir), "%s", e.msg);
	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_expect_eq(control_find(path, sizeof(path), &e), -ENOENT);

	leave_dead(dead);
	fd = open(strange, O_WRONLY | O_CREAT, 0600);
	close(fd);
	cr_expect_eq(qmp_server_alive(dead), 0);
	cr_expect_eq(control_find(path, sizeof(path), &e), -ENOENT);

	cr_assert_eq(qmp_server_open(&a, one, &r.service, &e), 0, "%s", e.msg);
	cr_assert_eq(control_find(path, sizeof(path), &e), 0, "%s", e.msg);
	cr_expect_str_eq(path, one);
	cr_assert_eq(qmp_server_open(&b, two, &r.service, &e), 0, "%s", e.msg);
	cr_expect_eq(control_find(path, sizeof(path), &e), -EEXIST);
	cr_expect(strstr(e.msg, one) && strstr(e.msg, two) && !strstr(e.msg, dead), "%s", e.msg);
	qmp_server_close(a);
	cr_assert_eq(control_find(path, sizeof(path), &e), 0, "%s", e.msg);
	cr_expect_str_eq(path, two);
	qmp_server_close(b);
	unlink(strange);
	unlink(dead);
	cr_expect_eq(rmdir(dir), 0);
	rmdir(r.dir);
}

/* --- our own client ---------------------------------------------------------------------- */

static void *serve_thread(void *arg)
{
	struct rig *r = arg;

	while (!r->stop)
		qmp_server_serve(r->server, 10 * OB_NS_PER_MS);
	return NULL;
}

Test(qmp_client, asks_and_is_answered)
{
	struct qmp_client *c;
	struct ob_err e = {""};
	json_t *ret;
	struct rig r;

	rig_open(&r);
	cr_assert_eq(pthread_create(&r.thread, NULL, serve_thread, &r), 0);
	cr_assert_eq(qmp_client_open(&c, r.path, 10000, &e), 0, "%s", e.msg);
	for (int i = 1; i < 20; i++) {
		cr_assert_eq(qmp_client_ask(c, "count", NULL, 10000, &ret, &e), 0, "%s", e.msg);
		cr_expect_eq(json_integer_value(ret), i);
		json_decref(ret);
		/* An event on the way to its answer. */
		cr_assert_eq(qmp_client_ask(c, "tell", json_object(), 10000, &ret, &e), 0);
		json_decref(ret);
	}
	cr_assert_eq(qmp_client_ask(c, "large", NULL, 10000, &ret, &e), 0, "%s", e.msg);
	cr_expect_eq(json_string_length(ret), LARGE);
	json_decref(ret);
	cr_expect_eq(qmp_client_ask(c, "fail", NULL, 10000, &ret, &e), -EREMOTEIO);
	cr_expect_str_eq(e.msg, "no such luck");
	cr_expect_eq(qmp_client_ask(c, "count", json_pack("{s:i}", "x", 1), 10000, &ret, &e),
		     -EREMOTEIO);
	cr_expect(strstr(e.msg, "unexpected"), "%s", e.msg);
	qmp_client_close(c);
	r.stop = true;
	pthread_join(r.thread, NULL);
	rig_close(&r);
}

/* What `overbook ept` makes of answers. */
Test(qmp_client, ept_says_by_its_status_what_is_wrong)
{
	static const struct {
		const char *args;
		int status;
		const char *says;
	} cases[] = {
		{"verify", 0, "every page is what the map says"},
		{"verify --vm 0", 0, "every page"},
		{"verify --vm 1", 1, "pages that are not what the map says: 1"},
		{"verify --vm 7 --json", 1, "\"differences\": 7"},
		{"walk 3 0x1000", 0, "guest 3, gva 0x1000"},
		{"walk 3 0x2000", 1, "not present"},
		{"walk --json 3 0x2000", 1, "\"ok\": false"},
		{"stat", 2, ""},
	};
	struct rig r;

	rig_open(&r);
	cr_assert_eq(pthread_create(&r.thread, NULL, serve_thread, &r), 0);
	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		char line[200];
		struct cli c;

		snprintf(line, sizeof(line), "ept %s --control %s", cases[i].args, r.path);
		cli_run(&c, line, false, 30);
		cr_expect_eq(c.status, cases[i].status, "%s: status %d\n%s%s", line, c.status,
			     c.out, c.err);
		cr_expect(strstr(c.out, cases[i].says), "%s: %s", line, c.out);
		cr_expect(!*c.err == (c.status != 2), "%s: %s", line, c.err);
		cli_free(&c);
	}
	r.stop = true;
	pthread_join(r.thread, NULL);
	rig_close(&r);
}

/* What serves may be anything. */
static void *serve_nonsense(void *arg)
{
	struct rig *r = arg;
	static const char *const lines[] = {"\r\n",
					    "hello\r\n",
					    "[]\r\n",
					    "{\"QMP\": 1}\r\n",
					    "{\"error\": {\"desc\": \"full\"}}\r\n",
					    ""};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(at.sun_path, r->path);
	cr_assert(!bind(fd, (struct sockaddr *)&at, sizeof(at)) && !listen(fd, 8));
	r->served = 1;
	for (size_t i = 0; i < OB_ARRAY_SIZE(lines); i++) {
		int c = accept(fd, NULL, NULL);

		cr_assert(c >= 0);
		if (*lines[i])
			say(c, lines[i]);
		close(c);
	}
	/* The last one is not even accepted. */
	while (!r->stop)
		usleep(1000);
	close(fd);
	return NULL;
}

Test(qmp_client, nonsense_is_an_error)
{
	static const struct {
		int err;
		const char *says;
	} want[] = {{EPROTO, "QMP"}, {EPROTO, "QMP"},	  {EPROTO, "QMP"},
		    {EPROTO, "QMP"}, {EREMOTEIO, "full"}, {EPIPE, "closed"}};
	struct qmp_client *c;
	struct ob_err e = {""};
	struct rig r;

	rig_place(&r);
	cr_expect_eq(qmp_client_open(&c, r.path, 1000, &e), -ENOENT);
	cr_assert_eq(pthread_create(&r.thread, NULL, serve_nonsense, &r), 0);
	while (!*(volatile unsigned int *)&r.served)
		usleep(1000);
	for (size_t i = 0; i < OB_ARRAY_SIZE(want); i++) {
		cr_expect_eq(qmp_client_open(&c, r.path, 10000, &e), -want[i].err, "%zu: %s", i,
			     e.msg);
		cr_expect(strstr(e.msg, want[i].says), "%zu: %s", i, e.msg);
	}
	cr_expect_eq(qmp_client_open(&c, r.path, 100, &e), -ETIMEDOUT);
	r.stop = true;
	pthread_join(r.thread, NULL);
	unlink(r.path);
	rmdir(r.dir);
}
