/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pc_reset.c: a PC is reset: the guest rebooted. What a real one would find is made: CPUs, chips and
 * devices as after power-on, the kernel in memory as the loader puts it, and the rest of memory as it
 * was (a warm reset does not clear it).
 *
 * It runs on the thread of the vCPU that asked, which counts as out meanwhile, as somebody from
 * outside: it parks the VM, and others may park it as well, or look at memory. What is loaded goes
 * through the devices' door (gmem_access_begin), so pages that are shared or away at that moment are
 * dealt with as when a disk reads into them. It must not be done as part of the access itself: a
 * vCPU in the middle of an access is one that whoever freezes memory waits for.
 *
 * An access to a port or to MMIO is two parts, and KVM does the second (the instruction is over, its
 * result in a register) when the vCPU next runs. So each vCPU runs once with immediate_exit before
 * its state is replaced; else the old access would be ended in the new state.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/pc.h"
#include "kernel/vcpu.h"

int pc_keep_state(struct vm *vm, struct ob_err *e)
{
	struct pc *pc = vm->pc;
	int r;

	for (unsigned int i = 0; i < PC_NCHIPS; i++) {
		pc->chip[i].chip_id = i;
		if (ioctl(vm->fd, KVM_GET_IRQCHIP, &pc->chip[i]))
			return ob_fail(e, errno, "KVM_GET_IRQCHIP: %s", strerror(errno));
	}
	if (ioctl(vm->fd, KVM_GET_PIT2, &pc->pit))
		return ob_fail(e, errno, "KVM_GET_PIT2: %s", strerror(errno));
	for (unsigned int i = 0; i < vm->nvcpus; i++) {
		r = vcpu_state_save(vm->kvm->fd, vm->vcpu[i].fd, &pc->state[i], e);
		if (r)
			return r;
	}
	return 0;
}

void pc_ask_reset(struct vm *vm)
{
	atomic_store(&vm->pc->reset_wanted, true);
}

static int load_chips(struct vm *vm, struct ob_err *e)
{
	struct pc *pc = vm->pc;

	for (unsigned int i = 0; i < PC_NCHIPS; i++)
		if (ioctl(vm->fd, KVM_SET_IRQCHIP, &pc->chip[i]))
			return ob_fail(e, errno, "KVM_SET_IRQCHIP: %s", strerror(errno));
	if (ioctl(vm->fd, KVM_SET_PIT2, &pc->pit))
		return ob_fail(e, errno, "KVM_SET_PIT2: %s", strerror(errno));
	return 0;
}

/* With all vCPUs out, which park and stop keep them. */
static int reset(struct vm *vm, struct ob_err *e)
{
	char line[sizeof(vm->reason)];
	int r;

	/* A kernel with panic=N resets when it has panicked: that is no reboot. */
	if (serial_panic_line(&vm->serial, line, sizeof(line))) {
		vm_fail(vm, "%s", line);
		return 0;
	}
	for (unsigned int i = 0; i < vm->pc->nslots; i++)
		virtio_dev_reset(vm->pc->slot[i].dev);
	if (vm->agent.port)
		agent_port_reset(vm->agent.port);
	serial_reset(&vm->serial);
	atomic_store(&vm->pc->pm1_enable, 0);
	atomic_store(&vm->pc->pm1_control, 0);
	for (unsigned int i = 0; i < vm->nvcpus; i++) {
		r = vcpu_finish_access(&vm->vcpu[i], e);
		if (r)
			return r;
	}
	r = load_chips(vm, e);
	for (unsigned int i = 0; i < vm->nvcpus && !r; i++)
		r = vcpu_state_load(vm->vcpu[i].fd, vm->pc->state[i], e);
	r = r ? r : vm_boot(vm, e);
	if (!r) {
		r = vm_forget_translations(vm);
		if (r)
			ob_fail(e, -r, "dropping translations: %s", strerror(-r));
	}
	if (!r)
		atomic_fetch_add(&vm->boot.resets, 1);
	return r;
}

void pc_reset(struct vm *vm)
{
	struct ob_err e;

	if (!pc_reset_due(vm))
		return;
	/* Being parked does not keep another vCPU from here, which counts as out as we do. */
	ob_lock(&vm->pc->reset_lock);
	vm_park(vm);
	/* Now nobody can ask any more: whoever did before is answered by this reset. */
	if (atomic_exchange(&vm->pc->reset_wanted, false) && !atomic_load(&vm->stop) &&
	    reset(vm, &e))
		vm_fail(vm, "the guest rebooted, but could not be reset: %s", e.msg);
	vm_unpark(vm);
	ob_unlock(&vm->pc->reset_lock);
}
