/* SPDX-License-Identifier: Apache-2.0 */
/* result_kinds.c: the kinds of pages of Linux guests, by name, and what is saved of each in a document. */
#include "harness/kinds.h"
#include "harness/result.h"

static const struct {
	const char *name, *label;
} kinds[AGENT_PAGE_KINDS] = {
	[AGENT_PAGE_UNKNOWN] = {"unknown", "not told"},
	[AGENT_PAGE_FREE] = {"free", "free memory"},
	[AGENT_PAGE_ANON] = {"anonymous", "programs' own memory"},
	[AGENT_PAGE_CACHE] = {"page-cache", "page cache"},
	[AGENT_PAGE_SLAB] = {"slab", "kernel objects (slab)"},
	[AGENT_PAGE_TABLES] = {"page-tables", "page tables"},
	[AGENT_PAGE_CODE] = {"kernel-code", "kernel code"},
	[AGENT_PAGE_RODATA] = {"kernel-rodata", "kernel constants"},
	[AGENT_PAGE_DATA] = {"kernel-data", "kernel data and bss"},
	[AGENT_PAGE_KERNEL] = {"kernel-other", "other kernel memory"},
	[AGENT_PAGE_BOOT] = {"boot", "taken at boot"},
};

const char *kinds_name(unsigned int kind)
{
	OB_ASSERT(kind < AGENT_PAGE_KINDS);
	return kinds[kind].name;
}

const char *kinds_label(unsigned int kind)
{
	OB_ASSERT(kind < AGENT_PAGE_KINDS);
	return kinds[kind].label;
}

json_t *kinds_json(const struct run_result *r)
{
	json_t *list;

	if (!r->kinds_known || r->status == RUN_FAILED)
		return json_null();
	list = json_array();
	for (unsigned int k = 0; k < AGENT_PAGE_KINDS; k++) {
		const struct ksm_meter_kind *m = &r->kind[k];
		json_t *o;

		if (!m->touched)
			continue;
		o = json_object();
		json_object_set_new(o, "kind", json_string(kinds[k].name));
		json_object_set_new(o, "pages", result_count(m->touched / OB_PAGE_SIZE));
		json_object_set_new(o, "zero", result_count(m->zero));
		json_object_set_new(o, "intra", result_count(m->intra));
		json_object_set_new(o, "inter", result_count(m->inter));
		json_array_append_new(list, o);
	}
	return list;
}
