/* SPDX-License-Identifier: Apache-2.0 */
/*
 * find.c: which port is ours, and which disk holds the image. Devices get their names in the order in
 * which drivers find them, so both go by what they say of themselves.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

#define PORTS	   "/sys/class/virtio-ports"
#define LOOKS	   12000 /* for the port, 5 ms apart: a minute */
#define LOOK_NS	   (5 * MS)
#define DISKS	   26 /* /dev/vda to /dev/vdz */
#define MODE_OWNER 0600

const char platform_no_disk[] = "no /dev/vd* holds an image of mkimage";

ssize_t read_text(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t r;

	buf[0] = 0;
	if (fd < 0)
		return -1;
	while (n < len - 1 && (r = read(fd, buf + n, len - 1 - n)) > 0)
		n += (size_t)r;
	close(fd);
	buf[n] = 0;
	return (ssize_t)n;
}

/* The device file of our port into @path, if it is there already. */
static bool port_path(char *path, size_t len)
{
	char name[512], text[64];
	const struct dirent *e;
	bool found = false;
	DIR *d = opendir(PORTS);

	while (d && !found && (e = readdir(d))) {
		snprintf(name, sizeof(name), PORTS "/%s/name", e->d_name);
		if (e->d_name[0] == '.' || read_text(name, text, sizeof(text)) <= 0)
			continue;
		text[strcspn(text, "\n")] = 0;
		found = str_equal(text, AGENT_PORT_NAME);
		if (found)
			snprintf(path, len, "/dev/%.64s", e->d_name);
	}
	if (d)
		closedir(d);
	return found;
}

int find_port(struct agent *a)
{
	const struct timespec pause = {.tv_nsec = LOOK_NS};
	char path[PATH_LEN];

	if (a->port_path) {
		a->port.fd = open(a->port_path, O_WRONLY | O_CREAT | O_CLOEXEC, MODE_OWNER);
		return a->port.fd < 0 ? -1 : 0;
	}
	/* The driver hears of its ports after it was loaded. */
	for (unsigned int i = 0; i < LOOKS; i++) {
		if (port_path(path, sizeof(path))) {
			a->port.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			if (a->port.fd >= 0)
				return 0;
		}
		nanosleep(&pause, NULL);
	}
	return -1;
}

static bool open_disk(struct agent *a, const char *path)
{
	off_t end;

	a->disk_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (a->disk_fd < 0)
		return false;
	end = lseek(a->disk_fd, 0, SEEK_END);
	a->disk_pages = end > 0 ? (uint64_t)end / PAGE_SIZE : 0;
	return true;
}

int find_disk(struct agent *a)
{
	const char *path = a->disk_path ? a->disk_path : a->disk_word;
	char name[] = "/dev/vda";
	uint64_t magic;

	if (path[0])
		return open_disk(a, path) ? 0 : -1;
	if (a->words)
		return 0; /* told what to do by its caller: it looks for nothing */
	/* The workloads' image is behind all disks that the guest's owner has named, and one of those may be an
	 * image too. */
	for (unsigned int i = DISKS; i-- > 0;) {
		name[sizeof(name) - 2] = (char)('a' + i);
		if (!open_disk(a, name))
			continue;
		if (pread(a->disk_fd, &magic, sizeof(magic), 0) == sizeof(magic) &&
		    magic == IMAGE_MAGIC)
			return 0;
		close(a->disk_fd);
		a->disk_fd = -1;
		a->disk_pages = 0;
	}
	return 0;
}
