/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_rig.c: guests in the benchmark's own process. The same kernel/ and ept/ as in a cell,
 * without the coordinator, merging and consoles, so that a part of a benchmark is the mechanism
 * that it is about and little else.
 */
#include "harness/bench_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "harness/bench_child.h"

#define POLL_NS	     (2 * OB_NS_PER_MS)
#define PING_POLL_NS (200 * OB_NS_PER_US)
#define PING_SECONDS 10

static void rig_park(void *arg)
{
	vm_park(arg);
}

static void rig_unpark(void *arg)
{
	vm_unpark(arg);
}

static int rig_cpu(void *arg)
{
	return vm_cpu(arg);
}

static void rig_lost(void *arg, const char *why)
{
	vm_fail(arg, "%s", why);
}

static int make_guest(struct bench_rig *r, unsigned int i, struct ob_err *e)
{
	const struct bench_rig_config *c = &r->cfg;
	struct bench_rig_guest *g = &r->guest[i];
	unsigned int nworkloads = 0;
	char words[96], cmdline[200];
	const struct vm_config cfg = {
		.id = i,
		.mem_bytes = c->mem_bytes,
		.kernel = r->elf,
		.kernel_len = r->elf_len,
		.cmdline = cmdline,
		.disk[0].fd = r->image_fd,
		.ndisks = r->image_fd >= 0,
		.console_fd = -1,
		.worker = r->worker,
	};
	int ret;

	while (nworkloads < BENCH_RIG_WORKLOADS && c->workload[nworkloads])
		nworkloads++;
	OB_ASSERT(nworkloads);
	opts_workload_words(c->workload[i % nworkloads], words, sizeof(words));
	snprintf(cmdline, sizeof(cmdline), "%s seed=%llu common=%llu guest=%u", words,
		 (unsigned long long)(c->seed * 1000003 + i + 1), (unsigned long long)c->seed, i);
	ret = vm_create(&g->vm, &r->kvm, &r->host, &cfg, e);
	if (ret) {
		g->vm = NULL;
		return ret;
	}
	ret = ept_init(&g->ept, &r->host, &g->vm->mem,
		       (struct ept_parker){.park = rig_park,
					   .unpark = rig_unpark,
					   .cpu = rig_cpu,
					   .fail = rig_lost,
					   .arg = g->vm},
		       r->arena);
	if (ret) {
		vm_destroy(g->vm);
		g->vm = NULL;
		return ob_fail(e, -ret, "guest %u: page map: %s", i, strerror(-ret));
	}
	return 0;
}

