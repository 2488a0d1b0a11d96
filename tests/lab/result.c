/* SPDX-License-Identifier: Apache-2.0 */
/* result.c: a result of the lab, loaded and looked into (tests/lab/result.h). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/lab/result.h"

double result_number(const json_t *o, const char *a, const char *b)
{
	const json_t *v = json_object_get(o, a);

	return json_number_value(b ? json_object_get(v, b) : v);
}

const json_t *result_phase(const struct result *r, const char *sharing)
{
	const json_t *found = NULL, *p;
	size_t i;

	json_array_foreach (json_object_get(r->run, "phases"), i, p) {
		const char *s = json_string_value(json_object_get(p, "sharing"));

		if (s && !strcmp(s, sharing))
			found = p;
	}
	return found;
}

void result_fail(struct result *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("FAILED %s: ", r->name);
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
	r->failures++;
}

int result_load(struct result *r, char *arg)
{
	char *path = strchr(arg, '='), *word;
	json_error_t e;

	if (!path) {
		fprintf(stderr, "labsum: %s: give NAME=RESULT.JSON\n", arg);
		return 2;
	}
	*path++ = '\0';
	r->name = arg;
	word = strchr(path, ':');
	while (word) {
		char *next;

		*word++ = '\0';
		next = strchr(word, ':');
		if (next)
			*next = '\0';
		if (!strcmp(word, "tdp") || !strcmp(word, "shadow"))
			r->want_mode = word;
		else if (!strcmp(word, "reference"))
			r->reference = true;
		else {
			fprintf(stderr, "labsum: '%s': tdp, shadow or reference\n", word);
			return 2;
		}
		word = next;
	}
	r->doc = json_load_file(path, 0, &e);
	if (!r->doc) {
		printf("FAILED %s: %s: %s\n", r->name, path, e.text);
		return 1;
	}
	r->run = json_array_get(json_object_get(r->doc, "runs"), 0);
	return 0;
}
