/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd.c: userfaultfd with nothing round it: register, move, answer. See userfaultfd(2) and
 * ioctl_userfaultfd(2), UFFDIO_MOVE.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "tests/yardstick/yardstick.h"

#define STOP_SIGNAL SIGUSR2
#define EVENTS	    16 /* read at once */
#define BUSY_TRIES  10000

static int open_uffd(struct ob_err *e)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MOVE};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC), dev, err;

	if (fd < 0) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev >= 0) {
			fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
			close(dev);
		}
	}
	if (fd < 0)
		return ob_fail(e, errno, "userfaultfd: %s (overbook doctor says more)",
			       strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno;
		close(fd);
		return ob_fail(e, err, "userfaultfd: no UFFDIO_MOVE here: %s", strerror(err));
	}
	return fd;
}

static int register_range(int fd, const void *at, uint64_t bytes, struct ob_err *e)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)at, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(fd, UFFDIO_REGISTER, &r))
		return ob_fail(e, errno, "UFFDIO_REGISTER: %s", strerror(errno));
	return 0;
}

static int move(struct yard_uffd *u, uint8_t *to, uint8_t *from, uint64_t pages)
{
	uint64_t len = pages * OB_PAGE_SIZE, done = 0;

	for (unsigned int tries = 0; done < len;) {
		struct uffdio_move m = {
			.dst = (uintptr_t)to + done,
			.src = (uintptr_t)from + done,
			.len = len - done,
		};

		if (!ioctl(u->fd, UFFDIO_MOVE, &m))
			return 0;
		if (m.move > 0) {
			done += (uint64_t)m.move;
			continue;
		}
		/* Linux 6.18 may have moved it all the same (kernel/host_uffd.c). Rare enough to go
		 * through the way that knows. */
		if (errno == EEXIST) {
			struct ob_host *h = &u->y->host;
			int64_t r = h->ops->uffd_move(h, u->fd, hva(m.dst), hva(m.src), m.len);

			if (r <= 0)
				return r ? (int)r : -EIO;
			done += (uint64_t)r;
			continue;
		}
		/* Somebody looks at the page at this moment (EBUSY), or changes mappings. */
		if ((errno != EAGAIN && errno != EBUSY) || ++tries > BUSY_TRIES)
			return -errno;
		sched_yield();
	}
	return 0;
}

int yard_move_out(struct yard_uffd *u, uint64_t page, uint64_t n)
{
	return move(u, u->staging + page * OB_PAGE_SIZE, u->y->area + page * OB_PAGE_SIZE, n);
}

int yard_move_back(struct yard_uffd *u, uint64_t page, uint64_t n)
{
	return move(u, u->y->area + page * OB_PAGE_SIZE, u->staging + page * OB_PAGE_SIZE, n);
}

int yard_wake(struct yard_uffd *u, uint64_t page)
{
	struct uffdio_range r = {
		.start = (uintptr_t)u->y->area + page * OB_PAGE_SIZE,
		.len = OB_PAGE_SIZE,
	};

	return ioctl(u->fd, UFFDIO_WAKE, &r) ? -errno : 0;
}

/* Reads block: the plainest way, and no slower than asking first whether there is something. */
static void *handler(void *arg)
{
	struct yard_uffd *u = arg;
	struct uffd_msg msg[EVENTS];

	while (!u->stop) {
		ssize_t n = read(u->fd, msg, sizeof(msg));

		for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
			uint64_t at = msg[i].arg.pagefault.address - (uintptr_t)u->y->area;
			int ret;

			u->faults++; /* first: the guest may go on before we do */
			ret = u->answer(u, at / OB_PAGE_SIZE);
			if (ret && !u->error)
				u->error = ret;
		}
	}
	return NULL;
}

static void on_stop(int sig)
{
	(void)sig;
}

static int start_handler(struct yard_uffd *u, struct ob_err *e)
{
	struct sigaction sa = {.sa_handler = on_stop}; /* no SA_RESTART: ends a read */
	cpu_set_t old;
	int ret;

	OB_ASSERT(!sigaction(STOP_SIGNAL, &sa, NULL));
	OB_ASSERT(!sched_getaffinity(0, sizeof(old), &old));
	ret = yard_stay(u->y->opts->cpu, e);
	if (!ret && (ret = -pthread_create(&u->thread, NULL, handler, u)))
		ob_fail(e, -ret, "cannot start a thread: %s", strerror(-ret));
	u->has_thread = !ret;
	sched_setaffinity(0, sizeof(old), &old);
	return ret;
}

int yard_uffd_open(struct yard_uffd *u, struct yard *y, int (*answer)(struct yard_uffd *, uint64_t),
		   void *arg, struct ob_err *e)
{
	uint64_t bytes = y->pages * OB_PAGE_SIZE;
	hva_t at;
	int ret;

	*u = (struct yard_uffd){.y = y, .answer = answer, .arg = arg};
	u->fd = -1;
	if (!y->in_one_piece)
		return ob_fail(e, EINVAL, "a guest with a hole in its memory: at most 3G");
	u->fd = open_uffd(e);
	if (u->fd < 0)
		return u->fd;
	ret = y->host.ops->ram_map(&y->host, bytes, "yardstick:staging", &at);
	if (ret)
		return ob_fail(e, -ret, "cannot map the staging area: %s", strerror(-ret));
	u->staging = hva_ptr(at);
	ret = register_range(u->fd, y->area, bytes, e);
	if (!ret)
		ret = register_range(u->fd, u->staging, bytes, e);
	return ret ? ret : start_handler(u, e);
}

void yard_uffd_close(struct yard_uffd *u)
{
	u->stop = true;
	/* A signal that comes just before it reads is lost: again, until it has ended. */
	while (u->has_thread && pthread_tryjoin_np(u->thread, NULL) == EBUSY) {
		pthread_kill(u->thread, STOP_SIGNAL);
		yard_nap(OB_NS_PER_MS);
	}
	/* Whoever waits for a page is let go, and finds an empty one. */
	if (u->fd >= 0)
		close(u->fd);
	if (u->staging)
		u->y->host.ops->unmap(&u->y->host, hva_of(u->staging), u->y->pages * OB_PAGE_SIZE);
	*u = (struct yard_uffd){.fd = -1};
}
