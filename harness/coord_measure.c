/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_measure.c: what a fleet holds and what it saves.
 *
 * The cells write into the meter what backs each guest page; counting it is done here, over all
 * cells at once, since frames are shared between them. What we say is resident is checked against
 * the kernel's own account: Pss of the guests' anonymous mappings, the broken pages in their pool
 * mappings (Anonymous), and the blocks of the pool file.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "harness/coord.h"
#include "harness/proto.h"
#include "harness/result.h"

/* Bytes of kernel memory for one mapping (vm_area_struct with its maple-tree share; with anon_vma
 * when its pages were broken): measured on Linux 6.x, docs/design.md. */
#define VMA_BYTES	  248
#define RMAP_ITEM_BYTES	  64
#define STABLE_NODE_BYTES 64

/* --- samples ----------------------------------------------------------------------------- */

static void take_guest(struct coord *c, const json_t *o)
{
	unsigned int id = (unsigned int)proto_u64(o, "id");
	const json_t *states = json_object_get(o, "states"), *list, *m;
	struct coord_guest *cg;
	struct run_guest *g;
	size_t i;

	if (id >= c->cfg->guests)
		return;
	cg = &c->guest[id];
	g = &c->out->guest[id];
	cg->staging = proto_u64(o, "staging");
	cg->staging_size = proto_u64(o, "staging_size");
	cg->phase = proto_u64(o, "phase");
	cg->ops = g->ops = proto_u64(o, "ops");
	g->checked_pages = proto_u64(o, "checked");
	g->checked_shared_pages = proto_u64(o, "checked_shared");
	g->mismatches = proto_u64(o, "mismatches");
	g->written_pages = proto_u64(o, "written");
	g->disk_pages = proto_u64(o, "disk");
	g->workers = proto_u64(o, "workers");
	g->workers_room = proto_u64(o, "workers_room");
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		g->state_pages[s] = (uint64_t)json_integer_value(json_array_get(states, s));
	if (!cg->ended && strcmp(proto_str(o, "end"), "running")) {
		cg->ended = true;
		ob_warn("guest %u ended: %s", id, proto_str(o, "reason"));
	}
	if (json_object_get(o, "huge"))
		result_huge_take(&g->huge, json_object_get(o, "huge"));
	snprintf(g->end, sizeof(g->end), "%s", proto_str(o, "end"));
	snprintf(g->reason, sizeof(g->reason), "%s", proto_str(o, "reason"));
	coord_linux_take(c, g, o);
	coord_wset_take(c, g, o);
	list = json_object_get(o, "lat");
	json_array_foreach (list, i, m)
		if (i < AGENT_LAT_BUCKETS)
			cg->lat[i] = (uint64_t)json_integer_value(m);
	list = json_object_get(o, "mismatch");
	json_array_foreach (list, i, m) {
		if (i >= AGENT_MISMATCHES)
			break;
		g->mismatch[i] = (struct agent_mismatch){
			.gpa = (uint64_t)json_integer_value(json_array_get(m, 0)),
			.expect = (uint64_t)json_integer_value(json_array_get(m, 1)),
			.got = (uint64_t)json_integer_value(json_array_get(m, 2)),
			.kind = (uint64_t)json_integer_value(json_array_get(m, 3)),
		};
		g->nmismatch = (unsigned int)i + 1;
	}
}

static void take_sample(struct coord *c, unsigned int cell, const json_t *a)
{
	const json_t *guests = json_object_get(a, "guests"), *k = json_object_get(a, "ksm"), *g;
	struct coord_cell *cc = &c->cell[cell];
	size_t i;

	json_array_foreach (guests, i, g)
		take_guest(c, g);
	cc->ept_bytes = proto_u64(a, "ept_bytes");
	cc->vmas = proto_u64(a, "vmas");
	cc->huge_cpu_ns = proto_u64(a, "huge_cpu_ns");
	cc->log_bytes = proto_u64(a, "log_bytes");
	c->out->frame_check_errors += proto_u64(a, "wrong");
	proto_unpack_stats(k, &cc->ksm);
	result_kvmstat_take(c->out->kvm_stats, json_object_get(a, "kvm"));
}

static uint64_t merge_cpu_ns(struct coord *c)
{
	struct ksm_sysfs_counters k;
	uint64_t ns = c->merge_base_ns + c->reap_cpu_ns;

	/* What a mode cost that is being left is in the base already. */
	if (c->sw.to)
		return c->merge_base_ns;
	for (unsigned int i = 0; i < c->ncells; i++)
		ns += c->cell[i].ksm.cpu_ns;
	if (c->driving && !ksm_sysfs_read(&k))
		ns += k.ksmd_cpu_ns - c->kernel_t0.ksmd_cpu_ns;
	return ns;
}

/* --- what backs the guests --------------------------------------------------------------- */

