/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_pages.c: the option --pages: what backs the guests' memory, and whether this host can. The
 * kernel's settings for transparent huge pages are a file for all sizes and, on newer kernels, one
 * for the size in question, which may say "inherit". Each lists all words that it takes, the chosen
 * one in brackets.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "harness/opts.h"

int opts_take_pages(struct fleet_config *c, const char *arg, struct ob_err *e)
{
	c->pages = ept_pages_find(arg);
	return c->pages < EPT_PAGES_NMODES
		       ? 0
		       : ob_fail(e, EINVAL,
				 "--pages '%.40s': unknown; there are 4k, 2m and adaptive", arg);
}

int opts_together_pages(struct fleet_config *c, struct ob_err *e)
{
	if (c->huge_threshold && c->pages != EPT_PAGES_ADAPTIVE)
		return ob_fail(e, EINVAL,
			       "--huge-threshold is when --pages adaptive breaks a huge page; it "
			       "has no meaning with --pages %s",
			       ept_pages_name(c->pages));
	if (c->pages == EPT_PAGES_ADAPTIVE && !c->huge_threshold)
		c->huge_threshold = EPT_HUGE_THRESHOLD;
	return 0;
}

/* The word in brackets of a file; "" when there is no such file. */
static void chosen(const char *path, char *word, size_t n)
{
	char line[200] = "", *open, *end;
	FILE *f = fopen(path, "re");

	*word = '\0';
	if (!f)
		return;
	if (fgets(line, sizeof(line), f)) {
		open = strchr(line, '[');
		end = open ? strchr(open, ']') : NULL;
		if (end)
			snprintf(word, n, "%.*s", (int)(end - open - 1), open + 1);
	}
	fclose(f);
}

int opts_check_pages(const struct fleet_config *c, const char *dir, struct ob_err *e)
{
	char path[PATH_MAX], word[32];

	if (c->pages == EPT_PAGES_4K)
		return 0;
	snprintf(path, sizeof(path), "%s/hugepages-2048kB/enabled", dir);
	chosen(path, word, sizeof(word));
	if (!*word || !strcmp(word, "inherit")) {
		snprintf(path, sizeof(path), "%s/enabled", dir);
		chosen(path, word, sizeof(word));
	}
	if (!*word)
		return ob_fail(e, ENOENT,
			       "--pages %s: this host's kernel has no transparent huge pages (no "
			       "%.200s); take --pages 4k",
			       ept_pages_name(c->pages), path);
	if (!strcmp(word, "never"))
		return ob_fail(
			e, EOPNOTSUPP,
			"--pages %s: this host has transparent huge pages switched off; echo "
			"madvise | sudo tee %.200s, or take --pages 4k",
			ept_pages_name(c->pages), path);
	return 0;
}
