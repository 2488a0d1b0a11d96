/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_probe.c: words for what kernel/probe.c found out about the mechanisms that move, watch,
 * name and give back pages; and Linux KSM, which is only looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "kernel/probe.h"

static const char *outcome(int r)
{
	return r ? strerror(-r) : "yes";
}

static void uffd(struct doctor *d, const struct probe_memory *p)
{
	bool any = !p->uffd_syscall || !p->uffd_device;

	doctor_add(d, "userfaultfd", any ? DOCTOR_OK : DOCTOR_LACK,
		   "swap, compression and sampling of guest pages (KVM faults are kernel faults)",
		   "sudo sysctl vm.unprivileged_userfaultfd=1, or "
		   "sudo setfacl -m u:$USER:rw /dev/userfaultfd",
		   "system call: %s; /dev/userfaultfd: %s", outcome(p->uffd_syscall),
		   outcome(p->uffd_device));
	doctor_add(d, "uffd user mode only", p->uffd_user_only ? DOCTOR_NOTE : DOCTOR_OK,
		   "tests of our own memory; it does not serve guests",
		   "a host kernel of 5.11 or later", "%s", outcome(p->uffd_user_only));
	if (p->uffd_api) {
		if (p->uffd_api != -ENODEV)
			doctor_add(d, "uffd API", DOCTOR_LACK,
				   "swap and compression of guest pages", "a newer host kernel",
				   "refused: %s", strerror(-p->uffd_api));
		return;
	}
	doctor_add(d, "uffd MOVE", p->uffd_move ? DOCTOR_LACK : DOCTOR_OK,
		   "taking pages away without a copy (swap, compression)",
		   "a host kernel of 6.8 or later; without it pages are copied", "%s",
		   p->uffd_move == -EOPNOTSUPP ? "this kernel has it not"
		   : p->uffd_move	       ? strerror(-p->uffd_move)
					       : "moves a page of our own, and back");
}

static void uffd_features(struct doctor *d, const struct probe_memory *p)
{
	const struct {
		bool has;
		const char *name, *need, *advice;
	} feats[] = {
		{p->uffd_wp_async, "uffd WP_ASYNC", "watching writes to memory that no guest maps",
		 "a host kernel of 6.7 or later"},
		{p->uffd_wp, "uffd write-protect", "watching writes",
		 "a host kernel of 5.7 or later"},
		{p->uffd_thread_id, "uffd thread id", "telling which vCPU waits",
		 "a host kernel of 4.14 or later"},
	};

	for (size_t i = 0; !p->uffd_api && i < OB_ARRAY_SIZE(feats); i++)
		doctor_add(d, feats[i].name, feats[i].has ? DOCTOR_OK : DOCTOR_LACK, feats[i].need,
			   feats[i].advice, "%s", feats[i].has ? "yes" : "this kernel has it not");
}

static void pagemap(struct doctor *d, const struct probe_memory *p)
{
	if (p->pagemap) {
		doctor_add(d, "pagemap", DOCTOR_LACK, "the page-state map", "mount /proc", "%s",
			   strerror(-p->pagemap))
			->required = true;
		return;
	}
	doctor_add(d, "pagemap", p->pagemap_present ? DOCTOR_OK : DOCTOR_LACK,
		   "the page-state map: which pages are present, and which are broken off",
		   "mount /proc without restrictions", "%s",
		   p->pagemap_present ? "readable" : "does not show a page of our own")
		->required = true;
	doctor_add(d, "host frame numbers", p->pagemap_pfn ? DOCTOR_OK : DOCTOR_NOTE,
		   "the split of what Linux KSM saves, and the check of shared frames",
		   "run as root (CAP_SYS_ADMIN); our own merging is measured without", "%s",
		   p->pagemap_pfn ? "readable" : "hidden from us");
	doctor_add(d, "PAGEMAP_SCAN", p->pagemap_scan ? DOCTOR_NOTE : DOCTOR_OK,
		   "faster reading of page states; the plain pagemap serves as well",
		   "a host kernel of 6.7 or later", "%s",
		   p->pagemap_scan == -EIO ? "does not report a page of our own"
					   : outcome(p->pagemap_scan));
}

