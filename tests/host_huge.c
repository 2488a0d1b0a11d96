/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_huge.c: huge pages of the real kernel: that breaking one really gives memory back, as a
 * memory cgroup counts it and as the kernel says of each frame; that building makes one again; and
 * that contents stay under threads that write all the time.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ept/ept.h"
#include "harness/bench_child.h"
#include "kernel/probe.h"

#define UNIT  EPT_UNIT_PAGES
#define UNITS 16
#define PAGES (UNITS * UNIT)

/* Writers stand still while the guest is parked. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int parked, inside;
};

struct guest {
	struct gate gate;
	struct ob_host h;
	struct gmem mem;
	struct ept e;
	struct ob_arena *arena;
	int pool;
};

static void gate_move(struct gate *g, int parked, int inside)
{
	pthread_mutex_lock(&g->lock);
	while (inside > 0 && g->parked)
		pthread_cond_wait(&g->changed, &g->lock);
	g->parked += (unsigned int)parked;
	g->inside += (unsigned int)inside;
	pthread_cond_broadcast(&g->changed);
	while (parked > 0 && g->inside)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void park(void *arg)
{
	gate_move(arg, 1, 0);
}

static void unpark(void *arg)
{
	gate_move(arg, -1, 0);
}

/* Before PAGEMAP_SCAN (Linux 6.7) a unit that was split where it lies looks whole. */
static bool told_exactly(void)
{
	struct probe_memory p;

	probe_memory(&p);
	return !p.pagemap_scan;
}

/* Before UFFDIO_MOVE (Linux 6.8) pages are taken by copying them. */
static void needs_move(void)
{
	struct probe_memory p;

	probe_memory(&p);
	if (p.uffd_move)
		cr_skip_test("no UFFDIO_MOVE: huge pages are taken by copying small ones");
}

static int init_ept(struct guest *g)
{
	return ept_init(&g->e, &g->h, &g->mem,
			(struct ept_parker){.park = park, .unpark = unpark, .arg = &g->gate},
			g->arena);
}

static uint64_t *page_of(struct guest *g, uint64_t page)
{
	return hva_ptr(gmem_page_hva(&g->mem, page));
}

static struct ept_huge_stats stats(struct guest *g)
{
	struct ept_huge_stats st;

	cr_assert(!ept_huge_read(&g->e, &st));
	return st;
}

/* Memory of huge pages, of which every page says its number, but for unit @untouched. Skips where
 * there are none. */
static void make_but(struct guest *g, uint64_t untouched)
{
	struct ob_err e;

	memset(g, 0, sizeof(*g));
	cr_assert(!ob_host_linux_init(&g->h, &e), "%s", e.msg);
	if (ob_host_linux_huge(&g->h))
		cr_skip_test("this kernel has no transparent huge pages");
	cr_assert(!gmem_init(&g->mem, &g->h, PAGES * OB_PAGE_SIZE, "test"));
	cr_assert(!gmem_huge(&g->mem));
	g->arena = ob_arena_new("test");
	pthread_mutex_init(&g->gate.lock, NULL);
	pthread_cond_init(&g->gate.changed, NULL);
	cr_assert(!init_ept(g));
	g->pool = g->h.ops->memfd(&g->h, "pool", PAGES * OB_PAGE_SIZE);
	cr_assert(g->pool >= 0);
	for (uint64_t p = 0; p < PAGES; p++)
		for (unsigned int i = 0; i < OB_PAGE_SIZE / 8 && p / UNIT != untouched; i++)
			page_of(g, p)[i] = p + 1;
	cr_assert(!ept_sync(&g->e, 0, PAGES, NULL));
	if (stats(g).huge < UNITS - (untouched < UNITS))
		cr_skip_test("no huge page is to be had (switched off, or memory is in pieces)");
}

static void make(struct guest *g)
{
	make_but(g, UNITS);
}

/* Mappings that its memory consists of. */
static unsigned int mappings(struct guest *g)
{
	uint64_t from = gmem_page_hva(&g->mem, 0).v, to = from + PAGES * OB_PAGE_SIZE;
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long long a, b;
	unsigned int n = 0;
	char line[400];

	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		n += sscanf(line, "%llx-%llx", &a, &b) == 2 && a < to && b > from;
	fclose(f);
	return n;
}

