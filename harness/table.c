/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c: what a person reads at the end of fleet and compare: one row a figure, one column a run,
 * three runs in 80 columns. A failed run shows no figure, only what it checked and why it failed,
 * which is the rule of the JSON result too (result.c).
 */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "harness/kinds.h"
#include "harness/result.h"

#define TABLE_LABEL	   25
#define TABLE_CELL	   18
#define TABLE_GUESTS_SHOWN 8 /* guests that ended badly, a run */

char *table_bytes(char *buf, int64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	uint64_t mag = bytes < 0 ? -(uint64_t)bytes : (uint64_t)bytes;
	const char *sign = bytes < 0 ? "-" : "";
	double v = (double)mag;
	unsigned int u = 0;

	/* 1023.95 of a unit would print as 1024.0 of it. */
	while (v >= 1023.95 && u + 1 < OB_ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	if (u == 0)
		snprintf(buf, 24, "%s%llu B", sign, (unsigned long long)mag);
	else
		snprintf(buf, 24, "%s%.1f %s", sign, v, units[u]);
	return buf;
}

struct table {
	FILE *out;
	const struct run_result *runs;
	unsigned int nruns;
	const struct run_result *off; /* the control, if it has figures */
};

/* What one cell says: up to TABLE_CELL - 1 characters into @buf. */
typedef void (*table_cell_fn)(const struct table *t, const struct run_result *r, char *buf,
			      size_t n);

static void row(const struct table *t, const char *label, table_cell_fn fn, bool figure)
{
	fprintf(t->out, "%-*s", TABLE_LABEL, label);
	for (unsigned int i = 0; i < t->nruns; i++) {
		const struct run_result *r = &t->runs[i];
		char buf[64] = "-";

		if (!figure || r->status != RUN_FAILED)
			fn(t, r, buf, sizeof(buf));
		fprintf(t->out, "%*s", TABLE_CELL, buf);
	}
	fputc('\n', t->out);
}

#define TABLE_BYTES_CELL(name, expr)                                                          \
	static void cell_##name(const struct table *t, const struct run_result *r, char *buf, \
				size_t n)                                                     \
	{                                                                                     \
		(void)t;                                                                      \
		OB_ASSERT(n >= 24);                                                           \
		table_bytes(buf, (int64_t)(expr));                                            \
	}

TABLE_BYTES_CELL(configured, r->configured_bytes)
TABLE_BYTES_CELL(touched, r->touched_bytes)
TABLE_BYTES_CELL(resident, r->resident_bytes)
TABLE_BYTES_CELL(resident_kernel, r->resident_bytes_kernel)
TABLE_BYTES_CELL(saved, r->saved_bytes)
TABLE_BYTES_CELL(zero, r->saved_zero)
TABLE_BYTES_CELL(intra, r->saved_intra)
TABLE_BYTES_CELL(inter, r->saved_inter)
TABLE_BYTES_CELL(meta_ours, r->metadata_ours)
TABLE_BYTES_CELL(meta_kernel, r->metadata_kernel)

static void cell_name(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	snprintf(buf, n, "%.16s", r->sharing);
}

static void cell_ops(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	if (r->ops_per_second < 0)
		return;
	if (t->off && t->off->ops_per_second > 0)
		snprintf(buf, n, "%.0f (%.0f %%)", r->ops_per_second,
			 100 * r->ops_per_second / t->off->ops_per_second);
	else
		snprintf(buf, n, "%.0f", r->ops_per_second);
}

/* What the guest that saves least saves, and the one that saves most, both in the unit of the
 * latter; before metadata. */
static void cell_by_guest(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	uint64_t least = UINT64_MAX, most = 0;
	char bytes[24];

	(void)t;
	for (unsigned int i = 0; r->guest && i < r->guests; i++) {
		const struct ksm_meter_share *s = &r->guest[i].share;

		least = OB_MIN(least, s->zero + s->intra + s->inter);
		most = OB_MAX(most, s->zero + s->intra + s->inter);
	}
	if (!most)
		return;
	table_bytes(bytes, (int64_t)most);
	snprintf(buf, n, "%.1f, %s", strtod(bytes, NULL) * (double)least / (double)most, bytes);
}

