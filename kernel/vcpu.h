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
	_Atomic pthread_t self; /* the same, as its thread knows it; 0 before it runs */
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
/* Of its own thread: say that it is out, and tell a parker who may be waiting for it. */
void vcpu_leave(struct vcpu *v);
/* Go in, waiting while parked. False: the VM is to stop, and it is out. */
bool vcpu_enter(struct vcpu *v);
void vcpu_futex_wait(_Atomic uint32_t *at, uint32_t while_equal, const struct timespec *timeout);
void vcpu_futex_wake(_Atomic uint32_t *at);
/* Make it leave guest mode. The reason (park, stop) has been set before. */
void vcpu_kick(struct vcpu *v);
/* Wait until it is VCPU_OUT. The vCPU was given a reason to leave (park, stop). */
void vcpu_wait_out(struct vcpu *v);
/* After the stop flag or the depth of parking has changed: wake vCPUs that wait while parked. */
void vcpu_look_again(struct vm *vm);
void vcpu_join(struct vcpu *v);
void vcpu_destroy(struct vcpu *v);
uint64_t vcpu_cpu_ns(struct vcpu *v);

/* --- vcpu_sleep.c: out in the middle of an access ------------------------------------------------ */

/*
 * Called on the vCPU's thread while a device emulates an access: sleep up to @ns, or until vm_wake.
 * The vCPU counts as out meanwhile, so that parking a sleeping guest costs nothing. A wake that
 * came before is not lost.
 */
void vcpu_sleep(struct vm *vm, uint64_t ns);
/*
 * Before a wait of unknown length, with nothing locked: the vCPU of @vm whose thread this is counts as
 * out, until vcpu_step_in of what is returned. NULL, for which that does nothing: this is not a vCPU's
 * thread, or it is out already (a reset of the machine).
 */
struct vcpu *vcpu_step_out(struct vm *vm);
/* The same, when the wait is over and all that is to be done for it: waits while the VM is parked. */
void vcpu_step_in(struct vcpu *v);

#endif
