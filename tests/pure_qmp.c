/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_qmp.c: the control protocol as a state machine: what goes in as bytes, what comes out. Shapes
 * and words are those of QEMU 7.2, which was given the same lines.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "harness/qmp.h"

/* --- a service to talk to ---------------------------------------------------------------- */

static json_t *do_echo(void *ctx, const json_t *args, struct ob_err *e)
{
	(void)e;
	++*(unsigned int *)ctx;
	return json_deep_copy(args);
}

static json_t *do_fail(void *ctx, const json_t *args, struct ob_err *e)
{
	(void)ctx;
	(void)args;
	ob_fail(e, 5, "it failed, caf\xc3\xa9 and \xc3");
	return NULL;
}

static const struct qmp_command commands[] = {
	{"echo",
	 do_echo,
	 {{"word", JSON_STRING, false},
	  {"number", JSON_INTEGER, true},
	  {"flag", JSON_TRUE, true},
	  {"list", JSON_ARRAY, true}}},
	{"fail", do_fail, {{NULL, JSON_NULL, false}}},
};

struct rig {
	struct qmp_service service;
	struct qmp_session session;
	unsigned int echoed;
};

static struct rig *rig_new(void)
{
	struct rig *r = calloc(1, sizeof(*r));

	cr_assert(r);
	r->service = (struct qmp_service){
		.command = commands, .ncommands = 2, .ctx = &r->echoed, .package = "overbook test"};
	qmp_session_init(&r->session, &r->service);
	return r;
}

static void rig_free(struct rig *r)
{
	qmp_session_exit(&r->session);
	free(r);
}

static void feed(struct rig *r, const char *in, size_t n)
{
	while (n) {
		size_t used = qmp_session_feed(&r->session, in, n);

		cr_assert_leq(used, n);
		in += used;
		n -= used;
	}
}

/* All that goes out, taken off. */
static char *drain(struct rig *r)
{
	size_t n;
	const char *out = qmp_session_out(&r->session, &n);
	char *text = calloc(1, n + 1);

	cr_assert(text);
	if (n) {
		memcpy(text, out, n);
		qmp_session_sent(&r->session, n);
	}
	return text;
}

