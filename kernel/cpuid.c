/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid.c: what a PC guest's CPU says it is: the host's CPU as far as KVM can virtualize it, with
 * three changes.
 *
 * Topology. KVM hands out the host's, seen from whichever CPU asked. The guest gets one package with
 * a core a vCPU, no hyper-threads, APIC id = number of the vCPU, in each of the places where
 * kernels look: leaf 1, leaves 4 and 0x8000001d (caches), 0xb and 0x1f, 0x80000008, 0x8000001e.
 *
 * What is hidden. Nested virtualization and performance counters: nobody asked for them, and a
 * guest that has them reads and writes model-specific registers that cost exits. MONITOR/MWAIT. AMX:
 * its state takes a permission of the host's kernel that we do not ask for.
 * Asynchronous page faults: with them KVM's own threads touch guest memory for a vCPU that goes on
 * running, and tells the guest so by writing into its memory at moments that we do not see.
 *
 * What is added: the hypervisor bit, the TSC-deadline timer, if KVM has it (its list leaves that
 * one out: Linux Documentation/virt/kvm/api.rst, 4.46).
 *
 * Sources: Intel SDM volume 2A (CPUID), AMD APM volume 3 appendix E, Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "kernel/cpuid.h"

#include <stdlib.h>
#include <string.h>

#define LEAF_VENDOR	 0x0
#define LEAF_FEATURES	 0x1
#define LEAF_CACHES	 0x4
#define LEAF_POWER	 0x6
#define LEAF_STRUCTURED	 0x7
#define LEAF_PMU	 0xa
#define LEAF_TOPOLOGY	 0xb
#define LEAF_XSTATE	 0xd
#define LEAF_SGX	 0x12
#define LEAF_PT		 0x14
#define LEAF_TILE	 0x1d
#define LEAF_TMUL	 0x1e
#define LEAF_TOPOLOGY2	 0x1f
#define LEAF_KVM	 0x40000001
#define LEAF_EXT	 0x80000001
#define LEAF_SIZES	 0x80000008
#define LEAF_SVM	 0x8000000a
#define LEAF_IBS	 0x8000001b
#define LEAF_AMD_CACHES	 0x8000001d
#define LEAF_AMD_TOPO	 0x8000001e
#define LEAF_AMD_ENCRYPT 0x8000001f
#define LEAF_AMD_PMU	 0x80000022

#define ECX1_MONITOR	  (1u << 3)
#define ECX1_VMX	  (1u << 5)
#define ECX1_PDCM	  (1u << 15)
#define ECX1_TSC_DEADLINE (1u << 24)
#define ECX1_HYPERVISOR	  (1u << 31)
#define EDX1_APIC	  (1u << 9)
#define EDX1_DS		  (1u << 21)
#define EDX1_HTT	  (1u << 28)
#define EAX6_ARAT	  (1u << 2) /* the LAPIC timer runs on in deep sleep */
#define EBX7_SGX	  (1u << 2)
#define EBX7_PT		  (1u << 25)
#define EDX7_AMX	  (1u << 22 | 1u << 24 | 1u << 25) /* BF16, TILE, INT8 */
#define EAX71_AMX	  (1u << 21)			   /* FP16 */
#define EDX71_AMX	  (1u << 8)			   /* COMPLEX */
#define EAXD1_XFD	  (1u << 4)			   /* AMX for those who ask */
#define ECX_SVM		  (1u << 2)
#define ECX_IBS		  (1u << 10)
#define ECX_SKINIT	  (1u << 12)
#define ECX_WDT		  (1u << 13)
#define ECX_PERFCTR	  (1u << 23 | 1u << 24 | 1u << 28)
#define KVM_ASYNC_PF	  (1u << 4 | 1u << 10 | 1u << 14)

#define TOPO_SMT  1u /* level types of leaves 0xb and 0x1f */
#define TOPO_CORE 2u
#define TOPO_ROOM 3 /* entries that a topology leaf takes: two levels and the end */

