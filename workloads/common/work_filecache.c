/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_filecache.c: reads of cached files, popular pages more often (Zipf), each verified; and now
 * and then memory pressure: two neighbouring files are evicted and come back in the other order.
 * The disk then writes by DMA over pages that may be merged at that moment, and with other content,
 * so a write that is lost or that reaches another guest's memory does not go unnoticed. The idle
 * workload is here too: it does nothing but be verified.
 */
#include "workloads/common/guest.h"

#define TAG_FILECACHE 8
#define RELOAD_NS     (200 * MS)

static void filecache_init(struct guest *g)
{
	struct filecache *f = &g->filecache;

	gen_zipf_init(&f->zipf, g->cache.pages);
	f->rng.s = gen_key(g->cfg.seed, TAG_FILECACHE);
	f->next_reload = clock_ns(g) + gen_below(&f->rng, RELOAD_NS);
}

static void filecache_op(struct guest *g)
{
	struct filecache *f = &g->filecache;
	uint64_t now = clock_ns(g);

	if (now >= f->next_reload) {
		cache_reload_pair(g);
		f->next_reload = now + RELOAD_NS;
		return;
	}
	cache_check(g, gen_scatter(gen_zipf_rank(&f->zipf, &f->rng), g->cache.pages));
}

const struct workload work_filecache = {
	.name = "filecache",
	.needs_disk = true,
	.batch = 64,
	.sleep_ns = 4 * MS,
	.verify_rate = 12000,
	.write_rate = 100,
	.init = filecache_init,
	.op = filecache_op,
};

/* idle, but for one percent of its memory that it writes each second. */
const struct workload work_steady = {
	.name = "steady",
	.sleep_ns = 20 * MS,
	.verify_rate = 512,
	.write_percent = 1,
};

const struct workload work_idle = {
	.name = "idle",
	.sleep_ns = 200 * MS,
	.verify_rate = 512,
	.write_rate = 10,
};
