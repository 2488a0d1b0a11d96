/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.c: a QMP session as a state machine: bytes in, bytes out, no system call.
 *
 * A session begins with a greeting and in negotiation: only qmp_capabilities is there. Behind it all
 * other commands are. Each command gets one answer, in order, with the id that it came with. What is
 * wrong with a command is said in QEMU's words where QEMU has some, and nothing ends the session but a
 * command that is too long, or a client that does not read. Answers are ASCII, one a line.
 *
 * Commands run here and now, in the caller's thread. No capability is offered: there is no "oob".
 */
#include "harness/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The QEMU whose protocol this was held against; what we are ourselves is in "package". */
#define QMP_QEMU_MAJOR 7
#define QMP_QEMU_MINOR 2
#define QMP_QEMU_MICRO 0

static const char generic[] = "GenericError", not_found[] = "CommandNotFound";

/* --- what goes out ----------------------------------------------------------------------- */

static void put_bytes(struct qmp_session *s, const char *text, size_t n)
{
	size_t waiting = s->out_len - s->out_at;

	if (s->over)
		return;
	if (n > QMP_MAX_OUTPUT - waiting) {
		/* It does not read. What it has not read by now it is not going to. */
		s->out_at = s->out_len = 0;
		s->over = true;
		return;
	}
	if (s->out_at) {
		memmove(s->out, s->out + s->out_at, waiting);
		s->out_at = 0;
		s->out_len = waiting;
	}
	if (s->out_len + n > s->out_room) {
		size_t room = OB_MAX(s->out_len + n, 2 * s->out_room);

		s->out = realloc(s->out, room);
		OB_ASSERT(s->out);
		s->out_room = room;
	}
	memcpy(s->out + s->out_len, text, n);
	s->out_len += n;
}

static void put_json(struct qmp_session *s, const json_t *doc)
{
	char *text = json_dumps(doc, JSON_ENSURE_ASCII);

	OB_ASSERT(text);
	put_bytes(s, text, strlen(text));
	put_bytes(s, "\r\n", 2);
	free(text);
}

/* Lines may quote what was sent, cut anywhere: whatever is not text becomes a question mark. */
static json_t *plain_string(const char *text)
{
	json_t *j = json_string(text);
	char buf[sizeof(((struct ob_err *)0)->msg)];

	if (j)
		return j;
	snprintf(buf, sizeof(buf), "%s", text);
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(buf);
}

static void put_error(struct qmp_session *s, const char *class, const char *desc, json_t *id)
{
	json_t *doc =
		json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc", plain_string(desc));

	OB_ASSERT(doc);
	if (id)
		json_object_set(doc, "id", id);
	put_json(s, doc);
	json_decref(doc);
}

/* --- the protocol's own commands --------------------------------------------------------- */

static json_t *version_json(const struct qmp_service *service)
{
	return json_pack("{s:{s:i,s:i,s:i},s:s}", "qemu", "micro", QMP_QEMU_MICRO, "minor",
			 QMP_QEMU_MINOR, "major", QMP_QEMU_MAJOR, "package", service->package);
}

static json_t *do_capabilities(void *ctx, const json_t *args, struct ob_err *e)
{
	struct qmp_session *s = ctx;
	const json_t *list = json_object_get(args, "enable"), *name;
	size_t i;

	json_array_foreach (list, i, name) {
		if (!json_is_string(name))
			ob_fail(e, EINVAL,
				"Invalid parameter type for 'enable[%zu]', expected: string", i);
		else
			ob_fail(e, EINVAL, "Capability %.60s not available",
				json_string_value(name));
		return NULL;
	}
	s->negotiated = true;
	return json_object();
}

static json_t *do_version(void *ctx, const json_t *args, struct ob_err *e)
{
	const struct qmp_session *s = ctx;

	(void)args;
	(void)e;
	return version_json(s->service);
}

static json_t *do_commands(void *ctx, const json_t *args, struct ob_err *e);

static const struct qmp_command own[] = {
	{"qmp_capabilities", do_capabilities, {{"enable", JSON_ARRAY, true}}},
	{"query-version", do_version, {{NULL, JSON_NULL, false}}},
	{"query-commands", do_commands, {{NULL, JSON_NULL, false}}},
};

