/* SPDX-License-Identifier: Apache-2.0 */
/* cell_ept.h: private to the cell: the questions of `overbook ept`, a function each (cell_ept.c). */
#ifndef OVERBOOK_HARNESS_CELL_EPT_H
#define OVERBOOK_HARNESS_CELL_EPT_H

#include "harness/cell.h"

/*
 * Fill @out, the document of guest @g, in which "vm" is already, as @doc asks. 0, or -errno with a
 * line in @e.
 */
int cell_ept_stat(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		  struct ob_err *e);
int cell_ept_verify(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		    struct ob_err *e);
int cell_ept_walk(struct cell *c, struct cell_guest *g, const json_t *doc, json_t *out,
		  struct ob_err *e);

/* Enter a count. */
void cell_ept_count(json_t *o, const char *key, uint64_t v);

#endif
