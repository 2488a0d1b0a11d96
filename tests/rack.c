/* SPDX-License-Identifier: Apache-2.0 */
/* rack.c: see rack.h. */
#include "tests/rack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* --- the guest can be parked ------------------------------------------------------------------- */

void rack_enter(struct rack *r)
{
	pthread_mutex_lock(&r->lock);
	while (r->parked)
		pthread_cond_wait(&r->change, &r->lock);
	r->in++;
	pthread_mutex_unlock(&r->lock);
}

void rack_leave(struct rack *r)
{
	pthread_mutex_lock(&r->lock);
	r->in--;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static void park(void *arg)
{
	struct rack *r = arg;

	pthread_mutex_lock(&r->lock);
	r->parked++;
	while (r->in)
		pthread_cond_wait(&r->change, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static void unpark(void *arg)
{
	struct rack *r = arg;

	pthread_mutex_lock(&r->lock);
	r->parked--;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static void fail(void *arg, const char *why)
{
	(void)why;
	((struct rack *)arg)->lost++;
}

void rack_pattern(uint8_t *buf, uint64_t k)
{
	memset(buf, k ? (int)(0x10 * k) : 0, OB_PAGE_SIZE);
	buf[100] = k ? (uint8_t)(k + 1) : 0;
}

/* Which pattern is it? RACK_PATTERNS: none. */
uint64_t rack_pattern_of(const void *page)
{
	uint8_t buf[OB_PAGE_SIZE];
	uint64_t k;

	for (k = 0; k < RACK_PATTERNS; k++) {
		rack_pattern(buf, k);
		if (!memcmp(buf, page, sizeof(buf)))
			break;
	}
	return k;
}

/* --- tiers ------------------------------------------------------------------------------------ */

static int shelf_load(void *arg, uint32_t slot, void *page)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	cr_assert(s->slot[slot], "slot %u is empty", slot);
	memcpy(page, s->slot[slot], OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void shelf_drop(void *arg, uint32_t slot)
{
	struct shelf *s = arg;

	pthread_mutex_lock(&s->lock);
	cr_assert(s->slot[slot], "slot %u is dropped twice", slot);
	free(s->slot[slot]);
	s->slot[slot] = NULL;
	pthread_mutex_unlock(&s->lock);
}

uint32_t shelf_put(struct shelf *s, const void *page)
{
	uint32_t slot;

	pthread_mutex_lock(&s->lock);
	do
		s->next = (s->next + 1) % RACK_SLOTS;
	while (s->slot[s->next]);
	slot = s->next;
	s->slot[slot] = malloc(OB_PAGE_SIZE);
	memcpy(s->slot[slot], page, OB_PAGE_SIZE);
	pthread_mutex_unlock(&s->lock);
	return slot;
}

static const struct ept_tier_ops shelf_ops = {
	.name = "shelf", .around = 4, .load = shelf_load, .drop = shelf_drop};

void rack_verify(struct rack *r)
{
	struct ept_verify v;

	cr_assert(!ept_verify(&r->e, &v));
	cr_assert_eq(v.differences, 0, "page %d %s%s: %s", (int)v.first[0].page,
		     ept_state_name(v.first[0].state), v.first[0].staged ? " staged" : "",
		     v.first[0].why);
}

/* Staging is there. */
static void use_huge_pages(struct rack *r)
{
	hva_t staging, ram = gmem_page_hva(&r->mem, 0);
	uint64_t size;

	ept_staging(&r->e, &staging, &size);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	/* A kernel without them says EINVAL; then this is a test like the others. */
	madvise(hva_ptr(ram), size, MADV_HUGEPAGE);
	madvise(hva_ptr(staging), size, MADV_HUGEPAGE);
	memset(hva_ptr(ram), 0, size);
}

void rack_make(struct rack *r, bool copy_only, bool huge)
{
	struct ob_err e;
	uint8_t buf[OB_PAGE_SIZE];
	const struct ept_run one = {.page = 0, .n = 1};
	int64_t n;

	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->change, NULL);
	cr_assert(!ob_host_linux_init(&r->host, &e), "%s", e.msg);
	r->arena = ob_arena_new("test");
	cr_assert(!gmem_init(&r->mem, &r->host, RACK_PAGES * OB_PAGE_SIZE, "take"));
	cr_assert(!ept_init(
		&r->e, &r->host, &r->mem,
		(struct ept_parker){.park = park, .unpark = unpark, .fail = fail, .arg = r},
		r->arena));
	r->e.copy_only = copy_only;
	r->pool = r->host.ops->memfd(&r->host, "pool", RACK_FRAMES * OB_PAGE_SIZE);
	cr_assert(r->pool >= 0);
	for (uint64_t f = 0; f < RACK_FRAMES; f++) {
		rack_pattern(buf, f % RACK_PATTERNS);
		cr_assert(!r->host.ops->file_write(&r->host, r->pool, buf, sizeof(buf),
						   f * OB_PAGE_SIZE));
	}
	for (int i = 0; i < 2; i++) {
		pthread_mutex_init(&r->shelf[i].lock, NULL);
		cr_assert(!ept_set_tier(&r->e, i ? EPT_SWAPPED : EPT_COMPRESSED, &shelf_ops,
					&r->shelf[i]));
	}
	n = ept_take(&r->e, &one, 1, false);
	if (n == -EPERM || n == -EOPNOTSUPP)
		cr_skip_test("no userfaultfd that answers for the kernel");
	cr_assert_eq(n, 0);
	if (huge)
		use_huge_pages(r);
}

void rack_unmake(struct rack *r)
{
	const struct ept_run all = {.page = 0, .n = RACK_PAGES};
	struct ept_stats st;

	rack_verify(r);
	cr_assert(ept_load(&r->e, 0, RACK_PAGES) >= 0);
	cr_assert(ept_put_back(&r->e, &all, 1) >= 0);
	ept_read_stats(&r->e, &st);
	cr_assert(!st.staged && !st.windows && !st.state[EPT_COMPRESSED] && !st.state[EPT_SWAPPED]);
	for (int i = 0; i < 2; i++)
		for (unsigned int k = 0; k < RACK_SLOTS; k++)
			cr_assert(!r->shelf[i].slot[k], "slot %u was never dropped", k);
	rack_verify(r);
	ept_exit(&r->e);
	gmem_exit(&r->mem);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
	ob_host_linux_exit(&r->host);
}
