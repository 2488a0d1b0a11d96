/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_guardian.c: the settings of Linux KSM are put back, whoever ends first and however: on a
 * tree of plain files, with real processes and real kills; once on the real settings when we may.
 * The guardian is this test program, started again: a constructor sees its hidden verb.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ksm/sysfs.h"

__attribute__((constructor)) static void guardian_verb(int argc, char **argv)
{
	struct ksm_pace pace;

	if (argc >= 5 && !strcmp(argv[1], "ksm-guardian") && !ksm_pace_parse(argv[4], &pace))
		_exit(ksm_guardian_run(atoi(argv[2]), argv[3], &pace, argc > 5 ? argv[5] : ""));
}

/* --- a tree of settings ---------------------------------------------------------------------- */

struct tree {
	char root[64], lock[80], self[PATH_MAX];
	struct ksm_settings before;
};

static void put(const struct tree *t, const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s/%s", t->root, dir, name);
	f = fopen(path, "w");
	cr_assert_not_null(f, "%s", path);
	fputs(text, f);
	fclose(f);
}

static void make_dirs(const struct tree *t, const char *dirs)
{
	char path[256];

	for (const char *at = dirs; at; at = strchr(at + 1, '/')) {
		const char *end = strchr(at + 1, '/');

		snprintf(path, sizeof(path), "%s/%.*s", t->root,
			 (int)(end ? end - dirs : (long)strlen(dirs)), dirs);
		cr_assert(mkdir(path, 0700) == 0 || errno == EEXIST, "%s", path);
	}
}

#define KSM "sys/kernel/mm/ksm"

static void self_path(struct tree *t)
{
	ssize_t n = readlink("/proc/self/exe", t->self, sizeof(t->self) - 1);

	cr_assert_gt(n, 0);
	t->self[n] = '\0';
}

static struct tree tree_new(void)
{
	struct tree t = {.root = "/tmp/overbook-ksm-XXXXXX"};

	cr_assert_not_null(mkdtemp(t.root));
	snprintf(t.lock, sizeof(t.lock), "%s/lock", t.root);
	self_path(&t);
	make_dirs(&t, KSM);
	make_dirs(&t, "proc/77");
	make_dirs(&t, "proc/self");
	put(&t, KSM, "run", "0\n");
	put(&t, KSM, "pages_to_scan", "100\n");
	put(&t, KSM, "sleep_millisecs", "20\n");
	put(&t, KSM, "advisor_mode", "none [scan-time]\n");
	put(&t, KSM, "advisor_max_cpu", "50\n");
	put(&t, KSM, "advisor_min_pages_to_scan", "600\n");
	put(&t, KSM, "advisor_max_pages_to_scan", "20000\n");
	put(&t, KSM, "advisor_target_scan_time", "100\n");
	put(&t, KSM, "use_zero_pages", "0\n");
	put(&t, KSM, "merge_across_nodes", "0\n");
	put(&t, KSM, "smart_scan", "1\n");
	put(&t, KSM, "max_page_sharing", "256\n");
	cr_assert_eq(ksm_settings_read(t.root, &t.before), 0);
	return t;
}

static void tree_free(struct tree *t)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", t->root);
	cr_assert_eq(system(cmd), 0);
}

static bool is_before(const struct tree *t)
{
	struct ksm_settings now;

	cr_assert_eq(ksm_settings_read(t->root, &now), 0);
	return !memcmp(&now, &t->before, sizeof(now));
}

static bool is_fastest(const struct tree *t)
{
	struct ksm_settings s;

	cr_assert_eq(ksm_settings_read(t->root, &s), 0);
	return !strcmp(s.value[KSM_SET_RUN], "1") &&
	       !strcmp(s.value[KSM_SET_SLEEP_MILLISECS], "0") &&
	       !strcmp(s.value[KSM_SET_PAGES_TO_SCAN], "10007") &&
	       !strcmp(s.value[KSM_SET_ADVISOR_MODE], "none") &&
	       !strcmp(s.value[KSM_SET_USE_ZERO_PAGES], "1") &&
	       !strcmp(s.value[KSM_SET_MERGE_ACROSS_NODES], "1");
}

