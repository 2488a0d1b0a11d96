/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_content.c: what merged pages hold, by the origins of their frames: files of an image of ours,
 * ranges of another's, the kernel, and what nobody knows; and images that make no sense.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/content.h"
#include "harness/report.h"
#include "workloads/image.h"

#define BLOCKS 40
#define DATA   4

static char dir[64];

static void make_dir(void)
{
	strcpy(dir, "/tmp/ob-content-XXXXXX");
	cr_assert(mkdtemp(dir));
	cr_assert(!chdir(dir));
}

static void remove_dir(void)
{
	unlink("a.img");
	unlink("b.img");
	cr_assert(!chdir("/"));
	cr_assert(!rmdir(dir));
}

TestSuite(content, .init = make_dir, .fini = remove_dir);

static void put(const char *path, const void *data, size_t len, off_t at)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, data, len, at), (ssize_t)len);
	close(fd);
}

/* Files "/x/one" of 8 blocks and "two" of 20, not in order, the last blocks in none. */
static void put_image(uint64_t nfiles, uint64_t files_page)
{
	const struct image_super sb = {
		.magic = IMAGE_MAGIC,
		.version = IMAGE_VERSION,
		.total_pages = BLOCKS,
		.nfiles = nfiles,
		.files_page = files_page,
		.data_page = DATA,
		.data_pages = BLOCKS - DATA,
	};
	const struct image_file file[] = {{8, 20, "two"}, {0, 8, "/x/one"}};

	put("a.img", "", 1, BLOCKS * OB_PAGE_SIZE - 1);
	put("a.img", &sb, sizeof(sb), 0);
	put("a.img", file, sizeof(file), OB_PAGE_SIZE);
}

static uint64_t at(const struct content_file *f, uint64_t block)
{
	return ksm_origin(f->cls, f->digest, block);
}

Test(content, a_file_is_known_by_what_it_is)
{
	struct stat a, b;
	uint32_t was;

	put("a.img", "x", 1, 0);
	put("b.img", "x", 1, 0);
	cr_assert(!stat("a.img", &a) && !stat("b.img", &b));
	was = content_digest(&a);
	cr_assert_eq(content_digest(&a), was);
	cr_assert_lt(was, 1u << KSM_ORIGIN_FILE_BITS);
	cr_assert_neq(content_digest(&b), was, "another file");
	a.st_size++;
	cr_assert_neq(content_digest(&a), was, "another size");
	a.st_size--;
	a.st_mtim.tv_nsec++;
	cr_assert_neq(content_digest(&a), was, "written since");
}

Test(content, groups_by_file_most_saved_first)
{
	struct run_content out[RUN_CONTENT_MAX];
	struct content_file file[2];

	put_image(2, 1);
	put("b.img", "", 1, 0);
	content_open(&file[0], KSM_ORIGIN_DISK, "a.img");
	content_open(&file[1], KSM_ORIGIN_KERNEL, "b.img");
	cr_assert_eq(file[0].nparts, 2);
	struct content_frame frame[] = {
		{at(&file[0], DATA + 8), 2},		       /* two */
		{at(&file[0], DATA + 27), 5},		       /* two */
		{at(&file[0], DATA + 7), 9},		       /* one */
		{at(&file[0], DATA + 28), 4},		       /* in no file */
		{at(&file[0], 2), 3},			       /* tables */
		{at(&file[1], 256), 2},			       /* kernel */
		{at(&file[1], 999), 2},			       /* kernel */
		{ksm_origin(KSM_ORIGIN_DISK, 12345, 300), 20}, /* not ours */
		{ksm_origin(KSM_ORIGIN_DISK, 12345, 511), 20}, /* the same MiB */
		{ksm_origin(KSM_ORIGIN_DISK, 12345, 512), 1},  /* the next one */
		{KSM_ORIGIN_NONE, 7},			       /* not known */
	};

	cr_assert_eq(content_top(file, 2, frame, OB_ARRAY_SIZE(frame), out), 8);
	static const struct {
		const char *what, *image;
		uint64_t frames, pages;
	} want[] = {
		{"MiB 1", "file 003039", 2, 40},
		{"/x/one", "a.img", 1, 9},
		{"not known", "", 1, 7},
		{"two", "a.img", 2, 7},
		{"behind the last file", "a.img", 1, 4},
		{"kernel", "b.img", 2, 4},
		{"tables of the image", "a.img", 1, 3},
		{"MiB 2", "file 003039", 1, 1},
	};
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(want); i++) {
		unsigned int k = 0;

		while (k < 8 && strcmp(out[k].what, want[i].what))
			k++;
		cr_assert_lt(k, 8, "no %s", want[i].what);
		cr_assert_str_eq(out[k].image, want[i].image);
		cr_assert_eq(out[k].frames, want[i].frames);
		cr_assert_eq(out[k].pages, want[i].pages);
		cr_assert_eq(out[k].bytes_saved, (want[i].pages - want[i].frames) * OB_PAGE_SIZE);
	}
	for (unsigned int k = 1; k < 8; k++)
		cr_assert_leq(out[k].bytes_saved, out[k - 1].bytes_saved);
	content_close(&file[0]);
	content_close(&file[1]);
}

