/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result_file.c: documents on disk. A reader finds a whole document or none: it is written beside
 * its final name and renamed over it. What is not a regular file (a pipe, /dev/null) is written in
 * place, since renaming would replace the device by a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/result.h"

#define RESULT_FLAGS (JSON_INDENT(1) | JSON_REAL_PRECISION(12))

static int put(FILE *f, const char *text, size_t len)
{
	errno = 0;
	if (fwrite(text, 1, len, f) != len || fflush(f) != 0)
		return errno ? -errno : -EIO;
	return 0;
}

static int write_in_place(const char *text, size_t len, const char *path)
{
	FILE *f = fopen(path, "we");
	int ret;

	if (!f)
		return -errno;
	ret = put(f, text, len);
	if (fclose(f) != 0 && !ret)
		ret = -errno;
	return ret;
}

static int write_and_rename(const char *text, size_t len, const char *path)
{
	char tmp[PATH_MAX + 32];
	FILE *f;
	int fd, ret;

	snprintf(tmp, sizeof(tmp), "%s.%d.tmp", path, (int)getpid());
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return -errno;
	f = fdopen(fd, "w");
	if (!f) {
		ret = -errno;
		close(fd);
	} else {
		ret = put(f, text, len);
		if (fclose(f) != 0 && !ret)
			ret = -errno;
	}
	if (!ret && rename(tmp, path) != 0)
		ret = -errno;
	if (ret)
		unlink(tmp);
	return ret;
}

int result_write_text(const char *text, size_t len, const char *path, struct ob_err *e)
{
	char real[PATH_MAX];
	struct stat st;
	int ret;

	if (strcmp(path, "-") == 0) {
		ret = put(stdout, text, len);
	} else if (strlen(path) >= sizeof(real)) {
		ret = -ENAMETOOLONG;
	} else {
		/* Through a symbolic link to the file itself, so that the link stays. */
		if (!realpath(path, real))
			strcpy(real, path);
		if (stat(real, &st) == 0 && !S_ISREG(st.st_mode))
			ret = write_in_place(text, len, real);
		else
			ret = write_and_rename(text, len, real);
	}
	if (ret)
		return ob_fail(e, -ret, "cannot write %.200s: %s",
			       strcmp(path, "-") == 0 ? "standard output" : path, strerror(-ret));
	return 0;
}

int result_write(const json_t *doc, const char *path, struct ob_err *e)
{
	char *text = json_dumps(doc, RESULT_FLAGS);
	size_t len;
	int ret;

	if (!text)
		return ob_fail(e, EINVAL, "cannot write %.200s: not a document", path);
	len = strlen(text);
	text[len] = '\n'; /* over its NUL: the length goes with it */
	ret = result_write_text(text, len + 1, path, e);
	free(text);
	return ret;
}

int result_mkdirs(const char *path, struct ob_err *e)
{
	char buf[PATH_MAX];
	struct stat st;

	if (!*path || strlen(path) >= sizeof(buf))
		return ob_fail(e, ENAMETOOLONG, "cannot make folder '%.100s': bad name", path);
	strcpy(buf, path);
	for (char *p = buf + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(buf, 0777) != 0 && errno != EEXIST)
			return ob_fail(e, errno, "cannot make folder %.200s: %s", buf,
				       strerror(errno));
		if (c == '\0')
			break;
		*p = c;
	}
	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return ob_fail(e, ENOTDIR, "cannot make folder %.200s: something else is there",
			       path);
	return 0;
}