/* What it takes to know of a page: our tables for merging, or KSM's items. */
static void cell_meta_page(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	double each = result_meta_per_page(r, strcmp(r->sharing, "kernel")
						      ? r->metadata_ours - r->metadata_map
						      : r->metadata_items);

	(void)t;
	if (each >= 0)
		snprintf(buf, n, "%.1f B", each);
}

static void latency(double us, char *buf, size_t n)
{
	if (us < 0)
		return;
	if (us < 1000)
		snprintf(buf, n, "%.1f us", us);
	else
		snprintf(buf, n, "%.1f ms", us / 1000);
}

static void cell_p50(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	latency(r->lat_p50_us, buf, n);
}

static void cell_p99(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	latency(r->lat_p99_us, buf, n);
}

static void cell_cpu(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	if (r->merge_cpu_seconds >= 0)
		snprintf(buf, n, "%.2f s", r->merge_cpu_seconds);
}

static void cell_95(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	if (r->merge_seconds_to_95 >= 0)
		snprintf(buf, n, "%.1f s", r->merge_seconds_to_95);
}

/* Only our engine parks guests to merge. */
static void cell_pause(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	uint64_t ns = ksm_lat_part(r->ksm.pauses.pause, 0.999);

	(void)t;
	if (ns)
		latency((double)ns / 1e3, buf, n);
}

static void cell_late(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	uint64_t late = 0;

	(void)t;
	for (unsigned int i = 0; i < KSM_NLATE; i++)
		late += r->ksm.pauses.late[i];
	if (r->ksm.freezes)
		snprintf(buf, n, "%llu / %llu", (unsigned long long)late,
			 (unsigned long long)r->ksm.freezes);
}

static void cell_stall(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	uint64_t ns = ksm_lat_part(r->ksm.pauses.stall, 0.999);

	(void)t;
	if (ns)
		latency((double)ns / 1e3, buf, n);
}

static bool any_pause(const struct table *t)
{
	for (unsigned int i = 0; i < t->nruns; i++)
		if (t->runs[i].ksm.freezes)
			return true;
	return false;
}

static void cell_huge(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	struct ept_huge_stats h;

	(void)t;
	OB_ASSERT(n >= 24);
	result_huge_sum(r, &h);
	table_bytes(buf, (int64_t)(h.huge * OB_HUGE_SIZE));
}

static void cell_broken(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	struct ept_huge_stats h;

	(void)t;
	result_huge_sum(r, &h);
	snprintf(buf, n, "%llu / %llu", (unsigned long long)h.breaks, (unsigned long long)h.builds);
}

static void cell_checked(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	snprintf(buf, n, "%llu", (unsigned long long)r->checked_pages);
}

static void cell_checked_shared(const struct table *t, const struct run_result *r, char *buf,
				size_t n)
{
	(void)t;
	/* What Linux KSM has merged at a moment is not ours to know. */
	if (strcmp(r->sharing, "kernel"))
		snprintf(buf, n, "%llu", (unsigned long long)r->checked_shared_pages);
	else
		snprintf(buf, n, "-");
}

static void cell_mismatches(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	snprintf(buf, n, "%llu", (unsigned long long)r->mismatches);
}

static void cell_frames(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	if (r->frames_checked)
		snprintf(buf, n, "%llu", (unsigned long long)r->frame_check_errors);
	else
		snprintf(buf, n, "-");
}

static void cell_wset(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	uint64_t bytes;

	(void)t;
	OB_ASSERT(n >= 24);
	if (result_wset_bytes(r, &bytes))
		table_bytes(buf, (int64_t)bytes);
}

static void cell_reserve(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	char bytes[24];

	(void)t;
	if (r->reserve.on)
		snprintf(buf, n, "%s", table_bytes(bytes, (int64_t)r->reserve.bytes_max));
}