static void unmake(struct guest *g)
{
	struct ept_verify v;

	cr_assert(!ept_verify(&g->e, &v));
	cr_assert_eq(v.differences, 0, "page %d: %s", (int)v.first[0].page, v.first[0].why);
	ept_exit(&g->e);
	gmem_exit(&g->mem);
	close(g->pool);
	cr_assert_eq(ob_arena_bytes(g->arena), 0);
	ob_arena_free(g->arena);
	ob_host_linux_exit(&g->h);
}

static void holds(struct guest *g, uint64_t page, uint64_t n)
{
	for (uint64_t p = page; p < page + n; p++)
		for (unsigned int i = 0; i < OB_PAGE_SIZE / 8; i += 37)
			cr_assert_eq(page_of(g, p)[i], p + 1, "page %d", (int)p);
}

/* --- what the kernel holds -------------------------------------------------------------------- */

/* A memory cgroup of our own, with us in it; what is charged to it. */
struct account {
	struct bench_cgroup cg;
	bool there;
};

static void join(const char *dir, const char *what)
{
	char path[600], pid[24];
	int fd;

	snprintf(path, sizeof(path), "%.500s/%s", dir, what);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	cr_assert(fd >= 0 && write(fd, pid, strlen(pid)) > 0, "%s", path);
	close(fd);
}

static void account_open(struct account *a)
{
	a->there = bench_cgroup_open(&a->cg);
	if (a->there)
		join(a->cg.dir, "cgroup.procs");
}

static void account_close(struct account *a)
{
	if (!a->there)
		return;
	join(a->cg.dir, "../cgroup.procs");
	bench_cgroup_close(&a->cg);
}

static int64_t charged(struct account *a)
{
	static const char *const name[] = {"memory.usage_in_bytes", "memory.current"};
	long long v = -1;

	for (unsigned int i = 0; i < 2 && v < 0; i++) {
		char path[600];
		FILE *f;

		snprintf(path, sizeof(path), "%.500s/%s", a->cg.dir, name[i]);
		f = fopen(path, "re");
		if (!f)
			continue;
		cr_assert_eq(fscanf(f, "%lld", &v), 1);
		fclose(f);
	}
	cr_assert_geq(v, 0);
	return v;
}

/* How many of the frames behind these pages are parts of a larger page? -1: we may not know. */
static int64_t compound(struct guest *g, uint64_t page, uint64_t n)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	struct ob_page view[UNIT];
	int64_t sum = 0;

	if (fd < 0 || !g->h.knows_pfn || n > UNIT) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	cr_assert(!g->h.ops->pages(&g->h, gmem_page_hva(&g->mem, page), n, view));
	for (uint64_t i = 0; i < n; i++) {
		uint64_t flags = 0;

		if (view[i].pfn && !view[i].zero)
			cr_assert_eq(pread(fd, &flags, 8, (off_t)(view[i].pfn * 8)), 8);
		sum += (flags & (1 << 15 | 1 << 16)) != 0; /* KPF_COMPOUND_HEAD, _TAIL */
	}
	close(fd);
	return sum;
}

/* Of twelve units 100 pages each; what the kernel charges in batches a CPU makes the account inexact. */
#define MANY	12
#define SOME	100
#define INEXACT (OB_MIB)

