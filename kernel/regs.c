/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs.c: what is read from a vCPU's registers while it stands still.
 *
 * KVM answers only when the vCPU is not in KVM_RUN: the ioctl takes the lock that KVM_RUN holds, so
 * asking a running vCPU would wait for its next exit, which may be never. Hence the caller parks.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/vcpu.h"

#define CPUID_ADDRESS_SIZES 0x80000008u /* eax bits 7:0: MAXPHYADDR */
#define CPUID_EXT_FEATURES  0x80000001u /* edx bit 26: 1 GB pages */
#define CPUID_EDX_1G	    (1u << 26)
#define MAXPHYADDR_UNTOLD   36 /* of a CPU that has PAE but not the leaf (SDM 4.1.4) */

/* The addresses and page sizes of the CPU that the guest was shown. */
static void read_sizes(const struct kvm_cpuid2 *cpuid, struct vcpu_paging *out)
{
	out->maxphyaddr = MAXPHYADDR_UNTOLD;
	for (uint32_t i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		if (e->function == CPUID_ADDRESS_SIZES)
			out->maxphyaddr = e->eax & 0xff;
		else if (e->function == CPUID_EXT_FEATURES)
			out->has_1g = e->edx & CPUID_EDX_1G;
	}
}

int vcpu_read_paging(struct vm *vm, unsigned int index, struct vcpu_paging *out, struct ob_err *e)
{
	struct kvm_sregs2 s2;
	struct kvm_sregs s;
	int fd;

	*out = (struct vcpu_paging){0};
	if (index >= vm->nvcpus)
		return ob_fail(e, EINVAL, "vm %u has no vCPU %u, it has %u", vm->id, index,
			       vm->nvcpus);
	if (atomic_load(&vm->state) == VM_RUNNING && !atomic_load(&vm->park_depth))
		return ob_fail(e, EBUSY, "vm %u runs: its registers are read while it is parked",
			       vm->id);
	fd = vm->vcpu[index].fd;
	read_sizes(vm->kvm->cpuid, out);
	/* The newer call (Linux 5.14) also tells the PDPTEs of PAE paging. */
	if (!ioctl(fd, KVM_GET_SREGS2, &s2)) {
		out->cr0 = s2.cr0;
		out->cr3 = s2.cr3;
		out->cr4 = s2.cr4;
		out->efer = s2.efer;
		out->has_pdpte = s2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
		for (unsigned int i = 0; out->has_pdpte && i < OB_ARRAY_SIZE(out->pdpte); i++)
			out->pdpte[i] = s2.pdptrs[i];
		return 0;
	}
	if (ioctl(fd, KVM_GET_SREGS, &s))
		return ob_fail(e, errno, "vm %u: KVM_GET_SREGS: %s", vm->id, strerror(errno));
	out->cr0 = s.cr0;
	out->cr3 = s.cr3;
	out->cr4 = s.cr4;
	out->efer = s.efer;
	return 0;
}
