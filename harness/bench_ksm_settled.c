/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ksm_settled.c: the benchmark `ksm`, parts steady and unique: what an engine costs when
 * there is little left to merge, at equal promptness (bench_ksm_plant.c). What the guests pay,
 * faults that KVM answered for them, is listed apart.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench_ksm.h"
#include "harness/result.h"

#define SETTLED_SECONDS 900 /* at most */
#define READ_MS		500

enum engine { OURS, KERNEL, ENGINES };

struct settled_cost {
	double cpu[KBENCH_TARGETS]; /* CPU seconds a GiB and minute */
	double faults;		    /* of guests that KVM answered, a GiB and minute, whole run */
	struct kbench_settled at[KBENCH_TARGETS];
};

static int run_settled(struct kbench *k, enum engine engine, const char *workload, uint64_t mem,
		       uint64_t seed, unsigned int ntargets, struct kbench_settled *s,
		       struct settled_cost *out, struct ob_err *e)
{
	const struct kfleet f = {
		.engine = engine == OURS ? "hash" : "kernel",
		.workload = workload,
		.guests = k->quick ? 8 : 16,
		.cell = k->quick ? 4 : FLEET_DEFAULT_CELL,
		.mem = mem,
		.seed = seed,
		.seconds = SETTLED_SECONDS,
		.sample_ms = READ_MS,
		.pace = {.kind = KSM_PACE_SLEEP, .sleep_ms = 0},
	};
	double gib = (double)(f.guests * mem) / OB_GIB;
	struct run_result r = {0};
	int ret;

	for (unsigned int t = 0; t < ntargets; t++)
		s[t].to = 0;
	ret = kbench_plant(k, &f, s, ntargets, &r, e);
	for (unsigned int t = 0; t < ntargets && !ret; t++) {
		out->cpu[t] = kbench_cpu_rate(r.sample, r.nsamples, s[t].from, s[t].to) * 60 / gib;
		out->at[t] = s[t];
		bench_say("  %s at %.0f s: %.4f CPU s a GiB and minute, found after %.2f s (%u "
			  "pages), rest %.0f ms",
			  f.engine, s[t].target, out->cpu[t], s[t].delay, s[t].planted,
			  s[t].gap_ms);
		s[t].gap_ms = kbench_cal_nudge(s[t].gap_ms, s[t].delay, s[t].target,
					       engine == OURS ? 1 : 0);
	}
	if (!ret) {
		out->faults = result_kvmstat_last_vcpu(r.kvm_stats, "pf_taken") / gib * 60 /
			      OB_MAX(r.measured_seconds, 1.0);
	}
	run_result_free(&r);
	return ret;
}

static int settled_part(struct kbench *k, const char *fleet, const char *workload, uint64_t mem,
			double goal, struct ob_err *e)
{
	static const double target[KBENCH_TARGETS] = {1, 10};
	unsigned int ntargets = k->quick ? 1 : KBENCH_TARGETS, pairs = k->quick ? 1 : 5;
	struct bench_figure *cpu[KBENCH_TARGETS], *delay[KBENCH_TARGETS], *faults;
	struct kbench_settled s[ENGINES][KBENCH_TARGETS];
	char name[96];

	for (unsigned int t = 0; t < ntargets; t++) {
		snprintf(name, sizeof(name), "%s, duplicates found after %.0f s: CPU time", fleet,
			 target[t]);
		cpu[t] = bench_figure(k->b, name, "s/GiB/min", "Linux KSM, same cells");
		cpu[t]->goal = goal;
		cpu[t]->goal_is_max = true;
		snprintf(name, sizeof(name), "%s, to be found after %.0f s: found after", fleet,
			 target[t]);
		delay[t] = bench_figure(k->b, name, "s", "Linux KSM, same cells");
		for (unsigned int i = 0; i < ENGINES; i++)
			s[i][t] = (struct kbench_settled){.target = target[t], .gap_ms = -1};
	}
	snprintf(name, sizeof(name), "%s: guests' faults that KVM answered, whole run", fleet);
	faults = bench_figure(k->b, name, "1/GiB/min", "Linux KSM, same cells");
	for (unsigned int n = 0; n < pairs; n++) {
		struct settled_cost c[ENGINES] = {{{0}, 0, {{0, 0, 0, 0, 0, 0}}}};

		for (unsigned int i = 0; i < ENGINES; i++) {
			enum engine which = (i + n) % 2 ? KERNEL : OURS;
			int ret = run_settled(k, which, workload, mem, n + 1, ntargets, s[which],
					      &c[which], e);

			if (ret)
				return ret;
		}
		for (unsigned int t = 0; t < ntargets; t++) {
			bench_add(cpu[t], c[OURS].cpu[t], c[KERNEL].cpu[t]);
			bench_add(delay[t], c[OURS].at[t].delay, c[KERNEL].at[t].delay);
		}
		bench_add(faults, c[OURS].faults, c[KERNEL].faults);
	}
	return 0;
}

int kbench_steady(struct kbench *k, struct ob_err *e)
{
	return settled_part(k, "settled, 1 % written a second", "steady",
			    (k->quick ? 16 : 32) * OB_MIB, 1.0 / 30, e);
}

int kbench_unique(struct kbench *k, struct ob_err *e)
{
	/* 16 MiB: a scan by KSM, 9 us a page, must be shorter than the promptness that it is to
	 * have. */
	return settled_part(k, "settled, unique content", "unique:0:512", 16 * OB_MIB, 1.0 / 100,
			    e);
}