Test(huge, a_break_really_frees)
{
	const int64_t said = MANY * SOME * OB_PAGE_SIZE;
	int64_t before, after;
	struct account a;
	struct guest g;

	account_open(&a);
	make(&g);
	if (compound(&g, UNIT, UNIT) >= 0)
		cr_assert_eq(compound(&g, UNIT, UNIT), UNIT);
	before = a.there ? charged(&a) : 0;
	/* The guest gives these up. */
	for (uint64_t u = 1; u <= MANY; u++)
		cr_assert_eq(ept_balloon(&g.e, u * UNIT + 50, SOME, true), said / MANY);
	after = a.there ? charged(&a) : 0;
	if (a.there)
		cr_assert_geq(before - after, said - (int64_t)INEXACT,
			      "said to be freed: %lld KiB, freed: %lld KiB", (long long)said / 1024,
			      (long long)(before - after) / 1024);
	cr_assert_eq(stats(&g).huge, UNITS - MANY);
	cr_assert_eq(stats(&g).broken, MANY);
	if (compound(&g, UNIT, UNIT) >= 0)
		cr_assert_eq(compound(&g, UNIT, UNIT), 0, "it was not split");
	for (uint64_t u = 1; u <= MANY; u++) {
		holds(&g, u * UNIT, 50);
		holds(&g, u * UNIT + 50 + SOME, UNIT - 50 - SOME);
	}
	unmake(&g);
	account_close(&a);
	if (!a.there)
		cr_skip_test("no memory cgroup to be had: freed memory was not counted");
}

/* What this kernel does when a huge page is not split first: the reason for all of it. */
Test(huge, a_part_that_is_dropped_is_held)
{
	const int64_t said = MANY * SOME * OB_PAGE_SIZE;
	int64_t before, after;
	struct account a;
	struct guest g;

	account_open(&a);
	if (!a.there)
		cr_skip_test("no memory cgroup to be had");
	make(&g);
	before = charged(&a);
	for (uint64_t u = 1; u <= MANY; u++)
		cr_assert(!g.h.ops->discard(&g.h, gmem_page_hva(&g.mem, u * UNIT + 50),
					    SOME * OB_PAGE_SIZE));
	after = charged(&a);
	cr_assert_leq(before - after, (int64_t)INEXACT, "this kernel splits at once: %lld KiB",
		      (long long)(before - after) / 1024);
	/* And splitting gives it back, also when the page is mapped in pieces by now. */
	for (uint64_t u = 1; u <= MANY; u++)
		cr_assert(ept_huge_break(&g.e, u) >= 0);
	cr_assert_geq(before - charged(&a), said - (int64_t)INEXACT);
	for (uint64_t u = 1; u <= MANY; u++)
		cr_assert(ept_balloon(&g.e, u * UNIT + 50, SOME, true) >= 0);
	unmake(&g);
	account_close(&a);
}

Test(huge, broken_and_built_again)
{
	bool exact = told_exactly(); /* the probe changes how this process gets huge pages */
	struct guest g;
	int r;

	make(&g);
	cr_assert_eq(ept_huge_break(&g.e, 3), 0);
	cr_assert(!ept_unit_is_huge(&g.e, 3 * UNIT));
	if (exact)
		cr_assert_eq(stats(&g).huge, UNITS - 1);
	holds(&g, 3 * UNIT, UNIT);
	r = ept_huge_build(&g.e, 3);
	if (r == -ENOMEM)
		cr_skip_test("no huge page is to be had");
	cr_assert_eq(r, 0, "%d", r);
	cr_assert(ept_unit_is_huge(&g.e, 3 * UNIT));
	holds(&g, 0, PAGES);
	unmake(&g);
}

/* Share some pages of a unit with frames that hold the same. */
static void share(struct guest *g, uint64_t page, uint64_t n, uint32_t frame)
{
	cr_assert(!g->h.ops->file_write(&g->h, g->pool, page_of(g, page), n * OB_PAGE_SIZE,
					frame * OB_PAGE_SIZE));
	cr_assert(!ept_freeze(&g->e, page, n));
	cr_assert_eq(ept_share(&g->e, page, n, g->pool, frame), (int64_t)(n * OB_PAGE_SIZE));
	ept_thaw(&g->e);
}

