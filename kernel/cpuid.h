/* SPDX-License-Identifier: Apache-2.0 */
/* cpuid.h: private to kernel/: what a guest's CPU says it is. */
#ifndef OVERBOOK_KERNEL_CPUID_H
#define OVERBOOK_KERNEL_CPUID_H

#include <linux/kvm.h>

#include "kernel/base.h"

struct cpuid_machine {
	unsigned int vcpus; /* 1 to 255 */
	bool tsc_deadline;  /* KVM_CAP_TSC_DEADLINE_TIMER: KVM's list does not say it itself */
};

/*
 * The leaves that vCPU @index of such a machine shows, out of @supported, what KVM offers. The
 * caller frees it. Pure.
 */
struct kvm_cpuid2 *cpuid_make(const struct kvm_cpuid2 *supported, const struct cpuid_machine *m,
			      unsigned int index);

#endif
