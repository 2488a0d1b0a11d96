/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_qmp.c: libFuzzer target: any bytes to the control socket, in any pieces. The first byte says how
 * they are cut; cut or not, the same must come out: lines of ASCII, each a JSON object. And whatever
 * was said, a control character and a line end bring the session back to where a command is understood.
 */
#include <stdlib.h>
#include <string.h>

#include "harness/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static json_t *do_echo(void *ctx, const json_t *args, struct ob_err *e)
{
	(void)ctx;
	(void)e;
	return json_deep_copy(args);
}

static const struct qmp_command commands[] = {
	{"echo", do_echo, {{"word", JSON_STRING, false}, {"number", JSON_INTEGER, true}}},
};

static const struct qmp_service service = {
	.command = commands, .ncommands = 1, .package = "overbook fuzz"};

static void feed(struct qmp_session *s, const uint8_t *data, size_t len, size_t piece)
{
	while (len) {
		size_t n = OB_MIN(len, piece);

		/* In an allocation of its own: a byte too far is found. */
		char *in = malloc(n);
		size_t used;

		memcpy(in, data, n);
		used = qmp_session_feed(s, in, n);
		OB_ASSERT(used <= n);
		free(in);
		data += used;
		len -= used;
	}
}

/* All that goes out, taken off: lines of JSON objects. */
static char *drain(struct qmp_session *s)
{
	size_t n;
	const char *out = qmp_session_out(s, &n);
	char *text = calloc(1, n + 1);

	if (n) {
		memcpy(text, out, n);
		qmp_session_sent(s, n);
	}
	OB_ASSERT(strlen(text) == n);
	for (char *line = text, *end; *line; line = end + 2) {
		json_t *doc;

		end = strstr(line, "\r\n");
		OB_ASSERT(end);
		for (const char *p = line; p < end; p++)
			OB_ASSERT((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
		doc = json_loadb(line, (size_t)(end - line), 0, NULL);
		OB_ASSERT(json_is_object(doc));
		json_decref(doc);
	}
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char back[] = "\x01\n{\"execute\": \"no-such-command\", \"id\": \"back\"}";
	size_t piece = len ? 1 + data[0] % 64 : 1;
	struct qmp_session *whole, *cut;
	char *a, *b;

	if (!len)
		return 0;
	whole = malloc(sizeof(*whole));
	cut = malloc(sizeof(*cut));
	OB_ASSERT(whole && cut);
	qmp_session_init(whole, &service);
	qmp_session_init(cut, &service);
	feed(whole, data + 1, len - 1, len);
	feed(cut, data + 1, len - 1, piece);
	a = drain(whole);
	b = drain(cut);
	OB_ASSERT(!strcmp(a, b) && whole->over == cut->over);
	free(a);
	free(b);
	if (!whole->over) {
		feed(whole, (const uint8_t *)back, sizeof(back) - 1, sizeof(back));
		a = drain(whole);
		OB_ASSERT(strstr(a, "\"CommandNotFound\"") && strstr(a, "\"id\": \"back\""));
		free(a);
	}
	qmp_session_exit(whole);
	qmp_session_exit(cut);
	free(whole);
	free(cut);
	return 0;
}
