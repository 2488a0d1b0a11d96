/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_image.c: mkimage as a person or the Makefile runs it: what it writes is checked against the
 * files it was made of, and what it refuses leaves nothing behind. Needs the folder of the build in
 * OB_BUILD.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workloads/gen.h"
#include "workloads/image.h"

#define PAGE	 4096
#define NAME_LEN 320
#define ARGS_MAX 12

extern char **environ;

static char dir[] = "/tmp/overbook-image-XXXXXX";
static char mkimage[NAME_LEN], out[NAME_LEN], from[NAME_LEN], errors[NAME_LEN];

static void setup(void)
{
	const char *build = getenv("OB_BUILD");

	snprintf(mkimage, sizeof(mkimage), "%s/mkimage", build ? build : "build");
	if (access(mkimage, X_OK))
		return;
	cr_assert(mkdtemp(dir));
	snprintf(from, sizeof(from), "%s/from", dir);
	snprintf(out, sizeof(out), "%s/out.img", dir);
	snprintf(errors, sizeof(errors), "%s/errors", dir);
	cr_assert_eq(mkdir(from, 0755), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void teardown(void)
{
	if (from[0])
		nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(mkimage, .init = setup, .fini = teardown);

#define NEED_MKIMAGE()                                                              \
	do {                                                                        \
		if (!from[0])                                                       \
			cr_skip_test("mkimage is not built (OB_BUILD says where)"); \
	} while (0)

/* Run mkimage; standard error goes to the file @errors. Returns its exit status. */
static int run(const char *const args[])
{
	posix_spawn_file_actions_t fa;
	char *argv[ARGS_MAX] = {NULL};
	int status;
	pid_t pid;

	for (size_t i = 0; args[i]; i++) {
		cr_assert(i < ARGS_MAX - 1);
		argv[i] = strdup(args[i]);
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	cr_assert_eq(posix_spawn(&pid, mkimage, &fa, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&fa);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status));
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
	return WEXITSTATUS(status);
}

static void *slurp(const char *path, size_t *len)
{
	struct stat st;
	FILE *f = fopen(path, "r");

	cr_assert(f, "%s: %s", path, strerror(errno));
	cr_assert_eq(fstat(fileno(f), &st), 0);
	char *p = malloc((size_t)st.st_size + 1);

	*len = fread(p, 1, (size_t)st.st_size, f);
	p[*len] = 0;
	fclose(f);
	return p;
}

/* One line, naming the program. */
static void one_line_of_error(void)
{
	size_t len;
	char *text = slurp(errors, &len);

	cr_assert(len > 10 && !strncmp(text, "mkimage: ", 9), "%s", text);
	cr_assert_eq(strchr(text, '\n'), text + len - 1, "%s", text);
	free(text);
}

static unsigned int entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

struct input {
	const char *name;
	size_t len;
};

/* 768 pages together, the biggest cut to 512: exactly 3 MiB, so all must be in the image. */
static const struct input inputs[] = {
	{"big", (3 << 20) + 5},		 {"page", PAGE}, {"byte", 1}, {"five", 5000},
	{"sub", (768 - 512 - 4) * PAGE},
};
#define NINPUTS (sizeof(inputs) / sizeof(inputs[0]))

/* Content of input @k from its number, so that it need not be kept. */
static uint8_t input_byte(size_t k, size_t i)
{
	return (uint8_t)(gen_raw(k + 1, (unsigned int)(i / 8)) >> (i % 8 * 8));
}

static void make_inputs(void)
{
	char path[2 * NAME_LEN], other[2 * NAME_LEN];

	snprintf(path, sizeof(path), "%s/folder", from);
	cr_assert_eq(mkdir(path, 0755), 0);
	for (size_t k = 0; k < NINPUTS; k++) {
		snprintf(path, sizeof(path), "%s/%s%s", from, k == 4 ? "folder/" : "",
			 inputs[k].name);
		FILE *f = fopen(path, "w");

		cr_assert(f);
		for (size_t i = 0; i < inputs[k].len; i++)
			fputc(input_byte(k, i), f);
		cr_assert_eq(fclose(f), 0);
	}
	/* None of these may be in it: an empty file, a second name, a symbolic link, a pipe. */
	snprintf(path, sizeof(path), "%s/empty", from);
	fclose(fopen(path, "w"));
	snprintf(path, sizeof(path), "%s/five", from);
	snprintf(other, sizeof(other), "%s/vier", from);
	cr_assert_eq(link(path, other), 0);
	snprintf(other, sizeof(other), "%s/link", from);
	cr_assert_eq(symlink("five", other), 0);
	snprintf(other, sizeof(other), "%s/pipe", from);
	cr_assert_eq(mkfifo(other, 0644), 0);
}

Test(mkimage, image_holds_the_files)
{
	const char *const argv[] = {mkimage, "-o", out, "--mb", "3", "--from", from, NULL};
	uint64_t pages_seen = 0, sum = 0;
	size_t len;

	NEED_MKIMAGE();
	make_inputs();
	cr_assert_eq(run(argv), 0);
	cr_assert_eq(entries(dir), 3); /* from, out.img, errors */

	uint8_t *img = slurp(out, &len);
	const struct image_super *sb = (const struct image_super *)img;
	const struct image_file *file = (const struct image_file *)(img + PAGE * sb->files_page);
	const uint64_t *sums = (const uint64_t *)(img + PAGE * sb->sums_page);

	cr_assert_eq(sb->magic, IMAGE_MAGIC);
	cr_assert_eq(sb->version, IMAGE_VERSION);
	cr_assert_eq(sb->total_pages * PAGE, len);
	cr_assert_eq(sb->nfiles, NINPUTS);
	cr_assert_eq(sb->data_pages, 768);
	cr_assert_eq(sb->data_page + sb->data_pages, sb->total_pages);
	for (uint64_t p = sb->files_page; p < sb->data_page; p++)
		sum = image_fold(sum, image_checksum((const uint64_t *)(img + p * PAGE)));
	cr_assert_eq(sum, sb->super_sum);

	for (uint64_t n = 0; n < sb->nfiles; n++) {
		size_t k = 0;
		const char *slash = strrchr(file[n].name, '/');

		cr_assert(slash);
		while (k < NINPUTS && strcmp(inputs[k].name, slash + 1))
			k++;
		cr_assert(k < NINPUTS, "%s", file[n].name);
		cr_assert_eq(file[n].first, pages_seen);
		pages_seen += file[n].pages;
		uint8_t *data = img + (sb->data_page + file[n].first) * PAGE;
		size_t take = inputs[k].len < (2 << 20) ? inputs[k].len : (2 << 20);

		cr_assert_eq(file[n].pages, (take + PAGE - 1) / PAGE);
		for (size_t i = 0; i < file[n].pages * PAGE; i++)
			cr_assert_eq(data[i], i < take ? input_byte(k, i) : 0, "%s at %zu",
				     inputs[k].name, i);
		for (uint64_t p = 0; p < file[n].pages; p++)
			cr_assert_eq(sums[file[n].first + p],
				     image_checksum((const uint64_t *)(data + p * PAGE)));
	}
	cr_assert_eq(pages_seen, sb->data_pages);
	free(img);
}

Test(mkimage, same_files_same_bytes)
{
	char again[NAME_LEN];
	const char *const argv[] = {mkimage, "-o", out, "--mb", "2", "--from", from, NULL};
	const char *const argv2[] = {mkimage, "--from", from, "--mb", "2", "-o", again, NULL};
	size_t a_len, b_len;

	NEED_MKIMAGE();
	snprintf(again, sizeof(again), "%s/again.img", dir);
	make_inputs();
	cr_assert_eq(run(argv), 0);
	cr_assert_eq(run(argv2), 0);
	void *a = slurp(out, &a_len), *b = slurp(again, &b_len);

	cr_assert_eq(a_len, b_len);
	cr_assert_eq(memcmp(a, b, a_len), 0);
	free(a);
	free(b);
}

Test(mkimage, too_little_is_an_error)
{
	const char *const argv[] = {mkimage, "-o", out, "--mb", "4", "--from", from, NULL};

	NEED_MKIMAGE();
	make_inputs();
	cr_assert_eq(run(argv), 1);
	one_line_of_error();
	cr_assert_eq(entries(dir), 2); /* from, errors */
}

Test(mkimage, no_place_to_write_is_an_error)
{
	char nowhere[NAME_LEN + 16];
	const char *const argv[] = {mkimage, "-o", nowhere, "--mb", "1", "--from", from, NULL};

	NEED_MKIMAGE();
	make_inputs();
	snprintf(nowhere, sizeof(nowhere), "%s/no/such.img", dir);
	cr_assert_eq(run(argv), 1);
	one_line_of_error();
	/* A folder in the place of the image: found at the rename, and cleaned up after. */
	snprintf(nowhere, sizeof(nowhere), "%s/from/folder", dir);
	unsigned int before = entries(from);

	cr_assert_eq(run(argv), 1);
	one_line_of_error();
	cr_assert_eq(entries(from), before);
}

Test(mkimage, bad_usage_is_one_line_and_2)
{
	const char *const bad[][ARGS_MAX] = {
		{mkimage, NULL},
		{mkimage, "-o", NULL},
		{mkimage, "-o", "", NULL},
		{mkimage, "-o", out, "--mb", "0", NULL},
		{mkimage, "-o", out, "--mb", "-1", NULL},
		{mkimage, "-o", out, "--mb", "3x", NULL},
		{mkimage, "-o", out, "--mb", "99999999999999999999", NULL},
		{mkimage, "-o", out, "--frobnicate", NULL},
		{mkimage, "-o", out, "extra", NULL},
		{mkimage, "-o", out, "--from", "/nonexistent/folder", NULL},
	};

	NEED_MKIMAGE();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(run(bad[i]), 2, "case %zu", i);
		one_line_of_error();
		cr_assert_eq(access(out, F_OK), -1);
	}
}
