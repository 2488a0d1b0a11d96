/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result.c: from what was measured to a document of schema overbook.result/1 (docs/result.md says
 * what each field means and in which unit).
 *
 * The rule that matters: a run that failed carries no figure. It found memory that was wrong, or
 * the host let it down half way, so whatever it counted may not be compared with anything; the
 * fields are there and null. What stays is what the failure itself has to say: the status, the
 * reason, the integrity block and, per guest, how it ended and which words were wrong. Times that
 * never came (the struct has them negative) are null too: null means "there is no such number", 0
 * is a measurement.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/kinds.h"
#include "harness/result.h"

const char *run_status_name(enum run_status s)
{
	static const char *const names[RUN_NSTATUS] = {
		[RUN_OK] = "ok",
		[RUN_FAILED] = "failed",
		[RUN_DEGRADED] = "degraded",
		[RUN_INTERRUPTED] = "interrupted",
	};

	OB_ASSERT((unsigned int)s < RUN_NSTATUS);
	return names[s];
}

enum run_status result_overall(const struct run_result *runs, unsigned int nruns)
{
	static const unsigned int weight[RUN_NSTATUS] = {
		[RUN_OK] = 0, [RUN_DEGRADED] = 1, [RUN_INTERRUPTED] = 2, [RUN_FAILED] = 3};
	enum run_status worst = RUN_OK;

	for (unsigned int i = 0; i < nruns; i++)
		if (weight[runs[i].status] > weight[worst])
			worst = runs[i].status;
	return worst;
}

void run_result_free(struct run_result *r)
{
	for (unsigned int i = 0; r->guest && i < r->guests; i++)
		free(r->guest[i].wset.history);
	free(r->guest);
	free(r->domain);
	free(r->pool);
	free(r->sample);
	for (unsigned int i = 0; i < r->nphases; i++)
		run_result_free(&r->phase[i]);
	free(r->phase);
	r->phase = NULL;
	r->nphases = 0;
	result_kvmstat_free(r->kvm_stats);
	r->guest = NULL;
	r->domain = NULL;
	r->pool = NULL;
	r->ndomains = r->npools = 0;
	r->sample = NULL;
	r->kvm_stats = NULL;
	r->nsamples = 0;
}

json_t *result_real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

json_t *result_count(uint64_t v)
{
	return json_integer((json_int_t)OB_MIN(v, (uint64_t)INT64_MAX));
}

/* A figure: null in a run that failed. */
static json_t *fig(const struct run_result *r, uint64_t v)
{
	return r->status == RUN_FAILED ? json_null() : result_count(v);
}

static json_t *fig_real(const struct run_result *r, double v)
{
	return r->status == RUN_FAILED ? json_null() : result_real(v);
}

/* The same for one that may not exist: negative says so. */
static json_t *fig_time(const struct run_result *r, double v)
{
	return v < 0 ? json_null() : fig_real(r, v);
}

static json_t *text(const char *s, size_t max)
{
	char buf[512];
	json_t *j;

	/* Reasons quote what guests have written: whatever is not text becomes a question mark. */
	snprintf(buf, sizeof(buf), "%.*s", (int)OB_MIN(max, sizeof(buf) - 1), s);
	j = json_string(buf);
	if (j)
		return j;
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(buf);
}

static json_t *states_json(const struct run_result *r, const uint64_t *pages)
{
	json_t *o = json_object();

	for (int s = 0; s < EPT_NSTATES; s++)
		json_object_set_new(o, ept_state_name((enum ept_state)s), fig(r, pages[s]));
	return o;
}

const char *result_kind_name(uint64_t kind)
{
	static const char *const names[] = {
		[AGENT_KIND_CACHE] = "cache", [AGENT_KIND_HEAP] = "heap",
		[AGENT_KIND_KV] = "kv",	      [AGENT_KIND_CHURN] = "churn",
		[AGENT_KIND_FREE] = "free",   [AGENT_KIND_AREA] = "area",
	};

	return kind < OB_ARRAY_SIZE(names) && names[kind] ? names[kind] : "unknown";
}

