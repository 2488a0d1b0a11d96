/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_check.c: what a command line asks for, held against the files and the host, before anything
 * is started. Each check reads what it needs and leaves nothing open and nothing behind; each
 * refusal is one line that says what, where, and what to do about it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/opts.h"
#include "workloads/image.h"

/* Open a regular file to read, with its size. The descriptor or -errno with a line. */
static int open_regular(const char *what, const char *path, uint64_t *size, struct ob_err *e)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return ob_fail(e, errno, "%s %.200s: %s%s", what, path, strerror(errno),
			       errno == ENOENT ? "; build it with make, or name another" : "");
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return ob_fail(e, EINVAL, "%s %.200s: not a regular file", what, path);
	}
	*size = (uint64_t)st.st_size;
	return fd;
}

int opts_check_kernel(const char *path, struct ob_err *e)
{
	struct ob_err why = {""};
	struct boot_image img;
	uint64_t size;
	size_t len;
	void *file;
	int ret, fd = open_regular("guest", path, &size, e);

	if (fd < 0)
		return fd;
	if (size == 0) {
		close(fd);
		return ob_fail(e, ENOEXEC, "guest %.200s: the file is empty", path);
	}
	close(fd);
	ret = ob_read_file(path, ELF_MAX_BYTES, &file, &len, &why);
	if (ret)
		return ob_fail(e, -ret, "guest %.350s", why.msg);
	/* As it will be when it is booted; and a file that is none of a kernel is told what it seems to be. */
	ret = boot_parse(file, len, &img, &why);
	free(file);
	return ret ? ob_fail(e, -ret, "guest %.150s: %.220s", path, why.msg) : 0;
}

int opts_check_image(const char *path, struct ob_err *e)
{
	struct image_super s = {0};
	uint64_t size;
	ssize_t n;
	int r, fd = open_regular("image", path, &size, e);

	if (fd < 0)
		return fd;
	r = linux_lock_disk(fd, false, "image", path, e); /* as the cell does (cell_open_disk) */
	if (r) {
		close(fd);
		return r;
	}
	n = pread(fd, &s, sizeof(s), 0);
	close(fd);
	if (n < 0)
		return ob_fail(e, EIO, "image %.200s: cannot read it", path);
	if ((size_t)n < sizeof(s) || s.magic != IMAGE_MAGIC)
		return ob_fail(e, EINVAL, "image %.200s: not an image that mkimage made", path);
	if (s.version != IMAGE_VERSION)
		return ob_fail(e, EINVAL,
			       "image %.200s: version %llu, this program reads %d; build it anew",
			       path, (unsigned long long)s.version, IMAGE_VERSION);
	/* Compared in pages: total_pages is from the file and may be anything. */
	if (size / OB_PAGE_SIZE < s.total_pages)
		return ob_fail(
			e, EINVAL,
			"image %.200s: too short: it has %llu bytes and says %llu pages of 4096; "
			"build it anew",
			path, (unsigned long long)size, (unsigned long long)s.total_pages);
	if (s.data_pages == 0 || s.data_page > s.total_pages ||
	    s.data_pages > s.total_pages - s.data_page || s.files_page >= s.data_page ||
	    s.sums_page >= s.data_page)
		return ob_fail(e, EINVAL,
			       "image %.200s: its super block contradicts itself; build it anew",
			       path);
	return 0;
}

int opts_check_kvm(const char *path, struct ob_err *e)
{
	int version, fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		char advice[KVM_ADVICE_MAX];
		int err = errno;

		if (err == ENOENT || err == ENODEV || err == ENXIO)
			return ob_fail(
				e, err,
				"no %s: load the kvm module (modprobe kvm_intel or kvm_amd) and "
				"have "
				"virtualization on in the firmware; overbook doctor says more",
				path);
		if (err == EACCES || err == EPERM)
			return ob_fail(e, err, "no permission for %s: %s, or run as root", path,
				       kvm_access_advice(path, advice, sizeof(advice)));
		return ob_fail(e, err, "cannot open %s: %s", path, strerror(err));
	}
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	close(fd);
	if (version != KVM_API_VERSION)
		return ob_fail(e, ENOTSUP,
			       "%s is not a KVM that this program knows (API version %d, needs %d)",
			       path, version, KVM_API_VERSION);
	return 0;
}

