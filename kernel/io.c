/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.c: the thread that does the devices' slow work, one for all VMs of a cell.
 *
 * A work item is on the queue at most once. It leaves the queue before it runs, so a ring of the
 * doorbell that comes while it runs queues it again and is not lost; and it runs on one thread, so
 * two runs of an item never overlap. Items are taken in the order in which they were queued: a
 * device with much to do does a part, queues itself again and so lets the others have their turn.
 *
 * Doorbells. With a PC's virtio devices KVM itself takes the driver's notification and ticks an
 * eventfd (KVM_IOEVENTFD), so that the vCPU goes on at once. The worker waits for these as well:
 * when it has nothing to do it sleeps in epoll, and whoever queues an item ticks an eventfd of its
 * own. A doorbell is taken out of epoll with the lock held, one at a time, and removed with the
 * lock held, so one that was removed is never answered again.
 *
 * The worker may sleep in a device's access to guest memory (a range is frozen just then). Whoever
 * freezes must therefore never wait for the worker; see gmem_access_begin.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "kernel/device.h"

struct io_worker {
	pthread_t thread;
	struct ob_mutex lock; /* all below, and next and queued of every item */
	pthread_cond_t idle;  /* an item has been run */
	struct io_work *head, **tail;
	struct io_work *running;
	struct io_bell *ringing; /* the doorbell that is being answered */
	uint64_t since_ns;	 /* when either began */
	unsigned int nbells;
	int epoll_fd, wake_fd; /* wake_fd: something was queued while it sleeps, or stop */
	bool asleep;
	bool stop;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	OB_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* With the lock held: end its sleep. Ticks once a sleep, however much is queued meanwhile. */
static void wake(struct io_worker *w)
{
	uint64_t one = 1;

	if (!w->asleep)
		return;
	w->asleep = false;
	OB_ASSERT(write(w->wake_fd, &one, sizeof(one)) == sizeof(one));
}

/* With the lock held, dropped while a doorbell is answered. @timeout_ms: -1 to wait, which drops it
 * too, or 0 to look. */
static void bells(struct io_worker *w, int timeout_ms)
{
	struct epoll_event ev;
	uint64_t ticks;

	if (timeout_ms) {
		w->asleep = true;
		ob_unlock(&w->lock);
		/* One doorbell may be seen here and gone when the lock is held: take none. */
		while (epoll_wait(w->epoll_fd, &ev, 1, timeout_ms) < 0)
			OB_ASSERT(errno == EINTR);
		ob_lock(&w->lock);
		w->asleep = false;
	}
	/* Without any, whatever ended the sleep is on the queue. */
	while (w->nbells && epoll_wait(w->epoll_fd, &ev, 1, 0) == 1) {
		struct io_bell *b = ev.data.ptr;

		if (!b)
			continue; /* we are awake */
		/* KVM's side may be gone between the look and the read: then there is nothing. */
		if (read(b->fd, &ticks, sizeof(ticks)) != sizeof(ticks))
			continue;
		w->ringing = b;
		w->since_ns = now_ns();
		ob_unlock(&w->lock);
		b->ring(b);
		ob_lock(&w->lock);
		w->ringing = NULL;
		pthread_cond_broadcast(&w->idle);
		if (w->head)
			break;
	}
}

static void *worker_main(void *arg)
{
	struct io_worker *w = arg;

	ob_lock(&w->lock);
	for (;;) {
		struct io_work *work = w->head;

		if (!work) {
			if (w->stop)
				break;
			bells(w, -1);
			continue;
		}
		w->head = work->next;
		if (!w->head)
			w->tail = &w->head;
		work->next = NULL;
		work->queued = false;
		w->running = work;
		w->since_ns = now_ns();
		ob_unlock(&w->lock);

		work->run(work);

		ob_lock(&w->lock);
		w->running = NULL;
		pthread_cond_broadcast(&w->idle);
		/* A device that is never done must not keep others from being heard. */
		bells(w, 0);
	}
	ob_unlock(&w->lock);
	return NULL;
}

int io_worker_start(struct io_worker **out)
{
	/* By the edge: a tick is told once, and never has to be read. */
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	struct io_worker *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return -ENOMEM;
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epoll_fd < 0 || w->wake_fd < 0 ||
	    epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->wake_fd, &ev)) {
		rc = errno;
		goto close;
	}
	ob_mutex_init(&w->lock, OB_RANK_IO);
	pthread_cond_init(&w->idle, NULL);
	w->tail = &w->head;
	rc = pthread_create(&w->thread, NULL, worker_main, w);
	if (rc)
		goto destroy;
	pthread_setname_np(w->thread, "ob-io");
	*out = w;
	return 0;

destroy:
	pthread_cond_destroy(&w->idle);
	ob_mutex_destroy(&w->lock);
close:
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	free(w);
	return -rc;
}

void io_worker_stop(struct io_worker *w)
{
	ob_lock(&w->lock);
	w->stop = true;
	wake(w);
	ob_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	OB_ASSERT(!w->head && !w->nbells);
	pthread_cond_destroy(&w->idle);
	ob_mutex_destroy(&w->lock);
	close(w->wake_fd);
	close(w->epoll_fd);
	free(w);
}

int io_worker_bell(struct io_worker *w, struct io_bell *b)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = b};
	int rc = 0;

	ob_lock(&w->lock);
	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, b->fd, &ev))
		rc = -errno;
	else
		w->nbells++;
	ob_unlock(&w->lock);
	return rc;
}

void io_worker_unbell(struct io_worker *w, struct io_bell *b)
{
	OB_ASSERT(!pthread_equal(pthread_self(), w->thread));
	ob_lock(&w->lock);
	OB_ASSERT(!epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, b->fd, NULL));
	w->nbells--;
	while (w->ringing == b)
		ob_cond_wait(&w->idle, &w->lock);
	ob_unlock(&w->lock);
}

void io_worker_queue(struct io_worker *w, struct io_work *work)
{
	ob_lock(&w->lock);
	/* While it stops, only an item that is running may queue itself again. */
	OB_ASSERT(!w->stop || w->running || w->ringing);
	if (!work->queued) {
		work->queued = true;
		work->next = NULL;
		*w->tail = work;
		w->tail = &work->next;
		wake(w);
	}
	ob_unlock(&w->lock);
}

void io_worker_drain(struct io_worker *w, struct io_work *work)
{
	OB_ASSERT(!pthread_equal(pthread_self(), w->thread));
	ob_lock(&w->lock);
	while (work->queued || w->running == work)
		ob_cond_wait(&w->idle, &w->lock);
	ob_unlock(&w->lock);
}

uint64_t io_worker_busy_ns(struct io_worker *w)
{
	uint64_t ns = 0;

	ob_lock(&w->lock);
	if (w->running || w->ringing)
		ns = now_ns() - w->since_ns;
	ob_unlock(&w->lock);
	return ns;
}
