/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_batch.c: giving scattered pages back in few calls.
 *
 * What a discard costs is the flush of the other CPUs' translations, not the page: one of a single
 * page takes some 13 us while a vCPU runs. From Linux 6.13 on a process may call process_madvise on
 * itself with MADV_DONTNEED, a vector of ranges in one call (and one flush, later); a page then costs
 * about 1 us. Whether this kernel can is found out by doing it on a page of our own. Where it cannot,
 * ranges that touch are joined, and each run is one madvise: whoever has a large batch parks the
 * guest first, so that there is nobody to flush.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/host_int.h"

#define BATCH 512 /* ranges in one call; the kernel takes up to 1024 */

static ssize_t advise(struct ob_host *h, const struct iovec *iov, size_t n)
{
	return syscall(SYS_process_madvise, h->pidfd, iov, n, MADV_DONTNEED, 0);
}

void host_batch_init(struct ob_host *h)
{
	struct iovec iov = {.iov_len = OB_PAGE_SIZE};

	h->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (h->pidfd < 0)
		return;
	iov.iov_base = mmap(NULL, OB_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	if (iov.iov_base == MAP_FAILED)
		return;
	*(volatile char *)iov.iov_base = 1;
	h->vectored =
		advise(h, &iov, 1) == (ssize_t)OB_PAGE_SIZE && !*(volatile char *)iov.iov_base;
	munmap(iov.iov_base, OB_PAGE_SIZE);
}

void host_batch_exit(struct ob_host *h)
{
	if (h->pidfd >= 0)
		close(h->pidfd);
	h->pidfd = -1;
}

/* How many of @r are one stretch of memory. */
static unsigned int joined(const struct ob_range *r, unsigned int n, uint64_t *size)
{
	unsigned int i = 1;

	*size = r[0].size;
	while (i < n && r[i].at.v == r[0].at.v + *size)
		*size += r[i++].size;
	return i;
}

static int discard_vector(struct ob_host *h, const struct iovec *iov, unsigned int n, uint64_t size)
{
	ssize_t done = advise(h, iov, n);

	if (done == (ssize_t)size)
		return 0;
	/* Stopped on the way, or refused. One by one then: dropping what is dropped already does no
	 * harm. */
	for (unsigned int i = 0; i < n; i++)
		if (madvise(iov[i].iov_base, iov[i].iov_len, MADV_DONTNEED))
			return -errno;
	return 0;
}

int host_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n)
{
	struct iovec iov[BATCH];
	unsigned int used = 0, run;
	uint64_t size, sum = 0;
	int r = 0;

	for (unsigned int i = 0; i < n && !r; i += run) {
		void *at = hva_ptr(ranges[i].at);

		run = joined(&ranges[i], n - i, &size);
		if (!h->vectored) {
			r = madvise(at, size, MADV_DONTNEED) ? -errno : 0;
			continue;
		}
		iov[used++] = (struct iovec){.iov_base = at, .iov_len = size};
		sum += size;
		if (used < BATCH && i + run < n)
			continue;
		r = discard_vector(h, iov, used, sum);
		used = 0;
		sum = 0;
	}
	return r;
}