int opts_check_ksm(const char *dir, struct ob_err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/run", dir);
	if (access(path, F_OK) != 0)
		return ob_fail(
			e, ENOENT,
			"--sharing kernel: this host has no %s (CONFIG_KSM); leave kernel out",
			dir);
	if (access(path, W_OK) != 0)
		return ob_fail(e, EACCES,
			       "--sharing kernel: driving Linux KSM needs root (%s); use sudo, or "
			       "leave kernel out",
			       path);
	return 0;
}

/* The runs of a compare come one after another: one fleet at a time has to fit. */
int opts_check_memory(const struct fleet_config *c, const struct opts_host *h, struct ob_err *e)
{
	uint64_t have = OB_MIN(h->mem_available, OB_MIN(h->mem_total, h->mem_limit)), want;
	char fleet[120], size[24], need[24], total[24], avail[24];

	if (__builtin_mul_overflow((uint64_t)c->guests, c->mem_bytes, &want))
		want = UINT64_MAX;
	if (want <= have)
		return 0;
	snprintf(fleet, sizeof(fleet), "%u guest%s of %s %s %s", c->guests,
		 c->guests == 1 ? "" : "s", table_bytes(size, (int64_t)c->mem_bytes),
		 c->guests == 1 ? "is" : "are",
		 table_bytes(need, (int64_t)OB_MIN(want, (uint64_t)INT64_MAX)));
	if (want > h->mem_limit && h->mem_limit < h->mem_total)
		return ob_fail(e, ENOMEM,
			       "%s, our cgroup may use %s; use fewer (--guests) or smaller (--mem) "
			       "ones",
			       fleet, table_bytes(total, (int64_t)h->mem_limit));
	return ob_fail(e, ENOMEM,
		       "%s, this host has %s, of which %s are available; use fewer (--guests) or "
		       "smaller (--mem) ones",
		       fleet, table_bytes(total, (int64_t)h->mem_total),
		       table_bytes(avail, (int64_t)h->mem_available));
}

int opts_check_output(const char *path, struct ob_err *e)
{
	char dir[PATH_MAX];
	struct stat st;

	if (strcmp(path, "-") == 0)
		return 0;
	if (strlen(path) >= sizeof(dir) - 64)
		return ob_fail(e, ENAMETOOLONG, "--json: the file name is too long");
	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return ob_fail(e, EISDIR, "--json %.200s: is a folder; name a file", path);
		if (access(path, W_OK) != 0)
			return ob_fail(e, errno, "--json %.200s: cannot write it: %s", path,
				       strerror(errno));
		if (!S_ISREG(st.st_mode))
			return 0; /* a device or a pipe is written in place */
	}
	strcpy(dir, path);
	if (access(dirname(dir), W_OK | X_OK) != 0)
		return ob_fail(e, errno, "--json %.200s: cannot write into its folder: %s", path,
			       strerror(errno));
	return 0;
}

int opts_check_out_dir(const char *path, struct ob_err *e)
{
	char dir[PATH_MAX], file[PATH_MAX], *up = dir;
	struct stat st;

	if (strlen(path) >= sizeof(dir) - 64)
		return ob_fail(e, ENAMETOOLONG, "--out: the folder name is too long");
	/* What was measured once is not written over. */
	snprintf(file, sizeof(file), "%s/result.json", path);
	if (lstat(file, &st) == 0)
		return ob_fail(e, EEXIST, "--out %.200s: holds a result already, name another",
			       path);
	strcpy(dir, path);
	while (stat(up, &st) != 0) {
		if (errno != ENOENT || strcmp(up, ".") == 0 || strcmp(up, "/") == 0)
			return ob_fail(e, errno, "--out %.200s: %s", path, strerror(errno));
		up = dirname(up);
	}
	if (!S_ISDIR(st.st_mode))
		return ob_fail(e, ENOTDIR, "--out %.200s: %.100s is not a folder", path, up);
	if (access(up, W_OK | X_OK) != 0)
		return ob_fail(e, errno, "--out %.200s: cannot write into %.100s: %s", path, up,
			       strerror(errno));
	return 0;
}

int opts_default_paths(struct fleet_config *c, const char *self_exe, struct ob_err *e)
{
	char buf[PATH_MAX], *dir;

	if (strlen(self_exe) >= sizeof(buf))
		return ob_fail(e, ENAMETOOLONG,
			       "the path of overbook is too long; name --kernel and --image");
	strcpy(buf, self_exe);
	dir = dirname(buf);
	if (strlen(dir) + sizeof("/microguest.elf") > sizeof(c->kernel_buf))
		return ob_fail(e, ENAMETOOLONG,
			       "the path of overbook is too long; name --kernel and --image");
	if (!c->kernel_path) {
		snprintf(c->kernel_buf, sizeof(c->kernel_buf), "%.1000s/microguest.elf", dir);
		c->kernel_path = c->kernel_buf;
	}
	if (!c->image_path && (!c->lx.on || c->lx.agent)) {
		snprintf(c->image_buf, sizeof(c->image_buf), "%.1000s/guest.img", dir);
		c->image_path = c->image_buf;
	}
	return 0;
}

