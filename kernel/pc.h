/* SPDX-License-Identifier: Apache-2.0 */
/* pc.h: private to kernel/: what makes a VM a PC (pc.c, pc_reset.c). */
#ifndef OVERBOOK_KERNEL_PC_H
#define OVERBOOK_KERNEL_PC_H

#include <linux/kvm.h>

#include "kernel/vcpu_state.h"
#include "kernel/vm.h"

#define PC_NCHIPS 3 /* KVM_IRQCHIP_PIC_MASTER, _SLAVE, _IOAPIC */

/* The doorbell of one queue: KVM ticks it when the driver writes the queue's number. */
struct pc_bell {
	struct io_bell bell;
	struct virtio_dev *dev;
	unsigned int queue;
};

/* A place for a virtio device: registers at VIRTIO_GPA + n * VIRTIO_STRIDE, interrupt
 * PC_VIRTIO_GSI + n. */
struct pc_slot {
	struct virtio_dev *dev;
	int irq_fd;
	struct pc_bell bell[VIRTIO_MAX_QUEUES];
	unsigned int nbells;
};

struct pc {
	struct vm *vm;
	struct io_worker *worker;
	struct pc_slot slot[ACPI_MAX_VIRTIO];
	unsigned int nslots;
	bool detached;
	struct virtio_console console; /* of the agent's port */
	struct agent_port port;
	bool has_console;
	struct virtio_rng rng;
	bool has_rng;
	_Atomic uint32_t
		pm1_enable; /* kept, as a register that can be read back; no event ever comes */
	_Atomic uint32_t pm1_control;  /* the same, but for SLP_EN and SCI_EN */
	_Atomic uint64_t unknown_msrs; /* reads and writes of registers that KVM does not know */
	_Atomic bool reset_wanted;
	struct ob_mutex reset_lock; /* of several vCPUs that ask, one resets */
	/* As it was made, for a reset. */
	struct kvm_irqchip chip[PC_NCHIPS];
	struct kvm_pit_state2 pit;
	struct vcpu_saved *state[VM_MAX_VCPUS];
};

/* Interrupt controllers and timer; before any vCPU is made. vm->pc is set when it returns 0. */
int pc_create(struct vm *vm, const struct vm_config *cfg, struct ob_err *e);
/* The line of the serial port (serial_on_irq); @arg is the struct pc. */
void pc_serial_irq(void *arg, bool level);
/* The ports of power management and reset. */
void pc_add_ports(struct vm *vm);
/* The agent's port and the entropy device, as far as @cfg wants them. */
int pc_add_agent(struct vm *vm, struct ob_err *e);
int pc_add_rng(struct vm *vm, struct ob_err *e);
/* Put @d, which is initialized, into the next place. On an error it is not in it. */
int pc_add_virtio(struct vm *vm, struct virtio_dev *d, struct ob_err *e);
/* The machine for its tables. */
void pc_describe(const struct vm *vm, struct acpi_machine *out);
/* Doorbells are heard no more, and the devices of the PC alone are gone; the agent's last report is
 * there still. Twice is no harm. Before the disks go. */
void pc_detach(struct vm *vm);
/* The devices are gone, the VM's descriptor is open still. */
void pc_destroy(struct vm *vm);

/* vm.c: KVM forgets what it has made of the guest's page tables: we have written to its memory behind
 * its back. No vCPU runs. 0 or -errno. */
int vm_forget_translations(struct vm *vm);

/* Keep the state of vCPUs and chips, as they were made, for pc_reset. */
int pc_keep_state(struct vm *vm, struct ob_err *e);
/* Somebody wrote to the reset port: @v's loop calls pc_reset soon. On a vCPU's thread. */
void pc_ask_reset(struct vm *vm);
/*
 * If a reset is wanted, do it: vCPUs, chips and devices as they were made, kernel loaded anew,
 * memory else as it is. On the thread of a vCPU which is VCPU_OUT.
 */
void pc_reset(struct vm *vm);
static inline bool pc_reset_due(const struct vm *vm)
{
	return vm->pc && atomic_load(&vm->pc->reset_wanted);
}

#endif
