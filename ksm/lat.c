/* SPDX-License-Identifier: Apache-2.0 */
/* lat.c: histograms of times, with the buckets of workloads/lat.h: four to an octave. */
#include "ksm/hash_pace.h"

unsigned int ksm_lat_bucket(uint64_t ns)
{
	unsigned int octave, quarter;

	if (!ns)
		return 0;
	octave = 63 - (unsigned int)__builtin_clzll(ns);
	quarter = (unsigned int)((octave >= 2 ? ns >> (octave - 2) : ns << (2 - octave)) & 3);
	return OB_MIN(octave * 4 + quarter, KSM_LAT_BUCKETS - 1);
}

/* The least ns of bucket @b + 1. */
static uint64_t bound(unsigned int b)
{
	unsigned int octave = (b + 1) / 4;
	uint64_t mantissa = 4 + (b + 1) % 4;

	return octave >= 2 ? mantissa << (octave - 2) : mantissa >> (2 - octave);
}

uint64_t ksm_lat_part(const uint64_t lat[KSM_LAT_BUCKETS], double part)
{
	uint64_t sum = 0, seen = 0;

	for (unsigned int b = 0; b < KSM_LAT_BUCKETS; b++)
		sum += lat[b];
	for (unsigned int b = 0; b < KSM_LAT_BUCKETS && sum; b++) {
		seen += lat[b];
		if (seen && (double)seen >= part * (double)sum)
			return bound(b);
	}
	return 0;
}
