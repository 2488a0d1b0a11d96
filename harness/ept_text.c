/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept_text.c: values of JSON documents as words for a terminal, and guests as a table, a line each. The
 * documents come from another process, which may be of another version: what is not there is "-", and
 * whatever is there fits into its column.
 */
#include <string.h>

#include "harness/ept_print.h"

const char *ept_text_value(char *buf, const json_t *v)
{
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_INTEGER:
		snprintf(buf, EPT_TEXT, "%lld", (long long)json_integer_value(v));
		break;
	case JSON_REAL:
		snprintf(buf, EPT_TEXT, "%.4g", json_real_value(v));
		break;
	case JSON_STRING:
		snprintf(buf, EPT_TEXT, "%s", json_string_value(v));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		snprintf(buf, EPT_TEXT, "%s", json_is_true(v) ? "yes" : "no");
		break;
	default:
		snprintf(buf, EPT_TEXT, "-");
	}
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	return buf;
}

const json_t *ept_text_member(const json_t *o, const char *a, const char *b)
{
	o = json_object_get(o, a);
	return b ? json_object_get(o, b) : o;
}

const char *ept_text_count(char *buf, const json_t *v, int width)
{
	static const char unit[] = " kMGTPE";
	long long n = json_integer_value(v);
	unsigned int u = 0;

	ept_text_value(buf, v);
	if (!json_is_integer(v) || (int)strlen(buf) < width)
		return buf;
	while (u < sizeof(unit) - 2 && (n >= 100000 || n <= -100000)) {
		n /= 1000;
		u++;
	}
	snprintf(buf, EPT_TEXT, "%lld%.1s", n, u ? &unit[u] : "");
	return buf;
}

const char *ept_text_latency(char *buf, const json_t *v)
{
	double ns = json_number_value(v);

	if (!json_is_number(v))
		return ept_text_value(buf, NULL);
	if (ns < 1e3)
		snprintf(buf, EPT_TEXT, "%.0f ns", ns);
	else if (ns < 1e6)
		snprintf(buf, EPT_TEXT, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(buf, EPT_TEXT, "%.1f ms", ns / 1e6);
	else
		snprintf(buf, EPT_TEXT, "%.1f s", ns / 1e9);
	return buf;
}

/* New reference; NULL: there is nothing to add up. */
static json_t *column_sum(const json_t *list, const struct ept_column *col)
{
	json_t *sum = NULL;
	json_int_t n = 0;
	const json_t *vm;
	size_t i;

	json_array_foreach (list, i, vm) {
		const json_t *v = ept_text_member(vm, col->a, col->b);

		if (!col->sum || !json_is_integer(v))
			continue;
		if (__builtin_add_overflow(n, json_integer_value(v), &n))
			n = INT64_MAX;
		json_decref(sum);
		sum = json_integer(n);
	}
	return sum;
}

void ept_text_table(FILE *out, const json_t *list, const struct ept_column *col, unsigned int n)
{
	const json_t *vm;
	char buf[EPT_TEXT];
	size_t i;

	for (unsigned int k = 0; k < n; k++)
		fprintf(out, "%*s", col[k].width, col[k].head);
	fputc('\n', out);
	json_array_foreach (list, i, vm) {
		for (unsigned int k = 0; k < n; k++)
			fprintf(out, "%*s", col[k].width,
				ept_text_count(buf, ept_text_member(vm, col[k].a, col[k].b),
					       col[k].width));
		fputc('\n', out);
	}
	if (json_array_size(list) < 2)
		return;
	fprintf(out, "%*s", col[0].width, "all");
	for (unsigned int k = 1; k < n; k++) {
		json_t *sum = column_sum(list, &col[k]);

		fprintf(out, "%*s", col[k].width, ept_text_count(buf, sum, col[k].width));
		json_decref(sum);
	}
	fputc('\n', out);
}
