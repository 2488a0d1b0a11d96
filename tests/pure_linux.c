/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_linux.c: Linux guests before they are started: the options, what they are to each other, the
 * kernel's command line, and what a file says of itself.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"
#include "harness/result.h"
#include "tests/tiny_linux.h"

#define MAX_WORDS 16
#define EXE	  "/opt/ob/overbook"

struct line {
	struct fleet_config c;
	struct opts_given g;
	struct ob_err e;
	char words[512];
};

/* Understand "fleet --guests 4", and settle which guests they are. */
static int settle(struct line *l, const char *line)
{
	char *argv[MAX_WORDS + 1], *save = NULL;
	int argc = 0;

	cr_assert_lt(strlen(line), sizeof(l->words));
	strcpy(l->words, line);
	for (char *w = strtok_r(l->words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		cr_assert_lt(argc, MAX_WORDS);
		argv[argc++] = w;
	}
	argv[argc] = NULL;
	l->e.msg[0] = '\0';
	if (opts_parse(&l->c, &l->g, argv[0], argc, argv, &l->e) != OPTS_OK)
		return -1;
	return opts_linux_settle(&l->c, &l->g, argv[0], EXE, false, &l->e);
}

Test(linux_opts, the_projects_image)
{
	struct line *l = calloc(1, sizeof(*l));

	cr_assert_eq(settle(l, "fleet --guest linux --guests 8 --workload kv,idle"), 0, "%s",
		     l->e.msg);
	cr_expect(l->c.lx.on && l->c.lx.agent);
	cr_expect_str_eq(l->c.kernel_path, "/opt/ob/linux/vmlinuz");
	cr_expect_str_eq(l->c.lx.initrd, "/opt/ob/linux/initrd.img");
	cr_expect_eq(l->c.mem_bytes, LINUX_DEFAULT_MEM);
	cr_expect_eq(l->c.lx.vcpus, 1);
	cr_expect_eq(l->c.lx.boot_timeout, LINUX_BOOT_TIMEOUT);
	cr_expect_eq(l->c.seconds, 10);
	cr_assert_eq(settle(l, "run --guest linux --mem 96M --vcpus 64 --boot-timeout 7"), 0, "%s",
		     l->e.msg);
	cr_expect_eq(l->c.mem_bytes, 96 * OB_MIB);
	cr_expect_eq(l->c.lx.vcpus, 64);
	cr_expect_eq(l->c.lx.boot_timeout, 7);
	cr_assert_eq(settle(l, "fleet"), 0);
	cr_expect(!l->c.lx.on, "the microguest is what there is without a word");
	free(l);
}

Test(linux_opts, ones_own)
{
	struct line *l = calloc(1, sizeof(*l));

	cr_assert_eq(settle(l, "run --initrd i"), 0, "%s", l->e.msg);
	cr_expect(l->c.lx.on && !l->c.lx.agent, "nobody knows of an agent in it");
	cr_expect_str_eq(l->c.kernel_path, "/opt/ob/linux/vmlinuz");
	cr_expect_str_eq(l->c.lx.initrd, "i");
	cr_expect_eq(l->c.seconds, 0, "until it powers off");
	cr_assert_eq(settle(l, "run --initrd i --seconds 3"), 0);
	cr_expect_eq(l->c.seconds, 3);
	cr_assert_eq(settle(l, "fleet --initrd i"), 0);
	cr_expect_eq(l->c.seconds, 10);
	cr_expect_null(l->c.lx.ready);
	cr_assert_eq(settle(l, "fleet --initrd i --ready login:"), 0, "%s", l->e.msg);
	cr_expect_str_eq(l->c.lx.ready, "login:");
	cr_assert_eq(settle(l, "fleet --initrd i --workload idle"), 0);
	cr_expect(l->c.lx.agent, "who names a workload has our agent in it");
	cr_assert_eq(settle(l, "run --guest linux --kernel k"), 0);
	cr_expect_null(l->c.lx.initrd, "the root disk will do");
	cr_expect(!l->c.lx.agent);
	free(l);
}

Test(linux_opts, bad_lines)
{
	static const char *const bad[][2] = {
		{"fleet --guest bsd", "microguest and linux"},
		{"run --vcpus 0", "1 to 64"},
		{"run --vcpus 65", "1 to 64"},
		{"run --vcpus two", "--vcpus 'two'"},
		{"run --vcpus 2", "the microguest has one vCPU"},
		{"run --guest microguest --initrd i", "--initrd is for Linux guests"},
		{"run --append nokaslr", "--append is for Linux guests"},
		{"run --disk d", "--disk is for Linux guests"},
		{"run --boot-timeout 4", "--boot-timeout is for Linux guests"},
		{"run --guest linux --boot-timeout 0", "1 to 86400"},
		{"run --ready login:", "--ready is for Linux guests"},
		{"run --guest linux --ready login:", "--ready is for guests without our agent"},
		{"fleet --initrd i --workload kv --ready x", "without our agent"},
		{"run --initrd i --ready=", "--ready: the text is empty"},
		{"run --initrd i --ready a\tb", "control character (0x09)"},
		{"run --initrd i --ready "
		 "12345678901234567890123456789012345678901234567890123456789012345",
		 "65 bytes; at most 64"},
		{"run --initrd=", "--initrd: the file name is empty"},
		{"run --disk :rw", "--disk: the file name is empty"},
		{"run --guest linux --append a --append b", "twice"},
		{"run --guest linux --append a\tb", "control character (0x09)"},
		{"run --initrd i --disk a --disk b --disk c --disk d --disk e", "at most 4"},
		{"run --guest linux --disk a --disk b --disk c --disk d --disk e", "at most 4"},
		{"fleet --guests 2 --initrd i --disk d:rw", "2 guests cannot write to one file"},
		{"compare --guests 1 --initrd i --disk d:rw", "must start alike"},
		{"fleet --guest linux --workload ping", "microguest only"},
		{"fleet --guest linux --workload kv,first:1", "microguest only"},
		{"fleet --guest linux --workload hostile-ring", "microguest only"},
		{"run --initrd i --image x", "--image is what workloads read"},
	};
	struct line *l = calloc(1, sizeof(*l));

	for (size_t i = 0; i < OB_ARRAY_SIZE(bad); i++) {
		cr_expect_neq(settle(l, bad[i][0]), 0, "taken: %s", bad[i][0]);
		cr_expect(l->e.msg[0] && !strchr(l->e.msg, '\n'), "%s", bad[i][0]);
		cr_expect(strstr(l->e.msg, bad[i][1]), "'%s' says: %s", bad[i][0], l->e.msg);
	}
	free(l);
}

Test(linux_opts, disks)
{
	struct line *l = calloc(1, sizeof(*l));
	char path[64];

	cr_assert_eq(
		settle(l, "fleet --guests 3 --initrd i --disk a:rw{}b:rw --disk c:ro --disk d"), 0,
		"%s", l->e.msg);
	cr_assert_eq(l->c.lx.ndisks, 3);
	cr_expect(l->c.lx.disk[0].rw && !l->c.lx.disk[1].rw && !l->c.lx.disk[2].rw);
	cr_expect_eq(linux_disk_path(&l->c, 0, 12, path, sizeof(path)), 7);
	cr_expect_str_eq(path, "a:rw12b");
	linux_disk_path(&l->c, 1, 12, path, sizeof(path));
	cr_expect_str_eq(path, "c");
	linux_disk_path(&l->c, 2, 12, path, 1);
	cr_expect_str_eq(path, "");
	cr_assert_eq(settle(l, "run --guest linux --disk a --disk b --disk c --disk d"), 0, "%s",
		     l->e.msg);
	cr_expect_eq(l->c.lx.ndisks, 4, "and the workloads' image");
	/* Several modes, and one start. */
	cr_expect_eq(
		settle(l, "fleet --guests 2 --initrd i --disk {}:rw --live --sharing off,hash"), 0,
		"%s", l->e.msg);
	free(l);
}

Test(linux_opts, command_line)
{
	struct line *l = calloc(1, sizeof(*l));
	char buf[256];
	int n;

	cr_assert_eq(settle(l, "fleet --guest linux --seed 2 --workload touch:30 --append nokaslr"),
		     0);
	n = linux_cmdline(&l->c, 3, l->c.workload[0], buf, sizeof(buf));
	cr_expect_str_eq(buf, "console=ttyS0 panic=-1 oops=panic overbook.workload=touch "
			      "overbook.param=30 overbook.seed=2000010 overbook.common=2 "
			      "overbook.guest=3 nokaslr");
	cr_expect_eq(n, (int)strlen(buf));
	cr_expect_eq(linux_cmdline(&l->c, 3, l->c.workload[0], buf, 8), n, "how long it would be");
	cr_expect_str_eq(buf, "console");
	cr_assert_eq(settle(l, "fleet --initrd i"), 0);
	linux_cmdline(&l->c, 0, l->c.workload[0], buf, sizeof(buf));
	cr_expect_str_eq(buf, "console=ttyS0 panic=-1 overbook.guest=0",
			 "no work, no words, and their own way with an oops");
	free(l);
}

Test(linux_opts, what_a_file_is)
{
	static const char banner[] = "..Linux version %s\0..Linux version 5.10.7 (x) #1\n";
	uint8_t buf[TINY_MAX];
	char v[64], small[8];
	size_t len = tiny_kernel(buf);

	cr_expect(linux_is_kernel(buf, len));
	linux_kernel_version(buf, len, v, sizeof(v));
	cr_expect_str_eq(v, TINY_VERSION);
	linux_kernel_version(buf, len, small, sizeof(small));
	cr_expect_str_eq(small, "6.99.0-");
	tiny_set(buf, 0x20e, 0xffff, 2);
	linux_kernel_version(buf, len, v, sizeof(v));
	cr_expect_str_eq(v, "", "it points out of the file");
	for (size_t n = 0; n < 0x220; n++) {
		linux_kernel_version(buf, n, v, sizeof(v));
		(void)linux_is_kernel(buf, n);
	}
	cr_expect(!linux_is_kernel("\177ELF", 4) && !linux_is_kernel("", 0));
	linux_kernel_version(banner, sizeof(banner), v, sizeof(v));
	cr_expect_str_eq(v, "5.10.7 (x) #1");
}

Test(linux_opts, the_end_of_a_console_in_a_result)
{
	struct run_guest g = {.console_tail = "one\n\nthree"};
	json_t *tail = result_tail_json(&g);

	cr_assert_eq(json_array_size(tail), 3);
	cr_expect_str_eq(json_string_value(json_array_get(tail, 1)), "");
	cr_expect_str_eq(json_string_value(json_array_get(tail, 2)), "three");
	json_decref(tail);
	g.console_tail[0] = '\0';
	tail = result_tail_json(&g);
	cr_expect(json_is_null(tail));
	json_decref(tail);
}
