/* SPDX-License-Identifier: Apache-2.0 */
/* guest.c: the yardstick's one guest: booted, asked how it is, ended. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/yardstick/yardstick.h"

#define WARM_SECONDS 120
#define POLL_NS	     (2 * OB_NS_PER_MS)

uint64_t yard_now_ns(void)
{
	struct timespec ts;

	OB_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts));
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

void yard_nap(uint64_t ns)
{
	const struct timespec ts = {.tv_nsec = (long)ns};

	nanosleep(&ts, NULL);
}

int yard_stay(int cpu, struct ob_err *e)
{
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return ob_fail(e, errno, "cannot run on CPU %d: %s", cpu, strerror(errno));
	return 0;
}

int yard_look(struct yard *y, struct ob_err *e)
{
	agent_read_report(&y->vm->agent, &y->report);
	if (y->report.mismatches)
		return ob_fail(e, EIO, "the guest found %llu wrong pages",
			       (unsigned long long)y->report.mismatches);
	if (atomic_load(&y->vm->state) != VM_RUNNING)
		return ob_fail(e, EIO, "the guest ended: %s", y->vm->reason);
	return 0;
}

int yard_wait(struct yard *y, bool (*done)(const struct yard *y, uint64_t arg), uint64_t arg,
	      unsigned int seconds, struct ob_err *e)
{
	uint64_t until = yard_now_ns() + seconds * OB_NS_PER_SEC;

	for (;;) {
		int ret = yard_look(y, e);

		if (ret || done(y, arg))
			return ret;
		if (yard_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "the guest took over %u s", seconds);
		yard_nap(POLL_NS);
	}
}

static bool is_warm(const struct yard *y, uint64_t arg)
{
	(void)arg;
	return y->report.phase == AGENT_WARM;
}

/* Where its area is. */
static int find_area(struct yard *y, struct ob_err *e)
{
	const struct gmem *mem = &y->vm->mem;
	uint64_t page = gmem_gfn_page(mem, gpa_gfn(gpa(y->report.area_gpa)));
	uint64_t n = y->report.area_pages;

	if (page >= mem->pages || !n || n > mem->pages - page)
		return ob_fail(e, EIO, "the guest says that its area is where it has no memory");
	y->area = hva_ptr(gmem_page_hva(mem, page));
	y->pages = n;
	y->in_one_piece = n <= gmem_page_span(mem, page);
	return 0;
}

static int start(struct yard *y, struct ob_err *e)
{
	cpu_set_t old, others;
	int ret;

	OB_ASSERT(!sched_getaffinity(0, sizeof(old), &old));
	ret = yard_stay(y->opts->cpu, e);
	if (!ret)
		ret = vm_start(y->vm, e); /* its thread begins where we are */
	others = old;
	if (y->opts->cpu >= 0)
		CPU_CLR((size_t)y->opts->cpu, &others);
	sched_setaffinity(0, sizeof(old), CPU_COUNT(&others) ? &others : &old);
	return ret;
}

int yard_boot(struct yard *y, const struct yard_opts *opts, const char *workload, struct ob_err *e)
{
	char cmdline[100];
	struct vm_config cfg = {
		.mem_bytes = opts->mem_bytes,
		.cmdline = cmdline,
		.console_fd = -1,
	};
	int ret;

	*y = (struct yard){.opts = opts, .kvm.fd = -1};
	snprintf(cmdline, sizeof(cmdline), "workload=%s seed=1 common=1", workload);
	ret = ob_host_linux_init(&y->host, e);
	if (ret) {
		y->host.ops = NULL;
		return ret;
	}
	ret = ob_read_file(opts->kernel_path, ELF_MAX_BYTES, &y->elf, &y->elf_len, e);
	if (ret)
		return ret;
	ret = kvm_open(&y->kvm, e);
	if (ret) {
		y->kvm.fd = -1;
		return ret;
	}
	cfg.kernel = y->elf;
	cfg.kernel_len = y->elf_len;
	ret = vm_create(&y->vm, &y->kvm, &y->host, &cfg, e);
	if (ret) {
		y->vm = NULL;
		return ret;
	}
	ret = start(y, e);
	if (!ret)
		ret = yard_wait(y, is_warm, 0, WARM_SECONDS, e);
	return ret ? ret : find_area(y, e);
}

void yard_end(struct yard *y)
{
	if (y->vm)
		vm_destroy(y->vm);
	if (y->kvm.fd >= 0)
		kvm_close(&y->kvm);
	free(y->elf);
	if (y->host.ops)
		ob_host_linux_exit(&y->host);
}