/* More groups than lines: the last line takes the rest, and nothing is lost. */
Test(content, the_rest_is_one_line)
{
	struct run_content out[RUN_CONTENT_MAX];
	struct content_frame frame[40];
	uint64_t pages = 0;

	for (unsigned int groups = 16; groups <= 40; groups++) {
		for (unsigned int i = 0; i < groups; i++)
			frame[i] = (struct content_frame){ksm_origin(KSM_ORIGIN_DISK, i, 0), i + 1};
		cr_assert_eq(content_top(NULL, 0, frame, groups, out),
			     OB_MIN(groups, RUN_CONTENT_MAX));
		pages = 0;
		for (unsigned int i = 0; i < OB_MIN(groups, RUN_CONTENT_MAX); i++)
			pages += out[i].pages;
		cr_assert_eq(pages, groups * (groups + 1) / 2);
	}
	cr_assert_str_eq(out[RUN_CONTENT_MAX - 1].what, "others (24)");
	cr_assert_eq(content_top(NULL, 0, frame, 0, out), 0);
}

Test(content, images_that_make_no_sense_have_no_files)
{
	static const uint64_t bad[][2] = {
		{0, 1}, {UINT64_MAX, 1}, {2, UINT64_MAX}, {2, BLOCKS + 1}, {1u << 21, 1}};
	struct content_file f;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		put_image(bad[i][0], bad[i][1]);
		content_open(&f, KSM_ORIGIN_DISK, "a.img");
		cr_assert_eq(f.nparts, 0);
		content_close(&f);
	}
	/* The table ends with the file: what is there counts. */
	put_image(1 << 20, BLOCKS - 1);
	content_open(&f, KSM_ORIGIN_DISK, "a.img");
	cr_assert_leq(f.nparts, 64);
	content_close(&f);
	content_open(&f, KSM_ORIGIN_DISK, "none.img");
	cr_assert(f.nparts == 0 && f.digest == 0);
	cr_assert_str_eq(f.name, "none.img");
	content_close(&f);
}

Test(content, shows_in_result_table_and_report)
{
	struct fleet_config c = {
		.guests = 2, .mem_bytes = OB_MIB, .workload = {"kv"}, .nworkloads = 1};
	struct run_result r = {
		.sharing = "hash",
		.ncontent = 3,
		.content = {{"not known", "", 9, 90, 81 * OB_PAGE_SIZE},
			    {"/lib/a<b\x1b", "guest.img", 1, 11, 10 * OB_PAGE_SIZE},
			    {"kernel", "vmlinux", 2, 4, 2 * OB_PAGE_SIZE}},
	};
	json_t *doc = result_json(&c, &r, 1, RUN_OK), *o;
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	o = json_array_get(
		report_get(json_array_get(json_object_get(doc, "runs"), 0), "top_content"), 1);
	cr_assert_eq(report_num(o, "bytes_saved"), 40960);
	cr_assert_eq(report_num(o, "frames"), 1);
	cr_assert_str_eq(report_str(o, "image"), "guest.img");
	f = open_memstream(&text, &len);
	table_print(f, &c, &r, 1);
	report_content(f, doc);
	fclose(f);
	cr_assert(strstr(text, "most shared: a<b? 40.0 KiB, kernel 8.0 KiB\n"), "%s", text);
	cr_assert(strstr(text, "/lib/a&lt;b"), "%s", text);
	cr_assert(strstr(text, "<td>9</td><td>90</td><td>324.0 KiB</td>"), "%s", text);
	free(text);
	json_decref(doc);
	/* A run that failed says nothing. */
	r.status = RUN_FAILED;
	doc = result_json(&c, &r, 1, RUN_FAILED);
	cr_assert(json_is_null(
		report_get(json_array_get(json_object_get(doc, "runs"), 0), "top_content")));
	f = open_memstream(&text, &len);
	table_print(f, &c, &r, 1);
	report_content(f, doc);
	fclose(f);
	cr_assert(!strstr(text, "most shared"));
	cr_assert(!strstr(text, "Top shared"));
	free(text);
	json_decref(doc);
}
