/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_ept_print.c: what `overbook ept` shows: every field of the documents, "-" for those that are not
 * there, nothing that harms a terminal, and 80 columns whatever the figures are.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "harness/ept_print.h"
#include "kernel/base.h"

static char *text;
static size_t text_len;

static FILE *begin(void)
{
	FILE *f = open_memstream(&text, &text_len);

	cr_assert(f);
	return f;
}

/* Lines of 80 columns at most, printable. */
static void end(FILE *f)
{
	size_t column = 0;

	fclose(f);
	for (const char *p = text; *p; p++) {
		column = *p == '\n' ? 0 : column + 1;
		cr_assert_leq(column, 80, "wider than 80:\n%s", text);
		cr_assert(*p == '\n' || ((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f),
			  "not printable:\n%s", text);
	}
	cr_assert_eq(column, 0, "the last line is not ended");
}

static json_t *parse(const char *s)
{
	json_error_t e;
	json_t *doc = json_loads(s, 0, &e);

	cr_assert(doc, "%s: %s", e.text, s);
	return doc;
}

#define FULL                                                                                      \
	"\"cell\":2,\"mode\":\"software\",\"pages\":16384,\"states\":{\"untouched\":11,"          \
	"\"zero\":22,\"private\":33,\"shared\":44,\"compressed\":55,\"swapped\":66,"              \
	"\"ballooned\":77,\"remote\":88},\"staged\":99,\"huge\":{\"units\":32,\"huge\":30,"       \
	"\"broken\":2,\"rebuilt\":1},\"faults\":{\"zero-filled\":{\"count\":101,\"p50_ns\":1200," \
	"\"p99_ns\":45600,\"p999_ns\":7800000},\"staging\":{\"count\":102,\"p50_ns\":900,"        \
	"\"p99_ns\":2000000000},\"cow-broken\":{\"count\":103}},\"counters\":{\"touched\":104,"   \
	"\"a_counter_with_a_name_that_is_much_too_long_for_its_column\":123456789012345678},"     \
	"\"kvm\":{\"vm\":{\"pages_4k\":105,\"pages_2m\":106},\"vcpu\":[{\"exits\":107},"          \
	"{\"exits\":108}]},\"working_set\":{\"pages\":109,\"samples\":400,\"period_s\":30.5,"     \
	"\"fast\":110,\"slow\":111}"

Test(ept_print, one_guest_with_everything)
{
	static const char *const want[] = {"guest 7 in cell 2, 16384 pages",
					   "software",
					   "0.1 %",
					   "1.2 us",
					   "45.6 us",
					   "7.8 ms",
					   "900 ns",
					   "2.0 s",
					   "units 32, huge 30, broken 2, rebuilt 1",
					   "109 pages, 400 samples in 30.5 s; fast 110, slow 111",
					   "pages_2m",
					   "vCPU 0",
					   "vCPU 1",
					   "a_counter_with_a_name_th"};
	static const char *const counts[] = {"11",  "22",  "33",  "44",	 "55",	"66",
					     "77",  "88",  "99",  "101", "102", "103",
					     "104", "105", "106", "107", "108"};
	json_t *list = parse("[{\"vm\":7," FULL "}]");
	FILE *f = begin();

	ept_print_stat(f, list);
	end(f);
	for (size_t i = 0; i < OB_ARRAY_SIZE(want); i++)
		cr_expect(strstr(text, want[i]), "'%s' is not in:\n%s", want[i], text);
	for (size_t i = 0; i < OB_ARRAY_SIZE(counts); i++) {
		char word[24];

		snprintf(word, sizeof(word), " %s", counts[i]);
		cr_expect(strstr(text, word), "'%s' is not in:\n%s", word, text);
	}
	json_decref(list);
	free(text);
}

/* The line of @text that begins with @head. */
static char *line_of(const char *head)
{
	static char line[128];
	const char *at = strstr(text, head);

	cr_assert(at, "no '%s' in:\n%s", head, text);
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
	return line;
}

Test(ept_print, what_is_not_there_is_a_dash)
{
	json_t *list = parse("[{\"vm\":3,\"pages\":4096,\"states\":{\"zero\":4096}}]");
	FILE *f = begin();
	unsigned int pages, zero;

	ept_print_stat(f, list);
	end(f);
	cr_expect_eq(sscanf(line_of("  zero "), "  zero %u 100.0 %%", &zero), 1);
	cr_expect_eq(zero, 4096);
	cr_expect(strstr(line_of("  swapped"), " -"));
	cr_expect(strstr(line_of("  staging"), " -"));
	cr_expect(strstr(text, "units -, huge -"));
	json_decref(list);
	free(text);

	list = parse("[{\"vm\":3,\"pages\":4096,\"states\":{\"zero\":4000,\"private\":96}},"
		     "{\"vm\":4,\"pages\":10,\"states\":{\"zero\":10}}]");
	f = begin();
	ept_print_stat(f, list);
	end(f);
	cr_expect_eq(sscanf(line_of("   3 "), " 3 %u - %u 96 - - - - -", &pages, &zero), 2);
	cr_expect_eq(pages, 4096);
	cr_expect_eq(zero, 4000);
	cr_expect_eq(sscanf(line_of(" all "), " all %u - %u 96 - - - - -", &pages, &zero), 2);
	cr_expect_eq(pages, 4106);
	cr_expect_eq(zero, 4010);
	/* Parts that no guest has are not there at all. */
	cr_expect_null(strstr(text, "faults"));
	cr_expect_null(strstr(text, "working set"));
	json_decref(list);
	free(text);
}

Test(ept_print, several_guests_with_everything)
{
	json_t *list = parse("[{\"vm\":7," FULL "},{\"vm\":8," FULL "},{\"vm\":4095}]");
	FILE *f = begin();

	ept_print_stat(f, list);
	end(f);
	cr_expect(strstr(text, "all    32768        22      44       66      88"), "%s", text);
	cr_expect(strstr(text, "faults by outcome"));
	cr_expect(strstr(text, "working set"));
	json_decref(list);
	free(text);
}

/* Figures of any size, and words of any kind, from whoever it was that answered. */
Test(ept_print, large_figures_and_strange_words)
{
	json_t *list = parse(
		"[{\"vm\":4095,\"cell\":511,\"pages\":268435456,\"mode\":\"\\u001b[2J\\u00e9\","
		"\"states\":{\"untouched\":9223372036854775807,\"private\":268435456,"
		"\"\\u001b\\u20ac\":5,\"zero\":\"text\",\"shared\":[1],\"swapped\":-123456789012},"
		"\"faults\":{\"zero-filled\":{\"count\":9223372036854775807,\"p50_ns\":1e300}},"
		"\"huge\":{\"units\":9223372036854775807,\"huge\":9223372036854775807,\"broken\":"
		"9223372036854775807},\"counters\":{\"\\n\":\"\\u001b\"}},"
		"{\"vm\":1,\"states\":{\"untouched\":9223372036854775807}},"
		"{\"vm\":\"a word that is much too long for a column of four\"},3,null,\"x\",[]]");
	FILE *f;

	for (size_t n = json_array_size(list); n; n--) {
		f = begin();
		ept_print_stat(f, list);
		fclose(f);
		for (const char *p = text; *p; p++)
			cr_assert(*p == '\n' || ((unsigned char)*p >= 0x20 && *p < 0x7f), "%s",
				  text);
		free(text);
		json_array_remove(list, n - 1);
	}
	json_decref(list);
	list = parse("{\"no\":\"list\"}");
	f = begin();
	ept_print_stat(f, list);
	ept_print_verify(f, list);
	ept_print_walk(f, list);
	end(f);
	cr_expect_eq(ept_differences(list), 0);
	json_decref(list);
	free(text);
}

Test(ept_print, verify)
{
	json_t *list =
		parse("[{\"vm\":0,\"pages\":100,\"lagged\":7,\"differences\":0,\"first\":[]},"
		      "{\"vm\":1,\"pages\":100,\"lagged\":1,\"differences\":2,\"first\":["
		      "{\"page\":17,\"gfn\":\"0x11\",\"map\":\"private\",\"kernel\":"
		      "\"not present\",\"why\":\"none behind a private page\"}]}]");
	FILE *f = begin();

	cr_expect_eq(ept_differences(list), 2);
	ept_print_verify(f, list);
	end(f);
	cr_expect(strstr(text, "guest 1: page 17 (gfn 0x11): the map says private, the kernel not "
			       "present\n"),
		  "%s", text);
	cr_expect(strstr(text, "pages that are not what the map says: 2"), "%s", text);
	cr_expect(strstr(text, "  that is: none behind a private page\n"), "%s", text);
	json_decref(list);
	free(text);

	list = parse("[{\"vm\":0,\"pages\":100,\"lagged\":7,\"differences\":0,\"first\":[]}]");
	f = begin();
	cr_expect_eq(ept_differences(list), 0);
	ept_print_verify(f, list);
	end(f);
	cr_expect(strstr(text, "every page is what the map says\n"), "%s", text);
	json_decref(list);
	free(text);
}

Test(ept_print, walk)
{
	json_t *walk = parse(
		"{\"vm\":1,\"gva\":\"0x7f0012345678\",\"mode\":\"5-level\",\"levels\":["
		"{\"name\":\"PML5\",\"at\":\"0x000ffffffffff000\",\"entry\":\"0x8000000000000067\","
		"\"flags\":\"rwxu\"},{\"name\":\"PML4\",\"at\":\"0x1000\"}],\"ok\":true,\"gpa\":"
		"\"0x5678\",\"page_size\":4096,\"writable\":true,\"user\":false,\"nx\":true,"
		"\"page\":{"
		"\"state\":\"shared\",\"frame\":12,\"hva\":\"0x7fff00000000\",\"pfn\":null},"
		"\"references\":{\"native\":5,\"nested\":35,\"shadow\":5}}");
	FILE *f = begin();

	ept_print_walk(f, walk);
	end(f);
	cr_expect(strstr(text, "PML5    0x000ffffffffff000    0x8000000000000067    rwxu\n"), "%s",
		  text);
	cr_expect(strstr(text, "PML4    0x1000                -                     -\n"), "%s",
		  text);
	cr_expect(strstr(text, "writable yes, user no, no-execute yes\n"), "%s", text);
	cr_expect(strstr(text, "shared, frame 12, hva 0x7fff00000000, pfn -\n"), "%s", text);
	cr_expect(strstr(text, "native 5, nested paging 35, shadow paging 5\n"), "%s", text);
	cr_expect_null(strstr(text, "stopped"));
	json_object_set_new(walk, "ok", json_false());
	json_object_set_new(walk, "stop", json_string("not present"));
	json_object_set_new(walk, "stop_level", json_string("PD"));
	free(text);
	f = begin();
	ept_print_walk(f, walk);
	end(f);
	cr_expect(strstr(text, "stopped    PD: not present\n"), "%s", text);
	cr_expect_null(strstr(text, "allowed"));
	json_decref(walk);
	free(text);
}
