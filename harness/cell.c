/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell.c: the process that holds guests.
 *
 * Guests live in cells of a few, because each VM is an MMU notifier on the address space of its
 * process: every memory operation there costs in proportion to the VMs in it (docs/design.md). The
 * main thread answers the coordinator; each vCPU, the I/O worker and the scanner have threads of
 * their own. Memory that cells share (pool, index, meter) comes as memfds on fixed descriptors.
 *
 * A cell ends when it is told to, when the coordinator's end of the socket closes, and, should the
 * coordinator be killed, by the kernel (PR_SET_PDEATHSIG). It leaves nothing behind but its console
 * files.
 */
#include "harness/cell.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "harness/proto.h"
#include "harness/topo.h"

#define WATCH_MS 1000
/* One request of a device that takes longer keeps all guests' devices from being served. */
#define DEAF_NS OB_NS_PER_SEC

/* Take the lock from the scanner between two steps. */
void cell_scan_hold(struct cell *c)
{
	atomic_fetch_add(&c->scan_wanted, 1);
	ob_lock(&c->scan_lock);
	atomic_fetch_sub(&c->scan_wanted, 1);
}

void cell_scan_release(struct cell *c)
{
	pthread_cond_broadcast(&c->scan_cond);
	ob_unlock(&c->scan_lock);
}

/* A turn for whoever wants one. He broadcasts when he has had it. */
static void scanner_yield(struct cell *c)
{
	while (atomic_load(&c->scan_wanted) && !c->scan_quit)
		ob_cond_wait(&c->scan_cond, &c->scan_lock);
}

/* Others' turns do not cut the rest short, nor do hints: only they are looked at. */
static void scanner_rest(struct cell *c, uint64_t ns)
{
	uint64_t until = c->host.ops->now_ns(&c->host) + ns;

	do {
		while (!c->scan_quit && ksm_hint_step(c->ksm, 512))
			scanner_yield(c);
		scanner_yield(c);
	} while (!c->scan_quit && cell_io_rest(c, until));
}

/* The scanner: a thread round ksm_step. */
static void *scanner_thread(void *arg)
{
	struct cell *c = arg;

	/* The main thread's priority is not for us (cell_start). */
	setpriority(PRIO_PROCESS, 0, 0);
	ob_lock(&c->scan_lock);
	while (!c->scan_quit) {
		uint64_t rest = ksm_step(c->ksm, c->host.ops->now_ns(&c->host), 512);

		if (cell_huge_steps(c))
			rest = OB_MIN(rest, cell_huge_step(c, c->host.ops->now_ns(&c->host)));
		scanner_yield(c);
		if (rest && !c->scan_quit)
			scanner_rest(c, rest);
	}
	ob_unlock(&c->scan_lock);
	return NULL;
}

/* Park or release all guests; merging pauses as well, so that figures hold still. */
static void cell_pause(struct cell *c, bool pause)
{
	if (pause == c->paused)
		return;
	if (pause)
		cell_scan_hold(c);
	cell_wset_pause(c, pause);
	for (unsigned int i = 0; i < c->nguests; i++) {
		if (pause)
			vm_park(c->guest[i].vm);
		else
			vm_unpark(c->guest[i].vm);
	}
	if (!pause)
		cell_scan_release(c);
	/* Nobody beats while he is parked. */
	for (unsigned int i = 0; i < c->nguests && !pause; i++)
		c->guest[i].beat_ns = 0;
	c->paused = pause;
	cell_boot_held(c);
}

/* For want of memory: park or release all guests, while merging goes on, to bring some back. */
static void cell_stand(struct cell *c, bool stand)
{
	if (stand == c->stood)
		return;
	for (unsigned int i = 0; i < c->nguests; i++) {
		if (stand)
			vm_park(c->guest[i].vm);
		else
			vm_unpark(c->guest[i].vm);
		c->guest[i].beat_ns = 0;
	}
	c->stood = stand;
	cell_boot_held(c);
	if (!c->wset)
		return;
	/* A cell that is paused holds this lock already. */
	if (!c->paused)
		cell_scan_hold(c);
	cell_wset_pause(c, stand);
	if (!c->paused)
		cell_scan_release(c);
}

/* {"cells": [those that are to stand]} */
static void stand_told(struct cell *c, const json_t *doc)
{
	const json_t *cells = json_object_get(doc, "cells"), *n;
	bool stand = false;
	size_t i;

	json_array_foreach (cells, i, n)
		stand |= json_integer_value(n) == (json_int_t)c->number;
	cell_stand(c, stand);
}

