/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_report.c: what is written to disk (whole or not at all, devices left as they are), the HTML
 * report with and without gnuplot, and the doctor.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/bench.h"
#include "harness/doctor.h"
#include "harness/report.h"

static void make_dir(char *dir, size_t n)
{
	snprintf(dir, n, "/tmp/ob-report-XXXXXX");
	cr_assert(mkdtemp(dir));
}

static void remove_dir(const char *dir)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, 4 << 20);

	cr_assert(f && text, "%s", path);
	cr_assert_lt(fread(text, 1, (4 << 20) - 1, f), (4 << 20) - 1);
	fclose(f);
	return text;
}

static unsigned int files_in(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned int n = 0;

	cr_assert(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

Test(report, write_is_whole)
{
	json_t *doc = json_pack("{s:i}", "n", 1), *back;
	char dir[64], path[128], link[128];
	struct ob_err e = {""};
	struct stat st;

	make_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/a.json", dir);
	cr_expect_eq(result_write(doc, path, &e), 0, "%s", e.msg);
	json_object_set_new(doc, "n", json_integer(2));
	cr_expect_eq(result_write(doc, path, &e), 0, "%s", e.msg);
	back = json_load_file(path, 0, NULL);
	cr_expect_eq(report_num(back, "n"), 2);
	cr_expect_eq(files_in(dir), 1, "no temporary file stays");

	/* Through a link, and over a device. */
	snprintf(link, sizeof(link), "%s/link", dir);
	cr_assert_eq(symlink("a.json", link), 0);
	cr_expect_eq(result_write(doc, link, &e), 0, "%s", e.msg);
	cr_assert_eq(lstat(link, &st), 0);
	cr_expect(S_ISLNK(st.st_mode));
	cr_expect_eq(result_write(doc, "/dev/null", &e), 0, "%s", e.msg);
	cr_assert_eq(stat("/dev/null", &st), 0);
	cr_expect(S_ISCHR(st.st_mode), "the device is still one");

	cr_expect_neq(result_write(doc, "/no/such/folder/x.json", &e), 0);
	cr_expect(strstr(e.msg, "/no/such/folder") && !strchr(e.msg, '\n'), "%s", e.msg);
	cr_expect_neq(result_write(doc, "/dev/full", &e), 0, "a full disk is an error");
	json_decref(back);
	json_decref(doc);
	remove_dir(dir);
}

/* Two runs with samples; the texts try to break out of the page. */
static json_t *document(enum run_status second)
{
	struct fleet_config c = {.guests = 2,
				 .mem_bytes = 64 * OB_MIB,
				 .workload = {"kv"},
				 .nworkloads = 1,
				 .sharing = {ksm_engine_find("off"), ksm_engine_find("hash")},
				 .nsharing = 2};
	struct run_result r[2] = {{.sharing = "off", .guests = 2},
				  {.sharing = "hash", .guests = 2}};
	json_t *doc;

	r[1].status = second;
	strcpy(r[1].note, "<script>alert('x')</script> & \"more\"");
	for (int i = 0; i < 2; i++) {
		r[i].configured_bytes = r[i].touched_bytes = 128 * OB_MIB;
		r[i].resident_bytes = (i ? 64 : 128) * OB_MIB;
		r[i].saved_inter = r[i].touched_bytes - r[i].resident_bytes;
		r[i].saved_bytes = (int64_t)r[i].saved_inter;
		r[i].ops_per_second = 1000;
		r[i].checked_pages = 1000;
		r[i].guest = calloc(2, sizeof(*r[i].guest));
		r[i].nsamples = 50;
		r[i].sample = calloc(50, sizeof(*r[i].sample));
		cr_assert(r[i].guest && r[i].sample);
		strcpy(r[i].guest[1].reason, "\"><img alt=x>");
		strcpy(r[i].guest[1].workload, "<b>kv");
		r[i].guest[1].share = (struct ksm_meter_share){
			.touched = 96 * OB_MIB, .resident = 48 * OB_MIB, .inter = 48 * OB_MIB};
		if (i)
			r[i].ksm.cost[KSM_COST_SHARE_RUN] = (struct ksm_cost){6000, 4};
		for (int s = 0; s < 50; s++) {
			r[i].sample[s].t = s / 10.0 - 1;
			r[i].sample[s].touched_bytes = r[i].touched_bytes;
			r[i].sample[s].resident_bytes = r[i].resident_bytes;
			r[i].sample[s].saved_inter = r[i].saved_inter;
		}
	}
	doc = result_json(&c, r, 2, second);
	run_result_free(&r[0]);
	run_result_free(&r[1]);
	return doc;
}

static char *report(const json_t *doc)
{
	char dir[64], path[128], *text;
	struct ob_err e = {""};

	make_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/report.html", dir);
	cr_assert_eq(report_write(doc, path, &e), 0, "%s", e.msg);
	text = slurp(path);
	remove_dir(dir);
	return text;
}

static bool have_gnuplot(void)
{
	return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

Test(report, page)
{
	json_t *doc = document(RUN_OK);
	char *html = report(doc);

	cr_expect(strstr(html, "<!doctype html>") == html);
	cr_expect(strstr(html, "2 guests of 64.0 MiB"));
	cr_expect(strstr(html, "50 % less"), "the verdict");
	cr_expect(strstr(html, "href=\"result.json\""));
	cr_expect(strstr(html, "</html>"));
	/* Nobody's text is markup. */
	cr_expect(!strstr(html, "<script") && !strstr(html, "<img"));
	cr_expect(strstr(html,
			 "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"));
	/* Nothing is fetched. */
	cr_expect(!strstr(html, "src=") && !strstr(html, "href=\"http") &&
		  !strstr(html, "url(http") && !strstr(html, "@import") && !strstr(html, "<link"));
	if (have_gnuplot()) {
		cr_expect(strstr(html, "<svg") && strstr(html, "</svg>") && !strstr(html, "<?xml"));
		/* The second plot has areas of what was saved, and a panel for what merged only. */
		cr_expect(strstr(html, "<h3>Over time</h3>\n<svg"));
		cr_expect(strstr(strstr(html, "<h3>Over time</h3>"), ">hash</text>"));
		cr_expect(!strstr(strstr(html, "<h3>Over time</h3>"), ">off</text>"));
	}
	/* Each guest's part, of the run that saved something. */
	cr_expect(strstr(html, "<h2>By guest</h2>"));
	cr_expect(strstr(html, "<td>96.0 MiB</td><td>48.0 MiB</td><td>48.0 MiB</td><td>0 B</td>"));
	cr_expect(!strstr(html, "<b>kv"));
	cr_expect(strstr(html, "<h2>What one operation costs</h2>"));
	cr_expect(strstr(html, "<th>page shared, in a run</th><td>1.5 us</td><td>4 times</td>"));
	cr_expect(!strstr(html, "<th>page hashed</th>"), "nothing was measured of it");
	free(html);
	json_decref(doc);
}

/* One row a domain; a document that says anything at all of them is a page still. */
Test(report, domains)
{
	json_t *doc = document(RUN_OK), *list, *run;
	char *html = report(doc);

	cr_expect(!strstr(html, "Sharing domains"), "there is one");
	free(html);
	run = json_array_get(json_object_get(doc, "runs"), 1);
	list = json_pack("[{s:s,s:[i,i],s:{s:i,s:i,s:i},s:i},{s:s,s:i},i]", "name", "<img>",
			 "guests", 0, 1, "saved", "zero", 0, "intra", 4096, "inter", 8192, "frames",
			 3, "name", "b", "guests", 7, 5);
	cr_assert(list);
	json_object_set_new(run, "domains", list);
	html = report(doc);
	cr_expect(strstr(html, "Sharing domains"));
	cr_expect(strstr(html, "&lt;img&gt;") && !strstr(html, "<img"));
	cr_expect(
		strstr(html, "<td>2</td><td>0 B</td><td>4.0 KiB</td><td>8.0 KiB</td><td>12.0 KiB"));
	free(html);
	json_decref(doc);
}

/* One row a kind; who merged nothing, or has none, is left out. */
Test(report, kinds)
{
	json_t *doc = document(RUN_OK), *list;
	char *html = report(doc);

	cr_expect(!strstr(html, "By kind of memory"), "nobody says");
	free(html);
	list = json_pack("[{s:s,s:i,s:i,s:i,s:i},{s:s,s:s},i]", "kind", "page-cache", "pages", 6,
			 "zero", 0, "intra", 4096, "inter", 8192, "kind", "<img>", "inter", "x", 5);
	cr_assert(list);
	json_object_set(json_array_get(json_object_get(doc, "runs"), 0), "kinds", list);
	json_object_set_new(json_array_get(json_object_get(doc, "runs"), 1), "kinds", list);
	html = report(doc);
	cr_expect(strstr(html, "By kind of memory"));
	cr_expect(strstr(html, "page cache</td><td>24.0 KiB</td><td>0 B</td><td>4.0 "
			       "KiB</td><td>8.0 KiB</td>"));
	cr_expect(strstr(html, "&lt;img&gt;") && !strstr(html, "<img"));
	free(html);
	json_decref(doc);
}

Test(report, failed_run)
{
	json_t *doc = document(RUN_FAILED);
	char *html = report(doc);

	cr_expect(strstr(html, "None of its figures may be used"));
	cr_expect(!strstr(html, "50 % less"), "no verdict from a run that failed");
	cr_expect(!strstr(html, "By guest") && !strstr(html, "one operation"));
	free(html);
	json_decref(doc);
}

/* gnuplot missing, or broken, costs the plot and nothing else. */
Test(report, without_gnuplot)
{
	json_t *doc = document(RUN_OK);
	char dir[64], path[128], *html;
	FILE *f;

	make_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/gnuplot", dir);
	cr_assert_eq(setenv("PATH", dir, 1), 0);
	/* No system() from here on: the PATH has nothing in it. */
	{
		struct ob_err e = {""};
		char page[128];

		snprintf(page, sizeof(page), "%s/p.html", dir);
		cr_expect_eq(report_write(doc, page, &e), 0, "%s", e.msg);
		html = slurp(page);
		cr_expect(strstr(html, "No plot: gnuplot is not installed"));
		cr_expect(strstr(html, "50 % less") && !strstr(html, "<svg"));
		free(html);

		f = fopen(path, "we");
		cr_assert(f);
		fputs("#!/bin/sh\necho '<svg>half'; exit 3\n", f);
		fclose(f);
		cr_assert_eq(chmod(path, 0700), 0);
		cr_expect_eq(report_write(doc, page, &e), 0, "%s", e.msg);
		html = slurp(page);
		cr_expect(strstr(html, "No plot: gnuplot failed"));
		free(html);
	}
	cr_assert_eq(setenv("PATH", "/usr/bin:/bin", 1), 0);
	remove_dir(dir);
	json_decref(doc);
}

/* A document that somebody else made: anything may be missing or of another type. */
Test(report, strange_documents)
{
	static const char *const docs[] = {
		"{\"schema\":\"overbook.result/1\"}",
		"{\"schema\":\"overbook.result/1\",\"runs\":7,\"config\":[],\"host\":3}",
		"{\"schema\":\"overbook.result/"
		"1\",\"runs\":[1,{},[],{\"samples\":[1,{\"t\":\"x\"},{\"t\":1}],"
		"\"sharing\":{},\"guest_list\":{}}],\"config\":{\"guests\":\"many\",\"workload\":["
		"1]}}",
		"{\"schema\":\"overbook.result/"
		"1\",\"runs\":[{\"saved\":{\"inter\":1},\"hash\":{\"costs\":{\"hash\":{"
		"\"measured\":1e300,\"each_ns\":1e300},\"sync\":7,\"zero\":{\"measured\":3}}},"
		"\"guest_list\":[7,{\"share\":{\"touched_bytes\":1e300,\"saved\":{\"inter\":"
		"-1e300}}},{\"share\":[]}],\"samples\":[{\"t\":0,\"saved\":{\"inter\":1e308,"
		"\"intra\":1e308}},{\"t\":1,\"saved\":3}]}]}",
		"{\"schema\":\"overbook.result/"
		"1\",\"runs\":[{\"sharing\":\"off\",\"resident_bytes\":1e300,"
		"\"saved\":{\"zero\":-5},\"samples\":[{\"t\":1e308,\"resident_bytes\":1e308},{"
		"\"t\":0}]}]}",
	};
	struct ob_err e = {""};
	json_t *doc;

	for (size_t i = 0; i < OB_ARRAY_SIZE(docs); i++) {
		char *html;

		doc = json_loads(docs[i], 0, NULL);
		cr_assert(doc, "%s", docs[i]);
		html = report(doc);
		cr_expect(strstr(html, "</html>"));
		free(html);
		json_decref(doc);
	}
	doc = json_pack("{s:s}", "schema", "overbook.result/2");
	cr_expect_neq(report_write(doc, "/dev/null", &e), 0);
	cr_expect(strstr(e.msg, "overbook.result/1"), "%s", e.msg);
	json_decref(doc);
}

Test(report, doctor_without_kvm)
{
	struct doctor d = {0};
	char text[4096];
	FILE *f = fmemopen(text, sizeof(text), "w");

	doctor_kvm(&d, "/no/such/kvm");
	cr_expect_eq(d.n, 1);
	cr_expect_eq(d.check[0].state, DOCTOR_LACK);
	cr_expect(!doctor_ready(&d));
	cr_expect(strstr(d.check[0].advice, "modprobe"));
	doctor_print(f, &d);
	fclose(f);
	cr_expect(strstr(text, "REQUIRED") && strstr(text, "cannot run guests"));
}

/* Each lack says what it is for and what to do; only a required one keeps the main job from
 * running. */
Test(report, doctor_here)
{
	struct doctor d = {0};
	json_t *doc;
	bool ready = true;

	doctor_kvm(&d, "/dev/kvm");
	doctor_memory(&d);
	doctor_settings(&d);
	cr_expect_gt(d.n, 10);
	for (unsigned int i = 0; i < d.n; i++) {
		const struct doctor_check *c = &d.check[i];

		cr_expect(c->name[0] && c->found[0] && c->need[0], "check %u", i);
		cr_expect(c->state != DOCTOR_LACK || c->advice[0], "no advice for %s", c->name);
		for (unsigned int j = 0; j < i; j++)
			cr_expect_str_neq(c->name, d.check[j].name);
		ready &= !(c->required && c->state == DOCTOR_LACK);
	}
	doc = doctor_json(&d);
	cr_expect_str_eq(report_str(doc, "schema"), "overbook.doctor/1");
	cr_expect_eq(json_is_true(report_get(doc, "ready")), ready);
	cr_expect_eq(json_array_size(report_get(doc, "checks")), d.n);
	json_decref(doc);
}

Test(report, bench_on_disk)
{
	struct bench *b = calloc(1, sizeof(*b));
	char dir[64], path[160], below[128];
	struct ob_err e = {""};
	json_t *doc;

	cr_assert(b);
	make_dir(dir, sizeof(dir));
	snprintf(below, sizeof(below), "%s/results/bench", dir);
	snprintf(path, sizeof(path), "%s/sample.json", below);
	strcpy(b->name, "sample");
	bench_add(bench_figure(b, "boot", "ms", "QEMU"), 1, 2);
	cr_expect_eq(bench_finish(b, below, &e), 0, "%s", e.msg);
	doc = json_load_file(path, 0, NULL);
	cr_expect_str_eq(report_str(doc, "schema"), "overbook.bench/1");
	json_decref(doc);
	remove_dir(dir);
	free(b);
}