static json_t *do_commands(void *ctx, const json_t *args, struct ob_err *e)
{
	const struct qmp_session *s = ctx;
	json_t *list = json_array();

	(void)args;
	(void)e;
	for (size_t i = 0; i < OB_ARRAY_SIZE(own); i++)
		json_array_append_new(list, json_pack("{s:s}", "name", own[i].name));
	for (size_t i = 0; i < s->service->ncommands; i++)
		json_array_append_new(list,
				      json_pack("{s:s}", "name", s->service->command[i].name));
	return list;
}

/* --- a command --------------------------------------------------------------------------- */

static const char *type_name(json_type t)
{
	switch (t) {
	case JSON_STRING:
		return "string";
	case JSON_INTEGER:
		return "integer";
	case JSON_ARRAY:
		return "array";
	case JSON_TRUE:
		return "boolean";
	default:
		OB_ASSERT(!"type of an argument");
		return "";
	}
}

static bool has_type(const json_t *v, json_type t)
{
	return t == JSON_TRUE ? json_is_boolean(v) : json_typeof(v) == t;
}

/* As strict as QEMU: a client that assumes something wrong is told before anything happens. */
static int check_args(const struct qmp_command *cmd, json_t *args, struct ob_err *e)
{
	const char *key;
	json_t *v;

	for (const struct qmp_arg *a = cmd->arg; a < cmd->arg + QMP_MAX_ARGS && a->name; a++) {
		v = json_object_get(args, a->name);
		if (!v && !a->optional)
			return ob_fail(e, EINVAL, "Parameter '%s' is missing", a->name);
		if (v && !has_type(v, a->type))
			return ob_fail(e, EINVAL, "Invalid parameter type for '%s', expected: %s",
				       a->name, type_name(a->type));
	}
	json_object_foreach (args, key, v) {
		const struct qmp_arg *a = cmd->arg;

		while (a < cmd->arg + QMP_MAX_ARGS && a->name && strcmp(a->name, key))
			a++;
		if (a == cmd->arg + QMP_MAX_ARGS || !a->name)
			return ob_fail(e, EINVAL, "Parameter '%.60s' is unexpected", key);
	}
	return 0;
}

/* The shape of a command, whatever it commands. */
static int check_shape(json_t *doc, struct ob_err *e)
{
	const char *key;
	json_t *v;

	if (!json_is_object(doc))
		return ob_fail(e, EINVAL, "QMP input must be a JSON object");
	json_object_foreach (doc, key, v) {
		if (!strcmp(key, "execute") && !json_is_string(v))
			return ob_fail(e, EINVAL, "QMP input member 'execute' must be a string");
		if (!strcmp(key, "arguments") && !json_is_object(v))
			return ob_fail(e, EINVAL, "QMP input member 'arguments' must be an object");
		if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id"))
			return ob_fail(e, EINVAL, "QMP input member '%.60s' is unexpected", key);
	}
	if (!json_object_get(doc, "execute"))
		return ob_fail(e, EINVAL, "QMP input lacks member 'execute'");
	return 0;
}

/* One of the protocol's own, or of the service; @ctx: what it is to be called with. */
static const struct qmp_command *find_command(struct qmp_session *s, const char *name, void **ctx)
{
	*ctx = s;
	for (size_t i = 0; i < OB_ARRAY_SIZE(own); i++)
		if (!strcmp(own[i].name, name))
			return &own[i];
	*ctx = s->service->ctx;
	for (size_t i = 0; i < s->service->ncommands; i++)
		if (!strcmp(s->service->command[i].name, name))
			return &s->service->command[i];
	return NULL;
}

