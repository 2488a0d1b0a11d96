/* SPDX-License-Identifier: Apache-2.0 */
/* check.h: whether a result of the lab holds what is promised of it (tests/lab/summary.c). */
#ifndef OVERBOOK_TESTS_LAB_CHECK_H
#define OVERBOOK_TESTS_LAB_CHECK_H

#include "tests/lab/result.h"

/* What does not hold is said, and counted in @r, which is one of @all (@n). */
void check(struct result *r, const struct result *all, unsigned int n);

#endif
