/* SPDX-License-Identifier: Apache-2.0 */
/* coord_cell.c: the coordinator's side of the cell processes: started, asked, lost, ended. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/coord.h"
#include "harness/proto.h"

extern char **environ;

/*
 * Lay out a cell's descriptors. They are copied upwards first: a source that lies among the targets
 * would otherwise be overwritten before it is used. The copies close at exec.
 */
static int spawn_with_fds(pid_t *pid, const int src[CELL_FDS])
{
	char *argv[] = {(char[]){"overbook"}, (char[]){"cell"}, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t block;
	int high[CELL_FDS], r = 0;

	for (int t = 0; t < CELL_FDS; t++)
		high[t] = -1;
	posix_spawn_file_actions_init(&fa);
	/* A terminal's Ctrl-C goes to the cells as well, and may come before they ignore it: they start
	 * with it blocked (cell_main). */
	sigemptyset(&block);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGHUP);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &block);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	for (int t = CELL_FD_CONTROL; t < CELL_FDS && !r; t++) {
		high[t] = fcntl(src[t], F_DUPFD_CLOEXEC, CELL_FDS);
		r = high[t] < 0 ? errno : posix_spawn_file_actions_adddup2(&fa, high[t], t);
	}
	if (!r)
		r = posix_spawn(pid, "/proc/self/exe", &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	for (int t = CELL_FD_CONTROL; t < CELL_FDS; t++)
		if (high[t] >= 0)
			close(high[t]);
	return r;
}

int coord_spawn(struct coord *c, unsigned int cell, struct ob_err *e)
{
	int pair[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), src[CELL_FDS] = {0};
	const struct coord_pool *pool = c->npools ? &c->pool[c->place.cell[cell].pool] : NULL;
	int r;

	if (null < 0)
		return ob_fail(e, errno, "/dev/null: %s", strerror(errno));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		r = errno;
		close(null);
		return ob_fail(e, r, "socket for cell %u: %s", cell, strerror(r));
	}
	src[CELL_FD_CONTROL] = pair[1];
	src[CELL_FD_POOL] = pool ? pool->pool_fd : null;
	src[CELL_FD_META] = pool ? pool->meta_fd : null;
	src[CELL_FD_METER] = c->meter_fd;
	src[CELL_FD_BUDGET] = c->budget_fd;
	src[CELL_FD_CONSOLE] = c->cfg->console_fd > 0 ? c->cfg->console_fd : null;
	r = spawn_with_fds(&c->cell[cell].pid, src);
	close(pair[1]);
	close(null);
	if (r) {
		close(pair[0]);
		return ob_fail(e, r, "cannot start cell %u: %s", cell, strerror(r));
	}
	c->cell[cell].fd = pair[0];
	return 0;
}

void coord_lose_cell(struct coord *c, unsigned int cell, const char *why)
{
	struct coord_cell *k = &c->cell[cell];
	const struct timespec nap = {.tv_nsec = 5 * OB_NS_PER_MS};
	int status = 0;
	pid_t dead = 0;

	if (k->fd < 0)
		return;
	close(k->fd);
	k->fd = -1;
	/* Its socket closes a moment before it is a zombie: give it that moment, to know how it ended. */
	for (int tries = 0; tries < 20 && !dead; tries++) {
		dead = waitpid(k->pid, &status, WNOHANG);
		if (!dead)
			nanosleep(&nap, NULL);
	}
	/* It may be stuck and not dead: then it is of no use either, and holds frames. */
	if (!dead) {
		kill(k->pid, SIGKILL);
		waitpid(k->pid, NULL, 0);
	}
	if (dead > 0 && WIFSIGNALED(status))
		snprintf(k->why, sizeof(k->why), "cell %u died of signal %d (%s)%s", cell,
			 WTERMSIG(status), strsignal(WTERMSIG(status)),
			 WTERMSIG(status) == SIGKILL
				 ? ": if nobody sent it, the host was out of memory"
				 : "");
	else
		snprintf(k->why, sizeof(k->why), "cell %u is lost: %s", cell, why);
	ob_warn("%s; its %u guests with it", k->why, k->n);
	c->out->cells_lost++;
	for (unsigned int n = 0; n < k->n; n++) {
		unsigned int i = k->guest[n];
		struct run_guest *g = &c->out->guest[i];

		c->guest[i].ended = true;
		snprintf(g->end, sizeof(g->end), "lost");
		snprintf(g->reason, sizeof(g->reason), "%s", k->why);
		for (uint64_t p = 0; p < c->guest[i].pages; p++)
			c->meter[c->guest[i].page_base + p] = KSM_METER_UNTOUCHED;
	}
	coord_pools_cell_died(c, cell);
}

