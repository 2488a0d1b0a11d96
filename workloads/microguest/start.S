/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start.S: from the PVH entry (32-bit flat protected mode, paging off, %ebx = start info) to C code
 * in ring 3, and from an exception in ring 3 to trap() in ring 0.
 *
 * On a host whose KVM has no hardware below it, every instruction before the first entry into ring 3
 * is emulated one by one, at less than two million a second; after it ring 3 runs natively, but
 * most privileged instructions fault for good. So all that can be a constant is one: page tables,
 * descriptor tables and the interrupt table are data of the ELF file, and what is left to do is some
 * thirty instructions. The guest then stays in ring 3, with all of memory, devices too, mapped for
 * user mode. That runs the same on hardware KVM.
 *
 * Page tables: the first GiB and the device hole (3 to 4 GiB) are mapped one to one with 2 MiB pages
 * here; ram.c adds the rest from ring 3, which may write the tables as they are user memory too.
 * Accessed and dirty bits are preset: a shadowing KVM then has nothing to write into them.
 */

#define COM1 0x3f8

#define SEL_KCODE 0x08
#define SEL_UDATA 0x1b
#define SEL_UCODE 0x23
#define SEL_TSS	  0x28

#define PTE_TABLE  0x067 /* present, writable, user, accessed, dirty */
#define PTE_LARGE  0x0e7 /* the same, and a 2 MiB page */
#define PTE_DEVICE 0x0ff /* the same, uncached */

#define EFER	     0xc0000080
#define EFER_LME     0x100
#define CR0_PG	     0x80000000
#define CR4_PAE	     0x20
#define RFLAGS_IOPL3 0x3002

#define ISR_BASE    0x100000
#define ISR_SIZE    16
#define VECTOR_DF   8

/* --- the note that makes this a PVH kernel ---------------------------------------------------- */

	.section .note.Xen, "a", @note
	.balign	4
	.long	4		/* size of the name */
	.long	8		/* size of the value; 8 bytes as in 64-bit Linux */
	.long	18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	pvh_entry

/* --- start -------------------------------------------------------------------------------------- */

	.section .text.boot, "ax", @progbits
	.code32
	.globl	pvh_entry
pvh_entry:
	/* The very first act is a visible one: from outside it marks the first guest instruction. */
	movb	$'O', %al
	movw	$COM1, %dx
	outb	%al, %dx

	lgdt	gdt_ptr
	movl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$boot_pml4, %eax
	movl	%eax, %cr3
	movl	$EFER, %ecx
	movl	$EFER_LME, %eax
	xorl	%edx, %edx
	wrmsr
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
	ljmp	$SEL_KCODE, $start64

	.code64
start64:
	/* The one descriptor whose base the assembler cannot split for us. */
	movl	$tss, %eax
	movw	%ax, gdt + SEL_TSS + 2
	shrl	$16, %eax
	movb	%al, gdt + SEL_TSS + 4
	movb	%ah, gdt + SEL_TSS + 7
	lidt	idt_ptr
	movl	$SEL_TSS, %eax
	ltr	%ax
	movl	$SEL_UDATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	$ring0_stack_top, %esp
	movl	%ebx, %edi	/* argument of guest_main, zero-extended */
	xorl	%ebp, %ebp
	pushq	$SEL_UDATA
	pushq	$user_stack_top
	pushq	$RFLAGS_IOPL3
	pushq	$SEL_UCODE
	pushq	$start_ring3
	iretq

start_ring3:
	call	guest_main	/* does not return */
	/* fall through */

/*
 * Stop for good. `hlt` is privileged, so in ring 3 it faults; trap() knows this address and halts
 * in ring 0, with interrupts off.
 */
	.globl	guest_halt
guest_halt:
	hlt
	jmp	guest_halt

/*
 * con_put(c): a byte to the serial port. The privilege level for I/O in rflags allows it from ring 3;
 * a KVM without hardware does not honour that and raises #GP, then trap() does it in ring 0.
 */
	.globl	con_put, con_put_insn, con_put_done
con_put:
	movl	%edi, %eax
	movl	$COM1, %edx
con_put_insn:
	outb	%al, %dx
con_put_done:
	ret

