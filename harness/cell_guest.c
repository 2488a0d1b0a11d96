/* SPDX-License-Identifier: Apache-2.0 */
/* cell_guest.c: one guest inside a cell: made, watched, asked how it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/cell.h"
#include "harness/proto.h"

/* A guest that has had this much CPU time without a heartbeat loops. Measured in its own CPU time,
 * so that a busy host does not look like a looping guest; but time that a host below this one took
 * away counts as the guest's, and instructions may be emulated: hence so much. */
#define WATCHDOG_CPU_NS (2 * OB_NS_PER_SEC)
/* One that sleeps without a heartbeat has lost a wake-up or its way. Its longest sleep is 10 s. */
#define WATCHDOG_SLEEP_NS (30 * OB_NS_PER_SEC)

static void guest_park(void *arg)
{
	vm_park(arg);
}

static void guest_unpark(void *arg)
{
	vm_unpark(arg);
}

static int guest_cpu(void *arg)
{
	return vm_cpu(arg);
}

static void guest_lost(void *arg, const char *why)
{
	vm_fail(arg, "%s", why);
}

/* What a guest writes is tracked for whoever merges; nothing is on until he switches it on. */
static void track_open(struct cell *c, struct cell_guest *g)
{
	g->tracked = ksm_engine_steps(c->ksm);
	if (!g->tracked)
		return;
	ept_track_init(&g->track, ept_log_kvm(g->vm), &g->vm->mem, c->arena_ksm);
	ept_track_attach(&g->ept, &g->track);
}

static void track_close(struct cell_guest *g)
{
	if (!g->tracked)
		return;
	ept_track_attach(&g->ept, NULL);
	ept_track_exit(&g->track);
	g->tracked = false;
}

int cell_guest_merge(struct cell *c, struct cell_guest *g)
{
	int r;

	track_open(c, g);
	r = ksm_add_guest(c->ksm, &(struct ksm_guest){
					  .ept = &g->ept,
					  .vm = g->id,
					  .page_base = g->page_base,
					  .track = g->tracked ? &g->track : NULL,
					  .io = g->io,
				  });
	if (r)
		track_close(g);
	return r;
}

void cell_guest_unmerged(struct cell *c, struct cell_guest *g)
{
	if (c->ksm)
		ksm_remove_guest(c->ksm, g->id);
	track_close(g);
}

/* How many of these pages are pool frames at this moment? Asked right after the guest read them, so
 * they are in the page tables, and the kernel says which of them are of the file. */
static uint64_t count_shared(void *arg, uint64_t page, uint64_t n)
{
	struct cell_guest *g = arg;
	struct ob_page view[256];
	uint64_t shared = 0;

	for (uint64_t done = 0; done < n;) {
		uint64_t chunk = OB_MIN(OB_MIN(n - done, OB_ARRAY_SIZE(view)),
					gmem_page_span(&g->vm->mem, page + done));
		struct ob_host *h = g->ept.host;

		if (h->ops->pages(h, gmem_page_hva(&g->vm->mem, page + done), chunk, view))
			break;
		for (uint64_t i = 0; i < chunk; i++)
			shared += view[i].present && view[i].file;
		done += chunk;
	}
	return shared;
}

int cell_guest_disks(struct cell *c, struct cell_guest *g, const json_t *doc, struct vm_config *cfg,
		     struct ob_err *e)
{
	int r = cell_linux_guest(c, g, doc, cfg, e);

	_Static_assert(VM_MAX_DISKS > LINUX_MAX_DISKS, "there is a place for the image");
	if (!r && c->image_fd >= 0)
		cfg->disk[cfg->ndisks++].fd = c->image_fd;
	return r;
}

