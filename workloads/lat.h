/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lat.h: the latency histogram of struct agent_report, for the guest that fills it and the host
 * that reads it. Four buckets to an octave: the position of the leading one, and the two bits below
 * it. So a bucket is at most 25 % wide, and finding it takes no table, no division and no floating
 * point (the guest has general registers only). Needs <stdint.h> only.
 */
#ifndef OVERBOOK_WORKLOADS_LAT_H
#define OVERBOOK_WORKLOADS_LAT_H

#include <stdint.h>

#include "kernel/agent_abi.h"

/* Which bucket counts an operation of @ns. 0 ns goes to the first, what is too long to the last. */
static inline unsigned int lat_bucket(uint64_t ns)
{
	if (ns == 0)
		return 0;
	unsigned int octave = 63 - (unsigned int)__builtin_clzll(ns);
	/* The two bits below the leading one; below 4 ns some of them are not there
	 * and read as 0. */
	unsigned int quarter =
		(unsigned int)((octave >= 2 ? ns >> (octave - 2) : ns << (2 - octave)) & 3);
	unsigned int b = octave * 4 + quarter;

	return b < AGENT_LAT_BUCKETS ? b : AGENT_LAT_BUCKETS - 1;
}

/* The least ns that belongs to bucket @b, rounded down; lat_floor(b + 1) is the bound above. */
static inline uint64_t lat_floor(unsigned int b)
{
	unsigned int octave = b >> 2;
	uint64_t mantissa = 4 + (b & 3);

	return octave >= 2 ? mantissa << (octave - 2) : mantissa >> (2 - octave);
}

#endif
