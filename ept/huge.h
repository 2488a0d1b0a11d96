/* SPDX-License-Identifier: Apache-2.0 */
/*
 * huge.h: a part of ept's public header (ept.h includes it): memory of huge pages, the units of 2
 * MiB that it is made of, when one is broken into small pages and when it is built again.
 *
 * A *unit* is 512 pages that begin at a multiple of 512, all of one region. Units begin unbroken:
 * the kernel may back them by one huge page, and mostly does at their first touch. A part of an
 * unbroken unit is never given back, replaced or taken: whoever wants to breaks the unit first
 * (ept_share, ept_drop_zero, ept_balloon and ept_take do so by themselves), and a broken unit stays
 * of small pages until it is built again. So memory that was reported as freed has been freed, and
 * the kernel does not put back by itself what was dropped.
 *
 * Nothing here is of use, and nothing costs anything, for memory of small pages (gmem_huge).
 */
#ifndef OVERBOOK_EPT_HUGE_H
#define OVERBOOK_EPT_HUGE_H

#include "kernel/kernel.h"

#define EPT_UNIT_PAGES 512

struct ept;

/* What backs a guest's memory, as a person chooses it (--pages). */
enum ept_pages {
	EPT_PAGES_4K,	    /* small pages only */
	EPT_PAGES_2M,	    /* huge pages, which nobody breaks to merge */
	EPT_PAGES_ADAPTIVE, /* huge pages, broken where that gains enough, and built again */
	EPT_PAGES_NMODES,
};
const char *ept_pages_name(enum ept_pages m);
/* EPT_PAGES_NMODES when there is none of that name. */
enum ept_pages ept_pages_find(const char *name);

/* --- when to break: huge_policy.c ------------------------------------------------------------- */

#define EPT_HUGE_THRESHOLD 64			/* the default: measured, docs/huge-pages.md */
#define EPT_HUGE_NEVER	   (EPT_UNIT_PAGES + 1) /* a threshold that no gain reaches */

struct ept_huge_rule {
	unsigned int threshold; /* pages that a break must give back to be worth it */
	uint64_t rest_ns; /* a unit that was built is left alone for so long, doubled each time */
};

/* What a unit has been through. */
struct ept_unit {
	uint64_t since_ns; /* when it was last broken or built; 0: never */
	uint8_t broken;
	uint8_t building; /* the kernel is at it, without our lock */
	uint8_t pieces;	  /* the kernel has a table for small pages where staging has its place */
	uint8_t builds;	  /* how often it was built so far; stays at its largest */
};

/* How long the unit is to be left as it is, from since_ns on. Pure. */
uint64_t ept_unit_rest_ns(const struct ept_huge_rule *rule, const struct ept_unit *u);
/* Is an unbroken unit worth breaking at @now_ns, for @gain pages? Pure. */
bool ept_unit_worth_breaking(const struct ept_huge_rule *rule, const struct ept_unit *u,
			     unsigned int gain, uint64_t now_ns);

/* --- units: huge.c ---------------------------------------------------------------------------- */

struct ept_huge_stats {
	uint64_t units;	 /* whole units of the guest's RAM */
	uint64_t huge;	 /* of them, mapped by one huge entry now, in the guest or in staging */
	uint64_t broken; /* of them, broken now */
	uint64_t breaks, builds; /* ever */
	uint64_t refused; /* breaks and builds that could not be done: the kernel, or a device */
	uint64_t freed_bytes; /* given back by breaking alone: pages of zeroes */
	uint64_t probes;      /* units that were probed for whether they are hot */
	uint64_t cold;	      /* of these, found not to be */
};

/* Is this guest's memory of huge pages (gmem_huge before ept_init)? */
bool ept_huge_on(const struct ept *e);
/* The rule that this guest's units are broken by; the default is never, the mode 2m. */
void ept_huge_set_rule(struct ept *e, const struct ept_huge_rule *rule);
/*
 * Does one huge page back the unit that @page is in, so that to give back a part of it would cost
 * the whole? False also of a page that there is not. Asks the kernel: about 1 us.
 */
bool ept_unit_is_huge(struct ept *e, uint64_t page);
/* Should a unit that is huge be broken, if that gives back @gain pages? By the rule, now. */
bool ept_huge_worth(struct ept *e, uint64_t unit, unsigned int gain);
/*
 * Break a unit: split its huge page, so that parts of it can be given back, and see to it that the
 * kernel makes no new one. Contents stay; the guest goes on. Returns the bytes that this gave back
 * by itself (>= 0); -ERANGE: no such unit, or not a whole one; -EBUSY: somebody in the kernel holds
 * the page; or another -errno; then it is as it was.
 */
int64_t ept_huge_break(struct ept *e, uint64_t unit);
/*
 * Build a unit: one anonymous mapping, one huge page. Its pages must all be private and in place,
 * or zero, or untouched: -EINVAL. 0 when it is huge afterwards or was already. -EBUSY: a device is
 * at it, or the kernel; -ENOMEM: there is no huge page to be had; or another -errno. Then its
 * content is as before, and it is broken. Where pages lie over the pool the guest is parked while
 * all of it is copied (docs/huge-pages.md says how long).
 */
int ept_huge_build(struct ept *e, uint64_t unit);
int ept_huge_read(struct ept *e, struct ept_huge_stats *out);

/* --- when to build: huge_policy.c ------------------------------------------------------------- */

#define EPT_BUILDER_SAMPLES 8
#define EPT_BUILDER_PROBES  16 /* units probed at a time */

struct ept_builder_opts {
	uint64_t look_ns;   /* a unit is looked at so often: default 1 s */
	unsigned int looks; /* so often private in a row makes a candidate: default 2 */
	uint64_t probe_ns;  /* how long a probe gives the guest to touch: default 1 s */
	unsigned int hot;   /* samples of 8 that must have been touched: default 6 */
	unsigned int slack; /* pages that may be zero instead of private: default 0 */
	uint64_t gap_ns;    /* at least so long between two builds: default 50 ms */
};

struct ept_probe {
	uint64_t unit, since_ns;
	uint32_t page[EPT_BUILDER_SAMPLES]; /* taken as samples; those of n */
	unsigned int n;			    /* 0: this probe is free */
};

struct ept_look {
	uint64_t next_ns;
	uint8_t looks;
	bool probing;
};

/* Looks for units that are worth building; one a guest. */
struct ept_builder {
	struct ept *e;
	struct ept_builder_opts opts;
	struct ept_look *look; /* [units] */
	uint64_t units, cursor;
	struct ept_probe probe[EPT_BUILDER_PROBES];
	uint64_t built_ns; /* the last one */
	uint64_t seed;
};

/* @opts may be NULL, and what is 0 in it becomes the default (but slack). */
void ept_builder_init(struct ept_builder *b, struct ept *e, const struct ept_builder_opts *opts,
		      uint64_t seed);
/* Puts back what is being probed. */
void ept_builder_exit(struct ept_builder *b);
/*
 * Look at up to @budget units at time @now_ns. A unit that was broken, has rested
 * (ept_unit_rest_ns), is private at some looks in a row and is then found to be hot is built. To be
 * hot means that most of some samples, pages of it taken out to staging, are touched soon. Returns
 * how long to rest until the next step is worth it, in ns. Not from two threads at a time.
 */
uint64_t ept_builder_step(struct ept_builder *b, uint64_t now_ns, unsigned int budget);

#endif
