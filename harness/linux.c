/* SPDX-License-Identifier: Apache-2.0 */
/*
 * linux.c: what there is to know of a Linux guest from its files and options, without starting it.
 * All pure: files come from a person, and nothing in them is believed.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness/harness.h"

/* The setup header of a bzImage (Documentation/arch/x86/boot.rst). */
#define BZ_MAGIC_AT	0x202
#define BZ_VERSION_AT	0x20e /* offset of the version's text, less 0x200; 16 bits */
#define BZ_VERSION_BASE 0x200

/* What the agent of the Linux image cannot do: these need all of a guest's memory for themselves. */
static const char *const bare[] = {"first", "ping", "probe", "hostile-"};

bool linux_has_workload(const char *name)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(bare); i++)
		if (!strncmp(name, bare[i], strlen(bare[i])))
			return false;
	return opts_known_workload(name);
}

static bool is_bzimage(const char *file, size_t len)
{
	return len >= BZ_VERSION_AT + 2 && !memcmp(file + BZ_MAGIC_AT, "HdrS", 4);
}

bool linux_is_kernel(const void *file, size_t len)
{
	struct elf_image img;
	struct ob_err e;

	return is_bzimage(file, len) || (!elf_parse(file, len, &img, &e) && img.is_linux);
}

/* Text at @at to its end, or to the first byte that is none. */
static void take_text(const char *at, size_t max, char *buf, size_t n)
{
	size_t k = 0;

	while (k < max && k + 1 < n && at[k] >= ' ' && at[k] < 0x7f) {
		buf[k] = at[k];
		k++;
	}
	while (k && buf[k - 1] == ' ')
		k--;
	buf[k] = '\0';
}

void linux_kernel_version(const void *file, size_t len, char *buf, size_t n)
{
	static const char banner[] = "Linux version ";
	const unsigned char *b = file;
	const char *at;
	size_t off;

	buf[0] = '\0';
	if (is_bzimage(file, len)) {
		off = (size_t)(b[BZ_VERSION_AT] | b[BZ_VERSION_AT + 1] << 8);
		if (off && off + BZ_VERSION_BASE < len)
			take_text((const char *)file + off + BZ_VERSION_BASE,
				  len - off - BZ_VERSION_BASE, buf, n);
		return;
	}
	/* The banner of an uncompressed kernel; it has the words as a format somewhere as well. */
	for (at = file; (at = memmem(at, len - (size_t)(at - (const char *)file), banner,
				     sizeof(banner) - 1)) != NULL;) {
		at += sizeof(banner) - 1;
		take_text(at, len - (size_t)(at - (const char *)file), buf, n);
		if (isdigit((unsigned char)buf[0]))
			return;
	}
	buf[0] = '\0';
}

int linux_disk_path(const struct fleet_config *c, unsigned int i, unsigned int guest, char *buf,
		    size_t n)
{
	const struct linux_disk *d = &c->lx.disk[i];
	const char *hole =
		memmem(d->path, (size_t)d->len, LINUX_GUEST_IN_PATH, strlen(LINUX_GUEST_IN_PATH));
	int before = hole ? (int)(hole - d->path) : d->len;
	int skip = hole ? before + (int)strlen(LINUX_GUEST_IN_PATH) : before;

	if (!hole)
		return snprintf(buf, n, "%.*s", d->len, d->path);
	return snprintf(buf, n, "%.*s%u%.*s", before, d->path, guest, d->len - skip,
			d->path + skip);
}

/* "a=1 b=2" with the agent's prefix before each word. */
static void prefixed(const char *words, char *buf, size_t n)
{
	size_t k = 0;

	buf[0] = '\0';
	while (*words && k < n) {
		int len = (int)strcspn(words, " ");

		k += (size_t)snprintf(buf + k, n - k, " " AGENT_WORD_PREFIX "%.*s", len, words);
		words += len;
		words += strspn(words, " ");
	}
}

int linux_cmdline(const struct fleet_config *c, unsigned int guest, const char *workload, char *buf,
		  size_t n)
{
	char words[256], agent[512], work[96];

	opts_workload_words(workload, work, sizeof(work));
	if (c->lx.agent)
		snprintf(words, sizeof(words), "%s seed=%llu common=%llu guest=%u", work,
			 (unsigned long long)(c->seed * 1000003 + guest + 1),
			 (unsigned long long)c->seed, guest);
	else /* for scripts in a guest that want to know which one they are in */
		snprintf(words, sizeof(words), "guest=%u", guest);
	prefixed(words, agent, sizeof(agent));
	/* A kernel that panics resets at once, and so is over. An oops is the likeliest sign of a page that was
	 * merged wrongly, and in a thread of the kernel nobody would hear of it: so it is to panic. */
	return snprintf(buf, n, "console=ttyS0 panic=-1%s%s%s%s", c->lx.agent ? " oops=panic" : "",
			agent, c->lx.append ? " " : "", c->lx.append ? c->lx.append : "");
}
