/* SPDX-License-Identifier: Apache-2.0 */
/* result.h: a result of the lab (docs/result.md), what is read from it, and what is wrong with it. */
#ifndef OVERBOOK_TESTS_LAB_RESULT_H
#define OVERBOOK_TESTS_LAB_RESULT_H

#include <jansson.h>
#include <stdbool.h>

#define MIB 1048576.0

struct result {
	const char *name;
	const char *want_mode; /* host.kvm_mode; NULL: any */
	bool reference;
	bool brief; /* Linux KSM need not have had the time to finish */
	json_t *doc, *run;
	unsigned int failures;
};

/* @arg: NAME=RESULT.JSON[:WORD]..., which is cut up and stays in use. 0; 1: it cannot be loaded, and
 * that is said; 2: bad usage. */
int result_load(struct result *r, char *arg);

/* Say that something does not hold. */
void result_fail(struct result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* @o's @a, or with @b the @b of its @a; 0 when it is not there. */
double result_number(const json_t *o, const char *a, const char *b);

/* The last phase of mode @sharing: a mode may come twice. NULL: it is not there. */
const json_t *result_phase(const struct result *r, const char *sharing);

/* Has the guests' kernel been told not to move itself about (nokaslr in config.append)? */
bool result_nokaslr(const struct result *r);

/* Of @all (@n), the one to hold reference @ref against: with KASLR, else of the same outer kernel, paging and
 * configuration. NULL: there is none, or @ref has KASLR itself. */
const struct result *result_partner(const struct result *all, unsigned int n,
				    const struct result *ref);

#endif
