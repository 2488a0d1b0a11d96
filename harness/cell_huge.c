/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_huge.c: a cell whose guests' memory is of huge pages (--pages 2m, adaptive): how it is set up,
 * who builds what was broken, and what is said of it.
 */
#include <errno.h>
#include <string.h>

#include "harness/cell.h"
#include "harness/proto.h"
#include "harness/result.h"

/* Units looked at in one go; between two the scanner has its turn. */
#define STEP_UNITS 256
/* A unit that was built, or broken, stays so for this long at least. */
#define REST_NS (10 * OB_NS_PER_SEC)
/*
 * Of so many pages that are zero a part of the threshold may be filled to build a unit: to leave it
 * broken saves these few, and to break it for them would not be worth it.
 */
#define SLACK_PART 4
/* With the log of writes on, KVM maps a memory slot in small pages: slots that can be chosen by. */
#define SLOT_BYTES (64 * OB_MIB)

int cell_huge_setup(struct cell *c, const json_t *doc, struct ob_err *e)
{
	unsigned int threshold = (unsigned int)proto_u64(doc, "huge_threshold");
	int r;

	c->pages = ept_pages_find(proto_str(doc, "pages"));
	OB_ASSERT(c->pages < EPT_PAGES_NMODES);
	if (c->pages == EPT_PAGES_4K)
		return 0;
	c->huge_rule = (struct ept_huge_rule){
		.threshold = c->pages == EPT_PAGES_ADAPTIVE ? threshold : EPT_HUGE_NEVER,
		.rest_ns = REST_NS,
	};
	r = ob_host_linux_huge(&c->host);
	return r ? ob_fail(e, -r, "cell %u: huge pages: %s", c->number, strerror(-r)) : 0;
}

void cell_huge_config(const struct cell *c, struct vm_config *cfg)
{
	cfg->huge = c->pages != EPT_PAGES_4K;
	if (c->pages == EPT_PAGES_ADAPTIVE)
		cfg->slot_bytes = SLOT_BYTES;
}

void cell_huge_guest(struct cell *c, struct cell_guest *g)
{
	const struct ept_builder_opts opts = {.slack = c->huge_rule.threshold / SLACK_PART};

	if (c->pages == EPT_PAGES_4K)
		return;
	ept_huge_set_rule(&g->ept, &c->huge_rule);
	if (c->pages == EPT_PAGES_ADAPTIVE)
		ept_builder_init(&g->builder, &g->ept, &opts, g->id + 1);
}

void cell_huge_guest_exit(struct cell_guest *g)
{
	if (g->builder.e)
		ept_builder_exit(&g->builder);
	g->builder.e = NULL;
}

bool cell_huge_steps(const struct cell *c)
{
	return c->pages == EPT_PAGES_ADAPTIVE;
}

uint64_t cell_huge_step(struct cell *c, uint64_t now_ns)
{
	uint64_t rest = OB_NS_PER_SEC, cpu;

	if (now_ns < c->huge_next_ns)
		return c->huge_next_ns - now_ns;
	cpu = c->host.ops->thread_cpu_ns(&c->host);
	for (unsigned int i = 0; i < c->nguests; i++)
		if (c->guest[i].builder.e)
			rest = OB_MIN(rest,
				      ept_builder_step(&c->guest[i].builder, now_ns, STEP_UNITS));
	c->huge_next_ns = now_ns + rest;
	atomic_fetch_add(&c->huge_cpu_ns, c->host.ops->thread_cpu_ns(&c->host) - cpu);
	return rest;
}

json_t *cell_huge_json(struct cell_guest *g)
{
	struct ept_huge_stats st;

	if (!ept_huge_on(&g->ept) || ept_huge_read(&g->ept, &st))
		return json_null();
	return result_huge_json(&st);
}
