/* SPDX-License-Identifier: Apache-2.0 */
/* vcpu_state.h: private to kernel/: all of a vCPU's state, saved and loaded (vcpu_state.c). */
#ifndef OVERBOOK_KERNEL_VCPU_STATE_H
#define OVERBOOK_KERNEL_VCPU_STATE_H

#include <linux/kvm.h>

#include "kernel/base.h"

#define VCPU_STATE_VERSION 1
#define VCPU_MAX_MSRS	   512

struct vcpu_saved {
	uint32_t version;
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	uint32_t nmsrs;
	struct kvm_msr_entry msr[VCPU_MAX_MSRS];
	struct kvm_xsave xsave; /* the last: KVM's struct ends in an array without a size */
};

/*
 * Of the vCPU behind @fd, which does not run and has no access half done. @kvm_fd is /dev/kvm, which
 * names the registers there are. The caller frees *@out. 0 or -errno with a line in @e.
 */
int vcpu_state_save(int kvm_fd, int fd, struct vcpu_saved **out, struct ob_err *e);
/* Make the vCPU what @s says. Time (the TSC) goes on as it is. 0 or -errno with a line in @e. */
int vcpu_state_load(int fd, const struct vcpu_saved *s, struct ob_err *e);

#endif
