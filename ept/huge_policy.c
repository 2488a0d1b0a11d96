/* SPDX-License-Identifier: Apache-2.0 */
/*
 * huge_policy.c: when a unit is worth breaking, and when it is worth building.
 *
 * Broken it costs the guest: each of its pages needs an entry of its own in the host's tables, in
 * KVM's, and in the processor's cache of them. Whole it costs memory: nothing in it can be merged,
 * dropped or taken. So it is broken when that gives back enough pages at once (the threshold), and
 * built again when it gives nothing back any more, all its pages being private, and the guest makes
 * use of it: most of some samples are touched within a second.
 *
 * What could go to and fro is a unit whose pages come to be alike, are merged, are written, and
 * come to be alike again. Each change is followed by a rest in which the unit stays as it is, and
 * each time that it is built doubles its rest. So the k-th round takes 2^k times as long as the
 * first, and a unit that was never built is broken at once.
 */
#include <string.h>

#include "ept/huge_int.h"

#define MAX_DOUBLINGS 10 /* of the default of 10 s: near three hours */

const char *ept_pages_name(enum ept_pages m)
{
	static const char *const name[] = {
		[EPT_PAGES_4K] = "4k",
		[EPT_PAGES_2M] = "2m",
		[EPT_PAGES_ADAPTIVE] = "adaptive",
	};

	OB_ASSERT(m < EPT_PAGES_NMODES);
	return name[m];
}

enum ept_pages ept_pages_find(const char *name)
{
	enum ept_pages m = EPT_PAGES_4K;

	while (m < EPT_PAGES_NMODES && strcmp(ept_pages_name(m), name))
		m++;
	return m;
}

uint64_t ept_unit_rest_ns(const struct ept_huge_rule *rule, const struct ept_unit *u)
{
	return rule->rest_ns << OB_MIN(u->builds, MAX_DOUBLINGS);
}

bool ept_unit_worth_breaking(const struct ept_huge_rule *rule, const struct ept_unit *u,
			     unsigned int gain, uint64_t now_ns)
{
	if (u->broken || gain < rule->threshold)
		return false;
	return !u->builds || now_ns - u->since_ns >= ept_unit_rest_ns(rule, u);
}

/* --- building --------------------------------------------------------------------------------- */

void ept_builder_init(struct ept_builder *b, struct ept *e, const struct ept_builder_opts *opts,
		      uint64_t seed)
{
	struct ept_builder_opts o = opts ? *opts : (struct ept_builder_opts){0};

	o.look_ns = o.look_ns ? o.look_ns : OB_NS_PER_SEC;
	o.looks = o.looks ? o.looks : 2;
	o.probe_ns = o.probe_ns ? o.probe_ns : OB_NS_PER_SEC;
	o.hot = o.hot ? o.hot : 6;
	o.gap_ns = o.gap_ns ? o.gap_ns : 50 * OB_NS_PER_MS;
	*b = (struct ept_builder){
		.e = e,
		.opts = o,
		.units = (e->pages - 1) / EPT_UNIT_PAGES + 1,
		.seed = seed | 1,
	};
	if (ept_huge_on(e))
		b->look = ob_alloc(e->arena, b->units * sizeof(b->look[0]));
}

static uint64_t rnd(struct ept_builder *b)
{
	b->seed ^= b->seed << 13;
	b->seed ^= b->seed >> 7;
	b->seed ^= b->seed << 17;
	return b->seed;
}

/* How many of the probe's samples are out still; with @put_back they go back. -errno. */
static int64_t left(struct ept_builder *b, const struct ept_probe *p, bool put_back)
{
	int64_t sum = 0;

	for (unsigned int i = 0; i < p->n; i++) {
		int64_t r = ept_samples_left(b->e, p->page[i], 1, put_back);

		if (r < 0)
			return r;
		sum += r;
	}
	return sum;
}

/* Take some pages of the unit out, one from each eighth of it, and see who comes for them. */
static bool probe_begin(struct ept_builder *b, struct ept_probe *p, uint64_t unit, uint64_t now_ns)
{
	const uint64_t part = EPT_UNIT_PAGES / EPT_BUILDER_SAMPLES;

	*p = (struct ept_probe){.unit = unit, .since_ns = now_ns};
	for (unsigned int i = 0; i < EPT_BUILDER_SAMPLES; i++) {
		struct ept_run run = {.page = unit * EPT_UNIT_PAGES + i * part + rnd(b) % part,
				      .n = 1};

		if (ept_take(b->e, &run, 1, true) == 1)
			p->page[p->n++] = (uint32_t)run.page;
	}
	return p->n != 0;
}

