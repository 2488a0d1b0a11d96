/* SPDX-License-Identifier: Apache-2.0 */
/* tiny_linux.c: a bzImage for tests (tiny_linux.h). Its code is below, position-independent. */
#include "tests/tiny_linux.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const uint8_t tiny_begin[], tiny_end[];

/* clang-format off */
__asm__(
"	.pushsection .rodata\n"
"	.global tiny_begin, tiny_end\n"
"tiny_begin:\n"
"	mov $0x3f0000, %esp\n"
"	mov 0x228(%rsi), %ebx\n"		/* boot_params: the command line */
"	lea 20f(%rip), %rdi\n"
"	call 10f\n"
"	movzbl (%rax), %ecx\n"
"	sub $'0', %ecx\n"
"	push %rcx\n"
"	lea 21f(%rip), %rdi\n"
"	call 10f\n"
"	pop %rcx\n"
"	movzbl (%rax,%rcx), %ebp\n"
"	cmp $'s', %ebp\n"
"	je 5f\n"
"	lea 22f(%rip), %rdi\n"
"	call 15f\n"
"	cmp $'p', %ebp\n"
"	je 2f\n"
"	cmp $'h', %ebp\n"
"	je 5f\n"
"	cmp $'t', %ebp\n"
"	je 6f\n"
"	cmp $'e', %ebp\n"
"	je 7f\n"
"	cmp $'l', %ebp\n"
"	je 8f\n"
"	cmp $'b', %ebp\n"
"	je 9f\n"
"	cmp $'a', %ebp\n"
"	je 3f\n"
"	cmp $'r', %ebp\n"
"	jne 1f\n"
"	cmpb $0x5a, 0x3f8000\n"			/* memory is kept over a reset */
"	je 1f\n"
"	movb $0x5a, 0x3f8000\n"
"	jmp 3f\n"
"1:	mov $0x604, %edx\n"			/* power off: S5 */
"	mov $0x3400, %eax\n"
"	out %ax, %dx\n"
"	jmp 5f\n"
"2:	lea 23f(%rip), %rdi\n"			/* panic */
"	call 15f\n"
"3:	mov $0xfe, %al\n"			/* reset */
"	out %al, $0x64\n"
"5:	cli\n"					/* hang */
"	hlt\n"
"	jmp 5b\n"
"6:	lidt 24f(%rip)\n"
"	ud2\n"
"7:	mov $0x3fd, %edx\n"			/* echo */
"	in %dx, %al\n"
"	test $1, %al\n"
"	je 7b\n"
"	mov $0x3f8, %edx\n"
"	in %dx, %al\n"
"	out %al, %dx\n"
"	cmp $'q', %al\n"
"	jne 7b\n"
"	mov $'\\n', %al\n"
"	out %al, %dx\n"
"	jmp 1b\n"
"8:	lea 25f(%rip), %rdi\n"			/* a prompt */
"	call 15f\n"
"	jmp 5b\n"
"9:	cmpb $0x5b, 0x3f8000\n"		/* the same, reset, and hang before it */
"	je 5b\n"
"	movb $0x5b, 0x3f8000\n"
"	lea 25f(%rip), %rdi\n"
"	call 15f\n"
"	jmp 3b\n"
"10:	mov %rbx, %rax\n"			/* find the word at rdi: rax is behind it */
"11:	cmpb $0, (%rax)\n"
"	je 14f\n"
"	xor %edx, %edx\n"
"12:	movb (%rdi,%rdx), %r8b\n"
"	test %r8b, %r8b\n"
"	je 13f\n"
"	inc %edx\n"
"	cmpb %r8b, -1(%rax,%rdx)\n"
"	je 12b\n"
"	inc %rax\n"
"	jmp 11b\n"
"13:	add %rdx, %rax\n"
"14:	ret\n"
"15:	mov $0x3f8, %edx\n"			/* print the text at rdi */
"16:	movb (%rdi), %al\n"
"	test %al, %al\n"
"	je 17f\n"
"	out %al, %dx\n"
"	inc %rdi\n"
"	jmp 16b\n"
"17:	ret\n"
"20:	.asciz \"overbook.guest=\"\n"
"21:	.asciz \"tiny=\"\n"
"22:	.asciz \"tiny kernel up\\n\"\n"
"23:	.ascii \"first line\\nKernel panic - not syncing: tiny test\\n\"\n"
"	.asciz \"---[ end Kernel panic - not syncing: tiny test ]---\\n\"\n"
"24:	.fill 10, 1, 0\n"
"25:	.asciz \"tiny login: \"\n"
"tiny_end:\n"
"	.popsection\n");
/* clang-format on */

#define SETUP_BYTES 1024 /* the boot sector, and one more */
#define ENTRY_64    0x200
#define VERSION_AT  0x300

void tiny_set(uint8_t *kernel, unsigned int at, uint64_t v, unsigned int bytes)
{
	memcpy(kernel + at, &v, bytes);
}

size_t tiny_kernel(uint8_t buf[TINY_MAX])
{
	size_t code = (size_t)(tiny_end - tiny_begin);
	size_t payload = (ENTRY_64 + code + 15) / 16 * 16;

	cr_assert_leq(SETUP_BYTES + payload, TINY_MAX);
	memset(buf, 0, TINY_MAX);
	tiny_set(buf, 0x1f1, 1, 1);	       /* setup_sects */
	tiny_set(buf, 0x1f4, payload / 16, 4); /* syssize */
	tiny_set(buf, 0x1fe, 0xaa55, 2);
	tiny_set(buf, 0x200, 0x66eb, 2); /* a jump over the header */
	memcpy(buf + 0x202, "HdrS", 4);
	tiny_set(buf, 0x206, 0x20f, 2); /* version of the protocol */
	tiny_set(buf, 0x20e, VERSION_AT - 0x200, 2);
	tiny_set(buf, 0x211, 1, 1);	     /* loaded high */
	tiny_set(buf, 0x22c, 0x7fffffff, 4); /* initrd_addr_max */
	tiny_set(buf, 0x230, 0x200000, 4);   /* alignment */
	tiny_set(buf, 0x234, 1, 1);	     /* relocatable */
	tiny_set(buf, 0x236, 1, 2);	     /* XLF_KERNEL_64 */
	tiny_set(buf, 0x238, 2047, 4);	     /* cmdline_size */
	tiny_set(buf, 0x258, 0x200000, 8);   /* pref_address */
	tiny_set(buf, 0x260, 0x200000, 4);   /* init_size */
	strcpy((char *)buf + VERSION_AT, TINY_VERSION);
	memcpy(buf + SETUP_BYTES + ENTRY_64, tiny_begin, code);
	return SETUP_BYTES + payload;
}

void tiny_file(char *path, size_t n)
{
	uint8_t buf[TINY_MAX];
	size_t len = tiny_kernel(buf);
	int fd;

	snprintf(path, n, "/tmp/overbook-test-tiny-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, buf, len), (ssize_t)len);
	close(fd);
}
