/* SPDX-License-Identifier: Apache-2.0 */
/*
 * content.c: which files the merged pages come from.
 *
 * An origin names a block of a file by a digest of the file's identity. Of the files that a run was
 * started with we know the digest, and of a disk image as mkimage writes it the files inside. Blocks
 * of other images are put together by the megabyte; a kernel is one thing. Frames whose origin nobody
 * told were found by the scan: their content may come from anywhere.
 */
#include "harness/content.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workloads/image.h"

#define RANGE_BLOCKS (OB_MIB / OB_PAGE_SIZE)
#define MAX_PARTS    (1u << 20)
#define PART_TABLES  (KSM_ORIGIN_BLOCKS - 1) /* of an image of ours: before its data */
#define PART_NONE    (KSM_ORIGIN_BLOCKS - 2) /* behind its last file */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint32_t content_digest(const struct stat *st)
{
	uint64_t x = mix((uint64_t)st->st_dev + 1);

	x = mix(x + (uint64_t)st->st_ino);
	x = mix(x + (uint64_t)st->st_size);
	x = mix(x + (uint64_t)st->st_mtim.tv_sec);
	x = mix(x + (uint64_t)st->st_mtim.tv_nsec);
	return (uint32_t)(x >> (64 - KSM_ORIGIN_FILE_BITS));
}