void cell_scanner_stop(struct cell *c)
{
	if (!c->has_scanner)
		return;
	if (!c->paused)
		cell_scan_hold(c);
	c->scan_quit = true;
	cell_io_wake(c);
	if (!c->paused)
		cell_scan_release(c);
	else
		cell_pause(c, false);
	pthread_join(c->scanner, NULL);
	c->has_scanner = false;
}

static int cell_open_shared(struct cell *c, const json_t *doc, struct ob_err *e)
{
	uint64_t size;
	void *p;
	int r;

	const json_t *domain = json_object_get(doc, "domain");

	c->meter_pages = proto_u64(doc, "fleet_pages");
	c->meter_frames = proto_u64(doc, "fleet_frames");
	c->frames = proto_u64(domain, "frames");
	c->frame_base = proto_u64(domain, "frame_base");
	snprintf(c->domain_name, sizeof(c->domain_name), "%s", proto_str(domain, "name"));
	size = cell_meter_size(c->meter_pages, c->meter_frames);
	r = c->host.ops->map_shared(&c->host, CELL_FD_METER, size, &p);
	if (r)
		return ob_fail(e, -r, "cell %u: meter: %s", c->number, strerror(-r));
	c->meter = p;
	c->frame_pfn = c->meter + c->meter_pages + c->frame_base;
	c->kinds = (uint8_t *)(c->meter + c->meter_pages + c->meter_frames);
	r = c->host.ops->map_shared(&c->host, CELL_FD_BUDGET, OB_PAGE_SIZE, &p);
	if (r)
		return ob_fail(e, -r, "cell %u: CPU budget: %s", c->number, strerror(-r));
	c->budget = p;
	if (!c->frames)
		return 0;
	r = ksm_domain_open(&c->host, CELL_FD_POOL, CELL_FD_META,
			    (unsigned int)proto_u64(domain, "cell"), c->arena_ksm, &c->domain);
	return r ? ob_fail(e, -r, "cell %u: pool: %s", c->number, strerror(-r)) : 0;
}

/* Not being bound costs time and nothing else: the coordinator says so. */
static void cell_bind(struct cell *c, unsigned int node)
{
	struct topo *t = NULL;
	struct ob_err e;

	if (topo_open(&t, &e) || topo_bind(t, node, &e))
		snprintf(c->unbound, sizeof(c->unbound), "%.*s", (int)sizeof(c->unbound) - 1,
			 e.msg);
	topo_close(t);
}

static int cell_setup(struct cell *c, const json_t *doc, struct ob_err *e)
{
	const struct ksm_engine_ops *engine = ksm_engine_find(proto_str(doc, "sharing"));
	struct ksm_opts opts = {
		.inject = (unsigned int)proto_u64(doc, "inject"),
		.pass_gap_ns = proto_u64(doc, "scan_gap_ms") * OB_NS_PER_MS,
		.max_pause_ns = proto_u64(doc, "max_pause_ns"),
	};
	const json_t *guests = json_object_get(doc, "guests"), *g;
	size_t i;
	int r;

	OB_ASSERT(engine);
	c->number = (unsigned int)proto_u64(doc, "cell");
	/* Before anything that takes memory, and before any thread. */
	if (json_object_get(doc, "node"))
		cell_bind(c, (unsigned int)proto_u64(doc, "node"));
	r = cell_huge_setup(c, doc, e);
	if (!r)
		r = kvm_open(&c->kvm, e);
	if (r)
		return r;
	r = cell_open_shared(c, doc, e);
	if (r)
		return r;
	opts.budget = c->budget;
	c->ksm_opts = opts;
	r = ksm_new(&c->ksm, engine, &c->host, c->domain, &opts, c->arena_ksm);
	if (r)
		return ob_fail(e, -r, "cell %u: merging: %s", c->number, strerror(-r));
	r = io_worker_start(&c->worker);
	if (r)
		return ob_fail(e, -r, "cell %u: I/O thread: %s", c->number, strerror(-r));
	r = ob_read_file(proto_str(doc, "kernel"), ELF_MAX_BYTES, &c->kernel, &c->kernel_len, e);
	if (r)
		return r;
	r = cell_linux_setup(c, doc, e);
	if (r)
		return r;
	if (*proto_str(doc, "image")) {
		c->image_fd = open(proto_str(doc, "image"), O_RDONLY | O_CLOEXEC);
		if (c->image_fd < 0)
			return ob_fail(e, errno, "%s: %s", proto_str(doc, "image"),
				       strerror(errno));
	}
	cell_io_setup(c, doc);
	c->guest = calloc(json_array_size(guests), sizeof(*c->guest));
	OB_ASSERT(c->guest);
	json_array_foreach (guests, i, g) {
		r = cell_guest_create(c, &c->guest[i], g, e);
		if (r)
			return r;
		c->nguests++;
	}
	r = cell_wset_setup(c, doc, e);
	if (r)
		return r;
	c->ready = true;
	return 0;
}

