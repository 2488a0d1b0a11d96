/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_boot.c: the state in which a kernel is entered. Two protocols: PVH (Xen's pvh.html) wants flat
 * 32-bit protected mode without paging and ebx = start info; Linux's 64-bit protocol (boot.rst, "64-bit
 * Boot Protocol") long mode with memory mapped one to one, its code and data segments in a GDT in
 * memory, interrupts off and rsi = boot_params.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/vcpu.h"

#define CR0_PE	 0x1u
#define CR0_ET	 0x10u
#define CR0_PG	 0x80000000u
#define CR4_PAE	 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u

#define SEG_CODE 0xb /* execute, read, accessed */
#define SEG_DATA 0x3 /* read, write, accessed */

static void set_32(struct kvm_sregs *s)
{
	s->cs = (struct kvm_segment){.limit = 0xffffffff,
				     .selector = 0x08,
				     .type = SEG_CODE,
				     .present = 1,
				     .db = 1,
				     .s = 1,
				     .g = 1};
	s->ds = (struct kvm_segment){.limit = 0xffffffff,
				     .selector = 0x10,
				     .type = SEG_DATA,
				     .present = 1,
				     .db = 1,
				     .s = 1,
				     .g = 1};
	s->cr0 = CR0_PE | CR0_ET;
	s->cr3 = s->cr4 = 0;
	s->efer = 0;
	s->gdt.limit = 0;
}

static void set_64(struct kvm_sregs *s, const struct boot_entry *entry)
{
	s->cs = (struct kvm_segment){.limit = 0xffffffff,
				     .selector = entry->code_selector,
				     .type = SEG_CODE,
				     .present = 1,
				     .l = 1,
				     .s = 1,
				     .g = 1};
	s->ds = (struct kvm_segment){.limit = 0xffffffff,
				     .selector = entry->data_selector,
				     .type = SEG_DATA,
				     .present = 1,
				     .db = 1,
				     .s = 1,
				     .g = 1};
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
	s->cr3 = entry->cr3;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->gdt.base = entry->gdt_base;
	s->gdt.limit = entry->gdt_limit;
}

int vcpu_set_boot(struct vcpu *v, const struct boot_entry *entry, struct ob_err *e)
{
	const struct kvm_segment tss = {.limit = 0x67, .type = 0xb, .present = 1};
	struct kvm_regs regs = {.rip = entry->rip, .rflags = 2};
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s))
		return ob_fail(e, errno, "KVM_GET_SREGS: %s", strerror(errno));
	if (entry->long_mode) {
		set_64(&s, entry);
		regs.rsi = entry->arg;
	} else {
		set_32(&s);
		regs.rbx = entry->arg;
	}
	s.es = s.fs = s.gs = s.ss = s.ds;
	s.tr = tss;
	s.idt.limit = 0;
	if (ioctl(v->fd, KVM_SET_SREGS, &s))
		return ob_fail(e, errno, "KVM_SET_SREGS: %s", strerror(errno));
	if (ioctl(v->fd, KVM_SET_REGS, &regs))
		return ob_fail(e, errno, "KVM_SET_REGS: %s", strerror(errno));
	return 0;
}