static off_t lock_size(const struct tree *t)
{
	struct stat st;

	cr_assert_eq(stat(t->lock, &st), 0);
	cr_assert_eq(st.st_mode & 0777, 0600);
	return st.st_size;
}

/* What somebody else's end brings about is soon so, not at once. */
static bool soon_before(const struct tree *t)
{
	for (unsigned int i = 0; i < 1000; i++) {
		if (is_before(t) && !lock_size(t))
			return true;
		poll(NULL, 0, 10);
	}
	return false;
}

static const struct ksm_pace fastest = {.kind = KSM_PACE_FASTEST};

static int try_at(struct tree *t, struct ksm_driver *d, const char *pace, struct ob_err *e)
{
	struct ksm_pace p;

	cr_assert_eq(ksm_pace_parse(pace, &p), 0, "%s", pace);
	return ksm_driver_start_at(d, t->self, t->lock, &p, t->root, e);
}

static void start_at(struct tree *t, struct ksm_driver *d, const char *pace)
{
	struct ob_err e = {""};

	cr_assert_eq(try_at(t, d, pace, &e), 0, "%s", e.msg);
}

static void start(struct tree *t, struct ksm_driver *d)
{
	start_at(t, d, "fastest");
}

/* A run in a process of its own, to be killed. Returns when its guardian is ready. */
static pid_t start_run(struct tree *t, int *guardian)
{
	int p[2];
	pid_t pid;

	cr_assert_eq(pipe(p), 0);
	pid = fork();
	if (!pid) {
		struct ksm_driver d;
		struct ob_err e;
		int r = ksm_driver_start_at(&d, t->self, t->lock, &fastest, t->root, &e);

		if (write(p[1], r ? &r : &d.guardian_pid, sizeof(int)) != sizeof(int))
			_exit(1);
		for (;;)
			pause();
	}
	close(p[1]);
	cr_assert_eq(read(p[0], guardian, sizeof(int)), sizeof(int));
	cr_assert_gt(*guardian, 0, "%s", strerror(-*guardian));
	close(p[0]);
	return pid;
}

static void kill_run(pid_t pid)
{
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

/* --- tests ----------------------------------------------------------------------------------- */

Test(guardian, one_user, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;
	char value[KSM_VALUE_MAX];

	start(&t, &d);
	cr_assert(is_fastest(&t));
	cr_assert_gt(lock_size(&t), 0);
	cr_assert_eq(ksm_sysfs_get(t.root, "max_page_sharing", value, sizeof(value)), 0);
	cr_assert_str_eq(value, "256");
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));
	cr_assert_eq(lock_size(&t), 0);
	ksm_driver_stop(&d); /* stopped twice is stopped */
	tree_free(&t);
}

Test(guardian, two_users_in_any_order, .timeout = 60)
{
	struct tree t = tree_new();

	for (unsigned int second_first = 0; second_first < 2; second_first++) {
		struct ksm_driver d[2];

		start(&t, &d[0]);
		start(&t, &d[1]);
		ksm_driver_stop(&d[second_first]);
		cr_assert(is_fastest(&t), "one still uses it");
		ksm_driver_stop(&d[!second_first]);
		cr_assert(is_before(&t));
	}
	tree_free(&t);
}

Test(guardian, parent_killed, .timeout = 60)
{
	struct tree t = tree_new();
	int guardian;
	pid_t pid = start_run(&t, &guardian);

	cr_assert(is_fastest(&t));
	kill_run(pid);
	cr_assert(soon_before(&t));
	tree_free(&t);
}

Test(guardian, ignores_the_terminal, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;

	start(&t, &d);
	cr_assert_eq(getsid(d.guardian_pid), d.guardian_pid, "a session of its own");
	kill(d.guardian_pid, SIGINT);
	kill(d.guardian_pid, SIGTERM);
	kill(d.guardian_pid, SIGHUP);
	cr_assert_eq(waitpid(d.guardian_pid, NULL, WNOHANG), 0);
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));
	tree_free(&t);
}

Test(guardian, killed_and_its_run_recovers, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;

	start(&t, &d);
	kill(d.guardian_pid, SIGKILL);
	ksm_driver_stop(&d);
	cr_assert(is_before(&t), "by one more guardian, at once");
	cr_assert_eq(lock_size(&t), 0);
	cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1, "and that one is gone");
	tree_free(&t);
}

