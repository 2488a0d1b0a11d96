/* SPDX-License-Identifier: Apache-2.0 */
/* vm_devices.h: private to kernel/: the devices of a VM (vm_devices.c). */
#ifndef OVERBOOK_KERNEL_VM_DEVICES_H
#define OVERBOOK_KERNEL_VM_DEVICES_H

#include "kernel/vm.h"

/* Make them and put them on the buses. What was made on failure vm_drop_devices undoes. */
int vm_add_devices(struct vm *vm, const struct vm_config *cfg, struct ob_err *e);
/* The vCPUs have stopped, or never ran. */
void vm_drop_devices(struct vm *vm);

#endif
