/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_scan.c: the host seam's part that finds written pages by the kernel's page tables: a
 * userfaultfd in asynchronous write-protect mode, and the ioctl PAGEMAP_SCAN (both Linux 6.7,
 * Documentation/admin-guide/mm/pagemap.rst).
 *
 * A protected page loses its protection at its first write, in the kernel, with no event for
 * anybody; "written" is a page without protection. The order of steps is ept/scan.c's; what is
 * minded here:
 *
 *  - Pages that were never populated count as written, and protecting them puts markers into the
 *    page tables that UFFDIO_MOVE and UFFDIO_ZEROPAGE then trip over. So only pages that hold
 *    memory are asked for, and only those are protected, also when a page has gone since it was
 *    found.
 *  - Protecting with PAGEMAP_SCAN calls the MMU notifiers for the whole range of the call, whatever
 *    matches in it, and KVM drops its entries there. So it is called for runs of pages that are all
 *    to be protected.
 *  - walk_end, where the scan says it got to, is not to be relied on when the vector of found
 *    regions is full. The end of the last region is.
 *
 * The mode needs no privilege: the kernel resolves its faults by itself, those that KVM makes too.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/compat.h"
#include "kernel/host.h"

/* Found regions a call. */
#define SCAN_VEC 256

int host_scan_open(struct ob_host *h, hva_t at, uint64_t size)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
					     UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC};
	struct uffdio_register reg = {.range = {.start = at.v, .len = size},
				      .mode = UFFDIO_REGISTER_MODE_WP};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	int err;

	(void)h;
	if (fd < 0)
		return errno == ENOSYS || errno == EINVAL ? -EOPNOTSUPP : -errno;
	if (ioctl(fd, UFFDIO_API, &api))
		err = errno == EINVAL ? EOPNOTSUPP : errno;
	else if (ioctl(fd, UFFDIO_REGISTER, &reg))
		err = errno;
	else
		return fd;
	close(fd);
	return -err;
}

void host_scan_close(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct uffdio_range range = {.start = at.v, .len = size};

	(void)h;
	/* Closing it does the same, unless a child has a copy of the descriptor. */
	ioctl(fd, UFFDIO_UNREGISTER, &range);
	close(fd);
}

/* Pages that hold memory, here or in swap, and are not protected. */
static void written(struct pm_scan_arg *a, hva_t at, uint64_t size)
{
	*a = (struct pm_scan_arg){
		.size = sizeof(*a),
		.start = at.v,
		.end = at.v + size,
		.category_mask = PAGE_IS_WRITTEN,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_WRITTEN,
	};
}

/* One call; @a begins behind what it found. How many regions, or -errno. */
static int scan(struct ob_host *h, struct pm_scan_arg *a, struct page_region *found, size_t n)
{
	int got;

	a->vec = (uint64_t)(uintptr_t)found;
	a->vec_len = n;
	got = ioctl(h->pagemap_fd, PAGEMAP_SCAN, a);
	if (got < 0)
		return errno == ENOTTY ? -EOPNOTSUPP : -errno;
	if (got)
		a->start = found[got - 1].end;
	return got;
}

int host_scan_get(struct ob_host *h, hva_t at, uint64_t n, uint64_t *bitmap)
{
	struct page_region found[SCAN_VEC];
	struct pm_scan_arg a;
	int got;

	memset(bitmap, 0, (n + 63) / 64 * sizeof(bitmap[0]));
	written(&a, at, n * OB_PAGE_SIZE);
	do {
		got = scan(h, &a, found, OB_ARRAY_SIZE(found));
		if (got < 0)
			return got;
		for (int i = 0; i < got; i++)
			for (uint64_t v = found[i].start; v < found[i].end; v += OB_PAGE_SIZE) {
				uint64_t p = (v - at.v) / OB_PAGE_SIZE;

				bitmap[p / 64] |= 1ULL << p % 64;
			}
	} while (got == (int)OB_ARRAY_SIZE(found) && a.start < a.end);
	return 0;
}

int host_scan_protect(struct ob_host *h, hva_t at, uint64_t size)
{
	struct page_region found[8];
	struct pm_scan_arg a;
	int got;

	/* What it found is of no interest; but with no vector to put it in the kernel takes a short
	 * way, on which it protects all there is, holes included. */
	written(&a, at, size);
	a.flags = PM_SCAN_WP_MATCHING;
	do {
		got = scan(h, &a, found, OB_ARRAY_SIZE(found));
	} while (got == (int)OB_ARRAY_SIZE(found) && a.start < a.end);
	return OB_MIN(got, 0);
}
