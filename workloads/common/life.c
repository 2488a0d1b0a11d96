/* SPDX-License-Identifier: Apache-2.0 */
/*
 * life.c: the life of the guest: find out about memory and disk, divide memory, load, then the loop: a
 * batch of operations, some verification, some heap writes, a sleep.
 *
 * Verification and heap writes go by time, so that their rates do not depend on how busy the host
 * is; time that was lost is made up only in part, lest a guest that was held up makes things worse.
 *
 * The memory workloads are simpler: all memory is one area, and the loop is theirs.
 */
#include "workloads/common/guest.h"

void tsc_init(struct guest *g, uint64_t khz)
{
	g->tsc.ns_mult = (1000000ULL << 32) / khz;
	g->tsc.start = rdtsc();
}

uint64_t cycles_ns(const struct guest *g, uint64_t cycles)
{
	return (uint64_t)(((unsigned __int128)cycles * g->tsc.ns_mult) >> 32);
}

uint64_t clock_ns(const struct guest *g)
{
	return cycles_ns(g, rdtsc() - g->tsc.start);
}

/* Work that is due at a rate. What is left over of a unit is kept, as time. */
struct rate {
	uint64_t period; /* ns for one */
	uint64_t last;
};

static uint64_t rate_due(struct rate *r, uint64_t now, uint64_t most)
{
	uint64_t n;

	n = now <= r->last ? 0 : (now - r->last) / r->period;
	if (n > most) {
		r->last = now;
		return most;
	}
	r->last += n * r->period;
	return n;
}

static const struct workload *find_workload(struct guest *g)
{
	const struct workload *const plain[] = {
		&work_idle,   &work_steady,   &work_filecache, &work_kv,
		&work_churn,  &work_counters, &work_touch,     &work_writer,
		&work_unique, &work_same,     &work_shuffle,   &work_first,
		&work_ping,   &work_cowstorm, &work_probe,     &work_remerge,
	};

	const struct workload *w = platform_workload(g->cfg.workload);

	for (unsigned int i = 0; !w && i < sizeof(plain) / sizeof(plain[0]); i++)
		if (str_equal(plain[i]->name, g->cfg.workload))
			w = plain[i];
	if (w && w->needs_bare && !platform_bare)
		guest_fail(g, MG_EXIT_WORKLOAD, "%s is a workload of the microguest only", w->name);
	if (w)
		return w;
	guest_fail(g, MG_EXIT_WORKLOAD, "no workload is called %s", g->cfg.workload);
}

/* Memory from its lowest usable page on: bookkeeping, page cache, heap, the workload's area,
 * free. */
static void divide(struct guest *g, const struct image_super *sb)
{
	struct layout l;
	uint64_t at, have = g->ram.pages - g->ram.taken;

	if (layout_divide(&l, have, sb->data_pages, sb->nfiles, g->work->needs_area))
		guest_fail(g, MG_EXIT_MEMORY, "%u KiB of memory cannot be divided", have * 4);
	at = g->ram.taken + (l.meta + PAGE_SIZE - 1) / PAGE_SIZE;
	g->ram.limit = at;
	g->cache.base = at;
	g->cache.pages = l.cache;
	at += l.cache;
	g->heap.base = at;
	g->heap.pages = l.heap;
	g->heap.common = l.heap_common;
	at += l.heap;
	g->area = (struct area){at, l.area};
	at += l.area;
	g->free = (struct freemem){at, l.clean, l.untouched, l.dirty};
}

static uint64_t param_or(uint64_t given, uint64_t otherwise)
{
	return given == BOOT_NO_PARAM ? otherwise : given;
}

/* Its pages follow each other in RAM, or there is no saying where they are. */
void report_area(struct guest *g)
{
	if (!platform_bare)
		return;
	g->report->area_gpa = (uint64_t)ram_page(g, g->area.base);
	g->report->area_pages = g->area.pages;
}

