/* SPDX-License-Identifier: Apache-2.0 */
/*
 * first.c: a guest on memory that was mapped and nothing else: what does it cost to touch a page
 * for the first time? The guest measures it.
 */
#include "tests/yardstick/yardstick.h"

#define FIRST_SECONDS 120

static bool is_done(const struct yard *y, uint64_t arg)
{
	(void)arg;
	return y->report.job_ns != 0;
}

int yard_first(const struct yard_opts *o, json_t *doc, struct ob_err *e)
{
	struct yard y;
	int ret = yard_boot(&y, o, "first", e);

	if (!ret)
		ret = yard_wait(&y, is_done, 0, FIRST_SECONDS, e);
	if (!ret) {
		json_object_set_new(doc, "pages", json_integer((json_int_t)y.pages));
		json_object_set_new(doc, "job_ns", json_integer((json_int_t)y.report.job_ns));
		json_object_set_new(doc, "ns_per_page",
				    json_real((double)y.report.job_ns / (double)y.pages));
		json_object_set_new(doc, "median_ns_per_page",
				    json_real((double)y.report.job_page_ps / 1000));
	}
	yard_end(&y);
	return ret;
}