static void execute(struct qmp_session *s, json_t *doc)
{
	json_t *id = json_object_get(doc, "id"), *args, *none = json_object(), *ret;
	const struct qmp_command *cmd;
	struct ob_err e = {""};
	const char *name;
	bool handshake;
	void *ctx;

	if (check_shape(doc, &e)) {
		put_error(s, generic, e.msg, id);
		goto out;
	}
	name = json_string_value(json_object_get(doc, "execute"));
	handshake = !strcmp(name, "qmp_capabilities");
	if (!handshake && !s->negotiated) {
		put_error(s, not_found,
			  "Expecting capabilities negotiation with 'qmp_capabilities'", id);
		goto out;
	}
	if (handshake && s->negotiated) {
		put_error(s, not_found,
			  "Capabilities negotiation is already complete, command ignored", id);
		goto out;
	}
	cmd = find_command(s, name, &ctx);
	if (!cmd) {
		ob_fail(&e, ENOENT, "The command %.100s has not been found", name);
		put_error(s, not_found, e.msg, id);
		goto out;
	}
	args = json_object_get(doc, "arguments");
	ret = check_args(cmd, args ? args : none, &e) ? NULL
						      : cmd->run(ctx, args ? args : none, &e);
	if (ret) {
		json_t *answer = json_pack("{s:o}", "return", ret);

		OB_ASSERT(answer);
		if (id)
			json_object_set(answer, "id", id);
		put_json(s, answer);
		json_decref(answer);
	} else {
		put_error(s, generic, e.msg, id);
	}
out:
	json_decref(none);
}

static void take_text(struct qmp_session *s)
{
	json_error_t why;
	struct ob_err e;
	json_t *doc =
		json_loadb(s->in.text, s->in.len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);

	if (!doc) {
		ob_fail(&e, EINVAL, "JSON parse error, %s", why.text);
		put_error(s, generic, e.msg, NULL);
		return;
	}
	execute(s, doc);
	json_decref(doc);
}

/* --- the session ------------------------------------------------------------------------- */

void qmp_session_init(struct qmp_session *s, const struct qmp_service *service)
{
	json_t *greeting;

	s->service = service;
	s->negotiated = s->over = false;
	s->out = NULL;
	s->out_at = s->out_len = s->out_room = 0;
	qmp_stream_init(&s->in);
	greeting = json_pack("{s:{s:o,s:[]}}", "QMP", "version", version_json(service),
			     "capabilities");
	OB_ASSERT(greeting);
	put_json(s, greeting);
	json_decref(greeting);
}

void qmp_session_exit(struct qmp_session *s)
{
	free(s->out);
	s->out = NULL;
}

size_t qmp_session_feed(struct qmp_session *s, const char *in, size_t n)
{
	struct ob_err why = {""};
	size_t used = 0;

	if (s->over)
		return n;
	switch (qmp_stream_take(&s->in, in, n, &used, &why)) {
	case QMP_MORE:
		break;
	case QMP_TEXT:
		take_text(s);
		break;
	case QMP_BAD:
		put_error(s, generic, why.msg, NULL);
		break;
	case QMP_TOO_LONG:
		ob_fail(&why, E2BIG, "JSON token size limit exceeded (%u bytes)", QMP_MAX_INPUT);
		put_error(s, generic, why.msg, NULL);
		s->over = true;
		break;
	}
	return used;
}

const char *qmp_session_out(const struct qmp_session *s, size_t *n)
{
	*n = s->out_len - s->out_at;
	return *n ? s->out + s->out_at : NULL;
}

void qmp_session_sent(struct qmp_session *s, size_t n)
{
	OB_ASSERT(n <= s->out_len - s->out_at);
	s->out_at += n;
	if (s->out_at < s->out_len)
		return;
	s->out_at = s->out_len = 0;
	/* After a large answer its memory goes back. */
	if (s->out_room > QMP_LOW_OUTPUT) {
		free(s->out);
		s->out = NULL;
		s->out_room = 0;
	}
}

void qmp_session_event(struct qmp_session *s, const json_t *event)
{
	if (s->negotiated)
		put_json(s, event);
}

void qmp_session_refuse(struct qmp_session *s, const char *why)
{
	s->out_at = s->out_len = 0;
	put_error(s, generic, why, NULL);
	s->over = true;
}

json_t *qmp_event(const char *name, json_t *data)
{
	struct timespec now;
	json_t *event;

	clock_gettime(CLOCK_REALTIME, &now);
	event = json_pack("{s:{s:I,s:I},s:s}", "timestamp", "seconds", (json_int_t)now.tv_sec,
			  "microseconds", (json_int_t)now.tv_nsec / 1000, "event", name);
	OB_ASSERT(event);
	if (data)
		json_object_set_new(event, "data", data);
	return event;
}