static void cell_available(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	char bytes[24];

	(void)t;
	if (r->reserve.on && r->reserve.available_min <= INT64_MAX)
		snprintf(buf, n, "%s", table_bytes(bytes, (int64_t)r->reserve.available_min));
}

static void cell_low(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	if (r->reserve.on)
		snprintf(buf, n, "%.1f s / %.1f s", r->reserve.low_seconds,
			 r->reserve.stood_seconds);
}

/* Was memory ever short in one of the runs? */
static bool was_low(const struct run_result *runs, unsigned int nruns)
{
	for (unsigned int i = 0; i < nruns; i++)
		if (runs[i].reserve.low_seconds > 0)
			return true;
	return false;
}

static void cell_status(const struct table *t, const struct run_result *r, char *buf, size_t n)
{
	(void)t;
	snprintf(buf, n, "%s", run_status_name(r->status));
}

/* Text that may have come from a guest, onto a terminal: no control characters, no escapes. */
static void plain(FILE *out, const char *s)
{
	for (; *s; s++)
		fputc((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f ? '?' : *s, out);
}

static void first_mismatch(FILE *out, const struct run_guest *g)
{
	const struct agent_mismatch *m = &g->mismatch[0];

	if (g->nmismatch == 0)
		fputs("it did not say where", out);
	else
		fprintf(out, "first at gpa 0x%llx (%s), is 0x%llx and was 0x%llx",
			(unsigned long long)m->gpa, result_kind_name(m->kind),
			(unsigned long long)m->got, (unsigned long long)m->expect);
}

/* Why a run is not ok, which guests ended badly, and what there is to remark on. */
static void notes(const struct table *t)
{
	for (unsigned int i = 0; i < t->nruns; i++) {
		const struct run_result *r = &t->runs[i];
		unsigned int bad = 0;

		if (r->note[0] || r->status != RUN_OK) {
			fprintf(t->out, "%s: ", r->sharing);
			if (r->status != RUN_OK)
				fprintf(t->out, "%s: ", run_status_name(r->status));
			plain(t->out, r->note[0] ? r->note : "no reason given");
			fputc('\n', t->out);
		}
		for (unsigned int g = 0; r->guest && g < r->guests; g++) {
			const struct run_guest *rg = &r->guest[g];

			if (!rg->reason[0] && !rg->mismatches && !rg->remark[0])
				continue;
			if (++bad > TABLE_GUESTS_SHOWN)
				continue;
			fprintf(t->out, "  guest %u (%s) %s, %llu mismatches: ", rg->id,
				rg->workload, rg->end, (unsigned long long)rg->mismatches);
			if (rg->reason[0])
				plain(t->out, rg->reason);
			else if (rg->remark[0] && !rg->mismatches)
				plain(t->out, rg->remark);
			else
				first_mismatch(t->out, rg);
			fputc('\n', t->out);
		}
		if (bad > TABLE_GUESTS_SHOWN)
			fprintf(t->out, "  and %u guests more (see the JSON result)\n",
				bad - TABLE_GUESTS_SHOWN);
	}
}

static void print(FILE *out, const struct fleet_config *c, const struct run_result *runs,
		  unsigned int nruns)
{
	struct table t = {.out = out, .runs = runs, .nruns = nruns};
	char buf[24];

	for (unsigned int i = 0; i < nruns && !t.off; i++)
		if (strcmp(runs[i].sharing, "off") == 0 && runs[i].status != RUN_FAILED)
			t.off = &runs[i];

	fprintf(out, "\n%u guest%s of %s", c->guests, c->guests == 1 ? "" : "s",
		table_bytes(buf, (int64_t)c->mem_bytes));
	if (c->lx.on)
		table_linux(out, &c->lx);
	if (!c->lx.on || c->lx.agent)
		fputs(", workload ", out);
	for (unsigned int i = 0; i < c->nworkloads && (!c->lx.on || c->lx.agent); i++)
		fprintf(out, "%s%s", i ? "," : "", c->workload[i]);
	fprintf(out, ", %u s, seed %llu", c->seconds, (unsigned long long)c->seed);
	if (c->pages != EPT_PAGES_4K)
		fprintf(out, ", pages %s", ept_pages_name(c->pages));
	fputs("\n\n", out);

	row(&t, "sharing", cell_name, false);
	row(&t, "configured", cell_configured, false);
	row(&t, "touched", cell_touched, true);
	row(&t, "resident", cell_resident, true);
	row(&t, "  by the kernel's count", cell_resident_kernel, true);
	row(&t, "saved, net of metadata", cell_saved, true);
	row(&t, "  zero pages", cell_zero, true);
	row(&t, "  within one VM", cell_intra, true);
	row(&t, "  across VMs", cell_inter, true);
	row(&t, "  by guest: least, most", cell_by_guest, true);
	row(&t, "metadata, ours", cell_meta_ours, true);
	row(&t, "metadata, kernel's", cell_meta_kernel, true);
	row(&t, "metadata a touched page", cell_meta_page, true);
	if (c->wset.samples)
		row(&t, "working set, estimated", cell_wset, true);

	if (c->pages != EPT_PAGES_4K) {
		row(&t, "in huge pages", cell_huge, true);
		row(&t, "  broken / built", cell_broken, true);
	}
	if (c->host_mem_bytes || was_low(runs, nruns)) {
		row(&t, "reserve for breaks, most", cell_reserve, true);
		row(&t, "  least available", cell_available, true);
		row(&t, "  low / guests stood", cell_low, true);
	}
	row(&t, t.off ? "guest ops/s (of off)" : "guest ops/s", cell_ops, true);
	row(&t, "latency p50", cell_p50, true);
	row(&t, "latency p99", cell_p99, true);
	row(&t, "merge CPU", cell_cpu, true);
	row(&t, "time to 95 % of saving", cell_95, true);
	if (any_pause(&t)) {
		row(&t, "pauses to merge, p99.9", cell_pause, true);
		row(&t, "  too long / all", cell_late, true);
		row(&t, "calls others wait for, p99.9", cell_stall, true);
	}
	row(&t, "integrity: pages checked", cell_checked, false);
	row(&t, "  shared when checked", cell_checked_shared, false);
	row(&t, "  mismatches", cell_mismatches, false);
	row(&t, "  wrong host frames", cell_frames, false);
	row(&t, "status", cell_status, false);
	fputc('\n', out);
	result_domains_print(out, runs, nruns);
	for (unsigned int i = 0; i < nruns; i++)
		table_content(out, &runs[i]);
	for (unsigned int i = 0; i < nruns; i++)
		kinds_table(out, &runs[i]);
	for (unsigned int i = 0; i < nruns; i++)
		table_costs(out, &runs[i]);
	notes(&t);
}

/* A column a run; of a run whose mode was switched one a phase. */
void table_print(FILE *out, const struct fleet_config *c, const struct run_result *runs,
		 unsigned int nruns)
{
	struct run_result *columns;
	unsigned int n = 0, max = 0;

	for (unsigned int i = 0; i < nruns; i++)
		max += OB_MAX(runs[i].nphases, 1u);
	columns = calloc(OB_MAX(max, 1u), sizeof(*columns));
	OB_ASSERT(columns);
	for (unsigned int i = 0; i < nruns; i++) {
		const struct run_result *r = &runs[i];

		for (unsigned int p = 0; p < r->nphases; p++)
			columns[n++] = r->phase[p];
		if (!r->nphases)
			columns[n++] = *r;
	}
	print(out, c, columns, n);
	for (unsigned int i = 0; i < nruns; i++) {
		const struct table t = {.out = out, .runs = &runs[i], .nruns = 1};

		if (runs[i].nphases && runs[i].status != RUN_OK)
			notes(&t);
	}
	free(columns);
}
