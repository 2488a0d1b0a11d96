/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_dir.c: where control sockets are when nobody names a path: a folder of the user's own, one
 * socket a command, named by its process.
 *
 * Whoever may write to that folder could put a socket of his own there and be taken for a fleet. So
 * it is used only when it is a real folder (no link), ours, and closed to everybody else; under /tmp,
 * anybody might have made it before us.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/control.h"

#define SUFFIX ".sock"

int control_dir_name(char *buf, size_t n, const char *xdg, uid_t uid)
{
	int len;

	/* The variable counts only when it is absolute: so says its specification. */
	if (xdg && *xdg == '/')
		len = snprintf(buf, n, "%s/overbook", xdg);
	else if (!uid)
		len = snprintf(buf, n, "/run/overbook");
	else
		len = snprintf(buf, n, "/tmp/overbook-%lu", (unsigned long)uid);
	return len >= 0 && (size_t)len < n ? 0 : -ENAMETOOLONG;
}

static int dir_name(char *buf, size_t n, struct ob_err *e)
{
	int r = control_dir_name(buf, n, getenv("XDG_RUNTIME_DIR"), geteuid());

	return r ? ob_fail(e, -r, "control socket: XDG_RUNTIME_DIR is too long a path") : 0;
}

/* Is the folder ours alone? 0, -ENOENT when it is not there, -errno with a line. */
static int check_dir(const char *dir, struct ob_err *e)
{
	struct stat st;
	int fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;

	if (fd < 0 || fstat(fd, &st)) {
		r = errno;
		if (fd >= 0)
			close(fd);
		return ob_fail(e, r, "folder of control sockets %s: %s", dir,
			       r == ENOTDIR || r == ELOOP ? "it is no folder" : strerror(r));
	}
	close(fd);
	if (st.st_uid != geteuid())
		r = ob_fail(e, EPERM, "folder of control sockets %s: it belongs to somebody else",
			    dir);
	else if (st.st_mode & 077)
		r = ob_fail(e, EPERM,
			    "folder of control sockets %s: it is open to others; chmod 700 it",
			    dir);
	return r;
}

int control_default_path(char *buf, size_t n, struct ob_err *e)
{
	char dir[CONTROL_PATH_MAX];
	int r = dir_name(dir, sizeof(dir), e);

	if (r)
		return r;
	if (mkdir(dir, 0700) && errno != EEXIST)
		return ob_fail(e, errno, "folder of control sockets %s: %s", dir, strerror(errno));
	r = check_dir(dir, e);
	if (r)
		return r;
	/* Those of killed fleets would stay for ever: no two processes have the same number. */
	qmp_server_sweep(dir);
	if ((size_t)snprintf(buf, n, "%s/%d%s", dir, (int)getpid(), SUFFIX) >= n)
		return ob_fail(e, ENAMETOOLONG, "control socket: the path is too long");
	return 0;
}

static bool is_socket_name(const char *name)
{
	size_t len = strlen(name), tail = sizeof(SUFFIX) - 1;

	return len > tail && !strcmp(name + len - tail, SUFFIX);
}

int control_find(char *buf, size_t n, struct ob_err *e)
{
	char dir[CONTROL_PATH_MAX], all[200] = "";
	struct dirent *d;
	unsigned int live = 0;
	DIR *list;
	int r = dir_name(dir, sizeof(dir), e);

	if (!r)
		r = check_dir(dir, e);
	if (r && r != -ENOENT)
		return r;
	list = r ? NULL : opendir(dir);
	while (list && (d = readdir(list))) {
		char path[sizeof(dir) + sizeof(d->d_name) + 2];
		size_t used = strlen(all), room = sizeof(all) - used;

		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		if (!is_socket_name(d->d_name) || qmp_server_alive(path) != 1 || strlen(path) >= n)
			continue;
		live++;
		strcpy(buf, path);
		/* As many whole ones as the line has room for. */
		if (strlen(path) + 2 < room)
			snprintf(all + used, room, "%s%.*s", used ? ", " : "", (int)room - 3, path);
	}
	if (list)
		closedir(list);
	if (!live)
		return ob_fail(
			e, ENOENT,
			"no fleet is running: no live control socket in %.200s (--control PATH "
			"names one elsewhere)",
			dir);
	if (live > 1)
		return ob_fail(e, EEXIST,
			       "%u fleets are running, name one by --control PATH: %.190s", live,
			       all);
	return 0;
}