/* The next line off @text as a document, NULL at the end. */
static json_t *next_line(char **text)
{
	char *end = strstr(*text, "\r\n");
	json_t *doc;

	if (!end) {
		cr_assert_str_empty(*text, "not ended by CRLF: %s", *text);
		return NULL;
	}
	doc = json_loadb(*text, (size_t)(end - *text), 0, NULL);
	cr_assert(json_is_object(doc), "no object: %s", *text);
	for (char *p = *text; p < end; p++)
		cr_assert((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f,
			  "not plain ASCII: %s", *text);
	*text = end + 2;
	return doc;
}

/* Say it and get the one answer that there is. */
static json_t *ask(struct rig *r, const char *line)
{
	char *text, *at;
	json_t *doc, *more;

	feed(r, line, strlen(line));
	text = at = drain(r);
	doc = next_line(&at);
	cr_assert(doc, "no answer to %s", line);
	more = next_line(&at);
	cr_assert_null(more, "more than one answer to %s", line);
	free(text);
	return doc;
}

static const char *str(const json_t *o, const char *a, const char *b)
{
	const char *s = json_string_value(json_object_get(json_object_get(o, a), b));

	return s ? s : "";
}

static void negotiate(struct rig *r)
{
	json_t *doc;

	free(drain(r));
	doc = ask(r, "{\"execute\": \"qmp_capabilities\"}");
	cr_assert(json_is_object(json_object_get(doc, "return")));
	json_decref(doc);
}

/* An echo comes back: the session is well. */
static void still_well(struct rig *r, const char *after)
{
	json_t *doc =
		ask(r, "{\"execute\": \"echo\", \"arguments\": {\"word\": \"hi\"}, \"id\": 77}");

	cr_assert_str_eq(str(doc, "return", "word"), "hi", "after %s", after);
	cr_assert_eq(json_integer_value(json_object_get(doc, "id")), 77, "after %s", after);
	json_decref(doc);
}

/* --- greeting, negotiation --------------------------------------------------------------- */

Test(qmp, greeting)
{
	struct rig *r = rig_new();
	char *text = drain(r), *at = text;
	json_t *doc = next_line(&at), *qmp = json_object_get(doc, "QMP");
	const json_t *version = json_object_get(qmp, "version");

	cr_assert_null(next_line(&at));
	cr_expect_str_eq(json_string_value(json_object_get(version, "package")), "overbook test");
	cr_expect(json_is_integer(json_object_get(json_object_get(version, "qemu"), "major")));
	cr_expect(json_is_integer(json_object_get(json_object_get(version, "qemu"), "minor")));
	cr_expect(json_is_integer(json_object_get(json_object_get(version, "qemu"), "micro")));
	cr_expect(json_is_array(json_object_get(qmp, "capabilities")));
	cr_expect_eq(json_array_size(json_object_get(qmp, "capabilities")), 0);
	json_decref(doc);
	free(text);
	rig_free(r);
}

Test(qmp, negotiation_comes_first_and_once)
{
	struct rig *r = rig_new();
	json_t *doc, *event;
	char *text;

	free(drain(r));
	doc = ask(r, "{\"execute\": \"query-version\", \"id\": 1}");
	cr_expect_str_eq(str(doc, "error", "class"), "CommandNotFound");
	cr_expect_str_eq(str(doc, "error", "desc"),
			 "Expecting capabilities negotiation with 'qmp_capabilities'");
	cr_expect_eq(json_integer_value(json_object_get(doc, "id")), 1);
	json_decref(doc);
	doc = ask(r, "{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\"}}");
	cr_expect_str_eq(str(doc, "error", "class"), "CommandNotFound");
	cr_expect_eq(r->echoed, 0, "executed before it was allowed");
	json_decref(doc);
	doc = ask(r, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}");
	cr_expect_str_eq(str(doc, "error", "class"), "GenericError");
	json_decref(doc);
	doc = ask(r, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [3]}}");
	cr_expect_str_eq(str(doc, "error", "class"), "GenericError");
	json_decref(doc);

	/* No events until it is done. */
	event = qmp_event("STOP", NULL);
	qmp_session_event(&r->session, event);
	text = drain(r);
	cr_expect_str_empty(text);
	free(text);
	doc = ask(r, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": []}}");
	cr_assert(json_is_object(json_object_get(doc, "return")));
	json_decref(doc);
	qmp_session_event(&r->session, event);
	text = drain(r);
	cr_expect(strstr(text, "\"event\": \"STOP\"") && strstr(text, "\"seconds\": ") &&
			  strstr(text, "\"microseconds\": "),
		  "%s", text);
	free(text);
	json_decref(event);
	doc = ask(r, "{\"execute\": \"qmp_capabilities\"}");
	cr_expect_str_eq(str(doc, "error", "class"), "CommandNotFound");
	cr_expect_str_eq(str(doc, "error", "desc"),
			 "Capabilities negotiation is already complete, command ignored");
	json_decref(doc);
	still_well(r, "a second negotiation");
	rig_free(r);
}

Test(qmp, commands_are_listed)
{
	static const char *const want[] = {"qmp_capabilities", "query-version", "query-commands",
					   "echo", "fail"};
	struct rig *r = rig_new();
	json_t *doc;

	negotiate(r);
	doc = ask(r, "{\"execute\": \"query-commands\"}");
	cr_assert_eq(json_array_size(json_object_get(doc, "return")), OB_ARRAY_SIZE(want));
	for (size_t i = 0; i < OB_ARRAY_SIZE(want); i++)
		cr_expect_str_eq(
			json_string_value(json_object_get(
				json_array_get(json_object_get(doc, "return"), i), "name")),
			want[i]);
	json_decref(doc);
	doc = ask(r, "{\"execute\": \"query-version\"}");
	cr_expect_str_eq(str(doc, "return", "package"), "overbook test");
	json_decref(doc);
	rig_free(r);
}

/* --- commands and errors ----------------------------------------------------------------- */

