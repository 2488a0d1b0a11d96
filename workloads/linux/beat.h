/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beat.h: one heartbeat of all of the agent's workers. The host ends a guest whose heartbeat stands, and
 * were it their sum, one worker that hangs would go unnoticed as long as another works: so it advances
 * only when every worker's own has advanced since it did so last. That is as often as the slowest of them
 * beats. No system calls here: what the workers say is given.
 *
 * All of them count, and always: none has ended while the agent goes on, since who ends ends it, and
 * nothing is reported before each has begun.
 */
#ifndef OVERBOOK_LINUX_BEAT_H
#define OVERBOOK_LINUX_BEAT_H

#include <stdbool.h>
#include <stdint.h>

#define WORKERS_MAX 64 /* as a guest has CPUs */

/* All 0 to begin with. */
struct beat {
	uint64_t sent;
	uint64_t seen[WORKERS_MAX]; /* each worker's, when that advanced last */
};

/* What to send when the @n workers' heartbeats are @now. */
static inline uint64_t beat_next(struct beat *b, const uint64_t *now, uint64_t n)
{
	bool all = n > 0;

	for (uint64_t i = 0; i < n; i++)
		all &= now[i] != b->seen[i];
	for (uint64_t i = 0; all && i < n; i++)
		b->seen[i] = now[i];
	b->sent += all;
	return b->sent;
}

#endif