Test(guardian, killed_and_nothing_to_start_another_from, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;

	start(&t, &d);
	kill(d.guardian_pid, SIGKILL);
	d.self_exe = "/nowhere";
	ksm_driver_stop(&d);
	cr_assert(is_fastest(&t), "nobody put it back");
	cr_assert_gt(lock_size(&t), 0, "and what it was is still known");
	start(&t, &d);
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));
	tree_free(&t);
}

Test(guardian, killed_with_its_run_and_the_next_run_recovers, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;
	int guardian;
	pid_t pid = start_run(&t, &guardian);

	kill(guardian, SIGKILL);
	kill_run(pid);
	cr_assert(is_fastest(&t), "nobody put it back");
	start(&t, &d);
	cr_assert(is_fastest(&t));
	ksm_driver_stop(&d);
	cr_assert(is_before(&t), "the originals, not what was found");
	tree_free(&t);
}

Test(guardian, killed_beside_another, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d[2];

	start(&t, &d[0]);
	start(&t, &d[1]);
	kill(d[0].guardian_pid, SIGKILL);
	ksm_driver_stop(&d[0]);
	cr_assert(is_fastest(&t));
	ksm_driver_stop(&d[1]);
	cr_assert(is_before(&t), "by the one that did not save them");
	tree_free(&t);
}

static void expect_value(const struct tree *t, enum ksm_setting which, const char *value)
{
	struct ksm_settings s;

	cr_assert_eq(ksm_settings_read(t->root, &s), 0);
	cr_assert_str_eq(s.value[which], value, "%s", ksm_setting_name[which]);
}

/* Each pace sets what it says, and all of it comes back. */
Test(guardian, paces, .timeout = 60)
{
	/* clang-format off */
	static const struct {
		const char *pace, *pages, *sleep, *mode, *max_cpu, *zero;
	} want[] = {
		{"fastest",   "10007", "0",    "none",      "50", "1"},
		{"default",   "100",     "20",   "none",      "50", "0"},
		/* On a real kernel pages_to_scan is the advisor's then; nobody else sets it. */
		{"advisor",   "100",     "20",   "scan-time", "70", "0"},
		{"sleep:1234", "1000001", "1234", "none",     "50", "1"},
	};
	/* clang-format on */
	struct tree t = tree_new();
	struct ksm_driver d;

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(want); i++) {
		start_at(&t, &d, want[i].pace);
		expect_value(&t, KSM_SET_PAGES_TO_SCAN, want[i].pages);
		expect_value(&t, KSM_SET_SLEEP_MILLISECS, want[i].sleep);
		expect_value(&t, KSM_SET_ADVISOR_MODE, want[i].mode);
		expect_value(&t, KSM_SET_ADVISOR_MAX_CPU, want[i].max_cpu);
		expect_value(&t, KSM_SET_USE_ZERO_PAGES, want[i].zero);
		expect_value(&t, KSM_SET_RUN, "1");
		ksm_driver_stop(&d);
		cr_assert(is_before(&t), "%s", want[i].pace);
	}
	tree_free(&t);
}

Test(guardian, an_advisor_that_this_kernel_lacks, .timeout = 60)
{
	struct tree t = tree_new();
	struct ob_err e = {""};
	struct ksm_driver d;
	char path[256];

	snprintf(path, sizeof(path), "%s/" KSM "/advisor_mode", t.root);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(ksm_settings_read(t.root, &t.before), 0);
	cr_assert_eq(try_at(&t, &d, "advisor", &e), -ENOENT);
	cr_assert(strstr(e.msg, "advisor"), "%s", e.msg);
	cr_assert(is_before(&t));
	cr_assert_eq(lock_size(&t), 0);
	tree_free(&t);
}