static void give_back(struct doctor *d, const struct probe_memory *p)
{
	static const char need[] = "taking scattered pages from guests, in batches";

	if (!p->give_back_vector)
		doctor_add(d, "giving pages back", DOCTOR_OK, need, "",
			   "process_madvise on oneself: one vectored call for scattered pages");
	else
		doctor_add(d, "giving pages back", DOCTOR_NOTE, need,
			   "a host kernel of 6.13 or later",
			   "sorted, joined runs with vCPUs parked, a call for each: "
			   "process_madvise on oneself %s",
			   p->give_back_vector == -EIO ? "does nothing here"
						       : strerror(-p->give_back_vector));
}

static void huge_pages(struct doctor *d, const struct probe_memory *p)
{
	static const char need[] = "guests on 2 MiB pages (--pages 2m, adaptive)";
	static const char enable[] =
		"echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";

	if (p->thp == PROBE_THP_NONE)
		doctor_add(d, "huge pages", DOCTOR_NOTE, need,
			   "a host kernel with CONFIG_TRANSPARENT_HUGEPAGE", "none");
	else if (p->thp == PROBE_THP_NEVER)
		doctor_add(d, "huge pages", DOCTOR_NOTE, need, enable, "never: switched off");
	else if (p->thp_fault)
		doctor_add(d, "huge pages", DOCTOR_NOTE, need,
			   "free memory in large pieces: echo 1 | sudo tee "
			   "/proc/sys/vm/compact_memory",
			   "%s, but memory of our own did not get one", probe_thp_name(p->thp));
	else if (p->thp == PROBE_THP_ALWAYS)
		doctor_add(d, "huge pages", DOCTOR_NOTE, need, enable,
			   "always: available for guests; those on 4 KiB pages are taken out of "
			   "it, other programs may move while we measure");
	else
		doctor_add(d, "huge pages", DOCTOR_OK, need, "",
			   "madvise: available for guests, and memory of our own got one");
	if (p->thp == PROBE_THP_MADVISE || p->thp == PROBE_THP_ALWAYS)
		doctor_add(d, "huge pages again", p->thp_collapse ? DOCTOR_NOTE : DOCTOR_OK,
			   "building a huge page again from small ones (--pages adaptive)",
			   "a host kernel of 6.1 or later, with free memory in large pieces",
			   "MADV_COLLAPSE: %s",
			   p->thp_collapse == -EIO ? "did nothing" : outcome(p->thp_collapse));
}

static void probe_ksm(struct doctor *d)
{
	static const char need[] = "--sharing kernel, the yardstick (Linux KSM)";
	static const char run[] = "/sys/kernel/mm/ksm/run";
	char state = '?';
	int fd = open(run, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		doctor_add(d, "ksm", DOCTOR_LACK, need, "a host kernel with CONFIG_KSM", "no %s",
			   run);
		return;
	}
	if (read(fd, &state, 1) != 1)
		state = '?';
	close(fd);
	if (access(run, W_OK) != 0)
		doctor_add(d, "ksm", DOCTOR_LACK, need,
			   "run as root; sharing off and hash need no root",
			   "there (run %c), but we may not drive it", state);
	else if (state == '1')
		doctor_add(d, "ksm", DOCTOR_NOTE, need,
			   "echo 0 | sudo tee /sys/kernel/mm/ksm/run, if nobody else uses it",
			   "running already: its work for others counts into what we measure");
	else
		doctor_add(d, "ksm", DOCTOR_OK, need, "", "there, writable, run %c", state);
}

void doctor_memory(struct doctor *d)
{
	struct probe_memory p;

	probe_memory(&p);
	uffd(d, &p);
	uffd_features(d, &p);
	pagemap(d, &p);
	give_back(d, &p);
	huge_pages(d, &p);
	probe_ksm(d);
}
