/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_probe.c: the kernel mechanisms that move, watch and name pages: userfaultfd, pagemap and
 * its scan, process_madvise, KSM. Each is tried on one page of our own.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "kernel/compat.h"

#ifndef UFFD_USER_MODE_ONLY /* 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif

static int uffd_syscall(int flags)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : (int)fd;
}

static int uffd_device(void)
{
	int fd, dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = -errno;
	close(dev);
	return fd;
}

static void uffd_features(struct doctor *d, int fd)
{
	static const struct {
		uint64_t bit;
		const char *name, *need, *advice;
	} feats[] = {
		{UFFD_FEATURE_MOVE, "uffd MOVE",
		 "taking pages away without a copy (swap, compression)",
		 "a host kernel of 6.8 or later; without it pages are copied"},
		{UFFD_FEATURE_WP_ASYNC, "uffd WP_ASYNC",
		 "watching writes to memory that no guest maps", "a host kernel of 6.7 or later"},
		{UFFD_FEATURE_PAGEFAULT_FLAG_WP, "uffd write-protect", "watching writes",
		 "a host kernel of 5.7 or later"},
		{UFFD_FEATURE_THREAD_ID, "uffd thread id", "telling which vCPU waits",
		 "a host kernel of 4.14 or later"},
	};
	struct uffdio_api api = {.api = UFFD_API};

	if (ioctl(fd, UFFDIO_API, &api) != 0) {
		doctor_add(d, "uffd API", DOCTOR_LACK, "swap and compression of guest pages",
			   "a newer host kernel", "refused: %s", strerror(errno));
		return;
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(feats); i++) {
		bool has = api.features & feats[i].bit;

		doctor_add(d, feats[i].name, has ? DOCTOR_OK : DOCTOR_LACK, feats[i].need,
			   feats[i].advice, "%s", has ? "yes" : "this kernel has it not");
	}
}

static const char *outcome(int fd)
{
	return fd >= 0 ? "yes" : strerror(-fd);
}

static void probe_uffd(struct doctor *d)
{
	int full = uffd_syscall(0), user = uffd_syscall(UFFD_USER_MODE_ONLY), dev = uffd_device();
	int any = full >= 0 ? full : dev;

	doctor_add(d, "userfaultfd", any >= 0 ? DOCTOR_OK : DOCTOR_LACK,
		   "swap, compression and sampling of guest pages (KVM faults are kernel faults)",
		   "sudo sysctl vm.unprivileged_userfaultfd=1, or sudo setfacl -m u:$USER:rw "
		   "/dev/userfaultfd",
		   "system call: %s; /dev/userfaultfd: %s", outcome(full), outcome(dev));
	doctor_add(d, "uffd user mode only", user >= 0 ? DOCTOR_OK : DOCTOR_NOTE,
		   "tests of our own memory; it does not serve guests",
		   "a host kernel of 5.11 or later", "%s", outcome(user));
	if (any >= 0)
		uffd_features(d, any);
	if (full >= 0)
		close(full);
	if (user >= 0)
		close(user);
	if (dev >= 0)
		close(dev);
}

/* May we see host frame numbers? An entry of ours says 0 for the frame when not. */
static void probe_pfn(struct doctor *d, int pagemap, const void *page)
{
	uint64_t entry = 0;
	off_t at = (off_t)((uintptr_t)page / OB_PAGE_SIZE * sizeof(entry));
	bool read_ok = pread(pagemap, &entry, sizeof(entry), at) == (ssize_t)sizeof(entry);
	bool present = read_ok && entry >> 63, pfn = entry & ((1ULL << 55) - 1);

	doctor_add(d, "pagemap", present ? DOCTOR_OK : DOCTOR_LACK,
		   "the page-state map: which pages are present, and which are broken off",
		   "mount /proc without restrictions", "%s",
		   present ? "readable" : "does not show a page of our own")
		->required = true;
	doctor_add(d, "host frame numbers", pfn ? DOCTOR_OK : DOCTOR_NOTE,
		   "the split of what Linux KSM saves, and the check of shared frames",
		   "run as root (CAP_SYS_ADMIN); our own merging is measured without", "%s",
		   pfn ? "readable" : "hidden from us");
}

static void probe_scan(struct doctor *d, int pagemap, void *page)
{
	struct page_region region = {0};
	struct pm_scan_arg a = {
		.size = sizeof(a),
		.start = (uintptr_t)page,
		.end = (uintptr_t)page + OB_PAGE_SIZE,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};
	int ret = ioctl(pagemap, PAGEMAP_SCAN, &a);

	doctor_add(d, "PAGEMAP_SCAN", ret == 1 ? DOCTOR_OK : DOCTOR_NOTE,
		   "faster reading of page states; the plain pagemap serves as well",
		   "a host kernel of 6.7 or later", "%s",
		   ret == 1  ? "yes"
		   : ret < 0 ? strerror(errno)
			     : "does not report a page of our own");
}

static void probe_madvise(struct doctor *d, void *page)
{
	struct iovec v = {.iov_base = page, .iov_len = OB_PAGE_SIZE};
	long ret = -1;
	int err, pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	*(volatile char *)page = 1;
	if (pidfd >= 0)
		ret = syscall(SYS_process_madvise, pidfd, &v, 1, MADV_DONTNEED, 0);
	err = errno;
	if (pidfd >= 0)
		close(pidfd);
	/* It must have worked, not only have been allowed: the page is zero again. */
	if (ret == (long)OB_PAGE_SIZE && *(volatile char *)page == 0)
		doctor_add(d, "process_madvise", DOCTOR_OK,
			   "giving scattered pages back in one call", "",
			   "discards pages of our own");
	else
		doctor_add(d, "process_madvise", DOCTOR_NOTE,
			   "giving scattered pages back in one call",
			   "a host kernel of 6.13 or later; without it each run of pages is a call",
			   "%s", ret < 0 ? strerror(err) : "did nothing");
}

static void probe_ksm(struct doctor *d)
{
	static const char need[] = "--sharing kernel, the yardstick (Linux KSM)";
	static const char run[] = "/sys/kernel/mm/ksm/run";
	char state = '?';
	int fd = open(run, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		doctor_add(d, "ksm", DOCTOR_LACK, need, "a host kernel with CONFIG_KSM", "no %s",
			   run);
		return;
	}
	if (read(fd, &state, 1) != 1)
		state = '?';
	close(fd);
	if (access(run, W_OK) != 0)
		doctor_add(d, "ksm", DOCTOR_LACK, need,
			   "run as root; sharing off and hash need no root",
			   "there (run %c), but we may not drive it", state);
	else if (state == '1')
		doctor_add(d, "ksm", DOCTOR_NOTE, need,
			   "echo 0 | sudo tee /sys/kernel/mm/ksm/run, if nobody else uses it",
			   "running already: its work for others counts into what we measure");
	else
		doctor_add(d, "ksm", DOCTOR_OK, need, "", "there, writable, run %c", state);
}

void doctor_memory(struct doctor *d)
{
	void *page = mmap(NULL, OB_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	OB_ASSERT(page != MAP_FAILED);
	*(volatile char *)page = 1;
	probe_uffd(d);
	if (pagemap < 0) {
		doctor_add(d, "pagemap", DOCTOR_LACK, "the page-state map", "mount /proc", "%s",
			   strerror(errno))
			->required = true;
	} else {
		probe_pfn(d, pagemap, page);
		probe_scan(d, pagemap, page);
		close(pagemap);
	}
	probe_madvise(d, page);
	probe_ksm(d);
	munmap(page, OB_PAGE_SIZE);
}
