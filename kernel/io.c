/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.c: the thread that does the devices' slow work, one for all VMs of a cell.
 *
 * A work item is on the queue at most once. It leaves the queue before it runs, so a ring of the
 * doorbell that comes while it runs queues it again and is not lost; and it runs on one thread, so
 * two runs of an item never overlap. Items are taken in the order in which they were queued: a
 * device with much to do does a part, queues itself again and so lets the others have their turn.
 *
 * The worker may sleep in a device's access to guest memory (a range is frozen just then). Whoever
 * freezes must therefore never wait for the worker; see gmem_access_begin.
 */
#include <errno.h>
#include <stdlib.h>

#include "kernel/device.h"

struct io_worker {
	pthread_t thread;
	struct ob_mutex lock; /* all below, and next and queued of every item */
	pthread_cond_t more;  /* something was queued, or stop */
	pthread_cond_t idle;  /* an item has been run */
	struct io_work *head, **tail;
	struct io_work *running;
	bool stop;
};

static void *worker_main(void *arg)
{
	struct io_worker *w = arg;

	ob_lock(&w->lock);
	for (;;) {
		struct io_work *work = w->head;

		if (!work) {
			if (w->stop)
				break;
			ob_cond_wait(&w->more, &w->lock);
			continue;
		}
		w->head = work->next;
		if (!w->head)
			w->tail = &w->head;
		work->next = NULL;
		work->queued = false;
		w->running = work;
		ob_unlock(&w->lock);

		work->run(work);

		ob_lock(&w->lock);
		w->running = NULL;
		pthread_cond_broadcast(&w->idle);
	}
	ob_unlock(&w->lock);
	return NULL;
}

int io_worker_start(struct io_worker **out)
{
	struct io_worker *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return -ENOMEM;
	ob_mutex_init(&w->lock, OB_RANK_IO);
	pthread_cond_init(&w->more, NULL);
	pthread_cond_init(&w->idle, NULL);
	w->tail = &w->head;
	rc = pthread_create(&w->thread, NULL, worker_main, w);
	if (rc) {
		free(w);
		return -rc;
	}
	pthread_setname_np(w->thread, "ob-io");
	*out = w;
	return 0;
}

void io_worker_stop(struct io_worker *w)
{
	ob_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->more);
	ob_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	OB_ASSERT(!w->head);
	pthread_cond_destroy(&w->idle);
	pthread_cond_destroy(&w->more);
	ob_mutex_destroy(&w->lock);
	free(w);
}

void io_worker_queue(struct io_worker *w, struct io_work *work)
{
	ob_lock(&w->lock);
	/* While it stops, only an item that is running may queue itself again. */
	OB_ASSERT(!w->stop || w->running);
	if (!work->queued) {
		work->queued = true;
		work->next = NULL;
		*w->tail = work;
		w->tail = &work->next;
		pthread_cond_signal(&w->more);
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
