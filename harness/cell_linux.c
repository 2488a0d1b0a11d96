/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_linux.c: what is particular to Linux guests in a cell: the PC that they run on, their disks,
 * how to see that one hangs, the end of its console when it has failed, and a terminal's input.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/cell.h"
#include "harness/proto.h"

#define INITRD_MAX_BYTES (4 * OB_GIB)
/* Of the time since somebody looked last, at most so much counts as silence: who could not look for longer
 * is on a host that is out of CPU, and so is the guest. */
#define LOOK_NS	       (2 * OB_NS_PER_SEC)
#define INPUT_POLL_MS  20
#define INPUT_RETRY_NS (5 * OB_NS_PER_MS)
#define TAIL_BYTES     1100

int cell_linux_setup(struct cell *c, const json_t *doc, struct ob_err *e)
{
	const json_t *pc = json_object_get(doc, "pc");
	struct cell_linux *l = &c->lx;
	*l = (struct cell_linux){.input_fd = -1};
	if (!json_is_object(pc))
		return 0;
	l->on = true;
	l->agent = json_is_true(json_object_get(pc, "agent"));
	l->vcpus = (unsigned int)proto_u64(pc, "vcpus");
	l->boot_ns = proto_u64(pc, "boot_timeout") * OB_NS_PER_SEC;
	l->hang_ns = proto_u64(pc, "hang") * OB_NS_PER_SEC;
	snprintf(l->ready, sizeof(l->ready), "%s", proto_str(pc, "ready"));
	l->remark = json_is_true(json_object_get(pc, "remark"));
	if (json_is_true(json_object_get(pc, "input")))
		l->input_fd = STDIN_FILENO;
	if (!*proto_str(pc, "initrd"))
		return 0;
	return ob_read_file(proto_str(pc, "initrd"), INITRD_MAX_BYTES, &l->initrd, &l->initrd_len,
			    e);
}

void cell_linux_exit(struct cell *c)
{
	free(c->lx.initrd);
	c->lx.initrd = NULL;
}

int cell_open_disk(const char *what, const char *path, bool rw, struct ob_err *e)
{
	int r, fd = open(path, (rw ? O_RDWR : O_RDONLY) | O_CLOEXEC);

	if (fd < 0)
		return ob_fail(e, errno, "%s %.250s: %s", what, path, strerror(errno));
	r = linux_lock_disk(fd, rw, what, path, e);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int cell_linux_guest(struct cell *c, struct cell_guest *g, const json_t *doc, struct vm_config *cfg,
		     struct ob_err *e)
{
	const json_t *disks = json_object_get(doc, "disks"), *d;
	char what[40];
	size_t i;

	if (!c->lx.on)
		return 0;
	cfg->pc = true;
	cfg->vcpus = c->lx.vcpus;
	cfg->initrd = c->lx.initrd;
	cfg->initrd_len = c->lx.initrd_len;
	cfg->agent_port = c->lx.agent;
	cfg->rng = true;
	snprintf(what, sizeof(what), "disk of guest %u", g->id);
	json_array_foreach (disks, i, d) {
		const char *path = json_string_value(json_array_get(d, 0));
		int fd;

		if (!path || cfg->ndisks == LINUX_MAX_DISKS)
			return ob_fail(e, EPROTO, "disks of guest %u", g->id);
		fd = cell_open_disk(what, path, json_is_true(json_array_get(d, 1)), e);
		if (fd < 0)
			return fd;
		g->disk_fd[g->ndisks++] = fd;
		cfg->disk[cfg->ndisks++].fd = fd;
	}
	return 0;
}

void cell_linux_guest_exit(struct cell_guest *g)
{
	while (g->ndisks)
		close(g->disk_fd[--g->ndisks]);
}

bool cell_linux_watch(struct cell *c, struct cell_guest *g, uint64_t heartbeat, uint64_t now)
{
	if (!c->lx.on)
		return false;
	/* It is 0 after the guest stood still, or has booted anew. */
	if (heartbeat != g->beat)
		g->silent_ns = 0;
	else if (g->beat_ns && !c->paused && !c->stood && !c->deaf)
		g->silent_ns += OB_MIN(now - g->beat_ns, LOOK_NS);
	g->beat = heartbeat;
	g->beat_ns = now;
	if (g->silent_ns >= c->lx.hang_ns)
		vm_fail(g->vm, "hangs: its agent has said nothing for %.0f s",
			(double)g->silent_ns / OB_NS_PER_SEC);
	return true;
}

void cell_linux_sample(struct cell *c, struct cell_guest *g, json_t *o)
{
	/* An agent that ends with an error code has failed as well. */
	bool failed =
		g->vm->end == VM_END_FAILED || (g->vm->end == VM_END_EXIT && g->vm->exit_code);
	char tail[TAIL_BYTES];

	if (!c->lx.on)
		return;
	/* Nobody is there to say how far it is, nor with which code it ends. */
	if (!c->lx.agent) {
		json_object_set_new(o, "phase",
				    json_integer((json_int_t)cell_boot_phase(c, g, AGENT_BOOT)));
		if (g->vm->end == VM_END_EXIT)
			json_object_set_new(o, "reason", json_string("it powered off"));
	}
	json_object_set_new(o, "reboots",
			    json_integer((json_int_t)atomic_load(&g->vm->boot.resets)));
	json_object_set_new(o, "silent_ns", json_integer((json_int_t)g->silent_ns));
	serial_flush(&g->vm->serial);
	cell_boot_sample(g, o);
	if (!failed && !g->boot.remarked)
		return;
	serial_tail(&g->vm->serial, tail, sizeof(tail));
	json_object_set_new(o, "tail", json_string(tail));
}

/* --- what is typed -------------------------------------------------------------------------- */

/* A guest that does not read takes no more at some point: then the terminal waits. */
static void type(struct cell *c, const char *buf, size_t n)
{
	const struct timespec rest = {.tv_nsec = INPUT_RETRY_NS};
	size_t done = 0;

	while (done < n && !atomic_load(&c->lx.input_quit)) {
		done += serial_input(&c->guest[0].vm->serial, buf + done, n - done);
		if (done < n)
			nanosleep(&rest, NULL);
	}
}

static void *input_thread(void *arg)
{
	struct cell *c = arg;
	char buf[256];

	while (!atomic_load(&c->lx.input_quit)) {
		struct pollfd p = {.fd = c->lx.input_fd, .events = POLLIN};
		ssize_t n;

		/* Whoever types wants to see it, and prompts have no newline. */
		serial_flush(&c->guest[0].vm->serial);
		if (poll(&p, 1, INPUT_POLL_MS) <= 0)
			continue;
		n = read(p.fd, buf, sizeof(buf));
		if (!n || (n < 0 && errno != EINTR))
			break; /* it is not ours any more (SIGTTIN is ignored), or is gone */
		if (n > 0)
			type(c, buf, (size_t)n);
	}
	return NULL;
}

int cell_linux_input_start(struct cell *c, struct ob_err *e)
{
	int r;

	if (c->lx.input_fd < 0 || c->nguests != 1)
		return 0;
	signal(SIGTTIN, SIG_IGN);
	r = pthread_create(&c->lx.input, NULL, input_thread, c);
	c->lx.has_input = !r;
	return r ? ob_fail(e, r, "terminal input: %s", strerror(r)) : 0;
}

void cell_linux_input_stop(struct cell *c)
{
	atomic_store(&c->lx.input_quit, true);
	if (c->lx.has_input)
		pthread_join(c->lx.input, NULL);
	c->lx.has_input = false;
}
