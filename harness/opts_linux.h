/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_linux.h: what is booted when it is not our microguest: a PC with an unmodified Linux kernel.
 *
 * Either the project's own image (--guest linux alone: kernel, initrd and agent of build/linux), or
 * what a person brings: --kernel with --initrd or a root disk. Such a guest has an agent only if
 * --workload says so; without one it is not asked how it is: it counts as warm from its start, or from
 * when its console says what --ready names, checks nothing, and is over when it powers off.
 */
#ifndef OVERBOOK_HARNESS_OPTS_LINUX_H
#define OVERBOOK_HARNESS_OPTS_LINUX_H

#include <stddef.h>

#include "kernel/base.h"
#include "kernel/boot.h"

struct fleet_config;
struct opts_given;

#define LINUX_MAX_DISKS	    4 /* besides the image that workloads read */
#define LINUX_MAX_VCPUS	    64
#define LINUX_MAX_BOOT	    86400
#define LINUX_MAX_READY	    64 /* bytes */
#define LINUX_DEFAULT_MEM   (128 * OB_MIB)
#define LINUX_BOOT_TIMEOUT  60	 /* s, until the guest has booted */
#define LINUX_BOOT_SOFTWARE 3600 /* the same on a KVM without hardware below it */
/* s, that an agent which has spoken may be silent: it reports several times a second, but later on a host
 * that has no CPU for it. From so long on it is remarked on at the end, when it cannot be waited for. */
#define LINUX_HANG	    30
#define LINUX_HANG_SOFTWARE 600
#define LINUX_SILENT(hang)  ((hang) / 3 * 2)
#define LINUX_VERSION	    160
#define LINUX_GUEST_IN_PATH "{}"    /* in --disk: the guest's number */
#define LINUX_FOLDER	    "linux" /* of the project's image, next to overbook */

struct linux_disk {
	const char *path; /* as given: :rw or :ro may follow its first @len bytes */
	int len;
	bool rw;
};

/* All zero: a microguest. */
struct linux_opts {
	bool on;
	bool agent;		   /* our agent runs in it */
	const char *initrd;	   /* NULL: none */
	const char *append;	   /* NULL: nothing */
	unsigned int vcpus;	   /* 0: one */
	unsigned int boot_timeout; /* s */
	unsigned int hang;	   /* s, an agent that was silent for so long: the guest hangs */
	const char *ready;	   /* said on its console once it has booted; NULL: not known */
	struct linux_disk disk[LINUX_MAX_DISKS];
	unsigned int ndisks;
	bool input; /* what is typed on our terminal goes to the (one) guest's console */
	char version[LINUX_VERSION]; /* as the kernel says; "": it does not */
	char initrd_buf[1024];	     /* what initrd points to when it is the default */
};

/* --- understanding words (opts.c calls these). 0, or -errno with a line in @e. ------------------ */

int opts_take_guest(struct opts_given *given, const char *arg, struct ob_err *e);
int opts_take_disk(struct fleet_config *c, const char *arg, struct ob_err *e);
int opts_take_append(struct fleet_config *c, const char *arg, struct ob_err *e);
int opts_take_ready(struct fleet_config *c, const char *arg, struct ob_err *e);

/*
 * Is it Linux that is to be booted? By --guest, else by --initrd, else by what the file of --kernel
 * is. Then fill in what depends on it: default files next to @self_exe, memory, time. @software: this
 * host's KVM has no hardware below it.
 */
int opts_linux_settle(struct fleet_config *c, const struct opts_given *given, const char *verb,
		      const char *self_exe, bool software, struct ob_err *e);
/* Kernel, initrd, command lines and disks, as they are. */
int opts_check_linux(struct fleet_config *c, struct ob_err *e);
/*
 * Lock the disk image @fd, for as long as that is open, against others of us that would write it (@rw: or
 * read it). A file system that knows no locks is good enough to read from. 0 or -errno with a line, which
 * begins with @what and @path.
 */
int linux_lock_disk(int fd, bool rw, const char *what, const char *path, struct ob_err *e);

/* --- pure ------------------------------------------------------------------------------------- */

/* Is this file a Linux kernel: a bzImage, or an ELF with a note of Linux? It may still be a bad one. */
bool linux_is_kernel(const void *file, size_t len);
/* "6.1.0-44-cloud-amd64 (...) #1 SMP ...", as far as it fits; "" when the file does not say. */
void linux_kernel_version(const void *file, size_t len, char *buf, size_t n);
/* The file of disk @i of guest @guest. Its length without its end, as snprintf says it. */
int linux_disk_path(const struct fleet_config *c, unsigned int i, unsigned int guest, char *buf,
		    size_t n);
/* The whole command line of a guest that runs @workload (with an agent). As snprintf. */
int linux_cmdline(const struct fleet_config *c, unsigned int guest, const char *workload, char *buf,
		  size_t n);
/* Can the agent do this workload under Linux? @name may have numbers behind it. */
bool linux_has_workload(const char *name);

#endif
