/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu.c: the thread of a virtual CPU, and how it is stopped for a moment.
 *
 * Whoever changes guest memory first parks the guest. The protocol is Dekker's, between the vCPU's
 * thread and the one that parks:
 *
 *	vCPU, to go in				parker
 *	  state = IN				  park_depth += 1
 *	  immediate_exit = 0			  if state == IN:
 *	  if park_depth or stop:		      immediate_exit = 1, signal
 *	      state = OUT, wake, wait		      wait until state == OUT
 *
 * Both write first and read then, in one total order (seq_cst), so at least one sees the other:
 * never is the vCPU in while the parker believes it out. A vCPU that has seen park_depth == 0 and
 * is on its way into KVM_RUN is caught by immediate_exit, which KVM looks at on the way in; one
 * that is inside is caught by the signal. The parker writes immediate_exit only while it sees IN
 * and holds park_depth up, and the vCPU clears it before it looks at park_depth, so a stale 1 costs
 * one empty round at most and a needed 1 is never lost.
 *
 * A parked vCPU may look again, and so go IN and OUT and clear immediate_exit, at any time. Whoever
 * wants KVM_RUN to return at once for it (vcpu_finish_access) makes OUT HELD first, and it waits.
 *
 * Emulating an access (MMIO, ports) is part of being in: a park waits for it. A vCPU that sleeps
 * for its guest is out (vcpu_sleep.c): most guests sleep most of the time, and parking them costs two
 * memory accesses. So is one that waits for the end of a device's work.
 */
#include "kernel/vcpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernel/cpuid.h"
#include "kernel/pc.h"

/* KVM emulates at most 1024 rounds of an instruction, each of a few accesses, at a time. */
#define VCPU_ACCESSES 8192
#define VCPU_STOOD_NS OB_NS_PER_SEC /* parked so long, a guest is told (KVM_KVMCLOCK_CTRL) */
/* Enough for the run loop and the devices below it; 200 guests make the default of 8 MiB count. */
#define VCPU_STACK (256 * OB_KIB)

void vcpu_futex_wait(_Atomic uint32_t *at, uint32_t while_equal, const struct timespec *timeout)
{
	syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, while_equal, timeout, NULL, 0);
}

void vcpu_futex_wake(_Atomic uint32_t *at)
{
	syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* A PC's vCPUs differ in their topology; our own guest gets what KVM has. */
static int set_cpuid(struct vcpu *v, unsigned int of)
{
	struct kvm *kvm = v->vm->kvm;
	const struct cpuid_machine m = {
		.vcpus = of,
		.tsc_deadline = ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
	};
	struct kvm_cpuid2 *c;
	int r;

	if (!v->vm->pc)
		return ioctl(v->fd, KVM_SET_CPUID2, kvm->cpuid) ? errno : 0;
	c = cpuid_make(kvm->cpuid, &m, v->index);
	r = ioctl(v->fd, KVM_SET_CPUID2, c) ? errno : 0;
	free(c);
	return r;
}

int vcpu_create(struct vcpu *v, struct vm *vm, unsigned int index, unsigned int of,
		struct ob_err *e)
{
	int err;

	*v = (struct vcpu){.vm = vm, .index = index, .fd = -1, .run = MAP_FAILED};
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, index);
	if (v->fd < 0)
		return ob_fail(e, errno, "KVM_CREATE_VCPU: %s", strerror(errno));
	v->run = mmap(NULL, vm->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		err = errno;
		vcpu_destroy(v);
		return ob_fail(e, err, "mapping kvm_run: %s", strerror(err));
	}
	err = set_cpuid(v, of);
	if (err) {
		vcpu_destroy(v);
		return ob_fail(e, err, "KVM_SET_CPUID2: %s", strerror(err));
	}
	return 0;
}

int vcpu_finish_access(struct vcpu *v, struct ob_err *e)
{
	uint32_t out = VCPU_OUT;
	unsigned int tries = 0;
	int err = 0;

	for (; !atomic_compare_exchange_strong(&v->state, &out, VCPU_HELD); out = VCPU_OUT)
		vcpu_wait_out(v);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	/* An instruction of several accesses, or of many (rep), leaves again for the next one. */
	while (!ioctl(v->fd, KVM_RUN, 0) && tries < VCPU_ACCESSES)
		tries++;
	if (tries == VCPU_ACCESSES)
		err = EBUSY;
	else if (errno != EINTR && errno != EAGAIN)
		err = errno;
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	atomic_store(&v->state, VCPU_OUT);
	vcpu_futex_wake(&v->state);
	return err ? ob_fail(e, err, "KVM_RUN: %s", strerror(err)) : 0;
}

