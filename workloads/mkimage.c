/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkimage.c: builds the guests' disk image (image.h) from real files of this machine, so that what
 * the guests keep in their page caches compresses, repeats and shares as programs and libraries do.
 *
 * The same files give the same bytes. Regular files are collected folder by folder, each inode once
 * (under its first name in sorted order), then put into a fixed pseudo-random order by a hash of
 * the path, so that small and big files, programs and libraries mix, and taken until the wanted
 * amount of data is reached. A file counts with at most its first 2 MiB: no single file makes up
 * the image.
 *
 *	mkimage -o FILE [--mb N] [--from DIR]...
 *
 * Exit status: 0 done, 1 the machine has too little or an error reading or writing, 2 bad usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workloads/image.h"

#define PAGE	     4096ULL
#define FILE_MAX     (2ULL << 20) /* bytes of one file that are taken */
#define MB_DEFAULT   56
#define MB_MAX	     65536
#define FROM_MAX     64
#define EXIT_USAGE   2
#define PAGES_PER_MB 256

struct source {
	char *path;
	uint64_t dev, ino;
	uint64_t hash;
	uint64_t pages;
};

struct sources {
	struct source *v;
	size_t n, cap;
};

static int complain(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int complain(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("mkimage: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

static void *must_alloc(void *p)
{
	if (!p) {
		complain(1, "out of memory");
		exit(1);
	}
	return p;
}

/* FNV-1a, then mixed: a fixed order that has nothing to do with names. */
static uint64_t path_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
	h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ULL;
	return h ^ (h >> 32);
}

static int by_inode(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return strcmp(x->path, y->path);
}

static int by_hash(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return strcmp(x->path, y->path);
}

/* Add all readable regular files below @dir. A folder that is not there adds nothing. */
static int collect(struct sources *s, char *dir)
{
	char *const roots[] = {dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	const FTSENT *f;

	if (!fts)
		return complain(1, "cannot walk %s: %s", dir, strerror(errno));
	while ((f = fts_read(fts))) {
		if (f->fts_info != FTS_F || !S_ISREG(f->fts_statp->st_mode) ||
		    f->fts_statp->st_size <= 0 || access(f->fts_accpath, R_OK))
			continue;
		if (s->n == s->cap) {
			s->cap = s->cap ? s->cap * 2 : 4096;
			s->v = must_alloc(realloc(s->v, s->cap * sizeof(*s->v)));
		}
		uint64_t bytes = (uint64_t)f->fts_statp->st_size;

		if (bytes > FILE_MAX)
			bytes = FILE_MAX;
		s->v[s->n++] = (struct source){
			.path = must_alloc(strdup(f->fts_path)),
			.dev = f->fts_statp->st_dev,
			.ino = f->fts_statp->st_ino,
			.hash = path_hash(f->fts_path),
			.pages = (bytes + PAGE - 1) / PAGE,
		};
	}
	fts_close(fts);
	return 0;
}

/* Leave each inode once. */
static void drop_duplicates(struct sources *s)
{
	size_t out = 0;

	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), by_inode);
	for (size_t i = 0; i < s->n; i++) {
		if (out && s->v[out - 1].dev == s->v[i].dev && s->v[out - 1].ino == s->v[i].ino)
			free(s->v[i].path);
		else
			s->v[out++] = s->v[i];
	}
	s->n = out;
}

static uint64_t sum_pages(const struct sources *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += s->v[i].pages;
	return sum;
}

static int write_all(int fd, const void *buf, size_t len, off_t at)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -(n < 0 ? errno : EIO);
		p += n;
		len -= (size_t)n;
		at += n;
	}
	return 0;
}

/* The first bytes of a file into @buf, which holds @len; the rest of it is zero. */
static int read_file(const char *path, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t fill = 0;
	int err = 0;

	if (fd < 0)
		return -errno;
	memset(buf, 0, len);
	while (fill < len) {
		ssize_t n = read(fd, (char *)buf + fill, len - fill);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		if (n <= 0)
			break;
		fill += (size_t)n;
	}
	close(fd);
	return err;
}

/* Write the image of the first @nfiles of @s to @fd. */
static int write_image(int fd, const struct sources *s, size_t nfiles, const char *out)
{
	struct image_super sb = {.magic = IMAGE_MAGIC, .version = IMAGE_VERSION, .nfiles = nfiles};

	for (size_t i = 0; i < nfiles; i++)
		sb.data_pages += s->v[i].pages;
	uint64_t file_pages = (nfiles * sizeof(struct image_file) + PAGE - 1) / PAGE;
	uint64_t sum_pages_ = (sb.data_pages * sizeof(uint64_t) + PAGE - 1) / PAGE;

	sb.files_page = 1;
	sb.sums_page = sb.files_page + file_pages;
	sb.data_page = sb.sums_page + sum_pages_;
	sb.total_pages = sb.data_page + sb.data_pages;

	/* Both tables in one piece, as they lie in the image. */
	uint64_t *tables = must_alloc(calloc(file_pages + sum_pages_, PAGE));
	struct image_file *files = (struct image_file *)tables;
	uint64_t *sums = tables + file_pages * (PAGE / 8);
	uint64_t *buf = must_alloc(malloc(FILE_MAX));
	uint64_t at = 0;
	int err = 0;

	for (size_t i = 0; i < nfiles && !err; i++) {
		const struct source *f = &s->v[i];
		size_t len = strlen(f->path);
		const char *tail = f->path + (len >= IMAGE_NAME ? len - (IMAGE_NAME - 1) : 0);

		err = read_file(f->path, buf, f->pages * PAGE);
		if (err) {
			complain(1, "cannot read %s: %s", f->path, strerror(-err));
			break;
		}
		files[i].first = at;
		files[i].pages = f->pages;
		memcpy(files[i].name, tail, strlen(tail));
		for (uint64_t p = 0; p < f->pages; p++)
			sums[at + p] = image_checksum(buf + p * (PAGE / 8));
		err = write_all(fd, buf, f->pages * PAGE, (off_t)((sb.data_page + at) * PAGE));
		if (err)
			complain(1, "cannot write %s: %s", out, strerror(-err));
		at += f->pages;
	}
	for (uint64_t p = 0; p < file_pages + sum_pages_; p++)
		sb.super_sum = image_fold(sb.super_sum, image_checksum(tables + p * (PAGE / 8)));
	if (!err) {
		memset(buf, 0, PAGE);
		memcpy(buf, &sb, sizeof(sb));
		err = write_all(fd, buf, PAGE, 0);
		if (!err)
			err = write_all(fd, tables, (file_pages + sum_pages_) * PAGE,
					(off_t)(sb.files_page * PAGE));
		if (err)
			complain(1, "cannot write %s: %s", out, strerror(-err));
	}
	free(buf);
	free(tables);
	return err ? 1 : 0;
}

