/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_linux.c: bad kernels, initrds and disks, as a person meets them: one line on standard error,
 * exit status 2, nothing started. The kernel is one of ours (tiny_linux.h), spoiled in one way each.
 */
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/elf.h"
#include "tests/boot_file.h"
#include "tests/cli.h"
#include "tests/tiny_linux.h"

struct place {
	char dir[40];
};

static void place_init(struct place *p)
{
	strcpy(p->dir, "/tmp/overbook-test-lx-XXXXXX");
	cr_assert(mkdtemp(p->dir));
	cr_assert_eq(chdir(p->dir), 0);
}

static void place_exit(struct place *p)
{
	char cmd[64];

	cr_assert_eq(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", p->dir);
	cr_assert_eq(system(cmd), 0);
}

static void put(const char *name, const void *data, size_t n, off_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, data, n), (ssize_t)n);
	cr_assert_eq(ftruncate(fd, len), 0);
	close(fd);
}

static void refused(const char *args, const char *says)
{
	struct cli c;
	const char *end;

	cli_run(&c, args, true, 20);
	end = strchr(c.err, '\n');
	cr_expect_eq(c.status, 2, "%s: status %d\n%s%s", args, c.status, c.out, c.err);
	cr_expect(end && !end[1], "%s: not one line:\n%s", args, c.err);
	cr_expect(strstr(c.err, says), "%s: '%s' is not in: %s", args, says, c.err);
	cr_expect_str_empty(c.out, "%s: %s", args, c.out);
	cr_expect_null(c.result, "%s wrote a result", args);
	cli_free(&c);
}

/* The program is found by a path that does not depend on where we are. */
static void absolute_build(void)
{
	char path[4096];

	cr_assert(realpath(cli_build(), path));
	setenv("OB_BUILD", path, 1);
}

Test(linux_files, bad_kernels)
{
	static const struct {
		unsigned int at, bytes;
		uint64_t v;
		const char *says;
	} spoil[] = {
		{0x236, 2, 0, "32-bit kernel"},
		{0x206, 2, 0x204, "boot protocol 2.04"},
		{0x211, 1, 0, "zImage"},
		{0x230, 4, 3, "power of two"},
		{0x1f4, 4, 0x100000, "truncated bzImage"},
		{0x260, 4, 0x10000000, "give at least 258M"},
	};
	static const struct {
		const char *data, *says;
	} other[] = {
		{"some text", "a Linux bzImage or vmlinux is needed"},
		{"#!/bin/sh\n", "a script: a Linux"},
		{"\x1f\x8b\x08", "gzip data (unpack it first): "},
		{"\xfd"
		 "7zXZ",
		 "xz data (unpack it first): "},
		{"!<arch>\n", "the vmlinuz is inside"},
		{"QFI\xfb", "a qcow2 disk image: "},
		{"\177ELF", "ELF"},
	};
	struct place p;
	uint8_t k[TINY_MAX];

	absolute_build();
	place_init(&p);
	for (size_t i = 0; i < sizeof(spoil) / sizeof(spoil[0]); i++) {
		size_t n = tiny_kernel(k);

		tiny_set(k, spoil[i].at, spoil[i].v, spoil[i].bytes);
		put("k", k, n, (off_t)n);
		refused("run --kernel k --mem 16M", spoil[i].says);
	}
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		put("k", other[i].data, strlen(other[i].data), 4096);
		refused("run --guest linux --kernel k", other[i].says);
		/* It is not said of which guest it is to be the kernel. */
		refused("run --kernel k", other[i].says);
		refused("run --guest microguest --kernel k", other[i].says);
	}
	put("k", "", 0, 0);
	refused("run --guest linux --kernel k", "is empty");
	refused("run --guest linux --kernel .", "is a folder");
	refused("run --guest linux --kernel none", "none");
	put("k", k, tiny_kernel(k), (off_t)tiny_kernel(k));
	refused("run --guest microguest --kernel k", "leave --guest microguest out");
	place_exit(&p);
}