Test(qmp, each_error_has_its_class_and_words)
{
	static const struct {
		const char *line, *class, *desc; /* desc: a part of it */
		int id;				 /* 0: there is none in the answer */
	} cases[] = {
		{"{\"execute\": \"nope\", \"id\": 4}", "CommandNotFound",
		 "The command nope has not been found", 4},
		{"{\"execute\": \"fail\", \"id\": 5}", "GenericError", "it failed, caf", 5},
		{"{\"execute\": \"echo\", \"id\": 6}", "GenericError",
		 "Parameter 'word' is missing", 6},
		{"{\"execute\": \"echo\", \"arguments\": {\"word\": 3}}", "GenericError",
		 "Invalid parameter type for 'word', expected: string", 0},
		{"{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\", \"number\": 1.5}}",
		 "GenericError", "Invalid parameter type for 'number', expected: integer", 0},
		{"{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\", \"flag\": 1}}",
		 "GenericError", "Invalid parameter type for 'flag', expected: boolean", 0},
		{"{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\", \"list\": {}}}",
		 "GenericError", "Invalid parameter type for 'list', expected: array", 0},
		{"{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\", \"x\": 1}}",
		 "GenericError", "Parameter 'x' is unexpected", 0},
		{"{\"execute\": \"fail\", \"arguments\": {\"word\": \"a\"}}", "GenericError",
		 "Parameter 'word' is unexpected", 0},
		{"{\"execute\": \"echo\", \"arguments\": []}", "GenericError",
		 "QMP input member 'arguments' must be an object", 0},
		{"{\"execute\": \"echo\", \"arguments\": null}", "GenericError",
		 "QMP input member 'arguments' must be an object", 0},
		{"{\"execute\": true, \"id\": 7}", "GenericError",
		 "QMP input member 'execute' must be a string", 7},
		{"{\"exec-oob\": \"echo\"}", "GenericError",
		 "QMP input member 'exec-oob' is unexpected", 0},
		{"{\"execute\": \"echo\", \"extra\": 1, \"id\": 8}", "GenericError",
		 "QMP input member 'extra' is unexpected", 8},
		{"{\"id\": 9}", "GenericError", "QMP input lacks member 'execute'", 9},
		{"{}", "GenericError", "QMP input lacks member 'execute'", 0},
		{"[]", "GenericError", "QMP input must be a JSON object", 0},
		{"null\n", "GenericError", "QMP input must be a JSON object", 0},
		{"12 ", "GenericError", "QMP input must be a JSON object", 0},
		{"\"word\"", "GenericError", "QMP input must be a JSON object", 0},
		{"{]", "GenericError", "JSON parse error, ", 0},
		{"}", "GenericError", "JSON parse error, ", 0},
		{",", "GenericError", "JSON parse error, ", 0},
		{"{\"execute\": }", "GenericError", "JSON parse error, ", 0},
		{"{\"execute\": \"echo\" \"id\": 1}", "GenericError", "JSON parse error, ", 0},
		{"{\"execute\": \"echo\", \"id\": 1,}", "GenericError", "JSON parse error, ", 0},
		{"{\"a\": 1, \"a\": 2}", "GenericError", "duplicate", 0},
		{"{\"execute\": \"caf\xc3\"}", "GenericError", "JSON parse error, ", 0},
		{"{\"execute\": \"echo\\u0000\"}", "GenericError", "JSON parse error, ", 0},
		{"{\"id\": \"\\ud800\"}", "GenericError", "JSON parse error, ", 0},
		{"{\"id\": 99999999999999999999}", "GenericError", "JSON parse error, ", 0},
		{"hello\n", "GenericError", "JSON parse error, ", 0},
		{"%p\n", "GenericError", "JSON parse error, stray '%'", 0},
		{"\xff\n", "GenericError", "JSON parse error, stray byte 0xff", 0},
		{"{\x01\n", "GenericError", "JSON parse error, stray byte 0x01", 0},
		{"{\"bad \xff\n", "GenericError", "JSON parse error, stray byte 0xff", 0},
		{"{\"execute\": \"nonexistent\", \"id\":\"\n", "GenericError",
		 "JSON parse error, stray byte 0x0a", 0},
		{"{\"execute\": \"fail\\\x02\n", "GenericError",
		 "JSON parse error, stray byte 0x02", 0},
	};
	struct rig *r = rig_new();

	negotiate(r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		json_t *doc = ask(r, cases[i].line);
		const json_t *id = json_object_get(doc, "id");

		cr_expect_str_eq(str(doc, "error", "class"), cases[i].class, "%s", cases[i].line);
		cr_expect(strstr(str(doc, "error", "desc"), cases[i].desc), "%s: %s", cases[i].line,
			  str(doc, "error", "desc"));
		cr_expect_eq(json_integer_value(id), cases[i].id, "%s", cases[i].line);
		cr_expect(!id == !cases[i].id);
		cr_expect_null(json_object_get(doc, "return"));
		json_decref(doc);
		still_well(r, cases[i].line);
	}
	rig_free(r);
}

