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

#include "kernel/base.h"

/* @list: the answer of x-overbook-ept-stat. One guest at length, several in a line each. */
void ept_print_stat(FILE *out, const json_t *list);
/* @list: the answer of x-overbook-ept-verify. */
void ept_print_verify(FILE *out, const json_t *list);
/* The differences in it, of all guests. */
unsigned long long ept_differences(const json_t *list);
/* @walk: the answer of x-overbook-ept-walk. */
void ept_print_walk(FILE *out, const json_t *walk);

/* --- ept_text.c: the parts --------------------------------------------------------------- */

#define EPT_TEXT 48 /* bytes of each @buf */

/* Any value as a word or a few, cut to @buf; "-" for none. Returns @buf, as all of these. */
const char *ept_text_value(char *buf, const json_t *v);
/* A count in less than @width characters, if it can be: large ones lose digits, not their size. */
const char *ept_text_count(char *buf, const json_t *v, int width);
/* Nanoseconds as a person says them. */
const char *ept_text_latency(char *buf, const json_t *v);
/* Member @a of @o, or with @b member @b of that; NULL when it is not there. */
const json_t *ept_text_member(const json_t *o, const char *a, const char *b);

struct ept_column {
	const char *head, *a, *b; /* whose value (ept_text_member) */
	int width;
	bool sum; /* of all guests: it has a meaning */
};
/* A line for each document of @list, under a heading; behind them the sums, if there are several. */
void ept_text_table(FILE *out, const json_t *list, const struct ept_column *col, unsigned int n);

#endif
