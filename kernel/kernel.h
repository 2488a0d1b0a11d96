/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h: the public header of kernel/, the hypervisor core. Others include only this. It is cut
 * into parts by subject: base.h (types, errors, arenas), host.h (the host seam), mem.h (guest RAM),
 * device.h (bus, virtio, devices), vm.h (KVM, VMs, vCPUs, boot).
 */
#ifndef OVERBOOK_KERNEL_KERNEL_H
#define OVERBOOK_KERNEL_KERNEL_H

#include "kernel/agent_abi.h"
#include "kernel/base.h"
#include "kernel/boot.h"
#include "kernel/device.h"
#include "kernel/host.h"
#include "kernel/lock.h"
#include "kernel/mem.h"
#include "kernel/vm.h"

#endif
