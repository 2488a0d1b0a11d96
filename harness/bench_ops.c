/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_ops.c: what the three small memory operations of merging cost in a process with 1, 16, 64
 * and 200 VMs: mapping one frame over a page (a merge), the copy-on-write break of such a page, and
 * the discard of one page.
 *
 * A VM is an MMU notifier on the address space of the process that holds it: whenever a mapping of
 * guest memory changes, every VM of the process is asked whether that concerns it. So we put that
 * many VMs into this process, all real, and measure on pages of one of them. That one has run until
 * its memory was filled, so that KVM has it mapped, and is parked; the others never ran, as it
 * makes no difference to how often they are asked. The operations are those of the host seam that
 * ept uses.
 *
 * The pages lie in its "dirty" free memory, at the top of its RAM, which the guest has written and
 * does not look at. Every second page is merged, so that each is a mapping of its own; the pages
 * between are discarded. Each level gets a fresh measured VM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "harness/bench_demo.h"

#define OPS_MEM	     (16 * OB_MIB)
#define OPS_PAGES    256 /* of each operation a measurement */
#define OPS_WINDOW   (2 * OPS_PAGES)
#define OPS_MAX_VMS  200
#define WARM_SECONDS 20

struct ops_bed {
	struct ob_host host;
	struct kvm kvm;
	struct io_worker *worker;
	void *elf;
	size_t elf_len;
	int pool_fd;
	struct vm *bystander[OPS_MAX_VMS];
	unsigned int nbystanders;
};

struct ops_cost {
	double merge, broken, discard; /* us */
};

static int make_vm(struct ops_bed *bed, unsigned int id, struct vm **out, struct ob_err *e)
{
	const struct vm_config cfg = {
		.id = id,
		.mem_bytes = OPS_MEM,
		.kernel = bed->elf,
		.kernel_len = bed->elf_len,
		.cmdline = "workload=idle seed=1 common=1",
		.console_fd = -1,
		.worker = bed->worker,
	};

	return vm_create(out, &bed->kvm, &bed->host, &cfg, e);
}

/* As many VMs besides the measured one. */
static int set_bystanders(struct ops_bed *bed, unsigned int n, struct ob_err *e)
{
	while (bed->nbystanders > n)
		vm_destroy(bed->bystander[--bed->nbystanders]);
	while (bed->nbystanders < n) {
		int ret = ob_stop_signal ? ob_fail(e, EINTR, "interrupted")
					 : make_vm(bed, bed->nbystanders + 1,
						   &bed->bystander[bed->nbystanders], e);

		if (ret)
			return ret;
		bed->nbystanders++;
	}
	return 0;
}

/* Let it fill its memory. */
static int wait_warm(struct vm *vm, struct ob_err *e)
{
	uint64_t until = bench_now_ns() + WARM_SECONDS * OB_NS_PER_SEC;
	const struct timespec nap = {.tv_nsec = 2 * OB_NS_PER_MS};
	struct agent_report r = {0};

	while (!agent_read_report(&vm->agent, &r) || r.phase < AGENT_WARM) {
		if (ob_stop_signal)
			return ob_fail(e, EINTR, "interrupted");
		if (atomic_load(&vm->state) != VM_RUNNING)
			return ob_fail(e, EIO, "the measured guest ended: %s", vm->reason);
		if (bench_now_ns() > until)
			return ob_fail(e, ETIMEDOUT, "the measured guest was not ready in time");
		nanosleep(&nap, NULL);
	}
	if (r.free_dirty_pages < OPS_WINDOW)
		return ob_fail(e, EIO, "the measured guest has too little free memory");
	return 0;
}

static double us_each(uint64_t from)
{
	return (double)(bench_now_ns() - from) / OB_NS_PER_US / OPS_PAGES;
}

/* On the parked guest. Page 2i is merged and broken, page 2i + 1 discarded. */
static int measure_pages(struct ops_bed *bed, struct vm *vm, struct ops_cost *out, struct ob_err *e)
{
	const struct ob_host_ops *ops = bed->host.ops;
	uint64_t first = vm->mem.pages - OPS_WINDOW, t;
	struct ob_page view[OPS_WINDOW];
	volatile uint8_t *base = hva_ptr(gmem_page_hva(&vm->mem, first));
	hva_t at = gmem_page_hva(&vm->mem, first);
	int ret = ops->pages(&bed->host, at, OPS_WINDOW, view);

	for (unsigned int i = 0; i < OPS_WINDOW && !ret; i++)
		if (!view[i].present || view[i].file)
			return ob_fail(e, EIO, "the guest's free memory is not what it says");
	t = bench_now_ns();
	for (unsigned int i = 0; i < OPS_PAGES && !ret; i++)
		ret = ops->map_frames(&bed->host, hva(at.v + 2 * i * OB_PAGE_SIZE), OB_PAGE_SIZE,
				      bed->pool_fd, i * OB_PAGE_SIZE);
	out->merge = us_each(t);
	for (unsigned int i = 0; i < OPS_PAGES; i++)
		(void)base[2 * i * OB_PAGE_SIZE]; /* the frame must be mapped to be broken off */
	t = bench_now_ns();
	for (unsigned int i = 0; i < OPS_PAGES; i++)
		base[2 * i * OB_PAGE_SIZE] = 1;
	out->broken = us_each(t);
	t = bench_now_ns();
	for (unsigned int i = 0; i < OPS_PAGES && !ret; i++)
		ret = ops->discard(&bed->host, hva(at.v + (2 * i + 1) * OB_PAGE_SIZE),
				   OB_PAGE_SIZE);
	out->discard = us_each(t);
	return ret ? ob_fail(e, -ret, "a memory operation failed: %s", strerror(-ret)) : 0;
}

