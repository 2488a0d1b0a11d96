/* SPDX-License-Identifier: Apache-2.0 */
/* pure_cpuid.c: what a PC's vCPUs are shown, out of lists as KVM gives them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/cpuid.h"

#define ROOM 64

static void add(struct kvm_cpuid2 *l, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx,
		uint32_t ecx, uint32_t edx)
{
	l->entries[l->nent++] = (struct kvm_cpuid_entry2){.function = function,
							  .index = index,
							  .eax = eax,
							  .ebx = ebx,
							  .ecx = ecx,
							  .edx = edx};
}

static struct kvm_cpuid2 *host(bool amd)
{
	struct kvm_cpuid2 *l = calloc(1, sizeof(*l) + ROOM * sizeof(l->entries[0]));

	if (amd)
		add(l, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
	else
		add(l, 0, 0, 0x10, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(l, 1, 0, 0xa20f12, 0x07200800, 0x7ed8320b | 1u << 5 | 1u << 15, 0x178bfbff | 1u << 21);
	add(l, 4, 0, 0x1c004121, 0x01c0003f, 0x3f, 0); /* L1 data */
	add(l, 4, 3, 0x1c03c163, 0x03c0003f, 0x7fff, 6);
	add(l, 4, 4, 0, 0, 0, 0);
	add(l, 6, 0, 0x77, 2, 9, 0);
	add(l, 7, 0, 1, 0x218c97a9 | 1u << 2 | 1u << 25, 0x40061c, 0x03400010);
	add(l, 7, 1, 0x00201010, 0, 0, 0x00004110);
	add(l, 0xa, 0, 0x07300404, 0, 0, 0x603);
	add(l, 0xb, 0, 1, 2, 0x100, 7);
	add(l, 0xb, 1, 5, 32, 0x201, 7);
	add(l, 0xd, 0, 0xe7, 0x988, 0x988, 0);
	add(l, 0xd, 1, 0x1f, 0x998, 0x1800, 0);
	add(l, 0xd, 9, 8, 0xa80, 0, 0x10);
	add(l, 0x80000001, 0, 0, 0, 0x75c237ff, 0x2fd3fbff);
	add(l, 0x80000008, 0, 0x3030, 0x111ed205, 0x701f, 0);
	add(l, 0x8000000a, 0, 1, 0x8000, 0, 0x101bbcff);
	add(l, 0x8000001d, 2, 0x43, 0x01c0003f, 0x3ff, 2);
	add(l, 0x8000001d, 3, 0x3c163, 0x03c0003f, 0x7fff, 1);
	add(l, 0x8000001e, 0, 7, 0x103, 0, 0);
	add(l, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(l, 0x40000001, 0, 0x01007efb, 0, 0, 0);
	return l;
}

static const struct kvm_cpuid_entry2 *at(const struct kvm_cpuid2 *c, uint32_t function,
					 uint32_t index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index) {
			cr_assert(!found, "leaf %x.%u is there twice", function, index);
			found = &c->entries[i];
		}
	cr_assert(found, "leaf %x.%u", function, index);
	return found;
}

static struct kvm_cpuid2 *make(bool amd, unsigned int vcpus, unsigned int index)
{
	struct cpuid_machine m = {.vcpus = vcpus, .tsc_deadline = true};
	struct kvm_cpuid2 *l = host(amd);
	struct kvm_cpuid2 *c = cpuid_make(l, &m, index);

	free(l);
	return c;
}

