/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_state.c: a vCPU's state in one plain struct, taken from KVM and given back. So far it serves a
 * reset: the state that a vCPU was made with is kept, and a reboot loads it. It is not all: KVM's list
 * of model-specific registers leaves some out that it has (MTRRs, DEBUGCTL), which stay as the
 * guest has set them. Kernels set the MTRRs anew, and for a guest without devices of the host's KVM
 * makes nothing of them; a snapshot would need them.
 *
 * The order of loading follows KVM's own dependencies: what the CPU may do (sregs, with EFER and the
 * APIC's base) before the APIC's registers, the APIC before events that it has under way, the state
 * of being runnable at the end. The model-specific registers are those that KVM itself lists
 * (KVM_GET_MSR_INDEX_LIST), so that the paravirtual ones are among them: a clock page that the guest
 * before has registered would else be written to for ever. One that KVM lists but refuses to set is
 * left as it is: some are read-only, or only there with features that the guest was not shown.
 */
#include "kernel/vcpu_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSR_TSC 0x10 /* goes on: setting it back would move the vCPUs' clocks apart */

/*
 * Hyper-V's registers. A guest has them only if its CPUID speaks of Hyper-V, which ours never does;
 * but merely to be asked for one makes KVM set up its part of Hyper-V for the vCPU, for good.
 */
static bool is_hyperv(uint32_t msr)
{
	return msr >= 0x40000000 && msr < 0x40001000;
}

static int fail(struct ob_err *e, const char *what)
{
	return ob_fail(e, errno, "%s: %s", what, strerror(errno));
}

/* KVM's lists end in arrays of no size of their own: one with room for @n entries of @size bytes. */
static void *list_new(size_t head, size_t n, size_t size)
{
	void *p = calloc(1, head + n * size);

	OB_ASSERT(p);
	return p;
}

static int save_msrs(int kvm_fd, int fd, struct vcpu_saved *s, struct ob_err *e)
{
	struct kvm_msr_list *all = list_new(sizeof(*all), VCPU_MAX_MSRS, sizeof(all->indices[0]));
	struct kvm_msrs *one = list_new(sizeof(*one), 1, sizeof(one->entries[0]));
	int r = 0;

	all->nmsrs = VCPU_MAX_MSRS;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, all))
		r = fail(e, "KVM_GET_MSR_INDEX_LIST");
	for (uint32_t i = 0; i < all->nmsrs && !r; i++) {
		one->nmsrs = 1;
		one->entries[0] = (struct kvm_msr_entry){.index = all->indices[i]};
		if (all->indices[i] != MSR_TSC && !is_hyperv(all->indices[i]) &&
		    ioctl(fd, KVM_GET_MSRS, one) == 1)
			s->msr[s->nmsrs++] = one->entries[0];
	}
	free(one);
	free(all);
	return r;
}

static int load_msrs(int fd, const struct vcpu_saved *s, struct ob_err *e)
{
	struct kvm_msrs *one = list_new(sizeof(*one), 1, sizeof(one->entries[0]));
	int r = 0;

	for (uint32_t i = 0; i < s->nmsrs && !r; i++) {
		one->nmsrs = 1;
		one->entries[0] = s->msr[i];
		if (ioctl(fd, KVM_SET_MSRS, one) < 0)
			r = fail(e, "KVM_SET_MSRS");
	}
	free(one);
	return r;
}

int vcpu_state_save(int kvm_fd, int fd, struct vcpu_saved **out, struct ob_err *e)
{
	struct vcpu_saved *s = calloc(1, sizeof(*s));
	int r;

	OB_ASSERT(s);
	s->version = VCPU_STATE_VERSION;
	if (ioctl(fd, KVM_GET_MP_STATE, &s->mp) || ioctl(fd, KVM_GET_REGS, &s->regs) ||
	    ioctl(fd, KVM_GET_SREGS, &s->sregs) || ioctl(fd, KVM_GET_XSAVE, &s->xsave) ||
	    ioctl(fd, KVM_GET_XCRS, &s->xcrs) || ioctl(fd, KVM_GET_DEBUGREGS, &s->debug) ||
	    ioctl(fd, KVM_GET_VCPU_EVENTS, &s->events) || ioctl(fd, KVM_GET_LAPIC, &s->lapic))
		r = fail(e, "reading the state of a vCPU");
	else
		r = save_msrs(kvm_fd, fd, s, e);
	if (r) {
		free(s);
		return r;
	}
	*out = s;
	return 0;
}

int vcpu_state_load(int fd, const struct vcpu_saved *s, struct ob_err *e)
{
	/* KVM's interface takes pointers to what it only reads. */
	struct vcpu_saved *w = malloc(sizeof(*w));
	int r = 0;

	OB_ASSERT(w && s->version == VCPU_STATE_VERSION);
	*w = *s;
	if (ioctl(fd, KVM_SET_SREGS, &w->sregs) || ioctl(fd, KVM_SET_REGS, &w->regs) ||
	    ioctl(fd, KVM_SET_XCRS, &w->xcrs) || ioctl(fd, KVM_SET_XSAVE, &w->xsave) ||
	    ioctl(fd, KVM_SET_DEBUGREGS, &w->debug))
		r = fail(e, "loading the state of a vCPU");
	r = r ? r : load_msrs(fd, s, e);
	if (!r &&
	    (ioctl(fd, KVM_SET_LAPIC, &w->lapic) || ioctl(fd, KVM_SET_VCPU_EVENTS, &w->events) ||
	     ioctl(fd, KVM_SET_MP_STATE, &w->mp)))
		r = fail(e, "loading the state of a vCPU");
	free(w);
	return r;
}
