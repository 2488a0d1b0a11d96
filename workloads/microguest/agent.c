/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.c: the agent device: time, sleep, reports. The registers are 8 bytes wide and reached
 * straight from ring 3. Each access is an exit to the host (some 30 us on a host without hardware),
 * so they are spent on sleeping and on telling which pages were verified, in batches.
 */
#include "workloads/microguest/mg.h"

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
	struct agent_dev *a = &g->agent;

	a->base = g->cfg.agent;
	trap_set_agent(a->base);
	if (reg_read(a, AGENT_REG_MAGIC) != AGENT_MAGIC) {
		uint64_t at = a->base;

		a->base = 0;
		trap_set_agent(0);
		guest_fail(g, MG_EXIT_BOOT, "no agent device at %x", at);
	}
	a->tsc_khz = reg_read(a, AGENT_REG_TSC_KHZ);
	if (a->tsc_khz < 1000 || a->tsc_khz > 100000000)
		guest_fail(g, MG_EXIT_BOOT, "a TSC of %u kHz cannot be", a->tsc_khz);
	a->ns_mult = (1000000ULL << 32) / a->tsc_khz;
	a->tsc_start = rdtsc();
}

uint64_t cycles_ns(const struct guest *g, uint64_t cycles)
{
	return (uint64_t)(((unsigned __int128)cycles * g->agent.ns_mult) >> 32);
}

uint64_t clock_ns(const struct guest *g)
{
	return cycles_ns(g, rdtsc() - g->agent.tsc_start);
}

void agent_sleep(struct guest *g, uint64_t ns)
{
	agent_write(&g->agent, AGENT_REG_SLEEP, ns);
}

void agent_checked(struct guest *g, uint64_t addr, uint64_t n)
{
	if (!n)
		return;
	g->report->checked_pages += n;
	agent_write(&g->agent, AGENT_REG_CHECKED, (addr >> 12) << 16 | n);
}

void agent_mismatch(struct guest *g, const void *at, uint64_t expect, uint64_t got,
		    enum agent_kind kind)
{
	struct agent_report *r = g->report;
	uint64_t n = r->mismatches;

	if (n < AGENT_MISMATCHES) {
		r->mismatch[n] = (struct agent_mismatch){(uint64_t)at, expect, got, kind};
		con_printf("microguest: mismatch at %x: %x, not %x (kind %u)\n", (uint64_t)at, got,
			   expect, (uint64_t)kind);
	}
	barrier(); /* the record is whole before the count includes it */
	r->mismatches = n + 1;
	agent_write(&g->agent, AGENT_REG_MISMATCH, (uint64_t)at);
}

void guest_fail(struct guest *g, enum mg_exit code, const char *fmt, ...)
{
	va_list ap;

	con_printf("\nmicroguest: ");
	va_start(ap, fmt);
	con_vprintf(fmt, ap);
	va_end(ap);
	con_printf("\n");
	if (g->agent.base)
		agent_write(&g->agent, AGENT_REG_EXIT, code);
	guest_halt();
}