/* Of one domain (UINT_MAX: of all), with each guest's part in @share unless that is NULL. */
static int count_meter(struct coord *c, unsigned int domain, struct ksm_meter_result *m,
		       struct ksm_meter_share *share)
{
	struct ksm_meter_vm *vm = calloc(c->cfg->guests, sizeof(*vm));
	unsigned int n = 0;
	int r;

	OB_ASSERT(vm);
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		if (domain == UINT_MAX || c->place.domain_of[i] == domain)
			vm[n++] = (struct ksm_meter_vm){
				.words = c->meter + c->guest[i].page_base,
				.pages = c->guest[i].pages,
			};
	r = ksm_meter_shares(vm, n, m, share);
	free(vm);
	return r;
}

int coord_count(struct coord *c, unsigned int domain, struct ksm_meter_result *m)
{
	return count_meter(c, domain, m, NULL);
}

/* The whole fleet; the last time with each guest's part. */
static int count_all(struct coord *c, bool last, struct ksm_meter_result *m)
{
	struct ksm_meter_share *share = last ? calloc(c->cfg->guests, sizeof(*share)) : NULL;
	int r;

	OB_ASSERT(share || !last);
	r = count_meter(c, UINT_MAX, m, share);
	for (unsigned int i = 0; share && !r && i < c->cfg->guests; i++)
		c->out->guest[i].share = share[i];
	free(share);
	return r;
}

/* Memory of the pools that no guest's page refers to (being filled, or not given back yet). */
static uint64_t pool_extra_bytes(struct coord *c, const struct ksm_meter_result *m)
{
	struct ksm_domain_stats st;
	uint64_t held;

	coord_pools_stats(c, &st);
	held = (st.live + st.filling) * OB_PAGE_SIZE;
	return held > m->pool_frames * OB_PAGE_SIZE ? held - m->pool_frames * OB_PAGE_SIZE : 0;
}

/* --- what the kernel says ---------------------------------------------------------------- */

static bool inside(uint64_t at, uint64_t from, uint64_t size)
{
	return at >= from && at - from < size;
}

/* RAM, or the staging that pages of it have been taken out to. */
static bool in_guest_ram(const struct coord *c, const struct coord_cell *k, uint64_t at)
{
	for (unsigned int i = 0; i < k->n; i++) {
		const struct coord_guest *g = &c->guest[k->guest[i]];

		if (inside(at, g->staging, g->staging_size))
			return true;
		for (unsigned int r = 0; r < g->nram; r++)
			if (inside(at, g->ram[r].hva, g->ram[r].size))
				return true;
	}
	return false;
}

/* Memory of a cell's guests by /proc/PID/smaps, without the pool's frames. */
static uint64_t smaps_bytes(const struct coord *c, const struct coord_cell *k)
{
	unsigned long long from, to, inode, kb;
	bool guest = false, file = false;
	uint64_t bytes = 0;
	char path[64], line[512];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)k->pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx-%llx %*4s %*x %*x:%*x %llu", &from, &to, &inode) == 3) {
			guest = in_guest_ram(c, k, from);
			file = inode != 0;
		} else if (guest &&
			   sscanf(line, file ? "Anonymous: %llu kB" : "Pss: %llu kB", &kb) == 1) {
			bytes += kb * OB_KIB;
		}
	}
	fclose(f);
	return bytes;
}

static uint64_t proc_status_kb(pid_t pid, const char *key)
{
	char path[64], line[256];
	unsigned long long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':') {
			kb = strtoull(line + strlen(key) + 1, NULL, 10);
			break;
		}
	fclose(f);
	return kb;
}

uint64_t coord_page_tables(const struct coord_cell *k)
{
	return k->fd >= 0 ? proc_status_kb(k->pid, "VmPTE") * OB_KIB : 0;
}

static uint64_t ksm_rmap_items(pid_t pid)
{
	char path[64], line[128];
	unsigned long long n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/ksm_stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "ksm_rmap_items %llu", &n) == 1)
			break;
	fclose(f);
	return n;
}