Test(guardian, users_of_another_pace, .timeout = 60)
{
	static const char *const other[] = {"default", "advisor", "sleep:0", "sleep:21"};
	struct tree t = tree_new();
	struct ksm_driver d[2];

	start_at(&t, &d[0], "sleep:20");
	for (unsigned int i = 0; i < OB_ARRAY_SIZE(other); i++) {
		struct ob_err e = {""};

		cr_assert_eq(try_at(&t, &d[1], other[i], &e), -EBUSY, "%s", e.msg);
		cr_assert(strstr(e.msg, "sleep:20") && strstr(e.msg, other[i]), "%s", e.msg);
		expect_value(&t, KSM_SET_SLEEP_MILLISECS, "20");
	}
	start_at(&t, &d[1], "sleep:20");
	ksm_driver_stop(&d[0]);
	expect_value(&t, KSM_SET_PAGES_TO_SCAN, "1000001");
	ksm_driver_stop(&d[1]);
	cr_assert(is_before(&t));
	tree_free(&t);
}

/* What a killed guardian left, another one takes over at its own pace, and does not lose. */
Test(guardian, left_over_at_another_pace, .timeout = 60)
{
	struct tree t = tree_new();
	struct ob_err e = {""};
	struct ksm_driver d;
	int guardian;
	pid_t pid = start_run(&t, &guardian);
	off_t size;

	size = lock_size(&t);
	kill(guardian, SIGKILL);
	kill_run(pid);
	start_at(&t, &d, "default");
	expect_value(&t, KSM_SET_PAGES_TO_SCAN, "100");
	expect_value(&t, KSM_SET_SLEEP_MILLISECS, "20");
	cr_assert_eq(lock_size(&t), size);
	{
		struct ksm_driver late;

		cr_assert_eq(try_at(&t, &late, "fastest", &e), -EBUSY, "%s", e.msg);
	}
	ksm_driver_stop(&d);
	cr_assert(is_before(&t), "the originals");
	tree_free(&t);
}

#define RUNS 4

/* Runs start and are ended, killed, or lose their guardian, in any order and at the same time. */
Test(guardian, random_lives, .timeout = 120)
{
	struct tree t = tree_new();
	uint64_t s = 20240607;
	pid_t pid[RUNS] = {0};
	int guardian[RUNS];
	unsigned int n = 0;

	for (unsigned int step = 0; step < 120; step++) {
		unsigned int i;

		s = s * 6364136223846793005ULL + 1442695040888963407ULL;
		i = (unsigned int)(s >> 40) % RUNS;
		if (!pid[i]) {
			pid[i] = start_run(&t, &guardian[i]);
			n++;
		} else {
			if ((s >> 50) % 4 == 0)
				kill(guardian[i], SIGKILL);
			kill_run(pid[i]);
			pid[i] = 0;
			n--;
		}
		if (n && pid[i])
			cr_assert(is_fastest(&t), "step %u", step);
	}
	/* All at once. */
	for (unsigned int i = 0; i < RUNS; i++)
		if (pid[i])
			kill(pid[i], SIGKILL);
	for (unsigned int i = 0; i < RUNS; i++)
		if (pid[i])
			waitpid(pid[i], NULL, 0);
	/* Should the last guardian have been among the killed, one more run does it. */
	pid[0] = start_run(&t, &guardian[0]);
	kill_run(pid[0]);
	cr_assert(soon_before(&t));
	tree_free(&t);
}

Test(guardian, many_at_once, .timeout = 120)
{
	struct tree t = tree_new();
	pid_t pid[12];

	for (unsigned int round = 0; round < 4; round++) {
		for (unsigned int i = 0; i < 12; i++) {
			pid[i] = fork();
			if (!pid[i]) {
				struct ksm_driver d;
				struct ob_err e;

				if (ksm_driver_start_at(&d, t.self, t.lock, &fastest, t.root, &e))
					_exit(1);
				if (!is_fastest(&t))
					_exit(2);
				ksm_driver_stop(&d);
				_exit(0);
			}
		}
		for (unsigned int i = 0; i < 12; i++) {
			int status;

			cr_assert_eq(waitpid(pid[i], &status, 0), pid[i]);
			cr_assert(WIFEXITED(status) && !WEXITSTATUS(status), "run %u: %x", i,
				  status);
		}
		cr_assert(is_before(&t), "after all have waited for their guardians");
	}
	tree_free(&t);
}

