/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wset_watch.c: watching pages for a touch, each in the way that its state allows.
 *
 * The hard part is the page that is touched at once. It was taken, and by the time that anybody
 * looks it is back: to all appearance it could never be taken. Counting such pages as refused would
 * lose just those that are used most. So the number that were taken decides; when it is short,
 * those that are not out are tried again one by one, and each answer is about one page.
 *
 * Fault-around. When a page of the pool is read, the kernel maps its neighbours as well where they
 * are in memory: an aligned group of 16. A neighbour's touch would so fill the entry that was
 * emptied. ept_zap sees to it that the neighbours are mapped before, for then they do not fault;
 * and of each group one page only is sampled, since with two the one's fault would fill the other's
 * entry.
 */
#include <errno.h>

#include "ept/wset_int.h"

#define FAULT_AROUND 16

/* Not in the guest, wherever it may be. */
static bool away(const struct ept_wset_page *p)
{
	return p->staged || p->state == EPT_COMPRESSED || p->state == EPT_SWAPPED ||
	       p->state == EPT_REMOTE || p->state == EPT_BALLOONED;
}

static bool huge_now(const struct ept_wset *w, uint64_t page)
{
	uint64_t unit = page - page % EPT_WSET_UNIT;

	return w->opts.unit_is_huge && w->pages - unit >= EPT_WSET_UNIT &&
	       w->opts.unit_is_huge(w->opts.huge_arg, unit);
}

/* Is there a sample in this page's fault-around group, among those watched or in @s[0 .. i)? */
static bool group_taken(const struct ept_wset *w, const struct ept_wset_sample *s, unsigned int i)
{
	uint32_t group = s[i].page / FAULT_AROUND;

	for (unsigned int k = 0; k < i; k++)
		if (s[k].kind == WSET_SHARED && s[k].page / FAULT_AROUND == group)
			return true;
	for (unsigned int k = 0; k < w->kept; k++)
		if (w->sample[k].kind == WSET_SHARED && w->sample[k].page / FAULT_AROUND == group)
			return true;
	return false;
}

/* How the page is going to be watched. */
static enum ept_wset_kind kind_of(const struct ept_wset *w, const struct ept_wset_sample *s,
				  unsigned int i)
{
	struct ept_wset_page p;

	if (w->ops->look(w->arg, s[i].page, &p))
		return WSET_REFUSED;
	if (away(&p))
		return WSET_AWAY;
	switch (p.state) {
	case EPT_UNTOUCHED:
		return WSET_UNTOUCHED;
	case EPT_ZERO:
		return WSET_ZAPPED;
	case EPT_SHARED:
		return group_taken(w, s, i) ? WSET_REFUSED : WSET_SHARED;
	case EPT_PRIVATE:
		/* It has become huge since the period began: taking one page would split it. */
		return huge_now(w, s[i].page) ? WSET_REFUSED : WSET_TAKEN;
	default:
		return WSET_REFUSED;
	}
}

/* Those of @s that are of either kind, as runs of one page. */
static unsigned int runs_of(const struct ept_wset_sample *s, unsigned int n, enum ept_wset_kind a,
			    enum ept_wset_kind b, struct ept_run *runs, unsigned int *from)
{
	unsigned int k = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (s[i].kind != (uint8_t)a && s[i].kind != (uint8_t)b)
			continue;
		from[k] = i;
		runs[k++] = (struct ept_run){.page = s[i].page, .n = 1};
	}
	return k;
}

/* Without these nothing private can be sampled, now or later. */
static void note_error(struct ept_wset *w, int64_t r)
{
	if (r == -EPERM || r == -EOPNOTSUPP)
		w->err = (int)r;
}

