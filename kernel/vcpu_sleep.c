/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_sleep.c: a vCPU that waits in the middle of an access counts as out meanwhile: one that sleeps for
 * its guest, and one that waits for a device's work to end, as long as a disk may take for that. Who
 * parks the VM does not wait for either.
 *
 * To count as out it touches no guest memory, holds no lock, and comes back by vcpu_enter, which waits
 * while the VM is parked. The VM may be reset meanwhile (pc_reset.c): what is done after coming back
 * must not depend on what the guest was.
 */
#include "kernel/vcpu.h"

void vcpu_sleep(struct vm *vm, uint64_t ns)
{
	struct vcpu *v = vm->vcpu;
	struct timespec ts = {
		.tv_sec = (time_t)(ns / OB_NS_PER_SEC),
		.tv_nsec = (long)(ns % OB_NS_PER_SEC),
	};

	vcpu_leave(v);
	/* wake_latch: set by vm_wake and by stop, taken here. */
	if (!atomic_exchange(&vm->wake_latch, 0)) {
		vcpu_futex_wait(&vm->wake_latch, 0, &ts);
		atomic_store(&vm->wake_latch, 0);
	}
	vcpu_enter(v); /* when it says stop, the run loop finds out by itself */
}

void vm_wake(struct vm *vm)
{
	atomic_store(&vm->wake_latch, 1);
	vcpu_futex_wake(&vm->wake_latch);
}

struct vcpu *vcpu_step_out(struct vm *vm)
{
	for (unsigned int i = 0; i < vm->nvcpus; i++) {
		struct vcpu *v = &vm->vcpu[i];

		if (!pthread_equal(atomic_load(&v->self), pthread_self()))
			continue;
		/* Nobody but its own thread makes it IN, or takes it out of that. */
		if (atomic_load(&v->state) != VCPU_IN)
			return NULL;
		vcpu_leave(v);
		return v;
	}
	return NULL;
}

void vcpu_step_in(struct vcpu *v)
{
	if (v)
		vcpu_enter(v); /* as above */
}
