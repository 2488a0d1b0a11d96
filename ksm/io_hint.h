/* SPDX-License-Identifier: Apache-2.0 */
/* io_hint.h: private to ksm/: hints that wait (io_hint.c), for who looks at them (hash_io.c). */
#ifndef OVERBOOK_KSM_IO_HINT_H
#define OVERBOOK_KSM_IO_HINT_H

#include "ksm/domain.h"

#define KSM_IO_WINDOW 512 /* pages: no hint is of two windows of the scanner */

/* Pages [page, page + n) of one window hold what begins at @origin; KSM_ORIGIN_NONE: who knows. */
struct ksm_io_run {
	uint32_t page, n;
	uint64_t origin;
};

/* Counted in pages since the last take. */
struct ksm_io_counts {
	uint64_t hints, dropped, voided;
};

struct ksm_io {
	struct ksm_domain *domain;
	struct ob_arena *arena;
	void (*wake)(void *arg); /* NULL: nobody is to be woken */
	void *wake_arg;
	struct ob_mutex lock; /* all below */
	struct ksm_io_run ring[KSM_IO_RING];
	unsigned int head, n;
	uint64_t written; /* how often ksm_io_written was called */
	struct ksm_io_counts count;
};

/*
 * Take the oldest runs: up to @room, of about @pages pages together. @written is for ksm_io_name.
 * Returns how many runs; adds what was counted since the last time to @count.
 */
unsigned int ksm_io_take(struct ksm_io *io, struct ksm_io_run *out, unsigned int room,
			 uint64_t pages, uint64_t *written, struct ksm_io_counts *count);
/* Look at @page (again), as a part of the work under way: counts no hint and wakes nobody. */
void ksm_io_look(struct ksm_io *io, uint64_t page, uint64_t origin);
/*
 * The caller holds @frame, which has the content of @origin: let it be found by that name, unless
 * anything was written since @written.
 */
void ksm_io_name(struct ksm_io *io, uint32_t frame, uint64_t origin, uint64_t written);

#endif
