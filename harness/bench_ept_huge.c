/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ept_huge.c: what adaptive huge pages keep, and what they save, with merging on.
 *
 * Two fleets. In the first no page of a guest is anywhere else, so there is next to nothing to share:
 * its memory is to stay huge, in the host's page tables and in KVM's (KVM's own count, pages_2m). The
 * reference is the same fleet on huge pages that nobody breaks. In the second all guests are the same:
 * what is saved is to be what small pages save. It is counted from one base, what the guests have
 * touched in small pages: a huge page brings 512 where a guest touches one, and to give these back is
 * no saving. Fleets are run as `overbook fleet` runs them, in
 * alternating order; one that did not end well ends the benchmark.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness/bench_ept.h"
#include "harness/opts.h"
#include "harness/result.h"

#define HUGE_GUESTS 8

struct huge_run {
	double touched;	  /* bytes */
	double held;	  /* bytes, with the metadata */
	double huge, kvm; /* parts of RAM: in huge pages of the host, mapped as such by KVM */
};

static int run_fleet(struct ept_bench *d, const char *workload, enum ept_pages pages, uint64_t seed,
		     struct huge_run *out, struct ob_err *e)
{
	struct fleet_config c = {
		.guests = HUGE_GUESTS,
		.mem_bytes = (d->quick ? 64 : 256) * OB_MIB,
		.nworkloads = 1,
		.sharing = {ksm_engine_find("hash")},
		.nsharing = 1,
		.seconds = d->quick ? 5 : 15,
		.seed = seed,
		.cell = FLEET_DEFAULT_CELL,
		.warm_timeout = 120,
		.pages = pages,
		.huge_threshold = pages == EPT_PAGES_ADAPTIVE ? EPT_HUGE_THRESHOLD : 0,
		.kernel_path = d->files.kernel_path,
		.quiet = true,
	};
	struct run_result r = {0};
	struct ept_huge_stats h;
	int ret;

	snprintf(c.workload[0], sizeof(c.workload[0]), "%s", workload);
	ret = coord_run(&c, c.sharing[0], &r, e);
	if (!ret && ob_stop_signal)
		ret = ob_fail(e, EINTR, "interrupted");
	else if (!ret && r.status != RUN_OK)
		ret = ob_fail(e, EIO, "the fleet of %s: %s %s", workload, run_status_name(r.status),
			      r.note);
	if (!ret) {
		double units = (double)(c.guests * (c.mem_bytes / (2 * OB_MIB)));

		result_huge_sum(&r, &h);
		*out = (struct huge_run){
			.touched = (double)r.touched_bytes,
			.held = (double)(r.resident_bytes + r.metadata_ours + r.metadata_kernel),
			.huge = (double)h.huge / units,
			.kvm = result_kvmstat_last(r.kvm_stats, "pages_2m") / units,
		};
	}
	run_result_free(&r);
	return ret;
}

/* Nothing to share. */
static int unique(struct ept_bench *d, unsigned int pairs, struct ob_err *e)
{
	struct bench_figure *host =
		bench_figure(d->b, "nothing to share: memory in huge pages of the host, merging on",
			     "of RAM", "--pages 2m");
	struct bench_figure *kvm =
		bench_figure(d->b, "nothing to share: memory mapped huge by KVM, merging on",
			     "of RAM", "--pages 2m");
	struct huge_run a, b;

	host->goal = kvm->goal = 0.95;
	for (unsigned int i = 0; i < pairs; i++) {
		int ret = i % 2 ? run_fleet(d, "unique", EPT_PAGES_2M, i + 1, &b, e)
				: run_fleet(d, "unique", EPT_PAGES_ADAPTIVE, i + 1, &a, e);

		if (!ret)
			ret = i % 2 ? run_fleet(d, "unique", EPT_PAGES_ADAPTIVE, i + 1, &a, e)
				    : run_fleet(d, "unique", EPT_PAGES_2M, i + 1, &b, e);
		if (ret)
			return ret;
		bench_say("nothing to share: huge %.1f %% of RAM, KVM %.1f %%; 2m: %.1f, %.1f",
			  100 * a.huge, 100 * a.kvm, 100 * b.huge, 100 * b.kvm);
		bench_add(host, a.huge, b.huge);
		/* A KVM without statistics does not say. */
		if (a.kvm >= 0 && b.kvm >= 0)
			bench_add(kvm, a.kvm, b.kvm);
	}
	return 0;
}

/* All the same. */
static int same(struct ept_bench *d, unsigned int pairs, struct ob_err *e)
{
	struct bench_figure *f =
		bench_figure(d->b, "all the same: saved, net of metadata", "MiB", "--pages 4k");
	struct huge_run a, b;

	f->goal = 0.95;
	for (unsigned int i = 0; i < pairs; i++) {
		int ret = i % 2 ? run_fleet(d, "same", EPT_PAGES_4K, i + 1, &b, e)
				: run_fleet(d, "same", EPT_PAGES_ADAPTIVE, i + 1, &a, e);

		if (!ret)
			ret = i % 2 ? run_fleet(d, "same", EPT_PAGES_ADAPTIVE, i + 1, &a, e)
				    : run_fleet(d, "same", EPT_PAGES_4K, i + 1, &b, e);
		if (ret)
			return ret;
		bench_say("all the same: saved %.0f MiB, with small pages %.0f MiB, of %.0f MiB",
			  (b.touched - a.held) / OB_MIB, (b.touched - b.held) / OB_MIB,
			  b.touched / OB_MIB);
		bench_add(f, (b.touched - a.held) / OB_MIB, (b.touched - b.held) / OB_MIB);
	}
	return 0;
}

int ept_part_huge(struct ept_bench *d, struct ob_err *e)
{
	const struct fleet_config adaptive = {.pages = EPT_PAGES_ADAPTIVE};
	unsigned int pairs = ept_count(d, 3, 1);
	struct opts_host host;
	struct ob_err why;
	int ret = opts_host_read(&host, e);

	if (!ret && opts_check_pages(&adaptive, host.thp_dir, &why)) {
		bench_say("huge pages: left out: %s", why.msg);
		return 0;
	}
	if (!ret)
		ret = unique(d, pairs, e);
	return ret ? ret : same(d, pairs, e);
}
