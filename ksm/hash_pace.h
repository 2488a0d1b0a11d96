/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash_pace.h: private to the engine `hash`: how much fits into one pause of a guest. Pure: told what
 * things took, it says what they will take.
 */
#ifndef OVERBOOK_KSM_HASH_PACE_H
#define OVERBOOK_KSM_HASH_PACE_H

#include "ksm/ksm.h"

/* What a pause is made of. */
enum pace_op {
	PACE_REST,    /* a pause: what is in none of the others */
	PACE_CHECK,   /* a page compared, or looked at for zeroes */
	PACE_EMPTY,   /* a page given back by the one call for all short runs */
	PACE_MAP,     /* a run mapped over nothing */
	PACE_REPLACE, /* a run mapped over pages: the call and its flush */
	PACE_FREE,    /* each page of that */
	PACE_NOPS,
};

struct pace {
	uint64_t bound_ns;
	uint64_t cost[PACE_NOPS]; /* expected, in 1/PACE_ONE ns */
	uint32_t aim;		  /* the part of the bound that a plan may fill, in 1/PACE_ONE */
};
#define PACE_ONE 65536u

/* How a pause went, all in ns. */
struct pace_pause {
	uint64_t park;	   /* until the guest stood still */
	uint64_t whole;	   /* from the kick to the release */
	uint64_t work_cpu; /* CPU time of the scanner's thread after parking */
	uint64_t planned;  /* what was to be done after parking, as reckoned */
	bool preempted;	   /* the thread lost its CPU to another after parking */
};

/* @bound_ns > 0. */
void pace_init(struct pace *p, uint64_t bound_ns);
/* What @n of @op will take, in ns. */
uint64_t pace_cost(const struct pace *p, enum pace_op op, uint64_t n);
/* @n of @op took @ns. n = 0: nothing is learnt. */
void pace_learn(struct pace *p, enum pace_op op, uint64_t n, uint64_t ns);
/* What is left for work in a pause that has lasted for @elapsed ns; 0: nothing. */
uint64_t pace_left(const struct pace *p, uint64_t elapsed);
/*
 * How many pages of a run of @n fit into @left ns: checked, and then mapped, by the one call for all
 * short runs (@emptied) or by their own. @cost gets what these will take. 0 <= result <= n.
 */
uint32_t pace_fit(const struct pace *p, uint64_t left, uint32_t n, bool emptied, uint64_t *cost);
/* A pause is over: count it, and aim lower or higher from now on. */
void pace_ended(struct pace *p, const struct pace_pause *z, struct ksm_pauses *count);
/* Why was it too long? KSM_NLATE: it was not. */
enum ksm_late pace_cause(const struct pace *p, const struct pace_pause *z);

/* lat.c: which bucket counts @ns. */
unsigned int ksm_lat_bucket(uint64_t ns);

#endif