/* Addresses and words as hexadecimal strings: they are 64 bits, which JSON readers round. */
static json_t *hex(uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "0x%llx", (unsigned long long)v);
	return json_string(buf);
}

static json_t *mismatches_json(const struct run_guest *g)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < g->nmismatch && i < AGENT_MISMATCHES; i++) {
		const struct agent_mismatch *m = &g->mismatch[i];
		json_t *o = json_object();

		json_object_set_new(o, "gpa", hex(m->gpa));
		json_object_set_new(o, "kind", json_string(result_kind_name(m->kind)));
		json_object_set_new(o, "expect", hex(m->expect));
		json_object_set_new(o, "got", hex(m->got));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *saved_json(const struct run_result *r, uint64_t zero, uint64_t intra, uint64_t inter)
{
	json_t *o = json_object();

	json_object_set_new(o, "zero", fig(r, zero));
	json_object_set_new(o, "intra", fig(r, intra));
	json_object_set_new(o, "inter", fig(r, inter));
	return o;
}

/* What Linux KSM has merged at a moment is not ours to know. */
static json_t *shared_count(const struct run_result *r, uint64_t pages)
{
	return strcmp(r->sharing, "kernel") ? result_count(pages) : json_null();
}

/* A guest's part in what is resident and saved. */
static json_t *share_json(const struct run_result *r, const struct ksm_meter_share *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "touched_bytes", fig(r, s->touched));
	json_object_set_new(o, "resident_bytes", fig(r, s->resident));
	json_object_set_new(o, "saved", saved_json(r, s->zero, s->intra, s->inter));
	return o;
}

static json_t *guest_json(const struct run_result *r, const struct run_guest *g)
{
	json_t *o = json_object();

	json_object_set_new(o, "id", json_integer(g->id));
	json_object_set_new(o, "workload", text(g->workload, sizeof(g->workload)));
	json_object_set_new(o, "domain", result_domain_name_json(r, g));
	json_object_set_new(o, "end", text(g->end, sizeof(g->end)));
	json_object_set_new(o, "reason", text(g->reason, sizeof(g->reason)));
	json_object_set_new(o, "remark",
			    *g->remark ? text(g->remark, sizeof(g->remark)) : json_null());
	json_object_set_new(o, "console_tail", result_tail_json(g));
	json_object_set_new(o, "vcpus", fig(r, g->vcpus));
	json_object_set_new(o, "workers", fig(r, g->workers));
	json_object_set_new(o, "workers_room", fig(r, g->workers_room));
	json_object_set_new(o, "reboots", fig(r, g->reboots));
	json_object_set_new(o, "ops", fig(r, g->ops));
	json_object_set_new(o, "checked_pages", result_count(g->checked_pages));
	json_object_set_new(o, "checked_shared_pages", shared_count(r, g->checked_shared_pages));
	json_object_set_new(o, "mismatches", result_count(g->mismatches));
	json_object_set_new(o, "mismatch_list", mismatches_json(g));
	json_object_set_new(o, "written_pages", fig(r, g->written_pages));
	json_object_set_new(o, "disk_pages", fig(r, g->disk_pages));
	json_object_set_new(o, "state_pages", states_json(r, g->state_pages));
	json_object_set_new(o, "share", share_json(r, &g->share));
	json_object_set_new(o, "working_set", result_wset_json(r, g));
	json_object_set_new(o, "huge",
			    r->status == RUN_FAILED ? json_null() : result_huge_json(&g->huge));
	return o;
}

