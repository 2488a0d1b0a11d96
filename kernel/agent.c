/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c: the agent device, through which our own guest sleeps and says how it is (agent_abi.h);
 * and what all agents tell. What it says is a claim: addresses are checked, counts are bounded, and nothing is decided on it
 * but the figures of that guest.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/vcpu.h"
#include "kernel/vm.h"

#define SLEEP_MAX_NS (10 * OB_NS_PER_SEC)

static uint64_t agent_tsc_khz(struct agent *a)
{
	int khz = ioctl(a->vm->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

	return khz > 0 ? (uint64_t)khz : 0;
}

static uint64_t agent_mmio_read(void *dev, uint64_t off, unsigned int size)
{
	struct agent *a = dev;

	if (size != 8)
		return ~0ULL;
	switch (off) {
	case AGENT_REG_MAGIC:
		return AGENT_MAGIC;
	case AGENT_REG_TSC_KHZ:
		return agent_tsc_khz(a);
	default:
		return ~0ULL;
	}
}

static void agent_set_report(struct agent *a, uint64_t at)
{
	if (at & OB_PAGE_MASK || !gmem_ptr(&a->vm->mem, gpa(at), sizeof(struct agent_report))) {
		vm_fail(a->vm, "agent report at gpa 0x%llx, which is not a page of RAM",
			(unsigned long long)at);
		return;
	}
	a->report_gpa = at;
}

bool agent_checked(struct agent *a, uint64_t value, uint64_t *look)
{
	uint64_t n = value & 0xffff, page;

	/* A program under Linux may not be told where its pages are. */
	if (value >> 16 == AGENT_GFN_UNKNOWN) {
		a->checked_pages += n;
		return true;
	}
	page = gmem_gfn_page(&a->vm->mem, gfn(value >> 16));
	if (page == UINT64_MAX || n > a->vm->mem.pages - page) {
		vm_fail(a->vm, "agent says it checked pages outside RAM (0x%llx)",
			(unsigned long long)value);
		return false;
	}
	a->checked_pages += n;
	n = OB_MIN(n, *look);
	*look -= n;
	if (a->count_shared && n)
		a->checked_shared += a->count_shared(a->count_arg, page, n);
	return true;
}

static void agent_mmio_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	uint64_t look = UINT64_MAX;
	struct agent *a = dev;

	if (size != 8)
		return;
	switch (off) {
	case AGENT_REG_SLEEP:
		vcpu_sleep(a->vm, OB_MIN(value, SLEEP_MAX_NS));
		break;
	case AGENT_REG_REPORT:
		agent_set_report(a, value);
		break;
	case AGENT_REG_CHECKED:
		agent_checked(a, value, &look);
		break;
	case AGENT_REG_MISMATCH:
		a->mismatches++;
		break;
	case AGENT_REG_EXIT:
		vm_exit(a->vm, (int)(value & 0xff));
		break;
	case AGENT_REG_PANIC2:
		a->panic2 = value;
		break;
	case AGENT_REG_PANIC:
		vm_fail(a->vm, "guest panic: exception %u at rip 0x%llx, address 0x%llx",
			(unsigned int)(value >> 56), (unsigned long long)(value & ~(0xffULL << 56)),
			(unsigned long long)a->panic2);
		break;
	default:
		break; /* reserved registers ignore writes */
	}
}

const struct bus_ops agent_bus_ops = {
	.read = agent_mmio_read,
	.write = agent_mmio_write,
};

static bool read_from_page(struct agent *a, struct agent_report *out)
{
	uint64_t at = a->report_gpa;
	struct gmem_access acc;
	const uint64_t *from;
	uint64_t *to = (uint64_t *)out;
	int r;

	if (!at)
		return false;
	/* Like any device: the page may be replaced at this moment, and show nothing for a while. */
	while ((r = gmem_access_begin(&a->vm->mem, gpa(at), sizeof(*out), false, &acc)) == -EBUSY)
		sched_yield();
	OB_ASSERT(!r); /* checked when it was set; regions do not go away */
	from = acc.ptr;
	/* Word by word: the guest writes each counter with one store and may be doing so now. */
	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	gmem_access_end(&a->vm->mem, &acc);
	return out->magic == AGENT_REPORT_MAGIC;
}

bool agent_read_report(struct agent *a, struct agent_report *out)
{
	bool have;

	if (!a->port)
		return read_from_page(a, out);
	ob_lock(&a->port->lock);
	have = a->port->has_report;
	*out = have ? a->port->report : (struct agent_report){0};
	ob_unlock(&a->port->lock);
	return have;
}
