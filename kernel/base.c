/* SPDX-License-Identifier: Apache-2.0 */
/* base.c: how errors are said (base.h tells the three classes), and reading a file whole. */
#include "kernel/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static int read_all(int fd, char *buf, size_t want, size_t *got)
{
	for (*got = 0; *got < want;) {
		ssize_t n = read(fd, buf + *got, want - *got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break; /* it has become shorter since we asked */
		*got += (size_t)n;
	}
	return 0;
}

static int read_file(const char *path, uint64_t max, bool head, void **out, size_t *len,
		     struct ob_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	size_t want;
	char *buf;
	int r = 0;

	if (fd < 0)
		return ob_fail(e, errno, "%.250s: %s", path, strerror(errno));
	if (fstat(fd, &st))
		r = ob_fail(e, errno, "%.250s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		r = ob_fail(e, EINVAL, "%.250s: not a regular file", path);
	else if (!head && (uint64_t)st.st_size > max)
		r = ob_fail(e, EFBIG, "%.250s: over %llu MiB", path,
			    (unsigned long long)(max / OB_MIB));
	if (r) {
		close(fd);
		return r;
	}
	want = (size_t)OB_MIN((uint64_t)st.st_size, max);
	buf = malloc(want + 1);
	OB_ASSERT(buf);
	r = read_all(fd, buf, want, len);
	close(fd);
	if (r) {
		free(buf);
		return ob_fail(e, -r, "%.250s: %s", path, strerror(-r));
	}
	*out = buf;
	return 0;
}

int ob_read_file(const char *path, uint64_t max, void **out, size_t *len, struct ob_err *e)
{
	return read_file(path, max, false, out, len, e);
}

int ob_read_head(const char *path, uint64_t max, void **out, size_t *len, struct ob_err *e)
{
	return read_file(path, max, true, out, len, e);
}