/* Bits that hold the numbers 0 to @n - 1. */
static uint32_t bits_for(unsigned int n)
{
	uint32_t bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

/* Caches of level 1 and 2 belong to a core, those above to the package. */
static void caches(struct kvm_cpuid_entry2 *e, const struct cpuid_machine *m, bool intel)
{
	uint32_t level = (e->eax >> 5) & 7, share = level > 2 ? m->vcpus - 1 : 0;

	if (!(e->eax & 0x1f))
		return; /* the end of the list */
	e->eax = (e->eax & 0x3fff) | share << 14;
	if (intel)
		e->eax |= OB_MIN(m->vcpus - 1, 0x3fu) << 26;
}

static void features(struct kvm_cpuid_entry2 *e, const struct cpuid_machine *m, unsigned int index)
{
	e->ebx = (e->ebx & 0xffff) | index << 24 | m->vcpus << 16;
	e->ecx &= ~(ECX1_MONITOR | ECX1_VMX | ECX1_PDCM);
	e->ecx |= ECX1_HYPERVISOR;
	if (m->tsc_deadline)
		e->ecx |= ECX1_TSC_DEADLINE;
	e->edx &= ~(EDX1_DS | EDX1_HTT);
	e->edx |= EDX1_APIC;
	if (m->vcpus > 1)
		e->edx |= EDX1_HTT;
}

/* AMD, and Hygon, which is one: by the first four letters of the vendor's name. */
static bool is_amd(const struct kvm_cpuid2 *c)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == LEAF_VENDOR)
			return !memcmp(&c->entries[i].ebx, "Auth", 4) ||
			       !memcmp(&c->entries[i].ebx, "Hygo", 4);
	return false;
}

static void change(struct kvm_cpuid_entry2 *e, const struct cpuid_machine *m, unsigned int index,
		   bool amd)
{
	switch (e->function) {
	case LEAF_FEATURES:
		features(e, m, index);
		break;
	case LEAF_CACHES:
		caches(e, m, true);
		break;
	case LEAF_AMD_CACHES:
		caches(e, m, false);
		break;
	case LEAF_POWER:
		e->eax &= EAX6_ARAT;
		e->ebx = e->ecx = e->edx = 0;
		break;
	case LEAF_STRUCTURED:
		if (e->index == 0) {
			e->ebx &= ~(EBX7_SGX | EBX7_PT);
			e->edx &= ~EDX7_AMX;
		} else if (e->index == 1) {
			e->eax &= ~EAX71_AMX;
			e->edx &= ~EDX71_AMX;
		}
		break;
	case LEAF_XSTATE:
		if (e->index == 1)
			e->eax &= ~EAXD1_XFD;
		break;
	case LEAF_KVM:
		e->eax &= ~KVM_ASYNC_PF;
		break;
	case LEAF_EXT:
		e->ecx &= ~(ECX_SVM | ECX_IBS | ECX_SKINIT | ECX_WDT | ECX_PERFCTR);
		break;
	case LEAF_SIZES:
		if (amd)
			e->ecx = (m->vcpus - 1) | bits_for(m->vcpus) << 12;
		break;
	case LEAF_AMD_TOPO:
		e->eax = index;
		e->ebx = index & 0xff; /* core, one thread in it */
		e->ecx = 0;	       /* one node */
		e->edx = 0;
		break;
	case LEAF_PMU:
	case LEAF_SGX:
	case LEAF_PT:
	case LEAF_TILE:
	case LEAF_TMUL:
	case LEAF_SVM:
	case LEAF_IBS:
	case LEAF_AMD_ENCRYPT:
	case LEAF_AMD_PMU:
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	default:
		break;
	}
}

/* The whole of leaf 0xb or 0x1f, whatever KVM said of it. */
static void topology(struct kvm_cpuid2 *c, uint32_t leaf, const struct cpuid_machine *m,
		     unsigned int index)
{
	const struct kvm_cpuid_entry2 level[TOPO_ROOM] = {
		{.ebx = 1, .ecx = TOPO_SMT << 8},
		{.index = 1, .eax = bits_for(m->vcpus), .ebx = m->vcpus, .ecx = TOPO_CORE << 8 | 1},
		{.index = 2, .ecx = 2},
	};

	for (unsigned int i = 0; i < TOPO_ROOM; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];

		*e = level[i];
		e->function = leaf;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->edx = index;
	}
}

struct kvm_cpuid2 *cpuid_make(const struct kvm_cpuid2 *supported, const struct cpuid_machine *m,
			      unsigned int index)
{
	size_t room = supported->nent + 2 * TOPO_ROOM;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + room * sizeof(c->entries[0]));
	bool have[2] = {false, false}, amd = is_amd(supported);

	OB_ASSERT(c && m->vcpus && m->vcpus < 256 && index < m->vcpus);
	for (uint32_t i = 0; i < supported->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &supported->entries[i];

		if (e->function == LEAF_TOPOLOGY || e->function == LEAF_TOPOLOGY2) {
			have[e->function == LEAF_TOPOLOGY2] = true;
			continue;
		}
		c->entries[c->nent] = *e;
		change(&c->entries[c->nent++], m, index, amd);
	}
	if (have[0])
		topology(c, LEAF_TOPOLOGY, m, index);
	if (have[1])
		topology(c, LEAF_TOPOLOGY2, m, index);
	return c;
}