static void metadata(struct coord *c)
{
	struct run_result *out = c->out;

	out->metadata_ours = out->metadata_kernel = 0;
	out->metadata_map = out->metadata_items = 0;
	for (unsigned int i = 0; i < c->ncells; i++) {
		struct coord_cell *k = &c->cell[i];
		uint64_t regions = 0, tables = coord_page_tables(k), ours = 0, kernel = 0,
			 items = 0;

		if (k->fd < 0)
			continue;
		for (unsigned int g = 0; g < k->n; g++)
			regions += c->guest[k->guest[g]].nram;
		if (c->pooled) {
			ours += k->ept_bytes + k->ksm.meta_bytes;
			out->metadata_map += k->ept_bytes;
		}
		if (c->pooled && k->vmas > regions)
			kernel += (k->vmas - regions) * VMA_BYTES;
		/* KVM's log of writes: merging is not its only reader, and is charged for it. */
		if (c->pooled)
			kernel += k->log_bytes;
		if (c->driving)
			items = ksm_rmap_items(k->pid) * RMAP_ITEM_BYTES;
		kernel += items;
		out->metadata_items += items;
		/* Page tables that have grown since the engine was switched on. */
		if ((c->pooled || c->driving) && tables > k->page_tables_t0)
			kernel += tables - k->page_tables_t0;
		out->metadata_ours += ours;
		out->metadata_kernel += kernel;
		out->domain[c->place.cell[i].domain].metadata_bytes += ours + kernel;
	}
	/* The pools' own, and what KSM keeps, which knows one domain only. */
	for (unsigned int i = 0; i < out->npools; i++) {
		out->metadata_ours += out->pool[i].metadata_bytes;
		out->domain[out->pool[i].domain].metadata_bytes += out->pool[i].metadata_bytes;
	}
	if (c->driving) {
		out->metadata_kernel += out->kernel_ksm.pages_shared * STABLE_NODE_BYTES;
		out->metadata_items += out->kernel_ksm.pages_shared * STABLE_NODE_BYTES;
		out->domain[0].metadata_bytes += out->kernel_ksm.pages_shared * STABLE_NODE_BYTES;
	}
}

/* --- the figures ------------------------------------------------------------------------- */

static struct run_sample *new_sample(struct coord *c)
{
	struct run_result *out = c->out;

	if (out->nsamples == c->room) {
		c->room = c->room ? c->room * 2 : 256;
		out->sample = realloc(out->sample, c->room * sizeof(*out->sample));
		OB_ASSERT(out->sample);
	}
	out->sample[out->nsamples] = (struct run_sample){0};
	return &out->sample[out->nsamples++];
}

int coord_sample(struct coord *c, bool full, struct ob_err *e)
{
	struct run_result *out = c->out;
	struct ksm_meter_result m;
	struct run_sample *s;
	uint64_t now;
	bool kvm;
	int r;

	if (!out->kvm_stats)
		out->kvm_stats = result_kvmstat_new(c->cfg->guests);
	kvm = result_kvmstat_due(out->kvm_stats, c->host.ops->now_ns(&c->host), full);
	out->frame_check_errors = 0;
	if (full)
		coord_pools_learn(c);
	r = coord_ask(c,
		      json_pack("{s:s,s:b,s:b,s:b}", "do", "sample", "meter", 1, "full", (int)full,
				"kvm", (int)kvm),
		      COORD_ASK_MS, take_sample, e);
	if (r)
		return r;
	/* What the guests did they did until they were parked. */
	now = c->end_ns ? c->end_ns : coord_now(c);
	r = count_all(c, full, &m);
	if (r)
		return ob_fail(e, -r, "counting shared pages: %s", strerror(-r));
	s = new_sample(c);
	/* Before the engine is on, times count from the boot (switch_on moves them). */
	s->t = (double)(now - (c->t0_ns ? c->t0_ns : c->boot_ns)) / OB_NS_PER_SEC;
	result_kvmstat_end(out->kvm_stats, s->t);
	s->touched_bytes = m.touched * OB_PAGE_SIZE;
	s->resident_bytes = m.frames * OB_PAGE_SIZE + pool_extra_bytes(c, &m);
	s->saved_zero = m.zero * OB_PAGE_SIZE;
	s->saved_intra = m.intra * OB_PAGE_SIZE;
	s->saved_inter = m.inter * OB_PAGE_SIZE;
	s->saved_bytes = s->saved_zero + s->saved_intra + s->saved_inter;
	s->merge_cpu_ns = c->t0_ns ? merge_cpu_ns(c) : 0;
	for (unsigned int i = 0; i < c->cfg->guests; i++) {
		s->ops += out->guest[i].ops;
		s->checked_pages += out->guest[i].checked_pages;
		s->mismatches += out->guest[i].mismatches;
	}
	out->touched_bytes = s->touched_bytes;
	out->resident_bytes = s->resident_bytes;
	out->saved_zero = s->saved_zero;
	out->saved_intra = s->saved_intra;
	out->saved_inter = s->saved_inter;
	return 0;
}

/* The bucket bounds are those of agent_abi.h: octave b / 4, its quarter b % 4. */
static double bucket_us(unsigned int b)
{
	double base = (double)(1ULL << (b / 4));

	return base * (1.0 + ((double)(b % 4) + 1.0) / 4.0) / 1000.0;
}

static double percentile(const uint64_t *lat, double part)
{
	uint64_t sum = 0, seen = 0;

	for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++)
		sum += lat[b];
	if (!sum)
		return -1;
	for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++) {
		seen += lat[b];
		if ((double)seen >= part * (double)sum)
			return bucket_us(b);
	}
	return bucket_us(AGENT_LAT_BUCKETS - 1);
}

