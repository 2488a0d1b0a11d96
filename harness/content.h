/* SPDX-License-Identifier: Apache-2.0 */
/* content.h: private to harness/: what merged pages hold, by the origins of their frames. */
#ifndef OVERBOOK_HARNESS_CONTENT_H
#define OVERBOOK_HARNESS_CONTENT_H

#include <sys/stat.h>

#include "harness/harness.h"

/*
 * What tells one file from another in an origin (ksm.h), KSM_ORIGIN_FILE_BITS of it: the same for all
 * who have the same file open; another one when it was replaced or written.
 */
uint32_t content_digest(const struct stat *st);

/* A file that origins may be of. */
struct content_file {
	enum ksm_origin_class cls;
	uint32_t digest;
	char name[RUN_CONTENT_NAME]; /* without its folder */
	/* Of a disk image of ours (workloads/image.h): its files, in order. NULL: of no other. */
	struct content_part *part;
	uint64_t nparts;
	uint64_t data_page; /* blocks before that are the image's own tables */
};

struct content_part {
	uint64_t first, pages; /* blocks */
	char name[RUN_CONTENT_NAME];
};

/* Learn what there is to know of the file at @path; what cannot be read has no parts. */
void content_open(struct content_file *f, enum ksm_origin_class cls, const char *path);
void content_close(struct content_file *f);

/* A frame and how many guest pages are on it. */
struct content_frame {
	uint64_t origin;
	uint32_t pages;
};

/*
 * Group @n frames by what they hold, most saved first: at most RUN_CONTENT_MAX groups into @out, the
 * last one taking in all that do not fit. Reorders @frame. Returns how many groups.
 */
unsigned int content_top(const struct content_file *file, unsigned int nfiles,
			 struct content_frame *frame, uint64_t n, struct run_content *out);

#endif
