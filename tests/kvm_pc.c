/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_pc.c: the PC with kernels of a few instructions (tiny.h): how it ends, is reset, starts its
 * vCPUs, and is parked meanwhile. Its devices with real drivers are tested by the lab.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "kernel/pc.h"
#include "kernel/vcpu.h"
#include "tests/bed.h"
#include "tests/tiny.h"

static void pc_make(struct bed *b, const char *begin, const char *end, unsigned int vcpus)
{
	bed_tiny(b, begin, end,
		 (struct vm_config){
			 .id = 3,
			 .mem_bytes = 4 * OB_MIB,
			 .pc = true,
			 .vcpus = vcpus,
			 .cmdline = "",
			 .console_fd = -1,
		 });
}

static uint32_t word(struct bed *b, uint64_t off)
{
	uint32_t v;

	bed_read(b, TINY_WORD + off, &v, sizeof(v));
	return v;
}

/* It runs until it powers off. */
static void runs(struct bed *b)
{
	bed_start(b);
	bed_wait(b);
	cr_assert_eq(b->vm->end, VM_END_EXIT, "%s", b->vm->reason);
}

/* And was reset as often as it asked to be. */
static void runs_and_resets(struct bed *b)
{
	runs(b);
	cr_assert_eq(word(b, 0), TINY_TIMES + 1);
	cr_assert_eq(b->vm->boot.resets, TINY_TIMES);
}

/* It runs until it is ended for what it did. */
static void fails(struct bed *b, const char *reason)
{
	bed_start(b);
	bed_wait(b);
	cr_assert_eq(b->vm->end, VM_END_FAILED);
	cr_assert(strstr(b->vm->reason, reason), "%s", b->vm->reason);
}

Test(pc, powers_off, .timeout = 60)
{
	struct bed b;

	NEED_KVM();
	pc_make(&b, tiny_off, tiny_off_end, 1);
	runs(&b);
	cr_assert_eq(b.vm->exit_code, 0);
	bed_close(&b);
}

Test(pc, a_reset_boots_anew_and_keeps_memory, .timeout = 60)
{
	struct bed b;

	NEED_KVM();
	pc_make(&b, tiny_reboot, tiny_reboot_end, 2);
	runs_and_resets(&b);
	bed_close(&b);
}

struct parking {
	struct bed *b;
	_Atomic bool end;
	unsigned int parks;
};

/* Whoever has parked it sees a guest that runs nothing, also while it is being reset. */
static void *park(void *arg)
{
	const struct timespec rest = {.tv_nsec = 200000};
	struct parking *p = arg;

	while (!p->end) {
		uint32_t before;

		vm_park(p->b->vm);
		before = word(p->b, 0);
		for (int i = 0; i < 20; i++)
			sched_yield();
		cr_assert_eq(word(p->b, 0), before);
		vm_unpark(p->b->vm);
		p->parks++;
		/* Two that never let go at the same time would not let it run at all. */
		nanosleep(&rest, NULL);
	}
	return NULL;
}

Test(pc, is_parked_while_it_resets, .timeout = 120)
{
	for (int round = 0; round < 5; round++) {
		struct parking p = {0};
		pthread_t t[2];
		struct bed b;

		NEED_KVM();
		pc_make(&b, tiny_reboot, tiny_reboot_end, 3);
		p.b = &b;
		bed_start(&b);
		for (int i = 0; i < 2; i++)
			cr_assert(!pthread_create(&t[i], NULL, park, &p));
		while (atomic_load(&b.vm->state) == VM_RUNNING)
			sched_yield();
		p.end = true;
		for (int i = 0; i < 2; i++)
			pthread_join(t[i], NULL);
		vm_stop(b.vm);
		cr_assert_eq(b.vm->end, VM_END_EXIT, "%s", b.vm->reason);
		cr_assert_eq(b.vm->boot.resets, TINY_TIMES);
		bed_close(&b);
	}
}

Test(pc, stops_while_it_resets, .timeout = 60)
{
	for (int round = 0; round < 20; round++) {
		struct bed b;

		NEED_KVM();
		pc_make(&b, tiny_reboot, tiny_reboot_end, 2);
		bed_start(&b);
		for (int i = 0; i < round * 20; i++)
			sched_yield();
		bed_close(&b);
	}
}