Test(huge, built_from_pages_over_the_pool)
{
	const struct ept_run one = {.page = 2 * UNIT + 300, .n = 1};
	unsigned int before;
	struct guest g;
	int64_t taken;
	int r;

	make(&g);
	/* A page is taken and put back, so that the window was open. */
	taken = ept_take(&g.e, &one, 1, false);
	cr_assert(taken == 1 || taken == -EPERM, "%d", (int)taken);
	before = mappings(&g);
	for (uint64_t i = 0; i < 40; i++)
		share(&g, 2 * UNIT + 5 * i, 2, (uint32_t)(3 * i));
	cr_assert_eq(ept_huge_build(&g.e, 2), -EINVAL, "pages are shared");
	for (uint64_t i = 0; i < UNIT; i++)
		page_of(&g, 2 * UNIT + i)[1] = 2 * UNIT + i + 1; /* breaks them off */
	cr_assert(!ept_sync(&g.e, 2 * UNIT, UNIT, NULL));
	if (taken > 0)
		cr_assert_eq(ept_put_back(&g.e, &one, 1), 0, "touched already");
	r = ept_huge_build(&g.e, 2);
	if (r == -ENOMEM)
		cr_skip_test("no huge page is to be had");
	cr_assert_eq(r, 0, "%d", r);
	cr_assert(ept_unit_is_huge(&g.e, 2 * UNIT));
	holds(&g, 0, PAGES);
	cr_assert_leq(mappings(&g), before, "%u mappings, %u before", mappings(&g), before);
	unmake(&g);
}

/* Zeroes cost nothing after a break; the kernel does it where it can, the caller sees what it did. */
Test(huge, zeroes_in_a_broken_unit)
{
	struct ept_stats st;
	struct guest g;
	int64_t freed;

	make(&g);
	for (uint64_t p = UNIT; p < UNIT + 200; p++)
		memset(page_of(&g, p), 0, OB_PAGE_SIZE);
	freed = ept_huge_break(&g.e, 1);
	cr_assert(freed == 0 || freed == 200 * OB_PAGE_SIZE, "%d", (int)freed);
	ept_read_stats(&g.e, &st);
	cr_assert_eq(st.state[EPT_ZERO], (uint64_t)freed / OB_PAGE_SIZE);
	cr_assert_eq(st.freed_bytes, (uint64_t)freed);
	for (uint64_t p = UNIT; p < UNIT + 200; p++)
		cr_assert_eq(page_of(&g, p)[77], 0);
	holds(&g, UNIT + 200, UNIT - 200);
	unmake(&g);
}

/* Reading what was never written shows the kernel's huge page of zeroes: nobody's memory. */
Test(huge, the_huge_page_of_zeroes_is_none)
{
	struct ept_stats st;
	uint64_t sum = 0;
	struct guest g;

	make_but(&g, 1);
	for (uint64_t p = UNIT; p < 2 * UNIT; p++)
		sum += page_of(&g, p)[0];
	cr_assert_eq(sum, 0);
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	cr_assert(!ept_unit_is_huge(&g.e, UNIT));
	ept_read_stats(&g.e, &st);
	cr_assert_eq(st.state[EPT_ZERO], UNIT);
	page_of(&g, UNIT)[3] = 1;
	cr_assert(!ept_sync(&g.e, 0, PAGES, NULL));
	unmake(&g);
}

/* Out and back as a whole, without a split. */
Test(huge, taken_as_a_whole_it_stays_huge)
{
	const struct ept_run all = {.page = 0, .n = PAGES};
	struct guest g;
	int64_t r;

	needs_move();
	make(&g);
	r = ept_take_huge(&g.e, 2 * UNIT, 4 * UNIT);
	if (r == -EPERM || r == -EOPNOTSUPP)
		cr_skip_test("no userfaultfd that answers for KVM");
	cr_assert_eq(r, 4 * UNIT);
	cr_assert_eq(stats(&g).huge, UNITS, "four of them in staging");
	cr_assert(!ept_unit_is_huge(&g.e, 2 * UNIT), "it is out");
	holds(&g, 2 * UNIT + 100, 1); /* a fault brings one of them back */
	cr_assert(ept_unit_is_huge(&g.e, 2 * UNIT));
	cr_assert_eq(ept_samples_left(&g.e, 0, PAGES, false), 3 * UNIT);
	cr_assert_eq(ept_put_back(&g.e, &all, 1), 3 * UNIT);
	cr_assert_eq(stats(&g).huge, UNITS);
	cr_assert_eq(stats(&g).broken, 0);
	holds(&g, 0, PAGES);
	unmake(&g);
}

