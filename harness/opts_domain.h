/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_domain.h: which guest is in which sharing domain, as --domain says it.
 *
 *	--domain NAME:GUESTS	these guests ("0-3,8") may share with each other, and with no other
 *	--domain NAME		all guests that no other --domain names
 *	--domain intra[:GUESTS]	each of them is a domain of its own: copies within it are merged, none
 *				across guests
 *
 * Guests that nobody names are in the domain "default". All functions are pure.
 */
#ifndef OVERBOOK_HARNESS_OPTS_DOMAIN_H
#define OVERBOOK_HARNESS_OPTS_DOMAIN_H

#include <stdint.h>

#include "kernel/base.h"

#define DOMAIN_MAX_GUESTS 4096
#define DOMAIN_MAX_NAMES  256
#define DOMAIN_NAME_SIZE  32 /* with its end */
#define DOMAIN_INTRA	  "intra"
#define DOMAIN_DEFAULT	  "default"

/* All zero: one domain, "default". */
struct domain_opts {
	unsigned int names;
	char name[DOMAIN_MAX_NAMES][DOMAIN_NAME_SIZE];
	uint16_t of[DOMAIN_MAX_GUESTS]; /* 1 + the index of a guest's name; 0: nobody named it */
	unsigned int rest;		/* the same for those; 0: "default" */
};

/* Take the value of one --domain. 0, or -EINVAL with a line in @e. */
int domain_opts_take(struct domain_opts *d, const char *arg, struct ob_err *e);
/* All have been taken: does each name have a guest, and is each guest one of @guests? */
int domain_opts_check(const struct domain_opts *d, unsigned int guests, struct ob_err *e);
/* The name of the domain of @guest; "intra" for one of those. */
const char *domain_opts_name(const struct domain_opts *d, unsigned int guest);
/*
 * Number the domains, in the order of their first guests: @of[i] is that of guest i. Returns how many
 * there are.
 */
unsigned int domain_opts_number(const struct domain_opts *d, unsigned int guests, unsigned int *of);

#endif
