/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_move.c: moving pages while the kernel migrates them (compaction): what the call says was
 * moved was moved, and what it says was not was not. A page that is believed to be where it is not
 * is lost. And what is mapped at all.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel/kernel.h"

#define PAGES 4096
#define MOVES 300000

static _Atomic bool stop;

/* A one-shot request to the kernel, which leaves no setting behind. */
static void *compact(void *arg)
{
	(void)arg;
	while (!stop) {
		int fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);

		if (fd < 0 || write(fd, "1", 1) != 1)
			stop = true;
		if (fd >= 0)
			close(fd);
		usleep(1000);
	}
	return NULL;
}

static hva_t at(hva_t base, uint64_t page)
{
	return hva(base.v + page * OB_PAGE_SIZE);
}

static bool holds(struct ob_host *h, hva_t base, uint64_t page)
{
	struct ob_page view;

	cr_assert(!h->ops->pages(h, at(base, page), 1, &view));
	return view.present || view.swapped;
}

Test(move, says_what_it_did_while_the_kernel_migrates, .timeout = 120)
{
	static bool out[PAGES];
	struct ob_uffd_caps caps;
	unsigned int seed = 20260203, failed = 0;
	hva_t side[2];
	struct ob_host h;
	struct ob_err e;
	pthread_t t;
	int fd;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		cr_skip_test("asking for compaction needs root");
	cr_assert(!ob_host_linux_init(&h, &e), "%s", e.msg);
	fd = h.ops->uffd_open(&h, &caps);
	if (fd < 0 || !caps.move) {
		ob_host_linux_exit(&h);
		cr_skip_test("no UFFDIO_MOVE on this host");
	}
	for (int i = 0; i < 2; i++) {
		cr_assert(!h.ops->ram_map(&h, PAGES * OB_PAGE_SIZE, "ob:test", &side[i]));
		for (uint64_t p = 0; p < PAGES && !i; p++)
			memset(hva_ptr(at(side[0], p)), (int)(p % 255) + 1, OB_PAGE_SIZE);
		cr_assert(!h.ops->uffd_register(&h, fd, side[i], PAGES * OB_PAGE_SIZE, false));
	}
	cr_assert(!pthread_create(&t, NULL, compact, NULL));
	for (int i = 0; i < MOVES && !stop; i++) {
		uint64_t page = (unsigned int)rand_r(&seed) % PAGES, n = 1;
		int64_t r;

		/* A run as long as it is on one side, of up to 8 pages. */
		while (n < 8 && page + n < PAGES && out[page + n] == out[page])
			n++;
		n = 1 + (unsigned int)rand_r(&seed) % n;
		r = h.ops->uffd_move(&h, fd, at(side[!out[page]], page), at(side[out[page]], page),
				     n * OB_PAGE_SIZE);
		cr_assert(r > 0 || r == -EAGAIN || r == -EBUSY, "seed 20260203, move %d: %lld", i,
			  (long long)r);
		failed += r < 0;
		for (uint64_t k = 0; r > 0 && k < (uint64_t)r / OB_PAGE_SIZE; k++)
			out[page + k] ^= 1;
	}
	stop = true;
	pthread_join(t, NULL);
	cr_assert_lt(failed, MOVES / 2);
	for (uint64_t p = 0; p < PAGES; p++) {
		cr_assert(holds(&h, side[out[p]], p), "page %d is not where it is said to be",
			  (int)p);
		cr_assert(!holds(&h, side[!out[p]], p), "page %d is at two places", (int)p);
		for (unsigned int b = 0; b < OB_PAGE_SIZE; b += 511)
			cr_assert_eq(((uint8_t *)hva_ptr(at(side[out[p]], p)))[b], p % 255 + 1);
	}
	for (int i = 0; i < 2; i++)
		cr_assert(!h.ops->unmap(&h, side[i], PAGES * OB_PAGE_SIZE));
	close(fd);
	ob_host_linux_exit(&h);
}

Test(move, knows_what_is_mapped)
{
	struct ob_host h;
	struct ob_err e;
	hva_t at;

	cr_assert(!ob_host_linux_init(&h, &e), "%s", e.msg);
	cr_assert(!h.ops->ram_map(&h, 8 * OB_PAGE_SIZE, "ob:test", &at));
	cr_assert(h.ops->mapped(&h, at, 8 * OB_PAGE_SIZE), "untouched as it is");
	cr_assert(!h.ops->unmap(&h, hva(at.v + 3 * OB_PAGE_SIZE), OB_PAGE_SIZE));
	for (uint64_t p = 0; p < 8; p++)
		cr_assert_eq(h.ops->mapped(&h, hva(at.v + p * OB_PAGE_SIZE), OB_PAGE_SIZE), p != 3);
	cr_assert_not(h.ops->mapped(&h, at, 8 * OB_PAGE_SIZE), "not all of it");
	cr_assert(!h.ops->map_empty(&h, hva(at.v + 3 * OB_PAGE_SIZE), OB_PAGE_SIZE, "ob:test"));
	cr_assert(h.ops->mapped(&h, at, 8 * OB_PAGE_SIZE));
	cr_assert(!h.ops->unmap(&h, at, 8 * OB_PAGE_SIZE));
	ob_host_linux_exit(&h);
}
