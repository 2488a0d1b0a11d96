/* SPDX-License-Identifier: Apache-2.0 */
/* domain.c: a sharing domain as its cells have it open, for tests of the pool and the index. */
#include "tests/domain.h"

#include <criterion/criterion.h>

struct ksm_domain *domain_open_as(struct ob_host *h, int pool, int meta, unsigned int cell)
{
	struct ksm_domain *d = NULL;

	cr_assert_eq(ksm_domain_open(h, pool, meta, cell, ob_arena_new("test"), &d), 0);
	return d;
}

void domain_close(struct ksm_domain *d)
{
	struct ob_arena *a = d->arena;

	ksm_domain_close(d);
	ob_arena_free(a);
}

bool domain_reaches(struct ksm_domain *d, uint64_t hash, uint32_t frame)
{
	struct ksm_ref ref;

	for (enum ksm_kind k = ksm_index_find(d, hash, &ref); k == KSM_FRAME;
	     k = ksm_index_find_next(d, hash, &ref))
		if (ksm_ref_payload(&ref) == frame)
			return true;
	return false;
}
