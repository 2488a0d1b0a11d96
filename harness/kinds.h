/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kinds.h: private to harness/: what of Linux guests is saved, by what the pages are to their kernels
 * (enum agent_page_kind): measured by coord_kinds.c, written by result_kinds.c, shown by
 * table_kinds.c and report_kinds.c.
 */
#ifndef OVERBOOK_HARNESS_KINDS_H
#define OVERBOOK_HARNESS_KINDS_H

#include <jansson.h>
#include <stdio.h>

#include "harness/harness.h"

/* As in a document: "page-cache"; and for a person: "page cache". @kind below AGENT_PAGE_KINDS. */
const char *kinds_name(unsigned int kind);
const char *kinds_label(unsigned int kind);
/* [{kind, pages, zero, intra, inter}], of the kinds that there are; null in a run without them. New
 * reference. */
json_t *kinds_json(const struct run_result *r);
/* A table for a person; nothing for a run without kinds, or that merged nothing. */
void kinds_table(FILE *out, const struct run_result *r);

#endif