static json_t *reply_setup(struct cell *c)
{
	json_t *guests = json_array();

	for (unsigned int i = 0; i < c->nguests; i++) {
		json_t *ram = json_array();
		const struct gmem *m = &c->guest[i].vm->mem;

		for (unsigned int k = 0; k < m->nregions; k++)
			json_array_append_new(ram,
					      json_pack("[I,I]", (json_int_t)m->region[k].hva.v,
							(json_int_t)m->region[k].size));
		json_array_append_new(guests, json_pack("{s:I,s:o}", "id",
							(json_int_t)c->guest[i].id, "ram", ram));
	}
	return json_pack("{s:o,s:s}", "guests", guests, "unbound", c->unbound);
}

static int cell_start(struct cell *c, struct ob_err *e)
{
	for (unsigned int i = 0; i < c->nguests; i++) {
		int r = vm_start(c->guest[i].vm, e);

		if (r)
			return r;
		c->guest[i].running = true;
	}
	/* The guests' threads are made by now, so it is this thread's alone. */
	setpriority(PRIO_PROCESS, 0, CONTROL_NICE);
	return cell_linux_input_start(c, e);
}

int cell_engine_start(struct cell *c, struct ob_err *e)
{
	int r = ksm_start(c->ksm, e);

	if (r || !(ksm_engine_steps(c->ksm) || cell_huge_steps(c)))
		return r;
	c->scan_quit = false;
	r = pthread_create(&c->scanner, NULL, scanner_thread, c);
	if (r)
		return ob_fail(e, r, "cell %u: scanner thread: %s", c->number, strerror(r));
	c->has_scanner = true;
	return 0;
}

/*
 * Are a guest's page and its frame of the pool one host frame? The coordinator's list of host
 * frames was read a moment ago, and the kernel may have migrated a page since. So where they
 * differ, both are looked at together, the frame through a mapping of our own, and more than once.
 */
static bool on_its_frame(struct cell *c, hva_t scratch, hva_t page, uint32_t frame)
{
	const struct ob_host_ops *ops = c->host.ops;
	uint64_t off = (uint64_t)frame * OB_PAGE_SIZE;
	struct ob_page a, b;

	for (int tries = 0; tries < 5; tries++) {
		if (ops->map_frames(&c->host, scratch, OB_PAGE_SIZE, CELL_FD_POOL, off))
			return false;
		(void)*(volatile const uint8_t *)hva_ptr(scratch);
		if (ops->pages(&c->host, page, 1, &a) || ops->pages(&c->host, scratch, 1, &b))
			return false;
		if (!a.present || a.pfn == b.pfn)
			return true;
	}
	return false;
}

/* Shared pages that are not on the host frame of their pool frame, where both can be known. Only
 * while guests and scanner stand still: a write would break a page off between our two looks. */
static int check_frames(struct cell *c, struct cell_guest *g, uint64_t *wrong)
{
	uint32_t frame[512];
	struct ob_page view[512];
	uint8_t state[512];
	hva_t scratch;
	int r;

	r = c->host.ops->ram_map(&c->host, OB_PAGE_SIZE, "ob:scratch", &scratch);
	if (r)
		return r;
	for (uint64_t p = 0, n; p < g->ept.pages; p += n) {
		n = OB_MIN(OB_ARRAY_SIZE(view), gmem_page_span(&g->vm->mem, p));
		r = ept_sync(&g->ept, p, n, view);
		if (r)
			break;
		ept_states(&g->ept, p, n, state, frame);
		for (uint64_t i = 0; i < n; i++) {
			uint32_t f = frame[i];

			if (f != EPT_NO_FRAME && view[i].pfn && f < c->frames && c->frame_pfn[f] &&
			    view[i].pfn != c->frame_pfn[f])
				*wrong += !on_its_frame(c, scratch,
							gmem_page_hva(&g->vm->mem, p + i), f);
		}
	}
	c->host.ops->unmap(&c->host, scratch, OB_PAGE_SIZE);
	return r;
}

