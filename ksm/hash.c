/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.c: the hash of a page, and the test for a page of zeroes.
 *
 * The hash is XXH3-64, compiled into the program: one call of the distribution's shared library is
 * two to three times slower, as that is built for the lowest CPU. It is salted by a secret that
 * each domain draws at random, so that a guest of one domain cannot prepare pages whose hashes
 * collide in another, nor learn by timing whether another domain has a page. The secret is handed
 * to XXH3 whole (withSecret): with a seed XXH3 would derive those 192 bytes from it anew for every
 * page, which costs up to an eighth more.
 *
 * A hash only ever proposes. Whatever is merged has been compared in full.
 */
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "ksm/domain.h"

_Static_assert(KSM_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN, "XXH3 wants a longer secret");

uint64_t ksm_hash_baseline(const void *page, const void *secret)
{
	return XXH3_64bits_withSecret(page, OB_PAGE_SIZE, secret, KSM_SECRET_BYTES);
}

ksm_hash_fn ksm_hash_pick(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") ? ksm_hash_page_avx2 : ksm_hash_baseline;
}

uint64_t ksm_hash(const struct ksm_domain *d, const void *page)
{
	uint64_t hash = d->hash_fn(page, d->secret);

	if (__builtin_expect(d->hash_bits == 64, 1))
		return hash;
	/* The index takes its slot from the high bits and its tag from the low ones: spread the few
	 * values that are left over both. The factor is odd, so they stay different. */
	return (hash >> (64 - d->hash_bits)) * 0x9e3779b97f4a7c15ULL;
}

void ksm_domain_hash_bits(struct ksm_domain *d, unsigned int bits)
{
	OB_ASSERT(bits >= 1 && bits <= 64);
	d->hash_bits = bits;
}

/* Two words that are handled at once by any x86-64. */
typedef uint64_t word_pair __attribute__((vector_size(16), aligned(8), may_alias));

/*
 * Most pages that are not zero show it in their first bytes, so these are looked at alone; then 256
 * bytes at a time are ORed together. The page may belong to a running guest: what it holds at the
 * end need not be what was seen, and the caller knows.
 */
bool ksm_page_is_zero(const void *page)
{
	const word_pair *w = page, *end = w + OB_PAGE_SIZE / sizeof(*w);

	if (*(const uint64_t *)page)
		return false;
	for (; w < end; w += 16) {
		word_pair a = w[0] | w[1] | w[2] | w[3], b = w[4] | w[5] | w[6] | w[7];

		a |= w[8] | w[9] | w[10] | w[11];
		b |= w[12] | w[13] | w[14] | w[15];
		a |= b;
		if (a[0] | a[1])
			return false;
	}
	return true;
}