Test(qmp, any_value_is_an_id)
{
	static const char *const ids[] = {"1",	  "-7",		 "1.5",	     "\"a b\"",
					  "null", "true",	 "[]",	     "{\"a\": [1, {}]}",
					  "\"\"", "\"\\u20ac\"", "\"\\\"\"", "9223372036854775807"};
	struct rig *r = rig_new();

	negotiate(r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(ids); i++) {
		char line[128];
		json_t *doc, *want = json_loads(ids[i], JSON_DECODE_ANY, NULL);

		snprintf(line, sizeof(line),
			 "{\"id\": %s, \"arguments\": {\"word\": \"w\"}, \"execute\": \"echo\"}",
			 ids[i]);
		doc = ask(r, line);
		cr_expect_str_eq(str(doc, "return", "word"), "w");
		cr_expect(json_equal(json_object_get(doc, "id"), want), "%s", ids[i]);
		json_decref(doc);
		json_decref(want);
	}
	rig_free(r);
}

Test(qmp, single_quotes_are_quotes)
{
	static const char *const pairs[][2] = {
		{"'a'", "a"},	      {"'it\\'s'", "it's"}, {"'say \"x\"'", "say \"x\""},
		{"\"it's\"", "it's"}, {"'\\\"'", "\""},	    {"\"\\'\"", "'"},
		{"'\\\\'", "\\"},     {"''", ""},
	};
	struct rig *r = rig_new();

	negotiate(r);
	for (size_t i = 0; i < OB_ARRAY_SIZE(pairs); i++) {
		char line[128];
		json_t *doc;

		snprintf(line, sizeof(line), "{'execute':'echo','arguments':{\"word\":%s}}",
			 pairs[i][0]);
		doc = ask(r, line);
		cr_expect_str_eq(str(doc, "return", "word"), pairs[i][1], "%s", line);
		json_decref(doc);
	}
	rig_free(r);
}

/* --- bytes in any pieces ----------------------------------------------------------------- */

static char *whole(const char *in, size_t n)
{
	struct rig *r = rig_new();
	char *out;

	feed(r, in, n);
	out = drain(r);
	rig_free(r);
	return out;
}

Test(qmp, split_anywhere)
{
	static const char in[] =
		" {\"execute\": "
		"\"qmp_capabilities\"}{'execute':'echo','arguments':{'word':'a\\\\\\\"'}}\r\n"
		"null 3 \"x\" {]\xff{\"a\":\x01\n[[{}]] hello; {\"execute\":\"fail\",\"id\":[1,2]}"
		"{\"execute\" : \"echo\" , \"arguments\" : {\"word\" : \"\\u00e9\xc3\xa9\"} }\n"
		"'\x02{\"execute\":\"query-version\"}";
	size_t n = sizeof(in) - 1;
	char *want = whole(in, n);

	cr_assert(strstr(want, "\"a\\\\\\\"\""), "%s", want);
	for (size_t at = 0; at <= n; at++) {
		struct rig *r = rig_new();
		char *out;

		feed(r, in, at);
		feed(r, in + at, n - at);
		out = drain(r);
		cr_assert_str_eq(out, want, "split at %zu", at);
		free(out);
		rig_free(r);
	}
	free(want);
}

/* A random value, and a text of it with blanks anywhere. */
static json_t *random_value(int depth)
{
	static const char *const words[] = {"",	  "a",	"it's",		"\"",	    "\\",
					    "{[", "]}", "\xe2\x82\xac", "\n\t\x01", ",:"};
	json_t *v;
	int n;

	switch (rand() % (depth > 3 ? 5 : 7)) {
	case 0:
		return json_integer((json_int_t)rand() - RAND_MAX / 2);
	case 1:
		return json_real(rand() / 7.0);
	case 2:
		return json_boolean(rand() % 2);
	case 3:
		return json_null();
	case 4:
		return json_string(words[(size_t)rand() % OB_ARRAY_SIZE(words)]);
	case 5:
		v = json_array();
		for (n = rand() % 4; n; n--)
			json_array_append_new(v, random_value(depth + 1));
		return v;
	default:
		v = json_object();
		for (n = rand() % 4; n; n--)
			json_object_set_new(v, words[(size_t)rand() % OB_ARRAY_SIZE(words)],
					    random_value(depth + 1));
		return v;
	}
}

