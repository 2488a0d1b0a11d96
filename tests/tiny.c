/* SPDX-License-Identifier: Apache-2.0 */
/* tiny.c: see tiny.h. */
#include "tests/tiny.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	".code32\n"

	/* SLP_TYP 5 and SLP_EN into PM1a control. */
	".macro TINY_OFF\n"
	"	mov $0x604, %dx\n"
	"	mov $0x3400, %ax\n"
	"	out %ax, %dx\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	".endm\n"
	".macro TINY_RESET\n"
	"	mov $0xfe, %al\n"
	"	out %al, $0x64\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	".endm\n"
	".macro TINY_SAY text:vararg\n"
	"	call 2f\n"
	"	.asciz \\text\n"
	"2:	pop %esi\n"
	"	mov $0x3f8, %dx\n"
	"3:	lodsb\n"
	"	test %al, %al\n"
	"	jz 4f\n"
	"	out %al, %dx\n"
	"	jmp 3b\n"
	"4:\n"
	".endm\n"

	".globl tiny_off, tiny_off_end\n"
	"tiny_off:\n"
	"	TINY_OFF\n"
	"tiny_off_end:\n"

	".globl tiny_reboot, tiny_reboot_end\n"
	"tiny_reboot:\n"
	"	incl 0x40000\n"
	"	cmpl $5, 0x40000\n"
	"	ja 9f\n"
	"	TINY_RESET\n"
	"9:	TINY_OFF\n"
	"tiny_reboot_end:\n"

	".globl tiny_smp, tiny_smp_end\n"
	"tiny_smp:\n"
	"	mov $0x9000, %esp\n"
	"	call 5f\n"
	"5:	pop %esi\n"
	"	add $(tiny_ap - 5b), %esi\n"
	"	mov $0x30000, %edi\n"
	"	mov $(tiny_ap_end - tiny_ap), %ecx\n"
	"	rep movsb\n"
	"	movl $0x1ff, 0xfee000f0\n" /* the local APIC is on */
	"	movl $0xc4500, 0xfee00300\n" /* INIT, then SIPI to 0x30000, to all others */
	"	movl $0xc4630, 0xfee00300\n"
	"6:	mov 0x40000, %eax\n"
	"	cmp 0x40008, %eax\n"
	"	jb 6b\n"
	"	TINY_OFF\n"
	".code16\n"
	"tiny_ap:\n"
	"	mov $0x4000, %ax\n"
	"	mov %ax, %ds\n"
	"	lock incl 0\n"
	"7:	hlt\n"
	"	jmp 7b\n"
	"tiny_ap_end:\n"
	".code32\n"
	"tiny_smp_end:\n"

	/* At +4 those that are there, at +8 how many there are to be, at +12 "go". */
	".globl tiny_race, tiny_race_end\n"
	"tiny_race:\n"
	"	movl $0, 0x40004\n"
	"	movl $0, 0x4000c\n"
	"	incl 0x40000\n"
	"	cmpl $5, 0x40000\n"
	"	ja 9f\n"
	"	mov $0x9000, %esp\n"
	"	call 5f\n"
	"5:	pop %esi\n"
	"	add $(tiny_racer - 5b), %esi\n"
	"	mov $0x30000, %edi\n"
	"	mov $(tiny_racer_end - tiny_racer), %ecx\n"
	"	rep movsb\n"
	"	movl $0x1ff, 0xfee000f0\n"
	"	movl $0xc4500, 0xfee00300\n"
	"	movl $0xc4630, 0xfee00300\n"
	"6:	mov 0x40004, %eax\n"
	"	cmp 0x40008, %eax\n"
	"	jb 6b\n"
	"	movl $1, 0x4000c\n"
	"	TINY_RESET\n"
	"9:	TINY_OFF\n"
	".code16\n"
	"tiny_racer:\n"
	"	mov $0x4000, %ax\n"
	"	mov %ax, %ds\n"
	"	lock incl 4\n"
	"7:	cmpb $0, 12\n"
	"	je 7b\n"
	"	mov $0xfe, %al\n"
	"8:	out %al, $0x64\n"
	"	jmp 8b\n"
	"tiny_racer_end:\n"
	".code32\n"
	"tiny_race_end:\n"

	/* The other vCPU counts itself at +4, and reads no device many times by one instruction. */
	".globl tiny_string, tiny_string_end\n"
	"tiny_string:\n"
	"	incl 0x40000\n"
	"	cmpl $5, 0x40000\n"
	"	ja 9f\n"
	"	mov $0x9000, %esp\n"
	"	call 5f\n"
	"5:	pop %esi\n"
	"	add $(tiny_reader - 5b), %esi\n"
	"	mov $0x30000, %edi\n"
	"	mov $(tiny_reader_end - tiny_reader), %ecx\n"
	"	rep movsb\n"
	"	movl $0x1ff, 0xfee000f0\n"
	"	movl $0xc4500, 0xfee00300\n"
	"	movl $0xc4630, 0xfee00300\n"
	"6:	mov 0x40004, %eax\n"
	"	cmp 0x40000, %eax\n"
	"	jb 6b\n"
	"	mov $2000, %ecx\n"
	"7:	loop 7b\n"
	"	TINY_RESET\n"
	"9:	TINY_OFF\n"
	".code16\n"
	"tiny_reader:\n"
	"	lgdtl %cs:(tiny_reader_gdt - tiny_reader)\n"
	"	mov %cr0, %eax\n"
	"	or $1, %al\n"
	"	mov %eax, %cr0\n"
	"	ljmpl $8, $(0x30000 + tiny_reader_32 - tiny_reader)\n"
	".code32\n"
	"tiny_reader_32:\n"
	"	mov $16, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	lock incl 0x40004\n"
	"7:	mov $0xd0001000, %esi\n"
	"	mov $0x50000, %edi\n"
	"	mov $0x1000, %ecx\n"
	"	rep movsb\n"
	"	jmp 7b\n"
	/* Its first entry, which is not used, says where it is and how long. */
	"tiny_reader_gdt:\n"
	"	.word 23\n"
	"	.long 0x30000 + tiny_reader_gdt - tiny_reader\n"
	"	.word 0\n"
	"	.quad 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"tiny_reader_end:\n"
	"tiny_string_end:\n"

	".globl tiny_msr, tiny_msr_end\n"
	"tiny_msr:\n"
	"	mov $0x12345678, %ecx\n"
	"	rdmsr\n"
	"	TINY_OFF\n"
	"tiny_msr_end:\n"

	".globl tiny_counter, tiny_counter_end\n"
	"tiny_counter:\n"
	"	mov $0xc0010007, %ecx\n"
	"	mov $0xffff, %eax\n"
	"	xor %edx, %edx\n"
	"	wrmsr\n"
	"	TINY_OFF\n"
	"tiny_counter_end:\n"

	".globl tiny_panic, tiny_panic_end\n"
	"tiny_panic:\n"
	"	mov $0x9000, %esp\n"
	"	TINY_SAY \"[    0.1] Kernel panic - not syncing: tiny\\n[    0.2] Call Trace: <none>\\n"
			"[    0.3] ---[ end Kernel panic - not syncing: tiny ]---\\n\"\n"
	"8:	hlt\n"
	"	jmp 8b\n"
	"tiny_panic_end:\n"

	".globl tiny_panic_reset, tiny_panic_reset_end\n"
	"tiny_panic_reset:\n"
	"	mov $0x9000, %esp\n"
	"	TINY_SAY \"[    0.1] Kernel panic - not syncing: tiny\\n[    0.2] Rebooting..\\n\"\n"
	"	TINY_RESET\n"
	"tiny_panic_reset_end:\n"

	".globl tiny_hang, tiny_hang_end\n"
	"tiny_hang:\n"
	"8:	jmp 8b\n"
	"tiny_hang_end:\n"

	".globl tiny_ports, tiny_ports_end\n"
	"tiny_ports:\n"
	"	mov $0xcf8, %dx\n"
	"	mov $0x80000000, %eax\n"
	"	out %eax, %dx\n"
	"	in %dx, %eax\n"
	"	mov %eax, 0x40000\n"
	"	in $0x71, %al\n"
	"	mov %al, 0x40004\n"
	"	mov $0x600, %dx\n" /* PM1a: no event, enable can be read back */
	"	mov $0x01200000, %eax\n"
	"	out %eax, %dx\n"
	"	in %dx, %eax\n"
	"	mov %eax, 0x40008\n"
	"	mov $0x604, %dx\n"
	"	in %dx, %ax\n"
	"	mov %ax, 0x4000c\n"
	"	in $0x64, %al\n"
	"	mov %al, 0x4000e\n"
	"	TINY_OFF\n"
	"tiny_ports_end:\n"

	".code64\n"
	".popsection\n");
