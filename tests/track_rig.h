/* SPDX-License-Identifier: Apache-2.0 */
/* track_rig.h: a guest of memory only, with a tracker over a model of KVM's log, for tests. */
#ifndef OVERBOOK_TESTS_TRACK_RIG_H
#define OVERBOOK_TESTS_TRACK_RIG_H

#include <pthread.h>

#include "ept/ept.h"
#include "tests/fake_host.h"

#define TRACK_SLOT_PAGES (GMEM_SLOT_ALIGN / OB_PAGE_SIZE)
#define TRACK_PAGES	 (3 * TRACK_SLOT_PAGES + 77) /* four slots, the last one odd */
#define TRACK_SLOTS	 4

/*
 * KVM's log as the tracker may rely on it: a write to a slot that is on is noted before the write
 * itself can be seen, and after a collect the next write is noted anew. One lock a page stands for
 * the protection of its entry.
 */
struct log_model {
	const struct gmem *mem;
	bool starts_full; /* INITIALLY_SET */
	bool on[TRACK_SLOTS];
	bool noted[TRACK_PAGES];
	pthread_mutex_t page_lock[TRACK_PAGES];
	int fail_set, fail_collect; /* the n-th call from now fails; 0: none */
	unsigned int sets, collects;
};

struct track_rig {
	struct ob_host *h;
	struct ob_arena *arena;
	struct gmem mem;
	struct log_model log;
	struct ept e;
	struct ept_track t;
};

void track_rig_make(struct track_rig *r, bool starts_full);
/* Checks that no slot was left on and nothing is leaked. */
void track_rig_unmake(struct track_rig *r);
/* The same on a host that is there already, and stays. */
void track_rig_make_on(struct track_rig *r, struct ob_host *h, bool starts_full);
void track_rig_unmake_on(struct track_rig *r);
/* A vCPU writes: the page is noted, then its counter (may be NULL) grows. */
void log_model_write(struct log_model *m, uint64_t page, _Atomic uint64_t *counter);

#endif