static void take(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n)
{
	struct ept_run runs[EPT_WSET_BATCH];
	unsigned int from[EPT_WSET_BATCH], k;
	int64_t r;

	k = runs_of(s, n, WSET_TAKEN, WSET_TAKEN, runs, from);
	if (!k)
		return;
	r = w->ops->take(w->arg, runs, k);
	note_error(w, r);
	if (r == (int64_t)k)
		return;
	for (unsigned int i = 0; i < k; i++) {
		if (r > 0 && w->ops->left(w->arg, runs[i].page, 1) == 1)
			continue;
		if (w->err || w->ops->take(w->arg, &runs[i], 1) != 1)
			s[from[i]].kind = WSET_REFUSED;
	}
}

static void zap(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n)
{
	struct ept_run runs[EPT_WSET_BATCH];
	unsigned int from[EPT_WSET_BATCH], k;
	bool zapped[EPT_WSET_BATCH] = {false};

	k = runs_of(s, n, WSET_ZAPPED, WSET_SHARED, runs, from);
	if (k && w->ops->zap(w->arg, runs, k, zapped) < 0) {
		/* What was emptied before it failed does no harm; it is only not looked at. */
		for (unsigned int i = 0; i < k; i++)
			zapped[i] = false;
	}
	for (unsigned int i = 0; i < k; i++)
		if (!zapped[i])
			s[from[i]].kind = WSET_REFUSED;
}

void ept_wset_watch(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n)
{
	OB_ASSERT(n <= EPT_WSET_BATCH);
	for (unsigned int i = 0; i < n; i++)
		s[i].kind = (uint8_t)kind_of(w, s, i);
	take(w, s, n);
	zap(w, s, n);
}

void ept_wset_watch_units(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		/* Broken up since the period began: its pages are not a sample of units. */
		int64_t r = huge_now(w, s[i].page) ? w->ops->take_unit(w->arg, s[i].page) : 0;

		note_error(w, r);
		s[i].kind = r > 0 ? WSET_UNIT : WSET_REFUSED;
		s[i].taken = r > 0 ? (uint16_t)r : 0;
	}
}

static bool touched(struct ept_wset *w, const struct ept_wset_sample *s)
{
	struct ept_wset_page p;

	if (s->kind == WSET_TAKEN)
		return !w->ops->left(w->arg, s->page, 1);
	if (s->kind == WSET_UNIT)
		return w->ops->left(w->arg, s->page, EPT_WSET_UNIT) < (int64_t)s->taken;
	if (w->ops->look(w->arg, s->page, &p))
		return false;
	switch (s->kind) {
	case WSET_ZAPPED:
	case WSET_SHARED:
		/* Written: it is private. Read: it is there. */
		return p.present || (p.state == EPT_PRIVATE && !p.staged);
	case WSET_UNTOUCHED:
		return p.state != EPT_UNTOUCHED && p.state != EPT_BALLOONED;
	default:
		return !away(&p);
	}
}

void ept_wset_look(struct ept_wset *w, struct ept_wset_sample *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const struct ept_run run = {
			.page = s[i].page,
			.n = s[i].kind == WSET_UNIT ? EPT_WSET_UNIT : 1,
		};

		if (s[i].touched || !touched(w, &s[i]))
			continue;
		s[i].touched = true;
		w->now.part[ept_wset_part_of(&s[i])].t++;
		/* It is back, but its window is closed by whoever asks for it. One by one: for that
		 * alone nobody has to stand still. */
		if (s[i].kind == WSET_TAKEN || s[i].kind == WSET_UNIT)
			w->ops->put_back(w->arg, &run, 1);
	}
}

void ept_wset_release(struct ept_wset *w, const struct ept_wset_sample *s, unsigned int n)
{
	struct ept_run runs[EPT_WSET_BATCH];
	unsigned int k = 0;

	OB_ASSERT(n <= EPT_WSET_BATCH);
	for (unsigned int i = 0; i < n; i++) {
		if (s[i].touched || (s[i].kind != WSET_TAKEN && s[i].kind != WSET_UNIT))
			continue;
		runs[k++] = (struct ept_run){
			.page = s[i].page,
			.n = s[i].kind == WSET_UNIT ? EPT_WSET_UNIT : 1,
		};
	}
	if (k)
		w->ops->put_back(w->arg, runs, k);
}