static json_t *sample_json(const struct run_result *r, const struct run_sample *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "t", result_real(s->t));
	json_object_set_new(o, "touched_bytes", result_count(s->touched_bytes));
	json_object_set_new(o, "resident_bytes", result_count(s->resident_bytes));
	json_object_set_new(o, "saved_bytes", result_count(s->saved_bytes));
	json_object_set_new(o, "saved",
			    saved_json(r, s->saved_zero, s->saved_intra, s->saved_inter));
	json_object_set_new(o, "ops", result_count(s->ops));
	json_object_set_new(o, "checked_pages", result_count(s->checked_pages));
	json_object_set_new(o, "mismatches", result_count(s->mismatches));
	json_object_set_new(o, "merge_cpu_seconds", result_real((double)s->merge_cpu_ns / 1e9));
	return o;
}

static uint64_t lat_count(const uint64_t lat[KSM_LAT_BUCKETS])
{
	uint64_t n = 0;

	for (unsigned int b = 0; b < KSM_LAT_BUCKETS; b++)
		n += lat[b];
	return n;
}

/* Upper bounds of a histogram's buckets; null when there is nothing in it. */
static void lat_set(json_t *o, const struct run_result *r, const uint64_t lat[KSM_LAT_BUCKETS])
{
	static const struct {
		const char *name;
		double part;
	} parts[] = {{"p50_ns", 0.5}, {"p99_ns", 0.99}, {"p999_ns", 0.999}, {"max_ns", 1}};
	bool any = lat_count(lat) > 0;

	json_object_set_new(o, "count", fig(r, lat_count(lat)));
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(parts); i++)
		json_object_set_new(o, parts[i].name,
				    any ? fig(r, ksm_lat_part(lat, parts[i].part)) : json_null());
}

/* How long guests stood still for merging, and why for longer than they should. */
static json_t *pauses_json(const struct run_result *r)
{
	const struct ksm_pauses *p = &r->ksm.pauses;
	json_t *o = json_object(), *late = json_object();

	lat_set(o, r, p->pause);
	for (unsigned int i = 0; i < KSM_NLATE; i++)
		json_object_set_new(late, ksm_late_name((enum ksm_late)i), fig(r, p->late[i]));
	json_object_set_new(o, "late", late);
	return o;
}

/* Calls that other guests' faults may have waited for. */
static json_t *stalls_json(const struct run_result *r)
{
	json_t *o = json_object();

	lat_set(o, r, r->ksm.pauses.stall);
	json_object_set_new(o, "sum_ns", fig(r, r->ksm.stall_ns));
	return o;
}

/* What one operation of each kind took. */
static json_t *costs_json(const struct run_result *r)
{
	json_t *o = json_object();

	for (unsigned int i = 0; i < KSM_NCOSTS; i++) {
		const struct ksm_cost *c = &r->ksm.cost[i];
		json_t *kind = json_object();

		json_object_set_new(kind, "measured", fig(r, c->ops));
		json_object_set_new(kind, "cpu_ns", fig(r, c->ns));
		json_object_set_new(kind, "each_ns", fig_time(r, ksm_cost_each(c)));
		json_object_set_new(o, ksm_cost_name((enum ksm_cost_kind)i), kind);
	}
	return o;
}

