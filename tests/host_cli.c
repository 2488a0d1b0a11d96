/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_cli.c: bad input, as a person meets it: one line on standard error that says what is wrong,
 * exit status 2, nothing on standard output, nothing started and nothing left behind.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cli.h"

static unsigned int lines(const char *s)
{
	unsigned int n = 0;

	for (; *s; s++)
		n += *s == '\n';
	return n;
}

static void refused(const char *args, const char *says)
{
	struct cli c;

	cli_run(&c, args, true, 20);
	cr_assert_eq(c.status, 2, "%s: status %d\n%s%s", args, c.status, c.out, c.err);
	cr_assert_eq(lines(c.err), 1, "%s: not one line:\n%s", args, c.err);
	cr_assert(strstr(c.err, says), "%s: '%s' is not in: %s", args, says, c.err);
	cr_assert_str_empty(c.out, "%s: %s", args, c.out);
	cr_assert_null(c.result, "%s wrote a result", args);
	cli_free(&c);
}

Test(cli, bad_input_is_one_line_and_status_2)
{
	static const struct {
		const char *args, *says;
	} bad[] = {
		{"no-such-verb", "no-such-verb"},
		{"fleet --no-such-flag", "no-such-flag"},
		{"fleet --guests 0", "--guests"},
		{"fleet --guests 99999999", "--guests"},
		{"fleet --guests x", "--guests"},
		{"fleet --mem 0", "--mem"},
		{"fleet --mem 3K", "--mem"},
		{"fleet --mem 12345678T", "--mem"},
		{"fleet --mem 64M --guests 4000 --seconds 1 --mem 1G", "host"},
		{"fleet --seconds 0", "--seconds"},
		{"fleet --workload nonsense", "nonsense"},
		{"fleet --sharing nonsense", "nonsense"},
		{"compare --sharing hash,hash", "hash"},
		{"fleet --guest bsd", "linux"},
		{"fleet --domain Big", "not a name"},
		{"fleet --domain a:0-x", "not a list"},
		{"fleet --guests 4 --domain a:0-4", "no guest 4"},
		{"fleet --domain a:0-4 --domain b:4 --guests 8", "guest 4 is named twice"},
		{"fleet --domain a:0 --domain a:1", "'a' is there twice"},
		{"fleet --guests 2 --domain a:0-1 --domain b", "no guest is left"},
		{"fleet --guests 2 --domain intra --sharing kernel", "keeps no domains apart"},
		{"compare --guests 2 --domain a:0 --sharing off,kernel", "keeps no domains apart"},
		{"fleet --guests 2000 --mem 8M --domain intra", "2000 cells"},
		{"fleet --merge-across-nodes=1", "takes no value"},
		{"run --domain a", "domain"},
		{"fleet --kernel /no/such/file", "/no/such/file"},
		{"fleet --kernel /etc/passwd", "a text file"},
		{"fleet --image /no/such/file", "/no/such/file"},
		{"fleet --image /etc/passwd", "image"},
		{"fleet stray", "stray"},
		{"fleet --kernel caf\xe9", "UTF-8"},
		{"compare --out caf\xe9", "UTF-8"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused(bad[i].args, bad[i].says);
}

Test(cli, ept_bad_input)
{
	static const struct {
		const char *args, *says;
	} bad[] = {
		{"ept", "which question?"},
		{"ept frob", "frob"},
		{"ept --vm 3", "--vm"},
		{"ept stat --frob", "--frob"},
		{"ept stat --vm", "--vm"},
		{"ept stat --vm x", "'x'"},
		{"ept stat --vm -1", "'-1'"},
		{"ept stat --vm 0x1", "'0x1'"},
		{"ept stat --vm 4096", "4095"},
		{"ept stat --control=", "empty"},
		{"ept stat word", "word"},
		{"ept verify 1", "'1'"},
		{"ept walk", "VM GVA"},
		{"ept walk 1", "VM GVA"},
		{"ept walk 1 2 3", "VM GVA"},
		{"ept walk --vm 1 2", "VM GVA"},
		{"ept walk x 0x1000", "'x'"},
		{"ept walk 1 0x", "'0x'"},
		{"ept walk 1 12ab", "'12ab'"},
		{"ept walk 1 0x10000000000000000", "64-bit"},
		{"ept stat", "no fleet is running"},
		{"ept stat --control /no/such/socket", "/no/such/socket"},
		{"ept stat --control /etc/passwd", "nobody serves there"},
	};

	setenv("XDG_RUNTIME_DIR", "/no/such/folder", 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cli c;

		cli_run(&c, bad[i].args, false, 20);
		cr_expect_eq(c.status, 2, "%s: status %d\n%s%s", bad[i].args, c.status, c.out,
			     c.err);
		cr_expect_eq(lines(c.err), 1, "%s: not one line:\n%s", bad[i].args, c.err);
		cr_expect(strstr(c.err, bad[i].says), "%s: '%s' is not in: %s", bad[i].args,
			  bad[i].says, c.err);
		cr_expect_str_empty(c.out, "%s: %s", bad[i].args, c.out);
		cli_free(&c);
	}
}

/* A copy of a file of the build, cut to @len bytes. */
static void cut(const char *name, size_t len, char *path, size_t n)
{
	char from[600], buf[65536];
	int in, out;

	snprintf(from, sizeof(from), "%s/%s", cli_build(), name);
	snprintf(path, n, "/tmp/overbook-test-cut-XXXXXX");
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = mkstemp(path);
	cr_assert(in >= 0 && out >= 0, "%s", from);
	while (len) {
		ssize_t got = read(in, buf, len < sizeof(buf) ? len : sizeof(buf));

		cr_assert_gt(got, 0);
		cr_assert_eq(write(out, buf, (size_t)got), got);
		len -= (size_t)got;
	}
	close(in);
	close(out);
}

Test(cli, truncated_files_are_refused)
{
	char path[64], args[128];

	cut("microguest.elf", 5000, path, sizeof(path));
	snprintf(args, sizeof(args), "fleet --kernel %s", path);
	refused(args, path);
	unlink(path);
	cut("guest.img", 100000, path, sizeof(path));
	snprintf(args, sizeof(args), "fleet --image %s", path);
	refused(args, path);
	unlink(path);
}

Test(cli, image_holds_48_mib_at_least)
{
	char path[600];
	struct stat st;

	snprintf(path, sizeof(path), "%s/guest.img", cli_build());
	cr_assert(!stat(path, &st), "%s", path);
	cr_assert_geq(st.st_size, 48 << 20);
}

/* A limit on the size of files (ulimit -f) is an error like a full disk, not the end. */
Test(cli, file_size_limit)
{
	char cmd[900], path[] = "/tmp/overbook-test-limit-XXXXXX", line[512] = "";
	int status, fd = mkstemp(path);
	bool said = false;
	FILE *f;

	cr_assert(fd >= 0);
	close(fd);
	snprintf(cmd, sizeof(cmd), "(ulimit -f 0; exec %s/overbook compare --help >%s) 2>&1",
		 cli_build(), path);
	f = popen(cmd, "r");
	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		said |= strstr(line, "cannot write standard output") != NULL;
	status = pclose(f);
	unlink(path);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x: %s", status, line);
	cr_assert(said, "%s", line);
}

/* A hidden verb, by hand. */
Test(cli, guardian_takes_no_root)
{
	struct cli c;

	cli_run(&c, "ksm-guardian 3 lock default root", false, 20);
	cr_assert_eq(c.status, 2, "%s", c.err);
	cr_assert(strstr(c.err, "'root'"), "%s", c.err);
	cli_free(&c);
}

Test(cli, out_that_holds_a_result)
{
	char dir[] = "/tmp/overbook-test-out-XXXXXX", path[64], args[128];
	FILE *f;

	if (!cli_have_kvm())
		cr_skip_test("no /dev/kvm that we may open");
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/result.json", dir);
	f = fopen(path, "w");
	cr_assert(f);
	fclose(f);
	snprintf(args, sizeof(args), "compare --guests 1 --mem 16M --out %s", dir);
	refused(args, "holds a result already");
	unlink(path);
	rmdir(dir);
}

/* As a user who may not open /dev/kvm. */
Test(cli, no_permission_for_kvm)
{
	char build[PATH_MAX], program[PATH_MAX + 32], kernel[PATH_MAX + 32], image[PATH_MAX + 32];
	char buf[1024] = "";
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	if (geteuid() || access("/dev/kvm", F_OK))
		cr_skip_test("needs root to become somebody else, and a /dev/kvm");
	/* By absolute paths: somebody else may not pass the folders above. */
	cr_assert(realpath(cli_build(), build));
	snprintf(program, sizeof(program), "%s/overbook", build);
	snprintf(kernel, sizeof(kernel), "%s/microguest.elf", build);
	snprintf(image, sizeof(image), "%s/guest.img", build);
	cr_assert(!pipe(fds));
	pid = fork();
	cr_assert(pid >= 0);
	if (!pid) {
		dup2(fds[1], 2);
		dup2(fds[1], 1);
		if (setgid(65534) || setuid(65534))
			_exit(99);
		if (!access("/dev/kvm", R_OK | W_OK) || access(program, X_OK) ||
		    access(kernel, R_OK) || access(image, R_OK))
			_exit(98);
		execl(program, "overbook", "fleet", "--guests", "1", (char *)NULL);
		_exit(99);
	}
	close(fds[1]);
	n = read(fds[0], buf, sizeof(buf) - 1);
	cr_assert(n >= 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	close(fds[0]);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 98)
		cr_skip_test("everybody may open /dev/kvm here, or nobody else may run this build");
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 2, "status %x: %s", status, buf);
	cr_assert(strstr(buf, "permission"), "%s", buf);
	cr_assert_eq(lines(buf), 1, "%s", buf);
}
