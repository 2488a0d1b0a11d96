/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_kvm.c: can this host run guests? The device, the right to use it, its API version, how it
 * maps guest memory, the capabilities that we need, and whether it makes a VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "kernel/compat.h"

struct kvm_need {
	int cap;
	const char *name;
	int least; /* the answer must be at least this */
	bool required;
	const char *need;
};

static const struct kvm_need kvm_needs[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY", 1, true, "guest memory that is ours to map"},
	{KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU", 1, true,
	 "merging: what we change in our mappings, the guest must see"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", 1, true,
	 "parking a guest without a race"},
	{KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS", 8, true, "guest memory with holes"},
	{KVM_CAP_MAX_VCPUS, "KVM_CAP_MAX_VCPUS", 1, true, "any vCPU at all"},
	{KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", 1, false,
	 "scanning only what a guest has written"},
	{KVM_CAP_DIRTY_LOG_RING, "KVM_CAP_DIRTY_LOG_RING", 1, false, "migration, later"},
	{KVM_CAP_MEMORY_FAULT_INFO, "KVM_CAP_MEMORY_FAULT_INFO", 1, false,
	 "saying where a guest's access failed"},
};

static void kvm_mode(struct doctor *d)
{
	enum kvm_mode m = kvm_mode_detect();

	if (m == KVM_MODE_TDP)
		doctor_add(d, "kvm mode", DOCTOR_OK, "full speed", "",
			   "%s: nested paging (EPT or NPT)", kvm_mode_name(m));
	else
		doctor_add(d, "kvm mode", DOCTOR_NOTE, "full speed of unmodified Linux guests",
			   m == KVM_MODE_SHADOW ? "load the module with nested paging: modprobe "
						  "kvm_intel ept=1, or kvm_amd npt=1"
						: "none here: it takes a CPU with VMX or SVM, "
						  "switched on in the firmware",
			   "%s%s", kvm_mode_name(m),
			   m == KVM_MODE_SOFTWARE ? ": shadow page tables and no hardware below; "
						    "the microguest runs well, Linux guests boot "
						    "slowly"
			   : m == KVM_MODE_SHADOW
				   ? ": shadow page tables; page-table work of guests is slow"
				   : ": /proc does not tell");
}

static void kvm_caps(struct doctor *d, int fd)
{
	for (size_t i = 0; i < OB_ARRAY_SIZE(kvm_needs); i++) {
		const struct kvm_need *k = &kvm_needs[i];
		int v = ioctl(fd, KVM_CHECK_EXTENSION, k->cap);
		bool ok = v >= k->least;

		doctor_add(d, strchr(k->name + 4, '_') + 1, ok ? DOCTOR_OK : DOCTOR_LACK, k->need,
			   "a newer host kernel (5.15 or later)", "%s%d", ok ? "" : "no, says ", v)
			->required = k->required;
	}
}

/* Make a VM and drop it: fails where another hypervisor holds the CPU, which no capability says. */
static void kvm_vm(struct doctor *d, int fd)
{
	int vm = ioctl(fd, KVM_CREATE_VM, 0);
	int err = errno;

	if (vm >= 0) {
		close(vm);
		doctor_add(d, "kvm makes a VM", DOCTOR_OK, "booting guests", "", "yes")->required =
			true;
		return;
	}
	doctor_add(d, "kvm makes a VM", DOCTOR_LACK, "booting guests",
		   err == EBUSY ? "another hypervisor holds the CPU: stop it"
				: "see dmesg for what kvm says",
		   "no: %s", strerror(err))
		->required = true;
}

void doctor_kvm(struct doctor *d, const char *kvm_path)
{
	static const char need[] = "booting guests";
	char exe[PATH_MAX];
	ssize_t n;
	int version, err, fd = open(kvm_path, O_RDWR | O_CLOEXEC);

	err = errno;
	if (fd < 0) {
		const char *advice = "see dmesg for what kvm says";

		if (err == ENOENT || err == ENXIO || err == ENODEV)
			advice = "sudo modprobe kvm_intel (or kvm_amd); virtualization on in the "
				 "firmware";
		else if (err == EACCES || err == EPERM)
			advice = kvm_access_advice(kvm_path, d->kvm_advice, sizeof(d->kvm_advice));
		doctor_add(d, "kvm device", DOCTOR_LACK, need, advice, "%s: %s", kvm_path,
			   strerror(err))
			->required = true;
		return;
	}
	doctor_add(d, "kvm device", DOCTOR_OK, need, "", "%s opens", kvm_path)->required = true;
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	doctor_add(d, "kvm API", version == KVM_API_VERSION ? DOCTOR_OK : DOCTOR_LACK, need,
		   "a Linux KVM of 2007 or later", "version %d", version)
		->required = true;
	if (version == KVM_API_VERSION) {
		kvm_mode(d);
		kvm_caps(d, fd);
		kvm_vm(d, fd);
		n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
		exe[n < 0 ? 0 : n] = '\0';
		doctor_guests(d, fd, kvm_mode_detect(), exe);
	}
	close(fd);
}