/* What our engine counted. */
static json_t *hash_json(const struct run_result *r)
{
	const struct ksm_stats *k = &r->ksm;
	const struct {
		const char *name;
		uint64_t v;
	} rows[] = {
		{"passes", k->passes},
		{"dirty_pages", k->dirty_pages},
		{"asked_pages", k->asked_pages},
		{"hashed_pages", k->hashed_pages},
		{"volatile_pages", k->volatile_pages},
		{"budget_rests", k->budget_rests},
		{"candidate_pages", k->candidates},
		{"frames_made", k->frames_made},
		{"merged_pages", k->merged_pages},
		{"merge_runs", k->merge_runs},
		{"zero_pages", k->zero_pages},
		{"compare_failed_pages", k->compare_failed},
		{"broken_pages", k->broken},
		{"skipped_vma_pages", k->skipped_vma},
		{"sync_failed", k->sync_failed},
		{"huge_broken", k->huge_broken},
		{"huge_left_pages", k->huge_left},
		{"io_hint_pages", k->io_hints},
		{"io_dropped_pages", k->io_dropped},
		{"io_void_pages", k->io_void},
		{"io_merged_pages", k->io_merged},
		{"io_missed_pages", k->io_missed},
		{"deferred_pages", k->deferred},
		{"restored_pages", k->restored},
		{"reverted_pages", k->reverted},
		{"map_failed_runs", k->map_failed},
		{"fill_failed_pages", k->fill_failed},
		{"freezes", k->freezes},
		{"freeze_ns", k->freeze_ns},
		{"freeze_max_ns", k->freeze_max_ns},
		{"scanner_cpu_ns", k->cpu_ns},
		{"metadata_bytes", k->meta_bytes},
	};
	json_t *o = json_object();

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(rows); i++)
		json_object_set_new(o, rows[i].name, fig(r, rows[i].v));
	json_object_set_new(o, "pauses", pauses_json(r));
	json_object_set_new(o, "stalls", stalls_json(r));
	json_object_set_new(o, "costs", costs_json(r));
	return o;
}

/* Where the shared frames come from. */
static json_t *content_json(const struct run_result *r)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < r->ncontent; i++) {
		const struct run_content *c = &r->content[i];
		json_t *o = json_object();

		json_object_set_new(o, "what", text(c->what, sizeof(c->what)));
		json_object_set_new(o, "image",
				    *c->image ? text(c->image, sizeof(c->image)) : json_null());
		json_object_set_new(o, "frames", result_count(c->frames));
		json_object_set_new(o, "pages", result_count(c->pages));
		json_object_set_new(o, "bytes_saved", result_count(c->bytes_saved));
		json_array_append_new(list, o);
	}
	return list;
}

/* What Linux KSM counted. */
static json_t *kernel_json(const struct run_result *r)
{
	const struct ksm_sysfs_counters *k = &r->kernel_ksm;
	json_t *o = json_object();

	json_object_set_new(o, "converged", json_boolean(r->converged));
	json_object_set_new(o, "full_scans", fig(r, k->full_scans));
	json_object_set_new(o, "pages_shared", fig(r, k->pages_shared));
	json_object_set_new(o, "pages_sharing", fig(r, k->pages_sharing));
	json_object_set_new(o, "pages_unshared", fig(r, k->pages_unshared));
	json_object_set_new(o, "pages_volatile", fig(r, k->pages_volatile));
	json_object_set_new(o, "zero_pages", fig(r, k->zero_pages));
	json_object_set_new(o, "stable_node_dups", fig(r, k->stable_node_dups));
	json_object_set_new(o, "stable_node_chains", fig(r, k->stable_node_chains));
	json_object_set_new(o, "general_profit_bytes",
			    r->status == RUN_FAILED ? json_null()
						    : json_integer(k->general_profit));
	json_object_set_new(o, "ksmd_cpu_ns", fig(r, k->ksmd_cpu_ns));
	return o;
}

/* User metadata, and KSM's items, for each page that a guest has touched: what it costs to know of a
 * page. Negative: there is nothing of that kind here. */
double result_meta_per_page(const struct run_result *r, uint64_t bytes)
{
	uint64_t pages = r->touched_bytes / OB_PAGE_SIZE;

	return bytes && pages ? (double)bytes / (double)pages : -1;
}

