/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.h: private to harness/. The QEMU Machine Protocol, as its specification has it
 * (docs/interop/qmp-spec of QEMU): JSON commands in, JSON answers and events out. In layers, so that
 * each can be tested without the one below:
 *
 *	qmp_stream.c	bytes to JSON texts
 *	qmp.c		a session: greeting, negotiation, commands, answers; no system call
 *	qmp_server.c	sessions over a Unix socket
 *	qmp_client.c	the other end
 *
 * Nothing here knows what the commands do: they are a table (struct qmp_service).
 */
#ifndef OVERBOOK_HARNESS_QMP_H
#define OVERBOOK_HARNESS_QMP_H

#include <jansson.h>

#include "kernel/base.h"

#define QMP_MAX_INPUT	(64u << 10) /* bytes of one command; over it the session ends */
#define QMP_MAX_NESTING 1024	    /* as QEMU */
#define QMP_MAX_OUTPUT	(64u << 20) /* bytes that a client has not read; over it the session ends */
#define QMP_LOW_OUTPUT	(64u << 10) /* above this no more commands are taken from it */
#define QMP_MAX_CLIENTS 8

/* --- qmp_stream.c ------------------------------------------------------------------------ */

enum qmp_lex {
	QMP_BETWEEN, /* nothing of the next text seen yet */
	QMP_WORD,    /* a number or a word that is a whole text */
	QMP_INSIDE,  /* an object or array, outside its strings */
	QMP_STRING,
	QMP_ESCAPE,  /* behind a backslash */
	QMP_RECOVER, /* after garbage */
};

/* One JSON text after another, out of bytes that come in any pieces. */
struct qmp_stream {
	enum qmp_lex lex;
	char quote; /* that ends the string */
	int braces, brackets;
	char text[QMP_MAX_INPUT];
	size_t len;
};

enum qmp_take {
	QMP_MORE,     /* all bytes used up, no text is complete */
	QMP_TEXT,     /* @text, @len: one text, which may still be no JSON */
	QMP_BAD,      /* what came can be no JSON: the line says why; go on with what follows */
	QMP_TOO_LONG, /* there is no going on */
};

void qmp_stream_init(struct qmp_stream *s);
/* Take bytes up to the end of one text. @used: how many; the next call gets the rest. */
enum qmp_take qmp_stream_take(struct qmp_stream *s, const char *in, size_t n, size_t *used,
			      struct ob_err *why);

/* --- qmp.c ------------------------------------------------------------------------------- */

#define QMP_MAX_ARGS 4

struct qmp_arg {
	const char *name; /* NULL: no more */
	json_type type;	  /* JSON_STRING, JSON_INTEGER, JSON_ARRAY; JSON_TRUE stands for boolean */
	bool optional;
};

struct qmp_command {
	const char *name;
	/*
	 * Do it. @args has the arguments that @arg allows, of their types, and those that must be
	 * there. Returns a new reference, the value of "return" (an empty object: nothing to say);
	 * NULL with the line of a GenericError in @e. May send events.
	 */
	json_t *(*run)(void *ctx, const json_t *args, struct ob_err *e);
	struct qmp_arg arg[QMP_MAX_ARGS];
};

/* What is offered; the same for all sessions. The caller's, and must outlive them. */
struct qmp_service {
	const struct qmp_command *command;
	size_t ncommands;
	void *ctx;
	const char *package; /* who we are, in the greeting */
};

struct qmp_session {
	const struct qmp_service *service;
	struct qmp_stream in;
	bool negotiated;
	bool over; /* to be closed when all that goes out is out */
	char *out; /* what goes out: [out_at, out_len) */
	size_t out_at, out_len, out_room;
};

/* Begins with the greeting. */
void qmp_session_init(struct qmp_session *s, const struct qmp_service *service);
void qmp_session_exit(struct qmp_session *s);
/*
 * Take bytes up to the end of one command, and execute it: its answer goes out. Returns how many were
 * taken; the next call gets the rest. Those of a session that is over are all taken.
 */
size_t qmp_session_feed(struct qmp_session *s, const char *in, size_t n);
/* What goes out next, until the next call for this session; NULL: nothing. */
const char *qmp_session_out(const struct qmp_session *s, size_t *n);
/* The first @n bytes of it are on their way. */
void qmp_session_sent(struct qmp_session *s, size_t n);
/* An event (qmp_event) for this client, unless it still negotiates. */
void qmp_session_event(struct qmp_session *s, const json_t *event);
/* A refusal before anything was asked; the session is over. */
void qmp_session_refuse(struct qmp_session *s, const char *why);

/* An event of this moment; @data is taken, and may be NULL. New reference. */
json_t *qmp_event(const char *name, json_t *data);

/* --- qmp_server.c ------------------------------------------------------------------------ */

struct qmp_server;

/*
 * Listen at @path: a socket of mode 0600. One that a dead process left there is replaced. -errno with
 * a line in @e: somebody listens there (-EADDRINUSE), it is no socket (-EEXIST), the path is too
 * long for a socket (-ENAMETOOLONG), or the host's reason.
 */
int qmp_server_open(struct qmp_server **out, const char *path, const struct qmp_service *service,
		    struct ob_err *e);
/*
 * Wait for clients for up to @timeout_ns and serve them: at most one command each. Returns early
 * after having served, or on a signal. No client makes it wait for longer: what a client does not
 * read is kept for it up to QMP_MAX_OUTPUT.
 */
void qmp_server_serve(struct qmp_server *s, uint64_t timeout_ns);
/* Send an event to all clients that have negotiated. @data is taken, and may be NULL. */
void qmp_server_event(struct qmp_server *s, const char *name, json_t *data);
const char *qmp_server_path(const struct qmp_server *s);
/* End all sessions and take the socket away, if it is still ours. NULL: nothing to do. */
void qmp_server_close(struct qmp_server *s);

/* Take the sockets of dead processes out of folder @dir, as far as that can be done. */
void qmp_server_sweep(const char *dir);
/* Does somebody listen at @path? 1, 0 (a socket of a dead process), or -errno (-ENOTSOCK). */
int qmp_server_alive(const char *path);

/* --- qmp_client.c ------------------------------------------------------------------------ */

struct qmp_client;

/* Connect and negotiate. -errno with a line in @e (-ETIMEDOUT: nobody answers). */
int qmp_client_open(struct qmp_client **out, const char *path, int timeout_ms, struct ob_err *e);
/*
 * Ask, wait for the answer. @args is taken, and may be NULL. 0 with a new reference in @ret; -EREMOTEIO
 * with the server's own line in @e; -errno when there was no answer.
 */
int qmp_client_ask(struct qmp_client *c, const char *command, json_t *args, int timeout_ms,
		   json_t **ret, struct ob_err *e);
void qmp_client_close(struct qmp_client *c);

#endif
