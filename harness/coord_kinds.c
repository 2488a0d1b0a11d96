/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_kinds.c: what is saved, by what the pages are to the kernels of Linux guests, at the last
 * reading. The agents say what each page is, every few seconds, and the cells keep it behind the meter's
 * words. So it is a little older than what backs the pages, which is read with the guests parked.
 */
#include <stdlib.h>
#include <string.h>

#include "harness/coord.h"

static struct ksm_meter_vm *all_guests(const struct coord *c)
{
	struct ksm_meter_vm *vm = calloc(c->cfg->guests, sizeof(*vm));

	OB_ASSERT(vm);
	for (unsigned int i = 0; i < c->cfg->guests; i++)
		vm[i] = (struct ksm_meter_vm){
			.words = c->meter + c->guest[i].page_base,
			.pages = c->guest[i].pages,
			.kinds = c->kinds + c->guest[i].page_base,
		};
	return vm;
}

int coord_kinds(struct coord *c, struct ob_err *e)
{
	struct run_result *out = c->out;
	struct ksm_meter_vm *vm;
	int r;

	out->kinds_known = false;
	if (!c->kinds)
		return 0;
	vm = all_guests(c);
	r = ksm_meter_kinds(vm, c->cfg->guests, AGENT_PAGE_KINDS, out->kind);
	free(vm);
	if (r)
		return ob_fail(e, -r, "counting what is saved by kind: %s", strerror(-r));
	for (unsigned int k = AGENT_PAGE_UNKNOWN + 1; k < AGENT_PAGE_KINDS; k++)
		out->kinds_known |= out->kind[k].touched != 0;
	return 0;
}