int cell_guest_create(struct cell *c, struct cell_guest *g, const json_t *doc, struct ob_err *e)
{
	const char *console = proto_str(doc, "console");
	struct vm_config cfg = {
		.id = (unsigned int)proto_u64(doc, "id"),
		.mem_bytes = proto_u64(doc, "mem"),
		.kernel = c->kernel,
		.kernel_len = c->kernel_len,
		.cmdline = proto_str(doc, "cmdline"),
		.worker = c->worker,
	};
	int r;

	cell_huge_config(c, &cfg);

	*g = (struct cell_guest){
		.id = cfg.id,
		.page_base = proto_u64(doc, "page_base"),
		.console_fd = -1,
	};
	snprintf(g->workload, sizeof(g->workload), "%s", proto_str(doc, "workload"));
	if (!strcmp(console, "-"))
		g->console_fd = fcntl(CELL_FD_CONSOLE, F_DUPFD_CLOEXEC, 0);
	else if (*console)
		g->console_fd = open(console, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (*console && g->console_fd < 0)
		return ob_fail(e, errno, "console of guest %u: %s: %s", g->id, console,
			       strerror(errno));
	cfg.console_fd = g->console_fd;

	r = cell_guest_disks(c, g, doc, &cfg, e);
	if (!r)
		r = vm_create(&g->vm, &c->kvm, &c->host, &cfg, e);
	if (r)
		goto close_console;
	r = ept_init(&g->ept, &c->host, &g->vm->mem,
		     (struct ept_parker){.park = guest_park,
					 .unpark = guest_unpark,
					 .cpu = guest_cpu,
					 .fail = guest_lost,
					 .arg = g->vm},
		     c->arena_ept);
	if (r) {
		ob_fail(e, -r, "guest %u: page map: %s", g->id, strerror(-r));
		goto destroy_vm;
	}
	cell_io_guest(c, g);
	r = cell_guest_merge(c, g);
	if (r) {
		ob_fail(e, -r, "guest %u: merging: %s", g->id, strerror(-r));
		goto exit_ept;
	}
	cell_io_listen(c, g);
	cell_boot_guest(c, g);
	cell_huge_guest(c, g);
	cell_kvmstat_open(g);
	g->vm->agent.count_arg = g;
	g->vm->agent.count_shared = count_shared;
	g->vm->agent.kinds = c->lx.agent ? c->kinds + g->page_base : NULL;
	return 0;

exit_ept:
	cell_io_guest_exit(g);
	ept_exit(&g->ept);
destroy_vm:
	vm_destroy(g->vm);
	g->vm = NULL;
close_console:
	cell_linux_guest_exit(g);
	if (g->console_fd >= 0)
		close(g->console_fd);
	return r;
}

void cell_guest_destroy(struct cell *c, struct cell_guest *g)
{
	if (!g->vm)
		return;
	cell_kvmstat_close(g);
	vm_stop(g->vm);
	vm_detach(g->vm);
	cell_huge_guest_exit(g);
	cell_guest_unmerged(c, g);
	cell_io_guest_exit(g);
	ept_exit(&g->ept);
	vm_destroy(g->vm);
	g->vm = NULL;
	cell_linux_guest_exit(g);
	if (g->console_fd >= 0)
		close(g->console_fd);
}

/*
 * Nobody runs in it any more, so what it held is of use to nobody. The pages go before the holds, so that
 * no page is left on a frame that is given back. What it said last is in that memory too, and is kept.
 * Taking its devices down waits for what they have under way: not while that is a slow disk's.
 */
void cell_guest_give_back(struct cell *c, struct cell_guest *g)
{
	bool alone = c->paused;
	struct ept_stats st;
	int64_t r;

	if (g->gone || c->deaf || atomic_load(&g->vm->state) != VM_STOPPED ||
	    (g->vm->end != VM_END_EXIT && g->vm->end != VM_END_FAILED))
		return;
	vm_stop(g->vm);
	vm_detach(g->vm);
	cell_guest_report(g, &g->last);
	g->gone = true;
	if (!alone)
		cell_scan_hold(c);
	cell_huge_guest_exit(g);
	r = ept_balloon(&g->ept, 0, g->ept.pages, true);
	ept_read_stats(&g->ept, &st);
	if (!st.state[EPT_SHARED])
		cell_guest_unmerged(c, g);
	/* It fails for a part of it, too, and then only says how much was freed. */
	if (st.state[EPT_BALLOONED] < g->ept.pages)
		ob_warn("guest %u has ended, but %llu of its pages stay until its cell ends%s%s",
			g->id, (unsigned long long)(g->ept.pages - st.state[EPT_BALLOONED]),
			r < 0 ? ": " : "", r < 0 ? strerror((int)-r) : "");
	if (!alone)
		cell_scan_release(c);
}

void cell_guest_watch(struct cell *c, struct cell_guest *g)
{
	uint64_t now = c->host.ops->now_ns(&c->host), cpu = vm_cpu_ns(g->vm);
	struct agent_report r;

	if (!g->running || atomic_load(&g->vm->state) != VM_RUNNING)
		return;
	cell_boot_watch(c, g);
	/* Before its first report a guest is watched by the time that the fleet may take to be
	 * warm, and a Linux guest by the time that it may take to boot. */
	if (!agent_read_report(&g->vm->agent, &r) || cell_linux_watch(c, g, r.heartbeat, now))
		return;
	if (r.heartbeat != g->beat || !g->beat_ns || c->paused || c->stood) {
		g->beat = r.heartbeat;
		g->beat_cpu_ns = cpu;
		g->beat_ns = now;
		return;
	}
	if (cpu - g->beat_cpu_ns > WATCHDOG_CPU_NS)
		vm_fail(g->vm, "loops: no heartbeat in %.1f s of its CPU time",
			(double)(cpu - g->beat_cpu_ns) / OB_NS_PER_SEC);
	else if (now - g->beat_ns > WATCHDOG_SLEEP_NS &&
		 cpu - g->beat_cpu_ns < WATCHDOG_CPU_NS / 10)
		vm_fail(g->vm, "hangs: no heartbeat for %.0f s, asleep",
			(double)(now - g->beat_ns) / OB_NS_PER_SEC);
}

static const char *guest_end(const struct cell_guest *g)
{
	switch (g->vm->end) {
	case VM_END_EXIT:
		return g->vm->exit_code ? "failed" : "exit";
	case VM_END_FAILED:
		return "failed";
	case VM_END_NONE:
	case VM_END_ASKED:
		break;
	}
	return "running";
}

static void sample_full(struct cell_guest *g, const struct agent_report *r, json_t *o)
{
	uint64_t n = OB_MIN(r->mismatches, AGENT_MISMATCHES);
	json_t *lat = json_array(), *mism = json_array();
	char line[160];

	for (unsigned int i = 0; i < AGENT_LAT_BUCKETS; i++)
		json_array_append_new(lat, json_integer((json_int_t)r->lat[i]));
	for (uint64_t i = 0; i < n; i++) {
		const struct agent_mismatch *m = &r->mismatch[i];

		json_array_append_new(mism, json_pack("[I,I,I,I]", (json_int_t)m->gpa,
						      (json_int_t)m->expect, (json_int_t)m->got,
						      (json_int_t)m->kind));
	}
	serial_last_line(&g->vm->serial, line, sizeof(line));
	json_object_set_new(o, "lat", lat);
	json_object_set_new(o, "mismatch", mism);
	json_object_set_new(o, "console", json_string(line));
}

json_t *cell_guest_sample(struct cell *c, struct cell_guest *g, bool full)
{
	struct agent_report r;
	struct ept_stats st;
	uint64_t staging_size;
	hva_t staging;
	json_t *o, *states = json_array();

	cell_guest_watch(c, g);
	if (g->gone)
		r = g->last;
	else
		cell_guest_report(g, &r);
	ept_read_stats(&g->ept, &st);
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		json_array_append_new(states, json_integer((json_int_t)st.state[s]));
	o = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "id", (json_int_t)g->id, "phase",
		      (json_int_t)r.phase, "ops", (json_int_t)r.ops, "checked",
		      (json_int_t)g->vm->agent.checked_pages, "checked_shared",
		      (json_int_t)g->vm->agent.checked_shared, "mismatches",
		      (json_int_t)OB_MAX(r.mismatches, g->vm->agent.mismatches), "written",
		      (json_int_t)r.written_pages, "disk", (json_int_t)r.disk_pages, "freed",
		      (json_int_t)st.freed_bytes, "states", states);
	OB_ASSERT(o);
	json_object_set_new(o, "workers", json_integer((json_int_t)r.workers));
	json_object_set_new(o, "workers_room", json_integer((json_int_t)r.workers_room));
	ept_staging(&g->ept, &staging, &staging_size);
	json_object_set_new(o, "staging", json_integer((json_int_t)staging.v));
	json_object_set_new(o, "staging_size", json_integer((json_int_t)staging_size));
	ob_lock(&g->vm->end_lock);
	json_object_set_new(o, "end", json_string(guest_end(g)));
	json_object_set_new(o, "reason",
			    json_string(g->vm->end == VM_END_ASKED ? "" : g->vm->reason));
	ob_unlock(&g->vm->end_lock);
	cell_linux_sample(c, g, o);
	if (full) {
		sample_full(g, &r, o);
		json_object_set_new(o, "huge", cell_huge_json(g));
	}
	return o;
}