Test(guardian, settings_that_this_kernel_lacks, .timeout = 60)
{
	struct tree t = tree_new();
	struct ksm_driver d;
	char path[256];

	snprintf(path, sizeof(path), "%s/" KSM "/advisor_mode", t.root);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(ksm_settings_read(t.root, &t.before), 0);
	start(&t, &d);
	cr_assert_eq(access(path, F_OK), -1, "nothing is made that was not there");
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));
	tree_free(&t);
}

static void expect_error(struct tree *t, int err, const char *part)
{
	struct ksm_driver d;
	struct ob_err e = {""};

	cr_assert_eq(ksm_driver_start_at(&d, t->self, t->lock, &fastest, t->root, &e), -err, "%s",
		     e.msg);
	cr_assert_not_null(strstr(e.msg, part), "%s", e.msg);
	cr_assert_null(strchr(e.msg, '\n'), "one line");
}

Test(guardian, says_what_is_wrong, .timeout = 60)
{
	struct tree t = tree_new();
	char root[64];

	strcpy(root, t.root);
	snprintf(t.root, sizeof(t.root), "%s/none", root);
	expect_error(&t, ENOENT, "CONFIG_KSM");
	strcpy(t.root, root);

	put(&t, ".", "lock", "precious data of somebody\n");
	chmod(t.lock, 0600);
	expect_error(&t, EINVAL, "not saved KSM settings");
	cr_assert(is_before(&t));
	cr_assert_eq(lock_size(&t), 26, "and it is not touched");

	cr_assert_eq(unlink(t.lock), 0);
	cr_assert_eq(symlink("elsewhere", t.lock), 0);
	expect_error(&t, ELOOP, "lock");
	cr_assert_eq(unlink(t.lock), 0);

	snprintf(t.self, sizeof(t.self), "%s/nothing", t.root);
	expect_error(&t, ENOENT, "guardian");
	self_path(&t);

	/* What is cut off was written before anything was changed. */
	put(&t, ".", "lock", "overbook saved KSM settings 1\nrun 1\npages_to_s");
	chmod(t.lock, 0600);
	{
		struct ksm_driver d;

		start(&t, &d);
		ksm_driver_stop(&d);
	}
	cr_assert(is_before(&t));
	tree_free(&t);
}

/* Two roots over one kernel: the second sees the settings of the first, but not its lock. */
Test(guardian, driven_from_another_root, .timeout = 60)
{
	struct tree t = tree_new(), other = t;
	struct ksm_driver d;
	struct ob_err e = {""};

	snprintf(other.lock, sizeof(other.lock), "%s/lock2", t.root);
	start(&t, &d);
	expect_error(&other, EBUSY, "echo 20 >sleep_millisecs");
	cr_assert(is_fastest(&t), "the first is not disturbed");
	cr_assert_eq(lock_size(&other), 0, "its settings are nobody's originals");
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));
	start(&other, &d);
	ksm_driver_stop(&d);
	cr_assert(is_before(&t));

	/* Left behind: by hand, as the line says, and all is well. */
	put(&t, KSM, "run", "1\n");
	put(&t, KSM, "pages_to_scan", "10007\n");
	put(&t, KSM, "sleep_millisecs", "0\n");
	expect_error(&t, EBUSY, "another overbook");
	cr_assert_eq(ksm_driver_start_at(&d, t.self, t.lock, &fastest, t.root, &e), -EBUSY);
	cr_assert_lt(strlen(e.msg) - strlen(t.root), 180, "fits into the note of a run: %s", e.msg);
	put(&t, KSM, "run", "0\n");
	expect_error(&t, EBUSY, "another overbook"); /* it may be holding still to read */
	put(&t, KSM, "pages_to_scan", "1000001\n");
	put(&t, KSM, "sleep_millisecs", "77\n");
	expect_error(&t, EBUSY, "another overbook");
	put(&t, KSM, "pages_to_scan", "100\n");
	start(&t, &d);
	ksm_driver_stop(&d);
	put(&t, KSM, "sleep_millisecs", "20\n");
	cr_assert(is_before(&t));
	tree_free(&t);
}

