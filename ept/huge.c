/* SPDX-License-Identifier: Apache-2.0 */
/*
 * huge.c: units of 2 MiB: which are huge, and taking one apart.
 *
 * A huge page that is mapped in pieces is still one piece of memory: to give a part of it back
 * frees nothing until all of it goes. So a unit is broken, its huge page really split
 * (host_huge.c), before a part of it is given back, and ept_huge_part is called wherever that
 * happens. Breaking first forbids the kernel to build a new huge page there: its own thread for
 * this (khugepaged) would fill what was dropped. The order matters; the other way round it could do
 * so in between.
 */
#include <errno.h>

#include "ept/huge_int.h"

bool ept_unit_whole(const struct ept *e, uint64_t unit)
{
	return unit < e->huge->units && e->pages - unit * EPT_UNIT_PAGES >= EPT_UNIT_PAGES &&
	       gmem_page_span(e->mem, unit * EPT_UNIT_PAGES) >= EPT_UNIT_PAGES;
}

void ept_huge_init(struct ept *e)
{
	struct ept_huge *u;

	for (unsigned int i = 0; i < e->mem->nregions; i++) {
		if (e->mem->region[i].page_size != OB_HUGE_SIZE)
			return;
		/* A unit has the same place in page numbers as it has in memory. */
		OB_ASSERT(e->mem->region[i].first_page % EPT_UNIT_PAGES == 0);
	}
	u = ob_alloc(e->arena, sizeof(*u));
	u->rule.threshold = EPT_HUGE_NEVER;
	u->units = ept_unit_of(e->pages - 1) + 1;
	u->unit = ob_alloc(e->arena, u->units * sizeof(u->unit[0]));
	e->huge = u;
	for (uint64_t i = 0; i < u->units; i++)
		u->st.units += ept_unit_whole(e, i);
}

void ept_huge_exit(struct ept *e)
{
	if (!e->huge)
		return;
	ob_free(e->arena, e->huge->unit);
	ob_free(e->arena, e->huge);
	e->huge = NULL;
}

bool ept_huge_on(const struct ept *e)
{
	return e->huge != NULL;
}

void ept_huge_set_rule(struct ept *e, const struct ept_huge_rule *rule)
{
	if (!e->huge)
		return;
	ob_lock(&e->lock);
	e->huge->rule = *rule;
	ob_unlock(&e->lock);
}

/* Is it to be taken for huge, if the kernel has it so? Lock held. One that is being built is: who
 * wants a part of it breaks it. */
static bool unbroken(const struct ept *e, uint64_t unit)
{
	return e->huge && ept_unit_whole(e, unit) &&
	       (!e->huge->unit[unit].broken || e->huge->unit[unit].building);
}

bool ept_huge_now(struct ept *e, uint64_t page)
{
	uint64_t first = page - page % EPT_UNIT_PAGES;
	uint8_t huge = 0;

	if (!unbroken(e, ept_unit_of(page)))
		return false;
	/* When the kernel does not say, it is what it should be. */
	return e->host->ops->huge_units(e->host, gmem_page_hva(e->mem, first), 1, &huge) || huge;
}

bool ept_unit_is_huge(struct ept *e, uint64_t page)
{
	bool r;

	if (page >= e->pages)
		return false;
	ob_lock(&e->lock);
	r = ept_huge_now(e, page);
	ob_unlock(&e->lock);
	return r;
}

bool ept_huge_worth(struct ept *e, uint64_t unit, unsigned int gain)
{
	bool r = false;

	if (!e->huge)
		return false;
	ob_lock(&e->lock);
	if (unbroken(e, unit))
		r = ept_unit_worth_breaking(&e->huge->rule, &e->huge->unit[unit], gain,
					    e->host->ops->now_ns(e->host));
	ob_unlock(&e->lock);
	return r;
}

bool ept_unit_read(struct ept *e, uint64_t unit, struct ept_unit *out, uint64_t *rest_ns)
{
	bool r = false;

	ob_lock(&e->lock);
	if (e->huge && ept_unit_whole(e, unit)) {
		*out = e->huge->unit[unit];
		*rest_ns = ept_unit_rest_ns(&e->huge->rule, out);
		r = true;
	}
	ob_unlock(&e->lock);
	return r;
}

bool ept_unit_private(struct ept *e, uint64_t unit, unsigned int slack)
{
	uint64_t first = unit * EPT_UNIT_PAGES;
	unsigned int zero = 0;
	bool r = true;

	if (ept_sync(e, first, EPT_UNIT_PAGES, NULL))
		return false;
	ob_lock(&e->lock);
	for (uint64_t p = first; p < first + EPT_UNIT_PAGES && r; p++) {
		enum ept_state s = ept_entry_state(e->map[p]);

		zero += s == EPT_ZERO;
		r = s == EPT_ZERO || (s == EPT_PRIVATE && !ept_entry_staged(e->map[p]));
	}
	ob_unlock(&e->lock);
	return r && zero <= slack;
}

void ept_huge_count_probe(struct ept *e, bool hot)
{
	ob_lock(&e->lock);
	e->huge->st.probes++;
	e->huge->st.cold += !hot;
	ob_unlock(&e->lock);
}

void ept_unit_set_broken(struct ept *e, uint64_t unit, bool broken)
{
	struct ept_unit *u = &e->huge->unit[unit];

	e->huge->st.broken += broken;
	e->huge->st.broken -= u->broken;
	u->broken = broken;
	u->building = false;
	u->since_ns = e->host->ops->now_ns(e->host);
	if (broken) {
		e->huge->st.breaks++;
	} else {
		e->huge->st.builds++;
		u->builds = (uint8_t)OB_MIN(u->builds + 1, UINT8_MAX);
	}
}

