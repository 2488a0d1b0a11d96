/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_linux.c: the options of Linux guests, and what follows from them. Which kind of guest it is,
 * only the kernel's file may tell; so that is settled when all words have been understood, and what
 * was not named is filled in then.
 */
#include "harness/opts_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/opts.h"

int opts_take_guest(struct opts_given *given, const char *arg, struct ob_err *e)
{
	given->linux_guest = strcmp(arg, "linux") == 0;
	given->microguest = strcmp(arg, "microguest") == 0;
	if (given->linux_guest || given->microguest)
		return 0;
	return ob_fail(e, EINVAL, "--guest '%.40s': unknown; there are microguest and linux", arg);
}

int opts_take_disk(struct fleet_config *c, const char *arg, struct ob_err *e)
{
	struct linux_opts *l = &c->lx;
	size_t n = strlen(arg);
	struct linux_disk *d;

	if (l->ndisks == LINUX_MAX_DISKS)
		return ob_fail(e, EINVAL, "--disk %.200s: a guest has at most %d disks", arg,
			       LINUX_MAX_DISKS);
	d = &l->disk[l->ndisks];
	*d = (struct linux_disk){.path = arg};
	if (n >= 3 && (!strcmp(arg + n - 3, ":rw") || !strcmp(arg + n - 3, ":ro"))) {
		d->rw = arg[n - 1] == 'w';
		n -= 3;
	}
	if (!n)
		return ob_fail(e, EINVAL, "--disk: the file name is empty");
	if (n >= PATH_MAX - 8)
		return ob_fail(e, ENAMETOOLONG, "--disk: the file name is too long");
	d->len = (int)n;
	l->ndisks++;
	return 0;
}

