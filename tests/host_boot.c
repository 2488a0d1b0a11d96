/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_boot.c: what we hand to Linux, before others' eyes: the ACPI tables before iasl, ACPICA's
 * compiler and disassembler (Linux reads them by the same code), and Debian's kernel, as far as the
 * build has fetched it, before our loaders. Needs the folder of the build in OB_BUILD.
 */
#include <criterion/criterion.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/boot.h"

#define PATH_LEN 128
#define TEXT_MAX (256 * OB_KIB)

extern char **environ;

/* Run a command line, its output in @log. Returns its exit status. */
static int run(const char *line, const char *log)
{
	char cmd[4 * PATH_LEN];
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, cmd, NULL};
	pid_t pid;
	int status;

	snprintf(cmd, sizeof(cmd), "%s >%s 2>&1 </dev/null", line, log);
	cr_assert_eq(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ), 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *text_of(const char *path)
{
	struct ob_err e;
	void *text;
	size_t len;

	cr_assert_eq(ob_read_file(path, TEXT_MAX, &text, &len, &e), 0, "%s", e.msg);
	((char *)text)[len] = '\0'; /* ob_read_file leaves room for it */
	return text;
}

/* The table with @signature in @b, in a file of its own. */
static void split(const unsigned char *b, int len, const char *signature, const char *path)
{
	for (int i = 0; i + 36 <= len; i += 16) {
		uint32_t n;
		FILE *f;

		if (memcmp(b + i, signature, 4))
			continue;
		memcpy(&n, b + i + 4, 4);
		cr_assert_leq(n, (uint32_t)(len - i));
		f = fopen(path, "wb");
		cr_assert(f && fwrite(b + i, n, 1, f) == 1 && !fclose(f));
		return;
	}
	cr_assert_fail("no %s", signature);
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

/* What @cmd says, in which $1 is @name, in @dir. It has to end well. The caller frees it. */
static char *tool_says(const char *dir, const char *cmd, const char *name)
{
	char line[3 * PATH_LEN], log[PATH_LEN], *said;
	int status;

	snprintf(log, sizeof(log), "%s/log", dir);
	snprintf(line, sizeof(line), "(cd %s && set -- %s && %s)", dir, name, cmd);
	status = run(line, log);
	said = text_of(log);
	cr_assert_eq(status, 0, "%s: %s: %s", name, cmd, said);
	return said;
}

/* iasl says nothing against @name, in either direction: taken apart, and put together again. */
static void check_with_iasl(const char *dir, const char *name)
{
	char *said = tool_says(dir, "iasl -d $1.aml", name);

	cr_assert(!strstr(said, "Error") && !strstr(said, "Warning"), "%s: %s", name, said);
	cr_assert(strstr(said, "appears to be a valid ACPI table"), "%s: %s", name, said);
	free(said);
	said = tool_says(dir, "iasl -p again $1.dsl", name);
	/* A data table is only compiled, without a verdict in numbers. */
	cr_assert(!strstr(said, "rror ") && !strstr(said, "arning "), "%s: %s", name, said);
	if (!strcmp(name, "DSDT"))
		cr_assert(strstr(said, "0 Errors, 0 Warnings, 0 Remarks"), "%s", said);
	free(said);
}

/* acpidump takes @name for a table by its header, and what acpixtract makes of that dump is the table
 * again. (Neither looks at checksums: iasl does, and pure_acpi.c.) */
static void check_with_acpidump(const char *dir, const char *name)
{
	char *said = tool_says(dir, "acpidump -s -f $1.aml", name);

	cr_assert(strstr(said, name), "%s: %s", name, said);
	free(said);
	free(tool_says(dir, "acpidump -f $1.aml -o dump && acpixtract -a dump && cmp *.dat $1.aml",
		       name));
	free(tool_says(dir, "rm dump *.dat", name));
}

Test(acpi_iasl, tables_are_read_without_a_complaint)
{
	const char *names[] = {"DSDT", "FACP", "APIC", "FACS", "XSDT"};
	struct acpi_machine m = {.vcpus = 4, .nvirtio = ACPI_MAX_VIRTIO, .pit_gsi = 2};
	char dir[] = "/tmp/overbook-acpi-XXXXXX", path[PATH_LEN], cmd[PATH_LEN], *dsl;
	static unsigned char b[ACPI_SIZE];
	int len;

	if (run("command -v iasl", "/dev/null"))
		cr_skip_test("no iasl here (package acpica-tools)");
	for (unsigned int i = 0; i < m.nvirtio; i++) {
		m.virtio[i].gpa = 0xd0000000U + i * 0x1000;
		m.virtio[i].size = 0x1000;
		m.virtio[i].gsi = PC_VIRTIO_GSI + i;
	}
	len = acpi_build(&m, ACPI_GPA, b, sizeof(b));
	cr_assert_gt(len, 0);
	cr_assert(mkdtemp(dir));
	for (size_t i = 0; i < OB_ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s.aml", dir, names[i]);
		split(b, len, names[i], path);
		check_with_iasl(dir, names[i]);
		check_with_acpidump(dir, names[i]);
	}
	/* And it finds in them what was put in. */
	snprintf(path, sizeof(path), "%s/DSDT.dsl", dir);
	dsl = text_of(path);
	cr_assert_eq(count(dsl, "Name (_HID, \"LNRO0005\")"), ACPI_MAX_VIRTIO);
	cr_assert_eq(count(dsl, "Memory32Fixed (ReadWrite"), ACPI_MAX_VIRTIO);
	cr_assert_eq(count(dsl, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"),
		     ACPI_MAX_VIRTIO);
	cr_assert_eq(count(dsl, "0xD0007000,"), 1);
	cr_assert_eq(count(dsl, "0x00000017,"), 1, "GSI 23");
	cr_assert_eq(count(dsl, "EisaId (\"PNP0501\")"), 1);
	cr_assert_eq(count(dsl, "IRQNoFlags ()"), 1);
	cr_assert_eq(count(dsl, "Name (_S5, Package (0x04)"), 1);
	free(dsl);
	snprintf(path, sizeof(path), "%s/APIC.dsl", dir);
	dsl = text_of(path);
	cr_assert_eq(count(dsl, "[Processor Local APIC]"), 4);
	cr_assert_eq(count(dsl, "[I/O APIC]"), 1);
	cr_assert_eq(count(dsl, "[Interrupt Source Override]"), 2);
	free(dsl);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	cr_assert_eq(run(cmd, "/dev/null"), 0);
}

/* A real bzImage is taken, fits into what its header says, and not into less. */
Test(boot_debian, the_kernel_of_the_build_is_taken)
{
	const char *build = getenv("OB_BUILD");
	char path[PATH_LEN];
	struct boot_image img;
	struct ob_err e = {""};
	struct stat st;
	uint64_t end;
	void *file;
	size_t len;

	snprintf(path, sizeof(path), "%s/linux/vmlinuz", build ? build : "build");
	if (stat(path, &st)) /* no make linux, but a lab that has fetched one */
		snprintf(path, sizeof(path), "%s/linux/6.1/vmlinuz", build ? build : "build");
	if (stat(path, &st))
		cr_skip_test("no Linux kernel in the build's linux/ (make linux fetches it)");
	cr_assert_eq(ob_read_file(path, ELF_MAX_BYTES, &file, &len, &e), 0, "%s", e.msg);
	cr_assert_eq(boot_parse(file, len, &img, &e), 0, "%s", e.msg);
	cr_assert_eq(img.kind, BOOT_BZIMAGE);
	cr_assert_geq(img.bz.cmdline_size, 255);
	cr_assert(img.bz.payload_size > OB_MIB && img.bz.init_size > img.bz.payload_size);
	end = img.bz.pref_address + img.bz.init_size;
	cr_assert_eq(boot_fit(&img, ob_align_up(end, OB_MIB), 0, 100, &e), 0, "%s", e.msg);
	cr_assert_lt(boot_fit(&img, end - OB_PAGE_SIZE, 0, 100, &e), 0);
	/* Half of it is not it. */
	cr_assert_lt(boot_parse(file, len / 2, &img, &e), 0);
	cr_assert_not_null(strstr(e.msg, "truncated bzImage"), "%s", e.msg);
	free(file);
}