void vcpu_leave(struct vcpu *v)
{
	atomic_store(&v->state, VCPU_OUT);
	if (atomic_load(&v->vm->park_depth) || atomic_load(&v->vm->stop))
		vcpu_futex_wake(&v->state);
}

static uint64_t now_ns(const struct vcpu *v)
{
	return v->vm->host->ops->now_ns(v->vm->host);
}

bool vcpu_enter(struct vcpu *v)
{
	struct vm *vm = v->vm;
	uint64_t waited;

	for (;;) {
		uint32_t seq = atomic_load(&vm->park_seq), out = VCPU_OUT;

		if (!atomic_compare_exchange_strong(&v->state, &out, VCPU_IN)) {
			vcpu_futex_wait(&v->state, VCPU_HELD, NULL);
			continue;
		}
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (atomic_load(&vm->stop)) {
			vcpu_leave(v);
			return false;
		}
		if (!atomic_load(&vm->park_depth))
			return true;
		vcpu_leave(v);
		/* Whoever releases or stops us changes park_seq after what we have
		 * just looked at. */
		waited = vm->pc ? now_ns(v) : 0; /* our own guest has no such clock */
		vcpu_futex_wait(&vm->park_seq, seq, NULL);
		v->stood |= vm->pc && now_ns(v) - waited > VCPU_STOOD_NS;
	}
}

/* One access by port or MMIO, from the exit that KVM has written down. */
static void vcpu_pio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint64_t value;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		value = 0;
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, run->io.size);
			bus_write(&v->vm->pio, run->io.port, run->io.size, value);
		} else {
			bus_read(&v->vm->pio, run->io.port, run->io.size, &value);
			memcpy(data, &value, run->io.size);
		}
	}
}

static void vcpu_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint64_t value = 0;
	unsigned int len = OB_MIN(run->mmio.len, 8u);

	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, len);
		bus_write(&v->vm->mmio, run->mmio.phys_addr, len, value);
	} else {
		bus_read(&v->vm->mmio, run->mmio.phys_addr, len, &value);
		memcpy(run->mmio.data, &value, len);
	}
}

static uint64_t vcpu_rip(struct vcpu *v)
{
	struct kvm_regs regs;

	return ioctl(v->fd, KVM_GET_REGS, &regs) ? 0 : regs.rip;
}

/* A model-specific register that KVM does not know: as on a CPU without it (pc.c). */
static void vcpu_msr(struct vcpu *v)
{
	atomic_fetch_add(&v->vm->pc->unknown_msrs, 1);
	v->run->msr.error = 1;
}

