/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_uffd.c: userfaultfd, the kernel's way to let us answer faults on memory that we have taken
 * away (Linux's Documentation/admin-guide/mm/userfaultfd.rst).
 *
 * A vCPU's faults are the kernel's own, taken inside KVM_RUN, so the mode for user faults only does
 * not serve: it takes CAP_SYS_PTRACE, vm.unprivileged_userfaultfd, or access to /dev/userfaultfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "kernel/host_int.h"

/* The kernel drops mmap_lock and asks us to try again when the address space is changing. */
#define RETRIES 1000
/* How many pages are looked up at a time after a move that did not go through. */
#define MOVED 64

static int uffd_new(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), dev, err;

	if (fd >= 0 || errno != EPERM)
		return fd >= 0 ? fd : -errno;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -EPERM;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	err = errno;
	close(dev);
	return fd >= 0 ? fd : -err;
}

/* The handshake says what there is only when nothing was asked for, and can be done once: so what is
 * there is asked of one descriptor, and another one is opened with what we want of it. */
int host_uffd_open(struct ob_host *h, struct ob_uffd_caps *caps)
{
	const uint64_t want =
		UFFD_FEATURE_MOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID;
	struct uffdio_api api = {.api = UFFD_API};
	int fd = uffd_new(), err;

	(void)h;
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno;
		close(fd);
		return -err;
	}
	close(fd);
	fd = uffd_new();
	if (fd < 0)
		return fd;
	api = (struct uffdio_api){.api = UFFD_API, .features = api.features & want};
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno;
		close(fd);
		return -err;
	}
	caps->move = api.features & UFFD_FEATURE_MOVE;
	caps->protect = api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	return fd;
}

int host_uffd_register(struct ob_host *h, int fd, hva_t at, uint64_t size, bool protect)
{
	struct uffdio_register r = {
		.range = {.start = at.v, .len = size},
		.mode = UFFDIO_REGISTER_MODE_MISSING | (protect ? UFFDIO_REGISTER_MODE_WP : 0),
	};

	(void)h;
	return ioctl(fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

int host_uffd_unregister(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct uffdio_range r = {.start = at.v, .len = size};

	(void)h;
	return ioctl(fd, UFFDIO_UNREGISTER, &r) ? -errno : 0;
}

/* How many bytes from @src on are gone from there, and are at @dst? */
static uint64_t moved_all_the_same(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size)
{
	struct ob_page from[MOVED], to[MOVED];
	uint64_t n = OB_MIN(size / OB_PAGE_SIZE, MOVED), i = 0;

	if (!n || h->ops->pages(h, src, n, from) || h->ops->pages(h, dst, n, to))
		return 0;
	while (i < n && !(from[i].present || from[i].swapped) && (to[i].present || to[i].swapped))
		i++;
	if (i)
		host_uffd_wake(h, fd, dst, i * OB_PAGE_SIZE);
	return i * OB_PAGE_SIZE;
}

/*
 * What the kernel says of a move that did not go through is not all of the truth. Linux 6.18 moves
 * pages in batches; when it had to try again inside (a page was just being migrated, say), it goes on
 * moving, but no longer counts, and ends with EEXIST at what it has moved itself. So the page map is
 * asked. Nobody but us fills what was empty, or empties what was not, so it can be believed.
 */
int64_t host_uffd_move(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size)
{
	uint64_t done = 0;
	int tries = 0;

	while (done < size) {
		struct uffdio_move m = {
			.dst = dst.v + done, .src = src.v + done, .len = size - done};
		uint64_t before = done;
		int err;

		if (!ioctl(fd, UFFDIO_MOVE, &m))
			return (int64_t)size;
		err = errno;
		if (m.move > 0)
			done += (uint64_t)m.move;
		/* EINVAL comes before anything is moved. */
		if (err != EINVAL)
			done += moved_all_the_same(h, fd, hva(dst.v + done), hva(src.v + done),
						   size - done);
		if (done == before && (err != EAGAIN || tries++ >= RETRIES))
			return done ? (int64_t)done : -err;
	}
	return (int64_t)done;
}

int host_uffd_copy(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size)
{
	int tries = 0;

	(void)h;
	for (uint64_t done = 0; done < size;) {
		struct uffdio_copy c = {
			.dst = dst.v + done, .src = src.v + done, .len = size - done};

		if (!ioctl(fd, UFFDIO_COPY, &c))
			return 0;
		if (c.copy > 0)
			done += (uint64_t)c.copy;
		else if (errno != EAGAIN || tries++ >= RETRIES)
			return -errno;
	}
	return 0;
}

int host_uffd_zero(struct ob_host *h, int fd, hva_t dst, uint64_t size)
{
	int tries = 0;

	(void)h;
	for (uint64_t done = 0; done < size;) {
		struct uffdio_zeropage z = {
			.range = {.start = dst.v + done, .len = size - done},
		};

		if (!ioctl(fd, UFFDIO_ZEROPAGE, &z))
			return 0;
		if (z.zeropage > 0)
			done += (uint64_t)z.zeropage;
		else if (errno != EAGAIN || tries++ >= RETRIES)
			return -errno;
	}
	return 0;
}

int host_uffd_protect(struct ob_host *h, int fd, hva_t at, uint64_t size, bool on)
{
	struct uffdio_writeprotect w = {
		.range = {.start = at.v, .len = size},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int tries = 0;

	(void)h;
	while (ioctl(fd, UFFDIO_WRITEPROTECT, &w))
		if (errno != EAGAIN || tries++ >= RETRIES)
			return -errno;
	return 0;
}

int host_uffd_wake(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct uffdio_range r = {.start = at.v, .len = size};

	(void)h;
	return ioctl(fd, UFFDIO_WAKE, &r) ? -errno : 0;
}

int host_uffd_wait(struct ob_host *h, int fd, int stop_fd, struct ob_fault *out, unsigned int max)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
	struct uffd_msg msg[16];
	unsigned int n = 0;
	ssize_t got;

	(void)h;
	for (;;) {
		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (p[1].revents)
			return 0;
		got = read(fd, msg, sizeof(msg[0]) * OB_MIN(max, OB_ARRAY_SIZE(msg)));
		/* Somebody may have been woken before we came to read of his fault. */
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		for (size_t i = 0; i < (size_t)got / sizeof(msg[0]); i++) {
			if (msg[i].event != UFFD_EVENT_PAGEFAULT)
				continue;
			out[n++] = (struct ob_fault){
				.at = hva(msg[i].arg.pagefault.address & ~OB_PAGE_MASK),
				.tid = msg[i].arg.pagefault.feat.ptid,
				.write = msg[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
				.protect = msg[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
			};
		}
		if (n)
			return (int)n;
	}
}