/* A memory workload: all that is left is its area. */
static void load_area(struct guest *g)
{
	struct boot_config *c = &g->cfg;

	c->param = param_or(c->param, g->work->param);
	c->param2 = param_or(c->param2, g->work->param2);
	if (g->work->meta)
		g->mem.meta = ram_take(g, g->work->meta * PAGE_SIZE);
	g->area = (struct area){g->ram.taken, g->ram.pages - g->ram.taken};
	g->ram.limit = g->ram.taken;
	report_area(g);
	g->work->init(g);
}

static void load(struct guest *g)
{
	struct agent_report *r;
	struct image_super sb;

	ram_init(g);
	g->report = r = ram_take(g, PAGE_SIZE);
	r->magic = AGENT_REPORT_MAGIC;
	r->phase = AGENT_LOADING;
	r->workers_room = 1;
	platform_report(g);
	g->work = find_workload(g);
	if (g->work->step) {
		load_area(g);
		return;
	}
	if (g->cfg.param != BOOT_NO_PARAM || g->cfg.param2 != BOOT_NO_PARAM)
		guest_fail(g, MG_EXIT_WORKLOAD, "%s takes no parameter", g->work->name);
	g->disk_pages = disk_open(g);
	if (g->work->needs_disk && !g->disk_pages)
		guest_fail(g, MG_EXIT_DISK, "%s needs a disk: %s", g->work->name, platform_no_disk);
	cache_probe(g, &sb);
	divide(g, &sb);
	cache_load(g, &sb);
	heap_init(g);
	freemem_init(g);
	if (g->work->init)
		g->work->init(g);
	r->cache_pages = g->cache.pages;
	r->heap_pages = g->heap.pages;
	r->heap_common_pages = g->heap.common;
	r->free_clean_pages = g->free.clean;
	r->free_dirty_pages = g->free.dirty;
	r->free_untouched_pages = g->free.untouched;
}

static void run_batch(struct guest *g)
{
	for (unsigned int i = 0; i < g->work->batch; i++) {
		uint64_t start = rdtsc();

		g->work->op(g);
		g->report->lat[lat_bucket(cycles_ns(g, rdtsc() - start))]++;
		g->report->ops++;
	}
}

static void run_steps(struct guest *g) __attribute__((noreturn));
static void run_steps(struct guest *g)
{
	for (;;) {
		g->work->step(g);
		g->report->heartbeat++;
	}
}

static void run(struct guest *g) __attribute__((noreturn));
static void run(struct guest *g)
{
	const struct workload *w = g->work;
	uint64_t now = clock_ns(g);
	struct rate verify = {SECOND / w->verify_rate, now};
	uint64_t rate = w->write_percent ? g->ram.total * w->write_percent / 100 : w->write_rate;
	struct rate writes = {SECOND / rate, now};

	for (;;) {
		if (w->op)
			run_batch(g);
		now = clock_ns(g);
		/* Verify in whole batches: telling the host costs the same for one page
		 * as for 256. */
		if (now - verify.last >= VERIFY_BATCH * verify.period)
			verify_step(g, rate_due(&verify, now, 2 * VERIFY_BATCH));
		for (uint64_t n = rate_due(&writes, now, 16 + rate / 8); n; n--)
			heap_write(g);
		g->report->heartbeat++;
		agent_sleep(g, w->sleep_ns);
	}
}

void guest_run(struct guest *g)
{
	load(g);
	g->report->phase = AGENT_WARM;
	g->report->workers = 1;
	if (g->work->step) {
		con_printf("%s %u: %s is warm, %u pages\n", platform_name, g->cfg.guest,
			   g->work->name, g->area.pages);
		run_steps(g);
	}
	con_printf("%s %u: %s is warm, %u cached, %u heap pages\n", platform_name, g->cfg.guest,
		   g->work->name, g->cache.pages, g->heap.pages);
	if (g->work->misdeed)
		g->work->misdeed(g);
	run(g);
}
