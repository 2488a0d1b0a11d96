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
	VCPU_OUT,  /* touches no guest memory: parked, asleep, or its thread has ended */
	VCPU_IN,   /* in guest mode, or emulating an access for it */
	VCPU_HELD, /* out, and kept there: another thread uses its run structure for a moment */
};

struct kvm_run;

struct vcpu {
	struct vm *vm;
	unsigned int index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool has_thread;
	bool stood;		/* it was parked for long; its own thread's */
	_Atomic uint32_t state; /* enum vcpu_state; a futex for whoever parks */
	clockid_t cpu_clock;	/* of the thread, while it lives */
	/* Where the kernel writes the CPU that the thread runs on (rseq); NULL: it does not. */
	const uint32_t *_Atomic cpu;
	_Atomic uint64_t cpu_ns; /* of the thread, set when it ends */
};

/* The one of number @index of @of; nothing is left behind on an error. */
int vcpu_create(struct vcpu *v, struct vm *vm, unsigned int index, unsigned int of,
		struct ob_err *e);
/* Let KVM end the access that the vCPU left guest mode for, without running guest code. The VM is
 * parked. 0 or -errno with a line in @e. */
int vcpu_finish_access(struct vcpu *v, struct ob_err *e);
/* vcpu_boot.c: set its registers to a kernel's entry. It does not run. */
int vcpu_set_boot(struct vcpu *v, const struct boot_entry *entry, struct ob_err *e);
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
