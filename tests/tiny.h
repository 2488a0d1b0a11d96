/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiny.h: kernels of a few instructions for tests of the PC: an ELF file with a PVH entry round
 * 32-bit code (tiny_asm.c has the code). They need no memory but their page and what they say.
 */
#ifndef OVERBOOK_TESTS_TINY_H
#define OVERBOOK_TESTS_TINY_H

#include <stddef.h>

#define TINY_GPA   0x100000 /* where the code is loaded */
#define TINY_WORD  0x40000  /* a word of memory that nobody loads anything to */
#define TINY_TIMES 5	    /* tiny_reboot reboots so often */

/* Powers off through PM1a. */
extern const char tiny_off[], tiny_off_end[];
/* Counts itself in TINY_WORD and resets, TINY_TIMES times, by the i8042; then powers off. */
extern const char tiny_reboot[], tiny_reboot_end[];
/* Starts all other vCPUs, each of which counts itself in TINY_WORD and halts; waits until there are
 * as many as the word at TINY_WORD + 8 says; powers off. */
extern const char tiny_smp[], tiny_smp_end[];
/* As tiny_reboot, but all vCPUs reset at once: one more than the word at TINY_WORD + 8 says. */
extern const char tiny_race[], tiny_race_end[];
/* As tiny_reboot, with a second vCPU that is in the middle of an instruction with many accesses. */
extern const char tiny_string[], tiny_string_end[];
/* Reads a register that there is not; its #GP finds no handler. */
extern const char tiny_msr[], tiny_msr_end[];
/* Writes to a performance counter that CPUID does not speak of. */
extern const char tiny_counter[], tiny_counter_end[];
/* Says "Kernel panic - not syncing: tiny" and its end on the serial port, then halts. */
extern const char tiny_panic[], tiny_panic_end[];
/* The same without the end, then resets. */
extern const char tiny_panic_reset[], tiny_panic_reset_end[];
/* Says nothing and loops. */
extern const char tiny_hang[], tiny_hang_end[];
/* Reads and writes ports that there are not, powers off. */
extern const char tiny_ports[], tiny_ports_end[];

/* An ELF file that boots to it; free it. */
void *tiny_elf(const char *begin, const char *end, size_t *len);

#endif