/* clang-format on */

/* One segment and one note. */
struct file {
	Elf64_Ehdr head;
	Elf64_Phdr load, note;
	struct {
		Elf64_Nhdr head;
		char name[4];
		uint32_t entry;
	} pvh;
	char code[];
};

void *tiny_elf(const char *begin, const char *end, size_t *len)
{
	size_t code = (size_t)(end - begin);
	struct file *f = calloc(1, sizeof(*f) + code);

	cr_assert(f);
	f->head = (Elf64_Ehdr){
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = TINY_GPA,
		.e_phoff = offsetof(struct file, load),
		.e_ehsize = sizeof(f->head),
		.e_phentsize = sizeof(f->load),
		.e_phnum = 2,
	};
	memcpy(f->head.e_ident, ELFMAG, SELFMAG);
	f->head.e_ident[EI_CLASS] = ELFCLASS64;
	f->head.e_ident[EI_DATA] = ELFDATA2LSB;
	f->head.e_ident[EI_VERSION] = EV_CURRENT;
	f->load = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offsetof(struct file, code),
		.p_vaddr = TINY_GPA,
		.p_paddr = TINY_GPA,
		.p_filesz = code,
		.p_memsz = code,
		.p_align = 1,
	};
	f->note = (Elf64_Phdr){
		.p_type = PT_NOTE,
		.p_offset = offsetof(struct file, pvh),
		.p_filesz = sizeof(f->pvh),
		.p_memsz = sizeof(f->pvh),
		.p_align = 4,
	};
	f->pvh.head = (Elf64_Nhdr){.n_namesz = 4, .n_descsz = 4, .n_type = 18};
	memcpy(f->pvh.name, "Xen", 4);
	f->pvh.entry = TINY_GPA;
	memcpy(f->code, begin, code);
	*len = sizeof(*f) + code;
	return f;
}
