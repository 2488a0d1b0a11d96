/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen.h: contents and choices that can be worked out again: page contents from (key, page,
 * version), random numbers from a seed, ranks by Zipf's law. The guests use it to fill and to
 * verify their memory without keeping a copy of it; tests on the host use the same source as their
 * measure.
 *
 * Everything is integer arithmetic without a 128-bit division, so it needs <stdint.h> only, no
 * library and no floating point registers.
 */
#ifndef OVERBOOK_WORKLOADS_GEN_H
#define OVERBOOK_WORKLOADS_GEN_H

#include <stdint.h>

#define GEN_PAGE_WORDS 512
#define GEN_STEP       0x9e3779b97f4a7c15ULL

/* A bijection of 64 bits that spreads any change over all of them (the finalizer of splitmix64). */
static inline uint64_t gen_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* An independent key for one purpose (@tag) of a seed. */
static inline uint64_t gen_key(uint64_t seed, uint64_t tag)
{
	return gen_mix(gen_mix(seed + GEN_STEP) ^ (tag * 0xd6e8feb86659fd93ULL));
}

struct gen_rng {
	uint64_t s;
};

static inline uint64_t gen_next(struct gen_rng *r)
{
	r->s += GEN_STEP;
	return gen_mix(r->s);
}

/* Uniform in [0, n); 0 when n is 0. By multiplication, so without a division. */
static inline uint64_t gen_below(struct gen_rng *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)gen_next(r) * n) >> 64);
}

/*
 * Page contents. Memory of programs is not random: many words are zero, small numbers or pointers
 * with common upper bits, so that it compresses two- to fourfold. So each word is a random one with
 * a mask that repeats every eight words. Any two (key, page, version) differ in most of their
 * words, which makes a page that was lost, mixed up or left at an old version show at once.
 */
static inline uint64_t gen_start(uint64_t key, uint64_t page, uint64_t version)
{
	return gen_mix(key ^ gen_mix(page * GEN_STEP + version));
}

static inline uint64_t gen_raw(uint64_t start, unsigned int i)
{
	uint64_t x = start + i * GEN_STEP;

	x = (x ^ (x >> 32)) * 0x9fb21c651e98df25ULL;
	return x ^ (x >> 29);
}

static inline uint64_t gen_word(uint64_t start, unsigned int i)
{
	switch (i & 7) {
	case 0:
		return gen_raw(start, i);
	case 1:
		return gen_raw(start, i) & 0xffff;
	case 2:
		return 0x00007f0000000000ULL | (gen_raw(start, i) & 0xfffff8);
	case 3:
		return 0;
	case 4:
		return gen_raw(start, i) & 0xffffffff;
	case 5:
		return 1;
	case 6:
		return gen_raw(start, i) & 0xff;
	default:
		return 0;
	}
}

static inline void gen_fill(uint64_t *w, uint64_t key, uint64_t page, uint64_t version)
{
	uint64_t start = gen_start(key, page, version);

	for (unsigned int i = 0; i < GEN_PAGE_WORDS; i += 8)
		for (unsigned int k = 0; k < 8; k++)
			w[i + k] = gen_word(start, i + k);
}

/*
 * The first word of @w that is not what gen_fill would have written, with its value in @got (the
 * very value that was compared, not a second read), or GEN_PAGE_WORDS.
 */
static inline unsigned int gen_check(const uint64_t *w, uint64_t key, uint64_t page,
				     uint64_t version, uint64_t *got)
{
	uint64_t start = gen_start(key, page, version);

	for (unsigned int i = 0; i < GEN_PAGE_WORDS; i += 8) {
		for (unsigned int k = 0; k < 8; k++) {
			uint64_t v = w[i + k];

			if (v != gen_word(start, i + k)) {
				*got = v;
				return i + k;
			}
		}
	}
	return GEN_PAGE_WORDS;
}

/*
 * Zipf's law with exponent 1: rank r of n is drawn with probability about 1/(r + 1). The
 * distribution function is then close to log(r + 1) / log(n + 1), whose inverse is a power:
 * r = 2^(u log2(n + 1)) - 1 for u uniform in [0, 1). Worked out in 32.32 fixed point: exactly
 *	P(r) = log2((r + 2) / (r + 1)) / log2(n + 1)
 * but for the polynomial that stands for 2^f: its value is off by less than 0.4 %, its slope, and
 * so the probability of a rank, by less than 6 %.
 */
struct gen_zipf {
	uint64_t n;
	uint64_t log2; /* of n + 1, 32.32 */
};

/* log2(v) in 32.32 fixed point, v at least 1. Squares the mantissa:
 * each doubling is one more bit. */
static inline uint64_t gen_log2(uint64_t v)
{
	unsigned int k = 63 - (unsigned int)__builtin_clzll(v);
	uint64_t m = v << (63 - k); /* 1.63, in [1, 2) */
	uint64_t frac = 0;

	for (int bit = 31; bit >= 0; bit--) {
		m = (uint64_t)(((unsigned __int128)m * m) >> 64); /* 2.62 */
		if (m >> 63) {
			frac |= 1ULL << bit;
		} else {
			m <<= 1;
		}
	}
	return ((uint64_t)k << 32) | frac;
}

/* floor(2^x) for x in 32.32 fixed point below 63. */
static inline uint64_t gen_exp2(uint64_t x)
{
	unsigned int k = (unsigned int)(x >> 32);
	uint64_t f = x & 0xffffffff;
	/* 2^f is about 1 + f (0.65651 + 0.34349 f), exact at both ends; all of it 32.32. */
	uint64_t p = 2819689107ULL + ((1475278189ULL * f) >> 32);
	uint64_t m = (1ULL << 32) + ((p * f) >> 32);

	return k >= 32 ? m << (k - 32) : m >> (32 - k);
}

static inline void gen_zipf_init(struct gen_zipf *z, uint64_t n)
{
	z->n = n;
	z->log2 = gen_log2(n + 1);
}

/* A rank in [0, n), 0 the most frequent; 0 when n is 0. n below 2^31. */
static inline uint64_t gen_zipf_rank(const struct gen_zipf *z, struct gen_rng *r)
{
	uint64_t u = gen_next(r) >> 32; /* 0.32 */
	uint64_t x = (uint64_t)(((unsigned __int128)u * z->log2) >> 32);
	uint64_t rank = gen_exp2(x) - 1;

	if (z->n == 0)
		return 0;
	return rank < z->n ? rank : z->n - 1;
}

/* Scatter ranks over [0, n), so that the frequent ones are not neighbours. A bijection for each n
 * that is below the prime. */
static inline uint64_t gen_scatter(uint64_t rank, uint64_t n)
{
	return n ? (rank * 2654435761ULL + 12345) % n : 0;
}

#endif
