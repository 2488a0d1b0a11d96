/* SPDX-License-Identifier: Apache-2.0 */
/*
 * criterion.h: the part of Criterion that our tests use, for builds under ThreadSanitizer. Criterion
 * puts an arena at addresses where ThreadSanitizer has its own, and does not start there. Tests are
 * the same; each runs in a process of its own, one after the other (plain.c).
 */
#ifndef OVERBOOK_TESTS_PLAIN_CRITERION_H
#define OVERBOOK_TESTS_PLAIN_CRITERION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plain_test {
	const char *suite, *name;
	void (*run)(void);
	void (*init)(void), (*fini)(void);
	struct plain_test *next;
	double timeout; /* seconds; 0: none */
	int signal;	/* that it must end by */
};

struct plain_suite {
	const char *name;
	void (*init)(void), (*fini)(void);
	struct plain_suite *next;
};

void plain_register(struct plain_test *t);
void plain_register_suite(struct plain_suite *s);
/* @ok, or say where and why: then this test has failed, and ends here if @fatal. */
void plain_check(bool ok, bool fatal, const char *file, int line, const char *what, const char *fmt,
		 ...) __attribute__((format(printf, 6, 7)));
void plain_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void plain_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define Test(s, n, ...)                                                       \
	static void s##_##n##_impl(void);                                     \
	static struct plain_test s##_##n##_test = {                           \
		.suite = #s, .name = #n, .run = s##_##n##_impl, __VA_ARGS__}; \
	__attribute__((constructor)) static void s##_##n##_register(void)     \
	{                                                                     \
		plain_register(&s##_##n##_test);                              \
	}                                                                     \
	static void s##_##n##_impl(void)

#define TestSuite(s, ...)                                                \
	static struct plain_suite s##_suite = {.name = #s, __VA_ARGS__}; \
	__attribute__((constructor)) static void s##_register(void)      \
	{                                                                \
		plain_register_suite(&s##_suite);                        \
	}                                                                \
	struct plain_suite

#define PLAIN(ok, fatal, what, ...) \
	plain_check(ok, fatal, __FILE__, __LINE__, what, " " __VA_ARGS__)

#define cr_assert(c, ...)	     PLAIN(!!(c), true, #c, __VA_ARGS__)
#define cr_assert_not(c, ...)	     PLAIN(!(c), true, "not " #c, __VA_ARGS__)
#define cr_assert_null(c, ...)	     PLAIN(!(c), true, #c " is NULL", __VA_ARGS__)
#define cr_assert_not_null(c, ...)   PLAIN(!!(c), true, #c " is not NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...)	     PLAIN((a) == (b), true, #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...)     PLAIN((a) != (b), true, #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)	     PLAIN((a) < (b), true, #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)     PLAIN((a) <= (b), true, #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)	     PLAIN((a) > (b), true, #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)     PLAIN((a) >= (b), true, #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)  PLAIN(!strcmp(a, b), true, #a " is " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) PLAIN(strcmp(a, b), true, #a " is not " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, by, ...) \
	PLAIN((a) - (b) <= (by) && (b) - (a) <= (by), true, #a " == " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...)	 PLAIN(!*(a), true, #a " is empty", __VA_ARGS__)
#define cr_assert_arr_eq(a, b, len, ...) PLAIN(!memcmp(a, b, len), true, #a " == " #b, __VA_ARGS__)
#define cr_assert_fail(...)		 PLAIN(false, true, "fail", __VA_ARGS__)
#define cr_expect(c, ...)		 PLAIN(!!(c), false, #c, __VA_ARGS__)
#define cr_expect_not(c, ...)		 PLAIN(!(c), false, "not " #c, __VA_ARGS__)
#define cr_expect_null(c, ...)		 PLAIN(!(c), false, #c " is NULL", __VA_ARGS__)
#define cr_expect_str_empty(a, ...)	 PLAIN(!*(a), false, #a " is empty", __VA_ARGS__)
#define cr_expect_eq(a, b, ...)		 PLAIN((a) == (b), false, #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...)	 PLAIN((a) != (b), false, #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...)		 PLAIN((a) < (b), false, #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...)	 PLAIN((a) <= (b), false, #a " <= " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...)	 PLAIN((a) >= (b), false, #a " >= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...)		 PLAIN((a) > (b), false, #a " > " #b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...)	 PLAIN(!strcmp(a, b), false, #a " is " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...)	 PLAIN(strcmp(a, b), false, #a " is not " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, by, ...) \
	PLAIN((a) - (b) <= (by) && (b) - (a) <= (by), false, #a " == " #b, __VA_ARGS__)

#define cr_skip_test(...) plain_skip(" " __VA_ARGS__)
#define cr_log_info(...)  plain_log(__VA_ARGS__)

#endif