Test(cpuid, each_vcpu_is_a_core_of_one_package)
{
	for (unsigned int vcpus = 1; vcpus <= 5; vcpus++) {
		unsigned int bits = vcpus > 4 ? 3 : vcpus > 2 ? 2 : vcpus > 1;

		for (unsigned int i = 0; i < vcpus; i++) {
			struct kvm_cpuid2 *c = make(true, vcpus, i);

			cr_assert_eq(at(c, 1, 0)->ebx >> 24, i);
			cr_assert_eq(at(c, 1, 0)->ebx >> 16 & 0xff, vcpus);
			cr_assert_eq(at(c, 1, 0)->edx >> 28 & 1, vcpus > 1);
			cr_assert_eq(at(c, 0xb, 0)->ebx, 1, "one thread");
			cr_assert_eq(at(c, 0xb, 0)->eax, 0);
			cr_assert_eq(at(c, 0xb, 1)->ebx, vcpus);
			cr_assert_eq(at(c, 0xb, 1)->eax, bits);
			cr_assert_eq(at(c, 0xb, 2)->ebx, 0);
			for (unsigned int k = 0; k < 3; k++)
				cr_assert_eq(at(c, 0xb, k)->edx, i);
			cr_assert_eq(at(c, 0x80000008, 0)->ecx & 0xff, vcpus - 1);
			cr_assert_eq(at(c, 0x80000008, 0)->ecx >> 12, bits);
			cr_assert_eq(at(c, 0x8000001e, 0)->eax, i);
			cr_assert_eq(at(c, 0x8000001e, 0)->ebx, i);
			cr_assert_eq(at(c, 0x8000001d, 2)->eax >> 14 & 0xfff, 0, "L2 is its own");
			cr_assert_eq(at(c, 0x8000001d, 3)->eax >> 14 & 0xfff, vcpus - 1);
			cr_assert_eq(at(c, 4, 0)->eax >> 14, (vcpus - 1) << 12, "L1 is its own");
			cr_assert_eq(at(c, 4, 3)->eax >> 26, vcpus - 1);
			cr_assert_eq(at(c, 4, 4)->eax, 0, "the end of the list");
			free(c);
		}
	}
}

Test(cpuid, what_is_hidden_and_what_is_added)
{
	struct kvm_cpuid2 *c = make(true, 2, 1);
	uint32_t ecx1 = at(c, 1, 0)->ecx;

	cr_assert(ecx1 & 1u << 31, "hypervisor");
	cr_assert(ecx1 & 1u << 24, "TSC deadline");
	cr_assert(!(ecx1 & (1u << 3 | 1u << 5 | 1u << 15)), "MONITOR, VMX, PDCM");
	cr_assert(!(at(c, 0x80000001, 0)->ecx & (1u << 2 | 1u << 23)), "SVM, counters");
	cr_assert_eq(at(c, 0xa, 0)->eax, 0);
	cr_assert_eq(at(c, 7, 0)->edx, 0x10, "AMX");
	cr_assert_eq(at(c, 7, 1)->eax, 0x1010, "AMX-FP16");
	cr_assert_eq(at(c, 7, 1)->edx, 0x4010, "AMX-COMPLEX");
	cr_assert_eq(at(c, 0xd, 1)->eax, 0xf, "XFD");
	cr_assert_eq(at(c, 0xd, 0)->eax, 0xe7);
	cr_assert_eq(at(c, 0xd, 9)->eax, 8);
	cr_assert_eq(at(c, 0x8000000a, 0)->edx, 0);
	cr_assert_eq(at(c, 6, 0)->eax, 4);
	cr_assert_eq(at(c, 0x40000001, 0)->eax & (1u << 4 | 1u << 10 | 1u << 14), 0,
		     "async faults");
	cr_assert(at(c, 0x40000001, 0)->eax & 1u << 3, "kvmclock");
	cr_assert_eq(at(c, 0x40000000, 0)->ebx, 0x4b4d564b);
	free(c);
}

Test(cpuid, intel_keeps_what_amd_has_of_its_own)
{
	struct kvm_cpuid2 *c = make(false, 4, 0);

	cr_assert_eq(at(c, 0x80000008, 0)->ecx, 0x701f, "reserved on Intel: as it was");
	free(c);
}

Test(cpuid, without_the_deadline_timer_it_is_not_shown)
{
	struct cpuid_machine m = {.vcpus = 1};
	struct kvm_cpuid2 *l = host(true);
	struct kvm_cpuid2 *c;

	l->entries[1].ecx &= ~(1u << 24);
	c = cpuid_make(l, &m, 0);
	cr_assert(!(at(c, 1, 0)->ecx & 1u << 24));
	free(c);
	free(l);
}