/* Staging has held small pages of the unit before: the kernel's tables for those are in the way. */
Test(huge, taken_as_a_whole_after_small_pages_of_it)
{
	const struct ept_run some = {.page = UNIT + 10, .n = 20};
	struct guest g;
	int64_t r;

	needs_move();
	make(&g);
	r = ept_take(&g.e, &some, 1, false);
	if (r == -EPERM || r == -EOPNOTSUPP)
		cr_skip_test("no userfaultfd that answers for KVM");
	cr_assert_eq(r, 20);
	cr_assert_eq(ept_put_back(&g.e, &some, 1), 20);
	r = ept_huge_build(&g.e, 1);
	if (r == -ENOMEM)
		cr_skip_test("no huge page is to be had");
	cr_assert_eq(r, 0);
	cr_assert_eq(ept_take_huge(&g.e, UNIT, UNIT), UNIT);
	cr_assert_eq(stats(&g).huge, UNITS);
	holds(&g, UNIT + 7, 1);
	cr_assert(ept_unit_is_huge(&g.e, UNIT));
	holds(&g, 0, PAGES);
	unmake(&g);
}

/* As a kernel before 6.7 lets us know: nothing that is huge is missed. */
Test(huge, without_the_scan_of_page_maps)
{
	uint8_t exact[UNITS], coarse[UNITS];
	struct guest g;

	make(&g);
	cr_assert(ept_huge_break(&g.e, 1) >= 0);
	cr_assert(ept_balloon(&g.e, 2 * UNIT + 7, 1, true) >= 0);
	cr_assert(!g.h.ops->huge_units(&g.h, gmem_page_hva(&g.mem, 0), UNITS, exact));
	g.h.no_scan = true;
	cr_assert(!g.h.ops->huge_units(&g.h, gmem_page_hva(&g.mem, 0), UNITS, coarse));
	for (unsigned int i = 0; i < UNITS; i++)
		cr_assert(coarse[i] || !exact[i], "unit %u", i);
	cr_assert(!coarse[2], "a page of it is not there");
	cr_assert(ept_huge_break(&g.e, 5) >= 0);
	cr_assert_eq(ept_balloon(&g.e, 5 * UNIT, 100, true), 100 * OB_PAGE_SIZE);
	if (compound(&g, 5 * UNIT, UNIT) >= 0)
		cr_assert_eq(compound(&g, 5 * UNIT, UNIT), 0);
	g.h.no_scan = false;
	unmake(&g);
}

/* Memory of small pages stays so, in a process that has huge ones. */
Test(huge, only_what_is_asked_for_is_huge)
{
	struct gmem small;
	struct guest g;
	uint8_t huge[2];

	make(&g);
	cr_assert(!gmem_init(&small, &g.h, 2 * OB_HUGE_SIZE, "small"));
	memset(hva_ptr(gmem_page_hva(&small, 0)), 7, 2 * OB_HUGE_SIZE);
	cr_assert(!g.h.ops->huge_units(&g.h, gmem_page_hva(&small, 0), 2, huge));
	cr_assert(!huge[0] && !huge[1]);
	gmem_exit(&small);
	unmake(&g);
}

/* --- under fire ------------------------------------------------------------------------------- */

#define WRITERS 2

struct fire {
	struct guest g;
	_Atomic bool stop;
	_Atomic uint64_t shared, wrong;
};

struct writer {
	struct fire *f;
	unsigned int number;
	uint64_t count[PAGES];
	pthread_t thread;
};

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Counts up a word of random pages, and knows what it must be. */
static void *write_always(void *arg)
{
	struct writer *w = arg;
	uint64_t seed = 0x9e3779b97f4a7c15ULL * (w->number + 1);

	while (!w->f->stop) {
		uint64_t p = rnd(&seed) % PAGES;
		_Atomic uint64_t *at = (_Atomic uint64_t *)&page_of(&w->f->g, p)[8 + w->number];

		gate_move(&w->f->g.gate, 0, 1);
		w->f->wrong += atomic_fetch_add(at, 1) != w->count[p];
		gate_move(&w->f->g.gate, 0, -1);
		w->count[p]++;
	}
	return NULL;
}