static void vcpu_exit(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		vcpu_pio(v);
		break;
	case KVM_EXIT_MMIO:
		vcpu_mmio(v);
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		vcpu_msr(v);
		break;
	case KVM_EXIT_HLT:
		/* A PC's vCPU halts in KVM. The bare machine has no interrupts: who halts there
		 * waits for a device, or for ever. */
		vcpu_sleep(v->vm, 3600 * OB_NS_PER_SEC);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		vm_fail(v->vm, "triple fault near rip 0x%llx", (unsigned long long)vcpu_rip(v));
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		vm_fail(v->vm,
			"KVM could not emulate the instruction at rip 0x%llx (internal error %u)",
			(unsigned long long)vcpu_rip(v), run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		vm_fail(v->vm, "the CPU refused the guest's state (entry failure 0x%llx)",
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		vm_fail(v->vm, "KVM exit reason %u, which nobody handles", run->exit_reason);
	}
}

/*
 * The kernel keeps the number of the CPU in the thread's area for restartable sequences, which the C
 * library registers: others may read there which CPU it is, at the price of a memory access.
 */
static const uint32_t *thread_cpu(void)
{
	const struct rseq *r;

	if (!__rseq_size)
		return NULL;
	r = (const struct rseq *)((const char *)__builtin_thread_pointer() + __rseq_offset);
	return &r->cpu_id;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct vm *vm = v->vm;
	struct timespec ts;
	bool in;

	atomic_store(&v->cpu, thread_cpu());
	atomic_store(&v->self, pthread_self());
	in = vcpu_enter(v);
	while (in) {
		int r;

		/* A guest whose clock is KVM's is told that it stood still, lest it thinks that its
		 * CPUs hang. Others (-EINVAL) cannot be told. */
		if (v->stood)
			ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
		v->stood = false;
		r = ioctl(v->fd, KVM_RUN, 0);

		if (!r)
			vcpu_exit(v);
		else if (errno != EINTR && errno != EAGAIN)
			vm_fail(vm, "KVM_RUN: %s near rip 0x%llx", strerror(errno),
				(unsigned long long)vcpu_rip(v));
		if (atomic_load(&vm->stop) || atomic_load(&vm->park_depth) || pc_reset_due(vm)) {
			vcpu_leave(v);
			if (vm->pc)
				pc_reset(vm);
			in = vcpu_enter(v);
		}
	}
	OB_ASSERT(!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts));
	v->cpu_ns = (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
	serial_flush(&vm->serial);
	/* The thread's memory goes with it: from here on nobody may look (vm_cpu holds the lock). */
	ob_lock(&vm->end_lock);
	atomic_store(&v->cpu, NULL);
	ob_unlock(&vm->end_lock);
	if (atomic_fetch_sub(&vm->nrunning, 1) == 1)
		atomic_store(&vm->state, VM_STOPPED);
	return NULL;
}

int vcpu_start(struct vcpu *v, struct ob_err *e)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	OB_ASSERT(!pthread_attr_init(&attr));
	OB_ASSERT(!pthread_attr_setstacksize(&attr, VCPU_STACK));
	/* Signals that people send belong to the main thread; a vCPU takes its kick only. */
	sigfillset(&all);
	sigdelset(&all, VCPU_KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&v->thread, &attr, vcpu_thread, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return ob_fail(e, r, "cannot start a vCPU thread: %s", strerror(r));
	if (pthread_getcpuclockid(v->thread, &v->cpu_clock))
		v->cpu_clock = CLOCK_MONOTONIC; /* it has ended already: cpu_ns tells */
	v->has_thread = true;
	return 0;
}

uint64_t vcpu_cpu_ns(struct vcpu *v)
{
	uint64_t ended = v->cpu_ns;
	struct timespec ts;

	if (ended || !v->has_thread || v->cpu_clock == CLOCK_MONOTONIC)
		return ended;
	if (clock_gettime(v->cpu_clock, &ts))
		return v->cpu_ns; /* ended just now */
	return (uint64_t)ts.tv_sec * OB_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

void vcpu_kick(struct vcpu *v)
{
	if (atomic_load(&v->state) != VCPU_IN)
		return;
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (v->has_thread && !pthread_equal(v->thread, pthread_self()))
		pthread_kill(v->thread, VCPU_KICK_SIGNAL);
}

void vcpu_wait_out(struct vcpu *v)
{
	while (atomic_load(&v->state) == VCPU_IN)
		vcpu_futex_wait(&v->state, VCPU_IN, NULL);
}

void vcpu_join(struct vcpu *v)
{
	if (v->has_thread)
		pthread_join(v->thread, NULL);
	v->has_thread = false;
}

void vcpu_destroy(struct vcpu *v)
{
	if (v->run != MAP_FAILED)
		munmap(v->run, v->vm->kvm->run_size);
	v->run = MAP_FAILED;
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
}

void vcpu_look_again(struct vm *vm)
{
	atomic_fetch_add(&vm->park_seq, 1);
	vcpu_futex_wake(&vm->park_seq);
}

void vm_unpark(struct vm *vm)
{
	OB_ASSERT(atomic_load(&vm->park_depth) > 0);
	if (atomic_fetch_sub(&vm->park_depth, 1) == 1)
		vcpu_look_again(vm);
}

void vm_park(struct vm *vm)
{
	ob_rank_check(OB_RANK_PARK);
	atomic_fetch_add(&vm->park_depth, 1);
	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vcpu_kick(&vm->vcpu[i]);
	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vcpu_wait_out(&vm->vcpu[i]);
}
