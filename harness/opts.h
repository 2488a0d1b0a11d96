/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts.h: private to harness/. opts_fleet (harness.h) in its parts, so that each can be tested
 * without the other: opts_parse understands a command line and looks at nothing but its words;
 * opts_check holds the result against the files and the host.
 */
#ifndef OVERBOOK_HARNESS_OPTS_H
#define OVERBOOK_HARNESS_OPTS_H

#include <sys/types.h>
#include <sys/un.h>

#include "harness/harness.h"

#define OPTS_MIN_MEM	 (8 * OB_MIB)
#define OPTS_MAX_MEM	 (1024 * OB_GIB)
#define OPTS_MAX_SECONDS 86400
#define OPTS_MAX_WARM	 86400
#define OPTS_KSM_NO_DOMAINS \
	"Linux KSM keeps no domains apart, it merges all that is marked mergeable"
#define OPTS_MAX_SOCKET sizeof(((struct sockaddr_un *)0)->sun_path)
#define OPTS_MIN_PAUSE	20 /* us */
#define OPTS_MAX_PAUSE	1000000

enum opts_outcome {
	OPTS_OK,
	OPTS_HELP, /* help was printed on standard output */
	OPTS_BAD,  /* the line is in the ob_err */
};

struct opts_given {
	bool sharing;	      /* the sharing modes were named, not the default */
	const char *repeated; /* a mode that is there more than once; NULL: none */
	bool out_dir;
	bool ksm;		      /* --ksm */
	bool working_set, sample;     /* --working-set; one of the options about it */
	bool linux_guest, microguest; /* --guest */
	bool workload, mem, seconds;
};

/* Fill @c from the command line of @verb ("run", "fleet", "compare"); argv[0] is the verb. */
enum opts_outcome opts_parse(struct fleet_config *c, struct opts_given *given, const char *verb,
			     int argc, char **argv, struct ob_err *e);

/* opts_wset.c. "30", "1.5", ".5" in ns: -EINVAL, -ERANGE. Pure. */
int opts_parse_seconds(const char *s, uint64_t *ns);
/* What the options about sampling must be to each other and to --seconds. */
int opts_wset_together(struct fleet_config *c, const struct opts_given *given, struct ob_err *e);
/* Can guests be sampled here? */
int opts_check_wset(const struct fleet_config *c, struct ob_err *e);

/* What the host has, as far as a fleet can be refused for it. Tests fill in their own. */
struct opts_host {
	const char *kvm_path;	/* /dev/kvm */
	const char *ksm_dir;	/* /sys/kernel/mm/ksm */
	const char *thp_dir;	/* /sys/kernel/mm/transparent_hugepage */
	uint64_t mem_total;	/* bytes */
	uint64_t mem_available; /* of it, what can be had without swapping */
	uint64_t mem_limit;	/* smallest limit of our cgroups; UINT64_MAX: none */
};
int opts_host_read(struct opts_host *h, struct ob_err *e);

/* Find kernel and image where none was named: next to the binary @self_exe. */
int opts_default_paths(struct fleet_config *c, const char *self_exe, struct ob_err *e);
/* The parts of opts_check, each 0 or -errno with one line in @e. */
int opts_check_kernel(const char *path, struct ob_err *e);
int opts_check_image(const char *path, struct ob_err *e);
int opts_check_memory(const struct fleet_config *c, const struct opts_host *h, struct ob_err *e);
int opts_check_kvm(const char *path, struct ob_err *e);
int opts_check_ksm(const char *dir, struct ob_err *e);
/* Does this host give huge pages, if @c asks for them? */
int opts_check_pages(const struct fleet_config *c, const char *dir, struct ob_err *e);
/* Can @path be written, its folder being there? "-" always. */
int opts_check_output(const char *path, struct ob_err *e);
/* Can folder @path be made (its first ancestor that exists is a writable folder), or is it there,
 * writable and without a result? */
int opts_check_out_dir(const char *path, struct ob_err *e);
/*
 * All of them. When the sharing modes are the default and Linux KSM cannot be driven here, that
 * mode is left out and @note (at least 400 bytes) says so; else @note is made empty.
 */
int opts_check(struct fleet_config *c, const struct opts_given *given, const struct opts_host *h,
	       char *note, size_t note_len, struct ob_err *e);

/* --- opts_pages.c, for opts.c: a word of --pages, and what does not go with it. 0 or -errno. */
int opts_take_pages(struct fleet_config *c, const char *arg, struct ob_err *e);
int opts_together_pages(struct fleet_config *c, struct ob_err *e);

/* --- opts_reserve.c: --host-mem. 0 or -errno. */
int opts_take_host_mem(struct fleet_config *c, const char *arg, struct ob_err *e);
int opts_together_host_mem(const struct fleet_config *c, struct ob_err *e);

/* --- opts_domain.c: --domain with --guests, --cell and --sharing. 0 or -errno. */
int opts_together_domains(const struct fleet_config *c, const struct opts_given *given,
			  struct ob_err *e);
/* How many sharing domains there are. */
unsigned int opts_domains(const struct fleet_config *c);

/* --- hostmem.c --------------------------------------------------------------------------- */

/* A number of /proc/meminfo in bytes ("MemTotal"). @root is "" for the real host. 0 or -errno. */
int hostmem_meminfo(const char *root, const char *field, uint64_t *bytes);
/* The smallest memory limit that our cgroup or one above it sets, v1 and v2; UINT64_MAX: none. */
uint64_t hostmem_cgroup_limit(const char *root);
/* What the tightest of them leaves us now: limit less usage, cached files that were not used lately
 * not counted, as the kernel drops them first. UINT64_MAX: none. */
uint64_t hostmem_cgroup_room(const char *root);

#endif
