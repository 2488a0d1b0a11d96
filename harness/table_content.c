/* SPDX-License-Identifier: Apache-2.0 */
/* table_content.c: the line below the table that says what most of the shared memory is. */
#include <string.h>

#include "harness/result.h"

#define SHOWN	   3
#define NAME_CHARS 28

void table_content(FILE *out, const struct run_result *r)
{
	unsigned int shown = 0;
	char buf[24];

	if (r->status == RUN_FAILED)
		return;
	for (unsigned int i = 0; i < r->ncontent && shown < SHOWN; i++) {
		const struct run_content *c = &r->content[i];
		const char *base = strrchr(c->what, '/');

		/* Only what has a name, and a place. */
		if (!*c->image || !c->bytes_saved)
			continue;
		fprintf(out, "%s", shown++ ? ", " : "most shared: ");
		base = base && base[1] ? base + 1 : c->what;
		/* File names are the image's. */
		for (unsigned int k = 0; base[k] && k < NAME_CHARS; k++)
			fputc((unsigned char)base[k] < 0x20 || (unsigned char)base[k] >= 0x7f
				      ? '?'
				      : base[k],
			      out);
		fprintf(out, " %s", table_bytes(buf, (int64_t)c->bytes_saved));
	}
	if (shown)
		fputc('\n', out);
}
