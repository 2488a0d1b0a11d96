/* SPDX-License-Identifier: Apache-2.0 */
/* track_rig.c: the rig of track_rig.h, and its model of KVM's log. */
#include "tests/track_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static int model_set(void *arg, unsigned int slot, bool on)
{
	struct log_model *m = arg;
	const struct gmem_slot *s = &m->mem->slot[slot];

	if (m->fail_set && !--m->fail_set)
		return -EIO;
	m->sets++;
	for (uint64_t p = s->first_page; p < s->first_page + s->pages; p++) {
		pthread_mutex_lock(&m->page_lock[p]);
		m->noted[p] = on && m->starts_full;
		if (p == s->first_page)
			m->on[slot] = on;
		pthread_mutex_unlock(&m->page_lock[p]);
	}
	return 0;
}

static int model_collect(void *arg, unsigned int slot, uint64_t *bitmap)
{
	struct log_model *m = arg;
	const struct gmem_slot *s = &m->mem->slot[slot];
	bool fail = m->fail_collect && !--m->fail_collect;

	cr_assert(m->on[slot], "collected while it is off");
	m->collects++;
	memset(bitmap, 0xa5, (s->pages + 63) / 64 * sizeof(bitmap[0]));
	for (uint64_t i = 0; i < s->pages; i++) {
		uint64_t p = s->first_page + i;

		pthread_mutex_lock(&m->page_lock[p]);
		bitmap[i / 64] &= ~(1ULL << i % 64);
		bitmap[i / 64] |= (uint64_t)m->noted[p] << i % 64;
		m->noted[p] = false;
		pthread_mutex_unlock(&m->page_lock[p]);
	}
	/* What comes behind the last page is nobody's. */
	return fail ? -EIO : 0;
}

void log_model_write(struct log_model *m, uint64_t page, _Atomic uint64_t *counter)
{
	pthread_mutex_lock(&m->page_lock[page]);
	m->noted[page] = true; /* of a slot that is off: forgotten when it is switched on */
	if (counter)
		atomic_fetch_add(counter, 1);
	pthread_mutex_unlock(&m->page_lock[page]);
}

static void nothing(void *arg)
{
	(void)arg;
}

void track_rig_make(struct track_rig *r, bool starts_full)
{
	track_rig_make_on(r, fake_host_new(), starts_full);
}

void track_rig_make_on(struct track_rig *r, struct ob_host *h, bool starts_full)
{
	memset(r, 0, sizeof(*r));
	r->h = h;
	r->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&r->mem, r->h, TRACK_PAGES * OB_PAGE_SIZE, "test"));
	cr_assert(!gmem_divide(&r->mem, GMEM_SLOT_ALIGN));
	cr_assert_eq(r->mem.nslots, TRACK_SLOTS);
	cr_assert(!ept_init(&r->e, r->h, &r->mem,
			    (struct ept_parker){.park = nothing, .unpark = nothing}, r->arena));
	r->log.mem = &r->mem;
	r->log.starts_full = starts_full;
	for (uint64_t p = 0; p < TRACK_PAGES; p++)
		pthread_mutex_init(&r->log.page_lock[p], NULL);
	ept_track_init(
		&r->t,
		(struct ept_log_ops){.set = model_set, .collect = model_collect, .arg = &r->log},
		&r->mem, r->arena);
	ept_track_attach(&r->e, &r->t);
}

void track_rig_unmake_on(struct track_rig *r)
{
	ept_track_attach(&r->e, NULL);
	ept_track_exit(&r->t);
	for (unsigned int s = 0; s < TRACK_SLOTS; s++)
		cr_assert(!r->log.on[s], "slot %u was left on", s);
	ept_exit(&r->e);
	gmem_exit(&r->mem);
	for (uint64_t p = 0; p < TRACK_PAGES; p++)
		pthread_mutex_destroy(&r->log.page_lock[p]);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
}

void track_rig_unmake(struct track_rig *r)
{
	track_rig_unmake_on(r);
	fake_host_free(r->h);
}
