/* SPDX-License-Identifier: Apache-2.0 */
/* host_pages.c: does this host give huge pages? The kernel's settings, as files of our own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/opts.h"

static void put(const char *dir, const char *name, const char *text)
{
	char path[200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

Test(pages_host, settings_of_the_kernel)
{
	static const struct {
		const char *all, *size; /* NULL: there is no such file */
		int ret;
	} cases[] = {
		{"always [madvise] never\n", NULL, 0},
		{"[always] madvise never\n", NULL, 0},
		{"always madvise [never]\n", NULL, -EOPNOTSUPP},
		{"always [madvise] never\n", "always [inherit] madvise never\n", 0},
		{"always madvise [never]\n", "always [inherit] madvise never\n", -EOPNOTSUPP},
		{"always madvise [never]\n", "always inherit [madvise] never\n", 0},
		{"[always] madvise never\n", "always inherit madvise [never]\n", -EOPNOTSUPP},
		{NULL, NULL, -ENOENT},
		{"nonsense", NULL, -ENOENT},
	};

	for (size_t i = 0; i < OB_ARRAY_SIZE(cases); i++) {
		struct fleet_config c = {.pages = EPT_PAGES_2M};
		char dir[] = "/tmp/ob-pages-XXXXXX", sub[64], cmd[100];
		struct ob_err e = {""};

		cr_assert(mkdtemp(dir));
		snprintf(sub, sizeof(sub), "%s/hugepages-2048kB", dir);
		cr_assert(!mkdir(sub, 0700));
		if (cases[i].all)
			put(dir, "enabled", cases[i].all);
		if (cases[i].size)
			put(sub, "enabled", cases[i].size);
		cr_assert_eq(opts_check_pages(&c, dir, &e), cases[i].ret, "case %zu: %s", i, e.msg);
		cr_assert_eq(!e.msg[0], !cases[i].ret);
		cr_assert(!strchr(e.msg, '\n'));
		if (cases[i].ret == -EOPNOTSUPP)
			cr_assert(strstr(e.msg, "echo madvise"), "what to do: %s", e.msg);
		if (cases[i].ret)
			cr_assert(strstr(e.msg, "--pages 2m"), "%s", e.msg);
		c.pages = EPT_PAGES_4K;
		cr_assert_eq(opts_check_pages(&c, dir, &e), 0, "small pages need nothing");
		snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
		cr_assert_eq(system(cmd), 0);
	}
}
