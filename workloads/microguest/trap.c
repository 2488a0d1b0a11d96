/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trap.c: what happens on an exception: the guest has none that it expects but two, so any other
 * one is its end, and is told to the agent and on the console.
 *
 * The two: reading %cr2 faults where ring 0 may not (KVM without hardware), then the address is
 * given as 0; and `hlt` in ring 3, which is how guest_halt gets into ring 0 to stop for good.
 *
 * An exception comes with no argument, so the agent's address is kept beside the processor's tables
 * (start.S).
 */
#include "workloads/microguest/mg.h"

#define VECTOR_GP 13
#define VECTOR_PF 14

/* All of these are in start.S. */
extern uint64_t trap_agent;
extern const char read_cr2_insn[], read_cr2_done[], con_put_insn[], con_put_done[];
uint64_t read_cr2(void);
void ring0_halt(void) __attribute__((noreturn));

void trap_set_agent(uint64_t base)
{
	trap_agent = base;
}

static void reg_write(unsigned int reg, uint64_t v)
{
	*(volatile uint64_t *)(trap_agent + reg) = v;
}

void trap(struct trap_frame *f)
{
	uint64_t about;

	if (f->vector == VECTOR_GP && f->rip == (uint64_t)read_cr2_insn) {
		f->rip = (uint64_t)read_cr2_done;
		return;
	}
	if (f->vector == VECTOR_GP && f->rip == (uint64_t)con_put_insn) {
		__asm__ volatile("outb %b0, %w1" : : "a"(f->rax), "d"((uint16_t)f->rdx));
		f->rip = (uint64_t)con_put_done;
		return;
	}
	if (f->vector == VECTOR_GP && f->rip == (uint64_t)guest_halt)
		ring0_halt();
	about = f->vector == VECTOR_PF ? read_cr2() : f->error;
	con_printf("\nmicroguest: exception %u at %x, about %x\n", f->vector, f->rip, about);
	if (trap_agent) {
		reg_write(AGENT_REG_PANIC2, about);
		reg_write(AGENT_REG_PANIC, f->vector << 56 | (f->rip & 0xffffffffffffULL));
	}
	ring0_halt();
}
