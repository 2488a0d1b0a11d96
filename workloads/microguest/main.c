/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: the first function in ring 3: find out about the machine, then live as any guest does
 * (workloads/common/life.c).
 */
#include "workloads/microguest/mg.h"

void guest_main(uint64_t start_info)
{
	struct platform platform;
	struct guest guest, *g = &guest;

	memset(g, 0, sizeof(*g));
	memset(&platform, 0, sizeof(platform));
	g->p = &platform;
	con_printf("verbook microguest\n"); /* the entry code has written the O */
	boot_parse(g, start_info);
	if (!g->p->agent_at) {
		con_printf("microguest: no agent= on the command line, nothing to do\n");
		guest_halt();
	}
	agent_init(g);
	guest_run(g);
}
