/* SPDX-License-Identifier: Apache-2.0 */
/* base.c: how errors are said. See base.h for the three classes. */
#include "kernel/base.h"

#include <stdio.h>
#include <stdlib.h>

void ob_assert_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "overbook: broken invariant: %s at %s:%d\n", what, file, line);
	abort();
}

int ob_fail(struct ob_err *e, int err, const char *fmt, ...)
{
	if (e) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
		va_end(ap);
	}
	return -err;
}

void ob_warn(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* One call, so that lines of several processes do not mix. */
	fprintf(stderr, "overbook: %s\n", line);
}
