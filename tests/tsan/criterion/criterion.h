/* SPDX-License-Identifier: Apache-2.0 */
/*
 * criterion.h: the few words of Criterion that tests of threads use, without Criterion: its runner
 * puts each test into a process with an arena at a fixed address, which ThreadSanitizer does not
 * allow. A test that includes <criterion/criterion.h> builds with either (Makefile, "threads").
 * A failed assertion ends the process.
 */
#ifndef OVERBOOK_TESTS_TSAN_CRITERION_H
#define OVERBOOK_TESTS_TSAN_CRITERION_H

#include <stdio.h>
#include <stdlib.h>

struct tsan_test {
	const char *name;
	void (*run)(void);
	struct tsan_test *next;
};
void tsan_register(struct tsan_test *t);

#define Test(suite, name_, ...)                                                               \
	static void suite##_##name_(void);                                                    \
	static struct tsan_test suite##_##name_##_test = {#suite "/" #name_, suite##_##name_, \
							  NULL};                              \
	__attribute__((constructor)) static void suite##_##name_##_register(void)             \
	{                                                                                     \
		tsan_register(&suite##_##name_##_test);                                       \
	}                                                                                     \
	static void suite##_##name_(void)

#define TSAN_ASSERT(cond, ...)                                                             \
	do {                                                                               \
		if (!(cond)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
			__VA_OPT__(fprintf(stderr, __VA_ARGS__);)                          \
			abort();                                                           \
		}                                                                          \
	} while (0)

#define cr_assert(cond, ...)	 TSAN_ASSERT(cond, __VA_ARGS__)
#define cr_assert_not(cond, ...) TSAN_ASSERT(!(cond), __VA_ARGS__)
#define cr_assert_eq(a, b, ...)	 TSAN_ASSERT((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...) TSAN_ASSERT((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)	 TSAN_ASSERT((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...) TSAN_ASSERT((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)	 TSAN_ASSERT((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...) TSAN_ASSERT((a) >= (b), __VA_ARGS__)

#endif