/* Write beside @out and rename, so that an image is whole or not there. */
static int make_image(const struct sources *s, size_t nfiles, const char *out)
{
	char tmp[PATH_MAX];
	int n = snprintf(tmp, sizeof(tmp), "%s.tmp%ld", out, (long)getpid());

	if (n < 0 || (size_t)n >= sizeof(tmp))
		return complain(EXIT_USAGE, "-o: the name is too long");
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return complain(1, "cannot create %s: %s", tmp, strerror(errno));
	int status = write_image(fd, s, nfiles, out);

	if (close(fd) && !status)
		status = complain(1, "cannot write %s: %s", out, strerror(errno));
	if (!status && rename(tmp, out))
		status = complain(1, "cannot rename to %s: %s", out, strerror(errno));
	if (status)
		unlink(tmp);
	return status;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int main(int argc, char **argv)
{
	/* Programs and libraries first; the rest only when they are too few. No folder lies within
	 * another of an earlier step for nothing: inodes are taken once. */
	static const char *const steps[][3] = {
		{"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/sbin"},
		{"/usr/lib", "/usr/libexec", NULL},
		{"/usr/share", NULL, NULL},
	};
	static const struct option longopts[] = {
		{"output", required_argument, NULL, 'o'},
		{"mb", required_argument, NULL, 'm'},
		{"from", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *out = NULL;
	char *from[FROM_MAX];
	unsigned int nfrom = 0;
	uint64_t want = MB_DEFAULT * PAGES_PER_MB;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":o:m:f:h", longopts, NULL)) != -1) {
		char *end;

		switch (c) {
		case 'o':
			out = optarg;
			break;
		case 'm':
			errno = 0;
			want = strtoul(optarg, &end, 10);
			if (errno || *end || *optarg < '0' || *optarg > '9' || want < 1 ||
			    want > MB_MAX)
				return complain(EXIT_USAGE, "--mb %s: give a number from 1 to %d",
						optarg, MB_MAX);
			want *= PAGES_PER_MB;
			break;
		case 'f':
			if (nfrom == FROM_MAX)
				return complain(EXIT_USAGE, "--from: at most %d folders", FROM_MAX);
			if (!is_dir(optarg))
				return complain(EXIT_USAGE, "--from %s: not a folder", optarg);
			from[nfrom++] = optarg;
			break;
		case 'h':
			puts("usage: mkimage -o FILE [--mb N] [--from DIR]...\n"
			     "Build a guests' disk image of N MiB (default 56) from the programs "
			     "and "
			     "libraries of this\nmachine, or from the files below the folders "
			     "given.");
			return 0;
		case ':':
			return complain(EXIT_USAGE, "%s needs a value (try --help)",
					argv[optind - 1]);
		default:
			return complain(EXIT_USAGE, "unknown option %s (try --help)",
					argv[optind - 1]);
		}
	}
	if (optind < argc)
		return complain(EXIT_USAGE, "unexpected argument %s (try --help)", argv[optind]);
	if (!out || !*out)
		return complain(EXIT_USAGE, "where to? give -o FILE (try --help)");

	struct sources s = {0};
	unsigned int nsteps = sizeof(steps) / sizeof(steps[0]);
	int status = 0;

	for (unsigned int i = 0; i < nfrom && !status; i++)
		status = collect(&s, from[i]);
	drop_duplicates(&s);
	for (unsigned int i = 0; !nfrom && !status && i < nsteps && sum_pages(&s) < want; i++) {
		for (unsigned int k = 0; k < 3 && steps[i][k] && !status; k++) {
			char dir[64];

			snprintf(dir, sizeof(dir), "%s", steps[i][k]);
			if (is_dir(dir))
				status = collect(&s, dir);
		}
		drop_duplicates(&s);
	}
	if (!status && sum_pages(&s) < want)
		status = complain(
			1, "only %llu MiB of files found, %llu wanted: ask for less with --mb",
			(unsigned long long)(sum_pages(&s) / PAGES_PER_MB),
			(unsigned long long)(want / PAGES_PER_MB));
	if (!status) {
		uint64_t have = 0;
		size_t n = 0;

		qsort(s.v, s.n, sizeof(*s.v), by_hash);
		while (have < want)
			have += s.v[n++].pages;
		status = make_image(&s, n, out);
	}
	for (size_t i = 0; i < s.n; i++)
		free(s.v[i].path);
	free(s.v);
	return status;
}