static void latencies(struct coord *c)
{
	uint64_t lat[AGENT_LAT_BUCKETS] = {0};

	for (unsigned int i = 0; i < c->cfg->guests; i++)
		for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++)
			lat[b] += c->guest[i].lat[b];
	for (unsigned int b = 0; b < AGENT_LAT_BUCKETS; b++)
		lat[b] -= OB_MIN(lat[b], c->lat_t0[b]);
	c->out->lat_p50_us = percentile(lat, 0.5);
	c->out->lat_p99_us = percentile(lat, 0.99);
}

static void seconds_to_95(struct coord *c)
{
	struct run_result *out = c->out;
	uint64_t first = 0, last = out->sample[out->nsamples - 1].saved_bytes;

	out->merge_seconds_to_95 = -1;
	/* What reading untouched memory saves (the zero page) was there before the engine. */
	for (unsigned int i = 0; i < out->nsamples && out->sample[i].t <= c->phase_at; i++)
		first = out->sample[i].saved_bytes;
	if (last <= first || !c->t0_ns || !(c->pooled || c->driving))
		return;
	for (unsigned int i = c->phase_sample; i < out->nsamples; i++) {
		const struct run_sample *s = &out->sample[i];

		if (s->t > c->phase_at && s->saved_bytes >= first &&
		    (double)(s->saved_bytes - first) >= 0.95 * (double)(last - first)) {
			out->merge_seconds_to_95 = s->t - c->phase_at;
			return;
		}
	}
}

static void sum_ksm(struct coord *c)
{
	c->out->ksm = (struct ksm_stats){0};
	for (unsigned int i = 0; i < c->ncells; i++)
		proto_add_stats(&c->out->ksm, &c->cell[i].ksm);
}

double coord_ops_per_second(const struct coord *c)
{
	const struct run_result *out = c->out;
	uint64_t ops = out->sample[out->nsamples - 1].ops;

	if (coord_linux_agentless(c))
		return -1; /* nobody counts */
	/* A phase that was not measured, or in which nobody did anything, has none: not that before it. */
	return out->measured_seconds > 0 && ops > c->ops_t0
		       ? (double)(ops - c->ops_t0) / out->measured_seconds
		       : 0;
}

int coord_finish(struct coord *c, struct ob_err *e)
{
	struct run_result *out = c->out;
	struct ksm_domain_stats st;
	const struct run_sample *s;
	int r;

	if (!out->nsamples)
		return 0;
	s = &out->sample[out->nsamples - 1];
	out->pfn_known = c->host.knows_pfn;
	out->frames_checked = c->host.knows_pfn && c->pooled;
	out->checked_pages = s->checked_pages;
	out->mismatches = s->mismatches;
	out->checked_shared_pages = 0;
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		out->checked_shared_pages += out->guest[i].checked_shared_pages;
	out->measured_seconds = c->t0_ns ? s->t - c->phase_at : 0;
	out->ops_per_second = coord_ops_per_second(c);
	out->merge_cpu_seconds = (double)(s->merge_cpu_ns - c->phase_merge_ns) / OB_NS_PER_SEC;
	out->huge_cpu_seconds = 0;
	for (unsigned int i = 0; i < c->ncells; i++)
		out->huge_cpu_seconds +=
			(double)(c->cell[i].huge_cpu_ns - c->cell[i].huge_cpu_t0) / OB_NS_PER_SEC;
	if (c->driving && !ksm_sysfs_read(&out->kernel_ksm)) {
		/* The kernel counts from its own boot; a run from the moment it was switched on. */
		out->kernel_ksm.full_scans -= c->kernel_t0.full_scans;
		out->kernel_ksm.ksmd_cpu_ns -= c->kernel_t0.ksmd_cpu_ns;
	}
	out->resident_bytes_kernel = 0;
	for (unsigned int i = 0; i < c->ncells; i++)
		if (c->cell[i].fd >= 0)
			out->resident_bytes_kernel += smaps_bytes(c, &c->cell[i]);
	coord_pools_stats(c, &st);
	out->resident_bytes_kernel += st.pool_blocks_bytes;
	r = coord_domains_finish(c);
	if (r)
		return ob_fail(e, -r, "counting the shared pages of domains: %s", strerror(-r));
	/* Before the engine was on nothing was spent on it. */
	if (c->t0_ns)
		metadata(c);
	out->saved_bytes = (int64_t)(out->saved_zero + out->saved_intra + out->saved_inter) -
			   (int64_t)(out->metadata_ours + out->metadata_kernel);
	latencies(c);
	seconds_to_95(c);
	sum_ksm(c);
	coord_content(c);
	return coord_kinds(c, e);
}
