/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_probe.c: what the probing of kernel mechanisms finds on a kernel that lacks one, as a
 * seccomp filter plays it: a system call that is refused, or that says yes and does nothing. And
 * that it leaves nothing behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "harness/doctor.h"
#include "kernel/probe.h"

/* From now on, system call @nr of this thread returns -@err; 0 makes it do nothing and succeed. */
static void play(unsigned int nr, unsigned int err)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog prog = {.len = OB_ARRAY_SIZE(f), .filter = f};

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		cr_skip_test("no seccomp filters here: %s", strerror(errno));
}

static const struct doctor_check *find(const struct doctor *d, const char *name)
{
	for (unsigned int i = 0; i < d->n; i++)
		if (strcmp(d->check[i].name, name) == 0)
			return &d->check[i];
	cr_assert_fail("the doctor does not speak of '%s'", name);
	return NULL;
}

static unsigned int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	cr_assert(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static uint64_t mapped_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[256];

	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmSize: %llu", &kib) == 1)
			break;
	fclose(f);
	return kib;
}

Test(probe, leaves_nothing_behind)
{
	struct probe_memory first, again;
	unsigned int fds;
	uint64_t kib;

	probe_memory(&first);
	fds = descriptors();
	kib = mapped_kib();
	for (unsigned int i = 0; i < 20; i++)
		probe_memory(&again);
	cr_expect_eq(descriptors(), fds);
	cr_expect_leq(mapped_kib(), kib + 1024);
	cr_expect_eq(first.uffd_move, again.uffd_move);
	cr_expect_eq(first.give_back_vector, again.give_back_vector);
	cr_expect_eq(first.pagemap_pfn, again.pagemap_pfn);
	cr_expect_eq(first.thp, again.thp);
}

/* A process that has guests has switched huge pages off for itself: tried all the same, and off
 * again afterwards. */
Test(probe, huge_pages_stay_switched_off)
{
	struct probe_memory before, p;

	probe_memory(&before);
	cr_expect_eq(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	probe_memory(&p);
	cr_expect_eq(p.thp, before.thp);
	cr_expect_eq(p.thp_fault == -EOPNOTSUPP, before.thp_fault == -EOPNOTSUPP);
	cr_expect_eq(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
}

Test(probe, scattered_pages_need_runs_where_the_call_is_refused)
{
	struct doctor d = {0};
	struct probe_memory p;

	play(SYS_process_madvise, EPERM);
	probe_memory(&p);
	cr_expect_eq(p.give_back_vector, -EPERM);
	doctor_memory(&d);
	cr_expect_eq(find(&d, "giving pages back")->state, DOCTOR_NOTE);
	cr_expect(strstr(find(&d, "giving pages back")->found, "joined runs with vCPUs parked"));
}

/* It must have been done, not only be allowed. */
Test(probe, a_call_that_does_nothing_does_not_count)
{
	struct doctor d = {0};
	struct probe_memory p;

	play(SYS_process_madvise, 0);
	probe_memory(&p);
	cr_expect_eq(p.give_back_vector, -EIO);
	doctor_memory(&d);
	cr_expect(strstr(find(&d, "giving pages back")->found, "does nothing"));
}

Test(probe, without_userfaultfd)
{
	struct doctor d = {0};
	struct probe_memory p;

	play(SYS_userfaultfd, ENOSYS);
	probe_memory(&p);
	cr_expect_eq(p.uffd_syscall, -ENOSYS);
	cr_expect_eq(p.uffd_user_only, -ENOSYS);
	doctor_memory(&d);
	cr_expect_eq(find(&d, "userfaultfd")->state, p.uffd_device ? DOCTOR_LACK : DOCTOR_OK);
	cr_expect_eq(find(&d, "uffd user mode only")->state, DOCTOR_NOTE);
}

Test(probe, without_any_descriptor)
{
	struct doctor d = {0};
	struct probe_memory p;

	play(SYS_userfaultfd, ENOSYS);
	play(SYS_openat, EACCES); /* nor /dev/userfaultfd, nor pagemap */
	probe_memory(&p);
	cr_expect_eq(p.uffd_api, -ENODEV);
	cr_expect_eq(p.uffd_move, -ENODEV);
	cr_expect_eq(p.pagemap, -EACCES);
	cr_expect_eq(p.thp, PROBE_THP_NONE);
	doctor_memory(&d);
	cr_expect_eq(find(&d, "userfaultfd")->state, DOCTOR_LACK);
	cr_expect_eq(find(&d, "pagemap")->state, DOCTOR_LACK);
	cr_expect(find(&d, "pagemap")->required && !doctor_ready(&d));
}

/* The whole set of findings has words, and the ones that a person asks about first are there. */
Test(probe, the_doctor_says_all_of_it)
{
	struct probe_memory p;
	struct doctor d = {0};

	probe_memory(&p);
	doctor_memory(&d);
	cr_expect_eq(find(&d, "giving pages back")->state == DOCTOR_OK, !p.give_back_vector);
	if (!p.uffd_api)
		cr_expect_eq(find(&d, "uffd MOVE")->state == DOCTOR_OK, !p.uffd_move);
	if (p.thp != PROBE_THP_NONE)
		cr_expect(strstr(find(&d, "huge pages")->found, probe_thp_name(p.thp)));
	else
		cr_expect_str_eq(find(&d, "huge pages")->found, "none");
}
