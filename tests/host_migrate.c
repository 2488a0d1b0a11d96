/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_migrate.c: the kernel moves pages about (compaction) while they are shared. Nobody writes,
 * so nothing may look broken: a frame taken for broken would be given back and filled anew under a
 * guest that still maps it. Compaction is asked for over and over on a pool with every second frame
 * free, which is what it likes to tidy up.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ksm/domain.h"

#define PAGES  24576ULL
#define ROUNDS 400

static _Atomic unsigned int broken;
static _Atomic bool stop;

static void nothing(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, uint64_t page, uint32_t frame)
{
	(void)arg;
	(void)page;
	(void)frame;
	broken++;
}

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

Test(migrate, frames_that_the_kernel_moves_stay_shared, .timeout = 120)
{
	struct ob_arena *arena = ob_arena_new("test");
	struct ksm_domain *cell;
	struct ob_page view[512];
	struct ob_host h;
	struct ob_err e;
	struct gmem m;
	struct ept ept;
	uint64_t moving = 0;
	uint32_t *odd = calloc(PAGES, sizeof(*odd));
	char b[OB_PAGE_SIZE];
	int pool, meta;
	pthread_t t;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		cr_skip_test("asking for compaction needs root");
	cr_assert(!ob_host_linux_init(&h, &e), "%s", e.msg);
	cr_assert(!gmem_init(&m, &h, PAGES * OB_PAGE_SIZE, "test"));
	cr_assert(!ept_init(&ept, &h, &m, (struct ept_parker){.park = nothing, .unpark = nothing},
			    arena));
	ept_on_broken(&ept, on_broken, NULL);
	cr_assert(!ksm_domain_create(&h, 2 * PAGES, 1, &pool, &meta));
	cr_assert(!ksm_domain_open(&h, pool, meta, 0, arena, &cell));
	memset(b, 7, sizeof(b));
	for (uint64_t p = 0; p < PAGES; p++)
		memcpy(hva_ptr(gmem_page_hva(&m, p)), b, sizeof(b));
	cr_assert(!ept_sync(&ept, 0, PAGES, NULL));
	for (uint64_t p = 0; p < PAGES; p++) {
		uint32_t f;

		cr_assert_eq(ksm_frame_alloc(cell, 2, &f), 2);
		for (uint32_t i = 0; i < 2; i++)
			cr_assert(
				!h.ops->file_write(&h, pool, b, sizeof(b), (f + i) * OB_PAGE_SIZE));
		ksm_frame_publish(cell, f);
		ept_freeze(&ept, p, 1);
		cr_assert_geq(ept_share(&ept, p, 1, pool, f), 0);
		ept_thaw(&ept);
		odd[p] = f + 1;
	}
	for (uint64_t p = 0; p < PAGES; p++)
		ksm_frame_abandon(cell, odd[p], 1);
	for (uint64_t p = 0; p < PAGES; p++)
		(void)*(volatile char *)hva_ptr(gmem_page_hva(&m, p));

	cr_assert(!pthread_create(&t, NULL, compact, NULL));
	for (int i = 0; i < ROUNDS && !broken; i++)
		for (uint64_t p = 0; p < PAGES; p += OB_ARRAY_SIZE(view)) {
			cr_assert(!ept_sync(&ept, p, OB_ARRAY_SIZE(view), view));
			for (uint64_t k = 0; k < OB_ARRAY_SIZE(view); k++)
				moving += view[k].swapped;
		}
	stop = true;
	pthread_join(t, NULL);
	cr_assert_eq(broken, 0, "%u pages look broken, nobody has written", broken);
	cr_assert_eq(ept.st.state[EPT_SHARED], PAGES);
	free(odd);
	for (uint64_t p = 0; p < PAGES; p++)
		ksm_frame_put(cell, ept_frame_of(&ept, p));
	ept_exit(&ept);
	gmem_exit(&m);
	ksm_domain_close(cell);
	close(pool);
	close(meta);
	ob_arena_free(arena);
	ob_host_linux_exit(&h);
	/* Not every kernel and host has something to move: then nothing was tested. */
	if (!moving)
		cr_skip_test("compaction moved no page that was seen");
}
