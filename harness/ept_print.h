/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ept_print.h: private to harness/. What `overbook ept` shows a person, from the documents of the
 * control socket (docs/control.md). Pure. Fields that are not there are shown as "-"; text is made
 * harmless for a terminal; 80 columns are enough.
 */
#ifndef OVERBOOK_HARNESS_EPT_PRINT_H
#define OVERBOOK_HARNESS_EPT_PRINT_H

#include <jansson.h>
#include <stdio.h>

/* @list: the answer of x-overbook-ept-stat. One guest at length, several in a line each. */
void ept_print_stat(FILE *out, const json_t *list);
/* @list: the answer of x-overbook-ept-verify. */
void ept_print_verify(FILE *out, const json_t *list);
/* The differences in it, of all guests. */
unsigned long long ept_differences(const json_t *list);
/* @walk: the answer of x-overbook-ept-walk. */
void ept_print_walk(FILE *out, const json_t *walk);

#endif
