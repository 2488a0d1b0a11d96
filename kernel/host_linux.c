/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_linux.c: the host seam on Linux, the only place where guest memory meets a system call.
 *
 * Guest RAM is private anonymous memory, named for whoever reads our maps, left out of any fork (a
 * page that has been shared by a fork cannot be moved or merged safely until it is rewritten), and
 * in 4 KB pages. Transparent huge pages are kept off by prctl for the whole process and not by
 * madvise: a madvise flag would keep ranges that were replaced and put back from becoming one
 * mapping again. Where huge pages are wanted (host_huge.c) it is madvise after all, and every
 * mapping is made with the flag, so that they still become one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "kernel/host_int.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif

#define RAM_ALIGN   (2 * OB_MIB)
#define PM_PRESENT  (1ULL << 63)
#define PM_SWAP	    (1ULL << 62)
#define PM_FILE	    (1ULL << 61)
#define PM_PFN_MASK ((1ULL << 55) - 1)

static int host_map_empty(struct ob_host *h, hva_t at, uint64_t size, const char *name)
{
	void *p = mmap(hva_ptr(at), size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	/* A kernel without named mappings says EINVAL; the name is a courtesy. */
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, size, name);
	/* Nothing can be done about a failure but to know that we never fork. */
	madvise(p, size, MADV_DONTFORK);
	if (h->huge)
		madvise(p, size, MADV_NOHUGEPAGE);
	return 0;
}

/* Nothing is written by it (Linux has not since 2.6.19): what is not mapped is ENOMEM. */
static bool host_mapped(struct ob_host *h, hva_t at, uint64_t size)
{
	(void)h;
	return !msync(hva_ptr(at), size, MS_ASYNC);
}

static int host_ram_map(struct ob_host *h, uint64_t size, const char *name, hva_t *out)
{
	/* Reserve more, so that the start can be aligned for huge pages, and trim. */
	uint8_t *raw = mmap(NULL, size + RAM_ALIGN, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at;
	uint64_t head;
	int r;

	if (raw == MAP_FAILED)
		return -errno;
	at = hva_ptr(hva(ob_align_up(hva_of(raw).v, RAM_ALIGN)));
	head = (uint64_t)(at - raw);
	if (head)
		munmap(raw, head);
	if (RAM_ALIGN - head)
		munmap(at + size, RAM_ALIGN - head);
	r = host_map_empty(h, hva_of(at), size, name);
	if (r) {
		munmap(at, size);
		return r;
	}
	*out = hva_of(at);
	return 0;
}

static int host_unmap(struct ob_host *h, hva_t at, uint64_t size)
{
	(void)h;
	return munmap(hva_ptr(at), size) ? -errno : 0;
}

static int host_map_frames(struct ob_host *h, hva_t at, uint64_t size, int fd, uint64_t off)
{
	void *p = mmap(hva_ptr(at), size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)off);

	(void)h;
	/* Not MADV_DONTFORK, as the guest's own memory is: it would be a second system call for each run,
	 * a tenth of what a single page takes. We never fork (docs/design.md), and what a child would
	 * hold here is the pool's in any case. */
	return p == MAP_FAILED ? -errno : 0;
}

static int host_discard(struct ob_host *h, hva_t at, uint64_t size)
{
	(void)h;
	return madvise(hva_ptr(at), size, MADV_DONTNEED) ? -errno : 0;
}