int opts_take_append(struct fleet_config *c, const char *arg, struct ob_err *e)
{
	for (const char *p = arg; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return ob_fail(e, EINVAL,
				       "--append: a control character (0x%02x) in the kernel's "
				       "command line",
				       (unsigned int)(unsigned char)*p);
	if (c->lx.append)
		return ob_fail(e, EINVAL,
			       "--append is there twice; give all words in one: --append \"%.100s "
			       "%.100s\"",
			       c->lx.append, arg);
	c->lx.append = arg;
	return 0;
}

int opts_take_ready(struct fleet_config *c, const char *arg, struct ob_err *e)
{
	size_t n = strlen(arg);

	if (!n)
		return ob_fail(e, EINVAL,
			       "--ready: the text is empty; give what the console says when the "
			       "guest has booted: --ready login:");
	if (n > LINUX_MAX_READY)
		return ob_fail(e, EINVAL, "--ready: the text has %zu bytes; at most %d", n,
			       LINUX_MAX_READY);
	for (const char *p = arg; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return ob_fail(e, EINVAL,
				       "--ready: a control character (0x%02x); give a part of one "
				       "line, as the console shows it",
				       (unsigned int)(unsigned char)*p);
	c->lx.ready = arg;
	return 0;
}

/* Is the file that was named for a kernel one of Linux? What cannot be read, or is too large, is said later;
 * a kernel's headers, and what they point to, are in front of its debugging data. */
static bool file_is_linux(const char *path)
{
	struct ob_err e;
	bool yes;
	void *file;
	size_t len;

	if (!path || ob_read_head(path, ELF_MAX_BYTES, &file, &len, &e))
		return false;
	yes = linux_is_kernel(file, len);
	free(file);
	return yes;
}

/* What only Linux guests have was asked for, and it is none. */
static int refuse_micro(const struct fleet_config *c, const struct opts_given *given,
			struct ob_err *e)
{
	const struct linux_opts *l = &c->lx;
	const char *what = l->initrd	     ? "--initrd"
			   : l->append	     ? "--append"
			   : l->ndisks	     ? "--disk"
			   : l->vcpus > 1    ? "--vcpus"
			   : l->boot_timeout ? "--boot-timeout"
			   : l->ready	     ? "--ready"
					     : NULL;

	if (given->microguest && file_is_linux(c->kernel_path))
		return ob_fail(e, EINVAL,
			       "guest %.200s: is a Linux kernel; leave --guest microguest out",
			       c->kernel_path);
	if (!what)
		return 0;
	if (l->vcpus > 1 && !l->initrd && !l->append && !l->ndisks)
		return ob_fail(e, EINVAL,
			       "--vcpus %u: the microguest has one vCPU; more are for Linux guests "
			       "(--guest linux, or --kernel with a Linux kernel)",
			       l->vcpus);
	return ob_fail(e, EINVAL,
		       "%s is for Linux guests: give --guest linux, or a Linux kernel with "
		       "--kernel",
		       what);
}

/* Files of the project's image are next to overbook, in a folder of their own. */
static int default_files(struct fleet_config *c, const char *self_exe, struct ob_err *e)
{
	char buf[PATH_MAX], *dir;

	if (strlen(self_exe) >= sizeof(buf) ||
	    strlen(self_exe) + sizeof("/linux/initrd.img") > sizeof(c->kernel_buf))
		return ob_fail(e, ENAMETOOLONG,
			       "the path of overbook is too long; name --kernel and --initrd");
	strcpy(buf, self_exe);
	dir = dirname(buf);
	if (!c->kernel_path) {
		snprintf(c->kernel_buf, sizeof(c->kernel_buf), "%.900s/" LINUX_FOLDER "/vmlinuz",
			 dir);
		c->kernel_path = c->kernel_buf;
		/* Its drivers are in the initrd that was made for it, unless another is named. */
		if (!c->lx.initrd) {
			snprintf(c->lx.initrd_buf, sizeof(c->lx.initrd_buf),
				 "%.900s/" LINUX_FOLDER "/initrd.img", dir);
			c->lx.initrd = c->lx.initrd_buf;
		}
	}
	return 0;
}

/* With nobody in it to ask there is nothing to work on, and nothing to wait for. */
static int settle_agentless(struct fleet_config *c, const struct opts_given *given,
			    const char *verb, struct ob_err *e)
{
	if (c->image_path)
		return ob_fail(e, EINVAL,
			       "--image is what workloads read, and this guest has none; name "
			       "disks with --disk, or a --workload if our agent is in it");
	strcpy(c->workload[0], "none");
	if (!given->seconds && strcmp(verb, "run") == 0)
		c->seconds = 0;
	return 0;
}

static int settle_agent(struct fleet_config *c, struct ob_err *e)
{
	if (c->lx.ready)
		return ob_fail(e, EINVAL,
			       "--ready is for guests without our agent, which says itself when "
			       "it is up; leave it out, or --workload if there is no agent");
	for (unsigned int i = 0; i < c->nworkloads; i++)
		if (!linux_has_workload(c->workload[i]))
			return ob_fail(e, EINVAL,
				       "--workload %.40s: is for the microguest only: it needs all "
				       "of a guest's memory",
				       c->workload[i]);
	return 0;
}

/* Who writes a file has it for himself. */
static int settle_disks(const struct fleet_config *c, struct ob_err *e)
{
	for (unsigned int i = 0; i < c->lx.ndisks; i++) {
		const struct linux_disk *d = &c->lx.disk[i];

		if (!d->rw)
			continue;
		if (c->guests > 1 && !memmem(d->path, (size_t)d->len, LINUX_GUEST_IN_PATH,
					     strlen(LINUX_GUEST_IN_PATH)))
			return ob_fail(e, EINVAL,
				       "--disk %.200s: %u guests cannot write to one file; give "
				       "each its own, with {} in the name for the guest's number",
				       d->path, c->guests);
		/* With --live the guests start once. */
		if (c->nsharing > 1 && !c->live)
			return ob_fail(e, EINVAL,
				       "--disk %.200s: runs that are compared must start alike, "
				       "and the first would change this disk; leave :rw out",
				       d->path);
	}
	return 0;
}

int opts_linux_settle(struct fleet_config *c, const struct opts_given *given, const char *verb,
		      const char *self_exe, bool software, struct ob_err *e)
{
	struct linux_opts *l = &c->lx;
	bool own = c->kernel_path || l->initrd;
	int ret;

	l->on = given->linux_guest ||
		(!given->microguest && (l->initrd || file_is_linux(c->kernel_path)));
	if (!l->on)
		return refuse_micro(c, given, e);
	l->agent = !own || given->workload;
	if (!given->mem)
		c->mem_bytes = LINUX_DEFAULT_MEM;
	l->vcpus = OB_MAX(l->vcpus, 1u);
	if (!l->boot_timeout)
		l->boot_timeout = software ? LINUX_BOOT_SOFTWARE : LINUX_BOOT_TIMEOUT;
	l->hang = software ? LINUX_HANG_SOFTWARE : LINUX_HANG;
	l->input = strcmp(verb, "run") == 0 && isatty(STDIN_FILENO) &&
		   tcgetpgrp(STDIN_FILENO) == getpgrp();
	ret = l->agent ? settle_agent(c, e) : settle_agentless(c, given, verb, e);
	if (!ret)
		ret = settle_disks(c, e);
	return ret ? ret : default_files(c, self_exe, e);
}