/* Texts that are known to be whole come out one by one and are what they were. */
Test(qmp, random_texts_are_found_whole)
{
	static const size_t flags[] = {0, JSON_COMPACT, JSON_INDENT(3), JSON_ENSURE_ASCII};
	struct qmp_stream *s = malloc(sizeof(*s));
	unsigned int seed = 20260801;

	cr_assert(s);
	srand(seed);
	qmp_stream_init(s);
	for (int round = 0; round < 20000; round++) {
		json_t *v = random_value(0), *got;
		char *text = json_dumps(v, JSON_ENCODE_ANY | flags[rand() % 4]), *at = text;
		size_t n = strlen(text);
		enum qmp_take took = QMP_MORE;
		struct ob_err why = {""};

		while (n && took == QMP_MORE) {
			size_t piece = 1 + (size_t)rand() % n, used;

			took = qmp_stream_take(s, at, piece, &used, &why);
			cr_assert(used == piece || took != QMP_MORE);
			at += used;
			n -= used;
		}
		/* A number or word ends where something else begins. */
		if (took == QMP_MORE) {
			size_t used;

			took = qmp_stream_take(s, "\n", 1, &used, &why);
			cr_assert_eq(used, 0);
		}
		cr_assert_eq(n, 0, "seed %u round %d: %s", seed, round, text);
		cr_assert_eq(took, QMP_TEXT, "seed %u round %d: %s: %s", seed, round, text,
			     why.msg);
		got = json_loadb(s->text, s->len, JSON_DECODE_ANY, NULL);
		cr_assert(got && json_equal(got, v), "seed %u round %d: %s is %.*s", seed, round,
			  text, (int)s->len, s->text);
		json_decref(got);
		json_decref(v);
		free(text);
	}
	free(s);
}

/* Any bytes: the pieces do not matter, and a control character and a line end bring it back. */
Test(qmp, random_garbage_in_random_pieces)
{
	static const char *const parts[] = {"{",
					    "}",
					    "[",
					    "]",
					    ",",
					    ":",
					    "\"",
					    "'",
					    "\\",
					    "\n",
					    " ",
					    "\t",
					    "\x01",
					    "\xff",
					    "\xc3",
					    "null",
					    "12",
					    "-",
					    ";",
					    "execute",
					    "{\"execute\": \"fail\"}",
					    "id",
					    "{\"execute\": \"query-version\", \"id\": 1}",
					    "'execute'",
					    "{'a':1}"};
	unsigned int seed = 4242;

	srand(seed);
	for (int round = 0; round < 3000; round++) {
		char in[2048] = "", *want, *out;
		struct rig *r = rig_new();
		size_t n = 0, at = 0;
		json_t *doc;

		strcpy(in, "{\"execute\": \"qmp_capabilities\"}");
		for (int k = rand() % 60; k; k--)
			strcat(in, parts[(size_t)rand() % OB_ARRAY_SIZE(parts)]);
		n = strlen(in);
		want = whole(in, n);
		while (at < n) {
			size_t piece = 1 + (size_t)rand() % (n - at);

			feed(r, in + at, piece);
			at += piece;
		}
		out = drain(r);
		cr_assert_str_eq(out, want, "seed %u round %d", seed, round);
		feed(r, "\x01\n", 2);
		free(drain(r));
		doc = ask(r, "{\"execute\": \"query-commands\", \"id\": \"back\"}");
		cr_assert_str_eq(json_string_value(json_object_get(doc, "id")), "back",
				 "seed %u round %d", seed, round);
		json_decref(doc);
		free(out);
		free(want);
		rig_free(r);
	}
}

/* --- limits ------------------------------------------------------------------------------ */