/* Is any device served? Not while the I/O thread waits for a slow disk of the host. */
static void listen_to_devices(struct cell *c)
{
	c->deaf = io_worker_busy_ns(c->worker) > DEAF_NS;
	cell_boot_held(c);
}

static json_t *reply_sample(struct cell *c, const json_t *doc)
{
	bool meter = json_is_true(json_object_get(doc, "meter"));
	bool full = json_is_true(json_object_get(doc, "full"));
	uint64_t vmas = 0, vma_limit = 0, wrong = 0;
	json_t *guests = json_array(), *o;
	struct ksm_stats k;
	int r;

	listen_to_devices(c);
	for (unsigned int i = 0; i < c->nguests; i++) {
		struct cell_guest *g = &c->guest[i];

		cell_guest_give_back(c, g);
		r = meter ? ksm_meter_guest(&g->ept, g->page_base, c->frame_base,
					    c->meter + g->page_base)
			  : 0;
		if (!r && full && c->paused)
			r = check_frames(c, g, &wrong);
		if (r) {
			json_decref(guests);
			return json_pack("{s:s,s:I}", "error",
					 "cannot read the state of guest pages", "errno",
					 (json_int_t)-r);
		}
		o = cell_guest_sample(c, g, full);
		cell_wset_sample(c, i, o, full);
		json_array_append_new(guests, o);
	}
	ksm_read_stats(c->ksm, &k);
	if (full)
		c->host.ops->vma_count(&c->host, &vmas, &vma_limit);
	o = json_pack("{s:o,s:I,s:I,s:I,s:o}", "guests", guests, "wrong", (json_int_t)wrong, "vmas",
		      (json_int_t)vmas, "ept_bytes", (json_int_t)ob_arena_bytes(c->arena_ept),
		      "ksm", proto_pack_stats(&k));
	json_object_set_new(o, "log_bytes", json_integer(full ? (json_int_t)cell_log_bytes(c) : 0));
	json_object_set_new(o, "huge_cpu_ns",
			    json_integer((json_int_t)atomic_load(&c->huge_cpu_ns)));
	if (json_is_true(json_object_get(doc, "kvm")))
		json_object_set_new(o, "kvm", cell_kvmstat_sample(c));
	return o;
}

/* Guests that are not warm by now are not going to be. */
static void cell_fail_cold(struct cell *c)
{
	for (unsigned int i = 0; i < c->nguests; i++) {
		struct vm *vm = c->guest[i].vm;
		struct agent_report r = {0};
		uint64_t phase;

		/* It was, and boots again: it has its own time for that (cell_boot.c). */
		if (c->guest[i].boot.again && !c->guest[i].boot.up)
			continue;
		agent_read_report(&vm->agent, &r);
		phase = cell_boot_phase(c, &c->guest[i], r.phase);
		if (phase < AGENT_WARM && atomic_load(&vm->state) == VM_RUNNING)
			vm_fail(vm, "was not ready in time (phase %llu)",
				(unsigned long long)phase);
	}
}

static json_t *cell_answer(struct cell *c, const json_t *doc, bool *quit)
{
	const char *what = proto_str(doc, "do");
	struct ob_err e = {.msg = "unknown request"};
	int r = 0;

	if (!strcmp(what, "stop"))
		*quit = true;
	else if (!c->ready && strcmp(what, "setup"))
		r = ob_fail(&e, EPROTO, "cell %u has no guests yet", c->number);
	else if (!strcmp(what, "setup"))
		r = cell_setup(c, doc, &e);
	else if (!strcmp(what, "start"))
		r = cell_start(c, &e);
	else if (!strcmp(what, "engine"))
		r = (r = cell_engine_start(c, &e)) ? r : cell_wset_start(c, &e);
	else if (!strcmp(what, "switch-leave"))
		cell_switch_leave(c);
	else if (!strcmp(what, "switch-unmerge"))
		return cell_switch_unmerge(c, doc);
	else if (!strcmp(what, "switch-engine"))
		r = cell_switch_engine(c, doc, &e);
	else if (!strcmp(what, "switch-start"))
		r = cell_switch_back(c, &e);
	else if (!strcmp(what, "pause"))
		cell_pause(c, true);
	else if (!strcmp(what, "resume"))
		cell_pause(c, false);
	else if (!strcmp(what, "stand"))
		stand_told(c, doc);
	else if (!strcmp(what, "fail-cold"))
		cell_fail_cold(c);
	else if (!strcmp(what, "scan-gap"))
		cell_scan_gap(c, doc);
	else if (!strcmp(what, "plant"))
		r = cell_plant(c, doc, &e);
	else if (!strcmp(what, "planted"))
		return cell_planted(c, doc);
	else if (!strcmp(what, "sample"))
		return reply_sample(c, doc);
	else if (!strncmp(what, "ept-", 4))
		return cell_ept(c, doc);
	else
		r = -EPROTO;
	if (r)
		return json_pack("{s:s,s:I}", "error", e.msg, "errno", (json_int_t)-r);
	return !strcmp(what, "setup") ? reply_setup(c) : json_object();
}

