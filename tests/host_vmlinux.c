/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_vmlinux.c: scripts/linux-vmlinux.sh takes the kernel out of a bzImage again, however it is packed. The
 * images are made here as the kernel's build makes them (arch/x86/boot/compressed/Makefile).
 */
#include <criterion/criterion.h>
#include <elf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SETUP_BYTES 1024 /* the boot sector and one sector of set-up */
#define PAYLOAD_AT  16	 /* behind those */
#define ELF_BYTES   20000
#define PACKED_MAX  (ELF_BYTES + 1024)

struct place {
	char dir[40];
};

static void place_init(struct place *p)
{
	strcpy(p->dir, "/tmp/overbook-vmlinux-XXXXXX");
	cr_assert(mkdtemp(p->dir));
}

static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
	char line[1200];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	status = system(line);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void place_exit(struct place *p)
{
	cr_assert_eq(sh("rm -rf %s", p->dir), 0);
}

static bool have(const char *tool)
{
	return sh("command -v %s >/dev/null", tool) == 0;
}

static size_t get(const struct place *p, const char *name, uint8_t *buf, size_t max)
{
	char path[80];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	f = fopen(path, "rb");
	cr_assert(f, "%s", path);
	n = fread(buf, 1, max, f);
	fclose(f);
	return n;
}

static void put(const struct place *p, const char *name, const uint8_t *buf, size_t n)
{
	char path[80];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	f = fopen(path, "wb");
	cr_assert(f, "%s", path);
	cr_assert_eq(fwrite(buf, 1, n, f), n);
	cr_assert_eq(fclose(f), 0);
}

/* An ELF header, and then what does not pack away to nothing. */
static void elf_make(uint8_t *elf)
{
	uint32_t x = 1;

	for (size_t i = 0; i < ELF_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		elf[i] = (uint8_t)((x >> 24) % 13);
	}
	memcpy(elf, ELFMAG, SELFMAG);
}

/* File "image": what is in file "packed", with the length unpacked behind it when @append. What follows
 * the payload in a real one is there too. */
static void image_make(const struct place *p, bool append)
{
	static uint8_t image[SETUP_BYTES + PAYLOAD_AT + PACKED_MAX + 64];
	size_t n = get(p, "packed", image + SETUP_BYTES + PAYLOAD_AT, PACKED_MAX);
	uint32_t len = ELF_BYTES, at = PAYLOAD_AT, size;
	uint16_t version = 0x20f;

	cr_assert_gt(n, 0);
	if (append) {
		memcpy(image + SETUP_BYTES + PAYLOAD_AT + n, &len, 4);
		n += 4;
	}
	size = (uint32_t)n;
	memset(image + SETUP_BYTES + PAYLOAD_AT + n, 0xcc, 64);
	image[497] = 1;
	memcpy(image + 514, "HdrS", 4);
	memcpy(image + 518, &version, 2);
	memcpy(image + 584, &at, 4);
	memcpy(image + 588, &size, 4);
	put(p, "image", image, SETUP_BYTES + PAYLOAD_AT + n + 64);
}

static void elf_is_there(const struct place *p, const char *how)
{
	static uint8_t want[ELF_BYTES], is[ELF_BYTES + 64];

	elf_make(want);
	cr_expect_eq(get(p, "out", is, sizeof(is)), ELF_BYTES, "%s", how);
	cr_expect(!memcmp(is, want, ELF_BYTES), "%s", how);
}

Test(vmlinux_file, what_is_packed_comes_out_again)
{
	static const struct {
		const char *tool, *pack;
		bool append;
	} ways[] = {{"gzip", "gzip -n -9", false},
		    {"bzip2", "bzip2 -9", true},
		    {"xz", "xz --check=crc32 --x86 --lzma2=", true},
		    {"lz4", "lz4 -l -9", true},
		    {"zstd", "zstd -q -22 --ultra", true},
		    {"cat", "cat", false}};
	static uint8_t elf[ELF_BYTES];
	struct place p;

	if (access("scripts/linux-vmlinux.sh", X_OK))
		cr_skip_test("no scripts/ here");
	place_init(&p);
	elf_make(elf);
	put(&p, "elf", elf, sizeof(elf));
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		if (!have(ways[i].tool))
			continue;
		cr_assert_eq(sh("%s <%s/elf >%s/packed", ways[i].pack, p.dir, p.dir), 0, "%s",
			     ways[i].tool);
		image_make(&p, ways[i].append);
		cr_expect_eq(sh("sh scripts/linux-vmlinux.sh %s/image %s/out", p.dir, p.dir), 0,
			     "%s", ways[i].tool);
		elf_is_there(&p, ways[i].tool);
		cr_assert_eq(sh("rm -f %s/out", p.dir), 0);
	}
	place_exit(&p);
}

/* What cannot be unpacked is said, and nothing half done stays; also when it is stopped on the way. */
Test(vmlinux_file, nothing_half_done_stays)
{
	static uint8_t elf[ELF_BYTES];
	struct place p;

	if (access("scripts/linux-vmlinux.sh", X_OK))
		cr_skip_test("no scripts/ here");
	place_init(&p);
	elf_make(elf);
	elf[0] = 'x';
	put(&p, "elf", elf, sizeof(elf));
	cr_assert_eq(sh("gzip -n <%s/elf >%s/packed", p.dir, p.dir), 0);
	image_make(&p, false);
	cr_expect_eq(sh("sh scripts/linux-vmlinux.sh %s/image %s/out 2>/dev/null", p.dir, p.dir),
		     1);
	cr_expect_eq(sh("ls %s/out* >/dev/null 2>&1", p.dir), 2);
	/* A gzip that does not come to an end. */
	cr_assert_eq(sh("cd %s && mkdir bin && printf '#!/bin/sh\\nexec sleep 20\\n' >bin/gzip && "
			"chmod 755 bin/gzip",
			p.dir),
		     0);
	cr_expect_eq(sh("PATH=%s/bin:$PATH timeout -s TERM 0.5 sh scripts/linux-vmlinux.sh "
			"%s/image %s/out 2>/dev/null",
			p.dir, p.dir, p.dir),
		     124);
	cr_expect_eq(sh("ls %s/out* >/dev/null 2>&1", p.dir), 2);
	place_exit(&p);
}
