/* SPDX-License-Identifier: Apache-2.0 */
/* track_log.c: KVM's dirty log (kernel/dirty.c) as the source of a tracker. */
#include "ept/track.h"
#include "kernel/vm.h"

static int log_set(void *vm, unsigned int slot, bool on)
{
	return vm_log_set(vm, slot, on);
}

static int log_collect(void *vm, unsigned int slot, uint64_t *bitmap)
{
	return vm_log_collect(vm, slot, bitmap);
}

struct ept_log_ops ept_log_kvm(struct vm *vm)
{
	return (struct ept_log_ops){.set = log_set, .collect = log_collect, .arg = vm};
}
