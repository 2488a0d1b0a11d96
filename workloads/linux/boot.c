/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.c: being a guest's first process: mounts, modules, the end.
 *
 * Which modules are needed depends on the machine, so the initramfs has more than any guest loads:
 * each line of /modules/list is BUS:ID and files in load order, and is taken when a device of that bus
 * has that id. Loading costs time, where ring 0 is emulated a lot of it, so nothing is loaded for
 * devices that are not there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

#define LIST_MAX 4096
#define MODULES	 "/modules/"

static void mount_one(const char *type, const char *at)
{
	mkdir(at, 0755);
	if (mount(type, at, type, 0, NULL) && errno != EBUSY)
		fprintf(stderr, "agent: cannot mount %s: %s\n", at, strerror(errno));
}

void boot_mount(void)
{
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	mount_one("devtmpfs", "/dev");
}

/* Is there a device on bus @bus whose @attr reads @id, or, without @attr, whose name starts so? */
static bool device_there(const char *bus, const char *attr, const char *id)
{
	char path[512], text[32];
	const struct dirent *e;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/sys/bus/%s/devices", bus);
	d = opendir(path);
	while (d && !found && (e = readdir(d))) {
		if (!attr) {
			found = str_prefix(e->d_name, id);
			continue;
		}
		snprintf(path, sizeof(path), "/sys/bus/%s/devices/%s/%s", bus, e->d_name, attr);
		if (read_text(path, text, sizeof(text)) > 0) {
			text[strcspn(text, "\n")] = 0;
			found = str_equal(text, id);
		}
	}
	if (d)
		closedir(d);
	return found;
}

static bool wanted(char *key)
{
	char *id = strchr(key, ':');

	if (!id)
		return false;
	*id++ = 0;
	if (str_equal(key, "acpi"))
		return device_there(key, NULL, id);
	return device_there(key, str_equal(key, "pci") ? "vendor" : "device", id);
}

static void load(const char *name)
{
	char path[PATH_LEN];
	int fd;

	snprintf(path, sizeof(path), MODULES "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		fprintf(stderr, "agent: cannot load %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void boot_modules(void)
{
	char list[LIST_MAX], *line, *lines, *word, *words;

	if (read_text(MODULES "list", list, sizeof(list)) < 0)
		return; /* a guest of somebody else's making, with its modules loaded */
	for (line = strtok_r(list, "\n", &lines); line; line = strtok_r(NULL, "\n", &lines)) {
		word = strtok_r(line, " ", &words);
		if (!word || !wanted(word))
			continue;
		while ((word = strtok_r(NULL, " ", &words)))
			load(word);
	}
}

void boot_tidy(void)
{
	char path[sizeof(MODULES) + NAME_MAX];
	const struct dirent *e;
	DIR *d = opendir(MODULES);

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), MODULES "%s", e->d_name);
		unlink(path); /* . and .. stay, as folders do */
	}
	if (d)
		closedir(d);
	unlink("/bin/busybox");
}

void boot_shell(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		int fd;

		setsid();
		fd = open("/dev/console", O_RDWR);
		for (int i = 0; i < 3 && fd >= 0; i++)
			dup2(fd, i);
		if (system("/bin/busybox --install -s /bin") == 0)
			execl("/bin/busybox", "sh", (char *)NULL);
		_exit(1);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

void boot_end(const struct agent *a, uint64_t code)
{
	fflush(stdout);
	if (a->init)
		reboot(RB_POWER_OFF);
	_exit((int)code);
}
