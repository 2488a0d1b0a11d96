/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.c: frames to the host (agent_abi.h). A virtio port takes a write whole or not at all; a file or
 * a pipe may take a part, and then gets the rest. A host that does not read must not hold the workload
 * up, so what cannot be sent in a while is dropped: reports come again, with the wrong words that were
 * found, and the host counts as verified only what it was told of (CHECKED), so it counts too little then,
 * never too much.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "workloads/linux/agent.h"

#define WAIT_MS	    20
#define END_WAIT_MS 5000 /* it is the last that is said */

/* Write all of it or, after so long, nothing: a frame that was begun is finished. */
static void write_frame(int fd, const char *data, size_t n, unsigned int wait_ms)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = write(fd, data + done, n - done);
		struct pollfd ready = {.fd = fd, .events = POLLOUT};

		if (r > 0) {
			done += (size_t)r;
			continue;
		}
		if (r < 0 && errno == EINTR)
			continue;
		if (r == 0 || errno != EAGAIN)
			return;
		if (poll(&ready, 1, done ? -1 : (int)wait_ms) == 0)
			return;
	}
}

void port_send(struct port *p, enum agent_frame_type type, const void *data, size_t bytes,
	       unsigned int wait_ms)
{
	struct {
		struct agent_frame head;
		char data[AGENT_FRAME_MAX];
	} f;

	_Static_assert(AGENT_FRAME_MAX <= UINT16_MAX, "the header counts bytes in 16 bits");
	if (p->fd < 0 || bytes > AGENT_FRAME_MAX)
		return;
	f.head = (struct agent_frame){AGENT_FRAME_MAGIC, (uint16_t)type, (uint16_t)bytes};
	memcpy(f.data, data, bytes);
	pthread_mutex_lock(&p->lock);
	write_frame(p->fd, (const char *)&f, sizeof(f.head) + bytes, wait_ms);
	pthread_mutex_unlock(&p->lock);
}

void port_end(struct port *p, uint64_t code)
{
	port_send(p, AGENT_FRAME_EXIT, &code, sizeof(code), END_WAIT_MS);
	/* A write to a port, blocking or not, only leaves it in the queue, and there it is lost when the
	 * machine is switched off before the host has come by. But when a port is closed Linux waits for the
	 * host's answer to that, which comes after all output. */
	pthread_mutex_lock(&p->lock);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	pthread_mutex_unlock(&p->lock);
}

/* Word by word: the worker writes each counter with one store and may be doing so now. */
static void read_report(const struct agent_report *from, struct agent_report *to)
{
	const uint64_t *a = (const uint64_t *)from;
	uint64_t *b = (uint64_t *)to;

	for (size_t i = 0; i < sizeof(*to) / sizeof(*b); i++)
		b[i] = __atomic_load_n(&a[i], __ATOMIC_RELAXED);
}

static void add(struct agent_report *sum, const struct agent_report *r)
{
	uint64_t had = sum->mismatches;

	if (r->phase < sum->phase)
		sum->phase = r->phase;
	sum->ops += r->ops;
	sum->checked_pages += r->checked_pages;
	sum->mismatches += r->mismatches;
	sum->written_pages += r->written_pages;
	sum->disk_pages += r->disk_pages;
	sum->cache_pages += r->cache_pages;
	sum->heap_pages += r->heap_pages;
	sum->heap_common_pages += r->heap_common_pages;
	sum->free_clean_pages += r->free_clean_pages;
	sum->free_dirty_pages += r->free_dirty_pages;
	sum->free_untouched_pages += r->free_untouched_pages;
	sum->area_hot += r->area_hot;
	sum->workers += r->workers;
	if (r->job_ns > sum->job_ns)
		sum->job_ns = r->job_ns;
	for (uint64_t i = 0; i < r->mismatches && i < AGENT_MISMATCHES; i++)
		if (had + i < AGENT_MISMATCHES)
			sum->mismatch[had + i] = r->mismatch[i];
	for (unsigned int i = 0; i < AGENT_LAT_BUCKETS; i++)
		sum->lat[i] += r->lat[i];
}

void port_report(struct agent *a)
{
	uint64_t beats[WORKERS_MAX];
	struct agent_report sum, r;

	for (uint64_t i = 0; i < a->nworkers; i++) {
		const struct guest *g = a->worker[i].guest;

		if (!g || !g->report)
			return; /* it ends before it has one */
		read_report(g->report, i ? &r : &sum);
		beats[i] = i ? r.heartbeat : sum.heartbeat;
		if (i)
			add(&sum, &r);
	}
	if (!a->nworkers)
		return;
	sum.workers_room = a->room;
	sum.heartbeat = beat_next(&a->beat, beats, a->nworkers);
	port_send(&a->port, AGENT_FRAME_REPORT, &sum, sizeof(sum), WAIT_MS);
}

void port_flush_checked(struct platform *p)
{
	if (p->nchecked)
		port_send(&p->agent->port, AGENT_FRAME_CHECKED, p->checked,
			  p->nchecked * sizeof(p->checked[0]), WAIT_MS);
	p->nchecked = 0;
}

void platform_mismatch(struct guest *g, uint64_t gpa)
{
	port_send(&g->p->agent->port, AGENT_FRAME_MISMATCH, &gpa, sizeof(gpa), 200);
}
