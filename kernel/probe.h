/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h: which of the kernel's memory mechanisms there are for this process, here and now. Each
 * is tried on pages of our own, which are gone afterwards; nothing else is changed. What the
 * findings mean for a person is not said here: harness words them (`overbook doctor`).
 */
#ifndef OVERBOOK_KERNEL_PROBE_H
#define OVERBOOK_KERNEL_PROBE_H

#include "kernel/base.h"

/* Transparent huge pages, as /sys/kernel/mm/transparent_hugepage/enabled says. */
enum probe_thp {
	PROBE_THP_NONE, /* this kernel has none */
	PROBE_THP_NEVER,
	PROBE_THP_MADVISE,
	PROBE_THP_ALWAYS,
};
const char *probe_thp_name(enum probe_thp t);

/* An int is 0 when the thing works, else -errno; -EIO when the kernel said yes and did nothing. */
struct probe_memory {
	int uffd_syscall;   /* userfaultfd(2), faults of the kernel included: what KVM needs */
	int uffd_device;    /* the same by /dev/userfaultfd */
	int uffd_user_only; /* without faults of the kernel: not for guests */
	int uffd_api;	    /* the handshake; -ENODEV when there is no descriptor at all */
	bool uffd_wp, uffd_wp_async, uffd_thread_id; /* features that it offers */
	int uffd_move; /* a page was moved away and back, with what was in it */

	int pagemap;	      /* /proc/self/pagemap opens */
	bool pagemap_present; /* it shows that a page of ours is there */
	bool pagemap_pfn;     /* and on which frame of the host (CAP_SYS_ADMIN) */
	int pagemap_scan;     /* PAGEMAP_SCAN finds that page */

	/* Scattered pages given back in one call: process_madvise on oneself with a vector (Linux
	 * 6.13). Where that does not work each run of pages is a call of its own. */
	int give_back_vector;

	enum probe_thp thp;
	int thp_fault;	  /* memory that asks for huge pages gets one when it is touched */
	int thp_collapse; /* MADV_COLLAPSE makes one of 512 small pages (Linux 6.1) */
};

/* Try everything. Takes a few milliseconds; memory of a few MiB at most, given back. Any thread. */
void probe_memory(struct probe_memory *p);

#endif
