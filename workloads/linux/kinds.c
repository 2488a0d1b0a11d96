/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kinds.c: telling the host what the pages of this machine are (kind.h): the whole of RAM, again and
 * again, some pages at a time. The kernel takes tens of nanoseconds a page for it, and fifty times
 * that where it is emulated; so a step ends by the clock, and what it costs the workload is bounded:
 * STEP_US in each quarter of a second, less where all has been seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

#define CHUNK	   1024 /* pages */
#define STEP_US	   2000
#define REST_STEPS 8 /* when all has been seen */
#define IOMEM_MAX  32768
#define WAIT_MS	   20

_Static_assert(sizeof(uint64_t) + CHUNK <= AGENT_FRAME_MAX, "a chunk is a frame");

void kinds_init(struct agent *a)
{
	struct kinds *k = &a->kinds;
	static char text[IOMEM_MAX];

	/* To a port that somebody named we may be no guest, and its host need not know this machine. */
	if (a->port_path || read_text("/proc/iomem", text, sizeof(text)) <= 0)
		return;
	kind_map_read(&k->map, text);
	if (!k->map.nram)
		return;
	k->next = k->map.ram[0].from;
	k->fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
}

/* The next range of RAM; when that was the last one, the first, after a rest. */
static void next_range(struct kinds *k)
{
	k->range++;
	if (k->range == k->map.nram) {
		k->range = 0;
		k->resting = REST_STEPS;
	}
	k->next = k->map.ram[k->range].from;
}

/* False: the kernel does not tell, and never will. */
static bool send_chunk(struct agent *a)
{
	struct kinds *k = &a->kinds;
	uint64_t n = k->map.ram[k->range].to - k->next, flags[CHUNK];
	struct {
		uint64_t gfn;
		uint8_t kind[CHUNK];
	} frame;
	ssize_t got;

	if (n > CHUNK)
		n = CHUNK;
	got = pread(k->fd, flags, n * sizeof(flags[0]), (off_t)(k->next * sizeof(flags[0])));
	if (got < (ssize_t)sizeof(flags[0]))
		return false;
	n = (uint64_t)got / sizeof(flags[0]);
	frame.gfn = k->next;
	for (uint64_t i = 0; i < n; i++) {
		k->before = kind_of(&k->map, k->next + i, flags[i], k->before);
		frame.kind[i] = (uint8_t)k->before;
	}
	port_send(&a->port, AGENT_FRAME_KINDS, &frame, sizeof(frame.gfn) + n, WAIT_MS);
	k->next += n;
	return true;
}

void kinds_step(struct agent *a)
{
	uint64_t start = rdtsc(), ticks = a->tsc_khz * STEP_US / 1000;
	struct kinds *k = &a->kinds;

	if (k->fd < 0)
		return;
	if (k->resting) {
		k->resting--;
		return;
	}
	do {
		if (!send_chunk(a)) {
			close(k->fd);
			k->fd = -1;
			return;
		}
		if (k->next == k->map.ram[k->range].to)
			next_range(k);
	} while (!k->resting && rdtsc() - start < ticks);
}
