/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handler.c: the thread that reads a guest's faults and has them answered (fault.c).
 *
 * What a fault costs is not the answer but being woken: some 45 us when the thread wakes on the CPU
 * where the guest runs, which is free at that moment since the guest waits, and 120 us when it wakes
 * on another one, asleep. So the thread follows its guest's vCPU from CPU to CPU.
 */
#include "ept/fault.h"

#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define FAULTS_AT_ONCE 16
#define HANDLER_STACK  (128 * OB_KIB)

struct handler {
	struct ept *e;
	int uffd, stop_fd;
};

/* Go where the guest runs. That it fails only costs time. */
static void follow(struct ept *e, int *cpu)
{
	int now = e->parker.cpu ? e->parker.cpu(e->parker.arg) : -1;
	cpu_set_t set;

	if (now < 0 || now == *cpu || now >= CPU_SETSIZE)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned int)now, &set);
	sched_setaffinity(0, sizeof(set), &set);
	*cpu = now;
}

static void *handler_thread(void *arg)
{
	struct handler h = *(struct handler *)arg;
	struct ob_fault faults[FAULTS_AT_ONCE];
	struct ept *e = h.e;
	int cpu = -1, n;

	ob_free(e->arena, arg);
	follow(e, &cpu);
	while ((n = e->host->ops->uffd_wait(e->host, h.uffd, h.stop_fd, faults, FAULTS_AT_ONCE)) >
	       0) {
		ept_fault_answer(e, faults, (unsigned int)n);
		/* Behind the answer: somebody waits for that one. */
		follow(e, &cpu);
	}
	if (n < 0) {
		ob_lock(&e->lock);
		ept_lost(e, "faults cannot be read any more");
		ob_unlock(&e->lock);
	}
	return NULL;
}

int ept_handler_start(struct ept *e, struct ept_stage *st)
{
	struct handler *h = ob_alloc(e->arena, sizeof(*h));
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	*h = (struct handler){.e = e, .uffd = st->uffd, .stop_fd = st->stop_fd};
	OB_ASSERT(!pthread_attr_init(&attr));
	OB_ASSERT(!pthread_attr_setstacksize(&attr, HANDLER_STACK));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&st->thread, &attr, handler_thread, h);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		ob_free(e->arena, h);
	st->has_thread = !r;
	return -r;
}

uint64_t ept_handler_cpu_ns(struct ept *e)
{
	struct timespec ts = {0};
	clockid_t clock;

	ob_lock(&e->lock);
	if (e->stage && e->stage->has_thread && !pthread_getcpuclockid(e->stage->thread, &clock))
		clock_gettime(clock, &ts);
	ob_unlock(&e->lock);
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

void ept_handler_stop(struct ept_stage *st)
{
	uint64_t one = 1;

	OB_ASSERT(write(st->stop_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
	pthread_join(st->thread, NULL);
	st->has_thread = false;
}
