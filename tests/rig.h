/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h: a cell's worth of guests in the test's own process, with a sharing domain of their own. */
#ifndef OVERBOOK_TESTS_RIG_H
#define OVERBOOK_TESTS_RIG_H

#include <criterion/criterion.h>
#include <pthread.h>

#include "ksm/ksm.h"
#include "tests/cli.h"

#define RIG_MEM	   (16 * OB_MIB)
#define RIG_GUESTS 2

struct rig_opts {
	const char *workload;		  /* with its numbers: remerge:64:1000 */
	const struct ept_huge_rule *huge; /* NULL: small pages */
	unsigned int inject;		  /* a planted bug: then guests may find wrong pages */
	bool untracked;			  /* the scanner is not told what was written */
};

struct rig {
	struct ob_host host; /* first: tests put themselves between it and its operations */
	struct rig_opts opts;
	struct kvm kvm;
	struct ob_arena *arena;
	struct io_worker *worker;
	struct ksm_domain *coord, *domain;
	int pool_fd, meta_fd, image_fd;
	void *kernel;
	size_t kernel_len;
	struct vm *vm[RIG_GUESTS];
	struct ept ept[RIG_GUESTS];
	struct ept_track track[RIG_GUESTS];
	struct ksm *k;
	pthread_t scanner;
	_Atomic bool scan;
	uint64_t mismatches, checked; /* of guests that are gone */
};

/* Make the guests, of small pages; rig_start returns when all of them are warm. Failures end the
 * test. */
void rig_make(struct rig *r, const char *workload);
/* The same of huge pages, broken by this rule. Skips the test where this host has none. */
void rig_make_huge(struct rig *r, const char *workload, const struct ept_huge_rule *rule);
/* All that can be said. */
void rig_make_opts(struct rig *r, const struct rig_opts *o);
void rig_start(struct rig *r);
/* Stop them: each has run until now without a mismatch, its map agrees with the kernel's, and nothing
 * is left behind. */
void rig_unmake(struct rig *r);

/*
 * One guest goes, and another takes its place: rig_unmake's checks of it, rig_make's making
 * (vm_start is the caller's). Not while a step of merging runs; vm_stop may come before, beside it.
 */
void rig_guest_unmake(struct rig *r, unsigned int i);
void rig_guest_make(struct rig *r, unsigned int i);

struct agent_report rig_report(struct rig *r, unsigned int i);
/* Merge in a thread beside the guests; rig_scan_for does so for a while. */
void rig_scan_start(struct rig *r);
void rig_scan_stop(struct rig *r);
void rig_scan_for(struct rig *r, long ms);
void rig_nap_ms(long ms);

#endif