/* An echo whose text has @n bytes as it is kept. */
static char *echo_of(size_t n)
{
	static const char head[] = "{\"execute\":\"echo\",\"arguments\":{\"word\":\"",
			  tail[] = "\"}}";
	char *line = malloc(n + 1);

	cr_assert(line && n > sizeof(head) + sizeof(tail));
	memset(line, 'x', n);
	memcpy(line, head, sizeof(head) - 1);
	memcpy(line + n - (sizeof(tail) - 1), tail, sizeof(tail));
	return line;
}

Test(qmp, a_command_may_be_so_long_and_no_longer)
{
	struct rig *r = rig_new();
	char *line = echo_of(QMP_MAX_INPUT);
	json_t *doc;

	negotiate(r);
	doc = ask(r, line);
	cr_expect(json_is_object(json_object_get(doc, "return")));
	json_decref(doc);
	free(line);
	cr_expect(!r->session.over);
	line = echo_of(QMP_MAX_INPUT + 1);
	doc = ask(r, line);
	cr_expect_str_eq(str(doc, "error", "class"), "GenericError");
	cr_expect(strstr(str(doc, "error", "desc"), "limit"));
	json_decref(doc);
	free(line);
	cr_expect(r->session.over);
	cr_expect_eq(r->echoed, 1);
	/* What comes behind it is not looked at. */
	feed(r, "{\"execute\": \"echo\", \"arguments\": {\"word\": \"a\"}}", 49);
	line = drain(r);
	cr_expect_str_empty(line);
	cr_expect_eq(r->echoed, 1);
	free(line);
	rig_free(r);
}

Test(qmp, blanks_are_no_length)
{
	static char blanks[3 * QMP_MAX_INPUT];
	struct rig *r = rig_new();

	negotiate(r);
	memset(blanks, ' ', sizeof(blanks));
	feed(r, blanks, sizeof(blanks));
	feed(r, "{\"execute\":", 11);
	feed(r, blanks, sizeof(blanks));
	feed(r, "\"fail\"}", 7);
	free(drain(r));
	still_well(r, "many blanks");
	rig_free(r);
}

Test(qmp, nesting_is_limited)
{
	static char deep[QMP_MAX_NESTING + 1];
	struct rig *r = rig_new();
	json_t *doc;
	char *text;

	negotiate(r);
	memset(deep, '[', sizeof(deep));
	feed(r, deep, QMP_MAX_NESTING);
	text = drain(r);
	cr_expect_str_empty(text, "as deep as is allowed");
	free(text);
	doc = ask(r, "[");
	cr_expect(strstr(str(doc, "error", "desc"), "nesting"), "%s", str(doc, "error", "desc"));
	json_decref(doc);
	still_well(r, "nesting too deep");
	/* As deep as is allowed, and closed again. */
	feed(r, deep, QMP_MAX_NESTING);
	memset(deep, ']', sizeof(deep));
	feed(r, deep, QMP_MAX_NESTING - 1);
	doc = ask(r, "]");
	cr_expect_str_eq(str(doc, "error", "desc"), "QMP input must be a JSON object");
	json_decref(doc);
	rig_free(r);
}

/* Somebody who reads nothing costs so much memory and no more. */
Test(qmp, output_is_limited)
{
	struct rig *r = rig_new();
	char *line = echo_of(QMP_MAX_INPUT);
	unsigned int rounds = 0;
	size_t n;

	negotiate(r);
	while (!r->session.over && rounds++ < 2 * QMP_MAX_OUTPUT / QMP_MAX_INPUT) {
		feed(r, line, QMP_MAX_INPUT);
		qmp_session_out(&r->session, &n);
		cr_assert_leq(n, QMP_MAX_OUTPUT);
	}
	cr_expect(r->session.over);
	cr_expect_null(qmp_session_out(&r->session, &n), "half an answer is worse than none");
	free(line);
	rig_free(r);
}

Test(qmp, a_refusal_is_all_there_is)
{
	struct rig *r = rig_new();
	json_t *doc;
	char *text, *at;

	qmp_session_refuse(&r->session, "full");
	text = at = drain(r);
	doc = next_line(&at);
	cr_expect_str_eq(str(doc, "error", "desc"), "full");
	cr_expect_null(next_line(&at));
	cr_expect(r->session.over);
	json_decref(doc);
	free(text);
	rig_free(r);
}
