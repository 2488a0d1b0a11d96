/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_track_cost.c: what it costs to know which pages a guest has written, beside not knowing
 * it.
 *
 * Who merges or migrates needs the hash of each page as it is now. Without tracking all of memory
 * is hashed in each pass; with it, only what was written since the pass before. Both sides are this
 * thread, the same hash (ksm's), and the same guest, which has written all of its memory once and
 * goes on writing random pages meanwhile. Between a pass of ours and the one before it the guest
 * writes 1 % of its pages. Each side keeps a table of hashes; in the end the guest is parked, each
 * side does a pass, and the tables must agree: what was not hashed again had not changed.
 *
 * And what it costs the guest: each page that a pass returned is protected, so its next write
 * leaves the guest. The guest itself times a write to a page that was collected, and one to the
 * same page without that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_ept.h"
#include "harness/opts.h"
#include "workloads/area.h"

#define COST_SECONDS 300 /* at most, until the guest has written all of its memory */
#define WAIT_SECONDS 60	 /* until it has written 1 % */
#define SHARE	     99	 /* one write for so many pages: at random, that is 1 % of them */
#define WRITE_MEM    (64 * OB_MIB)

struct cost {
	struct bench_rig rig;
	struct bench_rig_track track;
	uint64_t first, pages; /* of the guest's area */
	uint64_t *bitmap;
	uint64_t *ours, *reference; /* [pages] hashes */
	ksm_hash_fn hash;
	uint8_t secret[KSM_SECRET_BYTES];
};

/* One pass of ours. */
struct cost_pass {
	uint64_t collect_ns, take_ns, hash_ns, pages;
};

static void hash_page(struct cost *c, uint64_t *table, uint64_t i)
{
	const struct gmem *mem = &c->rig.guest[0].vm->mem;

	table[i] = c->hash(hva_ptr(gmem_page_hva(mem, c->first + i)), c->secret);
}

static uint64_t hash_all(struct cost *c)
{
	uint64_t start = bench_now_ns();

	for (uint64_t i = 0; i < c->pages; i++)
		hash_page(c, c->reference, i);
	return bench_now_ns() - start;
}

static int pass(struct cost *c, struct cost_pass *out, struct ob_err *e)
{
	uint64_t start = bench_now_ns(), collected, taken;
	int ret = ept_track_collect(&c->track.track);
	int64_t n;

	if (ret)
		return ob_fail(e, -ret, "collecting written pages: %s", strerror(-ret));
	collected = bench_now_ns();
	n = ept_track_take(&c->track.track, c->track.consumer, c->first, c->pages, c->bitmap, NULL);
	if (n < 0)
		return ob_fail(e, (int)-n, "taking written pages: %s", strerror((int)-n));
	taken = bench_now_ns();
	for (uint64_t w = 0; w < (c->pages + 63) / 64; w++)
		for (uint64_t bits = c->bitmap[w]; bits; bits &= bits - 1)
			hash_page(c, c->ours, w * 64 + (uint64_t)__builtin_ctzll(bits));
	*out = (struct cost_pass){
		.collect_ns = collected - start,
		.take_ns = taken - collected,
		.hash_ns = bench_now_ns() - taken,
		.pages = (uint64_t)n,
	};
	return 0;
}

static bool has_written(const struct agent_report *r, uint64_t ops)
{
	return r->ops >= ops;
}

/*
 * A pass of ours, after the guest has written its 1 % since the one before. What it wrote before
 * that is passed over first: while much of it is hashed, more is written, hence twice.
 */
static int fresh_pass(struct cost *c, struct cost_pass *out, struct ob_err *e)
{
	int ret = pass(c, out, e);

	if (!ret)
		ret = pass(c, out, e);
	if (!ret)
		ret = bench_rig_look(&c->rig, e);
	if (!ret)
		ret = bench_rig_wait(&c->rig, has_written,
				     c->rig.guest[0].report.ops + c->pages / SHARE, WAIT_SECONDS,
				     e);
	return ret ? ret : pass(c, out, e);
}

static int begin(struct cost *c, struct ob_err *e)
{
	struct bench_rig *r = &c->rig;
	struct cost_pass all;
	int ret = bench_rig_area(r, 0, &c->first, &c->pages, e);

	if (ret)
		return ret;
	c->bitmap = ob_alloc(r->arena, (c->pages + 63) / 64 * sizeof(c->bitmap[0]));
	c->ours = ob_alloc(r->arena, c->pages * sizeof(c->ours[0]));
	c->reference = ob_alloc(r->arena, c->pages * sizeof(c->reference[0]));
	c->hash = ksm_hash_pick();
	for (unsigned int i = 0; i < KSM_SECRET_BYTES; i++)
		c->secret[i] = (uint8_t)gen_mix(i);
	ret = bench_rig_track_open(r, 0, &c->track, e);
	/* Each side does all of its memory once before anything counts. */
	if (!ret)
		ret = pass(c, &all, e);
	hash_all(c);
	return ret;
}

/* What each of the two knows about a guest that stands still must be the same. */
static int agree(struct cost *c, struct ob_err *e)
{
	struct cost_pass last;
	uint64_t stale = 0;
	int ret;

	vm_park(c->rig.guest[0].vm);
	ret = pass(c, &last, e);
	hash_all(c);
	vm_unpark(c->rig.guest[0].vm);
	for (uint64_t i = 0; i < c->pages; i++)
		stale += c->ours[i] != c->reference[i];
	if (!ret && stale)
		ret = ob_fail(e, EIO, "%llu pages were written and not hashed again",
			      (unsigned long long)stale);
	return ret;
}

struct cost_figures {
	struct bench_figure *pass, *collect, *take, *hash, *share;
};

static struct cost_figures make_figures(struct bench *b, uint64_t mem)
{
	struct cost_figures f;
	char name[96];

	snprintf(name, sizeof(name), "finding and hashing what was written, 1 %% of %llu MiB",
		 (unsigned long long)(mem / OB_MIB));
	f.pass = bench_figure(b, name, "ms", "hashing all of it");
	f.pass->goal = 0.1;
	f.pass->goal_is_max = true;
	f.collect = bench_figure(b, "of that pass, collecting", "ms", NULL);
	f.take = bench_figure(b, "of that pass, taking", "ms", NULL);
	f.hash = bench_figure(b, "of that pass, hashing", "ms", NULL);
	f.share = bench_figure(b, "of that pass, pages hashed", "% of all", NULL);
	return f;
}

static void enter(const struct cost_figures *f, const struct cost *c, const struct cost_pass *p,
		  uint64_t all_ns)
{
	double ours = (double)(p->collect_ns + p->take_ns + p->hash_ns) / 1e6;
	double share = 100.0 * (double)p->pages / (double)c->pages;

	bench_add(f->pass, ours, (double)all_ns / 1e6);
	bench_add_ours(f->collect, (double)p->collect_ns / 1e6);
	bench_add_ours(f->take, (double)p->take_ns / 1e6);
	bench_add_ours(f->hash, (double)p->hash_ns / 1e6);
	bench_add_ours(f->share, share);
	bench_say("a pass with %.2f %% written: %.2f ms (collect %.2f, take %.2f, hash %.2f); all: "
		  "%.1f ms",
		  share, ours, (double)p->collect_ns / 1e6, (double)p->take_ns / 1e6,
		  (double)p->hash_ns / 1e6, (double)all_ns / 1e6);
}

static int pairs(struct ept_bench *d, struct cost *c, struct ob_err *e)
{
	struct cost_figures f = make_figures(d->b, c->rig.cfg.mem_bytes);
	unsigned int n = ept_count(d, 11, 5);
	int ret = 0;

	for (unsigned int i = 0; i < n && !ret; i++) {
		uint64_t all_ns = i % 2 ? hash_all(c) : 0;
		struct cost_pass p;

		ret = ob_stop_signal ? ob_fail(e, EINTR, "interrupted") : fresh_pass(c, &p, e);
		if (ret)
			return ret;
		enter(&f, c, &p, i % 2 ? all_ns : hash_all(c));
	}
	return agree(c, e);
}

/* A guest that the host has no room for would end other programs. */
static int check_memory(uint64_t bytes, struct ob_err *e)
{
	struct opts_host host;
	uint64_t have;
	int ret = opts_host_read(&host, e);

	if (ret)
		return ret;
	have = OB_MIN(host.mem_available, host.mem_limit) / OB_MIB;
	bytes += bytes / 16; /* page tables, KVM's and ours */
	if (bytes / OB_MIB <= have)
		return 0;
	return ob_fail(
		e, ENOMEM,
		"part track: its guest needs %llu MiB, we can have %llu MiB; --quick takes a "
		"smaller one",
		(unsigned long long)(bytes / OB_MIB), (unsigned long long)have);
}

static int passes(struct ept_bench *d, struct cost *c, struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = d->quick ? 512 * OB_MIB : 4 * OB_GIB,
		.workload = {"writer:64:500"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = COST_SECONDS,
	};
	struct ob_err late = {""};
	int ret = check_memory(cfg.mem_bytes, e), end;

	if (ret)
		return ret;
	ret = bench_rig_open(&c->rig, &cfg, e);

	if (!ret)
		ret = bench_rig_start(&c->rig, e);
	bench_rig_place(&c->rig, BENCH_RIG_APART);
	if (!ret)
		ret = begin(c, e);
	if (!ret)
		ret = pairs(d, c, e);
	bench_rig_track_close(&c->track);
	if (c->bitmap) {
		ob_free(c->rig.arena, c->bitmap);
		ob_free(c->rig.arena, c->ours);
		ob_free(c->rig.arena, c->reference);
	}
	end = bench_rig_close(&c->rig, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	return ret;
}

/* --- what the guest pays --------------------------------------------------------------------- */

/* Have @page written, twice: once after it was collected and once not. The first of all is not
 * looked at, so that the page is in the guest's tables and noted. */
static int write_page(struct bench_rig *r, struct bench_rig_track *t, uint64_t page, bool first,
		      double *collected, double *plain, struct ob_err *e)
{
	uint64_t ns;
	int ret = bench_rig_ping(r, 0, page, true, &ns, e);

	for (unsigned int i = 0; i < 2 && !ret; i++) {
		bool after = first == (i == 0);

		ret = after ? ept_track_collect(&t->track) : 0;
		if (ret)
			return ob_fail(e, -ret, "collecting written pages: %s", strerror(-ret));
		ret = bench_rig_ping(r, 0, page, true, &ns, e);
		*(after ? collected : plain) = (double)ns;
	}
	return ret;
}

static int write_pairs(struct ept_bench *d, struct bench_rig *r, struct ob_err *e)
{
	unsigned int rounds = ept_count(d, 9, 2), n = 200;
	double *collected = calloc(n, sizeof(*collected)), *plain = calloc(n, sizeof(*plain));
	struct bench_figure *f = bench_figure(d->b, "a guest's write to a page that was collected",
					      "ns", "the same, not collected");
	struct bench_rig_track t = {0};
	struct area_order order;
	uint64_t first, pages;
	int ret = bench_rig_area(r, 0, &first, &pages, e);

	OB_ASSERT(collected && plain);
	if (!ret)
		ret = bench_rig_track_open(r, 0, &t, e);
	area_order_init(&order, pages - 1, 1);
	for (unsigned int i = 0; i < rounds && !ret; i++) {
		for (unsigned int k = 0; k < n && !ret; k++)
			/* Page 0 is the mailbox. */
			ret = write_page(r, &t, 1 + area_order_at(&order, (i * n + k) % order.n),
					 k % 2, &collected[k], &plain[k], e);
		if (ret)
			break;
		bench_add(f, bench_median(collected, n), bench_median(plain, n));
		bench_say("a write to a page that was collected: %.0f ns; not: %.0f ns", f->ours[i],
			  f->reference[i]);
	}
	bench_rig_track_close(&t);
	free(collected);
	free(plain);
	return ret;
}

static int writes(struct ept_bench *d, struct ob_err *e)
{
	const struct bench_rig_config cfg = {
		.kernel_path = d->files.kernel_path,
		.guests = 1,
		.mem_bytes = WRITE_MEM,
		.workload = {"ping"},
		.seed = 1,
		.cpu = d->cpu,
		.warm_seconds = 60,
	};
	struct ob_err late = {""};
	struct bench_rig r;
	int ret = bench_rig_open(&r, &cfg, e), end;

	if (!ret)
		ret = bench_rig_start(&r, e);
	bench_rig_place(&r, BENCH_RIG_NEAR);
	if (!ret)
		ret = write_pairs(d, &r, e);
	end = bench_rig_close(&r, &late);
	if (!ret && end) {
		ret = end;
		*e = late;
	}
	return ret;
}

int ept_track_cost(struct ept_bench *d, struct ob_err *e)
{
	struct cost c = {0};
	int ret = passes(d, &c, e);

	return ret ? ret : writes(d, e);
}
