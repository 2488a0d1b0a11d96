/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp_stream.c: where one JSON text ends and the next begins.
 *
 * QMP's input is a stream: texts need not be lines, and come in whatever pieces the socket makes of
 * them. To find their ends it is enough to know strings from the rest and to count braces and
 * brackets; whether the text is JSON is the JSON library's to say. Three things are done on the way,
 * as QEMU's lexer does them:
 *
 * - strings may be in single quotes; the text handed on has double ones;
 * - a byte that JSON has nowhere (a control character, 0xfe, 0xff, a stray sign) ends the text at once
 *   as bad, so that a client can always bring us to a known state;
 * - then everything is skipped up to the next control character, brace, bracket, comma or colon, which
 *   may begin something new.
 */
#include <ctype.h>
#include <string.h>

#include "harness/qmp.h"

void qmp_stream_init(struct qmp_stream *s)
{
	s->lex = QMP_BETWEEN;
	s->len = 0;
	s->braces = s->brackets = 0;
}

static bool is_space(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Of numbers, true, false, null: whatever cannot be anything else. */
static bool is_word(unsigned char c)
{
	return c < 0x80 && (isalnum(c) || c == '-' || c == '+' || c == '.' || c == '_');
}

/* Never to be found in a string. */
static bool is_control(unsigned char c)
{
	return c < 0x20 || c >= 0xfe;
}

static bool is_structural(unsigned char c)
{
	return c && strchr("{}[],:", c);
}

static enum qmp_take bad(struct qmp_stream *s, struct ob_err *why, unsigned char c)
{
	qmp_stream_init(s);
	s->lex = QMP_RECOVER;
	if (c > 0x20 && c < 0x7f)
		ob_fail(why, 0, "JSON parse error, stray '%c'", c);
	else
		ob_fail(why, 0, "JSON parse error, stray byte 0x%02x", c);
	return QMP_BAD;
}

/* One byte behind the text. False: there is no room for it. */
static bool put(struct qmp_stream *s, char c)
{
	if (s->len == sizeof(s->text))
		return false;
	s->text[s->len++] = c;
	return true;
}

/* A brace, bracket, comma or colon: the text ends where as many were closed as opened. */
static enum qmp_take structural(struct qmp_stream *s, char c, struct ob_err *why)
{
	if (!put(s, c))
		return QMP_TOO_LONG;
	s->braces += (c == '{') - (c == '}');
	s->brackets += (c == '[') - (c == ']');
	if (s->braces < 0 || s->brackets < 0 || (!s->braces && !s->brackets))
		return QMP_TEXT;
	if (s->braces + s->brackets > QMP_MAX_NESTING) {
		qmp_stream_init(s);
		ob_fail(why, 0, "JSON nesting depth limit exceeded");
		return QMP_BAD;
	}
	s->lex = QMP_INSIDE;
	return QMP_MORE;
}

static enum qmp_take outside_string(struct qmp_stream *s, unsigned char c, struct ob_err *why)
{
	bool inside = s->lex == QMP_INSIDE;

	if (is_structural(c))
		return structural(s, (char)c, why);
	if (is_space(c)) {
		/* One blank says as much as many. */
		if (inside && s->text[s->len - 1] != ' ' && !put(s, ' '))
			return QMP_TOO_LONG;
		return QMP_MORE;
	}
	if (c == '"' || c == '\'') {
		s->quote = (char)c;
		s->lex = QMP_STRING;
		return put(s, '"') ? QMP_MORE : QMP_TOO_LONG;
	}
	if (!is_word(c))
		return bad(s, why, c);
	if (!inside)
		s->lex = QMP_WORD;
	return put(s, (char)c) ? QMP_MORE : QMP_TOO_LONG;
}

static enum qmp_take in_string(struct qmp_stream *s, unsigned char c, struct ob_err *why)
{
	bool room = true;

	if (is_control(c))
		return bad(s, why, c);
	if (s->lex == QMP_ESCAPE) {
		/* A single quote needs no escape in JSON, and may have none. */
		room = (c == '\'' || put(s, '\\')) && put(s, (char)c);
		s->lex = QMP_STRING;
	} else if (c == '\\') {
		s->lex = QMP_ESCAPE;
	} else if (c == (unsigned char)s->quote) {
		room = put(s, '"');
		s->lex = QMP_INSIDE;
		if (room && !s->braces && !s->brackets)
			return QMP_TEXT;
	} else {
		room = (c != '"' || put(s, '\\')) && put(s, (char)c);
	}
	return room ? QMP_MORE : QMP_TOO_LONG;
}

enum qmp_take qmp_stream_take(struct qmp_stream *s, const char *in, size_t n, size_t *used,
			      struct ob_err *why)
{
	enum qmp_take took = QMP_MORE;
	size_t at = 0;

	/* The text of the last call has been read. */
	if (s->lex == QMP_BETWEEN)
		qmp_stream_init(s);
	while (at < n && took == QMP_MORE) {
		unsigned char c = (unsigned char)in[at];

		switch (s->lex) {
		case QMP_WORD:
			if (is_word(c)) {
				took = put(s, (char)c) ? QMP_MORE : QMP_TOO_LONG;
				break;
			}
			took = QMP_TEXT; /* and @c belongs to the next */
			continue;
		case QMP_RECOVER:
			if ((is_control(c) && c != '\t') || is_structural(c)) {
				s->lex = QMP_BETWEEN;
				continue;
			}
			break;
		case QMP_STRING:
		case QMP_ESCAPE:
			took = in_string(s, c, why);
			break;
		case QMP_BETWEEN:
		case QMP_INSIDE:
			took = outside_string(s, c, why);
			break;
		}
		at++;
	}
	*used = at;
	if (took == QMP_TEXT) {
		s->lex = QMP_BETWEEN;
		s->braces = s->brackets = 0;
	}
	return took;
}
