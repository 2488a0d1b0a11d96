/* SPDX-License-Identifier: Apache-2.0 */
/* domain.h: a sharing domain as its cells have it open, for tests of the pool and the index. */
#ifndef OVERBOOK_TESTS_DOMAIN_H
#define OVERBOOK_TESTS_DOMAIN_H

#include "ksm/index.h"

/* Open it with an arena of its own. */
struct ksm_domain *domain_open_as(struct ob_host *h, int pool, int meta, unsigned int cell);
/* And close it, with that. */
void domain_close(struct ksm_domain *d);
/* Is (@hash, @frame) reached by find and find_next? */
bool domain_reaches(struct ksm_domain *d, uint64_t hash, uint32_t frame);

#endif