int opts_host_read(struct opts_host *h, struct ob_err *e)
{
	int ret;

	*h = (struct opts_host){.kvm_path = "/dev/kvm",
				.ksm_dir = "/sys/kernel/mm/ksm",
				.thp_dir = "/sys/kernel/mm/transparent_hugepage"};
	ret = hostmem_meminfo("", "MemTotal", &h->mem_total);
	if (ret)
		return ob_fail(e, -ret,
			       "cannot read MemTotal from /proc/meminfo: is /proc mounted?");
	if (hostmem_meminfo("", "MemAvailable", &h->mem_available))
		h->mem_available = h->mem_total; /* not told: then that is no reason to refuse */
	h->mem_limit = hostmem_cgroup_limit("");
	return 0;
}

/* Linux KSM is asked for: may it be? Left out when it only came with the default. */
static int check_sharing(struct fleet_config *c, const struct opts_given *given,
			 const struct opts_host *h, char *note, size_t note_len, struct ob_err *e)
{
	const struct ksm_engine_ops *kernel = ksm_engine_find("kernel");
	bool several = opts_domains(c) > 1;

	for (unsigned int i = 0; i < c->nsharing; i++) {
		struct ob_err why;
		int ret;

		if (c->sharing[i] != kernel)
			continue;
		ret = opts_check_ksm(h->ksm_dir, &why);
		if (!ret && !several)
			return 0;
		if (ret && given->sharing) {
			*e = why;
			return ret;
		}
		/* With several domains opts_parse has refused it when it was asked for. */
		snprintf(note, note_len, "without sharing kernel: %s",
			 several	  ? OPTS_KSM_NO_DOMAINS
			 : ret == -EACCES ? "driving Linux KSM needs root"
					  : "this host has no Linux KSM");
		memmove(c->sharing + i, c->sharing + i + 1,
			(c->nsharing - i - 1) * sizeof(c->sharing[0]));
		c->nsharing--;
		return 0;
	}
	return 0;
}

/* Paths go into JSON documents, to the cells and into the result, and those are UTF-8. */
static int check_utf8(const char *what, const char *path, struct ob_err *e)
{
	json_t *s = path ? json_string(path) : NULL;
	bool ok = !path || s;

	json_decref(s);
	return ok ? 0 : ob_fail(e, EILSEQ, "%s: not valid UTF-8; rename it", what);
}

int opts_check(struct fleet_config *c, const struct opts_given *given, const struct opts_host *h,
	       char *note, size_t note_len, struct ob_err *e)
{
	int ret;

	note[0] = '\0';
	ret = check_utf8("guest", c->kernel_path, e);
	if (!ret)
		ret = check_utf8("image", c->image_path, e);
	if (!ret)
		ret = check_utf8("output folder", c->out_dir, e);
	if (!ret)
		ret = check_utf8("initrd", c->lx.initrd, e);
	if (!ret)
		ret = check_utf8("--append", c->lx.append, e);
	if (!ret)
		ret = check_utf8("--ready", c->lx.ready, e);
	for (unsigned int i = 0; i < c->lx.ndisks && !ret; i++)
		ret = check_utf8("--disk", c->lx.disk[i].path, e);
	if (!ret)
		ret = c->lx.on ? opts_check_linux(c, e) : opts_check_kernel(c->kernel_path, e);
	if (!ret && c->image_path)
		ret = opts_check_image(c->image_path, e);
	if (!ret)
		ret = opts_check_memory(c, h, e);
	if (!ret && c->json_path)
		ret = opts_check_output(c->json_path, e);
	if (!ret && c->out_dir)
		ret = opts_check_out_dir(c->out_dir, e);
	if (!ret)
		ret = opts_check_pages(c, h->thp_dir, e);
	if (!ret)
		ret = opts_check_kvm(h->kvm_path, e);
	if (!ret)
		ret = opts_check_wset(c, e);
	if (!ret)
		ret = check_sharing(c, given, h, note, note_len, e);
	return ret;
}
