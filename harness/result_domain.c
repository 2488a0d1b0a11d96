/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result_domain.c: sharing domains and NUMA nodes in the result, for the document and for a person.
 * A guest that shares with no other is a domain of its own, and there may be thousands of them: the
 * document has them all, the table one line for them together.
 */
#include <string.h>

#include "harness/result.h"

json_t *result_domain_config_json(const struct fleet_config *c)
{
	json_t *list = json_array();

	for (unsigned int g = 0; g < c->guests; g++) {
		const char *name = domain_opts_name(&c->domains, g);
		json_t *o = NULL, *it;
		size_t i;

		json_array_foreach (list, i, it)
			if (!strcmp(json_string_value(json_object_get(it, "name")), name))
				o = it;
		if (!o) {
			o = json_pack("{s:s,s:[]}", "name", name, "guests");
			OB_ASSERT(o);
			json_array_append_new(list, o);
		}
		json_array_append_new(json_object_get(o, "guests"), json_integer(g));
	}
	return list;
}

json_t *result_domain_name_json(const struct run_result *r, const struct run_guest *g)
{
	return g->domain < r->ndomains ? json_string(r->domain[g->domain].name) : json_null();
}

static json_t *fig(const struct run_result *r, uint64_t v)
{
	return r->status == RUN_FAILED ? json_null() : result_count(v);
}

static json_t *pool_json(const struct run_result *r, const struct run_pool *p)
{
	json_t *o = json_object();

	json_object_set_new(o, "node", p->node < 0 ? json_null() : json_integer(p->node));
	json_object_set_new(o, "cells", json_integer(p->cells));
	json_object_set_new(o, "guests", json_integer(p->guests));
	json_object_set_new(o, "frames", fig(r, p->frames));
	json_object_set_new(o, "blocks_bytes", fig(r, p->blocks_bytes));
	json_object_set_new(o, "metadata_bytes", fig(r, p->metadata_bytes));
	return o;
}

static json_t *domain_json(const struct run_result *r, unsigned int number)
{
	const struct run_domain *d = &r->domain[number];
	json_t *o = json_object(), *guests = json_array(), *pools = json_array();
	json_t *saved = json_object();
	uint64_t frames = 0;

	for (unsigned int i = 0; r->guest && i < r->guests; i++)
		if (r->guest[i].domain == number)
			json_array_append_new(guests, json_integer(r->guest[i].id));
	for (unsigned int i = 0; i < r->npools; i++)
		if (r->pool[i].domain == number) {
			json_array_append_new(pools, pool_json(r, &r->pool[i]));
			frames += r->pool[i].frames;
		}
	json_object_set_new(saved, "zero", fig(r, d->saved_zero));
	json_object_set_new(saved, "intra", fig(r, d->saved_intra));
	json_object_set_new(saved, "inter", fig(r, d->saved_inter));
	json_object_set_new(o, "name", json_string(d->name));
	json_object_set_new(o, "guests", guests);
	json_object_set_new(o, "saved", saved);
	json_object_set_new(o, "metadata_bytes", fig(r, d->metadata_bytes));
	json_object_set_new(o, "frames", fig(r, frames));
	json_object_set_new(o, "frames_made", fig(r, d->frames_made));
	json_object_set_new(o, "merged_pages", fig(r, d->merged_pages));
	json_object_set_new(o, "pools", pools);
	return o;
}

json_t *result_domains_json(const struct run_result *r)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < r->ndomains; i++)
		json_array_append_new(list, domain_json(r, i));
	return list;
}

json_t *result_numa_json(const struct run_result *r)
{
	if (r->nodes < 2)
		return json_null();
	return json_pack("{s:I,s:I}", "nodes", (json_int_t)r->nodes, "cells_bound",
			 (json_int_t)r->cells_bound);
}

/* --- for a person -------------------------------------------------------------------------- */

static void print_line(FILE *out, const char *name, const struct run_domain *d, uint64_t frames)
{
	char zero[24], intra[24], inter[24], meta[24], pool[24];

	fprintf(out, "  %-16s%7u%11s%11s%11s%11s%11s\n", name, d->guests,
		table_bytes(zero, (int64_t)d->saved_zero),
		table_bytes(intra, (int64_t)d->saved_intra),
		table_bytes(inter, (int64_t)d->saved_inter),
		table_bytes(pool, (int64_t)(frames * OB_PAGE_SIZE)),
		table_bytes(meta, (int64_t)d->metadata_bytes));
}

static uint64_t frames_of(const struct run_result *r, unsigned int domain)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < r->npools; i++)
		if (r->pool[i].domain == domain)
			n += r->pool[i].frames;
	return n;
}

static void print_run(FILE *out, const struct run_result *r)
{
	struct run_domain alone = {.name = ""};
	uint64_t frames = 0;
	char title[32];

	snprintf(title, sizeof(title), "%.15s, by domain", r->sharing);
	fprintf(out, "%-18s%7s%11s%11s%11s%11s%11s\n", title, "guests", "zero", "within", "across",
		"pool", "metadata");
	for (unsigned int i = 0; i < r->ndomains; i++) {
		const struct run_domain *d = &r->domain[i];

		if (strcmp(d->name, DOMAIN_INTRA)) {
			print_line(out, d->name, d, frames_of(r, i));
			continue;
		}
		alone.guests += d->guests;
		alone.saved_zero += d->saved_zero;
		alone.saved_intra += d->saved_intra;
		alone.saved_inter += d->saved_inter;
		alone.metadata_bytes += d->metadata_bytes;
		frames += frames_of(r, i);
	}
	if (alone.guests)
		print_line(out, DOMAIN_INTRA, &alone, frames);
}

void result_domains_print(FILE *out, const struct run_result *runs, unsigned int nruns)
{
	for (unsigned int i = 0; i < nruns; i++) {
		if (runs[i].status == RUN_FAILED || runs[i].ndomains < 2)
			continue;
		print_run(out, &runs[i]);
		fputc('\n', out);
	}
}
