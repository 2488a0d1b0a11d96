/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h: private header of ksm/: what every engine stands on. engine.c does what is the same for
 * all of them (guests, statistics, the call of the step); an engine adds its ops and hangs its own
 * data on struct ksm.
 */
#ifndef OVERBOOK_KSM_ENGINE_H
#define OVERBOOK_KSM_ENGINE_H

#include <pthread.h>

#include "ksm/domain.h"

#define KSM_MAX_GUESTS 4096 /* in one process */

/* A guest's place. Slots do not move while the guest is there;
 * a slot in the middle may be empty. */
struct ksm_slot {
	struct ksm_guest g;
	bool used;
	void *priv; /* the engine's, NULL at first; ops->remove frees it */
};

struct ksm {
	const struct ksm_engine_ops *ops;
	struct ob_host *host;
	struct ksm_domain *domain; /* NULL for engines that need none */
	struct ksm_opts opts;	   /* with the defaults filled in */
	struct ob_arena *arena;
	struct ksm_slot *slot;
	unsigned int nslots; /* slots ever used: look at all below, skip those not used */
	unsigned int room;
	bool started;
	void *priv; /* the engine's, NULL at first; ops->stop frees it */
	/*
	 * The engine counts here, in start, step and stop, with no lock: one thread. After each of
	 * these engine.c copies it to @shown, which any thread reads. cpu_ns and meta_bytes are
	 * filled in by engine.c.
	 */
	struct ksm_stats st;
	struct ksm_stats shown;
	struct ob_mutex lock; /* shown only */
};

extern const struct ksm_engine_ops ksm_engine_off;
extern const struct ksm_engine_ops ksm_engine_hash; /* hash_engine.c */
extern const struct ksm_engine_ops ksm_engine_kernel;

#endif