static int host_populate(struct ob_host *h, hva_t at, uint64_t size)
{
	(void)h;
	if (!madvise(hva_ptr(at), size, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
	for (uint64_t i = 0; i < size; i += OB_PAGE_SIZE) {
		volatile uint8_t *p = (uint8_t *)hva_ptr(at) + i;

		*p = *p;
	}
	return 0;
}

static int host_mergeable(struct ob_host *h, hva_t at, uint64_t size, bool on)
{
	(void)h;
	return madvise(hva_ptr(at), size, on ? MADV_MERGEABLE : MADV_UNMERGEABLE) ? -errno : 0;
}

/* The kernel has two pages of zeroes, a small one and one of 2 MiB. */
static bool zero_pfn(const struct ob_host *h, uint64_t pfn)
{
	if (!pfn)
		return false;
	return pfn == h->zero_pfn ||
	       (h->huge_zero_pfn && pfn - h->huge_zero_pfn < OB_HUGE_SIZE / OB_PAGE_SIZE);
}

/*
 * Without host frame numbers (CAP_SYS_ADMIN) a page of the kernel's zero page looks like any other in
 * the page map. PAGEMAP_SCAN (6.7) tells them apart for everybody; on an older kernel such a page
 * counts as memory of its own, which claims too little saved and never too much.
 */
static void mark_zero_pages(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out)
{
	struct page_region found[64];
	struct pm_scan_arg a = {
		.size = sizeof(a),
		.start = at.v,
		.end = at.v + n * OB_PAGE_SIZE,
		.vec = (uint64_t)(uintptr_t)found,
		.vec_len = OB_ARRAY_SIZE(found),
		.category_mask = PAGE_IS_PFNZERO,
		.return_mask = PAGE_IS_PFNZERO,
	};
	int got;

	do {
		got = ioctl(h->pagemap_fd, PAGEMAP_SCAN, &a);
		for (int i = 0; i < got; i++)
			for (uint64_t v = found[i].start; v < found[i].end; v += OB_PAGE_SIZE) {
				struct ob_page *p = &out[(v - at.v) / OB_PAGE_SIZE];

				p->zero = p->present;
			}
		/* A full vector may leave more; go on behind its last region. */
		if (got > 0)
			a.start = found[got - 1].end;
	} while (got == (int)OB_ARRAY_SIZE(found) && a.start < a.end);
}

static int host_pages(struct ob_host *h, hva_t at, uint64_t n, struct ob_page *out)
{
	uint64_t raw[512];

	for (uint64_t done = 0; done < n;) {
		uint64_t want = OB_MIN(n - done, OB_ARRAY_SIZE(raw));
		off_t off = (off_t)((at.v / OB_PAGE_SIZE + done) * sizeof(raw[0]));
		ssize_t got = pread(h->pagemap_fd, raw, want * sizeof(raw[0]), off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		for (uint64_t i = 0; i < (uint64_t)got / sizeof(raw[0]); i++, done++) {
			struct ob_page *p = &out[done];

			p->present = raw[i] & PM_PRESENT;
			p->swapped = raw[i] & PM_SWAP;
			p->file = raw[i] & PM_FILE;
			p->pfn = p->present ? raw[i] & PM_PFN_MASK : 0;
			p->zero = zero_pfn(h, p->pfn);
		}
	}
	if (!h->knows_pfn)
		mark_zero_pages(h, at, n, out);
	return 0;
}

static int host_memfd(struct ob_host *h, const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	int err;

	(void)h;
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size)) {
		err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

static int host_map_shared(struct ob_host *h, int fd, uint64_t size, void **out)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	(void)h;
	if (p == MAP_FAILED)
		return -errno;
	*out = p;
	return 0;
}

static int host_map_view(struct ob_host *h, int fd, uint64_t size, const void **out)
{
	void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	(void)h;
	if (p == MAP_FAILED)
		return -errno;
	*out = p;
	return 0;
}

static int host_file_read(struct ob_host *h, int fd, void *buf, uint64_t len, uint64_t off)
{
	(void)h;
	for (uint64_t done = 0; done < len;) {
		ssize_t r = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		done += (uint64_t)r;
	}
	return 0;
}

static int host_file_write(struct ob_host *h, int fd, const void *buf, uint64_t len, uint64_t off)
{
	(void)h;
	for (uint64_t done = 0; done < len;) {
		ssize_t r = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		done += (uint64_t)r;
	}
	return 0;
}

static int host_punch(struct ob_host *h, int fd, uint64_t off, uint64_t len)
{
	(void)h;
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)
		       ? -errno
		       : 0;
}

static int host_file_blocks(struct ob_host *h, int fd, uint64_t *bytes)
{
	struct stat st;

	(void)h;
	if (fstat(fd, &st))
		return -errno;
	*bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

static int host_vma_count(struct ob_host *h, uint64_t *have, uint64_t *limit)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long long v;
	int fd, n;
	char buf[16384];
	ssize_t got;

	(void)h;
	if (!f)
		return -errno;
	n = fscanf(f, "%llu", &v);
	fclose(f);
	if (n != 1)
		return -EIO;
	*limit = v;
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*have = 0;
	while ((got = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < got; i++)
			*have += buf[i] == '\n';
	close(fd);
	return got < 0 ? -EIO : 0;
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	OB_ASSERT(!clock_gettime(id, &ts));
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t host_now_ns(struct ob_host *h)
{
	(void)h;
	return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t host_thread_cpu_ns(struct ob_host *h)
{
	(void)h;
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static uint64_t host_thread_preempted(struct ob_host *h)
{
	struct rusage u;

	(void)h;
	return getrusage(RUSAGE_THREAD, &u) ? 0 : (uint64_t)u.ru_nivcsw;
}

static const struct ob_host_ops linux_ops = {
	.ram_map = host_ram_map,
	.unmap = host_unmap,
	.map_frames = host_map_frames,
	.map_empty = host_map_empty,
	.mapped = host_mapped,
	.discard = host_discard,
	.discard_many = host_discard_many,
	.reveal_many = host_discard_many,
	.populate = host_populate,
	.mergeable = host_mergeable,
	.pages = host_pages,
	.memfd = host_memfd,
	.map_shared = host_map_shared,
	.map_view = host_map_view,
	.file_read = host_file_read,
	.file_write = host_file_write,
	.punch = host_punch,
	.file_blocks = host_file_blocks,
	.vma_count = host_vma_count,
	.uffd_open = host_uffd_open,
	.uffd_register = host_uffd_register,
	.uffd_unregister = host_uffd_unregister,
	.uffd_move = host_uffd_move,
	.uffd_copy = host_uffd_copy,
	.uffd_zero = host_uffd_zero,
	.uffd_protect = host_uffd_protect,
	.uffd_wake = host_uffd_wake,
	.uffd_wait = host_uffd_wait,
	.now_ns = host_now_ns,
	.thread_cpu_ns = host_thread_cpu_ns,
	.thread_preempted = host_thread_preempted,

	.scan_open = host_scan_open,
	.scan_get = host_scan_get,
	.scan_protect = host_scan_protect,
	.scan_close = host_scan_close,
	.huge = host_huge,
	.collapse = host_collapse,
	.split = host_split,
	.huge_units = host_huge_units,
};

/* The zero page's frame number: read an untouched page, and see what it got. */
static void learn_zero_pfn(struct ob_host *h)
{
	volatile uint8_t *p = mmap(NULL, OB_PAGE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ob_page page;

	if (p == MAP_FAILED)
		return;
	(void)*p;
	if (!host_pages(h, hva((uint64_t)(uintptr_t)p), 1, &page) && page.pfn) {
		h->zero_pfn = page.pfn;
		h->knows_pfn = true;
	}
	munmap((void *)(uintptr_t)p, OB_PAGE_SIZE);
}

int ob_host_linux_init(struct ob_host *h, struct ob_err *e)
{
	*h = (struct ob_host){.ops = &linux_ops, .pidfd = -1};
	h->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (h->pagemap_fd < 0)
		return ob_fail(e, errno, "cannot read /proc/self/pagemap: %s (is /proc mounted?)",
			       strerror(errno));
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	/* A service manager may have had Linux KSM switched on for all that we start: it would
	 * merge behind our back, and falsify what the control saves. */
	prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
	learn_zero_pfn(h);
	host_batch_init(h);
	return 0;
}

void ob_host_linux_exit(struct ob_host *h)
{
	close(h->pagemap_fd);
	h->pagemap_fd = -1;
	host_batch_exit(h);
}
