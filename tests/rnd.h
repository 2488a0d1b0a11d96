/* SPDX-License-Identifier: Apache-2.0 */
/* rnd.h: random numbers for tests, the same for the same seed: xorshift64*. The seed is not 0. */
#ifndef OVERBOOK_TESTS_RND_H
#define OVERBOOK_TESTS_RND_H

#include <stdint.h>

static inline uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dULL;
}

#endif