/* Ring 0: the end. */
	.globl	ring0_halt
ring0_halt:
	hlt
	jmp	ring0_halt

/*
 * Ring 0: the address of the last page fault, or 0 where reading %cr2 itself faults (trap() then
 * continues at read_cr2_done).
 */
	.globl	read_cr2, read_cr2_insn, read_cr2_done
read_cr2:
	xorl	%eax, %eax
read_cr2_insn:
	movq	%cr2, %rax
read_cr2_done:
	ret

/* --- exceptions --------------------------------------------------------------------------------- */

	.section .text.isr, "ax", @progbits
	.globl	isr_base
isr_base:
	.set	vec, 0
	.rept	32
	.balign	ISR_SIZE
	/* These push an error code themselves: 8, 10 to 14, 17, 21, 29, 30. */
	.if	!((0x60227d00 >> vec) & 1)
	pushq	$0
	.endif
	pushq	$vec
	jmp	isr_common
	.set	vec, vec + 1
	.endr
	.org	isr_base + 32 * ISR_SIZE	/* an error here: an entry is longer than ISR_SIZE */

isr_common:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rbx
	pushq	%rbp
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, %rdi	/* struct trap_frame */
	movq	%rsp, %rbp
	andq	$-16, %rsp
	cld
	call	trap
	movq	%rbp, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rbp
	popq	%rbx
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp	/* vector and error code */
	iretq

/* --- the machine's tables ----------------------------------------------------------------------- */

	.section .data.tables, "aw", @progbits
	.balign	4096
	.globl	boot_pml4, boot_pdpt
boot_pml4:
	.quad	boot_pdpt + PTE_TABLE
	.fill	511, 8, 0
boot_pdpt:
	.quad	boot_pd_ram + PTE_TABLE
	.quad	0, 0
	.quad	boot_pd_dev + PTE_TABLE
	.fill	508, 8, 0
boot_pd_ram:
	.set	addr, 0
	.rept	512
	.quad	addr + PTE_LARGE
	.set	addr, addr + 0x200000
	.endr
boot_pd_dev:
	.set	addr, 0xc0000000
	.rept	512
	.quad	addr + PTE_DEVICE
	.set	addr, addr + 0x200000
	.endr

	/* The interrupt table: gate i at ISR_BASE + 16 i, ring 0; the double fault on its own stack. */
	.globl	idt
idt:
	.set	vec, 0
	.rept	32
	.word	(ISR_BASE + vec * ISR_SIZE) & 0xffff
	.word	SEL_KCODE
	.if	vec == VECTOR_DF
	.byte	1
	.else
	.byte	0
	.endif
	.byte	0x8e
	.word	ISR_BASE >> 16
	.long	0, 0
	.set	vec, vec + 1
	.endr
idt_end:

	.balign	16
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 0x08 ring 0 code, 64 bit */
	.quad	0x00cf93000000ffff	/* 0x10 ring 0 data */
	.quad	0x00cff3000000ffff	/* 0x18 ring 3 data */
	.quad	0x00affb000000ffff	/* 0x20 ring 3 code, 64 bit */
	.quad	0x0000890000000067	/* 0x28 TSS, base filled in at the start */
	.quad	0
gdt_end:

	.balign	16
tss:
	.long	0
	.quad	ring0_stack_top		/* rsp0 */
	.quad	0, 0
	.quad	0
	.quad	df_stack_top		/* ist1 */
	.fill	6, 8, 0
	.quad	0
	.word	0
	.word	0x68			/* no I/O map: the privilege level in rflags decides */

	.balign	8
	/* Eight bytes of base, for 64-bit mode; 32-bit mode reads the first four. */
gdt_ptr:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.balign	8
idt_ptr:
	.word	idt_end - idt - 1
	.quad	idt

	.section .bss, "aw", @nobits
	.balign	4096
	.skip	8192
ring0_stack_top:
	.skip	4096
df_stack_top:
	.skip	32768
user_stack_top:
	/* Where trap() reports, 0: nowhere. Beside the tables as exceptions bring no argument. */
	.globl	trap_agent
trap_agent:
	.skip	8

	.section .note.GNU-stack, "", @progbits
