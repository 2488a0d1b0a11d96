/* SPDX-License-Identifier: Apache-2.0 */
/* main.c: runs the tests whose names (suite/name) match one of the patterns given, or all. */
#include <criterion/criterion.h>
#include <fnmatch.h>
#include <stdbool.h>

static struct tsan_test *first;

void tsan_register(struct tsan_test *t)
{
	t->next = first;
	first = t;
}

int main(int argc, char **argv)
{
	unsigned int n = 0;

	for (const struct tsan_test *t = first; t; t = t->next) {
		bool wanted = argc < 2;

		for (int i = 1; i < argc; i++)
			wanted |= !fnmatch(argv[i], t->name, 0);
		if (!wanted)
			continue;
		t->run();
		printf("ok %s\n", t->name);
		fflush(stdout);
		n++;
	}
	printf("%u tests\n", n);
	return n ? 0 : 1;
}