/* The probe's time is over: was the unit used? Its window is closed, whatever the answer is. */
static bool probe_end(struct ept_builder *b, struct ept_probe *p)
{
	const struct ept_run all = {.page = p->unit * EPT_UNIT_PAGES, .n = EPT_UNIT_PAGES};
	int64_t untouched = left(b, p, true);
	bool hot = untouched >= 0 &&
		   ((int64_t)p->n - untouched) * EPT_BUILDER_SAMPLES >= (int64_t)b->opts.hot * p->n;

	if (hot)
		hot = ept_put_back(b->e, &all, 1) >= 0;
	ept_huge_count_probe(b->e, hot);
	p->n = 0;
	return hot;
}

static void probes_look(struct ept_builder *b, uint64_t now_ns)
{
	for (unsigned int i = 0; i < EPT_BUILDER_PROBES; i++) {
		struct ept_probe *p = &b->probe[i];
		struct ept_look *l;
		struct ept_unit u;
		uint64_t rest;

		/* One build after the other, with a gap: a probe may run for longer. */
		if (!p->n || now_ns - p->since_ns < b->opts.probe_ns ||
		    (b->built_ns && now_ns - b->built_ns < b->opts.gap_ns))
			continue;
		l = &b->look[p->unit];
		l->probing = false;
		l->looks = 0;
		if (probe_end(b, p) && ept_huge_build(b->e, p->unit) == 0) {
			b->built_ns = now_ns;
			continue;
		}
		/* It is cold, or cannot be built: do not ask again soon. */
		OB_ASSERT(ept_unit_read(b->e, p->unit, &u, &rest));
		l->next_ns = now_ns + OB_MAX(rest, b->opts.look_ns);
	}
}

static struct ept_probe *probe_free(struct ept_builder *b)
{
	for (unsigned int i = 0; i < EPT_BUILDER_PROBES; i++)
		if (!b->probe[i].n)
			return &b->probe[i];
	return NULL;
}

static void unit_look(struct ept_builder *b, uint64_t unit, uint64_t now_ns)
{
	struct ept_look *l = &b->look[unit];
	struct ept_probe *p;
	struct ept_unit u;
	uint64_t rest;

	if (l->probing || now_ns < l->next_ns)
		return;
	if (!ept_unit_read(b->e, unit, &u, &rest) || !u.broken || now_ns - u.since_ns < rest) {
		l->looks = 0;
		return;
	}
	l->next_ns = now_ns + b->opts.look_ns;
	if (!ept_unit_private(b->e, unit, b->opts.slack))
		l->looks = 0;
	else if (l->looks < UINT8_MAX)
		l->looks++;
	p = l->looks >= b->opts.looks ? probe_free(b) : NULL;
	if (!p)
		return;
	l->probing = probe_begin(b, p, unit, now_ns);
	/* Nothing of it can be taken: no userfaultfd that answers for KVM, or a device is at it. */
	if (!l->probing)
		l->next_ns = now_ns + OB_MAX(rest, b->opts.look_ns);
}

uint64_t ept_builder_step(struct ept_builder *b, uint64_t now_ns, unsigned int budget)
{
	bool probing = false;

	if (!b->look)
		return b->opts.look_ns;
	probes_look(b, now_ns);
	for (unsigned int i = 0; i < budget && b->cursor < b->units; i++)
		unit_look(b, b->cursor++, now_ns);
	if (b->cursor < b->units)
		return 0;
	b->cursor = 0;
	for (unsigned int i = 0; i < EPT_BUILDER_PROBES; i++)
		probing |= b->probe[i].n != 0;
	return probing ? OB_MIN(b->opts.look_ns, b->opts.gap_ns) : b->opts.look_ns;
}

void ept_builder_exit(struct ept_builder *b)
{
	for (unsigned int i = 0; i < EPT_BUILDER_PROBES; i++)
		if (b->probe[i].n)
			probe_end(b, &b->probe[i]);
	ob_free(b->e->arena, b->look);
	b->look = NULL;
}
