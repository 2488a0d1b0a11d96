/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c: the benchmark frame (docs/benchmarks.md).
 *
 * A time on one machine says little, and two times taken an hour apart say less: another tenant,
 * another clock, a warmer cache. What keeps is a ratio of two things measured right after each
 * other, again and again, in alternating order. So a figure is a list of pairs, ours and a
 * reference, and what is reported and held against a goal is the median of the ratios of the pairs,
 * with the least and the greatest beside it; all samples go into the document, so that anybody can
 * do the sums anew.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/bench.h"
#include "harness/result.h"

void bench_say(const char *fmt, ...)
{
	va_list ap;

	fputs("bench   ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

struct bench_figure *bench_figure(struct bench *b, const char *figure, const char *unit,
				  const char *reference_is)
{
	struct bench_figure *f;

	OB_ASSERT(b->nfig < BENCH_MAX_FIGURES);
	f = &b->fig[b->nfig++];
	*f = (struct bench_figure){0};
	snprintf(f->figure, sizeof(f->figure), "%s", figure);
	snprintf(f->unit, sizeof(f->unit), "%s", unit);
	snprintf(f->reference_is, sizeof(f->reference_is), "%s", reference_is ? reference_is : "");
	return f;
}

void bench_add(struct bench_figure *f, double ours, double reference)
{
	/* A pair after a sample alone would stand at two different indices. */
	OB_ASSERT(f->nours == f->nreference && f->nours < BENCH_MAX_SAMPLES);
	f->ours[f->nours++] = ours;
	f->reference[f->nreference++] = reference;
}

void bench_add_ours(struct bench_figure *f, double ours)
{
	OB_ASSERT(f->nreference == 0 && f->nours < BENCH_MAX_SAMPLES);
	f->ours[f->nours++] = ours;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(const double *v, unsigned int n)
{
	double *s, m;

	if (n == 0)
		return NAN;
	s = malloc(n * sizeof(*s));
	OB_ASSERT(s);
	memcpy(s, v, n * sizeof(*s));
	qsort(s, n, sizeof(*s), by_value);
	m = n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
	free(s);
	return m;
}

struct bench_ratio bench_ratio(const struct bench_figure *f)
{
	struct bench_ratio r = {NAN, NAN, NAN, 0};
	double ratios[BENCH_MAX_SAMPLES];

	for (unsigned int i = 0; i < f->nreference; i++) {
		double q = f->ours[i] / f->reference[i];

		if (!isfinite(q)) /* a reference of zero: nothing to compare with */
			continue;
		if (r.pairs == 0 || q < r.min)
			r.min = q;
		if (r.pairs == 0 || q > r.max)
			r.max = q;
		ratios[r.pairs++] = q;
	}
	r.median = bench_median(ratios, r.pairs);
	return r;
}

int bench_reached(const struct bench_figure *f)
{
	struct bench_ratio r = bench_ratio(f);

	if (f->goal == 0 || r.pairs == 0)
		return -1;
	return f->goal_is_max ? r.median <= f->goal : r.median >= f->goal;
}

static json_t *samples_json(const double *v, unsigned int n)
{
	json_t *a = json_array();

	for (unsigned int i = 0; i < n; i++)
		json_array_append_new(a, result_real(v[i]));
	return a;
}

static json_t *figure_json(const struct bench_figure *f)
{
	struct bench_ratio r = bench_ratio(f);
	json_t *o = json_object(), *ratio = json_object();
	int reached = bench_reached(f);

	json_object_set_new(o, "figure", json_string(f->figure));
	json_object_set_new(o, "unit", json_string(f->unit));
	json_object_set_new(o, "ours", samples_json(f->ours, f->nours));
	json_object_set_new(o, "reference", samples_json(f->reference, f->nreference));
	json_object_set_new(o, "reference_is", json_string(f->reference_is));
	json_object_set_new(ratio, "median", result_real(r.median));
	json_object_set_new(ratio, "min", result_real(r.min));
	json_object_set_new(ratio, "max", result_real(r.max));
	json_object_set_new(o, "ratio", ratio);
	json_object_set_new(o, "goal", f->goal == 0 ? json_null() : result_real(f->goal));
	json_object_set_new(o, "goal_is",
			    f->goal == 0 ? json_null()
					 : json_string(f->goal_is_max ? "at most" : "at least"));
	json_object_set_new(o, "reached", reached < 0 ? json_null() : json_boolean(reached));
	return o;
}

json_t *bench_json(const struct bench *b)
{
	json_t *o = json_object(), *figures = json_array();

	for (unsigned int i = 0; i < b->nfig; i++)
		json_array_append_new(figures, figure_json(&b->fig[i]));
	json_object_set_new(o, "schema", json_string(BENCH_SCHEMA));
	json_object_set_new(o, "bench", json_string(b->name));
	json_object_set_new(o, "git", result_git_json());
	json_object_set_new(o, "host", result_host_json());
	json_object_set_new(o, "figures", figures);
	return o;
}

/* Four significant digits, and no exponent where a person does not need one. */
static char *number(char *buf, size_t n, double v)
{
	if (!isfinite(v))
		snprintf(buf, n, "-");
	else if (fabs(v) >= 1000 && fabs(v) < 1e12)
		snprintf(buf, n, "%.0f", v);
	else
		snprintf(buf, n, "%.4g", v);
	return buf;
}

void bench_print(FILE *out, const struct bench *b)
{
	fprintf(out,
		"\nbench %s: medians; ratio = ours / reference, median of pairs (least to "
		"greatest)\n\n",
		b->name);
	for (unsigned int i = 0; i < b->nfig; i++) {
		const struct bench_figure *f = &b->fig[i];
		struct bench_ratio r = bench_ratio(f);
		int reached = bench_reached(f);
		char x[24], y[24], z[24];

		fprintf(out, "%s\n    ours %s %s", f->figure,
			number(x, sizeof(x), bench_median(f->ours, f->nours)), f->unit);
		if (f->nreference)
			fprintf(out, ", %s %s %s", f->reference_is,
				number(y, sizeof(y), bench_median(f->reference, f->nreference)),
				f->unit);
		if (r.pairs)
			fprintf(out, "\n    ratio %s (%s to %s), %u pair%s",
				number(x, sizeof(x), r.median), number(y, sizeof(y), r.min),
				number(z, sizeof(z), r.max), r.pairs, r.pairs == 1 ? "" : "s");
		else
			fprintf(out, ", %u sample%s", f->nours, f->nours == 1 ? "" : "s");
		if (f->goal != 0)
			fprintf(out, "; goal at %s %s: %s", f->goal_is_max ? "most" : "least",
				number(x, sizeof(x), f->goal),
				reached > 0    ? "reached"
				: reached == 0 ? "MISSED"
					       : "cannot be told");
		fputc('\n', out);
	}
	fputc('\n', out);
}

int bench_finish(struct bench *b, const char *dir, struct ob_err *e)
{
	char path[PATH_MAX];
	json_t *doc;
	int ret;

	bench_print(stdout, b);
	ret = result_mkdirs(dir, e);
	if (ret)
		return ret;
	if (snprintf(path, sizeof(path), "%s/%s.json", dir, b->name) >= (int)sizeof(path))
		return ob_fail(e, ENAMETOOLONG,
			       "cannot write below %.100s...: the name is too long", dir);
	doc = bench_json(b);
	ret = result_write(doc, path, e);
	json_decref(doc);
	if (!ret)
		printf("result: %s\n", path);
	return ret;
}