/* Each page has a frame of its own, so nobody else is disturbed when that is written. */
static void share_what_is(struct fire *f, uint64_t page)
{
	struct guest *g = &f->g;
	uint64_t off = page * OB_PAGE_SIZE;

	cr_assert(!ept_sync(&g->e, page, 1, NULL));
	cr_assert(!ept_freeze(&g->e, page, 1));
	/* One that is out, or shared, is not to be had. */
	if (ept_frozen(&g->e, page) && ept_state_of(&g->e, page) == EPT_PRIVATE &&
	    !g->h.ops->file_write(&g->h, g->pool, page_of(g, page), OB_PAGE_SIZE, off))
		f->shared += ept_share(&g->e, page, 1, g->pool, (uint32_t)page) >= 0;
	ept_thaw(&g->e);
}

static void *mill(void *arg)
{
	struct fire *f = arg;
	struct ept *e = &f->g.e;
	uint64_t seed = 88172645463325252ULL ^ (uint64_t)(uintptr_t)&seed;

	while (!f->stop) {
		struct ept_run run = {.page = rnd(&seed) % (PAGES - 300)};
		uint64_t unit = rnd(&seed) % UNITS;

		run.n = 1 + rnd(&seed) % 300;
		switch (rnd(&seed) % 6) {
		case 0:
			ept_take(e, &run, 1, rnd(&seed) % 2);
			break;
		case 1:
			ept_put_back(e, &run, 1);
			break;
		case 2:
			ept_huge_break(e, unit);
			break;
		case 3:
			run = (struct ept_run){.page = unit * UNIT, .n = UNIT};
			ept_put_back(e, &run, 1);
			ept_huge_build(e, unit);
			break;
		case 4:
			ept_take_huge(e, unit * UNIT, UNIT);
			break;
		case 5:
			share_what_is(f, run.page);
			break;
		}
	}
	return NULL;
}

Test(huge, everything_under_writers, .timeout = 120)
{
	static const struct ept_run all = {.page = 0, .n = PAGES};
	struct fire *f = calloc(1, sizeof(*f));
	struct writer *w = calloc(WRITERS, sizeof(*w));
	struct ept_huge_stats st;
	pthread_t miller[2];
	int64_t r;

	make(&f->g);
	for (uint64_t p = 0; p < PAGES; p++)
		memset(&page_of(&f->g, p)[8], 0, WRITERS * 8);
	r = ept_take(&f->g.e, &all, 1, false);
	if (r == -EPERM || r == -EOPNOTSUPP)
		cr_skip_test("no userfaultfd that answers for KVM");
	cr_assert_eq(r, PAGES);
	for (unsigned int i = 0; i < WRITERS; i++) {
		w[i].f = f;
		w[i].number = i;
		cr_assert(!pthread_create(&w[i].thread, NULL, write_always, &w[i]));
	}
	for (unsigned int i = 0; i < 2; i++)
		cr_assert(!pthread_create(&miller[i], NULL, mill, f));
	for (int i = 0; i < 50; i++) {
		struct ept_verify v;

		usleep(getenv("OB_LONG") ? 1000000 : 100000);
		cr_assert(!ept_verify(&f->g.e, &v));
		cr_assert_eq(v.differences, 0, "page %d: %s", (int)v.first[0].page, v.first[0].why);
	}
	f->stop = true;
	for (unsigned int i = 0; i < 2; i++)
		pthread_join(miller[i], NULL);
	for (unsigned int i = 0; i < WRITERS; i++)
		pthread_join(w[i].thread, NULL);
	cr_assert_eq(f->wrong, 0, "%d lost writes", (int)f->wrong);
	cr_assert(ept_put_back(&f->g.e, &all, 1) >= 0);
	for (unsigned int i = 0; i < WRITERS; i++)
		for (uint64_t p = 0; p < PAGES; p++)
			cr_assert_eq(page_of(&f->g, p)[8 + i], w[i].count[p], "page %d", (int)p);
	for (uint64_t p = 0; p < PAGES; p++)
		cr_assert_eq(page_of(&f->g, p)[77], p + 1);
	st = stats(&f->g);
	cr_assert_gt(st.breaks, 0);
	cr_assert_gt(st.builds, 0);
	cr_assert_gt(f->shared, 0);
	unmake(&f->g);
	free(w);
	free(f);
}