/* All that may be compared with another run: null as a whole when it failed. */
static void figures_set(json_t *o, const struct run_result *r)
{
	bool failed = r->status == RUN_FAILED;
	json_t *meta = json_object(), *lat = json_object();
	json_t *page = json_object();

	json_object_set_new(o, "boot_seconds", fig_time(r, r->boot_seconds));
	json_object_set_new(o, "warm_seconds", fig_time(r, r->warm_seconds));
	json_object_set_new(o, "measured_seconds", fig_time(r, r->measured_seconds));
	json_object_set_new(o, "paused_seconds", fig_time(r, r->paused_seconds));
	json_object_set_new(o, "touched_bytes", fig(r, r->touched_bytes));
	json_object_set_new(o, "resident_bytes", fig(r, r->resident_bytes));
	json_object_set_new(o, "resident_bytes_kernel", fig(r, r->resident_bytes_kernel));
	json_object_set_new(o, "saved_bytes", failed ? json_null() : json_integer(r->saved_bytes));
	json_object_set_new(o, "saved",
			    saved_json(r, r->saved_zero, r->saved_intra, r->saved_inter));
	json_object_set_new(o, "metadata_bytes", fig(r, r->metadata_ours + r->metadata_kernel));
	json_object_set_new(meta, "ours", fig(r, r->metadata_ours));
	json_object_set_new(meta, "kernel", fig(r, r->metadata_kernel));
	json_object_set_new(meta, "ksm_items", fig(r, r->metadata_items));
	json_object_set_new(o, "metadata", meta);
	json_object_set_new(
		page, "merging",
		fig_time(r, result_meta_per_page(r, r->metadata_ours - r->metadata_map)));
	json_object_set_new(page, "with_map",
			    fig_time(r, result_meta_per_page(r, r->metadata_ours)));
	json_object_set_new(page, "kernel_items",
			    fig_time(r, result_meta_per_page(r, r->metadata_items)));
	json_object_set_new(o, "metadata_bytes_per_page", page);
	json_object_set_new(o, "merge_cpu_seconds", fig_time(r, r->merge_cpu_seconds));
	json_object_set_new(o, "merge_seconds_to_95", fig_time(r, r->merge_seconds_to_95));
	json_object_set_new(o, "ops_per_second", fig_time(r, r->ops_per_second));
	json_object_set_new(lat, "p50_us", fig_time(r, r->lat_p50_us));
	json_object_set_new(lat, "p99_us", fig_time(r, r->lat_p99_us));
	json_object_set_new(o, "latency", lat);
}

static json_t *reserve_json(const struct run_result *r)
{
	const struct run_reserve *v = &r->reserve;
	json_t *o;

	if (!v->on)
		return json_null();
	o = json_object();
	json_object_set_new(o, "bytes", fig(r, v->bytes));
	json_object_set_new(o, "largest_bytes", fig(r, v->bytes_max));
	json_object_set_new(o, "react_seconds", fig_time(r, v->react_seconds));
	json_object_set_new(o, "break_bytes_per_second_peak", fig(r, v->break_rate_peak));
	/* A run that ended at once was never looked at. */
	json_object_set_new(o, "available_min_bytes",
			    v->available_min == UINT64_MAX ? json_null()
							   : fig(r, v->available_min));
	json_object_set_new(o, "low_seconds", fig_time(r, v->low_seconds));
	json_object_set_new(o, "pauses", fig(r, v->pauses));
	json_object_set_new(o, "stood_seconds", fig_time(r, v->stood_seconds));
	json_object_set_new(o, "standing_guests", fig(r, v->standing_guests));
	json_object_set_new(o, "host_mem_bytes", v->host_mem ? fig(r, v->host_mem) : json_null());
	json_object_set_new(o, "over_bytes", v->host_mem ? fig(r, v->over_bytes) : json_null());
	json_object_set_new(o, "fits_seconds",
			    v->host_mem ? fig_time(r, v->fits_seconds) : json_null());
	return o;
}

/* How a phase was left: null when the run ended in it. */
static json_t *left_json(const struct run_switch *s)
{
	json_t *o;

	if (s->seconds < 0)
		return json_null();
	o = json_object();
	json_object_set_new(o, "to", text(s->to, sizeof(s->to)));
	json_object_set_new(o, "seconds", result_real(s->seconds));
	json_object_set_new(o, "unmerged_pages", result_count(s->pages));
	json_object_set_new(o, "unmerged_zero_pages", result_count(s->zero_pages));
	json_object_set_new(o, "given_up_bytes", result_count(s->bytes));
	json_object_set_new(o, "frames_left", result_count(s->frames_left));
	json_object_set_new(o, "longest_pause_us", result_real(s->pause_max_us));
	return o;
}

