/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_avx2.c: the page hash compiled for AVX2, chosen at run time by hash.c.
 *
 * XXH3 gives the same values whatever it is compiled for; with AVX2 a page takes a third of the
 * time of the SSE2 code that every x86-64 runs. The rest of the program stays at the common
 * baseline, so only what comes from xxhash.h in this file is compiled for AVX2: by the pragmas
 * below, which is a file to itself because the header can be instantiated once per file.
 */
#include <assert.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <immintrin.h>

#include "ksm/domain.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define XXH_VECTOR XXH_AVX2
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t ksm_hash_page_avx2(const void *page, const void *secret)
{
	return XXH3_64bits_withSecret(page, OB_PAGE_SIZE, secret, KSM_SECRET_BYTES);
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