/* Several vCPUs ask at the same moment: that is one reset, done by one of them. */
Test(pc, is_reset_once_by_all_its_vcpus, .timeout = 120)
{
	for (unsigned int n = 2; n <= 4; n++) {
		uint32_t others = n - 1;
		struct bed b;

		NEED_KVM();
		pc_make(&b, tiny_race, tiny_race_end, n);
		bed_write(&b, TINY_WORD + 8, &others, sizeof(others));
		runs_and_resets(&b);
		bed_close(&b);
	}
}

/* A vCPU that was in the middle of an instruction does not go on with it after the reset. */
Test(pc, is_reset_in_the_middle_of_an_instruction, .timeout = 60)
{
	struct bed b;

	NEED_KVM();
	pc_make(&b, tiny_string, tiny_string_end, 2);
	runs_and_resets(&b);
	bed_close(&b);
}

Test(pc, starts_its_other_vcpus, .timeout = 60)
{
	for (unsigned int n = 1; n <= 5; n += 2) {
		uint32_t others = n - 1;
		struct bed b;

		NEED_KVM();
		pc_make(&b, tiny_smp, tiny_smp_end, n);
		bed_write(&b, TINY_WORD + 8, &others, sizeof(others));
		runs(&b);
		cr_assert_eq(word(&b, 0), others);
		bed_close(&b);
	}
}

static void faults(const char *begin, const char *end)
{
	struct bed b;

	pc_make(&b, begin, end, 1);
	fails(&b, "triple fault");
	cr_assert_eq(b.vm->pc->unknown_msrs, 1);
	bed_close(&b);
}

Test(pc, an_unknown_register_is_a_fault_and_counted, .timeout = 60)
{
	NEED_KVM();
	faults(tiny_msr, tiny_msr_end);
	faults(tiny_counter, tiny_counter_end);
}

Test(pc, ports_that_there_are_not_read_as_ones, .timeout = 60)
{
	struct bed b;

	NEED_KVM();
	pc_make(&b, tiny_ports, tiny_ports_end, 1);
	runs(&b);
	cr_assert_eq(word(&b, 0), UINT32_MAX);
	cr_assert_eq(word(&b, 4) & 0xff, 0xff);
	cr_assert_eq(word(&b, 8), 0x01200000);
	cr_assert_eq(word(&b, 12) & 0xffff, 1, "SCI_EN");
	cr_assert_eq(word(&b, 12) >> 16 & 0xff, 0, "nothing waits in the i8042");
	cr_assert_eq(b.vm->pio.unclaimed, 3);
	bed_close(&b);
}

static void panics(const char *begin, const char *end)
{
	struct bed b;

	pc_make(&b, begin, end, 2);
	fails(&b, "Kernel panic - not syncing: tiny");
	cr_assert_eq(b.vm->boot.resets, 0);
	bed_close(&b);
}

Test(pc, a_panic_ends_it_with_its_line, .timeout = 60)
{
	NEED_KVM();
	panics(tiny_panic, tiny_panic_end);
	panics(tiny_panic_reset, tiny_panic_reset_end);
}

Test(pc, one_that_hangs_is_stopped, .timeout = 60)
{
	struct bed b;

	NEED_KVM();
	pc_make(&b, tiny_hang, tiny_hang_end, 4);
	bed_start(&b);
	vm_stop(b.vm);
	cr_assert_eq(b.vm->end, VM_END_ASKED);
	bed_close(&b);
}

Test(pc, what_it_cannot_have_is_refused)
{
	struct vm_config cfg = {
		.mem_bytes = 4 * OB_MIB, .pc = true, .cmdline = "", .console_fd = -1};
	struct ob_err e;
	struct bed b;

	NEED_KVM();
	bed_open(&b);
	b.kernel = tiny_elf(tiny_off, tiny_off_end, &cfg.kernel_len);
	cfg.kernel = b.kernel;
	cfg.vcpus = VM_MAX_VCPUS + 1;
	cr_assert_eq(vm_create(&b.vm, &b.kvm, &b.host, &cfg, &e), -EINVAL);
	cr_assert(strstr(e.msg, "vCPUs"), "%s", e.msg);
	cfg.pc = false;
	cfg.vcpus = 2;
	cr_assert_eq(vm_create(&b.vm, &b.kvm, &b.host, &cfg, &e), -EINVAL);
	cr_assert(strstr(e.msg, "vCPUs"), "%s", e.msg);
	cfg.pc = true;
	cfg.vcpus = 1;
	cfg.ndisks = VM_MAX_DISKS + 1;
	cr_assert_eq(vm_create(&b.vm, &b.kvm, &b.host, &cfg, &e), -EINVAL);
	cr_assert(strstr(e.msg, "disks"), "%s", e.msg);
	bed_close(&b);
}