static json_t *run_json(const struct run_result *r);

/* The phases of a run whose mode was switched: documents like that of a run. */
static json_t *phases_json(const struct run_result *r)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < r->nphases; i++) {
		json_t *o = run_json(&r->phase[i]);

		json_object_del(o, "phases");
		json_object_del(o, "kvm_stats");
		json_object_set_new(o, "from_seconds", result_real(r->phase[i].from_seconds));
		json_object_set_new(o, "to_seconds", result_real(r->phase[i].to_seconds));
		json_object_set_new(o, "left", left_json(&r->phase[i].left));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *run_json(const struct run_result *r)
{
	json_t *o = json_object(), *integrity = json_object();
	json_t *guests = json_array(), *samples = json_array();
	uint64_t states[EPT_NSTATES] = {0}, wset;
	struct ept_huge_stats huge;

	json_object_set_new(o, "sharing", text(r->sharing, sizeof(r->sharing)));
	json_object_set_new(o, "status", json_string(run_status_name(r->status)));
	json_object_set_new(o, "note", text(r->note, sizeof(r->note)));
	json_object_set_new(o, "guests", json_integer(r->guests));
	json_object_set_new(o, "cells", json_integer(r->cells));
	json_object_set_new(o, "cells_lost", json_integer(r->cells_lost));
	json_object_set_new(o, "configured_bytes", result_count(r->configured_bytes));
	figures_set(o, r);

	json_object_set_new(integrity, "checked_pages", result_count(r->checked_pages));
	json_object_set_new(integrity, "checked_shared_pages",
			    shared_count(r, r->checked_shared_pages));
	json_object_set_new(integrity, "mismatches", result_count(r->mismatches));
	json_object_set_new(integrity, "frame_check_errors",
			    r->frames_checked ? result_count(r->frame_check_errors) : json_null());
	json_object_set_new(integrity, "cross_domain_pages",
			    result_count(r->saved_foreign / OB_PAGE_SIZE));
	json_object_set_new(o, "integrity", integrity);
	json_object_set_new(o, "pfn_known", json_boolean(r->pfn_known));

	for (unsigned int i = 0; r->guest && i < r->guests; i++) {
		json_array_append_new(guests, guest_json(r, &r->guest[i]));
		for (int s = 0; s < EPT_NSTATES; s++)
			states[s] += r->guest[i].state_pages[s];
	}
	json_object_set_new(o, "state_pages", states_json(r, states));
	json_object_set_new(o, "working_set_bytes",
			    result_wset_bytes(r, &wset) ? fig(r, wset) : json_null());
	result_huge_sum(r, &huge);
	json_object_set_new(o, "huge",
			    r->status == RUN_FAILED ? json_null() : result_huge_json(&huge));
	json_object_set_new(o, "huge_cpu_seconds", fig_time(r, r->huge_cpu_seconds));
	json_object_set_new(o, "reserve", reserve_json(r));
	json_object_set_new(o, "hash",
			    strcmp(r->sharing, "hash") == 0 ? hash_json(r) : json_null());
	json_object_set_new(o, "top_content",
			    strcmp(r->sharing, "hash") == 0 && r->status != RUN_FAILED
				    ? content_json(r)
				    : json_null());
	json_object_set_new(o, "kinds", kinds_json(r));
	json_object_set_new(o, "kernel_ksm",
			    strcmp(r->sharing, "kernel") == 0 ? kernel_json(r) : json_null());
	for (unsigned int i = 0; r->status != RUN_FAILED && i < r->nsamples; i++)
		json_array_append_new(samples, sample_json(r, &r->sample[i]));
	json_object_set_new(o, "numa", result_numa_json(r));
	json_object_set_new(o, "domains", result_domains_json(r));
	json_object_set_new(o, "guest_list", guests);
	json_object_set_new(o, "samples", samples);
	json_object_set_new(o, "phases", phases_json(r));
	json_object_set_new(o, "kvm_stats",
			    result_kvmstat_json(r->status == RUN_FAILED ? NULL : r->kvm_stats));
	return o;
}

static json_t *config_json(const struct fleet_config *c)
{
	char pace[KSM_PACE_TEXT];
	static const struct {
		unsigned int bit;
		const char *name;
	} faults[] = {
		{KSM_INJECT_FLIP_FRAME, "flip-frame"},
		{KSM_INJECT_SKIP_COMPARE, "skip-compare"},
		{KSM_INJECT_LOSE_BREAK, "lose-break"},
	};
	json_t *o = json_object(), *workload = json_array(), *sharing = json_array();
	json_t *inject = json_array();

	for (unsigned int i = 0; i < c->nworkloads; i++)
		json_array_append_new(workload, text(c->workload[i], sizeof(c->workload[i])));
	for (unsigned int i = 0; i < c->nsharing; i++)
		json_array_append_new(sharing, json_string(c->sharing[i]->name));
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(faults); i++)
		if (c->inject & faults[i].bit)
			json_array_append_new(inject, json_string(faults[i].name));
	json_object_set_new(o, "guests", json_integer(c->guests));
	json_object_set_new(o, "mem_bytes", result_count(c->mem_bytes));
	json_object_set_new(o, "workload", workload);
	json_object_set_new(o, "sharing", sharing);
	json_object_set_new(o, "live", json_boolean(c->live));
	json_object_set_new(o, "seconds", c->seconds ? json_integer(c->seconds) : json_null());
	json_object_set_new(o, "seed", result_count(c->seed));
	json_object_set_new(o, "cell", json_integer(c->cell));
	json_object_set_new(o, "domains", result_domain_config_json(c));
	json_object_set_new(o, "merge_across_nodes", json_boolean(c->across_nodes));
	json_object_set_new(o, "warm_timeout_seconds", json_integer(fleet_warm_timeout(c)));
	json_object_set_new(o, "ksm_cpu_percent", json_integer(c->ksm_cpu_percent));
	json_object_set_new(o, "max_pause_us", json_integer(c->max_pause_us));
	json_object_set_new(o, "inject", inject);
	json_object_set_new(o, "scan_gap_ms",
			    c->scan_gap_ms ? json_integer(c->scan_gap_ms) : json_null());
	json_object_set_new(o, "ksm", json_string(ksm_pace_text(&c->ksm_pace, pace)));
	json_object_set_new(o, "io_hints", json_boolean(c->io_hints));
	json_object_set_new(o, "working_set", result_wset_config_json(&c->wset));
	json_object_set_new(o, "pages", json_string(ept_pages_name(c->pages)));
	json_object_set_new(o, "huge_threshold",
			    c->huge_threshold ? json_integer(c->huge_threshold) : json_null());
	json_object_set_new(o, "host_mem_bytes",
			    c->host_mem_bytes ? result_count(c->host_mem_bytes) : json_null());
	result_guest_config(o, c);
	return o;
}

json_t *result_json(const struct fleet_config *c, const struct run_result *runs, unsigned int nruns,
		    enum run_status overall)
{
	json_t *o = json_object(), *list = json_array();

	for (unsigned int i = 0; i < nruns; i++)
		json_array_append_new(list, run_json(&runs[i]));
	json_object_set_new(o, "schema", json_string(RESULT_SCHEMA));
	json_object_set_new(o, "status", json_string(run_status_name(overall)));
	json_object_set_new(o, "git", result_git_json());
	json_object_set_new(o, "host", result_host_json());
	json_object_set_new(o, "config", config_json(c));
	json_object_set_new(o, "runs", list);
	return o;
}
