/* SPDX-License-Identifier: Apache-2.0 */
/* ept_print.c: what `overbook ept verify` and `overbook ept walk` show. */
#include "harness/ept_print.h"

/* --- verify ------------------------------------------------------------------------------ */

unsigned long long ept_differences(const json_t *list)
{
	unsigned long long sum = 0;
	const json_t *vm;
	size_t i;

	json_array_foreach (list, i, vm)
		sum += (unsigned long long)json_integer_value(json_object_get(vm, "differences"));
	return sum;
}

void ept_print_verify(FILE *out, const json_t *list)
{
	static const struct ept_column col[] = {
		{"vm", "vm", NULL, 4, false},
		{"pages", "pages", NULL, 12, true},
		{"lagged", "lagged", NULL, 12, true},
		{"differences", "differences", NULL, 14, true},
	};
	char a[EPT_TEXT], b[EPT_TEXT], c[EPT_TEXT], d[EPT_TEXT], f[EPT_TEXT];
	unsigned long long wrong = ept_differences(list);
	const json_t *vm, *first;
	size_t i, k;

	ept_text_table(out, list, col, OB_ARRAY_SIZE(col));
	json_array_foreach (list, i, vm) {
		json_array_foreach (json_object_get(vm, "first"), k, first) {
			fprintf(out, "guest %s: page %s (gfn %s): the map says %s, the kernel %s\n",
				ept_text_value(a, json_object_get(vm, "vm")),
				ept_text_value(b, json_object_get(first, "page")),
				ept_text_value(c, json_object_get(first, "gfn")),
				ept_text_value(d, json_object_get(first, "map")),
				ept_text_value(f, json_object_get(first, "kernel")));
			if (json_object_get(first, "why"))
				fprintf(out, "  that is: %s\n",
					ept_text_value(a, json_object_get(first, "why")));
		}
	}
	if (wrong)
		fprintf(out, "pages that are not what the map says: %llu\n", wrong);
	else
		fputs("every page is what the map says\n", out);
}

/* --- walk -------------------------------------------------------------------------------- */

static void print_page(FILE *out, const json_t *page)
{
	char buf[EPT_TEXT];

	fprintf(out, "page       %s%s", ept_text_value(buf, json_object_get(page, "state")),
		json_is_true(json_object_get(page, "staged")) ? ", in staging" : "");
	fprintf(out, ", frame %s", ept_text_value(buf, json_object_get(page, "frame")));
	fprintf(out, ", hva %s", ept_text_value(buf, json_object_get(page, "hva")));
	fprintf(out, ", pfn %s\n", ept_text_value(buf, json_object_get(page, "pfn")));
}

void ept_print_walk(FILE *out, const json_t *walk)
{
	char a[EPT_TEXT], b[EPT_TEXT], c[EPT_TEXT], d[EPT_TEXT];
	const json_t *level;
	size_t i;

	fprintf(out, "guest %s, gva %s, paging %s\n\n",
		ept_text_value(a, json_object_get(walk, "vm")),
		ept_text_value(b, json_object_get(walk, "gva")),
		ept_text_value(c, json_object_get(walk, "mode")));
	fprintf(out, "%-8s%-22s%-22s%s\n", "level", "entry at", "entry", "flags");
	json_array_foreach (json_object_get(walk, "levels"), i, level)
		fprintf(out, "%-8.8s%-22.21s%-22.21s%.26s\n",
			ept_text_value(a, json_object_get(level, "name")),
			ept_text_value(b, json_object_get(level, "at")),
			ept_text_value(c, json_object_get(level, "entry")),
			ept_text_value(d, json_object_get(level, "flags")));
	fputc('\n', out);
	if (json_is_true(json_object_get(walk, "ok"))) {
		fprintf(out, "gpa        %s, in a page of %s bytes\n",
			ept_text_value(a, json_object_get(walk, "gpa")),
			ept_text_value(b, json_object_get(walk, "page_size")));
		fprintf(out, "allowed    writable %s, user %s, no-execute %s\n",
			ept_text_value(a, json_object_get(walk, "writable")),
			ept_text_value(b, json_object_get(walk, "user")),
			ept_text_value(c, json_object_get(walk, "nx")));
		print_page(out, json_object_get(walk, "page"));
	} else {
		fprintf(out, "stopped    %s: %s\n",
			ept_text_value(a, json_object_get(walk, "stop_level")),
			ept_text_value(b, json_object_get(walk, "stop")));
	}
	fprintf(out, "references native %s, nested paging %s, shadow paging %s\n",
		ept_text_value(a, ept_text_member(walk, "references", "native")),
		ept_text_value(b, ept_text_member(walk, "references", "nested")),
		ept_text_value(c, ept_text_member(walk, "references", "shadow")));
}
