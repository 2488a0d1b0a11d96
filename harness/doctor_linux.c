/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor_linux.c: which guests this host runs at full speed, and why others not. The microguest asks
 * of KVM what kvm_needs in doctor_kvm.c says, and has been written so that it runs well without
 * hardware below KVM. Linux needs a PC, and runs most of its boot in ring 0, which a KVM without
 * hardware emulates instruction by instruction.
 */
#include <libgen.h>
#include <limits.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness/doctor.h"
#include "harness/opts_linux.h"

#define NEED_LINUX "Linux guests (--guest linux, --kernel)"

static void speed(struct doctor *d, int fd, enum kvm_mode mode)
{
	char lacks[PC_LACKS_MAX];

	if (pc_lacks(fd, lacks, sizeof(lacks))) {
		doctor_add(d, "linux guests", DOCTOR_LACK, NEED_LINUX,
			   "a KVM with its interrupt chips in the kernel (KVM_CAP_...)",
			   "no: this KVM lacks%s", lacks);
		return;
	}
	switch (mode) {
	case KVM_MODE_TDP:
		doctor_add(d, "linux guests", DOCTOR_OK, NEED_LINUX, "", "at full speed");
		return;
	case KVM_MODE_SHADOW:
		doctor_add(d, "linux guests", DOCTOR_NOTE, NEED_LINUX,
			   "nested paging (kvm mode, above) makes them as fast as they can be",
			   "nearly at full speed: KVM shadows their page tables");
		return;
	case KVM_MODE_SOFTWARE:
		doctor_add(d, "linux guests", DOCTOR_NOTE, NEED_LINUX,
			   "make lab runs them in a machine of its own, on nested and on shadow "
			   "paging; or a CPU with VMX or SVM, switched on in the firmware",
			   "not at full speed: no VMX or SVM, so they boot in minutes");
		return;
	case KVM_MODE_UNKNOWN:
		break;
	}
	doctor_add(d, "linux guests", DOCTOR_NOTE, NEED_LINUX,
		   "try one: overbook run --guest linux", "/proc does not tell how fast");
}

static void image(struct doctor *d, const char *self_exe)
{
	static const char *const names[] = {"vmlinuz", "initrd.img"};
	char buf[PATH_MAX], path[PATH_MAX + 64], *dir;
	const char *missing = NULL;

	snprintf(buf, sizeof(buf), "%s", self_exe);
	dir = dirname(buf);
	for (size_t i = 0; i < OB_ARRAY_SIZE(names) && !missing; i++) {
		snprintf(path, sizeof(path), "%s/" LINUX_FOLDER "/%s", dir, names[i]);
		if (access(path, R_OK))
			missing = names[i];
	}
	if (missing)
		doctor_add(d, "linux image", DOCTOR_NOTE, "--guest linux without --kernel",
			   "make linux fetches Debian's cloud kernel and makes its initrd",
			   "no " LINUX_FOLDER "/%s next to overbook", missing);
	else
		doctor_add(d, "linux image", DOCTOR_OK, "--guest linux without --kernel", "",
			   LINUX_FOLDER "/ is next to overbook");
}

void doctor_guests(struct doctor *d, int fd, enum kvm_mode mode, const char *self_exe)
{
	bool knows = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0 &&
		     ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_MMU) > 0;

	doctor_add(d, "microguest", knows ? DOCTOR_OK : DOCTOR_LACK, "the default guest",
		   "what is REQUIRED above", "%s", knows ? "at full speed" : "no");
	speed(d, fd, mode);
	image(d, self_exe);
}