/* Lock held. The memory that the unit holds in place, and what the kernel makes of its pages. */
static int64_t look(struct ept *e, uint64_t unit)
{
	struct ob_page view[EPT_UNIT_PAGES];
	int64_t held = 0;
	int r = ept_look(e, unit * EPT_UNIT_PAGES, EPT_UNIT_PAGES, view);

	for (unsigned int i = 0; i < EPT_UNIT_PAGES && !r; i++)
		held += ob_page_own(&view[i]) && view[i].present ? (int64_t)OB_PAGE_SIZE : 0;
	return r ? r : held;
}

/* Lock held. @apart: split the page, as only a part of it is to go. Bytes or -errno. */
static int64_t break_unit(struct ept *e, uint64_t unit, bool apart)
{
	hva_t at = gmem_page_hva(e->mem, unit * EPT_UNIT_PAGES);
	const struct ob_host_ops *ops = e->host->ops;
	int64_t before, after, freed = 0;
	int r = ops->huge(e->host, at, OB_HUGE_SIZE, false);

	if (!r && apart) {
		before = look(e, unit);
		r = before < 0 ? (int)before : ops->split(e->host, at);
		/* A unit that was taken as a whole is huge where it is now. */
		if (!r && e->stage) {
			r = ops->split(e->host, ept_stage_hva(e, unit * EPT_UNIT_PAGES));
			e->huge->unit[unit].pieces = true;
		}
		after = r ? 0 : look(e, unit);
		/* The guest may have touched more of it meanwhile. */
		if (!r && after >= 0 && before > after)
			freed = before - after;
	}
	if (r) {
		ops->huge(e->host, at, OB_HUGE_SIZE, true);
		e->huge->st.refused++;
		return r;
	}
	ept_unit_set_broken(e, unit, true);
	e->huge->st.freed_bytes += (uint64_t)freed;
	e->st.freed_bytes += (uint64_t)freed;
	return freed;
}

void ept_huge_to_stage(struct ept *e, uint64_t page, bool whole)
{
	uint64_t unit = ept_unit_of(page);
	struct ept_unit *u;

	if (!e->huge || !ept_unit_whole(e, unit))
		return;
	u = &e->huge->unit[unit];
	u->pieces |= !whole;
	/* Its place is empty when all of the unit is where the guest has it. */
	if (whole && u->pieces && ept_huge_now(e, page))
		u->pieces = ept_stage_renew(e, unit * EPT_UNIT_PAGES, EPT_UNIT_PAGES) != 0;
}

int ept_huge_part(struct ept *e, uint64_t page, uint64_t n, bool apart)
{
	for (uint64_t end = page + n, unit; e->huge && page < end;
	     page = (unit + 1) * EPT_UNIT_PAGES) {
		bool all;
		int64_t r;

		unit = ept_unit_of(page);
		if (!unbroken(e, unit))
			continue;
		all = page == unit * EPT_UNIT_PAGES && end - page >= EPT_UNIT_PAGES;
		r = break_unit(e, unit, apart || !all);
		if (r < 0)
			return (int)r;
	}
	return 0;
}

int64_t ept_huge_break(struct ept *e, uint64_t unit)
{
	int64_t r = 0;

	if (!e->huge || !ept_unit_whole(e, unit))
		return -ERANGE;
	ob_lock(&e->lock);
	if (unbroken(e, unit))
		r = break_unit(e, unit, true);
	ob_unlock(&e->lock);
	return r;
}

/* --- what there is ---------------------------------------------------------------------------- */

/* How many of the @n units from @at on are huge. */
static int count_huge(struct ept *e, hva_t at, uint64_t n, uint64_t *sum)
{
	uint8_t huge[EPT_CHUNK];

	for (uint64_t done = 0, most; done < n; done += most) {
		int r;

		most = OB_MIN(n - done, (uint64_t)EPT_CHUNK);
		r = e->host->ops->huge_units(e->host, hva(at.v + done * OB_HUGE_SIZE), most, huge);
		if (r)
			return r;
		for (uint64_t i = 0; i < most; i++)
			*sum += huge[i];
	}
	return 0;
}

int ept_huge_read(struct ept *e, struct ept_huge_stats *out)
{
	const struct gmem *m = e->mem;
	uint64_t sum = 0, size;
	hva_t staging;
	int r = 0;

	*out = (struct ept_huge_stats){0};
	if (!e->huge)
		return 0;
	ob_lock(&e->lock);
	*out = e->huge->st;
	ob_unlock(&e->lock);
	for (unsigned int i = 0; i < m->nregions && !r; i++)
		r = count_huge(e, m->region[i].hva, m->region[i].size / OB_HUGE_SIZE, &sum);
	ept_staging(e, &staging, &size);
	if (!r && size)
		r = count_huge(e, staging, size / OB_HUGE_SIZE, &sum);
	out->huge = sum;
	return r;
}

void ept_huge_check(const struct ept *e)
{
	uint64_t broken = 0;

	for (uint64_t i = 0; e->huge && i < e->huge->units; i++)
		broken += e->huge->unit[i].broken;
	OB_ASSERT(!e->huge || broken == e->huge->st.broken);
	for (uint64_t p = 0; e->huge && p < e->pages; p++) {
		uint32_t entry = e->map[p];

		if (!unbroken(e, ept_unit_of(p)))
			continue;
		/* Nothing of an unbroken unit was replaced, or given back. */
		OB_ASSERT(ept_entry_state(entry) != EPT_BALLOONED);
		OB_ASSERT(ept_entry_tiered(entry) || !(entry & EPT_OVER_POOL));
	}
}