static int measure(struct ops_bed *bed, unsigned int vms, struct ops_cost *out, struct ob_err *e)
{
	struct vm *vm;
	int ret = set_bystanders(bed, vms - 1, e);

	if (!ret)
		ret = make_vm(bed, 0, &vm, e);
	if (ret)
		return ret;
	ret = vm_start(vm, e);
	if (!ret)
		ret = wait_warm(vm, e);
	if (!ret) {
		vm_park(vm);
		ret = measure_pages(bed, vm, out, e);
		/* Its memory is no longer what it believes: it must not run again. */
		vm_exit(vm, 0);
		vm_unpark(vm);
	}
	vm_destroy(vm);
	return ret;
}

static int bed_open(struct ops_bed *bed, const struct demo *d, struct ob_err *e)
{
	char buf[OB_PAGE_SIZE];
	int ret;

	*bed = (struct ops_bed){.pool_fd = -1, .kvm.fd = -1};
	ret = ob_host_linux_init(&bed->host, e);
	if (ret) {
		bed->host.ops = NULL;
		return ret;
	}
	bed->pool_fd = bed->host.ops->memfd(&bed->host, "ob:bench", OPS_PAGES * OB_PAGE_SIZE);
	if (bed->pool_fd < 0)
		return ob_fail(e, -bed->pool_fd, "frame pool: %s", strerror(-bed->pool_fd));
	for (unsigned int i = 0; i < OPS_PAGES; i++) {
		memset(buf, (int)i, sizeof(buf));
		ret = bed->host.ops->file_write(&bed->host, bed->pool_fd, buf, sizeof(buf),
						i * OB_PAGE_SIZE);
		if (ret)
			return ob_fail(e, -ret, "frame pool: %s", strerror(-ret));
	}
	ret = ob_read_file(d->files.kernel_path, ELF_MAX_BYTES, &bed->elf, &bed->elf_len, e);
	if (!ret)
		ret = kvm_open(&bed->kvm, e);
	if (!ret && (ret = io_worker_start(&bed->worker)))
		ob_fail(e, -ret, "I/O thread: %s", strerror(-ret));
	return ret;
}

static void bed_close(struct ops_bed *bed)
{
	while (bed->nbystanders)
		vm_destroy(bed->bystander[--bed->nbystanders]);
	if (bed->worker)
		io_worker_stop(bed->worker);
	if (bed->kvm.fd >= 0)
		kvm_close(&bed->kvm);
	free(bed->elf);
	if (bed->pool_fd >= 0)
		close(bed->pool_fd);
	if (bed->host.ops)
		ob_host_linux_exit(&bed->host);
}

static const unsigned int level[] = {1, 16, 64, 200};
#define LEVELS OB_ARRAY_SIZE(level)

static int rounds(struct demo *d, struct ops_bed *bed, struct ob_err *e)
{
	struct bench_figure *merge[LEVELS], *broken[LEVELS], *discard[LEVELS];
	char name[96];

	for (unsigned int k = 0; k < 3; k++)
		for (unsigned int i = 0; i < LEVELS; i++) {
			static const char *const what[] = {"merge one page", "break one page off",
							   "discard one page"};
			struct bench_figure **f[] = {merge, broken, discard};

			snprintf(name, sizeof(name), "%s, %u VM%s in the process", what[k],
				 level[i], level[i] == 1 ? "" : "s");
			f[k][i] = bench_figure(d->b, name, "us", i ? "1 VM" : NULL);
		}
	for (unsigned int n = 0; n < demo_count(d, 9, 2); n++) {
		struct ops_cost c[LEVELS];

		/* Up and down by turns, so that no level is always measured last. */
		for (unsigned int k = 0; k < LEVELS; k++) {
			unsigned int i = n % 2 ? LEVELS - 1 - k : k;
			int ret = measure(bed, level[i], &c[i], e);

			if (ret)
				return ret;
		}
		bench_say("memory operations, round %u: a merge %.1f, %.1f, %.1f, %.1f us with 1, "
			  "16, 64, 200 VMs",
			  n + 1, c[0].merge, c[1].merge, c[2].merge, c[3].merge);
		bench_add_ours(merge[0], c[0].merge);
		bench_add_ours(broken[0], c[0].broken);
		bench_add_ours(discard[0], c[0].discard);
		for (unsigned int i = 1; i < LEVELS; i++) {
			bench_add(merge[i], c[i].merge, c[0].merge);
			bench_add(broken[i], c[i].broken, c[0].broken);
			bench_add(discard[i], c[i].discard, c[0].discard);
		}
	}
	return 0;
}

int demo_ops(struct demo *d, struct ob_err *e)
{
	int thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), ret;
	struct rlimit old, more;
	struct ops_bed bed;

	/* Two descriptors a VM. */
	OB_ASSERT(!getrlimit(RLIMIT_NOFILE, &old));
	more = old;
	more.rlim_cur = more.rlim_max;
	setrlimit(RLIMIT_NOFILE, &more);
	ret = bed_open(&bed, d, e);
	if (!ret)
		ret = rounds(d, &bed, e);
	bed_close(&bed);
	/* Children would inherit both. */
	setrlimit(RLIMIT_NOFILE, &old);
	prctl(PR_SET_THP_DISABLE, OB_MAX(thp, 0), 0, 0, 0);
	return ret;
}
