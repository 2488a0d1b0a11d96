/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.h: the workload agent, a program in a Linux guest: the machine below the workloads
 * (workloads/common/guest.h) is a process here. It is the guest's first process (PID 1, then it mounts
 * what it needs, loads modules and powers off at its end), or an ordinary one that root starts.
 *
 * Each online CPU has a worker: a thread with a struct guest of its own and an equal part of the
 * memory. The main thread sends the reports, the sum of what the workers say; but for the heartbeat, which
 * advances when all of theirs have.
 */
#ifndef OVERBOOK_LINUX_AGENT_H
#define OVERBOOK_LINUX_AGENT_H

#include <pthread.h>
#include <sys/types.h>

#include "workloads/common/guest.h"
#include "workloads/linux/beat.h"
#include "workloads/linux/kind.h"

#define PATH_LEN 128

/* What the host is told through: frames, whole ones, from any thread. */
struct port {
	int fd; /* -1: nobody listens */
	pthread_mutex_t lock;
};

struct worker {
	struct agent *agent;
	struct guest *guest;
	pthread_t thread;
};

/* Where the look at all pages is (kinds.c). */
struct kinds {
	int fd; /* /proc/kpageflags; -1: the kernel does not tell */
	struct kind_map map;
	unsigned int range;	     /* of map.ram, in which */
	uint64_t next;		     /* page comes next */
	enum agent_page_kind before; /* of the page before that */
	unsigned int resting;	     /* steps to leave out: it has been through */
};

struct agent {
	bool init;				   /* PID 1: the guest ends with us */
	const char *port_path, *disk_path, *words; /* of the command line; NULL: find out */
	uint64_t mem_pages;			   /* for all workers; 0: find out */
	uint64_t nworkers;			   /* 0: find out */
	uint64_t room;				   /* for so many workers there is memory */
	char disk_word[PATH_LEN];		   /* the word disk=, or empty */
	bool shell;				   /* the word shell */
	struct port port;
	int disk_fd; /* -1: there is none */
	uint64_t disk_pages;
	int pagemap_fd; /* -1: not to be had */
	struct kinds kinds;
	uint64_t tsc_khz;
	pthread_mutex_t lock; /* of what follows, and of ending */
	struct worker worker[WORKERS_MAX];
	unsigned int ready; /* workers whose report is there */
	struct beat beat;
};

/* Words of a CHECKED frame that are gathered before they are sent. */
#define CHECKED_MAX ((AGENT_FRAME_MAX - sizeof(struct agent_frame)) / sizeof(uint64_t))

/* Of a worker. */
struct platform {
	struct agent *agent;
	uint64_t *base; /* page 0 of its memory */
	size_t nchecked;
	uint64_t checked[CHECKED_MAX];
};

/* --- boot.c: being the first process ------------------------------------------------------------ */

/* Mount /proc, /sys and /dev. */
void boot_mount(void);
/* Load the modules of /modules/list whose devices are there. */
void boot_modules(void);
/* A shell on the console, until it is left. */
void boot_shell(void);
/* Remove what was needed to get here: in an initramfs, files are memory. */
void boot_tidy(void);
/* Never comes back: power off as PID 1, else exit. */
void boot_end(const struct agent *a, uint64_t code) __attribute__((noreturn));

/* --- find.c: the port and the disk -------------------------------------------------------------- */

/* Open the port named AGENT_PORT_NAME, waiting for it for a while. 0 or -1. */
int find_port(struct agent *a);
/* Open the disk that was named, or the last /dev/vd* that holds an image. 0, or -1 when one was
 * named and cannot be opened, with errno. */
int find_disk(struct agent *a);
/* Read a small file into @buf, always with an end. Its length, or -1. */
ssize_t read_text(const char *path, char *buf, size_t len);

/* --- port.c: frames ------------------------------------------------------------------------------ */

/* At most so long for the host to take it, then it is dropped. */
void port_send(struct port *p, enum agent_frame_type type, const void *data, size_t bytes,
	       unsigned int wait_ms);
/* Send the end. The host has it when this returns, or does not listen. */
void port_end(struct port *p, uint64_t code);
/* Send the sum of all workers' reports. Under a->lock. */
void port_report(struct agent *a);
/* Send what the worker has gathered. */
void port_flush_checked(struct platform *p);

/* --- kinds.c: what the pages of this machine are ------------------------------------------------- */

/* As far as the kernel tells, else nothing is ever sent. For a port of a guest's only. */
void kinds_init(struct agent *a);
/* Look at some pages, for a few milliseconds at most, and tell the host. Several times a second. */
void kinds_step(struct agent *a);

/* --- ram.c --------------------------------------------------------------------------------------- */

/* How many pages the workloads may have, so that the kernel keeps enough. */
uint64_t ram_available(void);

#endif