static void cell_exit(struct cell *c)
{
	cell_scanner_stop(c);
	cell_linux_input_stop(c);
	for (unsigned int i = 0; i < c->nguests; i++)
		vm_ask_stop(c->guest[i].vm);
	cell_pause(c, false);
	cell_stand(c, false);
	cell_wset_stop(c);
	if (c->ksm) {
		ksm_stop(c->ksm);
		ksm_unmerge_end(c->ksm, &c->undo);
	}
	for (unsigned int i = 0; i < c->nguests; i++)
		cell_guest_destroy(c, &c->guest[i]);
	free(c->guest);
	if (c->worker)
		io_worker_stop(c->worker);
	if (c->ksm)
		ksm_free(c->ksm);
	if (c->domain)
		ksm_domain_close(c->domain);
	if (c->meter)
		c->host.ops->unmap(&c->host, hva_of(c->meter),
				   cell_meter_size(c->meter_pages, c->meter_frames));
	if (c->budget)
		c->host.ops->unmap(&c->host, hva_of(c->budget), OB_PAGE_SIZE);
	if (c->image_fd >= 0)
		close(c->image_fd);
	cell_io_exit(c);
	free(c->kernel);
	cell_linux_exit(c);
	if (c->kvm.fd >= 0)
		kvm_close(&c->kvm);
	ob_arena_free(c->arena_ept);
	ob_arena_free(c->arena_ksm);
	ob_host_linux_exit(&c->host);
}

/* Readings may be far apart: guests are looked at by the second all the same. */
static void wait_asked(struct cell *c)
{
	struct pollfd p = {.fd = CELL_FD_CONTROL, .events = POLLIN};

	while (poll(&p, 1, WATCH_MS) == 0) {
		if (!c->ready)
			continue;
		listen_to_devices(c);
		for (unsigned int i = 0; i < c->nguests; i++)
			if (!c->guest[i].gone)
				cell_guest_watch(c, &c->guest[i]);
	}
}

int cell_main(int argc, char **argv)
{
	struct cell c = {.image_fd = -1, .kvm.fd = -1};
	struct rlimit nofile;
	struct ob_err e;
	sigset_t none;
	bool quit = false;
	json_t *doc;

	(void)argc;
	(void)argv;
	/* The person's Ctrl-C is for the coordinator, which tells us. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* They were blocked until now (coord_cell.c). Threads inherit what is left: nothing. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!getrlimit(RLIMIT_NOFILE, &nofile)) {
		nofile.rlim_cur = nofile.rlim_max;
		setrlimit(RLIMIT_NOFILE, &nofile);
	}
	for (int fd = CELL_FD_CONTROL; fd < CELL_FDS; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC)) {
			ob_warn("cell: this verb is for overbook itself");
			return OB_EXIT_USAGE;
		}
	if (ob_host_linux_init(&c.host, &e)) {
		ob_warn("%s", e.msg);
		return OB_EXIT_FAILED;
	}
	c.arena_ept = ob_arena_new("ept");
	c.arena_ksm = ob_arena_new("ksm");
	ob_mutex_init(&c.scan_lock, OB_RANK_SCAN);
	pthread_cond_init(&c.scan_cond, NULL);
	ob_mutex_init(&c.wake_lock, OB_RANK_WAKE);
	while (!quit && (wait_asked(&c), !proto_recv(CELL_FD_CONTROL, &doc, PROTO_NEVER))) {
		json_t *answer = cell_answer(&c, doc, &quit);

		json_decref(doc);
		if (quit)
			cell_exit(&c);
		if (proto_send(CELL_FD_CONTROL, answer, PROTO_NEVER))
			break;
	}
	if (!quit)
		cell_exit(&c);
	return OB_EXIT_OK;
}
