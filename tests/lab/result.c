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

bool result_nokaslr(const struct result *r)
{
	const json_t *config = json_object_get(r->doc, "config");
	const char *s = json_string_value(json_object_get(config, "append"));
	const size_t len = strlen("nokaslr");

	for (; s && *s; s += strcspn(s, " ")) {
		s += strspn(s, " ");
		if (strcspn(s, " ") == len && !strncmp(s, "nokaslr", len))
			return true;
	}
	return false;
}

static bool same_text(const json_t *a, const json_t *b, const char *key)
{
	const char *x = json_string_value(json_object_get(a, key));
	const char *y = json_string_value(json_object_get(b, key));

	return x && y && !strcmp(x, y);
}

/* All but what the guests' kernel is told. */
static bool same_config(const struct result *a, const struct result *b)
{
	json_t *x = json_copy(json_object_get(a->doc, "config"));
	json_t *y = json_copy(json_object_get(b->doc, "config"));
	bool same;

	json_object_del(x, "append");
	json_object_del(y, "append");
	same = json_equal(x, y);
	json_decref(x);
	json_decref(y);
	return same;
}

const struct result *result_partner(const struct result *all, unsigned int n,
				    const struct result *ref)
{
	const json_t *host = json_object_get(ref->doc, "host");

	for (unsigned int i = 0; i < n && result_nokaslr(ref); i++) {
		const json_t *other = json_object_get(all[i].doc, "host");

		if (!all[i].reference && !result_nokaslr(&all[i]) &&
		    same_text(host, other, "kvm_mode") && same_text(host, other, "kernel") &&
		    same_config(&all[i], ref))
			return &all[i];
	}
	return NULL;
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
		else if (!strcmp(word, "brief"))
			r->brief = true;
		else {
			fprintf(stderr, "labsum: '%s': tdp, shadow, reference or brief\n", word);
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