int bench_rig_open(struct bench_rig *r, const struct bench_rig_config *cfg, struct ob_err *e)
{
	int ret;

	*r = (struct bench_rig){.cfg = *cfg, .kvm.fd = -1, .image_fd = -1};
	/* Children would inherit what the host's set-up makes of it. */
	r->thp = OB_MAX(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
	OB_ASSERT(!sched_getaffinity(0, sizeof(r->cpus), &r->cpus));
	if (!cfg->guests || cfg->guests > BENCH_RIG_GUESTS) {
		r->cfg.guests = 0;
		return ob_fail(e, EINVAL, "%u guests: from 1 to %d", cfg->guests, BENCH_RIG_GUESTS);
	}
	ret = ob_host_linux_init(&r->host, e);
	if (ret) {
		r->host.ops = NULL;
		return ret;
	}
	r->arena = ob_arena_new("bench");
	ret = ob_read_file(cfg->kernel_path, ELF_MAX_BYTES, &r->elf, &r->elf_len, e);
	if (ret)
		return ret;
	if (cfg->image_path) {
		r->image_fd = open(cfg->image_path, O_RDONLY | O_CLOEXEC);
		if (r->image_fd < 0)
			return ob_fail(e, errno, "image %.200s: %s", cfg->image_path,
				       strerror(errno));
	}
	ret = kvm_open(&r->kvm, e);
	if (ret) {
		r->kvm.fd = -1;
		return ret;
	}
	ret = io_worker_start(&r->worker);
	if (ret) {
		r->worker = NULL;
		return ob_fail(e, -ret, "I/O thread: %s", strerror(-ret));
	}
	for (unsigned int i = 0; i < cfg->guests && !ret; i++)
		ret = ob_stop_signal ? ob_fail(e, EINTR, "interrupted") : make_guest(r, i, e);
	return ret;
}

/* Has guest @i run so far without a fault? Reads its report. */
static int look(struct bench_rig *r, unsigned int i, struct ob_err *e)
{
	struct bench_rig_guest *g = &r->guest[i];

	agent_read_report(&g->vm->agent, &g->report);
	if (g->report.mismatches)
		return ob_fail(e, EIO, "guest %u found %llu wrong pages", i,
			       (unsigned long long)g->report.mismatches);
	if (atomic_load(&g->vm->state) != VM_RUNNING)
		return ob_fail(e, EIO, "guest %u ended: %s", i, g->vm->reason);
	return 0;
}

int bench_rig_look(struct bench_rig *r, struct ob_err *e)
{
	int ret = 0;

	for (unsigned int i = 0; i < r->cfg.guests && !ret; i++)
		ret = look(r, i, e);
	return ret;
}

static void nap(uint64_t ns)
{
	const struct timespec ts = {.tv_nsec = (long)ns};

	nanosleep(&ts, NULL);
}

int bench_rig_wait(struct bench_rig *r, bool (*done)(const struct agent_report *r, uint64_t arg),
		   uint64_t arg, unsigned int seconds, struct ob_err *e)
{
	uint64_t until = bench_now_ns() + seconds * OB_NS_PER_SEC;

	for (unsigned int i = 0; i < r->cfg.guests;) {
		int ret = look(r, i, e);

		if (ret)
			return ret;
		if (done(&r->guest[i].report, arg)) {
			i++;
			continue;
		}
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (bench_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "guest %u was not ready within %u s", i,
				       seconds);
		nap(POLL_NS);
	}
	return 0;
}

static bool is_warm(const struct agent_report *r, uint64_t arg)
{
	(void)arg;
	return r->phase == AGENT_WARM;
}

int bench_last_cpu(void)
{
	cpu_set_t set;
	int last = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			last = i;
	return last;
}

void bench_rig_place(struct bench_rig *r, enum bench_rig_place where)
{
	cpu_set_t set = r->cpus;

	if (r->cfg.cpu >= 0 && where == BENCH_RIG_APART) {
		CPU_CLR((size_t)r->cfg.cpu, &set);
	} else if (r->cfg.cpu >= 0 && where == BENCH_RIG_NEAR) {
		CPU_ZERO(&set);
		CPU_SET((size_t)r->cfg.cpu, &set);
	}
	/* That it fails only costs time: the CPU is one of ours, or has been taken away since. */
	sched_setaffinity(0, sizeof(set), CPU_COUNT(&set) ? &set : &r->cpus);
}

int bench_rig_start(struct bench_rig *r, struct ob_err *e)
{
	cpu_set_t before;
	int ret = 0;

	OB_ASSERT(!sched_getaffinity(0, sizeof(before), &before));
	/* Threads begin where their maker is. */
	bench_rig_place(r, BENCH_RIG_NEAR);
	for (unsigned int i = 0; i < r->cfg.guests && !ret; i++)
		ret = vm_start(r->guest[i].vm, e);
	sched_setaffinity(0, sizeof(before), &before);
	return ret ? ret : bench_rig_wait(r, is_warm, 0, r->cfg.warm_seconds, e);
}

int bench_rig_area(const struct bench_rig *r, unsigned int i, uint64_t *first, uint64_t *n,
		   struct ob_err *e)
{
	const struct bench_rig_guest *g = &r->guest[i];
	const struct gmem *mem = &g->vm->mem;

	*first = gmem_gfn_page(mem, gpa_gfn(gpa(g->report.area_gpa)));
	*n = g->report.area_pages;
	if (*first >= mem->pages || !*n || *n > mem->pages - *first)
		return ob_fail(e, EIO, "guest %u says that its area is where it has no memory", i);
	return 0;
}

int bench_rig_ping(struct bench_rig *r, unsigned int i, uint64_t page, bool write, uint64_t *ns,
		   struct ob_err *e)
{
	uint64_t until = bench_now_ns() + PING_SECONDS * OB_NS_PER_SEC, first, n, request;
	struct agent_ping *p;
	int ret = bench_rig_area(r, i, &first, &n, e);

	if (ret)
		return ret;
	if (!page || page >= n)
		return ob_fail(e, EINVAL, "ping: no page %llu", (unsigned long long)page);
	p = hva_ptr(gmem_page_hva(&r->guest[i].vm->mem, first));
	request = __atomic_load_n(&p->done, __ATOMIC_RELAXED) + 1;
	__atomic_store_n(&p->page, page, __ATOMIC_RELAXED);
	__atomic_store_n(&p->write, write, __ATOMIC_RELAXED);
	__atomic_store_n(&p->ask, request, __ATOMIC_RELEASE);
	while (__atomic_load_n(&p->done, __ATOMIC_ACQUIRE) != request) {
		ret = look(r, i, e);
		if (ret)
			return ret;
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (bench_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "guest %u did not touch its page within %d s",
				       i, PING_SECONDS);
		nap(PING_POLL_NS);
	}
	ret = look(r, i, e); /* it tells of a wrong page before it answers */
	if (ret)
		return ret;
	*ns = __atomic_load_n(&p->ns, __ATOMIC_RELAXED);
	return *ns == AGENT_PING_REFUSED
		       ? ob_fail(e, EIO, "guest %u refused page %llu", i, (unsigned long long)page)
		       : 0;
}

/* Does the map agree with the kernel's? */
static int verify(struct bench_rig_guest *g, unsigned int i, struct ob_err *e)
{
	struct ept_verify v;
	int ret = ept_verify(&g->ept, &v);

	if (ret)
		return ob_fail(e, -ret, "guest %u: page map: %s", i, strerror(-ret));
	if (v.differences)
		return ob_fail(e, EIO,
			       "guest %u: %llu pages are not as the map has them: page %llu: %s", i,
			       (unsigned long long)v.differences,
			       (unsigned long long)v.first[0].page, v.first[0].why);
	return 0;
}

int bench_rig_close(struct bench_rig *r, struct ob_err *e)
{
	int ret = 0;

	for (unsigned int i = 0; i < r->cfg.guests; i++) {
		struct bench_rig_guest *g = &r->guest[i];

		if (!g->vm)
			continue;
		vm_stop(g->vm);
		agent_read_report(&g->vm->agent, &g->report);
		if (!ret && g->vm->end != VM_END_ASKED)
			ret = ob_fail(e, EIO, "guest %u ended: %s", i, g->vm->reason);
		if (!ret && g->report.mismatches)
			ret = ob_fail(e, EIO, "guest %u found %llu wrong pages", i,
				      (unsigned long long)g->report.mismatches);
		/* The disk's accesses go through ept. */
		vm_detach(g->vm);
		if (!ret)
			ret = verify(g, i, e);
		ept_exit(&g->ept);
		vm_destroy(g->vm);
		g->vm = NULL;
	}
	if (r->worker)
		io_worker_stop(r->worker);
	if (r->kvm.fd >= 0)
		kvm_close(&r->kvm);
	if (r->image_fd >= 0)
		close(r->image_fd);
	free(r->elf);
	if (r->arena) {
		OB_ASSERT(ob_arena_bytes(r->arena) == 0);
		ob_arena_free(r->arena);
	}
	if (r->host.ops)
		ob_host_linux_exit(&r->host);
	prctl(PR_SET_THP_DISABLE, r->thp, 0, 0, 0);
	bench_rig_place(r, BENCH_RIG_ANYWHERE);
	memset(r, 0, sizeof(*r));
	r->image_fd = r->kvm.fd = -1;
	return ret;
}
