/* SPDX-License-Identifier: Apache-2.0 */
/* vcpu.h: private to kernel/: one virtual CPU and its thread. The protocol is told in vcpu.c. */
#ifndef OVERBOOK_KERNEL_VCPU_H
#define OVERBOOK_KERNEL_VCPU_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "kernel/vm.h"

#define VCPU_KICK_SIGNAL SIGUSR1

enum vcpu_state {
	VCPU_OUT, /* touches no guest memory: parked, asleep, or its thread has ended */
	VCPU_IN,  /* in guest mode, or emulating an access for it */
};

struct kvm_run;

struct vcpu {
	struct vm *vm;
	unsigned int index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
	_Atomic uint32_t state; /* enum vcpu_state; a futex for whoever parks */
	clockid_t cpu_clock;	/* of the thread, while it lives */
	/* Where the kernel writes the CPU that the thread runs on (rseq); NULL: it does not. */
	const uint32_t *_Atomic cpu;
	_Atomic uint64_t cpu_ns; /* of the thread, set when it ends */
};

int vcpu_create(struct vcpu *v, struct vm *vm, unsigned int index, struct ob_err *e);
/* PVH start state (Xen's pvh.html): 32-bit flat protected mode, paging off, ebx = start info. */
int vcpu_set_pvh(struct vcpu *v, uint32_t entry, uint32_t start_info, struct ob_err *e);
int vcpu_start(struct vcpu *v, struct ob_err *e);
/* Make it leave guest mode. The reason (park, stop) has been set before. */
void vcpu_kick(struct vcpu *v);
/* Wait until it is VCPU_OUT. The vCPU was given a reason to leave (park, stop). */
void vcpu_wait_out(struct vcpu *v);
/* After the stop flag or the depth of parking has changed: wake vCPUs that wait while parked. */
void vcpu_look_again(struct vm *vm);
void vcpu_join(struct vcpu *v);
void vcpu_destroy(struct vcpu *v);
uint64_t vcpu_cpu_ns(struct vcpu *v);

/*
 * Called on the vCPU's thread while a device emulates an access: sleep up to @ns, or until vm_wake.
 * The vCPU counts as out meanwhile, so that parking a sleeping guest costs nothing. A wake that
 * came before is not lost.
 */
void vcpu_sleep(struct vm *vm, uint64_t ns);

#endif
