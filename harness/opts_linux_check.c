/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_linux_check.c: the files of a Linux guest and its memory, looked at before anything is
 * started: is the kernel one, does everything fit into the guest, is each disk a disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/opts.h"

/* A regular file that can be opened as asked. The descriptor or -errno with a line. */
static int open_file(const char *what, const char *path, int flags, struct stat *st,
		     struct ob_err *e)
{
	int err, fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		err = errno;
		if (err == EISDIR)
			return ob_fail(e, err, "%s %.250s: is a folder; name a file", what, path);
		return ob_fail(e, err, "%s %.250s: %s%s", what, path, strerror(err),
			       err == ENOENT ? "; name one that is there" : "");
	}
	err = fstat(fd, st) ? errno : 0;
	if (!err && S_ISDIR(st->st_mode))
		err = ob_fail(e, EISDIR, "%s %.250s: is a folder; name a file", what, path);
	else if (!err && !S_ISREG(st->st_mode))
		err = ob_fail(e, EINVAL, "%s %.250s: not a regular file", what, path);
	else if (!err && !st->st_size)
		err = ob_fail(e, EINVAL, "%s %.250s: the file is empty", what, path);
	else if (err)
		err = ob_fail(e, err, "%s %.250s: %s", what, path, strerror(err));
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

/* Of all guests: they differ in their numbers and workloads. */
static size_t longest_cmdline(const struct fleet_config *c)
{
	size_t most = 0;
	char buf[64];

	for (unsigned int i = 0; i < c->guests; i++) {
		int n = linux_cmdline(c, i, c->workload[i % c->nworkloads], buf, sizeof(buf));

		most = OB_MAX(most, (size_t)OB_MAX(n, 0));
	}
	return most;
}

static int check_kernel(struct fleet_config *c, uint64_t initrd_len, struct ob_err *e)
{
	struct ob_err why = {""};
	struct boot_image img;
	struct stat st;
	size_t len;
	void *file;
	int ret = open_file("kernel", c->kernel_path, O_RDONLY, &st, e);

	if (ret == -ENOENT && c->kernel_path == c->kernel_buf)
		return ob_fail(e, ENOENT,
			       "kernel %.200s: not there; build it with make linux, or name one "
			       "with --kernel",
			       c->kernel_path);
	if (ret < 0)
		return ret;
	close(ret);
	ret = ob_read_file(c->kernel_path, ELF_MAX_BYTES, &file, &len, &why);
	if (ret == -EFBIG)
		return ob_fail(e, EFBIG,
			       "kernel %.250s; is it a vmlinux with debugging data? strip it: "
			       "strip -g -o vmlinux.stripped FILE",
			       why.msg);
	if (ret)
		return ob_fail(e, -ret, "kernel %.350s", why.msg);
	ret = boot_parse(file, len, &img, &why);
	if (!ret && img.kind == BOOT_PVH && !img.elf.has_pvh)
		ret = ob_fail(&why, ENOEXEC,
			      "an ELF without a PVH entry; Linux has one with CONFIG_PVH");
	if (!ret)
		ret = boot_fit(&img, c->mem_bytes, initrd_len, longest_cmdline(c), &why);
	if (!ret)
		linux_kernel_version(file, len, c->lx.version, sizeof(c->lx.version));
	free(file);
	return ret ? ob_fail(e, -ret, "kernel %.150s: %.220s", c->kernel_path, why.msg) : 0;
}

int linux_lock_disk(int fd, bool rw, const char *what, const char *path, struct ob_err *e)
{
	if (!flock(fd, (rw ? LOCK_EX : LOCK_SH) | LOCK_NB))
		return 0;
	if (errno == EWOULDBLOCK)
		return ob_fail(e, EBUSY, "%s %.200s: another guest %s it", what, path,
			       rw ? "has" : "writes to");
	if (!rw)
		return 0;
	return ob_fail(e, errno, "%s %.200s: cannot be locked: %s", what, path, strerror(errno));
}

static int check_disk(const char *path, bool rw, struct stat *st, struct ob_err *e)
{
	int fd = open_file("--disk", path, rw ? O_RDWR : O_RDONLY, st, e);
	char head[FILE_DISK_HEAD];
	const char *kind;
	int ret = 0;
	ssize_t n;

	if (fd < 0)
		return fd;
	n = pread(fd, head, sizeof(head), 0);
	kind = n > 0 ? file_disk_kind(head, (size_t)n) : NULL;
	if (kind)
		ret = ob_fail(e, EINVAL,
			      "--disk %.200s: is %s; convert it: qemu-img convert -O raw "
			      "IMAGE RAW",
			      path, kind);
	else if (st->st_size % VIRTIO_BLK_SECTOR)
		ret = ob_fail(e, EINVAL,
			      "--disk %.200s: its %lld bytes are no multiple of %d: not a raw disk "
			      "image",
			      path, (long long)st->st_size, VIRTIO_BLK_SECTOR);
	else
		ret = linux_lock_disk(fd, rw, "--disk", path,
				      e); /* as the cell does (cell_open_disk) */
	close(fd);
	return ret;
}

/* Which file is it, and who writes it? */
struct seen {
	dev_t dev;
	ino_t ino;
	bool rw;
	const char *as; /* "", or how else it was named */
};

static int check_disks(const struct fleet_config *c, struct ob_err *e)
{
	struct seen *seen = calloc((size_t)c->guests * LINUX_MAX_DISKS + 1, sizeof(*seen));
	unsigned int n = 0;
	char path[PATH_MAX];
	struct stat st;
	int ret = 0;

	OB_ASSERT(seen);
	/* What the workloads read is a disk of all; what is wrong with it is said by opts_check_image. */
	if (c->image_path && !stat(c->image_path, &st))
		seen[n++] = (struct seen){st.st_dev, st.st_ino, false, ", once as --image"};
	for (unsigned int i = 0; i < c->lx.ndisks && !ret; i++) {
		const struct linux_disk *d = &c->lx.disk[i];
		bool each = memmem(d->path, (size_t)d->len, LINUX_GUEST_IN_PATH,
				   strlen(LINUX_GUEST_IN_PATH));

		for (unsigned int g = 0; g < (each ? c->guests : 1) && !ret; g++) {
			linux_disk_path(c, i, g, path, sizeof(path));
			ret = check_disk(path, d->rw, &st, e);
			for (unsigned int k = 0; k < n && !ret; k++)
				if (seen[k].dev == st.st_dev && seen[k].ino == st.st_ino &&
				    (seen[k].rw || d->rw))
					ret = ob_fail(
						e, EINVAL,
						"--disk %.250s: is there twice%s, and written",
						path, seen[k].as);
			seen[n++] = (struct seen){st.st_dev, st.st_ino, d->rw, ""};
		}
	}
	free(seen);
	return ret;
}

int opts_check_linux(struct fleet_config *c, struct ob_err *e)
{
	struct stat st = {0};
	int fd = 0, ret;

	if (c->lx.initrd) {
		fd = open_file("initrd", c->lx.initrd, O_RDONLY, &st, e);
		if (fd == -ENOENT && c->lx.initrd == c->lx.initrd_buf)
			return ob_fail(e, ENOENT,
				       "initrd %.250s: not there; build it with make linux",
				       c->lx.initrd);
		if (fd < 0)
			return fd;
		close(fd);
	}
	ret = check_kernel(c, (uint64_t)st.st_size, e);
	return ret ? ret : check_disks(c, e);
}
