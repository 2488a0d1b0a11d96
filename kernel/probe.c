/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c: the kernel mechanisms that move, watch, name and give back pages, each tried on a few
 * pages of our own. A version number or a feature bit says what a kernel knows; whether it lets
 * this process have it, and does it, shows only in the attempt.
 */
#include "kernel/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/compat.h"

#define HUGE (2 * OB_MIB)
/* Every second one of so many pages is given back. */
#define SCATTERED 16

const char *probe_thp_name(enum probe_thp t)
{
	static const char *const name[] = {
		[PROBE_THP_NONE] = "none",
		[PROBE_THP_NEVER] = "never",
		[PROBE_THP_MADVISE] = "madvise",
		[PROBE_THP_ALWAYS] = "always",
	};

	return name[t];
}

/* Pages of our own, not yet touched; NULL when there is no memory for them. */
static uint8_t *take(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* --- userfaultfd ------------------------------------------------------------------------- */

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

static int uffd_register(int fd, const uint8_t *at, uint64_t bytes)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)at, .len = bytes},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

static int uffd_move(int fd, uint8_t *to, uint8_t *from)
{
	for (int tries = 0;; tries++) {
		struct uffdio_move m = {
			.dst = (uintptr_t)to,
			.src = (uintptr_t)from,
			.len = OB_PAGE_SIZE,
		};

		if (!ioctl(fd, UFFDIO_MOVE, &m))
			return 0;
		if (errno != EAGAIN || tries == 100)
			return -errno;
	}
}

/* One page from the first place to the second and back: the word in it must come along. */
static int try_move(int fd)
{
	uint8_t *a = take(2 * OB_PAGE_SIZE), *b = a ? a + OB_PAGE_SIZE : NULL;
	int r;

	if (!a)
		return -ENOMEM;
	*(volatile uint64_t *)a = 0x6f76657262ULL;
	r = uffd_register(fd, a, 2 * OB_PAGE_SIZE);
	if (!r)
		r = uffd_move(fd, b, a);
	if (!r && *(volatile uint64_t *)b != 0x6f76657262ULL)
		r = -EIO;
	if (!r)
		r = uffd_move(fd, a, b);
	if (!r && *(volatile uint64_t *)a != 0x6f76657262ULL)
		r = -EIO;
	munmap(a, 2 * OB_PAGE_SIZE);
	return r;
}

static void probe_uffd(struct probe_memory *p)
{
	int full = uffd_syscall(0), user = uffd_syscall(UFFD_USER_MODE_ONLY), dev = uffd_device();
	int any = full >= 0 ? full : dev >= 0 ? dev : user;
	struct uffdio_api api = {.api = UFFD_API};

	p->uffd_syscall = OB_MIN(full, 0);
	p->uffd_user_only = OB_MIN(user, 0);
	p->uffd_device = OB_MIN(dev, 0);
	p->uffd_api = p->uffd_move = -ENODEV;
	if (any >= 0) {
		p->uffd_api = ioctl(any, UFFDIO_API, &api) ? -errno : 0;
		if (p->uffd_api)
			api.features = 0;
		p->uffd_wp = api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
		p->uffd_wp_async = api.features & UFFD_FEATURE_WP_ASYNC;
		p->uffd_thread_id = api.features & UFFD_FEATURE_THREAD_ID;
		p->uffd_move = p->uffd_api			  ? p->uffd_api
			       : api.features & UFFD_FEATURE_MOVE ? try_move(any)
								  : -EOPNOTSUPP;
	}
	if (full >= 0)
		close(full);
	if (user >= 0)
		close(user);
	if (dev >= 0)
		close(dev);
}

/* --- pagemap ----------------------------------------------------------------------------- */

static int try_scan(int pagemap, const uint8_t *page)
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
	int r = ioctl(pagemap, PAGEMAP_SCAN, &a);

	return r < 0 ? -errno : r == 1 ? 0 : -EIO;
}

static void probe_pagemap(struct probe_memory *p)
{
	uint8_t *page = take(OB_PAGE_SIZE);
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t at = (off_t)((uintptr_t)page / OB_PAGE_SIZE * sizeof(entry));

	p->pagemap = fd < 0 ? -errno : page ? 0 : -ENOMEM;
	p->pagemap_scan = p->pagemap;
	if (!p->pagemap) {
		*(volatile uint8_t *)page = 1;
		if (pread(fd, &entry, sizeof(entry), at) == (ssize_t)sizeof(entry)) {
			p->pagemap_present = entry >> 63;
			p->pagemap_pfn = p->pagemap_present && entry & ((1ULL << 55) - 1);
		}
		p->pagemap_scan = try_scan(fd, page);
	}
	if (fd >= 0)
		close(fd);
	if (page)
		munmap(page, OB_PAGE_SIZE);
}

