/* SPDX-License-Identifier: Apache-2.0 */
/* host_docs.c: what the documents say in tables, held against the code. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ept/ept.h"

#define CELLS 8

static char *read_whole(const char *path)
{
	struct ob_err e;
	void *text;
	size_t len;

	cr_assert(!ob_read_file(path, 1 << 20, &text, &len, &e), "%s", e.msg);
	text = realloc(text, len + 1);
	((char *)text)[len] = '\0';
	return text;
}

/* Cut "| a | b |" into its cells, in place. 0: it is no line of a table. */
static unsigned int cut(char *line, char *cell[CELLS])
{
	unsigned int n = 0;

	if (*line != '|')
		return 0;
	for (char *p = strtok(line + 1, "|"); p && n < CELLS; p = strtok(NULL, "|")) {
		char *end = p + strlen(p);

		while (isspace((unsigned char)*p))
			p++;
		while (end > p && isspace((unsigned char)end[-1]))
			*--end = '\0';
		cell[n++] = p;
	}
	return n;
}

static enum ept_state state_named(const char *name)
{
	enum ept_state s;

	for (s = 0; s < EPT_NSTATES && strcmp(name, ept_state_name(s)); s++)
		;
	return s;
}

static enum ept_actor actor_named(const char *name)
{
	enum ept_actor a;

	for (a = 0; a < EPT_NACTORS && strcmp(name, ept_actor_name(a)); a++)
		;
	return a;
}

/* Each `ept_call` in the cell is one of the header's. Returns how many there are. */
static unsigned int calls_exist(char *cell, const char *header)
{
	unsigned int n = 0;

	for (char *p = strtok(cell, "`, "); p; p = strtok(NULL, "`, "), n++) {
		char with[80];

		snprintf(with, sizeof(with), " %s(", p);
		cr_assert(strstr(header, with) || strstr(header, with + 1), "there is no %s", p);
	}
	return n;
}

Test(docs, the_table_of_page_states_is_that_of_the_code)
{
	bool said[EPT_NSTATES][EPT_NSTATES][EPT_NACTORS] = {0};
	unsigned int meaning[EPT_NSTATES] = {0}, who[EPT_NACTORS] = {0};
	char *text = read_whole("docs/page-states.md"), *header = read_whole("ept/ept.h");
	char *next = text;

	while (next) {
		char *line = strsep(&next, "\n"), *cell[CELLS];
		unsigned int n = cut(line, cell);

		if (n == 3 && state_named(cell[0]) < EPT_NSTATES)
			meaning[state_named(cell[0])]++;
		if (n == 2 && actor_named(cell[0]) < EPT_NACTORS)
			who[actor_named(cell[0])]++;
		if (n == 5 && strcmp(cell[0], "from") && cell[0][0] != '-') {
			enum ept_state from = state_named(cell[0]), to = state_named(cell[1]);
			enum ept_actor by = actor_named(cell[2]);

			cr_assert(from < EPT_NSTATES && to < EPT_NSTATES && by < EPT_NACTORS,
				  "%s to %s by %s: no such state or actor", cell[0], cell[1],
				  cell[2]);
			cr_assert(from != to && !said[from][to][by], "%s to %s by %s: twice",
				  cell[0], cell[1], cell[2]);
			said[from][to][by] = true;
			cr_assert_gt(calls_exist(cell[3], header), 0);
			cr_assert_gt(strlen(cell[4]), 0);
		}
	}
	for (unsigned int s = 0; s < EPT_NSTATES; s++)
		cr_assert_eq(meaning[s], 1, "%s", ept_state_name(s));
	for (unsigned int a = 0; a < EPT_NACTORS; a++)
		cr_assert_eq(who[a], 1, "%s", ept_actor_name(a));
	for (unsigned int from = 0; from < EPT_NSTATES; from++)
		for (unsigned int to = 0; to < EPT_NSTATES; to++)
			for (unsigned int a = 0; a < EPT_NACTORS; a++)
				cr_assert_eq(ept_may(from, to, a), from == to || said[from][to][a],
					     "%s to %s by %s: the code and the table differ",
					     ept_state_name(from), ept_state_name(to),
					     ept_actor_name(a));
	cr_assert(!ept_may(EPT_NSTATES, EPT_NSTATES, EPT_BY_KERNEL));
	cr_assert(!ept_may(EPT_ZERO, EPT_NSTATES, EPT_BY_KERNEL));
	cr_assert(!ept_may(EPT_ZERO, EPT_ZERO, EPT_NACTORS));
	free(text);
	free(header);
}
