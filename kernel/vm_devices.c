/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_devices.c: which devices a VM has, and where: those of our own guest's bare machine, or a PC's
 * (pc.c). Both have the console's port and disks.
 */
#include "kernel/vm_devices.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/pc.h"

static int add_disks(struct vm *vm, const struct vm_config *cfg, struct ob_err *e)
{
	for (unsigned int i = 0; i < cfg->ndisks; i++) {
		struct virtio_blk *b = &vm->disk[i];
		int r = virtio_blk_init(b, vm, &vm->mem, cfg->worker, cfg->disk[i].fd, e);

		if (r)
			return r;
		vm->ndisks++;
		if (vm->pc) {
			char id[32];

			/* A queue for each vCPU, as far as there are; and Linux names disks by id. */
			snprintf(id, sizeof(id), "overbook-disk%u", i);
			virtio_blk_set_id(b, id);
			virtio_blk_set_queues(b, vm->nvcpus);
			r = pc_add_virtio(vm, &b->dev, e);
			if (r)
				return r;
			continue;
		}
		OB_ASSERT(!bus_add(&vm->mmio, VIRTIO_GPA + i * VIRTIO_STRIDE, VIRTIO_STRIDE,
				   &virtio_mmio_bus_ops, &b->dev));
	}
	return 0;
}

static void on_panic(void *arg, const char *line)
{
	vm_fail(arg, "%s", line);
}

static void add_console(struct vm *vm)
{
	OB_ASSERT(!bus_add(&vm->pio, SERIAL_COM1, SERIAL_PORTS, &serial_bus_ops, &vm->serial));
	if (!vm->pc)
		return;
	serial_on_irq(&vm->serial, pc_serial_irq, vm->pc);
	serial_on_panic(&vm->serial, on_panic, vm);
}

int vm_add_devices(struct vm *vm, const struct vm_config *cfg, struct ob_err *e)
{
	int r;

	if (cfg->ndisks > (vm->pc ? VM_MAX_DISKS : 1u))
		return ob_fail(e, EINVAL, "%u disks: a guest of this kind has at most %u",
			       cfg->ndisks, vm->pc ? VM_MAX_DISKS : 1u);
	add_console(vm);
	vm->agent.vm = vm;
	if (!vm->pc) {
		OB_ASSERT(!bus_add(&vm->mmio, AGENT_GPA, AGENT_SIZE, &agent_bus_ops, &vm->agent));
		return add_disks(vm, cfg, e);
	}
	pc_add_ports(vm);
	r = add_disks(vm, cfg, e);
	if (!r && cfg->agent_port)
		r = pc_add_agent(vm, e);
	if (!r && cfg->rng)
		r = pc_add_rng(vm, e);
	return r;
}

void vm_detach(struct vm *vm)
{
	if (vm->pc)
		pc_detach(vm);
	for (unsigned int i = 0; i < vm->ndisks; i++)
		virtio_blk_exit(&vm->disk[i]);
	vm->ndisks = 0;
}

void vm_drop_devices(struct vm *vm)
{
	vm_detach(vm);
	serial_exit(&vm->serial);
}