static int by_first(const void *a, const void *b)
{
	const struct content_part *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* The file table of an image of ours; of anything else, or of one that makes no sense, nothing. */
static void read_parts(struct content_file *f, int fd, uint64_t blocks)
{
	struct image_super sb;
	struct image_file file;
	ssize_t r = pread(fd, &sb, sizeof(sb), 0);

	if (r != (ssize_t)sizeof(sb) || sb.magic != IMAGE_MAGIC || sb.version != IMAGE_VERSION ||
	    sb.nfiles > MAX_PARTS || sb.files_page > blocks || sb.data_page > blocks || !sb.nfiles)
		return;
	f->part = calloc(sb.nfiles, sizeof(*f->part));
	OB_ASSERT(f->part);
	f->data_page = sb.data_page;
	for (uint64_t i = 0; i < sb.nfiles; i++) {
		struct content_part *p = &f->part[f->nparts];

		r = pread(fd, &file, sizeof(file),
			  (off_t)(sb.files_page * OB_PAGE_SIZE + i * sizeof(file)));
		if (r != (ssize_t)sizeof(file) || file.first > blocks || file.pages > blocks)
			break;
		p->first = sb.data_page + file.first;
		p->pages = file.pages;
		snprintf(p->name, sizeof(p->name), "%.*s", IMAGE_NAME, file.name);
		f->nparts++;
	}
	qsort(f->part, f->nparts, sizeof(*f->part), by_first);
}

void content_open(struct content_file *f, enum ksm_origin_class cls, const char *path)
{
	const char *base = strrchr(path, '/');
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*f = (struct content_file){.cls = cls};
	snprintf(f->name, sizeof(f->name), "%s", base ? base + 1 : path);
	if (fd < 0)
		return;
	if (!fstat(fd, &st)) {
		f->digest = content_digest(&st);
		if (cls == KSM_ORIGIN_DISK)
			read_parts(f, fd, (uint64_t)st.st_size / OB_PAGE_SIZE);
	}
	close(fd);
}

void content_close(struct content_file *f)
{
	free(f->part);
	f->part = NULL;
	f->nparts = 0;
}

static const struct content_file *file_of(const struct content_file *file, unsigned int n,
					  uint64_t origin)
{
	for (unsigned int i = 0; i < n; i++)
		if (file[i].cls == KSM_ORIGIN_CLASS(origin) &&
		    file[i].digest == KSM_ORIGIN_FILE(origin))
			return &file[i];
	return NULL;
}

/* Which part of an image a block is of. */
static uint64_t part_of(const struct content_file *f, uint64_t block)
{
	uint64_t lo = 0, hi = f->nparts;

	if (block < f->data_page)
		return PART_TABLES;
	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (f->part[mid].first <= block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && block - f->part[lo - 1].first < f->part[lo - 1].pages ? lo - 1 : PART_NONE;
}

/* The same for all frames of a group: an origin, with the group in place of the block. */
static uint64_t group_of(const struct content_file *file, unsigned int nfiles, uint64_t origin)
{
	const struct content_file *f = file_of(file, nfiles, origin);
	uint64_t whole = origin & ~(KSM_ORIGIN_BLOCKS - 1), block = KSM_ORIGIN_BLOCK(origin);

	switch (KSM_ORIGIN_CLASS(origin)) {
	case KSM_ORIGIN_DISK:
		return whole | (f && f->part ? part_of(f, block) : block / RANGE_BLOCKS);
	case KSM_ORIGIN_KERNEL:
		return whole;
	case KSM_ORIGIN_UNKNOWN:
		break;
	}
	return KSM_ORIGIN_NONE;
}

static void group_name(const struct content_file *file, unsigned int nfiles, uint64_t group,
		       struct run_content *c)
{
	const struct content_file *f = file_of(file, nfiles, group);
	uint64_t part = KSM_ORIGIN_BLOCK(group);

	if (KSM_ORIGIN_CLASS(group) == KSM_ORIGIN_UNKNOWN) {
		snprintf(c->what, sizeof(c->what), "not known");
		return;
	}
	if (f)
		snprintf(c->image, sizeof(c->image), "%s", f->name);
	else
		snprintf(c->image, sizeof(c->image), "file %06x", KSM_ORIGIN_FILE(group));
	if (KSM_ORIGIN_CLASS(group) == KSM_ORIGIN_KERNEL)
		snprintf(c->what, sizeof(c->what), "kernel");
	else if (!f || !f->part)
		snprintf(c->what, sizeof(c->what), "MiB %llu", (unsigned long long)part);
	else if (part < f->nparts)
		snprintf(c->what, sizeof(c->what), "%s", f->part[part].name);
	else
		snprintf(c->what, sizeof(c->what),
			 part == PART_TABLES ? "tables of the image" : "behind the last file");
}

static int by_origin(const void *a, const void *b)
{
	const struct content_frame *x = a, *y = b;

	return x->origin < y->origin ? -1 : x->origin > y->origin;
}

struct group {
	uint64_t id, frames, pages;
};

static uint64_t saved(const struct group *g)
{
	return g->pages - g->frames;
}

static int by_saved(const void *a, const void *b)
{
	const struct group *x = a, *y = b;

	if (saved(x) != saved(y))
		return saved(x) < saved(y) ? 1 : -1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void add(struct run_content *c, const struct group *g)
{
	c->frames += g->frames;
	c->pages += g->pages;
	c->bytes_saved += saved(g) * OB_PAGE_SIZE;
}

unsigned int content_top(const struct content_file *file, unsigned int nfiles,
			 struct content_frame *frame, uint64_t n, struct run_content *out)
{
	struct group *g = calloc(n + 1, sizeof(*g));
	uint64_t groups = 0;
	unsigned int shown = 0;

	OB_ASSERT(g);
	for (uint64_t i = 0; i < n; i++)
		frame[i].origin = group_of(file, nfiles, frame[i].origin);
	qsort(frame, n, sizeof(*frame), by_origin);
	for (uint64_t i = 0; i < n; i++) {
		if (!groups || g[groups - 1].id != frame[i].origin)
			g[groups++].id = frame[i].origin;
		g[groups - 1].frames++;
		g[groups - 1].pages += frame[i].pages;
	}
	qsort(g, groups, sizeof(*g), by_saved);
	memset(out, 0, RUN_CONTENT_MAX * sizeof(*out));
	for (uint64_t i = 0; i < groups; i++) {
		if (shown < RUN_CONTENT_MAX - 1 || groups == RUN_CONTENT_MAX) {
			group_name(file, nfiles, g[i].id, &out[shown]);
			add(&out[shown++], &g[i]);
			continue;
		}
		/* The rest. */
		snprintf(out[RUN_CONTENT_MAX - 1].what, sizeof(out[0].what), "others (%llu)",
			 (unsigned long long)(groups - (RUN_CONTENT_MAX - 1)));
		add(&out[RUN_CONTENT_MAX - 1], &g[i]);
		shown = RUN_CONTENT_MAX;
	}
	free(g);
	return shown;
}