/* A vmlinux as it is built, with debugging data behind what is loaded. */
Test(linux_files, a_kernel_that_is_to_be_stripped)
{
	const Elf64_Nhdr note = {.n_namesz = 6, .n_descsz = 4, .n_type = 0x100};
	struct elf_file f;
	struct place p;
	Elf64_Phdr ph;
	unsigned char *at;

	absolute_build();
	place_init(&p);
	elf_file_make(&f, 4 * OB_MIB);
	/* In place of its PVH note one of Linux. */
	at = f.b + sizeof(Elf64_Ehdr) + sizeof(ph);
	memcpy(&ph, at, sizeof(ph));
	ph.p_filesz = sizeof(note) + 8 + 4;
	memcpy(at, &ph, sizeof(ph));
	memcpy(f.b + ph.p_offset, &note, sizeof(note));
	memcpy(f.b + ph.p_offset + sizeof(note), "Linux\0\0", 8);
	put("v", f.b, f.len, (off_t)ELF_MAX_BYTES + 1);
	refused("run --kernel v --mem 32M", "kernel v: over 256 MiB; ");
	refused("run --kernel v --mem 32M", "strip -g");
	refused("run --guest microguest --kernel v", "leave --guest microguest out");
	put("v", f.b, f.len, (off_t)f.len);
	refused("run --kernel v --mem 32M", "no PVH entry");
	place_exit(&p);
}

Test(linux_files, what_does_not_fit)
{
	struct place p;
	uint8_t k[TINY_MAX];
	size_t n = tiny_kernel(k);

	absolute_build();
	place_init(&p);
	put("k", k, n, (off_t)n);
	put("i", "x", 1, 15 << 20);
	refused("run --kernel k --initrd i --mem 16M", "give at least 19M");
	put("i", "", 0, 0);
	refused("run --kernel k --initrd i --mem 16M", "is empty");
	refused("run --kernel k --initrd . --mem 16M", "is a folder");
	tiny_set(k, 0x238, 60, 4);
	put("k", k, n, (off_t)n);
	refused("run --kernel k --mem 16M --append a-long-word-and-many-more", "at most 60");
	place_exit(&p);
}

Test(linux_files, bad_disks)
{
	static const struct {
		unsigned int at;
		const char *magic, *name;
		off_t len;
	} format[] = {
		{0, "QFI\xfb", "qcow2", 1 << 20},
		{0, "KDMV", "VMDK", 1 << 20},
		{0, "# Disk DescriptorFile\n", "VMDK", 700},
		{0, "vhdxfile", "VHDX", 1 << 20},
		{0, "conectix", "VHD", 1 << 20},
		{64, "\x7f\x10\xda\xbe", "VDI", 1 << 20},
	};
	struct place p;
	uint8_t k[TINY_MAX];
	size_t n = tiny_kernel(k);
	int fd;

	absolute_build();
	place_init(&p);
	put("k", k, n, (off_t)n);
	put("d", "disk", 4, 1 << 20);
	put("d0", "disk", 4, 1 << 20);
	put("odd", "disk", 4, 1000);
	put("empty", "", 0, 0);
	refused("run --kernel k --disk none", "none");
	refused("run --kernel k --disk .", "is a folder");
	refused("run --kernel k --disk empty", "is empty");
	refused("run --kernel k --disk /dev/null", "not a regular file");
	refused("run --kernel k --disk odd", "multiple of 512");
	for (size_t i = 0; i < sizeof(format) / sizeof(format[0]); i++) {
		char says[80], head[128] = "";

		memcpy(head + format[i].at, format[i].magic, strlen(format[i].magic));
		put("other", head, sizeof(head), format[i].len);
		snprintf(says, sizeof(says),
			 "is a %s disk image; convert it: qemu-img convert -O raw", format[i].name);
		refused("run --kernel k --disk other", says);
	}
	refused("run --kernel k --disk d --disk d:rw", "is there twice");
	refused("run --kernel k --workload idle --image d --disk d:rw", "once as --image");
	refused("fleet --guests 2 --kernel k --disk d{}:rw", "d1: No such file");
	/* Somebody writes to it. */
	fd = open("d", O_RDWR | O_CLOEXEC);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	refused("run --kernel k --disk d", "another guest writes to it");
	refused("run --image d", "another guest writes to it");
	cr_assert_eq(flock(fd, LOCK_SH), 0);
	refused("run --kernel k --disk d:rw", "another guest has it");
	close(fd);
	place_exit(&p);
}

/* What becomes a path and a pattern is two numbers, and nothing is fetched for anything else. */
Test(linux_files, kernel_versions_are_looked_at)
{
	static const char *const bad[] = {"6",	  "6.", ".1",	 "6.x",	     "6.1.2", "06.1",
					  "6 .1", "",	"6.1.*", "6.1/../x", "../6.1"};
	char line[200];

	if (access("scripts/linux-kernel.sh", X_OK))
		cr_skip_test("no scripts/ here");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(line, sizeof(line),
			 "BUILD=/nonexistent/x scripts/linux-kernel.sh fetch '%s' 2>/dev/null",
			 bad[i]);
		cr_expect_eq(WEXITSTATUS(system(line)), 2, "'%s'", bad[i]);
	}
}