int coord_ask_one(struct coord *c, unsigned int cell, json_t *doc, int timeout_ms, json_t **answer,
		  struct ob_err *e)
{
	int64_t deadline = proto_deadline(timeout_ms);
	struct coord_cell *k = &c->cell[cell];
	json_t *a = NULL;
	int r;

	if (k->fd < 0) {
		json_decref(doc);
		return -EPIPE;
	}
	r = proto_send(k->fd, doc, deadline);
	if (!r)
		r = proto_recv(k->fd, &a, deadline);
	if (r) {
		coord_lose_cell(c, cell, r == -ETIMEDOUT ? "it does not answer" : "it is gone");
		return -EPIPE;
	}
	if (json_object_get(a, "error")) {
		r = -(int)proto_u64(a, "errno");
		ob_fail(e, -r, "%s", proto_str(a, "error"));
		json_decref(a);
		return r ? r : -EIO;
	}
	*answer = a;
	return 0;
}

int coord_ask(struct coord *c, json_t *doc, int timeout_ms,
	      void (*each)(struct coord *c, unsigned int cell, const json_t *answer),
	      struct ob_err *e)
{
	int64_t deadline = proto_deadline(timeout_ms);
	bool asked[KSM_MAX_CELLS] = {false};
	int err = 0;

	/* Ask all, then listen: the cells work at the same time. */
	for (unsigned int i = 0; i < c->ncells; i++) {
		if (c->cell[i].fd < 0)
			continue;
		if (proto_send(c->cell[i].fd, json_incref(doc), deadline))
			coord_lose_cell(c, i, "it is gone");
		else
			asked[i] = true;
	}
	json_decref(doc);
	for (unsigned int i = 0; i < c->ncells; i++) {
		json_t *a = NULL;
		int r;

		if (!asked[i])
			continue;
		r = proto_recv(c->cell[i].fd, &a, deadline);
		if (r) {
			coord_lose_cell(c, i,
					r == -ETIMEDOUT ? "it does not answer" : "it is gone");
			continue;
		}
		if (json_object_get(a, "error")) {
			if (!err) {
				err = -(int)proto_u64(a, "errno");
				err = err ? err : -EIO;
				ob_fail(e, -err, "%s", proto_str(a, "error"));
			}
		} else if (each) {
			each(c, i, a);
		}
		json_decref(a);
	}
	return err;
}

void coord_stop_cells(struct coord *c)
{
	struct ob_err e;
	struct timespec nap = {.tv_nsec = 5 * 1000 * 1000};

	if (!c->cell)
		return;
	coord_ask(c, json_pack("{s:s}", "do", "stop"), 10000, NULL, &e);
	for (unsigned int i = 0; i < c->ncells; i++) {
		struct coord_cell *k = &c->cell[i];

		if (k->fd < 0)
			continue;
		/* It has answered, so it is on its way out; do not wait for ever all the same. */
		for (int tries = 0; waitpid(k->pid, NULL, WNOHANG) == 0; tries++) {
			if (tries == 400)
				kill(k->pid, SIGKILL);
			nanosleep(&nap, NULL);
		}
		close(k->fd);
		k->fd = -1;
	}
}