/* --- giving back ------------------------------------------------------------------------- */

/* Every second page; the others must stay. */
static int give_back(uint8_t *pages)
{
	struct iovec v[SCATTERED / 2];
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), err;
	long r;

	if (pidfd < 0)
		return -errno;
	for (unsigned int i = 0; i < SCATTERED; i++)
		*(volatile uint8_t *)(pages + i * OB_PAGE_SIZE) = 1;
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(v); i++)
		v[i] = (struct iovec){pages + 2 * i * OB_PAGE_SIZE, OB_PAGE_SIZE};
	r = syscall(SYS_process_madvise, pidfd, v, OB_ARRAY_SIZE(v), MADV_DONTNEED, 0);
	err = errno;
	close(pidfd);
	if (r < 0)
		return -err;
	for (unsigned int i = 0; i < SCATTERED; i++)
		if (*(volatile uint8_t *)(pages + i * OB_PAGE_SIZE) != i % 2)
			return -EIO;
	return r == (long)(OB_ARRAY_SIZE(v) * OB_PAGE_SIZE) ? 0 : -EIO;
}

static void probe_give_back(struct probe_memory *p)
{
	uint8_t *pages = take(SCATTERED * OB_PAGE_SIZE);

	p->give_back_vector = pages ? give_back(pages) : -ENOMEM;
	if (pages)
		munmap(pages, SCATTERED * OB_PAGE_SIZE);
}

/* --- huge pages -------------------------------------------------------------------------- */

static enum probe_thp thp_setting(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	char line[96] = "";
	bool read = f && fgets(line, sizeof(line), f);

	if (f)
		fclose(f);
	return !read			   ? PROBE_THP_NONE
	       : strstr(line, "[always]")  ? PROBE_THP_ALWAYS
	       : strstr(line, "[madvise]") ? PROBE_THP_MADVISE
					   : PROBE_THP_NEVER;
}

/* Is [at, at + 2 MiB) one huge page, by the account of its mapping? -errno: unknown. */
static int is_huge(const uint8_t *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long from, to, kib = 0;
	bool inside = false;
	char line[512];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
			inside = (uintptr_t)at >= from && (uintptr_t)at < to;
		else if (inside && sscanf(line, "AnonHugePages: %llu kB", &kib) == 1)
			break;
	}
	fclose(f);
	return kib >= HUGE / OB_KIB;
}

static void touch(uint8_t *at)
{
	for (uint64_t i = 0; i < HUGE; i += OB_PAGE_SIZE)
		*(volatile uint8_t *)(at + i) = 1;
}

static int huge_or(int r, const uint8_t *at)
{
	int huge = r ? r : is_huge(at);

	return huge < 0 ? huge : huge ? 0 : -EIO;
}

/* Once touched as huge memory, once as small pages that are joined afterwards. */
static void try_huge(struct probe_memory *p, uint8_t *at)
{
	int r = madvise(at, HUGE, MADV_HUGEPAGE) ? -errno : 0;

	if (!r)
		touch(at);
	p->thp_fault = huge_or(r, at);
	r = madvise(at, HUGE, MADV_DONTNEED) || madvise(at, HUGE, MADV_NOHUGEPAGE) ? -errno : 0;
	if (!r) {
		touch(at);
		/* Memory that must not be huge is not joined either. */
		r = madvise(at, HUGE, MADV_HUGEPAGE) || madvise(at, HUGE, MADV_COLLAPSE) ? -errno
											 : 0;
	}
	p->thp_collapse = huge_or(r, at);
}

static void probe_thp(struct probe_memory *p)
{
	/* A process that has guests has switched them off for itself. */
	int off = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	uint8_t *raw;

	p->thp = thp_setting();
	p->thp_fault = p->thp_collapse = -EOPNOTSUPP;
	raw = p->thp > PROBE_THP_NEVER ? take(2 * HUGE) : NULL;
	if (!raw)
		return;
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	try_huge(p, hva_ptr(hva(ob_align_up((uintptr_t)raw, HUGE))));
	prctl(PR_SET_THP_DISABLE, OB_MAX(off, 0), 0, 0, 0);
	munmap(raw, 2 * HUGE);
}

void probe_memory(struct probe_memory *p)
{
	*p = (struct probe_memory){0};
	probe_uffd(p);
	probe_pagemap(p);
	probe_give_back(p);
	probe_thp(p);
}
