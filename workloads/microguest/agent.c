/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c: the agent device: time, sleep, reports. The registers are 8 bytes wide and reached
 * straight from ring 3. Each access is an exit to the host (some 30 us on a host without hardware),
 * so they are spent on sleeping and on telling which pages were verified, in batches.
 */
#include "workloads/microguest/mg.h"

const char platform_name[] = "microguest";
const bool platform_bare = true;

static uint64_t reg_read(const struct agent_dev *a, unsigned int reg)
{
	return *(volatile uint64_t *)(a->base + reg);
}

void agent_write(const struct agent_dev *a, unsigned int reg, uint64_t v)
{
	barrier(); /* what the report says must be in memory before the host is told */
	*(volatile uint64_t *)(a->base + reg) = v;
	barrier();
}

void agent_init(struct guest *g)
{
	struct agent_dev *a = &g->p->agent;
	uint64_t khz;

	a->base = g->p->agent_at;
	trap_set_agent(a->base);
	if (reg_read(a, AGENT_REG_MAGIC) != AGENT_MAGIC) {
		uint64_t at = a->base;

		a->base = 0;
		trap_set_agent(0);
		guest_fail(g, MG_EXIT_BOOT, "no agent device at %x", at);
	}
	khz = reg_read(a, AGENT_REG_TSC_KHZ);
	if (khz < 1000 || khz > 100000000)
		guest_fail(g, MG_EXIT_BOOT, "a TSC of %u kHz cannot be", khz);
	tsc_init(g, khz);
}

void agent_sleep(struct guest *g, uint64_t ns)
{
	agent_write(&g->p->agent, AGENT_REG_SLEEP, ns);
}

void platform_report(struct guest *g)
{
	agent_write(&g->p->agent, AGENT_REG_REPORT, (uint64_t)g->report);
}

void platform_checked(struct guest *g, const void *at, uint64_t n)
{
	agent_write(&g->p->agent, AGENT_REG_CHECKED, ((uint64_t)at >> 12) << 16 | n);
}

void platform_mismatch(struct guest *g, uint64_t gpa)
{
	agent_write(&g->p->agent, AGENT_REG_MISMATCH, gpa);
}

void platform_end(struct guest *g, uint64_t code)
{
	if (g->p->agent.base)
		agent_write(&g->p->agent, AGENT_REG_EXIT, code);
	guest_halt();
}