Test(guardian, a_setting_that_fails_is_undone, .timeout = 60)
{
	/* A setting that can be read, and written by nobody. Others are set before it. */
	static const char fixed[] = "/proc/sys/kernel/ostype";
	struct tree t = tree_new();
	char path[256];

	snprintf(path, sizeof(path), "%s/" KSM "/use_zero_pages", t.root);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(symlink(fixed, path), 0);
	cr_assert_eq(ksm_settings_read(t.root, &t.before), 0);
	cr_assert_lt(open(fixed, O_WRONLY | O_CLOEXEC), 0);
	expect_error(&t, errno, "use_zero_pages");
	cr_assert(is_before(&t));
	cr_assert_eq(lock_size(&t), 0);
	tree_free(&t);
}

Test(guardian, counters_of_a_tree)
{
	struct tree t = tree_new();
	struct ksm_sysfs_counters c;

	cr_assert_eq(ksm_sysfs_read_at(t.root, &c), -ENOENT);
	put(&t, KSM, "full_scans", "12\n");
	put(&t, KSM, "pages_shared", "34\n");
	put(&t, KSM, "pages_sharing", "56\n");
	put(&t, KSM, "pages_unshared", "78\n");
	put(&t, KSM, "pages_volatile", "9\n");
	put(&t, "proc/77", "stat",
	    "77 (ksmd) S 2 0 0 0 -1 2129984 0 0 0 0 150 250 0 0 25 5 1 0 110 0 0\n");
	cr_assert_eq(ksm_sysfs_read_at(t.root, &c), 0);
	cr_assert_eq(c.full_scans, 12);
	cr_assert_eq(c.pages_shared, 34);
	cr_assert_eq(c.pages_sharing, 56);
	cr_assert_eq(c.zero_pages, 0, "an older kernel");
	cr_assert_eq(c.ksmd_cpu_ns, 400 * (OB_NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK)));
	put(&t, "proc/77", "schedstat", "4001002003 55 66\n");
	cr_assert_eq(ksm_sysfs_read_at(t.root, &c), 0);
	cr_assert_eq(c.ksmd_cpu_ns, 4001002003, "to the ns where the kernel says it");
	put(&t, KSM, "ksm_zero_pages", "3\n");
	put(&t, KSM, "general_profit", "-4096\n");
	cr_assert_eq(ksm_sysfs_read_at(t.root, &c), 0);
	cr_assert_eq(c.zero_pages, 3);
	cr_assert_eq(c.general_profit, -4096);
	put(&t, KSM, "pages_sharing", "many\n");
	cr_assert_eq(ksm_sysfs_read_at(t.root, &c), -EINVAL);
	tree_free(&t);
}

/* On this host's own settings; beside other users,
 * which is why it goes by the lock that all use. */
Test(guardian, the_real_ones, .timeout = 60)
{
	struct ksm_settings before, now;
	struct ksm_sysfs_counters c;
	struct ksm_driver d;
	struct tree t;
	struct ob_err e = {""};
	int fd;

	if (access("/sys/kernel/mm/ksm/run", W_OK))
		cr_skip_test("Linux KSM cannot be set up here (needs root and CONFIG_KSM)");
	fd = open("/run/overbook-ksm.lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		bool used = flock(fd, LOCK_EX | LOCK_NB) != 0 || lseek(fd, 0, SEEK_END) != 0;

		close(fd);
		if (used)
			cr_skip_test("somebody else drives Linux KSM just now");
	}
	self_path(&t);
	cr_assert_eq(ksm_settings_read("", &before), 0);
	cr_assert_eq(ksm_driver_start(&d, t.self, NULL, &fastest, &e), 0, "%s", e.msg);
	cr_assert_eq(ksm_settings_read("", &now), 0);
	cr_assert_str_eq(now.value[KSM_SET_RUN], "1");
	cr_assert_str_eq(now.value[KSM_SET_SLEEP_MILLISECS], "0");
	cr_assert_str_eq(now.value[KSM_SET_PAGES_TO_SCAN], "10007");
	cr_assert_eq(ksm_sysfs_read(&c), 0);
	ksm_driver_stop(&d);
	cr_assert_eq(ksm_settings_read("", &now), 0);
	cr_assert_eq(memcmp(&now, &before, sizeof(now)), 0);
}
