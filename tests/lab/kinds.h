/* SPDX-License-Identifier: Apache-2.0 */
/* kinds.h: what is shared by kind of the guests' memory, of two results (tests/lab/summary.c). */
#ifndef OVERBOOK_TESTS_LAB_KINDS_H
#define OVERBOOK_TESTS_LAB_KINDS_H

#include <jansson.h>

/* A table of the `kinds` of two runs or phases of a sharing mode, and by how much @a has less: nothing
 * when one has none, or is NULL. */
void kinds_show(const char *mode, const char *name_a, const json_t *a, const char *name_b,
		const json_t *b);

#endif
